/** The way of one party, ourselves or a user, to an MCP server over HTTP: the revision that is spoken, and the session if there is one. */
import { type JsonObject, LEGACY_REVISIONS, MODERN_REVISION, type Outcome } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Flavour } from "./capabilities.ts";
import type { Endpoint, Manner, Party, Reply, Terms } from "./endpoint.ts";
import type { Stopwatch } from "./exchange.ts";
import { LogLevel } from "./log-level.ts";
import * as messages from "./messages.ts";

export interface Link {
  /** Undefined before the server was reached, and when it has forgotten us. */
  readonly terms: Terms | undefined;
  /** Whether somebody is on the way to it. */
  readonly reaching: boolean;
  readonly party: Party;
  /** Reaches the server; once for all who ask at the same time. */
  reach(): Promise<Terms>;
  /** These terms are void. Says nothing to the server. */
  forget(terms: Terms): void;
  /** Asks for an outcome, over new terms when the session is gone; at a server of 2026-07-28 for clients of these capabilities. */
  request(method: string, params: string, capabilities?: JsonObject): Promise<Outcome>;
  /** Ends the session, if there is one; the server may not care. `by`: on whose behalf. */
  end(by?: Party): Promise<void>;
}

export interface LinkOptions {
  readonly name: string;
  readonly endpoint: Endpoint;
  /** Our own version. */
  readonly version: string;
  readonly startTimeoutSeconds: number;
  readonly party: Party;
  /** What a server with a handshake is told of the clients. */
  readonly flavour: Flavour;
  /** The server is known to be one with a handshake. */
  readonly legacy?: boolean;
  readonly events?: LinkEvents;
  readonly now: Stopwatch;
}

export interface LinkEvents {
  reached(terms: Terms): void;
  failed(error: DrawbridgeError): void;
  /** The terms are void. */
  lost(): void;
}

/** A legacy verdict never proves itself wrong, so it is looked at again after this time, when the next session begins. */
const VERDICT_MS = 3_600_000;
/** How long the question for 2026-07-28 may stay unanswered before the server is taken for an older one. */
const PROBE_MS = 5_000;
/** How long the end of a session may take. */
const END_MS = 1_000;
export const HEADER_MISMATCH = -32020;
export const UNSUPPORTED_VERSION = -32022;

