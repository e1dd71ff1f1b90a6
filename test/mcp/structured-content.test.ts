/** Structured content that is no object, for clients that know objects alone. */
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { isWrapped, wrappedContent, wrappedSchema } from "../../src/mcp/structured-content.ts";

describe("an output schema", () => {
  test.each<[string, unknown, boolean]>([
    ["of an object", { type: "object", properties: {} }, false],
    ["of a list", { type: "array" }, true],
    ["of several kinds", { type: ["object", "null"] }, true],
    ["without a type", { anyOf: [{ type: "object" }] }, true],
    ["that is not there", undefined, false],
    ["that is no schema", true, false],
  ])("%s is wrapped or not, by its root alone", (_, schema, wrapped) => {
    expect(isWrapped(schema)).toBe(wrapped);
  });

  test.each<[string, string, string[], string[]]>([
    ["without references", '{"type":"array","items":{"type":"number"}}', ["[1]"], ['["a"]', "{}"]],
    [
      "with references into itself",
      '{"type":"array","items":{"$ref":"#/$defs/tree"},"$defs":{"tree":{"type":"object","properties":{"$ref":{"const":{"$ref":"#/kept"}},"below":{"$ref":"#/$defs/tree"}},"additionalProperties":false}}}',
      ['[{"below":{"below":{}}}]', '[{"$ref":{"$ref":"#/kept"}}]'],
      ['[{"below":{"other":1}}]', '[{"$ref":{"$ref":"#/properties/result/kept"}}]'],
    ],
    ["that refers to its root", '{"type":"array","items":{"$ref":"#"}}', ["[[[]]]"], ["[1]"]],
    [
      "with a base of its own",
      '{"$id":"https://shop.example/s","type":"array","items":{"$ref":"#/$defs/n"},"$defs":{"n":{"type":"number"}}}',
      ["[1]"],
      ['["a"]'],
    ],
  ])("%s accepts wrapped what it accepted before, and refuses what it refused", (_, schema, good, bad) => {
    const check = new Ajv2020({ strict: false }).compile(JSON.parse(wrappedSchema(schema)) as object);
    for (const content of good) expect(check(JSON.parse(wrappedContent(content))), content).toBe(true);
    for (const content of bad) expect(check(JSON.parse(wrappedContent(content))), content).toBe(false);
  });

  test("keeps its bytes where it can, and says its dialect at the new root", () => {
    const schema = '{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"number","maximum":1e400}';
    expect(wrappedSchema(schema)).toBe(
      `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{"result":${schema}},"required":["result"]}`,
    );
  });
});
