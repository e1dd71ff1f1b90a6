/** Arguments against schemas that nobody vouches for. */
import { describe, expect, test } from "vitest";
import { compileArguments } from "../../src/contract/arguments.ts";
import { pinOf, readDefinition } from "../../src/contract/definition.ts";
import type { JsonObject } from "../../src/core/call.ts";
import { verifies, verifiesEach } from "../requirements.ts";

describe("arguments", () => {
  verifiesEach(
    "schema-dialects",
    [[undefined], ["http://json-schema.org/draft-07/schema#"], ["https://json-schema.org/draft/2020-12/schema"]],
    "are checked in dialect %s",
    async ($schema) => {
      const { check, problem } = await compileArguments({
        ...($schema !== undefined && { $schema }),
        type: "object",
        properties: { order: { type: "string", pattern: "^ORD-[0-9]{3}$" }, kind: { enum: ["a", "b"] } },
        required: ["order"],
        additionalProperties: false,
      });
      expect(problem).toBeUndefined();
      expect(check({ order: "ORD-123", kind: "a" })).toBeUndefined();
      for (const refused of [
        {},
        { order: "x" },
        { order: 7 },
        { order: "ORD-123", kind: "c" },
        { order: "ORD-123", more: 1 },
      ])
        expect(check(refused)).toHaveLength(1);
    },
  );
  test("each pattern is its own: a value that fits only another pattern is refused", async () => {
    const { check } = await compileArguments({
      type: "object",
      properties: { a: { pattern: "^a+$" }, b: { pattern: "^b+$" } },
    });
    expect(check({ a: "aa", b: "bb" })).toBeUndefined();
    expect(check({ a: "aa", b: "aa" })).toHaveLength(1);
  });
  verifies("schema-bounds", "a pattern made to explode is matched in linear time", async () => {
    const { check } = await compileArguments({
      type: "object",
      properties: { a: { type: "string", pattern: "^(a+)+$" } },
    });
    expect(check({ a: `${"a".repeat(50_000)}b` })).toHaveLength(1);
  });
  verifiesEach(
    "schema-no-remote-ref",
    [
      [
        "a schema that points to the network",
        { type: "object", properties: { x: { $ref: "https://schemas.example/x.json" } } },
      ],
      ["a schema that is none", { type: "any" }],
      ["a dialect nobody knows", { $schema: "https://example.com/dialect", type: "object" }],
      ["a schema of 100 levels", JSON.parse(`${'{"properties":{"a":'.repeat(50)}{}${"}}".repeat(50)}`)],
      ["no schema", undefined],
    ],
    "%s is reported and not guessed at",
    async (_title, schema) => {
      expect((await compileArguments(schema)).problem).toBeTypeOf("string");
    },
  );
  const twice = (n: number) => ({ anyOf: [{ $ref: `#/$defs/${n}` }, { $ref: `#/$defs/${n}` }] });
  const chain = Object.fromEntries(
    Array.from({ length: 40 }, (_, n) => [n, n < 39 ? twice(n + 1) : { minProperties: 9 }]),
  );
  const deep = (levels: number): JsonObject => (levels === 0 ? { b: 1 } : { a: deep(levels - 1) });
  const within = { properties: { a: { $ref: "#" } }, not: { required: ["b"] } };
  test.each<[string, JsonObject, JsonObject]>([
    ["that asks itself", { not: { $ref: "#" } }, {}],
    ["whose definitions ask each other twice", { ...twice(0), $defs: chain }, {}],
    [
      "whose definitions stand where none are looked for",
      JSON.parse(JSON.stringify({ ...twice(0), $defs: chain }).replaceAll("$defs", "elsewhere")),
      {},
    ],
    ["that asks twice at each level of a value", { anyOf: [within, within, within] }, deep(30)],
  ])("a schema %s refuses what it cannot be asked about in bounded time", async (_, schema, args) => {
    for (const strict of [true, false]) {
      const { check, problem } = await compileArguments({ type: "object", ...schema }, { strict });
      expect(problem).toBeUndefined();
      expect(check(args)).toEqual([expect.stringContaining("too long to be checked")]);
    }
  });
  test("a schema that refers to the whole of itself is asked at each level", async () => {
    const { check, problem } = await compileArguments({
      type: "object",
      properties: { name: { type: "string" }, child: { $ref: "#" }, $ref: { const: "#" } },
      additionalProperties: false,
    });
    expect(problem).toBeUndefined();
    expect(check({ name: "a", child: { name: "b", child: {}, $ref: "#" } })).toBeUndefined();
    expect(check({ child: { child: { name: 1 } } })).toEqual(["arguments/child/child/name must be string"]);
    for (const unknown of ["drawbridge-count", "drawbridge-whole"])
      expect(check({ child: { [unknown]: true } })).toHaveLength(1);
  });
  test("two schemas with the same $id do not meet", async () => {
    const first = await compileArguments({
      $id: "https://x.example/s",
      type: "object",
      properties: { a: { type: "string" } },
    });
    const second = await compileArguments({
      $id: "https://x.example/s",
      type: "object",
      properties: { a: { type: "number" } },
    });
    expect([first.problem, second.problem]).toEqual([undefined, undefined]);
    expect(second.check({ a: "text" })).toHaveLength(1);
  });
});

describe("pins", () => {
  const pin = (text: string) => {
    const definition = readDefinition("s", "tool", text);
    return definition && pinOf(definition);
  };
  test("are equal for equal definitions, whatever the order of keys", () => {
    expect(pin('{"name":"a","description":"x"}')).toBe(pin('{ "description":"x", "name":"a" }'));
  });
  test("differ when anything differs, an invisible character too", () => {
    expect(pin('{"name":"a","description":"x"}')).not.toBe(pin('{"name":"a","description":"x\\u200b"}'));
  });
});
