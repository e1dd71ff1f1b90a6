/** An MCP server behind a URL whose transport is HTTP+SSE (2024-11-05), or is not known before it is reached. */
import type { Outcome, PermittedCall, Replies } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { openEndpoint, type Party } from "./endpoint.ts";
import { stopwatch } from "./exchange.ts";
import type { Personal } from "./flavoured-pools.ts";
import { type HttpDeps, httpUpstream } from "./http.ts";
import { OtherTransport } from "./link.ts";
import { parties, userHeadersOf } from "./parties.ts";
import type { ProcessEvents } from "./process.ts";
import type { HttpServerSettings } from "./settings.ts";
import { startSse } from "./sse-connection.ts";
import { abortable, pooledUpstream } from "./stdio.ts";
import { type Tenancy, tenants } from "./tenants.ts";
import type { Upstream, UpstreamEvents, UpstreamState } from "./upstream.ts";

/** Connections to one server at most; each serves many calls at once. */
const MAX_CONNECTIONS = 8;
const MAX_IN_FLIGHT = 1000;

/** Connects at once, and again when the connection is lost. Callers whom the server tells apart have connections of their own. */
export function sseUpstream(name: string, settings: HttpServerSettings, deps: HttpDeps): Upstream {
  const { credentials, events, readUserSecret } = deps;
  const endpoint = openEndpoint(name, settings, events, deps.network);
  const on = parties(credentials, userHeadersOf(name, settings, readUserSecret));
  const logger = deps.logger.child({ server: name });
  /** Connections for one party; `personal` to one caller. */
  const pooled = (party: Party, min: number, heard: UpstreamEvents, personal?: Personal) => {
    const processes = { min, max: MAX_CONNECTIONS, idleSeconds: settings.sessions.idleSeconds };
    const maxInFlight = Math.min(settings.maxConnections, MAX_IN_FLIGHT);
    const start = (happens: ProcessEvents) => startSse(endpoint, party, happens);
    const pool = { ...settings, processes, maxInFlight };
    return pooledUpstream({ name, version: deps.version, settings: pool, events: heard, logger, start }, personal);
  };
  const own = pooled(on.own, 1, events);
  const apart = credentials !== undefined || settings.isolation !== "shared";
  if (!apart) return { ...own, close: (signal) => own.close(signal).then(endpoint.close) };

  // Resources are followed on our own connection: what a caller's own says of one is not for others.
  const ofOneCaller: UpstreamEvents = { ...events, resourceUpdated() {} };
  const callers = tenants<{ readonly tenancy: Tenancy; readonly upstream: Upstream }>({
    perSession: settings.isolation === "per-session",
    trait: on.trait,
    sessions: settings.sessions,
    end: ({ upstream }) => upstream.close(AbortSignal.abort()),
    now: stopwatch,
  });
  const make = (tenancy: Tenancy) => {
    const party = on.of(() => tenancy.by);
    return { tenancy, upstream: pooled(party, 0, ofOneCaller, { revision: undefined, capabilities: undefined }) };
  };
  let closed = false;

  async function send(permitted: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> {
    // Whoever lacks something is told what, and gets no connection that could only fail.
    const party = on.of(() => permitted.by);
    await party.headers?.();
    await party.credential?.(signal);
    if (closed) throw new DrawbridgeError("upstream_unavailable", `The server "${name}" is being shut down.`);
    const caller = callers.take(permitted, "", make);
    try {
      return await caller.upstream.send(permitted, replies, signal);
    } finally {
      callers.giveBack(caller);
    }
  }

  return {
    ...own,
    send,
    sessionEnded: callers.sessionEnded,
    sweep: callers.sweep,
    state() {
      const states = [own.state(), ...[...callers.all()].map(({ upstream }) => upstream.state())];
      const sum = (of: (state: UpstreamState) => number) => states.reduce((total, state) => total + of(state), 0);
      return {
        ...own.state(),
        size: sum(({ size }) => size),
        inFlight: sum(({ inFlight }) => inFlight),
        queued: sum(({ queued }) => queued),
        restarts: sum(({ restarts }) => restarts),
        instances: callers.size,
      };
    },
    async close(signal) {
      closed = true;
      await Promise.all([own.close(signal), ...[...callers.all()].map(({ upstream }) => upstream.close(signal))]);
      await callers.close();
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
      if (!other || closed) throw error;
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
    sessionEnded(session) {
      for (const one of [streamable, older]) one?.sessionEnded?.(session);
    },
    async sweep(stands) {
      await Promise.all([streamable.sweep?.(stands), older?.sweep?.(stands)]);
    },
    state: () => (chosen ?? streamable).state(),
    async close(signal) {
      closed = true;
      await Promise.all([streamable.close(signal), older?.close(signal)]);
    },
  };
}
