/** Servers of a settings file, opened for a look by a command that ends soon: nothing of them is served. */
import type { LoadedSettings } from "../config/load.ts";
import { userSecretReader } from "../config/user-secrets.ts";
import type { DefinitionKind } from "../contract/definition.ts";
import type { PinnedKind } from "../contract/drift.ts";
import { type Locked, type LockedServer, lockedFrom } from "../contract/lockfile.ts";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { serverValue } from "../gateway/pins.ts";
import { silentLogger } from "../observe/logger.ts";
import { openUpstream } from "../upstream/open.ts";
import type { ListName, Upstream, UpstreamIdentity } from "../upstream/upstream.ts";
import { version } from "./main.ts";
import type { Terminal } from "./terminal.ts";

export interface Look extends AsyncDisposable {
  /** All that a server lists. Throws `upstream_unavailable` and the like, also when it takes longer than the limit. */
  offered(server: string, limitMs?: number): Promise<Offered>;
  /** Calls a tool in nobody's name; resolves with its `CallToolResult`. Throws what the server refused with. */
  call(server: string, tool: string, args: JsonObject): Promise<JsonObject>;
}

export interface Offered extends Readonly<Record<ListName, readonly JsonObject[]>> {
  readonly identity: UpstreamIdentity;
}

/** What can be pinned of a server. */
export interface OfferedServer {
  readonly server: string;
  /** Undefined when it could not be read, or not all of it. */
  readonly offered: LockedServer | undefined;
  readonly problem: string | undefined;
  /** Definitions that cannot be pinned, and why. */
  readonly left: readonly string[];
}

const LISTS = ["tools", "resources", "resourceTemplates", "prompts"] as const;
const LOOK_MS = 180_000;
/** A runner such as npx may have to fetch the server first. */
const START_SECONDS = 120;
const CLOSE_MS = 5_000;
const PINS_MS = 60_000;
const AT_ONCE = 8;
const MAX_NAME = 4096;

/** Opens servers as the gateway would. Each is started when it is first asked for. */
export function openLook(
  { settings, folder }: LoadedSettings,
  { env, stderr }: Pick<Terminal, "env" | "stderr">,
): Look {
  const readUserSecret = userSecretReader(folder, env, (message) => stderr.write(`${message}\n`));
  const opened = new Map<string, Upstream>();
  const upstreamOf = (name: string): Upstream => {
    const known = opened.get(name);
    if (known !== undefined) return known;
    const server = settings.servers[name];
    if (server === undefined)
      throw new DrawbridgeError("settings_invalid", `There is no server ${name} in these settings.`);
    const startTimeoutSeconds = Math.max(server.startTimeoutSeconds, START_SECONDS);
    const made = openUpstream(
      name,
      { ...server, startTimeoutSeconds },
      {
        logger: silentLogger,
        events: { listChanged: () => {}, resourceUpdated: () => {} },
        version: version(),
        baseDirectory: folder,
        environment: env,
        readUserSecret,
      },
    );
    opened.set(name, made);
    return made;
  };
  return {
    async offered(server, limitMs = LOOK_MS) {
      const upstream = upstreamOf(server);
      const signal = AbortSignal.timeout(limitMs);
      try {
        const identity = await upstream.identity(signal);
        const lists = await Promise.all(
          LISTS.map(async (list) => {
            const entries = await upstream.list(list, signal);
            return [list, entries.map((text) => JSON.parse(text) as JsonObject)] as const;
          }),
        );
        return { ...(Object.fromEntries(lists) as Record<ListName, JsonObject[]>), identity };
      } catch (thrown) {
        const error = DrawbridgeError.from(thrown);
        const { problem, stderr } = upstream.state();
        const detail = [error.detail, problem, ...stderr.slice(-10)].filter((line) => line !== undefined).join("\n");
        throw new DrawbridgeError(error.code, `The server ${server} could not be read: ${error.message}`, {
          detail,
          cause: thrown,
        });
      }
    },
    async call(server, tool, args) {
      const params: JsonObject = { name: tool, arguments: args };
      const outcome = await upstreamOf(server).send(
        permitted(server, tool, params),
        { notify: () => {} },
        AbortSignal.timeout(LOOK_MS),
      );
      if (outcome.kind === "error") throw new DrawbridgeError("upstream_failed", outcome.message);
      return outcome.value;
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([...opened.values()].map((upstream) => upstream.close(AbortSignal.timeout(CLOSE_MS))));
    },
  };
}

