/** Records of several processes keep their places among one another: whoever exchanges them is found out, in the log and in an export. */
import { describe, expect, test } from "vitest";
import { exported, verifyExport } from "../../src/audit/export.ts";
import { linkOf, placeText } from "../../src/audit/link.ts";
import { leafHash } from "../../src/audit/merkle.ts";
import { signedHead } from "../../src/audit/statements.ts";
import { everyStore } from "../store/backends.ts";
import {
  chainOf,
  copied,
  DAY,
  heldBefore,
  hold,
  type Paper,
  paper,
  problemOf,
  SIGNER,
  taken,
  VOUCHERS,
  writer,
} from "./paper-log.ts";

/** Two processes that write turn by turn, one record a commit or three, and end one after the other. */
async function interleaved({ checkpointRecords = 1000, close = true } = {}): Promise<Paper> {
  const one = paper();
  const both = [writer(one, "one", { checkpointRecords }), writer(one, "two", { checkpointRecords })];
  for (const n of [0, 1]) for (const each of both) await each.day(n);
  for (const each of both)
    await Promise.all(
      ["ada", "bob", "eve"].map((subject) =>
        each.journal.append({
          id: `${subject}-together`,
          kind: "call",
          at: 2 * DAY,
          durationMs: 1,
          outcome: "permitted",
          replica: "r",
        }),
      ),
    );
  for (const n of [3, 4]) for (const each of both) await each.day(n);
  if (close) for (const each of both) await each.close();
  return one;
}

/** Each pair of records changes places, and is found. Gives how many of the pairs were of two chains. */
async function swapsAreFound(one: Paper): Promise<number> {
  let across = 0;
  for (const [at, { json, sequence }] of one.rows.entries())
    for (const [other, row] of one.rows.entries()) {
      // What is left of two records that went says nothing but their places in their chains.
      const both = [json, row.json];
      if (
        other <= at ||
        (both.every((text) => text.startsWith('{"retired"')) && chainOf(both[0] ?? "") !== chainOf(both[1] ?? ""))
      )
        continue;
      if (chainOf(row.json) !== chainOf(json)) across++;
      const copy = copied(one);
      copy.rows.splice(at, 1, { sequence, json: row.json });
      copy.rows.splice(other, 1, { sequence: row.sequence, json });
      const problem = await problemOf(copy);
      expect(problem, `${sequence} and ${row.sequence}`).toBeDefined();
      if (chainOf(row.json) !== chainOf(json) && other === at + 1) expect(problem?.kind).toBe("moved");
    }
  return across;
}

describe("two records of two processes that change places are found", () => {
  test("wherever they stand, also at the end of both", async () => {
    const one = await interleaved();
    expect(await problemOf(one)).toBeUndefined();
    expect(await swapsAreFound(one)).toBeGreaterThan(280);
  }, 60_000);

  test("with checkpoints between them", async () => {
    expect(await swapsAreFound(await interleaved({ checkpointRecords: 4 }))).toBeGreaterThan(280);
  }, 60_000);

  test("when both processes were killed, as soon as another has begun", async () => {
    const one = await interleaved({ close: false });
    const next = writer(one, "three");
    await next.day(5);
    await next.close();
    expect(await problemOf(one)).toBeUndefined();
    await swapsAreFound(one);
  }, 60_000);

  test("in what retention has left", async () => {
    const one = await interleaved({ close: false });
    const by = writer(one, "three");
    await heldBefore(one.records, hold("case-7", "bob"));
    await taken(one, by, 3);
    await by.close();
    expect(one.rows.some(({ json }) => json.startsWith('{"retired"'))).toBe(true);
    expect(await problemOf(one)).toBeUndefined();
    await swapsAreFound(one);
  }, 60_000);

  test("in an export, whose first moved line is named", async () => {
    const one = await interleaved();
    const lines: string[] = [];
    for await (const line of exported(one.log, SIGNER, {}, 0)) lines.push(line);
    const verdictOf = (text: readonly string[]) =>
      verifyExport(
        (async function* () {
          yield Buffer.from(text.join(""));
        })(),
        VOUCHERS,
      );
    expect((await verdictOf(lines)).problem).toBeUndefined();
    for (let at = 0; at < lines.length - 2; at++) {
      const swapped = lines.toSpliced(at, 2, lines[at + 1] ?? "", lines[at] ?? "");
      const { problem } = await verdictOf(swapped);
      expect(problem, `${at}`).toBeDefined();
      const across = chainOf(lines[at] ?? "") !== chainOf(lines[at + 1] ?? "");
      if (across && at > 2) expect(problem, `${at}`).toMatchObject({ kind: "moved" });
      if (across && at > 2) expect([at + 1, at + 2], `${at}`).toContain(problem?.at);
    }
  });
});

