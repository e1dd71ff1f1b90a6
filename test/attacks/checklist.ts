/** The list of attacks that are refused, each with the tests that show it, and with the good request that shows the test is not blind. */
import { test } from "vitest";

/** `attack(30, "of twenty …", …)`: a test that stands for the named items of the list. Throws on an item that there is not. */
export function attack(items: number | readonly number[], title: string, fn: () => unknown, timeout?: number): void {
  test(named(items, title), fn, timeout);
}

/** `test.each` for the named items. */
export function attackEach<T extends string | readonly [unknown, ...unknown[]]>(
  items: number | readonly number[],
  cases: readonly T[],
  title: string,
  fn: (...args: T extends readonly unknown[] ? [...T] : [T]) => unknown,
): void {
  test.each(cases as readonly never[])(named(items, title), fn as () => void);
}

export const LAST = 84;

function named(items: number | readonly number[], title: string): string {
  const all = typeof items === "number" ? [items] : items;
  for (const item of all) if (!(item >= 1 && item <= LAST)) throw new Error(`There is no attack ${item} in the list.`);
  return `${title} [attack ${all.join(", ")}]`;
}
