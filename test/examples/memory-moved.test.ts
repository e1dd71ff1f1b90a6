/**
 * A foreign server that was moved (`docs/moving-a-server.md`): its jobs are done at the old one and at the new one, side by side, and both
 * know the same afterwards. What the old one lets by is refused.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { readGraph } from "../../examples/memory-moved/graph.ts";
import { memoryServer } from "../../examples/memory-moved/memory.ts";
import {
  type Call,
  JOBS,
  measure,
  memoryOf,
  NEW,
  OLD,
  openMemory,
  PAGE,
  withTable,
} from "../../scripts/moved-memory.ts";
import { as, ToolRefused } from "../../src/author/index.ts";
import { check } from "../../src/check/check.ts";
import { ofSettings } from "../../src/cli/check-servers.ts";
import { loadSettings } from "../../src/config/load.ts";
import { type Answers, type AnyClient, clientAt, ERAS } from "../author/clients.ts";
import { world } from "../e2e/world.ts";
import { root } from "../house/sources.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-memory-moved-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const settingsFile = join(root, "examples/memory-moved/drawbridge.yaml");
const memories = join(folder, "memories");
// The module reads it when it is first loaded.
process.env["MEMORY_FOLDER"] = memories;
let made = 0;
/** A file with a memory that nobody has changed. */
const memoryFile = (text = memoryOf()) => {
  const file = join(folder, `memory-${++made}.jsonl`);
  writeFileSync(file, text);
  return file;
};
const approves: Answers = () => ({ action: "accept", content: { approve: true } });
type Told = Record<string, never> & { readonly entities?: readonly unknown[]; readonly relations?: readonly unknown[] };

/** Entities and relations of all answers to a job, together. */
async function did(client: Pick<AnyClient, "callTool">, calls: readonly Call[]) {
  const told: Told[] = [];
  for (const [name, args] of calls) {
    const answer = await client.callTool({ name, arguments: args as Record<string, unknown> });
    expect(answer.isError, JSON.stringify(answer)).not.toBe(true);
    told.push(answer.structuredContent as Told);
  }
  const entities = told.flatMap(({ entities = [] }) => entities);
  const relations = told.flatMap(({ relations = [] }) => (Array.isArray(relations) ? relations : []));
  return { entities, relations: [...new Set(relations.map((one) => JSON.stringify(one)))] };
}

describe.each(ERAS)("beside the old one, a %s client", (era) => {
  test("gets the same answers to the same questions, and both remember the same", async () => {
    await using old = await openMemory(OLD);
    const file = memoryFile();
    const moved = await clientAt({ program: NEW, environment: { MEMORY_FILE_PATH: file } }, era, approves);
    try {
      for (const [job, { old: before, moved: after }] of Object.entries(JOBS)) {
        const [was, is] = [await did(old.client, before), await did(moved, after)];
        if (["say all about one", "find who likes tea", "say all"].includes(job)) expect(is, job).toEqual(was);
        expect(await readGraph(file), job).toEqual(await readGraph(old.file));
      }
    } finally {
      await moved.close();
    }
    // The old server goes on with what the new one wrote.
    await using again = await openMemory(OLD, readFileSync(file, "utf8"));
    const { structuredContent } = await again.client.callTool({ name: "read_graph", arguments: {} });
    expect(structuredContent).toEqual(await readGraph(file));
  });
});

