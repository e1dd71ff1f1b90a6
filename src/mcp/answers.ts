/** What goes back to a client, in the form of its revision, as JSON text: answers, errors, notifications, and their SSE framing. */
import type { JsonObject, Outcome, RequestId, Revision } from "../core/call.ts";
import { MODERN_REVISION } from "../core/call.ts";
import type { DrawbridgeError } from "../core/errors.ts";
import { META } from "./inbound.ts";
import { isObject, memberTexts, objectText, withMember } from "./json-text.ts";

/** Who we are, for `initialize`, `server/discover` and `_meta` of answers. */
export interface ServerInfo {
  readonly name: string;
  readonly title: string;
  readonly version: string;
}

/** Methods whose complete results must say how long they may be kept (2026-07-28, Caching). */
const CACHEABLE = new Set([
  "server/discover",
  "tools/list",
  "prompts/list",
  "resources/list",
  "resources/templates/list",
  "resources/read",
]);

/** Fields of 2026-07-28 that an older client does not know. */
const MODERN_RESULT_FIELDS = ["resultType", "ttlMs", "cacheScope"];

/** The answer of an upstream in the words of the client's revision; the result's own bytes are kept wherever nothing must change. */
export function answerText(id: RequestId, method: string, revision: Revision, outcome: Outcome): string {
  if (outcome.kind === "error") return upstreamErrorText(id, revision, outcome);
  const result =
    revision === MODERN_REVISION
      ? modernResult(method, outcome.result, outcome.value)
      : legacyResult(outcome.result, outcome.value);
  return resultText(id, result);
}

export function resultText(id: RequestId, result: string): string {
  return `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${result}}`;
}

function modernResult(method: string, text: string, value: JsonObject): string {
  let result = text;
  if (CACHEABLE.has(method) && (value["resultType"] ?? "complete") === "complete") {
    if (value["cacheScope"] === undefined) result = withMember(result, '"cacheScope":"private"');
    if (value["ttlMs"] === undefined) result = withMember(result, '"ttlMs":0');
  }
  if (value["resultType"] === undefined) result = withMember(result, '"resultType":"complete"');
  return result;
}

function legacyResult(text: string, value: JsonObject): string {
  if (!MODERN_RESULT_FIELDS.some((field) => value[field] !== undefined)) return text;
  const members = membersOf(text, value);
  for (const field of MODERN_RESULT_FIELDS) members.delete(field);
  const meta = value["_meta"];
  if (isObject(meta) && meta[META.serverInfo] !== undefined) {
    const others = membersOf(members.get("_meta") ?? "{}", meta);
    others.delete(META.serverInfo);
    if (others.size > 0) members.set("_meta", objectText(others));
    else members.delete("_meta");
  }
  return objectText(members);
}

/** Cut from the text, so that numbers stay as they were written; from the value only where the text is ambiguous. */
function membersOf(text: string, value: JsonObject): Map<string, string> {
  return memberTexts(text) ?? new Map(Object.entries(value).map(([key, member]) => [key, JSON.stringify(member)]));
}

/** Codes that speak about one hop; relayed they would blame the wrong one (2026-07-28, basic, Error Codes). */
const HOP_CODES = new Set([-32020, -32021, -32022]);

/** The specification's own range. A server that speaks 2026-07-28 uses of it what is defined there and nothing else: neither codes
 * of older revisions, like -32042, nor inventions. */
const isReserved = (code: number) => code <= -32020 && code >= -32099;

function upstreamErrorText(id: RequestId, revision: Revision, outcome: Outcome & { kind: "error" }): string {
  let { code } = outcome;
  if (HOP_CODES.has(code) || (revision === MODERN_REVISION && isReserved(code))) code = -32603;
  // -32002 "resource not found" of older revisions became -32602.
  else if (code === -32002 && revision === MODERN_REVISION) code = -32602;
  const data = outcome.data === undefined ? "" : `,"data":${outcome.data}`;
  return `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":{"code":${code},"message":${JSON.stringify(outcome.message)}${data}}}`;
}

/** A refusal or failure of our own. When its request's `id` could not be read there is none: unlike JSON-RPC, MCP has no `null` ids. */
export function errorText(id: RequestId | undefined, error: DrawbridgeError): string {
  return JSON.stringify({
    jsonrpc: "2.0",
    ...(id !== undefined && { id }),
    error: { code: error.rpc, message: error.message, ...(error.data === undefined ? {} : { data: error.data }) },
  });
}

export function notificationText(method: string, params: string | undefined): string {
  return `{"jsonrpc":"2.0","method":${JSON.stringify(method)}${params === undefined ? "" : `,"params":${params}`}}`;
}

/** One message as a server-sent event. JSON text has no raw line breaks once it is one line; ours and the upstream's may, so they are folded. */
export function sseEvent(message: string): string {
  return message.includes("\n") || message.includes("\r")
    ? `event: message\ndata: ${message.replace(/[\r\n]+/g, " ")}\n\n`
    : `event: message\ndata: ${message}\n\n`;
}

export const SSE_KEEP_ALIVE = ": keep-alive\n\n";
