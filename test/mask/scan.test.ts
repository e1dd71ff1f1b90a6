/** The pass takes shortcuts, and finds what it would find without: words are looked at by their bits, times are passed over. */
import { describe, expect, test } from "vitest";
import { DETECTORS } from "../../src/mask/detectors/all.ts";
import { compileScan, type Scan } from "../../src/mask/scan.ts";
import { fc, runs } from "../properties.ts";
import { harmlessText, privateText, random } from "./generate.ts";
import { slowScan } from "./slow-scan.ts";

const all = compileScan(DETECTORS);
const secrets = DETECTORS.filter(({ about }) => about === "secret");
const spansOf = (scan: Scan, text: string) =>
  scan(text).spans.map(({ start, end, detector: { type } }) => ({ start, end, type }));

const digits = (least: number, most: number) => fc.stringMatching(new RegExp(`^[0-9]{${least},${most}}$`));
const separator = fc.constantFrom(" ", "-", "--", ".", "/", ". ", "(", ") ", ",", ":", "T", "_", "a", "");
const date = fc
  .tuple(fc.constantFrom("2026-09-03", "1999-12-31", "03.09.2026", "2026/9/3", "9999-99-99"), separator)
  .map(([day, between]) => day + between);
const time = fc
  .tuple(
    fc.constantFrom("T", " ", "t", "-", ""),
    fc.constantFrom("09:28", "09:28:39", "9:28", "09:28:39.589", "09:28:39,1"),
    fc.constantFrom("", "Z", "+01:00", ":", "a", " ", "0123456789", "::1"),
  )
  .map((parts) => parts.join(""));
const part = fc.oneof(
  fc.integer().map((seed) => privateText(random(seed)).text),
  fc.integer().map((seed) => harmlessText(random(seed))),
  fc.constantFrom(...DETECTORS.flatMap(({ hits, misses }) => [...hits.map(([text]) => text), ...misses])),
  fc.uuid(),
  date,
  time,
  fc.tuple(fc.constantFrom("2026-09-03", "2026-09-03 "), time).map((parts) => parts.join("")),
  fc.constantFrom("NHS 2026-09-03T09:28:39,9434765919", "at 2026-09-03 09:28:39 44 7700 900264 and"),
  fc.tuple(digits(1, 12), separator).map((parts) => parts.join("")),
  fc.tuple(fc.constantFrom("+", "00", "(", ""), digits(1, 5), separator, digits(2, 8)).map((parts) => parts.join("")),
  fc.constantFrom(..."\"'\\:=>,;{}[]@%~#$\n ", "\\n", "\\\\", '\\"', "\\u0031", "\\/", "://", "::", "é", "中"),
  fc.constantFrom(
    "GB",
    "ab",
    "AB",
    "token",
    "password",
    "card",
    "phone",
    "ssn",
    "NHS",
    "Bearer ",
    "sk-",
    "eyJ",
    "hvs.",
  ),
  fc.stringMatching(/^[a-zA-Z0-9_-]{8,40}$/),
);
const glued = fc.array(part, { maxLength: 14 }).map((parts) => parts.join("").normalize("NFC"));
/** Characters that are read as others are another matter. */
const plain = (text: string): string => text.replaceAll(/[^\x20-\x7e\né中]/gu, "?");

describe("what the pass finds is what asking everybody everywhere finds", () => {
  test.for([
    ["all detectors", all, DETECTORS],
    ["those of secrets", compileScan(secrets), secrets],
  ] as const)("%s, in texts glued from private ones, dates, times, UUIDs and digits", ([, scan, detectors]) => {
    fc.assert(
      fc.property(glued.map(plain), (text) => {
        expect(spansOf(scan, text)).toEqual(slowScan(detectors, text));
      }),
      { numRuns: runs(3000) },
    );
  });

  test("in a text of several pieces, wherever one ends", () => {
    const r = random(11);
    for (let round = 0; round < 6; round++) {
      const filler = "x ".repeat(16_384 - r.below(60));
      const text = plain(`${filler}${Array.from({ length: 60 }, () => privateText(r).text).join(" ")}${filler}`);
      expect(spansOf(all, text)).toEqual(slowScan(DETECTORS, text));
    }
  });
});

test.for([
  "hvs.CAESIJ3kd8fjq2m4n6p8-123 200 OK",
  "hvs.CAESIJ3kd8fjq2m4n6p8-12.5",
  "hvs.CAESIJ3kd8fjq2m4n6p8-2026-09-03T09:28:39Z",
  `${"x ".repeat(10)}hvs.CAESIJ3kd8fjq2m4n6p8-${"1".repeat(30)} 200`,
])("a token that ends in a number is found when another number follows: %s", (text) => {
  const [span] = all(text).spans;
  expect(text.slice(span?.start, span?.end)).toMatch(/^hvs\.CAESIJ3kd8fjq2m4n6p8-[\dT-]+$/);
});

test("what lacks its beginning is no token of Asana, and no span begins before its text", () => {
  const rest = "/3120880712784224:34c14ced28c461db90f7852ec2876c5b";
  for (const text of [rest, `\n${rest}`, `x${rest}`]) expect(all(text).spans).toEqual([]);
  expect(all(`1${rest}`).spans).toMatchObject([{ start: 0, end: rest.length + 1 }]);
  expect(all(`1${rest}`, 1).spans).toMatchObject([{ start: 1, end: rest.length + 1 }]);
});

test("a scan from a place on finds what is in the rest, and looks back only for what it is about", () => {
  fc.assert(
    fc.property(glued, fc.nat(), (text, cut) => {
      const before = `${text}\n\n`;
      const from = before.length;
      const rest = `${text.slice(cut % (text.length + 1))} x@example.org`;
      const { spans } = all(before + rest);
      // A private key without an end goes on into the rest.
      fc.pre(!spans.some(({ start, end }) => start < from && end > from));
      const whole = spans.filter(({ start }) => start >= from);
      const part = all(before + rest, from).spans;
      expect(part.map(({ start, end }) => [start, end])).toEqual(whole.map(({ start, end }) => [start, end]));
    }),
    { numRuns: runs(500) },
  );
});

test("with each span goes the quote that opens its string of JSON", () => {
  const quotes = (text: string) =>
    all(text).spans.map(({ start, quote }) => [text.slice(quote, quote + 3), start > quote]);
  expect(quotes('{"a":"x@example.org","b":["say \\"y@example.org\\" z@example.org"]}')).toEqual([
    ['"x@', true],
    ['"sa', true],
    ['"sa', true],
  ]);
  const far = `{"text":"${"lorem ipsum ".repeat(10_000)}x@example.org"}`;
  expect(quotes(far)).toEqual([['"lo', true]]);
  expect(all("x@example.org").spans[0]?.quote).toBe(-1);
});