describe("what the old one lets by", () => {
  const fifty = Array.from({ length: 50 }, (_, index) => `Thing ${index + 1}`);

  test("fifty calls at the same moment are all kept, where it loses most", async () => {
    await using old = await openMemory(OLD, "");
    await using moved = await openMemory(NEW, "");
    await Promise.all(
      fifty.map((name) => {
        const entities = [{ name, entityType: "thing", observations: ["is there"] }];
        return old.client.callTool({ name: "create_entities", arguments: { entities } });
      }),
    );
    await Promise.all(
      fifty.map((name) => {
        const facts = [{ name, entityType: "thing", observation: "is there" }];
        return moved.client.callTool({ name: "remember", arguments: { facts } });
      }),
    );
    expect((await readGraph(old.file)).entities.length).toBeLessThan(50);
    expect((await readGraph(moved.file)).entities.map(({ name }) => name).sort()).toEqual(fifty.sort());
  });

  test("a text of three megabytes is kept and said twice by it, and refused here", async () => {
    await using old = await openMemory(OLD, "");
    await using moved = await openMemory(NEW, "");
    const long = "x".repeat(3_000_000);
    const entities = [{ name: "long", entityType: "thing", observations: [long] }];
    const kept = await old.client.callTool({ name: "create_entities", arguments: { entities } });
    expect(JSON.stringify(kept).length).toBeGreaterThan(6_000_000);
    const facts = [{ name: "long", entityType: "thing", observation: long }];
    const refused = await moved.client.callTool({ name: "remember", arguments: { facts } });
    expect(refused.isError).toBe(true);
    expect(JSON.stringify(refused).length).toBeLessThan(500);
    expect(readFileSync(moved.file, "utf8")).toBe("");
  });

  test("to forget somebody unknown is a success there, and here it is said", async () => {
    await using old = await openMemory(OLD);
    const deleted = await old.client.callTool({ name: "delete_entities", arguments: { entityNames: ["Nobody"] } });
    expect(deleted.structuredContent).toMatchObject({ success: true });
    const ann = as(memoryServer(() => memoryFile()));
    await expect(ann.call("forget", { name: "Nobody" })).rejects.toThrow("Nothing is remembered of Nobody.");
  });

  test("a relation with somebody unknown is kept there, and here it is refused with all that came with it", async () => {
    await using old = await openMemory(OLD);
    const dangling = [{ from: "Nobody", to: "Nowhere", relationType: "lives_in" }];
    await old.client.callTool({ name: "create_relations", arguments: { relations: dangling } });
    expect((await readGraph(old.file)).relations).toContainEqual(dangling[0]);
    const file = memoryFile();
    const before = readFileSync(file, "utf8");
    const ann = as(memoryServer(() => file));
    const relations = [
      { from: "Project 1", to: "Project 3", relationType: "pays_for" },
      { from: "Project 1", to: "Nobody", relationType: "pays_for" },
    ];
    await expect(ann.call("relate", { relations })).rejects.toThrow("Nothing is remembered of Nobody.");
    expect(readFileSync(file, "utf8")).toBe(before);
  });

  test("who declines keeps what was to be forgotten", async () => {
    for (const era of ERAS) {
      const file = memoryFile();
      const declines = await clientAt({ program: NEW, environment: { MEMORY_FILE_PATH: file } }, era, () => ({
        action: "decline",
      }));
      const answer = await declines.callTool({ name: "forget", arguments: { name: "Project 1" } });
      await declines.close();
      expect(JSON.stringify(answer.content)).toContain("was not approved");
      expect(await readGraph(file)).toMatchObject({ entities: { length: 30 } });
    }
  });

  test("a memory that is none is not written over, and the client is told nothing of it", async () => {
    const broken = `${memoryOf(2)}\nhunter2 is no line of it`;
    const file = memoryFile(broken);
    const ann = as(memoryServer(() => file));
    const facts = [{ name: "New", entityType: "thing" }];
    const failed = await ann.call("remember", { facts }).then(String, String);
    expect(failed).toContain("failed");
    expect(failed).not.toMatch(/hunter2|jsonl/);
    expect(readFileSync(file, "utf8")).toBe(broken);
  });
});

