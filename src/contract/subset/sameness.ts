/** When two schemas, or members of them, are the same word for word, and mean the same. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { type At, canonical, isSchemaObject } from "../accepts.ts";

/** Word for word the same, and meaning the same: a reference only within the same document. */
export function same(one: At, other: At): boolean {
  if (one.schema === other.schema && one.root === other.root) return true;
  if (!isSchemaObject(one.schema) || !isSchemaObject(other.schema)) return one.schema === other.schema;
  return canonical(one.schema) === canonical(other.schema) && meansTheSame(one, other, other.schema);
}

export function sameMember(one: At, other: At, keyword: string): boolean {
  const [mine, theirs] = [one.schema as JsonObject, other.schema as JsonObject];
  if (!Object.hasOwn(mine, keyword)) return false;
  // What these mean depends on their neighbours.
  const group = TOGETHER.find((keywords) => keywords.includes(keyword)) ?? [keyword];
  return group.every((each) => {
    const value = theirs[each];
    return (
      canonical(mine[each]) === canonical(value) && (value === undefined || meansTheSame(one, other, { [each]: value }))
    );
  });
}

/** What may have looked at members and elements of the same value. */
const IN_PLACE = [
  ...["$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else"],
  ...["dependentSchemas", "dependencies"],
] as const;
const TOGETHER: readonly (readonly string[])[] = [
  ["if", "then", "else"],
  ["contains", "minContains", "maxContains"],
  ["items", "prefixItems", "additionalItems"],
  ["properties", "patternProperties", "additionalProperties"],
  ["unevaluatedProperties", "properties", "patternProperties", "additionalProperties", ...IN_PLACE],
  ["unevaluatedItems", "items", "prefixItems", "additionalItems", "contains", ...IN_PLACE],
  ["minimum", "exclusiveMinimum"],
  ["maximum", "exclusiveMaximum"],
];

function meansTheSame(one: At, other: At, value: JsonValue): boolean {
  return one.root === other.root || !/"\$(dynamicR|r)ef":/.test(JSON.stringify(value));
}

/** For whole numbers, and the same one: validators differ where binary fractions are in the way. */
export function isMultiple(step: number, of: number): boolean {
  return step === of || (Number.isSafeInteger(step) && Number.isSafeInteger(of) && of !== 0 && step % of === 0);
}

export const pointer = (name: string) => name.replaceAll("~", "~0").replaceAll("/", "~1");

export function brief(value: JsonValue): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length <= 80 ? text : `${text.slice(0, 77)}…`;
}
