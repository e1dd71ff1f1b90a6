/**
 * Drives servers that people really use behind a gateway and prints what happened; docs/compatibility.md has the results.
 *
 *     node scripts/compatibility.ts <file.yaml> [--minutes 10] [--seed 1] [--only name,name] [--installed <folder>]
 *
 * The file is a settings file with one more key, `calls`: for a tool (as clients see it) the arguments, a list of them in turn, or
 * false where it is not to be called. What is not there gets arguments made from its schema. `$PAGE` and `$FOLDER` in any text
 * stand for a page that this script serves and for a folder that is its own. First each server alone is asked the same with and
 * without the gateway, over stdio, and every difference is printed (one with a `sandbox` only with it). Then all of them together get mixed calls of clients of both eras.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { getDefaultEnvironment, StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { parse } from "yaml";
import { settleSettings } from "../src/config/load.ts";
import { ERRORS } from "../src/core/errors.ts";
import { type World, world } from "../test/e2e/world.ts";
import { findChromium } from "../test/global/chromium.ts";

type Json = Record<string, unknown>;
interface Tool {
  readonly name: string;
  readonly inputSchema: Json;
}
interface Server {
  readonly command: readonly string[];
  readonly environment?: Record<string, string>;
  readonly cwd?: string;
  readonly sandbox?: Json;
}
/** How a call ended: an answer, a tool's own error, an error of the server, or one of the gateway's. */
type End = "answer" | "tool error" | "server error" | "gateway error";
interface Ended {
  readonly end: End;
  readonly why: string;
}
/** Only what both SDK clients have. */
interface AnyClient {
  listTools(params?: { cursor?: string }): Promise<{ tools: Tool[]; nextCursor?: string }>;
  callTool(params: { name: string; arguments: Json }): Promise<unknown>;
  listPrompts(): Promise<{ prompts: unknown[] }>;
  listResources(): Promise<{ resources: unknown[] }>;
  close(): Promise<void>;
}
interface Row {
  readonly name: string;
  version: string;
  tools: number;
  prompts: number;
  resources: number;
  calls: number;
  readonly ends: Record<End, number>;
  /** Reasons of what was no answer, and how often. */
  readonly whys: Map<string, number>;
  /** Calls that ended otherwise than without the gateway. */
  readonly differences: string[];
}

const ERAS = ["legacy", "modern"] as const;
const OWN_CODES = new Set<number>(Object.values(ERRORS).map(({ rpc }) => rpc));
const DIRECT_TIMEOUT_MS = 60_000;
/** Ended early, it prints what it has. */
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: "1" },
    only: { type: "string", default: "" },
    installed: { type: "string", default: "." },
  },
});

let state = Number(values.seed) >>> 0 || 1;
/** xorshift32: the same seed makes the same arguments. */
function random(below: number): number {
  state ^= state << 13;
  state >>>= 0;
  state ^= state >>> 17;
  state ^= state << 5;
  state >>>= 0;
  return state % below;
}
const pick = <T>(from: readonly T[]): T => from[random(from.length)] as T;

async function main(file: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-compatibility-"));
  writeFileSync(join(folder, "hello.txt"), "hello from a file\n");
  writeFileSync(join(folder, "page.html"), "<!doctype html><title>A page</title><img src=a.png>");
  writeFileSync(join(folder, "hello.pdf"), PDF);
  writeFileSync(join(folder, "page.js"), "let unused = 1;\n");
  writeFileSync(join(folder, "eslint.config.js"), 'export default [{ rules: { "no-unused-vars": "error" } }];\n');
  const git = (...args: string[]) =>
    execFileSync("git", ["-C", folder, "-c", "user.name=ann", "-c", "user.email=ann@shop.example", ...args]);
  git("init", "--quiet");
  git("add", ".");
  git("commit", "--quiet", "--message", "begun");
  const page = await servePage();
  const installed = resolve(values.installed);
  const python = join(installed, "python/bin/python3");
  const places: Record<string, string> = {
    $PAGE: page.url,
    $FOLDER: folder,
    $INSTALLED: installed,
    $NODE: process.execPath,
    $CHROMIUM: findChromium() ?? "chromium",
    $PYTHON: existsSync(python) ? dirname(dirname(realpathSync(python))) : "/usr",
  };
  const text = readFileSync(file, "utf8").replaceAll(/\$[A-Z]+/g, (name) => places[name] ?? name);
  const {
    calls = {},
    servers: all,
    ...rest
  } = parse(text) as Json & { calls?: Calls; servers: Record<string, Server> };
  const only = values.only.split(",").filter((name) => name !== "");
  const servers = Object.fromEntries(Object.entries(all).filter(([name]) => only.length === 0 || only.includes(name)));
  const settings = (chosen: Record<string, Server>) => ({ ...rest, servers: chosen });
  const start = (chosen: Record<string, Server>) =>
    world(settings(chosen), {
      load: (raw) => settleSettings(raw, dirname(resolve(file)), { env: process.env }),
    });
  const rows: Row[] = [];
  try {
    for (const [name, server] of Object.entries(servers)) {
      const row = newRow(name);
      rows.push(row);
      try {
        await alone(row, server, await start({ [name]: server }), new Arguments(calls, name));
      } catch (thrown) {
        row.differences.push(`could not be tried alone: ${reason(thrown)}`);
      }
      // One that only ran confined could not be asked, and packages of Python have no file that tells.
      if (row.version === "?")
        row.version = rows.find((other) => servers[other.name]?.command[0] === server.command[0])?.version ?? "?";
      console.log(`alone  ${name}: ${row.tools} tools, ${row.differences.length} differences`);
    }
    await together(rows, servers, await start(servers), calls, Number(values.minutes) * 60_000);
  } finally {
    page.close();
    rmSync(folder, { recursive: true, force: true });
  }
  print(rows);
}

