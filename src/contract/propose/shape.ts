/** What a schema says of a value, without its references and of alternatives the most telling. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { isSchemaObject, resolveRef } from "../accepts.ts";

/** Deeper schemas are not looked into. */
export const MAX_DEPTH = 8;

/** Without its reference, and of alternatives the one that says most about its values. */
export function shapeOf(written: JsonValue, root: JsonObject, depth = 0): JsonObject {
  const shapes = shapesOf(written, root, depth);
  const [first = {}] = shapes;
  return TYPES.flatMap((type) => shapes.filter((shape) => typeName(shape) === type)).at(0) ?? first;
}

/** From the narrowest; null is what an argument that is left out stands for anyway. */
export const TYPES = ["boolean", "integer", "number", "string", "array", "object"] as const;

/** Every alternative, one for each type. */
export function shapesOf(written: JsonValue, root: JsonObject, depth = 0): readonly JsonObject[] {
  if (!isSchemaObject(written) || depth > MAX_DEPTH) return [];
  if (typeof written["$ref"] === "string")
    return shapesOf((resolveRef(written["$ref"], root) ?? {}) as JsonValue, root, depth + 1);
  const branches = [written["anyOf"], written["oneOf"]].find(Array.isArray) as JsonValue[] | undefined;
  if (branches !== undefined) return branches.flatMap((branch) => shapesOf(branch, root, depth + 1));
  const { type } = written;
  return Array.isArray(type) ? type.map((one) => ({ ...written, type: one as JsonValue })) : [written];
}

export function typeName({ type, properties }: JsonObject): string | undefined {
  if (typeof type === "string") return type;
  return properties === undefined ? undefined : "object";
}
