/** The rules about running servers, and the judging of what was seen of one. */
import type { SetFinding } from "../../inspect/set-rule.ts";
import { accessRules } from "./access.ts";
import { authorizationRules } from "./authorization.ts";
import { discoveryRules } from "./discovery.ts";
import { endpointRules } from "./endpoint.ts";
import type { Observed } from "./observed.ts";
import type { ProbeRule } from "./probe-rule.ts";

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

/** Answers are strangers' words: nothing in them may steer a terminal. */
function printable(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu,
    (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`,
  );
}
