/** The table in README.md is what the desk and its contracts measure today. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { measure, withTable } from "../../scripts/before-after.ts";
import { root } from "./sources.ts";

test("the table in README.md is what `node scripts/before-after.ts` measures, and both ways keep their promises", {
  timeout: 60_000,
}, async () => {
  const measured = await measure();
  const readme = readFileSync(join(root, "README.md"), "utf8");
  expect(readme, "stale: node scripts/before-after.ts").toBe(withTable(readme, measured));

  const { alone, contracted, again, allColumns } = measured;
  expect([alone.grade, contracted.grade, again.grade]).toEqual(["F", "A", "A"]);
  expect(again.tools * 4).toBeLessThanOrEqual(alone.tools);
  expect(again.unbounded).toBe(0);
  expect(contracted.tools * 3).toBeLessThanOrEqual(alone.tools);
  expect(contracted.unbounded).toBe(0);
  expect(contracted.personal).toBeLessThanOrEqual(1);
  expect(alone.columns).toBe(allColumns);
  expect(contracted.largestBytes).toBeLessThan(alone.largestBytes);
  expect(contracted.allBytes * 2).toBeLessThan(alone.allBytes);
});
