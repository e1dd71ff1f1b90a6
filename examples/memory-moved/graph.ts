/**
 * A person's memory: entities and relations in a file of JSON Lines, as `@modelcontextprotocol/server-memory` keeps them, so that either
 * server can go on with the other's file.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";

export interface Entity {
  readonly name: string;
  readonly entityType: string;
  readonly observations: string[];
}
export interface Relation {
  readonly from: string;
  readonly to: string;
  readonly relationType: string;
}
export interface Graph {
  entities: Entity[];
  relations: Relation[];
}

const MAX_FILE_BYTES = 8 << 20;

const line = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("entity"),
    name: z.string(),
    entityType: z.string(),
    observations: z.array(z.string()),
  }),
  z.object({ type: z.literal("relation"), from: z.string(), to: z.string(), relationType: z.string() }),
]);

/** Reads a memory; an absent file is an empty one. Throws for what is none: nothing is guessed, and nothing is written over it. */
export async function readGraph(file: string): Promise<Graph> {
  const graph: Graph = { entities: [], relations: [] };
  for (const [index, text] of (await textOf(file)).split("\n").entries()) {
    if (text.trim() === "") continue;
    const read = line.safeParse(jsonOf(text));
    if (!read.success) throw new Error(`line ${index + 1} of ${file} is no entity and no relation`);
    const { type, ...one } = read.data;
    if (type === "entity") graph.entities.push(one as Entity);
    else graph.relations.push(one as Relation);
  }
  return graph;
}

/** The changes of each file that are under way, one after the other. */
const underWay = new Map<string, Promise<unknown>>();

/**
 * Changes a memory and resolves with what `work` returned. Of changes that come at the same moment none is lost, within this process; one
 * that throws leaves the file as it was. The file is replaced as a whole, never half written.
 */
export async function changeGraph<T>(file: string, work: (graph: Graph) => T): Promise<T> {
  const before = underWay.get(file) ?? Promise.resolve();
  const mine = before.then(async () => {
    const graph = await readGraph(file);
    const result = work(graph);
    await writeGraph(file, graph);
    return result;
  });
  const settled = mine.catch(() => {});
  underWay.set(file, settled);
  try {
    return await mine;
  } finally {
    if (underWay.get(file) === settled) underWay.delete(file);
  }
}

async function writeGraph(file: string, { entities, relations }: Graph): Promise<void> {
  const lines = [
    ...entities.map((one) => JSON.stringify({ type: "entity", ...one })),
    ...relations.map((one) => JSON.stringify({ type: "relation", ...one })),
  ];
  const text = lines.join("\n");
  if (Buffer.byteLength(text) > MAX_FILE_BYTES) throw new Error(`${file} would be larger than ${MAX_FILE_BYTES} bytes`);
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  const beside = `${file}.${randomUUID()}.new`;
  try {
    await writeFile(beside, text, { mode: 0o600 });
    await rename(beside, file);
  } finally {
    await rm(beside, { force: true });
  }
}

async function textOf(file: string): Promise<string> {
  try {
    const { size } = await stat(file);
    if (size > MAX_FILE_BYTES) throw new Error(`${file} is larger than ${MAX_FILE_BYTES} bytes`);
    return await readFile(file, "utf8");
  } catch (thrown) {
    if (thrown instanceof Error && Reflect.get(thrown, "code") === "ENOENT") return "";
    throw thrown;
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
