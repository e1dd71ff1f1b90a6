/** `isolation` and `userHeaders` of an HTTP upstream: nothing of one user's session is reachable by another. */
import { afterEach, describe, expect, test } from "vitest";
import type { Authenticated } from "../../src/core/call.ts";
import { Secret } from "../../src/core/secret.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { httpUpstream } from "../../src/upstream/http.ts";
import { httpServer } from "../../src/upstream/settings.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import type { ReadUserSecret } from "../../src/upstream/user-values.ts";
import { type Fixture, startFixture, waitFor } from "../fixtures/processes.ts";
import { upstreamContract } from "./contract.ts";
import { type CallOptions, codeOf, end, http, ignored, namedCredentials, never, textOf, toolCall } from "./support.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

for (const isolation of ["per-user", "per-session"] as const) {
  upstreamContract(`HTTP, ${isolation}, 2025-11-25`, {
    modern: false,
    open: async (settings) => http((await echoing("legacy")).url, { ...settings, isolation }),
  });
}

interface Stats {
  readonly deleted: number;
  readonly sessions: number;
  readonly methods: Readonly<Record<string, number>>;
}

async function echoing(era: string): Promise<Fixture & { url: string }> {
  const started = await startFixture("echo-http", ["--era", era]);
  cleanups.push(started.stop);
  return { ...started, url: `${started.origin}/mcp` };
}

/** A server that remembers one text for each session. */
async function remembering(): Promise<Fixture & { url: string; stats(): Promise<Stats> }> {
  const started = await startFixture("misbehaving-http");
  cleanups.push(started.stop);
  const stats = async () => (await fetch(`${started.origin}/stats`)).json() as Promise<Stats>;
  return { ...started, url: `${started.origin}/mcp`, stats };
}

type Written = Omit<Parameters<typeof httpServer.parse>[0] & object, "url">;

function up(url: string, settings: Written, readUserSecret?: ReadUserSecret): Upstream {
  const upstream = httpUpstream("s", httpServer.parse({ url, ...settings }), {
    logger: silentLogger,
    events: { listChanged() {}, resourceUpdated() {} },
    version: "0.0.0",
    readUserSecret,
  });
  cleanups.push(() => end(upstream));
  return upstream;
}

const remember = (upstream: Upstream, text: string, who: CallOptions) =>
  upstream.send(toolCall("remember", { text }, who), ignored, never);
const recall = async (upstream: Upstream, who: CallOptions) =>
  textOf(await upstream.send(toolCall("recall", {}, who), ignored, never));
const headersOf = async (upstream: Upstream, who: CallOptions) =>
  JSON.parse(textOf(await upstream.send(toolCall("headers", {}, who), ignored, never))) as Record<string, string>;
const withClaims = (who: CallOptions, claims: Record<string, string>) => {
  const permitted = toolCall("headers", {}, who);
  return { ...permitted, by: { ...permitted.by, claims } } as typeof permitted;
};