/** One server with and without the gateway: the same lists, and each tool ends in the same way. */
async function alone(row: Row, server: Server, one: World, args: Arguments): Promise<void> {
  const direct = server.sandbox === undefined ? await connected(server) : undefined;
  try {
    row.version = packageOf(server) ?? direct?.getServerVersion()?.version ?? "?";
    const own = direct === undefined ? undefined : await toolsOf(direct as unknown as AnyClient);
    /** What each tool was called with, and how that ended, without the gateway. */
    const without = new Map<string, Ended>();
    const asked = new Map<string, Json>();
    for (const era of ERAS) {
      const client = (await one[era]()) as unknown as AnyClient;
      const seen = await toolsOf(client);
      row.tools = seen.length;
      if (seen.length === 0) row.differences.push(`${era}: no tools: ${problemOf(one, row.name)}`);
      if (own !== undefined && namesOf(seen) !== namesOf(own))
        row.differences.push(`${era}: lists ${namesOf(seen)}, without the gateway ${namesOf(own)}`);
      row.prompts = await client.listPrompts().then(({ prompts }) => prompts.length, none);
      row.resources = await client.listResources().then(({ resources }) => resources.length, none);
      for (const tool of seen.filter((each) => args.permits(each))) {
        const given = asked.get(tool.name) ?? args.of(tool);
        asked.set(tool.name, given);
        const params = { name: tool.name, arguments: given };
        if (direct !== undefined && era === "legacy")
          without.set(tool.name, await ended(() => direct.callTool(params, undefined, { timeout: DIRECT_TIMEOUT_MS })));
        const within = await ended(() => client.callTool(params));
        count(row, within);
        const expected = without.get(tool.name);
        if (expected !== undefined && expected.end !== within.end)
          row.differences.push(
            `${tool.name} (${era}): ${within.end} (${within.why}); without the gateway: ${expected.end} (${expected.why})`,
          );
      }
    }
  } finally {
    await direct?.close().catch(() => {});
    await one[Symbol.asyncDispose]();
  }
}

async function connected({ command, environment, cwd }: Server): Promise<Client> {
  const [program = "", ...args] = command;
  const env = { ...getDefaultEnvironment(), ...environment };
  const client = new Client({ name: "compatibility", version: "1" });
  await client.connect(
    new StdioClientTransport({ command: program, args, env, stderr: "ignore", ...(cwd !== undefined && { cwd }) }),
  );
  return client;
}

