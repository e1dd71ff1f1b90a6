/**
 * Incidents of access control in MCP servers, gateways and clients, 2025 and 2026, each as the request that made it: what was not
 * refused there is refused here.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { usersIn } from "../../src/oauth/people/users.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { Browser, connect, PASSWORD, type Running, register } from "../oauth/support.ts";
import { everyStore } from "../store/backends.ts";

let gate: World;
let owner: string;
let clerk: string;
let guest: string;
const undo: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  const place = await everyStore.find(({ name }) => name === "sqlite")?.place();
  if (place === undefined) throw new Error("no place for a store");
  undo.push(async () => place[Symbol.asyncDispose]());
  gate = await world({
    store: place.setting,
    servers: {
      shop: { command: fixtureCommand("echo-stdio"), isolation: "per-user" },
      vault: { command: fixtureCommand("echo-stdio") },
    },
    roles: {
      owner: { may: ["*"] },
      clerk: {
        may: ["shop_echo", "shop_count", "shop_whoami", "prompt:shop_plain"],
        rules: [{ may: ["shop_sum"], when: "args.a < 10" }],
      },
      guest: { may: ["prompt:shop_with-resource"] },
      // Whoever has no name: nobody may ever come to have it.
      nameless: { may: ["*"] },
    },
    assign: [
      { role: "owner", group: "owner" },
      { role: "clerk", group: "clerks" },
      { role: "guest", group: "guests" },
      { role: "nameless", when: 'principal.subject == "" || principal.subject == "anonymous"' },
    ],
  });
  undo.push(async () => gate[Symbol.asyncDispose]());
  owner = (await gate.tokens()).access_token;
  const { sqliteStore } = await import("../../src/store/sqlite/sqlite.ts");
  const store = sqliteStore(place.setting.slice("sqlite:".length));
  undo.push(() => store.close());
  const users = usersIn(store.records);
  await users.create({ name: "clara", email: undefined, password: PASSWORD, groups: ["clerks"] });
  await users.create({ name: "ned", email: undefined, password: PASSWORD, groups: ["guests"] });
  clerk = await tokenOf("clara");
  guest = await tokenOf("ned");
}, 60_000);
afterAll(async () => {
  for (const step of undo.toReversed()) await step();
});

async function tokenOf(name: string): Promise<string> {
  const here = { origin: gate.origin, base: gate.gateway.publicUrl, resource: gate.url } as Running;
  const browser = new Browser(gate.origin);
  await browser.go(`${gate.origin}/sign-in`);
  await browser.submit({ name, password: PASSWORD });
  const client = String((await register(here)).body["client_id"]);
  return (await connect(here, browser, { client })).access_token;
}

interface Answer {
  readonly status: number;
  readonly text: string;
  readonly result: { tools?: { name: string }[]; structuredContent?: { pid?: number; sum?: number } } | undefined;
  readonly error: { code: number; message: string } | undefined;
}
async function ask(
  method: string,
  params: Record<string, unknown>,
  token: string,
  more: Record<string, string> = {},
): Promise<Answer> {
  const [body, own] = modernRequest(method, params);
  const response = await gate.post(body, { ...own, ...more }, token);
  const text = await response.text();
  const message = JSON.parse(text) as Pick<Answer, "result" | "error">;
  return { status: response.status, text, result: message.result, error: message.error };
}
const call = (name: string, token: string, args: object = {}, more: Record<string, string> = {}) =>
  ask("tools/call", { name, arguments: args }, token, more);
const tools = async (token: string) =>
  ((await ask("tools/list", {}, token)).result?.tools ?? []).map(({ name }) => name).sort();
const pid = async (name: string, token: string) => (await call(name, token)).result?.structuredContent?.pid;

describe("CVE-2026-46519: a policy that filtered the list and not the call", () => {
  test("what is in no list of a caller cannot be called, whatever its name is written like", async () => {
    expect(await tools(clerk)).toEqual(["shop_count", "shop_echo", "shop_sum", "shop_whoami"]);
    for (const name of ["vault_echo", "shop_crash", "vault_count", "VAULT_ECHO", "vault/echo"])
      expect((await call(name, clerk)).error).toEqual({ code: -32602, message: `Unknown tool: ${name}` });
  });
  test("nor reached around the list: by completion, prompt, resource, or an old session", async () => {
    const around: [string, Record<string, unknown>][] = [
      ["prompts/get", { name: "vault_plain" }],
      ["resources/read", { uri: "test://static/greeting" }],
      [
        "completion/complete",
        { ref: { type: "ref/prompt", name: "vault_greeting" }, argument: { name: "tone", value: "f" } },
      ],
      [
        "completion/complete",
        { ref: { type: "ref/resource", uri: "test://items/{id}" }, argument: { name: "id", value: "1" } },
      ],
    ];
    for (const [method, params] of around) {
      const { error } = await ask(method, params, clerk);
      expect(error?.message, method).toMatch(/^(Unknown prompt|Resource not found)/);
    }
    const legacy = await gate.legacy(clerk);
    await expect(legacy.callTool({ name: "vault_echo", arguments: { text: "x" } })).rejects.toThrow("Unknown tool");
    await expect(legacy.subscribeResource({ uri: "test://static/greeting" })).rejects.toThrow("Resource not found");
  });
  test("a condition on arguments holds at the call, where there are arguments", async () => {
    expect((await call("shop_sum", clerk, { a: 9, b: 1 })).result?.structuredContent?.sum).toBe(10);
    for (const args of [{ a: 10, b: 1 }, { b: 1 }, { a: "9", b: 1 }, { a: null, b: 1 }, {}])
      expect((await call("shop_sum", clerk, args)).error?.message, JSON.stringify(args)).toBe("Unknown tool: shop_sum");
  });
});

describe("CVE-2026-44118: who the owner is was read from a request header", () => {
  const claims = ["owner", "olive", "true", "*"].flatMap((value) => [
    { "x-user": value, "x-forwarded-user": value, "x-remote-user": value, "x-auth-request-user": value },
    { "x-owner": value, "x-role": value, "x-groups": value, "x-auth-request-groups": value },
    { "x-drawbridge-subject": value, "x-drawbridge-groups": value, "x-mcp-user": value },
  ]);
  test.each(claims)("%j gives nobody more than their token does", async (headers) => {
    expect((await call("vault_echo", clerk, { text: "x" }, headers)).error?.message).toBe("Unknown tool: vault_echo");
    expect((await call("shop_echo", guest, { text: "x" }, headers)).error?.message).toBe("Unknown tool: shop_echo");
    const [body, own] = modernRequest("tools/list");
    expect((await gate.post(body, { ...own, ...headers }, "")).status).toBe(401);
  });
});

describe("CVE-2026-59822: a bad Authorization header fell through to an empty identity", () => {
  const [head, payload, signature] = ["e30", "eyJzdWIiOiIifQ", "x"];
  test.each([
    [""],
    ["Bearer"],
    ["Bearer "],
    ["Bearer null"],
    ["Bearer undefined"],
    ["Bearer anonymous"],
    ["Basic b2xpdmU6"],
    ["Digest x"],
    [`Bearer ${head}.${payload}.${signature}`],
    [`Bearer ${head}.${payload}.`],
    ["Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiIifQ."],
    ["Bearer ..."],
    ["Negotiate"],
  ])("refused, and not taken for somebody without a name: %j", async (authorization) => {
    const [body, own] = modernRequest("tools/list");
    const response = await gate.post(body, { ...own, authorization }, "");
    expect(response.status).toBe(401);
    expect(response.headers.get("www-authenticate")).toMatch(/resource_metadata=/);
    expect(await response.text()).not.toContain("shop_echo");
  });
  test("a token with a part cut off is refused on every endpoint that asks for one", async () => {
    for (const cut of [owner.slice(0, -1), owner.slice(1), owner.split(".").slice(0, 2).join(".")]) {
      const [body, own] = modernRequest("tools/list");
      expect((await gate.post(body, own, cut)).status).toBe(401);
      const headers = { authorization: `Bearer ${cut}` };
      expect((await fetch(`${gate.origin}/admin/servers`, { headers })).status).toBe(401);
    }
  });
});

describe("CVE-2026-8719: any valid token was an administrator's", () => {
  test("a good token of a guest lists no tool and calls none, and reads nothing", async () => {
    expect(await tools(guest)).toEqual([]);
    for (const list of ["resources/list", "resources/templates/list"])
      expect((await ask(list, {}, guest)).text).not.toMatch(/"(uri|uriTemplate|name)":"(test|shop|vault)/);
    expect((await ask("prompts/list", {}, guest)).text).not.toMatch(/vault_|shop_(plain|greeting)/);
    expect((await call("shop_echo", guest, { text: "x" })).error?.message).toBe("Unknown tool: shop_echo");
  });
  test("what only owners may is not there for others, with whatever token", async () => {
    for (const token of [clerk, guest]) {
      const headers = { authorization: `Bearer ${token}` };
      for (const [method, path] of [
        ["GET", "/admin/servers"],
        ["GET", "/admin/servers/vault?stderr"],
        ["POST", "/admin/servers/vault/restart"],
        ["POST", "/admin/reload"],
      ] as const)
        expect((await fetch(`${gate.origin}${path}`, { method, headers })).status, path).toBe(404);
    }
    const headers = { authorization: `Bearer ${owner}` };
    expect((await fetch(`${gate.origin}/admin/servers`, { headers })).status).toBe(200);
  });
});

describe("GHSA-g53w-w6mj-hrpp: control headers skipped the check and chose the server", () => {
  const control = {
    "mcp-init-host": "vault",
    "x-mcp-virtualhost": "vault",
    "x-mcp-servername": "vault",
    "x-mcp-server": "vault",
    "x-mcp-toolname": "echo",
    "x-mcp-authorized": "true",
    "x-drawbridge-server": "vault",
    ":authority": "vault",
  };
  const sent = Object.fromEntries(Object.entries(control).filter(([name]) => !name.startsWith(":")));
  test("they neither spare a token nor lead a call elsewhere, and no server sees them", async () => {
    const [body, own] = modernRequest("tools/call", { name: "vault_echo", arguments: { text: "x" } });
    expect((await gate.post(body, { ...own, ...sent }, "")).status).toBe(401);
    expect((await call("vault_echo", clerk, { text: "x" }, sent)).error?.message).toBe("Unknown tool: vault_echo");
    const before = await pid("shop_whoami", clerk);
    const answer = await call("shop_whoami", clerk, {}, sent);
    expect(answer.result?.structuredContent?.pid).toBe(before);
    for (const name of Object.keys(sent)) expect(answer.text.toLowerCase()).not.toContain(name);
  });
});

describe("context-forge #2055: a pool of sessions was shared by its users", () => {
  test("two users of a server that keeps them apart never meet in one process, however their calls mix", async () => {
    const calls = Array.from({ length: 40 }, (_, at) => (at % 2 === 0 ? owner : clerk));
    const pids = await Promise.all(calls.map((token) => pid("shop_count", token)));
    const of = (token: string) => new Set(pids.filter((_, at) => calls[at] === token));
    expect(pids.every((one) => one !== undefined)).toBe(true);
    expect([...of(owner)].filter((one) => of(clerk).has(one))).toEqual([]);
  });
  test("a session of one user is not there for another, and its tools stay whose they were", async () => {
    const opened = await gate.post(
      {
        jsonrpc: "2.0",
        id: 1,
        method: "initialize",
        params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } },
      },
      {},
      owner,
    );
    const session = opened.headers.get("mcp-session-id") ?? "";
    await opened.text();
    const headers = { "mcp-session-id": session, "mcp-protocol-version": "2025-11-25" };
    const list = { jsonrpc: "2.0", id: 2, method: "tools/list", params: {} };
    expect((await gate.post(list, headers, clerk)).status).toBe(404);
    expect((await gate.post(list, headers, owner)).status).toBe(200);
  });
  test("decisions for two callers that come at the same time are each their own", async () => {
    const answers = await Promise.all(
      Array.from({ length: 100 }, async (_, at) => {
        const token = [owner, clerk, guest][at % 3] ?? guest;
        return [at % 3, (await call("shop_sum", token, { a: 50, b: 1 })).result !== undefined] as const;
      }),
    );
    for (const [who, permitted] of answers) expect(permitted).toBe(who === 0);
  });
});
