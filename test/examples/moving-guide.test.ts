/** `docs/moving-a-server.md`: its snippets compile, its two servers are graded as it says, and comparing them prints what it says. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { run } from "../cli/terminal.ts";
import { findBubblewrap } from "../global/bubblewrap.ts";
import { root } from "../house/sources.ts";

const guide = readFileSync(join(root, "docs/moving-a-server.md"), "utf8");
const blocks = (language: string) =>
  [...guide.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, "gm"))].map(([, text = ""]) => text);
const folder = mkdtempSync(join(tmpdir(), "drawbridge-moving-guide-"));
const FILES = ["old.ts", "server.ts", "invite.ts", "compare.ts"];

beforeAll(() => {
  mkdirSync(join(folder, "node_modules/@types"), { recursive: true });
  for (const name of ["zod", "@types/node", "@modelcontextprotocol"])
    symlinkSync(join(root, "node_modules", name), join(folder, "node_modules", name), "junction");
  symlinkSync(root, join(folder, "node_modules/drawbridge-mcp"), "junction");
  writeFileSync(join(folder, "package.json"), '{ "type": "module" }');
  for (const [index, text] of blocks("ts").entries()) writeFileSync(join(folder, FILES[index] ?? ""), text);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("its snippets compile", () => {
  expect(blocks("ts")).toHaveLength(FILES.length);
  const compilerOptions = { noEmit: true, rootDir: "/" };
  const include = ["*.ts"];
  const extending = join(root, "tsconfig.json");
  writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ extends: extending, include, compilerOptions }));
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  const { stdout } = spawnSync(process.execPath, [compiler, "--pretty", "false"], { cwd: folder, encoding: "utf8" });
  expect(stdout).toBe("");
}, 60_000);

test.skipIf(findBubblewrap() === undefined)(
  "both servers are graded as it says",
  async () => {
    const said: string[] = [];
    for (const command of (blocks("sh")[0] ?? "").trim().split("\n")) {
      const [program, ...argv] = command.split(" ");
      expect(program).toBe("drawbridge");
      const words = argv.map((word) => (word === "node" ? process.execPath : word));
      const { stdout } = await run(words, { cwd: folder, env: { PATH: process.env["PATH"] ?? "" } });
      said.push(stdout.split("\n").find((line) => line.includes("Overall")) ?? stdout);
    }
    expect(`${said.join("\n")}\n`).toBe(blocks("text")[0]);
  },
  60_000,
);

test("side by side they print what it says", () => {
  const { stdout, stderr } = spawnSync(process.execPath, ["compare.ts"], {
    cwd: folder,
    encoding: "utf8",
    env: { PATH: process.env["PATH"] ?? "" },
  });
  expect(stdout, stderr).toBe(blocks("text")[1]);
}, 60_000);

test("the guarded tool starts: every option beside its handler is one that there is", async () => {
  const { invite } = (await import(join(folder, "invite.ts"))) as { invite: never };
  const { as, server } = await import("../../src/author/index.ts");
  const desk = server({ name: "people", version: "1", tools: [invite] });
  const ann = as(desk, { subject: "ann", answers: [{ words: "Come!" }] });
  expect(await ann.call("invite", { list: "friends" })).toEqual({ sent: 1, to: [{ email: "friends@example.net" }] });
  expect(ann.progress).toEqual([{ progress: 1, total: 1 }]);
  expect(desk.contracts("people")).toMatchObject({
    tools: { invite: { access: "destructive", mask: { "to/*/email": "token" }, approval: { by: ["press-officer"] } } },
    limits: { "tool:invite": { perDay: 3 } },
    stepUp: { "tool:invite": ["people:invite"] },
  });
  await expect(as(desk, { answers: ["decline"] }).call("invite", { list: "press" })).rejects.toThrow("Nobody was");
});
