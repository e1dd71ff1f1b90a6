/** What a client with a good token tries at the MCP endpoint: more than it may, somebody else's things, two readings of one message. */
import { createServer, request as httpRequest, type IncomingMessage, type Server } from "node:http";
import { afterAll, beforeAll, describe, expect, vi } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { usersIn } from "../../src/oauth/people/users.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { foreignServer } from "../oauth/foreign-server.ts";
import { Browser, connect, listen, PASSWORD, type Running, register, stop } from "../oauth/support.ts";
import { everyStore } from "../store/backends.ts";
import { attack, attackEach } from "./checklist.ts";

const META = "io.modelcontextprotocol";
type ToolList = readonly { readonly name: string; readonly inputSchema?: object }[];

/** An MCP server of 2026-07-28 that answers each call with its text, and keeps what reached it. */
function upstream(tools: ToolList): {
  http: Server;
  calls: { name: string; text: string; headers: IncomingMessage["headers"] }[];
} {
  const calls: { name: string; text: string; headers: IncomingMessage["headers"] }[] = [];
  const http = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const {
      id,
      method = "",
      params,
    } = JSON.parse(text || "{}") as {
      id?: number;
      method?: string;
      params?: { name?: string };
    };
    if (method === "tools/call") calls.push({ name: params?.name ?? "", text, headers: request.headers });
    const results: Record<string, object> = {
      "server/discover": {
        supportedVersions: ["2026-07-28"],
        capabilities: { tools: {} },
        _meta: { [`${META}/serverInfo`]: { name: "stub", version: "1" } },
      },
      "tools/list": { tools: tools.map((tool) => ({ inputSchema: { type: "object" }, ...tool })) },
      "tools/call": { content: [{ type: "text", text: params?.name }] },
    };
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ jsonrpc: "2.0", id, result: { resultType: "complete", ...results[method] } }));
  });
  return { http, calls };
}

const header = (name: string) => ({
  type: "object",
  properties: { region: { type: "string", "x-mcp-header": name } },
});
const one = upstream([
  { name: "read" },
  { name: "erase" },
  { name: "b_c" },
  { name: "place", inputSchema: header("Region") },
  { name: "smuggle", inputSchema: header("Region\r\nX-Role: owner") },
]);
const two = upstream([{ name: "c" }, { name: "read" }]);
const calls = () => one.calls.length + two.calls.length;

let gate: World;
let owner: string;
let staff: string;
const undo: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  const sqlite = everyStore.find(({ name }) => name === "sqlite");
  const place = await sqlite?.place();
  if (place === undefined) throw new Error("no place for a store");
  undo.push(async () => place[Symbol.asyncDispose]());
  const [first, second] = [await listen(one.http), await listen(two.http)];
  undo.push(
    () => stop(one.http),
    () => stop(two.http),
  );
  gate = await world({
    store: place.setting,
    servers: { a: { url: `http://127.0.0.1:${first}/mcp` }, "a-b": { url: `http://127.0.0.1:${second}/mcp` } },
    roles: { owner: { may: ["*"] }, staff: { may: ["a_read", "a_place"] } },
    assign: [
      { role: "owner", group: "owner" },
      { role: "staff", group: "staff" },
    ],
  });
  undo.push(async () => gate[Symbol.asyncDispose]());
  owner = (await gate.tokens()).access_token;
  const { sqliteStore } = await import("../../src/store/sqlite/sqlite.ts");
  const store = sqliteStore(place.setting.slice("sqlite:".length));
  undo.push(() => store.close());
  await usersIn(store.records).create({ name: "pepper", email: undefined, password: PASSWORD, groups: ["staff"] });
  staff = await tokenOf("pepper");
}, 30_000);
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

