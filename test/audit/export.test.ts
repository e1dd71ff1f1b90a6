/** An export proves what it says to somebody who has nothing but it and the public key, and helps nobody to forge the log. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { type ExportRange, exported, verifyExport } from "../../src/audit/export.ts";
import { linkOf } from "../../src/audit/link.ts";
import { vouchersOf } from "../../src/audit/signing.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
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
  writer,
} from "./paper-log.ts";

async function linesOf({ log }: Pick<Paper, "log">, range: ExportRange = {}, signer = SIGNER): Promise<string[]> {
  const all: string[] = [];
  for await (const line of exported(log, signer, range, 5)) all.push(line);
  return all;
}
async function* pieces(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield Buffer.from(bytes.subarray(at, at + size));
}
const verdictOf = (lines: readonly string[] | Buffer, size = 301, vouchers = VOUCHERS) =>
  verifyExport(pieces(Buffer.isBuffer(lines) ? lines : Buffer.from(lines.join("")), size), vouchers);
const problemIn = async (lines: readonly string[] | Buffer) => (await verdictOf(lines)).problem;

/** Two processes; the records of the one are old, and what bob did is on hold. */
async function retired(): Promise<Paper> {
  const one = paper();
  const [old, by] = [writer(one, "one", { checkpointRecords: 6 }), writer(one, "two", { checkpointRecords: 6 })];
  await old.day(0, 1);
  await heldBefore(one.records, hold("case-7", "bob"));
  await by.day(2, 3, 4);
  await old.close();
  await by.day(5, 6);
  await taken(one, by, 5);
  await by.day(7);
  await by.close();
  return one;
}

