/** Arguments that could be a client's. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { isSchemaObject } from "../accepts.ts";
import type { InputRule } from "../settings.ts";
import type { Facts } from "./facts.ts";
import { OTHER_LENGTH } from "./input.ts";
import { MAX_DEPTH, shapeOf, typeName } from "./shape.ts";

/** Arguments that could be a client's; undefined when one that is needed cannot be made up. */
export function exampleOf(
  facts: Facts,
  rules: Readonly<Record<string, InputRule>>,
  served: JsonObject,
): JsonObject | undefined {
  const properties = served["properties"] as JsonObject;
  const needed = Object.keys(rules).filter((name) => facts.required.has(name));
  const values = needed.map(
    (name) => [name, exampleValue(facts.properties[name], properties[name], facts.input)] as const,
  );
  return values.some(([, value]) => value === undefined) ? undefined : (Object.fromEntries(values) as JsonObject);
}

const OF_FORMAT: Readonly<Record<string, string>> = {
  date: "2026-01-31",
  "date-time": "2026-01-31T12:00:00Z",
  email: "someone@example.com",
  uri: "https://example.com/",
  uuid: "2f1b6f2e-6f0a-4c57-9a2e-0d8f5b0c1d2e",
};

/** `said`: as the server wrote it; `served`: what clients see of it. */
function exampleValue(
  said: JsonValue | undefined,
  served: JsonValue | undefined,
  root: JsonObject,
  depth = 0,
): JsonValue | undefined {
  if (served === undefined || !isSchemaObject(served) || depth > MAX_DEPTH) return undefined;
  const shape = shapeOf(served, root);
  const own = isSchemaObject(said) ? said : {};
  const given = [own["examples"], own["example"], own["default"], shape["enum"]]
    .flat()
    .find((one) => one !== undefined);
  if (given !== undefined && given !== null) return given as JsonValue;
  if (shape["const"] !== undefined) return shape["const"];
  switch (typeName(shape)) {
    case "string": {
      if (typeof shape["pattern"] === "string") return undefined;
      const format = shape["format"];
      if (typeof format === "string") return OF_FORMAT[format];
      const [least, most] = [Number(shape["minLength"] ?? 0), Number(shape["maxLength"] ?? OTHER_LENGTH)];
      return "example".slice(0, most).padEnd(Math.min(least, most), "e");
    }
    case "integer":
    case "number":
      return Math.max(1, Math.ceil(Number(shape["minimum"] ?? 1)));
    case "boolean":
      return false;
    case "array": {
      const one = exampleValue(shapeOf(said ?? {}, root)["items"], shape["items"], root, depth + 1);
      return one === undefined ? undefined : [one];
    }
    case "object": {
      const members = isSchemaObject(shape["properties"]) ? shape["properties"] : {};
      const needed = Array.isArray(shape["required"]) ? shape["required"].map(String) : [];
      const inner = shapeOf(said ?? {}, root)["properties"];
      const values = needed.map(
        (name) =>
          [
            name,
            exampleValue(isSchemaObject(inner) ? inner[name] : undefined, members[name], root, depth + 1),
          ] as const,
      );
      return values.some(([, value]) => value === undefined) ? undefined : (Object.fromEntries(values) as JsonObject);
    }
    default:
      return undefined;
  }
}
