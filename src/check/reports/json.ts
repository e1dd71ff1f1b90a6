/** A report for programs. Its shape is stable: keys are added, never renamed or removed. */
import type { Finding } from "../../inspect/finding.ts";
import type { Report } from "../check.ts";

export function jsonReport({ tools }: Report): string {
  return `${JSON.stringify({
    tools: tools.map(({ index, name, verdict, findings }) => ({
      index,
      name,
      verdict,
      findings: findings.map(written),
    })),
  })}\n`;
}

function written({ rule, owasp, severity, confidence, where, evidence, why, fix }: Finding): Finding {
  return { rule, owasp, severity, confidence, where, evidence, why, fix };
}
