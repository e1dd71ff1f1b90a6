/**
 * The way of an MCP request, top to bottom: authenticate → decode → limit → authorize → admit → send → answer, with one record
 * that is closed however it ends. Both eras, every kind of upstream and every method pass here; there is no second way.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Journal } from "../audit/journal.ts";
import type { Authenticated, JsonObject, McpCall, Outcome, Principal, Target } from "../core/call.ts";
import type { Clock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { answerText, errorText, notificationText, resultText, type ServerInfo } from "../mcp/answers.ts";
import { decode, type Headers, type InboundNotification, type InboundRequest, RefusedRequest } from "../mcp/inbound.ts";
import { isObject } from "../mcp/json-text.ts";
import { CALL_SCOPE, READ_SCOPE } from "../mcp/methods.ts";
import type { Session, Sessions } from "../mcp/sessions.ts";
import type { Logger } from "../observe/logger.ts";
import type { Telemetry } from "../observe/telemetry.ts";
import { type Policy, permit } from "../policy/engine.ts";
import { mustMirror } from "../upstream/mirrored-headers.ts";
import type { Upstream, UpstreamIdentity } from "../upstream/upstream.ts";
import { type CallRecord, openRecord } from "./call-record.ts";
import type { Catalogue, Entry } from "./catalogue.ts";
import { asksTooMuch } from "./client-capabilities.ts";
import { Answering, readAccept, readBody, sendError } from "./exchange.ts";
import type { Limits } from "./limits.ts";
import { answerLocally } from "./local-methods.ts";
import type { ListenSettings } from "./settings.ts";
import type { ChangedList, Streams } from "./streams.ts";

/** Everything the pipeline needs, made once by `gateway.ts`. */
export interface Parts {
  /** Proves who calls. Throws or rejects with `unauthenticated`. */
  verify(token: string): Authenticated | Promise<Authenticated>;
  readonly policy: Policy;
  readonly catalogue: Catalogue;
  readonly upstreams: ReadonlyMap<string, Upstream>;
  /** Who the reachable upstreams said they are. */
  identities(): ReadonlyMap<string, UpstreamIdentity>;
  readonly limits: Limits;
  readonly sessions: Sessions;
  readonly streams: Streams;
  readonly journal: Journal;
  readonly telemetry: Telemetry;
  readonly log: Logger;
  readonly listen: ListenSettings;
  readonly auditFields: {
    readonly arguments: "full" | "hash" | "none";
    readonly results: "full" | "hash" | "none";
    readonly maxFieldBytes: number;
  };
  readonly serverInfo: ServerInfo;
  /** URL of the RFC 9728 document, for challenges. */
  readonly resourceMetadataUrl: string;
  /** Calls under way; the gateway waits for them when it stops. */
  readonly underWay: Set<Promise<void>>;
  /** Names this process in records. */
  readonly replica: string;
  readonly clock: Clock;
}

/** Answers one request to the MCP endpoint. Never throws. */
export async function handleMcp(parts: Parts, request: IncomingMessage, response: ServerResponse): Promise<void> {
  let by: Authenticated | undefined;
  try {
    by = await authenticate(parts, request);
    if (request.method === "POST") await post(parts, by, request, response);
    else if (request.method === "GET") openSessionStream(parts, by, request, response);
    else if (request.method === "DELETE") endSession(parts, by, request, response);
    else
      throw new DrawbridgeError(
        "method_not_allowed",
        `${request.method ?? "This method"} is not supported here. Use POST.`,
      );
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown);
    parts.telemetry.refused(error.code);
    if (error.code === "internal") parts.log.error({ error }, "a request could not be answered");
    sendError(
      response,
      error,
      undefined,
      challengeFor(parts, error, by !== undefined || isBearer(request.headers.authorization)),
    );
  }
}

