/** `docs/author-mounting.md`: its snippets compile beside the server of the author guide, and the paths it names are those that are answered. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openAppEdge } from "../../src/author/app-edge.ts";
import { root } from "../house/sources.ts";

const guide = readFileSync(join(root, "docs/author-mounting.md"), "utf8");
const blocks = (text: string) => [...text.matchAll(/^```ts\n([\s\S]*?)^```/gm)].map(([, code = ""]) => code);
const folder = mkdtempSync(join(tmpdir(), "drawbridge-mounting-guide-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("its snippets compile", () => {
  mkdirSync(join(folder, "node_modules"), { recursive: true });
  symlinkSync(root, join(folder, "node_modules/drawbridge-mcp"), "junction");
  for (const name of ["zod", "express", "hono", "fastify", "@hono", "@types"])
    symlinkSync(join(root, "node_modules", name), join(folder, "node_modules", name), "junction");
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  writeFileSync(join(folder, "server.ts"), blocks(readFileSync(join(root, "docs/author.md"), "utf8"))[0] ?? "");
  const snippets = blocks(guide);
  expect(snippets.map((code) => /from "(express|hono|fastify)"/.exec(code)?.[1])).toEqual([
    "express",
    "hono",
    "fastify",
  ]);
  for (const [index, code] of snippets.entries()) writeFileSync(join(folder, `app-${index}.ts`), code);
  const compilerOptions = { noEmit: true, rootDir: "/" };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({ extends: join(root, "tsconfig.json"), include: ["*.ts"], compilerOptions }),
  );
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  const { stdout } = spawnSync(process.execPath, [compiler, "--pretty", "false"], { cwd: folder, encoding: "utf8" });
  expect(stdout).toBe("");
}, 120_000);

test("the paths it names are those that are answered, and no others at the root", () => {
  const edge = openAppEdge(new URL("https://shop.example/assistant"), 1000);
  const table = guide.slice(guide.indexOf("## What it answers"), guide.indexOf("`assistant.owns(url)`"));
  const named = [...table.matchAll(/`(\/[^`…]+)`/g)].map(([, path = ""]) => path);
  expect(named.filter((path) => path.startsWith("/.well-known/"))).toEqual(edge.documents);
  for (const path of named) expect(edge.owns(path), path).toBe(true);
});
