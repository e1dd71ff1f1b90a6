/** An MCP server that is a module of this process: `Upstream` with no hop. Its calls are function calls; nothing is parsed twice. */
import { randomUUID } from "node:crypto";
import { isAbsolute, resolve, sep } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import type { Outcome, PermittedCall, Question, Replies } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { lacking } from "../mcp/interaction.ts";
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
  const here = present.get(file);
  if (here !== undefined) return here;
  let exports: Record<string, unknown>;
  try {
    exports = (await import(pathToFileURL(file).href)) as Record<string, unknown>;
  } catch (thrown) {
    if (thrown instanceof Error && Reflect.get(thrown, "code") === "settings_invalid")
      throw new DrawbridgeError("settings_invalid", thrown.message);
    const why = thrown instanceof Error ? thrown.message : String(thrown);
    const at = placeOf(thrown);
    throw new DrawbridgeError("settings_invalid", `${file} cannot be loaded: ${why}${at && ` (${at})`}`, {
      cause: thrown,
    });
  }
  const found = moduleServerIn(exports);
  if (typeof found === "string") throw new DrawbridgeError("settings_invalid", `${file} ${found}`);
  return found;
}

/** Servers that this process made itself, by what settings call them in place of a file. */
const present = new Map<string, ModuleServer>();

/** Makes a server of this process one that settings can name: `module` of it is what is returned, until it is forgotten. */
export function presentModule(server: ModuleServer): { readonly module: string; forget(): void } {
  const module = resolve(`/${randomUUID()}.module`);
  present.set(module, server);
  return { module, forget: () => void present.delete(module) };
}

/** `file:line` where a module, or one that it imports, is wrong: the first line of the stack that is no one else's. Empty when none is. */
function placeOf(thrown: unknown): string {
  const { stack = "" } = thrown instanceof Error ? thrown : {};
  for (const line of stack.split("\n")) {
    // A mistake of syntax stands before the stack, as `file:line` alone.
    const [, place, number] =
      /^(\S.*?):(\d+)$/.exec(line) ?? /\(?((?:file:\/\/)?\/?[^\s()]+?):(\d+):\d+\)?$/.exec(line) ?? [];
    if (place === undefined || place.startsWith("node:") || /[\\/]node_modules[\\/]/.test(place)) continue;
    const file = place.startsWith("file:") ? fileURLToPath(place.replace(/\?.*$/, "")) : place;
    if (isAbsolute(file) && !file.startsWith(SOURCES)) return `${file}:${number}`;
  }
  return "";
}

/** Where this package is. */
const SOURCES = `${resolve(import.meta.dirname, "..")}${sep}`;

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

  const call = async (permitted: PermittedCall, replies: Replies, signal: () => AbortSignal): Promise<Outcome> => {
    const server = await loaded();
    const { call: asked, by } = permitted;
    const { credentials } = deps;
    const { progressToken } = asked;
    const told: Omit<ModuleCall, "signal"> = {
      method: asked.method,
      params: paramsOf(asked.forward),
      revision: asked.revision,
      principal: by,
      log: logger,
      trace: asked.trace,
      ...(progressToken !== undefined && {
        progress: (params: object) =>
          replies.notify({ method: "notifications/progress", params: JSON.stringify({ progressToken, ...params }) }),
      }),
      ...(replies.ask !== undefined &&
        lacking(asked.capabilities, [FORM]) === undefined && { ask: replies.ask.bind(replies) }),
      ...(credentials !== undefined && {
        async token(within: AbortSignal) {
          const credential = await credentials.for(by, within);
          replies.sentWith?.(credential);
          return credential.value.reveal().replace(/^Bearer /, "");
        },
      }),
      span: deps.beginSpan && ((title, attributes) => deps.beginSpan?.(title, asked, attributes) ?? NO_SPAN(asked)),
    };
    return server.call(Object.assign(new Withdrawable(signal), told));
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
        // Made when somebody looks: many calls are over before anybody could go.
        let over: AbortSignal | undefined;
        const either = () => {
          over ??= AbortSignal.any([signal, closing.signal]);
          return over;
        };
        const outcome = await call(permitted, replies, either);
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

/** A call whose signal is made when somebody looks. An accessor of the class, not of each call (docs/decisions/006-calls-die-young.md). */
class Withdrawable {
  readonly #signal: () => AbortSignal;
  constructor(signal: () => AbortSignal) {
    this.#signal = signal;
  }
  get signal(): AbortSignal {
    return this.#signal();
  }
}

/** All that a module asks. */
const FORM: Question = { method: "elicitation/create", params: '{"mode":"form"}' };

/** What the gateway made of the client's parameters: its own names and values. */
function paramsOf(forward: ReadonlyMap<string, string>): ModuleCall["params"] {
  const members = [...forward].map(([key, text]) => [key, JSON.parse(text)] as const);
  const params: unknown = Object.fromEntries(members);
  return isObject(params) ? params : {};
}

const NO_SPAN = ({ trace }: PermittedCall["call"]): ModuleSpan => ({ context: trace, end: () => {} });
