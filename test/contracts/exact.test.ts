/** JSON whose numbers keep their digits. */
import { describe, expect, test } from "vitest";
import { isRaw, parseExactly } from "../../src/contract/exact.ts";
import type { JsonValue } from "../../src/core/call.ts";
import { fc, runs } from "../properties.ts";

const written = (text: string) => JSON.stringify(parseExactly(text));

describe("numbers", () => {
  test.each([
    "[12345678901234567890,-12345678901234567890,0.1234567890123456789,1e400,1E-7,-0,1.50]",
    '{"a":12345678901234567890,"b":{"__proto__":12345678901234567890},"c":[1,2.5,-3]}',
    "12345678901234567890",
    '["12345678901234567890","\\\\u0000","a\\\\",12345678901234567890]',
  ])("are written again as they were: %s", (text) => expect(written(text)).toBe(text));

  test("that lose nothing are numbers, and texts that look like ours are texts", () => {
    const [number, raw, mark, short] = parseExactly(
      '[1,12345678901234567890,"\\u000099999999999999999999","\\u0000"]',
    ) as JsonValue[];
    expect([number, isRaw(raw), mark, short]).toEqual([1, true, "\u000099999999999999999999", "\u0000"]);
  });
});

test.each([
  "[12345678901234567890",
  "{12345678901234567890:1}",
  '{"a":{12345678901234567890:1}}',
  "[012345678901234567890]",
  "[12345678901234567890-1]",
  "[--12345678901234567890]",
  "[+12345678901234567890]",
  "[1.2.3.4.5.6.7.8.9.0.1.2]",
  "[1e400e1]",
  "[12345678901234567890.]",
  '["a"12345678901234567890]',
  "[12345678901234567890a]",
  "[12345678901234567890 1]",
])("what is no JSON is refused as JSON.parse refuses it: %s", (text) => {
  expect(() => JSON.parse(text)).toThrow(SyntaxError);
  expect(() => parseExactly(text)).toThrow(SyntaxError);
});

test("whatever the document, every value and every digit is kept", () => {
  const digits = fc.stringMatching(/^-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?$/);
  const { text } = fc.letrec((tie) => ({
    text: fc.oneof(
      { depthSize: "small" },
      digits,
      fc.json({ maxDepth: 1 }),
      fc.string({ unit: "binary" }).map((one) => JSON.stringify(one)),
      fc.array(tie("text"), { maxLength: 4 }).map((all) => `[ ${all.join(" , ")}]`),
      fc
        .uniqueArray(fc.tuple(fc.string(), tie("text")), { maxLength: 4, selector: ([name]) => name })
        .map((all) => `{${all.map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(",")}}`),
    ),
  }));
  fc.assert(
    fc.property(text as fc.Arbitrary<string>, digits, (one, number) => {
      const whole = `[${one},${number},12345678901234567890]`;
      expect(JSON.parse(written(whole))).toEqual(JSON.parse(whole));
      expect(written(whole).endsWith(`,${number},12345678901234567890]`)).toBe(true);
    }),
    { numRuns: runs(500) },
  );
});
