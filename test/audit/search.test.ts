/** Searching and following a log of which retention has taken some: what it left is passed over, and ends nothing. */
import { describe, expect, test } from "vitest";
import { followRecords, searchRecords } from "../../src/audit/search.ts";
import type { Store } from "../../src/store/ports.ts";
import { everyStore } from "../store/backends.ts";
import { sinkLog } from "./sink-log.ts";

/** Leaves nothing but a hash of the records with these numbers. */
async function stubbed(store: Store, from: number, to: number): Promise<void> {
  const link = (n: number) => `"chain":{"id":"0199f7a0-0000-7000-8000-000000000000","n":${n},"prev":""}`;
  const records = Array.from({ length: to - from + 1 }, (_, at) => ({
    sequence: from + at,
    stub: `{"retired":{"hash":"${"h".repeat(43)}"},${link(from + at)}}`,
  }));
  for (let at = 0; at < records.length; at += 1000)
    await store.audit.retire({ records: records.slice(at, at + 1000), heads: [] });
}
const numbers = (found: readonly { readonly sequence: number }[]) => found.map(({ sequence }) => sequence);
const between = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

describe.each(everyStore)("in $name", ({ open }) => {
  test("a page is full as long as there are records, wherever retention was", async () => {
    await using store = await open();
    const log = sinkLog(store);
    await log.write(39);
    await stubbed(store, 5, 30);
    expect(numbers(await searchRecords(store.audit, { limit: 10 }))).toEqual([1, 2, 3, 4, ...between(31, 36)]);
    expect(numbers(await searchRecords(store.audit, { limit: 10, after: 36 }))).toEqual(between(37, 40));
    expect(numbers(await searchRecords(store.audit, { limit: 3, after: 4 }))).toEqual([31, 32, 33]);
    expect(numbers(await searchRecords(store.audit, { limit: 10, outcome: "permitted", after: 4 }))).toEqual(
      between(31, 40),
    );
    expect(numbers(await searchRecords(store.audit, { limit: 14 }))).toEqual([1, 2, 3, 4, ...between(31, 40)]);
    expect(numbers(await searchRecords(store.audit, { limit: 12, newest: true }))).toEqual([3, 4, ...between(31, 40)]);
  });
});

test("the newest are found behind thousands of which only hashes are left", async () => {
  const log = sinkLog();
  await log.write(3099);
  await stubbed(log.store, 11, 3100);
  expect(numbers(await searchRecords(log.store.audit, { limit: 4, newest: true }))).toEqual([7, 8, 9, 10]);
  expect(numbers(await searchRecords(log.store.audit, { limit: 4, newest: true, after: 8 }))).toEqual([9, 10]);
});

test("following begins with the newest records, not with the first, and goes on past what was taken out", async () => {
  const log = sinkLog();
  await log.write(19);
  await stubbed(log.store, 13, 20);
  const stop = new AbortController();
  let waits = 0;
  const wait = async () => {
    if (++waits === 1) await log.write(5);
    else if (waits === 2) {
      // Taken before anybody has followed so far.
      await log.write(3);
      await stubbed(log.store, 26, 27);
    } else stop.abort();
  };
  const seen: number[] = [];
  for await (const { sequence } of followRecords(log.store.audit, { limit: 2 }, stop.signal, undefined, wait))
    seen.push(sequence);
  expect(seen).toEqual([11, 12, ...between(21, 25), 28]);
});
