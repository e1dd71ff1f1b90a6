/** One record for each request, however it ends, and no answer without one. Read from the store's own file. */
import { hash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { openedIn } from "../audit/opened.ts";
import { type Fixture, startFixture, waitFor } from "../fixtures/processes.ts";
import { Browser, PASSWORD } from "../oauth/support.ts";
import { modernRequest, type World, world } from "./world.ts";

let folder: string;
let file: string;
let fixture: Fixture;
let one: World;
let token: string;
let log: DatabaseSync;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-evidence-"));
  file = join(folder, "gateway.db");
  fixture = await startFixture("echo-http", ["--era", "legacy"]);
  one = await world({
    store: `sqlite:${file}`,
    servers: { web: { url: `${fixture.origin}/mcp` } },
    roles: { owner: { may: ["*"], deny: ["crash"] } },
    assign: [{ role: "owner", group: "owner" }],
    limits: { concurrentPerPrincipal: 20 },
  });
  token = (await one.tokens()).access_token;
  log = new DatabaseSync(file, { timeout: 10_000 });
});
afterAll(async () => {
  log?.close();
  await one?.[Symbol.asyncDispose]();
  await fixture?.stop();
  await rm(folder, { recursive: true, force: true });
});

const rows = () => openedIn(log);
const sequence = () => Number(log.prepare("SELECT coalesce(max(sequence), 0) AS n FROM audit").get()?.["n"]);
/** The records of calls that were written while `act` ran. */
async function recorded(act: () => Promise<unknown>): Promise<StoredRecord[]> {
  const before = rows().length;
  await act();
  return rows()
    .slice(before)
    .filter(({ kind }) => kind === "call");
}
const upstreamCalls = async () => ((await (await fetch(`${fixture.origin}/stats`)).json()) as { calls: number }).calls;
const call = async (
  name: string,
  args: unknown = {},
  id: string | number = 1,
  headers: Record<string, string> = {},
) => {
  const [body, own] = modernRequest("tools/call", { name, arguments: args }, id);
  const response = await one.post(body, { ...own, ...headers }, token);
  return { status: response.status, headers: response.headers, text: await response.text() };
};
/** Sends a call and hangs up as soon as `when` says so. */
function hangUp(name: string, args: object, when: () => boolean | Promise<boolean>, meta: object = {}): Promise<void> {
  const [body, headers] = modernRequest("tools/call", { name, arguments: args, _meta: meta }, "hang-up");
  return new Promise((resolve, reject) => {
    const sent = request(one.url, {
      method: "POST",
      agent: false,
      headers: {
        ...headers,
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
      },
    });
    sent.on("error", () => {});
    sent.on("response", (response) => response.on("error", () => {}).resume());
    sent.on("close", resolve);
    sent.end(JSON.stringify(body));
    waitFor(when).then(() => sent.destroy(), reject);
  });
}

