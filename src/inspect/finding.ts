/** What an inspection finds, how heavy it is, and what follows from it. */

/** OWASP MCP Top 10, 2025 (v0.1 beta). MCP06 carries two names there; both are given. */
export const OWASP = {
  MCP01: "Token Mismanagement & Secret Exposure",
  MCP02: "Privilege Escalation via Scope Creep",
  MCP03: "Tool Poisoning",
  MCP04: "Software Supply Chain & Dependency Tampering",
  MCP05: "Command Injection & Execution",
  MCP06: "Intent Flow Subversion (Prompt Injection via Contextual Payloads)",
  MCP07: "Insufficient Authentication & Authorization",
  MCP08: "Lack of Audit & Telemetry",
  MCP09: "Shadow MCP Servers",
  MCP10: "Context Injection & Over-Sharing",
} as const;

export type OwaspId = keyof typeof OWASP;

/** The five principles of docs/architecture.md: 1 surface, 2 inputs, 3 documentation, 4 answers, 5 blast radius. */
export type Principle = 1 | 2 | 3 | 4 | 5;

export type Severity = "critical" | "high" | "medium" | "low" | "info";
export type Confidence = "high" | "medium" | "low";
export type Verdict = "block" | "review" | "clean";

export interface Finding {
  readonly rule: string;
  readonly owasp: OwaspId;
  readonly severity: Severity;
  readonly confidence: Confidence;
  /** JSON pointer (RFC 6901) into the definition; empty for the whole of it. */
  readonly where: string;
  /** The words as the author wrote them, shortened; what nobody would see is written as an escape. */
  readonly evidence: string;
  readonly why: string;
  readonly fix: string;
}

export interface Inspection {
  readonly verdict: Verdict;
  readonly findings: readonly Finding[];
  /** What makes a definition careless, not suspicious: it counts for grades, never for the verdict. */
  readonly hygiene: readonly Finding[];
}

/** Points of a finding. A rule counts once for a definition, with its heaviest finding. */
const POINTS: Readonly<Record<Severity, Readonly<Record<Confidence, number>>>> = {
  critical: { high: 100, medium: 70, low: 35 },
  high: { high: 100, medium: 50, low: 25 },
  medium: { high: 50, medium: 30, low: 15 },
  low: { high: 20, medium: 10, low: 5 },
  info: { high: 0, medium: 0, low: 0 },
};

/** A definition with so many points should not reach a model before a human has read it. */
export const BLOCK_POINTS = 100;
/** The same, when no finding is of high confidence. */
export const UNSURE_BLOCK_POINTS = 150;
/** A definition with so many points is worth a reviewer's minute. */
export const REVIEW_POINTS = 50;

export function pointsOf(finding: Pick<Finding, "severity" | "confidence">): number {
  return POINTS[finding.severity][finding.confidence];
}

/** The verdict that follows from findings: the sum of the heaviest finding of each rule against the two thresholds. */
export function verdictOf(findings: readonly Pick<Finding, "rule" | "severity" | "confidence">[]): Verdict {
  const heaviest = new Map<string, number>();
  for (const finding of findings)
    heaviest.set(finding.rule, Math.max(heaviest.get(finding.rule) ?? 0, pointsOf(finding)));
  const points = [...heaviest.values()].reduce((sum, one) => sum + one, 0);
  // In a long text weak signs add up by chance: without one that is sure, more of them are needed.
  const sure = findings.some(({ confidence }) => confidence === "high");
  return points >= (sure ? BLOCK_POINTS : UNSURE_BLOCK_POINTS) ? "block" : points >= REVIEW_POINTS ? "review" : "clean";
}
