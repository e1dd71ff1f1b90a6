/** Tokens are an estimate on the safe side, which adds up over the parts of a JSON document. */
import { expect, test } from "vitest";
import { TOKENS } from "../../src/contract/budget.ts";
import { estimateTokens } from "../../src/contract/tokens.ts";
import { fc } from "../properties.ts";

// Counted by hand: each word, each three digits and each mark.
test.each([
  ["The quick brown fox jumps over the lazy dog.", 10],
  ['{"status":"shipped","total":129.5}', 12],
  ["", 0],
])("%j is estimated at %i or a little more", (text, tokens) => {
  expect(estimateTokens(text)).toBeGreaterThanOrEqual(tokens);
  expect(estimateTokens(text)).toBeLessThanOrEqual(Math.ceil(tokens * 1.7));
});

test("the tokens of a list are those of its elements and of what is between them", () => {
  const text = fc.string({ unit: "binary", maxLength: 40 });
  fc.assert(
    fc.property(fc.array(text, { maxLength: 10 }), (texts) => {
      const parts = texts.reduce((sum, one) => sum + TOKENS.text(one), 0);
      expect(estimateTokens(JSON.stringify(texts))).toBe(parts + 2 + Math.max(0, texts.length - 1));
    }),
  );
});

test("a megabyte without a single word is counted at once", () => {
  for (const one of [" ", "a", "1", '"', "\u{1f642}"]) expect(estimateTokens(one.repeat(1 << 20))).toBeGreaterThan(0);
});
