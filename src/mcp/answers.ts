/** What goes back to a client, in the form of its revision, as JSON text: answers, errors, notifications, and their SSE framing. */
import type { JsonObject, Outcome, RequestId, Revision } from "../core/call.ts";
import { MODERN_REVISION } from "../core/call.ts";
import type { DrawbridgeError } from "../core/errors.ts";
import { META } from "./inbound.ts";
import { isObject, memberTexts, objectText, withMember } from "./json-text.ts";
import { wrappedContent } from "./structured-content.ts";

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

/** Who wrote a result, as it said at its first greeting. */
export interface Answerer {
  readonly revision: Revision;
  readonly info: JsonObject;
}

/**
 * The answer of an upstream in the words of the client's revision; the result's own bytes are kept wherever nothing must change.
 * `from`: whose it is, when that is known. `wrapped`: what the tool's output schema promises older clients.
 */
export function answerText(
  id: RequestId,
  method: string,
  revision: Revision,
  outcome: Outcome,
  from?: Answerer,
  wrapped = false,
): string {
  if (outcome.kind === "error") return upstreamErrorText(id, revision, outcome);
  const result =
    revision === MODERN_REVISION
      ? modernResult(method, outcome.result, outcome.value, from)
      : legacyResult(outcome.result, outcome.value, from, wrapped);
  return resultText(id, result);
}

export function resultText(id: RequestId, result: string): string {
  return `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"result":${result}}`;
}

function modernResult(method: string, text: string, value: JsonObject, from: Answerer | undefined): string {
  const { resultType, cacheScope, ttlMs, _meta: meta } = value;
  const added: string[] = [];
  const changed = new Map<string, (before: string) => string>();
  if (resultType === undefined) added.push('"resultType":"complete"');
  if (CACHEABLE.has(method) && (resultType ?? "complete") === "complete") {
    if (ttlMs === undefined) added.push('"ttlMs":0');
    if (cacheScope === undefined) added.push('"cacheScope":"private"');
    // Who may see it is decided here for each caller, so nobody may keep it for others, whatever the server thinks.
    else if (cacheScope !== "private") changed.set("cacheScope", () => '"private"');
  }
  // 2026-07-28, basic, `_meta`: results SHOULD say which server they come from.
  const member = from === undefined ? undefined : serverInfoMember(from.info);
  if (member !== undefined) {
    if (meta === undefined) added.push(`"_meta":{${member}}`);
    else if (isObject(meta) && meta[META.serverInfo] === undefined)
      changed.set("_meta", (before) => withMember(before, member));
  }
  let result = text;
  if (changed.size > 0) {
    const members = membersOf(text, value);
    for (const [key, change] of changed) members.set(key, change(members.get(key) ?? "{}"));
    result = objectText(members);
  }
  return added.length === 0 ? result : withMember(result, added.join(","));
}

const infoMembers = new WeakMap<JsonObject, string>();

/** Undefined for a server that did not say who it is. */
function serverInfoMember(info: JsonObject): string | undefined {
  let member = infoMembers.get(info);
  if (member === undefined) {
    member = `"${META.serverInfo}":${JSON.stringify(info)}`;
    infoMembers.set(info, member);
  }
  return info["name"] === undefined ? undefined : member;
}

function legacyResult(text: string, value: JsonObject, from: Answerer | undefined, wrapped: boolean): string {
  // A server of these revisions means something of its own by a field of that name.
  const foreign = from === undefined || from.revision === MODERN_REVISION;
  const { structuredContent, _meta: meta } = value;
  const stamped = foreign && isObject(meta) && meta[META.serverInfo] !== undefined;
  const dressed = foreign && MODERN_RESULT_FIELDS.some((field) => value[field] !== undefined);
  const bare = structuredContent !== undefined && (wrapped || (foreign && !isObject(structuredContent)));
  if (!stamped && !dressed && !bare) return text;
  const members = membersOf(text, value);
  if (dressed) for (const field of MODERN_RESULT_FIELDS) members.delete(field);
  if (bare) members.set("structuredContent", wrappedContent(members.get("structuredContent") ?? "null"));
  if (stamped) {
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
