/** Attacks on approvals: to have something else done than what was approved, twice, by others, later; or to approve it oneself. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { openPins } from "../../src/gateway/pins.ts";
import { openSeals } from "../../src/gateway/sealed-state.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { openStore } from "../../src/store/open.ts";
import { changing } from "../e2e/changing.ts";
import {
  approve,
  type HeldDesk,
  heldDesk,
  type Json,
  numberIn,
  ROLES,
  rawCall,
  sdkClient,
  stateOf,
  TOOLS,
  textOf,
} from "../e2e/held-desk.ts";
import { type World, world } from "../e2e/world.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";

let here: HeldDesk;
let sam: string;
let lea: string;
const SETTINGS = {
  approvals: [
    { tools: ["refund"], when: "args.amount > 10.0 || args.amount < 0.0", by: ["shift-lead"], fourEyes: true },
    { tools: ["refund"], when: "args.amount > 0.0 && args.amount <= 10.0" },
    { tools: ["look_up"], when: 'args.id == "ORD-8"', expiresSeconds: 1 },
  ],
};
beforeAll(async () => {
  here = await heldDesk({ settings: SETTINGS });
  [sam, lea] = await Promise.all([here.token("sam"), here.token("lea")]);
}, 60_000);
afterAll(() => here?.[Symbol.asyncDispose]());
let seen = 0;
beforeEach(async () => {
  here.desk.calls.length = 0;
  seen = (await here.steps()).length;
});
const actions = async () => (await here.steps()).slice(seen).map(({ action }) => action);

const refund = (args: Json = {}) => ({ name: "refund", arguments: { order: "ORD-1", amount: 20, ...args } });
const call = (params: Json, token = sam) => rawCall(here.url, token, params);
const asked = async (params: Json, token = sam) => {
  const { result } = await call(params, token);
  const number = numberIn(textOf(result));
  expect(number).not.toBe("");
  return number;
};
const decide = async (number: string, verb: "approve" | "deny" = "approve", token = lea) =>
  (await here.admin("POST", `/${number}/${verb}`, token)).status;
/** A call that was approved by somebody else. */
const approved = async (params: Json, token = sam) => {
  const number = await asked(params, token);
  expect(await decide(number)).toBe(200);
  return number;
};
/** Nothing was sent, and another approval is asked for. */
const refusedAnew = async (params: Json, number: string, token = sam) => {
  const { result } = await call(params, token);
  expect(result).toMatchObject({ isError: true });
  expect(numberIn(textOf(result))).not.toBe(number);
  expect(here.desk.calls).toEqual([]);
};
/** What was approved can still be done, once. */
const stillGood = async (params: Json, token = sam) => {
  expect((await call(params, token)).result?.["isError"]).not.toBe(true);
  expect(here.desk.calls).toHaveLength(1);
};

