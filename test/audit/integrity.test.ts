/** Who can write the database and has not the signing key: whatever they do to the log is found, and retention does not help them. */
import { describe, expect, test } from "vitest";
import { removeHold } from "../../src/audit/holds.ts";
import { leaving } from "../../src/audit/leaving.ts";
import { linkOf, stubOf } from "../../src/audit/link.ts";
import { leafHash } from "../../src/audit/merkle.ts";
import { logRecord, type StoredRecord } from "../../src/audit/record.ts";
import { vouchersOf } from "../../src/audit/signing.ts";
import { verifyLog } from "../../src/audit/standing.ts";
import {
  chainOf,
  copied,
  DAY,
  heldBefore,
  hold,
  type Paper,
  paper,
  problemOf,
  rowOf,
  SIGNER,
  STRANGER,
  taken,
  VOUCHERS,
  verdictOf,
  type Writer,
  writer,
} from "./paper-log.ts";

const digestOf = (json: string) => leafHash(json);
const stubbed = (json: string) => stubOf(digestOf(json), linkOf(json) ?? { id: "", n: 0, prev: "" });

/** What bob did in six days is on hold, so that of ada and eve hashes are left between. */
async function withHold(): Promise<{ readonly one: Paper; readonly by: Writer }> {
  const one = paper();
  const by = writer(one, "one");
  await heldBefore(one.records, hold("case-7", "bob"));
  await by.day(0, 1, 2, 3, 4, 5);
  await taken(one, by, 4);
  await by.close();
  return { one, by: writer(one, "two") };
}

describe("a long log in a store that reads at once", () => {
  /** How often others had their turn meanwhile. */
  async function turnsOf(work: () => Promise<unknown>): Promise<number> {
    let turns = 0;
    let next = setImmediate(function count() {
      turns++;
      next = setImmediate(count);
    });
    await work();
    clearImmediate(next);
    return turns;
  }

  test("is verified, and what is old is taken out of it, with turns for others in between", async () => {
    const one = paper();
    const by = writer(one, "one");
    await Promise.all(Array.from({ length: 800 }, (_, day) => by.day(day)));
    expect(one.rows.length).toBeGreaterThan(2400);
    expect(await turnsOf(() => verifyLog(one.log, VOUCHERS))).toBeGreaterThanOrEqual(4);
    expect(await turnsOf(() => taken(one, by, 1))).toBeGreaterThanOrEqual(4);
    await by.close();
  });
});

