/** `drawbridge new`: what it writes passes its own tests, compiles, grades A, and runs alone and inside the gateway. */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { check } from "../../src/check/check.ts";
import { ofSettings } from "../../src/cli/check-servers.ts";
import { main } from "../../src/cli/main.ts";
import { loadSettings } from "../../src/config/load.ts";
import { world } from "../e2e/world.ts";
import { root } from "../house/sources.ts";
import { clientAt, ERAS } from "./clients.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-new-"));
const place = join(folder, "town-library");
const said = { stdout: "", stderr: "" };
const terminal = {
  cwd: folder,
  home: folder,
  platform: process.platform,
  env: { PATH: process.env["PATH"] },
  stdout: { write: (text: string) => (said.stdout += text) },
  stderr: { write: (text: string) => (said.stderr += text) },
} as never;
const make = (name: string) => main(["new", name], terminal);
const ASKED = { name: "look_up_book", arguments: { isbn: "978-0141439518" } };
const BOOK = { isbn: "978-0141439518", title: "Pride and Prejudice", copies: 3 };

beforeAll(async () => {
  expect(await make("town-library"), said.stderr).toBe(0);
  // In place of `npm install`: the package as this clone has it.
  mkdirSync(join(place, "node_modules/@types"), { recursive: true });
  for (const [name, to] of [
    ["drawbridge-mcp", root],
    ["zod", join(root, "node_modules/zod")],
    ["@types/node", join(root, "node_modules/@types/node")],
  ] as const)
    symlinkSync(to, join(place, "node_modules", name), "junction");
  mkdirSync(join(place, "node_modules/.bin"));
  for (const [name, to] of [
    ["drawbridge", "bin/drawbridge.js"],
    ["tsc", "node_modules/typescript/bin/tsc"],
  ] as const)
    symlinkSync(join(root, to), join(place, "node_modules/.bin", name));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("it says what to do next, and overwrites nothing", async () => {
  expect(said.stdout).toContain("npm test");
  const before = readdirSync(place).sort();
  expect(await make("town-library")).toBe(2);
  expect(said.stderr).toContain("is not empty");
  expect(await make("1st")).toBe(2);
  expect(said.stderr).toContain("names no server");
  expect(readdirSync(place).sort()).toEqual(before);
});

/** As `npm run` does it: its own programs first. */
const script = (...words: string[]) =>
  spawnSync("npm", ["--offline", ...words], {
    cwd: place,
    encoding: "utf8",
    env: { PATH: [dirname(process.execPath), process.env["PATH"] ?? ""].join(delimiter), HOME: folder },
  });

test("`npm test` passes", () => {
  const ran = script("test");
  expect(ran.stdout).toMatch(/pass 2\b/);
  expect(ran.status, ran.stdout + ran.stderr).toBe(0);
}, 60_000);

test("`npm run check` compiles it and grades it A; with a careless tool it fails", () => {
  const ran = script("run", "check");
  expect(ran.stdout, ran.stderr).toMatch(/Overall +A +100/);
  expect(ran.status).toBe(0);
  const file = join(place, "drawbridge.yaml");
  const sound = readFileSync(file, "utf8");
  // The operator's words count before the author's.
  writeFileSync(file, `${sound}tools:\n  look_up_book: { from: town-library/look_up_book, description: x }\n`);
  const worse = script("run", "check");
  writeFileSync(file, sound);
  expect(worse.stdout, worse.stderr).toMatch(/Overall +[B-F] /);
  expect(worse.status).toBe(1);
}, 120_000);

test("each script and file that it names is there, and the packages are those that this one has", () => {
  const { scripts, dependencies, devDependencies } = JSON.parse(readFileSync(join(place, "package.json"), "utf8"));
  const own = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(dependencies).toEqual({ "drawbridge-mcp": own.version, zod: own.dependencies.zod });
  for (const [name, version] of Object.entries(devDependencies)) expect(own.devDependencies[name]).toBe(version);
  const readme = readFileSync(join(place, "README.md"), "utf8");
  for (const [, name = ""] of `${readme}${said.stdout}`.matchAll(/npm (?:run )?(\w+)/g))
    if (name !== "install") expect(scripts, name).toHaveProperty(name);
  for (const [, file = ""] of readme.matchAll(/^\| `([^`]+)` \|/gm)) expect(readdirSync(place)).toContain(file);
  const commands = Object.values<string>(scripts).flatMap((line) => [...line.matchAll(/drawbridge (\w+)/g)]);
  for (const [, command = ""] of commands)
    expect(spawnSync(process.execPath, [join(root, "bin/drawbridge.js"), command, "--help"]).status, command).toBe(0);
});

test("it compiles, and no more when its output is forgotten", () => {
  const compiler = join(root, "node_modules/typescript/bin/tsc");
  const compile = () => spawnSync(process.execPath, [compiler, "--pretty", "false"], { cwd: place, encoding: "utf8" });
  expect(compile().stdout).toBe("");
  writeFileSync(
    join(place, "careless.ts"),
    'import { tool } from "drawbridge-mcp/author";\nimport { z } from "zod";\nexport const careless = tool({ name: "x", title: "X", access: "read", input: z.object({ q: z.string().describe("q") }), output: z.object({ a: z.int() }), description: { does: "x", useWhen: "x", notWhen: "x", returns: "x", limits: "x" }, handler: () => ({ a: 1 }) });\n',
  );
  const { stdout } = compile();
  rmSync(join(place, "careless.ts"));
  expect(stdout).toContain("careless.ts(3,");
  expect(stdout).toContain('drawbridge: input \\"q\\" needs a bound');
}, 60_000);

test("it grades A", async () => {
  const { grades } = await check(await ofSettings(join(place, "drawbridge.yaml"), "new", terminal));
  expect(grades).toMatchObject({ overall: "A", score: 100 });
});

test.each(ERAS)("a %s client reaches it over stdio", async (era) => {
  const client = await clientAt({ program: join(place, "server.ts") }, era);
  const { structuredContent } = await client.callTool(ASKED);
  await client.close();
  expect(structuredContent).toEqual(BOOK);
});

test("`drawbridge serve server.ts` serves it over HTTP without a settings file", async () => {
  const child = spawn(process.execPath, [join(root, "bin/drawbridge.js"), "serve", "server.ts", "--port", "0"], {
    cwd: place,
    stdio: ["ignore", "pipe", "pipe"],
    env: { PATH: process.env["PATH"] ?? "" },
  });
  const ended = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
  let output = "";
  try {
    await new Promise<void>((resolve, reject) => {
      child.stderr.on("data", (chunk) => (output += chunk));
      child.stdout.on("data", (chunk) => {
        output += chunk;
        if (output.includes("Ctrl-C stops")) resolve();
      });
      child.on("exit", () => reject(new Error(`ended too early: ${output}`)));
    });
    expect(output).toContain("● town-library  1 tool");
    const url = /http:\S+\/mcp/.exec(output)?.[0] ?? "";
    expect(
      (await fetch(url, { method: "POST", headers: { "content-type": "application/json" }, body: "{}" })).status,
    ).toBe(401);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  } finally {
    child.kill("SIGKILL");
  }
}, 60_000);

test("clients of both eras reach it over HTTP, inside the gateway", async () => {
  await using gateway = await world(
    {},
    {
      folder: place,
      load: async ({ listen }) => {
        const loaded = await loadSettings(join(place, "drawbridge.yaml"), { env: {} });
        return {
          ...loaded,
          settings: {
            ...loaded.settings,
            store: "memory",
            listen: { ...loaded.settings.listen, ...(listen as object) },
            clients: { ...loaded.settings.clients, registration: "open" },
          },
        } as never;
      },
    },
  );
  const token = (await gateway.tokens()).access_token;
  for (const era of ERAS) {
    const client = await clientAt({ url: gateway.url, token }, era);
    const { structuredContent } = await client.callTool(ASKED);
    await client.close();
    expect(structuredContent).toEqual(BOOK);
  }
}, 60_000);
