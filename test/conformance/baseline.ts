/**
 * What the official suite finds wrong through the gateway, and why. This list may only shrink: a failure that is not in it fails
 * the tests, and so does an entry that passes. `docs/protocol.md` explains each line.
 */
import type { Findings, Revision } from "./suite.ts";

export type Era = "legacy" | "modern";
export type Transport = "HTTP" | "stdio";
export interface Pairing {
  /** What the suite speaks. */
  readonly client: Revision;
  /** What the server behind the gateway speaks, and how. */
  readonly upstream: Era;
  readonly transport: Transport;
}

/** A scenario that does not pass, with the checks that fail in it. */
export interface Expected {
  readonly scenario: string;
  readonly checks: readonly string[];
  readonly because: string;
  /** Only over this transport; both unless said. */
  readonly over?: Transport;
}

/** They want tools of their own. These scenarios are not scored. */
const NOT_OFFERED = /^tasks-/;

const IN_WORDS = "A legacy server that misses a capability of the client says so in the text of its answer.";

const entry = (scenario: string, because: string, ...checks: string[]): Expected => ({ scenario, checks, because });

export const BASELINE: Readonly<Record<Revision, Readonly<Record<Era, readonly Expected[]>>>> = {
  "2025-11-25": { legacy: [], modern: [] },
  "2026-07-28": {
    legacy: [
      entry(
        "server-stateless",
        IN_WORDS,
        "sep-2575-server-rejects-undeclared-capability",
        "sep-2575-missing-capability-http-400",
      ),
    ],
    modern: [],
  },
};

/** Checks that break a SHOULD: the suite warns of them, and scores the scenario all the same. */
export const ONLY_WARNED: ReadonlySet<string> = new Set();

export function expectedOf({ client, upstream, transport }: Pairing): readonly Expected[] {
  return BASELINE[client][upstream].filter(({ over = transport }) => over === transport);
}

/** How the findings differ from what is expected, in words; empty when they do not. */
export function surprises(findings: Findings, expected: readonly Expected[]): string[] {
  const known = new Set(expected.flatMap(({ scenario, checks }) => checks.map((check) => `${scenario}: ${check}`)));
  const failing = findings.failing.filter(({ scenario }) => !NOT_OFFERED.test(scenario));
  const found = new Set(failing.map(({ scenario, check }) => `${scenario}: ${check}`));
  const fresh = failing.filter(({ scenario, check }) => !known.has(`${scenario}: ${check}`));
  return [
    ...fresh.map(({ scenario, check, status, message }) => `new ${status}: ${scenario}: ${check}: ${message}`),
    ...[...known].filter((one) => !found.has(one)).map((one) => `passes now, take it out of the baseline: ${one}`),
  ];
}

/** How many of the scored scenarios the baseline says pass. */
export function expectedScore(pairing: Pairing, scored: readonly string[]): string {
  const failing = expectedOf(pairing).filter(({ checks }) => !checks.every((check) => ONLY_WARNED.has(check)));
  const failed = new Set(failing.map(({ scenario }) => scenario));
  return score(scored, failed);
}

/** How many of the scored scenarios were tried and have no failure. */
export function foundScore({ scenarios, failing }: Findings, scored: readonly string[]): string {
  const failed = new Set(failing.filter(({ status }) => status === "FAILURE").map(({ scenario }) => scenario));
  for (const name of scored) if ((scenarios.get(name)?.total ?? 0) === 0) failed.add(name);
  return score(scored, failed);
}

function score(scored: readonly string[], failed: ReadonlySet<string>): string {
  return `${scored.filter((name) => !failed.has(name)).length}/${scored.length}`;
}
