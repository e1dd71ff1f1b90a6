/**
 * What became of a foreign server that was moved (docs/moving-a-server.md), measured: the same jobs are done at the old one and at the new
 * one, on a memory each that begins the same. Writes the table into the page: `node scripts/moved-memory.ts`.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { check } from "../src/check/check.ts";
import { estimateTokens } from "../src/contract/tokens.ts";
import type { JsonObject, JsonValue } from "../src/core/call.ts";

const root = join(import.meta.dirname, "..");
export const PAGE = join(root, "docs/moving-a-server.md");
export const OLD = join(root, "node_modules/@modelcontextprotocol/server-memory/dist/index.js");
export const NEW = join(root, "examples/memory-moved/server.ts");
const BEGIN = "<!-- written by `node scripts/moved-memory.ts`: begin -->";
const END = "<!-- written by `node scripts/moved-memory.ts`: end -->";

export type Call = readonly [tool: string, args: JsonObject];
export interface Job {
  readonly old: readonly Call[];
  readonly moved: readonly Call[];
}

const ada = "Ada Lovelace";
const works = { from: ada, to: "Charles Babbage", relationType: "works_with" };

/** What the old server is used for, each job at both. In this order: some need what others did. */
export const JOBS: Readonly<Record<string, Job>> = {
  "remember two people": {
    old: [
      [
        "create_entities",
        {
          entities: [
            { name: ada, entityType: "person", observations: ["Likes tea", "Lives in London"] },
            { name: "Charles Babbage", entityType: "person", observations: ["Builds engines"] },
          ],
        },
      ],
    ],
    moved: [
      [
        "remember",
        {
          facts: [
            { name: ada, entityType: "person", observation: "Likes tea" },
            { name: ada, observation: "Lives in London" },
            { name: "Charles Babbage", entityType: "person", observation: "Builds engines" },
          ],
        },
      ],
    ],
  },
  "add to what is known": {
    old: [["add_observations", { observations: [{ entityName: ada, contents: ["Likes tea", "Writes programs"] }] }]],
    moved: [
      [
        "remember",
        {
          facts: [
            { name: ada, observation: "Likes tea" },
            { name: ada, observation: "Writes programs" },
          ],
        },
      ],
    ],
  },
  "relate them": {
    old: [["create_relations", { relations: [works] }]],
    moved: [["relate", { relations: [works] }]],
  },
  "say all about one": {
    old: [["open_nodes", { names: [ada] }]],
    moved: [["recall", { names: [ada] }]],
  },
  "find who likes tea": {
    old: [["search_nodes", { query: "TEA" }]],
    moved: [["recall", { query: "TEA" }]],
  },
  "say all": {
    old: [["read_graph", {}]],
    moved: [
      ["recall", {}],
      ["recall", { page: 2 }],
    ],
  },
  "correct something": {
    old: [
      ["delete_observations", { deletions: [{ entityName: ada, observations: ["Lives in London"] }] }],
      ["add_observations", { observations: [{ entityName: ada, contents: ["Lives in Surrey"] }] }],
    ],
    moved: [
      ["take_back", { observations: [{ name: ada, observation: "Lives in London" }] }],
      ["remember", { facts: [{ name: ada, observation: "Lives in Surrey" }] }],
    ],
  },
  "take a relation back": {
    old: [["delete_relations", { relations: [works] }]],
    moved: [["take_back", { relations: [works] }]],
  },
  "forget somebody": {
    old: [["delete_entities", { entityNames: ["Charles Babbage"] }]],
    moved: [["forget", { name: "Charles Babbage" }]],
  },
};

/** A memory as somebody has it after some weeks. */
export function memoryOf(entities = 30): string {
  const names = Array.from({ length: entities }, (_, index) => `Project ${index + 1}`);
  return [
    ...names.map((name, index) => ({
      type: "entity",
      name,
      entityType: "project",
      observations: [`Begun in week ${index + 1}`, "Written in TypeScript", "Reviewed every Monday"],
    })),
    ...names.slice(1).map((to) => ({ type: "relation", from: names[0], to, relationType: "comes_before" })),
  ]
    .map((line) => JSON.stringify(line))
    .join("\n");
}

export interface Side {
  readonly tools: number;
  readonly tokens: number;
  /** Strings and lists in inputs that may be as long as they like. */
  readonly unbounded: number;
  /** Lists and objects within objects of lists. */
  readonly nested: number;
  readonly grade: string;
  readonly calls: number;
  readonly allBytes: number;
  readonly largestBytes: number;
}
export interface Measured {
  readonly old: Side;
  readonly moved: Side;
}

/** Measures both. The same numbers each time. */
export async function measure(): Promise<Measured> {
  const old = await sideOf(OLD, ({ old: calls }) => calls);
  return { old, moved: await sideOf(NEW, ({ moved }) => moved) };
}

