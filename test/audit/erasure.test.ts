/** Whoever is erased stays erased, whatever other processes still know, and is a new person to all of them afterwards. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Evidence, knownSigners, openEvidence } from "../../src/audit/evidence.ts";
import {
  KEYS_DESTROYED,
  openPersonalKeys,
  type PersonalKey,
  type PersonalKeys,
  restoreKey,
} from "../../src/audit/personal.ts";
import { auditSettings } from "../../src/audit/settings.ts";
import { vouchersOf } from "../../src/audit/signing.ts";
import { verifyLog } from "../../src/audit/standing.ts";
import { newId } from "../../src/core/ids.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records, Store } from "../../src/store/ports.ts";
import { sharedKey } from "../../src/store/sealing.ts";
import { watchChanges } from "../../src/store/watch.ts";
import { everyStore } from "../store/backends.ts";
import { openedRecords } from "./opened.ts";
import { callRecord, until } from "./sink-log.ts";

const master = async () => Buffer.alloc(32, 3);

/** Of what begins a moment from now, after any erasure before. */
async function keyOf(keys: PersonalKeys | undefined, subject: string, at = Date.now() + 1000): Promise<PersonalKey> {
  const key = await keys?.of(subject, at);
  if (key === undefined || key === "erased") throw new Error(`${subject} has no key`);
  return key;
}

describe.each(everyStore)("in $name", ({ openTwo }) => {
  test("a key that is destroyed at one process is used by no other a second later, and what it encrypts then can be read", async () => {
    await using stores = await openTwo();
    const [one, two] = stores.map(({ records }) => openPersonalKeys(records, master));
    const changes = await watchChanges(stores[1].records);
    try {
      changes.on(KEYS_DESTROYED, () => two?.forget());
      const before = await keyOf(two, "ada");
      const sealed = before.seal("her address", "r1");
      expect(await two?.open(before.kid, sealed, "r1")).toBe("her address");
      expect(await one?.destroy("ada")).toBe(1);
      await until(async () => (await keyOf(two, "ada")).kid !== before.kid, "another key", 10);
      const after = await keyOf(two, "ada");
      expect(await two?.open(before.kid, sealed, "r1")).toBeUndefined();
      expect(await one?.open(after.kid, after.seal("new words", "r2"), "r2")).toBe("new words");
    } finally {
      changes.close();
    }
  });
});

/** Records whose next `find` answers only when told to, with what it found before. */
function slowly(records: Records) {
  const gate = Promise.withResolvers<void>();
  const found = Promise.withResolvers<void>();
  let slow = true;
  const find: Records["find"] = async <T>(...asked: Parameters<Records["find"]>) => {
    const rows = await records.find<T>(...asked);
    if (!slow) return rows;
    slow = false;
    found.resolve();
    await gate.promise;
    return rows;
  };
  return { records: { ...records, find }, found: found.promise, goOn: gate.resolve };
}

test("a key that is being looked up while it is destroyed elsewhere is given to nobody", async () => {
  const { records } = memoryStore();
  const [one, { kid }] = await (async () => {
    const keys = openPersonalKeys(records, master);
    return [keys, await keyOf(keys, "ada")] as const;
  })();
  const slow = slowly(records);
  const two = openPersonalKeys(slow.records, master);
  const coming = keyOf(two, "ada");
  await slow.found;
  await one.destroy("ada");
  two.forget();
  const meanwhile = await keyOf(two, "ada");
  slow.goOn();
  expect((await coming).kid).not.toBe(kid);
  expect(meanwhile.kid).not.toBe(kid);
  expect((await keyOf(two, "ada")).kid).toBe(meanwhile.kid);
});

test("an erasure that failed half-way is told to all when it is repeated, though nothing is left to destroy", async () => {
  const { records } = memoryStore();
  let fail = true;
  const put: Records["put"] = async (kind, ...rest) => {
    if (kind === "changes" && fail) throw new Error("the store went away");
    return records.put(kind, ...rest);
  };
  const keys = openPersonalKeys({ ...records, put }, master);
  await keyOf(keys, "ada");
  await expect(keys.destroy("ada")).rejects.toThrow("went away");
  fail = false;
  expect(await keys.destroy("ada")).toBe(0);
  expect(await records.get("changes", KEYS_DESTROYED)).toBeDefined();
});

