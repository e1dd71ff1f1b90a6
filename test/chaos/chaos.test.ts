/** Twenty seconds of the long run (`run.ts`). */
import { expect, test } from "vitest";
import { chaos } from "./chaos.ts";

test("while servers and the gateway are killed, stopped, replaced and reloaded, each call ends once, and nothing is left", async () => {
  const report = await chaos({ seconds: 20, seed: 7, callers: 8 });
  expect(report.broken).toEqual([]);
  expect(Object.values(report.calls).some((row) => (row["answered"] ?? 0) > 0)).toBe(true);
}, 600_000);
