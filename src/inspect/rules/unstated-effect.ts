/** Tools that do not say whether they change anything. */
import { saying } from "../fixture.ts";
import { isObject } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const unstatedEffect: Rule = {
  id: "unstated-effect",
  title: "does not say whether it changes anything",
  owasp: "MCP02",
  principle: 5,
  severity: "low",
  confidence: "medium",
  cost: 20,
  why: "Without a hint a client has to ask the user about every call, or about none; people soon allow everything.",
  fix: "Set readOnlyHint for what only reads, and destructiveHint for the rest.",
  bad: [saying("Lists orders.")],
  good: [
    saying("Lists orders.", {}, { annotations: { readOnlyHint: true } }),
    saying("Adds an order.", {}, { annotations: { readOnlyHint: false, destructiveHint: false } }),
  ],
  find: found,
};

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  const hints = subject.value["annotations"];
  const stated =
    isObject(hints) && (typeof hints["readOnlyHint"] === "boolean" || typeof hints["destructiveHint"] === "boolean");
  if (!stated) yield { field: { where: "", text: subject.name }, note: "neither readOnlyHint nor destructiveHint" };
}
