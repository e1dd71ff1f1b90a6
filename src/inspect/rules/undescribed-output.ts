/** Tools that do not say what comes back. */
import { saying } from "../fixture.ts";
import { isObject } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const undescribedOutput: Rule = {
  id: "undescribed-output",
  title: "does not say what it returns",
  owasp: "MCP10",
  principle: 4,
  severity: "low",
  confidence: "high",
  cost: 30,
  why: "Without an output schema nothing bounds an answer: whole records, fields added later, other people's data.",
  fix: "Declare an outputSchema with the fields that an agent needs, and additionalProperties false.",
  bad: [saying("Gets a customer."), saying("Gets.", {}, { outputSchema: { type: "object" } })],
  good: [
    saying("Gets.", {}, { outputSchema: { type: "object", properties: { status: { type: "string" } } } }),
    saying("Counts.", {}, { outputSchema: { type: "integer" } }),
  ],
  find: found,
};

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  const output = subject.value["outputSchema"];
  if (!isObject(output)) yield { field: { where: "", text: subject.name }, note: "no outputSchema" };
  else if (
    output["type"] === "object" &&
    !["properties", "anyOf", "oneOf", "allOf", "$ref"].some((key) => key in output)
  )
    yield { field: { where: "/outputSchema", text: subject.name }, note: "an object of any shape" };
}
