/** An MCP server behind a URL: `Upstream` over Streamable HTTP, of 2026-07-28 or with the sessions of the revisions before it. */
import type { JsonObject, Outcome, PermittedCall, Replies } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { isObject } from "../mcp/json-text.ts";
import { type Admission, admission } from "./admission.ts";
import { boundedFlavours, flavourOf, PLAIN } from "./capabilities.ts";
import { watchChanges } from "./changes.ts";
import type { UpstreamCredentials } from "./credentials.ts";
import {
  type EndpointOptions,
  type Notification,
  openEndpoint,
  type Party,
  type Reply,
  type Terms,
} from "./endpoint.ts";
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
import { watchHealth } from "./health.ts";
import { HEADER_MISMATCH, type Link, type LinkEvents, openLink, sessionLost, UNSUPPORTED_VERSION } from "./link.ts";
import * as messages from "./messages.ts";
import { type MirroredParameters, mirroredParameters, nameHeader, parameterHeaders } from "./mirrored-headers.ts";
import { parties, userHeadersOf } from "./parties.ts";
import { type Personal, personalLinks } from "./personal-links.ts";
import { ownReply } from "./questions.ts";
import { askedToWaitMs, MAX_REPEATS, mayRepeat, pauseMs } from "./repeats.ts";
import type { HttpServerSettings } from "./settings.ts";
import { abortable, type UpstreamDeps } from "./stdio.ts";
import type { ListName, Upstream, UpstreamEvents } from "./upstream.ts";
import type { ReadUserSecret } from "./user-values.ts";

export interface HttpDeps extends UpstreamDeps {
  /** What each request carries beside the settings' headers; nothing when absent. */
  readonly credentials?: UpstreamCredentials | undefined;
  /** Where the secrets of `userHeaders` come from. Default: there are none. */
  readonly readUserSecret?: ReadUserSecret | undefined;
  readonly network?: Pick<EndpointOptions, "lookup" | "connectionMs"> | undefined;
}

class HttpCall extends Exchange {
  ticket: Ticket<HttpCall> | undefined;
  /** It holds a connection. */
  running = false;
  id = 0;
  /** Gives the request up. */
  stop: (() => void) | undefined;
  terms: Terms | undefined;
  /** The caller's own session, once the call needed one. */
  personal: Personal | undefined;
  readonly party: Party;
  /** Ends a wait until it is sent again. */
  pause: NodeJS.Timeout | undefined;
  /** Sent again so often, for each reason. */
  readonly again = { failure: 0, session: 0, headers: 0 };

  constructor(party: Party, ...exchange: ConstructorParameters<typeof Exchange>) {
    super(...exchange);
    this.party = party;
  }
}

/** Flavours of clients at most, the plain one among them. */
const MAX_FLAVOURS = 8;
const MAX_MIRRORED = 10_000;
/** Whoever waits for a connection waits for any. */
const LANE = "";
const PING_MS = 5_000;

