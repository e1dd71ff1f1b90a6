/** What `drawbridge check` is pointed at: a list of tools, a lockfile, settings of ours or of a client, a module, a command. */
import { createReadStream, existsSync, statSync } from "node:fs";
import { isAbsolute, join, resolve } from "node:path";
import { readTools, type Target } from "../check/targets.ts";
import { CLIENTS } from "../config/clients.ts";
import { isRecord } from "../config/problems.ts";
import { readLock } from "../contract/lockfile.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Terminal } from "./terminal.ts";

export interface TargetOptions {
  /** Starts the servers of a client's settings, to read their tools. */
  readonly start: boolean;
  /** What a command may read or write of this machine in its sandbox, and whether it gets one. */
  readonly read: readonly string[];
  readonly sandbox: boolean;
  /** For a URL: the environment variable that holds a token, whether a client may be registered, certificates to trust. */
  readonly tokenEnv?: string;
  readonly register?: boolean;
  readonly clientId?: string;
  readonly redirect?: string;
  readonly ca?: string;
}

/** Loaded only where servers are started: a list of tools needs no gateway. */
const servers = () => import("./check-servers.ts");
/** What of a folder is meant, the first that is there. */
const OF_A_FOLDER = ["drawbridge.yaml", "drawbridge.yml", ...["ts", "mts", "js", "mjs"].map((end) => `server.${end}`)];
/** A file may not be larger. */
const MAX_BYTES = 256 * 1024 * 1024;

/** Reads what is to be checked. Throws `settings_invalid` for what is nothing of it. */
export async function readTarget(
  given: string | undefined,
  rest: readonly string[] | undefined,
  options: TargetOptions,
  terminal: Terminal,
): Promise<Target> {
  if (rest !== undefined) {
    if (given !== undefined || rest.length === 0)
      throw usage("Give a file, or a command after --, e.g. drawbridge check -- node server.js");
    return (await servers()).ofCommand(rest, options, terminal);
  }
  if (given === undefined)
    throw usage(
      "What is to be checked? A URL, a file, a folder, the name of a client (claude, cursor, …), or a command after --.",
    );
  if (/^https?:\/\//i.test(given)) return ofUrl(given, options, terminal);
  if (given === "-") return readTools(await piped(terminal), "Standard input");
  const file = isAbsolute(given) ? given : join(terminal.cwd, given);
  if (!existsSync(file) && Object.hasOwn(CLIENTS, given))
    return (await servers()).ofClient(given, given, options, terminal);
  if (isFolder(file)) return ofFolder(given, options, terminal);
  if (MODULE.test(given)) {
    if (!existsSync(file)) throw usage(`There is no file ${given}.`);
    return (await servers()).ofModule(file, given, options, terminal);
  }
  const text = await textOf(file, given);
  if (/\.ya?ml$/i.test(given))
    return /^(?:servers|publicUrl):/m.test(text)
      ? (await servers()).ofSettings(file, given, terminal)
      : (await servers()).ofClient(file, given, options, terminal);
  const content = contentOf(text);
  // Clients write comments into their JSON; a list of tools has none.
  if (content === undefined && /"(?:mcpServers|servers|context_servers)"\s{0,8}:/.test(text))
    return (await servers()).ofClient(file, given, options, terminal);
  if (isRecord(content)) {
    if (content["drawbridgeLock"] !== undefined) return ofLock(text, given);
    if (!Array.isArray(content["tools"]) && !isRecord(content["result"]))
      return (await servers()).ofClient(file, given, options, terminal);
  }
  return readTools(text, given);
}

/** A module is known by its name, since reading it is running it. */
const MODULE = /\.m?[jt]s$/;

const isFolder = (file: string) => statSync(file, { throwIfNoEntry: false })?.isDirectory() === true;

async function ofFolder(given: string, options: TargetOptions, terminal: Terminal): Promise<Target> {
  const found = OF_A_FOLDER.find((name) => existsSync(resolve(terminal.cwd, given, name)));
  if (found === undefined)
    throw usage(`${given} is a folder with neither drawbridge.yaml nor server.ts. Name a file in it.`);
  return readTarget(join(given, found), undefined, options, terminal);
}

/** A running server, asked. */
async function ofUrl(
  url: string,
  { tokenEnv, register, clientId, redirect, ca }: TargetOptions,
  terminal: Terminal,
): Promise<Target> {
  if (!URL.canParse(url)) throw usage(`${url} is no URL.`);
  const token = tokenEnv === undefined ? undefined : (terminal.env[tokenEnv] ?? "");
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token))
    throw usage(`The environment has no token in ${tokenEnv}. Put the access token there.`);
  const { probe } = await import("./check-probe/probe.ts");
  return probe(url, {
    token: token === undefined ? undefined : new Secret(token),
    register,
    client: clientId === undefined ? undefined : { id: clientId, redirect },
    trustedCertificates: ca === undefined ? undefined : await textOf(resolve(terminal.cwd, ca), ca),
  });
}

/** Definitions as they were pinned. Whose signature it bears is for `verify` to say. */
function ofLock(text: string, name: string): Target {
  const lock = readLock(text, { keys: [], unsigned: "accept" }, name);
  return {
    name,
    servers: [...lock].map(([server, definitions]) => ({
      name: server,
      tools: [...definitions.values()].filter(({ kind }) => kind === "tool").map(({ value }) => value),
    })),
  };
}

/** Undefined for what is no JSON; whoever reads it next says what is wrong. */
function contentOf(text: string): unknown {
  try {
    return JSON.parse(text.replace(/^\ufeff/, ""));
  } catch {
    return undefined;
  }
}

/** A pipe or a device is read no further than a file may be long. */
async function textOf(file: string, given: string): Promise<string> {
  try {
    const pieces: Buffer[] = [];
    let length = 0;
    for await (const piece of createReadStream(file) as AsyncIterable<Buffer>) {
      length += piece.length;
      if (length > MAX_BYTES) throw usage(`${given} is larger than ${MAX_BYTES} bytes.`);
      pieces.push(piece);
    }
    return decoded(Buffer.concat(pieces));
  } catch (cause) {
    if (cause instanceof DrawbridgeError) throw cause;
    throw new DrawbridgeError("settings_invalid", `${given} cannot be read.`, { detail: String(cause), cause });
  }
}

/** UTF-8, or UTF-16 where a byte order mark says so: a redirected answer of an older PowerShell is that. */
function decoded(bytes: Buffer): string {
  const [first, second] = bytes;
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  return bytes.toString("utf8");
}

async function piped(terminal: Terminal): Promise<string> {
  const pieces: string[] = [];
  let length = 0;
  for await (const piece of terminal.pieces?.() ?? []) {
    pieces.push(piece);
    length += piece.length;
    if (length > MAX_BYTES) throw usage(`Standard input is longer than ${MAX_BYTES} bytes.`);
  }
  return pieces.join("");
}

const usage = (message: string) => new DrawbridgeError("settings_invalid", message);
