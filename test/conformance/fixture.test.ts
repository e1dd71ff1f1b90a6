/** The everything fixture alone passes everything, so that what fails through the gateway is the gateway's. */
import { expect, test } from "vitest";
import { startFixture } from "../fixtures/processes.ts";
import { foundScore, surprises } from "./baseline.ts";
import { requiredOfServers, testServer } from "./suite.ts";

test.each([
  ["legacy", "2025-11-25"],
  ["modern", "2026-07-28"],
] as const)("the everything server (%s) passes everything that %s requires", async (era, revision) => {
  await using fixture = await startFixture("everything/http", ["--era", era]);
  const findings = await testServer(`${fixture.origin}/mcp`, revision);
  const { scored } = requiredOfServers(revision);
  expect(surprises(findings, [])).toEqual([]);
  expect(foundScore(findings, scored)).toBe(`${scored.length}/${scored.length}`);
});
