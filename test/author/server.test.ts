/** Servers of declarations: what is refused at start, what leaves a call, and what a handler has. */
import { as, type Documentation, resource, server, type Tool, ToolRefused, tool } from "drawbridge-mcp/author";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { lintDocumentation } from "../../src/contract/document.ts";
import { narrowInput } from "../../src/contract/narrow.ts";
import type { JsonObject } from "../../src/core/call.ts";
import { desk } from "./desk.ts";

const description: Documentation = {
  does: "Shows one order and its state.",
  useWhen: "when asked",
  notWhen: "for lists",
  returns: "its state",
  limits: "one at a time",
};
const input = z.object({ id: z.string().max(9).describe("The number.") });
const output = z.object({ status: z.string() });
const sound = {
  name: "look_up",
  title: "Look up",
  description,
  input,
  output,
  access: "read",
  handler: () => ({ status: "" }),
} as const;
const { place: _, ...bare } = tool(sound);
/** As JavaScript, or a cast, would have it. */
const made = (change: Partial<Record<keyof Tool, unknown>>): Tool =>
  ({ ...bare, place: "server.ts:12", ...change }) as Tool;
const problem = (...tools: readonly Tool[]): string => {
  try {
    server({ name: "desk", version: "1", tools });
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
  return "";
};
const taking = (schema: z.ZodType) => made({ input: z.object({ q: schema.describe("q") }) });

describe("at start", () => {
  test("a sound declaration is taken", () => {
    expect(problem(tool(sound))).toBe("");
  });

  test("a refusal names file and line of the declaration", () => {
    const bad = tool({ ...sound, mask: { "customer/email": "token" } });
    expect(problem(bad)).toMatch(/server\.test\.ts:\d+ tool look_up: mask "customer\/email" is about nothing/);
    const { stack = "" } = new Error();
    const here = Number(/server\.test\.ts:(\d+)/.exec(stack)?.[1]);
    expect(bad.place).toBe(`${import.meta.filename}:${here - 2}`);
  });

  test("every problem of every tool is told at once", () => {
    const said = problem(
      made({ title: "", access: undefined }),
      made({ name: "other", description: { ...description, limits: " " } }),
    );
    expect(said.split("\n").slice(1)).toEqual([
      "  server.ts:12 tool look_up: the title is missing",
      '  server.ts:12 tool look_up: access is missing: "read", "write" or "destructive"',
      '  server.ts:12 tool other: the description lacks "limits": a model that is not told guesses',
    ]);
  });

  test.for([
    ["a string without a bound", z.string()],
    ["a pattern without an end", z.string().regex(/^[a-z]+$/)],
    ["a pattern without an anchor", z.string().regex(/[a-z]{3}/)],
    ["a pattern with an open alternative", z.string().regex(/^[a-z]|[0-9]$/)],
    ["a pattern whose repetition hides in a group", z.string().regex(/^([a-z]{1,3}){2,}$/)],
    ["an e-mail address of any length", z.email()],
    ["a list without a bound", z.array(z.int())],
  ] as const)("%s is refused", ([, schema]) => {
    expect(problem(taking(schema))).toContain("without a bound");
  });

  test("a pattern with flags that no schema can say is refused", () => {
    expect(problem(taking(z.string().regex(/^[a-z]{3}$/i)))).toContain("whose flags no schema can say");
  });

  test.for([
    ["anything", z.any()],
    ["a transformed value", z.string().max(3).transform(Number)],
    ["an object with further members", z.looseObject({})],
    ["a date", z.date()],
    ["a custom check alone", z.custom<string>()],
  ] as const)("%s as input is refused as free-form", ([, schema]) => {
    expect(problem(taking(schema))).toContain("is free-form");
  });

  test("objects in objects are refused", () => {
    expect(problem(taking(z.object({ a: z.object({ b: z.int() }) })))).toContain("is nested");
    expect(problem(taking(z.array(z.array(z.int()).max(2)).max(2)))).toContain("is nested");
  });

  test("outputs that may hold more than they say are refused", () => {
    for (const [schema, says] of [
      [z.object({ a: z.array(z.unknown()) }), 'output "a/*" may hold anything'],
      [z.looseObject({ a: z.int() }), "the output must be z.object({…})"],
      [z.object({ a: z.strictObject({}) }), 'output "a" must be z.object({…})'],
    ] as const)
      expect(problem(made({ output: schema }))).toContain(says);
  });

  test("masks of what is not there, names twice and strange names are refused", () => {
    expect(problem(made({ mask: { "customer/email": "token" } }))).toContain('mask "customer/email" is about nothing');
    expect(problem(made({}), made({ place: "server.ts:40" }))).toContain(
      "server.ts:40 tool look_up: is declared twice, also at server.ts:12",
    );
    expect(problem(made({ name: "look up" }))).toContain("has a name of other characters");
  });

  test("the variables of a resource are its inputs", () => {
    const declared = resource({
      uri: "a://{b}",
      name: "a",
      title: "A",
      description: "An a.",
      input: z.object({ c: z.string().max(3).describe("c") }),
      output,
      handler: () => ({ status: "" }),
    });
    expect(() => server({ name: "a", version: "1", tools: [], resources: [declared] })).toThrow(
      /the variable \{b\} of its URI is no input[\s\S]*input "c" is no variable/,
    );
  });

  test("what is served is closed and bounded enough for a contract without a word more, and documented", async () => {
    const kinds = z.object({
      a: z
        .string()
        .regex(/^ORD-[0-9]{6}$/)
        .describe("An order, e.g. ORD-100007."),
      b: z.record(z.enum(["x", "y"]), z.int()).describe("How many of each."),
      c: z
        .array(z.object({ sku: z.string().max(5), n: z.int() }))
        .max(5)
        .describe("The parts of the order."),
      d: z.email().max(99).describe("The whole address."),
      e: z.iso.datetime().optional().describe("When it was, in UTC."),
      f: z.uuid().nullable().describe("The number of it."),
      g: z.union([z.int(), z.literal("all")]).describe("How many, or all of them."),
    });
    for (const one of [
      ...desk.list("tools"),
      ...server({ name: "a", version: "1", tools: [made({ input: kinds })] }).list("tools"),
    ]) {
      const { name, title, description, inputSchema } = one as {
        name: string;
        title: string;
        description: string;
        inputSchema: JsonObject;
      };
      const narrowed = await narrowInput(inputSchema, undefined, { maxDepth: 8, maxBytes: 65_536, unproven: false });
      expect(narrowed, name).toHaveProperty("served.additionalProperties", false);
      expect(
        lintDocumentation({ name, title, description, inputSchema }).filter(({ rule }) => rule !== "argument"),
      ).toEqual([]);
    }
  });
});

describe("a call", () => {
  test("gives what is declared and drops the rest", async () => {
    expect(await as(desk, { subject: "ann" }).call("echo", { text: "hi", times: 2 })).toEqual({
      text: "hihi",
      by: "ann",
    });
    expect(await as(desk).read("desk://products/KET-01")).toEqual({ sku: "KET-01" });
    expect(await as(desk).prompt("greet", { name: "Ann" })).toBe("Write a greeting for Ann.");
  });

  test.for([
    [{ text: "x".repeat(101) }, "text"],
    [{ text: "hi", times: 9 }, "times"],
    [{ text: "hi", verbose: true }, "verbose"],
    [{}, "text"],
    [{ text: { $ne: "" } }, "text"],
  ] as const)("with the arguments %j is refused in words for its model", async ([args, about]) => {
    const refused = await as(desk)
      .call("echo", args)
      .catch((thrown: unknown) => thrown);
    expect(refused).toBeInstanceOf(ToolRefused);
    expect(String(refused)).toContain(about);
  });

  test("that fails inside tells nothing of it", async () => {
    for (const how of ["throws", "lies"]) {
      const failed = await as(desk)
        .call("broken", { how })
        .catch((thrown: unknown) => thrown);
      expect(String(failed)).toMatch(/operator's log/);
      expect(String(failed)).not.toContain("canary");
    }
  });

  test("that does not end is ended", async () => {
    await expect(as(desk).call("broken", { how: "hangs" })).rejects.toThrow("took too long");
  });

  test("asks its person, and hears what they say", async () => {
    const willing = as(desk, { answers: [{ words: "To Ann" }, { sure: true }] });
    expect(await willing.call("order", { sku: "KET-01" })).toEqual({ ordered: "KET-01", engraved: "To Ann" });
    expect(willing.asked).toEqual(["What shall be engraved?", "Are you sure?"]);
    await expect(as(desk, { answers: ["decline"] }).call("order", { sku: "KET-01" })).rejects.toThrow(
      "Nothing was ordered.",
    );
    await expect(as(desk, { answers: [{ words: "x".repeat(21) }] }).call("order", { sku: "KET-01" })).rejects.toThrow(
      "does not fit",
    );
    await expect(as(desk).call("order", { sku: "KET-01" })).rejects.toThrow("cannot ask");
  });

  test("tells how far it is, in steps", async () => {
    const caller = as(desk);
    expect(await caller.call("slow")).toEqual({ steps: 3 });
    expect(caller.progress).toEqual([1, 2, 3].map((step) => ({ progress: step, total: 3, message: `step ${step}` })));
  });

  test("has a token for the API behind it, where somebody exchanges them", async () => {
    const upstreamToken = `e30.${Buffer.from('{"aud":"https://api.example"}').toString("base64url")}.`;
    expect(await as(desk, { upstreamToken }).call("lends")).toMatchObject({ audience: "https://api.example" });
    await expect(as(desk).call("lends")).rejects.toThrow("Nobody exchanges tokens");
  });

  test("of a resource goes by its template alone", async () => {
    for (const uri of ["desk://products/KET-01/x", "desk://products/ket", "desk://products/%E0%A4%A", "desk://other"])
      await expect(as(desk).read(uri)).rejects.toThrow("Resource not found");
  });
});

test("declarations are contracts of the settings file", () => {
  const { tools, limits, stepUp } = desk.contracts("orders");
  expect(tools["contact"]).toMatchObject({
    from: "orders/contact",
    access: "read",
    openWorld: false,
    mask: { "people/*/email": "redact" },
  });
  expect(tools["wipe"]).toMatchObject({ access: "destructive", approval: { reason: "All is gone afterwards." } });
  expect([limits, stepUp]).toEqual([
    { "tool:scarce": { perMinute: 1 } },
    { "tool:guarded": ["desk:guarded", "desk:seen"] },
  ]);
});
