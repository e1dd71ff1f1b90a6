/** The proof that a narrowed schema accepts no more than the server's: never wrong, and strong enough for what people write. */
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { describe, expect, test } from "vitest";
import { compileArguments } from "../../src/contract/arguments.ts";
import { unprovedSubset } from "../../src/contract/subset.ts";
import type { JsonObject, JsonValue } from "../../src/core/call.ts";
import { fc, runs } from "../properties.ts";

const proved = (narrow: JsonValue, wide: JsonValue) => unprovedSubset(narrow, wide) === undefined;
const closed = (properties: JsonObject, ...required: string[]): JsonObject => ({
  type: "object",
  properties,
  required,
  additionalProperties: false,
});

/** Not a thenable: `await` would take a literal with this key for one. */
const THEN = "then";
const conditional = (when: JsonValue, schema: JsonValue): JsonObject => ({ if: when, [THEN]: schema });

describe("is proved", () => {
  const server = {
    type: "object",
    properties: { id: { type: "string" }, n: { type: "number" }, tags: { type: "array", items: { type: "string" } } },
    required: ["id"],
  };
  test.each<[string, JsonValue, JsonValue]>([
    ["a pattern for any string", closed({ id: { type: "string", pattern: "^ORD-[0-9]{6}$" } }, "id"), server],
    [
      "a stricter pattern for a looser one",
      { type: "string", pattern: "^ORD-[0-9]{6}$" },
      { type: "string", pattern: "^ORD-\\d+$" },
    ],
    [
      "a pattern for a length",
      { type: "string", pattern: "^[a-z]{2,8}$" },
      { type: "string", minLength: 1, maxLength: 10 },
    ],
    [
      "a pattern with a length for a pattern",
      { type: "string", pattern: "^[a-z]*$", maxLength: 5 },
      { pattern: "^[a-z]{0,5}$" },
    ],
    ["some values for a type", { enum: ["asc", "desc"] }, { type: "string", maxLength: 4 }],
    ["some values for a pattern", { enum: ["a1", "b2"] }, { type: "string", pattern: "^[a-z][0-9]$" }],
    [
      "an integer in a range for a number",
      { type: "integer", minimum: 1, maximum: 50 },
      { type: "number", exclusiveMinimum: 0 },
    ],
    ["multiples of six for multiples of three", { type: "integer", multipleOf: 6 }, { type: "integer", multipleOf: 3 }],
    ["one branch of a union", { type: "string", maxLength: 5 }, { anyOf: [{ type: "string" }, { type: "null" }] }],
    ["a union branch by branch", { type: ["string", "null"] }, { anyOf: [{ type: "string" }, { type: "null" }] }],
    [
      "one of alternatives that exclude each other",
      { type: "integer" },
      { oneOf: [{ type: "integer" }, { type: "string" }] },
    ],
    [
      "what is told apart by a member",
      closed({ kind: { enum: ["a", "b"] } }, "kind"),
      { oneOf: [closed({ kind: { const: "a" } }, "kind"), closed({ kind: { const: "b" } }, "kind")] },
    ],
    ["what `not` does not mean", { type: "string", pattern: "^[a-z]+$" }, { not: { const: "" } }],
    [
      "a definition that is referred to",
      { type: "string", maxLength: 3 },
      { $ref: "#/$defs/name", $defs: { name: { type: "string", maxLength: 10 } } },
    ],
    [
      "a schema by itself, whatever is in it",
      { not: { contains: { type: "null" } }, ...conditional({ type: "string" }, { pattern: "(?=a)b" }) },
      { not: { contains: { type: "null" } }, ...conditional({ type: "string" }, { pattern: "(?=a)b" }) },
    ],
    [
      "a short list",
      { type: "array", items: { enum: [1, 2] }, maxItems: 3 },
      { type: "array", items: { type: "integer" }, maxItems: 5 },
    ],
    [
      "a list by position",
      { type: "array", prefixItems: [{ type: "string" }, { type: "integer" }], items: false },
      { type: "array", prefixItems: [{ type: "string" }, { type: "number" }] },
    ],
    [
      "a closed object for members by pattern",
      closed({ "x-a": { type: "string" } }),
      { type: "object", patternProperties: { "^x-": { type: "string" } }, additionalProperties: false },
    ],
    [
      "what a condition asks",
      closed({ mode: { const: "fast" }, n: { type: "integer" } }, "mode", "n"),
      conditional({ properties: { mode: { const: "fast" } } }, { required: ["n"] }),
    ],
    ["nothing at all", { type: "string", minLength: 5, maxLength: 2 }, { type: "integer" }],
  ])("%s", (_, narrow, wide) => {
    expect(unprovedSubset(narrow, wide)).toBeUndefined();
  });
});

