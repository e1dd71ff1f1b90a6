/** The shape of a rule about a running server. */
import type { Confidence, OwaspId, Principle, Severity } from "../../inspect/finding.ts";
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

/** A finding for an attempt that should have been refused and was taken. */
export function* taken(attempt: Attempt | undefined, where: string, what: string): Generator<ProbeSighting> {
  if (attempt?.outcome === "taken")
    yield {
      where,
      evidence: `${what}: ${attempt.said}`,
      ...(attempt.unsure === true && { confidence: "medium" as const }),
    };
}
