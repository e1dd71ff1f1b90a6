/**
 * The method table: every JSON-RPC method the gateway knows, which revisions have it, what it is aimed at and which scope it
 * needs. A method that is not here is refused (404, -32601). To add one, add a row.
 */
import type { JsonObject, TargetKind } from "../core/call.ts";

export type Era = "legacy" | "modern";

/** Scope to see lists and to read resources and prompts. */
export const READ_SCOPE = "mcp:read";
/** Scope to call tools. */
export const CALL_SCOPE = "mcp:call";

export type ListKey = "tools" | "resources" | "resourceTemplates" | "prompts";

interface Shared {
  readonly eras: readonly Era[];
  readonly scope: typeof READ_SCOPE | typeof CALL_SCOPE | undefined;
}

export type MethodRow =
  /** Goes to one upstream: `target` says what it is aimed at, `undefined` when `params` does not say. */
  | (Shared & {
      readonly kind: "call";
      readonly target: (params: JsonObject) => { readonly kind: TargetKind; readonly name: string } | undefined;
    })
  /** Answered from the catalogue, filtered by policy. */
  | (Shared & { readonly kind: "list"; readonly list: ListKey })
  /** Answered by the gateway itself. */
  | (Shared & { readonly kind: "local" })
  /** Starts or stops notifications about one resource. */
  | (Shared & { readonly kind: "subscription" })
  /** About tasks that calls have made. */
  | (Shared & { readonly kind: "task" })
  /** A stream that stays open. */
  | (Shared & { readonly kind: "stream" });

const both: readonly Era[] = ["legacy", "modern"];

export const METHODS = {
  initialize: { kind: "local", eras: ["legacy"], scope: undefined },
  ping: { kind: "local", eras: ["legacy"], scope: undefined },
  "server/discover": { kind: "local", eras: ["modern"], scope: undefined },
  "logging/setLevel": { kind: "local", eras: ["legacy"], scope: undefined },
  "tools/list": { kind: "list", eras: both, scope: READ_SCOPE, list: "tools" },
  "resources/list": { kind: "list", eras: both, scope: READ_SCOPE, list: "resources" },
  "resources/templates/list": { kind: "list", eras: both, scope: READ_SCOPE, list: "resourceTemplates" },
  "prompts/list": { kind: "list", eras: both, scope: READ_SCOPE, list: "prompts" },
  "tools/call": { kind: "call", eras: both, scope: CALL_SCOPE, target: (params) => named("tool", params["name"]) },
  "prompts/get": { kind: "call", eras: both, scope: READ_SCOPE, target: (params) => named("prompt", params["name"]) },
  "resources/read": {
    kind: "call",
    eras: both,
    scope: READ_SCOPE,
    target: (params) => named("resource", params["uri"]),
  },
  "completion/complete": { kind: "call", eras: both, scope: READ_SCOPE, target: completionTarget },
  "resources/subscribe": { kind: "subscription", eras: ["legacy"], scope: READ_SCOPE },
  "resources/unsubscribe": { kind: "subscription", eras: ["legacy"], scope: READ_SCOPE },
  "tasks/get": { kind: "task", eras: both, scope: CALL_SCOPE },
  "tasks/cancel": { kind: "task", eras: both, scope: CALL_SCOPE },
  "tasks/result": { kind: "task", eras: ["legacy"], scope: CALL_SCOPE },
  "tasks/list": { kind: "task", eras: ["legacy"], scope: CALL_SCOPE },
  "tasks/update": { kind: "task", eras: ["modern"], scope: CALL_SCOPE },
  "subscriptions/listen": { kind: "stream", eras: ["modern"], scope: READ_SCOPE },
} as const satisfies Record<string, MethodRow>;

export type Method = keyof typeof METHODS;

export function methodRow(method: string, era: Era): MethodRow | undefined {
  if (!Object.hasOwn(METHODS, method)) return undefined;
  const row: MethodRow = METHODS[method as Method];
  return row.eras.includes(era) ? row : undefined;
}

/** Log levels of RFC 5424, least severe first (MCP, Logging). */
export const LOG_LEVELS: readonly string[] = [
  "debug",
  "info",
  "notice",
  "warning",
  "error",
  "critical",
  "alert",
  "emergency",
];

function named(kind: TargetKind, name: unknown) {
  return typeof name === "string" ? { kind, name } : undefined;
}

/** MCP, Completion: `ref/prompt` names a prompt, `ref/resource` a resource or a resource template. */
function completionTarget(params: JsonObject) {
  const ref = params["ref"];
  if (typeof ref !== "object" || ref === null || Array.isArray(ref)) return undefined;
  const { type, name, uri } = ref as JsonObject;
  if (type === "ref/prompt") return named("prompt", name);
  if (type === "ref/resource") return named("resource", uri);
  return undefined;
}