describe("a permitted call", () => {
  test("leaves one record that says who, what, by which rule, with what, how it ended, and in which trace", async () => {
    const started = Date.now();
    let answer = "";
    const [record, ...more] = await recorded(async () => {
      answer = (
        await call("sum", { a: 2, b: 3 }, "the-id", { traceparent: `00-${"a1".repeat(16)}-${"b2".repeat(8)}-01` })
      ).text;
    });
    expect(more).toEqual([]);
    expect(Date.parse(record?.at ?? "")).toBeGreaterThanOrEqual(started - 1);
    const result = (JSON.parse(answer) as { result: object }).result;
    expect(record).toEqual({
      v: 2,
      chain: { id: expect.any(String), n: expect.any(Number), prev: expect.stringMatching(/^[\w-]{43}$/) },
      prevAt: expect.any(Number),
      id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7/),
      kind: "call",
      at: expect.any(String),
      durationMs: expect.any(Number),
      outcome: "permitted",
      principal: {
        subject: expect.any(String),
        client: expect.any(String),
        actors: [],
        groups: ["owner"],
        scopes: ["mcp:read", "mcp:call"],
        grant: expect.any(String),
        tokenId: expect.any(String),
      },
      call: {
        method: "tools/call",
        revision: "2026-07-28",
        server: "web",
        kind: "tool",
        name: "sum",
        upstreamName: "sum",
        pin: expect.stringMatching(/^sha256:[0-9a-f]{64}$/),
        requestId: "the-id",
      },
      arguments: { json: { a: 2, b: 3 } },
      result: { isError: false, sha256: expect.stringMatching(/^[0-9a-f]{64}$/), bytes: expect.any(Number) },
      decision: { effect: "permit", reason: "permitted_by_rule", rule: "owner: may *" },
      policy: expect.stringMatching(/^[0-9a-f]{32}$/),
      trace: { traceId: "a1".repeat(16), spanId: expect.stringMatching(/^[0-9a-f]{16}$/) },
      source: expect.stringContaining("127.0.0.1"),
      replica: expect.any(String),
    });
    expect(Object.keys(result)).toContain("structuredContent");
    const row = log.prepare("SELECT * FROM audit ORDER BY sequence DESC LIMIT 1").get();
    expect(row).toMatchObject({
      method: "tools/call",
      target: "sum",
      outcome: "permitted",
      trace_id: "a1".repeat(16),
      subject: record?.principal?.subject,
      client: record?.principal?.client,
    });
  });
  test("has the hash of the definition that was pinned", async () => {
    const [record] = await recorded(() => call("echo", { text: "hi" }));
    const pinned = log.prepare("SELECT value FROM records WHERE kind = 'pin' AND id = 'web/tool/echo'").get();
    expect(record?.call?.pin).toBe((JSON.parse(String(pinned?.["value"])) as { pin: string }).pin);
  });
  test("of a session names the session by its hash alone", async () => {
    const initialized = await one.post(
      {
        jsonrpc: "2.0",
        id: 0,
        method: "initialize",
        params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } },
      },
      {},
      token,
    );
    await initialized.text();
    const session = initialized.headers.get("mcp-session-id") ?? "";
    const [record] = await recorded(async () =>
      (
        await one.post(
          { jsonrpc: "2.0", id: 5, method: "tools/call", params: { name: "echo", arguments: { text: "hi" } } },
          { "mcp-session-id": session, "mcp-protocol-version": "2025-11-25" },
          token,
        )
      ).text(),
    );
    expect(record?.call).toMatchObject({
      revision: "2025-11-25",
      requestId: 5,
      session: hash("sha256", session, "base64url"),
    });
    expect(JSON.stringify(rows())).not.toContain(session);
  });
});

