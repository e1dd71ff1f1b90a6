/** A contract and the definition it is about: what is served, and what stands against it. */
import { describe, expect, test } from "vitest";
import { compileArguments } from "../../src/contract/arguments.ts";
import { argumentsIn, type Contract, compileContract, isContract } from "../../src/contract/contract.ts";
import { type DefinitionKind, readDefinition } from "../../src/contract/definition.ts";
import { type InputRule, promptContract, resourceContract, toolContract } from "../../src/contract/settings.ts";
import { compileUriTemplate } from "../../src/contract/uri-template.ts";
import type { JsonObject, JsonValue, Principal } from "../../src/core/call.ts";
import { fc, runs } from "../properties.ts";

const TOOL = {
  name: "get_order",
  title: "THEIRS",
  description: "THEIR WORDS",
  inputSchema: {
    type: "object",
    properties: { id: { type: "string", maxLength: 20, description: "THEIRS" }, deep: { type: "boolean" } },
    required: ["id"],
  },
  outputSchema: {
    type: "object",
    description: "THEIRS",
    properties: { status: { type: "string", description: "THEIRS" }, cost: { type: "number" } },
  },
  annotations: { title: "THEIRS", readOnlyHint: true },
  icons: [{ src: "https://their.test/i.png" }],
  _meta: { theirs: 1 },
};

const SCHEMA = {
  tool: toolContract,
  prompt: promptContract,
  resource: resourceContract,
  resourceTemplate: resourceContract,
};

async function met(written: object, definition: object = TOOL, kind: DefinitionKind = "tool", name = "orders.lookup") {
  const read = readDefinition("shop", kind, JSON.stringify(definition));
  if (read === undefined) throw new Error("no definition");
  return compileContract(name, SCHEMA[kind].parse({ from: `shop/${read.name}`, ...written }), read);
}
async function contract(...args: Parameters<typeof met>): Promise<Contract> {
  const made = await met(...args);
  if (isContract(made)) return made;
  throw new Error(made.map(({ path, message }) => `${path.join(".")}: ${message}`).join("\n"));
}
async function problems(...args: Parameters<typeof met>): Promise<readonly string[]> {
  const made = await met(...args);
  return isContract(made) ? [] : made.map(({ path, message }) => `${path.join(".")}: ${message}`);
}

describe("the definition that clients see", () => {
  test("has the operator's words, a closed input, and nothing else of the server", async () => {
    const { served } = await contract({ description: "Looks up an order.", output: ["status"], access: "read" });
    expect(served).toEqual({
      name: "orders.lookup",
      description: "Looks up an order.",
      inputSchema: {
        type: "object",
        properties: { id: { type: "string", maxLength: 20 }, deep: { type: "boolean" } },
        required: ["id"],
        additionalProperties: false,
      },
      outputSchema: { type: "object", properties: { status: { type: "string" } }, additionalProperties: false },
      annotations: { readOnlyHint: true, destructiveHint: false },
    });
  });

  test("has the server's pinned words where the contract has none, but never those within its schemas", async () => {
    const { served } = await contract({});
    expect(served).toMatchObject({ title: "THEIRS", description: "THEIR WORDS", annotations: { readOnlyHint: true } });
    expect(JSON.stringify([served["inputSchema"], served["outputSchema"], served["annotations"]])).not.toContain(
      "THEIRS",
    );
    expect(Object.keys(served)).not.toContain("_meta");
    expect(Object.keys(served)).not.toContain("icons");
  });

  test.each([
    [{ access: "read" }, { readOnlyHint: true, destructiveHint: false }],
    [{ access: "write" }, { readOnlyHint: false, destructiveHint: false }],
    [
      { access: "destructive", idempotent: true },
      { readOnlyHint: false, destructiveHint: true, idempotentHint: true },
    ],
    [
      { access: "write", openWorld: false },
      { readOnlyHint: false, destructiveHint: false, openWorldHint: false },
    ],
  ])("has hints that are made of the contract alone: %j", async (written, annotations) => {
    expect((await contract(written)).served["annotations"]).toEqual(annotations);
  });

  test("promises no output that may be cut or may be text", async () => {
    expect((await contract({ output: { fields: ["status"], text: true } })).served["outputSchema"]).toBeUndefined();
    expect((await contract({ output: { maxBytes: 500 } })).served["outputSchema"]).toBeUndefined();
  });
});

