/** Strings without a bound, objects of any shape, properties that nobody declared. */
import { saying } from "../fixture.ts";
import { isObject, parametersOf, takesAnyObject, takesAnyText } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const broadInput: Rule = {
  id: "broad-input",
  title: "accepts more than it needs",
  owasp: "MCP05",
  principle: 2,
  severity: "low",
  confidence: "high",
  cost: 7,
  why: "What the schema does not refuse reaches the server: an injection, a megabyte, a field that nobody thought of.",
  fix: "Bound every string (enum, pattern, format, maxLength), declare the shape of objects, set additionalProperties to false.",
  bad: [
    saying("Finds.", { id: { type: "string" } }),
    saying("Saves.", { data: { type: "object" } }),
    { name: "anything", description: "Takes anything." },
  ],
  good: [
    saying(
      "Finds.",
      { id: { type: "string", pattern: "^[A-Z]{3}$" } },
      closed({ id: { type: "string", pattern: "^[A-Z]{3}$" } }),
    ),
  ],
  find: found,
};

function closed(properties: Record<string, { type: string; pattern: string }>) {
  return { inputSchema: { type: "object", properties, additionalProperties: false } };
}

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  const schema = subject.value["inputSchema"];
  if (!isObject(schema)) {
    yield { field: { where: "", text: subject.name }, note: "no input schema" };
    return;
  }
  for (const { where, name, schema: one } of parametersOf(subject.value)) {
    if (takesAnyObject(one)) yield { field: { where, text: name }, note: "an object of any shape" };
    else if (takesAnyText(one)) yield { field: { where, text: name }, note: "any text of any length" };
  }
  if (schema["additionalProperties"] !== false)
    yield {
      field: { where: "/inputSchema", text: subject.name },
      severity: "info",
      note: "properties that are not declared are let in",
    };
}
