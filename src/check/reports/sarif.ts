/** SARIF 2.1.0 (OASIS), as code scanning takes it: one rule a check also when nothing is found, stable fingerprints. */
import { OWASP, pointsOf, type Severity } from "../../inspect/finding.ts";
import { HYGIENE, RULES } from "../../inspect/rules/index.ts";
import { SET_RULES } from "../../inspect/sets/index.ts";
import type { Judged, Report } from "../check.ts";
import { PROBE_RULES } from "../probe/judge.ts";
import { plainJson } from "./plain-json.ts";

const ALL = [...RULES, ...HYGIENE, ...SET_RULES, ...PROBE_RULES];
const INDEX = new Map(ALL.map(({ id }, index) => [id, index]));
const LEVELS = {
  critical: "error",
  high: "error",
  medium: "warning",
  low: "note",
  info: "note",
} as const satisfies Record<Severity, string>;
/** What code scanning sorts by. */
const SECURITY: Readonly<Record<Severity, string>> = {
  critical: "9.5",
  high: "8.0",
  medium: "5.5",
  low: "2.5",
  info: "0.5",
};
const RULE_PAGES = "docs/rules";
const MAX_RESULTS = 25_000;

/** `version`: of the program. */
export function sarifReport(report: Report, version: string): string {
  const { target, tools, servers } = report;
  const uri = artifact(target);
  const results = [
    ...servers.flatMap(({ name, findings }) =>
      findings.map((one) => result(one, uri, name === "" ? undefined : `server ${name}`)),
    ),
    ...tools.flatMap(({ name, index, server, findings }) =>
      findings.map((one) =>
        result(one, uri, `${server === "" ? "" : `${server}/`}${name === "" ? `tool ${index}` : name}`),
      ),
    ),
  ];
  return `${plainJson(
    {
      $schema: "https://json.schemastore.org/sarif-2.1.0.json",
      version: "2.1.0",
      runs: [
        {
          tool: { driver: { name: "drawbridge", version, semanticVersion: version, rules: ALL.map(descriptor) } },
          automationDetails: { id: `drawbridge-check/${uri}` },
          results: results.slice(0, MAX_RESULTS),
          ...(report.grades !== undefined && {
            properties: { grade: report.grades.overall, score: report.grades.score },
          }),
        },
      ],
    },
    2,
  )}\n`;
}

function descriptor({ id, title, owasp, principle, severity, why, fix }: (typeof ALL)[number]) {
  return {
    id,
    name: id.replace(/(?:^|-)(\w)/g, (_, letter: string) => letter.toUpperCase()),
    shortDescription: { text: `${title[0]?.toUpperCase()}${title.slice(1)}.` },
    fullDescription: { text: why },
    help: { text: fix, markdown: `${fix}\n\nSee \`${RULE_PAGES}/${id}.md\`.` },
    defaultConfiguration: { level: LEVELS[severity] },
    properties: {
      tags: ["security", "mcp", `OWASP-${owasp}:2025`, `principle-${principle}`],
      "security-severity": SECURITY[severity],
    },
  };
}

function result(finding: Judged, uri: string, about: string | undefined) {
  const { rule, owasp, severity, confidence, where, evidence, why, fix, fingerprint, waived } = finding;
  const name = about ?? "the servers together";
  return {
    ruleId: rule,
    ruleIndex: INDEX.get(rule) ?? -1,
    level: LEVELS[severity],
    message: { text: `${name}: ${why} Found: “${evidence}”. ${fix}` },
    locations: [
      {
        physicalLocation: { artifactLocation: { uri }, region: { startLine: 1 } },
        logicalLocations: [
          {
            fullyQualifiedName: `${name}${where}`,
            kind: about?.startsWith("server ") === false ? "function" : "module",
          },
        ],
      },
    ],
    partialFingerprints: { "drawbridgeFinding/v1": fingerprint },
    ...(waived && { suppressions: [{ kind: "external", status: "accepted" }] }),
    properties: { owasp: `${owasp}:2025 ${OWASP[owasp]}`, confidence, points: pointsOf(finding) },
  };
}

/** A path as a URI reference; a command is no file, and is called so. */
function artifact(target: string): string {
  return (
    encodeURI(target.replaceAll("\\", "/").replace(/^\/+/, "")).replaceAll(/[?#]/g, encodeURIComponent) || "tools.json"
  );
}
