import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { isNetwork, networkOf, sourceBehind } from "../../src/net/source.ts";
import { boundedReport } from "../../src/oauth/bounded-report.ts";
import { edgeLimits } from "../../src/oauth/edge-limits.ts";
import type { OAuthEvent } from "../../src/oauth/events.ts";
import { throttle } from "../../src/oauth/throttle.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { openedRecords } from "../audit/opened.ts";
import { modernRequest, world } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { connect, listen, type Running, refresh, register, running, setUp, stop, token } from "./support.ts";

const answered = (statusCode: number, headers: readonly string[] = []) => ({
  statusCode,
  hasHeader: (name: string) => headers.includes(name),
});

describe("one source", () => {
  const guess = {
    grant_type: "authorization_code",
    code: "guessed",
    code_verifier: "v".repeat(64),
    redirect_uri: "http://127.0.0.1/cb",
  };

  test("that tries a hundred codes is told to wait, while a user elsewhere goes on as before", async () => {
    let now = Date.now();
    await using live = await running({
      clients: { registration: "open", requestsPerSourcePerMinute: 1200 },
      trustedProxies: ["127.0.0.1"],
      clock: () => now,
    });
    const browser = await setUp(live);
    const client = String((await register(live)).body["client_id"]);
    const tokens = await connect(live, browser, { client });
    const attacker = { "x-forwarded-for": "1.1.1.1" };

    const statuses: number[] = [];
    for (let i = 0; i < 100; i++) statuses.push((await token(live, { ...guess, client_id: client }, attacker)).status);
    expect(statuses.slice(0, 50)).toEqual(Array.from({ length: 50 }, () => 400));
    expect(statuses.at(-1)).toBe(429);
    const limited = await token(live, { ...guess, client_id: client }, attacker);
    expect(Number(limited.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(limited.body).toMatchObject({
      error: "temporarily_unavailable",
      error_description: expect.stringMatching(/Try again in \d+ s/),
    });
    // What a page needs to read of the answer it may read.
    expect(
      (await fetch(`${live.origin}/oauth/token`, { method: "OPTIONS", headers: { "x-forwarded-for": "2.2.2.2" } }))
        .status,
    ).toBe(204);

    expect((await refresh(live, client, tokens.refresh_token)).status).toBe(200);
    // Signing in is counted for itself, and so is another source.
    const page = await fetch(`${live.origin}/sign-in`, { headers: attacker });
    expect(page.status).toBe(200);
    now += 120_000;
    expect((await token(live, { ...guess, client_id: client }, attacker)).status).toBe(400);
  });

  test("leaves three hundred records of its tries, and a count of the others", async () => {
    const events: OAuthEvent[] = [];
    let now = 0;
    const { report, close } = boundedReport(
      async (event) => void events.push(event),
      () => now,
    );
    const refusal = (source: string): OAuthEvent => ({
      type: "token-refused",
      error: "invalid_grant",
      reason: "x",
      source,
    });
    for (let i = 0; i < 1000; i++) await report(refusal("1.1.1.1"));
    expect(events).toHaveLength(300);
    await report(refusal("2.2.2.2"));
    await report({ type: "signed-in", name: "olive", source: "1.1.1.1" });
    expect(events).toHaveLength(302);
    now += 5_000;
    await report(refusal("1.1.1.1"));
    expect(events.at(-1)).toMatchObject({ source: "1.1.1.1", unrecorded: 700 });
    for (let i = 0; i < 10; i++) await report(refusal("1.1.1.1"));
    await close();
    expect(events).toHaveLength(304);
    expect(events.at(-1)).toMatchObject({ source: "1.1.1.1", unrecorded: 9 });
    const told = events.filter(({ source, type }) => source === "1.1.1.1" && type === "token-refused");
    expect(told.length + told.reduce((sum, { unrecorded = 0 }) => sum + unrecorded, 0)).toBe(1011);
  });

  test("that succeeds pays nothing for tokens, little for pages, and is not blamed for our failures", () => {
    const limits = edgeLimits(100, () => 0);
    const many = (path: string, status: number, headers: readonly string[] = []) => {
      for (let i = 0; i < 1000; i++) {
        try {
          limits.begin("1.1.1.1", path)(answered(status, headers));
        } catch {
          return i;
        }
      }
      return 1000;
    };
    expect(many("/oauth/token", 200)).toBe(1000);
    expect(many("/oauth/token", 503)).toBe(1000);
    expect(many("/oauth/introspect", 200)).toBe(1000);
    // A nonce that is asked for (RFC 9449 §8) is no failure.
    expect(many("/oauth/token", 400, ["dpop-nonce"])).toBe(1000);
    expect(many("/oauth/token", 401)).toBe(5);
    expect(many("/oauth/authorize", 303)).toBe(100);
    expect(many("/oauth/jwks", 200)).toBe(1000);
    expect(many("/.well-known/openid-configuration", 200)).toBe(1000);
  });

  test("that asks for much at once is counted while it waits, and its debt is over within two minutes", () => {
    let now = 0;
    const limits = edgeLimits(100, () => now);
    const open = Array.from({ length: 100 }, () => limits.begin("1.1.1.1", "/oauth/token"));
    expect(() => limits.begin("1.1.1.1", "/oauth/token")).toThrow(expect.objectContaining({ code: "rate_limited" }));
    for (const settle of open) settle(answered(400));
    expect(() => limits.begin("1.1.1.1", "/oauth/token")).toThrow(expect.objectContaining({ retryAfterSeconds: 61 }));
    now += 61_000;
    limits.begin("1.1.1.1", "/oauth/token");
  });

  test("is not limited where the operator says so", async () => {
    const limits = edgeLimits(0);
    for (let i = 0; i < 5000; i++) limits.begin("1.1.1.1", "/oauth/token")(answered(400));
  });

  test("does not make us remember without end, one of many", () => {
    const bucket = throttle({ burst: 1, secondsPerTry: 1, maxKeys: 10 }, () => 0);
    for (let i = 0; i < 1000; i++) bucket.take(`key ${i}`);
    // The oldest was forgotten, the newest not.
    expect(bucket.take("key 0")).toBe(0);
    expect(bucket.take("key 999")).toBe(1);
  });
});

test("a clock that is turned back locks nobody out for as long as it was turned", () => {
  let now = 10_000_000;
  const bucket = throttle({ burst: 2, secondsPerTry: 10 }, () => now);
  bucket.take("key");
  now -= 3_600_000;
  expect([bucket.take("key"), bucket.take("key"), bucket.take("key")]).toEqual([0, 0, 10]);
});

describe("the source of a request", () => {
  test.each<[string, readonly string[], string | undefined, string]>([
    ["of nobody trusted is the other end, whatever it writes", [], "1.1.1.1", "127.0.0.1"],
    ["of another peer than the trusted ones is the other end", ["10.0.0.0/8"], "1.1.1.1", "127.0.0.1"],
    ["behind a trusted proxy is who it says", ["127.0.0.1"], "1.1.1.1", "1.1.1.1"],
    ["behind a trusted network, too", ["127.0.0.0/8"], "1.1.1.1", "1.1.1.1"],
    ["is not what a client wrote before the proxy did", ["127.0.0.1"], "6.6.6.6, 1.1.1.1", "1.1.1.1"],
    [
      "behind two proxies is who the outer one saw",
      ["127.0.0.1", "10.0.0.0/8"],
      "6.6.6.6, 1.1.1.1, 10.2.3.4",
      "1.1.1.1",
    ],
    ["is the first one when all are trusted", ["127.0.0.1", "10.0.0.0/8"], "10.1.1.1, 10.2.3.4", "10.1.1.1"],
    ["without the header is the proxy", ["127.0.0.1"], undefined, "127.0.0.1"],
    ["that the proxy does not know is the proxy", ["127.0.0.1"], "1.1.1.1, unknown", "127.0.0.1"],
    ["with an empty header is the proxy", ["127.0.0.1"], "", "127.0.0.1"],
    ["that is a name is the proxy", ["127.0.0.1"], "shop.example", "127.0.0.1"],
    ["with a port is told without it", ["127.0.0.1"], "1.1.1.1:4711", "1.1.1.1"],
    ["over IPv6 is told without brackets and port", ["127.0.0.1"], "[2606:4700::1]:4711", "2606:4700::1"],
    ["over IPv6 is told as it is", ["127.0.0.1", "2606:4700::/32"], "2a00::1, 2606:4700::1", "2a00::1"],
    ["that is IPv4 in IPv6 is told as IPv4", ["127.0.0.1"], "::ffff:1.1.1.1", "1.1.1.1"],
  ])("%s", async (_title, trusted, forwarded, expected) => {
    const sourceOf = sourceBehind(trusted);
    const http = createServer((request, response) => response.end(sourceOf(request)));
    const origin = `http://127.0.0.1:${await listen(http)}`;
    const headers: Record<string, string> = forwarded === undefined ? {} : { "x-forwarded-for": forwarded };
    expect(await (await fetch(origin, { headers })).text()).toBe(expected);
    await stop(http);
  });

  test.each([
    ["1.2.3.4", "1.2.3.4"],
    ["::ffff:1.2.3.4", "1.2.3.4"],
    ["2606:4700:1:2:3:4:5:6", "2606:4700:1:2::/64"],
    ["2606:4700:1:2::9", "2606:4700:1:2::/64"],
    ["2606:4700::9", "2606:4700:0:0::/64"],
    ["::1", "0:0:0:0::/64"],
    ["::", "0:0:0:0::/64"],
    ["fe80::1%eth0", "fe80:0:0:0::/64"],
    ["2606:4700:0001:0002::", "2606:4700:1:2::/64"],
    ["", ""],
  ])("%j counts as %j", (address, network) => {
    expect(networkOf(address)).toBe(network);
  });

  test("is believed of addresses and networks only, and never of everybody", () => {
    for (const fine of ["10.0.0.1", "10.0.0.0/8", "::1", "fd00::/8", "2a00::/128"])
      expect(isNetwork(fine), fine).toBe(true);
    for (const bad of [
      "",
      "proxy",
      "0.0.0.0/0",
      "::/0",
      "10.0.0.0/33",
      "10.0.0.0/x",
      "10.0.0.0/8/8",
      "10.0.0/8",
      "10.0.0.0/",
    ])
      expect(isNetwork(bad), bad).toBe(false);
  });

  test("is in the events, behind a proxy that is trusted, and a stranger cannot choose it", async () => {
    const sources = async (live: Running) => {
      await fetch(`${live.origin}/oauth/token`, {
        method: "POST",
        headers: { "x-forwarded-for": "6.6.6.6, 1.1.1.1" },
        body: new URLSearchParams({ grant_type: "refresh_token", refresh_token: "x", client_id: "nobody" }),
      });
      return live.events.map(({ source }) => source);
    };
    await using trusting = await running({ trustedProxies: ["127.0.0.1"] });
    await using alone = await running();
    expect(await sources(trusting)).toEqual(["1.1.1.1"]);
    expect(await sources(alone)).toEqual(["127.0.0.1"]);
  });

  test("is in every audit record of the gateway, as the trusted proxy tells it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "drawbridge-source-"));
    const gateway = await world(
      {
        servers: { echo: { command: fixtureCommand("echo-stdio") } },
        store: "sqlite:./audit.db",
        listen: { trustedProxies: ["127.0.0.0/8"] },
      },
      { folder },
    );
    const forwarded = { "x-forwarded-for": "6.6.6.6, 1.1.1.1, 127.0.0.9" };
    const [body, headers] = modernRequest("tools/list");
    expect((await gateway.post(body, { ...headers, ...forwarded })).status).toBe(200);
    await fetch(`${gateway.origin}/oauth/token`, {
      method: "POST",
      headers: forwarded,
      body: new URLSearchParams({ grant_type: "refresh_token", refresh_token: "x", client_id: "nobody" }),
    });
    await gateway[Symbol.asyncDispose]();

    const store = sqliteStore(join(folder, "audit.db"));
    const rows = await openedRecords(store);
    const sources = (what: string) =>
      rows.filter(({ action, call }) => action === what || call?.method === what).map(({ source }) => source);
    expect(sources("tools/list")).toEqual(["1.1.1.1"]);
    expect(sources("token-refused")).toEqual(["1.1.1.1"]);
    expect(sources("client-registered")).toEqual(["127.0.0.1"]);
    expect(sources("token-issued")).toEqual(["127.0.0.1"]);
    await store.close();
    await rm(folder, { recursive: true });
  });
});

test("behind a proxy that nobody named, sources are not limited, and the start says so", async () => {
  const lines: string[] = [];
  const note = (_: unknown, message: string) => void lines.push(message);
  const logger = { ...silentLogger, warn: note, child: () => logger } as typeof silentLogger;
  await using gateway = await world(
    { servers: { echo: { command: fixtureCommand("echo-stdio") } }, listen: { behindTlsProxy: true } },
    { logger },
  );
  expect(lines).toContainEqual(expect.stringContaining("listen.trustedProxies"));
  const statuses = new Set<number>();
  for (let i = 0; i < 90; i++) {
    const guess = { grant_type: "refresh_token", refresh_token: "x", client_id: "nobody" };
    statuses.add(
      (await fetch(`${gateway.origin}/oauth/token`, { method: "POST", body: new URLSearchParams(guess) })).status,
    );
  }
  expect([...statuses]).toEqual([401]);
});
