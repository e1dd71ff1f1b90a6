import { describe, expect, test } from "vitest";
import { openChain } from "../../src/audit/chain.ts";
import { exported, verifyExport } from "../../src/audit/export.ts";
import { placeHold, storedHolds } from "../../src/audit/holds.ts";
import { openJournal } from "../../src/audit/journal.ts";
import { linkOf, stubOf } from "../../src/audit/link.ts";
import { leafHash } from "../../src/audit/merkle.ts";
import { retire } from "../../src/audit/retention.ts";
import { signerOfSeed, vouchersOf } from "../../src/audit/signing.ts";
import { verification } from "../../src/audit/verify.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { Store } from "../../src/store/ports.ts";
import { everyStore } from "../store/backends.ts";
import { lifted, placed } from "./paper-log.ts";

const SIGNER = signerOfSeed(Buffer.alloc(32, 7));
const VOUCHERS = vouchersOf([SIGNER.publicKey]);
const DAY = 86_400_000;

/** A process of a gateway that writes a record a day for each of three users. */
function process(store: Store, replica: string) {
  const journal = openJournal({
    log: store.audit,
    chain: openChain({ signer: async () => SIGNER, log: store.audit, checkpointRecords: 5, replica, clock: () => 1 }),
    settings: { commit: "durable", maxPending: 1000 },
    logger: silentLogger,
  });
  const day = async (n: number) => {
    for (const user of ["ada", "bob", "eve"])
      await journal.append({
        id: `${replica}-${n}-${user}`,
        kind: "call",
        at: n * DAY,
        durationMs: 1,
        outcome: "permitted",
        principal: { subject: user, client: "c", actors: [], groups: [], scopes: [], tokenId: "t" },
        replica,
      });
  };
  return { journal, day, replica };
}

const textsOf = async (store: Store) => {
  const found = [];
  for (let page = await store.audit.read({ limit: 1000 }); page.length > 0; ) {
    found.push(...page);
    page = await store.audit.read({ limit: 1000, after: page.at(-1)?.sequence ?? 0 });
  }
  return found;
};
async function verdict(store: Store) {
  const checked = verification(VOUCHERS);
  for (const { sequence, json } of await textsOf(store)) checked.read(sequence, json);
  return checked.end((await store.audit.heads()).map(({ json }) => JSON.parse(json) as unknown));
}
const retired = (store: Store, writer: ReturnType<typeof process>, days: number) =>
  retire(days * DAY, {
    log: store.audit,
    records: store.records,
    journal: writer.journal,
    signer: async () => SIGNER,
    replica: writer.replica,
    clock: () => 1000 * DAY,
  });
const stubbed = (json: string) => stubOf(leafHash(json), linkOf(json) ?? { id: "", n: 0, prev: "" });
const hold = (id: string, subject: string) => ({ id, reason: "case 7", subject, placedBy: "sam", placedAt: 0 });