describe("is refused, with the place and the reason", () => {
  test.each<[string, JsonValue, JsonValue, string, RegExp]>([
    [
      "a member that the server does not know",
      closed({ a: { type: "string" }, b: { type: "string" } }),
      closed({ a: { type: "string" } }),
      "/b",
      /no member of this name/,
    ],
    ["a member that the server needs", closed({}), { type: "object", required: ["id"] }, "", /needs "id"/],
    [
      "an open object for a closed one",
      { type: "object", properties: { a: {} } },
      closed({ a: {} }),
      "/*",
      /members that the server does not take/,
    ],
    [
      "another type",
      closed({ n: { type: "string" } }),
      { properties: { n: { type: "integer" } } },
      "/n",
      /takes integer/,
    ],
    ["a looser pattern", { type: "string", pattern: "^ORD-" }, { pattern: "^ORD-[0-9]{6}$" }, "", /does not match/],
    ["a longer string", { type: "string", maxLength: 100 }, { maxLength: 50 }, "", /50 characters at most/],
    ["a value too many", { enum: ["a", "b", "c"] }, { enum: ["a", "b"] }, "", /"c"/],
    [
      "a pattern that nobody can compare",
      { type: "string", pattern: "^a$" },
      { pattern: "^(?=a)a$" },
      "",
      /cannot be compared/,
    ],
    [
      "more than one alternative at once",
      { type: "integer" },
      { oneOf: [{ type: "integer" }, { minimum: 0 }] },
      "",
      /more than one/,
    ],
    ["what is excluded", { type: "string" }, { not: { const: "root" } }, "", /excludes/],
    [
      "an element of another type",
      { type: "array", items: { type: "number" } },
      { items: { type: "integer" } },
      "/*",
      /takes integer/,
    ],
    ["a format", { type: "string" }, { format: "email" }, "", /format "email"/],
  ])("%s", (_, narrow, wide, where, reason) => {
    const unproved = unprovedSubset(narrow, wide);
    expect(unproved?.where).toBe(where);
    expect(unproved?.reason).toMatch(reason);
  });

  test("a schema that is too large to compare, in bounded time", () => {
    let deep: JsonValue = { type: "string" };
    for (let n = 0; n < 10; n++)
      deep = { anyOf: [{ properties: { a: deep } }, { properties: { b: deep } }, { items: deep }] };
    const started = performance.now();
    expect(proved({ type: "object" }, deep)).toBe(false);
    expect(performance.now() - started).toBeLessThan(20_000);
  });
  test.each<[string, JsonValue]>([
    ["a condition", { ...conditional({ $ref: "#" }, { $ref: "#" }), else: { $ref: "#" } }],
    [
      "choices",
      { anyOf: [{ not: { $ref: "#" } }, { $ref: "#" }, { $ref: "#" }], oneOf: [{ $ref: "#" }, { $ref: "#" }] },
    ],
    [
      "definitions of each other",
      {
        $ref: "#/$defs/0",
        $defs: Object.fromEntries(
          Array.from({ length: 50 }, (_, n) => [
            n,
            { allOf: [{ $ref: `#/$defs/${n + 1}` }, { $ref: `#/$defs/${n + 1}` }] },
          ]),
        ),
      },
    ],
    [
      "many schemas for each of many values",
      { items: { anyOf: Array.from({ length: 5000 }, (_, n) => ({ minimum: n + 1e6 })) } },
    ],
  ])("a schema that asks itself without end, in bounded time: %s", (_, wide) => {
    const values = { enum: [Array.from({ length: 5000 }, (_, n) => n), "a", 1, null] };
    const started = performance.now();
    expect(proved(values, wide)).toBe(false);
    expect(proved(wide, values)).toBe(false);
    expect(performance.now() - started).toBeLessThan(20_000);
  });
  test("nothing, because of a keyword that is called as something every object has", () => {
    for (const keyword of ["constructor", "toString", "hasOwnProperty", "__defineGetter__", "valueOf"]) {
      expect(proved({ type: "string" }, { type: "string", [keyword]: "x" }), keyword).toBe(true);
      expect(proved({ enum: ["a"] }, { type: "string", [keyword]: [], format: "none" }), keyword).toBe(false);
    }
  });
  test("what refers to definitions that say less than they did", () => {
    const held = (definition: JsonValue): JsonObject => ({
      type: "object",
      properties: { id: { $ref: "#/$defs/id" } },
      $defs: { id: definition },
    });
    expect(proved(held({ type: "string" }), held({ type: "string", maxLength: 5 }))).toBe(false);
    expect(proved(held({ type: "string", maxLength: 5 }), held({ type: "string" }))).toBe(true);
    expect(proved({ $ref: "#/$defs/a", $defs: { a: {} } }, { $ref: "#/$defs/a", $defs: { a: { minimum: 3 } } })).toBe(
      false,
    );
  });
  test("what is evaluated in another place, for what nothing may be left of", () => {
    for (const place of ["dependentSchemas", "dependencies"])
      expect(
        proved(
          { [place]: { a: { properties: { a: true } } }, unevaluatedProperties: false },
          { unevaluatedProperties: false },
        ),
      ).toBe(false);
  });
  test("texts that are no Unicode, which have no canonical form to compare", () => {
    expect(proved({ enum: ["\ud800"] }, { enum: ["\ud801"] })).toBe(false);
    expect(proved({ enum: [["\ud800"]] }, { enum: [["\ud801"]] })).toBe(false);
  });
  test("a schema that refers to itself", () => {
    expect(proved({ type: "string" }, { $ref: "#" })).toBe(false);
    const tree = { $ref: "#/$defs/t", $defs: { t: { type: "object", properties: { next: { $ref: "#/$defs/t" } } } } };
    expect(proved({ type: "object" }, tree)).toBe(false);
    expect(proved(tree, tree)).toBe(true);
  });
});

