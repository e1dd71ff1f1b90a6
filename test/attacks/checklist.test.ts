/** The list of attacks is whole: each item has a test that exists, and a good request beside it that does, too. */
import { expect, test } from "vitest";
import { filesIn } from "../house/sources.ts";
import { attack, attacks } from "./checklist.ts";

const files = new Map(
  filesIn(["test"], [".test.ts"]).map(({ path, text }) => [
    path.replace(/^test\//, "").replace(/\.test\.ts$/, ""),
    // Of a test what the source says, not where its line breaks.
    text.replaceAll("\\\\", "\\"),
  ]),
);

/** Items named by `attack(…)` and `attackEach(…)`, with the files that name them. */
const tagged = new Map<number, string[]>();
for (const [file, text] of files) {
  if (file === "attacks/checklist") continue;
  for (const [, items = ""] of text.matchAll(/\battack(?:Each)?\(\s*(\[[\d,\s]+\]|\d+),/g)) {
    for (const [item] of items.matchAll(/\d+/g)) tagged.set(Number(item), [...(tagged.get(Number(item)) ?? []), file]);
  }
}

/** What is wrong with a `file: title`; undefined when there is such a test. */
function problem(named: string): string | undefined {
  const at = named.indexOf(": ");
  const [file, title] = [named.slice(0, at), named.slice(at + 2)];
  const text = files.get(file);
  if (text === undefined) return `there is no test/${file}.test.ts`;
  return text.includes(`"${title}"`) ? undefined : `test/${file}.test.ts has no test with the title ${title}`;
}

const items = Object.entries(attacks).map(([item, entry]) => ({ item: Number(item), ...entry }));

test("the list has every item from 1 to 84", () => {
  expect(items.map(({ item }) => item)).toEqual(Array.from({ length: 84 }, (_, index) => index + 1));
});

test.each(items)("attack $item is refused: $refused", ({ item, refused, tests, good }) => {
  expect(refused).toMatch(/^[A-Z].*\.$/s);
  expect(tests.length + (tagged.get(item)?.length ?? 0), "no test stands for it").toBeGreaterThan(0);
  expect([...tests, good].map(problem).filter((found) => found !== undefined)).toEqual([]);
});

test("a title that no test has is noticed", () => {
  expect(problem("attacks/sign-in: there is no such title")).toMatch(/no test with the title/);
  expect(problem("attacks/no-such-file: x")).toMatch(/there is no test/);
});

test("a test names only items that there are", () => {
  expect([...tagged.keys()].filter((item) => !Object.hasOwn(attacks, item))).toEqual([]);
  expect(() => attack(85, "never runs", () => {})).toThrow(/no attack 85/);
});
