/** `credentials: exchange` of stdio servers: the token that goes along with each call, and what nobody gets to see or to put in its place. */
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { createRemoteJWKSet, decodeJwt, jwtVerify } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openedIn } from "../audit/opened.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { modernRequest, type World, world } from "./world.ts";

const KEY = "drawbridge/upstream-token";
const AUDIENCE = "https://parcels.example/api";
const CALLS = ["tools/call", "resources/read", "prompts/get", "completion/complete"];

interface Seen {
  readonly pid: number;
  readonly method?: string;
  readonly params?: {
    readonly _meta?: Readonly<Record<string, { token: string; expiresAt: string; audience: string }>>;
  };
}
interface Answer {
  readonly result: { readonly structuredContent: { readonly backwards: string; readonly pid: number } };
}

describe.each(["legacy", "modern"])("a stdio server of the %s generation with `credentials: exchange`", (era) => {
  let folder: string;
  let one: World;
  let log: DatabaseSync;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "drawbridge-handed-"));
    const command = (name: string) =>
      fixtureCommand("api-caller", ["--era", era, "--seen", join(folder, `${name}.jsonl`)]);
    const credentials = {
      exchange: { audience: AUDIENCE, scopes: { "mcp:read": ["parcels:read"], "mcp:call": ["parcels:ship"] } },
    };
    one = await world({
      store: `sqlite:${join(folder, "gateway.db")}`,
      // What leaves is looked at as the server said it.
      mask: "off",
      servers: {
        api: { command: command("api"), credentials, processes: { max: 1 } },
        own: { command: command("own"), credentials, isolation: "per-user" },
        plain: { command: command("plain") },
      },
    });
    log = new DatabaseSync(join(folder, "gateway.db"), { timeout: 10_000 });
  }, 60_000);
  afterAll(async () => {
    log?.close();
    await one?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const seenBy = (name: string): readonly Seen[] =>
    readFileSync(join(folder, `${name}.jsonl`), "utf8")
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Seen);
  const ask = (token: string, method: string, params: Record<string, unknown>, client = "2026") => {
    if (client === "2026") return one.post(...modernRequest(method, params), token);
    const body = { jsonrpc: "2.0", id: 1, method, params };
    return one.post(body, { "mcp-protocol-version": "2025-11-25" }, token);
  };
  const call = (token: string, name: string, args = {}) => ask(token, "tools/call", { name, arguments: args });
  /** The token that the server was called with, on behalf of the holder of `token`. */
  const handed = async (token: string, args = {}, server = "api") => {
    const answer = (await (await call(token, `${server}_token`, args)).json()) as Answer;
    const { backwards, pid } = answer.result.structuredContent;
    return { token: [...backwards].reverse().join(""), pid };
  };

  test("gets a token for its API that says who asks, who acts, and what they may, and ends with the caller's", async () => {
    const { access_token: own } = await one.tokens();
    const { token } = await handed(own);
    const issuer = one.gateway.publicUrl;
    const keys = createRemoteJWKSet(new URL(`${issuer}/oauth/jwks`));
    const { payload } = await jwtVerify(token, keys, { issuer, audience: AUDIENCE, typ: "at+jwt" });
    const caller = decodeJwt(own);
    expect(payload.sub).toBe(caller.sub);
    expect(payload["act"]).toEqual({ sub: issuer });
    expect(String(payload["scope"]).split(" ").sort()).toEqual(["parcels:read", "parcels:ship"]);
    expect(payload.exp).toBeLessThanOrEqual(caller.exp ?? 0);
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBeLessThanOrEqual(300);
    const last = seenBy("api").findLast(({ method }) => method === "tools/call")?.params?._meta?.[KEY];
    expect(last).toEqual({ token, audience: AUDIENCE, expiresAt: new Date((payload.exp ?? 0) * 1000).toISOString() });
  });

  test("gets it with each call of whatever method, and with nothing that is asked on nobody's behalf", async () => {
    const { access_token: own } = await one.tokens();
    const asked = await Promise.all([
      ask(own, "tools/call", { name: "api_token", arguments: {} }),
      ask(own, "resources/read", { uri: "parcel://one" }),
      ask(own, "prompts/get", { name: "api_label", arguments: {} }),
      ask(own, "completion/complete", {
        ref: { type: "ref/prompt", name: "api_label" },
        argument: { name: "parcel", value: "" },
      }),
    ]);
    for (const answer of asked) expect(await answer.json()).toHaveProperty("result");
    const seen = seenBy("api");
    for (const method of CALLS) expect(seen.map((one) => one.method)).toContain(method);
    for (const { method = "", params } of seen)
      expect([method, params?._meta?.[KEY] !== undefined]).toEqual([method, CALLS.includes(method)]);
  });

  test("gets each of many callers' own, in one process that they share", async () => {
    const callers = [await one.tokens(), await one.tokens(), await one.tokens({ scope: "mcp:call" })];
    const given = await Promise.all(
      Array.from({ length: 60 }, async (_, at) => {
        const caller = at % callers.length;
        const { token, pid } = await handed(callers[caller]?.access_token ?? "", { ms: at % 7 });
        return { caller, token, pid };
      }),
    );
    expect(new Set(given.map(({ pid }) => pid)).size).toBe(1);
    const tokens = callers.map(
      (_, at) => new Set(given.filter(({ caller }) => caller === at).map(({ token }) => token)),
    );
    // One for each caller, the same for all their calls, and nobody has another's.
    expect(tokens.map(({ size }) => size)).toEqual([1, 1, 1]);
    expect(new Set(tokens.flatMap((each) => [...each])).size).toBe(3);
    expect(decodeJwt([...(tokens[2] ?? [])][0] ?? "")["scope"]).toBe("parcels:ship");
  });

  test("gets it where each user has processes of their own, too", async () => {
    const { access_token: own } = await one.tokens();
    const { token } = await handed(own, {}, "own");
    expect(decodeJwt(token)).toMatchObject({ sub: decodeJwt(own).sub, aud: AUDIENCE });
  });

  test.each(["2025", "2026"])(
    "never gets what a %s client put in its place, nor does another server",
    async (client) => {
      const { access_token: own } = await one.tokens();
      const forged = { token: `forged-${client}`, audience: AUDIENCE, expiresAt: "2099-01-01T00:00:00Z" };
      for (const name of ["api_token", "plain_token"]) {
        const params = { name, arguments: {}, _meta: { [KEY]: forged, "example.test/kept": client } };
        expect(await (await ask(own, "tools/call", params, client)).json()).toHaveProperty("result");
        // The same key in other spellings of JSON.
        const [body, headers] = modernRequest("tools/call", params);
        for (const spelling of [KEY.replace("/", "\\/"), KEY.replace("t", "\\u0074")]) {
          const written = JSON.stringify(body).replace(JSON.stringify(KEY), `"${spelling}"`);
          expect(written).toContain(spelling);
          expect(await (await one.post(written, headers, own)).json()).toHaveProperty("result");
        }
      }
      for (const server of ["api", "plain"]) {
        const calls = seenBy(server).filter(
          ({ params }) => (params?._meta?.["example.test/kept"] as unknown) === client,
        );
        expect(calls).toHaveLength(3);
        expect(JSON.stringify(calls)).not.toContain("forged");
        for (const { params } of calls) expect(params?._meta?.[KEY] === undefined).toBe(server === "plain");
      }
    },
  );

  test("cannot say it to anybody: it is taken out of answers, errors, progress and log messages, without any mask", async () => {
    const { access_token: own } = await one.tokens();
    const _meta = { progressToken: 7, "io.modelcontextprotocol/logLevel": "debug" };
    const said = await (await ask(own, "tools/call", { name: "api_careless", arguments: {}, _meta })).text();
    const failed = await (await call(own, "api_fail")).text();
    const { token } = await handed(own);
    expect(said).toContain("with [secret]");
    expect(said).toContain("I have [secret]");
    expect(failed).toContain("The API refused [secret].");
    for (const text of [said, failed, JSON.stringify(one.gateway.servers()), await one.metrics()])
      expect(text).not.toContain(token.split(".")[2]);
  });

  test("cannot say another caller's, of which it has kept hold", async () => {
    const [first, second] = [(await one.tokens()).access_token, (await one.tokens()).access_token];
    await (await call(first, "api_gossip")).text();
    const { token } = await handed(first);
    const said = await (await call(second, "api_gossip")).text();
    expect(said).toContain("the one before had [secret]");
    expect(said).not.toContain(token.split(".")[2]);
  });

  test("leaves a record that names the audience and the token, and holds no token", async () => {
    const { access_token: own } = await one.tokens();
    const { token } = await handed(own);
    await (await call(own, "api_careless")).text();
    const records = openedIn(log);
    const record = records.findLast(({ call }) => call?.name === "api_careless");
    expect(record?.call).toMatchObject({ audience: AUDIENCE, upstreamTokenId: decodeJwt(token).jti });
    for (const secret of [own, token]) expect(JSON.stringify(records)).not.toContain(secret.split(".")[2]);
  });

  test("is not called any more when the grant has ended, and the client is told to sign in", async () => {
    const { access_token: own, refresh_token: refresh, client } = await one.tokens();
    expect((await call(own, "api_token")).status).toBe(200);
    await fetch(`${one.gateway.publicUrl}/oauth/revoke`, {
      method: "POST",
      body: new URLSearchParams({ token: refresh, client_id: client }),
    });
    const before = seenBy("api").length;
    const refused = await call(own, "api_token");
    expect(refused.status).toBe(401);
    expect(refused.headers.get("www-authenticate")).toMatch(/error="invalid_token".*resource_metadata=/);
    expect(seenBy("api")).toHaveLength(before);
  });
});

