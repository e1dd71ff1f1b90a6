/** The output of a contract: whatever a server answers, what leaves is named, valid, within its budgets, and soon. */
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, test } from "vitest";
import { compileProjection, type Projected, type Projection } from "../../src/contract/project.ts";
import type { OutputSettings } from "../../src/contract/settings.ts";
import { estimateTokens } from "../../src/contract/tokens.ts";
import type { JsonObject, JsonValue } from "../../src/core/call.ts";
import { fc, runs } from "../properties.ts";

const projection = (output: Partial<OutputSettings>, promised?: JsonObject): Promise<Projection> =>
  compileProjection({ text: false, ...output }, promised);
const structured = (value: unknown, more: object = {}) =>
  JSON.stringify({ content: [{ type: "text", text: JSON.stringify(value) }], structuredContent: value, ...more });
const texts = (...all: string[]) => JSON.stringify({ content: all.map((text) => ({ type: "text", text })) });
const ORDER = {
  status: "open",
  total: 12.5,
  customer: { name: "n", email: "e", address: { city: "c", geo: { lat: 1 } } },
  items: [
    { sku: "A", price: 1, tags: ["x", "y"] },
    { sku: "B", price: 2, tags: [] },
  ],
  "a/b": 1,
};

describe("fields", () => {
  test.each<[string[], unknown]>([
    [["status"], { status: "open" }],
    [["items/*/sku"], { items: [{ sku: "A" }, { sku: "B" }] }],
    [["items/*/tags"], { items: [{ tags: ["x", "y"] }, { tags: [] }] }],
    [["items/*/tags/*"], { items: [{ tags: ["x", "y"] }, { tags: [] }] }],
    [["customer/**"], { customer: ORDER.customer }],
    [["customer/*"], { customer: { name: "n", email: "e" } }],
    [["customer/*", "customer/address/city"], { customer: { name: "n", email: "e", address: { city: "c" } } }],
    [["customer"], {}],
    [["items"], { items: [] }],
    [["absent/x"], {}],
    [["a~1b"], { "a/b": 1 }],
    [["/status"], { status: "open" }],
    [["**"], ORDER],
  ])("%j leave what they name", async (fields, expected) => {
    const { value } = (await projection({ fields })).tool(structured(ORDER));
    expect(value["structuredContent"]).toEqual(expected);
    expect(value["content"]).toEqual([{ type: "text", text: JSON.stringify(expected) }]);
  });

  test("are looked for in JSON that stands in text, and in each of several", async () => {
    const { tool } = await projection({ fields: ["a", "*/a"] });
    expect(tool(texts('{"a":1,"b":2}')).value["structuredContent"]).toEqual({ a: 1 });
    expect(tool(texts('{"a":1,"b":2}', '{"a":2}')).value["structuredContent"]).toEqual([{ a: 1 }, { a: 2 }]);
  });

  test("leave nothing but themselves: no other content, no `_meta`, no other members", async () => {
    const { result } = (await projection({ fields: ["a"] })).tool(
      JSON.stringify({
        content: [
          { type: "image", data: "hidden", mimeType: "image/png" },
          { type: "resource", resource: { uri: "hidden:1", text: "hidden" } },
          { type: "resource_link", uri: "hidden:2", name: "hidden" },
          { type: "text", text: "hidden" },
        ],
        structuredContent: { a: 1 },
        _meta: { hidden: 1 },
        vendor: "hidden",
      }),
    );
    expect(JSON.parse(result)).toEqual({ content: [{ type: "text", text: '{"a":1}' }], structuredContent: { a: 1 } });
  });

  test("keep the digits of numbers, whatever these are", async () => {
    const { result } = (await projection({ fields: ["*"] })).tool(
      '{"structuredContent":{"a":12345678901234567890,"b":1.10000000000000000001,"c":1E400,"d":-0.0,"e":9007199254740993}}',
    );
    for (const digits of ["12345678901234567890", "1.10000000000000000001", "9007199254740993"]) {
      expect(result).toContain(`:${digits}`);
    }
  });

  test.each<[string[], JsonObject, string]>([
    [["a//b"], {}, "empty part"],
    [["**/a"], {}, "can only be the last part"],
    [
      ["statu"],
      { type: "object", properties: { status: {} }, additionalProperties: false },
      '"statu" is not in the server\'s answers',
    ],
    [["customer"], { type: "object", properties: { customer: { type: "object" } } }, "name its fields"],
    [["status/code"], { type: "object", properties: { status: { type: "string" } } }, "has no fields"],
  ])("that cannot be are refused when they are compiled: %j", async (fields, promised, reason) => {
    await expect(projection({ fields }, promised)).rejects.toThrow(reason);
  });
});