describe("bounds", () => {
  test("an entity is full at fifty observations, and a page ends at twenty entities", async () => {
    const file = memoryFile("");
    const ann = as(memoryServer(() => file));
    const facts = Array.from({ length: 50 }, (_, index) => ({
      name: "Ada",
      entityType: "person",
      observation: `fact ${index}`,
    }));
    for (const from of [0, 20, 40]) await ann.call("remember", { facts: facts.slice(from, from + 20) });
    await expect(ann.call("remember", { facts: [{ name: "Ada", observation: "one more" }] })).rejects.toThrow("has 50");
    const { entities, more } = await as(memoryServer(() => memoryFile(memoryOf(21)))).call("recall");
    expect([(entities as unknown[]).length, more]).toEqual([20, true]);
    await expect(ann.call("recall", { names: Array(21).fill("a") })).rejects.toThrow(ToolRefused);
    await expect(ann.call("recall", { query: "a", everything: true })).rejects.toThrow("everything");
  });

  test("of an entity that the old server filled, the newest is shown", async () => {
    const observations = Array.from({ length: 60 }, (_, index) => `${index} ${"y".repeat(600)}`);
    const file = memoryFile(JSON.stringify({ type: "entity", name: "Full", entityType: "thing", observations }));
    const read = (await as(memoryServer(() => file)).read("memory://entities/Full")) as { observations: string[] };
    expect(read.observations).toHaveLength(50);
    expect(read.observations[0]).toBe(observations[10]?.slice(0, 500));
  });
});

test("people inside the gateway have memories of their own, by clients of both eras", async () => {
  await using gateway = await world(
    {},
    {
      load: async ({ listen }) => {
        const loaded = await loadSettings(settingsFile, { env: {} });
        const { listen: own, clients } = loaded.settings;
        const settings = {
          ...loaded.settings,
          publicUrl: undefined,
          store: "memory",
          listen: { ...own, ...(listen as object) },
          clients: { ...clients, registration: "open" },
        };
        return { ...loaded, settings } as never;
      },
    },
  );
  const { access_token: token } = await gateway.tokens();
  for (const era of ERAS) {
    const olive = await clientAt({ url: gateway.url, token }, era, approves);
    await did(olive, [["remember", { facts: [{ name: `Met in ${era}`, entityType: "event" }] }]]);
    await did(olive, [["forget", { name: `Met in ${era}` }]]);
    await did(olive, [["remember", { facts: [{ name: `Kept in ${era}`, entityType: "event" }] }]]);
    await olive.close();
  }
  const files = readdirSync(memories);
  expect(files).toHaveLength(1);
  expect(files[0]).toMatch(/^[0-9a-f]{64}\.jsonl$/);
  const { entities } = await readGraph(join(memories, files[0] ?? ""));
  expect(entities.map(({ name }) => name)).toEqual(ERAS.map((era) => `Kept in ${era}`));
}, 60_000);

test("nobody reads, changes or forgets what another person remembers", async () => {
  const memory = memoryServer((subject) => join(folder, `of-${subject}.jsonl`));
  const [ann, ben] = [as(memory, { subject: "ann" }), as(memory, { subject: "ben" })];
  await ann.call("remember", { facts: [{ name: "Wish", entityType: "secret", observation: "a boat" }] });
  expect(await ben.call("recall", { query: "boat" })).toMatchObject({ entities: [] });
  await expect(ben.call("forget", { name: "Wish" })).rejects.toThrow("Nothing is remembered of Wish.");
  await expect(ben.read("memory://entities/Wish")).rejects.toThrow("Nothing is remembered of Wish.");
  expect(await ann.call("recall", { query: "boat" })).toMatchObject({ entities: [{ name: "Wish" }] });
});

test("it grades A", async () => {
  const terminal = { cwd: root, env: {}, stderr: { write: () => true } } as never;
  const { grades } = await check(await ofSettings(settingsFile, "memory", terminal));
  expect(grades).toMatchObject({ overall: "A", score: 100 });
});

test("the table in the guide is what `node scripts/moved-memory.ts` measures", async () => {
  const page = readFileSync(PAGE, "utf8");
  const measured = await measure();
  expect(page, "stale: node scripts/moved-memory.ts").toBe(withTable(page, measured));
  expect(measured.moved).toMatchObject({ unbounded: 0, nested: 0 });
  expect(measured.moved.tokens).toBeLessThan(measured.old.tokens);
});