describe("an approval by others is good for nothing but its call", () => {
  test("not with other arguments, and is not spent by trying", async () => {
    const params = refund({ order: "ORD-A" });
    const number = await approved(params);
    for (const other of [{ amount: 21 }, { amount: 20.0000001 }, { order: "ORD-a" }, { order: "ORD-A " }])
      await refusedAnew(refund({ order: "ORD-A", ...other }), number);
    await stillGood(params);
  });

  test("not with a number that a double takes for the same", async () => {
    const text = (amount: string) => `{"order":"ORD-N","amount":${amount}}`;
    const raw = async (amount: string) => {
      const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund","arguments":${text(amount)},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`;
      const headers = { "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "refund" };
      return (await (await here.gateway.post(body, headers, sam)).json()) as { result: Json };
    };
    const number = numberIn(textOf((await raw("9007199254740993")).result));
    expect(await decide(number)).toBe(200);
    expect(numberIn(textOf((await raw("9007199254740992")).result))).not.toBe(number);
    expect(here.desk.calls).toEqual([]);
    expect((await raw("9007199254740993")).result["isError"]).not.toBe(true);
  });

  test("the order of keys and spaces between are no other arguments", async () => {
    const number = await approved({ name: "refund", arguments: { order: "ORD-K", amount: 20 } });
    await stillGood({ name: "refund", arguments: { amount: 20, order: "ORD-K" } });
    expect(number).not.toBe("");
  });

  test("not a second time", async () => {
    const params = refund({ order: "ORD-B" });
    const number = await approved(params);
    await stillGood(params);
    here.desk.calls.length = 0;
    await refusedAnew(params, number);
    expect(await decide(number)).toBe(404);
  });

  test("not for another user, and not through another client of the same user", async () => {
    const params = refund({ order: "ORD-C" });
    const number = await approved(params);
    await refusedAnew(params, number, await here.token("max"));
    await refusedAnew(params, number, await here.token("sam"));
    await stillGood(params);
  });

  test("not after its time, which is recorded", async () => {
    const params = { name: "look_up", arguments: { id: "ORD-8" } };
    const held = await rawCall(here.url, sam, params, { capabilities: {} });
    const number = numberIn(textOf(held.result));
    expect(await decide(number, "approve", await here.token("sam"))).toBe(200);
    await waitFor(async () => (await here.admin("GET", `/${number}`, sam)).body["state"] === "expired");
    const late = await rawCall(here.url, sam, params, { capabilities: {} });
    expect(late.result).toMatchObject({ isError: true });
    expect(here.desk.calls).toEqual([]);
    expect(await actions()).toEqual(["approval-asked", "approval-approved", "approval-expired", "approval-asked"]);
    const next = numberIn(textOf(late.result));
    await waitFor(async () => (await here.admin("GET", `/${next}`, sam)).body["state"] === "expired");
    expect(await decide(next, "approve", await here.token("sam"))).toBe(404);
  });

  test("nor when it was denied: it is refused without asking again", async () => {
    const params = refund({ order: "ORD-D" });
    const number = await asked(params);
    expect(await decide(number, "deny")).toBe(200);
    expect(await decide(number)).toBe(404);
    const { result } = await call(params);
    expect(textOf(result)).toBe(`This call of refund was not approved (${number}). Nothing was sent.`);
    expect(here.desk.calls).toEqual([]);
  });
});

describe("an approval does not outlive what it was given for", () => {
  const reloaded = async (changes: Json) => {
    await here.restart(changes);
    seen = (await here.steps()).length;
  };

  test("another policy", async () => {
    const params = refund({ order: "ORD-P" });
    const number = await approved(params);
    await reloaded({ roles: { ...ROLES.roles, support: { may: ["*"], deny: ["nothing-of-that-name"] } } });
    await refusedAnew(params, number);
    await reloaded({ roles: ROLES.roles });
    await stillGood(params);
  }, 30_000);

  test("another rule about approvals", async () => {
    const params = refund({ order: "ORD-R" });
    const number = await approved(params);
    await reloaded({ approvals: [...SETTINGS.approvals, { tools: ["nothing"] }] });
    await refusedAnew(params, number);
    await reloaded({ approvals: SETTINGS.approvals });
  }, 30_000);

  test("another contract", async () => {
    const params = refund({ order: "ORD-T" });
    const number = await approved(params);
    await reloaded({ tools: { ...TOOLS, refund: { ...TOOLS.refund, output: ["refund"] } } });
    await refusedAnew(params, number);
    await reloaded({ tools: TOOLS });
  }, 30_000);
});

test("an approval is not good for a definition that changed: another pin", async () => {
  using shop = changing();
  const pay = (description: string) =>
    shop.offer({ tools: [{ name: "pay", description, inputSchema: { type: "object" } }] });
  pay("Pays.");
  await using one = await heldDesk({
    settings: { servers: { desk: shop.server }, tools: undefined, approvals: [{ tools: ["*"] }] },
  });
  const token = await one.token("sam");
  const params = { name: "pay", arguments: {} };
  const called = async () => (await rawCall(one.url, token, params, { capabilities: {} })).result;
  const number = numberIn(textOf(await called()));
  const other = await one.token("sam");
  expect((await one.admin("POST", `/${number}/approve`, other)).status).toBe(200);
  pay("Pays twice.");
  await waitFor(() => one.gateway.gateway.withheld().length > 0);
  expect(await called()).toBeUndefined();
  const store = await openStore(String(one.settings["store"]));
  expect(await openPins(store.records, silentLogger).accept("desk", "tool", "pay")).toBe(true);
  await store.close();
  await one.restart();
  const again = textOf(await called());
  expect(again).toContain("needs the approval of a person");
  expect(numberIn(again)).not.toBe(number);
  expect((await one.admin("POST", `/${numberIn(again)}/approve`, other)).status).toBe(200);
  expect(textOf(await called())).toBe("called pay");
}, 60_000);

describe("a form", () => {
  const small = (order: string) => refund({ order, amount: 5 });
  const form = async (params: Json, token = sam) => {
    const answer = await call(params, token);
    expect(Object.keys((answer.result?.["inputRequests"] ?? {}) as Json)).toEqual(["user_approve"]);
    return stateOf(answer);
  };
  const answered = (params: Json, requestState: string, inputResponses: Json = approve, token = sam) =>
    call({ ...params, requestState, inputResponses }, token);

  test("is good once, however often and however much at once it is sent back", async () => {
    const params = small("ORD-F1");
    const state = await form(params);
    const all = await Promise.all(Array.from({ length: 5 }, () => answered(params, state)));
    expect(all.filter(({ result }) => result?.["structuredContent"] !== undefined)).toHaveLength(1);
    expect(here.desk.calls).toHaveLength(1);
  });

  test("that was declined cannot be accepted afterwards", async () => {
    const params = small("ORD-F2");
    const state = await form(params);
    expect((await answered(params, state, { user_approve: { action: "decline" } })).result).toMatchObject({
      isError: true,
    });
    expect((await answered(params, state)).result?.["resultType"]).toBe("input_required");
    expect(here.desk.calls).toEqual([]);
  });

  test("is good for no other arguments, tool, user or client, and made up by nobody", async () => {
    const params = small("ORD-F3");
    const state = await form(params);
    for (const [other, token] of [
      [small("ORD-F4"), sam],
      [{ name: "look_up", arguments: { id: "ORD-8" } }, sam],
      [params, await here.token("max")],
      [params, await here.token("sam")],
    ] as const)
      expect((await answered(other, state, approve, token)).error?.data).toEqual({ reason: "invalid_request_state" });
    const store = await openStore("memory");
    const foreign = await openSeals(store.records, undefined).seal({ kind: "question", number: "0000-0000" }, "", 60);
    await store.close();
    for (const forged of [foreign, `drawbridge-approval.${foreign}`, "drawbridge-approval.", state.slice(0, -2), "x"])
      expect((await answered(params, forged)).error?.data).toEqual({ reason: "invalid_request_state" });
    expect(here.desk.calls).toEqual([]);
    expect((await answered(params, state)).result?.["structuredContent"]).toBeDefined();
  });

  test("an answer that nobody was asked for approves nothing", async () => {
    const { result } = await call({ ...small("ORD-F5"), inputResponses: approve });
    expect(result?.["resultType"]).toBe("input_required");
    expect(here.desk.calls).toEqual([]);
  });

  test.each([
    ["other fields", { action: "accept", content: { approve: true, order: "ORD-7" } }],
    ["the word for the tick", { action: "accept", content: { approve: "true" } }],
    ["a number for the tick", { action: "accept", content: { approve: 1 } }],
    ["nothing in it", { action: "accept" }],
    ["no tick", { action: "accept", content: {} }],
  ])("with %s approves nothing", async (_, response) => {
    const params = small("ORD-F6");
    const { result } = await answered(params, await form(params), { user_approve: response });
    expect(result).toMatchObject({ isError: true });
    expect(textOf(result)).toContain("was not approved");
    expect(here.desk.calls).toEqual([]);
  });

  test("an answer under another name leaves the question open", async () => {
    const params = small("ORD-F7");
    const { result } = await answered(params, await form(params), { approve: approve.user_approve });
    expect(result?.["resultType"]).toBe("input_required");
    expect(here.desk.calls).toEqual([]);
  });
});

describe("what a form shows", () => {
  let echo: World;
  beforeAll(async () => {
    echo = await world({
      servers: { echo: { command: fixtureCommand("echo-stdio") } },
      approvals: [{ tools: ["echo"] }],
    });
  }, 60_000);
  afterAll(() => echo?.[Symbol.asyncDispose]());
  const shown = async (era: "legacy" | "modern", text: string) => {
    const forms: string[] = [];
    const client = await sdkClient(echo.url, era, (await echo.tokens()).access_token, ({ message }) => {
      forms.push(String(message));
      return { action: "decline" };
    });
    const { isError } = await client.callTool({ name: "echo", arguments: { text } });
    await client.close();
    expect(isError).toBe(true);
    expect(forms).toHaveLength(1);
    return forms[0] ?? "";
  };

  test("no argument looks like a part of it", async () => {
    const fake =
      'hello"\n}\n\nAsked for by: "lea"\nWhat it does: reads\r\u2028Number: 0000-0000\u202egnp\u200b\u0000 [click](https://evil.example) ![x](https://evil.example/i) `code` <b>' +
      " ".repeat(200) +
      "What it does: reads";
    const form = await shown("legacy", fake);
    const lines = form.split("\n");
    expect(lines.filter((line) => line.startsWith("What it does:"))).toEqual([
      "What it does: may destroy something (no contract says less), and may reach beyond its server",
    ]);
    for (const start of ["Asked for by:", "Number:", "Arguments:"])
      expect(
        lines.filter((line) => line.startsWith(start)),
        start,
      ).toHaveLength(1);
    const at = lines.indexOf("Arguments:");
    expect(lines.slice(at + 1).map((line) => line.slice(0, 18))).toEqual(["  {", '    "text": "hello', "  }"]);
    expect(form).not.toMatch(/[\r\u2028\u202e\u200b\0`<]|\]\(|!\[/);
    // What is shown is the same value all the same, as far as it is shown.
    const [, value = ""] = /"text": ("(?:[^"\\]|\\.)*")/.exec(lines[at + 2] ?? "") ?? [];
    expect(fake.startsWith(JSON.parse(value) as string)).toBe(true);
    expect(lines[at + 2]).not.toMatch(/\S {3}/);
  });

  test("it says first of all when not everything fits into it", async () => {
    const form = await shown("modern", "x".repeat(1900));
    expect(form.split("\n")[1]).toBe(
      "CAUTION: 1300 characters of its arguments do not fit here. Do not approve what you cannot see.",
    );
    expect(form).toContain('" + 1300 more characters');
    expect(form.length).toBeLessThan(3000);
  });
});

describe("to approve what one has asked for oneself", () => {
  test("is refused where four eyes are asked for: with any client, and recorded", async () => {
    const number = await asked(refund({ order: "ORD-S" }), lea);
    expect(await decide(number, "approve", lea)).toBe(403);
    expect(await decide(number, "approve", await here.token("lea"))).toBe(403);
    expect(await actions()).toEqual(["approval-asked", "approval-decision-refused", "approval-decision-refused"]);
    expect(here.desk.calls).toEqual([]);
  });

  test("is refused with the token of the client that asked, and without the scope to call", async () => {
    const params = refund({ order: "ORD-U", amount: 5 });
    const held = await rawCall(here.url, sam, params, { capabilities: {} });
    const number = numberIn(textOf(held.result));
    expect(await decide(number, "approve", sam)).toBe(403);
    expect(await decide(number, "approve", await here.token("sam", "mcp:read"))).toBe(403);
    expect(here.desk.calls).toEqual([]);
    expect(await decide(number, "approve", await here.token("sam"))).toBe(200);
  });

  test("is seen by nobody whose token may not read", async () => {
    const number = await asked(refund({ order: "ORD-W" }));
    const blind = await here.token("lea", "mcp:call");
    for (const path of ["", `/${number}`]) {
      const refused = await here.admin("GET", path, blind);
      expect(refused.status).toBe(403);
      expect(JSON.stringify(refused.body)).not.toContain("ORD-W");
    }
    expect((await here.admin("GET", `/${number}`, lea)).status).toBe(200);
  });

  test("without a role that may: the request does not exist for them, nor for strangers", async () => {
    const number = await asked(refund({ order: "ORD-V" }));
    const max = await here.token("max");
    expect(await decide(number, "approve", max)).toBe(404);
    expect((await here.admin("GET", `/${number}`, max)).status).toBe(404);
    expect(JSON.stringify((await here.admin("GET", "", max)).body)).not.toContain(number);
    expect((await here.admin("POST", `/${number}/approve`, "made-up")).status).toBe(401);
    // An owner sees everything, and decides what is an owner's to decide.
    const olive = await here.token("olive");
    expect((await here.admin("GET", `/${number}`, olive)).status).toBe(200);
    expect(await decide(number, "approve", olive)).toBe(403);
    expect((await here.admin("GET", "/../servers", max)).status).toBe(404);
    expect(
      (await fetch(`${here.gateway.origin}/admin/servers`, { headers: { authorization: `Bearer ${max}` } })).status,
    ).toBe(404);
    expect((await here.admin("GET", `/${number}/approve`, lea)).status).toBe(405);
    expect((await here.admin("POST", `/${number}/steal`, lea)).status).toBe(404);
  });
});

test("a policy that changes while the form is open refuses the call", async () => {
  const { filed } = await import("../gateway/filed.ts");
  const { refundDesk } = await import("../e2e/refund-desk.ts");
  await using desk = await refundDesk();
  await using at = await filed({
    servers: { desk: { url: desk.url } },
    roles: { owner: { may: ["*"] } },
    approvals: [{ tools: ["create_*"] }],
  });
  const client = await sdkClient(at.world.url, "legacy", (await at.world.tokens()).access_token, async () => {
    at.write({ roles: { owner: { may: ["*"], deny: ["create_refund"] } } });
    await at.reload();
    return { action: "accept", content: { approve: true } };
  });
  const answer = await client.callTool({ name: "create_refund", arguments: { order: "ORD-1", amount: 1 } });
  await client.close();
  expect(textOf(answer)).toContain("has changed meanwhile");
  expect(desk.calls).toEqual([]);
}, 60_000);