describe("what is left of a record", () => {
  test("is its place and its hash to the letter; with anything more it is found out, wherever it stands", async () => {
    const { one } = await withHold();
    const stubs = one.rows.filter(({ json }) => json.startsWith('{"retired"'));
    expect(stubs.length).toBeGreaterThan(4);
    expect(await problemOf(one)).toBeUndefined();
    const edits = [
      (json: string) => json.replace('},"chain"', '},"id":"forged","kind":"call","outcome":"permitted","chain"'),
      (json: string) => json.replace('"}', '","by":"ada"}'),
      (json: string) => `${json} `,
      (json: string) => json.replace(/"hash":"./, '"hash":"*'),
      (json: string) => json.replace(/"hash":"[\w-]{43}"/, `"hash":"${"A".repeat(43)}"`),
      (json: string) => json.replace(/"n":(\d+)/, (_, n: string) => `"n":${Number(n) + 1}`),
      (json: string) => json.replace(/"prev":"[\w-]*"/, `"prev":"${"A".repeat(43)}"`),
    ];
    for (const { sequence } of stubs)
      for (const [which, edit] of edits.entries()) {
        const copy = copied(one);
        const row = copy.rows.find((each) => each.sequence === sequence);
        if (row !== undefined) row.json = edit(row.json);
        expect(await problemOf(copy), `edit ${which} of ${sequence}`).toMatchObject({ at: expect.any(Number) });
      }
  });

  test("cannot take the place of a record on hold, of any: verify names it, and retention stops", async () => {
    const { one, by } = await withHold();
    const held = one.rows.filter(({ json }) => json.includes('-bob"'));
    expect(held).toHaveLength(6);
    for (const { sequence, json } of held) {
      const copy = copied(one);
      const row = copy.rows.find((each) => each.sequence === sequence);
      if (row !== undefined) row.json = stubbed(json);
      expect(await problemOf(copy)).toMatchObject({ kind: "removed", at: sequence });
      await expect(taken(copy, by, 6)).rejects.toThrow(/not whole.*audit verify/);
    }
  });

  test("cannot take the place of any record that is not old", async () => {
    const { one, by } = await withHold();
    await by.day(6);
    for (const { sequence, json } of one.rows.filter((row) => row.json.startsWith('{"v":2'))) {
      const copy = copied(one);
      const row = copy.rows.find((each) => each.sequence === sequence);
      if (row !== undefined) row.json = stubbed(json);
      expect((await problemOf(copy))?.at, `${json}`).toBeGreaterThan(0);
    }
    await by.close();
  });
});

describe("a record on hold", () => {
  test("that is the first of its chain cannot go with what follows it", async () => {
    const { one } = await withHold();
    const first = one.rows.findIndex(({ json }) => json.includes('"id":"one-0-bob"'));
    for (const more of [1, 2, 3]) {
      const copy = copied(one);
      copy.rows = copy.rows.toSpliced(first, more);
      expect(await problemOf(copy), `${more} removed`).toMatchObject({ kind: "removed" });
    }
  });

  test("may go when the hold is lifted, and the log verifies after each step", async () => {
    const { one, by } = await withHold();
    await heldBefore(one.records, hold("case-8", "eve"));
    await taken(one, by, 6);
    expect(await problemOf(one)).toBeUndefined();
    await removeHold(one.records, "case-7");
    await taken(one, by, 6);
    expect(await problemOf(one)).toBeUndefined();
    expect(one.rows.filter(({ json }) => /"id":"one-[45]-eve"/.test(json))).toHaveLength(2);
    await removeHold(one.records, "case-8");
    await taken(one, by, 6);
    expect(one.rows.filter(({ json }) => json.includes('"id":"one-') || json.startsWith('{"retired"'))).toEqual([]);
    expect(await problemOf(one)).toBeUndefined();
    await by.close();
    expect(await problemOf(one)).toBeUndefined();
  });
});

describe("retention takes nothing out of a log", () => {
  const changes: Readonly<Record<string, (copy: Paper) => void>> = {
    "whose first records are missing": (copy) => void copy.rows.splice(0, 3),
    "of which a record is missing": (copy) => void copy.rows.splice(4, 1),
    "in which a record was changed": (copy) => {
      rowOf(copy, "one-1-ada").json = rowOf(copy, "one-1-ada").json.replace("permitted", "refused");
    },
    "in which two records changed places": (copy) => {
      const [a, b] = [rowOf(copy, "one-1-ada"), rowOf(copy, "one-1-eve")];
      [a.json, b.json] = [b.json, a.json];
    },
    "in which somebody has put a hash in the place of a record": (copy) => {
      rowOf(copy, "one-1-ada").json = stubbed(rowOf(copy, "one-1-ada").json);
    },
    "to which a record without a chain was added": (copy) =>
      copy.rows.splice(5, 0, { sequence: 5.5, json: '{"v":1,"id":"x","at":"1970-01-01T00:00:00.000Z"}' }),
  };
  test.each(Object.entries(changes))("%s, which still shows afterwards", async (_, change) => {
    const one = paper();
    const by = writer(one, "one");
    await by.day(0, 1, 2, 3, 4, 5);
    change(one);
    const before = one.rows.length;
    await expect(taken(one, by, 4)).rejects.toThrow(/not whole/);
    expect(one.rows).toHaveLength(before);
    await by.close();
    expect(await problemOf(one)).toBeDefined();
  });

  test("that another chain has seen longer", async () => {
    const one = paper();
    const old = writer(one, "one");
    await old.day(0);
    const [headThen] = one.heads;
    await old.day(1);
    await old.close();
    const by = writer(one, "two");
    await by.day(2, 9);
    // The end of the first chain is cut off, and its head is the true one of then.
    one.rows = one.rows.filter(({ json }) => chainOf(json) !== headThen?.chain || (linkOf(json)?.n ?? 0) < 4);
    one.heads = one.heads.map((head) => (head.chain === headThen?.chain ? headThen : head));
    expect(await problemOf(one)).toMatchObject({ kind: "removed" });
    await expect(taken(one, by, 4)).rejects.toThrow(/not whole/);
    await by.close();
  });

  test("by a row beside it that the signer has not signed", async () => {
    const one = paper();
    const by = writer(one, "one");
    await by.day(0, 1, 2, 3);
    const [{ json = "" } = {}] = one.rows.slice(5, 6);
    const link = linkOf(json) ?? { id: "", n: 0, prev: "" };
    const forged = { chain: link.id, n: link.n, prev: link.prev, through: link.n, kept: [] };
    one.rows = one.rows.slice(5);
    const text = JSON.stringify({ chains: [forged], unchained: { taken: 0 } });
    const rows = [
      [forged],
      { text },
      { text, kid: SIGNER.kid, signature: "AAAA" },
      { text, kid: STRANGER.kid, signature: await STRANGER.sign(text) },
    ];
    for (const row of rows) {
      await one.records.put("audit-retired", "chains", row);
      await expect(taken(one, by, 3)).rejects.toThrow(/not whole/);
    }
    await by.close();
    expect(await problemOf(one)).toMatchObject({ kind: "removed" });
  });

  test("by a row of an earlier time, put back", async () => {
    const one = paper();
    const by = writer(one, "one");
    await by.day(0, 1, 2, 3, 4, 5);
    await taken(one, by, 2);
    const earlier = await one.records.get("audit-retired", "chains");
    await taken(one, by, 4);
    const copy = copied(one);
    copy.rows.splice(0, 2);
    for (const row of [earlier?.value, {}]) {
      await one.records.put("audit-retired", "chains", row);
      await expect(taken(copy, by, 5)).rejects.toThrow(/not whole/);
    }
    // While nothing is missing the log itself says what the row should.
    expect((await taken(one, by, 5)).removed).toBe(3);
    await by.close();
    expect(await problemOf(one)).toBeUndefined();
  });

  test("while another process takes some", async () => {
    const one = paper();
    const by = writer(one, "one");
    await by.day(0, 1, 2, 3);
    const clock = Date.now;
    const together = await Promise.allSettled([taken(one, by, 2, { clock }), taken(one, by, 3, { clock })]);
    expect(together.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(together.find(({ status }) => status === "rejected")).toMatchObject({
      reason: { message: expect.stringMatching(/Another process/) },
    });
    await taken(one, by, 3, { clock });
    await by.close();
    expect(await problemOf(one)).toBeUndefined();
  });
});

test("a record that is missing from what retention has left is named, not all that retention took", async () => {
  const one = paper();
  const by = writer(one, "one");
  await heldBefore(one.records, hold("case-7", "bob"));
  await by.day(0, 1, 2, 3, 4, 5);
  await taken(one, by, 3);
  await by.day(6);
  await by.close();
  expect(await problemOf(one)).toBeUndefined();
  for (const [at, { json }] of one.rows.entries()) {
    const next = one.rows[at + 1]?.sequence;
    const removed = copied(one);
    removed.rows.splice(at, 1);
    if (at > 0 && next !== undefined && !json.includes("audit.retired"))
      expect(await problemOf(removed), json).toMatchObject({ kind: "removed", at: next });
    else expect(await problemOf(removed), json).toMatchObject({ kind: "removed" });
    const changed = copied(one);
    for (const row of changed.rows.slice(at, at + 1)) row.json = json.replace(/"(id|hash)":"./, '"$1":"z');
    const found = await problemOf(changed);
    if (at > 0 && json.startsWith('{"v"'))
      expect(found, json).toMatchObject({ kind: "changed", at: one.rows[at]?.sequence });
    else expect(found, json).toBeDefined();
  }
});

test("every edit, deletion, insertion and swap is found in what retention has left, of two processes", async () => {
  const one = paper();
  const [old, by] = [writer(one, "one", { checkpointRecords: 6 }), writer(one, "two", { checkpointRecords: 6 })];
  await old.day(0, 1);
  await heldBefore(one.records, hold("case-7", "bob"));
  await by.day(2, 3);
  await old.day(4);
  await old.close();
  await taken(one, by, 4);
  await by.day(5);
  await by.close();
  expect(await problemOf(one)).toBeUndefined();
  const { rows } = one;
  const finds = async (what: string, change: (copy: Paper) => void) => {
    const copy = copied(one);
    change(copy);
    expect(await problemOf(copy), what).toBeDefined();
  };
  for (const [at, { json, sequence }] of rows.entries()) {
    for (let to = at + 1; to <= rows.length; to++)
      await finds(`${at} to ${to} removed`, (copy) => copy.rows.splice(at, to - at));
    if (json.startsWith('{"v"'))
      await finds(`${at} replaced by its hash`, (copy) => copy.rows.splice(at, 1, { sequence, json: stubbed(json) }));
    for (const [other, row] of rows.entries()) {
      await finds(`${other} again at ${at}`, (copy) =>
        copy.rows.splice(at, 0, { sequence: sequence - 0.5, json: row.json }),
      );
      if (other <= at) continue;
      await finds(`${other} for ${at}`, (copy) => copy.rows.splice(at, 1, { sequence, json: row.json }));
      await finds(`${other} and ${at} swapped`, (copy) => {
        copy.rows.splice(at, 1, { sequence, json: row.json });
        copy.rows.splice(other, 1, { sequence: row.sequence, json });
      });
    }
  }
  for (const at of one.heads.keys()) {
    await finds(`head ${at} removed`, (copy) => copy.heads.splice(at, 1));
    for (const [name, value] of Object.entries({
      size: 1,
      hash: "A".repeat(43),
      at: "x",
      kid: "k",
      signature: "s",
      chain: "c",
    }))
      await finds(`${name} of head ${at}`, (copy) => {
        const head = JSON.parse(copy.heads[at]?.json ?? "{}") as object;
        copy.heads.splice(at, 1, {
          chain: copy.heads[at]?.chain ?? "",
          json: JSON.stringify({ ...head, [name]: value }),
        });
      });
  }
}, 60_000);

describe("retention", () => {
  test("goes on under another key when the one before is named, and then without", async () => {
    const one = paper();
    const by = writer(one, "one");
    await by.day(0, 1, 2, 3, 4, 5);
    await taken(one, by, 2);
    await by.close();
    const later = writer(one, "two", { signer: STRANGER });
    await later.day(6);
    const signer = async () => STRANGER;
    await expect(taken(one, later, 3, { signer })).rejects.toThrow(/not whole/);
    const said = await one.records.get("audit-retired", "chains");
    expect((await taken(one, later, 3, { signer, earlierKeys: [SIGNER.publicKey] })).removed).toBe(3);
    expect((await one.records.get("audit-retired", "chains"))?.version).toBe((said?.version ?? 0) + 1);
    expect((await taken(one, later, 4, { signer })).removed).toBe(3);
    await later.close();
    const both = vouchersOf([SIGNER.publicKey, STRANGER.publicKey]);
    expect((await verifyLog(one.log, both)).verdict.problem).toBeUndefined();
  });

  test("gets past what is on hold, however much, in one run of many steps", async () => {
    const one = paper();
    const by = writer(one, "one");
    await heldBefore(one.records, hold("case-7", "bob"));
    await by.day(...Array.from({ length: 40 }, (_, n) => n));
    expect(await taken(one, by, 30, { atOnce: 7 })).toMatchObject({ removed: 61, stubs: 59, held: 30 });
    expect(one.rows.filter(({ json }) => json.includes('"action":"audit.retired"'))).toHaveLength(9);
    expect(await problemOf(one)).toBeUndefined();
    expect(await taken(one, by, 35, { atOnce: 7 })).toMatchObject({ removed: 10, stubs: 10, held: 35 });
    expect(one.rows.filter(({ json }) => /"id":"one-\d+-bob"/.test(json))).toHaveLength(40);
    await by.close();
    expect(await problemOf(one)).toBeUndefined();
  });

  test("keeps records whole rather than remember ever more of those on hold among them", () => {
    const id = "01a1feff-b2f4-7001-b36a-225051020270";
    const decided = leaving({ turn: 0, chains: [], unchained: { taken: 0 } }, new Map([[id, { size: 50_000 }]]));
    let prev = "";
    let stubs = 0;
    for (let n = 0; n < 50_000; n++) {
      const json = `{"v":2,"id":"${n}","kind":"call","chain":{"id":"${id}","n":${n},"prev":"${prev}"}}`;
      prev = digestOf(json);
      const record = { kind: "call" } as StoredRecord;
      if (decided.next({ sequence: n + 1, json, record }, n % 2 === 0)?.stub !== undefined) stubs++;
    }
    const [one] = decided.told().chains;
    expect(stubs).toBe(19_999);
    expect(one).toMatchObject({ n: 0, through: 39_998 });
    expect(one?.kept).toHaveLength(19_999);
  });

  test("that was interrupted is gone on with, at whatever step it was", async () => {
    for (let step = 0; step < 12; step++) {
      const one = paper();
      const by = writer(one, "one");
      await heldBefore(one.records, hold("case-7", "bob"));
      await by.day(0, 1, 2, 3, 4, 5);
      let left = step;
      const dying =
        <A extends readonly unknown[], R>(work: (...args: A) => Promise<R>) =>
        async (...args: A): Promise<R> => {
          if (left-- <= 0) throw new Error("killed");
          return work(...args);
        };
      const log = { ...one.log, retire: dying(one.log.retire) };
      const journal = { append: dying(by.journal.append) };
      const records = { ...one.records, put: dying(one.records.put) };
      await taken(one, by, 4, { log, journal, records, atOnce: 3 }).catch(() => {});
      expect(await problemOf(one), `step ${step}`).toBeUndefined();
      await taken(one, by, 4);
      expect(one.rows.filter(({ json }) => /"id":"one-[0-3]-(ada|eve)"/.test(json))).toEqual([]);
      await by.close();
      expect(await problemOf(one), `after step ${step}`).toBeUndefined();
    }
  });

  test("remembers every chain of which something is left, however many there are", async () => {
    const one = paper();
    const many = Array.from({ length: 1010 }, (_, n) => writer(one, `r${n}`));
    for (const each of many) await each.day(0);
    for (const each of many) await each.day(9);
    const by = writer(one, "last");
    await by.day(9);
    await taken(one, by, 5);
    expect(await problemOf(one)).toBeUndefined();
    expect((await verdictOf(one)).retired).toBeGreaterThan(3000);
    await by.close();
  }, 60_000);

  test("is believed as far as it ever went, in whatever order its records stand", async () => {
    const one = paper();
    const by = writer(one, "one");
    const other = writer(one, "two");
    await by.day(0, 1, 2, 3, 4, 5);
    await taken(one, by, 2);
    const [first] = one.rows.filter(({ json }) => json.includes('"action":"audit.retired"'));
    const { details } = JSON.parse(first?.json ?? "{}") as { details: Parameters<typeof logRecord>[1] };
    await taken(one, by, 4);
    // A record that was spilled to disk comes late.
    await other.journal.append(logRecord("audit.retired", details, "two", 1000 * DAY));
    await by.close();
    await other.close();
    expect(await problemOf(one)).toBeUndefined();
  });
});

describe("another chain", () => {
  test("cannot vanish as a whole once a checkpoint has seen it, though it began last", async () => {
    const one = paper();
    const long = writer(one, "gateway", { checkpointRecords: 5 });
    await long.day(0);
    const deed = writer(one, "command line");
    await deed.journal.append(logRecord("audit.hold-lifted", { hold: "case-7" }, "command line", DAY));
    await deed.close();
    await long.day(1, 2);
    await long.close();
    expect(await problemOf(one)).toBeUndefined();
    const gone = chainOf(one.rows.find(({ json }) => json.includes("audit.hold-lifted"))?.json ?? "");
    one.rows = one.rows.filter(({ json }) => chainOf(json) !== gone);
    one.heads = one.heads.filter(({ chain }) => chain !== gone);
    expect(await problemOf(one)).toMatchObject({ kind: "removed", chain: gone });
  });

  test("cannot be put back to an earlier end once a checkpoint has seen more of it", async () => {
    const one = paper();
    const [long, other] = [writer(one, "one", { checkpointRecords: 5 }), writer(one, "two")];
    await long.day(0);
    await other.day(0);
    const then = one.heads.find(
      ({ json }) => json.includes('"size":4') && !json.includes(chainOf(one.rows[0]?.json ?? "")),
    );
    await other.day(1);
    await long.day(1, 2);
    expect(then).toBeDefined();
    one.rows = one.rows.filter(({ json }) => chainOf(json) !== then?.chain || (linkOf(json)?.n ?? 0) < 4);
    one.heads = one.heads.map((head) => (head.chain === then?.chain ? then : head));
    expect(await problemOf(one)).toMatchObject({ kind: "removed", chain: then?.chain });
    await other.close();
    await long.close();
  });
});

describe("records of versions that had no chains", () => {
  const older = (n: number) =>
    `{"v":1,"id":"old-${n}","kind":"call","at":"${new Date(n * DAY).toISOString()}","principal":{"subject":"${n === 1 ? "bob" : "ada"}"}}`;
  async function upgraded() {
    const one = paper();
    for (const n of [0, 1, 2])
      await one.log.append([{ json: older(n) } as Parameters<Paper["log"]["append"]>[0][number]]);
    const by = writer(one, "one");
    await by.day(3, 4);
    return { one, by };
  }

  test("are counted when the first chain begins: none can be added to them, nor taken from them", async () => {
    const { one, by } = await upgraded();
    await by.close();
    expect(await verdictOf(one)).toMatchObject({ problem: undefined, unchained: 3 });
    for (const at of [0, 1, 3]) {
      const copy = copied(one);
      copy.rows.splice(at, 0, { sequence: at + 0.5, json: older(7) });
      expect(await problemOf(copy), `added at ${at}`).toMatchObject({ kind: "added" });
      copy.rows.splice(at, 1);
      copy.rows.splice(at % 3, 1);
      expect(await problemOf(copy), `removed at ${at}`).toMatchObject({ kind: "removed" });
    }
  });

  test("cannot stand before a log that began without any", async () => {
    const one = paper();
    const by = writer(one, "one");
    await by.day(3);
    await by.close();
    one.rows.unshift({ sequence: 0.5, json: older(0) });
    expect(await problemOf(one)).toMatchObject({ kind: "added", at: 0.5 });
  });

  test("go when they are old, unless they are on hold", async () => {
    const { one, by } = await upgraded();
    await heldBefore(one.records, hold("case-7", "bob"));
    await taken(one, by, 2);
    expect(one.rows.slice(0, 2).map(({ json }) => json)).toEqual([older(1), older(2)]);
    expect(await problemOf(one)).toBeUndefined();
    await taken(one, by, 4);
    expect(one.rows[0]?.json).toBe(older(1));
    expect(await problemOf(one)).toBeUndefined();
    const copy = copied(one);
    copy.rows.shift();
    await by.close();
    expect(await problemOf(one)).toBeUndefined();
  });
});

describe("a log that is written while it is verified", () => {
  test("verifies, whatever is written between any two looks at it", async () => {
    for (let moment = 0; moment < 8; moment++) {
      const one = paper();
      const both = [writer(one, "one"), writer(one, "two")];
      for (const each of both) await each.day(0, 1);
      let looks = 0;
      const busy =
        <A extends readonly unknown[], R>(look: (...args: A) => Promise<R>) =>
        async (...args: A): Promise<R> => {
          if (looks++ === moment) for (const each of [...both, writer(one, "three")]) await each.day(2);
          return look(...args);
        };
      const log = { read: busy(one.log.read), heads: busy(one.log.heads) };
      expect((await verifyLog(log, VOUCHERS)).verdict.problem, `at look ${moment}`).toBeUndefined();
    }
  });

  test("verifies, whenever retention takes something out of it", async () => {
    for (let moment = 0; moment < 8; moment++) {
      const one = paper();
      const by = writer(one, "one");
      await heldBefore(one.records, hold("case-7", "bob"));
      await by.day(...Array.from({ length: 500 }, (_, n) => n));
      let looks = 0;
      const pruned =
        <A extends readonly unknown[], R>(look: (...args: A) => Promise<R>) =>
        async (...args: A): Promise<R> => {
          if (looks++ === moment) await taken(one, by, 400);
          return look(...args);
        };
      const log = { read: pruned(one.log.read), heads: pruned(one.log.heads) };
      expect((await verifyLog(log, VOUCHERS)).verdict.problem, `at look ${moment}`).toBeUndefined();
      await by.close();
    }
  }, 60_000);
});
