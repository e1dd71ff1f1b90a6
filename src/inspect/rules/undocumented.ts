/** Tools and parameters that say nothing of themselves. */
import { saying } from "../fixture.ts";
import { isObject, parametersOf } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const undocumented: Rule = {
  id: "undocumented",
  title: "does not say what it does",
  owasp: "MCP03",
  principle: 3,
  severity: "low",
  confidence: "high",
  cost: 40,
  why: "A model that has to guess uses the wrong tool with the wrong arguments, and a reviewer cannot tell what is normal.",
  fix: "Say in one or two sentences what it does, when to use it and what comes back; and what each parameter holds.",
  bad: [
    { name: "go", inputSchema: { type: "object" } },
    saying("Get customer", { customer_id: { type: "string" } }, { name: "get_customer" }),
  ],
  good: [
    saying("Looks up one customer by number. Returns name and status.", {
      id: { type: "string", description: "The number, e.g. CUS-0001." },
    }),
  ],
  find: found,
};

/** A description of fewer words repeats the name. */
const FEW = 5;

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  const description = subject.value["description"];
  const text = typeof description === "string" ? description.trim() : "";
  // Scripts without spaces say as much in fewer pieces.
  const words = /[\u3040-\u9fff\uac00-\ud7af]/.test(text) ? text.length / 2 : text.split(/\s+/).filter(Boolean).length;
  if (words < FEW)
    yield text === ""
      ? { field: { where: "", text: subject.name }, note: "no description" }
      : { field: { where: "/description", text }, note: "says no more than the name" };
  const silent = parametersOf(subject.value).filter(
    ({ schema, depth }) => depth === 0 && typeof schema["description"] !== "string" && !isObject(schema["$ref"]),
  );
  for (const { where, name } of silent) yield { field: { where, text: name }, severity: "info", note: "not described" };
}
