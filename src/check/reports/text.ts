/** A report for people: what to look at, in the words of the server, with the reason and the remedy. */
import { pointsOf } from "../../inspect/finding.ts";
import type { CheckedTool, Report } from "../check.ts";

export type Paint = (style: "red" | "yellow" | "green" | "dim" | "bold", text: string) => string;

const STYLES = { block: "red", review: "yellow", clean: "green" } as const;

/** Tools that are clean are counted, not listed. */
export function textReport({ tools }: Report, paint: Paint): string {
  const listed = tools.filter(({ verdict }) => verdict !== "clean");
  const count = (verdict: CheckedTool["verdict"]) => tools.filter((tool) => tool.verdict === verdict).length;
  const summary = `${tools.length} tools: ${count("block")} to block, ${count("review")} to review, ${count("clean")} clean`;
  return `${[...listed.map((tool) => section(tool, paint)), summary].join("\n")}\n`;
}

function section({ name, index, verdict, findings }: CheckedTool, paint: Paint): string {
  const heaviestFirst = [...findings].sort((one, other) => pointsOf(other) - pointsOf(one));
  const lines = heaviestFirst.flatMap(({ rule, owasp, severity, confidence, where, evidence, why, fix }) => [
    `  ${paint("bold", rule)} ${owasp}, ${severity}, confidence ${confidence}, at ${where === "" ? "/" : printable(where)}`,
    `    ${paint("dim", `“${evidence}”`)}`,
    `    ${why}`,
    `    ${fix}`,
  ]);
  return [`${paint(STYLES[verdict], verdict.padEnd(6))} ${printable(name) || `tool ${index}`}`, ...lines, ""].join(
    "\n",
  );
}

/** A name from outside must not steer the terminal. */
function printable(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\u2028\u2029]/gu, (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`)
    .slice(0, 200);
}
