/** Servers that people really use, behind the gateway over stdio, called by SDK clients of both generations. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { verifies } from "../requirements.ts";
import { type World, world } from "./world.ts";

const require = createRequire(import.meta.url);
const serverCommand = (name: string, ...args: string[]) => {
  const root = dirname(require.resolve(`@modelcontextprotocol/server-${name}/package.json`));
  return [process.execPath, join(root, "dist/index.js"), ...args];
};

type AnyClient = Awaited<ReturnType<World["legacy"]>>;
const eras = ["legacy", "modern"] as const;

let folder: string;
let one: World;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-e2e-"));
  await writeFile(join(folder, "hello.txt"), "hello from a file\n");
  one = await world({
    servers: {
      everything: { command: serverCommand("everything") },
      files: { command: serverCommand("filesystem", folder), processes: { max: 1 } },
      memory: {
        command: serverCommand("memory"),
        environment: { MEMORY_FILE_PATH: join(folder, "memory.jsonl") },
        processes: { max: 1 },
      },
    },
  });
});
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

const client = async (era: (typeof eras)[number]) => (await one[era]()) as unknown as AnyClient;
/** The second argument of `callTool` is a schema in v1 and the options in v2. */
const callWith = (
  mine: AnyClient,
  era: (typeof eras)[number],
  params: { name: string; arguments: Record<string, unknown> },
  options: Record<string, unknown>,
) =>
  era === "legacy"
    ? mine.callTool(params, undefined, options)
    : (mine.callTool as unknown as (p: object, o: object) => ReturnType<AnyClient["callTool"]>).call(
        mine,
        params,
        options,
      );
const textOf = (result: unknown) =>
  (result as { content: { text?: string }[] }).content.map((part) => part.text ?? "").join("\n");

describe.each(eras)("a %s client", (era) => {
  verifies("tool-names", "sees the tools of every server under names that cannot collide", async () => {
    const { tools } = await (await client(era)).listTools();
    const names = tools.map((tool) => tool.name);
    expect(new Set(names).size).toBe(names.length);
    for (const name of ["everything_echo", "everything_get-sum", "files_read_text_file", "memory_create_entities"])
      expect(names).toContain(name);
  });

  test("calls every tool of server-everything that needs nothing of the client", async () => {
    const mine = await client(era);
    const { tools } = await mine.listTools();
    const args: Record<string, Record<string, unknown>> = {
      everything_echo: { message: "hi" },
      "everything_get-sum": { a: 2, b: 3 },
      "everything_get-annotated-message": { messageType: "success", includeImage: true },
      "everything_get-resource-links": { count: 3 },
      "everything_get-resource-reference": { resourceType: "Text", resourceId: 1 },
      "everything_get-structured-content": { location: "New York" },
      "everything_trigger-long-running-operation": { duration: 1, steps: 2 },
      "everything_simulate-research-query": { topic: "rust" },
      "everything_gzip-file-as-resource": { name: "a.gz", data: "data:text/plain,hello", outputType: "resource" },
    };
    const mineOnly = tools.filter((tool) => tool.name.startsWith("everything_"));
    expect(mineOnly.length).toBeGreaterThanOrEqual(10);
    for (const tool of mineOnly) {
      const result = await mine.callTool({ name: tool.name, arguments: args[tool.name] ?? {} });
      expect(result["isError"] ?? false, `${tool.name}: ${JSON.stringify(result).slice(0, 300)}`).toBe(false);
    }
    expect(textOf(await mine.callTool({ name: "everything_echo", arguments: { message: "hi" } }))).toBe("Echo: hi");
    expect(textOf(await mine.callTool({ name: "everything_get-sum", arguments: { a: 2, b: 3 } }))).toContain("5");
  });

  test("reads every resource and gets every prompt", async () => {
    const mine = await client(era);
    const { resources } = await mine.listResources();
    expect(resources.length).toBeGreaterThan(3);
    for (const { uri } of resources) expect((await mine.readResource({ uri })).contents.length, uri).toBeGreaterThan(0);
    const { resourceTemplates } = await mine.listResourceTemplates();
    expect(resourceTemplates.length).toBeGreaterThan(0);
    expect((await mine.readResource({ uri: "demo://resource/dynamic/text/7" })).contents[0]).toMatchObject({
      uri: "demo://resource/dynamic/text/7",
    });
    const { prompts } = await mine.listPrompts();
    expect(prompts.length).toBeGreaterThan(2);
    for (const prompt of prompts) {
      const values: Record<string, string> = {
        city: "Paris",
        resourceType: "Text",
        resourceId: "1",
        department: "Engineering",
        name: "Alice",
      };
      const args = Object.fromEntries((prompt.arguments ?? []).map(({ name }) => [name, values[name] ?? "x"]));
      expect(
        (await mine.getPrompt({ name: prompt.name, arguments: args })).messages.length,
        prompt.name,
      ).toBeGreaterThan(0);
    }
  });

  test("gets every step of progress, the last one too", async () => {
    const mine = await client(era);
    const seen: number[] = [];
    await callWith(
      mine,
      era,
      { name: "everything_trigger-long-running-operation", arguments: { duration: 1, steps: 4 } },
      { onprogress: ({ progress }: { progress: number }) => seen.push(progress) },
    );
    expect(seen).toEqual([1, 2, 3, 4]);
  });

  test("cancels a call, and the next one is answered", async () => {
    const mine = await client(era);
    const stop = new AbortController();
    const long = callWith(
      mine,
      era,
      { name: "everything_trigger-long-running-operation", arguments: { duration: 30, steps: 60 } },
      { signal: stop.signal, onprogress: () => stop.abort() },
    );
    await expect(long).rejects.toThrow();
    expect(textOf(await mine.callTool({ name: "everything_echo", arguments: { message: "still here" } }))).toBe(
      "Echo: still here",
    );
  });

  test("completes an argument of a prompt and of a resource template", async () => {
    const mine = await client(era);
    const prompt = await mine.complete({
      ref: { type: "ref/prompt", name: "everything_completable-prompt" },
      argument: { name: "department", value: "E" },
    });
    expect(prompt.completion.values).toContain("Engineering");
    const resource = await mine.complete({
      ref: { type: "ref/resource", uri: "demo://resource/dynamic/text/{resourceId}" },
      argument: { name: "resourceId", value: "1" },
    });
    expect(resource.completion.values.length).toBeGreaterThanOrEqual(0);
  });

  test("works with server-filesystem and server-memory", async () => {
    const mine = await client(era);
    expect(
      textOf(await mine.callTool({ name: "files_read_text_file", arguments: { path: join(folder, "hello.txt") } })),
    ).toContain("hello from a file");
    expect(textOf(await mine.callTool({ name: "files_list_directory", arguments: { path: folder } }))).toContain(
      "hello.txt",
    );
    await mine.callTool({
      name: "memory_create_entities",
      arguments: { entities: [{ name: `drawbridge-${era}`, entityType: "thing", observations: ["it works"] }] },
    });
    expect(textOf(await mine.callTool({ name: "memory_read_graph", arguments: {} }))).toContain(`drawbridge-${era}`);
  });

  test("is refused arguments that do not fit the schema, with a sentence a model can use", async () => {
    const mine = await client(era);
    const result = await mine.callTool({ name: "everything_get-sum", arguments: { a: "two", b: 3 } });
    expect(result["isError"]).toBe(true);
    expect(textOf(result)).toContain("arguments/a must be number");
  });
});