/** Reaches nobody until it is first used. Throws `settings_invalid` for a URL that would send secrets in the clear. */
export function httpUpstream(
  name: string,
  settings: HttpServerSettings,
  deps: HttpDeps,
  now: Stopwatch = stopwatch,
  random: () => number = Math.random,
): Upstream {
  const logger = deps.logger.child({ server: name });
  const { events, version, credentials } = deps;
  if ((settings.credentials === undefined) !== (credentials === undefined))
    throw new DrawbridgeError("settings_invalid", `Nobody makes the credentials of the server "${name}".`);
  const values = userHeadersOf(name, settings, deps.readUserSecret);
  const limits: Limits = {
    silenceMs: settings.timeoutSeconds * 1000,
    totalMs: settings.maxCallSeconds * 1000,
    answerMs: settings.answerSeconds * 1000,
  };
  const health = watchHealth({
    name,
    ping,
    busy: () => active > 0,
    opened: () => refuseWaiting(),
    everySeconds: settings.healthSeconds,
    logger,
    now,
    random,
  });
  const endpoint = openEndpoint(name, settings, events, { ...deps.network, watch: health, random });
  const on = parties(credentials, values);
  /** Resources are followed in our session: what a caller's own says of one is not for others. */
  const ofOneCaller: UpstreamEvents = { ...events, resourceUpdated() {} };
  const linkOptions = { name, endpoint, version, startTimeoutSeconds: settings.startTimeoutSeconds, now };
  /** Ours: who the server is, its lists and their changes; and all calls at a server where all may share a session. */
  const own = openLink({
    ...linkOptions,
    party: on.own,
    flavour: PLAIN,
    events: { reached, failed, lost: () => stopListening() },
  });
  /** Whether each user needs a session, at a server that keeps sessions. */
  const apart = credentials !== undefined || settings.isolation !== "shared";
  /** Those of callers, at a server that keeps sessions and tells its users apart or may ask them something. */
  const personal = personalLinks({
    endpoint,
    parties: on,
    perSession: settings.isolation === "per-session",
    sessions: settings.sessions,
    open: (party, flavour, linkEvents: LinkEvents) =>
      openLink({ ...linkOptions, party, flavour, legacy: true, events: linkEvents }),
    listen: (terms, party, more) =>
      watchChanges({ endpoint, terms, party, subscribed: NONE, events: ofOneCaller, logger, more, lost() {}, random }),
    now,
  });
  const flavours = boundedFlavours(MAX_FLAVOURS, personal.release);
  /** Ours for lists, by the flavours that they are read for. */
  const listing = new Map<string, Link>();

  const queue = fairQueue<HttpCall>();
  const waiting: Admission = admission(settings.maxQueued, now);
  const watched = deadlines(limits, expire, now);
  const subscribed = new Set<string>();
  /** Tools with parameters to repeat in headers; undefined until the tools were listed. */
  let mirrored: Map<string, MirroredParameters> | undefined;
  let problem: string | undefined;
  /** Calls that hold a connection. */
  let active = 0;
  /** Calls that will be sent again in a while. */
  let paused = 0;
  let reachedTimes = 0;
  let closing = false;
  let whenIdle: (() => void) | undefined;
  let stopListening = () => {};

  // ---- calls ----

  function send(permitted: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const refusal = closing ? shuttingDown() : health.refusal();
      if (refusal !== undefined) {
        reject(refusal);
        return;
      }
      const party = on.of(() => permitted.by);
      const call = new HttpCall(party, permitted, replies, signal, watched, now(), resolve, reject);
      if (call.settled) return;
      const giveBack = (abandoned: Abandoned) => release(call, abandoned);
      call.release = giveBack;
      if (active < settings.maxConnections) {
        run(call);
        return;
      }
      const retryAfterSeconds = waiting.refusal(flowOf(call), LANE, Math.min(limits.silenceMs, limits.totalMs));
      if (retryAfterSeconds === undefined) {
        wait(call);
        return;
      }
      const message = `The server "${name}" has too many calls waiting. Try again in ${retryAfterSeconds} s.`;
      call.fail(new DrawbridgeError("overloaded", message, { retryAfterSeconds }));
    });
  }

  const flowOf = ({ permitted: { by } }: HttpCall) => `${by.subject}\n${by.client}`;

  function wait(call: HttpCall): void {
    call.ticket = queue.push(flowOf(call), LANE, call);
    waiting.joined(flowOf(call), LANE);
  }

  function run(call: HttpCall): void {
    call.heardAt = now();
    call.running = true;
    active++;
    waiting.served(LANE);
    transmit(call);
  }

  function release(call: HttpCall, abandoned: Abandoned): void {
    leaveQueue(call);
    if (call.pause !== undefined) endPause(call);
    if (call.running && abandoned !== undefined) {
      call.stop?.();
      // Before 2026-07-28 a closed connection does not cancel (2025-11-25 transports, Sending Messages).
      if (call.terms?.envelope === "")
        endpoint.notify(messages.cancelledText(call.id, abandoned), call.terms, call.party);
    }
    if (call.personal !== undefined) personal.giveBack(call.personal, call);
    letGo(call);
    if (closing && active === 0 && paused === 0) whenIdle?.();
  }

  function leaveQueue(call: HttpCall): void {
    if (call.ticket === undefined) return;
    queue.remove(call.ticket);
    call.ticket = undefined;
    waiting.left(flowOf(call), LANE);
  }

  /** Its connection is for the next one. */
  function letGo(call: HttpCall): void {
    if (!call.running) return;
    call.running = false;
    active--;
    const next = active < settings.maxConnections ? queue.take(() => true) : undefined;
    if (next === undefined) return;
    leaveQueue(next);
    run(next);
  }

  /** Sends a call again in a while, which it spends without a connection; false when there is no time for it, or no room. */
  function sendLater(call: HttpCall, inMs: number): boolean {
    const time = now();
    const late = inMs >= limits.silenceMs || time - call.startedAt + inMs >= limits.totalMs;
    if (call.again.failure >= MAX_REPEATS || late || closing || health.refusal() || paused >= settings.maxQueued)
      return false;
    call.again.failure++;
    call.heardAt = time;
    paused++;
    call.pause = setTimeout(() => {
      endPause(call);
      const refusal = health.refusal();
      if (refusal !== undefined) call.fail(refusal);
      else if (active < settings.maxConnections) run(call);
      else wait(call);
    }, inMs);
    letGo(call);
    return true;
  }

  function endPause(call: HttpCall): void {
    clearTimeout(call.pause);
    call.pause = undefined;
    paused--;
  }

  function refuseWaiting(): void {
    const refusal = health.refusal();
    if (refusal !== undefined) for (const call of queue.drain()) call.fail(refusal);
  }

  function expire(exchange: Exchange, why: "silence" | "total"): void {
    if (exchange instanceof HttpCall && !exchange.running) {
      const message = `The server "${name}" had no connection free for the call in time. Try again later.`;
      exchange.fail(new DrawbridgeError("overloaded", message, { retryAfterSeconds: 5 }));
    } else {
      exchange.fail(timeoutError(name, why, limits), "timeout");
      if (why === "silence") health.doubted();
    }
  }

  /** Sends a call that holds a connection, now or as soon as it is known how. */
  function transmit(call: HttpCall): void {
    const { terms } = own;
    if (terms !== undefined && !mustLearnTools(call, terms)) {
      sendOver(call, terms);
      return;
    }
    own
      .reach()
      .then(async (reached) => {
        if (mustLearnTools(call, reached)) await readTools(reached, call.permitted.call.capabilities);
        return reached;
      })
      .then(
        (reached) => call.settled || sendOver(call, reached),
        (error: unknown) => call.fail(DrawbridgeError.from(error, "upstream_failed")),
      );
  }

  const mustLearnTools = (call: HttpCall, { envelope }: Terms) =>
    mirrored === undefined && envelope !== "" && call.permitted.call.method === "tools/call";

  /** Sends a call over our terms, or in the caller's own session. */
  function sendOver(call: HttpCall, ours: Terms): void {
    const { permitted } = call;
    const wanted = ours.sessionId === undefined ? PLAIN : flavourOf(permitted.call.capabilities, call.answerable);
    if (ours.sessionId === undefined || (!apart && wanted === PLAIN)) {
      withLevel(call, own, ours);
      return;
    }
    call.personal ??= personal.take(permitted, flavours.admit(wanted));
    const { link, hearing } = call.personal;
    if (link.terms !== undefined && hearing === undefined) {
      withLevel(call, link, link.terms);
      return;
    }
    link
      .reach()
      .then(async (terms) => {
        await call.personal?.hearing;
        return terms;
      })
      .then(
        (terms) => call.settled || withLevel(call, link, terms),
        (error: unknown) => call.fail(DrawbridgeError.from(error, "upstream_failed")),
      );
  }

  /** Sends a call when the server of its session knows what it wants to hear of it. */
  function withLevel(call: HttpCall, link: Link, over: Terms): void {
    const { logLevel } = call.permitted.call;
    const tell =
      logLevel !== undefined && over.sessionId !== undefined && isObject(over.identity.capabilities["logging"]);
    const level = tell ? over.level.raise(logLevel, now()) : undefined;
    if (level === undefined) {
      begin(call, link, over);
      return;
    }
    const go = () => {
      if (!call.settled) begin(call, link, over);
    };
    endpoint.ask("logging/setLevel", JSON.stringify({ level }), over, call.party).then(go, go);
  }

  function begin(call: HttpCall, link: Link, over: Terms): void {
    const { permitted } = call;
    const id = endpoint.newId();
    call.id = id;
    call.terms = over;
    if (call.personal !== undefined && !call.personal.calls.includes(call)) call.personal.calls.push(call);
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
    const text = messages.callText(permitted.call, id, over.envelope);
    call.stop = endpoint.converse(id, text, headers, over, call.party, {
      sentWith: (credential) => call.sentWith(credential),
      question(request) {
        const tell = (text: string) => endpoint.notify(text, over, call.party);
        const reply = ownReply(request, call.personal?.flavour.capabilities ?? PLAIN.capabilities);
        call.heardAt = now();
        if (reply !== undefined) endpoint.reply(reply, over, call.party);
        else call.ask(request, tell);
      },
      notification(message) {
        call.heardAt = now();
        relay(call, message);
      },
      done: (reply) => conclude(call, link, over, reply),
      fail(error, reached) {
        if (mayRepeat(permitted.call.method, reached) && sendLater(call, pauseMs(call.again.failure, random))) return;
        call.fail(error);
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
        call.notify({ method: message.method, params: messages.paramsText(message) });
    } else if (message.method === "notifications/cancelled") {
      const { requestId, reason } = message.params;
      if (typeof requestId === "string" || typeof requestId === "number") call.withdraw(requestId, reason);
    } else if (!messages.reportChange(message, call.personal === undefined ? events : ofOneCaller)) {
      logger.debug({ method: message.method }, "notification of the server");
    }
  }

  function conclude(call: HttpCall, link: Link, over: Terms, reply: Reply): void {
    const { response } = reply;
    if (sessionLost(over, reply) && call.again.session++ < 1) {
      link.forget(over);
      transmit(call);
      return;
    }
    const waitMs = askedToWaitMs(call.permitted.call.method, reply.status, reply.headers);
    if (waitMs !== undefined && sendLater(call, waitMs)) return;
    if (response?.kind === "error" && over.envelope !== "") {
      if (response.code === HEADER_MISMATCH && call.again.headers++ < 1) {
        mirrored = undefined;
        transmit(call);
        return;
      }
      if (response.code === HEADER_MISMATCH || response.code === UNSUPPORTED_VERSION) {
        link.forget(over);
        call.fail(endpoint.refusal(reply));
        return;
      }
    }
    // What a server says of a credential is for whoever made the credential, not for the client (RFC 6750 §3). What it says of its
    // load goes to the client as our own word, with the time that the server asks for.
    const refused = credentials !== undefined && (reply.status === 401 || reply.status === 403);
    const overloaded = response?.kind === "error" && (reply.status === 429 || reply.status === 503);
    if (response !== undefined && !refused && !overloaded) call.answer(messages.outcomeOf(response));
    else if (refused && credentials?.lacks !== undefined && reply.status === 403) failLacking(call, reply);
    else call.fail(endpoint.refusal(reply));
  }

  /** Whoever made the credential may know what its user can do about it. */
  function failLacking(call: HttpCall, reply: Reply): void {
    const challenge = reply.headers["www-authenticate"];
    const asked = credentials?.lacks?.(call.permitted.by, challenge) ?? Promise.resolve(undefined);
    asked.then(
      (error) => call.fail(error ?? endpoint.refusal(reply)),
      (thrown: unknown) => call.fail(DrawbridgeError.from(thrown, "upstream_failed")),
    );
  }

  // ---- our own link ----

  function reached(terms: Terms): void {
    reachedTimes++;
    problem = undefined;
    logger.debug({ revision: terms.identity.revision }, "server is reached");
    listen(terms);
    if (terms.envelope !== "") return;
    for (const uri of subscribed)
      endpoint.ask("resources/subscribe", JSON.stringify({ uri }), terms, own.party).catch(() => {});
  }

  function failed(error: DrawbridgeError): void {
    // That nobody has connected an account there yet is no fault of the server.
    problem = error.code === "connection_required" ? undefined : `${error.message} ${error.detail ?? ""}`;
  }

  /** Hears of changes for as long as the terms hold. */
  function listen(terms: Terms): void {
    stopListening();
    stopListening = watchChanges({
      endpoint,
      terms,
      party: own.party,
      subscribed,
      events,
      logger,
      lost: () => own.forget(terms),
      random,
    });
  }

  /** A sign of life, of a session of ours where there is one: a server that has forgotten it is there. */
  async function ping(): Promise<void> {
    const { terms } = own;
    if (terms === undefined) {
      await own.reach();
      return;
    }
    const method = terms.envelope === "" ? "ping" : "server/discover";
    const reply = await endpoint.ask(method, "{}", terms, own.party, PING_MS);
    if (sessionLost(terms, reply)) {
      own.forget(terms);
      await own.reach();
    } else if (reply.response === undefined && reply.status >= 500) {
      throw endpoint.refusal(reply);
    }
  }

  async function list(which: ListName, capabilities: JsonObject): Promise<readonly string[]> {
    const terms = await own.reach();
    if (terms.envelope === "") {
      const link = listingFor(terms, capabilities);
      return messages.readList(name, which, (await link.reach()).identity, link.request);
    }
    if (which === "tools") return readTools(terms, capabilities);
    return messages.readList(name, which, terms.identity, (method, params) =>
      own.request(method, params, capabilities),
    );
  }

  /** Before 2026-07-28: a session that declares what the clients can do; nobody calls in it. */
  function listingFor(ours: Terms, capabilities: JsonObject): Link {
    const flavour = ours.sessionId === undefined ? PLAIN : flavours.admit(flavourOf(capabilities, true));
    if (flavour === PLAIN) return own;
    let link = listing.get(flavour.text);
    if (link === undefined) {
      link = openLink({ ...linkOptions, party: own.party, flavour, legacy: true });
      listing.set(flavour.text, link);
      const [oldest] = listing;
      if (listing.size > MAX_FLAVOURS && oldest !== undefined) {
        listing.delete(oldest[0]);
        void oldest[1].end();
      }
    }
    return link;
  }

  async function readTools({ identity }: Terms, capabilities: JsonObject): Promise<readonly string[]> {
    const request = (method: string, params: string) => own.request(method, params, capabilities);
    return offered(await messages.readList(name, "tools", identity, request));
  }

  /** 2026-07-28: notes which parameters are to be repeated in headers, and drops tools whose annotations are wrong. */
  function offered(entries: readonly string[]): readonly string[] {
    // Clients of other flavours may know other tools, which stay as they are.
    const found =
      mirrored === undefined || mirrored.size > MAX_MIRRORED ? new Map<string, MirroredParameters>() : mirrored;
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
      else found.delete(String(tool.name));
      return true;
    });
    mirrored = found;
    return good;
  }

  async function subscribeLegacy(method: string, uri: string): Promise<void> {
    const outcome = await own.request(method, JSON.stringify({ uri }));
    if (outcome.kind === "error") {
      const detail = `${method} was answered with ${outcome.code}: ${outcome.message}`;
      throw new DrawbridgeError("upstream_failed", `The server "${name}" refused the subscription.`, { detail });
    }
  }

  const shuttingDown = () => new DrawbridgeError("upstream_unavailable", `The server "${name}" is being shut down.`);

  const mustBeOpen = () => {
    const refusal = closing ? shuttingDown() : health.refusal();
    if (refusal !== undefined) throw refusal;
  };

  const trouble = () => health.problem() ?? problem;

  return {
    name,
    async identity(signal) {
      mustBeOpen();
      return (own.terms ?? (await abortable(own.reach(), signal))).identity;
    },
    async list(which, signal, capabilities = {}) {
      mustBeOpen();
      return abortable(list(which, capabilities), signal);
    },
    send,
    async subscribe(uri, signal) {
      mustBeOpen();
      if (subscribed.has(uri)) return;
      const terms = await abortable(own.reach(), signal);
      subscribed.add(uri);
      if (terms.envelope !== "") return listen(terms);
      try {
        await abortable(subscribeLegacy("resources/subscribe", uri), signal);
      } catch (error) {
        subscribed.delete(uri);
        throw error;
      }
    },
    async unsubscribe(uri, signal) {
      if (!subscribed.delete(uri) || own.terms === undefined || closing) return;
      if (own.terms.envelope !== "") listen(own.terms);
      else await abortable(subscribeLegacy("resources/unsubscribe", uri), signal);
    },
    sessionEnded: personal.sessionEnded,
    sweep: personal.sweep,
    state: () => ({
      state: closing
        ? "stopped"
        : trouble() !== undefined
          ? "degraded"
          : own.terms === undefined && own.reaching
            ? "starting"
            : "ready",
      size: endpoint.connected,
      inFlight: active,
      queued: queue.size,
      restarts: Math.max(0, reachedTimes - 1),
      problem: trouble(),
      stderr: [],
      instances: apart ? personal.size : undefined,
    }),
    async close(signal) {
      if (closing) return;
      closing = true;
      health.close();
      for (const call of queue.drain()) call.fail(shuttingDown());
      if (active + paused > 0 && !signal.aborted) {
        await new Promise<void>((resolve) => {
          whenIdle = resolve;
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
      for (const call of watched.all()) call.fail(shuttingDown(), "the gateway is being shut down");
      stopListening();
      await Promise.all([own.end(), personal.close(), ...[...listing.values()].map((link) => link.end())]);
      await endpoint.close();
    },
  };
}

const NONE: ReadonlySet<string> = new Set();
