/** The baseline can only shrink, and docs/protocol.md says what it says. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { BASELINE, expectedScore, foundScore, type Pairing, surprises } from "./baseline.ts";
import { type Failing, requiredOfServers } from "./suite.ts";

const because = "an example";
const failing = (scenario: string, check: string): Failing => ({
  scenario,
  check,
  status: "FAILURE",
  message: "it said no",
});
const found = (...all: Failing[]) => ({ scenarios: new Map([["ping", { passed: 1, total: 2 }]]), failing: all });

test("what fails and is not listed is told with its reason", () => {
  expect(surprises(found(failing("ping", "answers")), [])).toEqual(["new FAILURE: ping: answers: it said no"]);
  const other = [{ scenario: "ping", checks: ["in-time"], because }];
  expect(surprises(found(failing("ping", "in-time"), failing("ping", "answers")), other)).toHaveLength(1);
});

test("what is listed and does not fail any more has to go", () => {
  const listed = [{ scenario: "ping", checks: ["answers", "in-time"], because }];
  expect(surprises(found(failing("ping", "answers")), listed)).toEqual([
    "passes now, take it out of the baseline: ping: in-time",
  ]);
  expect(surprises(found(failing("ping", "answers"), failing("ping", "in-time")), listed)).toEqual([]);
});

test("a scenario that tried nothing does not score", () => {
  expect(foundScore(found(), ["ping", "never-tried"])).toBe("1/2");
  expect(foundScore(found(failing("ping", "answers")), ["ping"])).toBe("0/1");
});

describe("docs/protocol.md", () => {
  const page = readFileSync(join(import.meta.dirname, "../../docs/protocol.md"), "utf8");

  test("has the scores of the baseline, and no others", () => {
    const rows = (["2025-11-25", "2026-07-28"] as const).flatMap((client) =>
      (["HTTP", "stdio"] as const).flatMap((transport) =>
        (["legacy", "modern"] as const).map((upstream) => {
          const pairing: Pairing = { client, upstream, transport };
          return `| ${client} | ${upstream} | ${transport} | ${expectedScore(pairing, requiredOfServers(client).scored)} |`;
        }),
      ),
    );
    expect([...page.matchAll(/^\|.*\d+\/\d+ \|$/gm)].map(([row]) => row).sort()).toEqual(rows.sort());
  });

  test("explains every scenario of the baseline", () => {
    const named = Object.values(BASELINE).flatMap((eras) => Object.values(eras).flat());
    expect(named.map(({ scenario }) => scenario).filter((scenario) => !page.includes(`\`${scenario}\``))).toEqual([]);
  });
});
