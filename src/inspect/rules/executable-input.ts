/** Parameters that are run: SQL, commands, code. */
import { saying } from "../fixture.ts";
import { parametersOf, takesAnyText } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const executableInput: Rule = {
  id: "executable-input",
  title: "takes text that is run: SQL, a command, code",
  owasp: "MCP05",
  principle: 2,
  severity: "low",
  confidence: "high",
  cost: 80,
  why: "Whoever can write a statement or a command can do all that the server may. One such tool makes every other limit void.",
  fix: "Offer the few statements that are needed as tools of their own, with parameters; or do not serve this one.",
  bad: [
    saying("Runs a query.", { sql: { type: "string" } }, { name: "run_sql" }),
    saying("Runs it.", { command: { type: "string" } }, { name: "run_command" }),
  ],
  good: [
    saying("Runs a report.", { report: { enum: ["sales", "stock"] } }),
    saying("Finds products.", { query: { type: "string", maxLength: 80 } }, { name: "search_products" }),
  ],
  find: found,
};

const RUN =
  /^(?:(?:raw |custom |full )?(?:sql|cypher|graphql|promql|logql|kql|flux|soql|jql)(?: (?:query|statement|string|text))?|commands?|cmd|shell|bash|powershell|script|code|javascript|python|expression|eval|statement|where(?: clause)?|js function|function|template code)$/;
const RUNS = /^(?:run|execute|exec|eval|evaluate|shell|sql|raw|python|javascript)$/;

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  const runs = subject.name
    .toLowerCase()
    .split(/[^a-z]+/)
    .some((word) => RUNS.test(word));
  for (const { words, where, name, schema } of parametersOf(subject.value)) {
    if (schema["enum"] !== undefined || schema["const"] !== undefined) continue;
    const asked = RUN.test(words) || (runs && /^(?:query|q|input|args|arguments|text)$/.test(words));
    if (asked && (takesAnyText(schema) || schema["type"] === "string"))
      yield { field: { where, text: name }, note: "run as it comes" };
  }
}
