/** A hostile look at an export and at a store: whatever byte of it somebody changes is found, and what became of a file on its way is said. */
import { beforeAll, describe, expect, test } from "vitest";
import { exported, verifyExport } from "../../src/audit/export.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import {
  copied,
  DAY,
  hold,
  type Paper,
  paper,
  placed,
  problemOf,
  SIGNER,
  taken,
  VOUCHERS,
  writer,
} from "./paper-log.ts";

let one: Paper;
let lines: string[];
let text: string;

/** Two processes, with checkpoints, a hold, and what retention has left. */
beforeAll(async () => {
  one = paper();
  const [first, second] = [writer(one, "one", { checkpointRecords: 6 }), writer(one, "two", { checkpointRecords: 6 })];
  await first.day(0);
  await second.day(0, 1);
  await first.day(1);
  await placed(one, first, hold("case-7", "bob"), { at: 2 * DAY });
  await second.day(2, 3);
  await first.day(3);
  await taken(one, first, 2);
  await first.day(4);
  await second.day(4);
  await first.close();
  await second.close();
  lines = [];
  for await (const line of exported(one.log, SIGNER, {}, 5)) lines.push(line);
  text = lines.join("");
});

/** What is said of an export: "whole", what is wrong with it, or why it is none. Anything else that is thrown is a crash. */
async function said(bytes: string | Buffer): Promise<string> {
  try {
    const pieces = (async function* () {
      yield Buffer.from(bytes as string);
    })();
    const { problem } = await verifyExport(pieces, VOUCHERS);
    return problem === undefined ? "whole" : `${problem.kind} at ${problem.at}`;
  } catch (thrown) {
    if (thrown instanceof DrawbridgeError) return thrown.message;
    throw thrown;
  }
}

/** A byte taken out, put in and changed, at each position. */
function* edits(bytes: Buffer, step: number, from = 0): Generator<readonly [string, Buffer]> {
  for (let at = from; at < bytes.length; at += step) {
    const [before, after] = [bytes.subarray(0, at), bytes.subarray(at + 1)];
    const flipped = Buffer.from([(bytes[at] ?? 0) ^ 1]);
    // The very last line feed alone may be missing.
    if (at < bytes.length - 1) yield [`without ${at}`, Buffer.concat([before, after])];
    yield [`a space at ${at}`, Buffer.concat([before, Buffer.from(" "), bytes.subarray(at)])];
    yield [`another at ${at}`, Buffer.concat([before, flipped, after])];
  }
}

describe("an export", () => {
  test("is whole as it is", async () => {
    expect(await said(text)).toBe("whole");
    expect(text).toMatch(/"retired":\{"hash"/);
    expect(text).toMatch(/"action":"audit\.checkpoint"/);
  });

  test("in which any byte is changed is not, wherever in a record", async () => {
    for (const [what, bytes] of edits(Buffer.from(text), 11)) expect(await said(bytes), what).not.toBe("whole");
  }, 120_000);

  test("in which any byte of its last line is changed is not", async () => {
    const bytes = Buffer.from(text);
    for (const [what, changed] of edits(bytes, 1, bytes.length - (lines.at(-1)?.length ?? 0)))
      expect(await said(changed), what).not.toBe("whole");
  }, 120_000);

  test("that ends early, lacks a line, or has one twice or from elsewhere is not", async () => {
    const other = paper();
    const by = writer(other, "other");
    await by.day(0, 1);
    await by.close();
    const strangers: string[] = [];
    for await (const line of exported(other.log, SIGNER, {}, 5)) strangers.push(line);
    expect(await said(strangers.join(""))).toBe("whole");
    const last = lines.at(-1) ?? "";
    for (let n = 0; n < lines.length; n++) {
      const wrong = [
        lines.slice(0, n),
        [...lines.slice(0, n), last],
        lines.toSpliced(n, 1),
        lines.toSpliced(n, 0, lines[n] ?? ""),
        lines.toSpliced(n, 0, strangers[1] ?? ""),
        lines.toSpliced(n, 1, strangers[n % (strangers.length - 1)] ?? ""),
        lines.toSpliced(n, 0, "\n"),
        lines.toSpliced(n, 0, "{}\n"),
        lines.toSpliced(n, 0, "\0\n"),
      ];
      for (const [which, each] of wrong.entries())
        if (each.join("") !== text) expect(await said(each.join("")), `${n} ${which}`).not.toBe("whole");
    }
    expect(await said([...lines.slice(0, -1), strangers.at(-1) ?? ""].join(""))).not.toBe("whole");
    expect(await said([...strangers.slice(0, -1), last].join(""))).not.toBe("whole");
  }, 120_000);

  test.each<[string, (text: string) => string, RegExp]>([
    [
      "a letter written as an escape",
      (all) => all.replace('"kind":"call"', '"kind":"c\\u0061ll"'),
      /^(added|changed) at/,
    ],
    ["a number written otherwise", (all) => all.replace('"durationMs":1,', '"durationMs":1.0,'), /^changed at/],
    ["a member said twice", (all) => all.replace('"durationMs":1,', '"durationMs":1,"durationMs":1,'), /^changed at/],
    [
      "members in another order",
      (all) => all.replace(/("durationMs":1),("outcome":"permitted")/, "$2,$1"),
      /^changed at/,
    ],
    [
      "a last line in another order",
      (all) => all.replace(/,("kid":"[^"]*"),("signature":"[^"]*")\}\n$/, ",$2,$1}\n"),
      /written otherwise/,
    ],
    ["more in its last line", (all) => all.replace(/\}\n$/, ',"more":1}\n'), /written otherwise/],
    ["spaces in its signature", (all) => all.replace(/("signature":"\w)(?=[\w-]+"\}\n$)/, "$1 "), /^unsigned at/],
    ["lines that end as on Windows", (all) => all.replaceAll("\n", "\r\n"), /CRLF/],
    ["a byte order mark", (all) => `\ufeff${all}`, /byte order mark/],
    ["a line that is longer than any record", (all) => all + "x".repeat(65 << 20), /longer than any record/],
    ["nothing in it", () => "", /last line.*missing/],
    ["something after its end", (all) => `${all}\0`, /after its last line/],
  ])("with %s is not, and it is said why", async (_, change, why) => {
    const changed = change(text);
    expect(changed).not.toBe(text);
    expect(await said(changed)).toMatch(why);
  });

  test("that is compressed or in UTF-16 is said to be that", async () => {
    expect(await said(Buffer.from([0x1f, 0x8b, 8, 0]))).toContain("compressed");
    expect(await said(Buffer.from(text, "utf16le"))).toContain("UTF-16");
  });
});

