/** Clauses of the MCP transports that no other test stands for, driven over HTTP against a running gateway. */
import { Agent, request } from "node:http";
import { afterAll, beforeAll, describe, expect } from "vitest";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { modernRequest, type World, world } from "./world.ts";

let one: World;
let http: World;
let fixture: Fixture;
let token: string;
let httpToken: string;
beforeAll(async () => {
  fixture = await startFixture("echo-http", ["--era", "modern"]);
  one = await world({
    servers: { echo: { command: fixtureCommand("echo-stdio", []), processes: { max: 1 }, timeoutSeconds: 30 } },
  });
  http = await world({ servers: { echo: { url: `${fixture.origin}/mcp` } } });
  token = (await one.tokens()).access_token;
  httpToken = (await http.tokens()).access_token;
});
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await http?.[Symbol.asyncDispose]();
  await fixture?.stop();
});

interface Message {
  readonly id?: unknown;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown> & { structuredContent?: Record<string, unknown> };
  readonly error?: { code: number; message: string; data?: unknown };
}
const META = "io.modelcontextprotocol";

/** A modern call and every message of its answer. */
async function modern(
  method: string,
  params: Record<string, unknown> = {},
  { id = 1 as string | number, more = {}, at = one, by = token } = {},
) {
  const [body, headers] = modernRequest(method, params, id);
  const response = await at.post(body, { ...headers, ...more }, by);
  const text = await response.text();
  const streamed = response.headers.get("content-type") === "text/event-stream";
  const messages = (
    streamed ? [...text.matchAll(/^data: (.*)$/gm)].map(([, data = ""]) => JSON.parse(data)) : [JSON.parse(text)]
  ) as Message[];
  return { status: response.status, headers: response.headers, streamed, messages, last: messages.at(-1) };
}
const tool = (name: string, args: object = {}, meta: object = {}) => ({ name, arguments: args, _meta: meta });

/** An older client's request; its session's id goes in `more`. */
async function legacy(method: string, params: object = {}, more: Record<string, string> = {}, id: number | string = 1) {
  const response = await one.post({ jsonrpc: "2.0", id, method, params }, more, token);
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, message: JSON.parse(text || "{}") as Message };
}
async function session(revision = "2025-11-25") {
  const clientInfo = { name: "t", version: "1" };
  const answer = await legacy("initialize", { protocolVersion: revision, capabilities: {}, clientInfo });
  return { ...answer, id: answer.headers.get("mcp-session-id") ?? "" };
}
const cancelledSoFar = async () =>
  Number((await modern("tools/call", tool("count"))).last?.result?.structuredContent?.["cancelled"]);

