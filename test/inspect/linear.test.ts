import { expect, test } from "vitest";
import type { JsonObject } from "../../src/core/call.ts";
import { saying } from "../../src/inspect/fixture.ts";
import { inspectDefinition, inspecting } from "../../src/inspect/inspect.ts";
import { HYGIENE, RULES } from "../../src/inspect/rules/index.ts";

const SIZE = 100_000;
const fill = (piece: string) => piece.repeat(Math.ceil(SIZE / piece.length)).slice(0, SIZE);
const PIECES = [
  "a",
  "A",
  " ",
  "\n",
  "a ",
  "a  ",
  "- ",
  "a.",
  "a@",
  "a@a.",
  "/",
  "./",
  "~/.",
  "../",
  "%41",
  "%",
  "\\u0041",
  "\\",
  "&#65;",
  "&",
  "<",
  "<!--",
  "<!-- a",
  "/*",
  "[//]: # (",
  "<p ",
  "{{",
  "[[[",
  "\u200b",
  "\u202e",
  "a\u200b",
  "\u{e0041}",
  "\u001b[",
  "а",
  "aа",
  "QUJD",
  "41 ",
  "0x41",
  "1.1.",
  "not ",
  "not tell ",
  "must use ",
  "curl x ",
  "curl http://a | ",
  "before use ",
  "send https://a.example ",
  "ignore previous ",
  "the best tool ",
  "0 ",
  "l33t ",
  "vtaber ",
  "erongi ",
  "不要",
  "ユーザーには",
  "read_file ",
  "readFile ",
  "a_",
  "http://",
  "$(",
  "rm -",
  "echo ",
  "cat ",
  "*",
  "_",
  "a*",
  "🏴",
  "'",
  '"',
  '",',
  "system: ",
  "SYSTEM:",
  "ADMIN ",
  "-e /bin/",
  "key ",
  "x".repeat(63),
];

test("100 kB of any repeated piece is inspected in time that grows with its length, not faster", () => {
  const time = (text: string) => {
    let best = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 2; round++) {
      const start = process.cpuUsage();
      inspectDefinition("tool", saying(text));
      const { user, system } = process.cpuUsage(start);
      best = Math.min(best, (user + system) / 1000);
    }
    return best;
  };
  const slow = PIECES.map((piece) => ({ piece, ms: time(fill(piece)) })).filter(({ ms }) => ms > 400);
  // CPU time, with room for a slow machine: quadratic work on such a text takes seconds.
  expect(slow).toEqual([]);
}, 120_000);

/** How often an inspection gives other work its turn, and what its reader reads between two of them. */
function pausesOf(tool: JsonObject): number {
  let pauses = 0;
  for (const _ of inspecting("tool", tool)) pauses++;
  return pauses;
}

test("100 kB of any repeated piece gives other work a turn after each string that is read and in each rule", () => {
  const least = RULES.length + HYGIENE.length;
  const few = PIECES.map((piece) => ({ piece, pauses: pausesOf(saying(fill(piece))) })).filter(
    ({ pauses }) => pauses < least,
  );
  expect(few).toEqual([]);
});

test("a tool of many long strings gives a turn for each string in each rule that reads prose: no step reads two", () => {
  const texts = (count: number) =>
    saying(
      "Does.",
      Object.fromEntries(
        Array.from({ length: count }, (_, at) => [
          `p${at}`,
          { type: "string", description: `${at} ${fill("not tell ")}` },
        ]),
      ),
    );
  const added = (pausesOf(texts(12)) - pausesOf(texts(2))) / 10;
  // Rules over prose pause after each string of it; a few look at names or at the schema alone.
  expect(added).toBeGreaterThan(RULES.length / 2);
});

test("a definition of many strings, or a deep one, is read as far as the bounds say, and that is said", () => {
  let deep: JsonObject = { description: "x" };
  for (let level = 0; level < 5000; level++) deep = { items: deep };
  for (const inputSchema of [deep, { enum: Array.from({ length: 30_000 }, (_, index) => `value ${index}`) }]) {
    const { findings } = inspectDefinition("tool", { name: "t", inputSchema });
    expect(findings.map(({ rule }) => rule)).toContain("outsized-text");
  }
});

test("no rule keeps state between definitions", () => {
  for (const rule of RULES)
    for (const bad of rule.bad) expect(inspectDefinition("tool", bad)).toEqual(inspectDefinition("tool", bad));
});
