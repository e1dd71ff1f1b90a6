/** What does not compile, and the words that say why: each snippet goes through the compiler itself. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { root } from "../house/sources.ts";

const HEAD = `
import { tool } from "drawbridge-mcp/author";
import { z } from "zod";
const description = { does: "Shows one order.", useWhen: "when asked", notWhen: "for lists", returns: "its state", limits: "one" };
const input = z.object({ id: z.string().max(9).describe("The number.") });
const output = z.object({ status: z.string() });
const handler = () => ({ status: "paid" });
const base = { name: "look_up_order", title: "Look up an order", description, access: "read", input, output, handler } as const;
const { description: _d, ...wordless } = base;
const { output: _o, ...voiceless } = base;
const { input: _i, ...deaf } = base;
const { access: _a, ...unsaid } = base;
const { title: _t, ...nameless } = base;
`;
const field = (schema: string) => `tool({ ...base, input: z.object({ q: ${schema} }) });`;
const giving = (schema: string) => `tool({ ...base, output: ${schema}, handler: () => ({}) as never });`;

/** By a name of ours: what is written, and what the compiler says to it; nothing for what compiles. */
const SNIPPETS: Readonly<Record<string, readonly [code: string, says: string | undefined]>> = {
  "a complete tool": ["tool(base);", undefined],
  "inputs of every kind that is taken": [
    `tool({ ...base, input: z.object({
      a: z.string().regex(/^ORD-[0-9]{6}$/).describe("a"), b: z.int().optional().describe("b"), c: z.enum(["x", "y"]).describe("c"),
      d: z.boolean().default(true).describe("d"), e: z.array(z.string().max(4)).max(3).describe("e"), f: z.iso.date().describe("f"),
      g: z.object({ h: z.int(), i: z.string().max(2) }).describe("g"), j: z.record(z.enum(["x", "y"]), z.int()).describe("j"),
      k: z.array(z.object({ sku: z.string().max(5), n: z.int() })).max(5).describe("k"), l: z.uuid().nullable().describe("l"),
      m: z.union([z.int(), z.literal("all")]).describe("m"), n: z.string().length(3).describe("n"), o: z.email().max(99).describe("o"),
    }), handler: ({ a, b, k }) => ({ status: a + String(b) + (k[0]?.sku ?? "") }) });`,
    undefined,
  ],
  "a string without a bound": [
    field('z.string().describe("q")'),
    'input \\"q\\" needs a bound: a string .max(n), .length(n)',
  ],
  "a string that is at least so long": [field('z.string().min(3).describe("q")'), 'input \\"q\\" needs a bound'],
  "an optional string without a bound": [field('z.string().optional().describe("q")'), 'input \\"q\\" needs a bound'],
  "a list without a bound": [field('z.array(z.int()).describe("q")'), 'input \\"q\\" needs a bound'],
  "a list of strings without a bound": [
    field('z.array(z.string()).max(3).describe("q")'),
    'input \\"q\\" needs a bound',
  ],
  "a string in a record without a bound": [
    field('z.object({ a: z.string() }).describe("q")'),
    'input \\"q\\" needs a bound',
  ],
  anything: [field('z.any().describe("q")'), 'input \\"q\\" is free-form'],
  "the unknown": [field('z.unknown().describe("q")'), 'input \\"q\\" is free-form'],
  "a record with any keys": [field('z.record(z.string(), z.int()).describe("q")'), 'input \\"q\\" is free-form'],
  "an object with further members": [
    field('z.looseObject({ a: z.int() }).describe("q")'),
    'input \\"q\\" is free-form',
  ],
  "an object in an object": [
    field('z.object({ a: z.object({ b: z.int() }) }).describe("q")'),
    'input \\"q\\" is nested',
  ],
  "a list in a list": [field('z.array(z.array(z.int()).max(2)).max(2).describe("q")'), 'input \\"q\\" is nested'],
  "an argument without words": [field("z.int()"), 'input \\"q\\" needs .describe('],
  "an input with further members": [
    'tool({ ...base, input: z.looseObject({ q: z.int().describe("q") }) });',
    "the input takes fields that nobody declared",
  ],
  "an output that may hold anything": [giving("z.object({ a: z.array(z.any()) })"), 'output \\"a\\" may hold anything'],
  "an output with further members": [
    giving("z.looseObject({ a: z.int() })"),
    "the output may hold fields that nobody declared",
  ],
  "an inner output with further members": [
    giving("z.object({ a: z.looseObject({}) })"),
    'output \\"a\\" may hold fields that nobody declared',
  ],
  "no output": ["tool(voiceless);", "drawbridge: an output is missing: z.object({…})"],
  "no input": ["tool(deaf);", "drawbridge: an input is missing: z.object({…})"],
  "no description": [
    "tool(wordless);",
    "drawbridge: a description is missing: { does, useWhen, notWhen, returns, limits }",
  ],
  "a description that lacks a part": [
    'tool({ ...base, description: { does: "Shows one.", useWhen: "when asked", notWhen: "for lists", returns: "it" } });',
    'drawbridge: the description lacks \\"limits\\"',
  ],
  "no access": ["tool(unsaid);", "drawbridge: access is missing"],
  "an access that is none": ['tool({ ...base, access: "sometimes" });', '"sometimes"'],
  "no title": ["tool(nameless);", "drawbridge: a title is missing"],
  "a handler that returns something else": [
    'tool({ ...base, handler: () => ({ state: "paid" }) });',
    "'{ state: string; }' is not assignable",
  ],
};

const folder = mkdtempSync(join(tmpdir(), "drawbridge-snippets-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const names = Object.keys(SNIPPETS);
const said = new Map<string, string>();

beforeAll(() => {
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"), "junction");
  for (const [index, name] of names.entries())
    writeFileSync(join(folder, `snippet-${index}.ts`), `${HEAD}export const made = ${SNIPPETS[name]?.[0] ?? ""}\n`);
  const compilerOptions = {
    paths: { "drawbridge-mcp/author": [join(root, "src/author/index.ts")] },
    noErrorTruncation: true,
    noUnusedLocals: false,
    rootDir: "/",
    typeRoots: [join(root, "node_modules/@types")],
  };
  const project = join(folder, "tsconfig.json");
  writeFileSync(project, JSON.stringify({ extends: join(root, "tsconfig.json"), include: ["*.ts"], compilerOptions }));
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  const { stdout } = spawnSync(process.execPath, [compiler, "--project", project, "--pretty", "false"], {
    cwd: folder,
    encoding: "utf8",
  });
  let current = "";
  for (const line of stdout.split("\n")) {
    const [, index] = /snippet-(\d+)\.ts\(/.exec(line) ?? [];
    if (index !== undefined) current = names[Number(index)] ?? "";
    said.set(current, `${said.get(current) ?? ""}${line}\n`);
  }
}, 180_000);

test.for(names)("the compiler has its word on %s", (name) => {
  const [, says] = SNIPPETS[name] ?? [];
  if (says === undefined) expect(said.get(name)).toBeUndefined();
  else expect(said.get(name)).toContain(says);
});
