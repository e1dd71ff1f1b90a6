/** Legal holds in great numbers, and those that are placed while retention is at work. */
import { describe, expect, test } from "vitest";
import { openChain } from "../../src/audit/chain.ts";
import { type Hold, storedHolds } from "../../src/audit/holds.ts";
import { openJournal } from "../../src/audit/journal.ts";
import { type RetentionParts, retire } from "../../src/audit/retention.ts";
import { vouchersOf } from "../../src/audit/signing.ts";
import { verification } from "../../src/audit/verify.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { AuditLog, Store } from "../../src/store/ports.ts";
import { everyStore } from "../store/backends.ts";
import { heldBefore } from "./paper-log.ts";
import { callRecord, SIGNER, sinkLog } from "./sink-log.ts";

const hold = (id: string, subject: string): Hold => ({ id, reason: "case", subject, placedBy: "sam", placedAt: 0 });
const AFTER_ALL = Date.parse("2030-01-01");

function openLog(store: Store, commit: "durable" | "async" = "durable") {
  return openJournal({
    log: store.audit,
    chain: openChain({ signer: async () => SIGNER, log: store.audit, replica: "one" }),
    settings: { commit, maxPending: 10_000 },
    logger: silentLogger,
  });
}
const parts = (store: Store, journal: RetentionParts["journal"], log: Partial<AuditLog> = {}): RetentionParts => ({
  log: { ...store.audit, ...log },
  records: store.records,
  journal,
  signer: async () => SIGNER,
  replica: "one",
  clock: Date.now,
});
async function textsOf({ audit }: Store): Promise<{ readonly sequence: number; readonly json: string }[]> {
  const texts = [];
  for (let after = 0; ; ) {
    const page = await audit.read({ limit: 1000, after });
    texts.push(...page);
    if (page.length < 1000) return texts;
    after = page.at(-1)?.sequence ?? after;
  }
}
async function expectWhole(store: Store): Promise<void> {
  const checked = verification(vouchersOf([SIGNER.publicKey]));
  for (const { sequence, json } of await textsOf(store)) checked.read(sequence, json);
  const heads = (await store.audit.heads()).map(({ json }) => JSON.parse(json) as unknown);
  expect(checked.end(heads).problem).toBeUndefined();
}
const of = (subject: string, id: string) => {
  const record = callRecord();
  return { ...record, id, principal: record.principal && { ...record.principal, subject } };
};
const idsIn = (texts: readonly { readonly json: string }[], pattern: RegExp) =>
  texts.flatMap(({ json }) => pattern.exec(json)?.[0] ?? []);

describe.each(everyStore)("in $name", ({ open, name }) => {
  test("of more than a thousand holds each one counts", { timeout: 60_000 }, async () => {
    await using store = await open();
    // The last by name, behind all that one page has.
    const many = name === "memory" || name === "sqlite" ? 2100 : 1010;
    for (let n = 0; n < many; n += 50)
      await Promise.all(
        Array.from({ length: Math.min(50, many - n) }, (_, at) =>
          heldBefore(store.records, hold(`case-${n + at}`, "nobody")),
        ),
      );
    await heldBefore(store.records, hold("case-last", "ada"));
    expect(await storedHolds(store.records)).toHaveLength(many + 1);
    const journal = openLog(store);
    for (const user of ["ada", "bob"]) await journal.append(of(user, `call-of-${user}`));
    expect(await retire(AFTER_ALL, parts(store, journal))).toMatchObject({ held: 1 });
    const texts = await textsOf(store);
    expect(idsIn(texts, /"id":"call-of-\w+"/)).toEqual(['"id":"call-of-ada"']);
    await journal.close();
    await expectWhole(store);
  });
});

test("a hold that is placed while records go keeps those of its records that are still there, and the log verifies", async () => {
  const store = memoryStore();
  const journal = openLog(store);
  const wanted = Array.from({ length: 3000 }, (_, n) => of(n % 3 === 0 ? "ada" : "bob", `call-${n}`));
  await Promise.all(wanted.map((record) => journal.append(record)));
  let pages = 0;
  const retirement = await retire(
    AFTER_ALL,
    parts(store, journal, {
      async retire(retired) {
        await store.audit.retire(retired);
        if (++pages === 1) await heldBefore(store.records, hold("case-7", "ada"));
      },
    }),
  );
  const texts = await textsOf(store);
  const first = Number(
    /"id":"call-(\d+)"/.exec(texts.find(({ json }) => json.includes('"id":"call-'))?.json ?? "")?.[1],
  );
  expect(first).toBeGreaterThan(900);
  expect(first).toBeLessThan(1003);
  const kept = wanted.slice(first).filter((record) => record.principal?.subject === "ada");
  expect(idsIn(texts, /"id":"call-\d+"/)).toEqual(kept.map(({ id }) => `"id":"${id}"`));
  expect(retirement.held).toBe(kept.length);
  expect(retirement.stubs).toBeGreaterThan(kept.length);
  await expectWhole(store);
  await journal.close();
  await expectWhole(store);
});

test("a hold that is placed between the look at the log and the first removal keeps everything of its own", async () => {
  const store = memoryStore();
  const journal = openLog(store);
  for (const user of ["ada", "bob", "ada"]) await journal.append(of(user, `call-of-${user}-${Math.random()}`));
  let placed = false;
  const append: RetentionParts["journal"]["append"] = async (...all) => {
    await journal.append(...all);
    if (!placed) await heldBefore(store.records, hold("case-7", "ada"));
    placed = true;
  };
  expect(await retire(AFTER_ALL, parts(store, { append }))).toMatchObject({ held: 2 });
  expect(idsIn(await textsOf(store), /"id":"call-of-\w+/)).toEqual(['"id":"call-of-ada', '"id":"call-of-ada']);
  await journal.close();
  await expectWhole(store);
});

test("who always places another hold keeps what is left for another day, and the log verifies", async () => {
  const store = memoryStore();
  const journal = openLog(store);
  for (let n = 0; n < 5; n++) await journal.append(of("ada", `call-${n}`));
  let placed = 0;
  const append: RetentionParts["journal"]["append"] = async (...all) => {
    await journal.append(...all);
    await heldBefore(store.records, hold(`case-${++placed}`, "nobody"));
  };
  expect(await retire(AFTER_ALL, parts(store, { append }))).toMatchObject({ removed: 0, held: 0 });
  await journal.close();
  await expectWhole(store);
});

test("with async commits, too, nothing goes before the record of it is on disk", async () => {
  const log = sinkLog();
  await log.write(5);
  const { store } = log;
  const gate = Promise.withResolvers<void>();
  const writing = Promise.withResolvers<void>();
  const order: string[] = [];
  const journal = openJournal({
    log: {
      async append(rows, head) {
        writing.resolve();
        await gate.promise;
        await store.audit.append(rows, head);
        order.push("written");
      },
    },
    chain: openChain({ signer: async () => SIGNER, log: store.audit, replica: "two" }),
    settings: { commit: "async", maxPending: 10_000 },
    logger: silentLogger,
  });
  const removing = retire(
    AFTER_ALL,
    parts(store, journal, {
      async retire(retired) {
        order.push("removed");
        await store.audit.retire(retired);
      },
    }),
  );
  await writing.promise;
  expect(order).toEqual([]);
  gate.resolve();
  await removing;
  expect(order.slice(0, 2)).toEqual(["written", "removed"]);
  await journal.close();
});
