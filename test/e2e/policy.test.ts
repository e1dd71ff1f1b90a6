/** A policy on a running gateway: lists, calls, completions, subscriptions and templates agree; a change of it counts at once. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { SettingsProblems } from "../../src/config/problems.ts";
import { openStore } from "../../src/store/open.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import { type Filed, filed } from "../gateway/filed.ts";
import { modernRequest } from "./world.ts";

const GREETING = "test://static/greeting";
const PICTURE = "test://static/picture";
const echo = { command: fixtureCommand("echo-stdio"), processes: { max: 1 } };
const everybody = [{ role: "all", group: "owner" }];

let here: Filed | undefined;
afterEach(async () => {
  await here?.[Symbol.asyncDispose]();
  here = undefined;
});
const start = async (settings: Record<string, unknown>): Promise<Filed> => {
  here = await filed({ servers: { echo }, ...settings });
  return here;
};

interface Recorded {
  readonly policy?: string;
  readonly outcome: string;
  readonly call?: { readonly name?: string; readonly method: string };
  readonly decision?: { readonly effect: string; readonly rule?: string; readonly shadow?: Record<string, unknown> };
}
async function records(at: Filed): Promise<readonly Recorded[]> {
  const store = await openStore(`sqlite:${join(at.folder, "state", "gateway.db")}`, { readOnly: true });
  try {
    const rows = await store.audit.read({ limit: 1000, newest: false });
    return rows
      .map(({ json }) => JSON.parse(json) as Recorded & { kind: string })
      .filter(({ kind }) => kind === "call");
  } finally {
    await store.close();
  }
}
const ask = async (at: Filed, method: string, params: Record<string, unknown> = {}) => {
  const [body, headers] = modernRequest(method, params);
  const answer = await at.world.post(body, headers);
  return { status: answer.status, body: (await answer.json()) as { result?: Record<string, unknown>; error?: object } };
};

describe("what a role does not permit", () => {
  test("is not listed, called, completed, read or followed, and looks like what does not exist", async () => {
    const at = await start({
      roles: { all: { may: ["echo", "sum", "prompt:plain", `resource:${PICTURE}`], deny: ["sum"] } },
      assign: everybody,
    });
    expect(await at.tools()).toEqual(["echo"]);
    const listed = async (method: string, key: string) =>
      ((await ask(at, method)).body.result?.[key] as { name: string }[] | undefined)?.map(({ name }) => name);
    expect(await listed("prompts/list", "prompts")).toEqual(["plain"]);
    expect(await listed("resources/list", "resources")).toEqual(["picture"]);
    expect(await listed("resources/templates/list", "resourceTemplates")).toEqual([]);
    for (const [method, hidden, none] of [
      ["tools/call", { name: "sum", arguments: { a: 1, b: 2 } }, { name: "mus", arguments: { a: 1, b: 2 } }],
      ["tools/call", { name: "big", arguments: {} }, { name: "gib", arguments: {} }],
      ["prompts/get", { name: "greeting" }, { name: "gniteerg" }],
    ] as const) {
      const one = await ask(at, method, hidden);
      const other = await ask(at, method, none);
      const text = JSON.stringify(one).replaceAll(hidden.name, none.name);
      expect(text).toBe(JSON.stringify(other));
      expect(one.body.error).toBeDefined();
    }
    const read = await ask(at, "resources/read", { uri: GREETING });
    expect(read.body.error).toMatchObject({ message: "Resource not found" });
    const completed = await ask(at, "completion/complete", {
      ref: { type: "ref/prompt", name: "greeting" },
      argument: { name: "tone", value: "f" },
    });
    expect(completed.body.error).toMatchObject({ message: "Unknown prompt: greeting" });
    const client = await at.world.legacy();
    await expect(client.subscribeResource({ uri: GREETING })).rejects.toThrow("Resource not found");
    await client.subscribeResource({ uri: PICTURE });
  });

  test("a template is listed for whoever may read one of its resources", async () => {
    const at = await start({ roles: { all: { may: ["resource:test://items/1"] } }, assign: everybody });
    const { body } = await ask(at, "resources/templates/list");
    expect(body.result?.["resourceTemplates"]).toHaveLength(1);
    expect((await ask(at, "resources/read", { uri: "test://items/1" })).body.result).toBeDefined();
    expect((await ask(at, "resources/read", { uri: "test://items/2" })).body.error).toBeDefined();
    expect((await ask(at, "resources/read", { uri: "test://items/{id}" })).body.error).toBeDefined();
  });

  test("by what tools do: contracts say it, and what none says counts as the worst", async () => {
    const at = await start({
      tools: {
        greet: { from: "echo/whoami", access: "read", openWorld: false, description: "Says who it is." },
        add: { from: "echo/sum", access: "read", openWorld: true, description: "Adds two numbers." },
        poke: { from: "echo/fail", access: "write", description: "Always fails." },
        tally: { from: "echo/count", description: "Counts the calls." },
      },
      roles: { all: { may: ["access:read"] } },
      assign: everybody,
    });
    expect(await at.tools()).toEqual(["add", "greet"]);
    expect((await at.call("tally")).error?.message).toBe("Unknown tool: tally");
    at.write({ roles: { all: { may: ["*"], deny: ["open-world", "access:destructive"] } } });
    await at.reload();
    expect(await at.tools()).toEqual(["greet"]);
    at.write({ roles: { all: { may: [], rules: [{ may: ["*"], when: 'call.access == "write"' }] } } });
    await at.reload();
    expect(await at.tools()).toEqual(["poke"]);
  });

  test("whoever may use nothing of a server does not read what it says of itself", async () => {
    const at = await start({ roles: { all: { may: ["none"] } }, assign: everybody });
    expect((await ask(at, "server/discover")).body.result?.["instructions"]).toBeUndefined();
    at.write({ roles: { all: { may: ["echo"] } } });
    await at.reload();
    expect((await ask(at, "server/discover")).body.result?.["instructions"]).toBe("Answers are known in advance.");
  });
});

describe("a changed policy", () => {
  test("decides the next call, and those whose lists changed are told", async () => {
    const at = await start({ roles: { all: { may: ["echo", "count"] } }, assign: everybody });
    const client = await at.world.legacy();
    const told: string[] = [];
    client.fallbackNotificationHandler = async ({ method }) => void told.push(method);
    expect((await at.call("count")).result).toBeDefined();

    at.write({ roles: { all: { may: ["echo"] } } });
    expect(await at.reloaded()).toEqual(["roles changed"]);
    expect((await at.call("count")).error?.message).toBe("Unknown tool: count");
    await expect(client.callTool({ name: "count", arguments: {} })).rejects.toThrow("Unknown tool");
    await waitFor(() => told.includes("notifications/tools/list_changed"));
    expect(told).not.toContain("notifications/prompts/list_changed");

    at.write({ assign: [{ role: "all", group: "nobody" }] });
    expect(await at.reloaded()).toEqual(["assign changed"]);
    expect((await at.call("echo", { text: "x" })).error?.message).toBe("Unknown tool: echo");
    expect(await at.tools()).toEqual([]);
  });

  test("ends what nobody may follow any more, and nothing else", async () => {
    const may = ["*"];
    const at = await start({ roles: { all: { may } }, assign: everybody });
    const client = await at.world.legacy();
    const heard: string[] = [];
    client.fallbackNotificationHandler = async ({ method, params }) => {
      if (method === "notifications/resources/updated") heard.push(String(params?.["uri"]));
    };
    await client.subscribeResource({ uri: GREETING });
    await client.subscribeResource({ uri: PICTURE });
    const touch = (uri: string) => at.call("touch", { uri });
    await waitFor(async () => (await touch(GREETING)) && heard.includes(GREETING));

    at.write({ roles: { all: { may, deny: [`resource:${GREETING}`] } } });
    await at.reload();
    const before = heard.filter((uri) => uri === GREETING).length;
    await touch(GREETING);
    await waitFor(async () => (await touch(PICTURE)) && heard.includes(PICTURE));
    expect(heard.filter((uri) => uri === GREETING).length).toBe(before);
    await expect(client.subscribeResource({ uri: GREETING })).rejects.toThrow("Resource not found");
  });

  test("with a mistake is refused as a whole, with its place, and the one before it goes on", async () => {
    const at = await start({ roles: { all: { may: ["echo"] } }, assign: everybody });
    at.write({
      roles: { all: { may: ["count"], rules: [{ deny: ["access:harmless"] }, { may: ["x"], when: "args.a ==" }] } },
      assign: [...everybody, { role: "al", group: "x" }, { role: "all" }],
    });
    const refusal = await at.reload().then(
      () => undefined,
      (error: SettingsProblems) => error,
    );
    expect(refusal?.message).toMatch(/roles\.all\.rules\.0\.deny\.0: there is no class "access:harmless"/);
    expect(refusal?.message).toMatch(/roles\.all\.rules\.1\.when: /);
    expect(refusal?.message).toMatch(/assign\.1\.role: there is no role "al"; did you mean "all"\?/);
    expect(refusal?.message).toMatch(/assign\.2: names nobody/);
    expect(await at.tools()).toEqual(["echo"]);
  });

  test("limits count at once, with what was counted before", async () => {
    const at = await start({ limits: { perToolPerMinute: 100 } });
    for (let call = 0; call < 3; call++) await at.call("count");
    at.write({ limits: { perToolPerMinute: 3 } });
    expect(await at.reloaded()).toEqual(["limits changed"]);
    expect((await at.call("count")).status).toBe(429);
    at.write({ limits: { perToolPerMinute: 10 } });
    await at.reload();
    expect((await at.call("count")).status).toBe(200);
  });

  test("is named in every record: which version decided", async () => {
    const at = await start({ roles: { all: { may: ["echo"] } }, assign: everybody });
    await at.call("echo", { text: "x" });
    await at.tools();
    at.write({ roles: { all: { may: ["*"] } } });
    await at.reload();
    await at.call("count");
    await waitFor(async () => (await records(at)).some(({ call }) => call?.name === "count"));
    const all = await records(at);
    expect(all.every(({ policy }) => /^[0-9a-f]{32}$/.test(policy ?? ""))).toBe(true);
    const versionOf = (name: string) => all.find(({ call }) => call?.name === name)?.policy;
    expect(versionOf("echo")).not.toBe(versionOf("count"));
    expect(all.find(({ call }) => call?.method === "tools/list")?.policy).toBe(versionOf("echo"));
  });
});

describe("a policy that is only tried out", () => {
  const differences = async (at: Filed) =>
    (await at.world.metrics()).split("\n").filter((line) => line.startsWith("drawbridge_policy_differences"));

  test("as rules with `shadow` changes no answer; the record, the log and the metrics say what it would have done", async () => {
    const logged: Record<string, unknown>[] = [];
    const logger = quietLogger((fields) => logged.push(fields));
    here = await filed(
      {
        servers: { echo },
        roles: {
          all: { may: ["echo", "count"], rules: [{ deny: ["count"], shadow: true }] },
          next: { may: ["sum"], shadow: true },
        },
        assign: [...everybody, { role: "next", group: "owner" }],
      },
      { logger },
    );
    const at = here;
    expect(await at.tools()).toEqual(["count", "echo"]);
    expect((await at.call("count")).result).toBeDefined();
    expect((await at.call("echo", { text: "x" })).result).toBeDefined();
    expect((await at.call("sum", { a: 1, b: 2 })).error?.message).toBe("Unknown tool: sum");
    await waitFor(async () => (await records(at)).filter(({ call }) => call?.method === "tools/call").length === 3);
    const decisions = Object.fromEntries((await records(at)).map(({ call, decision }) => [call?.name, decision]));
    expect(decisions["count"]).toMatchObject({
      effect: "permit",
      rule: "all: may count",
      shadow: { effect: "deny", reason: "denied_by_rule", rule: "all.rules.0: deny count" },
    });
    expect(decisions["sum"]).toMatchObject({ effect: "deny", shadow: { effect: "permit", rule: "next: may sum" } });
    expect(decisions["echo"]?.shadow).toBeUndefined();
    expect(await differences(at)).toHaveLength(2);
    expect((await differences(at)).join("\n")).toMatch(/role="all",gen_ai_tool_name="count",from="permit",to="deny"/);
    expect(logged.map(({ target, wouldBe }) => `${target} ${wouldBe}`)).toEqual(["count deny", "sum permit"]);
  });

  test("as another file is read again with the settings, and refused with them", async () => {
    const at = await start({ roles: { all: { may: ["*"] } }, assign: everybody });
    const file = join(at.folder, "next.yaml");
    writeFileSync(
      file,
      "roles: { all: { may: [echo] } }\nassign: [{ role: all, group: owner }]\nlog: { level: debug }\n",
    );
    at.write({ shadowPolicy: "next.yaml" });
    expect(await at.reloaded()).toEqual(["shadowPolicy changed"]);
    expect((await at.call("count")).result).toBeDefined();
    expect((await differences(at)).join()).toMatch(/count.*from="permit",to="deny"/);

    writeFileSync(file, "roles: { all: { may: [count] } }\nassign: [{ role: al, group: owner }]\n");
    await expect(at.reload()).rejects.toThrow(/shadowPolicy\.assign\.0\.role: there is no role "al"/);
    at.write({ shadowPolicy: "nowhere.yaml" });
    await expect(at.reload()).rejects.toThrow(/shadowPolicy: the file .*nowhere\.yaml cannot be read/);
    expect((await at.call("count")).result).toBeDefined();
  });
});

function quietLogger(differs: (fields: Record<string, unknown>) => void) {
  const logger: Record<string, unknown> = {};
  const quiet = () => {};
  Object.assign(logger, {
    debug: quiet,
    warn: quiet,
    error: quiet,
    info: (fields: Record<string, unknown>, message: string) => {
      if (message.startsWith("the shadow policy")) differs(fields);
    },
    child: () => logger,
  });
  return logger as never;
}