// ---- never wrong ----

const names = fc.constantFrom("a", "b", "c");
const small = fc.integer({ min: -3, max: 6 });
const word = fc.constantFrom(
  ...["", "a", "b", "ab", "ba", "aab", "1", "12", "a1", "é", "\u{1F600}", "[", "A", "\ud800", "\ud801"],
  ...["\r", "\n", "a\n", "\v", "\u00a0", "\u2028", "2020-19-39", "2020-02-28", "x@y", "a@b.co", "http:"],
);
const pattern = fc.constantFrom(
  ...[
    "^a",
    "b$",
    "^[ab]*$",
    "^[a-z]{1,2}$",
    "1",
    "^\\d+$",
    "^(a|b1?)$",
    "^.$",
    "^$",
    "a|1$",
    "^\\s$",
    "^\\S+$",
    "^\\W$",
  ],
  ...[
    "^[^]{0,1}$",
    "^[[:alpha:]]$",
    "^[^a]$",
    "^\\w{1,1500}$",
    "^(?=a)",
    "\\ba",
    "^\\p{L}$",
    "^[\\S\\d]$",
    "^[]$",
    "^[^\\s]$",
  ],
);
const format = fc.constantFrom("date", "date-time", "email", "uri", "uuid", "uri-reference", "int32", "nonsense");
const value: fc.Arbitrary<JsonValue> = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    word,
    small,
    fc.constantFrom(0.5, 1.5, -0.5, 0.1, 0.3, -0, 12),
    fc.boolean(),
    fc.constant(null),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(names, tie("value"), { maxKeys: 3, noNullPrototype: true }),
  ),
})).value as fc.Arbitrary<JsonValue>;

