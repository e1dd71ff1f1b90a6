/** What the servers of a settings file offer now: each is opened, asked for everything, and closed again. */
import type { LoadedSettings } from "../config/load.ts";
import { userSecretReader } from "../config/user-secrets.ts";
import { type DefinitionKind, readDefinition } from "../contract/definition.ts";
import type { PinnedKind } from "../contract/drift.ts";
import { type Locked, type LockedServer, lockedFrom } from "../contract/lockfile.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { serverValue } from "../gateway/pins.ts";
import { silentLogger } from "../observe/logger.ts";
import { openUpstream } from "../upstream/open.ts";
import type { ListName, Upstream } from "../upstream/upstream.ts";
import { version } from "./main.ts";
import type { Terminal } from "./terminal.ts";

export interface OfferedServer {
  readonly server: string;
  /** Undefined when it could not be read, or not all of it. */
  readonly offered: LockedServer | undefined;
  readonly problem: string | undefined;
  /** Definitions that cannot be pinned, and why. */
  readonly left: readonly string[];
}

const LIMIT_MS = 60_000;
const AT_ONCE = 8;
const LISTS: readonly [ListName, Exclude<PinnedKind, "server"> & DefinitionKind][] = [
  ["tools", "tool"],
  ["prompts", "prompt"],
  ["resourceTemplates", "resourceTemplate"],
];

/** In the order of the settings; `names`: only these. Each within a minute. Throws `not_found` for a name that is none. */
export async function offeredNow(
  { settings, folder }: LoadedSettings,
  names: readonly string[],
  terminal: Terminal,
  limitMs = LIMIT_MS,
): Promise<readonly OfferedServer[]> {
  const all = Object.keys(settings.servers);
  const unknown = names.find((name) => !all.includes(name));
  if (unknown !== undefined)
    throw new DrawbridgeError(
      "settings_invalid",
      `There is no server ${JSON.stringify(unknown)} in the settings. There are: ${all.join(", ")}.`,
    );
  const warn = (message: string) => terminal.stderr.write(`${message}\n`);
  const readUserSecret = userSecretReader(folder, terminal.env, warn);
  const read = async (server: string): Promise<OfferedServer> => {
    const entry = settings.servers[server];
    let upstream: Upstream | undefined;
    try {
      if (entry === undefined) throw new DrawbridgeError("not_found", "It is not in the settings.");
      upstream = openUpstream(server, entry, {
        logger: silentLogger,
        events: { listChanged() {}, resourceUpdated() {} },
        version: version(),
        baseDirectory: folder,
        environment: terminal.env,
        readUserSecret,
      });
      return await definitionsOf(upstream, AbortSignal.timeout(limitMs));
    } catch (thrown) {
      const { message } = DrawbridgeError.from(thrown, "upstream_failed");
      return { server, offered: undefined, problem: message, left: [] };
    } finally {
      await upstream?.close(AbortSignal.abort()).catch(() => {});
    }
  };
  const wanted = names.length === 0 ? all : all.filter((name) => names.includes(name));
  const found: OfferedServer[] = [];
  for (let at = 0; at < wanted.length; at += AT_ONCE)
    found.push(...(await Promise.all(wanted.slice(at, at + AT_ONCE).map(read))));
  return found;
}

async function definitionsOf(upstream: Upstream, signal: AbortSignal): Promise<OfferedServer> {
  const { name: server } = upstream;
  const identity = await upstream.identity(signal);
  const definitions: Locked[] = [];
  const left: string[] = [];
  const add = (kind: PinnedKind, name: string, value: Locked["value"]) => {
    try {
      definitions.push(lockedFrom(kind, name, value));
    } catch {
      left.push(`${server} ${kind} ${name} has a number or a character without a canonical form (RFC 8785)`);
    }
  };
  add("server", "", serverValue(identity));
  for (const [list, kind] of LISTS) {
    for (const text of await upstream.list(list, signal)) {
      const definition = readDefinition(server, kind, text);
      if (definition !== undefined) add(kind, definition.name, definition.value);
    }
  }
  return { server, offered: { server, definitions }, problem: undefined, left };
}