/** RFC 6750 §2.1: the token comes in the Authorization header and nowhere else. */
async function authenticate(parts: Parts, request: IncomingMessage): Promise<Authenticated> {
  const { authorization } = request.headers;
  if (authorization === undefined)
    throw new DrawbridgeError(
      "unauthenticated",
      "An access token is needed. Sign in through the authorization server.",
    );
  const token = /^Bearer ([A-Za-z0-9._~+/-]+=*)$/i.exec(authorization)?.[1];
  if (token === undefined || timesSent(request, "authorization") !== 1)
    throw new DrawbridgeError("unauthenticated", "The Authorization header must be one `Bearer` token.");
  return parts.verify(token);
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
): Promise<void> {
  const { listen } = parts;
  if (!isJson(request.headers["content-type"])) {
    throw new DrawbridgeError("unsupported_media_type", "Content-Type must be application/json.");
  }
  const accepts = readAccept(request);
  const record = openRecord(parts, by, request);
  let release = () => {};
  let id: InboundRequest["id"] | undefined;
  let legacy = true;
  try {
    release = parts.limits.enter(by);
    await parts.limits.spend(by);
    const text = await readBody(request, listen.maxBodyBytes);
    const inbound = decode(text, request.headers, listen.maxDepth);
    if (inbound.kind === "response") {
      // We ask nothing of clients yet, so there is nothing this could answer.
      sessionOf(parts, by, request);
      accepted(response);
      return;
    }
    legacy = inbound.era === "legacy";
    const session = legacy && inbound.method !== "initialize" ? sessionOf(parts, by, request) : undefined;
    if (inbound.kind === "notification") {
      receive(inbound, session);
      accepted(response);
      return;
    }
    id = inbound.id;
    const answering = new Answering(response, accepts);
    record.decoded(inbound, session);
    const task = answer(parts, by, inbound, request.headers, session, record, answering, response);
    parts.underWay.add(task);
    try {
      await task;
    } finally {
      parts.underWay.delete(task);
    }
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown);
    if (thrown instanceof RefusedRequest) {
      id = thrown.id;
      legacy = thrown.era === "legacy";
    }
    parts.telemetry.refused(error.code);
    if (error.code === "internal")
      parts.log.error({ error, traceId: record.trace.traceId }, "a request could not be answered");
    const told = await record.refuse(error);
    // A legacy client takes 404 for the end of its session, so an unknown method is told in band.
    const status = legacy && told.code === "unknown_method" && id !== undefined ? 200 : told.http;
    sendError(response, told, id, { ...challengeFor(parts, told, true), status });
  } finally {
    release();
  }
}

/** One JSON-RPC request, decoded. */
async function answer(
  parts: Parts,
  by: Authenticated,
  inbound: InboundRequest,
  headers: Headers,
  session: Session | undefined,
  record: CallRecord,
  answering: Answering,
  response: ServerResponse,
): Promise<void> {
  const { row } = inbound;
  switch (row.kind) {
    case "local": {
      const result = await answerLocally(parts, by, inbound, session, answering);
      await record.close("permitted", undefined);
      answering.finish(resultText(inbound.id, result));
      return;
    }
    case "list": {
      mayRead(by);
      const result = await listFor(parts, by, inbound, row.list);
      await record.close("permitted", undefined);
      answering.finish(resultText(inbound.id, result));
      return;
    }
    case "subscription":
      mayRead(by);
      await subscription(parts, by, inbound, session);
      await record.close("permitted", undefined);
      answering.finish(resultText(inbound.id, "{}"));
      return;
    case "stream":
      mayRead(by);
      await listenStream(parts, by, inbound, record, response);
      return;
    case "call":
      await call(parts, by, inbound, headers, session, record, answering, response);
      return;
  }
}

