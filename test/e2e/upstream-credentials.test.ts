/** `credentials: exchange` over a running gateway: what the server behind it is shown, and what is kept as evidence. */
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { createRemoteJWKSet, decodeJwt, jwtVerify } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openedIn } from "../audit/opened.ts";
import { type Fixture, startFixture } from "../fixtures/processes.ts";
import { modernRequest, type World, world } from "./world.ts";

describe.each(["legacy", "modern"])("a server of the %s generation with `credentials: exchange`", (era) => {
  let folder: string;
  let fixture: Fixture;
  let one: World;
  let log: DatabaseSync;
  let url: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "drawbridge-exchange-"));
    fixture = await startFixture("echo-http", ["--era", era]);
    url = `${fixture.origin}/mcp`;
    one = await world({
      store: `sqlite:${join(folder, "gateway.db")}`,
      // Its tool answers with the token that it was sent, which is what is looked at here.
      mask: "off",
      servers: {
        echo: { url, credentials: { exchange: { scopes: { "mcp:read": ["echo:read"], "mcp:call": ["echo:do"] } } } },
      },
    });
    log = new DatabaseSync(join(folder, "gateway.db"), { timeout: 10_000 });
  });
  afterAll(async () => {
    log?.close();
    await one?.[Symbol.asyncDispose]();
    await fixture?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  interface Stats {
    readonly headers: readonly Readonly<Record<string, string>>[];
    readonly sessions: number;
  }
  const stats = async () => (await (await fetch(`${fixture.origin}/stats`)).json()) as Stats;
  const call = async (token: string, name = "headers", args = {}) => {
    const [body, headers] = modernRequest("tools/call", { name, arguments: args });
    return one.post(body, headers, token);
  };
  /** The token that the server was called with, on behalf of the holder of `token`. */
  const shown = async (token: string): Promise<string> => {
    const answer = (await (await call(token)).json()) as {
      result: { structuredContent: { headers: Record<string, string> } };
    };
    return answer.result.structuredContent.headers["authorization"]?.replace(/^Bearer /, "") ?? "";
  };

  test("gets a token for itself that says who asks, who acts, and what they may, and ends with the caller's", async () => {
    const { access_token: own } = await one.tokens();
    const exchanged = await shown(own);
    const issuer = one.gateway.publicUrl;
    const keys = createRemoteJWKSet(new URL(`${issuer}/oauth/jwks`));
    const { payload } = await jwtVerify(exchanged, keys, { issuer, audience: url, typ: "at+jwt" });
    const caller = decodeJwt(own);
    expect(payload.sub).toBe(caller.sub);
    expect(payload["act"]).toEqual({ sub: issuer });
    expect(String(payload["scope"]).split(" ").sort()).toEqual(["echo:do", "echo:read"]);
    expect(payload.exp).toBeLessThanOrEqual(caller.exp ?? 0);
    expect(payload.jti).not.toBe(caller.jti);
  });

  test("can check its callers with the ten lines of docs/token-exchange.md", async () => {
    const page = await readFile(join(import.meta.dirname, "../../docs/token-exchange.md"), "utf8");
    const lines = /^```ts\n([\s\S]*?)^```/m.exec(page)?.[1] ?? "";
    await symlink(join(import.meta.dirname, "../../node_modules"), join(folder, "node_modules"));
    const file = join(folder, "callers.ts");
    await writeFile(
      file,
      lines.replace("http://127.0.0.1:7337", one.gateway.publicUrl).replace("http://127.0.0.1:7340/mcp", url),
    );
    const { callerOf } = (await import(file)) as {
      callerOf(token: string): Promise<{ person: string | undefined; scopes: string[] }>;
    };
    const { access_token: own } = await one.tokens();
    const caller = await callerOf(await shown(own));
    expect(caller.person).toBe(decodeJwt(own).sub);
    expect(caller.scopes.sort()).toEqual(["echo:do", "echo:read"]);
    await expect(callerOf(own)).rejects.toThrow(/"aud"/);
    const gateways = (await stats()).headers.map(bearer).find((token) => decodeJwt(token)["act"] === undefined) ?? "";
    expect((await callerOf(gateways)).person).toBeUndefined();
  });

  test("gets a narrower token for a narrower caller", async () => {
    const { access_token: narrow } = await one.tokens({ scope: "mcp:call" });
    expect(decodeJwt(await shown(narrow))["scope"]).toBe("echo:do");
  });

  test("sees the same token in a caller's next call, and another one for another client of the same user", async () => {
    const [first, second] = [await one.tokens(), await one.tokens()];
    const token = await shown(first.access_token);
    expect(await shown(first.access_token)).toBe(token);
    expect(await shown(second.access_token)).not.toBe(token);
  });

  test("is asked for its lists with a token of the gateway's own, which acts for nobody", async () => {
    const lists = (await stats()).headers.filter((headers) => decodeJwt(bearer(headers)).sub === one.gateway.publicUrl);
    expect(lists.length).toBeGreaterThan(0);
    for (const headers of lists) expect(decodeJwt(bearer(headers))["act"]).toBeUndefined();
  });

  test("never has two clients in one session", async () => {
    await Promise.all([call((await one.tokens()).access_token), call((await one.tokens()).access_token)]);
    const holders = new Map<string, Set<string>>();
    for (const headers of (await stats()).headers) {
      const session = headers["mcp-session-id"];
      if (session !== undefined) holders.set(session, (holders.get(session) ?? new Set()).add(bearer(headers)));
    }
    expect(holders.size > 0).toBe(era === "legacy");
    for (const tokens of holders.values()) expect(tokens.size).toBe(1);
  });

  test("leaves a record that names the audience and the token, and holds no token", async () => {
    const { access_token: own } = await one.tokens();
    const exchanged = await shown(own);
    const records = openedIn(log);
    const record = records.findLast(({ call }) => call?.method === "tools/call");
    expect(record?.call).toMatchObject({ audience: url, upstreamTokenId: decodeJwt(exchanged).jti });
    // What the server itself says is its own: the tool `headers` repeats what it was sent.
    const ours = records.map(({ result: _, ...rest }) => JSON.stringify(rest)).join("\n");
    for (const secret of [own, exchanged]) expect(ours).not.toContain(secret.split(".")[2]);
  });

  test("is not called any more when the grant has ended, and the client is told to sign in", async () => {
    const { access_token: own, refresh_token: refresh, client } = await one.tokens();
    expect((await call(own, "echo", { text: "before" })).status).toBe(200);
    await fetch(`${one.gateway.publicUrl}/oauth/revoke`, {
      method: "POST",
      body: new URLSearchParams({ token: refresh, client_id: client }),
    });
    const before = (await stats()).headers.length;
    const refused = await call(own, "echo", { text: "after" });
    expect(refused.status).toBe(401);
    expect(refused.headers.get("www-authenticate")).toMatch(/error="invalid_token".*resource_metadata=/);
    expect((await stats()).headers.length).toBe(before);
  });
});

