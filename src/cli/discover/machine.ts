/** Where MCP servers show on a machine: settings of clients, and where asked for, processes and the cache of npx. Reads only. */
import { existsSync } from "node:fs";
import { readdir, readFile, realpath } from "node:fs/promises";
import { join } from "node:path";
import { pinOf } from "../../check/pins.ts";
import type { Target } from "../../check/targets.ts";
import { CLIENTS, type Machine } from "../../config/clients.ts";
import { type ImportedSettings, importClientSettings } from "../../config/import.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { importedServers } from "../imported-servers.ts";

export interface SetServer {
  readonly client: string;
  readonly file: string;
  readonly name: string;
  readonly inspected: Target["servers"][number];
  /** For people: the command or the address, without secrets and without the name of the home folder. */
  readonly runs: string;
  readonly pinned: boolean | undefined;
  /** What makes it this server: its words, and the names of its environment and headers. */
  readonly words: readonly string[];
}

export interface MachineSettings {
  readonly servers: readonly SetServer[];
  readonly unread: readonly { readonly file: string; readonly problem: string }[];
  readonly notes: readonly string[];
}

/** So many projects of Claude Code are looked at. */
const MAX_PROJECTS = 200;
const MAX_FILE_BYTES = 32 << 20;

/** Every server of every client, each file once. What cannot be read is said, and hides nothing else. */
export async function readSettings(machine: Machine): Promise<MachineSettings> {
  const servers: SetServer[] = [];
  const unread: { file: string; problem: string }[] = [];
  const notes: string[] = [];
  const seen = new Set<string>();
  const folders = [machine.cwd, ...(await projectsOf(machine))];
  for (const cwd of folders)
    for (const { client, file } of placesOf({ ...machine, cwd })) {
      // One file holds the servers of all projects: it is read once for each.
      const perProject = file === claudeFile(machine);
      const key = perProject ? `${file} ${cwd}` : await realpath(file).catch(() => file);
      if (seen.has(key) || !existsSync(file)) continue;
      seen.add(key);
      try {
        const imported = await importClientSettings(file, { ...machine, cwd });
        for (const one of fromFile(client, file, imported, machine.home))
          if (!servers.some((other) => same(one, other))) servers.push(one);
        notes.push(...imported.notes.filter((note) => / is switched off in /.test(note) && !notes.includes(note)));
      } catch (thrown) {
        const { message } = DrawbridgeError.from(thrown);
        const none = message.startsWith("No MCP server was found") || (await knownToHaveNone(file));
        if (!none && !unread.some((one) => one.file === file))
          unread.push({ file, problem: message.split("\n")[0] ?? "" });
      }
    }
  return { servers, unread, notes };
}

/** `claude` is the two others together. */
function placesOf(machine: Machine): readonly { readonly client: string; readonly file: string }[] {
  return Object.entries(CLIENTS)
    .filter(([client]) => client !== "claude")
    .flatMap(([client, locations]) => locations(machine).map((file) => ({ client, file })));
}

function claudeFile({ home }: Machine): string {
  return join(home, ".claude.json");
}

/** Folders that Claude Code keeps servers or settings for. */
async function projectsOf(machine: Machine): Promise<readonly string[]> {
  try {
    const { projects } = JSON.parse(await readFile(claudeFile(machine), "utf8")) as { projects?: object };
    return Object.keys(projects ?? {}).slice(0, MAX_PROJECTS);
  } catch {
    return []; // Reading it for its servers says what is wrong with it.
  }
}