describe("an answer that is no document", () => {
  test.each([
    [
      "an error with a query in it",
      JSON.stringify({ isError: true, content: [{ type: "text", text: "SELECT secret" }] }),
    ],
    ["an error with structure", structured({ a: "secret" }, { isError: true })],
    ["text", texts("secret")],
    ["text beside JSON", texts('{"a":"secret"}', "secret")],
    ["nothing", JSON.stringify({ content: [] })],
    ["text that looks like JSON", texts('{"a": secret')],
    ["a deep document", texts(`${'{"a":'.repeat(1000)}"secret"${"}".repeat(1000)}`)],
    ["an answer that is deep itself", `{"structuredContent":${'{"a":'.repeat(1000)}"secret"${"}".repeat(1000)}}`],
  ])("is a sentence: %s", async (_, answer) => {
    const { value, result } = (await projection({ fields: ["a/**"] })).tool(answer);
    expect(value["isError"]).toBe(true);
    expect(result).not.toContain("secret");
  });

  test("is handed on with `text: true`, and then no output schema is promised", async () => {
    const { schema, tool } = await projection({ fields: ["a"], text: true });
    expect(schema).toBeUndefined();
    expect(tool(texts("hello")).value).toEqual({ content: [{ type: "text", text: "hello" }] });
    expect(tool(structured({ a: 1 }, { isError: true })).value["content"]).toEqual([{ type: "text", text: '{"a":1}' }]);
  });

  test("says to the operator alone why it was withheld", async () => {
    const { tool } = await projection({ fields: ["a"] }, { type: "object", properties: { a: { type: "string" } } });
    const { withheld, result } = tool(structured({ a: 3 }));
    expect(withheld).toContain("must be string");
    expect(result).not.toContain("must be string");
  });
});

describe("without fields", () => {
  test("an answer within its budgets is what came, byte for byte", async () => {
    const { tool } = await projection({ maxBytes: 1000, maxTokens: 1000 });
    const answer = '{ "content" : [ {"type":"text","text":"\\u0061"} ], "n": 1.0 }';
    expect(tool(answer).result).toBe(answer);
  });

  test("an image that is too large is left out, and texts are cut", async () => {
    const { tool, resource, prompt } = await projection({ maxBytes: 600 });
    const image = { type: "image", data: "x".repeat(2000), mimeType: "image/png" };
    const long = "words and ".repeat(200);
    const cut = tool(JSON.stringify({ content: [image, { type: "text", text: long }], isError: true })).value;
    expect(cut).toMatchObject({
      isError: true,
      content: [{ text: expect.stringMatching(/^words and .*…$/) }],
      _meta: { "drawbridge/cut": ["one text was cut", "one part was left out"] },
    });
    const contents = [
      { uri: "a:1", text: long },
      { uri: "a:2", blob: "x".repeat(2000) },
    ];
    expect(resource(JSON.stringify({ contents })).value["contents"]).toMatchObject([
      { uri: "a:1", text: expect.stringContaining("…") },
    ]);
    const messages = [{ role: "user", content: { type: "text", text: long } }];
    expect(prompt(JSON.stringify({ messages })).value["messages"]).toMatchObject([
      { role: "user", content: { text: expect.stringContaining("…") } },
    ]);
    for (const made of [
      tool(JSON.stringify({ content: [{ type: "text", text: long }] })),
      resource(JSON.stringify({ contents })),
      prompt(JSON.stringify({ messages })),
    ])
      expect(Buffer.byteLength(made.result)).toBeLessThanOrEqual(600);
  });

  test("a blob of a resource stays what it was", async () => {
    const { resource } = await projection({ maxBytes: 4000 });
    const answer = JSON.stringify({ contents: [{ uri: "a:1", blob: "AAAA" }] });
    expect(resource(answer).result).toBe(answer);
  });
});

