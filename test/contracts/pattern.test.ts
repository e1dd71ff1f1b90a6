/** Patterns mean here what they mean to the validators of servers, whatever RE2 would make of their words. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { matcherOf } from "../../src/contract/pattern.ts";
import { languageOf } from "../../src/contract/regular.ts";

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
    { numRuns: 300 },
  );
});

test.each(["^(?=a)", "([a-z]+)\\1", "(?<!b)a"])("%s cannot be run in bounded time", (pattern) => {
  expect(matcherOf(pattern)).toBeUndefined();
});
