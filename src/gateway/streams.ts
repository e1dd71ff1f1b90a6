/** Open streams to clients and what is sent on them: list changes and resource updates, in the form of each client's revision. */
import type { ServerResponse } from "node:http";
import { setTimeout as after } from "node:timers/promises";
import type { Authenticated, JsonObject, RequestId } from "../core/call.ts";
import { notificationText, resultText, SSE_KEEP_ALIVE, sseEvent } from "../mcp/answers.ts";
import { META } from "../mcp/inbound.ts";
import { ownerOf, type Session } from "../mcp/sessions.ts";
import type { Logger } from "../observe/logger.ts";
import type { ListName, Upstream } from "../upstream/upstream.ts";

/** What a client of 2026-07-28 asked to hear (`subscriptions/listen`). */
export interface ListenFilter {
  readonly lists: ReadonlySet<ChangedList>;
  /** Resources to follow, with their servers. */
  readonly uris: ReadonlyMap<string, string>;
}
export type ChangedList = "tools" | "resources" | "prompts";

export interface Streams {
  /** The GET stream of a session: the newest of a session is the one that is written to. */
  openForSession(session: Session, principal: Authenticated, response: ServerResponse): void;
  /** The answer to `subscriptions/listen`: acknowledged first, ended with a result when the gateway stops. */
  openListen(id: RequestId, principal: Authenticated, filter: ListenFilter, response: ServerResponse): void;
  /** Keeps a call's answer stream alive until it ends. */
  keepAlive(response: ServerResponse): void;
  subscribe(session: Session, uri: string, server: string, signal: AbortSignal): Promise<void>;
  unsubscribe(session: Session, uri: string, signal: AbortSignal): Promise<void>;
  sessionEnded(session: Session): void;
  listChanged(list: ListName): void;
  /** A server said that one of its resources changed; only those who follow it at that server hear of it. */
  resourceUpdated(server: string, uri: string, params: JsonObject): void;
  /** Ends the streams of those for whom `stands` does not say yes: no, or no answer. Calls while it runs make it begin again after. */
  sweep(): Promise<void>;
  readonly size: number;
  close(): void;
}

interface Stream {
  readonly owner: string;
  readonly principal: Authenticated;
  readonly session: Session | undefined;
  readonly listen: { readonly id: RequestId; readonly filter: ListenFilter } | undefined;
  readonly response: ServerResponse;
}

const KEEP_ALIVE_MS = 15_000;
/** A client that does not read this much is cut off, so that it cannot fill our memory. */
const MAX_UNREAD_BYTES = 4 << 20;
const MAX_STREAMS_PER_OWNER = 64;
/** Who is not known to stand after so long does not. */
const STANDS_MS = 2_000;
const SWEPT_AT_ONCE = 32;

const CHANGED: Record<ListName, ChangedList> = {
  tools: "tools",
  resources: "resources",
  resourceTemplates: "resources",
  prompts: "prompts",
};