/** Name and version of the npm package that a command starts. */
function packageOf({ command }: Server): string | undefined {
  const found = command
    .filter((part) => part !== process.execPath)
    .map((part) => /^(.*\/node_modules\/((?:@[^/]+\/)?[^/]+))\//.exec(part))
    .find((match) => match !== null);
  if (found?.[1] === undefined) return undefined;
  const { name, version } = JSON.parse(readFileSync(join(found[1], "package.json"), "utf8")) as Json;
  return `${String(name)} ${String(version)}`;
}

const none = () => 0;
const namesOf = (tools: readonly Tool[]) =>
  tools
    .map(({ name }) => name)
    .sort()
    .join();

/** All of them behind one gateway; for each server and era a client that calls its tools over and over. */
async function together(
  rows: readonly Row[],
  servers: Record<string, Server>,
  one: World,
  calls: Calls,
  forMs: number,
): Promise<void> {
  const began = Date.now();
  const until = began + forMs;
  const memory: number[] = [];
  const watch = setInterval(() => memory.push(process.memoryUsage.rss() / 1e6), 10_000);
  try {
    const single = Object.keys(servers).length === 1;
    await Promise.all(
      rows.flatMap((row) =>
        ERAS.map(async (era) => {
          const client = (await one[era]()) as unknown as AnyClient;
          const prefix = single ? "" : `${row.name}_`;
          const args = new Arguments(calls, row.name);
          while (Date.now() < until && !stop.signal.aborted) {
            const tools = await toolsOf(client);
            const own = tools
              .filter(({ name }) => name.startsWith(prefix))
              .map((tool) => ({ ...tool, name: tool.name.slice(prefix.length) }));
            if (own.length === 0)
              count(row, { end: "gateway error", why: `no tools listed: ${problemOf(one, row.name)}` });
            for (let n = 0; n < 20 && Date.now() < until && !stop.signal.aborted; n++) {
              const tool = own.length === 0 ? undefined : pick(own);
              if (tool === undefined || !args.permits(tool)) {
                await new Promise((resolve) => setTimeout(resolve, 50));
                continue;
              }
              const params = { name: `${prefix}${tool.name}`, arguments: args.of(tool) };
              count(row, await ended(() => client.callTool(params)));
            }
          }
        }),
      ),
    );
    for (const { name, state: how, problem } of one.gateway.servers())
      if (how !== "ready") console.log(`at the end ${name} is ${how}: ${problem}`);
    console.log(`together for ${((Date.now() - began) / 60_000).toFixed(1)} minutes`);
    console.log(`memory of gateway and clients: ${memory.map((mb) => mb.toFixed(0)).join(" ")} MB`);
  } finally {
    clearInterval(watch);
    await one[Symbol.asyncDispose]();
  }
}

async function toolsOf(client: AnyClient): Promise<Tool[]> {
  const tools: Tool[] = [];
  let cursor: string | undefined;
  do {
    const page = await client.listTools(cursor === undefined ? {} : { cursor });
    tools.push(...page.tools);
    cursor = page.nextCursor;
  } while (cursor !== undefined && tools.length < 1000);
  return tools;
}

async function ended(call: () => Promise<unknown>): Promise<Ended> {
  try {
    const result = (await call()) as { isError?: boolean; content?: { text?: string }[] };
    const said = (result.content ?? []).map(({ text }) => text ?? "").join(" ");
    return result.isError === true ? { end: "tool error", why: short(said) } : { end: "answer", why: "" };
  } catch (thrown) {
    const code = (thrown as { code?: unknown }).code;
    const own = typeof code === "number" && code <= -31_400 && code > -32_000 && OWN_CODES.has(code);
    return {
      end: own || typeof code !== "number" ? "gateway error" : "server error",
      why: `${String(code)} ${reason(thrown)}`,
    };
  }
}

function count(row: Row, { end, why }: Ended): void {
  row.calls++;
  row.ends[end]++;
  if (end !== "answer") row.whys.set(`${end}: ${why}`, (row.whys.get(`${end}: ${why}`) ?? 0) + 1);
}

const newRow = (name: string): Row => ({
  name,
  version: "?",
  tools: 0,
  prompts: 0,
  resources: 0,
  calls: 0,
  ends: { answer: 0, "tool error": 0, "server error": 0, "gateway error": 0 },
  whys: new Map(),
  differences: [],
});
const short = (text: string) => text.replaceAll(/\s+/g, " ").slice(0, 120);
const reason = (thrown: unknown) => short(thrown instanceof Error ? thrown.message : String(thrown));
const problemOf = (one: World, name: string) =>
  one.gateway.servers().find((each) => each.name === name)?.problem ?? "?";

interface Schema {
  readonly properties?: Readonly<Record<string, Json>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: unknown;
}
type Calls = Readonly<Record<string, Json | readonly Json[] | false>>;

/** What tools are called with. */
class Arguments {
  readonly #calls: Calls;
  readonly #server: string;
  readonly #turns = new Map<string, number>();

  constructor(calls: Calls, server: string) {
    this.#calls = calls;
    this.#server = server;
  }
  #given(tool: Tool): Json | readonly Json[] | false | undefined {
    return this.#calls[`${this.#server}_${tool.name}`] ?? this.#calls[`${this.#server}_*`];
  }
  permits(tool: Tool): boolean {
    return this.#given(tool) !== false;
  }
  /** What is given, with what the schema requires besides and without what it does not know. */
  of({ name, inputSchema }: Tool): Json {
    const given = this.#given({ name, inputSchema });
    if (given === undefined || given === false) return made(inputSchema, inputSchema, "") as Json;
    let chosen = given as Json;
    if (Array.isArray(given)) {
      const turn = this.#turns.get(name) ?? 0;
      this.#turns.set(name, turn + 1);
      chosen = given[turn % given.length] as Json;
    }
    const { properties = {}, required = [], additionalProperties } = inputSchema as Schema;
    const known = Object.entries(chosen).filter(
      ([key]) => additionalProperties !== false || Object.hasOwn(properties, key),
    );
    const missing = required.filter((key) => !Object.hasOwn(chosen, key));
    return {
      ...Object.fromEntries(known),
      ...Object.fromEntries(missing.map((key) => [key, made(properties[key] ?? {}, inputSchema, key, 1)])),
    };
  }
}

