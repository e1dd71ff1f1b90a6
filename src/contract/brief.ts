/**
 * Output schemas as clients see them: each `tools/list` carries them, and models read them, so they leave out what nobody knows. What
 * leaves is still checked against the whole one.
 */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { canonical, isSchemaObject } from "./accepts.ts";

/**
 * The schema in fewer words. Whatever fits the schema fits this one. Where a value may be of any type it is `{}`, and where a list may
 * also be an object it says what its elements are.
 */
export function briefly(schema: JsonObject): JsonObject {
  // The top says whether it is an object, on which clients of 2025-11-25 and before rely.
  return Array.isArray(schema["anyOf"])
    ? { anyOf: schema["anyOf"].map((one) => within(one as JsonObject)) }
    : within(schema);
}

const ANY_SCALAR = 4;

function brief(schema: JsonValue): JsonValue {
  if (!isSchemaObject(schema)) return schema;
  const branches = schema["anyOf"];
  if (!Array.isArray(branches)) return anyScalar(schema) ? {} : within(schema);
  if (branches.some(anyScalar)) return {};
  const [one, other] = branches.filter(isSchemaObject);
  if (branches.length === 2 && one !== undefined && other !== undefined) {
    const items = other["items"];
    const members = Object.keys((one["properties"] ?? {}) as JsonObject).length;
    if (members === 0 && items !== undefined && canonical(one["additionalProperties"]) === canonical(items))
      return { items: brief(items) };
  }
  return { anyOf: branches.map((branch) => brief(branch as JsonValue)) };
}

const anyScalar = (schema: JsonValue) =>
  isSchemaObject(schema) && Array.isArray(schema["type"]) && schema["type"].length >= ANY_SCALAR;

/** The same with the schemas below it in fewer words. */
function within(schema: JsonObject): JsonObject {
  const { properties, items, additionalProperties } = schema;
  return {
    ...schema,
    ...(isSchemaObject(properties) && {
      properties: Object.fromEntries(Object.entries(properties).map(([name, one]) => [name, brief(one as JsonValue)])),
    }),
    ...(items !== undefined && { items: brief(items) }),
    ...(additionalProperties !== undefined && { additionalProperties: brief(additionalProperties) }),
  };
}
