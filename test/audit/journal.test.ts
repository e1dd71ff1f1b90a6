import { setImmediate } from "node:timers/promises";
import { afterEach, describe, expect, test, vi } from "vitest";
import { openChain } from "../../src/audit/chain.ts";
import { openJournal } from "../../src/audit/journal.ts";
import type { AuditRecord } from "../../src/audit/record.ts";
import { signerOfSeed } from "../../src/audit/signing.ts";
import { createLogger, silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { AuditHead, AuditRow } from "../../src/store/ports.ts";

const SIGNER = signerOfSeed(Buffer.alloc(32, 7));
type Settings = Parameters<typeof openJournal>[0]["settings"];

/** A journal over a log that counts its commits, holds or fails them when told to, and whose retries happen when told to. */
function journal(settings: Partial<Settings> = {}, logger = silentLogger) {
  const store = memoryStore();
  const commits: string[][] = [];
  const retries: { ms: number; now: () => void }[] = [];
  const state = { failing: false, held: undefined as Promise<void> | undefined };
  const log = {
    read: store.audit.read,
    async append(rows: readonly AuditRow[], head?: AuditHead) {
      await state.held;
      if (state.failing) throw new Error("disk full");
      const sequence = await store.audit.append(rows, head);
      const records = rows.filter(({ json }) => !json.includes('"kind":"audit"')).map(({ id }) => id);
      if (records.length > 0) commits.push(records);
      return sequence;
    },
  };
  const wait = (ms: number) => new Promise<void>((now) => retries.push({ ms, now }));
  const opened = openJournal({
    log,
    chain: openChain({ signer: async () => SIGNER, log: store.audit, replica: "r1", clock: () => 0 }),
    settings: { commit: "durable", maxPending: 100, ...settings },
    logger,
    wait,
    clock: () => 0,
  });
  const written = async () =>
    (await store.audit.read({ limit: 1000 }))
      .map(({ json }) => JSON.parse(json) as { id: string; kind: string })
      .filter(({ kind }) => kind !== "audit")
      .map(({ id }) => id);
  return { journal: opened, commits, state, retries, written, until };
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error("the condition never came true");
    await setImmediate();
  }
}

