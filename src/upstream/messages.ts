/** What both transports say to an MCP server and understand of it: request texts, notifications, questions, paged lists, identity. */
import {
  type JsonObject,
  LEGACY_REVISIONS,
  type LegacyRevision,
  type McpCall,
  MODERN_REVISION,
  type Outcome,
} from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { elementTexts, isObject, memberTexts, objectText, type UpstreamMessage } from "../mcp/json-text.ts";
import { LOG_LEVELS } from "../mcp/methods.ts";
import { TASKS_EXTENSION } from "../mcp/tasks.ts";
import { UPSTREAM_TOKEN } from "../mcp/upstream-token.ts";
import { PLAIN, toldOf } from "./capabilities.ts";
import type { ListName, UpstreamEvents, UpstreamIdentity } from "./upstream.ts";

/** The revision we ask a server with a handshake for. */
export const PREFERRED_LEGACY: LegacyRevision = "2025-11-25";

/** `capabilities`: what this connection declares for its clients, as JSON text. */
export const initializeParams = (version: string, capabilities: string) =>
  `{"protocolVersion":"${PREFERRED_LEGACY}","capabilities":${capabilities},"clientInfo":${clientInfo(version)}}`;
export const INITIALIZED = '{"jsonrpc":"2.0","method":"notifications/initialized"}';

/** Members of `_meta` that each request of 2026-07-28 carries (basic, General fields). Ends with the capabilities: none. */
export const envelopeMembers = (version: string) =>
  `"io.modelcontextprotocol/protocolVersion":"${MODERN_REVISION}","io.modelcontextprotocol/clientInfo":${clientInfo(version)},"io.modelcontextprotocol/clientCapabilities":{}`;

/** The same for a client that can do something, tasks among it where they are `accepted`. */
export function envelopeFor(envelope: string, capabilities: JsonObject, accepted = false): string {
  if (envelope === "") return envelope;
  const told = accepted ? withTasks(toldOf(capabilities)) : toldOf(capabilities);
  return told === PLAIN.capabilities ? envelope : `${envelope.slice(0, -2)}${JSON.stringify(told)}`;
}

function withTasks(told: JsonObject): JsonObject {
  const { extensions } = told;
  return { ...told, extensions: { ...(isObject(extensions) && extensions), [TASKS_EXTENSION]: {} } };
}

const clientInfo = (version: string) => JSON.stringify({ name: "drawbridge", version });

/** Keys of `_meta` that belong to one hop; ours take their place. */
const HOP_KEYS = new Set([
  "progressToken",
  "traceparent",
  "tracestate",
  "io.modelcontextprotocol/protocolVersion",
  "io.modelcontextprotocol/clientInfo",
  "io.modelcontextprotocol/clientCapabilities",
  "io.modelcontextprotocol/logLevel",
  "io.modelcontextprotocol/subscriptionId",
  UPSTREAM_TOKEN,
]);

/**
 * The request for one call, with our id for its id and progress token. Trace context goes into `_meta` without a prefix
 * (SEP-414). `envelope`: the members of 2026-07-28 for nobody in particular, or "" for a server with a handshake.
 */
export function callText(call: McpCall, id: number, envelope: string): string {
  let meta = envelopeFor(envelope, call.capabilities, call.task?.accepted);
  const add = (member: string) => {
    meta = meta === "" ? member : `${meta},${member}`;
  };
  for (const [key, text] of call.meta) if (!HOP_KEYS.has(key)) add(`${JSON.stringify(key)}:${text}`);
  if (call.progressToken !== undefined) add(`"progressToken":${id}`);
  if (envelope !== "" && call.logLevel !== undefined)
    add(`"io.modelcontextprotocol/logLevel":${JSON.stringify(call.logLevel)}`);
  const { trace } = call;
  if (trace.sampled || call.meta.has("traceparent")) {
    add(`"traceparent":"${traceparent(call)}"`);
    if (trace.tracestate !== undefined) add(`"tracestate":${JSON.stringify(trace.tracestate)}`);
  }
  if (call.handed !== undefined) add(call.handed());
  let params = "";
  for (const [key, text] of call.forward)
    if (key !== "_meta") params += `${params === "" ? "" : ","}${JSON.stringify(key)}:${text}`;
  if (meta !== "") params += `${params === "" ? "" : ","}"_meta":{${meta}}`;
  return `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(call.method)},"params":{${params}}}`;
}

