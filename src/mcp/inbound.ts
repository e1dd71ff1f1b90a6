/**
 * What a client sent, checked against the revision it speaks: one decoder for 2026-07-28 (a `_meta` envelope and headers that
 * repeat it) and for the revisions with sessions. The body decides the revision; headers are compared with it and never change it.
 */
import {
  type JsonObject,
  LEGACY_REVISIONS,
  MODERN_REVISION,
  type QuestionAnswer,
  type RequestId,
  type Revision,
} from "../core/call.ts";
import { DrawbridgeError, type ErrorOptions } from "../core/errors.ts";
import { elementTexts, isObject, type MemberTexts, parseRequestText } from "./json-text.ts";
import { type Era, LOG_LEVELS, type MethodRow, methodRow } from "./methods.ts";
import { UPSTREAM_TOKEN } from "./upstream-token.ts";

/** Header values by lower-case name, as `node:http` has them. */
export type Headers = Readonly<Record<string, string | readonly string[] | undefined>>;

export interface InboundRequest {
  readonly kind: "request";
  readonly id: RequestId;
  readonly method: string;
  readonly row: MethodRow;
  readonly era: Era;
  /** The revision of this request; on legacy requests what the header says, which a session may correct. */
  readonly revision: Revision;
  readonly params: JsonObject;
  readonly paramTexts: MemberTexts;
  /** Members of `_meta` as text, without those that belong to this hop. */
  readonly meta: MemberTexts;
  readonly progressToken: RequestId | undefined;
  readonly logLevel: string | undefined;
  readonly traceparent: string | undefined;
  readonly tracestate: string | undefined;
  /** `clientInfo`, self-declared, for display. */
  readonly clientInfo: JsonObject | undefined;
  /** What this request may ask of the client; undefined on legacy requests, whose session would say. */
  readonly clientCapabilities: JsonObject | undefined;
}
export interface InboundNotification {
  readonly kind: "notification";
  readonly method: string;
  readonly era: Era;
  readonly params: JsonObject;
}
/** An answer to a question of the gateway; legacy only. */
export interface InboundResponse {
  readonly kind: "response";
  readonly id: RequestId;
  readonly answer: QuestionAnswer;
}
export type Inbound = InboundRequest | InboundNotification | InboundResponse;

export const META = {
  version: "io.modelcontextprotocol/protocolVersion",
  clientInfo: "io.modelcontextprotocol/clientInfo",
  clientCapabilities: "io.modelcontextprotocol/clientCapabilities",
  logLevel: "io.modelcontextprotocol/logLevel",
  subscriptionId: "io.modelcontextprotocol/subscriptionId",
  serverInfo: "io.modelcontextprotocol/serverInfo",
} as const;

/** Keys of `_meta` that belong to this hop; `baggage` is dropped because nothing vouches for it across a trust boundary. */
const HOP_KEYS: readonly string[] = [
  META.version,
  META.clientInfo,
  META.clientCapabilities,
  META.logLevel,
  "progressToken",
  "traceparent",
  "tracestate",
  "baggage",
  // A server believes it, so it must not be a client's.
  UPSTREAM_TOKEN,
];

export const SUPPORTED_REVISIONS: readonly Revision[] = [MODERN_REVISION, ...LEGACY_REVISIONS.toReversed()];

/** A refusal that still knows which request it refuses and in which era, so that its answer can have the id and the right status. */
export class RefusedRequest extends DrawbridgeError {
  readonly id: RequestId | undefined;
  readonly era: Era;
  constructor(error: DrawbridgeError, id: RequestId | undefined, era: Era) {
    super(error.code, error.message, optionsOf(error));
    this.id = id;
    this.era = era;
  }
}

function optionsOf({ detail, cause, data, retryAfterSeconds, scope, proof }: DrawbridgeError): ErrorOptions {
  return {
    ...(detail !== undefined && { detail }),
    ...(cause !== undefined && { cause }),
    data,
    ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
    ...(scope !== undefined && { scope }),
    ...(proof !== undefined && { proof }),
  };
}

