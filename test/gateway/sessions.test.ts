/** Sessions of 2025 clients: how long they last, how many there are, and what happens when the store does not answer. */
import { afterEach, expect, test } from "vitest";
import type { Authenticated } from "../../src/core/call.ts";
import { openSessions, type Sessions, type SessionsOptions } from "../../src/gateway/sessions.ts";
import type { Session } from "../../src/mcp/sessions.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { CHANGES, watchChanges } from "../../src/store/watch.ts";
import { waitFor } from "../fixtures/processes.ts";

const principal = (subject = "u_1") => ({ subject, client: "c_1" }) as Authenticated;
const HOUR = 3_600_000;

const opened: Pick<Sessions, "close">[] = [];
afterEach(async () => {
  for (const sessions of opened.splice(0)) await sessions.close();
});

async function replica(records: Records, options: Partial<SessionsOptions> = {}) {
  const ended: Session[] = [];
  const changes = await watchChanges(records);
  const sessions = await openSessions({
    records,
    changes,
    encryption: undefined,
    limits: { maxSessions: 100, sessionIdleSeconds: 4 * 3600 },
    onEnd: (session) => void ended.push(session),
    onFollow() {},
    streaming: () => false,
    log: silentLogger,
    ...options,
  });
  opened.push({ close: async () => Promise.resolve(sessions.close()).finally(() => changes.close()) });
  return { sessions, ended };
}
const unknown = expect.objectContaining({ code: "unknown_session" });
const refused = async (sessions: Sessions, id: string, by = principal()) => {
  await expect((async () => sessions.find(id, by))()).rejects.toEqual(unknown);
};

test("what a client agreed upon is what every replica knows, and only its owner gets it", async () => {
  const { records } = memoryStore();
  const [one, two] = [await replica(records), await replica(records)];
  const session = await one.sessions.open(principal(), "2025-06-18", "näme", { roots: { listChanged: true } });
  const met = await two.sessions.find(session.id, principal());
  const { id, owner, revision, clientName, capabilities } = session;
  expect(met).toMatchObject({ id, owner, revision, clientName, capabilities });
  expect(two.sessions.find(session.id, principal())).toBe(met);
  await refused(two.sessions, session.id, principal("u_2"));
  await refused(one.sessions, session.id, principal("u_2"));
});

test("a client that follows forty resources at once follows all of them, on every replica", async () => {
  const { records } = memoryStore();
  const [one, two] = [await replica(records), await replica(records)];
  const session = await one.sessions.open(principal(), "2025-11-25", "");
  const uris = Array.from({ length: 40 }, (_, index) => `r:${index}`);
  await Promise.all(uris.map((uri) => one.sessions.follow(session, uri, "server")));
  const met = await two.sessions.find(session.id, principal());
  expect([...(met.subscriptions?.keys() ?? [])].sort()).toEqual([...uris].sort());
  await Promise.all(uris.map((uri) => one.sessions.follow(session, uri, undefined)));
  expect(session.subscriptions?.size).toBe(0);
});

test("a session that nobody used for too long is unknown everywhere; one that is used lives on, wherever that was", async () => {
  let now = Date.now();
  const clock = () => now;
  const { records } = memoryStore(clock);
  const [one, two] = [await replica(records, { clock }), await replica(records, { clock })];
  const used = await one.sessions.open(principal(), "2025-11-25", "");
  const unused = await one.sessions.open(principal(), "2025-11-25", "");
  for (let hours = 0; hours < 24; hours += 2) {
    now += 2 * HOUR;
    await two.sessions.find(used.id, principal());
    // The note that it was used is written meanwhile.
    await waitFor(async () => (await records.get("mcp:session", used.id.slice(-21))) !== undefined);
  }
  await refused(one.sessions, unused.id);
  await refused(two.sessions, unused.id);
  expect(one.ended).toContain(unused);
  expect((await one.sessions.find(used.id, principal())).id).toBe(used.id);
  now += 6 * HOUR;
  await refused(one.sessions, used.id);
  await refused(two.sessions, used.id);
});

test("a session with an open stream is not idle", async () => {
  let now = Date.now();
  const clock = () => now;
  const { records } = memoryStore(clock);
  const { sessions } = await replica(records, { clock, streaming: () => true });
  const session = await sessions.open(principal(), "2025-11-25", "");
  now += 10 * HOUR;
  sessions.sweep();
  expect(sessions.find(session.id, principal())).toBe(session);
});