async function ask(
  method: string,
  params: Record<string, unknown>,
  by: string,
  more: Record<string, string | undefined> = {},
) {
  const [body, own] = modernRequest(method, params);
  const headers = Object.entries({ ...own, ...more }).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  const response = await gate.post(body, Object.fromEntries(headers), by);
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, message: JSON.parse(text) as Message };
}
interface Message {
  readonly result?: {
    readonly tools?: readonly { name: string }[];
    readonly content?: readonly { text: string }[];
    readonly cacheScope?: string;
  };
  readonly error?: { readonly code: number };
}
const callTool = (name: string, by: string, more: Record<string, string | undefined> = {}, args: object = {}) =>
  ask("tools/call", { name, arguments: args }, by, more);
const toolsOf = async (by: string) => (await ask("tools/list", {}, by)).message.result?.tools?.map(({ name }) => name);

describe("a tool that one's role does not have", () => {
  attack(76, "is in no list and refused in the words for one that is not there; it is not called", async () => {
    expect(await toolsOf(owner)).toEqual(expect.arrayContaining(["a_read", "a_erase", "a-b_read"]));
    expect(await toolsOf(staff)).toEqual(["a_read", "a_place"]);
    const before = calls();
    const [denied, unknown] = [await callTool("a_erase", staff), await callTool("a_nothing", staff)];
    const plain = ({ text }: { text: string }) => text.replaceAll(/a_erase|a_nothing/g, "NAME");
    expect([denied.status, denied.message.error?.code, plain(denied)]).toEqual([200, -32602, plain(unknown)]);
    expect([...denied.headers.keys()].sort()).toEqual([...unknown.headers.keys()].sort());
    expect(calls()).toBe(before);
    expect((await callTool("a_read", staff)).message.result?.content?.[0]?.text).toBe("read");
  });

  attack(
    76,
    "is not in the list of another role asked for at the same time, nor kept for anybody by a cache",
    async () => {
      const lists = await Promise.all(
        Array.from(
          { length: 60 },
          async (_, index) => [index % 2, await ask("tools/list", {}, index % 2 ? staff : owner)] as const,
        ),
      );
      for (const [isStaff, { headers, message }] of lists) {
        const names = message.result?.tools?.map(({ name }) => name) ?? [];
        expect(names.includes("a_erase")).toBe(isStaff === 0);
        expect(message.result?.cacheScope).toBe("private");
        expect(headers.get("cache-control") ?? "no-store").toMatch(/no-store|private/);
      }
    },
  );
});

attack(79, "headers that say who somebody is, or what they may, are not believed", async () => {
  const claims = {
    "x-user": "olive",
    "x-forwarded-user": "olive",
    "x-remote-user": "olive",
    "x-role": "owner",
    "x-groups": "owner",
    "mcp-init-host": "a",
    "x-mcp-virtualhost": "a",
    "x-drawbridge-subject": "olive",
    "x-drawbridge-role": "owner",
  };
  const before = calls();
  expect((await callTool("a_erase", staff, claims)).message.error?.code).toBe(-32602);
  const [body, own] = modernRequest("tools/list");
  expect((await gate.post(body, { ...own, ...claims }, "")).status).toBe(401);
  expect(calls()).toBe(before);
  expect((await callTool("a_read", staff, claims)).status).toBe(200);
  for (const name of Object.keys(claims)) expect(one.calls.at(-1)?.headers).not.toHaveProperty(name);
  expect(JSON.stringify(one.calls.at(-1)?.headers)).not.toContain(staff.slice(0, 40));
});

