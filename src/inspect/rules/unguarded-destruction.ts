/** Tools that destroy, pay or run without a word to the client that a person should be asked. */
import { saying } from "../fixture.ts";
import { isObject, parametersOf, verbsOf } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const unguardedDestruction: Rule = {
  id: "unguarded-destruction",
  title: "cannot be taken back, and does not ask",
  owasp: "MCP02",
  principle: 5,
  severity: "low",
  confidence: "medium",
  cost: 50,
  why: "A wrong guess of the model is final: deleted, paid, overwritten. Clients ask a person only about what says that it destroys.",
  fix: "Set destructiveHint, take a confirmation or a dry run as a parameter, or serve it with a person's approval.",
  bad: [
    saying("Deletes a customer.", {}, { name: "delete_customer" }),
    saying("Pays.", {}, { name: "approve_refund" }),
  ],
  good: [
    saying("Deletes a customer.", {}, { name: "delete_customer", annotations: { destructiveHint: true } }),
    saying("Deletes a customer.", { confirm: { type: "boolean" } }, { name: "delete_customer" }),
    saying("Lists deleted customers.", {}, { name: "list_deleted_customers" }),
  ],
  find: found,
};

const FINAL =
  /^(?:delete|remove|drop|destroy|purge|wipe|erase|truncate|terminate|uninstall|revoke|reset|cancel|pay|refund|transfer|approve|run|execute|exec|eval|kill)$/;
const GUARD = /(?:^| )(?:confirm|confirmation|confirmed|dry run|force|approved by|preview)(?: |$)/;

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  const [verb = ""] = verbsOf(subject.name);
  if (!FINAL.test(verb)) return;
  const hints = subject.value["annotations"];
  if (isObject(hints) && (hints["destructiveHint"] === true || hints["readOnlyHint"] === true)) return;
  if (parametersOf(subject.value).some(({ words }) => GUARD.test(words) && words !== "approved by")) return;
  yield { field: { where: "/name", text: subject.name } };
}