/** As much as happens without anybody's waiting for a time. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await setImmediate();
}

afterEach(() => {
  vi.useRealTimers();
});

function record(id: string): AuditRecord {
  return { id, kind: "call", at: 0, durationMs: 1, outcome: "permitted", replica: "r1" };
}
const ids = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => `r${from + n}`);
const all = (journal: { append(record: AuditRecord): Promise<void> }, of: readonly string[]) =>
  Promise.all(of.map((id) => journal.append(record(id))));

describe("group commit", () => {
  test("records of one moment go into one commit, in their order", async () => {
    await using it = journalOf({});
    await all(it.journal, ids(1, 50));
    expect(it.commits).toEqual([ids(1, 50)]);
  });

  test("records that come while a commit runs go into the next one together", async () => {
    await using it = journalOf({});
    const gate = Promise.withResolvers<void>();
    it.state.held = gate.promise;
    const first = it.journal.append(record("r1"));
    await until(() => it.journal.pending === 1);
    await setImmediate();
    await setImmediate();
    const rest = all(it.journal, ids(2, 30));
    expect(it.commits).toEqual([]);
    gate.resolve();
    await Promise.all([first, rest]);
    expect(it.commits).toEqual([["r1"], ids(2, 30)]);
    expect(it.journal.pending).toBe(0);
  });

  test("a record that comes the moment the last commit ends is not forgotten", async () => {
    await using it = journalOf({});
    for (const id of ids(1, 200)) await it.journal.append(record(id));
    expect(await it.written()).toEqual(ids(1, 200));
  });

  test("callers who come again and again share commits, though each waits for its own", async () => {
    await using it = journalOf({});
    const caller = async (n: number) => {
      for (let call = 0; call < 20; call++) await it.journal.append(record(`r${n}-${call}`));
    };
    await Promise.all(Array.from({ length: 10 }, (_, n) => caller(n)));
    expect(it.commits.flat()).toHaveLength(200);
    expect(it.commits.length).toBeLessThan(40);
  });

  test("under load a commit waits for two thirds of those who were there last time, and not for the rest", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    await using it = journalOf({});
    await all(it.journal, ids(1, 9));
    const five = all(it.journal, ids(10, 14));
    await turns();
    expect(it.commits).toEqual([ids(1, 9)]);
    const sixth = it.journal.append(record("r15"));
    await Promise.all([five, sixth]);
    expect(it.commits).toEqual([ids(1, 9), ids(10, 15)]);
  });

  test("a commit does not wait long for those who do not come again", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    await using it = journalOf({});
    await all(it.journal, ids(1, 9));
    const alone = it.journal.append(record("r10"));
    await turns();
    expect(it.commits).toEqual([ids(1, 9)]);
    vi.advanceTimersByTime(2);
    await alone;
    expect(it.commits).toEqual([ids(1, 9), ["r10"]]);
  });

  test("a caller alone does not wait for others", async () => {
    await using it = journalOf({});
    for (const id of ids(1, 20)) await it.journal.append(record(id));
    expect(it.commits).toHaveLength(20);
  });

  test("a backlog is cut into commits of a thousand", async () => {
    await using it = journalOf({ maxPending: 5000 });
    await all(it.journal, ids(1, 2500));
    expect(it.commits.map((commit) => commit.length)).toEqual([1000, 1000, 500]);
  });
});

describe("a durable journal", () => {
  test("resolves only when the record is written", async () => {
    await using it = journalOf({});
    const gate = Promise.withResolvers<void>();
    it.state.held = gate.promise;
    let answered = false;
    const appended = it.journal.append(record("r1")).then(() => {
      answered = true;
    });
    for (let turn = 0; turn < 20; turn++) await setImmediate();
    expect(answered).toBe(false);
    gate.resolve();
    await appended;
    expect(await it.written()).toEqual(["r1"]);
  });

  test("refuses everything while the log cannot be written, and says so once", async () => {
    const lines: string[] = [];
    const logger = createLogger({ level: "info", format: "json" }, { write: (line) => lines.push(line) });
    await using it = journalOf({}, logger);
    it.state.failing = true;
    const outcomes = await Promise.allSettled(ids(1, 20).map((id) => it.journal.append(record(id))));
    expect(outcomes.map((outcome) => outcome.status === "rejected" && outcome.reason)).toEqual(
      Array.from({ length: 20 }, () => expect.objectContaining({ code: "audit_unavailable", http: 503 })),
    );
    await expect(it.journal.append(record("r21"))).rejects.toMatchObject({ code: "audit_unavailable" });
    expect(() => it.journal.check()).toThrow(/audit log cannot be written/);
    expect(lines.filter((line) => line.includes("calls are refused"))).toHaveLength(1);
    it.state.failing = false;
  });

  test("tries again later and later, recovers, and writes what it had kept, in order", async () => {
    await using it = journalOf({});
    it.state.failing = true;
    await Promise.allSettled([it.journal.append(record("r1")), it.journal.append(record("r2"))]);
    for (const expected of [100, 200, 400, 800, 1600, 3200, 5000, 5000]) {
      await until(() => it.retries.length === 1);
      const retry = it.retries.shift();
      expect(retry?.ms).toBe(expected);
      retry?.now();
    }
    await expect(it.journal.append(record("r3"))).rejects.toMatchObject({ code: "audit_unavailable" });
    await until(() => it.retries.length === 1);
    it.state.failing = false;
    it.retries.shift()?.now();
    await until(() => it.journal.pending === 0);
    it.journal.check();
    await it.journal.append(record("r4"));
    expect(await it.written()).toEqual(["r1", "r2", "r3", "r4"]);
  });

  test("does not blame a record for a failure that was over before it came", async () => {
    await using it = journalOf({});
    it.state.failing = true;
    await Promise.allSettled(ids(1, 3).map((id) => it.journal.append(record(id))));
    await expect(it.journal.append(record("r4"))).rejects.toMatchObject({ code: "audit_unavailable" });
    await until(() => it.retries.length === 1);
    it.retries.shift()?.now();
    await until(() => it.retries.length === 1);
    it.state.failing = false;
    it.retries.shift()?.now();
    // r4 waits still, in a batch whose callers were told that it failed.
    await until(() => it.commits.length >= 1);
    await it.journal.append(record("r5"));
    expect(await it.written()).toEqual(ids(1, 5));
  });
});

describe("an async journal", () => {
  test("resolves at once and writes soon", async () => {
    await using it = journalOf({ commit: "async" });
    const gate = Promise.withResolvers<void>();
    it.state.held = gate.promise;
    await all(it.journal, ids(1, 10));
    expect(it.journal.pending).toBe(10);
    gate.resolve();
    await until(() => it.journal.pending === 0);
    expect(await it.written()).toEqual(ids(1, 10));
  });

  test("gathers records of several turns into one commit", async () => {
    await using it = journalOf({ commit: "async" });
    for (const id of ids(1, 40)) {
      await it.journal.append(record(id));
      await setImmediate();
    }
    await until(() => it.journal.pending === 0);
    expect(await it.written()).toEqual(ids(1, 40));
    expect(it.commits.length).toBeLessThan(20);
  });

  test("does not let one wait who asks for durability, and commits what has gathered with it", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    await using it = journalOf({ commit: "async" });
    await all(it.journal, ids(1, 3));
    await turns();
    expect(it.commits).toEqual([]);
    await it.journal.append(record("r4"), "durable");
    expect(it.commits).toEqual([ids(1, 4)]);
    await it.journal.append(record("r5"), "durable");
    expect(it.commits).toEqual([ids(1, 4), ["r5"]]);
  });

  test("does not gather so long that records are refused", async () => {
    await using it = journalOf({ commit: "async", maxPending: 4 });
    for (const id of ids(1, 40)) {
      await until(() => it.journal.pending < 4);
      await it.journal.append(record(id));
    }
    await until(() => it.journal.pending === 0);
    expect(await it.written()).toEqual(ids(1, 40));
  });

  test("refuses when the last write failed, until one succeeds", async () => {
    await using it = journalOf({ commit: "async" });
    it.state.failing = true;
    await it.journal.append(record("r1"));
    await until(() => it.retries.length === 1);
    await expect(it.journal.append(record("r2"))).rejects.toMatchObject({ code: "audit_unavailable" });
    it.state.failing = false;
    it.retries.shift()?.now();
    await until(() => it.journal.pending === 0);
    await it.journal.append(record("r3"));
    await until(() => it.journal.pending === 0);
    expect(await it.written()).toEqual(["r1", "r2", "r3"]);
  });
});

describe("every journal", () => {
  for (const commit of ["durable", "async"] as const) {
    test(`refuses a record over the bound (${commit}) and takes records again when there is room`, async () => {
      await using it = journalOf({ commit, maxPending: 5 });
      const gate = Promise.withResolvers<void>();
      it.state.held = gate.promise;
      const taken = ids(1, 5).map((id) => it.journal.append(record(id)));
      await expect(it.journal.append(record("r6"))).rejects.toMatchObject({ code: "audit_unavailable" });
      gate.resolve();
      await Promise.all(taken);
      await until(() => it.journal.pending === 0);
      await it.journal.append(record("r7"));
      await it.journal.close();
      expect(await it.written()).toEqual([...ids(1, 5), "r7"]);
    });
  }

  test("writes what is pending when it is closed, and takes nothing afterwards", async () => {
    const it = journalOf({ commit: "async" });
    await all(it.journal, ids(1, 10));
    await it.journal.close();
    expect(await it.written()).toEqual(ids(1, 10));
    await expect(it.journal.append(record("r11"))).rejects.toMatchObject({ code: "audit_unavailable" });
  });

  test("tries once more when it is closed while failing", async () => {
    const it = journalOf({ commit: "async" });
    it.state.failing = true;
    await it.journal.append(record("r1"));
    await until(() => it.retries.length === 1);
    it.state.failing = false;
    await it.journal.close();
    expect(await it.written()).toEqual(["r1"]);
  });

  test("says what is lost when it is closed and the log still cannot be written", async () => {
    const lines: string[] = [];
    const it = journalOf(
      { commit: "async" },
      createLogger({ level: "info", format: "json" }, { write: (line) => lines.push(line) }),
    );
    it.state.failing = true;
    await all(it.journal, ids(1, 3));
    await expect(it.journal.close()).rejects.toMatchObject({ code: "audit_unavailable" });
    expect(JSON.parse(lines.at(-1) ?? "")).toMatchObject({
      message: "audit records were lost",
      records: 3,
      first: "r1",
    });
  });

  test("refuses a record that has no text, and goes on", async () => {
    await using it = journalOf({});
    await expect(it.journal.append({ ...record("r1"), at: Number.NaN })).rejects.toMatchObject({
      code: "audit_unavailable",
    });
    await it.journal.append(record("r2"));
    expect(await it.written()).toEqual(["r2"]);
  });
});

function journalOf(...parameters: Parameters<typeof journal>): ReturnType<typeof journal> & AsyncDisposable {
  const made = journal(...parameters);
  return { ...made, [Symbol.asyncDispose]: () => made.journal.close() };
}