describe("a header that says otherwise than the body", () => {
  const to64 = (text: string) => `=?base64?${Buffer.from(text).toString("base64")}?=`;
  attackEach(
    77,
    [
      ["no method", { "mcp-method": undefined }],
      ["another method", { "mcp-method": "tools/list" }],
      ["the method in capitals", { "mcp-method": "TOOLS/CALL" }],
      ["no name", { "mcp-name": undefined }],
      ["a name that is allowed", { "mcp-name": "a_place" }],
      ["another name in base64", { "mcp-name": to64("a_place") }],
      ["its name in base64 that is none", { "mcp-name": "=?base64?YV9yZWFk" }],
      ["its name in base64 with something behind it", { "mcp-name": to64("a_read\u0000") }],
      ["two names", { "mcp-name": "a_read, a_place" }],
    ],
    "is refused: %s",
    async (_what, more) => {
      const before = calls();
      const answer = await callTool("a_read", owner, more);
      expect([answer.status, answer.message.error?.code]).toEqual([400, -32020]);
      expect(calls()).toBe(before);
      for (const name of ["a_read", to64("a_read")])
        expect((await callTool("a_read", owner, { "mcp-name": name })).message.result?.content?.[0]?.text).toBe("read");
    },
  );

  attack(
    77,
    "does not choose what is permitted: a tool that is not is refused under the name of one that is",
    async () => {
      const before = calls();
      for (const name of ["a_read", to64("a_read"), "a_erase"]) {
        const answer = await callTool("a_erase", staff, { "mcp-name": name });
        expect(answer.message.result).toBeUndefined();
      }
      expect(calls()).toBe(before);
    },
  );

  attack(
    77,
    "is refused for an argument too, and a tool that would write headers of its own is not taken",
    async () => {
      const place = (value: string | undefined) =>
        callTool("a_place", staff, { "mcp-param-region": value }, { region: "north" });
      expect((await place("north")).status).toBe(200);
      for (const value of ["south", undefined, to64("south")])
        expect((await place(value)).message.error?.code).toBe(-32020);
      expect(await toolsOf(owner)).not.toContain("a_smuggle");
      expect((await callTool("a_smuggle", owner, {}, { region: "x" })).message.result).toBeUndefined();
      for (const { headers } of one.calls) expect(headers).not.toHaveProperty("x-role");
    },
  );
});

describe("a message that could be read in two ways", () => {
  const BODIES: readonly (readonly [string, string, number])[] = [
    [
      "Method beside method",
      '{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"a_read"}}',
      -32600,
    ],
    ["Method in place of method", '{"jsonrpc":"2.0","id":1,"Method":"tools/call","params":{"name":"a_read"}}', -32600],
    [
      "a name twice",
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_read","name":"a_erase"}}',
      -32600,
    ],
    [
      "a name twice, once escaped",
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_read","n\\u0061me":"a_erase"}}',
      -32600,
    ],
    [
      "Name beside name",
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_read","Name":"a_erase"}}',
      -32600,
    ],
    [
      "params twice",
      '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_read"},"params":{"name":"a_erase"}}',
      -32600,
    ],
    ["a list of messages", '[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_read"}}]', -32600],
    [
      "two messages",
      '{"jsonrpc":"2.0","id":1,"method":"ping"}\n{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"a_read"}}',
      -32700,
    ],
    [
      "ten thousand levels",
      `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_read","arguments":{"x":${"[".repeat(10_000)}${"]".repeat(10_000)}}}}`,
      -32600,
    ],
    ["an unknown method", '{"jsonrpc":"2.0","id":1,"method":"Tools/Call","params":{"name":"a_read"}}', -32601],
    ["a comment", '{"jsonrpc":"2.0","id":1,"method":"tools/call",/* */"params":{"name":"a_read"}}', -32700],
    ["a byte order mark", '\ufeff{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_read"}}', -32700],
  ];
  attackEach(78, BODIES, "is refused: %s", async (_what, body, code) => {
    const before = calls();
    const answer = await gate.post(body, {}, owner);
    expect(((await answer.json()) as Message).error?.code).toBe(code);
    expect(calls()).toBe(before);
    const good = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "a_read", arguments: {} } };
    expect(((await (await gate.post(good, {}, owner)).json()) as Message).result?.content?.[0]?.text).toBe("read");
  });

  attackEach(
    78,
    [
      "a_Read",
      "A_read",
      "ａ_read",
      "a_re\u200bad",
      "а_read",
      "a_read ",
      " a_read",
      "a_read\u0000",
      "a\u005f\u200dread",
      "a/read",
      "a__read",
      "_read",
      "read",
      "__proto__",
      "constructor",
    ],
    "a name that only looks like a tool's is nobody's: %j",
    async (name) => {
      const before = calls();
      const body = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: {} } };
      const answer = (await (await gate.post(body, {}, owner)).json()) as Message;
      expect(answer.error?.code).toBe(-32602);
      expect(calls()).toBe(before);
    },
  );

  attack(78, "a server cannot be named so that its tools would pass for another's", async () => {
    // b_c of a, and c of a_b.
    for (const name of ["a_b", "a__b", "A", "a.b", "a b", "а", ""]) {
      const settings = { servers: { a: { url: "http://127.0.0.1:1/mcp" }, [name]: { url: "http://127.0.0.1:1/mcp" } } };
      const started = settleSettings({ store: "memory", ...settings }, process.cwd(), { env: {} });
      await expect(started, name).rejects.toThrow(/name is not allowed|servers/);
    }
    expect((await toolsOf(owner))?.filter((name) => name === "a_b_c")).toHaveLength(1);
    expect((await callTool("a_b_c", owner)).message.result?.content?.[0]?.text).toBe("b_c");
    // Its name looks like the one that was there before, so it is held.
    expect((await callTool("a-b_c", owner)).message.error?.code).toBe(-32602);
  });

  attack(78, "what is sent on is what was checked, not what came in", async () => {
    const text =
      '{ "jsonrpc":"2.0" , "id": 1,\n"vendor":"dropped","params":{"arguments":{"x":1.0},"name":"a_\\u0072ead","extra":{"y":1}},"method":"tools\\/call"}';
    expect((await gate.post(text, {}, owner)).status).toBe(200);
    const sent = one.calls.at(-1);
    expect(sent?.name).toBe("read");
    expect(sent?.text).not.toContain("a_");
    expect(sent?.text).not.toContain("vendor");
    expect(sent?.text).toContain('"x":1.0');
    expect(sent?.headers["mcp-name"]).toBe("read");
  });
});

