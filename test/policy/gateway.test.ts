/** What holds of every policy, at a running gateway: for clients of both eras, and for everything that may be asked. */
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { JsonObject, Principal, Target } from "../../src/core/call.ts";
import { compilePolicy, type Policy } from "../../src/policy/engine.ts";
import type { RolesSettings } from "../../src/policy/settings.ts";
import { ERAS } from "../e2e/scripted.ts";
import { type TaskClient, taskClient } from "../e2e/tasking.ts";
import { modernRequest } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { type Filed, filed } from "../gateway/filed.ts";
import { fc, runs } from "../properties.ts";
import { argumentsOf, policiesAbout, principal, target } from "./support.ts";

vi.setConfig({ testTimeout: 180_000, hookTimeout: 60_000 });

const GREETING = "test://static/greeting";
const ITEMS = "test://items/{id}";
const TOOLS = ["echo_echo", "echo_sum", "echo_count", "echo_whoami", "every_job-only"];
const PROMPTS = ["echo_plain", "echo_with-resource"];
const RESOURCES = [GREETING, "test://static/picture"];
/** Of the template. */
const ITEM = "test://items/1";

const PATTERNS = [
  "*",
  "echo_*",
  "*_sum",
  "echo_echo",
  "every_*",
  "access:read",
  "access:destructive",
  "open-world",
  "prompt:*",
  "prompt:echo_plain",
  "resource:*",
  "resource:test://static/*",
  `resource:${ITEM}`,
  "resource:test://items/*",
];
const EVERYTHING: RolesSettings = { all: { may: ["*"], deny: [] } };
const OWNERS = [{ role: "all", group: "owner" }];

let at: Filed;
let token: string;
let clients: readonly TaskClient[];
/** One task for each era, made while everything was permitted. */
const tasks = new Map<TaskClient, string>();

beforeAll(async () => {
  at = await filed({
    servers: {
      echo: { command: fixtureCommand("echo-stdio"), processes: { max: 1 } },
      every: { command: fixtureCommand("everything/stdio"), processes: { max: 1 } },
    },
    roles: EVERYTHING,
    assign: OWNERS,
  });
  ({ access_token: token } = await at.world.tokens());
  clients = await Promise.all(ERAS.map((era) => taskClient(at.world.url, token, era)));
  for (const client of clients)
    tasks.set(client, (await client.begin("every_job-only", { tag: client.era, ms: 600_000 })).taskId);
});
afterAll(() => at?.[Symbol.asyncDispose]());

const UNKNOWN = /^(Unknown (tool|prompt): |Resource not found$|.*[Tt]ask)/;
/** Whether it was let through. Anything but an answer, or what is said of what there is not, would be a leak or a mistake here. */
async function permitted(client: TaskClient, method: string, params: JsonObject): Promise<boolean> {
  const { error, result } =
    client.era === "modern" && "uri" in params ? await asked(method, params) : await client.ask(method, params);
  if (result !== undefined) return true;
  if (error !== undefined && UNKNOWN.test(error.message)) return false;
  // The server's own schema is looked at after the policy.
  if (error !== undefined && method === "tools/call" && /argument/i.test(error.message)) return true;
  throw new Error(`${client.era} ${method} was answered with ${JSON.stringify(error)}`);
}
/** With the header that says which resource it is about. */
async function asked(method: string, params: JsonObject) {
  const [body, headers] = modernRequest(method, params);
  return (await (await at.world.post(body, headers, token)).json()) as {
    result?: JsonObject;
    error?: { message: string };
  };
}
async function listed(client: TaskClient, method: string, key: string, name: string): Promise<readonly string[]> {
  const names: string[] = [];
  let cursor: unknown;
  do {
    const { result } = await client.ask(method, cursor === undefined ? {} : { cursor });
    for (const one of (result?.[key] ?? []) as JsonObject[]) names.push(String(one[name]));
    cursor = result?.["nextCursor"];
  } while (cursor !== undefined);
  return names;
}
/** What a stream of 2026 promises to tell about. */
async function followed(uris: readonly string[]): Promise<readonly string[]> {
  const [body, headers] = modernRequest("subscriptions/listen", { notifications: { resourceSubscriptions: uris } });
  const response = await at.world.post(body, headers, token);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!/data: .*\n\n/.test(text)) {
    const { value, done } = (await reader?.read()) ?? { done: true };
    if (done) throw new Error(`no acknowledgement: ${text}`);
    text += value;
  }
  await reader?.cancel();
  return uris.filter((uri) => text.includes(JSON.stringify(uri)));
}

/** Random ones mostly refuse, so that half of them begin with everything. */
const random = fc.tuple(policiesAbout(PATTERNS), fc.boolean()).chain(([{ roles: some, flags }, all]) => {
  const roles = all ? { ...some, ...EVERYTHING } : some;
  return fc.record({
    roles: fc.constant(sayingSomething(roles)),
    assign: fc.constant(Object.keys(roles).map((role) => ({ role, group: "owner" }))),
    args: argumentsOf(flags),
  });
});