describe("a log from which retention took some", () => {
  test("can be exported from any record to any other, and each part verifies", async () => {
    const one = await retired();
    const sequences = one.rows.map(({ sequence }) => sequence);
    for (const after of [0, ...sequences])
      for (const through of [...sequences, undefined]) {
        if (through !== undefined && through <= after) continue;
        const lines = await linesOf(one, { after, through });
        expect(await problemIn(lines), `${after} to ${through}`).toBeUndefined();
      }
  }, 60_000);

  test("is found to be another when anything in its export is changed, removed, doubled or swapped", async () => {
    const one = await retired();
    const half = one.rows[Math.floor(one.rows.length / 2)]?.sequence;
    const ranges: readonly ExportRange[] = [{}, { through: half }, { after: half }];
    for (const range of ranges) {
      const good = await linesOf(one, range);
      expect((await verdictOf(good)).problem).toBeUndefined();
      for (const [at, line] of good.slice(0, -1).entries()) {
        const broken = [
          good.with(at, line.replace(/"(at|hash)":"./, '"$1":"*')),
          good.with(
            at,
            line.replace(/"n":(\d+)/, (_, n: string) => `"n":${Number(n) + 1}`),
          ),
          good.toSpliced(at, 1),
          good.toSpliced(at, 0, line),
          good.slice(at + 1),
          good.toSpliced(0, at, ...(at === 0 ? ["{}\n"] : [])),
          [...good.slice(0, at), good.at(-1) ?? ""],
          ...(at === 0 ? [] : [good.with(at, good[at - 1] ?? "").with(at - 1, line)]),
        ];
        for (const [which, lines] of broken.entries())
          if (lines.join("") !== good.join("")) expect(await problemIn(lines), `${which} at ${at}`).toBeDefined();
      }
    }
  }, 60_000);
});

describe("nothing is exported", () => {
  const changes: Readonly<Record<string, (copy: Paper) => void>> = {
    "of a log in which a record was changed": (copy) => {
      rowOf(copy, "two-6-ada").json = rowOf(copy, "two-6-ada").json.replace("permitted", "refused");
    },
    "of a log from which a record is missing, though the export would not have it": (copy) =>
      void copy.rows.splice(-2, 1),
    "of a chain without a head": (copy) => void copy.heads.pop(),
    "of a log with what is no head": (copy) => {
      copy.heads = copy.heads.map(({ chain }) => ({ chain, json: "{" }));
    },
  };
  test.each(Object.entries(changes))("%s", async (_, change) => {
    const one = await retired();
    change(one);
    const export_ = exported(one.log, SIGNER, { through: one.rows[3]?.sequence }, 5);
    await expect(export_.next()).rejects.toThrow(/does not verify, so nothing is exported/);
  });

  test("of what was signed by another key, unless that is named", async () => {
    const one = paper();
    const by = writer(one, "one", { signer: STRANGER });
    await by.day(1);
    await by.close();
    await expect(linesOf(one)).rejects.toThrow(/unsigned/);
    const lines: string[] = [];
    for await (const line of exported(one.log, SIGNER, {}, 5, [STRANGER.publicKey])) lines.push(line);
    const both = vouchersOf([SIGNER.publicKey, STRANGER.publicKey]);
    expect((await verdictOf(lines, 301, both)).problem).toBeUndefined();
  });

  test("as if it were whole when the log changes under it", async () => {
    for (const change of ["changed", "removed"]) {
      const one = paper();
      const by = writer(one, "one");
      await by.day(...Array.from({ length: 400 }, (_, n) => n));
      const export_ = exported(one.log, SIGNER, {}, 5);
      await export_.next();
      if (change === "removed") await taken(one, by, 390, { clock: Date.now });
      else for (const row of one.rows.slice(1100, 1101)) row.json = row.json.replace("permitted", "refused");
      const rest = async () => {
        for await (const line of export_) expect(line).not.toContain('"exported"');
      };
      await expect(rest()).rejects.toThrow(/while it was exported/);
      await by.close();
    }
  });
});

test("what an export says of where it was cut is no head for a log that is cut there", async () => {
  const one = paper();
  const by = writer(one, "one");
  await by.day(0, 1, 2);
  await by.close();
  for (const { sequence } of one.rows.slice(0, -1)) {
    const lines = await linesOf(one, { through: sequence });
    expect(await problemIn(lines)).toBeUndefined();
    const footer = JSON.parse(lines.at(-1) ?? "") as {
      exported: Record<string, unknown>;
      kid: string;
      signature: string;
    };
    const said = Object.values(footer.exported)
      .flat()
      .filter((value): value is Record<string, unknown> => typeof value === "object" && value !== null);
    expect(said.length).toBeGreaterThan(0);
    for (const one_ of said) {
      const copy = copied(one);
      copy.rows = copy.rows.filter((row) => row.sequence <= sequence);
      const head = { at: footer.exported["at"], kid: footer.kid, signature: footer.signature, ...one_ };
      copy.heads = copy.heads.map(({ chain }) => ({ chain, json: JSON.stringify(head) }));
      expect(await problemOf(copy)).toBeDefined();
    }
  }
});

describe("the last line", () => {
  test("is read in one way: written otherwise it is none", async () => {
    const lines = await linesOf(await retired());
    const last = lines.at(-1) ?? "";
    const others = [
      last.replace('"kid"', ' "kid"'),
      last.replace('"version":1,', '"version":1,"records":0,'),
      last.replace(/"signature"/, '"kid":"x","signature"'),
      last.replace("\n", " \n"),
      last.replace('"ends":', '"end":'),
      '{"exported":{"version":1,}}\n',
    ];
    for (const other of others)
      await expect(problemIn([...lines.slice(0, -1), other]), other.slice(-120)).rejects.toThrow(/last line/);
  });

  test.each(["records", "sha256", "at", "kid", "signature"])("with another %s is not signed", async (name) => {
    const lines = await linesOf(await retired());
    const edit = new RegExp(`"${name}":("?)(.)`, "g");
    const other = (lines.at(-1) ?? "").replace(
      edit,
      (_, quote: string, first: string) => `"${name}":${quote}${first === "1" ? "2" : "1"}`,
    );
    expect(await problemIn([...lines.slice(0, -1), other])).toMatchObject({ kind: "unsigned" });
  });
});

test("a line is its bytes: what reads the same and is not is found, and named", async () => {
  const one = paper();
  const by = writer(one, "one");
  await by.journal.append({
    id: "odd",
    kind: "call",
    at: DAY,
    durationMs: 1,
    outcome: "permitted",
    call: { method: "tools/call", revision: "2026-07-28", name: "a\ufffd\u00e9" },
    replica: "one",
  });
  await by.day(2);
  await by.close();
  const good = Buffer.from((await linesOf(one)).join(""));
  for (const size of [1, 7, 64, 1000, 1 << 20]) expect((await verdictOf(good, size)).problem).toBeUndefined();
  const at = good.indexOf(Buffer.from("\ufffd"));
  for (const other of [Buffer.from([0xff]), Buffer.from([0xef, 0xbf]), Buffer.from("e\u0301")])
    expect(
      await problemIn(Buffer.concat([good.subarray(0, at), other, good.subarray(at + 3)])),
      other.toString("hex"),
    ).toMatchObject({ kind: "changed", at: 2, id: "odd" });
});

test("a part is chosen by what the records say of their time, whatever the database says", async () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-export-"));
  const file = join(folder, "log.db");
  try {
    await using store = sqliteStore(file) as ReturnType<typeof sqliteStore> & AsyncDisposable;
    const one = { log: store.audit };
    const by = writer(one, "one");
    await by.day(1, 2, 3, 4);
    await by.close();
    const database = new DatabaseSync(file);
    database.exec("DROP TRIGGER audit_is_not_changed");
    database.prepare("UPDATE audit SET at = 0 WHERE id LIKE 'one-2-%' OR id LIKE 'one-3-%'").run();
    database.close();
    const lines = await linesOf(one, { since: 2 * DAY, until: 4 * DAY });
    const ids = lines.flatMap((line) => /"id":"(one-[^"]+)"/.exec(line)?.[1] ?? []);
    expect(ids).toEqual(["ada", "bob", "eve"].flatMap((who) => [2, 3].map((n) => `one-${n}-${who}`)).sort());
    expect(await problemIn(lines)).toBeUndefined();
    await expect(linesOf(one, { since: Date.parse("2999-01-01") })).rejects.toThrow(/no record of that time/);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test("an export of a whole log says so of each chain", async () => {
  const one = await retired();
  const footer = JSON.parse((await linesOf(one)).at(-1) ?? "") as {
    exported: { ends: { chain: string; size: number }[] };
  };
  const sizes = new Map(one.rows.map(({ json }) => [chainOf(json), (linkOf(json)?.n ?? 0) + 1]));
  expect(new Map(footer.exported.ends.map(({ chain, size }) => [chain, size]))).toEqual(sizes);
});