describe("a call that was under way while its person was erased", () => {
  /** A process, which hears of erasures as a gateway does when it is told to. */
  function process(store: Pick<Store, "audit" | "records">, clock = Date.now) {
    const { journal, keys } = openEvidence({
      store,
      settings: auditSettings.parse({}),
      encryption: undefined,
      folder: ".",
      replica: newId(),
      logger: silentLogger,
      clock,
    });
    const write = (subject: string, at: number, source: string) => {
      const record = callRecord({ at, source });
      return journal.append({ ...record, principal: record.principal && { ...record.principal, subject } });
    };
    return { journal, keys, write };
  }
  const found = async (store: Store, subject: string) =>
    (await openedRecords(store, { subject })).map(
      ({ source, erased, sealed }) => source ?? (erased ? "erased" : sealed && "sealed"),
    );

  test.each([
    ["that erased them", 0],
    ["that heard of it", 1],
    ["that has not heard of it and never met them", 2],
  ])("leaves nothing about them at the process %s; what they do later can be read", async (_, which) => {
    const store = memoryStore();
    const all = [process(store), process(store), process(store)] as const;
    const [eraser, hearer] = all;
    const began = Date.now() - 1000;
    await eraser.write("ada", began - 1000, "before");
    await hearer.write("bob", began, "bob's");
    expect(await eraser.keys.destroy("ada")).toBe(1);
    hearer.keys.forget();
    const writer = all[which] ?? eraser;
    await writer.write("ada", began, "under way");
    expect(await store.records.list("audit-key", { limit: 10 })).toHaveLength(1);
    await writer.write("ada", Date.now() + 10_000, "later");
    await writer.write("ada", began, "under way for long");
    expect(await found(store, "ada")).toEqual(["sealed", "erased", "later", "erased"]);
    expect(await found(store, "bob")).toEqual(["bob's"]);
    for (const { journal } of all) await journal.close();
    const { problem } = (await verifyLog(store.audit, vouchersOf(await knownSigners(store.records)))).verdict;
    expect(problem).toBeUndefined();
  });

  test("leaves nothing about them where the clock is behind that of the process that erased, or before it", async () => {
    for (const skew of [-30_000, 30_000]) {
      const store = memoryStore();
      const eraser = process(store);
      const other = process(store, () => Date.now() + skew);
      await eraser.write("ada", Date.now(), "before");
      const began = Date.now() + skew;
      await eraser.keys.destroy("ada");
      other.keys.forget();
      await other.write("ada", began, "under way");
      expect(await found(store, "ada"), `${skew} ms`).toEqual(["sealed", "erased"]);
      await other.write("ada", Date.now() + 60_000, "later");
      expect((await found(store, "ada")).at(-1)).toBe("later");
      for (const { journal } of [eraser, other]) await journal.close();
    }
  });

  test("leaves nothing about them when they are erased at any moment while it is written", async () => {
    for (let moment = 0; moment < 6; moment++) {
      const store = memoryStore();
      const began = Date.now() - 1000;
      let asked = 0;
      const during =
        <A extends readonly unknown[], R>(work: (...args: A) => Promise<R>) =>
        async (...args: A): Promise<R> => {
          if (asked++ === moment) await openPersonalKeys(store.records, await masterOf(store)).destroy("ada");
          return work(...args);
        };
      const { records } = store;
      const watched = { ...records, find: during(records.find), get: during(records.get), put: during(records.put) };
      await sharedKey(records, "audit persons", "drawbridge audit persons 1", undefined);
      const keys = openPersonalKeys(watched as Records, await masterOf(store));
      const key = await keys.of("ada", began);
      if (asked <= moment) await openPersonalKeys(records, await masterOf(store)).destroy("ada");
      const readable = key !== "erased" && (await keys.open(key.kid, key.seal("words", "r"), "r")) !== undefined;
      const fresh = openPersonalKeys(records, await masterOf(store));
      const read = key === "erased" ? undefined : await fresh.open(key.kid, key.seal("words", "r"), "r");
      expect([readable, read], `moment ${moment}`).toEqual([false, undefined]);
    }
  });
});

/** What the keys of persons in a store are encrypted with. */
async function masterOf({ records }: Pick<Store, "records">): Promise<() => Promise<Buffer>> {
  return () => sharedKey(records, "audit persons", "drawbridge audit persons 1", undefined);
}

