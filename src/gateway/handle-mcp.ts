/**
 * The HTTP side of MCP: who calls, which session, one JSON-RPC message in and one answer out, and one record for each that is closed
 * however it ends. What a request means is decided by its row in the method table.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { type Authenticated, LEGACY_REVISIONS, MODERN_REVISION } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { errorText, resultText } from "../mcp/answers.ts";
import {
  decode,
  decodeBatch,
  type Inbound,
  type InboundNotification,
  type InboundRequest,
  isBatch,
  RefusedRequest,
  SUPPORTED_REVISIONS,
} from "../mcp/inbound.ts";
import { CALL_SCOPE, READ_SCOPE } from "../mcp/methods.ts";
import type { Session } from "../mcp/sessions.ts";
import { type CallRecord, openRecord } from "./call-record.ts";
import { type Accepts, Answering, BatchAnswering, readAccept, readBody, sendError } from "./exchange.ts";
import { handleCall } from "./handle-call.ts";
import type { Admission } from "./limits/limits.ts";
import { changeSubscription, listenStream, listFor, mayRead } from "./lists.ts";
import { answerLocally } from "./local-methods.ts";
import type { Asked, Parts } from "./parts.ts";
import { eventText, type Lost, resumeOn } from "./resume.ts";

/** Answers one request to the MCP endpoint. Never throws. */
export async function handleMcp(parts: Parts, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const received = performance.now();
  let by: Authenticated | undefined;
  try {
    const known = authenticate(parts, request);
    by = known instanceof Promise ? await known : known;
    if (request.method === "POST") await post(parts, by, request, response, received);
    else if (request.method === "GET") await openSessionStream(parts, by, request, response);
    else if (request.method === "DELETE") await endSession(parts, by, request, response);
    else
      throw new DrawbridgeError(
        "method_not_allowed",
        `${request.method ?? "This method"} is not supported here. Use POST.`,
      );
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown);
    parts.telemetry.refused(error.code);
    // A part that failed, not a limit that was reached.
    if (error.code === "internal" || (error.http >= 500 && error.cause !== undefined))
      parts.log.error({ error }, "a request could not be answered");
    sendError(response, error, undefined, challengesFor(parts, error, request.headers.authorization, by));
  }
}

/**
 * RFC 6750 §2.1, RFC 9449 §7.1: the token comes in the Authorization header and nowhere else, its proof in one DPoP header. `url`:
 * what the proof must name when it is not the MCP endpoint. Throws or rejects with `unauthenticated`.
 */
export function authenticate(
  parts: Pick<Parts, "verify" | "wanted">,
  request: IncomingMessage,
  url?: string,
): Authenticated | Promise<Authenticated> {
  const { authorization } = request.headers;
  if (authorization === undefined)
    throw new DrawbridgeError(
      "unauthenticated",
      "An access token is needed. Sign in through the authorization server.",
    );
  const token = BEARER.exec(authorization)?.[1];
  if (timesSent(request, "authorization") === 1) {
    if (token !== undefined) return parts.verify(token);
    const bound = parts.wanted.dpopAlgorithms.length === 0 ? undefined : BOUND.exec(authorization)?.[1];
    if (bound !== undefined) {
      const method = request.method ?? "";
      return parts.verify(bound, { jwt: proofOf(request), method, ...(url !== undefined && { url }) });
    }
  }
  throw new DrawbridgeError("unauthenticated", "The Authorization header must be one token, `Bearer` or `DPoP`.");
}

const BEARER = /^Bearer ([A-Za-z0-9._~+/-]+=*)$/i;
const BOUND = /^DPoP ([A-Za-z0-9._~+/-]+=*)$/i;

function proofOf(request: IncomingMessage): string {
  const { dpop } = request.headers;
  // Several are joined with commas, which no JWT has.
  if (typeof dpop === "string" && /^[\w-]+\.[\w-]+\.[\w-]+$/.test(dpop)) return dpop;
  throw new DrawbridgeError("unauthenticated", "A token that is bound to a key needs one DPoP header with one proof.", {
    proof: { error: "invalid_dpop_proof" },
  });
}