test("beyond the bound the one unused for longest is forgotten here, and comes back when it is used", async () => {
  const { records } = memoryStore();
  const { sessions, ended } = await replica(records, { limits: { maxSessions: 3, sessionIdleSeconds: 3600 } });
  const begun: Session[] = [];
  for (let index = 0; index < 5; index++) begun.push(await sessions.open(principal(), "2025-11-25", `${index}`));
  expect(sessions.size).toBe(3);
  expect(ended).toEqual(begun.slice(0, 2));
  expect(await sessions.find(begun[0]?.id ?? "", principal())).toMatchObject({ clientName: "0" });
  expect(sessions.size).toBe(3);
});

test("changes at two replicas at once are both kept", async () => {
  const { records } = memoryStore();
  const [one, two] = [await replica(records), await replica(records)];
  const mine = await one.sessions.open(principal(), "2025-11-25", "");
  const theirs = await two.sessions.find(mine.id, principal());
  await Promise.all(
    Array.from({ length: 6 }, (_, index) =>
      (index % 2 ? one : two).sessions.follow(index % 2 ? mine : theirs, `r:${index}`, "server"),
    ),
  );
  for (const session of [mine, theirs]) await waitFor(() => session.subscriptions?.size === 6);
});

test("a session that ends at one replica ends at all others, more of them at once than are named in one row", async () => {
  const { records } = memoryStore();
  const limits = { maxSessions: 1_000, sessionIdleSeconds: 3600 };
  const [one, two] = [await replica(records, { limits }), await replica(records, { limits })];
  const all = await Promise.all(Array.from({ length: 600 }, () => one.sessions.open(principal(), "2025-11-25", "")));
  for (const { id } of all) await two.sessions.find(id, principal());
  expect(two.sessions.size).toBe(600);
  await Promise.all(all.map((session) => one.sessions.end(session)));
  await waitFor(() => two.sessions.size === 0);
});

test("while the store does not answer, known sessions go on and unknown ones cannot", async () => {
  const { records } = memoryStore();
  const state = { failing: false };
  const failing = new Proxy(records, {
    get: (target, name: keyof Records) =>
      state.failing ? () => Promise.reject(new Error("the store is away")) : target[name].bind(target),
  });
  const [one, two] = [await replica(failing), await replica(failing)];
  const session = await one.sessions.open(principal(), "2025-11-25", "");
  state.failing = true;
  expect(one.sessions.find(session.id, principal())).toBe(session);
  await expect(two.sessions.find(session.id, principal())).rejects.toThrow("away");
  await expect(one.sessions.end(session)).rejects.toThrow("away");
  state.failing = false;
  expect((await two.sessions.find(session.id, principal())).id).toBe(session.id);
  await one.sessions.end(session);
  await waitFor(() => two.sessions.size === 0);
});

test("a session takes about half a kilobyte", async () => {
  const { records } = memoryStore();
  const { sessions } = await replica(records, { limits: { maxSessions: 100_000, sessionIdleSeconds: 3600 } });
  const { gc } = globalThis as { gc?: () => void };
  const before = process.memoryUsage().heapUsed;
  for (let index = 0; index < 20_000; index++)
    await sessions.open(principal(`u_${index}`), "2025-11-25", "client", { elicitation: {}, sampling: {} });
  gc?.();
  const each = (process.memoryUsage().heapUsed - before) / 20_000;
  // Without a way to collect garbage first the measure is loose.
  expect(each).toBeLessThan(gc === undefined ? 4_000 : 900);
});

test("a session that ended elsewhere is not found by who comes after a time in which nobody came", async () => {
  const { records } = memoryStore();
  const [one, state] = [await replica(records), { now: 0, reads: 0 }];
  const counted: Records = {
    ...records,
    list(kind, page) {
      if (kind === CHANGES) state.reads++;
      return records.list(kind, page);
    },
  };
  const changes = await watchChanges(counted, () => state.now);
  const two = await replica(counted, { changes });
  const [session, other] = [
    await one.sessions.open(principal(), "2025-11-25", ""),
    await one.sessions.open(principal(), "2025-11-25", ""),
  ];
  for (const { id } of [session, other]) await two.sessions.find(id, principal());
  // The look that finds that nobody came is the last one while this clock stands still.
  const before = state.reads;
  state.now += 60_000;
  await waitFor(() => state.reads > before);
  await one.sessions.end(session);
  await refused(two.sessions, session.id);
  expect(await two.sessions.find(other.id, principal())).toMatchObject({ id: other.id });
  expect(two.ended.map(({ id }) => id)).toEqual([session.id]);
  changes.close();
});
