/**
 * What of a message is somebody's data, and what is the protocol's: rules for fields look at data alone, and what only machines read
 * (cursors, sealed states, pictures) is not looked into.
 */
import { isUtf8 } from "node:buffer";
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { encoded } from "../../core/json-tokens.ts";
import type { Exception, Shape } from "../../mask/masker.ts";
import { isObject } from "../../mcp/json-text.ts";

type Places = Map<string, Exception>;
/** Masks a text that is written in another way, e.g. in base64. */
export type MaskText = (text: string) => string;

/** The result of any request, as its server wrote it. */
export function shapeOfResult(value: JsonObject, mask: MaskText): Shape {
  const except: Places = new Map();
  passResult(value, "", mask, except);
  return { region: regionOfResult, except };
}

/** `params` of a notification. */
export function shapeOfNotification(value: JsonObject): Shape {
  const except: Places = new Map();
  for (const key of ["progressToken", "requestId", "taskId", "elicitationId"]) pass(value, key, "", except);
  return { region: regionOfNotification, except };
}

/** `params` of a question to a client. */
export function shapeOfQuestion(value: JsonObject, mask: MaskText): Shape {
  const except: Places = new Map();
  passQuestion(value, "", mask, except);
  return { region: () => INSIDE, except };
}

/** `data` of an error. The pages of `URLElicitationRequired` (2025-11-25) are to be opened as they are. */
export function shapeOfErrorData(value: JsonValue, mask: MaskText): Shape | undefined {
  if (!isObject(value) || !Array.isArray(value["elicitations"])) return undefined;
  const except: Places = new Map();
  for (const [index, one] of (value["elicitations"] as readonly JsonValue[]).entries())
    if (isObject(one)) passQuestion({ mode: "url", ...one }, `/elicitations/${index}`, mask, except);
  return {
    region: (of, key) => (of === "" && key === "elicitations" ? INSIDE : of === INSIDE ? INSIDE : undefined),
    except,
  };
}

// ---- regions ----

const INSIDE = "inside";
const RESULT_MEMBERS: ReadonlySet<string> = new Set([
  "content",
  "contents",
  "messages",
  "description",
  "completion",
  "isError",
  "resultType",
  "nextCursor",
  "requestState",
  "ttlMs",
  "cacheScope",
  "inputRequests",
  "task",
  "tasks",
  "taskId",
  "status",
  "statusMessage",
  "createdAt",
  "lastUpdatedAt",
  "ttl",
  "pollInterval",
  "pollIntervalMs",
]);
const NOTIFICATION_MEMBERS: ReadonlySet<string> = new Set([
  "progressToken",
  "progress",
  "total",
  "message",
  "level",
  "logger",
  "requestId",
  "reason",
  "uri",
  "taskId",
  "status",
  "statusMessage",
  "elicitationId",
]);

function regionOfResult(of: string, key: string): string | undefined {
  if (of === INSIDE) return INSIDE;
  // The state of a task that is over has its result in it (2026-07-28, Tasks).
  if (of === "" && key === "result") return "";
  if (of === "" && key === "error") return "error";
  if (of === "error") return key === "data" ? undefined : INSIDE;
  return RESULT_MEMBERS.has(key) ? INSIDE : undefined;
}

function regionOfNotification(of: string, key: string): string | undefined {
  return of === INSIDE || NOTIFICATION_MEMBERS.has(key) ? INSIDE : undefined;
}

// ---- what is passed over ----

const RELATED_TASK = "io.modelcontextprotocol/related-task";

function passResult(value: JsonObject, at: string, mask: MaskText, except: Places): void {
  for (const key of ["nextCursor", "requestState", "taskId"]) pass(value, key, at, except);
  const { content, contents, messages, task, tasks, inputRequests, result, _meta: meta } = value;
  if (Array.isArray(content)) passBlocks(content as JsonValue[], `${at}/content`, mask, except);
  if (Array.isArray(contents)) passBlocks(contents as JsonValue[], `${at}/contents`, mask, except);
  if (Array.isArray(messages)) passMessages(messages as JsonValue[], `${at}/messages`, mask, except);
  if (isObject(task)) pass(task, "taskId", `${at}/task`, except);
  if (Array.isArray(tasks))
    for (const [index, one] of tasks.entries()) if (isObject(one)) pass(one, "taskId", `${at}/tasks/${index}`, except);
  if (isObject(meta) && isObject(meta[RELATED_TASK]))
    pass(meta[RELATED_TASK], "taskId", `${at}/_meta/${RELATED_TASK}`, except);
  if (isObject(inputRequests))
    for (const [key, request] of Object.entries(inputRequests))
      if (isObject(request) && isObject(request["params"]))
        passQuestion(request["params"], `${at}/inputRequests/${key}/params`, mask, except);
  if (isObject(result) && at === "") passResult(result, "/result", mask, except);
}