describe("a contract that contradicts its server is refused", () => {
  const says = (annotations: object, name = "get_order") => ({ ...TOOL, name, annotations });
  test.each<[object, object, string]>([
    [
      { access: "read" },
      says({ readOnlyHint: false }),
      "access: is read, and the server says that the tool is not read-only",
    ],
    [
      { access: "read" },
      says({ destructiveHint: true }),
      "access: is read, and the server says that the tool destroys",
    ],
    [
      { access: "write" },
      says({ destructiveHint: true }),
      "access: is write, and the server says that the tool destroys",
    ],
    [
      { access: "read" },
      says({}, "delete_order"),
      'access: is read, and "delete_order" sounds as if it changed something',
    ],
    [
      { access: "read" },
      says({}, "cancelOrder"),
      'access: is read, and "cancelOrder" sounds as if it changed something',
    ],
    [{ access: "write", idempotent: true }, says({ idempotentHint: false }), "idempotent: is true"],
    [{ access: "write", openWorld: false }, says({ openWorldHint: true }), "openWorld: is false"],
  ])("%j of %j", async (written, definition, problem) => {
    expect(await problems(written, definition)).toEqual([expect.stringContaining(problem)]);
    expect(await problems({ ...written, unproven: "accept" }, definition)).toEqual([]);
  });

  test.each(["get_deleted_orders", "list_updates", "settings", "address_lookup", "postal_code"])(
    "but %s may well only read",
    async (name) => {
      expect(await problems({ access: "read" }, says({}, name))).toEqual([]);
    },
  );

  test("with every reason, each at its place", async () => {
    const found = await problems(
      { access: "read", input: { id: { type: "string" }, absent: {} }, output: ["items/*/sku"] },
      {
        ...says({ readOnlyHint: false }),
        inputSchema: {
          type: "object",
          properties: { id: { type: "string" } },
          required: ["id"],
          additionalProperties: false,
        },
        outputSchema: { type: "object", properties: { status: {} }, additionalProperties: false },
      },
    );
    expect(found.map((line) => line.split(":")[0])).toEqual(["input.id", "input.absent", "output", "access"]);
  });
});

describe("a tool as a resource", () => {
  const served = { access: "read", output: ["status"], description: "An order." };
  test("is a template over its arguments, or a resource when it has none", async () => {
    const made = await contract({
      ...served,
      as: { resource: "orders://{id}" },
      input: { id: { pattern: "^[A-Z]{1,9}$" } },
    });
    expect(made.served).toEqual({
      uriTemplate: "orders://{id}",
      name: "orders.lookup",
      description: "An order.",
      mimeType: "application/json",
    });
    const none = { ...TOOL, inputSchema: { type: "object", properties: {} } };
    expect((await contract({ ...served, as: { resource: "orders://all" } }, none)).served["uri"]).toBe("orders://all");
  });

  test("has arguments of the types that its contract gives them", async () => {
    const input = {
      type: "object",
      properties: { n: { type: "integer" }, on: { type: "boolean" }, s: { type: "string", maxLength: 9 } },
    };
    const made = await contract({ ...served, as: { resource: "o://{n}/{on}/{s}" } }, { ...TOOL, inputSchema: input });
    expect(argumentsIn(made, "o://7/true/7")).toEqual({ n: 7, on: true, s: "7" });
    expect(made.narrowing?.check(argumentsIn(made, "o://7.5/maybe/x") ?? {})).toBeDefined();
  });

  test.each<[object, string]>([
    [{ access: "write" }, "as: is for tools that only read"],
    [
      { as: { resource: "orders://{number}" } },
      "as.resource: {number} is no argument that clients may send; there are id",
    ],
    [{ as: { resource: "orders://all" } }, "as.resource: lacks {id}, which the tool needs"],
    [{ as: { resource: "orders://{id}{deep}" } }, "as.resource: two variables need something between them"],
    [{ as: { resource: "orders://{?id}" } }, "as.resource: {?id} is not of the form"],
  ])("cannot be when %j", async (more, problem) => {
    const written = { ...served, as: { resource: "orders://{id}" }, input: { id: {} }, ...more };
    expect(await problems(written)).toEqual([expect.stringContaining(problem)]);
  });
});

describe("URI templates", () => {
  test("match what they expand to, whatever the values", () => {
    const value = fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }).filter((text) => text.isWellFormed());
    fc.assert(
      fc.property(value, value, (a, b) => {
        const template = compileUriTemplate("x://{a}/y/{b}");
        expect(template.match(template.expand({ a, b }))).toEqual({ a, b });
      }),
    );
  });
  test.each([
    "x://a",
    "x:///y/b",
    "x://a/y/",
    "x://a/y/b/c",
    "x://a/y/b?c",
    "x://a/y/%FF",
    `x://a/y/${"b".repeat(5000)}`,
  ])("do not match %s", (uri) => {
    expect(compileUriTemplate("x://{a}/y/{b}").match(uri)).toBeUndefined();
  });
});

