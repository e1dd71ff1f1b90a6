/**
 * JSON messages as text. The gateway forwards what it need not change as it came, so it works with the spans of a message's
 * members and not with a parsed copy: numbers, escapes and the order of keys survive.
 */
import type { JsonObject, JsonValue, RequestId, Revision } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";

/** Member texts of one JSON object, in their order. */
export type MemberTexts = Map<string, string>;

export interface RequestText {
  readonly value: JsonObject;
  /** Members of `params` as text; empty when there is no such object. */
  readonly params: MemberTexts;
  /** Members of `params._meta` as text; empty when there is no such object. */
  readonly meta: MemberTexts;
  /** `result` as text: a client's answer to a question. */
  readonly result: string | undefined;
}

const ENVELOPE_KEYS = new Set(["jsonrpc", "id", "method", "params", "result", "error"]);
const PARAM_KEYS = new Set([
  "name",
  "uri",
  "arguments",
  "_meta",
  "cursor",
  "ref",
  "argument",
  "level",
  "protocolversion",
  "requestid",
  "inputresponses",
  "requeststate",
  "notifications",
  "task",
  "taskid",
]);
const PARAM_SPELLINGS = new Set(["protocolVersion", "requestId", "inputResponses", "requestState", "taskId"]);

/**
 * Parses one JSON-RPC message of a client, strictly. Beyond JSON's own grammar it refuses what two parsers may read differently
 * (RFC 8259 §4): a key twice in one object, and in the envelope, `params` and `arguments` also keys that differ only in case, since some servers match keys without regard to
 * case. Nesting deeper than `maxDepth` is refused. Throws `parse_error` or `invalid_request`.
 */
export function parseRequestText(text: string, maxDepth: number): RequestText {
  let value: JsonValue;
  try {
    value = JSON.parse(text) as JsonValue;
  } catch (cause) {
    throw new DrawbridgeError("parse_error", "The body is not valid JSON.", { cause });
  }
  if (Array.isArray(value)) {
    throw new DrawbridgeError(
      "invalid_request",
      "JSON-RPC batches are for sessions of 2025-03-26 (MCP 2025-06-18 removed them). Send one message per request.",
    );
  }
  if (typeof value !== "object" || value === null) {
    throw new DrawbridgeError("invalid_request", "A JSON-RPC message must be a JSON object.");
  }
  const members = scan(text, maxDepth);
  const { members: params = new Map<string, string>(), meta = new Map<string, string>() } = members.get("params") ?? {};
  return { value: value as JsonObject, params, meta, result: members.get("result")?.text };
}

interface Member {
  readonly text: string;
  /** Members of the value and of its `_meta`, kept for `params` alone. */
  readonly members: MemberTexts | undefined;
  readonly meta: MemberTexts | undefined;
}

interface Frame {
  readonly object: boolean;
  /** A list while it is short, which is nearly always and cheaper. */
  keys: string[] | Set<string> | undefined;
  /** Compare keys without regard to case. */
  readonly folded: boolean;
}

const QUOTE = 34;
const COMMA = 44;
const COLON = 58;
const OPEN_BRACKET = 91;
const BACKSLASH = 92;
const CLOSE_BRACKET = 93;
const OPEN_BRACE = 123;
const CLOSE_BRACE = 125;

/** One pass over text that `JSON.parse` has accepted, whose top is an object. */
function scan(text: string, maxDepth: number): Map<string, Member> {
  const top = new Map<string, Member>();
  let params: MemberTexts | undefined;
  let meta: MemberTexts | undefined;
  const stack: Frame[] = [];
  const path: string[] = [];
  const starts: number[] = [];
  let expectKey = false;

  const closeMember = (end: number) => {
    const depth = stack.length;
    if (depth === 1) {
      const key = path[0];
      if (key !== undefined)
        top.set(key, {
          text: text.slice(starts[0], end).trim(),
          members: key === "params" ? params : undefined,
          meta: key === "params" ? meta : undefined,
        });
    } else if (depth === 2 && path[0] === "params" && params !== undefined && path[1] !== undefined) {
      params.set(path[1], text.slice(starts[1], end).trim());
    } else if (depth === 3 && path[0] === "params" && path[1] === "_meta" && path[2] !== undefined) {
      meta?.set(path[2], text.slice(starts[2], end).trim());
    }
    path.length = Math.min(path.length, depth - 1);
  };

  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === QUOTE) {
      const end = stringEnd(text, at);
      if (expectKey) {
        const key = readKey(text, at, end);
        checkKey(stack, path, key);
        const depth = stack.length;
        if (depth <= 3) path[depth - 1] = key;
        expectKey = false;
      }
      at = end;
    } else if (char === COLON) {
      const depth = stack.length;
      if (depth <= 3) starts[depth - 1] = at + 1;
    } else if (char === OPEN_BRACE || char === OPEN_BRACKET) {
      if (stack.length >= maxDepth) {
        throw new DrawbridgeError("invalid_request", `The message is nested deeper than ${maxDepth} levels.`);
      }
      const object = char === OPEN_BRACE;
      const depth = stack.length;
      const inArguments = depth === 2 && path[0] === "params" && path[1] === "arguments";
      stack.push({
        object,
        keys: object ? [] : undefined,
        folded: depth === 0 || (depth === 1 && path[0] === "params") || inArguments,
      });
      if (object && depth === 1 && path[0] === "params") params = new Map();
      if (object && depth === 2 && path[0] === "params" && path[1] === "_meta") meta = new Map();
      expectKey = object;
    } else if (char === CLOSE_BRACE || char === CLOSE_BRACKET) {
      if (stack.at(-1)?.object) closeMember(at);
      stack.pop();
      expectKey = false;
    } else if (char === COMMA) {
      if (stack.at(-1)?.object) {
        closeMember(at);
        expectKey = true;
      }
    }
  }
  return top;
}

