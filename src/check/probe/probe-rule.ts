/** The shape of a rule about a running server, and the judging of what was seen of one. */
import type { Confidence, OwaspId, Principle, Severity } from "../../inspect/finding.ts";
import type { SetFinding } from "../../inspect/set-rule.ts";
import { accessRules } from "./access.ts";
import { authorizationRules } from "./authorization.ts";
import { discoveryRules } from "./discovery.ts";
import { endpointRules } from "./endpoint.ts";
import type { Attempt, Observed } from "./observed.ts";

export interface ProbeSighting {
  /** A JSON pointer into what was seen. */
  readonly where: string;
  readonly evidence: string;
  readonly severity?: Severity;
  readonly confidence?: Confidence;
}

/** A rule over what a probe saw; its page is in docs/rules/. */
export interface ProbeRule {
  readonly id: string;
  readonly title: string;
  readonly owasp: OwaspId;
  readonly principle: Principle;
  readonly severity: Severity;
  readonly confidence: Confidence;
  readonly why: string;
  readonly fix: string;
  readonly bad: readonly Partial<Observed>[];
  readonly good: readonly Partial<Observed>[];
  readonly find: (seen: Observed) => Iterable<ProbeSighting>;
}

/** Every rule of the live probe, in the order in which a client meets what they are about. */
export const PROBE_RULES: readonly ProbeRule[] = [
  ...accessRules,
  ...discoveryRules,
  ...authorizationRules,
  ...endpointRules,
];

const MAX_EVIDENCE = 200;

/** What the rules hold against a server. Pure. */
export function judgeProbe(seen: Observed, server: string): readonly SetFinding[] {
  return PROBE_RULES.flatMap(({ find, ...rule }) =>
    [...find(seen)].map(
      ({ where, evidence, severity = rule.severity, confidence = rule.confidence }): SetFinding => ({
        rule: rule.id,
        owasp: rule.owasp,
        severity,
        confidence,
        server,
        where,
        evidence: printable(evidence).slice(0, MAX_EVIDENCE),
        why: rule.why,
        fix: rule.fix,
      }),
    ),
  );
}

/** A finding for an attempt that should have been refused and was taken. */
export function* taken(attempt: Attempt | undefined, where: string, what: string): Generator<ProbeSighting> {
  if (attempt?.outcome === "taken") yield { where, evidence: `${what}: ${attempt.said}` };
}

/** Answers are strangers' words: nothing in them may steer a terminal. */
function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`);
}
