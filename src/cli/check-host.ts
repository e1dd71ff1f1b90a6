/**
 * What `drawbridge check server.ts` starts in its sandbox: loads the module of an authored server and lists what it declares, over the
 * standard streams. Whatever the module itself reads and prints while it is loaded is kept away from them.
 */
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { isRecord } from "../config/problems.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { loadModuleServer } from "../upstream/module.ts";
import type { ListName } from "../upstream/upstream.ts";

/** The name of a server that is none: its `instructions` say why. */
export const UNLOADED = "drawbridge-mcp/check/unloaded";

const MAX_WORDS = 20_000;
/** Lists by their method; the member of the answer has the same name. */
const LISTS = {
  "tools/list": "tools",
  "resources/list": "resources",
  "resources/templates/list": "resourceTemplates",
  "prompts/list": "prompts",
} as const satisfies Record<string, ListName>;

type Loaded = Awaited<ReturnType<typeof loadModuleServer>> | DrawbridgeError;

async function main(file: string): Promise<void> {
  const { stdin, stdout } = process;
  // A server of another kind takes the streams as soon as it is loaded, and would answer in place of us.
  Object.defineProperty(process, "stdin", { value: Readable.from([]), configurable: true });
  Object.defineProperty(process, "stdout", { value: process.stderr, configurable: true });
  const found: Loaded = await loadModuleServer(file).catch((thrown: unknown) => DrawbridgeError.from(thrown));
  for await (const line of createInterface({ input: stdin })) {
    const { id, method, params } = requestOf(line);
    if (id === undefined) continue;
    const result = answerTo(String(method), params, found);
    const outcome = result === undefined ? { error: { code: -32601, message: "Method not found" } } : { result };
    stdout.write(`${JSON.stringify({ jsonrpc: "2.0", id, ...outcome })}\n`);
  }
  // Nobody asks any more, whatever the module has begun.
  process.exit(0);
}

function answerTo(method: string, params: unknown, found: Loaded): object | undefined {
  if (method === "ping") return {};
  if (method === "initialize") {
    const protocolVersion = isRecord(params) ? params["protocolVersion"] : undefined;
    if (found instanceof DrawbridgeError)
      return {
        protocolVersion,
        capabilities: {},
        serverInfo: { name: UNLOADED, version: "0" },
        instructions: found.message.slice(0, MAX_WORDS),
      };
    const { info, capabilities, instructions } = found.identity;
    return { protocolVersion, capabilities, serverInfo: info, ...(instructions !== undefined && { instructions }) };
  }
  if (found instanceof DrawbridgeError || !Object.hasOwn(LISTS, method)) return undefined;
  const list = LISTS[method as keyof typeof LISTS];
  return { [list]: found.list(list) };
}

function requestOf(line: string): { readonly id?: unknown; readonly method?: unknown; readonly params?: unknown } {
  try {
    const read: unknown = JSON.parse(line);
    return isRecord(read) ? read : {};
  } catch {
    return {}; // The gateway writes nothing that is no JSON.
  }
}

if (import.meta.main) await main(resolve(process.argv[2] ?? ""));
