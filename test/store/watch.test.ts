/** Rows that each process reads again and again: all in one read, often while somebody relies on it, and rarely otherwise. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { CHANGES, type Changes, watchChanges } from "../../src/store/watch.ts";

beforeEach(() => void vi.useFakeTimers());
const opened: Changes[] = [];
afterEach(() => {
  for (const changes of opened.splice(0)) changes.close();
  vi.useRealTimers();
});

/** A store whose reads are counted and can fail, and somebody who watches it. */
async function watched() {
  const { records } = memoryStore();
  const state = { reads: 0, failing: false };
  const counted: Records = {
    ...records,
    async list(kind, page) {
      state.reads++;
      if (state.failing) throw new Error("the store is away");
      return records.list(kind, page);
    },
  };
  const changes = await watchChanges(counted);
  opened.push(changes);
  const readsWithin = async (ms: number) => {
    const before = state.reads;
    await vi.advanceTimersByTimeAsync(ms);
    return state.reads - before;
  };
  return { records, state, changes, readsWithin };
}

test("one read serves everybody, and each hears of its own row only, once for each change that is seen", async () => {
  const { records, changes, readsWithin } = await watched();
  const heard: unknown[] = [];
  for (const id of ["a", "b"]) changes.on<{ n: number }>(id, (row) => heard.push([id, row?.version, row?.value.n]));
  expect(await readsWithin(1_000)).toBe(4);
  expect(heard).toEqual([]);
  await records.put(CHANGES, "a", { n: 1 });
  await records.put(CHANGES, "a", { n: 2 });
  expect(await readsWithin(1_000)).toBe(4);
  expect(heard).toEqual([["a", 2, 2]]);
  expect(changes.last("a")).toMatchObject({ version: 2 });
  await records.put(CHANGES, "b", { n: 7 });
  await records.delete(CHANGES, "a");
  await readsWithin(250);
  expect(heard.slice(1)).toEqual([
    ["a", undefined, undefined],
    ["b", 1, 7],
  ]);
});

test("while nobody relies on it the rows are read every two seconds; who comes then waits for a look", async () => {
  const { records, changes, readsWithin } = await watched();
  const heard: unknown[] = [];
  changes.on("a", (row) => heard.push(row?.version));
  await readsWithin(31_000);
  expect(await readsWithin(20_000)).toBeLessThanOrEqual(10);
  while ((await readsWithin(250)) === 0);
  await readsWithin(1_250);
  await records.put(CHANGES, "a", {});
  // What has not been looked at for so long is not called fresh, and the question begins a look.
  expect(changes.fresh()).toBe(false);
  const waking = changes.wake();
  expect(waking).toBeInstanceOf(Promise);
  await waking;
  expect(heard).toEqual([1]);
  expect([changes.fresh(), changes.wake()]).toEqual([true, undefined]);
  expect(await readsWithin(1_000)).toBe(4);
});

test("for as long as something is used the rows are read often", async () => {
  const { changes, readsWithin } = await watched();
  let used = true;
  changes.whileUsed(() => used);
  await readsWithin(60_000);
  expect(await readsWithin(1_000)).toBe(4);
  expect(changes.wake()).toBeUndefined();
  used = false;
  await readsWithin(31_000);
  expect(await readsWithin(10_000)).toBeLessThanOrEqual(5);
});

test("when the store does not answer nothing is fresh, which is told once; what it missed is told when it answers again", async () => {
  const { records, state, changes, readsWithin } = await watched();
  let stale = 0;
  const heard: unknown[] = [];
  changes.onStale(() => stale++);
  changes.on("a", (row) => heard.push(row?.version));
  state.failing = true;
  await readsWithin(3_000);
  expect([changes.fresh(), stale]).toEqual([false, 1]);
  await records.put(CHANGES, "a", {});
  state.failing = false;
  await readsWithin(250);
  expect([changes.fresh(), stale, heard]).toEqual([true, 1, [1]]);
});

test("what has to be written first is written before each look, and a write that fails is a store that does not answer", async () => {
  const { changes, readsWithin } = await watched();
  let fails = true;
  changes.before(async () => {
    if (fails) throw new Error("not yet");
  });
  expect(await readsWithin(1_000)).toBe(0);
  expect(changes.fresh()).toBe(false);
  fails = false;
  expect(await readsWithin(1_000)).toBe(4);
  expect(changes.fresh()).toBe(true);
});
