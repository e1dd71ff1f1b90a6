/**
 * Structured content that is no object. 2026-07-28 lets a tool return and declare any JSON; the revisions before know objects
 * alone, and their clients refuse a whole list for one schema that is not of an object. For them it becomes the member `result` of
 * an object, in the schema and in the content alike, as the official SDK does it.
 */
import type { JsonValue } from "../core/call.ts";
import { isObject } from "./json-text.ts";

/** Whether older clients get what this `outputSchema` describes wrapped. */
export function isWrapped(outputSchema: unknown): boolean {
  return isObject(outputSchema) && outputSchema["type"] !== "object";
}

/** The schema of the wrapped content, from the text of the schema of the content. */
export function wrappedSchema(text: string): string {
  const schema = JSON.parse(text) as JsonValue;
  // A schema with a base of its own, or without references, means the same wherever it stands: then it keeps its text.
  const moved = isObject(schema) && !hasBase(schema) && /"\$(dynamicR|r)ef"/.test(text);
  const inner = moved ? JSON.stringify(withMovedReferences(schema, false)) : text;
  const dialect = isObject(schema) && typeof schema["$schema"] === "string" ? schema["$schema"] : undefined;
  const head = dialect === undefined ? "" : `"$schema":${JSON.stringify(dialect)},`;
  return `{${head}"type":"object","properties":{"result":${inner}},"required":["result"]}`;
}

/** Content under the schema above. */
export const wrappedContent = (text: string) => `{"result":${text}}`;

/** JSON Schema, Core §8.2.1: `$id` makes a new base, a bare fragment does not. */
function hasBase(schema: JsonValue): boolean {
  const id = isObject(schema) ? schema["$id"] : undefined;
  return typeof id === "string" && !id.startsWith("#");
}

/** Keywords whose values are data and not schemas. */
const DATA = new Set(["const", "enum", "default", "examples"]);
/** Keywords whose members have names of their author's choice. */
const NAMED = new Set(["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"]);

function withMovedReferences(node: JsonValue, names: boolean): JsonValue {
  if (Array.isArray(node)) return node.map((item: JsonValue) => withMovedReferences(item, false));
  if (!isObject(node) || (!names && hasBase(node))) return node;
  return Object.fromEntries(
    Object.entries(node).map(([key, value]) => {
      if (names) return [key, withMovedReferences(value, false)];
      if ((key === "$ref" || key === "$dynamicRef") && typeof value === "string") return [key, movedPointer(value)];
      return [key, DATA.has(key) ? value : withMovedReferences(value, NAMED.has(key))];
    }),
  );
}

function movedPointer(reference: string): string {
  return reference === "#" || reference.startsWith("#/") ? `#/properties/result${reference.slice(1)}` : reference;
}