describe("a session at the server", () => {
  test("is one for each of 50 users who call at once, again and again", async () => {
    const { url, stats } = await remembering();
    const upstream = up(url, { isolation: "per-user" });
    const users = Array.from({ length: 50 }, (_, index) => ({ subject: `user-${index}` }));
    await Promise.all(users.map((user) => remember(upstream, `of ${user.subject}`, user)));
    for (let round = 0; round < 10; round++) {
      const found = await Promise.all(users.map((user) => recall(upstream, user)));
      expect(found).toEqual(users.map(({ subject }) => `of ${subject}`));
    }
    // Theirs, and ours for the rest.
    expect((await stats()).sessions).toBe(51);
    expect(upstream.state().instances).toBe(50);
  });

  test("of 2026 clients with a name that looks like two is still their own", async () => {
    const upstream = up((await remembering()).url, { isolation: "per-user" });
    await remember(upstream, "ours", { subject: "a\nb", client: "c" });
    expect(await recall(upstream, { subject: "a", client: "b\nc" })).toBe("");
    expect(await recall(upstream, { subject: 'a","b', client: "c" })).toBe("");
    expect(await recall(upstream, { subject: "a\nb", client: "c" })).toBe("ours");
  });

  test("is shared by everybody where that is said", async () => {
    const upstream = up((await remembering()).url, { isolation: "shared" });
    await remember(upstream, "for all", { subject: "ann" });
    expect(await recall(upstream, { subject: "bob" })).toBe("for all");
  });

  test("is one for all sessions of a user's client with per-user, and one for each with per-session", async () => {
    const { url } = await remembering();
    for (const [isolation, seen] of [
      ["per-user", "first"],
      ["per-session", ""],
    ] as const) {
      const upstream = up(url, { isolation });
      await remember(upstream, "first", { subject: "ann", session: "s1" });
      expect(await recall(upstream, { subject: "ann", session: "s2" })).toBe(seen);
      expect(await recall(upstream, { subject: "bob", session: "s1" })).toBe("");
      expect(await recall(upstream, { subject: "ann", session: "s1" })).toBe("first");
    }
  });

  test("ends with the client's session, and with its user's access, by DELETE", async () => {
    const { url, stats } = await remembering();
    const upstream = up(url, { isolation: "per-session" });
    await remember(upstream, "1", { subject: "ann", session: "s1" });
    await remember(upstream, "2", { subject: "ann", session: "s2" });
    await remember(upstream, "3", { subject: "bob", session: "s3" });
    upstream.sessionEnded?.("s1");
    await waitFor(async () => (await stats()).deleted === 1);
    await upstream.sweep?.(async (by: Authenticated) => by.subject === "ann");
    expect((await stats()).deleted).toBe(2);
    expect(await recall(upstream, { subject: "ann", session: "s1" })).toBe("");
    expect(await recall(upstream, { subject: "ann", session: "s2" })).toBe("2");
    expect(await recall(upstream, { subject: "bob", session: "s3" })).toBe("");
    // Whoever cannot be looked up has no access.
    await upstream.sweep?.(() => Promise.reject(new Error("the store is away")));
    expect((await stats()).sessions).toBe(1);
  });

  test("is ended when there are too many, and when it is idle", async () => {
    const { url, stats } = await remembering();
    const upstream = up(url, { isolation: "per-user", sessions: { max: 5, idleSeconds: 0.3 } });
    for (let index = 0; index < 30; index++) await remember(upstream, "x", { subject: `user-${index}` });
    await waitFor(async () => (await stats()).deleted >= 25);
    expect(upstream.state().instances).toBeLessThanOrEqual(5);
    await waitFor(async () => (await stats()).sessions === 1);
    expect(upstream.state().instances).toBe(0);
  });

  test("all of them are ended when the upstream is closed", async () => {
    const { url, stats } = await remembering();
    const upstream = up(url, { isolation: "per-user" });
    await Promise.all(["a", "b", "c"].map((subject) => remember(upstream, "x", { subject })));
    await upstream.close(never);
    expect(await stats()).toMatchObject({ deleted: 4, sessions: 0 });
  });
});

