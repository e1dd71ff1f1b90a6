/** `docs/contracts.md`: its snippets are loaded and meet the desk's definitions, its commands are run, and what it prints is printed. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { run } from "../cli/terminal.ts";
import { deskFolder } from "./desk.ts";

const guide = await readFile(join(import.meta.dirname, "../../docs/contracts.md"), "utf8");
const blocks = (language: string) =>
  [...guide.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, "gm"))].map(([, text = ""]) => text);
const [contracted, linted, proposed] = blocks("text");
const [tested, proposing] = blocks("sh").map((block) => block.trim().split("\n"));

const server = join(deskFolder, "server.ts");
const purchasing = join(deskFolder, "api/server.ts");

let folder: string;
let env: Record<string, string>;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "contracts-guide-"));
  env = { PATH: process.env["PATH"] ?? "" };
});
afterAll(async () => rm(folder, { recursive: true, force: true }));

/** A whole settings file with a snippet in it. */
async function written(snippet: string, name: string): Promise<string> {
  const orders = { command: [process.execPath, server], environment: { ORDERS_DB: join(folder, "orders.db") } };
  const servers = snippet.includes("purchasing/")
    ? { orders, purchasing: { command: [process.execPath, purchasing] } }
    : { orders };
  await writeFile(join(folder, name), `servers: ${JSON.stringify(servers)}\n${snippet}`);
  return name;
}

const drawbridge = (command: string) => {
  const [program, ...argv] = command.split(" ");
  expect(program).toBe("drawbridge");
  return run(
    argv.map((word) => (word === "server.ts" ? server : word === "node" ? process.execPath : word)),
    { cwd: folder, env },
  );
};

describe("each snippet is a settings file's, and its contracts fit the desk", () => {
  test.each(blocks("yaml").map((snippet, at) => [at + 1, snippet] as const))("snippet %i", async (at, snippet) => {
    const file = await written(snippet, `snippet-${at}.yaml`);
    const checked = await run(["config", "check", file], { cwd: folder, env });
    expect(checked.code, checked.stdout).toBe(0);
    const result = await run(["contract", "test", file], { cwd: folder, env });
    expect(result.code, result.stdout + result.stderr).toBe(0);
  });
});

test("the first contract's examples print what the page says", async () => {
  await written(blocks("yaml")[0] ?? "", "drawbridge.yaml");
  const { code, stdout } = await drawbridge(tested?.[0] ?? "");
  expect(code).toBe(0);
  expect(stdout).toContain(contracted?.trim());
});

test("a description without its part is found wanting, as the page says", async () => {
  const snippet = (blocks("yaml")[0] ?? "").replace(/Returns [^.]*[.]/, "");
  const file = await written(snippet, "wanting.yaml");
  const { code, stdout } = await run(["contract", "test", file], { cwd: folder, env });
  expect(code).toBe(0);
  expect(stdout).toContain(linted?.trimEnd());
  expect((await run(["contract", "test", "--strict", file], { cwd: folder, env })).code).toBe(1);
});

test("a proposal is made, loads, and passes", { timeout: 60_000 }, async () => {
  expect(proposing).toHaveLength(3);
  const results = [];
  for (const command of proposing ?? []) results.push(await drawbridge(command));
  expect(results.map(({ code, stderr }) => [code, code === 0 ? "" : stderr])).toEqual(results.map(() => [0, ""]));
  expect(results[0]?.stderr).toContain(proposed?.trim());
});