describe("somebody else's session", () => {
  const initialize = {
    jsonrpc: "2.0",
    id: 0,
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } },
  };
  const begin = async (by: string) => (await gate.post(initialize, {}, by)).headers.get("mcp-session-id") ?? "";

  attack(80, "looks like one that is not there, whatever is done with it; its owner goes on", async () => {
    const mine = await begin(owner);
    // 128 bits and more, in base64url or hex.
    expect(mine.replaceAll(/[^\w]/g, "").length).toBeGreaterThanOrEqual(22);
    const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
    const send = (by: string, method: string, session: string, more: Record<string, string> = {}) =>
      fetch(gate.url, {
        method,
        headers: {
          authorization: `Bearer ${by}`,
          "mcp-session-id": session,
          accept: "application/json, text/event-stream",
          "content-type": "application/json",
          ...more,
        },
        ...(method === "POST" && { body: JSON.stringify(ping) }),
      });
    for (const method of ["POST", "GET", "DELETE"]) {
      const foreign = await send(staff, method, mine);
      const unknown = await send(staff, method, `${mine.slice(0, -4)}AAAA`);
      expect([foreign.status, await foreign.text()], method).toEqual([404, await unknown.text()]);
      expect(unknown.status).toBe(404);
    }
    const resumed = await send(staff, "GET", mine, { "last-event-id": "1" });
    expect(resumed.status).toBe(404);
    await resumed.body?.cancel();
    expect((await send(owner, "POST", mine)).status).toBe(200);
  });

  attack(80, "is not had by another client of the same person either", async () => {
    const mine = await begin(owner);
    const other = (await gate.tokens()).access_token;
    const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
    expect((await gate.post(ping, { "mcp-session-id": mine }, other)).status).toBe(404);
    expect((await gate.post(ping, { "mcp-session-id": mine }, owner)).status).toBe(200);
  });
});

