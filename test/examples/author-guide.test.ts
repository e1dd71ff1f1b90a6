/** `docs/author.md`: its snippets compile and run as they stand there, and its settings load. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { loadSettings } from "../../src/config/load.ts";
import { root } from "../house/sources.ts";

const guide = readFileSync(join(root, "docs/author.md"), "utf8");
const blocks = (language: string) =>
  [...guide.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, "gm"))].map(([, text = ""]) => text);
const folder = mkdtempSync(join(tmpdir(), "drawbridge-author-guide-"));
const FILES = ["server.ts", "engrave.ts", "trial.ts"];

beforeAll(() => {
  mkdirSync(join(folder, "node_modules/@types"), { recursive: true });
  for (const [name, to] of [
    ["drawbridge-mcp", root],
    ["zod", join(root, "node_modules/zod")],
    ["@types/node", join(root, "node_modules/@types/node")],
  ] as const)
    symlinkSync(to, join(folder, "node_modules", name), "junction");
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  for (const [index, text] of blocks("ts").entries()) writeFileSync(join(folder, FILES[index] ?? ""), text);
  writeFileSync(join(folder, "drawbridge.yaml"), blocks("yaml")[0] ?? "");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("its snippets compile", () => {
  expect(blocks("ts")).toHaveLength(FILES.length);
  const compilerOptions = { noEmit: true, rootDir: "/" };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({ extends: join(root, "tsconfig.json"), include: ["*.ts"], compilerOptions }),
  );
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  const { stdout } = spawnSync(process.execPath, [compiler, "--pretty", "false"], { cwd: folder, encoding: "utf8" });
  expect(stdout).toBe("");
}, 60_000);

test("its test prints what it says", () => {
  const { stdout, stderr } = spawnSync(process.execPath, ["trial.ts"], { cwd: folder, encoding: "utf8" });
  expect(stdout, stderr).toBe(blocks("text")[0]);
});

test("its settings bring the contract of the tool", async () => {
  const { settings } = await loadSettings(join(folder, "drawbridge.yaml"), { env: {} });
  expect(settings.tools?.["look_up_order"]).toMatchObject({
    from: "orders/look_up_order",
    access: "read",
    mask: { "customer/email": "token" },
  });
  expect(settings.limits.tools).toEqual({ "tool:look_up_order": { perMinute: 60 } });
});

test("what it says is refused is refused in these words", () => {
  const words = ["src/author/compile-errors.ts", "src/author/soundness.ts"]
    .map((file) => readFileSync(join(root, file), "utf8"))
    .join("\n");
  const said = [...guide.matchAll(/^\| .+? \| (?:compile|start) \| `+(.+?)`+/gm)].map(([, text = ""]) =>
    text.replace(/^(in|out)put "\w+" /, ""),
  );
  expect(said.length).toBeGreaterThan(5);
  for (const text of said) expect(words).toContain(text);
});