/** A format that is not read, of which it can be seen all the same that it names no server. */
async function knownToHaveNone(file: string): Promise<boolean> {
  if (!/\.toml$/i.test(file)) return false;
  const text = await readFile(file, "utf8").catch(() => "mcp");
  return text.length < MAX_FILE_BYTES && !/^\s*\[?\s*"?mcp/im.test(text);
}

function fromFile(client: string, file: string, imported: ImportedSettings, home: string): readonly SetServer[] {
  return importedServers(imported).map((inspected) => {
    const entry = imported.entries[inspected.name] ?? {};
    const names = [entry["environment"], entry["headers"]].flatMap((values) => Object.keys(values ?? {})).sort();
    const words = inspected.command?.map((word) => plain(word, home)) ?? [address(inspected.url ?? "")];
    return {
      client,
      file: plain(file, home),
      name: inspected.name,
      inspected,
      runs: words.map((word) => (/^[^\s"']+$/.test(word) ? word : JSON.stringify(word))).join(" "),
      pinned: pinOf(inspected.command),
      words: [...words, ...names.map((name) => `${name}=`)],
    };
  });
}

function same(one: SetServer, other: SetServer): boolean {
  const key = ({ client, file, name, words }: SetServer) => JSON.stringify([client, file, name, words]);
  return key(one) === key(other);
}

/** Home folders differ between machines, and a list of approved servers goes to all of them. What looks like a secret goes nowhere. */
function plain(word: string, home: string): string {
  return (home.length > 1 ? word.replaceAll(home, "~") : word)
    .replace(/\b(Bearer|Basic|Token)\s+(?!\$\{)\S+/gi, "$1 [secret]")
    .replace(
      /((?:key|token|secret|passw(?:or)?d|pwd|auth\w*)["']?\s*[=:]\s*)(?!\$\{|Bearer|Basic|Token)[^\s"'&]+/gi,
      "$1[secret]",
    );
}

/** Without user and password, and the values of its query. */
function address(text: string): string {
  const url = URL.parse(text);
  if (url === null) return text.replace(/\/\/[^/@]*@/, "//").replace(/=[^&#]*/g, "=…");
  const query = [...url.searchParams.keys()].map((name) => `${name}=…`).join("&");
  return `${url.origin}${url.pathname}${query === "" ? "" : `?${query}`}`;
}

export interface Stray {
  readonly where: string;
  /** The package or the program. Never its arguments: they may hold secrets. */
  readonly what: string;
}

const MAX_ENTRIES = 8_192;
/** A name that says of itself that it is about MCP. */
const NAMED = /(?:^|[/@_.-])mcp(?:[-_/@.]|$)/i;

/** Packages that run now (Linux, processes one may look at), or that npx keeps for the next time. */
export async function packagesRun({ home }: Pick<Machine, "home">, processes = "/proc"): Promise<readonly Stray[]> {
  const found = new Map<string, Stray>();
  const add = (where: string, what: string | undefined) => {
    if (what !== undefined && NAMED.test(what)) found.set(`${where} ${what}`, { where, what });
  };
  for (const pid of (await entries(processes)).filter((name) => /^\d+$/.test(name))) {
    const line = await readFile(join(processes, pid, "cmdline"), "utf8").catch(() => "");
    // The program and what it runs; words further on are arguments.
    for (const word of line.split("\0").slice(0, 3)) add("running", packageIn(word));
  }
  const cache = join(home, ".npm", "_npx");
  for (const folder of await entries(cache)) {
    const text = await readFile(join(cache, folder, "package.json"), "utf8").catch(() => "{}");
    try {
      const { dependencies } = JSON.parse(text) as { dependencies?: object };
      for (const name of Object.keys(dependencies ?? {})) add("cache of npx", name);
    } catch {
      // A file that npx has not finished writing names nothing yet.
    }
  }
  return [...found.values()];
}

/** The package of a path into node_modules or of a word like `@scope/name@1.2.3`; a program's own name else. */
function packageIn(word: string): string | undefined {
  if (/[=\s]/.test(word) || word.length > 1024) return undefined;
  const installed = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(word)?.[1];
  if (installed !== undefined && installed !== ".bin") return installed;
  const named = /^((?:@[\w.-]+\/)?[\w.-]+?)(?:@[\w.^~-]+)?$/.exec(word)?.[1];
  return named ?? /([\w.-]+)$/.exec(word)?.[1];
}

async function entries(folder: string): Promise<readonly string[]> {
  return (await readdir(folder).catch(() => [])).slice(0, MAX_ENTRIES);
}
