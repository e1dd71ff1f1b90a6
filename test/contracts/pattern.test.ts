/** Patterns mean here what they mean to the validators of servers, whatever RE2 would make of their words. */
import { describe, expect, test } from "vitest";
import { compileArguments } from "../../src/contract/arguments.ts";
import { matcherOf, weightOf } from "../../src/contract/pattern.ts";
import { bounded, languageOf } from "../../src/contract/regular.ts";
import { fc, runs } from "../properties.ts";

const PATTERNS = [
  ...[
    "^a",
    "b$",
    "^[ab]*$",
    "^\\d+$",
    "^.$",
    "^$",
    "a|1$",
    "^\\s$",
    "^\\S+$",
    "^\\W$",
    "^\\w{1,1500}$",
    "^[a-z]{0,2000}$",
  ],
  ...[
    "^[^]{0,2}$",
    "^[]$",

    "^[^a]$",
    "^[\\S\\d]$",
    "^[^\\s]$",
    "^[\\w-]+$",
    "\\ba",
    "^\\u{1F600}$",
    "^\\p{L}$",
  ],
  ...["^\\cA$", "^\\0$", "^[\\b]$", "^(?<n>a)b$", "^\\v$", "(^a)b", "^a*?b??$", "^(?:|a)$", "^[\\]\\[]$", "\\/"],
];
const texts = fc.string({
  unit: fc.constantFrom(
    ..."ab1_-[]:A /",
    "\r",
    "\n",
    "\v",
    "\0",
    "\u0001",
    "\b",
    "\u00a0",
    "\u2028",
    "\ufeff",
    "é",
    "\u{1F600}",
    "\ud800",
  ),
  maxLength: 4,
});

test.each(PATTERNS)("%s matches what ECMA-262 says", (pattern) => {
  const [native, ours, language] = [new RegExp(pattern, "u"), matcherOf(pattern), languageOf(pattern)];
  expect(ours).toBeDefined();
  fc.assert(
    fc.property(texts, (text) => {
      expect([text, ours?.(text)]).toEqual([text, native.test(text)]);
      if (language !== undefined)
        expect(language.strings.test(Array.from(text, (one) => one.codePointAt(0) ?? 0))).toBe(native.test(text));
    }),
    { numRuns: runs(300) },
  );
});

test.each(["^(?=a)", "([a-z]+)\\1", "(?<!b)a"])("%s cannot be run in bounded time", (pattern) => {
  expect(matcherOf(pattern)).toBeUndefined();
});

describe("a pattern that a server wrote to hold everybody up", () => {
  const HARD = ["^((a{0,50}){0,50})$", "(a|b)*a(a|b){11}", "[a-z]{1,500}x[a-z]{1,500}", "(a|b){0,1000}"];

  test.each(HARD)("%s is told to be unknown after a bounded number of steps", (pattern) => {
    expect(languageOf(pattern)).toBeUndefined();
  });

  test("and many such take no more steps together than one comparison may", () => {
    const patterns = Array.from({ length: 50 }, (_, at) => `^(a|b${at}){0,200}x(a|c){0,${100 + at}}$`);
    const read = bounded(100, () => patterns.filter((pattern) => languageOf(pattern) !== undefined));
    expect(read.length).toBeLessThan(patterns.length);
    // What was not read for the sake of others can be read later.
    expect(languageOf(patterns.at(-1) ?? "")).toBeDefined();
  });

  test.each(["((a{0,99}){0,99}){0,99}", "(?:[^a]{1,999}){60}"])("%s is never compiled", (pattern) => {
    expect(weightOf(pattern)).toBeGreaterThan(5_000);
    expect(matcherOf(pattern)).toBeUndefined();
  });

  test("in hundreds is left to its server, and the other keywords are checked", async () => {
    const names = Array.from({ length: 300 }, (_, at) => `p${at}`);
    const properties = Object.fromEntries(
      names.map((name, at) => [name, { type: "string", pattern: `^a{0,${500 + at}}$` }]),
    );
    const { check, problem, unread } = await compileArguments({ type: "object", properties });
    expect(problem).toBeUndefined();
    expect(unread.length).toBeGreaterThan(200);
    expect(check({ p299: 1 })).toEqual(["arguments/p299 must be string"]);
    expect(check({ p0: "b" })).toHaveLength(1);
  });

  test("is not run over a text that is too long for it: the server judges it, and under a contract it is refused", async () => {
    const schema = { type: "object", properties: { text: { type: "string", pattern: "^([a-z]{1,50} ?)*$" } } };
    const [rough, strict] = [await compileArguments(schema), await compileArguments(schema, { strict: true })];
    const text = "a".repeat(1_000_000);
    expect(rough.check({ text })).toBeUndefined();
    expect(strict.check({ text })).toHaveLength(1);
    expect(rough.check({ text: "A" })).toHaveLength(1);
    expect(strict.check({ text: "a b" })).toBeUndefined();
  });
});
