/** Servers of a settings file, opened for a look by a command that ends soon: nothing of them is served. */
import type { LoadedSettings } from "../config/load.ts";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { silentLogger } from "../observe/logger.ts";
import { openUpstream } from "../upstream/open.ts";
import type { ListName, Upstream } from "../upstream/upstream.ts";
import { version } from "./main.ts";
import type { Terminal } from "./terminal.ts";

export interface Look extends AsyncDisposable {
  /** All that a server lists. Throws `upstream_unavailable` and the like. */
  offered(server: string): Promise<Offered>;
  /** Calls a tool in nobody's name; resolves with its `CallToolResult`. Throws what the server refused with. */
  call(server: string, tool: string, args: JsonObject): Promise<JsonObject>;
}

export type Offered = Readonly<Record<ListName, readonly JsonObject[]>>;

const LISTS = ["tools", "resources", "resourceTemplates", "prompts"] as const;
const LOOK_MS = 180_000;
/** A runner such as npx may have to fetch the server first. */
const START_SECONDS = 120;
const CLOSE_MS = 5_000;

/** Opens servers as the gateway would. Each is started when it is first asked for. */
export function openLook({ settings, folder }: LoadedSettings, { env }: Pick<Terminal, "env">): Look {
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
      },
    );
    opened.set(name, made);
    return made;
  };
  return {
    async offered(server) {
      const upstream = upstreamOf(server);
      const signal = AbortSignal.timeout(LOOK_MS);
      try {
        await upstream.identity(signal);
        const lists = await Promise.all(
          LISTS.map(async (list) => {
            const entries = await upstream.list(list, signal);
            return [list, entries.map((text) => JSON.parse(text) as JsonObject)] as const;
          }),
        );
        return Object.fromEntries(lists) as unknown as Offered;
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