describe("an answer", () => {
  verifies(
    ["http-request-answer", "http-unbuffered", "http-stream-related", "progress-token"],
    "is one JSON object, or a stream of what belongs to its request that ends after the response",
    async () => {
      const [plain, first, second] = await Promise.all([
        modern("tools/call", tool("slow", { ms: 40 })),
        modern("tools/call", tool("slow", { ms: 40 }, { progressToken: "mine" }), { id: "a" }),
        modern("tools/call", tool("slow", { ms: 40 }, { progressToken: 7 }), { id: "b" }),
      ]);
      expect([plain.headers.get("content-type"), plain.messages.length]).toEqual(["application/json", 1]);
      for (const [answer, id, progressToken] of [
        [first, "a", "mine"],
        [second, "b", 7],
      ] as const) {
        expect(answer.streamed).toBe(true);
        expect(answer.headers.get("x-accel-buffering")).toBe("no");
        expect(answer.last).toMatchObject({ id, result: { content: [{ text: "slept 40 ms" }] } });
        const before = answer.messages.slice(0, -1);
        expect(before).toHaveLength(4);
        for (const { id, method, params } of before) {
          expect([id, method]).toEqual([undefined, "notifications/progress"]);
          expect(params?.["progressToken"]).toBe(progressToken);
        }
      }
    },
  );

  verifies(
    ["error-id", "request-id"],
    "that is an error has its request's id, or none when that cannot be read",
    async () => {
      const unreadable = await one.post("{", {}, token);
      expect(await unreadable.json()).not.toHaveProperty("id");
      const nullId = await one.post({ jsonrpc: "2.0", id: null, method: "ping" }, {}, token);
      expect([nullId.status, await nullId.json()]).toEqual([400, expect.not.objectContaining({ id: null })]);
      const mismatch = await modern("tools/call", tool("count"), { id: "q", more: { "mcp-name": "other" } });
      expect(mismatch).toMatchObject({ status: 400, last: { id: "q", error: { code: -32020 } } });
      expect((await modern("tools/call", tool("rpc-error"), { id: 0 })).last).toMatchObject({
        id: 0,
        error: { code: 4242 },
      });
    },
  );

  verifies("caching-hints", "that a client may keep says for how long and for whom", async () => {
    for (const [method, params] of [
      ["server/discover", {}],
      ["tools/list", {}],
      ["prompts/list", {}],
      ["resources/list", {}],
      ["resources/templates/list", {}],
      ["resources/read", { uri: "test://static/greeting" }],
    ] as const) {
      const { result } = (await modern(method, params)).last ?? {};
      expect(result, method).toMatchObject({ resultType: "complete", cacheScope: "private" });
      expect(Number(result?.["ttlMs"]), method).toBeGreaterThanOrEqual(0);
    }
  });

  verifies("list-order", "that lists tools has them in the same order each time", async () => {
    const names = async () =>
      ((await modern("tools/list")).last?.result?.["tools"] as { name: string }[] | undefined)?.map(({ name }) => name);
    expect(await names()).toContain("echo");
    expect(await names()).toEqual(await names());
  });

  verifies("cursor-unknown", "to a cursor that is not ours is invalid params, in both generations", async () => {
    for (const cursor of ["nonsense", 7, "OTk5OTk5"]) {
      expect((await modern("tools/list", { cursor })).last?.error?.code).toBe(-32602);
      expect((await legacy("tools/list", { cursor })).message.error?.code).toBe(-32602);
    }
  });

  verifies("resource-unknown", "about a resource that is not there has the code of its revision", async () => {
    const params = { uri: "test://nowhere" };
    expect((await modern("resources/read", params)).last?.error?.code).toBe(-32602);
    expect((await legacy("resources/read", params)).message.error?.code).toBe(-32002);
  });

  verifies("log-level", "brings log messages only to a request that asked for them, from its level on", async () => {
    const log = (level: string, meta: object = {}) =>
      modern("tools/call", tool("log", { level, text: "x" }, meta), { at: http, by: httpToken });
    const asked = { [`${META}/logLevel`]: "warning" };
    expect((await log("error")).messages).toHaveLength(1);
    expect((await log("info", asked)).messages).toHaveLength(1);
    expect((await log("error", asked)).messages[0]).toMatchObject({
      method: "notifications/message",
      params: { level: "error", data: "x" },
    });
  });
});

describe("a notification or a response", () => {
  verifies(
    ["http-notification-202", "legacy-accepted"],
    "that is accepted is answered 202 without a body",
    async () => {
      const modernNote = {
        jsonrpc: "2.0",
        method: "notifications/x",
        params: { _meta: { [`${META}/protocolVersion`]: "2026-07-28" } },
      };
      const headers = { "mcp-protocol-version": "2026-07-28", "mcp-method": "notifications/x" };
      const { id } = await session();
      for (const [body, more] of [
        [modernNote, headers],
        [{ jsonrpc: "2.0", method: "notifications/initialized" }, { "mcp-session-id": id }],
        [{ jsonrpc: "2.0", id: 1, result: {} }, { "mcp-session-id": id }],
        [{ jsonrpc: "2.0", id: 1, error: { code: 1, message: "no" } }, { "mcp-session-id": id }],
      ] as const) {
        const response = await one.post(body, more, token);
        expect([response.status, await response.text()]).toEqual([202, ""]);
      }
    },
  );

  verifies("http-single-message", "that is a response is refused where clients have none to send", async () => {
    const response = await one.post(
      { jsonrpc: "2.0", id: 1, result: {} },
      { "mcp-protocol-version": "2026-07-28" },
      token,
    );
    expect([response.status, ((await response.json()) as Message).error?.code]).toEqual([400, -32600]);
  });
});

