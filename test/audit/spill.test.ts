/** `audit.whenUnavailable: spill`: what is answered for is in the log, in order and once, whatever ends when. */
import { spawn } from "node:child_process";
import { readdirSync, renameSync } from "node:fs";
import { appendFile, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Evidence, knownSigners, openEvidence } from "../../src/audit/evidence.ts";
import { type AuditSettings, auditSettings } from "../../src/audit/settings.ts";
import { vouchersOf } from "../../src/audit/signing.ts";
import { verification } from "../../src/audit/verify.ts";
import { newId } from "../../src/core/ids.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records, Store } from "../../src/store/ports.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { openedRecords } from "./opened.ts";
import { callRecord, idsOf, until } from "./sink-log.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-spill-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A store that is away when told so, or after so many writes; and a gateway's log over it. */
function world(under: Store = memoryStore()) {
  const state = {
    away: false,
    fail: undefined as ((call: number) => "before" | "after" | undefined) | undefined,
    calls: 0,
  };
  const mayFail = async <T>(work: () => Promise<T>): Promise<T> => {
    const when = state.away ? "before" : state.fail?.(state.calls++);
    if (when === "before") throw new Error("the store is away");
    const done = await work();
    if (when === "after") throw new Error("nobody knows whether that was done");
    return done;
  };
  const { audit, records } = under;
  const failing = <K extends keyof Records>(name: K) =>
    ((...args: unknown[]) =>
      mayFail(() => (records[name] as (...all: unknown[]) => Promise<unknown>)(...args))) as Records[K];
  const store: Pick<Store, "audit" | "records"> = {
    audit: {
      read: audit.read,
      retire: audit.retire,
      heads: () => mayFail(() => audit.heads()),
      append: (rows, head) => mayFail(() => audit.append(rows, head)),
    },
    records: { ...records, get: failing("get"), find: failing("find"), put: failing("put") },
  };
  const gateway = (more: Partial<AuditSettings> = {}): Evidence =>
    openEvidence({
      store,
      settings: { ...auditSettings.parse({ whenUnavailable: "spill", spillMaxBytes: 1 << 20 }), ...more },
      encryption: undefined,
      folder,
      spillFolder: folder,
      replica: newId(),
      logger: silentLogger,
    });
  const texts = async () => (await audit.read({ limit: 1000 })).map(({ json }) => json);
  return { state, store, under, gateway, texts };
}

async function expectWhole(store: Pick<Store, "audit" | "records">): Promise<number> {
  const checked = verification(vouchersOf(await knownSigners(store.records)));
  const heads = (await store.audit.heads()).map(({ json }) => JSON.parse(json) as unknown);
  for (let after = 0; ; ) {
    const page = await store.audit.read({ limit: 1000, after });
    for (const { sequence, json } of page) checked.read(sequence, json);
    if (page.length === 0) break;
    after = page.at(-1)?.sequence ?? after;
  }
  const { problem, records } = checked.end(heads);
  expect(problem).toBeUndefined();
  return records;
}

const append = async ({ journal }: Evidence, count: number, subject = "u_1") => {
  const records = Array.from({ length: count }, () => {
    const record = callRecord();
    return { ...record, principal: record.principal && { ...record.principal, subject } };
  });
  for (const record of records) await journal.append(record);
  return records.map(({ id }) => id);
};
const spills = async () => (await readdir(folder)).filter((name) => name.startsWith("audit-spill-"));

test("calls go on while the store is away, and their records follow in their places when it is back", async () => {
  const { state, under, gateway, texts } = world();
  const one = gateway();
  const ids = await append(one, 3);
  state.away = true;
  ids.push(...(await append(one, 5)));
  expect(idsOf(await texts())).toHaveLength(3);
  const [file = ""] = await spills();
  expect((await stat(join(folder, file))).mode & 0o777).toBe(0o600);
  expect(() => one.journal.check()).not.toThrow();
  state.away = false;
  // By itself, without another call.
  await until(async () => (await spills()).length === 0, "the files are gone");
  ids.push(...(await append(one, 2)));
  await one.journal.close();
  expect(idsOf(await texts())).toEqual(ids);
  await expectWhole(under);
});

