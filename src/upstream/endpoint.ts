/** One MCP endpoint over Streamable HTTP: a request goes out with the credential of whoever asks, and its answer is read. */
import { type LookupAddress, lookup as systemLookup } from "node:dns";
import type { IncomingHttpHeaders } from "node:http";
import { isIP, type LookupFunction } from "node:net";
import { Pool } from "undici";
import type { UpstreamCredential } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { messageTexts, readUpstreamMessage, type UpstreamMessage } from "../mcp/json-text.ts";
import { publicAddress } from "../net/addresses.ts";
import type { CredentialSource } from "./credentials.ts";
import { fewAtATime } from "./few-at-a-time.ts";
import { dispatch, type WireEnd, type WireHandler, type WireRequest, type WireWatch } from "./http-wire.ts";
import type { LogLevel } from "./log-level.ts";
import * as messages from "./messages.ts";
import { headerValue } from "./mirrored-headers.ts";
import { replyTo, type ServerRequest } from "./questions.ts";
import { askedToWaitMs, MAX_REPEATS, mayRepeat, pauseMs, type Reached, retryAfterSeconds } from "./repeats.ts";
import type { HttpServerSettings } from "./settings.ts";
import type { UpstreamEvents, UpstreamIdentity } from "./upstream.ts";

/** On whose behalf a request goes, ourselves or a user, and what it carries for that beside the operator's headers. */
export interface Party {
  /** Undefined at a server that needs none. */
  readonly credential: CredentialSource;
  /** The party's own headers, names and values in turn. Rejects when one has no value, and then nothing is sent. */
  readonly headers?: (() => Promise<readonly string[]>) | undefined;
}

/** How requests are written. */
export interface Manner {
  /** Members of `_meta` that each request carries; "" for a server with a handshake. */
  readonly envelope: string;
  /** Headers of each request, names and values in turn. */
  readonly headers: readonly string[];
  /** Who the server said it is; undefined before it has. */
  readonly identity?: UpstreamIdentity;
}

/** How the server is spoken to, once that is known. */
export interface Terms extends Manner {
  readonly identity: UpstreamIdentity;
  readonly sessionId: string | undefined;
  /** What the session's server was told to log. */
  readonly level: LogLevel;
}

export type Notification = Extract<UpstreamMessage, { kind: "notification" }>;
export type Response = Extract<UpstreamMessage, { kind: "result" | "error" }>;

export interface Reply {
  /** The JSON-RPC answer, if there was one. */
  readonly response: Response | undefined;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly excerpt: string;
  /** The server had begun to answer before, so it has seen the request. */
  readonly resumed: boolean;
}

export interface Listener {
  /** The credential that the request is about to be sent with; again when it was turned away and another took its place. */
  sentWith?(credential: UpstreamCredential): void;
  notification(message: Notification): void;
  /** A request of the server. Default: what we say to it ourselves. */
  question?(request: ServerRequest): void;
  done(reply: Reply): void;
  fail(error: DrawbridgeError, reached: Reached): void;
}

export interface Endpoint {
  /** Open connections. */
  readonly connected: number;
  readonly url: URL;
  /** Headers of every request, the operator's among them. */
  readonly headers: readonly string[];
  /** A JSON-RPC id that was not used before. */
  newId(): number;
  /** POSTs one request and reads until its answer, through resumed streams too. The function returned gives it up. */
  converse(id: number, body: string, headers: string[], over: Manner, party: Party, listener: Listener): () => void;
  /** A request of our own, sent again where that is safe (`repeats.ts`) until the time is over. */
  ask(method: string, params: string, over: Manner, party: Party, timeoutMs?: number): Promise<Reply>;
  /** POSTs what has no answer: notifications, and our answers to the server's questions. */
  notify(body: string, over: Manner, party: Party): void;
  /** The same for what we say ourselves to a question: a few at a time, so that no call waits behind a flood of them. */
  reply(body: string, over: Manner, party: Party): void;
  /** Opens the stream of what belongs to no request, or goes on with one that broke. */
  stream(over: Manner, party: Party, lastEventId: string, handler: WireHandler): () => void;
  /** Any request. One that is turned away (401) has done nothing, so it is sent once more, with another credential. */
  send(request: WireRequest, party: Party, handler: WireHandler): () => void;
  /** An answer that is none, as an error. What the server said goes to the operator alone. */
  refusal(reply: Omit<Reply, "resumed">): DrawbridgeError;
  close(): Promise<void>;
}