describe("a caller whose scopes stand for nothing at a server", () => {
  let fixture: Fixture;
  let one: World;
  beforeAll(async () => {
    fixture = await startFixture("echo-http", ["--era", "modern"]);
    const url = `${fixture.origin}/mcp`;
    const exchange = (scopes: Record<string, string[]>) => ({ url, credentials: { exchange: { scopes } } });
    one = await world({
      servers: { readers: exchange({ "mcp:read": ["echo:read"] }), others: exchange({ "mcp:write": ["echo:write"] }) },
    });
  });
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    await fixture?.stop();
  });

  const call = async (name: string) => {
    const { access_token: token } = await one.tokens({ scope: "mcp:call" });
    const [body, headers] = modernRequest("tools/call", { name, arguments: { text: "x" } });
    return one.post(body, headers, token);
  };

  test("is told which scope would help", async () => {
    const answer = await call("readers_echo");
    expect(answer.status).toBe(403);
    expect(answer.headers.get("www-authenticate")).toMatch(/error="insufficient_scope".*scope="mcp:call mcp:read"/);
  });

  test("is not sent to ask for what would not help", async () => {
    const answer = await call("others_echo");
    expect([answer.status, answer.headers.get("www-authenticate")]).toEqual([200, null]);
    expect(await answer.json()).toMatchObject({ error: { code: -31502 } });
  });
});

const bearer = (headers: Readonly<Record<string, string>>) => headers["authorization"]?.replace(/^Bearer /, "") ?? "";