describe("exactly one record is left by", () => {
  test.each<[string, string, unknown, object]>([
    ["a tool that failed", "fail", {}, { outcome: "permitted", result: { isError: true } }],
    [
      "a tool the role denies",
      "crash",
      {},
      {
        outcome: "refused",
        error: { code: "unknown_target" },
        decision: { effect: "deny", rule: "owner: deny crash" },
      },
    ],
    ["a tool that is not there", "nothing", {}, { outcome: "refused", error: { code: "unknown_target" } }],
    [
      "arguments that do not fit",
      "sum",
      { a: "two" },
      { outcome: "refused", error: { code: "invalid_params" }, arguments: { json: { a: "two" } } },
    ],
    ["arguments that are no object", "sum", [1], { outcome: "refused", error: { code: "invalid_params" } }],
    ["an error of the server", "rpc-error", {}, { outcome: "failed", error: { code: "4242" } }],
    ["an answer that is no JSON", "not-json", {}, { outcome: "failed", error: { code: "upstream_failed" } }],
    ["a server that hangs up", "hangup", {}, { outcome: "failed", error: { code: "upstream_failed" } }],
  ])("%s", async (_title, name, args, expected) => {
    const found = await recorded(() => call(name, args));
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ ...expected, call: { method: "tools/call", name } });
  });
  test.each([
    ["a body that is no JSON", "{", "parse_error"],
    ["a message without a method", '{"jsonrpc":"2.0","id":1}', "invalid_request"],
    ["a method that is not known", '{"jsonrpc":"2.0","id":1,"method":"no/such"}', "unknown_method"],
    ["a key twice", '{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', "invalid_request"],
  ])("%s", async (_title, body, code) => {
    const found = await recorded(async () => (await one.post(body, {}, token)).text());
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ outcome: "refused", error: { code }, principal: { groups: ["owner"] } });
  });
  test.each(["tools/list", "resources/list", "resources/templates/list", "prompts/list", "server/discover"])(
    "%s",
    async (method) => {
      const [body, headers] = modernRequest(method);
      const found = await recorded(async () => (await one.post(body, headers, token)).text());
      expect(found).toHaveLength(1);
      expect(found[0]).toMatchObject({ outcome: "permitted", call: { method } });
    },
  );
  test.each([
    ["resources/read", { uri: "test://static/greeting" }, { kind: "resource", name: "test://static/greeting" }],
    ["prompts/get", { name: "plain" }, { kind: "prompt", name: "plain" }],
  ])("%s", async (method, params, expected) => {
    const [body, headers] = modernRequest(method, params);
    const found = await recorded(async () => (await one.post(body, headers, token)).text());
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ outcome: "permitted", call: { method, ...expected } });
  });
  test("a missing scope", async () => {
    const { access_token } = await one.tokens({ scope: "mcp:read" });
    const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "hi" } });
    const found = await recorded(async () => (await one.post(body, headers, access_token)).text());
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({
      outcome: "refused",
      error: { code: "insufficient_scope" },
      decision: { effect: "step-up", scope: "mcp:call" },
    });
  });
  test("a client that hangs up before the answer", async () => {
    const before = await upstreamCalls();
    const start = rows().length;
    await hangUp("slow", { ms: 20_000 }, async () => (await upstreamCalls()) > before);
    await waitFor(() => rows().length > start);
    expect(rows().slice(start)).toMatchObject([
      { outcome: "abandoned", error: { code: "cancelled" }, call: { name: "slow" } },
    ]);
  });
  test("a client that hangs up in the middle of a stream, or never reads it", async () => {
    const before = await upstreamCalls();
    const start = rows().length;
    await hangUp("drip", { events: 1000, ms: 20 }, async () => (await upstreamCalls()) > before, { progressToken: 1 });
    await waitFor(() => rows().length > start);
    const [body, headers] = modernRequest("tools/call", {
      name: "drip",
      arguments: { events: 3, ms: 5 },
      _meta: { progressToken: 1 },
    });
    const unread = await one.post(body, headers, token);
    await waitFor(() => rows().length > start + 1);
    await unread.body?.cancel();
    expect(
      rows()
        .slice(start)
        .map(({ outcome }) => outcome),
    ).toEqual(["abandoned", "permitted"]);
  });
  test("a call too many at the same time", async () => {
    const start = rows().length;
    const calls = await Promise.all(Array.from({ length: 30 }, () => call("slow", { ms: 300 })));
    const refused = calls.filter(({ status }) => status === 429).length;
    expect(refused).toBeGreaterThan(0);
    const found = rows().slice(start);
    expect(found).toHaveLength(30);
    expect(found.filter(({ error }) => error?.code === "rate_limited")).toHaveLength(refused);
  });
});

test("health checks of clients leave none", async () => {
  expect(
    await recorded(async () => (await one.post({ jsonrpc: "2.0", id: 1, method: "ping" }, {}, token)).text()),
  ).toEqual([]);
});

test("an answer is never sent before its record is on disk", async () => {
  const ids = Array.from({ length: 40 }, (_, index) => `durable-${index}`);
  const inTime = await Promise.all(
    ids.map(async (id) => {
      const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: id } }, id);
      const response = await one.post(body, headers, token);
      // The head is here: the record must be, too.
      const written = rows().some((record) => record.call?.requestId === id);
      await response.text();
      return written || response.status === 429;
    }),
  );
  expect(inTime.every(Boolean)).toBe(true);
});

test("while the log's file is held by another process, the answer waits", async () => {
  const before = await upstreamCalls();
  const position = sequence();
  log.exec("BEGIN IMMEDIATE");
  let answered = false;
  const answer = call("echo", { text: "wait" }).then((reply) => {
    answered = true;
    return reply;
  });
  try {
    await waitFor(async () => (await upstreamCalls()) > before);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(answered).toBe(false);
  } finally {
    log.exec("COMMIT");
  }
  expect((await answer).text).toContain("wait");
  expect(sequence()).toBeGreaterThan(position);
});