/** A page that a user has to open is opened as it is, or not at all. */
function passQuestion(value: JsonObject, at: string, mask: MaskText, except: Places): void {
  if (value["mode"] === "url") for (const key of ["url", "elicitationId"]) pass(value, key, at, except);
  if (Array.isArray(value["messages"])) passMessages(value["messages"] as JsonValue[], `${at}/messages`, mask, except);
}

function passMessages(messages: readonly JsonValue[], at: string, mask: MaskText, except: Places): void {
  for (const [index, message] of messages.entries()) {
    const content = isObject(message) ? message["content"] : undefined;
    if (Array.isArray(content)) passBlocks(content as JsonValue[], `${at}/${index}/content`, mask, except);
    else if (isObject(content)) passBlock(content, `${at}/${index}/content`, mask, except);
  }
}

function passBlocks(blocks: readonly JsonValue[], at: string, mask: MaskText, except: Places): void {
  for (const [index, block] of blocks.entries()) if (isObject(block)) passBlock(block, `${at}/${index}`, mask, except);
}

function passBlock(block: JsonObject, at: string, mask: MaskText, except: Places): void {
  passUri(block, at, mask, except);
  if (isObject(block["resource"])) passUri(block["resource"], `${at}/resource`, mask, except);
  if (block["type"] === "image" || block["type"] === "audio") passBinary(block, "data", at, mask, except);
  passBinary(block, "blob", at, mask, except);
  if (isObject(block["resource"])) passBinary(block["resource"], "blob", `${at}/resource`, mask, except);
}

function passUri(holder: JsonObject, at: string, mask: MaskText, except: Places): void {
  const { uri } = holder;
  const shown = typeof uri === "string" ? maskedUri(uri, mask) : undefined;
  if (typeof uri === "string" && shown !== undefined)
    except.set(`${at}/uri`, { is: encoded(uri), shown: encoded(shown) });
}

/** A URI without what is private behind its escapes (RFC 3986 §2.1); undefined when they hide nothing. */
export function maskedUri(uri: string, mask: MaskText): string | undefined {
  if (!uri.includes("%")) return undefined;
  let plain: string;
  try {
    plain = decodeURIComponent(uri);
  } catch {
    return undefined; // No escapes, or none of a text.
  }
  const masked = mask(plain);
  return masked === plain ? undefined : encodeURI(masked);
}

/** Base64 of a text is masked as that text; anything else in base64 says nothing that could be told. */
function passBinary(holder: JsonObject, key: string, at: string, mask: MaskText, except: Places): void {
  const data = holder[key];
  if (typeof data !== "string" || data.length % 4 !== 0 || !BASE64.test(data)) return;
  const is = encoded(data);
  const text = textIn(data);
  const masked = text === undefined ? undefined : mask(text);
  const shown = masked === text || masked === undefined ? is : Buffer.from(masked).toString("base64");
  except.set(`${at}/${key}`, { is, shown });
}

const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const LOOKED_AT = 1024;

function textIn(base64: string): string | undefined {
  // A picture tells by its first bytes.
  if (!isText(Buffer.from(base64.slice(0, LOOKED_AT), "base64"), base64.length > LOOKED_AT)) return undefined;
  const bytes = Buffer.from(base64, "base64");
  return isText(bytes, false) ? bytes.toString("utf8") : undefined;
}

function isText(bytes: Buffer, cut: boolean): boolean {
  if (bytes.includes(0)) return false;
  if (isUtf8(bytes)) return true;
  // A character may have been cut at the end.
  return cut && [1, 2, 3].some((less) => isUtf8(bytes.subarray(0, bytes.length - less)));
}

function pass(holder: JsonObject, key: string, at: string, except: Places): void {
  const value = holder[key];
  if (typeof value !== "string" && typeof value !== "number") return;
  const is = typeof value === "string" ? encoded(value) : String(value);
  except.set(`${at}/${key}`, { is, shown: is });
}