test("after a crash the next start writes what is in the files before anything else", async () => {
  const { state, under, gateway, texts } = world();
  const crashed = gateway();
  const ids = await append(crashed, 2);
  state.away = true;
  ids.push(...(await append(crashed, 4)));
  // Nothing of it runs any more but a timer that finds nothing to do.
  state.away = false;
  const next = gateway();
  ids.push(...(await append(next, 2)));
  await next.journal.close();
  expect(idsOf(await texts())).toEqual(ids);
  expect(await spills()).toEqual([]);
  await expectWhole(under);
  await crashed.journal.close();
});

test("a line that a crash has cut off is no record, those before it are", async () => {
  const { state, under, gateway, texts } = world();
  const crashed = gateway();
  const ids = await append(crashed, 1);
  state.away = true;
  ids.push(...(await append(crashed, 2)));
  await crashed.journal.close();
  const [file = ""] = await spills();
  await appendFile(join(folder, file), '{"rows":[{"id":"half');
  state.away = false;
  const next = gateway();
  ids.push(...(await append(next, 1)));
  await next.journal.close();
  expect(idsOf(await texts())).toEqual(ids);
  await expectWhole(under);
});

test("wherever the store fails, before or after it has done its work, and whoever goes on: nothing is lost, doubled or moved", async () => {
  for (const when of ["before", "after"] as const)
    for (let from = 3; from < 24; from += 2)
      for (const crash of [false, true]) {
        const { state, under, gateway, texts } = world();
        const one = gateway();
        const ids = await append(one, 2);
        state.calls = 0;
        state.fail = (call) => (call >= from % 7 && call < from ? when : undefined);
        for (let n = 0; n < 6; n++) ids.push(...(await append(one, 1)));
        if (!crash) state.fail = undefined;
        const next = crash ? gateway() : one;
        state.fail = undefined;
        await until(async () => (await spills()).length === 0, "the files are gone");
        ids.push(...(await append(next, 1)));
        await next.journal.close();
        if (crash) await one.journal.close();
        expect(idsOf(await texts()), `${when} ${from} ${crash}`).toEqual(ids);
        await expectWhole(under);
      }
});

test("a file that somebody was killed with before anything was in it is taken away, too", async () => {
  const { under, gateway, texts } = world();
  await writeFile(join(folder, `audit-spill-${newId()}-${newId()}.jsonl`), "");
  const one = gateway();
  await until(async () => (await spills()).length === 0, "the file is gone");
  const ids = await append(one, 1);
  await one.journal.close();
  expect(idsOf(await texts())).toEqual(ids);
  await expectWhole(under);
});

test("two processes that find the same files write each record once and in order", async () => {
  const { state, under, gateway, texts } = world();
  const crashed = gateway();
  const ids = await append(crashed, 1);
  state.away = true;
  for (let n = 0; n < 20; n++) ids.push(...(await append(crashed, 1)));
  state.away = false;
  const [a, b] = [gateway(), gateway()];
  await Promise.all([append(a, 3), append(b, 3), append(crashed, 3)]);
  for (const each of [a, b, crashed]) await each.journal.close();
  expect(idsOf(await texts()).slice(0, ids.length)).toEqual(ids);
  expect(new Set(await texts()).size).toBe((await texts()).length);
  await expectWhole(under);
});

test("a file that others take while it is written is written once, and gone under whatever name they gave it", async () => {
  const kept = memoryStore();
  const written: string[] = [];
  const append_ = kept.audit.append;
  const counting: typeof append_ = async (rows, head) => {
    written.push(...rows.map(({ json }) => json));
    await append_(rows, head);
  };
  const { state, under, gateway, texts } = world({ ...kept, audit: { ...kept.audit, append: counting } });
  const one = gateway();
  const ids = await append(one, 1);
  state.away = true;
  for (let n = 0; n < 3; n++) ids.push(...(await append(one, 1)));
  const others = { ready: true };
  state.fail = () => {
    for (const name of readdirSync(folder).filter((one) => others.ready && one.endsWith(".jsonl")))
      renameSync(join(folder, name), join(folder, `${name.slice(0, -"-.jsonl".length - 36)}-${newId()}.jsonl`));
    return undefined;
  };
  state.away = false;
  await until(async () => (await spills()).length === 0, "the files are gone");
  expect(new Set(written).size).toBe(written.length);
  others.ready = false;
  await one.journal.close();
  expect(idsOf(await texts())).toEqual(ids);
  await expectWhole(under);
});