const SHORT_LIST = 12;

function has(keys: readonly string[] | ReadonlySet<string>, name: string): boolean {
  return keys instanceof Set ? keys.has(name) : (keys as readonly string[]).includes(name);
}

function checkKey(stack: readonly Frame[], path: readonly string[], key: string): void {
  const frame = stack.at(-1);
  if (frame?.keys === undefined) return;
  const name = frame.folded ? key.toLowerCase() : key;
  if (has(frame.keys, name)) {
    throw new DrawbridgeError(
      "invalid_request",
      `The message has the key ${JSON.stringify(key.slice(0, 64))} twice in one object.`,
    );
  }
  if (frame.keys instanceof Set) frame.keys.add(name);
  else if (frame.keys.push(name) > SHORT_LIST) frame.keys = new Set(frame.keys);
  const misspelt =
    (stack.length === 1 && ENVELOPE_KEYS.has(name) && key !== name) ||
    (stack.length === 2 && path[0] === "params" && PARAM_KEYS.has(name) && key !== name && !PARAM_SPELLINGS.has(key));
  if (misspelt) {
    throw new DrawbridgeError(
      "invalid_request",
      `The key ${JSON.stringify(key)} is spelt differently from the protocol's own.`,
    );
  }
}

/** Index of the quote that ends the string starting at `at`. */
function stringEnd(text: string, at: number): number {
  let end = text.indexOf('"', at + 1);
  while (end > 0 && text.charCodeAt(end - 1) === BACKSLASH) {
    let slashes = 1;
    while (text.charCodeAt(end - 1 - slashes) === BACKSLASH) slashes++;
    if (slashes % 2 === 0) break;
    end = text.indexOf('"', end + 1);
  }
  return end < 0 ? text.length : end;
}

function readKey(text: string, start: number, end: number): string {
  const raw = text.slice(start + 1, end);
  return raw.includes("\\") ? (JSON.parse(`"${raw}"`) as string) : raw;
}

/** One message of an upstream. `text` fields are its own bytes. */
export type UpstreamMessage =
  | { readonly kind: "result"; readonly id: RequestId; readonly result: string; readonly value: JsonObject }
  | {
      readonly kind: "error";
      readonly id: RequestId | undefined;
      readonly code: number;
      readonly message: string;
      readonly data: string | undefined;
    }
  | {
      readonly kind: "request";
      readonly id: RequestId;
      readonly method: string;
      readonly params: JsonObject;
      readonly paramTexts: MemberTexts;
    }
  | {
      readonly kind: "notification";
      readonly method: string;
      readonly params: JsonObject;
      readonly paramTexts: MemberTexts;
    };

/** Nesting that we follow in what an upstream says; deeper messages are treated as garbage. */
const MAX_UPSTREAM_DEPTH = 512;

/**
 * Reads one JSON-RPC message of an upstream; undefined when it is none (garbage on stdout, a batch, a key twice in the
 * envelope). Answers, the common case, are parsed once and cut out of the text without a second pass.
 */
export function readUpstreamMessage(text: string): UpstreamMessage | undefined {
  let value: JsonObject;
  try {
    const parsed = JSON.parse(text) as JsonValue;
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return undefined;
    value = parsed as JsonObject;
  } catch {
    return undefined;
  }
  const id = value["id"];
  const known = typeof id === "string" || typeof id === "number";
  if (isObject(value["result"]) && known) {
    const result = resultText(text, value, id);
    return result === undefined ? undefined : { kind: "result", id, result, value: value["result"] };
  }
  if (isObject(value["error"])) {
    const { code, message, data } = value["error"];
    return {
      kind: "error",
      id: known ? id : undefined,
      code: typeof code === "number" && Number.isInteger(code) ? code : -32603,
      message: typeof message === "string" ? message : "The server reported an error without a message.",
      data: data === undefined ? undefined : errorDataText(text),
    };
  }
  if (typeof value["method"] !== "string") return undefined;
  try {
    const paramTexts = scan(text, MAX_UPSTREAM_DEPTH).get("params")?.members ?? new Map<string, string>();
    const params = isObject(value["params"]) ? value["params"] : {};
    if (known) return { kind: "request", id, method: value["method"], params, paramTexts };
    return { kind: "notification", method: value["method"], params, paramTexts };
  } catch {
    return undefined;
  }
}