describe("a call in progress", () => {
  verifies("http-cancel-by-close", "is cancelled by closing its stream", async () => {
    const cancelled = async () =>
      ((await (await fetch(`${fixture.origin}/stats`)).json()) as { cancelled: number }).cancelled;
    const before = await cancelled();
    const [body, headers] = modernRequest("tools/call", tool("drip", { events: 10_000, ms: 20 }, { progressToken: 1 }));
    const response = await http.post(body, headers, httpToken);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    await response.body?.cancel();
    await waitFor(async () => (await cancelled()) === before + 1);
  });

  verifies(
    "legacy-cancellation",
    "of a session is cancelled by its own id, and only by one that is known",
    async () => {
      const before = await cancelledSoFar();
      const { id } = await session();
      const mine = { "mcp-session-id": id };
      const cancel = async (requestId: unknown) => {
        const params = { requestId, reason: "enough" };
        const response = await one.post({ jsonrpc: "2.0", method: "notifications/cancelled", params }, mine, token);
        expect(response.status).toBe(202);
      };
      const long = legacy("tools/call", { name: "slow", arguments: { ms: 60_000 } }, mine, "long");
      for (const unknown of ["other", 4, null, {}]) await cancel(unknown);
      // The call may not have arrived yet, and a cancellation that comes before it is one of nothing.
      await waitFor(async () => {
        await cancel("long");
        return (await cancelledSoFar()) > before;
      });
      expect((await long).message.result).toBeUndefined();
      expect(await cancelledSoFar()).toBe(before + 1);
    },
  );
});

describe("headers", () => {
  verifies(["http-param-header", "upstream-headers"], "that repeat arguments must say what the body says", async () => {
    const call = (args: object, more: Record<string, string>) =>
      modern("tools/call", tool("region", args), { more, at: http, by: httpToken });
    const north = { region: "Nordküste" };
    const encoded = `=?base64?${Buffer.from(north.region).toString("base64")}?=`;
    expect((await call({ region: "north" }, { "mcp-param-region": "north" })).last).toMatchObject({
      result: { content: [{ text: "north" }] },
    });
    expect((await call(north, { "Mcp-Param-Region": encoded })).last).toMatchObject({
      result: { content: [{ text: north.region }] },
    });
    for (const [args, more] of [
      [{ region: "north" }, {}],
      [{ region: "north" }, { "mcp-param-region": "south" }],
      [{ region: "north" }, { "mcp-param-region": "North" }],
      [{ region: "north" }, { "mcp-param-region": "=?base64?bm9ydGg?=" }],
      [{ region: "nörth" }, { "mcp-param-region": "nörth" }],
      [{}, { "mcp-param-region": "north" }],
      [{ region: null }, { "mcp-param-region": "null" }],
    ] as const) {
      const answer = await call(args, more);
      expect([answer.status, answer.last?.error?.code], JSON.stringify([args, more])).toEqual([400, -32020]);
    }
  });

  verifies("http-header-case", "are named in any case", async () => {
    const [body] = modernRequest("tools/call", tool("echo", { text: "loud" }));
    const text = await new Promise<string>((resolve, reject) => {
      const headers = {
        "CONTENT-TYPE": "application/json",
        ACCEPT: "application/json, text/event-stream",
        AUTHORIZATION: `Bearer ${token}`,
        "MCP-PROTOCOL-VERSION": "2026-07-28",
        "mCP-mETHOD": "tools/call",
        "MCP-name": "echo",
      };
      request(one.url, { method: "POST", headers }, (response) => {
        let all = "";
        response.setEncoding("utf8").on("data", (part: string) => {
          all += part;
        });
        response.on("end", () => resolve(all));
      })
        .on("error", reject)
        .end(JSON.stringify(body));
    });
    expect(JSON.parse(text)).toMatchObject({ result: { content: [{ text: "loud" }] } });
  });
});

