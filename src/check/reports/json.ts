/** A report for programs. Its shape is stable: keys are added, never renamed or removed. `schema/check-report.schema.json` tells it. */
import type { Judged, Report } from "../check.ts";
import { plainJson } from "./plain-json.ts";

export function jsonReport({ tools, servers, grades, waivers, unread, untested }: Report): string {
  if (grades === undefined)
    return `${plainJson({
      tools: tools.map(({ index, name, verdict, findings }) => ({
        index,
        name,
        verdict,
        findings: findings.map(bare),
      })),
    })}\n`;
  return `${plainJson({
    tools: tools.map(({ index, name, server, verdict, findings }) => ({
      index,
      name,
      ...(server !== "" && { server }),
      verdict,
      findings: findings.map(written),
    })),
    servers: servers.map(({ name, verdict, findings }) => ({ name, verdict, findings: findings.map(written) })),
    grades,
    waivers: { used: waivers.used, expired: waivers.expired.length, unused: waivers.unused.length },
    unread,
    untested,
  })}\n`;
}

function written(finding: Judged) {
  const { fingerprint, waived } = finding;
  return { ...bare(finding), fingerprint, waived };
}

function bare({ rule, owasp, severity, confidence, where, evidence, why, fix }: Judged) {
  return { rule, owasp, severity, confidence, where, evidence, why, fix };
}