/** What can be pinned of each server, in the order of the settings; `names`: only these. Throws `settings_invalid` for a name that is none. */
export async function offeredNow(
  loaded: LoadedSettings,
  names: readonly string[],
  terminal: Pick<Terminal, "env" | "stderr">,
  limitMs = PINS_MS,
): Promise<readonly OfferedServer[]> {
  const all = Object.keys(loaded.settings.servers);
  const unknown = names.find((name) => !all.includes(name));
  if (unknown !== undefined)
    throw new DrawbridgeError(
      "settings_invalid",
      `There is no server ${JSON.stringify(unknown)} in the settings. There are: ${all.join(", ")}.`,
    );
  const wanted = names.length === 0 ? all : all.filter((name) => names.includes(name));
  const found: OfferedServer[] = [];
  for (let at = 0; at < wanted.length; at += AT_ONCE) {
    await using look = openLook(loaded, terminal);
    const read = async (server: string): Promise<OfferedServer> => {
      try {
        return pinnable(server, await look.offered(server, limitMs));
      } catch (thrown) {
        // The sentence around it is the caller's.
        const { message } = DrawbridgeError.from(
          thrown instanceof Error ? (thrown.cause ?? thrown) : thrown,
          "upstream_failed",
        );
        return { server, offered: undefined, problem: message, left: [] };
      }
    };
    found.push(...(await Promise.all(wanted.slice(at, at + AT_ONCE).map(read))));
  }
  return found;
}

const PINNED: readonly (readonly [ListName, Exclude<PinnedKind, "server"> & DefinitionKind, named: string])[] = [
  ["tools", "tool", "name"],
  ["prompts", "prompt", "name"],
  ["resourceTemplates", "resourceTemplate", "uriTemplate"],
];

function pinnable(server: string, offered: Offered): OfferedServer {
  const definitions: Locked[] = [];
  const left: string[] = [];
  const add = (kind: PinnedKind, name: string, value: JsonObject) => {
    try {
      definitions.push(lockedFrom(kind, name, value));
    } catch {
      left.push(`${server} ${kind} ${name} has a number or a character without a canonical form (RFC 8785)`);
    }
  };
  add("server", "", serverValue(offered.identity));
  for (const [list, kind, named] of PINNED) {
    for (const value of offered[list]) {
      const name = value[named];
      if (typeof name === "string" && name !== "" && name.length <= MAX_NAME) add(kind, name, value);
    }
  }
  return { server, offered: { server, definitions }, problem: undefined, left };
}

type Permitted = Parameters<Upstream["send"]>[0];

/** Who runs a command on the gateway's own machine may do what the gateway may. */
function permitted(server: string, name: string, params: JsonObject): Permitted {
  const none: JsonValue = {};
  return {
    rule: "command line",
    by: {
      subject: "command line",
      client: "command line",
      actors: [],
      groups: [],
      scopes: [],
      claims: {},
      grant: undefined,
      tokenId: "",
      expiresAt: Number.MAX_SAFE_INTEGER,
    },
    call: {
      id: 1,
      method: "tools/call",
      target: { server, kind: "tool", name, upstreamName: name, pin: undefined },
      params,
      forward: new Map(Object.entries(params).map(([key, value]) => [key, JSON.stringify(value)])),
      meta: new Map(),
      progressToken: undefined,
      logLevel: undefined,
      revision: "2025-11-25",
      trace: { traceId: "0".repeat(32), spanId: "0".repeat(16), sampled: false, tracestate: undefined },
      capabilities: none,
      session: undefined,
    },
  } as unknown as Permitted;
}