async function sideOf(program: string, callsOf: (job: Job) => readonly Call[]): Promise<Side> {
  await using memory = await openMemory(program);
  const { tools } = await memory.client.listTools();
  const defined = tools as unknown as readonly JsonObject[];
  const { grades } = await check({ name: "memory", servers: [{ name: "memory", tools: defined }] });
  const sizes: number[] = [];
  for (const [name, args] of Object.values(JOBS).flatMap(callsOf)) {
    const answer = await memory.client.callTool({ name, arguments: args as Record<string, unknown> });
    if (answer.isError === true) throw new Error(`${name}: ${JSON.stringify(answer.content)}`);
    sizes.push(Buffer.byteLength(JSON.stringify(answer)));
  }
  const inputs = defined.map(({ inputSchema }) => inputSchema as JsonObject);
  return {
    tools: tools.length,
    tokens: estimateTokens(JSON.stringify({ tools })),
    unbounded: inputs.reduce((sum, input) => sum + unboundedIn(input), 0),
    nested: inputs.reduce((sum, input) => sum + nestedIn(input), 0),
    grade: grades === undefined ? "none" : `${grades.overall} (${grades.score})`,
    calls: sizes.length,
    allBytes: sizes.reduce((sum, size) => sum + size, 0),
    largestBytes: Math.max(...sizes),
  };
}

/** A server with a memory of its own, over stdio; whoever it asks says yes. */
export async function openMemory(
  program: string,
  text = memoryOf(),
): Promise<{ readonly client: Client; readonly file: string } & AsyncDisposable> {
  const folder = mkdtempSync(join(tmpdir(), "moved-memory-"));
  const file = join(folder, "memory.jsonl");
  writeFileSync(file, text);
  const client = new Client({ name: "agent", version: "1" }, { capabilities: { elicitation: { form: {} } } });
  client.setRequestHandler(ElicitRequestSchema, async () => ({ action: "accept", content: { approve: true } }));
  const env = { PATH: process.env["PATH"] ?? "", MEMORY_FILE_PATH: file };
  await client.connect(
    new StdioClientTransport({ command: process.execPath, args: [program], env, stderr: "ignore" }) as never,
  );
  return {
    client,
    file,
    async [Symbol.asyncDispose]() {
      await client.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function unboundedIn(schema: JsonValue | undefined): number {
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) return 0;
  const { type, maxLength, maxItems, pattern, enum: values, properties, items } = schema as JsonObject;
  const here =
    (type === "string" && maxLength === undefined && pattern === undefined && values === undefined) ||
    (type === "array" && maxItems === undefined);
  const within = [...Object.values((properties ?? {}) as JsonObject), items];
  return within.reduce((sum: number, one) => sum + unboundedIn(one), here ? 1 : 0);
}

function nestedIn({ properties = {} }: JsonObject): number {
  const depth = (schema: JsonValue | undefined): number => {
    if (typeof schema !== "object" || schema === null || Array.isArray(schema)) return 0;
    const { properties: members = {}, items, type } = schema as JsonObject;
    const within = [...Object.values(members as JsonObject), items].map(depth);
    return Math.max(0, ...within) + (type === "array" || type === "object" ? 1 : 0);
  };
  return Object.values(properties as JsonObject).filter((one) => depth(one) > 2).length;
}

/** The rows as Markdown. */
export function table({ old, moved }: Measured): string {
  const n = (number: number) => number.toLocaleString("en-GB");
  const rows: readonly (readonly [string, string, string])[] = [
    ["tools", n(old.tools), n(moved.tools)],
    ["tokens of the `tools/list` answer", n(old.tokens), n(moved.tokens)],
    ["strings and lists in inputs without a bound", n(old.unbounded), n(moved.unbounded)],
    ["lists in objects in lists", n(old.nested), n(moved.nested)],
    ["`drawbridge check`", old.grade, moved.grade],
    ["calls for the nine jobs", n(old.calls), n(moved.calls)],
    ["bytes of their answers", n(old.allBytes), n(moved.allBytes)],
    ["bytes of the largest one", n(old.largestBytes), n(moved.largestBytes)],
  ];
  return ["| | before | after |", "|---|--:|--:|", ...rows.map((cells) => `| ${cells.join(" | ")} |`)].join("\n");
}

/** The page with the table in its place. */
export function withTable(page: string, measured: Measured): string {
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`the page lacks the lines ${BEGIN} and ${END}`);
  return `${page.slice(0, begin)}${BEGIN}\n${table(measured)}\n${page.slice(end)}`;
}

if (import.meta.main) {
  const measured = await measure();
  console.log(table(measured));
  writeFileSync(PAGE, withTable(readFileSync(PAGE, "utf8"), measured));
}
