/** Calls that a person has to approve: SDK clients of both eras, by a form and by others, over restarts and replicas. */

import type { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { fixtureCommand } from "../fixtures/processes.ts";
import {
  approve,
  type HeldDesk,
  heldDesk,
  type Json,
  numberIn,
  rawCall,
  sdkClient,
  stateOf,
  TOOLS,
  textOf,
} from "./held-desk.ts";
import { REFUND } from "./refund-desk.ts";
import { replicaOf } from "./replica.ts";
import { taskClient } from "./tasking.ts";
import { type World, world } from "./world.ts";

const REFUND_CALL = { name: "refund", arguments: { order: "ORD-1", amount: 20 } };
const actions = (steps: readonly { action: string }[]) => steps.map(({ action }) => action);
const ERAS = ["legacy", "modern"] as const;

let here: HeldDesk;
let seen = 0;
const stepsSince = async () => (await here.steps()).slice(seen);
const mark = async () => {
  seen = (await here.steps()).length;
  here.desk.calls.length = 0;
};

describe.each(ERAS)("a server of the %s era", (serverEra) => {
  beforeAll(async () => {
    here = await heldDesk({
      era: serverEra,
      settings: {
        approvals: [
          { tools: ["access:destructive"], reason: "Money leaves the house." },
          { tools: ["look_up"], when: 'args.id == "ORD-9"', by: ["shift-lead"], fourEyes: true },
        ],
      },
    });
  }, 60_000);
  afterAll(() => here?.[Symbol.asyncDispose]());
  beforeEach(mark);
  afterEach(() => {
    here.desk.before = () => undefined;
  });

  describe.each(ERAS)("and a %s client", (era) => {
    test("asks the caller with a form, and makes the call once it is ticked", async () => {
      const forms: Json[] = [];
      const client = await sdkClient(here.url, era, await here.token("sam"), (params) => {
        expect(here.desk.calls).toEqual([]);
        forms.push(params);
        return { action: "accept", content: { approve: true } };
      });
      const answer = await client.callTool(REFUND_CALL);
      await client.close();
      expect(answer.structuredContent).toMatchObject({ amount: 20 });
      expect(here.desk.calls.map(({ tool, args }) => [tool, args])).toEqual([
        ["create_refund", { order: "ORD-1", amount: 20 }],
      ]);
      expect(forms).toHaveLength(1);
      const { message, requestedSchema } = forms[0] as { message: string; requestedSchema: Json };
      expect(message).toContain('The tool "refund", "Make a refund" of the server "desk"');
      expect(message).toContain("What it does: may destroy something");
      expect(message).toContain('  "order": "ORD-1",');
      expect(message).toContain("Money leaves the house.");
      expect(requestedSchema).toMatchObject({ properties: { approve: { type: "boolean" } }, required: ["approve"] });
      const steps = await stepsSince();
      expect(actions(steps)).toEqual(["approval-asked", "approval-approved", "approval-spent"]);
      const record = (await here.calls()).at(-1);
      expect(record?.details?.["approval"]).toMatchObject({
        number: steps[0]?.details["approval"],
        state: "spent",
        via: "elicitation",
      });
    });

    test.each([
      ["declined", { action: "decline" }],
      ["dismissed", { action: "cancel" }],
      ["sent without the tick", { action: "accept", content: { approve: false } }],
    ])("sends nothing when the form is %s", async (_, response) => {
      const client = await sdkClient(here.url, era, await here.token("sam"), () => response);
      const answer = await client.callTool(REFUND_CALL);
      await client.close();
      expect(answer.isError).toBe(true);
      expect(textOf(answer)).toMatch(
        /^This call of refund was not approved \([0-9A-Z]{4}-[0-9A-Z]{4}\)\. Nothing was sent\.$/,
      );
      expect(here.desk.calls).toEqual([]);
      expect(actions(await stepsSince())).toEqual(["approval-asked", "approval-denied"]);
      expect((await here.calls()).at(-1)).toMatchObject({ outcome: "refused", error: { code: "approval_denied" } });
    });

    test("tells a client that cannot be asked the number of a request, which the user approves through another one", async () => {
      const client = await sdkClient(here.url, era, await here.token("sam"));
      const held = await client.callTool(REFUND_CALL);
      expect(held.isError).toBe(true);
      expect(textOf(held)).toContain("refund needs the approval of a person before it is called");
      const number = numberIn(textOf(held));
      // The same call asks for nothing twice.
      expect(numberIn(textOf(await client.callTool(REFUND_CALL)))).toBe(number);
      expect((await here.calls()).at(-1)).toMatchObject({
        outcome: "refused",
        error: { code: "approval_required" },
        details: { approval: { number, state: "pending" } },
      });
      const other = await here.token("sam");
      const list = await here.admin("GET", "", other);
      expect(list.body["approvals"]).toMatchObject([{ number, state: "pending", name: "refund", mayDecide: true }]);
      expect((await here.admin("POST", `/${number}/approve`, other)).body).toMatchObject({ number, state: "approved" });
      const made = await client.callTool(REFUND_CALL);
      expect(made.isError).not.toBe(true);
      expect(here.desk.calls).toHaveLength(1);
      const again = await client.callTool(REFUND_CALL);
      expect(again.isError).toBe(true);
      expect(numberIn(textOf(again))).not.toBe(number);
      expect(here.desk.calls).toHaveLength(1);
      await client.close();
      expect(actions(await stepsSince())).toEqual([
        "approval-asked",
        "approval-approved",
        "approval-spent",
        "approval-asked",
      ]);
      expect((await here.admin("POST", `/${numberIn(textOf(again))}/deny`, other)).body).toMatchObject({
        state: "denied",
      });
    });

    test("has a second person decide where four eyes are asked for, whatever the caller's client can show", async () => {
      const client = await sdkClient(here.url, era, await here.token("lea"), () => {
        throw new Error("nobody is to be asked");
      });
      const look = { name: "look_up", arguments: { id: "ORD-9" } };
      expect((await client.callTool({ name: "look_up", arguments: { id: "ORD-1" } })).isError).not.toBe(true);
      const held = await client.callTool(look);
      expect(textOf(held)).toContain("Another user with the role shift-lead has to give it");
      const number = numberIn(textOf(held));
      expect((await here.admin("POST", `/${number}/approve`, await here.token("lea"))).status).toBe(403);
      expect((await here.admin("POST", `/${number}/approve`, await here.token("sam"))).status).toBe(404);
      await client.close();
      expect(here.desk.calls.filter(({ args }) => args["id"] === "ORD-9")).toEqual([]);
    });

    test("can still ask its own questions after the call was approved", async () => {
      here.desk.before = async (tool, call) => {
        if (tool !== "create_refund") return undefined;
        const requestedSchema = { type: "object", properties: { note: { type: "string" } } };
        const answers = await call.ask({
          note: { method: "elicitation/create", params: { message: "A note?", requestedSchema } },
        });
        return {
          content: [{ type: "text", text: JSON.stringify(answers) }],
          structuredContent: { refund: "RF", amount: 1 },
        };
      };
      const messages: string[] = [];
      const client = await sdkClient(here.url, era, await here.token("sam"), ({ message }) => {
        messages.push(String(message).split("\n")[0] ?? "");
        return message === "A note?"
          ? { action: "accept", content: { note: "ok" } }
          : { action: "accept", content: { approve: true } };
      });
      const answer = await client.callTool(REFUND_CALL);
      await client.close();
      expect(answer.isError).not.toBe(true);
      expect(messages).toEqual(["A call waits for an approval. Nothing was sent yet.", "A note?"]);
      expect(actions(await stepsSince())).toEqual(["approval-asked", "approval-approved", "approval-spent"]);
    });
  });

  test("lists what needs an approval like everything else", async () => {
    const client = await sdkClient(here.url, "modern", await here.token("sam"));
    expect((await client.listTools()).tools.map(({ name }) => name).sort()).toEqual(["look_up", "refund"]);
    await client.close();
  });

  test("refuses wrong arguments before anybody is asked", async () => {
    const answer = await rawCall(here.url, await here.token("sam"), { name: "refund", arguments: { order: 7 } });
    expect(textOf(answer.result)).toContain("were refused");
    expect(await stepsSince()).toEqual([]);
  });
});

describe("over a restart of the gateway", () => {
  beforeAll(async () => {
    here = await heldDesk({ settings: { approvals: [{ tools: ["refund"] }] } });
  }, 60_000);
  afterAll(() => here?.[Symbol.asyncDispose]());
  beforeEach(mark);

  test("a form that was shown before counts after it, once", async () => {
    const token = await here.token("sam");
    const asked = await rawCall(here.url, token, REFUND_CALL);
    expect(Object.keys(asked.result?.["inputRequests"] as Json)).toEqual(["user_approve"]);
    await here.restart();
    const retry = { ...REFUND_CALL, requestState: stateOf(asked), inputResponses: approve };
    expect((await rawCall(here.url, token, retry)).result).toMatchObject({ structuredContent: { amount: 20 } });
    const second = await rawCall(here.url, token, retry);
    expect(second.result?.["resultType"]).toBe("input_required");
    expect(here.desk.calls).toHaveLength(1);
  });

  test.each(ERAS)("what was asked, and what was approved, stays: %s client", async (era) => {
    const token = await here.token("sam");
    const called = async () => {
      const client = await sdkClient(here.url, era, token);
      const answer = await client.callTool(REFUND_CALL);
      await client.close();
      return answer;
    };
    const number = numberIn(textOf(await called()));
    await here.restart();
    expect(numberIn(textOf(await called()))).toBe(number);
    expect((await here.admin("POST", `/${number}/approve`, await here.token("sam"))).status).toBe(200);
    await here.restart();
    expect((await called()).isError).not.toBe(true);
    expect((await called()).isError).toBe(true);
    expect(here.desk.calls).toHaveLength(1);
  });
});

describe("contracts", () => {
  afterEach(() => here?.[Symbol.asyncDispose]());

  test("say themselves which calls need an approval, and tools with steps are approved as a whole", async () => {
    const approval = { when: "args.percent > 50", by: ["shift-lead"], reason: "More than half." };
    here = await heldDesk({ settings: { tools: { refund: { ...REFUND, approval } } } });
    const sam = await here.token("sam");
    const call = (percent: number) =>
      rawCall(here.url, sam, { name: "refund", arguments: { order_id: "ORD-1", percent } });
    expect((await call(50)).result).toMatchObject({ structuredContent: { amount: 20 } });
    here.desk.calls.length = 0;
    const held = await call(60);
    expect(held.result).toMatchObject({ isError: true });
    expect(here.desk.calls).toEqual([]);
    const number = numberIn(textOf(held.result));
    const lea = await here.token("lea");
    const shown = (await here.admin("GET", `/${number}`, lea)).body;
    expect(shown).toMatchObject({ rules: ["tools.refund.approval"], arguments: { order_id: "ORD-1", percent: 60 } });
    expect((await here.admin("POST", `/${number}/approve`, lea)).status).toBe(200);
    expect((await call(60)).result).toMatchObject({ structuredContent: { amount: 24 } });
    expect(here.desk.calls.map(({ tool }) => tool)).toEqual(["get_order", "create_refund", "approve_refund"]);
  }, 60_000);

  test("a tool that is served as a resource is held with an error that names the request", async () => {
    const look = {
      ...TOOLS.look_up,
      as: { resource: "orders://{id}" },
      input: { id: { type: "string", maxLength: 20 } },
      output: ["status"],
    };
    here = await heldDesk({ settings: { tools: { look_up: { ...look, approval: "required" } } } });
    const sam = await here.token("sam");
    const params = { uri: "orders://ORD-1" };
    const none = await rawCall(here.url, sam, params, { method: "resources/read", capabilities: {} });
    expect(none.error).toMatchObject({ code: -31426, data: { state: "pending" } });
    const asked = await rawCall(here.url, sam, params, { method: "resources/read" });
    // What was asked of others stays so, until they have decided.
    expect(asked.error?.data?.["approval"]).toBe(none.error?.data?.["approval"]);
    expect(
      (await here.admin("POST", `/${none.error?.data?.["approval"]}/approve`, await here.token("sam"))).status,
    ).toBe(200);
    const read = await rawCall(here.url, sam, params, { method: "resources/read" });
    expect(read.result?.["contents"]).toMatchObject([{ uri: "orders://ORD-1", text: '{"status":"paid"}' }]);
    const form = await rawCall(here.url, sam, params, { method: "resources/read" });
    const retry = { ...params, requestState: stateOf(form), inputResponses: approve };
    expect((await rawCall(here.url, sam, retry, { method: "resources/read" })).result?.["contents"]).toHaveLength(1);
  }, 60_000);
});

describe("tasks and prompts", () => {
  let every: World;
  beforeAll(async () => {
    every = await world({
      servers: { every: { command: fixtureCommand("everything/stdio", ["--era", "legacy"]) } },
      approvals: [{ tools: ["job-only", "prompt:*"] }],
    });
  }, 60_000);
  afterAll(() => every?.[Symbol.asyncDispose]());
  const other = async (number: string) => {
    const authorization = `Bearer ${(await every.tokens()).access_token}`;
    return fetch(`${every.origin}/admin/approvals/${number}/approve`, { method: "POST", headers: { authorization } });
  };

  test.each(ERAS)("a call of a %s client that becomes a task is approved before there is a task", async (era) => {
    const client = await taskClient(every.url, (await every.tokens()).access_token, era);
    const params = { name: "job-only", arguments: { tag: era, ms: 10 }, ...(era === "legacy" && { task: {} }) };
    const held = await client.ask("tools/call", params);
    const text = era === "legacy" ? held.error?.message : textOf(held.result);
    expect(text).toContain("needs the approval of a person");
    expect((await other(numberIn(text ?? ""))).status).toBe(200);
    const task = await client.begin("job-only", { tag: era, ms: 10 });
    expect((await client.end(task.taskId)).result).toMatchObject({ content: [{ text: `${era} is done` }] });
    await expect(client.begin("job-only", { tag: era, ms: 10 })).rejects.toThrow("no task");
  });

  test("a client that knows no tasks is shown the form, and waits for the end of the task", async () => {
    const client = await sdkClient(every.url, "legacy", (await every.tokens()).access_token, () => ({
      action: "accept",
      content: { approve: true },
    }));
    const answer = await (client as LegacyClient).callTool({ name: "job-only", arguments: { tag: "form", ms: 10 } });
    expect(textOf(answer)).toBe("form is done");
    await client.close();
  });

  test.each(ERAS)("a prompt of a %s client is held like a tool", async (era) => {
    const token = (await every.tokens()).access_token;
    const client = await sdkClient(every.url, era, token);
    const [prompt] = (await (client as LegacyClient).listPrompts()).prompts.filter(
      ({ arguments: its }) => !its?.length,
    );
    const get = () => client.getPrompt({ name: prompt?.name ?? "" });
    const message = await get().then(
      () => "",
      (error: Error) => error.message,
    );
    expect(message).toContain("needs the approval of a person");
    expect((await other(numberIn(message))).status).toBe(200);
    expect((await get()).messages.length).toBeGreaterThan(0);
    await client.close();
  });
});

describe("replicas", () => {
  test("two over one store spend an approval once", async () => {
    here = await heldDesk({ settings: { approvals: [{ tools: ["refund"] }] } });
    await using desk = here;
    await using second = await replicaOf(desk.gateway, { ...desk.settings, control: { socket: "off" } });
    const sam = await desk.token("sam");
    const urls = [desk.url, second.url, desk.url, second.url];
    const all = () => Promise.all(urls.map((url) => rawCall(url, sam, REFUND_CALL, { capabilities: {} })));
    const numbers = new Set((await all()).map(({ result }) => numberIn(textOf(result))));
    expect(numbers.size).toBe(1);
    const [number] = numbers;
    expect((await desk.admin("POST", `/${number}/approve`, await desk.token("sam"))).status).toBe(200);
    const answers = await all();
    expect(answers.filter(({ result }) => result?.["isError"] !== true)).toHaveLength(1);
    expect(desk.desk.calls).toHaveLength(1);
    // A form is answered at whichever replica, and counts at one of them.
    const other = { name: "refund", arguments: { order: "ORD-2", amount: 1 } };
    const form = await rawCall(desk.url, sam, other);
    const retry = { ...other, requestState: stateOf(form), inputResponses: approve };
    const both = await Promise.all(urls.map((url) => rawCall(url, sam, retry)));
    expect(both.filter(({ result }) => result?.["structuredContent"] !== undefined)).toHaveLength(1);
    expect(desk.desk.calls).toHaveLength(2);
  }, 60_000);
});

describe("a changed settings file", () => {
  afterEach(() => here?.[Symbol.asyncDispose]());

  test("counts from the next call on", async () => {
    const { filed } = await import("../gateway/filed.ts");
    const { refundDesk } = await import("./refund-desk.ts");
    await using desk = await refundDesk();
    await using at = await filed({ servers: { desk: { url: desk.url } } });
    const call = () => at.call("create_refund", { order: "ORD-1", amount: 1 });
    expect((await call()).result?.structuredContent).toBeDefined();
    at.write({ approvals: [{ tools: ["create_*"] }] });
    expect(await at.reloaded()).toEqual(["approvals changed"]);
    expect(textOf((await call()).result)).toContain("needs the approval of a person");
    at.write({ approvals: [{ tools: ["access:nothing"] }] });
    await expect(at.reload()).rejects.toThrow("approvals.0.tools.0: there is no class");
    at.write({ approvals: undefined });
    expect(await at.reloaded()).toEqual(["approvals changed"]);
    expect((await call()).result?.structuredContent).toBeDefined();
    const contract = {
      from: "desk/create_refund",
      access: "write",
      input: { order: { type: "string", maxLength: 40 }, amount: { type: "number" } },
    };
    const tools = (approval?: string) => ({ create_refund: { ...contract, unproven: "accept", approval } });
    at.write({ tools: tools() });
    await at.reload();
    expect((await call()).result?.structuredContent).toBeDefined();
    at.write({ tools: tools("required") });
    await at.reload();
    expect(textOf((await call()).result)).toContain("needs the approval of a person");
  }, 60_000);
});
