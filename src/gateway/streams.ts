/** Open streams to clients and what is sent on them: list changes and resource updates, in the form of each client's revision. */
import type { ServerResponse } from "node:http";
import { setTimeout as after, setImmediate as immediately } from "node:timers/promises";
import type { Authenticated, RequestId } from "../core/call.ts";
import { notificationText, resultText, SSE_KEEP_ALIVE, sseEvent } from "../mcp/answers.ts";
import { META } from "../mcp/inbound.ts";
import { memberTexts, objectText } from "../mcp/json-text.ts";
import { ownerOf, type Session } from "../mcp/sessions.ts";
import type { Logger } from "../observe/logger.ts";
import type { Caller, ListName, Upstream } from "../upstream/upstream.ts";
import type { Channel, Resumption, Sink } from "./resume.ts";
import { KEEP_ALIVE_MS, startSse, writeSse } from "./sse.ts";

/** What a client of 2026-07-28 asked to hear (`subscriptions/listen`). */
export interface ListenFilter {
  readonly lists: ReadonlySet<ChangedList>;
  /** Resources to follow, with their servers. */
  readonly uris: ReadonlyMap<string, string>;
}
export type ChangedList = "tools" | "resources" | "prompts";

export interface Streams {
  /** A GET stream of a session. Of several the newest that is connected is the one that is written to. */
  openForSession(session: Session, principal: Authenticated, response: ServerResponse): void;
  /** Goes on with a GET stream, after the event that its client saw last. */
  goOn(channel: Channel, principal: Authenticated, sink: Sink, after: number): void;
  /** The answer to `subscriptions/listen`: acknowledged first, ended with a result when the gateway stops. */
  openListen(id: RequestId, principal: Authenticated, filter: ListenFilter, response: ServerResponse): void;
  /** Keeps a call's answer stream alive until it ends. */
  keepAlive(response: ServerResponse): void;
  /** Has a server tell a caller of one of its resources, until the function returned is called. Rejects when the server refuses. */
  hold(server: string, uri: string, signal: AbortSignal, caller: Caller): Promise<() => void>;
  /** A session follows just these resources from now on, with their servers. */
  follow(session: Session, subscriptions: ReadonlyMap<string, string>): void;
  sessionEnded(session: Session): void;
  /** Whether a client is connected to a GET stream of this session. */
  streaming(session: Session): boolean;
  /** Sends a message on a GET stream of a session, or keeps it for a client that may come back; false when it has none. */
  tell(session: Session, message: string): boolean;
  listChanged(list: ListName): void;
  /**
   * A server said that one of its resources changed, in `params`, JSON text; only those who follow it at that server hear of it, and
   * of these only those whom the `instance` that said so serves.
   */
  resourceUpdated(server: string, uri: string, params: string, instance?: string): void;
  /**
   * Others may follow and see other things than before. Tells everybody which of their lists changed, and takes away what they
   * follow and may not any more, by `unfollow` where a session follows it.
   */
  reconsider(
    changed: (by: Authenticated) => ReadonlySet<ListName>,
    unfollow: (session: Session, uri: string) => Promise<void>,
  ): Promise<void>;
  /**
   * Looks who everybody is by now, and takes from streams what is not permitted any more. Streams of those who have no access, or of
   * whom nobody can say, end. Calls while it runs make it begin again after.
   */
  sweep(): Promise<void>;
  readonly size: number;
  close(): void;
}

interface Stream {
  readonly owner: string;
  /** Who opened it, or came back to it last. */
  principal: Authenticated;
  readonly session: Session | undefined;
  readonly listen: { readonly id: RequestId; readonly filter: ListenFilter } | undefined;
  /** Of `listen`: what it follows, each with what ends that. */
  readonly held?: Map<string, () => void>;
  /** What is sent on one connection, or over several. */
  readonly out: Pick<Channel, "present" | "send" | "end">;
}

/** Servers that could not be subscribed to are asked again after so long. */
const AGAIN_MS = 5_000;
const SUBSCRIBE_MS = 15_000;
const MAX_STREAMS_PER_OWNER = 64;
/** Whose access nobody can say after so long has none. */
const STANDS_MS = 2_000;
const SWEPT_AT_ONCE = 32;

const CHANGED: Record<ListName, ChangedList> = {
  tools: "tools",
  resources: "resources",
  resourceTemplates: "resources",
  prompts: "prompts",
};