/** A value that fits the schema, as far as it says. */
function made(schema: Json, root: Json, name: string, depth = 0): unknown {
  const { type } = schema as { type?: string | string[] };
  const { properties = {}, required = [] } = schema as Schema;
  if (typeof schema["$ref"] === "string") return made(resolved(schema["$ref"], root), root, name, depth + 1);
  if (schema["const"] !== undefined) return schema["const"];
  if (schema["default"] !== undefined && random(2) === 0) return schema["default"];
  if (Array.isArray(schema["enum"])) return pick(schema["enum"]);
  const choice = (schema["anyOf"] ?? schema["oneOf"]) as Json[] | undefined;
  if (choice !== undefined) return made(choice[0] ?? {}, root, name, depth + 1);
  switch (Array.isArray(type) ? type[0] : (type ?? (schema["properties"] === undefined ? "string" : "object"))) {
    case "object": {
      const chosen = Object.entries(properties).filter(
        ([key]) => required.includes(key) || (depth === 0 && random(3) === 0),
      );
      return Object.fromEntries(chosen.map(([key, value]) => [key, made(value, root, key, depth + 1)]));
    }
    case "array": {
      const length = Math.max(Number(schema["minItems"] ?? 1), 1);
      return depth > 8
        ? []
        : Array.from({ length }, () => made((schema["items"] ?? {}) as Json, root, name, depth + 1));
    }
    case "integer":
    case "number": {
      if (name === "pageId") return 1;
      const least = Number(schema["minimum"] ?? schema["exclusiveMinimum"] ?? 0);
      const step = schema["exclusiveMinimum"] === undefined ? 0 : 1;
      const most = Math.min(Number(schema["maximum"] ?? least + 10), least + 10);
      return least + step + random(Math.max(1, Math.floor(most - least)));
    }
    case "boolean":
      return random(2) === 0;
    case "null":
      return null;
    default:
      return textFor(schema, name);
  }
}
function resolved(ref: string, root: Json): Json {
  let at: unknown = root;
  for (const part of ref
    .replace(/^#\/?/, "")
    .split("/")
    .filter((one) => one !== ""))
    at = (at as Json | undefined)?.[part.replaceAll("~1", "/").replaceAll("~0", "~")];
  return (at ?? {}) as Json;
}
function textFor(schema: Json, name: string): string {
  const { format, minLength, maxLength } = schema as { format?: string; minLength?: number; maxLength?: number };
  if (format === "uri" || /url|uri/i.test(name)) return servedAt;
  if (format === "date-time") return "2026-07-28T12:00:00Z";
  if (format === "date") return "2026-07-28";
  if (format === "email") return "ann@shop.example";
  if (/zone/i.test(name)) return "Europe/Berlin";
  const value = pick(["hello", "drawbridge", "a b", "42", "æ☀"]).padEnd(minLength ?? 0, "x");
  return maxLength === undefined ? value : value.slice(0, maxLength);
}

/** One page with a word on it; readers repair that it has no table of offsets. */
const PDF = `%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>endobj
4 0 obj<</Length 36>>stream
BT /F 24 Tf 20 100 Td (hello) Tj ET
endstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
trailer<</Root 1 0 R>>
`;

let servedAt = "";
async function servePage(): Promise<{ url: string; close(): void }> {
  const html =
    "<!doctype html><title>A page</title><h1>A page</h1><a href='/'>again</a><button>Press</button><input name=q>";
  const server = createServer((_, response) => response.writeHead(200, { "content-type": "text/html" }).end(html));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  servedAt = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  return {
    url: servedAt,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

function print(rows: readonly Row[]): void {
  console.log(
    "\n| server | version | tools | prompts | resources | calls | answered | tool errors | server errors | gateway errors | differences |",
  );
  console.log("|---|---|---|---|---|---|---|---|---|---|---|");
  for (const { name, version, tools, prompts, resources, calls, ends, differences } of rows)
    console.log(
      `| ${[name, version, tools, prompts, resources, calls, ends.answer, ends["tool error"], ends["server error"], ends["gateway error"], differences.length].join(" | ")} |`,
    );
  for (const row of rows) {
    for (const difference of row.differences) console.log(`\n${row.name}: ${difference}`);
    for (const [why, times] of [...row.whys].sort((a, b) => b[1] - a[1]).slice(0, 8))
      console.log(`  ${row.name}  ${times} × ${why}`);
  }
}

const [file] = positionals;
if (file === undefined) {
  console.error("Usage: node scripts/compatibility.ts <file.yaml> [--minutes 10] [--seed 1] [--only name,name]");
  process.exit(2);
}
await main(file);
process.exit(0); // Browsers that a server has started are not waited for.
