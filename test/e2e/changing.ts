/** A server whose definitions are changed while it runs, behind a gateway with or without a lockfile, seen by clients of both eras. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type LockedServer,
  type LockSigner,
  lockedFrom,
  lockOf,
  lockSigner,
  newLockKey,
  writeLock,
} from "../../src/contract/lockfile.ts";
import type { JsonObject } from "../../src/core/call.ts";
import { type Logger, silentLogger } from "../../src/observe/logger.ts";
import { modernRequest, type World, world } from "./world.ts";

export interface Definitions {
  readonly instructions?: string;
  readonly version?: string;
  readonly capabilities?: JsonObject;
  readonly tools: readonly JsonObject[];
  readonly prompts?: readonly JsonObject[];
  readonly templates?: readonly JsonObject[];
  /** A resource that it says has changed, before it answers a call. */
  readonly updated?: string;
}

/** Serves what the file says, and tells when it changed. */
const SERVER = `
const { readFileSync, watchFile } = require("node:fs");
let last = "{}";
// Half-written, it is what it was before.
const read = () => { try { const text = readFileSync(process.argv[1], "utf8"); JSON.parse(text); last = text; } catch {} return JSON.parse(last); };
const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\\n");
const quiet = process.argv[2] === "quiet";
watchFile(process.argv[1], { interval: 50 }, () => {
  if (!quiet) for (const list of ["tools", "prompts", "resources"]) say({ method: "notifications/" + list + "/list_changed" });
});
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  const now = read();
  const capabilities = { tools: { listChanged: true }, prompts: {}, resources: { subscribe: true }, completions: {}, ...now.capabilities };
  if (method === "tools/call" && now.updated !== undefined) say({ method: "notifications/resources/updated", params: { uri: now.updated } });
  if (method === "initialize") say({ id, result: { protocolVersion: "2025-11-25", serverInfo: { name: "shop", version: now.version ?? "1" }, instructions: now.instructions, capabilities } });
  else if (method === "tools/list") say({ id, result: { tools: now.tools } });
  else if (method === "prompts/list") say({ id, result: { prompts: now.prompts ?? [] } });
  else if (method === "resources/list") say({ id, result: { resources: [] } });
  else if (method === "resources/templates/list") say({ id, result: { resourceTemplates: now.templates ?? [] } });
  else if (method === "tools/call") say({ id, result: { content: [{ type: "text", text: "called " + params.name }] } });
  else if (method === "prompts/get") say({ id, result: { messages: [] } });
  else if (method === "resources/read") say({ id, result: { contents: [{ uri: params.uri, text: "read" }] } });
  else if (method === "completion/complete") say({ id, result: { completion: { values: ["completed"] } } });
  else say({ id, result: {} });
}).on("close", () => process.exit(0));`;

export interface Changing extends Disposable {
  readonly folder: string;
  /** The `servers:` entry. */
  readonly server: JsonObject;
  readonly lockFile: string;
  /** Keys of the signer, for `lock.keys`. */
  readonly key: string;
  offer(definitions: Definitions): void;
  /** Writes a lockfile with just these definitions. */
  lock(definitions: Definitions, signers?: readonly LockSigner[]): void;
  start(settings?: Record<string, unknown>, logger?: Logger): Promise<World>;
}

export function changing({ quiet = false } = {}): Changing {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-changing-"));
  const file = join(folder, "definitions.json");
  const lockFile = join(folder, "drawbridge.lock");
  const signer = lockSigner(newLockKey());
  const server = { command: [process.execPath, "-e", SERVER, file, ...(quiet ? ["quiet"] : [])] };
  return {
    folder,
    server,
    lockFile,
    key: signer.key,
    offer: (definitions) => writeFileSync(file, JSON.stringify(definitions)),
    lock: (definitions, signers = [signer]) =>
      writeFileSync(lockFile, writeLock(lockOf([lockedServer("shop", definitions)]), signers)),
    start: (settings = {}, logger = silentLogger) =>
      world({ servers: { shop: server }, ...settings }, { logger, folder }),
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}

function lockedServer(server: string, one: Definitions): LockedServer {
  const capabilities = {
    tools: { listChanged: true },
    prompts: {},
    resources: { subscribe: true },
    completions: {},
    ...one.capabilities,
  };
  const itself = {
    ...(one.instructions !== undefined && { instructions: one.instructions }),
    serverInfo: { name: "shop", version: one.version ?? "1" },
    capabilities,
  };
  return {
    server,
    definitions: [
      lockedFrom("server", "", itself),
      ...one.tools.map((value) => lockedFrom("tool", String(value["name"]), value)),
      ...(one.prompts ?? []).map((value) => lockedFrom("prompt", String(value["name"]), value)),
      ...(one.templates ?? []).map((value) => lockedFrom("resourceTemplate", String(value["uriTemplate"]), value)),
    ],
  };
}

interface Answered {
  readonly result?: Record<string, never> & {
    tools?: { name: string }[];
    prompts?: { name: string }[];
    resourceTemplates?: { uriTemplate: string }[];
    instructions?: string;
  };
  readonly error?: { readonly code: number; readonly message: string };
}

/** One client: a request in, the JSON-RPC answer out. */
export type Asks = (method: string, params?: Record<string, unknown>) => Promise<Answered>;

/** A client of 2026-07-28, and one of 2025-11-25 whose session goes on. */
export async function bothEras(one: World, token: string): Promise<{ readonly modern: Asks; readonly legacy: Asks }> {
  const modern: Asks = async (method, params = {}) => {
    const [body, headers] = modernRequest(method, params);
    // MCP 2026-07-28, Streamable HTTP, Value Encoding.
    const named = Object.entries(headers).map(([name, value]) => [
      name,
      /^[\x20-\x7E]*$/.test(value) ? value : `=?base64?${Buffer.from(value).toString("base64")}?=`,
    ]);
    return (await (await one.post(body, Object.fromEntries(named), token)).json()) as Answered;
  };
  const hello = await one.post(
    {
      jsonrpc: "2.0",
      id: 0,
      method: "initialize",
      params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "old", version: "1" } },
    },
    {},
    token,
  );
  await hello.text();
  const session = { "mcp-session-id": hello.headers.get("mcp-session-id") ?? "", "mcp-protocol-version": "2025-11-25" };
  await (await one.post({ jsonrpc: "2.0", method: "notifications/initialized" }, session, token)).text();
  const legacy: Asks = async (method, params = {}) => {
    const text = await (await one.post({ jsonrpc: "2.0", id: 1, method, params }, session, token)).text();
    const data = text.startsWith("{") ? text : (text.match(/^data: (\{.*\})$/m)?.[1] ?? "{}");
    return JSON.parse(data) as Answered;
  };
  return { modern, legacy };
}

/** Names on the list of tools. */
export const toolsOf = async (asks: Asks) => (await asks("tools/list")).result?.tools?.map(({ name }) => name) ?? [];