/** How long a stream may stay open after its answer. */
const LINGER_MS = 1_000;
const NOTIFY_MS = 5_000;
/** Until a stream that broke is resumed or opened again, when the server does not say (`retry:`), and at most. */
export const FIRST_RELISTEN_MS = 1_000;
export const MAX_RELISTEN_MS = 60_000;
/** A server that keeps hanging up must not keep us busy. */
const MIN_RESUME_MS = 50;
/** A server may ask so often in the course of one request. */
const MAX_REQUESTS = 1_000;
/** What has no answer may be under way so many times; beyond it, it is not sent. A flood of questions must not become one of answers. */
const MAX_NOTES = 4_096;
/** Of our own answers to its questions so many at a time: fewer than the connections beside those for calls. */
const REPLIES_AT_ONCE = 4;
/** A connection is used no longer, so that a server that has moved is followed (DNS). */
const CONNECTION_MS = 60_000;
const MAX_IDLE_MS = 30_000;
/** Connections beside those for calls: change streams, cancellations, answers to questions. */
const EXTRA_CONNECTIONS = 8;

export interface EndpointOptions {
  /** Hears how each exchange went. */
  readonly watch?: WireWatch | undefined;
  /** How names are resolved. Default: as the system does. */
  readonly lookup?: LookupFunction | undefined;
  /** How long a connection is used. Default: a minute. */
  readonly connectionMs?: number | undefined;
  readonly random?: (() => number) | undefined;
}

