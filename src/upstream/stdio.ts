/** An MCP server that is a program: `Upstream` over a pool of its processes. */
import { resolve } from "node:path";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Logger } from "../observe/logger.ts";
import { childEnvironment, type Environment } from "./environment.ts";
import { flavouredPools, type Personal } from "./flavoured-pools.ts";
import { readList } from "./messages.ts";
import type { PoolOptions } from "./pool.ts";
import type { ProcessEvents, ServerProcess } from "./process.ts";
import { confinement, type SandboxSupport } from "./sandbox.ts";
import type { StdioServerSettings } from "./settings.ts";
import type { Upstream, UpstreamEvents, UpstreamIdentity } from "./upstream.ts";

export interface UpstreamDeps {
  readonly logger: Logger;
  readonly events: UpstreamEvents;
  /** Our own version, for `clientInfo`. */
  readonly version: string;
}

export interface StdioDeps extends UpstreamDeps {
  /** Where relative working directories start: the folder of the settings file. */
  readonly baseDirectory: string;
  /** The gateway's environment; only harmless variables of it are passed on. */
  readonly environment: Environment;
  /** Files and folders of the gateway's own, which no sandbox shows; `secrets` and `.drawbridge` beside the settings are among them anyway. */
  readonly hidden?: readonly string[] | undefined;
  /** How processes can be confined here. Default: found out by trying. */
  readonly sandboxSupport?: SandboxSupport | undefined;
}

/** Starts the least number of processes at once, in the background. `personal`: they serve one user or session alone. */
export function stdioUpstream(
  name: string,
  settings: StdioServerSettings,
  deps: StdioDeps,
  personal?: Personal,
): Upstream {
  const logger = deps.logger.child({ server: name });
  const process = {
    command: settings.command.map((word) => (word instanceof Secret ? word.reveal() : word)),
    cwd: resolve(deps.baseDirectory, settings.cwd ?? "."),
    environment: childEnvironment(deps.environment, settings.environment),
  };
  const confined = confinement(name, settings.sandbox, {
    ...deps,
    cwd: settings.cwd === undefined ? undefined : process.cwd,
    support: deps.sandboxSupport,
    logger,
  });
  const start = (events: ProcessEvents) => confined.start(process, logger, events);
  const upstream = pooledUpstream(
    { name, version: deps.version, settings, events: deps.events, logger, start },
    personal,
  );
  return { ...upstream, state: () => ({ ...upstream.state(), sandbox: confined.sentence() }) };
}

/** An upstream over processes, or over what is like them: one connection for many callers. */
export function pooledUpstream(options: PoolOptions, personal?: Personal): Upstream {
  const { name } = options;
  const subscribed = new Set<string>();
  const pool = flavouredPools(personal === undefined ? options : { ...options, start }, subscribed, personal);

  /** A process that is started when it is wanted is also wanted by those who subscribed. */
  function start(events: ProcessEvents): ServerProcess {
    const exited: ProcessEvents["exited"] = (...why) => {
      events.exited(...why);
      if (subscribed.size === 0) return;
      pool
        .reach(AbortSignal.timeout(options.settings.startTimeoutSeconds * 1000))
        .catch((error: unknown) => options.logger.debug({ error }, "subscriptions wait for the server"));
    };
    return options.start({ ...events, exited });
  }

  async function identity(signal: AbortSignal): Promise<UpstreamIdentity> {
    const known = pool.identity() ?? (await pool.reach(signal)).identity;
    if (known === undefined)
      throw new DrawbridgeError("upstream_failed", `The server "${name}" ended before it said who it is.`);
    return known;
  }

  /** Every process is told, since any of them may serve the next call. */
  async function tellAll(
    method: "resources/subscribe" | "resources/unsubscribe",
    uri: string,
    signal: AbortSignal,
  ): Promise<void> {
    await pool.reach(signal);
    const answers = await Promise.allSettled(
      pool.ready().map(async (child) => {
        if (child.modern) return child.listen();
        const outcome = await child.request(method, JSON.stringify({ uri }));
        if (outcome.kind === "error") {
          const detail = `${method} was answered with ${outcome.code}: ${outcome.message}`;
          throw new DrawbridgeError("upstream_failed", `The server "${name}" refused the subscription.`, { detail });
        }
      }),
    );
    const refused = answers.find((answer) => answer.status === "rejected");
    if (refused !== undefined && answers.every((answer) => answer.status === "rejected")) throw refused.reason;
  }

  return {
    name,
    identity,
    async list(list, signal, capabilities = {}) {
      const who = await identity(signal);
      const child = await pool.reach(signal, capabilities);
      const envelope = child.envelopeFor(capabilities);
      return readList(name, list, child.identity ?? who, (method, params) =>
        abortable(child.request(method, params, undefined, envelope), signal),
      );
    },
    send: pool.send,
    async subscribe(uri, signal) {
      if (subscribed.has(uri)) return;
      subscribed.add(uri);
      try {
        await tellAll("resources/subscribe", uri, signal);
      } catch (error) {
        subscribed.delete(uri);
        throw error;
      }
    },
    async unsubscribe(uri, signal) {
      if (subscribed.delete(uri)) await tellAll("resources/unsubscribe", uri, signal);
    },
    state: pool.state,
    close: pool.close,
  };
}

/** Rejects with `cancelled` as soon as `signal` aborts. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const cancelled = () => new DrawbridgeError("cancelled", "The request was cancelled.");
  if (signal.aborted) throw cancelled();
  const abort = Promise.withResolvers<never>();
  const onAbort = () => abort.reject(cancelled());
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, abort.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