describe("a name that is not the gateway's", () => {
  const raw = (path: string, headers: Record<string, string>) =>
    new Promise<{ status: number; text: string; headers: IncomingMessage["headers"] }>((resolve, reject) => {
      httpRequest(`${gate.origin}${path}`, { headers }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => {
          text += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, text, headers: response.headers }));
      })
        .on("error", reject)
        .end();
    });
  const DOCUMENTS = [
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/oauth/jwks",
    "/mcp",
    "/sign-in",
  ];

  attackEach([81, 84], DOCUMENTS, "is refused as Host and is in no answer, however it is sent: %s", async (path) => {
    for (const host of [
      "evil.example",
      `127.0.0.1:1`,
      `${new URL(gate.origin).host}.evil.example`,
      "localhost@evil.example",
    ]) {
      const answer = await raw(path, { host });
      if (host.includes("evil")) expect([host, answer.status]).toEqual([host, 403]);
      expect(answer.text).not.toContain("evil.example");
    }
    const answer = await raw(path, {
      "x-forwarded-host": "evil.example",
      "x-forwarded-proto": "https",
      "x-forwarded-port": "444",
      "x-original-host": "evil.example",
      forwarded: "host=evil.example;proto=https",
      "x-forwarded-prefix": "/evil",
    });
    expect(`${JSON.stringify(answer.headers)}${answer.text}`).not.toMatch(/evil\.example|\/evil|https:\/\/127|:444\b/);
    // By a loopback name that is ours, too, the issuer stays the one of the settings.
    const alias = await raw(path, { host: `localhost:${new URL(gate.origin).port}` });
    if (path.startsWith("/.well-known")) expect(alias.text).toContain(`"${gate.gateway.publicUrl}`);
    if (path.startsWith("/.well-known")) expect(alias.text).not.toContain("localhost");
  });
});

attack(
  73,
  "while the keys of another issuer cannot be had, tokens count for a day by the last ones, then none does, and none unsigned ever",
  async () => {
    const made: { issuer?: Awaited<ReturnType<typeof foreignServer>> } = {};
    let down = false;
    const http = createServer(async (request, response) => {
      if (down || made.issuer === undefined) return void request.socket.destroy();
      const answer = await made.issuer.http.fetch(new URL(request.url ?? "/", made.issuer.issuer));
      response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
    });
    const origin = `http://127.0.0.1:${await listen(http)}`;
    const issuer = await foreignServer(() => Date.now(), origin);
    made.issuer = issuer;
    issuer.answers.set(`${origin}/.well-known/oauth-authorization-server`, () =>
      Response.json({ issuer: origin, jwks_uri: `${origin}/keys`, token_endpoint: `${origin}/token` }),
    );
    try {
      await using other = await world({
        servers: { a: { url: gate.url.replace(/:\d+/, `:${(one.http.address() as { port: number }).port}`) } },
        clients: undefined,
        authorization: { issuer: origin, scopes: { read: ["read"], call: ["call"] } },
        assign: [{ role: "owner", when: '"ops" in user.groups' }],
        roles: { owner: { may: ["*"] } },
      });
      const claims = { sub: "ann", aud: other.url, client_id: "agent", scope: "read call", groups: ["ops"] };
      const status = async (token: string) =>
        (await other.post({ jsonrpc: "2.0", id: 1, method: "tools/list" }, {}, token)).status;
      const fresh = () => issuer.sign({ ...claims, jti: crypto.randomUUID() }, { typ: "at+jwt" });
      const stranger = await foreignServer(() => Date.now(), origin);
      const forged = () => stranger.sign({ ...claims, jti: crypto.randomUUID() }, { typ: "at+jwt" });
      expect([await status(await fresh()), await status(await forged())]).toEqual([200, 401]);
      down = true;
      vi.setSystemTime(Date.now() + 20 * 3_600_000);
      expect([await status(await fresh()), await status(await forged())]).toEqual([200, 401]);
      vi.setSystemTime(Date.now() + 6 * 3_600_000);
      for (const token of [await fresh(), await forged()]) expect([401, 503]).toContain(await status(token));
      down = false;
      vi.setSystemTime(Date.now() + 60_000);
      expect([await status(await fresh()), await status(await forged())]).toEqual([200, 401]);
    } finally {
      vi.useRealTimers();
      await stop(http);
    }
  },
);