/** Connects to nobody until it is first used. Throws `settings_invalid` for a URL that would send secrets in the clear. */
export function openEndpoint(
  name: string,
  settings: HttpServerSettings,
  events: UpstreamEvents,
  { watch, lookup, connectionMs = CONNECTION_MS, random = Math.random }: EndpointOptions = {},
): Endpoint {
  const url = checkedUrl(name, settings);
  const path = `${url.pathname}${url.search}`;
  // Every request goes to this one origin: redirects are not followed, so no credential ever leaves it.
  const options: Pool.Options = {
    pipelining: 1,
    allowH2: false,
    // Time is kept by whoever asks; a stream of changes may be silent for ever.
    headersTimeout: 0,
    bodyTimeout: 0,
    // Shorter than what servers keep (node: 5 s), so that a request does not meet a connection that is being closed.
    keepAliveTimeout: 4_000,
    // Whatever the server promises to keep.
    keepAliveMaxTimeout: MAX_IDLE_MS,
    clientTtl: connectionMs,
    connect: {
      timeout: Math.min(settings.startTimeoutSeconds * 1000, 10_000),
      ...(lookup !== undefined && { lookup }),
      ...(settings.allowPrivateAddresses ? undefined : { lookup: publicLookup }),
    },
  };
  const pool = new Pool(url.origin, { ...options, connections: settings.maxConnections + EXTRA_CONNECTIONS });
  /** Streams that stay open must not take the connections that calls need. */
  const streams = new Pool(url.origin, { ...options, connections: settings.sessions.max + EXTRA_CONNECTIONS });
  const headers = [
    "content-type",
    "application/json",
    "accept",
    "application/json, text/event-stream",
    "accept-encoding",
    "identity",
    ...Object.entries(settings.headers).flatMap(([key, value]) => [
      key.toLowerCase(),
      value instanceof Secret ? value.reveal() : value,
    ]),
  ];
  let lastId = 0;
  let notes = 0;
  const replies = fewAtATime(REPLIES_AT_ONCE, MAX_NOTES);

  const transmit = (request: WireRequest, handler: WireHandler) => {
    const through = request.method === "GET" ? streams : pool;
    return dispatch(through, request.path ?? path, name, settings.maxAnswerBytes, request, handler, watch);
  };

  function send(request: WireRequest, party: Party, handler: WireHandler & Pick<Listener, "sentWith">): () => void {
    const { credential: source } = party;
    if (source === undefined && party.headers === undefined) return transmit(request, handler);
    const given = new AbortController();
    let stop = () => {};
    let own: readonly string[] = [];
    const fail = (error: unknown) => {
      if (!given.signal.aborted) handler.fail(DrawbridgeError.from(error, "upstream_failed"), "unready");
    };
    const attempt = (credential: UpstreamCredential | undefined, last: boolean) => {
      if (given.signal.aborted) return;
      const headers = [...request.headers, ...own];
      if (credential !== undefined) {
        handler.sentWith?.(credential);
        headers.push(credential.header, credential.value.reveal());
        if (credential.proof !== undefined) headers.push("dpop", credential.proof(request.method, url.href).reveal());
      }
      stop = transmit({ ...request, headers }, last || source === undefined ? handler : onceMore(source, credential));
    };
    /** Holds an answer of 401 back until it is known that there is no other credential. */
    const onceMore = (
      otherThan: NonNullable<CredentialSource>,
      refused: UpstreamCredential | undefined,
    ): WireHandler => {
      let held: string | undefined;
      return {
        head(status, head, events) {
          if (status === 401) held = "";
          else handler.head?.(status, head, events);
        },
        message(text) {
          if (held === undefined) handler.message(text);
          else held = text;
        },
        event: (type, data) => handler.event?.(type, data),
        end(end) {
          if (end.status !== 401) {
            handler.end(end);
            return;
          }
          otherThan(given.signal, refused, end.headers)
            .then((other) => {
              if (other !== undefined && !sameCredential(other, refused)) attempt(other, true);
              else if (!given.signal.aborted) handler.end({ ...end, excerpt: held ?? end.excerpt });
            })
            .catch(fail);
        },
        fail: handler.fail,
      };
    };
    const begin = async () => {
      own = (await party.headers?.()) ?? own;
      attempt(await source?.(given.signal), false);
    };
    begin().catch(fail);
    return () => {
      given.abort();
      stop();
    };
  }

  function converse(
    id: number,
    body: string,
    asked: string[],
    over: Manner,
    party: Party,
    listener: Listener,
  ): () => void {
    let status = 0;
    let answerHeaders: IncomingHttpHeaders = {};
    let streams = false;
    let answered = false;
    let resumed = false;
    let requests = 0;
    let lastEventId = "";
    let stop = () => {};
    let timer: NodeJS.Timeout | undefined;

    const handler = {
      sentWith: (credential: UpstreamCredential) => listener.sentWith?.(credential),
      head(code: number, head: IncomingHttpHeaders, events: boolean) {
        status = code;
        answerHeaders = head;
        streams = events;
      },
      message(text: string) {
        for (const one of messageTexts(text, over.identity?.revision)) handler.heard(one);
      },
      heard(text: string) {
        if (answered) return;
        const message = readUpstreamMessage(text);
        if (message === undefined) return;
        if (message.kind === "request" && ++requests > MAX_REQUESTS) {
          answered = true;
          stop();
          listener.fail(misbehaves(`it made more than ${MAX_REQUESTS} requests in one of ours`), "surely");
        } else if (message.kind === "notification") listener.notification(message);
        else if (message.kind === "request" && listener.question !== undefined) listener.question(message);
        else if (message.kind === "request") reply(replyTo(message), over, party);
        else if (message.id === id || (message.kind === "error" && typeof message.id !== "number" && status >= 400)) {
          // An error of HTTP has no id, or one that its server made up; ours are numbers.
          answered = true;
          // The stream should end now; if it does, its connection can be used again.
          if (streams) timer = setTimeout(() => stop(), LINGER_MS);
          listener.done({ response: message, status, headers: answerHeaders, excerpt: "", resumed });
        }
      },
      end(end: WireEnd) {
        clearTimeout(timer);
        if (answered) return;
        if (end.lastEventId !== "") lastEventId = end.lastEventId;
        if (end.streamed && lastEventId !== "" && over.envelope === "") {
          resume(end.retryMs);
          return;
        }
        listener.done({ response: undefined, status: end.status, headers: end.headers, excerpt: end.excerpt, resumed });
      },
      fail(error: DrawbridgeError, reached: Reached) {
        clearTimeout(timer);
        if (answered) return;
        // The server has begun to answer, so whatever happens on the way back to it, it has the request.
        if (resumed && (reached === "never" || reached === "maybe")) resume(undefined);
        else listener.fail(error, resumed ? "surely" : reached);
      },
    };
    /** 2025-11-25 transports, Resumability: the server may hang up, and go on later. Whoever asked keeps the time. */
    function resume(retryMs: number | undefined): void {
      timer = setTimeout(
        () => {
          resumed = true;
          stop = stream(over, party, lastEventId, handler);
        },
        Math.max(MIN_RESUME_MS, Math.min(retryMs ?? FIRST_RELISTEN_MS, MAX_RELISTEN_MS)),
      );
    }
    stop = send({ method: "POST", headers: asked, body }, party, handler);
    return () => {
      clearTimeout(timer);
      answered = true;
      stop();
    };
  }

  function ask(
    method: string,
    params: string,
    over: Manner,
    party: Party,
    timeoutMs = settings.timeoutSeconds * 1000,
  ): Promise<Reply> {
    const endsAt = performance.now() + timeoutMs;
    return new Promise((resolve, reject) => {
      let repeats = 0;
      let stop = () => {};
      let pause: NodeJS.Timeout | undefined;
      const timer = setTimeout(() => {
        clearTimeout(pause);
        stop();
        const detail = `no answer to ${method} within ${timeoutMs} ms`;
        reject(new DrawbridgeError("upstream_timeout", `The server "${name}" did not answer in time.`, { detail }));
      }, timeoutMs);
      /** Sends it again when there is time for it; false when there is not. */
      const again = (inMs: number): boolean => {
        if (repeats >= MAX_REPEATS || performance.now() + inMs >= endsAt) return false;
        repeats++;
        pause = setTimeout(attempt, inMs);
        return true;
      };
      const attempt = () => {
        const id = ++lastId;
        const asked = [...over.headers, ...(over.envelope === "" ? [] : ["mcp-method", method])];
        stop = converse(id, messages.requestText(id, method, params, over.envelope), asked, over, party, {
          notification: (message) => void messages.reportChange(message, events),
          done(reply) {
            const waitMs = askedToWaitMs(method, reply.status, reply.headers);
            if (waitMs !== undefined && again(waitMs)) return;
            clearTimeout(timer);
            resolve(reply);
          },
          fail(error, reached) {
            if (mayRepeat(method, reached) && again(pauseMs(repeats, random))) return;
            clearTimeout(timer);
            reject(error);
          },
        });
      };
      attempt();
    });
  }

  function notify(body: string, over: Manner, party: Party, after = () => {}): void {
    if (notes >= MAX_NOTES) {
      after();
      return;
    }
    notes++;
    const request = { method: "POST" as const, headers: [...over.headers], body };
    const timer = setTimeout(() => {
      stop();
      ended();
    }, NOTIFY_MS);
    function ended() {
      clearTimeout(timer);
      notes--;
      after();
    }
    const stop = send(request, party, { message() {}, end: ended, fail: ended });
  }

  const reply = (body: string, over: Manner, party: Party) => replies.run((done) => notify(body, over, party, done));

  function stream(over: Manner, party: Party, lastEventId: string, handler: WireHandler): () => void {
    const asked = [...over.headers, ...(lastEventId === "" ? [] : ["last-event-id", headerValue(lastEventId)])];
    asked[asked.indexOf("accept") + 1] = "text/event-stream";
    return send({ method: "GET", headers: asked }, party, handler);
  }

  const misbehaves = (detail: string) =>
    new DrawbridgeError("upstream_failed", `The server "${name}" did not answer as MCP asks.`, { detail });

  function refusal({ status, headers: head, excerpt, response }: Omit<Reply, "resumed">): DrawbridgeError {
    const said = response?.kind === "error" ? `${response.code}: ${response.message}` : excerpt.slice(0, 300);
    const detail = `HTTP ${status} ${head["content-type"] ?? ""} ${said}`.trim();
    if (status === 429 || status === 503) {
      const message = `The server "${name}" is overloaded. Try again later.`;
      return new DrawbridgeError("overloaded", message, { detail, retryAfterSeconds: retryAfterSeconds(head) });
    }
    if (status === 401 || status === 403) return refusedCredential(status, head, detail);
    if (status >= 300 && status < 400) {
      return new DrawbridgeError("upstream_failed", `The server "${name}" did not answer as MCP asks.`, {
        detail: `It redirects to ${head.location}, which is not followed; correct its url. ${detail}`,
      });
    }
    return new DrawbridgeError("upstream_failed", `The server "${name}" did not answer as MCP asks.`, { detail });
  }

  /**
   * The credential is ours to get right, so the client is told in band and never challenged: a 401 or 403 would send its
   * user to an authorization server that cannot help.
   */
  function refusedCredential(status: number, head: IncomingHttpHeaders, detail: string): DrawbridgeError {
    if (settings.credentials === undefined) {
      const what = "refused the gateway's credential; check `headers` of this server in the settings";
      return new DrawbridgeError("upstream_failed", `The server "${name}" refused the request.`, {
        detail: `It ${what}. ${detail}`,
      });
    }
    const challenge = String(head["www-authenticate"] ?? "").slice(0, 500);
    if (status === 403 && /\berror="?insufficient_scope\b/.test(challenge)) {
      const scopes = (/\bscope="([^"]*)"/.exec(challenge)?.[1] ?? "").split(" ").filter((one) => SCOPE.test(one));
      const wanted = scopes.length === 0 ? "more" : `the scope ${scopes.slice(0, 5).join(" ")}`;
      const message = `The server "${name}" asks for ${wanted}, which the caller's token for it does not carry.`;
      return new DrawbridgeError("upstream_failed", message, {
        detail: `Check \`credentials.exchange.scopes\` of this server in the settings. ${challenge} ${detail}`,
      });
    }
    const message = `The server "${name}" refused the token that was made for it.`;
    return new DrawbridgeError("upstream_failed", message, {
      detail: `Check that it trusts our issuer, and the audience in \`credentials\` of this server. ${challenge} ${detail}`,
    });
  }

  return {
    get connected() {
      return pool.stats.connected + streams.stats.connected;
    },
    url,
    headers,
    newId: () => ++lastId,
    converse,
    ask,
    notify: (body, over, party) => notify(body, over, party),
    reply,
    stream,
    send,
    refusal,
    async close() {
      replies.forget();
      await Promise.all([pool.destroy(), streams.destroy()]);
    },
  };
}