/** How often a header was sent; node:http drops a second Authorization without a word. */
function timesSent(request: IncomingMessage, name: string): number {
  const { rawHeaders } = request;
  let times = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const sent = rawHeaders[at];
    if (sent !== undefined && sent.length === name.length && sent.toLowerCase() === name) times++;
  }
  return times;
}

async function post(
  parts: Parts,
  by: Authenticated,
  request: IncomingMessage,
  response: ServerResponse,
  received: number,
): Promise<void> {
  const { listen } = parts;
  if (!isJson(request.headers["content-type"])) {
    throw new DrawbridgeError("unsupported_media_type", "Content-Type must be application/json.");
  }
  const posted: Posted = { by, request, response, accepts: readAccept(request), received };
  const whole = new Answering(response, posted.accepts);
  let batch: Batch | undefined;
  await recorded(parts, posted, whole, async (record, admission) => {
    const text = await readBody(request, listen.maxBodyBytes);
    if (isBatch(text)) {
      const session = await sessionOf(parts, by, request);
      if (session?.revision === "2025-03-26") {
        batch = { session, messages: decodeBatch(text, request.headers, listen.maxDepth) };
        return;
      }
    }
    const inbound = decode(text, request.headers, listen.maxDepth);
    if (inbound.kind === "response") {
      await parts.interaction.heard(inbound, by, await sessionOf(parts, by, request));
      accepted(response);
      return;
    }
    const found =
      inbound.era === "legacy" && inbound.method !== "initialize" ? sessionOf(parts, by, request) : undefined;
    const session = found instanceof Promise ? await found : found;
    if (inbound.kind === "notification") {
      receive(parts, inbound, session);
      accepted(response);
      return;
    }
    const { id } = inbound;
    const resumable = session && (() => parts.resumption.begin(session, response, id));
    const answering = new Answering(response, posted.accepts, resumable);
    await answerRequest(parts, posted, inbound, { session, record, admission, answering });
  });
  if (batch !== undefined) await answerBatch(parts, posted, batch);
}

/** One body of a known caller. */
interface Posted {
  readonly by: Authenticated;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly accepts: Accepts;
  /** When it came, as `performance.now()` has it. */
  readonly received: number;
}

/** Several messages in one body. */
interface Batch {
  readonly session: Session;
  readonly messages: readonly (Inbound | RefusedRequest)[];
}

/** So many messages of a batch are worked on at a time: less than a caller may have under way. */
const BATCH_AT_ONCE = 4;

/** Each message goes its own way, with its own record and within its caller's limits; the answers go back together. */
async function answerBatch(parts: Parts, posted: Posted, { session, messages }: Batch): Promise<void> {
  const answers = new BatchAnswering(posted.response, posted.accepts);
  const left = messages[Symbol.iterator]();
  const work = async () => {
    for (const message of left) {
      const answering = answers.part();
      await recorded(parts, posted, answering, async (record, admission) => {
        if (message instanceof RefusedRequest) throw message;
        if (message.kind === "response") await parts.interaction.heard(message, posted.by, session);
        else if (message.kind === "notification") receive(parts, message, session);
        else await answerRequest(parts, posted, message, { session, record, admission, answering });
      });
    }
  };
  await Promise.all(Array.from({ length: BATCH_AT_ONCE }, work));
  answers.finish();
}

async function answerRequest(
  parts: Parts,
  { by, request, response }: Posted,
  inbound: InboundRequest,
  on: Pick<Asked, "session" | "record" | "admission" | "answering">,
): Promise<void> {
  on.record.decoded(inbound, on.session);
  parts.underWay.begin();
  try {
    await answer(parts, { by, inbound, headers: request.headers, response, ...on });
  } catch (thrown) {
    throw new RefusedRequest(DrawbridgeError.from(thrown), inbound.id, inbound.era);
  } finally {
    parts.underWay.end();
  }
}