/** `stands`: whether somebody still may do what they opened a stream for. */
export function openStreams(
  upstreams: ReadonlyMap<string, Upstream>,
  stands: (by: Authenticated) => Promise<boolean>,
  log: Logger,
): Streams {
  const streams = new Set<Stream>();
  const answering = new Set<ServerResponse>();
  /** How many sessions and streams want updates of one resource of one server. */
  const wanted = new Map<string, number>();
  const keyOf = (server: string, uri: string) => `${server}\n${uri}`;

  const want = async (server: string, uri: string, signal: AbortSignal) => {
    const key = keyOf(server, uri);
    const count = wanted.get(key) ?? 0;
    wanted.set(key, count + 1);
    if (count > 0) return;
    try {
      await upstreams.get(server)?.subscribe(uri, signal);
    } catch (error) {
      release(server, uri);
      throw error;
    }
  };
  const release = (server: string, uri: string) => {
    const key = keyOf(server, uri);
    const count = wanted.get(key) ?? 0;
    if (count > 1) wanted.set(key, count - 1);
    else if (wanted.delete(key)) {
      void upstreams
        .get(server)
        ?.unsubscribe(uri, AbortSignal.timeout(KEEP_ALIVE_MS))
        .catch((error: unknown) => log.debug({ server, error }, "an upstream subscription could not be ended"));
    }
  };

  const timer = setInterval(() => {
    for (const response of [...answering, ...[...streams].map((stream) => stream.response)])
      send(response, SSE_KEEP_ALIVE);
  }, KEEP_ALIVE_MS);
  timer.unref();

  const add = (stream: Stream, onClose: () => void) => {
    const mine = [...streams].filter((other) => other.owner === stream.owner);
    if (mine.length >= MAX_STREAMS_PER_OWNER) mine[0]?.response.destroy();
    streams.add(stream);
    stream.response.on("close", () => {
      streams.delete(stream);
      onClose();
    });
    // What ended between the check of its token and this moment has found no stream to end.
    void check([stream]);
  };
  const check = async (checked: readonly Stream[]) => {
    const known = checked[0] !== undefined && stands(checked[0].principal).catch(() => false);
    if (await Promise.race([known, after(STANDS_MS, false, { ref: false })])) return;
    for (const { response } of checked) response.end();
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
    // Of several streams of one session each message goes out on one only (2025-11-25, Multiple Connections): the newest.
    const newest = new Map<Session | Stream, Stream>();
    for (const stream of streams) newest.set(stream.session ?? stream, stream);
    return newest.values();
  };

  return {
    openForSession(session, principal, response) {
      startSse(response);
      add({ owner: ownerOf(principal), principal, session, listen: undefined, response }, () => {});
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
      send(response, sseEvent(notificationText("notifications/subscriptions/acknowledged", params)));
      for (const [uri, server] of filter.uris) {
        want(server, uri, AbortSignal.timeout(KEEP_ALIVE_MS)).catch((error: unknown) =>
          log.warn({ server, error }, "an upstream subscription failed"),
        );
      }
      add({ owner: ownerOf(principal), principal, session: undefined, listen: { id, filter }, response }, () => {
        for (const [uri, server] of filter.uris) release(server, uri);
      });
    },
    keepAlive(response) {
      answering.add(response);
      response.on("close", () => answering.delete(response));
    },
    async subscribe(session, uri, server, signal) {
      session.subscriptions ??= new Map();
      if (session.subscriptions.has(uri)) return;
      session.subscriptions.set(uri, server);
      try {
        await want(server, uri, signal);
      } catch (error) {
        session.subscriptions.delete(uri);
        throw error;
      }
    },
    async unsubscribe(session, uri) {
      const server = session.subscriptions?.get(uri);
      if (server === undefined) return;
      session.subscriptions?.delete(uri);
      release(server, uri);
    },
    sessionEnded(session) {
      for (const [uri, server] of session.subscriptions ?? []) release(server, uri);
      for (const stream of streams) if (stream.session === session) stream.response.end();
    },
    listChanged(list) {
      const changed = CHANGED[list];
      for (const stream of targets()) {
        if (stream.listen !== undefined && !stream.listen.filter.lists.has(changed)) continue;
        notify(stream, `notifications/${changed}/list_changed`, {});
      }
    },
    resourceUpdated(server, uri, params) {
      for (const stream of targets()) {
        const followed = stream.listen === undefined ? stream.session?.subscriptions : stream.listen.filter.uris;
        if (followed?.get(uri) === server) notify(stream, "notifications/resources/updated", params);
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
      for (const { listen, response } of streams) {
        if (listen !== undefined) {
          const result = JSON.stringify({ resultType: "complete", _meta: { [META.subscriptionId]: listen.id } });
          send(response, sseEvent(resultText(listen.id, result)));
        }
        response.end();
      }
    },
  };
}

/** Sends the head of an SSE answer; proxies are told not to hold it back. */
export function startSse(response: ServerResponse, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(200, {
    "content-type": "text/event-stream",
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
    ...headers,
  });
  response.flushHeaders();
}

function notify(stream: Stream, method: string, params: JsonObject): void {
  const { listen } = stream;
  if (listen === undefined) {
    send(
      stream.response,
      sseEvent(notificationText(method, Object.keys(params).length > 0 ? JSON.stringify(params) : undefined)),
    );
    return;
  }
  const meta = params["_meta"];
  const stamped = {
    ...params,
    _meta: { ...(typeof meta === "object" && meta !== null ? meta : {}), [META.subscriptionId]: listen.id },
  };
  send(stream.response, sseEvent(notificationText(method, JSON.stringify(stamped))));
}

function send(response: ServerResponse, text: string): void {
  if (response.writableLength > MAX_UNREAD_BYTES) response.destroy();
  else response.write(text);
}