/** What comes of it when somebody is in other groups than when their streams were opened. */
export interface Changing {
  /** Which lists are others for them. */
  lists(before: Authenticated, now: Authenticated): ReadonlySet<ListName>;
  /** Takes away what a session follows. */
  unfollow(session: Session, uri: string): Promise<void>;
}

/**
 * `current`: who somebody is by now; undefined when they have no access any more. `mayHear`: whether they may hear of a resource, asked each
 * time that there is something to hear. `said`: what of `params` of a notification they may see.
 */
export function openStreams(
  upstreams: ReadonlyMap<string, Upstream>,
  current: (by: Authenticated) => Promise<Authenticated | undefined>,
  resumption: Resumption,
  log: Logger,
  mayHear: (by: Authenticated, server: string, uri: string) => boolean = () => true,
  said: (by: Authenticated, params: string) => string = (_, params) => params,
  changing: Changing = { lists: () => new Set(), unfollow: async () => {} },
): Streams {
  const streams = new Set<Stream>();
  /** Connections that nobody else keeps alive. */
  const quiet = new Set<ServerResponse>();
  const { hold, keep } = holdings(upstreams, log);
  /** What ends the subscriptions of sessions, by resource. */
  const followed = new WeakMap<Session, Map<string, { readonly server: string; readonly release: () => void }>>();

  const timer = setInterval(() => {
    for (const response of quiet) writeSse(response, SSE_KEEP_ALIVE);
  }, KEEP_ALIVE_MS);
  timer.unref();
  const keepAlive = (response: ServerResponse) => {
    quiet.add(response);
    response.once("close", () => quiet.delete(response));
  };

  const end = (stream: Stream) => {
    streams.delete(stream);
    stream.out.end();
  };
  const add = (stream: Stream) => {
    const mine = [...streams].filter((other) => other.owner === stream.owner);
    if (mine.length >= MAX_STREAMS_PER_OWNER && mine[0] !== undefined) end(mine[0]);
    streams.add(stream);
    // What ended between the check of its token and this moment has found no stream to end.
    void check([stream]);
  };
  const check = async (checked: readonly Stream[]) => {
    const before = checked[0]?.principal;
    if (before === undefined) return;
    const known = current(before).catch(() => undefined);
    const now = await Promise.race([known, after(STANDS_MS, undefined, { ref: false })]);
    if (now === undefined) for (const stream of checked) end(stream);
    else if (now !== before) await becomes(checked, before, now);
  };
  const becomes = async (its: readonly Stream[], before: Authenticated, now: Authenticated) => {
    const lists = new Set([...changing.lists(before, now)].map((list) => CHANGED[list]));
    for (const stream of its) {
      // One that was come back to meanwhile has a newer proof than this.
      if (stream.principal !== before) continue;
      stream.principal = now;
      if (stream.session?.by === before) stream.session.by = now;
      for (const list of lists) tellOf(stream, list);
      await forget(stream, changing.unfollow);
    }
  };
  let sweeping: Promise<void> | undefined;
  let again = false;
  const sweepAll = async () => {
    do {
      again = false;
      const byPrincipal = [...Map.groupBy(streams, ({ principal }) => principal).values()];
      for (let at = 0; at < byPrincipal.length; at += SWEPT_AT_ONCE)
        await Promise.all(byPrincipal.slice(at, at + SWEPT_AT_ONCE).map(check));
    } while (again);
    sweeping = undefined;
  };
  const targets = () => {
    // Of several streams of one session each message goes out on one only (2025-11-25, Multiple Connections).
    const chosen = new Map<Session | Stream, Stream>();
    for (const stream of streams) {
      const key = stream.session ?? stream;
      chosen.set(key, better(chosen.get(key), stream));
    }
    return chosen.values();
  };

  const tellOf = (stream: Stream, list: ChangedList) => {
    if (stream.listen === undefined || stream.listen.filter.lists.has(list))
      notify(stream, `notifications/${list}/list_changed`, "{}");
  };
  /** Ends what a stream follows and its client may not hear of. */
  const forget = async (
    { principal, listen, session, held }: Stream,
    unfollow: (session: Session, uri: string) => Promise<void>,
  ) => {
    for (const [uri, server] of [...(listen?.filter.uris ?? session?.subscriptions ?? [])]) {
      if (mayHear(principal, server, uri)) continue;
      if (session !== undefined) await unfollow(session, uri);
      held?.get(uri)?.();
      held?.delete(uri);
    }
  };

  return {
    openForSession(session, principal, response) {
      startSse(response);
      const channel = resumption.begin(session, response);
      const out = channel ?? new Connected(response);
      const stream: Stream = { owner: ownerOf(principal), principal, session, listen: undefined, out };
      const over = () => void streams.delete(stream);
      if (channel !== undefined) channel.whenLapsed(over);
      else {
        keepAlive(response);
        response.once("close", over);
      }
      add(stream);
    },
    goOn(channel, principal, sink, after) {
      channel.attach(sink, after);
      const stream = [...streams].find((one) => one.out === channel);
      if (stream === undefined) return channel.end();
      stream.principal = principal;
      void check([stream]);
    },
    openListen(id, principal, filter, response) {
      startSse(response);
      const honoured = {
        ...(filter.lists.has("tools") && { toolsListChanged: true }),
        ...(filter.lists.has("prompts") && { promptsListChanged: true }),
        ...(filter.lists.has("resources") && { resourcesListChanged: true }),
        ...(filter.uris.size > 0 && { resourceSubscriptions: [...filter.uris.keys()] }),
      };
      const params = JSON.stringify({ _meta: { [META.subscriptionId]: id }, notifications: honoured });
      writeSse(response, sseEvent(notificationText("notifications/subscriptions/acknowledged", params)));
      const held = new Map(
        [...filter.uris].map(([uri, server]) => [uri, keep(server, uri, { by: principal, session: undefined })]),
      );
      const out = new Connected(response);
      const owner = ownerOf(principal);
      const stream: Stream = { owner, principal, session: undefined, listen: { id, filter }, held, out };
      keepAlive(response);
      response.once("close", () => {
        streams.delete(stream);
        for (const release of held.values()) release();
        held.clear();
      });
      add(stream);
    },
    keepAlive,
    hold,
    follow(session, subscriptions) {
      const held = followed.get(session) ?? new Map<string, { server: string; release: () => void }>();
      followed.set(session, held);
      for (const [uri, server] of subscriptions) {
        const before = held.get(uri);
        if (before?.server === server) continue;
        held.set(uri, { server, release: keep(server, uri, callerIn(session)) });
        before?.release();
      }
      for (const [uri, { release }] of held) {
        if (subscriptions.has(uri)) continue;
        held.delete(uri);
        release();
      }
    },
    sessionEnded(session) {
      for (const { release } of followed.get(session)?.values() ?? []) release();
      followed.delete(session);
      for (const stream of [...streams]) if (stream.session === session) end(stream);
    },
    streaming: (session) => [...streams].some((stream) => stream.session === session && stream.out.present),
    tell(session, message) {
      let chosen: Stream | undefined;
      for (const stream of streams) if (stream.session?.id === session.id) chosen = better(chosen, stream);
      return chosen?.out.send(message) ?? false;
    },
    listChanged(list) {
      const changed = CHANGED[list];
      for (const stream of targets()) tellOf(stream, changed);
    },
    resourceUpdated(server, uri, params, instance) {
      const upstream = upstreams.get(server);
      for (const stream of targets()) {
        const followed = stream.listen === undefined ? stream.session?.subscriptions : stream.listen.filter.uris;
        if (followed?.get(uri) !== server || !mayHear(stream.principal, server, uri)) continue;
        if (upstream?.instanceOf?.(callerOf(stream)) !== instance) continue;
        const told = said(stream.principal, params);
        // What it is about they named themselves.
        notify(stream, "notifications/resources/updated", told === params ? params : withUri(told, uri));
      }
    },
    async reconsider(changed, unfollow) {
      const byPrincipal = [...Map.groupBy(targets(), ({ principal }) => principal)];
      for (const [at, [principal, its]] of byPrincipal.entries()) {
        // Others have their turn in between: there may be thousands.
        if (at % SWEPT_AT_ONCE === SWEPT_AT_ONCE - 1) await immediately();
        const lists = new Set([...changed(principal)].map((list) => CHANGED[list]));
        for (const stream of its) {
          for (const list of lists) tellOf(stream, list);
          await forget(stream, unfollow);
        }
      }
    },
    sweep() {
      again = true;
      sweeping ??= sweepAll();
      return sweeping;
    },
    get size() {
      return streams.size;
    },
    close() {
      clearInterval(timer);
      for (const { listen, out } of streams) {
        if (listen !== undefined) {
          const result = JSON.stringify({ resultType: "complete", _meta: { [META.subscriptionId]: listen.id } });
          out.send(resultText(listen.id, result));
        }
        out.end();
      }
    },
  };
}