test("lists, calls, prompts, resources, completions, subscriptions and tasks are decided as the policy says, in both eras", async () => {
  let decisions = 0;
  let refusals = 0;
  const check = (client: TaskClient, what: string, got: boolean, expected: boolean) => {
    decisions++;
    if (!expected) refusals++;
    expect(got, `${client.era} ${what}`).toBe(expected);
  };
  await fc.assert(
    fc.asyncProperty(random, async ({ roles, assign, args }) => {
      at.write({ roles, assign });
      await at.reload();
      const policy = compilePolicy(roles, assign);
      for (const client of clients) {
        const [tools, prompts, resources, templates] = await Promise.all([
          listed(client, "tools/list", "tools", "name"),
          listed(client, "prompts/list", "prompts", "name"),
          listed(client, "resources/list", "resources", "uri"),
          listed(client, "resources/templates/list", "resourceTemplates", "uriTemplate"),
        ]);
        const may = maker(policy);
        for (const name of TOOLS) {
          const it = target(name, "tool", { server: name.startsWith("echo") ? "echo" : "every" });
          check(client, `lists ${name}`, tools.includes(name), may(it));
          if (name.startsWith("every")) continue;
          const sent = name === "echo_sum" ? { a: 1, b: 2, ...args } : { text: "x", ...args };
          const got = await permitted(client, "tools/call", { name, arguments: sent });
          check(client, `calls ${name}`, got, may(it, "tools/call", sent));
          if (!tools.includes(name)) expect(got, `${client.era} calls ${name}, which is not listed`).toBe(false);
        }
        for (const name of PROMPTS) {
          const it = target(name, "prompt", { server: "echo" });
          check(client, `lists ${name}`, prompts.includes(name), may(it));
          check(client, `gets ${name}`, await permitted(client, "prompts/get", { name }), may(it, "prompts/get", {}));
          const ref = { ref: { type: "ref/prompt", name }, argument: { name: "x", value: "" } };
          const completed = await permitted(client, "completion/complete", ref);
          check(client, `completes ${name}`, completed, may(it, "completion/complete", {}));
          if (!prompts.includes(name)) expect(completed, name).toBe(false);
        }
        for (const uri of RESOURCES) {
          const it = target(uri, "resource", { server: "echo" });
          check(client, `lists ${uri}`, resources.includes(uri), may(it));
          const read = await permitted(client, "resources/read", { uri });
          check(client, `reads ${uri}`, read, may(it, "resources/read", { uri }));
          const following =
            client.era === "legacy"
              ? await permitted(client, "resources/subscribe", { uri })
              : (await followed([uri])).includes(uri);
          check(client, `follows ${uri}`, following, may(it, "resources/subscribe", { uri }));
          if (!resources.includes(uri)) expect([read, following], uri).toEqual([false, false]);
        }
        const template = target(ITEMS, "resource", { server: "echo", template: true });
        check(client, `lists ${ITEMS}`, templates.includes(ITEMS), may(template));
        const item = target(ITEM, "resource", { server: "echo" });
        const read = await permitted(client, "resources/read", { uri: ITEM });
        check(client, `reads ${ITEM}`, read, may(item, "resources/read", { uri: ITEM }));
        if (!templates.includes(ITEMS)) expect(read, "of a template that is not listed").toBe(false);
        const job = target("every_job-only", "tool", { server: "every" });
        const taskId = tasks.get(client) ?? "";
        const seen = await permitted(client, "tasks/get", { taskId });
        check(client, "looks at its task", seen, may(job, "tools/call", { tag: client.era, ms: 600_000 }));
      }
    }),
    { numRuns: runs(20), endOnFailure: true },
  );
  expect(decisions).toBeGreaterThan(800);
  expect(refusals).toBeGreaterThan(50);
  expect(decisions - refusals).toBeGreaterThan(50);
});

test("a policy that is tried out beside it changes no answer, whatever it says", async () => {
  const calls = [
    ["tools/list", {}],
    ["prompts/list", {}],
    ["resources/list", {}],
    ["tools/call", { name: "echo_echo", arguments: { text: "x" } }],
    ["tools/call", { name: "echo_sum", arguments: { a: 1, b: 2 } }],
    ["tools/call", { name: "nobody", arguments: {} }],
    ["prompts/get", { name: "echo_plain" }],
    ["resources/read", { uri: GREETING }],
    ["resources/read", { uri: ITEM }],
  ] as const;
  const answers = () =>
    Promise.all(
      clients.flatMap((client) =>
        calls.map(async ([method, params]) => {
          const { result, error } =
            client.era === "modern" && "uri" in params ? await asked(method, params) : await client.ask(method, params);
          return [result, error];
        }),
      ),
    );
  await fc.assert(
    fc.asyncProperty(random, random, async (one, other) => {
      at.write({ roles: one.roles, assign: one.assign, shadowPolicy: undefined });
      await at.reload();
      const before = await answers();
      at.write({ shadowPolicy: { roles: other.roles, assign: other.assign } });
      await at.reload();
      expect(await answers()).toEqual(before);
    }),
    { numRuns: runs(8), endOnFailure: true },
  );
});

/** A rule without `may` and `deny` is a mistake in a settings file. */
function sayingSomething(roles: RolesSettings): RolesSettings {
  return Object.fromEntries(
    Object.entries(roles).map(([name, role]) => [
      name,
      { ...role, rules: (role.rules ?? []).filter(({ may, deny }) => may.length + deny.length > 0) },
    ]),
  );
}

/** Decides as the gateway should: for the owner, with a token for everything. */
function maker(policy: Policy) {
  const who: Principal = principal({ groups: ["owner"], subject: "somebody" });
  return (what: Target, method?: string, args: JsonObject = {}) =>
    policy.decide(who, what, method === undefined ? undefined : { method, args, scope: undefined, at: Date.now() })
      .effect === "permit";
}