describe("one endpoint", () => {
  verifies(
    ["http-endpoint", "versioning-eras", "stateless", "http-no-sessions", "server-discover"],
    "serves both generations in any order on one connection, and modern requests without any session",
    async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const sockets = new Set<unknown>();
      const send = (body: object, headers: Record<string, string>) =>
        new Promise<{ status: number; session: unknown; message: Message }>((resolve, reject) => {
          const all = {
            "content-type": "application/json",
            accept: "application/json, text/event-stream",
            authorization: `Bearer ${token}`,
            ...headers,
          };
          request(one.url, { method: "POST", agent, headers: all }, (response) => {
            sockets.add(response.socket.localPort);
            let text = "";
            response.setEncoding("utf8").on("data", (part: string) => {
              text += part;
            });
            response.on("end", () =>
              resolve({
                status: response.statusCode ?? 0,
                session: response.headers["mcp-session-id"],
                message: JSON.parse(text) as Message,
              }),
            );
          })
            .on("error", reject)
            .end(JSON.stringify(body));
        });
      const initialize = {
        jsonrpc: "2.0",
        id: 1,
        method: "initialize",
        params: { protocolVersion: "2025-06-18", capabilities: {}, clientInfo: { name: "t", version: "1" } },
      };
      try {
        const discovered = await send(...modernRequest("server/discover"));
        expect(discovered.session).toBeUndefined();
        expect(discovered.message.result).toMatchObject({
          supportedVersions: expect.arrayContaining(["2026-07-28", "2025-11-25"]),
          capabilities: { tools: {} },
          _meta: { [`${META}/serverInfo`]: { name: expect.any(String), version: expect.any(String) } },
        });
        const { session: id, message } = await send(initialize, {});
        expect([typeof id, message.result?.["protocolVersion"]]).toEqual(["string", "2025-06-18"]);
        const [body, headers] = modernRequest("tools/call", tool("echo", { text: "modern" }));
        for (const ignored of [{}, { "mcp-session-id": "never-given" }, { "last-event-id": "7" }]) {
          const answer = await send(body, { ...headers, ...(ignored as Record<string, string>) });
          expect([answer.status, answer.session]).toEqual([200, undefined]);
          expect(answer.message.result).toMatchObject({ resultType: "complete" });
        }
        const echo = {
          jsonrpc: "2.0",
          id: 2,
          method: "tools/call",
          params: { name: "echo", arguments: { text: "legacy" } },
        };
        const older = await send(echo, { "mcp-session-id": String(id), "mcp-protocol-version": "2025-06-18" });
        expect(older.message.result).toEqual({ content: [{ type: "text", text: "legacy" }] });
        expect(sockets.size).toBe(1);
      } finally {
        agent.destroy();
      }
    },
  );

  verifies(
    ["http-get-405", "legacy-get-stream"],
    "opens a stream for GET in a session, and answers 405 outside one",
    async () => {
      const { id } = await session();
      const headers = { authorization: `Bearer ${token}`, accept: "text/event-stream" };
      const inside = await fetch(one.url, { headers: { ...headers, "mcp-session-id": id } });
      expect([inside.status, inside.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
      await inside.body?.cancel();
      for (const method of ["GET", "DELETE", "PUT"]) {
        const outside = await fetch(one.url, { method, headers: { ...headers, "mcp-protocol-version": "2026-07-28" } });
        expect([outside.status, outside.headers.get("allow")], method).toEqual([405, expect.stringContaining("POST")]);
      }
    },
  );
});

describe("a session", () => {
  verifies("legacy-session-id", "has an id of visible ASCII that cannot be guessed", async () => {
    const ids = (await Promise.all(Array.from({ length: 20 }, () => session()))).map(({ id }) => id);
    expect(new Set(ids).size).toBe(20);
    for (const id of ids) expect(id).toMatch(/^[\x21-\x7e]{22,}$/);
  });

  verifies(
    "legacy-negotiation",
    "speaks the client's revision when it is known, else the newest with sessions",
    async () => {
      for (const [asked, answered] of [
        ["2024-11-05", "2024-11-05"],
        ["2025-03-26", "2025-03-26"],
        ["2025-11-25", "2025-11-25"],
        ["2026-07-28", "2025-11-25"],
        ["1999-01-01", "2025-11-25"],
      ] as const)
        expect((await session(asked)).message.result?.["protocolVersion"]).toBe(answered);
    },
  );

  verifies("legacy-session-required", "is needed for what has to be remembered", async () => {
    const params = { uri: "test://static/greeting" };
    const without = await legacy("resources/subscribe", params);
    expect([without.status, without.message.error?.code]).toEqual([400, -32600]);
    const { id } = await session();
    expect((await legacy("resources/subscribe", params, { "mcp-session-id": id })).message.result).toEqual({});
  });

  verifies("legacy-ping", "answers ping with an empty result", async () => {
    const { id } = await session();
    expect((await legacy("ping", {}, { "mcp-session-id": id }, "p")).message).toEqual({
      jsonrpc: "2.0",
      id: "p",
      result: {},
    });
  });

  verifies("legacy-version-header", "does not take a version header that nobody knows", async () => {
    const { id } = await session();
    for (const version of ["1999-01-01", "latest", "2025-11-26"]) {
      const answer = await legacy("ping", {}, { "mcp-session-id": id, "mcp-protocol-version": version });
      expect(answer.status, version).toBe(400);
    }
  });
});

describe("the protected resource", () => {
  verifies(
    ["rfc9728-document", "rfc9728-path", "rfc9728-challenge", "auth-no-offline-scope"],
    "is described where its challenge says, at the well-known path with its own path appended",
    async () => {
      const challenge = (await one.post({}, {}, "")).headers.get("www-authenticate") ?? "";
      const address = /resource_metadata="([^"]+)"/.exec(challenge)?.[1];
      expect(address).toBe(`${one.origin}/.well-known/oauth-protected-resource/mcp`);
      expect(challenge).not.toContain("offline_access");
      const response = await fetch(String(address));
      expect([response.status, response.headers.get("content-type")]).toEqual([200, "application/json"]);
      const document = (await response.json()) as { authorization_servers: string[] };
      expect(document).toMatchObject({
        resource: one.url,
        authorization_servers: [one.origin],
        scopes_supported: ["mcp:read", "mcp:call"],
        bearer_methods_supported: ["header"],
      });
      const issuer = document.authorization_servers[0];
      const server = await (await fetch(`${issuer}/.well-known/oauth-authorization-server`)).json();
      expect(server).toMatchObject({ issuer });
    },
  );

  verifies("rfc6750-header", "takes the scheme of the Authorization header in any case", async () => {
    const [body, headers] = modernRequest("tools/list");
    for (const scheme of ["bearer", "BEARER"])
      expect((await one.post(body, { ...headers, authorization: `${scheme} ${token}` }, "")).status).toBe(200);
  });

  verifies("rfc6750-challenge", "tells whoever tried another scheme what is wanted, and no error", async () => {
    const basic = await fetch(one.url, { method: "POST", headers: { authorization: "Basic b2xpdmU6cGFzc3dvcmQ=" } });
    expect(basic.status).toBe(401);
    expect(basic.headers.get("www-authenticate")).toMatch(/^Bearer (?!.*error=).*scope="mcp:read mcp:call"/);
  });
});