/** W3C Trace Context §3.2 of our span. */
export function traceparent({ trace }: McpCall): string {
  return `00-${trace.traceId}-${trace.spanId}-${trace.sampled ? "01" : "00"}`;
}

/** A request of our own. `params` is JSON text of an object without `_meta`. */
export function requestText(id: number, method: string, params: string, envelope: string): string {
  if (envelope === "") return `{"jsonrpc":"2.0","id":${id},"method":"${method}","params":${params}}`;
  const rest = params === "{}" ? "" : `,${params.slice(1, -1)}`;
  return `{"jsonrpc":"2.0","id":${id},"method":"${method}","params":{"_meta":{${envelope}}${rest}}}`;
}

export function cancelledText(id: number, reason: string): string {
  return `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":${id},"reason":${JSON.stringify(reason)}}}`;
}

type Notification = Extract<UpstreamMessage, { kind: "notification" }>;
type Response = Extract<UpstreamMessage, { kind: "result" | "error" }>;

export function outcomeOf(response: Response): Outcome {
  return response.kind === "result"
    ? { kind: "result", result: response.result, value: response.value }
    : { kind: "error", code: response.code, message: response.message, data: response.data };
}

/** `params` of a progress notification with the client's own token put back. */
export function progressParams(notification: Notification, call: McpCall): string {
  const members = new Map(notification.paramTexts);
  members.set("progressToken", JSON.stringify(call.progressToken));
  return objectText(members);
}

/** `params` of a notification as the server wrote them. */
export const paramsText = (notification: Notification): string => objectText(notification.paramTexts);

/** Whether a `notifications/message` is at or above the level that the call asked for. */
export function wantsMessage(call: McpCall, notification: Notification): boolean {
  if (call.logLevel === undefined) return false;
  const level = LOG_LEVELS.indexOf(String(notification.params["level"]));
  return level < 0 || level >= LOG_LEVELS.indexOf(call.logLevel);
}

/** Reports what belongs to no call; false when the notification is something else. */
export function reportChange(notification: Notification, events: UpstreamEvents): boolean {
  switch (notification.method) {
    case "notifications/tools/list_changed":
      events.listChanged("tools");
      return true;
    case "notifications/prompts/list_changed":
      events.listChanged("prompts");
      return true;
    case "notifications/resources/list_changed":
      events.listChanged("resources");
      events.listChanged("resourceTemplates");
      return true;
    case "notifications/resources/updated": {
      const uri = notification.params["uri"];
      if (typeof uri === "string") events.resourceUpdated(uri, objectText(withoutSubscriptionId(notification)));
      return true;
    }
    case "notifications/tasks/status":
      events.taskStatus?.(objectText(notification.paramTexts));
      return true;
    case "notifications/elicitation/complete":
      events.elicitationComplete?.(objectText(notification.paramTexts));
      return true;
    default:
      return false;
  }
}

/** The subscription id is that of our own `subscriptions/listen`. */
function withoutSubscriptionId(notification: Notification): ReadonlyMap<string, string> {
  const meta = notification.params["_meta"];
  if (!isObject(meta) || meta["io.modelcontextprotocol/subscriptionId"] === undefined) return notification.paramTexts;
  const members = new Map(notification.paramTexts);
  const rest = memberTexts(members.get("_meta") ?? "{}");
  rest?.delete("io.modelcontextprotocol/subscriptionId");
  if (rest === undefined || rest.size === 0) members.delete("_meta");
  else members.set("_meta", objectText(rest));
  return members;
}

/** Reads the answer to `initialize`; throws `upstream_failed` when the server wants a revision we do not speak. */
export function legacyIdentity(name: string, value: JsonObject): UpstreamIdentity {
  const revision = LEGACY_REVISIONS.find((known) => known === value["protocolVersion"]);
  if (revision === undefined) {
    throw new DrawbridgeError(
      "upstream_failed",
      `The server "${name}" speaks no protocol revision that the gateway knows.`,
      {
        detail: `initialize was answered with protocolVersion ${JSON.stringify(value["protocolVersion"])}`,
      },
    );
  }
  return {
    revision,
    info: objectOr(value["serverInfo"]),
    capabilities: objectOr(value["capabilities"]),
    instructions: textOr(value["instructions"]),
  };
}

