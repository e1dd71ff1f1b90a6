/** A report for people: grades, then what to look at, in the words of the server, with the reason and the remedy. */
import { pointsOf } from "../../inspect/finding.ts";
import { HYGIENE } from "../../inspect/rules/index.ts";
import type { CheckedTool, Judged, Report } from "../check.ts";
import type { Grade } from "../grade.ts";

export type Paint = (style: "red" | "yellow" | "green" | "dim" | "bold", text: string) => string;

const STYLES = { block: "red", review: "yellow", clean: "green" } as const;
const GRADE_STYLES = { A: "green", B: "green", C: "yellow", D: "red", F: "red" } as const satisfies Record<
  Grade,
  string
>;
const CARELESS = new Map(HYGIENE.map((rule) => [rule.id, rule]));
/** Lines fit a terminal of this many columns. */
const COLUMNS = 80;
const MAX_NAMES = 4;

/** What is careless is told by rule, not by tool: one line for many. */
export function textReport(report: Report, paint: Paint): string {
  const { tools, servers, waivers, unread, untested } = report;
  const suspicious = ({ rule, waived }: Judged) => !waived && !CARELESS.has(rule);
  const listed = tools.filter(({ verdict }) => verdict !== "clean");
  const lines = [
    ...table(report, paint),
    ...listed.flatMap(({ name, index, verdict, findings }) =>
      section(verdict, printable(name) || `tool ${index}`, findings.filter(suspicious), paint),
    ),
    ...servers.flatMap(({ name, verdict, findings }) => {
      const counted = findings.filter(({ waived }) => !waived);
      return counted.length === 0
        ? []
        : section(verdict, name === "" ? "the servers together" : `server ${printable(name)}`, counted, paint);
    }),
    ...careless(tools, paint),
    ...unread.flatMap(({ server, problem }) =>
      wrapped(`not read: ${printable(server)}: ${printable(problem, 400)}`, ""),
    ),
    ...untested.flatMap((what) => wrapped(`not tested: ${printable(what, 400)}`, "")),
    ...waivers.expired.map(({ rule, about, expires }) => `waiver expired on ${expires}: ${rule}, ${printable(about)}`),
    summary(report),
  ];
  return `${lines.join("\n")}\n`;
}

function table({ grades }: Report, paint: Paint): readonly string[] {
  if (grades === undefined) return [];
  const row = (title: string, grade: Grade, score: number, note: string) =>
    `  ${title.padEnd(32)} ${paint(GRADE_STYLES[grade], grade)}  ${String(score).padStart(3)}  ${bar(score)}  ${note}`;
  return [
    ...grades.principles.map(({ principle, title, grade, score, findings }) =>
      row(
        `${principle} ${title}`,
        grade,
        score,
        findings === 0 ? "" : `${findings} finding${findings === 1 ? "" : "s"}`,
      ),
    ),
    paint("bold", row("Overall", grades.overall, grades.score, "").trimEnd()),
    "",
  ];
}

function bar(score: number): string {
  const full = Math.round(score / 10);
  return "█".repeat(full) + "░".repeat(10 - full);
}

function section(
  verdict: keyof typeof STYLES,
  title: string,
  findings: readonly Judged[],
  paint: Paint,
): readonly string[] {
  const heaviestFirst = [...findings].sort((one, other) => pointsOf(other) - pointsOf(one));
  return [
    `${paint(STYLES[verdict], verdict.padEnd(6))} ${title.slice(0, COLUMNS - 8)}`,
    ...heaviestFirst.flatMap(({ rule, owasp, severity, confidence, where, evidence, why, fix }) => [
      `  ${paint("bold", rule)} ${owasp}, ${severity}, confidence ${confidence}`,
      ...wrapped(`at ${where === "" ? "/" : printable(where)}`, "    "),
      ...wrapped(`“${evidence}”`, "    ").map((line) => paint("dim", line)),
      ...wrapped(why, "    "),
      ...wrapped(fix, "    "),
    ]),
    "",
  ];
}

function careless(tools: readonly CheckedTool[], paint: Paint): readonly string[] {
  return [...CARELESS.values()].flatMap(({ id, title, fix }) => {
    const bearing = tools.filter(({ findings }) => findings.some(({ rule, waived }) => rule === id && !waived));
    if (bearing.length === 0) return [];
    const names = bearing.slice(0, MAX_NAMES).map(({ name, index }) => printable(name, 40) || `tool ${index}`);
    const more = bearing.length > MAX_NAMES ? ` and ${bearing.length - MAX_NAMES} more` : "";
    const heading = `${id}: ${bearing.length} of ${tools.length} ${title}`;
    return [
      ...wrapped(heading, "").map((line) => paint("bold", line)),
      ...wrapped(`${names.join(", ")}${more}`, "  "),
      ...wrapped(fix, "  "),
      "",
    ];
  });
}

function summary({ tools, waivers }: Report): string {
  const count = (verdict: CheckedTool["verdict"]) => tools.filter((tool) => tool.verdict === verdict).length;
  const waived = waivers.used === 0 ? "" : `; ${waivers.used} findings waived`;
  if (tools.length === 0) return `No tools were read: grades say nothing of them${waived}`;
  return `${tools.length} ${tools.length === 1 ? "tool" : "tools"}: ${count("block")} to block, ${count("review")} to review, ${count("clean")} clean${waived}`;
}

function wrapped(text: string, indent: string): readonly string[] {
  const width = COLUMNS - indent.length;
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = "";
    }
    line = line === "" ? word : `${line} ${word}`;
    while (line.length > width) {
      lines.push(line.slice(0, width));
      line = line.slice(width);
    }
  }
  if (line !== "") lines.push(line);
  return lines.map((one) => indent + one);
}

/** A name from outside must not steer the terminal. */
function printable(text: string, most = 200): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`)
    .slice(0, most);
}