describe("a store", () => {
  test("in which any character of a record is changed does not verify, and nothing crashes over it", async () => {
    for (const [which, row] of one.rows.entries())
      for (const [what, bytes] of edits(Buffer.from(row.json), 13)) {
        const copy = copied(one);
        copy.rows.splice(which, 1, { ...row, json: bytes.toString() });
        expect(await problemOf(copy), `${which} ${what}`).toBeDefined();
      }
  }, 120_000);

  test("in which the end of a chain is written otherwise does not verify", async () => {
    for (const [which, head] of one.heads.entries()) {
      for (const [what, bytes] of edits(Buffer.from(`${head.json}\n`), 3)) {
        const copy = copied(one);
        copy.heads.splice(which, 1, { ...head, json: bytes.toString() });
        expect(await problemOf(copy), `${which} ${what}`).toBeDefined();
      }
      const copy = copied(one);
      copy.heads.splice(which, 1, { ...head, chain: "another" });
      expect(await problemOf(copy)).toBeDefined();
    }
  }, 120_000);

  test("to which a record is added under any number is not whole, also before the first and behind the last", async () => {
    const row = one.rows.find(({ json }) => json.startsWith('{"v"') && json.includes('"permitted"'));
    const forged = row?.json.replace('"permitted"', '"refused"') ?? "";
    expect(forged).not.toBe(row?.json);
    for (const json of [forged, row?.json ?? "", "{}", '{"v":1,"id":"x","at":"1970-01-01T00:00:00.000Z"}'])
      for (const sequence of [-7, 0, 0.5, 5.5, 1000]) {
        const copy = copied(one);
        copy.rows.push({ sequence, json });
        copy.rows.sort((some, other) => some.sequence - other.sequence);
        expect(await problemOf(copy), `${json} at ${sequence}`).toBeDefined();
      }
  });

  test("with a record that says nonsense of others is named, and does not stop the look at it", async () => {
    const nonsense = [
      '"chains":7',
      '"chains":[7]',
      '"chains":[{"chain":"x"}]',
      '"after":7',
      '"beside":[null]',
      '"kept":7',
    ];
    for (const words of nonsense)
      for (const action of [
        "audit.retired",
        "audit.checkpoint",
        "audit.chain-started",
        "audit.hold-placed",
        "audit.hold-lifted",
      ]) {
        const copy = copied(one);
        const at = copy.rows.findIndex(({ json }) => json.includes('"action":"audit.checkpoint"'));
        const row = copy.rows[at];
        if (row === undefined) throw new Error("no checkpoint");
        row.json = row.json
          .replace("audit.checkpoint", action)
          .replace(/"details":\{.*\}(?=,)/, `"details":{${words}}`);
        expect(await problemOf(copy), `${action} ${words}`).toMatchObject({ kind: "changed" });
      }
  });
});
