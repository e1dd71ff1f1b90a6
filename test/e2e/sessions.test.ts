/** Sessions of 2025 clients behind two gateways on one store, without stickiness: each request may go to either, also after a restart. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { type Fixture, startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { type Answered, legacySession, send } from "./legacy-client.ts";
import { freePort, type Replica, replicaOf } from "./replica.ts";
import { type World, world } from "./world.ts";

const GREETING = "test://static/greeting";
const PICTURE = "test://static/picture";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-sessions-"));
const settings = { store: `sqlite:${join(folder, "store.db")}`, servers: {} };
let fixture: Fixture;
let one: World;
let two: Replica;
let token: string;
let other: string;
beforeAll(async () => {
  fixture = await startFixture("echo-http", ["--era", "legacy"]);
  settings.servers = { web: { url: `${fixture.origin}/mcp` } };
  one = await world(settings);
  two = await replicaOf(one, settings);
  token = (await one.tokens()).access_token;
  other = (await one.tokens()).access_token;
}, 30_000);
afterAll(async () => {
  await two?.[Symbol.asyncDispose]();
  await one?.[Symbol.asyncDispose]();
  await fixture?.stop();
  rmSync(folder, { recursive: true, force: true });
});

const open: Answered[] = [];
afterEach(() => {
  for (const answer of open.splice(0)) answer.cut();
});
const opened = (answer: Answered) => {
  open.push(answer);
  return answer;
};
const cancelled = async () =>
  ((await (await fetch(`${fixture.origin}/stats`)).json()) as { cancelled: number }).cancelled;
const heard = (answer: Answered, method: string) =>
  answer.messages().filter((message) => message.method === method).length;
const line = { level: "info", text: "something happened" };
const echo = { name: "echo", arguments: { text: "hello" } };

describe("a session", () => {
  verifies("legacy-session-replicas", "is known to both gateways, whichever began it", async () => {
    for (const [first, second] of [
      [one.url, two.url],
      [two.url, one.url],
    ] as const) {
      const session = await legacySession(first, token);
      for (let round = 0; round < 4; round++)
        for (const at of [second, first]) {
          const { status, message } = await session.ask("tools/call", echo, at);
          expect([status, message?.result?.content?.[0]?.text]).toEqual([200, "hello"]);
        }
    }
  });

  test("is asked for by many requests at once where it is not known yet", async () => {
    const session = await legacySession(one.url, token);
    const answers = await Promise.all(Array.from({ length: 20 }, () => session.ask("ping", {}, two.url)));
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200));
  });

  verifies(
    ["legacy-session-delete", "legacy-session-required"],
    "that is ended at one gateway is unknown at the other within a second, its stream there ends and its call is cancelled",
    async () => {
      const session = await legacySession(one.url, token);
      const stream = opened(await session.get(undefined, {}, two.url));
      const stopped = await cancelled();
      const call = opened(await session.call("drip", { events: 10_000, ms: 20 }, {}, two.url));
      expect(await session.end(one.url)).toBe(204);
      expect((await session.ask("ping")).status).toBe(404);
      await waitFor(async () => (await session.ask("ping", {}, two.url)).status === 404, 2_000);
      await Promise.all([stream.ended, call.ended]);
      await waitFor(async () => (await cancelled()) === stopped + 1);
      expect(await session.end(two.url)).toBe(404);
    },
  );

  verifies(
    "legacy-session-owner",
    "that is another's, ended, made up or changed looks the same everywhere",
    async () => {
      const session = await legacySession(one.url, token);
      const ended = await legacySession(one.url, token);
      await ended.end(two.url);
      await waitFor(async () => (await ended.ask("ping", {}, one.url)).status === 404);
      const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
      const refusals = new Set<string>();
      for (const at of [one.url, two.url])
        for (const [id, by] of [
          [session.id, other],
          [ended.id, token],
          ["made-up", token],
          [`${session.id.slice(0, 30)}${session.id[30] === "A" ? "B" : "A"}${session.id.slice(31)}`, token],
          [session.id.slice(0, -1), token],
          [`${session.id}A`, token],
          ["A".repeat(5_000), token],
        ] as const) {
          const answer = await send(at, by, { body: ping, headers: { "mcp-session-id": id } });
          await answer.ended;
          refusals.add(`${answer.status} ${JSON.stringify(answer.messages())}`);
        }
      expect(refusals.size).toBe(1);
      expect([...refusals][0]).toMatch(/^404 .*-31404/);
      expect((await session.ask("ping")).status).toBe(200);
    },
  );

  test("says nothing of what is in it, and with large capabilities stays as short", async () => {
    const small = await legacySession(one.url, token, { capabilities: { elicitation: {}, sampling: {} } });
    expect(small.id.length).toBeLessThan(300);
    expect(Buffer.from(small.id, "base64url").toString("latin1")).not.toContain("sampling");
    const large = await legacySession(one.url, token, { capabilities: { experimental: { long: "x".repeat(8_000) } } });
    expect(large.id.length).toBeLessThan(300);
    expect((await large.ask("tools/call", echo, two.url)).status).toBe(200);
    const huge = await legacySession(one.url, token, { capabilities: { experimental: { long: "x".repeat(20_000) } } });
    expect(huge.id).toBe("");
  });

  test("has one log level, wherever it was set", async () => {
    const session = await legacySession(one.url, token);
    await session.ask("ping", {}, two.url);
    const logs = async (at: string) => {
      const answer = await session.call("log", line, {}, at);
      await answer.ended;
      return heard(answer, "notifications/message");
    };
    expect((await session.ask("logging/setLevel", { level: "emergency" }, one.url)).message?.result).toEqual({});
    await waitFor(async () => (await logs(two.url)) === 0, 2_000);
    expect((await session.ask("logging/setLevel", { level: "debug" }, two.url)).message?.result).toEqual({});
    await waitFor(async () => (await logs(one.url)) > 0, 2_000);
  });

  verifies("legacy-cancellation", "is cancelled a call at one gateway by way of the other", async () => {
    const session = await legacySession(one.url, token);
    const stopped = await cancelled();
    const call = opened(await session.call("drip", { events: 10_000, ms: 20 }, {}, two.url));
    const params = { requestId: 1 };
    expect((await session.post({ method: "notifications/cancelled", params }, {}, one.url)).status).toBe(202);
    await call.ended;
    await waitFor(async () => (await cancelled()) === stopped + 1);
    expect(call.messages().at(-1)?.result).toBeUndefined();
  });

  test("hears at one gateway of what it subscribed to at the other, until it unsubscribes", async () => {
    const session = await legacySession(one.url, token);
    const stream = opened(await session.get(undefined, {}, two.url));
    expect((await session.ask("resources/subscribe", { uri: GREETING }, one.url)).message?.result).toEqual({});
    const touch = (uri: string) => session.ask("tools/call", { name: "touch", arguments: { uri } });
    const updates = (uri: string) => stream.messages().filter(({ params }) => params?.uri === uri).length;
    await waitFor(async () => {
      await touch(GREETING);
      return updates(GREETING) > 0;
    });
    await session.ask("resources/subscribe", { uri: PICTURE }, two.url);
    await session.ask("resources/unsubscribe", { uri: GREETING }, two.url);
    const before = updates(GREETING);
    await waitFor(async () => {
      await touch(GREETING);
      await touch(PICTURE);
      return updates(PICTURE) > 0;
    });
    expect(updates(GREETING)).toBe(before);
  });
});

describe("a stream whose connection broke", () => {
  verifies("legacy-resume", "goes on at the other gateway, every event once and in order", async () => {
    const session = await legacySession(one.url, token);
    const call = await session.call("drip", { events: 30, ms: 50 }, { cutAfter: 4 });
    await call.ended;
    const middle = await session.get(call.lastId(), { cutAfter: 6 }, two.url);
    expect(middle.status).toBe(200);
    await middle.ended;
    const rest = await session.get(middle.lastId(), {}, one.url);
    await rest.ended;
    const messages = [call, middle, rest].flatMap((part) => part.messages());
    expect(messages.slice(0, -1).map(({ params }) => params?.progress)).toEqual(
      Array.from({ length: 30 }, (_, index) => index + 1),
    );
    expect(messages.at(-1)?.result?.content?.[0]?.text).toBe("dripped 30");
  });

  test("ends at the other gateway with its answer", async () => {
    const session = await legacySession(one.url, token);
    const call = await session.call("drip", { events: 10, ms: 50 }, { cutAfter: 2 });
    await call.ended;
    const rest = await session.get(call.lastId(), {}, two.url);
    await rest.ended;
    expect(rest.messages().at(-1)?.result?.content?.[0]?.text).toBe("dripped 10");
    expect((await session.get(rest.lastId(), {}, two.url)).status).toBe(204);
  });

  verifies("legacy-replay-own", "does not go on for another session or another client", async () => {
    const mine = await legacySession(one.url, token);
    const call = await mine.call("drip", { events: 10_000, ms: 20 }, { cutAfter: 2 });
    await call.ended;
    for (const by of [token, other]) {
      const foreign = await legacySession(two.url, by);
      const answer = await foreign.get(call.lastId());
      await answer.ended;
      expect(answer.messages().map(({ error }) => error?.code)).toEqual([-31410]);
    }
    await mine.end();
  });
});

describe("the version header of a session", () => {
  const ask = async (headers: Record<string, string>, method = "POST") => {
    const answer = await send(one.url, token, {
      method,
      headers,
      ...(method === "POST" && { body: { jsonrpc: "2.0", id: 1, method: "ping" } }),
    });
    if (method === "GET") answer.cut();
    await answer.ended;
    return answer.status;
  };
  verifies(
    "legacy-version-header",
    "may be absent or of another known revision, but not of an unknown one",
    async () => {
      const { id } = await legacySession(one.url, token, { version: "2025-06-18" });
      const mine = { "mcp-session-id": id };
      expect(await ask(mine)).toBe(200);
      expect(await ask({ ...mine, "mcp-protocol-version": "2025-11-25" })).toBe(200);
      for (const method of ["POST", "GET", "DELETE"])
        expect(await ask({ ...mine, "mcp-protocol-version": "1999-01-01" }, method), method).toBe(400);
      for (const method of ["GET", "DELETE"])
        expect(await ask({ ...mine, "mcp-protocol-version": "2026-07-28" }, method), method).toBe(405);
      expect(await ask(mine)).toBe(200);
      expect(await ask(mine, "GET")).toBe(200);
      expect(await ask(mine, "DELETE")).toBe(204);
    },
  );
});

test("a session goes on after its gateway was started again, with its log level and subscriptions", async () => {
  const port = await freePort();
  const file = join(folder, "restarted.db");
  const restartable = {
    ...settings,
    store: `sqlite:${file}`,
    publicUrl: `http://localhost:${port}`,
    listen: { port },
  };
  const first = await world(restartable);
  const { access_token } = await first.tokens();
  const session = await legacySession(first.url, access_token);
  await session.ask("resources/subscribe", { uri: GREETING });
  await session.ask("logging/setLevel", { level: "emergency" });
  const ended = await legacySession(first.url, access_token);
  await ended.end();
  await first[Symbol.asyncDispose]();

  await using second = await world(restartable);
  expect(second.url).toBe(first.url);
  expect((await session.ask("tools/call", echo)).message?.result?.content?.[0]?.text).toBe("hello");
  expect((await ended.ask("ping")).status).toBe(404);
  const stream = opened(await session.get());
  await waitFor(async () => {
    await session.ask("tools/call", { name: "touch", arguments: { uri: GREETING } });
    return heard(stream, "notifications/resources/updated") > 0;
  });
  const logged = await session.call("log", line);
  await logged.ended;
  expect(logged.messages().map(({ method }) => method)).toEqual([undefined]);
  expect(logged.messages()[0]?.result?.content?.[0]?.text).toBe("logged");
});

test("rows of sessions that only called something are not written", async () => {
  const session = await legacySession(one.url, token);
  for (const at of [one.url, two.url]) await session.ask("tools/call", echo, at);
  await using store = sqliteStore(join(folder, "store.db"));
  expect(await store.records.get("mcp:session", session.id.slice(-21))).toBeUndefined();
  await session.ask("logging/setLevel", { level: "error" });
  expect(await store.records.get("mcp:session", session.id.slice(-21))).toMatchObject({
    value: { logLevel: "error" },
  });
});