async function call(
  parts: Parts,
  by: Authenticated,
  inbound: InboundRequest,
  headers: Headers,
  session: Session | undefined,
  record: CallRecord,
  answering: Answering,
  response: ServerResponse,
): Promise<void> {
  if (inbound.row.kind !== "call") return;
  const aimed = inbound.row.target(inbound.params);
  if (aimed === undefined)
    throw new DrawbridgeError("invalid_params", `${inbound.method} must say what it is aimed at.`);
  const found = await parts.catalogue.resolve(aimed.kind, aimed.name);
  const target: Target = found ?? { server: "", ...aimed, upstreamName: aimed.name, pin: undefined };
  record.aimed(target);
  const args = argumentsOf(inbound);
  const decision = parts.policy.decide(by, target, { method: inbound.method, args, scope: inbound.row.scope });
  record.decided(decision);
  // What the caller may not use looks just like what does not exist.
  if (found === undefined || decision.effect === "deny") throw unknownTarget(target);
  if (decision.effect === "step-up") {
    throw new DrawbridgeError("insufficient_scope", `This needs the scope ${decision.scope}.`, {
      scope: decision.scope,
    });
  }
  await parts.limits.spendOn(by, target);
  const revision = session?.revision ?? inbound.revision;

  if (inbound.method === "tools/call") {
    const entry = parts.catalogue.entry(target);
    if (inbound.era === "modern" && entry !== undefined) mustMirror(headers, args, entry.mirrored());
    const problems = await admit(entry, args);
    if (problems !== undefined) {
      // MCP 2025-11-25 and later, Tools, Error Handling: so that the model can correct itself.
      const text = `The arguments of ${target.name} were refused: ${problems.join("; ")}.`;
      await record.close("refused", new DrawbridgeError("invalid_params", text));
      const result = JSON.stringify({ content: [{ type: "text", text }], isError: true });
      answering.finish(answerText(inbound.id, inbound.method, revision, { kind: "result", result, value: {} }));
      return;
    }
  }

  const upstream = parts.upstreams.get(target.server);
  if (upstream === undefined)
    throw new DrawbridgeError("upstream_unavailable", "The server behind this is not available.");
  // What is sent cannot be taken back, so it is not sent when it could not be recorded.
  parts.journal.check();
  const span = parts.telemetry.begin(
    `${inbound.method} ${target.kind === "resource" ? "" : target.name}`.trim(),
    "client",
    record.trace,
    {
      "mcp.method.name": inbound.method,
      "server.address": target.server,
      ...(target.kind === "tool" && { "gen_ai.tool.name": target.upstreamName }),
      ...(target.kind === "prompt" && { "gen_ai.prompt.name": target.upstreamName }),
    },
  );
  const mcpCall: McpCall = {
    id: inbound.id,
    method: inbound.method,
    target,
    params: inbound.params,
    forward: forwarded(inbound, target),
    meta: inbound.meta,
    progressToken: inbound.progressToken,
    logLevel: inbound.logLevel ?? session?.logLevel,
    revision,
    trace: span.context,
    session: session?.id,
  };
  const permitted = permit(by, mcpCall, decision);
  const gone = new AbortController();
  const onClose = () => {
    if (!response.writableFinished) gone.abort();
  };
  response.once("close", onClose);
  if (response.destroyed) gone.abort();
  if (session !== undefined) {
    session.calls ??= new Map();
    session.calls.set(inbound.id, gone);
  }
  // A long call becomes a stream, so that what lies between can tell that it is alive.
  const patience = setTimeout(() => {
    answering.stream();
    if (answering.streaming) parts.streams.keepAlive(response);
  }, STREAM_AFTER_MS);
  let outcome: Outcome;
  try {
    outcome = await upstream.send(
      permitted,
      { notify: ({ method, params }) => answering.notify(notificationText(method, params)) },
      gone.signal,
    );
    const tooMuch = asksTooMuch(inbound, outcome);
    if (tooMuch !== undefined) throw tooMuch;
    span.end(
      outcome.kind === "error" ? String(outcome.code) : outcome.value["isError"] === true ? "tool_error" : undefined,
    );
  } catch (thrown) {
    const error = DrawbridgeError.from(thrown, "upstream_failed");
    span.end(error.code);
    const told = await record.fail(error, gone.signal.aborted);
    if (answering.streaming) answering.finish(errorText(inbound.id, told));
    else if (!answering.over) sendError(response, told, inbound.id);
    return;
  } finally {
    clearTimeout(patience);
    response.off("close", onClose);
    session?.calls?.delete(inbound.id);
  }
  try {
    await record.answered(outcome);
  } catch (thrown) {
    // Nothing is answered that is not recorded; a stream that has begun is told so in band.
    if (!answering.streaming) throw thrown;
    answering.finish(errorText(inbound.id, DrawbridgeError.from(thrown, "audit_unavailable")));
    return;
  }
  answering.finish(answerText(inbound.id, inbound.method, revision, outcome));
}

const STREAM_AFTER_MS = 10_000;

function unknownTarget(target: Target): DrawbridgeError {
  const message =
    target.kind === "resource" ? "Resource not found" : `Unknown ${target.kind}: ${target.name.slice(0, 200)}`;
  return new DrawbridgeError(
    "unknown_target",
    message,
    target.kind === "resource" ? { data: { uri: target.name } } : {},
  );
}

