/** Servers that `drawbridge check` starts or finds in settings, with the tools that they list. */
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import type { Target } from "../check/targets.ts";
import { nameOfModule, settingsForCommand } from "../config/defaults.ts";
import { importClientSettings } from "../config/import.ts";
import { type LoadedSettings, loadSettings, settleSettings } from "../config/load.ts";
import type { JsonObject } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { openCatalogue } from "../gateway/catalogue.ts";
import { openContracts } from "../gateway/contracts.ts";
import type { Pins } from "../gateway/pins.ts";
import { silentLogger } from "../observe/logger.ts";
import { compileExpression } from "../policy/expressions.ts";
import { findProgram } from "../upstream/sandbox/program.ts";
import type { ListName, Upstream } from "../upstream/upstream.ts";
import { UNLOADED } from "./check-host.ts";
import type { TargetOptions } from "./check-targets.ts";
import { importedServers, type ServerEntry, setUp } from "./imported-servers.ts";
import { type Offered, openLook } from "./look.ts";
import type { Terminal } from "./terminal.ts";

/** What clients would be served: the definitions as contracts make them. */
export async function ofSettings(file: string, name: string, terminal: Terminal): Promise<Target> {
  const loaded = await loadSettings(file, { env: terminal.env });
  const { offered, unread } = await offeredBy(loaded, terminal);
  const upstreams = [...offered].map(([server, lists]) => {
    const list = async (wanted: ListName) => lists[wanted].map((entry) => JSON.stringify(entry));
    return { name: server, list } as Partial<Upstream> as Upstream;
  });
  const contracts = openContracts(loaded.settings, silentLogger, compileExpression);
  const catalogue = openCatalogue(upstreams, { pins: AS_OFFERED, contracts, log: silentLogger, onChange() {} });
  await catalogue.ready;
  const served = new Map<string, JsonObject[]>();
  for (const { target, served: text } of catalogue.now("tools")) {
    const server = target.server ?? "";
    served.set(server, [...(served.get(server) ?? []), JSON.parse(text) as JsonObject]);
  }
  const known = Object.entries(loaded.settings.servers).map(([server, entry]) =>
    setUp(server, entry, served.get(server) ?? []),
  );
  const others = [...served].filter(([server]) => !Object.hasOwn(loaded.settings.servers, server));
  return { name, servers: [...known, ...others.map(([server, tools]) => ({ name: server, tools }))], unread };
}

const AS_OFFERED: Pins = {
  check: async (_server, _kind, all) => ({
    verdicts: all.map(() => ({ held: undefined, stops: false, reviewed: true })),
    gone: undefined,
  }),
  screened: async (_server, identity) => ({ identity, verdict: { held: undefined, stops: false, reviewed: true } }),
  list: async () => [],
  accept: async () => false,
};

/** A program nobody has judged yet gets no network, and of this machine only what it is given. */
export async function ofCommand(
  command: readonly string[],
  { read, sandbox }: TargetOptions,
  terminal: Terminal,
): Promise<Target> {
  const plain = await settingsForCommand(command, terminal.cwd, { env: terminal.env });
  const [server = "server"] = Object.keys(plain.settings.servers);
  const { tools } = await startedOnce(server, command, { read, sandbox }, terminal);
  return { name: command.join(" "), servers: [{ name: server, command, tools }] };
}

/**
 * A module of `drawbridge-mcp/author`, loaded by a program of ours in the same sandbox. Throws `settings_invalid` for one that cannot be
 * loaded or declares what cannot be served, and for the module of anything else.
 */
export async function ofModule(
  file: string,
  name: string,
  { read, sandbox }: TargetOptions,
  terminal: Terminal,
): Promise<Target> {
  const server = nameOfModule(file);
  const host = fileURLToPath(new URL(`./check-host${extname(import.meta.url)}`, import.meta.url));
  // Inside, a module sees what it would see as the program of a command: its project, and the packages around it.
  const path = terminal.env["PATH"] ?? "";
  const seen = findProgram([process.execPath, file], { cwd: terminal.cwd, path, home: terminal.home })?.needs ?? [];
  const command = [process.execPath, host, file];
  const { identity, tools } = await startedOnce(server, command, { read: [...seen, ...read], sandbox }, terminal);
  if (identity.info["name"] === UNLOADED) {
    const why = identity.instructions ?? `${name} cannot be loaded.`;
    const other = why.includes(" exports no server")
      ? `. A server of another kind: drawbridge check -- node ${name}`
      : "";
    throw new DrawbridgeError("settings_invalid", `${why}${other}`);
  }
  return { name, servers: [{ name: server, tools }] };
}

async function startedOnce(
  server: string,
  command: readonly string[],
  { read, sandbox }: Pick<TargetOptions, "read" | "sandbox">,
  terminal: Terminal,
): Promise<Offered> {
  const entry = {
    command: [...command],
    cwd: terminal.cwd,
    ...(sandbox && { sandbox: { network: [], read: [...read] } }),
  };
  const loaded = await settleSettings({ servers: { [server]: entry } }, terminal.cwd, { env: terminal.env });
  await using look = openLook(loaded, terminal);
  return await look.offered(server);
}

export async function ofClient(
  source: string,
  name: string,
  { start }: TargetOptions,
  terminal: Terminal,
): Promise<Target> {
  const { cwd, home, platform, env } = terminal;
  const imported = await importClientSettings(source, { cwd, home, platform, env });
  const loaded = start ? await settleSettings({ servers: confined(imported.entries) }, cwd, { env }) : undefined;
  const { offered, unread } = loaded === undefined ? NOTHING : await offeredBy(loaded, terminal);
  return {
    name,
    servers: importedServers(imported, (server) => offered.get(server)?.tools ?? []),
    unread,
  };
}

const NOTHING: Awaited<ReturnType<typeof offeredBy>> = { offered: new Map(), unread: [] };

function confined(servers: Readonly<Record<string, ServerEntry>>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(servers).map(([name, entry]) => [
      name,
      entry.command === undefined ? entry : { ...entry, sandbox: { network: [] } },
    ]),
  );
}

async function offeredBy(
  loaded: LoadedSettings,
  terminal: Terminal,
): Promise<{
  readonly offered: ReadonlyMap<string, Offered>;
  readonly unread: readonly { readonly server: string; readonly problem: string }[];
}> {
  await using look = openLook(loaded, terminal);
  const unread: { server: string; problem: string }[] = [];
  const offered = new Map<string, Offered>();
  await Promise.all(
    Object.keys(loaded.settings.servers).map(async (server) => {
      try {
        offered.set(server, await look.offered(server));
      } catch (thrown) {
        unread.push({ server, problem: DrawbridgeError.from(thrown).message });
      }
    }),
  );
  return { offered, unread };
}
