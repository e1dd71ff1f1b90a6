/** Writes `docs/rules/`: a page for each rule of `src/inspect/rules/`, from the rule itself. `node scripts/rules.ts` */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROBE_RULES } from "../src/check/probe/judge.ts";
import type { ProbeRule } from "../src/check/probe/probe-rule.ts";
import { OWASP, pointsOf } from "../src/inspect/finding.ts";
import type { Rule } from "../src/inspect/rule.ts";
import { HYGIENE, RULES } from "../src/inspect/rules/index.ts";
import type { SetRule } from "../src/inspect/set-rule.ts";
import { SET_RULES } from "../src/inspect/sets/index.ts";

const folder = join(import.meta.dirname, "../docs/rules");

/** Every page and the text it should have. A test compares them with what is there. */
export function rulePages(): ReadonlyMap<string, string> {
  return new Map([
    [join(folder, "README.md"), index()],
    ...[...RULES, ...HYGIENE, ...SET_RULES, ...PROBE_RULES].map((rule): [string, string] => [
      join(folder, `${rule.id}.md`),
      page(rule),
    ]),
  ]);
}

function index(): string {
  return `# Rules of \`drawbridge check\`

Written by \`node scripts/rules.ts\` from the rules themselves. How verdicts follow from them, and how often they are right, is in
[detection](../detection.md); how grades follow, in [check](../check.md).

## Suspicious definitions

These make the verdict of a tool: block, review or clean.

${table(RULES)}

## Careless definitions

These cost points of the grade, and never make a verdict.

${table(HYGIENE)}

## Servers and sets of them

Read from settings and from what several servers list. Rules of severity medium make no verdict.

${table(SET_RULES)}

## Running servers

Seen by asking: \`drawbridge check https://…/mcp\`. Examples are what the probe notes down. Rules of severity medium and lower make no
verdict.

${table(PROBE_RULES)}
`;
}

function table(rules: readonly (Rule | SetRule | ProbeRule)[]): string {
  const rows = rules.map(
    ({ id, title, owasp, principle, severity, confidence }) =>
      `| [${id}](${id}.md) | ${title} | ${owasp} | ${principle} | ${severity} | ${confidence} |`,
  );
  return ["| rule | what | OWASP MCP | principle | severity | confidence |", "|---|---|---|---|---|---|", ...rows].join(
    "\n",
  );
}

function page(rule: Rule | SetRule | ProbeRule): string {
  const set = [...SET_RULES, ...PROBE_RULES].some(({ id }) => id === rule.id);
  const careless = HYGIENE.find(({ id }) => id === rule.id);
  return `# ${rule.id}

Finds a ${set ? "server" : "tool"} that ${rule.title}.

- OWASP MCP Top 10: ${rule.owasp}, ${OWASP[rule.owasp]}
- Principle: ${rule.principle}
- Severity ${rule.severity}, confidence ${rule.confidence}. ${careless === undefined ? `${pointsOf(rule)} points; a single sign may be lighter or heavier.` : `It costs ${careless.cost} of a tool's hundred points in its principle, and makes no verdict.`}

**Why.** ${rule.why}

**What to do.** ${rule.fix}

Found, for example:

${rule.bad.map(example).join("\n")}

Left alone:

${rule.good.map(example).join("\n")}
`;
}

/** What is not seen is written as an escape: a page about hidden text hides none. */
function example(definition: object): string {
  const text = JSON.stringify(definition).replace(
    /[\p{Cc}\p{Cf}\p{Co}\p{Default_Ignorable_Code_Point}]/gu,
    (char) => `\\u{${(char.codePointAt(0) ?? 0).toString(16)}}`,
  );
  return `\`\`\`json\n${text.length > 400 ? `${text.slice(0, 400)}…` : text}\n\`\`\``;
}

if (import.meta.main) {
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of rulePages()) writeFileSync(file, text);
}
