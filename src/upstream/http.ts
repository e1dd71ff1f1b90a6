/** An MCP server behind a URL: `Upstream` over Streamable HTTP, of 2026-07-28 or with the sessions of the revisions before it. */
import { type LookupAddress, lookup as systemLookup } from "node:dns";
import type { IncomingHttpHeaders } from "node:http";
import { isIP, type LookupFunction } from "node:net";
import { Pool } from "undici";
import { LEGACY_REVISIONS, MODERN_REVISION, type Outcome, type PermittedCall } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { isObject, readUpstreamMessage, type UpstreamMessage } from "../mcp/json-text.ts";
import { publicAddress } from "../net/addresses.ts";
import {
  type Abandoned,
  deadlines,
  Exchange,
  type Limits,
  type Stopwatch,
  stopwatch,
  timeoutError,
} from "./exchange.ts";
import { fairQueue, type Ticket } from "./fair-queue.ts";
import { dispatch, type WireEnd } from "./http-wire.ts";
import * as messages from "./messages.ts";
import {
  headerValue,
  type MirroredParameters,
  mirroredParameters,
  nameHeader,
  parameterHeaders,
} from "./mirrored-headers.ts";
import type { HttpServerSettings } from "./settings.ts";
import { abortable, type UpstreamDeps } from "./stdio.ts";
import type { ListName, Upstream, UpstreamIdentity } from "./upstream.ts";

/** How the server is spoken to, once that is known. */
interface Link {
  readonly identity: UpstreamIdentity;
  /** Members of `_meta` that each request carries; "" for a server with a handshake. */
  readonly envelope: string;
  /** Headers of each request. */
  readonly headers: readonly string[];
  readonly sessionId: string | undefined;
}

type Notification = Extract<UpstreamMessage, { kind: "notification" }>;
type Response = Extract<UpstreamMessage, { kind: "result" | "error" }>;

interface Reply {
  /** The JSON-RPC answer, if there was one. */
  readonly response: Response | undefined;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly excerpt: string;
  /** The server had begun to answer before, so it has seen the request. */
  readonly resumed: boolean;
}

class HttpCall extends Exchange {
  ticket: Ticket<HttpCall> | undefined;
  /** It holds a connection. */
  running = false;
  id = 0;
  /** Gives the request up. */
  stop: (() => void) | undefined;
  link: Link | undefined;
  /** Sent again so often, for each reason. */
  readonly again = { connect: 0, session: 0, headers: 0 };
}

/** A legacy verdict never proves itself wrong, so it is looked at again after this time, when the next session begins. */
const VERDICT_MS = 3_600_000;
/** How long the question for 2026-07-28 may stay unanswered before the server is taken for an older one. */
const PROBE_MS = 5_000;
const CONNECT_AGAIN_MS = 100;
/** How long a stream may stay open after its answer. */
const LINGER_MS = 1_000;
const FIRST_RELISTEN_MS = 1_000;
const MAX_RELISTEN_MS = 60_000;
/** A server that keeps hanging up must not keep us busy. */
const MIN_RESUME_MS = 50;
/** Connections beside those for calls: change streams, cancellations, answers to questions. */
const EXTRA_CONNECTIONS = 8;
const HEADER_MISMATCH = -32020;
const UNSUPPORTED_VERSION = -32022;

