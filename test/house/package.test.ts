/** The package as it is published: complete, small, and running from its compiled files with its own dependencies only. */
import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { build } from "../../scripts/build.ts";
import { root } from "./sources.ts";

interface Manifest {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
}
const own = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Manifest;
const folder = mkdtempSync(join(tmpdir(), "drawbridge-package-"));
const installed = join(folder, "node_modules", "drawbridge-mcp");
let files: readonly string[] = [];
afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(() => {
  const dist = join(folder, "dist");
  build(dist);
  // npm started this test, or is on the path.
  const npm = process.env["npm_execpath"];
  const pack = ["pack", "--json", "--ignore-scripts", "--pack-destination", folder];
  const packed =
    npm?.endsWith(".js") === true
      ? execFileSync(process.execPath, [npm, ...pack], { cwd: dist })
      : execFileSync("npm", pack, { cwd: dist });
  const archive = readdirSync(folder).find((name) => name.endsWith(".tgz")) ?? "";
  files = (JSON.parse(packed.toString()) as [{ files: { path: string }[] }])[0].files.map(({ path }) => path);
  mkdirSync(installed, { recursive: true });
  execFileSync("tar", ["-xzf", join(folder, archive), "-C", installed, "--strip-components=1"]);
  // Only what the manifest names can be found beside the package: a dependency that is missing there is missed here too.
  for (const name of Object.keys(own.dependencies)) {
    const link = join(folder, "node_modules", name);
    mkdirSync(dirname(link), { recursive: true });
    symlinkSync(join(root, "node_modules", name), link, "junction");
  }
}, 180_000);

const drawbridge = (...words: string[]) =>
  spawnSync(process.execPath, [join(installed, "bin/drawbridge.js"), ...words], {
    cwd: folder,
    encoding: "utf8",
    env: { PATH: process.env["PATH"] ?? "" },
  });

test("its manifest has exact dependencies and nothing that only the clone needs", () => {
  const manifest = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as Record<string, unknown>;
  expect(manifest).toMatchObject({
    name: "drawbridge-mcp",
    version: own.version,
    bin: { drawbridge: "bin/drawbridge.js" },
    dependencies: own.dependencies,
  });
  for (const key of ["private", "scripts", "devDependencies", "optionalDependencies", "workspaces"])
    expect(manifest).not.toHaveProperty(key);
});

test("it holds compiled files, types, schema and licence, and no sources or tests", () => {
  for (const file of [
    "bin/drawbridge.js",
    "cli/main.js",
    "cli/main.d.ts",
    "cli/dev/page/index.html",
    "cli/dev/page/page.js",
    "schema/config.schema.json",
    "README.md",
    "LICENSE",
  ])
    expect(files).toContain(file);
  expect(files.filter((file) => /(?<!\.d)\.ts$|^(src|test|bench|examples)\//.test(file))).toEqual([]);
});

test("its command runs", () => {
  expect(drawbridge("--version")).toMatchObject({ status: 0, stdout: `${own.version}\n`, stderr: "" });
  expect(drawbridge("config", "schema").stdout).toBe(readFileSync(join(root, "schema/config.schema.json"), "utf8"));
});

test("servers are written with its `author` module, which stands alone without the command", () => {
  for (const file of ["author/index.js", "author/index.d.ts", "author/zod-words.d.ts"]) expect(files).toContain(file);
  const program = join(folder, "server.mjs");
  writeFileSync(
    program,
    `import { as, server, tool } from "drawbridge-mcp/author";
import { z } from "zod";
const description = { does: "Says hello to a name.", useWhen: "when asked", notWhen: "twice", returns: "it", limits: "one" };
const hello = tool({ name: "hello", title: "Hello", description, access: "read", input: z.object({ name: z.string().max(9).describe("Whose, e.g. Ann.") }), output: z.object({ text: z.string() }), handler: ({ name }) => ({ text: "Hello " + name, more: 1 }) });
console.log(JSON.stringify(await as(server({ name: "desk", version: "1", tools: [hello] })).call("hello", { name: "Ann" })));
`,
  );
  const ran = spawnSync(process.execPath, [program], { cwd: folder, encoding: "utf8" });
  expect([ran.stdout, ran.stderr]).toEqual(['{"text":"Hello Ann"}\n', ""]);
});

test("apps mount servers with its `mounted` module, and a start is kept with `compile-cache`", () => {
  for (const file of ["author/mounted.js", "author/mounted.d.ts", "bin/compile-cache.js"])
    expect(files).toContain(file);
  const program = join(folder, "mounting.mjs");
  writeFileSync(
    program,
    `import { mounted } from "drawbridge-mcp/mounted";
await mounted({}, { publicUrl: "https://shop.example" }).catch((error) => console.log(error.code));
`,
  );
  const env = { PATH: process.env["PATH"], HOME: folder };
  const flags = ["--import", "drawbridge-mcp/compile-cache"];
  const ran = spawnSync(process.execPath, [...flags, program], { cwd: folder, encoding: "utf8", env });
  expect([ran.stdout, ran.stderr]).toEqual(["settings_invalid\n", ""]);
});

test("it serves a stdio server and stops when asked", async () => {
  const server = join(root, "node_modules/@modelcontextprotocol/server-memory/dist/index.js");
  const child = spawn(
    process.execPath,
    [join(installed, "bin/drawbridge.js"), "serve", "--port", "0", "--", process.execPath, server],
    { cwd: folder, stdio: ["ignore", "pipe", "pipe"], env: { PATH: process.env["PATH"] ?? "" } },
  );
  const output = { stdout: "", stderr: "" };
  const ended = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
  try {
    await new Promise<void>((resolve, reject) => {
      child.stderr.on("data", (chunk) => {
        output.stderr += chunk;
      });
      child.stdout.on("data", (chunk) => {
        output.stdout += chunk;
        if (output.stdout.includes("Ctrl-C stops")) resolve();
      });
      child.on("exit", () => reject(new Error(`ended too early: ${output.stdout}${output.stderr}`)));
    });
    expect(output.stdout).toContain("● memory  9 tools");
    const url = /http:\S+\/mcp/.exec(output.stdout)?.[0] ?? "";
    const answer = await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: "{}" });
    expect(answer.status).toBe(401);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    expect(existsSync(join(folder, ".drawbridge/drawbridge.db"))).toBe(true);
  } finally {
    child.kill("SIGKILL");
  }
});
