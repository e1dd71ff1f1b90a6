/** Time grows with the length and with nothing else: the worst texts we could think of, for every detector. */
import { describe, expect, test } from "vitest";
import { DETECTORS } from "../../src/mask/detectors/all.ts";
import { compilePatterns } from "../../src/mask/patterns.ts";
import { amy, masking } from "./masking.ts";

const SIZE = 100_000;
const { masker } = masking({
  patterns: {
    nested: { pattern: "(a+)+$" },
    ranges: { pattern: "([a-z]+[0-9]*)*x!" },
    plain: { pattern: "EMP-[0-9]{6}" },
  },
});

const WORST: Readonly<Record<string, string>> = {
  "e-mail without end": "a@",
  "long local parts": `${"a".repeat(64)}@`,
  "long domains": `@${"a.".repeat(120)}`,
  "spelled out": "a [at] b [dot] ",
  "numbers in groups": "1-1-1-1-",
  "phone groups": "123 456 7890 ",
  "numbers after a word": "phone 1234567 ",
  "international numbers": "+1 ",
  "cards in rows": "4111 1111 1111 1112 ",
  "one number": "7",
  "addresses with dots": "1.2.3.4.",
  colons: "::",
  "groups of hex": "abcd:1234:",
  URLs: "a://a:",
  "URLs with users": "a://a:b@",
  "names of passwords": "password=",
  "quoted names": '"token":"',
  "names in backslashes": '\\\\"secret\\\\":\\\\"',
  "long values": `secret=${"a1B".repeat(300)}`,
  keys: "sk-",
  "dotted keys": "hvs.SG.",
  "JWT headers": "eyJhbGciOiJIUzI1NiJ9.",
  "private keys without end": "-----BEGIN PRIVATE KEY-----\nAAAA\n",
  "private keys on one line": "-----BEGIN PRIVATE KEY----- ",
  footers: "-----BEGIN PRIVATE KEY----------END ",
  accounts: "GB82 WEST ",
  "national numbers": "AB 12 34 56 ",
  letters: "a",
  backslashes: "\\",
  escapes: "\\u0061\\/",
  "other digits": "١٢٣ ",
  invisible: "\u200b1",
  quotes: '"',
  brackets: "[",
  "PuTTY keys": "Private-Lines: 1\nAAAA",
  "beginnings of keys of ssh.com": "P2/56wAAAAAA",
  "keys of ssh.com": `---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n${"P2/56wAAAAAAAAAA\n".repeat(2000)}`,
  "users in other scripts": "用户@例え.",
  "users of Oracle": "oracle:thin:a/b@",
  flags: "--password a1 --access-token ",
  "keys of base64": "fm2_aaaaaaaaaa/",
  "zeros before countries": "00 011 0800 ",
  tables: "| token | secret ",
  bearer: "Bearer aaaaaaaaaaaaaaaa",
};

function milliseconds(work: () => unknown): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 5; round++) {
    const started = process.cpuUsage();
    work();
    const { user, system } = process.cpuUsage(started);
    best = Math.min(best, (user + system) / 1000);
  }
  return best;
}

const filled = (unit: string, size: number): string => unit.repeat(Math.ceil(size / unit.length)).slice(0, size);

describe("100 kB of the worst are masked in a time that is twice that of 50 kB", () => {
  const units = [
    ...Object.entries(WORST),
    ...DETECTORS.flatMap(({ type, hits }) =>
      hits.slice(0, 2).map(([text], index) => [`${type} ${index}`, `${text} `] as const),
    ),
  ];
  test.for(units)("%s", ([, unit]) => {
    const [half, full] = [filled(unit, SIZE / 2), filled(unit, SIZE)];
    const [first, second] = [milliseconds(() => masker.text(half, amy)), milliseconds(() => masker.text(full, amy))];
    // Generous: the machine is shared, and short times say little.
    expect(second).toBeLessThan(Math.max(150, first * 5));
    const [inside, within] = [JSON.stringify({ t: half }), JSON.stringify({ t: full })];
    const [third, fourth] = [
      milliseconds(() => masker.json(inside, amy)),
      milliseconds(() => masker.json(within, amy)),
    ];
    expect(fourth).toBeLessThan(Math.max(150, third * 5));
  });
});

test.each([
  ["KUNDE-\\d+( .*?ENDE)?", "KUNDE-1 "],
  ["a(.*b)?", "a"],
])(
  "an operator's pattern %s that looks far beyond each match gives up, and the answer is withheld",
  (pattern, unit) => {
    const [slow] = compilePatterns({ slow: { pattern, do: "redact" } });
    const text = unit.repeat(SIZE / unit.length);
    const started = process.cpuUsage();
    expect(() => slow?.findAll(text, 0, () => {})).toThrow("cannot be looked through");
    const { user, system } = process.cpuUsage(started);
    expect((user + system) / 1000).toBeLessThan(2_000);
  },
);

test("an operator's pattern with many matches is not given up while it takes linear time", () => {
  const [pattern] = compilePatterns({ staff: { pattern: "EMP-[0-9]+", do: "redact" } });
  let found = 0;
  pattern?.findAll("EMP-1 ".repeat(SIZE / 6), 0, () => found++);
  expect(found).toBe(Math.floor(SIZE / 6));
});