/** A server of one tool, with the line of docs/token-exchange.md in its handler. */
const PROGRAMS = {
  "TypeScript SDK 2": (line: string) => `
    import { McpServer } from "@modelcontextprotocol/server";
    import { StdioServerTransport } from "@modelcontextprotocol/server/stdio";
    const server = new McpServer({ name: "parcels", version: "1.0.0" });
    server.registerTool("backwards", { description: "The token." }, async (ctx) => {
      ${line}
      return { content: [{ type: "text", text: [...token].reverse().join("") }] };
    });
    await server.connect(new StdioServerTransport());`,
  "TypeScript SDK 1": (line: string) => `
    import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
    import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
    const server = new McpServer({ name: "parcels", version: "1.0.0" });
    server.registerTool("backwards", { description: "The token." }, async (extra) => {
      ${line}
      return { content: [{ type: "text", text: [...token].reverse().join("") }] };
    });
    await server.connect(new StdioServerTransport());`,
};

test("a server of either official SDK finds the token where docs/token-exchange.md says", async () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-handed-"));
  try {
    symlinkSync(join(import.meta.dirname, "../../node_modules"), join(folder, "node_modules"));
    const page = readFileSync(join(import.meta.dirname, "../../docs/token-exchange.md"), "utf8");
    const servers = Object.entries(PROGRAMS).map(([name, program], at) => {
      const line = page
        .split("\n")
        .find((row) => row.startsWith(`| ${name} |`))
        ?.split("`")[1];
      const file = join(folder, `server-${at}.ts`);
      writeFileSync(file, program(line ?? ""));
      return [`sdk-${at}`, { command: [process.execPath, file], credentials: { exchange: { audience: AUDIENCE } } }];
    });
    await using one = await world({ mask: "off", servers: Object.fromEntries(servers) });
    const { access_token: own } = await one.tokens();
    for (const [name] of servers) {
      const call = modernRequest("tools/call", { name: `${name}_backwards`, arguments: {} });
      const { result } = (await (await one.post(...call, own)).json()) as {
        result: { content: readonly { readonly text: string }[] };
      };
      expect(decodeJwt([...(result.content[0]?.text ?? "")].reverse().join(""))).toMatchObject({
        aud: AUDIENCE,
        sub: decodeJwt(own).sub,
      });
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 60_000);

describe("a caller whose scopes stand for nothing at the API behind a stdio server", () => {
  let folder: string;
  let one: World;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "drawbridge-handed-"));
    const lending = (name: string, scopes: Record<string, string[]>) => ({
      command: fixtureCommand("api-caller", ["--seen", join(folder, name)]),
      credentials: { exchange: { audience: AUDIENCE, scopes } },
    });
    one = await world({
      servers: {
        readers: lending("readers", { "mcp:read": ["parcels:read"] }),
        others: lending("others", { "mcp:write": ["parcels:write"] }),
      },
    });
  }, 60_000);
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const call = async (name: string) => {
    const { access_token: token } = await one.tokens({ scope: "mcp:call" });
    return one.post(...modernRequest("tools/call", { name, arguments: {} }), token);
  };

  test("is told which scope would help, and is not sent to ask for what would not; the server hears nothing", async () => {
    const helped = await call("readers_token");
    expect(helped.status).toBe(403);
    expect(helped.headers.get("www-authenticate")).toMatch(/error="insufficient_scope".*scope="mcp:call mcp:read"/);
    const hopeless = await call("others_token");
    expect([hopeless.status, hopeless.headers.get("www-authenticate")]).toEqual([200, null]);
    expect(await hopeless.json()).toMatchObject({ error: { code: -31502 } });
    for (const name of ["readers", "others"])
      expect(readFileSync(join(folder, name), "utf8")).not.toContain("tools/call");
  });
});