describe("sign-in, consent and tokens", () => {
  test("leave their records, each with who and what", async () => {
    const own = await one.tokens();
    const mine = rows().filter(({ principal }) => principal?.client === own.client);
    expect(mine.map(({ kind, action }) => [kind, action])).toEqual([
      ["client", "client-registered"],
      ["consent", "consent-granted"],
      ["token", "token-issued"],
    ]);
    expect(mine[1]).toMatchObject({ outcome: "permitted", details: { scopes: ["mcp:read", "mcp:call"] } });
    expect(rows().map(({ action }) => action)).toContain("user-created");

    const browser = new Browser(one.origin);
    await browser.go("/sign-in");
    await browser.submit({ name: "olive", password: "not her password" });
    await browser.submit({ name: "olive", password: PASSWORD });
    expect(rows().at(-1)).toMatchObject({ kind: "sign-in", action: "signed-in", outcome: "permitted" });
    const failed = rows().findLast(({ action }) => action === "sign-in-failed");
    expect(failed).toMatchObject({ kind: "sign-in", outcome: "refused", source: expect.stringContaining("127.0.0.1") });

    await fetch(`${one.origin}/oauth/revoke`, {
      method: "POST",
      body: new URLSearchParams({ token: own.refresh_token, client_id: own.client }),
    });
    expect(rows().findLast(({ kind }) => kind === "token")).toMatchObject({ action: "revoked" });
  });
});

test("no token, code, password or cookie is in any record", async () => {
  const own = await one.tokens();
  const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "hi" } });
  await (await one.post(body, headers, own.access_token)).text();
  const everything = JSON.stringify(rows());
  for (const secret of [
    own.access_token,
    own.access_token.split(".")[2] ?? "?",
    own.refresh_token,
    token.split(".")[2] ?? "?",
    PASSWORD,
    "not her password",
  ])
    expect(everything).not.toContain(secret);
});

describe("while records cannot be written", () => {
  /** Each append fails at once, as on a full disk. */
  const broken = async (act: () => Promise<void>) => {
    log.exec("CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'the disk is full'); END");
    try {
      // The first call after the failure finds out; its effect cannot be taken back, but its answer is withheld.
      await act();
    } finally {
      log.exec("DROP TRIGGER broken");
    }
    await waitFor(async () => (await fetch(`${one.origin}/ready`)).status === 200);
  };

  test("no answer is given, nothing more is sent upstream, and probes and metrics say so; then all goes on", async () => {
    const start = rows().length;
    await broken(async () => {
      const [discover, discoverHeaders] = modernRequest("server/discover", {}, "d");
      const first = await one.post(discover, discoverHeaders, token);
      expect(first.status).toBe(503);
      expect(await first.json()).toMatchObject({ id: "d", error: { code: -31503 } });

      const before = await upstreamCalls();
      const refused = await call("echo", { text: "hi" }, "after");
      expect(refused.status).toBe(503);
      expect(refused.headers.get("retry-after")).toBe("5");
      expect(JSON.parse(refused.text)).toMatchObject({ id: "after", error: { code: -31503 } });
      const list = modernRequest("tools/list");
      expect((await one.post(list[0], list[1], token)).status).toBe(503);
      expect(await upstreamCalls()).toBe(before);

      const ready = await fetch(`${one.origin}/ready`);
      expect(ready.status).toBe(503);
      expect(await ready.json()).toMatchObject({ audit: "failing" });
      expect(await one.metrics()).toMatch(/drawbridge_audit_pending(\{[^}]*\})? [1-9]/);
      // Grants are not given either.
      await expect(one.tokens()).rejects.toThrow();
    });
    expect((await call("echo", { text: "hi" }, "well-again")).text).toContain('"hi"');
    const ids = rows()
      .slice(start)
      .map((record) => record.call?.requestId);
    for (const id of ["d", "after", "well-again"])
      expect(
        ids.filter((each) => each === id),
        id,
      ).toHaveLength(1);
  });

  test("the answer of a call under way is withheld, also when it had begun to stream", async () => {
    const before = await upstreamCalls();
    const pending = call("slow", { ms: 400 }, "json");
    const [body, headers] = modernRequest(
      "tools/call",
      { name: "drip", arguments: { events: 4, ms: 100 }, _meta: { progressToken: "p" } },
      "sse",
    );
    const streaming = await one.post(body, headers, token);
    await waitFor(async () => (await upstreamCalls()) >= before + 2);
    await broken(async () => {
      const reply = await pending;
      expect(reply.status).toBe(503);
      expect(reply.text).not.toContain("slept");
      expect(JSON.parse(reply.text)).toMatchObject({ error: { code: -31503 } });
      const text = await streaming.text();
      expect(text).not.toContain("dripped");
      expect(text).toContain('"code":-31503');
      expect(text.trimEnd().split("\n").at(-1)).toContain('"id":"sse"');
    });
  });
});