const some = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 2 });
const seldom = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 6, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
const part: fc.Arbitrary<JsonValue> = fc.letrec<{ schema: JsonValue }>((tie) => {
  const inner = tie("schema");
  const list = fc.array(inner, { minLength: 1, maxLength: 2 });
  const members = fc.dictionary(names, inner, { maxKeys: 3, noNullPrototype: true });
  return {
    schema: fc.oneof(
      { maxDepth: 3, withCrossShrink: true },
      { weight: 1, arbitrary: fc.boolean() },
      { weight: 2, arbitrary: fc.constantFrom({ $ref: "#/$defs/x" }, { $ref: "#/$defs/y" }, { $ref: "#y" }) },
      {
        weight: 8,
        arbitrary: fc
          .record({
            type: some(
              fc.oneof(
                fc.constantFrom("string", "integer", "number", "boolean", "null", "array", "object"),
                fc.uniqueArray(fc.constantFrom("string", "integer", "null", "array", "object"), {
                  minLength: 1,
                  maxLength: 3,
                }),
              ),
            ),
            minimum: some(small),
            exclusiveMaximum: some(small),
            multipleOf: some(fc.constantFrom(1, 2, 3, 4, 0.5, 0.1)),
            format: seldom(format),
            minLength: some(fc.nat(2)),
            maxLength: some(fc.nat(3)),
            pattern: some(pattern),
          })
          .map(clean),
      },
      {
        weight: 2,
        arbitrary: fc.record({ enum: fc.array(value, { minLength: 1, maxLength: 3 }) }) as fc.Arbitrary<JsonValue>,
      },
      {
        weight: 4,
        arbitrary: fc
          .record({
            type: some(fc.constant("object")),
            properties: some(fc.dictionary(names, inner, { maxKeys: 3, noNullPrototype: true })),
            required: some(fc.uniqueArray(names, { maxLength: 2 })),
            additionalProperties: some(inner),
            patternProperties: some(
              fc.dictionary(fc.constantFrom("^a", "b|c", "."), inner, { maxKeys: 2, noNullPrototype: true }),
            ),
            minProperties: some(fc.nat(2)),
            maxProperties: some(fc.nat(3)),
            dependentRequired: some(fc.constantFrom({ a: ["b"] }, { c: ["a", "b"] })),
            propertyNames: some(fc.constantFrom({ pattern: "^[ab]$" }, { maxLength: 1 }, { enum: ["a", "b"] })),
            dependentSchemas: seldom(members),
            unevaluatedProperties: seldom(inner),
          })
          .map(clean),
      },
      {
        weight: 3,
        arbitrary: fc
          .record({
            type: some(fc.constant("array")),
            items: some(inner),
            prefixItems: some(list),
            minItems: some(fc.nat(2)),
            maxItems: some(fc.nat(3)),
            uniqueItems: some(fc.boolean()),
            unevaluatedItems: seldom(inner),
          })
          .map(clean),
      },
      {
        weight: 1,
        arbitrary: fc
          .record({
            type: some(fc.constant("array")),
            contains: inner,
            minContains: some(fc.nat(2)),
            maxContains: some(fc.nat(2)),
          })
          .map(clean),
      },
      {
        weight: 4,
        arbitrary: fc
          .tuple(some(list), some(list), some(list), some(inner), some(inner), some(inner), some(inner))
          .map((all) => clean(Object.fromEntries(COMBINATIONS.map((keyword, at) => [keyword, all[at]])))),
      },
    ),
  };
}).schema as fc.Arbitrary<JsonValue>;

/** With the definitions that it refers to, which may be others where the same words stand. */
const schema = fc.tuple(part, part, part).map(([whole, x, y]): JsonValue => {
  if (!isObject(whole) || !JSON.stringify([whole, x, y]).includes('"$ref"')) return whole;
  return { ...whole, $defs: { x, y: { ...(isObject(y) ? y : {}), $anchor: "y" } } };
});