/** Reaches nobody until it is first used. Throws `settings_invalid` for a URL that would send secrets in the clear. */
export function httpUpstream(
  name: string,
  settings: HttpServerSettings,
  deps: UpstreamDeps,
  now: Stopwatch = stopwatch,
  random: () => number = Math.random,
): Upstream {
  const url = checkedUrl(name, settings);
  const path = `${url.pathname}${url.search}`;
  const logger = deps.logger.child({ server: name });
  const { events, version } = deps;
  const limits: Limits = { silenceMs: settings.timeoutSeconds * 1000, totalMs: settings.maxCallSeconds * 1000 };
  const pool = new Pool(url.origin, {
    connections: settings.maxConnections + EXTRA_CONNECTIONS,
    pipelining: 1,
    allowH2: false,
    // Time is kept by `deadlines`; a stream of changes may be silent for ever.
    headersTimeout: 0,
    bodyTimeout: 0,
    // Shorter than what servers keep (node: 5 s), so that a request does not meet a connection that is being closed.
    keepAliveTimeout: 4_000,
    connect: {
      timeout: Math.min(settings.startTimeoutSeconds * 1000, 10_000),
      ...(settings.allowPrivateAddresses ? undefined : { lookup: publicLookup }),
    },
  });
  const ownHeaders = Object.entries(settings.headers).flatMap(([key, value]) => [
    key.toLowerCase(),
    value instanceof Secret ? value.reveal() : value,
  ]);
  const baseHeaders = [
    "content-type",
    "application/json",
    "accept",
    "application/json, text/event-stream",
    "accept-encoding",
    "identity",
    ...ownHeaders,
  ];
  const modernHeaders = [...baseHeaders, "mcp-protocol-version", MODERN_REVISION];
  const envelope = messages.envelopeMembers(version);

  const queue = fairQueue<HttpCall>();
  const watched = deadlines(limits, expire, now);
  const subscribed = new Set<string>();
  /** Tools with parameters to repeat in headers; undefined until the tools were listed. */
  let mirrored: Map<string, MirroredParameters> | undefined;
  let link: Link | undefined;
  let linking: Promise<Link> | undefined;
  let verdict: { readonly modern: boolean; readonly at: number } | undefined;
  let problem: string | undefined;
  /** Calls that hold a connection. */
  let active = 0;
  let links = 0;
  let nextId = 1;
  let closing = false;
  let whenIdle: (() => void) | undefined;
  let stopListening = () => {};

  // ---- calls ----

  function send(
    permitted: PermittedCall,
    replies: ConstructorParameters<typeof HttpCall>[1],
    signal: AbortSignal,
  ): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      if (closing) {
        reject(shuttingDown());
        return;
      }
      const call = new HttpCall(permitted, replies, signal, watched, now(), resolve, reject);
      if (call.settled) return;
      call.release = (abandoned) => release(call, abandoned);
      if (active < settings.maxConnections) {
        run(call);
      } else if (queue.size < settings.maxQueued) {
        call.ticket = queue.push(`${permitted.by.subject}\n${permitted.by.client}`, "", call);
      } else {
        const message = `The server "${name}" has too many calls waiting. Try again later.`;
        call.fail(new DrawbridgeError("overloaded", message, { retryAfterSeconds: 1 }));
      }
    });
  }

  function run(call: HttpCall): void {
    call.ticket = undefined;
    call.heardAt = now();
    call.running = true;
    active++;
    transmit(call);
  }

  function release(call: HttpCall, abandoned: Abandoned): void {
    if (call.ticket !== undefined) queue.remove(call.ticket);
    if (!call.running) return;
    call.running = false;
    active--;
    if (abandoned !== undefined) {
      call.stop?.();
      // Before 2026-07-28 a closed connection does not cancel (2025-11-25 transports, Sending Messages).
      if (call.link?.envelope === "") notify(messages.cancelledText(call.id, abandoned), call.link);
    }
    const next = active < settings.maxConnections ? queue.take(() => true) : undefined;
    if (next !== undefined) run(next);
    if (closing && active === 0) whenIdle?.();
  }

  function expire(exchange: Exchange, why: "silence" | "total"): void {
    if (exchange instanceof HttpCall && !exchange.running) {
      const message = `The server "${name}" had no connection free for the call in time. Try again later.`;
      exchange.fail(new DrawbridgeError("overloaded", message, { retryAfterSeconds: 5 }));
    } else {
      exchange.fail(timeoutError(name, why, limits), "timeout");
    }
  }

  /** Sends a call that holds a connection, now or as soon as it is known how. */
  function transmit(call: HttpCall): void {
    const { method } = call.permitted.call;
    const parametersUnknown = mirrored === undefined && link?.envelope !== "" && method === "tools/call";
    if (link !== undefined && !parametersUnknown) {
      sendOver(call, link);
      return;
    }
    reach()
      .then((reached) =>
        reached.envelope !== "" && method === "tools/call" && mirrored === undefined
          ? learnTools(reached).then(() => reached)
          : reached,
      )
      .then(
        (reached) => call.settled || sendOver(call, reached),
        (error: unknown) => call.fail(DrawbridgeError.from(error, "upstream_failed")),
      );
  }

  function sendOver(call: HttpCall, over: Link): void {
    const { permitted } = call;
    const id = nextId++;
    call.id = id;
    call.link = over;
    const headers = [...over.headers];
    if (over.envelope !== "") {
      headers.push("mcp-method", permitted.call.method);
      const named = nameHeader(permitted.call);
      if (named !== undefined) headers.push("mcp-name", named);
      const parameters = mirrored?.get(permitted.call.target.upstreamName);
      if (parameters !== undefined && permitted.call.method === "tools/call")
        headers.push(...parameterHeaders(permitted.call, parameters));
    }
    const { trace } = permitted.call;
    if (trace.sampled) {
      headers.push("traceparent", messages.traceparent(permitted.call));
      if (trace.tracestate !== undefined) headers.push("tracestate", trace.tracestate);
    }
    call.stop = converse(id, messages.callText(permitted.call, id, over.envelope), headers, over, {
      notification(message) {
        call.heardAt = now();
        relay(call, message);
      },
      done: (reply) => conclude(call, over, reply),
      fail(error, sent) {
        problem = `${error.message} ${error.detail ?? ""}`;
        // Nothing has left, so nothing can happen twice.
        if (!sent && call.again.connect++ < 1) setTimeout(() => call.settled || transmit(call), CONNECT_AGAIN_MS);
        else call.fail(error);
      },
    });
  }

  function relay(call: HttpCall, message: Notification): void {
    const { call: asked } = call.permitted;
    if (message.method === "notifications/progress") {
      if (asked.progressToken !== undefined && message.params["progressToken"] === call.id) {
        call.notify({ method: message.method, params: messages.progressParams(message, asked) });
      }
    } else if (message.method === "notifications/message") {
      if (messages.wantsMessage(asked, message))
        call.notify({ method: message.method, params: JSON.stringify(message.params) });
    } else if (!messages.reportChange(message, events)) {
      logger.debug({ method: message.method }, "notification of the server");
    }
  }

  function conclude(call: HttpCall, over: Link, reply: Reply): void {
    const { response } = reply;
    if (lostSession(over, reply) && call.again.session++ < 1) {
      // The server knew nothing of the session, so it has not worked on the call.
      forget(over);
      transmit(call);
      return;
    }
    if (response?.kind === "error" && over.envelope !== "") {
      if (response.code === HEADER_MISMATCH && call.again.headers++ < 1) {
        mirrored = undefined;
        transmit(call);
        return;
      }
      if (response.code === HEADER_MISMATCH || response.code === UNSUPPORTED_VERSION) {
        forget(over);
        call.fail(refusal(reply));
        return;
      }
    }
    problem = undefined;
    if (response !== undefined) call.answer(messages.outcomeOf(response));
    else call.fail(refusal(reply));
  }

  // ---- requests ----

  interface Listener {
    notification(message: Notification): void;
    done(reply: Reply): void;
    fail(error: DrawbridgeError, sent: boolean): void;
  }

  /** POSTs one request and reads until its answer. The function returned gives it up. */
  function converse(
    id: number,
    body: string,
    headers: string[],
    over: Link | undefined,
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
        else if (message.kind === "request") notify(messages.replyTo(message), over);
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
        if (end.streamed && end.lastEventId !== "" && over?.envelope === "") {
          // 2025-11-25 transports, Resumability: the server may hang up and go on later.
          timer = setTimeout(
            () => {
              resumed = true;
              stop = get(over, end.lastEventId, handler);
            },
            Math.max(MIN_RESUME_MS, Math.min(end.retryMs ?? FIRST_RELISTEN_MS, MAX_RELISTEN_MS)),
          );
          return;
        }
        listener.done({ response: undefined, status: end.status, headers: end.headers, excerpt: end.excerpt, resumed });
      },
      fail: listener.fail,
    };
    stop = dispatch(pool, path, name, settings.maxAnswerBytes, { method: "POST", headers, body }, handler);
    return () => {
      clearTimeout(timer);
      answered = true;
      stop();
    };
  }

  /** A request of our own. */
  function ask(
    method: string,
    params: string,
    over: Pick<Link, "headers" | "envelope">,
    timeoutMs = limits.silenceMs,
  ): Promise<Reply> {
    const id = nextId++;
    const headers = [...over.headers, ...(over.envelope === "" ? [] : ["mcp-method", method])];
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        stop();
        const detail = `no answer to ${method} within ${timeoutMs} ms`;
        reject(new DrawbridgeError("upstream_timeout", `The server "${name}" did not answer in time.`, { detail }));
      }, timeoutMs);
      const stop = converse(id, messages.requestText(id, method, params, over.envelope), headers, link, {
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

  /** Asks over the link, over a new one when the session is gone, for an outcome. */
  async function request(method: string, params: string): Promise<Outcome> {
    let over = await reach();
    let reply = await ask(method, params, over);
    if (lostSession(over, reply)) {
      forget(over);
      over = await reach();
      reply = await ask(method, params, over);
    }
    if (reply.response === undefined) throw refusal(reply);
    return messages.outcomeOf(reply.response);
  }

  /** POSTs what has no answer: notifications, and our answers to the server's questions. */
  function notify(body: string, over: Link | undefined): void {
    const headers = [...(over?.headers ?? baseHeaders)];
    const stop = dispatch(
      pool,
      path,
      name,
      settings.maxAnswerBytes,
      { method: "POST", headers, body },
      { message() {}, end: over_, fail: over_ },
    );
    const timer = setTimeout(stop, PROBE_MS);
    function over_() {
      clearTimeout(timer);
    }
  }

  /** Opens the stream of what belongs to no request, or goes on with one that broke. */
  function get(over: Link, lastEventId: string, handler: Parameters<typeof dispatch>[5]): () => void {
    const headers = [...over.headers, ...(lastEventId === "" ? [] : ["last-event-id", headerValue(lastEventId)])];
    headers[headers.indexOf("accept") + 1] = "text/event-stream";
    return dispatch(pool, path, name, settings.maxAnswerBytes, { method: "GET", headers }, handler);
  }

  /** An answer that is none, as an error. What the server said goes to the operator alone. */
  function refusal({ status, headers, excerpt, response }: Reply): DrawbridgeError {
    const said = response?.kind === "error" ? `${response.code}: ${response.message}` : excerpt.slice(0, 300);
    const detail = `HTTP ${status} ${headers["content-type"] ?? ""} ${said}`.trim();
    if (status === 429 || status === 503) {
      const message = `The server "${name}" is overloaded. Try again later.`;
      return new DrawbridgeError("overloaded", message, { detail, retryAfterSeconds: retryAfter(headers) });
    }
    if (status === 401 || status === 403) {
      const what = "refused the gateway's credential; check `headers` of this server in the settings";
      return new DrawbridgeError("upstream_failed", `The server "${name}" refused the request.`, {
        detail: `It ${what}. ${detail}`,
      });
    }
    if (status >= 300 && status < 400) {
      return new DrawbridgeError("upstream_failed", `The server "${name}" did not answer as MCP asks.`, {
        detail: `It redirects to ${headers.location}, which is not followed; correct its url. ${detail}`,
      });
    }
    return new DrawbridgeError("upstream_failed", `The server "${name}" did not answer as MCP asks.`, { detail });
  }

  // ---- the link ----

  function reach(): Promise<Link> {
    if (link !== undefined) return Promise.resolve(link);
    linking ??= establish().then(
      (made) => {
        linking = undefined;
        link = made;
        links++;
        problem = undefined;
        logger.debug({ revision: made.identity.revision }, "server is reached");
        watchChanges(made);
        if (made.envelope === "") {
          for (const uri of subscribed) ask("resources/subscribe", JSON.stringify({ uri }), made).catch(() => {});
        }
        return made;
      },
      (error: unknown) => {
        linking = undefined;
        const failure = DrawbridgeError.from(error, "upstream_failed");
        problem = `${failure.message} ${failure.detail ?? ""}`;
        throw failure;
      },
    );
    return linking;
  }

  function forget(over: Link): void {
    if (link !== over) return;
    link = undefined;
    stopListening();
  }

  const lostSession = (over: Link, { status, response, resumed }: Reply) =>
    over.sessionId !== undefined &&
    !resumed &&
    // Some servers say 400 where the specification says 404.
    (status === 404 || (status === 400 && response?.kind === "error" && /session/i.test(response.message)));

  async function establish(): Promise<Link> {
    if (verdict === undefined || verdict.modern || now() - verdict.at > VERDICT_MS) {
      const modern = await probe();
      verdict = { modern: modern !== undefined, at: now() };
      if (modern !== undefined) return modern;
    }
    return handshake();
  }

  /** 2026-07-28 transports, Backward Compatibility: a recognised modern answer decides, anything else means an older server. */
  async function probe(): Promise<Link | undefined> {
    const over = { headers: modernHeaders, envelope };
    let reply: Reply;
    try {
      reply = await ask("server/discover", "{}", over, Math.min(PROBE_MS, settings.startTimeoutSeconds * 1000));
    } catch (error) {
      if (error instanceof DrawbridgeError && error.code !== "upstream_unavailable") return undefined;
      throw error;
    }
    const { response, status } = reply;
    if (response?.kind === "result") {
      const versions = response.value["supportedVersions"];
      const legacy =
        Array.isArray(versions) &&
        !versions.includes(MODERN_REVISION) &&
        LEGACY_REVISIONS.some((known) => versions.includes(known));
      return legacy
        ? undefined
        : { ...over, identity: messages.modernIdentity(name, response.value), sessionId: undefined };
    }
    if (response?.code === UNSUPPORTED_VERSION) {
      if (LEGACY_REVISIONS.some((known) => response.data?.includes(`"${known}"`))) return undefined;
      throw refusal(reply);
    }
    if (response?.code === HEADER_MISMATCH || [401, 403, 429, 503].includes(status)) throw refusal(reply);
    return undefined;
  }

  async function handshake(): Promise<Link> {
    const startMs = settings.startTimeoutSeconds * 1000;
    const reply = await ask(
      "initialize",
      messages.initializeParams(version),
      { headers: baseHeaders, envelope: "" },
      startMs,
    );
    if (reply.response?.kind !== "result") throw refusal(reply);
    const identity = messages.legacyIdentity(name, reply.response.value);
    const session = reply.headers["mcp-session-id"];
    const sessionId = typeof session === "string" && /^[\x21-\x7e]{1,1024}$/.test(session) ? session : undefined;
    const headers = [...baseHeaders, "mcp-protocol-version", identity.revision];
    if (sessionId !== undefined) headers.push("mcp-session-id", sessionId);
    const made: Link = { identity, envelope: "", headers, sessionId };
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => stop(), startMs);
      const over = () => clearTimeout(timer);
      const stop = dispatch(
        pool,
        path,
        name,
        settings.maxAnswerBytes,
        { method: "POST", headers: [...headers], body: messages.INITIALIZED },
        {
          message() {},
          end({ status, headers: head, excerpt }) {
            over();
            if (status < 300) resolve();
            else reject(refusal({ response: undefined, status, headers: head, excerpt, resumed: false }));
          },
          fail(error) {
            over();
            reject(error);
          },
        },
      );
    });
    return made;
  }

  // ---- changes ----

  /** Keeps a stream of change notifications open for as long as the link lasts; 2026-07-28 by request, before that by GET. */
  function watchChanges(over: Link): void {
    stopListening();
    const { capabilities } = over.identity;
    const modern = over.envelope !== "";
    const subscribable = isObject(capabilities["resources"]) && capabilities["resources"]["subscribe"] === true;
    if (!modern && messages.listenParams(over.identity, subscribed) === undefined && !subscribable) return;
    let stopped = false;
    let waitMs = FIRST_RELISTEN_MS;
    let lastEventId = "";
    let timer: NodeJS.Timeout | undefined;
    let close = () => {};

    const handler = {
      head(status: number, _: IncomingHttpHeaders, streams: boolean) {
        if (status < 300 && streams) waitMs = FIRST_RELISTEN_MS;
      },
      message(text: string) {
        const message = readUpstreamMessage(text);
        if (message?.kind === "request") notify(messages.replyTo(message), over);
        else if (message?.kind === "notification" && !messages.reportChange(message, events)) {
          logger.debug({ method: message.method }, "notification of the server");
        }
      },
      end({ status, streamed, lastEventId: last, retryMs }: WireEnd) {
        lastEventId = last;
        if (status === 404 && over.sessionId !== undefined) {
          forget(over);
          return;
        }
        // It does not offer the stream (405, or no such method).
        if (!streamed && status >= 200 && status < 500 && status !== 429) return;
        again(retryMs);
      },
      fail: () => again(undefined),
    };
    function open(): void {
      if (!modern) {
        close = get(over, lastEventId, handler);
        return;
      }
      const params = messages.listenParams(over.identity, subscribed);
      if (params === undefined) return;
      const body = messages.requestText(nextId++, "subscriptions/listen", params, envelope);
      const headers = [...over.headers, "mcp-method", "subscriptions/listen"];
      close = dispatch(pool, path, name, settings.maxAnswerBytes, { method: "POST", headers, body }, handler);
    }
    function again(retryMs: number | undefined): void {
      if (stopped) return;
      timer = setTimeout(open, Math.min(retryMs ?? waitMs * (0.5 + random() / 2), MAX_RELISTEN_MS)).unref();
      waitMs = Math.min(waitMs * 2, MAX_RELISTEN_MS);
    }

    open();
    stopListening = () => {
      stopped = true;
      clearTimeout(timer);
      close();
    };
  }

  // ---- lists ----

  async function list(which: ListName): Promise<readonly string[]> {
    const over = await reach();
    const entries = await messages.readList(name, which, over.identity, request);
    return which === "tools" && over.envelope !== "" ? offered(entries) : entries;
  }

  /** 2026-07-28: notes which parameters are to be repeated in headers, and drops tools whose annotations are wrong. */
  function offered(entries: readonly string[]): readonly string[] {
    const found = new Map<string, MirroredParameters>();
    const good = entries.filter((entry) => {
      const tool = JSON.parse(entry) as { name?: unknown; inputSchema?: unknown };
      const parameters = mirroredParameters(tool.inputSchema);
      if (typeof parameters === "string") {
        logger.warn(
          { tool: tool.name, problem: parameters },
          "a tool is not offered: its x-mcp-header annotations are invalid",
        );
        return false;
      }
      if (parameters.length > 0) found.set(String(tool.name), parameters);
      return true;
    });
    mirrored = found;
    return good;
  }

  async function learnTools(over: Link): Promise<void> {
    offered(await messages.readList(name, "tools", over.identity, request));
  }

  async function subscribeLegacy(method: string, uri: string): Promise<void> {
    const outcome = await request(method, JSON.stringify({ uri }));
    if (outcome.kind === "error") {
      const detail = `${method} was answered with ${outcome.code}: ${outcome.message}`;
      throw new DrawbridgeError("upstream_failed", `The server "${name}" refused the subscription.`, { detail });
    }
  }

  const shuttingDown = () => new DrawbridgeError("upstream_unavailable", `The server "${name}" is being shut down.`);

  const mustBeOpen = () => {
    if (closing) throw shuttingDown();
  };

  return {
    name,
    async identity(signal) {
      mustBeOpen();
      return (link ?? (await abortable(reach(), signal))).identity;
    },
    async list(which, signal) {
      mustBeOpen();
      return abortable(list(which), signal);
    },
    send,
    async subscribe(uri, signal) {
      mustBeOpen();
      if (subscribed.has(uri)) return;
      const over = await abortable(reach(), signal);
      subscribed.add(uri);
      if (over.envelope !== "") return watchChanges(over);
      try {
        await abortable(subscribeLegacy("resources/subscribe", uri), signal);
      } catch (error) {
        subscribed.delete(uri);
        throw error;
      }
    },
    async unsubscribe(uri, signal) {
      if (!subscribed.delete(uri) || link === undefined || closing) return;
      if (link.envelope !== "") watchChanges(link);
      else await abortable(subscribeLegacy("resources/unsubscribe", uri), signal);
    },
    state: () => ({
      state: closing
        ? "stopped"
        : problem !== undefined
          ? "degraded"
          : link === undefined && linking !== undefined
            ? "starting"
            : "ready",
      size: pool.stats.connected,
      inFlight: active,
      queued: queue.size,
      restarts: Math.max(0, links - 1),
      problem,
      stderr: [],
    }),
    async close(signal) {
      if (closing) return;
      closing = true;
      for (const call of queue.drain()) call.fail(shuttingDown());
      if (active > 0 && !signal.aborted) {
        await new Promise<void>((resolve) => {
          whenIdle = resolve;
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
      for (const call of watched.all()) call.fail(shuttingDown(), "the gateway is being shut down");
      const sessionId = link?.sessionId;
      stopListening();
      if (link !== undefined && sessionId !== undefined) await endSession(link);
      await pool.destroy();
    },
  };

  /** Tells the server that the session is over; it may not care. */
  function endSession(over: Link): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      const stop = dispatch(
        pool,
        path,
        name,
        settings.maxAnswerBytes,
        { method: "DELETE", headers: [...over.headers] },
        { message() {}, end: done, fail: done },
      );
      const timer = setTimeout(() => {
        stop();
        resolve();
      }, LINGER_MS);
    });
  }
}

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