describe("a record that was spilled", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "drawbridge-erasure-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));
  const spills = async () => (await readdir(folder)).filter((name) => name.startsWith("audit-spill-"));

  function world() {
    const under = memoryStore();
    const state = { away: false };
    const mayFail = async <T>(work: () => Promise<T>): Promise<T> => {
      if (state.away) throw new Error("the store is away");
      return work();
    };
    const { audit, records } = under;
    const store: Pick<Store, "audit" | "records"> = {
      audit: {
        ...audit,
        heads: () => mayFail(() => audit.heads()),
        append: (rows, head) => mayFail(() => audit.append(rows, head)),
      },
      records: {
        ...records,
        get: (kind, id) => mayFail(() => records.get(kind, id)),
        find: (...asked) => mayFail(() => records.find(...asked)),
        put: (...asked) => mayFail(() => records.put(...asked)),
      },
    };
    const gateway = (now = Date.now): Evidence =>
      openEvidence({
        store,
        settings: auditSettings.parse({ whenUnavailable: "spill" }),
        encryption: undefined,
        folder,
        spillFolder: folder,
        replica: newId(),
        logger: silentLogger,
        clock: now,
      });
    return { state, under, gateway };
  }
  const write = ({ journal }: Evidence, subject: string, at = Date.now()) => {
    const record = callRecord({ at });
    return journal.append({ ...record, principal: record.principal && { ...record.principal, subject } });
  };
  const sources = async (under: Store, subject: string) =>
    (await openedRecords(under, { subject })).map(({ source }) => source);

  test("of a newcomer who was erased before the file was found is in the log, and nobody can read what was theirs", async () => {
    const { state, under, gateway } = world();
    const crashed = gateway();
    await write(crashed, "ada");
    state.away = true;
    await write(crashed, "newcomer");
    await write(crashed, "another");
    await crashed.journal.close();
    expect((await spills()).length).toBeGreaterThan(0);
    state.away = false;
    await openPersonalKeys(under.records, master).destroy("newcomer");
    const next = gateway();
    await write(next, "ada");
    expect(await spills()).toEqual([]);
    expect(await sources(under, "newcomer")).toEqual([undefined]);
    expect(await sources(under, "another")).toEqual(["203.0.113.7"]);
    await next.journal.close();
  });

  test("of somebody who came back after being erased can be read", async () => {
    const { state, under, gateway } = world();
    await openPersonalKeys(under.records, master).destroy("ada");
    const later = gateway(() => Date.now() + 3_600_000);
    await write(later, "bob");
    state.away = true;
    await write(later, "ada", Date.now() + 3_600_000);
    state.away = false;
    await until(async () => (await spills()).length === 0, "the files are gone");
    await later.journal.close();
    expect(await sources(under, "ada")).toEqual(["203.0.113.7"]);
  });

  test("of a call that began before its person was erased leaves nothing, though it was spilled long after that", async () => {
    const { state, under, gateway } = world();
    const began = Date.now() - 1;
    const late = gateway(() => Date.now() + 3_600_000);
    await write(late, "bob");
    state.away = true;
    await openPersonalKeys(under.records, master).destroy("newcomer");
    await write(late, "newcomer", began);
    state.away = false;
    await until(async () => (await spills()).length === 0, "the files are gone");
    await late.journal.close();
    expect(await sources(under, "newcomer")).toEqual([undefined]);
  });

  test("brings its key back for nobody, also when its person is erased at the very moment", async () => {
    const { records } = memoryStore();
    const keys = openPersonalKeys(records, master);
    const { kid } = await keyOf(keys, "ada");
    const [row] = await records.list("audit-key", { limit: 1 });
    await records.delete("audit-key", kid);
    // The person's index, as the file has it.
    const asked: Parameters<Records["put"]>[] = [];
    const index = await indexOf("ada");
    const put: Records["put"] = async (...words) => {
      asked.push(words);
      // Between the look for an erasure and the key: it finds no key to destroy.
      if (words[0] === "audit-key") expect(await openPersonalKeys(records, master).destroy("ada")).toBe(0);
      return records.put(...words);
    };
    await restoreKey({ ...records, put }, ["audit-key", kid, row?.value, { ifVersion: 0, index }], Date.now());
    expect(asked).toHaveLength(1);
    expect(await records.get("audit-key", kid)).toBeUndefined();
  });
});

/** What a key's row is found by. */
async function indexOf(subject: string): Promise<Readonly<Record<string, string>>> {
  let index: Readonly<Record<string, string>> = {};
  const { records } = memoryStore();
  const put: Records["put"] = async (kind, id, value, options) => {
    index = options?.index ?? {};
    return records.put(kind, id, value, options);
  };
  await openPersonalKeys({ ...records, put }, master).of(subject, 0);
  return index;
}