function argumentsOf(inbound: InboundRequest): JsonObject {
  const { arguments: args, uri } = inbound.params;
  if (args !== undefined && !isObject(args))
    throw new DrawbridgeError("invalid_params", "`arguments` must be an object.");
  return args ?? (typeof uri === "string" ? { uri } : {});
}

async function admit(entry: Entry | undefined, args: JsonObject): Promise<readonly string[] | undefined> {
  if (entry === undefined) return undefined;
  return (await entry.arguments()).check(args);
}

/** The members of `params` for the upstream: its own name for the target, and without `_meta`, which it gets anew. */
function forwarded(inbound: InboundRequest, target: Target): ReadonlyMap<string, string> {
  const members = new Map(inbound.paramTexts);
  members.delete("_meta");
  if (target.upstreamName === target.name) return members;
  if (inbound.method === "completion/complete")
    members.set("ref", JSON.stringify({ ...(inbound.params["ref"] as JsonObject), name: target.upstreamName }));
  else members.set("name", JSON.stringify(target.upstreamName));
  return members;
}

const PAGE = 1000;
const LIST_FIELD = {
  tools: "tools",
  resources: "resources",
  resourceTemplates: "resourceTemplates",
  prompts: "prompts",
} as const;
const LIST_TTL_MS = 5000;

/** A list as the caller may see it: the same decision as for calls, asked for each entry. */
async function listFor(
  parts: Parts,
  by: Principal,
  inbound: InboundRequest,
  list: keyof typeof LIST_FIELD,
): Promise<string> {
  const offset = readCursor(inbound.params["cursor"]);
  const entries = await parts.catalogue.list(list);
  const visible = entries.filter((entry) => parts.policy.decide(by, entry.target).effect === "permit");
  if (offset > visible.length)
    throw new DrawbridgeError("invalid_params", "The cursor is no longer valid. Start the list anew.");
  const page = visible.slice(offset, offset + PAGE);
  const next =
    offset + PAGE < visible.length ? `,"nextCursor":"${Buffer.from(String(offset + PAGE)).toString("base64url")}"` : "";
  const modern =
    inbound.era === "modern" ? `"resultType":"complete","ttlMs":${LIST_TTL_MS},"cacheScope":"private",` : "";
  return `{${modern}"${LIST_FIELD[list]}":[${page.map((entry) => entry.served).join(",")}]${next}}`;
}

function readCursor(cursor: unknown): number {
  if (cursor === undefined) return 0;
  const offset = typeof cursor === "string" ? Number(Buffer.from(cursor, "base64url").toString("utf8")) : Number.NaN;
  if (!Number.isSafeInteger(offset) || offset < 0)
    throw new DrawbridgeError("invalid_params", "The cursor is not one of ours. Start the list anew.");
  return offset;
}

async function subscription(
  parts: Parts,
  by: Principal,
  inbound: InboundRequest,
  session: Session | undefined,
): Promise<void> {
  const { uri } = inbound.params;
  if (typeof uri !== "string") throw new DrawbridgeError("invalid_params", `${inbound.method} needs a \`uri\`.`);
  if (session === undefined)
    throw new DrawbridgeError("invalid_request", "Subscriptions need a session. Send `initialize` first.");
  const signal = AbortSignal.timeout(SUBSCRIBE_MS);
  if (inbound.method === "resources/unsubscribe") return parts.streams.unsubscribe(session, uri, signal);
  const target = await readable(parts, by, uri);
  if (target === undefined)
    throw unknownTarget({ server: "", kind: "resource", name: uri, upstreamName: uri, pin: undefined });
  if ((session.subscriptions?.size ?? 0) >= MAX_SUBSCRIPTIONS)
    throw new DrawbridgeError("rate_limited", `A session may subscribe to ${MAX_SUBSCRIPTIONS} resources.`);
  return parts.streams.subscribe(session, uri, target.server, signal);
}

const SUBSCRIBE_MS = 30_000;
const MAX_SUBSCRIPTIONS = 1000;

async function readable(parts: Parts, by: Principal, uri: string): Promise<Target | undefined> {
  const target = await parts.catalogue.resolve("resource", uri);
  return target !== undefined && parts.policy.decide(by, target).effect === "permit" ? target : undefined;
}

