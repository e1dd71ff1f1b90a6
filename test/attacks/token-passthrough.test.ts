/** The client's token is for the gateway alone, and a token made for a server is for that server alone: nobody gets hold of either. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { createLogger } from "../../src/observe/logger.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { waitFor } from "../fixtures/processes.ts";
import { listen, stop } from "../oauth/support.ts";
import { verifies } from "../requirements.ts";

interface Seen {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}
type Misbehave = (message: { id?: number; method?: string }, response: ServerResponse) => unknown;

const MODERN = "io.modelcontextprotocol";
let upstream: Server;
let elsewhere: Server;
let elsewhereOrigin: string;
let plain: Server;
let one: World;
let strangers = 0;
const seen: Seen[] = [];
const seenPlain: Seen[] = [];
let misbehave: Misbehave | undefined;
const logged: string[] = [];
let token: string;

/** An MCP server of 2026-07-28 that writes down whatever reaches it. */
function stub(written: Seen[]): Server {
  return createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    written.push({ method: String(request.method), url: String(request.url), headers: request.headers, body });
    const message = (body === "" ? {} : JSON.parse(body)) as { id?: number; method?: string };
    const isCall = /^(tools\/call|resources\/read|prompts\/get|completion\/complete)$/.test(message.method ?? "");
    if (isCall) await misbehave?.(message, response);
    if (response.headersSent || response.destroyed) return;
    const results: Record<string, object> = {
      "server/discover": {
        supportedVersions: ["2026-07-28"],
        capabilities: { tools: {}, resources: {}, prompts: {}, completions: {} },
        _meta: { [`${MODERN}/serverInfo`]: { name: "stub", version: "1" } },
      },
      "tools/list": { tools: [{ name: "t", inputSchema: { type: "object" } }] },
      "resources/list": { resources: [{ uri: "test://r", name: "r" }] },
      "resources/templates/list": { resourceTemplates: [] },
      "prompts/list": { prompts: [{ name: "p" }] },
      "resources/read": { contents: [{ uri: "test://r", text: "r" }] },
      "prompts/get": { messages: [] },
      "completion/complete": { completion: { values: [] } },
    };
    const result = { resultType: "complete", ...(results[message.method ?? ""] ?? { content: [] }) };
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ jsonrpc: "2.0", id: message.id, result }));
  });
}

beforeAll(async () => {
  upstream = stub(seen);
  plain = stub(seenPlain);
  elsewhere = createServer((_, response) => response.end());
  elsewhere.on("connection", () => strangers++);
  elsewhereOrigin = `http://127.0.0.1:${await listen(elsewhere)}`;
  one = await world(
    {
      servers: {
        api: { url: `http://127.0.0.1:${await listen(upstream)}/mcp`, credentials: "exchange" },
        plain: { url: `http://127.0.0.1:${await listen(plain)}/mcp` },
      },
    },
    { logger: createLogger({ level: "trace", format: "json" }, { write: (line: string) => void logged.push(line) }) },
  );
  token = (await one.tokens()).access_token;
});
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  for (const server of [upstream, plain, elsewhere]) await stop(server);
});
beforeEach(() => {
  misbehave = undefined;
});

const ask = (method: string, params: Record<string, unknown>, headers: Record<string, string> = {}, as = token) => {
  const [body, own] = modernRequest(method, params);
  return one.post(body, { ...own, ...headers }, as);
};
const callApi = (headers: Record<string, string> = {}, as = token) =>
  ask("tools/call", { name: "api_t", arguments: {} }, headers, as);
const bearer = ({ headers }: Seen) => headers.authorization?.replace(/^Bearer /, "") ?? "";
const calls = () => seen.filter(({ body }) => body.includes('"tools/call"'));

/** The client gives back what it was granted (RFC 7009). */
const revoked = ({ refresh_token: given, client }: Awaited<ReturnType<World["tokens"]>>) =>
  fetch(`${one.gateway.publicUrl}/oauth/revoke`, {
    method: "POST",
    body: new URLSearchParams({ token: given, client_id: client }),
  });

/** A token in any form: as it is, encoded, or its signature alone. */
function holds(text: string, secret: string): boolean {
  const forms = [secret, secret.split(".")[2] ?? secret, Buffer.from(secret).toString("base64")];
  return forms.some((form) => text.includes(form));
}

describe("the client's token", () => {
  verifies("auth-no-passthrough", "reaches no server in a header, a URL or a body, whatever is asked", async () => {
    const everything = [
      ask("tools/list", {}),
      ask("resources/list", {}),
      ask("prompts/list", {}),
      callApi(),
      ask("tools/call", { name: "plain_t", arguments: { note: "x" } }),
      ask("tools/call", { name: "plain_t", arguments: {}, _meta: { authorization: "none", progressToken: 1 } }),
      ask("resources/read", { uri: "test://r" }),
      ask("prompts/get", { name: "api_p" }),
      ask("completion/complete", { ref: { type: "ref/prompt", name: "api_p" }, argument: { name: "a", value: "" } }),
    ];
    for (const answer of await Promise.all(everything)) expect(answer.status).toBe(200);
    expect(calls().length).toBeGreaterThan(0);
    expect(seenPlain.length).toBeGreaterThan(0);
    for (const request of [...seen, ...seenPlain]) expect(holds(JSON.stringify(request), token)).toBe(false);
    // Where there is nothing to say who calls, nothing is said.
    for (const request of seenPlain) expect(request.headers.authorization).toBeUndefined();
  });

  test("reaches no server through the headers of a client that wants it to: they are not handed on", async () => {
    const wishes = {
      "x-forwarded-authorization": `Bearer ${token}`,
      "x-upstream-url": elsewhereOrigin,
      "x-grafana-url": elsewhereOrigin,
      "x-user": "root",
      "x-role": "owner",
      "mcp-init-host": "elsewhere",
      "proxy-authorization": `Bearer ${token}`,
      cookie: `session=${token}`,
    };
    expect((await callApi(wishes)).status).toBe(200);
    const last = calls().at(-1);
    for (const name of Object.keys(wishes)) expect(last?.headers[name]).toBeUndefined();
    expect(holds(JSON.stringify(seen), token)).toBe(false);
    expect(strangers).toBe(0);
  });
});