describe("a budget", () => {
  test("shortens what is large and keeps what is small", async () => {
    const { tool } = await projection({ fields: ["**"], maxBytes: 2000 });
    const { value, cut } = tool(
      structured({
        id: 7,
        rows: Array.from({ length: 500 }, (_, at) => ({ at })),
        note: "word ".repeat(500),
        flag: true,
      }),
    );
    const document = value["structuredContent"] as { id: number; rows: unknown[]; note: string; flag: boolean };
    expect(document).toMatchObject({ id: 7, flag: true });
    expect(document.rows.length).toBeGreaterThan(10);
    expect(document.note).toMatch(/^word word .*…$/);
    expect(cut).toEqual([`rows has ${document.rows.length} of 500`, "one text was cut"]);
    expect((value["content"] as { text: string }[])[1]?.text).toBe(`Shortened: ${cut.join("; ")}.`);
  });

  test("does not cut a character in two", async () => {
    const { tool } = await projection({ fields: ["a"], maxBytes: 300 });
    for (let before = 0; before < 8; before++) {
      const { value } = tool(structured({ a: `${"x".repeat(before)}${"\u{1f642}".repeat(200)}` }));
      expect((value["structuredContent"] as { a: string }).a.isWellFormed()).toBe(true);
    }
  });

  test("counts elements of every list", async () => {
    const { tool } = await projection({ fields: ["**"], maxItems: 2 });
    expect(tool(structured({ a: [1, 2, 3], b: [[1, 2, 3], 2, 3] })).value["structuredContent"]).toEqual({
      a: [1, 2],
      b: [[1, 2], 2],
    });
  });
});

// ---- whatever comes ----

const name = fc.constantFrom("a", "b", "c", "items", "__proto__", "constructor", "x/y", "~", "", "toString");
const document: fc.Arbitrary<JsonValue> = fc.letrec<{ value: JsonValue }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 5 },
    fc.oneof(
      fc.string({ unit: "binary" }),
      fc.double({ noNaN: true, noDefaultInfinity: true }),
      fc.integer(),
      fc.boolean(),
      fc.constant(null),
      fc.string({ maxLength: 400 }),
    ),
    fc.array(tie("value"), { maxLength: 12 }),
    fc.dictionary(name, tie("value"), { maxKeys: 8, noNullPrototype: true }),
  ) as fc.Arbitrary<JsonValue>,
})).value;
const part = fc.oneof(
  name.filter((one) => one !== "" && one !== "__proto__"),
  fc.constant("*"),
);
const field = fc
  .tuple(fc.array(part, { minLength: 1, maxLength: 4 }), fc.boolean())
  .map(([parts, all]) =>
    [
      ...parts.map((one) => (one === "*" ? one : one.replaceAll("~", "~0").replaceAll("/", "~1"))),
      ...(all ? ["**"] : []),
    ].join("/"),
  );
const fields = fc.array(field, { minLength: 1, maxLength: 5 });
const budget = fc.record(
  {
    maxBytes: fc.integer({ min: 256, max: 3000 }),
    maxTokens: fc.integer({ min: 16, max: 600 }),
    maxItems: fc.integer({ min: 1, max: 6 }),
  },
  { requiredKeys: [] },
);
/** As a server would send it, and as a server without structured content would. */
const sent = fc.tuple(document, fc.boolean()).map(([value, inText]) => ({
  value,
  text:
    inText && typeof value === "object" && value !== null
      ? texts(JSON.stringify(value))
      : `{"content":[],"structuredContent":${JSON.stringify(value)}}`,
}));

const RUNS = runs(200);

/** Every path to a scalar, list or object of a document. */
function paths(value: JsonValue, path: readonly string[] = []): readonly (readonly string[])[] {
  if (typeof value !== "object" || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, one]) => paths(one as JsonValue, [...path, key]))];
}

/** Whether a path of the document is one that is named, or leads to one. */
function isNamed(path: readonly string[], named: readonly string[]): boolean {
  return named.some((one) => {
    const parts = one.split("/");
    const all = parts.at(-1) === "**";
    const fixed = (all ? parts.slice(0, -1) : parts).map((each) =>
      each === "*" ? undefined : each.replaceAll("~1", "/").replaceAll("~0", "~"),
    );
    // A list of scalars is named as one.
    if (path.length > fixed.length + (all ? 999 : 1)) return false;
    return path.slice(0, fixed.length).every((key, at) => fixed[at] === undefined || fixed[at] === key);
  });
}

