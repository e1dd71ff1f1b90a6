/** A few of the two hundred kills of `killed.ts`. */
import { expect, test } from "vitest";
import { killAgainAndAgain } from "./killed.ts";

test("a gateway that is killed under load has recorded every call that it answered, and the log verifies", async () => {
  const report = await killAgainAndAgain(4, 7);
  expect(report.broken).toEqual([]);
  expect(report.answered).toBeGreaterThan(0);
}, 600_000);