/** Of two streams of a session the one that is connected, or the newer one. */
function better(before: Stream | undefined, later: Stream): Stream {
  return before === undefined || later.out.present || !before.out.present ? later : before;
}

/** Whom a session's subscriptions and questions are for. */
export const callerIn = ({ by, id, capabilities }: Session): Caller => ({ by, session: id, capabilities });

const callerOf = ({ session, principal }: Stream): Caller =>
  session === undefined ? { by: principal, session: undefined } : callerIn(session);

function withUri(params: string, uri: string): string {
  return objectText((memberTexts(params) ?? new Map<string, string>()).set("uri", JSON.stringify(uri)));
}

/** A stream that ends with its connection. An accessor of the class, not of each stream (docs/decisions/006-calls-die-young.md). */
class Connected {
  readonly #response: ServerResponse;
  constructor(response: ServerResponse) {
    this.#response = response;
  }
  get present(): boolean {
    return !this.#response.writableEnded && !this.#response.destroyed;
  }
  send(message: string): boolean {
    if (this.present) writeSse(this.#response, sseEvent(message));
    return this.present;
  }
  end(): void {
    this.#response.end();
  }
}

function notify({ listen, out }: Stream, method: string, params: string): void {
  if (listen === undefined) {
    out.send(notificationText(method, params === "{}" ? undefined : params));
    return;
  }
  const members = memberTexts(params) ?? new Map<string, string>();
  const meta = memberTexts(members.get("_meta") ?? "{}") ?? new Map<string, string>();
  members.set("_meta", objectText(meta.set(META.subscriptionId, JSON.stringify(listen.id))));
  out.send(notificationText(method, objectText(members)));
}

interface Holding {
  holders: number;
  readonly begun: Promise<void>;
}

/** Subscriptions at the servers behind us: one for each resource of each instance, however many want it. */
function holdings(upstreams: ReadonlyMap<string, Upstream>, log: Logger) {
  const holdings = new Map<string, Holding>();
  /** Ends that are under way; a new beginning waits for them. */
  const ending = new Map<string, Promise<unknown>>();

  const begin = (key: string, server: string, uri: string, signal: AbortSignal, caller: Caller): Holding => {
    const subscribed = async () => {
      await ending.get(key);
      await upstreams.get(server)?.subscribe(uri, signal, caller);
    };
    const holding: Holding = { holders: 0, begun: subscribed() };
    holdings.set(key, holding);
    // Whoever comes later tries again.
    holding.begun.catch(() => holdings.get(key) === holding && holdings.delete(key));
    return holding;
  };
  const stop = (key: string, server: string, uri: string, caller: Caller) => {
    holdings.delete(key);
    const end: Promise<unknown> = Promise.resolve(
      upstreams.get(server)?.unsubscribe(uri, AbortSignal.timeout(SUBSCRIBE_MS), caller),
    )
      .catch((error: unknown) => log.debug({ server, error }, "an upstream subscription could not be ended"))
      .finally(() => ending.get(key) === end && ending.delete(key));
    ending.set(key, end);
  };
  const hold = async (server: string, uri: string, signal: AbortSignal, caller: Caller): Promise<() => void> => {
    const instance = upstreams.get(server)?.instanceOf?.(caller) ?? "";
    const key = `${server}\n${uri}\n${instance}`;
    const holding = holdings.get(key) ?? begin(key, server, uri, signal, caller);
    holding.holders++;
    await holding.begun;
    let released = false;
    return () => {
      if (released) return;
      released = true;
      if (--holding.holders === 0 && holdings.get(key) === holding) stop(key, server, uri, caller);
    };
  };
  /** Holds as soon as the server lets us, until the function returned is called. */
  const keep = (server: string, uri: string, caller: Caller): (() => void) => {
    const over = new AbortController();
    const held = async () => {
      while (!over.signal.aborted) {
        try {
          return await hold(server, uri, AbortSignal.timeout(SUBSCRIBE_MS), caller);
        } catch (error) {
          log.warn({ server, error }, "an upstream subscription failed");
          await after(AGAIN_MS, undefined, { ref: false, signal: over.signal }).catch(() => {});
        }
      }
      return () => {};
    };
    const release = held();
    return () => {
      over.abort();
      void release.then((end) => end());
    };
  };
  return { hold, keep };
}
