/** An MCP server behind a URL whose transport is HTTP+SSE (2024-11-05), or is not known before it is reached. */
import { DrawbridgeError } from "../core/errors.ts";
import { openEndpoint } from "./endpoint.ts";
import { type HttpDeps, httpUpstream } from "./http.ts";
import { OtherTransport } from "./link.ts";
import type { HttpServerSettings } from "./settings.ts";
import { startSse } from "./sse-connection.ts";
import { abortable, pooledUpstream } from "./stdio.ts";
import type { Upstream } from "./upstream.ts";

/** Connections to one server at most; each serves many calls at once. */
const MAX_CONNECTIONS = 8;
const MAX_IN_FLIGHT = 1000;

/** Connects at once, and again when the connection is lost. */
export function sseUpstream(name: string, settings: HttpServerSettings, deps: HttpDeps): Upstream {
  if (settings.credentials !== undefined) {
    throw new DrawbridgeError(
      "settings_invalid",
      `The server "${name}" cannot have \`credentials\` over HTTP+SSE, where one connection serves all users.`,
    );
  }
  const endpoint = openEndpoint(name, settings, deps.events);
  const upstream = pooledUpstream({
    name,
    version: deps.version,
    settings: {
      ...settings,
      processes: { min: 1, max: MAX_CONNECTIONS, idleSeconds: settings.sessions.idleSeconds },
      maxInFlight: Math.min(settings.maxConnections, MAX_IN_FLIGHT),
    },
    events: deps.events,
    logger: deps.logger.child({ server: name }),
    start: (events) => startSse(endpoint, undefined, events),
  });
  return {
    ...upstream,
    async close(signal) {
      await upstream.close(signal);
      await endpoint.close();
    },
  };
}

/** Speaks Streamable HTTP, and HTTP+SSE to a server that does not (2025-11-25 transports, Backwards Compatibility). */
export function eitherUpstream(name: string, settings: HttpServerSettings, deps: HttpDeps): Upstream {
  const streamable = httpUpstream(name, settings, deps);
  let older: Upstream | undefined;
  let chosen: Upstream | undefined;
  let choosing: Promise<Upstream> | undefined;
  let closed = false;

  /** Whoever speaks HTTP+SSE may have learned more since; it is looked at again once it cannot be reached so. */
  function known(): Upstream | undefined {
    if (chosen !== undefined && chosen === older && older.state().state === "degraded") chosen = undefined;
    return chosen;
  }

  async function choose(): Promise<Upstream> {
    const before = older;
    older = undefined;
    await before?.close(AbortSignal.abort());
    try {
      await streamable.identity(AbortSignal.timeout(settings.startTimeoutSeconds * 1000));
      return streamable;
    } catch (error) {
      const other = error instanceof DrawbridgeError && error.cause instanceof OtherTransport;
      if (!other || settings.credentials !== undefined || closed) throw error;
      return fallBack(error);
    }
  }

  async function fallBack(failure: DrawbridgeError): Promise<Upstream> {
    const other = sseUpstream(name, settings, deps);
    older = other;
    try {
      await other.identity(AbortSignal.timeout(settings.startTimeoutSeconds * 1000));
      return other;
    } catch {
      await other.close(AbortSignal.abort());
      throw failure;
    }
  }

  function reach(): Promise<Upstream> {
    choosing ??= choose()
      .then((made) => {
        chosen = made;
        return made;
      })
      .finally(() => {
        choosing = undefined;
      });
    return choosing;
  }

  return {
    name,
    identity: async (signal) => (known() ?? (await abortable(reach(), signal))).identity(signal),
    list: async (list, signal, capabilities) =>
      (known() ?? (await abortable(reach(), signal))).list(list, signal, capabilities),
    send(call, replies, signal) {
      const over = known();
      return over === undefined
        ? abortable(reach(), signal).then((reached) => reached.send(call, replies, signal))
        : over.send(call, replies, signal);
    },
    subscribe: async (uri, signal) => (known() ?? (await abortable(reach(), signal))).subscribe(uri, signal),
    unsubscribe: async (uri, signal) => (known() ?? (await abortable(reach(), signal))).unsubscribe(uri, signal),
    state: () => (chosen ?? streamable).state(),
    async close(signal) {
      closed = true;
      await Promise.all([streamable.close(signal), older?.close(signal)]);
    },
  };
}
