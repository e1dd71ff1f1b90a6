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

/** Nobody offers the tasks extension here, so that nothing can be said about it. These scenarios are not scored. */
const NOT_OFFERED = /^tasks-/;

const NO_BRIDGE = "The gateway does not carry questions of servers to clients yet.";
const NO_QUESTIONS = "The server is told that the client can do nothing, so it asks nothing that could be refused.";

const entry = (scenario: string, because: string, ...checks: string[]): Expected => ({ scenario, checks, because });

const PUSHED: readonly Expected[] = [
  entry("tools-call-sampling", NO_BRIDGE, "tools-call-sampling"),
  entry("tools-call-elicitation", NO_BRIDGE, "tools-call-elicitation"),
  entry("elicitation-sep1034-defaults", NO_BRIDGE, "elicitation-sep1034-general"),
  entry("elicitation-sep1330-enums", NO_BRIDGE, "elicitation-sep1330-general"),
];
const ROUND_TRIPS: readonly Expected[] = [
  entry("input-required-result-basic-elicitation", NO_BRIDGE, "sep-2322-elicitation-incomplete"),
  entry("input-required-result-basic-sampling", NO_BRIDGE, "sep-2322-sampling-incomplete"),
  entry("input-required-result-basic-list-roots", NO_BRIDGE, "sep-2322-list-roots-incomplete"),
  entry("input-required-result-request-state", NO_BRIDGE, "sep-2322-request-state-incomplete"),
  entry("input-required-result-multiple-input-requests", NO_BRIDGE, "sep-2322-multiple-inputs-incomplete"),
  entry("input-required-result-multi-round", NO_BRIDGE, "sep-2322-multi-round-r1"),
  entry("input-required-result-missing-input-response", NO_BRIDGE, "sep-2322-missing-response-rerequests"),
  entry("input-required-result-non-tool-request", NO_BRIDGE, "sep-2322-non-tool-incomplete"),
  entry("input-required-result-result-type", NO_BRIDGE, "sep-2322-result-type-included"),
  entry("input-required-result-tampered-state", NO_BRIDGE, "sep-2322-reject-tampered-state"),
  entry("input-required-result-capability-check", NO_BRIDGE, "sep-2322-respect-client-capabilities"),
];

export const BASELINE: Readonly<Record<Revision, Readonly<Record<Era, readonly Expected[]>>>> = {
  "2025-11-25": { legacy: PUSHED, modern: PUSHED },
  "2026-07-28": {
    legacy: [
      ...ROUND_TRIPS,
      entry(
        "server-stateless",
        NO_QUESTIONS,
        "sep-2575-server-rejects-undeclared-capability",
        "sep-2575-missing-capability-http-400",
      ),
      entry(
        "input-required-result-validate-input",
        NO_QUESTIONS,
        "sep-2322-validate-input-responses",
        "sep-2322-error-on-protocol-error",
      ),
    ],
    modern: [
      ...ROUND_TRIPS,
      entry("input-required-result-ignore-extra-params", NO_BRIDGE, "sep-2322-ignore-unexpected-params"),
    ],
  },
};

/** Checks that break a SHOULD: the suite warns of them, and scores the scenario all the same. */
export const ONLY_WARNED: ReadonlySet<string> = new Set([
  "sep-2322-missing-response-rerequests",
  "sep-2322-validate-input-responses",
  "sep-2322-error-on-protocol-error",
  "sep-2322-ignore-unexpected-params",
]);

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