/** The id of an answer that has neither a result nor an error in a shape that anybody could pass on; undefined when it is something else. */
export function brokenAnswerId(text: string): RequestId | undefined {
  try {
    const value = JSON.parse(text) as JsonValue;
    if (!isObject(value) || value["method"] !== undefined) return undefined;
    const { id } = value;
    return typeof id === "string" || typeof id === "number" ? id : undefined;
  } catch {
    return undefined;
  }
}

/** The texts of what an upstream sent at once: one message, or the several of an array where the revision has batches (2025-03-26). */
export function messageTexts(text: string, revision: Revision | undefined): readonly string[] {
  if (revision !== "2025-03-26" || !/^\s*\[/.test(text)) return [text];
  try {
    JSON.parse(text);
  } catch {
    return [text];
  }
  return elementTexts(text);
}

/** `error.data` as the server wrote it; undefined when it is there twice. */
function errorDataText(text: string): string | undefined {
  const error = memberTexts(text)?.get("error");
  return error === undefined ? undefined : memberTexts(error)?.get("data");
}

const RESULT_FIRST = '{"result":';

/**
 * The text of `result`. The two layouts that servers really write are recognised by their ends. This is sound only where no key of
 * the envelope comes twice: else more than the result stands between the ends, and its writer could put members into our own
 * envelope, another id among them. What could be so takes the slow pass.
 */
function resultText(text: string, value: JsonObject, id: RequestId): string | undefined {
  const keys = Object.keys(value);
  if (keys.length === 3 && !text.includes("\\u") && isOnce(text, '"result"') && isOnce(text, '"jsonrpc"')) {
    const idText = JSON.stringify(id);
    const head = `{"jsonrpc":"2.0","id":${idText},"result":`;
    // A second id would be the last member, and no id ends in a brace.
    if (keys[2] === "result" && text.startsWith(head) && /\}\s*\}$/.test(text.slice(-16)))
      return text.slice(head.length, -1);
    const tail = `,"jsonrpc":"2.0","id":${idText}}`;
    if (keys[0] === "result" && text.startsWith(RESULT_FIRST) && text.endsWith(tail) && isOnce(text, '"id"'))
      return text.slice(RESULT_FIRST.length, -tail.length);
  }
  return memberTexts(text)?.get("result");
}

function isOnce(text: string, part: string): boolean {
  const first = text.indexOf(part);
  return first >= 0 && text.indexOf(part, first + part.length) < 0;
}

/** The members of an object's text, which `JSON.parse` has accepted; none for any other value. Undefined when a key comes twice. */
export function memberTexts(text: string): MemberTexts | undefined {
  const members: MemberTexts = new Map();
  let at = text.indexOf("{");
  if (at < 0 || text.slice(0, at).trim() !== "") return members;
  for (;;) {
    const quote = text.indexOf('"', at + 1);
    if (quote < 0 || text.slice(at + 1, quote).trim() !== "") return members;
    const keyEnd = stringEnd(text, quote);
    const key = readKey(text, quote, keyEnd);
    if (members.has(key)) return undefined;
    const start = text.indexOf(":", keyEnd) + 1;
    at = valueEnd(text, start);
    members.set(key, text.slice(start, at).trim());
    if (text.charCodeAt(at) !== COMMA) return members;
  }
}

/** Index of the comma or bracket after the value that starts at `start`. */
function valueEnd(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === QUOTE) at = stringEnd(text, at);
    else if (char === OPEN_BRACE || char === OPEN_BRACKET) depth++;
    else if (char === CLOSE_BRACE || char === CLOSE_BRACKET) {
      if (depth-- === 0) return at;
    } else if (char === COMMA && depth === 0) return at;
  }
  return text.length;
}

/** The elements of an array's text, which `JSON.parse` has accepted. */
export function elementTexts(text: string): string[] {
  const elements: string[] = [];
  let depth = 0;
  let start = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === QUOTE) at = stringEnd(text, at);
    else if (char === OPEN_BRACE || char === OPEN_BRACKET) {
      if (depth++ === 0) start = at + 1;
    } else if (char === CLOSE_BRACE || char === CLOSE_BRACKET) {
      if (--depth === 0 && text.slice(start, at).trim() !== "") elements.push(text.slice(start, at).trim());
    } else if (char === COMMA && depth === 1) {
      elements.push(text.slice(start, at).trim());
      start = at + 1;
    }
  }
  return elements;
}

/** `{"a":…,"b":…}` from member texts. */
export function objectText(members: ReadonlyMap<string, string>): string {
  let text = "{";
  for (const [key, value] of members) text += `${text.length > 1 ? "," : ""}${JSON.stringify(key)}:${value}`;
  return `${text}}`;
}

/** Puts one member in front of an object's text: `withMember('{"a":1}', '"b":2')` is `{"b":2,"a":1}`. The key must not be there yet. */
export function withMember(text: string, member: string): string {
  const inner = text.slice(text.indexOf("{") + 1);
  return /^\s*\}/.test(inner.slice(0, 64)) || /^\s*\}$/.test(inner) ? `{${member}${inner}` : `{${member},${inner}`;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