/** Decodes one POST body. Throws `RefusedRequest` (an error of the table and, where readable, the request's id). */
export function decode(text: string, headers: Headers, maxDepth: number): Inbound {
  let id: RequestId | undefined;
  let era: Era = "legacy";
  try {
    const { value, params: paramTexts, meta: metaTexts, result } = parseRequestText(text, maxDepth);
    id = readId(value["id"]);
    if (value["jsonrpc"] !== "2.0") throw invalid('The message needs "jsonrpc": "2.0".');
    const { method, params } = value;
    if (params !== undefined && !isObject(params)) throw invalid("`params` must be an object.");
    if (typeof method !== "string") {
      if (method === undefined && id !== undefined && (value["result"] !== undefined || value["error"] !== undefined))
        return response(id, value, result, headers);
      throw invalid("The message needs a `method`, a string.");
    }
    if (method === "" || method.length > 256) throw invalid("`method` must have 1 to 256 characters.");
    const message = { method, params: params ?? {}, paramTexts, metaTexts, meta: readMeta(params) };
    if (value["id"] === undefined) return notification(message, headers);
    if (id === undefined) throw invalid("`id` must be a string or an integer.");
    era = eraOf(message.meta, headers);
    return request(id, message, era, headers);
  } catch (thrown) {
    throw new RefusedRequest(DrawbridgeError.from(thrown), id, era);
  }
}

/** So many messages may come in one body. */
const MAX_BATCH = 100;