export function openLink({
  name,
  endpoint,
  version,
  startTimeoutSeconds,
  party,
  flavour,
  legacy,
  events,
  now,
}: LinkOptions): Link {
  const startMs = startTimeoutSeconds * 1000;
  /** Plain members, no accessors: one link for each session (docs/decisions/006-calls-die-young.md). */
  const link: { -readonly [Name in keyof Link]: Link[Name] } = {
    terms: undefined,
    reaching: false,
    party,
    reach,
    forget,
    request,
    end,
  };
  let reaching: Promise<Terms> | undefined;
  let verdict: { readonly modern: boolean; readonly at: number } | undefined;

  function reach(): Promise<Terms> {
    if (link.terms !== undefined) return Promise.resolve(link.terms);
    link.reaching = true;
    reaching ??= establish().then(
      (made) => {
        reached();
        link.terms = made;
        events?.reached(made);
        return made;
      },
      (error: unknown) => {
        reached();
        const failure = DrawbridgeError.from(error, "upstream_failed");
        events?.failed(failure);
        throw failure;
      },
    );
    return reaching;
  }

  function reached(): void {
    reaching = undefined;
    link.reaching = false;
  }

  function forget(voided: Terms): void {
    if (link.terms !== voided) return;
    link.terms = undefined;
    events?.lost();
  }

  async function establish(): Promise<Terms> {
    if (legacy !== true && (verdict === undefined || verdict.modern || now() - verdict.at > VERDICT_MS)) {
      const modern = await probe();
      verdict = { modern: modern !== undefined, at: now() };
      if (modern !== undefined) return modern;
    }
    return handshake();
  }

  /** 2026-07-28 transports, Backward Compatibility: a recognised modern answer decides, anything else means an older server. */
  async function probe(): Promise<Terms | undefined> {
    const over: Manner = {
      headers: [...endpoint.headers, "mcp-protocol-version", MODERN_REVISION],
      envelope: messages.envelopeMembers(version),
    };
    let reply: Reply;
    try {
      reply = await endpoint.ask("server/discover", "{}", over, party, Math.min(PROBE_MS, startMs));
    } catch (error) {
      if (saysNothingOfTheEra(error)) throw error;
      return undefined;
    }
    const { response, status } = reply;
    if (response?.kind === "result") {
      const versions = response.value["supportedVersions"];
      const older =
        Array.isArray(versions) &&
        !versions.includes(MODERN_REVISION) &&
        LEGACY_REVISIONS.some((known) => versions.includes(known));
      return older
        ? undefined
        : {
            ...over,
            identity: messages.modernIdentity(name, response.value),
            sessionId: undefined,
            level: new LogLevel(),
          };
    }
    if (response?.code === UNSUPPORTED_VERSION) {
      if (LEGACY_REVISIONS.some((known) => response.data?.includes(`"${known}"`))) return undefined;
      throw endpoint.refusal(reply);
    }
    if (response?.code === HEADER_MISMATCH || [401, 403, 429, 503].includes(status)) throw endpoint.refusal(reply);
    return undefined;
  }

  async function handshake(): Promise<Terms> {
    const first: Manner = { headers: endpoint.headers, envelope: "" };
    const reply = await endpoint.ask(
      "initialize",
      messages.initializeParams(version, flavour.text),
      first,
      party,
      startMs,
    );
    if (reply.response?.kind !== "result") throw unfit(reply);
    const identity = messages.legacyIdentity(name, reply.response.value);
    const session = reply.headers["mcp-session-id"];
    const sessionId = typeof session === "string" && /^[\x21-\x7e]{1,1024}$/.test(session) ? session : undefined;
    const headers = [...endpoint.headers, "mcp-protocol-version", identity.revision];
    if (sessionId !== undefined) headers.push("mcp-session-id", sessionId);
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => {
        stop();
        reject(new DrawbridgeError("upstream_timeout", `The server "${name}" did not answer in time.`));
      }, startMs);
      const over = () => clearTimeout(timer);
      const request = { method: "POST" as const, headers: [...headers], body: messages.INITIALIZED };
      const stop = endpoint.send(request, party, {
        message() {},
        end({ status, headers: head, excerpt }) {
          over();
          if (status < 300) resolve();
          else reject(endpoint.refusal({ response: undefined, status, headers: head, excerpt }));
        },
        fail(error) {
          over();
          reject(error);
        },
      });
    });
    return { identity, envelope: "", headers, sessionId, level: new LogLevel() };
  }

  function unfit(reply: Reply): DrawbridgeError {
    const error = endpoint.refusal(reply);
    if (![400, 404, 405].includes(reply.status)) return error;
    return new DrawbridgeError(error.code, error.message, {
      ...(error.detail !== undefined && { detail: error.detail }),
      cause: new OtherTransport(),
    });
  }

  async function request(method: string, params: string, capabilities: JsonObject = {}): Promise<Outcome> {
    const ask = (over: Terms) =>
      endpoint.ask(method, params, { ...over, envelope: messages.envelopeFor(over.envelope, capabilities) }, party);
    let over = await reach();
    let reply = await ask(over);
    if (sessionLost(over, reply)) {
      forget(over);
      over = await reach();
      reply = await ask(over);
    }
    if (reply.response === undefined) throw endpoint.refusal(reply);
    return messages.outcomeOf(reply.response);
  }

  function end(by: Party = party): Promise<void> {
    const over = link.terms;
    link.terms = undefined;
    if (over?.sessionId === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      const handler = { message() {}, end: done, fail: done };
      const stop = endpoint.send({ method: "DELETE", headers: [...over.headers] }, by, handler);
      const timer = setTimeout(() => {
        stop();
        resolve();
      }, END_MS);
    });
  }

  return link;
}

/** The cause when a server takes no handshake by POST; it may speak HTTP+SSE (2025-11-25 transports, Backwards Compatibility). */
export class OtherTransport extends Error {}

/** The server no longer knows the session, so it has not worked on the request. */
export function sessionLost(over: Terms, { status, response, resumed }: Reply): boolean {
  if (over.sessionId === undefined || resumed) return false;
  // Some servers say 400 where the specification says 404. That their transport says it and no tool shows by the id, which is not ours.
  const untold = response?.kind === "error" && typeof response.id !== "number" && /session/i.test(response.message);
  return status === 404 || (status === 400 && untold);
}

/** Nobody was reached, or there was no credential to go with. */
function saysNothingOfTheEra(error: unknown): boolean {
  return (
    !(error instanceof DrawbridgeError) ||
    ["upstream_unavailable", "unauthenticated", "insufficient_scope", "connection_required"].includes(error.code)
  );
}