describe.each(everyStore)("in $name", ({ openTwo }) => {
  test("two processes that write at the same moment make a log that verifies at any time, and in which no neighbours can change places", async () => {
    await using stores = await openTwo();
    const both = stores.map(({ audit }, at) => writer({ log: audit }, `process-${at}`, { checkpointRecords: 40 }));
    const [{ audit }] = stores;
    const write = Promise.all(
      both.map(async ({ journal }, at) => {
        for (let n = 0; n < 40; n++)
          await Promise.all(
            Array.from({ length: (n % 3) + 1 }, (_, one) =>
              journal.append({
                id: `${at}-${n}-${one}`,
                kind: "call",
                at: n,
                durationMs: 1,
                outcome: "permitted",
                replica: "r",
              }),
            ),
          );
      }),
    );
    for (let looks = 0; looks < 5; looks++) expect(await problemOf({ log: audit })).toBeUndefined();
    await write;
    for (const each of both) await each.close();
    expect(await problemOf({ log: audit })).toBeUndefined();
    const one = paper();
    one.rows = (await audit.read({ limit: 1000 })).map((row) => ({ ...row }));
    one.heads = [...(await audit.heads())];
    expect(one.rows.length).toBeGreaterThan(150);
    let across = 0;
    for (const [at, { json, sequence }] of one.rows.entries()) {
      const next = one.rows[at + 1];
      if (next === undefined || chainOf(next.json) === chainOf(json)) continue;
      across++;
      const copy = copied(one);
      copy.rows.splice(at, 2, { sequence, json: next.json }, { sequence: next.sequence, json });
      expect(await problemOf(copy), `${sequence}`).toMatchObject({ kind: "moved" });
    }
    expect(across).toBeGreaterThan(2);
  }, 60_000);
});

test("a record in the place of another process's, all others moved up, is named", async () => {
  const one = await interleaved();
  for (let from = 0; from < one.rows.length - 1; from++) {
    const copy = copied(one);
    const [row] = copy.rows.splice(from, 1);
    if (row === undefined) continue;
    copy.rows.push({ ...row, sequence: one.rows.length });
    copy.rows = copy.rows.map(({ json }, at) => ({ sequence: at + 1, json }));
    expect(await problemOf(copy), `${from}`).toBeDefined();
  }
});

test("all records under other numbers are found", async () => {
  const one = await interleaved();
  one.rows = one.rows.map(({ sequence, json }) => ({ sequence: sequence + 1, json }));
  expect(await problemOf(one)).toMatchObject({ kind: "moved" });
});

test("a process that cannot know where its records went, because they were written later, makes a log that verifies", async () => {
  const one = paper();
  const append = one.log.append;
  let forgetful = true;
  const log = {
    ...one.log,
    append: async (...asked: Parameters<typeof append>) => {
      const sequence = await append(...asked);
      return forgetful ? undefined : sequence;
    },
  };
  const both = [writer({ log }, "one"), writer(one, "two")];
  for (const n of [0, 1]) for (const each of both) await each.day(n);
  forgetful = false;
  for (const each of both) await each.day(2);
  for (const each of both) await each.close();
  expect(one.rows.filter(({ json }) => linkOf(json)?.prevAt === 0)).toHaveLength(6);
  expect(await problemOf(one)).toBeUndefined();
});

test("what a caller wrote cannot say where a record stands", async () => {
  const one = paper();
  const by = writer(one, "one");
  const forged = ',"prevAt":7,"chain":{"id":"00000000-0000-7000-8000-000000000000","n":1,"prev":""}}';
  await by.journal.append({
    id: "x",
    kind: "call",
    at: 0,
    durationMs: 1,
    outcome: "permitted",
    replica: forged,
    source: forged,
  });
  await by.journal.append({
    id: "y",
    kind: "configuration",
    at: 0,
    durationMs: 1,
    outcome: "permitted",
    replica: "r",
    details: { prevAt: 7 },
  });
  await by.close();
  expect(one.rows.map(({ json }) => linkOf(json)?.prevAt)).toEqual([undefined, undefined, 2, 3]);
  expect(await problemOf(one)).toBeUndefined();
});

test("a log of a version that did not say where records stand verifies, beside chains that do", async () => {
  const one = paper();
  const old = async (chain: string) => {
    let prev = "";
    let n = 0;
    const write = async () => {
      const json = `{"v":2,"id":"${chain}-${n}","kind":"call","at":"1970-01-01T00:00:00.000Z","outcome":"permitted"${placeText({ id: chain, n, prev })}`;
      prev = leafHash(json);
      n++;
      const head = await signedHead({ chain, size: n, hash: prev, at: "1970-01-01T00:00:00.000Z" }, SIGNER);
      await one.log.append([{ json } as Parameters<Paper["log"]["append"]>[0][number]], {
        chain,
        json: JSON.stringify(head),
      });
    };
    return write;
  };
  const both = [await old("01a1feff-b2f4-7001-b36a-225051020270"), await old("01a1feff-b2f4-7001-b36a-225051020271")];
  const by = writer(one, "new");
  for (const n of [0, 1, 2]) {
    for (const write of both) await write();
    await by.day(n);
  }
  await by.close();
  expect(await problemOf(one)).toBeUndefined();
});