describe("userHeaders", () => {
  const written = {
    isolation: "per-user",
    userHeaders: {
      "X-User": { from: "subject", otherwise: "nobody" },
      "X-Mail": { from: "claims.email" },
    },
  } satisfies Written;

  test("are those of whoever calls, whatever the session, for 50 users at once", async () => {
    const upstream = up((await remembering()).url, {
      isolation: "per-user",
      userHeaders: { "X-User": { from: "subject", otherwise: "nobody" } },
    });
    const users = Array.from({ length: 50 }, (_, index) => `user-${index}`);
    for (let round = 0; round < 3; round++) {
      const seen = await Promise.all(users.map((subject) => headersOf(upstream, { subject })));
      expect(seen.map((headers) => headers["x-user"])).toEqual(users);
    }
  });

  test("come with each request of a stateless server too, and lists go with `otherwise`", async () => {
    const { url, origin } = await echoing("modern");
    const upstream = up(url, written);
    await upstream.list("tools", never);
    const answer = await upstream.send(withClaims({ subject: "ann" }, { email: "ann@a.test" }), ignored, never);
    expect(JSON.stringify(answer)).toContain("ann@a.test");
    const { headers } = (await (await fetch(`${origin}/stats`)).json()) as { headers: Record<string, string>[] };
    const lists = headers.filter((one) => one["mcp-method"] === "tools/list");
    expect(lists.map((one) => [one["x-user"], one["x-mail"]])).toEqual(lists.map(() => ["nobody", undefined]));
    expect(lists.length).toBeGreaterThan(0);
  });

  test("that the caller lacks are told to the caller, and nothing is sent, nor sent again", async () => {
    const { url, stats } = await remembering();
    const upstream = up(url, written);
    await upstream.identity(never);
    const before = (await stats()).methods;
    const error = await upstream.send(toolCall("headers", {}, { subject: "ann" }), ignored, never).catch((e) => e);
    expect([error.code, error.message]).toEqual(["upstream_unavailable", expect.stringContaining("claims.email")]);
    expect((await stats()).methods).toEqual(before);
    expect(upstream.state().state).toBe("ready");
  });

  test("tell users of one subject with other claims apart", async () => {
    const upstream = up((await remembering()).url, written);
    const as = (tool: string, email: string, args: Record<string, unknown> = {}) => {
      const permitted = toolCall(tool, args, { subject: "ann" });
      const by = { ...permitted.by, claims: { email } };
      return upstream.send({ ...permitted, by } as typeof permitted, ignored, never);
    };
    await as("remember", "one@a.test", { text: "of one" });
    expect(textOf(await as("recall", "two@a.test"))).toBe("");
    expect(textOf(await as("recall", "one@a.test"))).toBe("of one");
  });

  test("of secrets are read for each call, so that a new one is used at once and nobody gets another's", async () => {
    const keys = new Map([
      ["ann", "key of ann"],
      ["bob", "key of bob"],
    ]);
    const read: ReadUserSecret = async (name, subject) => {
      const key = name === "keys" ? keys.get(subject) : undefined;
      return key === undefined ? undefined : new Secret(key);
    };
    const { url } = await remembering();
    const upstream = up(url, { isolation: "per-user", userHeaders: { "X-Key": { secret: "keys" } } }, read);
    const key = async (subject: string) => (await headersOf(upstream, { subject }))["x-key"];
    expect(await Promise.all([key("ann"), key("bob")])).toEqual(["key of ann", "key of bob"]);
    keys.set("ann", "new key");
    expect(await key("ann")).toBe("new key");
    expect(await codeOf(key("eve"))).toBe("upstream_unavailable");
    keys.delete("ann");
    expect(await codeOf(key("ann"))).toBe("upstream_unavailable");
  });

  test.each([
    [{ userHeaders: { "X-User": { from: "subject" } } }, /isolation/],
    [{ isolation: "per-user", userHeaders: { "Mcp-Session-Id": { from: "subject" } } }, /mcp-session-id/],
    [{ isolation: "per-user", userHeaders: { Host: { from: "subject" } } }, /host/],
    [{ isolation: "per-user", headers: { "X-Key": "k" }, userHeaders: { "x-key": { from: "subject" } } }, /x-key/],
    [{ isolation: "per-user", userHeaders: { "X-A": { from: "subject" }, "x-a": { from: "client" } } }, /twice/],
  ] as const)("that cannot be meant are refused at the start: %j", (settings, message) => {
    expect(() => up("https://s.example/mcp", settings)).toThrow(
      expect.objectContaining({ code: "settings_invalid", message: expect.stringMatching(message) }),
    );
  });

  test("never take the place of the credential", () => {
    const settings = { isolation: "per-user", userHeaders: { Authorization: { from: "subject" } } } as const;
    expect(() => http("https://s.example/mcp", settings as never, namedCredentials())).toThrow(/authorization/);
  });
});
