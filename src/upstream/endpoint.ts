/** One MCP endpoint over Streamable HTTP: a request goes out with the credential of whoever asks, and its answer is read. */
import { type LookupAddress, lookup as systemLookup } from "node:dns";
import type { IncomingHttpHeaders } from "node:http";
import { isIP, type LookupFunction } from "node:net";
import { Pool } from "undici";
import type { UpstreamCredential } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { readUpstreamMessage, type UpstreamMessage } from "../mcp/json-text.ts";
import { publicAddress } from "../net/addresses.ts";
import type { CredentialSource } from "./credentials.ts";
import { dispatch, type WireEnd, type WireHandler, type WireRequest } from "./http-wire.ts";
import type { LogLevel } from "./log-level.ts";
import * as messages from "./messages.ts";
import { headerValue } from "./mirrored-headers.ts";
import { replyTo, type ServerRequest } from "./questions.ts";
import type { HttpServerSettings } from "./settings.ts";
import type { UpstreamEvents, UpstreamIdentity } from "./upstream.ts";

/** How requests are written. */
export interface Manner {
  /** Members of `_meta` that each request carries; "" for a server with a handshake. */
  readonly envelope: string;
  /** Headers of each request, names and values in turn. */
  readonly headers: readonly string[];
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
  /** `sent`: the server may have seen the request. */
  fail(error: DrawbridgeError, sent: boolean): void;
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
  converse(
    id: number,
    body: string,
    headers: string[],
    over: Manner,
    source: CredentialSource,
    listener: Listener,
  ): () => void;
  /** A request of our own. */
  ask(method: string, params: string, over: Manner, source: CredentialSource, timeoutMs?: number): Promise<Reply>;
  /** POSTs what has no answer: notifications, and our answers to the server's questions. */
  notify(body: string, over: Manner, source: CredentialSource): void;
  /** Opens the stream of what belongs to no request, or goes on with one that broke. */
  stream(over: Manner, source: CredentialSource, lastEventId: string, handler: WireHandler): () => void;
  /** Any request. One that is turned away (401) has done nothing, so it is sent once more, with another credential. */
  send(request: WireRequest, source: CredentialSource, handler: WireHandler): () => void;
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
/** Connections beside those for calls: change streams, cancellations, answers to questions. */
const EXTRA_CONNECTIONS = 8;

/** Connects to nobody until it is first used. Throws `settings_invalid` for a URL that would send secrets in the clear. */
export function openEndpoint(name: string, settings: HttpServerSettings, events: UpstreamEvents): Endpoint {
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
    connect: {
      timeout: Math.min(settings.startTimeoutSeconds * 1000, 10_000),
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

  const transmit = (request: WireRequest, handler: WireHandler) => {
    const through = request.method === "GET" ? streams : pool;
    return dispatch(through, request.path ?? path, name, settings.maxAnswerBytes, request, handler);
  };

  function send(
    request: WireRequest,
    source: CredentialSource,
    handler: WireHandler & Pick<Listener, "sentWith">,
  ): () => void {
    if (source === undefined) return transmit(request, handler);
    const given = new AbortController();
    let stop = () => {};
    const fail = (error: unknown) => {
      if (!given.signal.aborted) handler.fail(DrawbridgeError.from(error, "upstream_failed"), false);
    };
    const attempt = (credential: UpstreamCredential, refused: UpstreamCredential | undefined) => {
      if (given.signal.aborted) return;
      handler.sentWith?.(credential);
      const sent = { ...request, headers: [...request.headers, credential.header, credential.value.reveal()] };
      stop = transmit(sent, refused === undefined ? onceMore(credential) : handler);
    };
    /** Holds an answer of 401 back until it is known that there is no other credential. */
    const onceMore = (credential: UpstreamCredential): WireHandler => {
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
        end(end) {
          if (end.status !== 401) return handler.end(end);
          source(given.signal, credential)
            .then((other) => {
              if (!other.value.equals(credential.value.reveal())) attempt(other, credential);
              else if (!given.signal.aborted) handler.end({ ...end, excerpt: held ?? end.excerpt });
            })
            .catch(fail);
        },
        fail: handler.fail,
      };
    };
    source(given.signal)
      .then((credential) => attempt(credential, undefined))
      .catch(fail);
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
    source: CredentialSource,
    listener: Listener,
  ): () => void {
    let status = 0;
    let answerHeaders: IncomingHttpHeaders = {};
    let streams = false;
    let answered = false;
    let resumed = false;
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
        if (answered) return;
        const message = readUpstreamMessage(text);
        if (message === undefined) return;
        if (message.kind === "notification") listener.notification(message);
        else if (message.kind === "request" && listener.question !== undefined) listener.question(message);
        else if (message.kind === "request") notify(replyTo(message), over, source);
        else if (message.id === id || (message.kind === "error" && message.id === undefined && status >= 400)) {
          answered = true;
          // The stream should end now; if it does, its connection can be used again.
          if (streams) timer = setTimeout(() => stop(), LINGER_MS);
          listener.done({ response: message, status, headers: answerHeaders, excerpt: "", resumed });
        }
      },
      end(end: WireEnd) {
        clearTimeout(timer);
        if (answered) return;
        if (end.streamed && end.lastEventId !== "" && over.envelope === "") {
          // 2025-11-25 transports, Resumability: the server may hang up and go on later.
          timer = setTimeout(
            () => {
              resumed = true;
              stop = stream(over, source, end.lastEventId, handler);
            },
            Math.max(MIN_RESUME_MS, Math.min(end.retryMs ?? FIRST_RELISTEN_MS, MAX_RELISTEN_MS)),
          );
          return;
        }
        listener.done({ response: undefined, status: end.status, headers: end.headers, excerpt: end.excerpt, resumed });
      },
      fail: listener.fail,
    };
    stop = send({ method: "POST", headers: asked, body }, source, handler);
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
    source: CredentialSource,
    timeoutMs = settings.timeoutSeconds * 1000,
  ): Promise<Reply> {
    const id = ++lastId;
    const asked = [...over.headers, ...(over.envelope === "" ? [] : ["mcp-method", method])];
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        stop();
        const detail = `no answer to ${method} within ${timeoutMs} ms`;
        reject(new DrawbridgeError("upstream_timeout", `The server "${name}" did not answer in time.`, { detail }));
      }, timeoutMs);
      const stop = converse(id, messages.requestText(id, method, params, over.envelope), asked, over, source, {
        notification: (message) => void messages.reportChange(message, events),
        done(reply) {
          clearTimeout(timer);
          resolve(reply);
        },
        fail(error) {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
  }

  function notify(body: string, over: Manner, source: CredentialSource): void {
    const stop = send({ method: "POST", headers: [...over.headers], body }, source, {
      message() {},
      end: ended,
      fail: ended,
    });
    const timer = setTimeout(stop, NOTIFY_MS);
    function ended() {
      clearTimeout(timer);
    }
  }

  function stream(over: Manner, source: CredentialSource, lastEventId: string, handler: WireHandler): () => void {
    const asked = [...over.headers, ...(lastEventId === "" ? [] : ["last-event-id", headerValue(lastEventId)])];
    asked[asked.indexOf("accept") + 1] = "text/event-stream";
    return send({ method: "GET", headers: asked }, source, handler);
  }

  function refusal({ status, headers: head, excerpt, response }: Omit<Reply, "resumed">): DrawbridgeError {
    const said = response?.kind === "error" ? `${response.code}: ${response.message}` : excerpt.slice(0, 300);
    const detail = `HTTP ${status} ${head["content-type"] ?? ""} ${said}`.trim();
    if (status === 429 || status === 503) {
      const message = `The server "${name}" is overloaded. Try again later.`;
      return new DrawbridgeError("overloaded", message, { detail, retryAfterSeconds: retryAfter(head) });
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
    notify,
    stream,
    send,
    refusal,
    close: async () => void (await Promise.all([pool.destroy(), streams.destroy()])),
  };
}

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

/** RFC 9110 §10.2.3, in seconds, within reason. */
function retryAfter(headers: IncomingHttpHeaders): number {
  const text = headers["retry-after"] ?? "";
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(3600, Math.max(1, Math.ceil(seconds))) : 5;
}