describe("prompts and resources", () => {
  const PROMPT = {
    name: "review",
    description: "THEIRS",
    arguments: [{ name: "order", description: "THEIRS", required: true }, { name: "tone" }],
  };
  test("a prompt has the arguments that its contract names, in its words", async () => {
    const { served, narrowing } = await contract(
      { description: "Reviews.", input: { number: { as: "order", pattern: "^[0-9]{1,3}$", description: "Ours." } } },
      PROMPT,
      "prompt",
      "review",
    );
    expect(served).toEqual({
      name: "review",
      description: "Reviews.",
      arguments: [{ name: "number", description: "Ours.", required: true }],
    });
    expect(narrowing?.toServer({ number: "7" }, {} as Principal)).toEqual({ order: "7" });
  });
  test("without rules its arguments are bounded texts", async () => {
    const { narrowing } = await contract({}, PROMPT, "prompt", "review");
    expect(narrowing?.check({ order: "x".repeat(4001) })).toBeDefined();
    expect(narrowing?.check({ order: "x" })).toBeUndefined();
  });
  test("messages have no fields", async () => {
    expect(await problems({ output: ["a"] }, PROMPT, "prompt", "review")).toEqual([
      expect.stringContaining("output.fields"),
    ]);
  });
  test("a template keeps its variables under its own name", async () => {
    const template = { uriTemplate: "file:///{a}/{b}", name: "f" };
    expect((await contract({}, template, "resourceTemplate", "docs://{b}-{a}")).served["uriTemplate"]).toBe(
      "docs://{b}-{a}",
    );
    expect(await problems({}, template, "resourceTemplate", "docs://{a}")).toEqual([
      expect.stringContaining("must have the variables that the server has: a, b"),
    ]);
  });
});

// ---- a contract never widens ----

const scalar: fc.Arbitrary<JsonObject> = fc.oneof(
  fc.record(
    {
      type: fc.constant("string"),
      maxLength: fc.integer({ min: 0, max: 6 }),
      minLength: fc.integer({ min: 0, max: 3 }),
    },
    { requiredKeys: ["type"] },
  ),
  fc.record(
    { type: fc.constant("integer"), minimum: fc.integer({ min: -5, max: 3 }), maximum: fc.integer({ min: 0, max: 9 }) },
    { requiredKeys: ["type"] },
  ),
  fc.record({
    enum: fc.uniqueArray(fc.constantFrom<JsonValue>("a", "b", 1, 2, true, null), {
      minLength: 1,
      maxLength: 4,
      selector: (one) => JSON.stringify(one),
    }),
  }),
  fc.constant<JsonObject>({ type: "boolean" }),
) as fc.Arbitrary<JsonObject>;
const NAMES = ["a", "b", "c"] as const;
const server = fc.record({
  properties: fc.dictionary(fc.constantFrom(...NAMES), scalar, { minKeys: 1, maxKeys: 3, noNullPrototype: true }),
  required: fc.subarray([...NAMES]),
  additionalProperties: fc.boolean(),
});
const rule = fc.record(
  {
    maxLength: fc.integer({ min: 0, max: 8 }),
    minimum: fc.integer({ min: -6, max: 6 }),
    maximum: fc.integer({ min: -6, max: 12 }),
    enum: fc.uniqueArray(fc.constantFrom<JsonValue>("a", "b", 1, 2, true, null), {
      minLength: 1,
      maxLength: 3,
      selector: (one) => JSON.stringify(one),
    }),
    fixed: fc.constantFrom<JsonValue>("a", 1, true, null),
    default: fc.constantFrom<JsonValue>("a", 1, true),
    required: fc.boolean(),
    as: fc.constantFrom(...NAMES),
    bind: fc.constantFrom("principal.subject", "principal.claims.level"),
  },
  { requiredKeys: [] },
) as fc.Arbitrary<InputRule>;
const value = fc.oneof(
  fc.constantFrom<JsonValue>("a", "b", "", "abcdefgh", true, null, 1.5, [], {}),
  fc.integer({ min: -9, max: 12 }),
);
const call = fc.dictionary(fc.constantFrom(...NAMES, "x"), value, { maxKeys: 4, noNullPrototype: true });
const BY = { subject: "ann", client: "c", claims: { level: 2 } } as unknown as Principal;

test("whatever the contract, the server accepts every call that it lets through", async () => {
  let through = 0;
  await fc.assert(
    fc.asyncProperty(
      server,
      fc.dictionary(fc.constantFrom(...NAMES, "x"), rule, { maxKeys: 3, noNullPrototype: true }),
      fc.array(call, { minLength: 20, maxLength: 20 }),
      async (schema, input, calls) => {
        const inputSchema = {
          type: "object",
          ...schema,
          required: schema.required.filter((one) => one in schema.properties),
        };
        const made = await met({ input }, { name: "t", inputSchema });
        if (!isContract(made) || made.narrowing === undefined) return;
        const { check } = await compileArguments(inputSchema as JsonObject);
        for (const args of calls) {
          if (made.narrowing.check(args as JsonObject) !== undefined) continue;
          let sent: JsonObject;
          try {
            sent = made.narrowing.toServer(args as JsonObject, BY);
          } catch {
            continue;
          }
          through++;
          expect([JSON.stringify(sent), check(sent)]).toEqual([JSON.stringify(sent), undefined]);
        }
      },
    ),
    { numRuns: runs(300) },
  );
  expect(through).toBeGreaterThan(20);
});