/** Reads the answer to `server/discover`. */
export function modernIdentity(name: string, value: JsonObject): UpstreamIdentity {
  const versions = value["supportedVersions"];
  if (Array.isArray(versions) && !versions.includes(MODERN_REVISION)) {
    throw new DrawbridgeError(
      "upstream_failed",
      `The server "${name}" speaks no protocol revision that the gateway knows.`,
      {
        detail: `server/discover offers ${JSON.stringify(versions)}`,
      },
    );
  }
  const meta = objectOr(value["_meta"]);
  return {
    revision: MODERN_REVISION,
    info: objectOr(meta["io.modelcontextprotocol/serverInfo"]),
    capabilities: objectOr(value["capabilities"]),
    instructions: textOr(value["instructions"]),
  };
}

const objectOr = (value: unknown): JsonObject => (isObject(value) ? value : {});
const textOr = (value: unknown) => (typeof value === "string" ? value : undefined);

/** `params` of `subscriptions/listen`: everything that the capabilities promise; undefined when that is nothing. */
export function listenParams({ capabilities }: UpstreamIdentity, subscribed: ReadonlySet<string>): string | undefined {
  const changes = (key: string) => objectOr(capabilities[key])["listChanged"] === true;
  const filter = {
    ...(changes("tools") && { toolsListChanged: true }),
    ...(changes("prompts") && { promptsListChanged: true }),
    ...(changes("resources") && { resourcesListChanged: true }),
    ...(subscribed.size > 0 && { resourceSubscriptions: [...subscribed] }),
  };
  return Object.keys(filter).length === 0 ? undefined : JSON.stringify({ notifications: filter });
}

const LISTS = {
  tools: { method: "tools/list", capability: "tools" },
  resources: { method: "resources/list", capability: "resources" },
  resourceTemplates: { method: "resources/templates/list", capability: "resources" },
  prompts: { method: "prompts/list", capability: "prompts" },
} as const satisfies Record<ListName, { method: string; capability: string }>;

const MAX_ENTRIES = 10_000;
const MAX_PAGES = 1_000;
const METHOD_NOT_FOUND = -32601;

/** Reads every page of one list through `request`. The promises are those of `Upstream.list`. */
export async function readList(
  name: string,
  list: ListName,
  identity: UpstreamIdentity,
  request: (method: string, params: string) => Promise<Outcome>,
): Promise<readonly string[]> {
  const { method, capability } = LISTS[list];
  if (!isObject(identity.capabilities[capability])) return [];
  const entries: string[] = [];
  let cursor: string | undefined;
  for (let page = 0; page < MAX_PAGES; page++) {
    const outcome = await request(method, cursor === undefined ? "{}" : JSON.stringify({ cursor }));
    if (outcome.kind === "error") {
      // A server may offer resources and know nothing of templates.
      if (outcome.code === METHOD_NOT_FOUND) return entries;
      throw new DrawbridgeError("upstream_failed", `The server "${name}" could not list its ${list}.`, {
        detail: `${method} was answered with ${outcome.code}: ${outcome.message}`,
      });
    }
    const found = outcome.value[list];
    // Entries keep their bytes, numbers of any size among them, unless two parsers could read them differently.
    const text = memberTexts(outcome.result)?.get(list);
    const texts = text === undefined ? [] : elementTexts(text);
    for (const [at, entry] of (Array.isArray(found) ? found : []).entries())
      if (isObject(entry)) entries.push(texts[at] ?? JSON.stringify(entry));
    if (entries.length > MAX_ENTRIES) break;
    const next = outcome.value["nextCursor"];
    if (typeof next !== "string" || next === "") return entries;
    cursor = next;
  }
  throw new DrawbridgeError("upstream_failed", `The server "${name}" has too many ${list}.`, {
    detail: `more than ${MAX_ENTRIES} entries or ${MAX_PAGES} pages`,
  });
}