/** Whether a body is to be read as several messages (JSON-RPC 2.0 §6). */
export const isBatch = (text: string) => /^[\t\n\r ]*\[/.test(text);

/**
 * Decodes a body of several messages for a session of 2025-03-26, the only revision that has them: each by itself, so that one that
 * cannot be read does not keep the others from being answered. Throws `RefusedRequest` for a body that is refused as a whole.
 */
export function decodeBatch(text: string, headers: Headers, maxDepth: number): readonly (Inbound | RefusedRequest)[] {
  const refuse = (why: string) => new RefusedRequest(invalid(why), undefined, "legacy");
  try {
    JSON.parse(text);
  } catch (cause) {
    throw new RefusedRequest(
      new DrawbridgeError("parse_error", "The body is not valid JSON.", { cause }),
      undefined,
      "legacy",
    );
  }
  const texts = elementTexts(text);
  if (texts.length === 0) throw refuse("A batch needs at least one message.");
  if (texts.length > MAX_BATCH) throw refuse(`A batch may have ${MAX_BATCH} messages.`);
  const ids = new Set<RequestId>();
  return texts.map((one) => {
    let inbound: Inbound;
    try {
      inbound = decode(one, headers, maxDepth);
    } catch (thrown) {
      if (thrown instanceof RefusedRequest) return thrown;
      throw thrown;
    }
    if (inbound.kind !== "request") return inbound;
    // 2025-03-26, Lifecycle, Initialization.
    if (inbound.method === "initialize") throw refuse("`initialize` must not be part of a batch.");
    if (inbound.era === "modern") throw refuse("Requests of 2026-07-28 come one by one.");
    if (ids.has(inbound.id)) throw refuse(`The batch has the id ${JSON.stringify(inbound.id).slice(0, 64)} twice.`);
    ids.add(inbound.id);
    return inbound;
  });
}

/** 2026-07-28, Sending Messages: clients answer nothing, they repeat their request. */
function response(id: RequestId, value: JsonObject, result: string | undefined, headers: Headers): InboundResponse {
  const version = header(headers, "mcp-protocol-version");
  if (version !== undefined && isModern(version))
    throw invalid("A POST carries one request or notification; this revision has no responses of clients.");
  if (result !== undefined && isObject(value["result"]))
    return { kind: "response", id, answer: { kind: "result", result } };
  const { code, message, data } = isObject(value["error"]) ? value["error"] : {};
  const answer: QuestionAnswer = {
    kind: "error",
    code: typeof code === "number" && Number.isInteger(code) ? code : -32603,
    message: typeof message === "string" ? message : "The client's answer was not understood.",
    data: data === undefined ? undefined : JSON.stringify(data),
  };
  return { kind: "response", id, answer };
}

interface Message {
  readonly method: string;
  readonly params: JsonObject;
  readonly paramTexts: MemberTexts;
  readonly metaTexts: MemberTexts;
  readonly meta: JsonObject;
}

/** The body decides; only a body that claims nothing leaves it to the header. */
function eraOf(meta: JsonObject, headers: Headers): Era {
  const claimed = meta[META.version];
  const versionHeader = header(headers, "mcp-protocol-version");
  const modern = claimed === undefined ? versionHeader !== undefined && isModern(versionHeader) : !isLegacy(claimed);
  return modern ? "modern" : "legacy";
}

function request(id: RequestId, message: Message, era: Era, headers: Headers): InboundRequest {
  const { method, params, paramTexts, metaTexts, meta } = message;
  const versionHeader = header(headers, "mcp-protocol-version");
  const revision =
    era === "modern" ? modernRevision(message, headers, versionHeader) : legacyRevision(method, versionHeader);
  const row = methodRow(method, era);
  const { [META.clientInfo]: clientInfo, [META.clientCapabilities]: clientCapabilities } = meta;
  if (row === undefined) throw new DrawbridgeError("unknown_method", "Method not found");
  return {
    kind: "request",
    id,
    method,
    row,
    era,
    revision,
    params,
    paramTexts,
    meta: withoutHopKeys(metaTexts),
    progressToken: readProgressToken(meta["progressToken"]),
    logLevel: readLogLevel(meta[META.logLevel]),
    traceparent: textOf(meta["traceparent"]) ?? header(headers, "traceparent"),
    tracestate: meta["traceparent"] === undefined ? header(headers, "tracestate") : textOf(meta["tracestate"]),
    clientInfo: isObject(clientInfo) ? clientInfo : undefined,
    clientCapabilities: era === "modern" && isObject(clientCapabilities) ? clientCapabilities : undefined,
  };
}

function withoutHopKeys(meta: MemberTexts): MemberTexts {
  if (meta.size > 0) for (const key of HOP_KEYS) meta.delete(key);
  return meta;
}

/** Checks of 2026-07-28, Streamable HTTP, Server Validation, in the order of its error codes: envelope, headers, version. */
function modernRevision(message: Message, headers: Headers, versionHeader: string | undefined): Revision {
  const { method, params, meta } = message;
  const claimed = meta[META.version];
  const missing = [META.version, META.clientCapabilities].filter((key) => meta[key] === undefined);
  if (missing.length > 0)
    throw new DrawbridgeError("invalid_envelope", `The request's \`_meta\` lacks ${missing.join(" and ")}.`, {
      data: { missing },
    });
  if (typeof claimed !== "string" || !isObject(meta[META.clientCapabilities])) {
    throw new DrawbridgeError(
      "invalid_envelope",
      `In \`_meta\`, ${META.version} must be a string and ${META.clientCapabilities} an object.`,
    );
  }
  if (meta[META.clientInfo] !== undefined && !isObject(meta[META.clientInfo])) {
    throw new DrawbridgeError("invalid_envelope", `In \`_meta\`, ${META.clientInfo} must be an object.`);
  }
  mustMatch("MCP-Protocol-Version", versionHeader, claimed);
  mustMatch("Mcp-Method", header(headers, "mcp-method"), method);
  const name = nameHeaderSource(method, params);
  if (name !== undefined) mustMatch("Mcp-Name", decodedHeader(header(headers, "mcp-name")), name);
  if (claimed !== MODERN_REVISION) {
    throw new DrawbridgeError("unsupported_protocol_version", "Unsupported protocol version", {
      data: { supported: SUPPORTED_REVISIONS, requested: claimed },
    });
  }
  return MODERN_REVISION;
}

function legacyRevision(method: string, versionHeader: string | undefined): Revision {
  if (versionHeader === undefined) return "2025-03-26";
  const known = LEGACY_REVISIONS.find((revision) => revision === versionHeader);
  // `initialize` negotiates in its body; a client may already send the header of the revision it hopes for.
  if (known === undefined && method !== "initialize") {
    throw new DrawbridgeError("unsupported_protocol_version", "Unsupported protocol version", {
      data: { supported: SUPPORTED_REVISIONS, requested: versionHeader },
    });
  }
  return known ?? "2025-11-25";
}

function notification(message: Message, headers: Headers): InboundNotification {
  const claimed = message.meta[META.version];
  const versionHeader = header(headers, "mcp-protocol-version");
  if (claimed !== undefined && typeof claimed !== "string")
    throw new DrawbridgeError("invalid_envelope", `In \`_meta\`, ${META.version} must be a string.`);
  const version = claimed ?? versionHeader;
  if (version === undefined || isLegacy(version) || (claimed === undefined && !isModern(version))) {
    legacyRevision(message.method, versionHeader);
    return { kind: "notification", method: message.method, era: "legacy", params: message.params };
  }
  if (versionHeader !== undefined) mustMatch("MCP-Protocol-Version", versionHeader, version);
  const methodHeader = header(headers, "mcp-method");
  if (methodHeader !== undefined) mustMatch("Mcp-Method", methodHeader, message.method);
  return { kind: "notification", method: message.method, era: "modern", params: message.params };
}

/** Where the `Mcp-Name` header comes from; undefined when the method has none. */
function nameHeaderSource(method: string, params: JsonObject): string | undefined {
  const source =
    method === "resources/read"
      ? params["uri"]
      : method === "tools/call" || method === "prompts/get"
        ? params["name"]
        : method.startsWith("tasks/")
          ? params["taskId"]
          : undefined;
  return typeof source === "string" ? source : undefined;
}

function mustMatch(name: string, actual: string | undefined, expected: string): void {
  if (actual === expected) return;
  const found = actual === undefined ? "is missing" : `is ${JSON.stringify(actual.slice(0, 100))}`;
  throw new DrawbridgeError(
    "header_mismatch",
    `Header mismatch: ${name} ${found}, the body says ${JSON.stringify(expected.slice(0, 100))}`,
  );
}

/** Visible ASCII, blanks and tabs (RFC 9110 §5.5 without what `node:http` reads as Latin-1). */
const PLAIN = /^[\t\x20-\x7e]*$/;
const BASE64_SENTINEL = /^=\?base64\?([A-Za-z0-9+/]*={0,2})\?=$/;

/** 2026-07-28, Streamable HTTP, Value Encoding. What is not plain ASCII, or not canonical UTF-8 base64, decodes to nothing and so matches nothing. */
export function decodedHeader(value: string | undefined): string | undefined {
  if (value === undefined || !PLAIN.test(value)) return undefined;
  if (!value.startsWith("=?base64?") || !value.endsWith("?=")) return value;
  const encoded = BASE64_SENTINEL.exec(value)?.[1];
  if (encoded === undefined) return undefined;
  const bytes = Buffer.from(encoded, "base64");
  const text = bytes.toString("utf8");
  return Buffer.from(text, "utf8").equals(bytes) && bytes.toString("base64") === encoded ? text : undefined;
}

/** Any revision after the last one with sessions; revisions are dates, so text order is time order. */
function isModern(version: string): boolean {
  return /^\d{4}-\d{2}-\d{2}$/.test(version) && version > "2025-11-25";
}

function isLegacy(version: unknown): boolean {
  return LEGACY_REVISIONS.some((known) => known === version);
}

function header(headers: Headers, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" ? value.trim() : undefined;
}

function readId(id: unknown): RequestId | undefined {
  if (typeof id === "string" && id.length <= 1024) return id;
  return typeof id === "number" && Number.isSafeInteger(id) ? id : undefined;
}

function readMeta(params: unknown): JsonObject {
  if (!isObject(params) || params["_meta"] === undefined) return {};
  if (!isObject(params["_meta"])) throw invalid("`params._meta` must be an object.");
  return params["_meta"];
}

function readProgressToken(token: unknown): RequestId | undefined {
  if (token === undefined) return undefined;
  if (typeof token === "string" || (typeof token === "number" && Number.isSafeInteger(token))) return token;
  throw new DrawbridgeError("invalid_params", "`_meta.progressToken` must be a string or an integer.");
}

function readLogLevel(level: unknown): string | undefined {
  if (level === undefined) return undefined;
  if (typeof level === "string" && LOG_LEVELS.includes(level)) return level;
  throw new DrawbridgeError(
    "invalid_params",
    `\`_meta\` asks for an unknown log level. Known ones: ${LOG_LEVELS.join(", ")}.`,
  );
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function invalid(message: string): DrawbridgeError {
  return new DrawbridgeError("invalid_request", message);
}
