/** Claims about specifications are traceable to the test that stands for them. */
import { expect, test } from "vitest";
import { pending, requirements, verifies } from "../requirements.ts";
import { filesIn } from "./sources.ts";

const CALL = /\bverifies(?:Each)?\(\s*(\[[^\]]*\]|"[^"]+")/g;

const verified = new Map<string, string[]>();
for (const { path, text } of filesIn(["test"], [".test.ts"])) {
  if (path === "test/house/requirements.test.ts") continue;
  for (const [, ids = ""] of text.matchAll(CALL)) {
    for (const [, id = ""] of ids.matchAll(/"([^"]+)"/g)) verified.set(id, [...(verified.get(id) ?? []), path]);
  }
}

test("every requirement is verified by a test or known to be pending", () => {
  const waiting = new Set<string>(pending);
  const unverified = Object.keys(requirements).filter((id) => !verified.has(id) && !waiting.has(id));
  expect(unverified, "verified by nothing: write verifies(id, …) or, for something new, its test first").toEqual([]);
  if (pending.length > 0) console.log(`${pending.length} requirements wait for their test: ${pending.join(", ")}`);
});

test("the list of pending requirements only shrinks", () => {
  expect(
    pending.filter((id) => verified.has(id)),
    "verified now: take them out of `pending` in test/requirements.ts",
  ).toEqual([]);
  expect(new Set(pending).size).toBe(pending.length);
});

test("tests name only requirements that exist", () => {
  expect([...verified.keys()].filter((id) => !Object.hasOwn(requirements, id))).toEqual([]);
  const unknown = "no-such-clause" as keyof typeof requirements;
  expect(() => verifies(unknown, "never runs", () => {})).toThrow(/no requirement no-such-clause/);
});

test("every requirement has a clause of its own publisher and a sentence", () => {
  for (const [id, { clause, sentence }] of Object.entries(requirements)) {
    expect(clause, id).toMatch(
      /^https:\/\/(modelcontextprotocol\.io\/specification|github\.com\/modelcontextprotocol\/ext-\w+\/blob|www\.rfc-editor\.org\/rfc|datatracker\.ietf\.org\/doc\/html)\/\S+$/,
    );
    expect(sentence, id).toMatch(/^\S.*\.$/);
  }
});