const COMBINATIONS = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else"];

function isObject(one: JsonValue): one is JsonObject {
  return typeof one === "object" && one !== null && !Array.isArray(one);
}

function clean(value: object): JsonValue {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as JsonValue;
}

/** What a narrowed schema often is: the wide one with more asked, or with one keyword left out, which it must not be. */
const narrowed = fc
  .tuple(schema, schema, fc.constantFrom("both", "same", "other", "choice", "less", "more"), fc.nat())
  .map(([wide, more, how, at]): [JsonValue, JsonValue] => {
    if (how === "same") return [wide, wide];
    if (how === "other") return [more, wide];
    if (how === "choice")
      return [wide, { anyOf: [more, wide], ...(isObject(wide) && wide["$defs"] && { $defs: wide["$defs"] }) }];
    if (how === "less") return [without(wide, at), wide];
    if (how === "more") return [wide, without(wide, at)];
    return [isObject(wide) && isObject(more) ? { ...wide, ...more } : { allOf: [wide, more] }, wide];
  });

/** Without one keyword, somewhere. */
function without(one: JsonValue, at: number): JsonValue {
  if (!isObject(one)) return true;
  const keys = Object.keys(one);
  const key = keys[at % keys.length] ?? "";
  const inner = one[key] as JsonValue;
  if (isObject(inner) && at % 3 > 0) return { ...one, [key]: without(inner, Math.floor(at / 3)) };
  return Object.fromEntries(Object.entries(one).filter(([name]) => name !== key)) as JsonObject;
}

/** What we check arguments with; undefined where it would not. */
async function checker(narrow: JsonValue): Promise<((value: JsonValue) => boolean) | undefined> {
  const { $defs, ...rest } = isObject(narrow) ? narrow : ({ allOf: [narrow] } as JsonObject);
  const holding = { type: "object", properties: { value: rest }, ...($defs !== undefined && { $defs }) } as JsonObject;
  const { check, problem, unread } = await compileArguments(holding, { strict: true });
  return problem === undefined && unread.length === 0 ? (value) => check({ value }) === undefined : undefined;
}

describe("never calls a schema narrower that accepts a value which the other refuses", () => {
  const ajv = new Ajv2020({ strict: false, validateFormats: true, logger: false });
  addFormats.default(ajv as never);
  const validator = (one: JsonValue) => {
    try {
      return ajv.compile(one as never);
    } catch {
      return undefined; // Not a schema (a pattern property twice, say): nothing to compare.
    }
  };
  test("for random pairs and random values, as our validator and as theirs reads them", async () => {
    let proofs = 0;
    await fc.assert(
      fc.asyncProperty(narrowed, fc.array(value, { minLength: 20, maxLength: 20 }), async ([narrow, wide], values) => {
        // Ajv 8 takes [] for `contains` beside `prefixItems`.
        fc.pre(!/"contains".*"prefixItems"|"prefixItems".*"contains"/.test(JSON.stringify(narrow)));
        if (!proved(narrow, wide)) return;
        const [theirs, large] = [validator(narrow), validator(wide)];
        const ours = await checker(narrow);
        if (theirs === undefined || large === undefined) return;
        proofs++;
        const holds = (check: (one: JsonValue) => unknown, one: JsonValue) => {
          try {
            return Boolean(check(one));
          } catch {
            return undefined; // Ajv 8 makes code that does not run of some schemas with `if: false`.
          }
        };
        for (const one of [...values, {}, [], { a: "a" }, { a: 1, b: "b" }])
          for (const [whose, small] of Object.entries({ theirs, ours }))
            if (small !== undefined && holds(small, one) === true && holds(large, one) === false)
              throw new Error(
                `${JSON.stringify(one)} is accepted by ${whose} of ${JSON.stringify(narrow)} and not by ${JSON.stringify(wide)}`,
              );
      }),
      { numRuns: runs(1000) },
    );
    // The test would say nothing if nothing were proved.
    expect(proofs).toBeGreaterThan(100);
  }, 300_000);
});
