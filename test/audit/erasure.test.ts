/** Whoever is erased stays erased, whatever other processes still know, and is a new person to all of them afterwards. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Evidence, openEvidence } from "../../src/audit/evidence.ts";
import { KEYS_DESTROYED, openPersonalKeys, restoreKey } from "../../src/audit/personal.ts";
import { auditSettings } from "../../src/audit/settings.ts";
import { newId } from "../../src/core/ids.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records, Store } from "../../src/store/ports.ts";
import { watchChanges } from "../../src/store/watch.ts";
import { everyStore } from "../store/backends.ts";
import { openedRecords } from "./opened.ts";
import { callRecord, until } from "./sink-log.ts";

const master = async () => Buffer.alloc(32, 3);

describe.each(everyStore)("in $name", ({ openTwo }) => {
  test("a key that is destroyed at one process is used by no other a second later, and what it encrypts then can be read", async () => {
    await using stores = await openTwo();
    const [one, two] = stores.map(({ records }) => openPersonalKeys(records, master));
    const changes = await watchChanges(stores[1].records);
    try {
      changes.on(KEYS_DESTROYED, () => two?.forget());
      const before = await two?.of("ada");
      const sealed = before?.seal("her address", "r1") ?? "";
      expect(await two?.open(before?.kid ?? "", sealed, "r1")).toBe("her address");
      expect(await one?.destroy("ada")).toBe(1);
      await until(async () => (await two?.of("ada"))?.kid !== before?.kid, "another key", 10);
      const after = await two?.of("ada");
      expect(await two?.open(before?.kid ?? "", sealed, "r1")).toBeUndefined();
      expect(await one?.open(after?.kid ?? "", after?.seal("new words", "r2") ?? "", "r2")).toBe("new words");
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
    return [keys, await keys.of("ada")] as const;
  })();
  const slow = slowly(records);
  const two = openPersonalKeys(slow.records, master);
  const coming = Promise.resolve(two.of("ada"));
  await slow.found;
  await one.destroy("ada");
  two.forget();
  const meanwhile = await two.of("ada");
  slow.goOn();
  expect((await coming).kid).not.toBe(kid);
  expect(meanwhile.kid).not.toBe(kid);
  expect((await two.of("ada")).kid).toBe(meanwhile.kid);
});

test("an erasure that failed half-way is told to all when it is repeated, though nothing is left to destroy", async () => {
  const { records } = memoryStore();
  let fail = true;
  const put: Records["put"] = async (kind, ...rest) => {
    if (kind === "changes" && fail) throw new Error("the store went away");
    return records.put(kind, ...rest);
  };
  const keys = openPersonalKeys({ ...records, put }, master);
  await keys.of("ada");
  await expect(keys.destroy("ada")).rejects.toThrow("went away");
  fail = false;
  expect(await keys.destroy("ada")).toBe(0);
  expect(await records.get("changes", KEYS_DESTROYED)).toBeDefined();
});

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
  const write = ({ journal }: Evidence, subject: string) => {
    const record = callRecord();
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
    await write(later, "ada");
    state.away = false;
    await until(async () => (await spills()).length === 0, "the files are gone");
    await later.journal.close();
    expect(await sources(under, "ada")).toEqual(["203.0.113.7"]);
  });

  test("brings its key back for nobody, also when its person is erased at the very moment", async () => {
    const { records } = memoryStore();
    const keys = openPersonalKeys(records, master);
    const { kid } = await keys.of("ada");
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
  await openPersonalKeys({ ...records, put }, master).of(subject);
  return index;
}