/** Handles one message within its caller's limits; what is thrown is recorded and told. */
async function recorded(
  parts: Parts,
  { by, request, received }: Posted,
  answering: Answering,
  handle: (record: CallRecord, admission: Admission) => Promise<void>,
): Promise<void> {
  const record = openRecord(parts, by, request, received);
  let admission: Admission | undefined;
  try {
    admission = parts.limits.enter(by);
    await handle(record, admission);
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown);
    const { id, era } = thrown instanceof RefusedRequest ? thrown : { id: undefined, era: "legacy" };
    parts.telemetry.refused(error.code);
    if (error.code === "internal")
      parts.log.error({ error, traceId: record.trace.traceId }, "a request could not be answered");
    const told = await record.refuse(error);
    // A legacy client takes 404 for the end of its session, so an unknown method is told in band.
    const status = era === "legacy" && told.code === "unknown_method" && id !== undefined ? 200 : told.http;
    answering.refuse(told, id, { ...challengesFor(parts, told, request.headers.authorization, by), status });
  } finally {
    admission?.leave();
  }
}

/** One JSON-RPC request, decoded: answered by what its row in the method table says. */
async function answer(parts: Parts, asked: Asked): Promise<void> {
  const { by, inbound, record, answering } = asked;
  const { row } = inbound;
  if (row.kind === "call") return handleCall(parts, asked, row);
  const counted = asked.admission.request();
  if (counted !== undefined) await counted;
  if (row.kind === "task") return parts.tasks.answer(asked);
  if (row.kind !== "local") mayRead(by);
  if (row.kind === "stream") return listenStream(parts, asked);
  const result =
    row.kind === "list"
      ? await listFor(parts, asked, row.list)
      : row.kind === "local"
        ? await answerLocally(parts, asked)
        : await changeSubscription(parts, asked).then(() => "{}");
  await record.close("permitted", undefined);
  answering.finish(resultText(inbound.id, result));
}

function receive(parts: Parts, notification: InboundNotification, session: Session | undefined): void {
  // Of what clients tell us only this one changes anything; the rest is accepted and ends here.
  if (notification.method !== "notifications/cancelled" || session === undefined) return;
  const { requestId } = notification.params;
  if (typeof requestId === "string" || typeof requestId === "number") parts.sessions.cancel(session, requestId);
}

async function openSessionStream(
  parts: Parts,
  by: Authenticated,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (!readAccept(request).sse) throw new DrawbridgeError("not_acceptable", "Accept must name text/event-stream.");
  const session = hasSessions(request) ? await sessionOf(parts, by, request) : undefined;
  if (session === undefined)
    throw new DrawbridgeError(
      "method_not_allowed",
      "GET opens the stream of a session. Send Mcp-Session-Id, or use POST.",
    );
  const lastEventId = request.headers["last-event-id"];
  if (typeof lastEventId === "string" && (await resumed(parts, by, session, lastEventId, response))) return;
  mayRead(by);
  parts.streams.openForSession(session, by, response);
}

/** Goes on with a stream of a session (2025-11-25, Resumability and Redelivery); false when there is nothing to go on with. */
async function resumed(
  parts: Parts,
  by: Authenticated,
  session: Session,
  lastEventId: string,
  response: ServerResponse,
): Promise<boolean> {
  const found = parts.resumption.find(session, lastEventId);
  if (found.kind === "over") {
    // To a client of server-sent events this says: do not come again (HTML, Server-sent events, 9.2.3).
    response.writeHead(204).end();
    return true;
  }
  if (found.kind === "here") {
    const { channel, after } = found;
    // Whoever could make the call may have its answer; what a session hears otherwise needs the reading scope, as ever.
    if (!channel.answers) mayRead(by);
    if (channel.answers) channel.attach(resumeOn(response), after);
    else parts.streams.goOn(channel, by, resumeOn(response), after);
    return true;
  }
  // A stream of the session is begun anew; for the answer to a request nobody shall wait that does not come.
  if (found.lost === undefined) return false;
  if (found.kind === "elsewhere" && (await parts.forwarding.goOn(found.home, session, lastEventId, response)))
    return true;
  endLost(found.lost, response);
  return true;
}

