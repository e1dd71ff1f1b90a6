/** A report to paste into a pull request or a review. */
import { HYGIENE } from "../../inspect/rules/index.ts";
import type { Judged, Report } from "../check.ts";

const CARELESS = new Set(HYGIENE.map(({ id }) => id));
const MAX_ROWS = 200;

export function markdownReport({ target, tools, servers, grades, waivers, unread, untested }: Report): string {
  const about = [
    ...servers.map(({ name, verdict, findings }) => ({
      name: name === "" ? "the servers together" : `server ${name}`,
      verdict,
      findings,
    })),
    ...tools.map(({ name, index, verdict, findings }) => ({
      name: name === "" ? `tool ${index}` : name,
      verdict,
      findings,
    })),
  ];
  const rows = (careless: boolean) =>
    about.flatMap(({ name, verdict, findings }) =>
      findings
        .filter(({ waived, rule }) => !waived && CARELESS.has(rule) === careless)
        .map((finding) => row(name, careless ? "" : verdict, finding)),
    );
  const section = (title: string, all: readonly string[]) =>
    all.length === 0
      ? []
      : [
          `## ${title}`,
          "",
          "| what | verdict | rule | severity | where | evidence |",
          "|---|---|---|---|---|---|",
          ...all.slice(0, MAX_ROWS),
          ...(all.length > MAX_ROWS ? ["", `… and ${all.length - MAX_ROWS} more.`] : []),
          "",
        ];
  return [
    `# ${cell(target)}${grades === undefined ? "" : `: ${grades.overall} (${grades.score} of 100)`}`,
    "",
    ...(grades === undefined ? [] : ["| principle | grade | score | findings |", "|---|---|---|---|"]),
    ...(grades?.principles ?? []).map(
      ({ principle, title, grade, score, findings }) =>
        `| ${principle}. ${title} | ${grade} | ${score} | ${findings} |`,
    ),
    "",
    ...section("Suspicious", rows(false)),
    ...section("Careless", rows(true)),
    ...unread.map(({ server, problem }) => `- not read: ${cell(server)}: ${cell(problem)}`),
    ...untested.map((what) => `- not tested: ${cell(what)}`),
    `${tools.length} tools checked, ${waivers.used} findings waived, ${waivers.expired.length} waivers expired.`,
    "",
  ].join("\n");
}

function row(name: string, verdict: string, { rule, severity, where, evidence }: Judged): string {
  return `| ${[name, verdict, rule, severity, where === "" ? "/" : where, evidence].map(cell).join(" | ")} |`;
}

/** Text from outside makes neither markup nor a further column. */
function cell(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu, " ")
    .replace(/[\\`*_{}[\]<>#|!~&@]/g, (char) => `&#${char.charCodeAt(0)};`)
    .slice(0, 300);
}
