import { expect, test } from "vitest";
import { compileArguments } from "../../src/contract/arguments.ts";
import { briefly } from "../../src/contract/brief.ts";
import { compileFields } from "../../src/contract/fields.ts";
import type { JsonObject, JsonValue } from "../../src/core/call.ts";
import { fc, runs } from "../properties.ts";

test("what nobody knows is left out, and what is closed stays closed", () => {
  const { schema } = compileFields(["id", "items/*/sku", "customer/id"], undefined);
  expect(briefly(schema)).toEqual({
    type: "object",
    properties: {
      id: {},
      items: { items: { type: "object", properties: { sku: {} }, additionalProperties: false } },
      customer: { type: "object", properties: { id: {} }, additionalProperties: false },
    },
    additionalProperties: false,
  });
});

test("types that the server promises stay", () => {
  const promised = {
    type: "object",
    properties: { id: { type: "string" }, tags: { type: "array", items: { type: "string" } }, n: { type: "integer" } },
  };
  const { schema } = compileFields(["id", "tags", "n"], promised);
  const { properties } = briefly(schema) as { properties: JsonObject };
  expect(properties["id"]).toEqual({ type: "string" });
  expect(properties["n"]).toEqual((schema as unknown as { properties: JsonObject }).properties["n"]);
});

test("whatever fits a schema fits the brief one", async () => {
  const path = fc
    .array(fc.constantFrom("a", "b", "c", "*"), { minLength: 1, maxLength: 4 })
    .map((parts) => parts.join("/"));
  await fc.assert(
    fc.asyncProperty(
      fc.array(path, { minLength: 1, maxLength: 5 }),
      fc.jsonValue({ maxDepth: 5 }),
      async (paths, value) => {
        const fields = compileFields(paths, undefined);
        const holding = (schema: JsonObject) => compileArguments({ type: "object", properties: { value: schema } });
        const brief = await holding(briefly(fields.schema));
        const whole = await holding(fields.schema);
        const document = fields.project(value as JsonValue);
        expect([brief.problem, whole.check({ value: document }), brief.check({ value: document })]).toEqual([
          undefined,
          undefined,
          undefined,
        ]);
      },
    ),
    { numRuns: runs(200) },
  );
});