describe("a token made for a server", () => {
  test("is for it alone: another server has none, and the gateway does not take it back", async () => {
    await callApi();
    const exchanged = bearer(calls().at(-1) as Seen);
    expect(decodeJwt(exchanged).aud).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/mcp$/);
    expect((await callApi({}, exchanged)).status).toBe(401);
    expect((await callApi()).status).toBe(200);
    for (const request of seenPlain) expect(holds(JSON.stringify(request), exchanged)).toBe(false);
  });

  test("is that of whoever calls, under a hundred calls of several clients at once", async () => {
    const clients = [token];
    while (clients.length < 4) clients.push((await one.tokens()).access_token);
    const before = calls().length;
    await Promise.all(
      Array.from({ length: 100 }, (_, n) => {
        const as = clients[n % clients.length] ?? "";
        return ask("tools/call", { name: "api_t", arguments: { caller: n % clients.length } }, {}, as);
      }),
    );
    const used = new Map<string, Set<number>>();
    for (const request of calls().slice(before)) {
      const { params } = JSON.parse(request.body) as { params: { arguments: { caller: number } } };
      used.set(bearer(request), (used.get(bearer(request)) ?? new Set()).add(params.arguments.caller));
    }
    expect(used.size).toBe(clients.length);
    for (const callers of used.values()) expect(callers.size).toBe(1);
  });

  test.each([301, 302, 303, 307, 308])(
    "does not follow a redirect (%i) to another origin, nor does the call",
    async (status) => {
      misbehave = (_, response) => response.writeHead(status, { location: `${elsewhereOrigin}/mcp` }).end();
      const answer = (await (await callApi()).json()) as { error: { code: number; message: string } };
      expect(answer.error.code).toBe(-31502);
      expect(answer.error.message).not.toContain(elsewhereOrigin);
      expect(strangers).toBe(0);
    },
  );

  test("is in no answer, no error, no log line and no metric of ours", async () => {
    misbehave = (_, response) => response.writeHead(500, { "content-type": "text/plain" }).end("failed");
    const answer = await (await callApi()).text();
    const exchanged = bearer(calls().at(-1) as Seen);
    expect(exchanged.length).toBeGreaterThan(100);
    for (const text of [answer, logged.join(""), await one.metrics()]) {
      expect(text.length).toBeGreaterThan(0);
      for (const secret of [token, exchanged]) expect(holds(text, secret)).toBe(false);
    }
  });

  test("that the server turns down is answered in band: its challenge sends no client to a stranger", async () => {
    for (const [status, error] of [
      [401, "invalid_token"],
      [403, "insufficient_scope"],
    ] as const) {
      misbehave = (_, response) => {
        const challenge = `Bearer error="${error}", scope="all", resource_metadata="${elsewhereOrigin}/metadata"`;
        response.writeHead(status, { "www-authenticate": challenge }).end();
      };
      const answer = await callApi();
      expect(answer.status).toBe(200);
      expect(answer.headers.get("www-authenticate")).toBeNull();
      const text = await answer.text();
      expect(text).toContain("-31502");
      expect(text).not.toContain(elsewhereOrigin);
    }
    expect(strangers).toBe(0);
  });

  test("that the server turns down is replaced by a new one of the same caller, once", async () => {
    const before = calls().length;
    let turnedDown: string | undefined;
    misbehave = (_, response) => {
      const latest = bearer(calls().at(-1) as Seen);
      turnedDown ??= latest;
      if (latest === turnedDown) response.writeHead(401, { "www-authenticate": "Bearer" }).end();
    };
    const answers = await Promise.all(Array.from({ length: 10 }, () => callApi()));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 200));
    for (const answer of answers) expect(await answer.json()).toHaveProperty("result");
    const used = new Set(calls().slice(before).map(bearer));
    expect(used.size).toBe(2);
    expect(new Set([...used].map((one_) => decodeJwt(one_).sub)).size).toBe(1);
  });

  test("is never replaced by the gateway's own when the caller has none any more", async () => {
    const mine = await one.tokens();
    const own = seen.map(bearer).find((one_) => one_ !== "" && decodeJwt(one_)["act"] === undefined);
    expect(own).toBeDefined();
    await callApi({}, mine.access_token);
    await revoked(mine);
    await waitFor(async () => (await callApi({}, mine.access_token)).status === 401);
    for (const request of calls()) expect(decodeJwt(bearer(request))["act"]).toBeDefined();
  });

  test("is not made anew for a caller whose grant ended while the server looked at it: the client is told to sign in", async () => {
    const mine = await one.tokens();
    expect((await callApi({}, mine.access_token)).status).toBe(200);
    const before = calls().length;
    misbehave = async (_, response) => {
      await revoked(mine);
      response.writeHead(401, { "www-authenticate": "Bearer" }).end();
    };
    const answer = await callApi({}, mine.access_token);
    expect(answer.status).toBe(401);
    expect(answer.headers.get("www-authenticate")).toMatch(/error="invalid_token".*resource_metadata="http:\/\/127/);
    expect(calls()).toHaveLength(before + 1);
  });
});
