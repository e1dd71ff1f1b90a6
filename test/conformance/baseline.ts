/**
 * What the official suite finds wrong through the gateway, and why. This list may only shrink: a failure that is not in it fails
 * the tests, and so does an entry that passes. `docs/protocol.md` explains each line.
 */
import type { Findings, Revision } from "./suite.ts";

export type Era = "legacy" | "modern";
export interface Pairing {
  /** What the suite speaks. */
  readonly client: Revision;
  /** What the server behind the gateway speaks, and how. */
  readonly upstream: Era;
  readonly transport: "HTTP" | "stdio";
}

export interface Expected {
  readonly scenario: string;
  readonly checks: readonly string[];
  readonly because: string;
}

/** Nobody offers the tasks extension here, so that nothing can be said about it. These scenarios are not scored. */
export const NOT_OFFERED = /^tasks-/;

/** By `nameOf(pairing)`. */
export const BASELINE: Readonly<Record<string, readonly Expected[]>> = {};

export function nameOf({ client, upstream, transport }: Pairing): string {
  return `${client} client, ${upstream} server over ${transport}`;
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

/** Scored scenarios without a failure, of all of them. */
export function scoreOf(findings: Findings, scored: readonly string[]): string {
  const failed = new Set(findings.failing.filter(({ status }) => status === "FAILURE").map(({ scenario }) => scenario));
  return `${scored.filter((name) => !failed.has(name)).length}/${scored.length}`;
}