function endLost({ request, last }: Lost, response: ServerResponse): void {
  const error = new DrawbridgeError(
    "answer_lost",
    "The connection was away for too long, or came back to another place: the answer is not kept. Find out what the call did before you repeat it.",
  );
  const sink = resumeOn(response);
  sink.write(eventText(last, errorText(request, error)));
  sink.end();
}

async function endSession(
  parts: Parts,
  by: Authenticated,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const session = hasSessions(request) ? await sessionOf(parts, by, request) : undefined;
  if (session === undefined)
    throw new DrawbridgeError("method_not_allowed", "DELETE ends a session. Send Mcp-Session-Id.");
  await parts.sessions.end(session);
  response.writeHead(204).end();
}

/** Whether the revision that a GET or DELETE names has sessions; one that names none may (2025-03-26). Throws for one that nobody knows. */
function hasSessions(request: IncomingMessage): boolean {
  const version = request.headers["mcp-protocol-version"];
  if (version === undefined || LEGACY_REVISIONS.some((known) => known === version)) return true;
  if (version === MODERN_REVISION) return false;
  throw new DrawbridgeError("unsupported_protocol_version", "Unsupported protocol version", {
    data: { supported: SUPPORTED_REVISIONS, requested: version },
  });
}

/** The session a legacy request names; undefined when it names none, which every revision since 2025-03-26 permits a server to accept. */
function sessionOf(parts: Parts, by: Authenticated, request: IncomingMessage): Session | Promise<Session> | undefined {
  const id = request.headers["mcp-session-id"];
  return typeof id === "string" ? parts.sessions.find(id, by) : undefined;
}

function accepted(response: ServerResponse): void {
  response.writeHead(202, { "content-length": 0 }).end();
}

function isJson(contentType: string | undefined): boolean {
  return contentType !== undefined && /^application\/json\s*(;|$)/i.test(contentType.trim());
}

/**
 * `WWW-Authenticate` (RFC 6750 §3, RFC 9449 §7.1, RFC 9728 §5.1): one challenge for each scheme. The error goes with the scheme
 * that was tried; whoever tried none, or another, did not know that tokens are wanted, and is told just that.
 */
export function challengesFor(
  { wanted, resourceMetadataUrl }: Pick<Parts, "wanted" | "resourceMetadataUrl">,
  error: DrawbridgeError,
  authorization: string | undefined,
  by: Authenticated | undefined,
): { challenges?: readonly string[] } {
  if (error.code !== "unauthenticated" && error.code !== "insufficient_scope") return {};
  const tried = /^(Bearer|DPoP)(?:\s|$)/i.exec(authorization ?? "")?.[1]?.toLowerCase();
  const code = error.proof?.error ?? error.oauth ?? "invalid_token";
  const reason = `error="${code}", error_description="${error.message.replace(/["\\]/g, "'")}", `;
  // Clients ask for what they are told here and nothing else: what they have belongs to it, or a step up would lose it.
  const held = error.scope === undefined ? [] : (by?.scopes ?? []).filter((name) => wanted.offered().includes(name));
  const scopes = new Set([...held, ...(error.scope ?? `${READ_SCOPE} ${CALL_SCOPE}`).split(" ")]);
  const scope = [...scopes].map((name) => wanted.scopeNames[name] ?? name).join(" ");
  const rest = `resource_metadata="${resourceMetadataUrl}", scope="${scope}"`;
  const bearer = wanted.dpopRequired ? [] : [`Bearer ${tried === "bearer" ? reason : ""}${rest}`];
  if (wanted.dpopAlgorithms.length === 0) return { challenges: bearer };
  // With DPoP alone, what was sent as a bearer token was tried there, too.
  const bound = tried === "dpop" || (tried === "bearer" && wanted.dpopRequired);
  const proof = `DPoP ${bound ? reason : ""}algs="${wanted.dpopAlgorithms.join(" ")}", ${rest}`;
  return { challenges: tried === "dpop" ? [proof, ...bearer] : [...bearer, proof] };
}