describe("whatever the document and the fields are", () => {
  test("what leaves is JSON, fits the schema that clients see, and holds nothing that no path names", async () => {
    await fc.assert(
      fc.asyncProperty(sent, fields, budget, async ({ text }, named, limits) => {
        const { schema = {}, tool } = await projection({ fields: named, ...limits });
        const { result, value, withheld } = tool(text);
        expect(JSON.parse(result)).toEqual(JSON.parse(JSON.stringify(value)));
        if (withheld !== undefined) return expect(withheld).toContain("budget");
        const content = (JSON.parse(result) as { structuredContent: JsonValue }).structuredContent;
        expect(new Ajv2020({ strict: false, ownProperties: true }).validate(schema, content)).toBe(true);
        for (const path of paths(content)) expect([path, isNamed(path, named)]).toEqual([path, true]);
        return undefined;
      }),
      { numRuns: RUNS },
    );
  });

  test("without budgets nothing that is named is lost", async () => {
    await fc.assert(
      fc.asyncProperty(document, async (value) => {
        const { tool } = await projection({ fields: ["**"] });
        expect(JSON.stringify((JSON.parse(tool(structured(value)).result) as JsonObject)["structuredContent"])).toBe(
          JSON.stringify(value),
        );
      }),
      { numRuns: RUNS },
    );
  });

  test("the whole is within its bytes, and what a model reads within its tokens", async () => {
    const read = ({ value }: Projected) =>
      (value["content"] as { text: string }[]).map((block) => block.text).join("\n");
    await fc.assert(
      fc.asyncProperty(sent, fc.option(fields, { nil: undefined }), budget, async ({ text }, named, limits) => {
        const made = (await projection({ ...(named && { fields: named }), ...limits })).tool(text);
        if (made.withheld !== undefined) return;
        expect(Buffer.byteLength(made.result)).toBeLessThanOrEqual(limits.maxBytes ?? Number.POSITIVE_INFINITY);
        expect(estimateTokens(read(made))).toBeLessThanOrEqual(limits.maxTokens ?? Number.POSITIVE_INFINITY);
      }),
      { numRuns: RUNS },
    );
  });
});

// ---- hostile documents ----

const MEGABYTE = 1 << 20;
const filled = (one: string, head = "[", tail = "]") =>
  `${head}${`${one},`.repeat(Math.floor(MEGABYTE / (one.length + 1)))}${one}${tail}`;
const HOSTILE: readonly [string, string][] = [
  ["a wide list", filled("1")],
  ["a list of long numbers", filled("12345678901234567890")],
  ["a list of lists", filled("[]")],
  ["a list of small objects", filled('{"a":[1,"x"]}')],
  ["one long text", JSON.stringify({ a: "word ".repeat(MEGABYTE / 5) })],
  ["one long text without spaces", JSON.stringify({ a: "\u{1f642}".repeat(MEGABYTE / 4) })],
  ["white space", JSON.stringify({ a: " ".repeat(MEGABYTE) })],
  ["quotes", JSON.stringify({ a: '"'.repeat(MEGABYTE / 2) })],
  ["many names", `{${Array.from({ length: 60_000 }, (_, at) => `"name${at}":${at}`).join(",")}}`],
  ["many lists within each other", `${'{"a":['.repeat(20)}${filled("1")}${"]}".repeat(20)}`],
  ["brackets", "[".repeat(MEGABYTE)],
  ["a deep document", `${"[".repeat(MEGABYTE / 2)}${"]".repeat(MEGABYTE / 2)}`],
];

describe("a megabyte that means harm", () => {
  test.each(HOSTILE)("is done with soon: %s", async (_, text) => {
    const outputs = [
      { fields: ["**"], maxBytes: 4096 },
      { fields: ["**"], maxTokens: 1000 },
      { fields: ["a/*/b", "*/a"], maxTokens: 1000, maxItems: 10 },
      { maxBytes: 4096, maxTokens: 1000 },
      { fields: ["**"], maxBytes: 400_000 },
    ];
    for (const output of outputs) {
      const { tool } = await projection(output);
      for (const answer of [`{"structuredContent":${text}}`, texts(text)]) {
        const parsed = isJson(answer) ? (JSON.parse(answer) as JsonObject) : undefined;
        if (parsed === undefined) continue;
        let fastest = Number.POSITIVE_INFINITY;
        // The machine may be busy with something else, once.
        for (let turn = 0; turn < 6 && fastest > MOST_MS; turn++) {
          const started = process.threadCpuUsage();
          const { result } = tool(answer, parsed);
          const { user, system } = process.threadCpuUsage(started);
          fastest = Math.min(fastest, (user + system) / 1000);
          expect(Buffer.byteLength(result)).toBeLessThanOrEqual(output.maxBytes ?? MEGABYTE);
        }
        expect([JSON.stringify(output), fastest < MOST_MS || fastest]).toEqual([JSON.stringify(output), true]);
      }
    }
  });
});

/** Of this thread. The worst, a megabyte of nothing but names, costs 40 ms where all else is quiet, half of it parsing. */
const MOST_MS = 100;
function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