/** `subscriptions/listen` (2026-07-28, Subscriptions). What the caller may not read is left out of the acknowledgment. */
async function listenStream(
  parts: Parts,
  by: Authenticated,
  inbound: InboundRequest,
  record: CallRecord,
  response: ServerResponse,
): Promise<void> {
  const wanted = inbound.params["notifications"];
  if (!isObject(wanted))
    throw new DrawbridgeError("invalid_params", "subscriptions/listen needs `notifications`, an object.");
  const lists = new Set<ChangedList>();
  if (wanted["toolsListChanged"] === true) lists.add("tools");
  if (wanted["promptsListChanged"] === true) lists.add("prompts");
  if (wanted["resourcesListChanged"] === true) lists.add("resources");
  const asked = Array.isArray(wanted["resourceSubscriptions"]) ? wanted["resourceSubscriptions"] : [];
  if (asked.length > MAX_SUBSCRIPTIONS)
    throw new DrawbridgeError("invalid_params", `One stream may follow ${MAX_SUBSCRIPTIONS} resources.`);
  const servers = new Map<string, string>();
  for (const uri of asked) {
    const target = typeof uri === "string" ? await readable(parts, by, uri) : undefined;
    if (target !== undefined) servers.set(target.name, target.server);
  }
  await record.close("permitted", undefined);
  parts.streams.openListen(inbound.id, by, { lists, uris: servers }, response);
}

function receive(notification: InboundNotification, session: Session | undefined): void {
  // Of what clients tell us only this one changes anything; the rest is accepted and ends here.
  if (notification.method !== "notifications/cancelled" || session === undefined) return;
  const { requestId } = notification.params;
  if (typeof requestId === "string" || typeof requestId === "number") session.calls?.get(requestId)?.abort();
}

function openSessionStream(parts: Parts, by: Authenticated, request: IncomingMessage, response: ServerResponse): void {
  mayRead(by);
  if (!readAccept(request).sse) throw new DrawbridgeError("not_acceptable", "Accept must name text/event-stream.");
  const session = sessionOf(parts, by, request);
  if (session === undefined)
    throw new DrawbridgeError(
      "method_not_allowed",
      "GET opens the stream of a session. Send Mcp-Session-Id, or use POST.",
    );
  parts.streams.openForSession(session, by, response);
}

function endSession(parts: Parts, by: Authenticated, request: IncomingMessage, response: ServerResponse): void {
  const session = sessionOf(parts, by, request);
  if (session === undefined)
    throw new DrawbridgeError("method_not_allowed", "DELETE ends a session. Send Mcp-Session-Id.");
  parts.sessions.end(session);
  response.writeHead(204).end();
}

/** The session a legacy request names; undefined when it names none, which every revision since 2025-03-26 permits a server to accept. */
function sessionOf(parts: Parts, by: Authenticated, request: IncomingMessage): Session | undefined {
  const id = request.headers["mcp-session-id"];
  return typeof id === "string" ? parts.sessions.find(id, by) : undefined;
}

function accepted(response: ServerResponse): void {
  response.writeHead(202, { "content-length": 0 }).end();
}

function isJson(contentType: string | undefined): boolean {
  return contentType !== undefined && /^application\/json\s*(;|$)/i.test(contentType.trim());
}

/** Lists and subscriptions need the reading scope; there is no target to decide about yet. */
function mayRead(by: Principal): void {
  if (!by.scopes.includes(READ_SCOPE))
    throw new DrawbridgeError("insufficient_scope", `This needs the scope ${READ_SCOPE}.`, { scope: READ_SCOPE });
}

/** RFC 6750 §3.1: whoever tried another scheme did not know that tokens are wanted, and is told just that. */
function isBearer(authorization: string | undefined): boolean {
  return authorization !== undefined && /^Bearer(\s|$)/i.test(authorization);
}

/** `WWW-Authenticate` (RFC 6750 §3, RFC 9728 §5.1); no `error` when the request brought no token at all. */
function challengeFor(
  parts: Pick<Parts, "resourceMetadataUrl">,
  error: DrawbridgeError,
  presented: boolean,
): { challenge?: string } {
  if (error.code !== "unauthenticated" && error.code !== "insufficient_scope") return {};
  const scope = error.scope ?? `${READ_SCOPE} ${CALL_SCOPE}`;
  const reason = presented
    ? `error="${error.oauth ?? "invalid_token"}", error_description="${error.message.replace(/["\\]/g, "'")}", `
    : "";
  return { challenge: `Bearer ${reason}resource_metadata="${parts.resourceMetadataUrl}", scope="${scope}"` };
}
