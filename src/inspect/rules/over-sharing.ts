/** Tools that hand out whole records, or as many as there are. */
import { saying } from "../fixture.ts";
import { isObject, parametersOf, verbsOf } from "../parameters.ts";
import type { Rule, Sighting, Subject } from "../rule.ts";

export const overSharing: Rule = {
  id: "over-sharing",
  title: "returns more than an agent needs",
  owasp: "MCP10",
  principle: 4,
  severity: "low",
  confidence: "medium",
  cost: 30,
  why: "Whatever is returned stands in the model's context: it costs, it can be carried out, and others may read it later.",
  fix: "Return the few fields that are needed, bound lists by a limit with a maximum, and mask what is private.",
  bad: [
    saying("Exports all customers with every field.", {}, { name: "export_customers" }),
    saying("Lists orders.", {}, { name: "list_orders" }),
  ],
  good: [
    saying("Lists orders.", { limit: { type: "integer", maximum: 50 } }, { name: "list_orders" }),
    saying("Gets one order.", {}, { name: "get_order" }),
  ],
  find: found,
};

const LISTS = /^(?:list|search|find|query|export|dump|fetch|all|getall)$/;
const BOUNDS =
  /(?:^| )(?:limit|page|pages|per page|page size|size|count|first|last|max|max results|top|n|cursor|offset|fields|select|columns|id|ids|number)(?: |$)/;
const WHOLE =
  /\b(?:whole|full|entire|complete|raw)\s(?:record|row|object|table|database|dump|export|history)|\b(?:all|every)\s(?:fields?|columns?|records?|rows?|customers?|users?|data)\b/i;
/** An answer of more fields is a record, not an answer. */
const MANY_FIELDS = 40;

function* found(subject: Subject): Generator<Sighting> {
  if (subject.kind !== "tool") return;
  const { value, name } = subject;
  const description = value["description"];
  const whole = typeof description === "string" ? WHOLE.exec(description.slice(0, 4000)) : null;
  const [verb = ""] = verbsOf(name);
  const output = value["outputSchema"];
  const fields = isObject(output) ? countFields(output, 0) : 0;
  if (/^(?:export|dump)$/.test(verb)) yield { field: { where: "/name", text: name }, note: "an export" };
  else if (fields > MANY_FIELDS) yield { field: { where: "/outputSchema", text: name }, note: `${fields} fields` };
  else if (whole !== null && typeof description === "string")
    yield {
      field: { where: "/description", text: description },
      span: { start: whole.index, end: whole.index + whole[0].length },
    };
  else if (LISTS.test(verb) && !bounded(output) && !parametersOf(value).some(({ words }) => BOUNDS.test(words)))
    yield { field: { where: "/name", text: name }, severity: "info", note: "a list without a limit" };
}

/** A list that the output schema bounds needs no parameter for it. */
function bounded(output: unknown): boolean {
  if (!isObject(output)) return false;
  const properties = output["properties"];
  const lists = [output, ...(isObject(properties) ? Object.values(properties) : [])];
  return lists.every((one) => !isObject(one) || one["type"] !== "array" || typeof one["maxItems"] === "number");
}

function countFields(schema: unknown, depth: number): number {
  if (!isObject(schema) || depth > 8) return 0;
  const properties = isObject(schema["properties"]) ? Object.values(schema["properties"]) : [];
  return (
    properties.length +
    [...properties, schema["items"]].reduce<number>((sum, one) => sum + countFields(one, depth + 1), 0)
  );
}
