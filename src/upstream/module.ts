/** An MCP server that is a module of this process: `Upstream` with no hop. Its calls are function calls; nothing is parsed twice. */
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { Outcome, PermittedCall, Replies } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { canBeAsked } from "../mcp/interaction.ts";
import { isObject } from "../mcp/json-text.ts";
import { type ModuleCall, type ModuleServer, type ModuleSpan, moduleServerIn } from "../mcp/module-server.ts";
import type { UpstreamCredentials } from "./credentials.ts";
import { PREFERRED_LEGACY } from "./messages.ts";
import type { ModuleServerSettings } from "./settings.ts";
import type { UpstreamDeps } from "./stdio.ts";
import type { Upstream } from "./upstream.ts";

export interface ModuleDeps extends UpstreamDeps {
  readonly baseDirectory: string;
  readonly credentials?: UpstreamCredentials | undefined;
  readonly beginSpan?:
    | ((
        name: string,
        call: PermittedCall["call"],
        attributes: Readonly<Record<string, string | number | boolean>>,
      ) => ModuleSpan)
    | undefined;
}

/**
 * Loads the module of a server, once in a process: what is declared and what is run stay the same module until a restart. Throws
 * `settings_invalid` when it cannot be loaded, or what it declares cannot be served.
 */
export async function loadModuleServer(file: string): Promise<ModuleServer> {
  let exports: Record<string, unknown>;
  try {
    exports = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (thrown) {
    if (thrown instanceof Error && Reflect.get(thrown, "code") === "settings_invalid")
      throw new DrawbridgeError("settings_invalid", thrown.message);
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    throw new DrawbridgeError("settings_invalid", `${file} cannot be loaded: ${why}`, { cause: thrown });
  }
  const found = moduleServerIn(exports);
  if (typeof found === "string") throw new DrawbridgeError("settings_invalid", `${file} ${found}`);
  return found;
}

export function moduleUpstream(name: string, settings: ModuleServerSettings, deps: ModuleDeps): Upstream {
  const logger = deps.logger.child({ server: name });
  const file = resolve(deps.baseDirectory, settings.module);
  let loading: Promise<ModuleServer> | undefined;
  let problem: string | undefined;
  let ready = false;
  let inFlight = 0;
  const closing = new AbortController();
  const idle = new Set<() => void>();

  const loaded = (): Promise<ModuleServer> => {
    loading ??= loadModuleServer(file).then(
      (server) => {
        ready = true;
        problem = undefined;
        return server;
      },
      (thrown: unknown) => {
        problem = DrawbridgeError.from(thrown).message;
        loading = undefined;
        throw new DrawbridgeError("upstream_unavailable", `The server "${name}" could not be loaded.`, {
          detail: problem,
          cause: thrown,
        });
      },
    );
    return loading;
  };

  const call = async (permitted: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> => {
    const server = await loaded();
    const { call: asked, by } = permitted;
    const { credentials } = deps;
    const { progressToken } = asked;
    return server.call({
      method: asked.method,
      params: paramsOf(asked.forward),
      principal: by,
      signal,
      log: logger,
      trace: asked.trace,
      ...(progressToken !== undefined && {
        progress: (params: object) =>
          replies.notify({ method: "notifications/progress", params: JSON.stringify({ progressToken, ...params }) }),
      }),
      ...(replies.ask !== undefined && canBeAsked(asked.capabilities) && { ask: replies.ask.bind(replies) }),
      ...(credentials !== undefined && {
        async token(within: AbortSignal) {
          const credential = await credentials.for(by, within);
          replies.sentWith?.(credential);
          return credential.value.reveal().replace(/^Bearer /, "");
        },
      }),
      span: deps.beginSpan && ((title, attributes) => deps.beginSpan?.(title, asked, attributes) ?? NO_SPAN(asked)),
    } satisfies ModuleCall);
  };

  return {
    name,
    async identity() {
      const { identity } = await loaded();
      // Its questions are put as those of a server with a handshake are.
      return { revision: PREFERRED_LEGACY, ...identity };
    },
    list: async (list) => (await loaded()).list(list).map((entry) => JSON.stringify(entry)),
    async send(permitted, replies, signal) {
      if (closing.signal.aborted)
        throw new DrawbridgeError("upstream_unavailable", `The server "${name}" was stopped.`);
      inFlight++;
      try {
        const outcome = await call(permitted, replies, AbortSignal.any([signal, closing.signal]));
        if (outcome.kind === "result" && Buffer.byteLength(outcome.result) > settings.maxAnswerBytes)
          throw new DrawbridgeError("answer_too_large", `The answer is larger than ${settings.maxAnswerBytes} bytes.`);
        return outcome;
      } finally {
        if (--inFlight === 0) for (const done of idle) done();
      }
    },
    // Its lists and resources do not change while it runs.
    subscribe: async () => {},
    unsubscribe: async () => {},
    state: () => ({
      state: closing.signal.aborted ? "stopped" : ready ? "ready" : problem === undefined ? "starting" : "degraded",
      size: 1,
      inFlight,
      queued: 0,
      restarts: 0,
      problem,
      stderr: [],
    }),
    async close(signal) {
      if (inFlight > 0 && !signal.aborted) {
        const { promise, resolve: done } = Promise.withResolvers<void>();
        idle.add(done);
        signal.addEventListener("abort", () => done(), { once: true });
        await promise;
      }
      closing.abort();
    },
  };
}

/** What the gateway made of the client's parameters: its own names and values. */
function paramsOf(forward: ReadonlyMap<string, string>): ModuleCall["params"] {
  const members = [...forward].map(([key, text]) => [key, JSON.parse(text)] as const);
  const params: unknown = Object.fromEntries(members);
  return isObject(params) ? params : {};
}

const NO_SPAN = ({ trace }: PermittedCall["call"]): ModuleSpan => ({ context: trace, end: () => {} });