describe("what a client did not declare", () => {
  const ask = (capabilities: object, more: object = {}, from = { at: http, by: httpToken }) =>
    modern("tools/call", { ...tool("ask", {}, { [`${META}/clientCapabilities`]: capabilities }), ...more }, from);

  verifies(
    ["missing-capability", "meta-capabilities"],
    "is not asked of it: the call is refused with what is missing",
    async () => {
      for (const capabilities of [{}, { sampling: {} }]) {
        expect(await ask(capabilities)).toMatchObject({
          status: 400,
          messages: [{ error: { code: -32021, data: { requiredCapabilities: { elicitation: {} } } } }],
        });
      }
      const declared = { elicitation: {} };
      const { result } = (await ask(declared)).last ?? {};
      expect(result).toMatchObject({
        resultType: "input_required",
        inputRequests: { colour: { method: "elicitation/create" } },
      });
      const inputResponses = { colour: { action: "accept", content: { colour: "green" } } };
      const again = await ask(declared, { inputResponses, requestState: result?.["requestState"] });
      expect(again.last?.result).toMatchObject({ content: [{ text: expect.stringContaining("green") }] });
    },
  );

  verifies(
    "meta-capabilities",
    "is not asked of it by requests either, whoever the client and the server are",
    async () => {
      const fromOlder = await ask({ elicitation: {} }, {}, { at: one, by: token });
      expect(fromOlder.messages.filter(({ id, method }) => id !== undefined && method !== undefined)).toEqual([]);
      expect(JSON.stringify(fromOlder.last)).toContain("Method not found");
      const { id } = await session();
      const { message } = await legacy("tools/call", { name: "ask", arguments: {} }, { "mcp-session-id": id });
      expect(JSON.stringify(message)).toContain("Method not found");
      const client = await http.legacy(httpToken);
      expect(await client.callTool({ name: "ask", arguments: {} })).toMatchObject({
        isError: true,
        content: [{ text: expect.stringContaining("did not declare") }],
      });
    },
  );
});