describe.each(everyStore)("in $name", ({ open }) => {
  test("records that are old go, the rest verifies, and goes on to verify as more come and go", async () => {
    await using store = await open();
    const [one, two] = [process(store, "one"), process(store, "two")];
    for (let n = 0; n < 6; n++) for (const each of [one, two]) await each.day(n);
    await one.journal.close();
    expect(await retired(store, two, 3)).toMatchObject({ stubs: 0, held: 0 });
    const left = (await textsOf(store)).map(({ json }) => json).join("\n");
    expect(left).not.toMatch(/"id":"(one|two)-[012]-/);
    expect(left).toContain('"id":"two-3-ada"');
    expect((await verdict(store)).problem).toBeUndefined();
    expect((await verdict(store)).retired).toBeGreaterThan(15);
    for (let n = 6; n < 9; n++) await two.day(n);
    await retired(store, two, 8);
    // Of the process that has ended nothing is left, and nobody misses it.
    expect((await textsOf(store)).map(({ json }) => json).join("\n")).not.toContain('"id":"one-');
    expect((await verdict(store)).problem).toBeUndefined();
    await two.journal.close();
    const later = process(store, "three");
    await later.day(9);
    await later.journal.close();
    expect((await verdict(store)).problem).toBeUndefined();
  });

  test("what somebody put on hold stays, others around it leave a hash, and the log verifies; lifted, it goes", async () => {
    await using store = await open();
    const one = process(store, "one");
    for (let n = 0; n < 6; n++) await one.day(n);
    const held = await placed(store, one, hold("case-7", "bob"));
    await expect(placeHold(store.records, hold("case-7", "eve"), SIGNER)).rejects.toThrow(/already/);
    expect(await retired(store, one, 4)).toMatchObject({ held: 4 });
    const left = (await textsOf(store)).map(({ json }) => json).join("\n");
    for (let n = 0; n < 4; n++) expect(left).toContain(`"id":"one-${n}-bob"`);
    expect(left).not.toMatch(/"id":"one-[0123]-(ada|eve)"/);
    expect((await verdict(store)).problem).toBeUndefined();
    // A hash in the place of one on hold is what retention would have left, and has not.
    const texts = await textsOf(store);
    const heads = (await store.audit.heads()).map(({ json }) => JSON.parse(json) as unknown);
    for (const { sequence: held } of texts.filter(({ json }) => /"id":"one-[0123]-bob"/.test(json))) {
      const checked = verification(VOUCHERS);
      for (const { sequence, json } of texts) checked.read(sequence, sequence === held ? stubbed(json) : json);
      expect(checked.end(heads).problem).toMatchObject({ kind: "removed", at: held });
    }
    expect(await retired(store, one, 4)).toMatchObject({ removed: 0, held: 4 });
    expect((await storedHolds(store.records)).map(({ hold: { id } }) => id)).toEqual(["case-7"]);
    await lifted(store, one, held);
    expect((await retired(store, one, 4)).removed).toBeGreaterThan(0);
    expect((await textsOf(store)).map(({ json }) => json).join("\n")).not.toMatch(/"id":"one-[0123]-/);
    expect((await verdict(store)).problem).toBeUndefined();
    await one.journal.close();
  });

  test("what went without retention is missed all the same", async () => {
    await using store = await open();
    const one = process(store, "one");
    for (let n = 0; n < 6; n++) await one.day(n);
    await retired(store, one, 2);
    await one.journal.close();
    const texts = await textsOf(store);
    const heads = (await store.audit.heads()).map(({ json }) => JSON.parse(json) as unknown);
    for (const { sequence: gone } of texts) {
      const checked = verification(VOUCHERS);
      for (const { sequence, json } of texts) if (sequence !== gone) checked.read(sequence, json);
      expect(checked.end(heads).problem, `without ${gone}`).toBeDefined();
    }
    // A hash in its place is what anybody can write.
    const [, second] = texts;
    const checked = verification(VOUCHERS);
    for (const { sequence, json } of texts) {
      checked.read(sequence, sequence === second?.sequence ? stubbed(json) : json);
    }
    expect(checked.end(heads).problem).toMatchObject({ kind: "removed", at: second?.sequence });
  });
});

describe("an export", () => {
  const memory = everyStore.find(({ name }) => name === "sqlite") ?? everyStore[0];
  async function lines(store: Store, range: Parameters<typeof exported>[2] = { after: 0 }): Promise<string[]> {
    const all: string[] = [];
    for await (const line of exported(store.audit, SIGNER, range, 5)) all.push(line);
    return all;
  }
  async function* pieces(text: string, size = 97): AsyncGenerator<Buffer> {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
  }
  const check = async (text: readonly string[]) => (await verifyExport(pieces(text.join("")), VOUCHERS)).problem;
  const filled = async (open: (typeof everyStore)[number]["open"]) => {
    const store = await open();
    const both = [process(store, "one"), process(store, "two")];
    for (let n = 0; n < 4; n++) for (const each of both) await each.day(n);
    return { store, both };
  };

  test("verifies with the public key alone, whole or in part, also while the log is written", async () => {
    if (memory === undefined) throw new Error("no store");
    const { store, both } = await filled(memory.open);
    expect(await check(await lines(store))).toBeUndefined();
    expect(await check(await lines(store, { after: 5, through: 12 }))).toBeUndefined();
    expect(await check(await lines(store, { after: 9 }))).toBeUndefined();
    const slow = exported(store.audit, SIGNER, { after: 0 }, 5);
    const some = [(await slow.next()).value as string];
    for (const each of both) await each.day(9);
    for await (const line of slow) some.push(line);
    expect(await check(some)).toBeUndefined();
    await store.close();
  });

  test("in which any line was changed, removed, doubled or swapped is found out, and so is one that was cut or made by a stranger", async () => {
    if (memory === undefined) throw new Error("no store");
    const { store } = await filled(memory.open);
    for (const range of [{ after: 0 }, { after: 4, through: 15 }]) {
      const good = await lines(store, range);
      for (const [at, line] of good.slice(0, -1).entries()) {
        const broken = [
          good.with(at, line.replace(/"at":"./, '"at":"9')),
          good.toSpliced(at, 1),
          good.toSpliced(at, 0, line),
          ...(at === 0 ? [] : [good.with(at, good[at - 1] ?? "").with(at - 1, line)]),
        ];
        for (const [which, text] of broken.entries()) expect(await check(text), `${which} at ${at}`).toBeDefined();
      }
      await expect(check(good.slice(0, -1))).rejects.toThrow(/last line/);
      await expect(check([...good, good[0] ?? ""])).rejects.toThrow(/after its last line/);
      const stranger: string[] = [];
      const other = signerOfSeed(Buffer.alloc(32, 9));
      for await (const line of exported(store.audit, other, range, 5, [SIGNER.publicKey])) stranger.push(line);
      expect(await check(stranger)).toMatchObject({ kind: "unsigned" });
    }
    await store.close();
  });
});