const sameCredential = (one: UpstreamCredential, other: UpstreamCredential | undefined) =>
  // The same token with another proof is another try: with the nonce that the server has asked for (RFC 9449 §9).
  one === other || (other !== undefined && one.proof === undefined && one.value.equals(other.value.reveal()));

/** Of a scope that a stranger names only what looks like one is repeated. */
const SCOPE = /^[A-Za-z0-9._:/-]{1,80}$/;

function checkedUrl(name: string, { url: text, allowInsecureHttp, allowPrivateAddresses }: HttpServerSettings): URL {
  const url = new URL(text);
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const loopback = host === "localhost" || host === "::1" || /^127(\.\d+){3}$/.test(host);
  const refuse = (why: string) =>
    new DrawbridgeError("settings_invalid", `The URL of the server "${name}" is not allowed: ${why}`);
  if (url.username !== "" || url.password !== "") throw refuse("put credentials into `headers`, by reference.");
  if (url.protocol === "http:" && !loopback && !allowInsecureHttp) {
    throw refuse("plain http is for loopback. Use https, or set `allowInsecureHttp: true` for this server.");
  }
  if (!allowPrivateAddresses && isIP(host) !== 0 && !publicAddress(host)) {
    throw refuse("its address is not a public one, and `allowPrivateAddresses` is false.");
  }
  return url;
}

/** Resolves to public addresses or to nothing. The socket connects to just what was checked (no DNS rebinding). */
const publicLookup: LookupFunction = (host, options, answer) => {
  systemLookup(host, { ...options, all: true }, (error, found) => {
    const addresses = found as LookupAddress[];
    const [first] = error === null ? addresses : [];
    if (error !== null || first === undefined || !addresses.every(({ address }) => publicAddress(address))) {
      answer(error ?? new DrawbridgeError("outbound_refused", `The address of ${host} is not a public one.`), "", 0);
    } else if (options.all === true) {
      answer(null, addresses);
    } else {
      answer(null, first.address, first.family);
    }
  });
};