test("somebody who was never seen before can be recorded while the store is away, and be read and erased later", async () => {
  const { state, under, gateway } = world();
  const one = gateway();
  await append(one, 1);
  state.away = true;
  await append(one, 2, "newcomer");
  state.away = false;
  await until(async () => (await spills()).length === 0, "the files are gone");
  const found = await openedRecords(under, { subject: "newcomer" });
  expect(found.map(({ source }) => source)).toEqual(["203.0.113.7", "203.0.113.7"]);
  expect(await one.keys.destroy("newcomer")).toBe(1);
  expect((await openedRecords(under, { subject: "newcomer" })).map(({ source }) => source)).toEqual([
    undefined,
    undefined,
  ]);
  await one.journal.close();
  await expectWhole(under);
});

test("beyond the bound calls are refused, and what was answered for is there", async () => {
  const { state, under, gateway, texts } = world();
  const one = gateway({ spillMaxBytes: 10_000 });
  const ids = await append(one, 1);
  state.away = true;
  let refused: unknown;
  for (let n = 0; n < 50 && refused === undefined; n++) {
    const record = callRecord();
    await one.journal.append(record).then(
      () => ids.push(record.id),
      (error: unknown) => {
        refused = error;
      },
    );
  }
  expect(refused).toMatchObject({ code: "audit_unavailable" });
  expect(() => one.journal.check()).toThrow();
  const sizes = await Promise.all((await spills()).map(async (name) => (await stat(join(folder, name))).size));
  expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(10_000);
  state.away = false;
  await one.journal.close().catch(() => {});
  const next = gateway();
  await append(next, 1);
  await next.journal.close();
  const written = idsOf(await texts());
  for (const id of ids) expect(written.filter((one) => one === id)).toHaveLength(1);
  await expectWhole(under);
});

test("without the setting nothing is permitted while the store is away", async () => {
  const { state, gateway } = world();
  const one = gateway({ whenUnavailable: "refuse" });
  await append(one, 1);
  state.away = true;
  await expect(append(one, 1)).rejects.toMatchObject({ code: "audit_unavailable" });
  expect(await spills()).toEqual([]);
  state.away = false;
  await one.journal.close();
});

test("killed again and again in the middle of it all, every answer has its record", { timeout: 120_000 }, async () => {
  const answered: string[] = [];
  for (let run = 0; run < 12; run++) {
    const child = spawn(process.execPath, [join(import.meta.dirname, "spill-child.ts"), folder], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (part: string) => {
      text += part;
    });
    const wanted = 20 + run * 37;
    const gone = new Promise((resolve) => child.once("close", resolve));
    await until(() => text.split("\n").length > wanted, `${wanted} were answered`);
    child.kill("SIGKILL");
    await gone;
    answered.push(...text.split("\n").filter((id) => id.length === 36));
  }
  const store = sqliteStore(join(folder, "log.db"));
  try {
    const last = openEvidence({
      store,
      settings: auditSettings.parse({ whenUnavailable: "spill" }),
      encryption: undefined,
      folder,
      spillFolder: folder,
      replica: newId(),
      logger: silentLogger,
    });
    await append(last, 1);
    await last.journal.close();
    const records = await expectWhole(store);
    expect(records).toBeGreaterThanOrEqual(answered.length);
    const written = new Set<string>();
    for (let after = 0; ; ) {
      const page = await store.audit.read({ limit: 1000, after });
      for (const { json } of page) written.add((JSON.parse(json) as { id: string }).id);
      if (page.length === 0) break;
      after = page.at(-1)?.sequence ?? after;
    }
    expect(answered.filter((id) => !written.has(id))).toEqual([]);
    expect(await spills()).toEqual([]);
  } finally {
    await store.close();
  }
});
