/** One MCP server behind the gateway, whatever it is written in, whatever transport and revision it speaks. */
import type { Authenticated, JsonObject, Outcome, PermittedCall, Replies, Revision } from "../core/call.ts";

/** What an upstream says of itself when it is first reached. */
export interface UpstreamIdentity {
  readonly revision: Revision;
  /** Its `serverInfo` as it came. */
  readonly info: JsonObject;
  readonly capabilities: JsonObject;
  readonly instructions: string | undefined;
}

/** The four lists an MCP server can have. */
export type ListName = "tools" | "resources" | "resourceTemplates" | "prompts";

/** Who wants something of a server that keeps its callers apart. */
export interface Caller {
  readonly by: Authenticated;
  /** The client's session; undefined on 2026-07-28. */
  readonly session: string | undefined;
  /** What the client declared when the session began. */
  readonly capabilities?: JsonObject;
}

/** `instance` is what `instanceOf` says of those for whom it is, and of nobody else; undefined where all share. */
export interface UpstreamEvents {
  /** One of its lists changed (`notifications/…/list_changed`). */
  listChanged(list: ListName): void;
  /** `notifications/resources/updated`; `params` is JSON text. */
  resourceUpdated(uri: string, params: string, instance?: string): void;
  /** What a user had to visit a URL for is done (`notifications/elicitation/complete`, 2025-11-25); `params` is JSON text. */
  elicitationComplete?(params: string, instance?: string): void;
  /** The state of a task changed (`notifications/tasks/status`, 2025-11-25); `params` is JSON text. */
  taskStatus?(params: string): void;
}

export interface UpstreamState {
  readonly state: "starting" | "ready" | "degraded" | "stopped";
  /** Child processes (stdio) or open connections (HTTP). */
  readonly size: number;
  readonly inFlight: number;
  readonly queued: number;
  readonly restarts: number;
  /** Why it is not ready, in one sentence for the operator. */
  readonly problem: string | undefined;
  /** The newest lines of its stderr, stdio only. */
  readonly stderr: readonly string[];
  /** Tasks that its processes are kept for; undefined for HTTP. */
  readonly tasks?: number | undefined;
  /** Users or sessions with processes of their own; undefined when all share. */
  readonly instances?: number | undefined;
  /** How its processes are confined, in one sentence for the operator; undefined for HTTP. */
  readonly sandbox?: string | undefined;
  /** Counts the versions of it that were put in place since the start of the gateway, from 1. */
  readonly generation?: number | undefined;
  /** It takes no new calls, and finishes those in flight. */
  readonly draining?: boolean | undefined;
}

/** Implementations: `stdio.ts` (a pool of child processes) and `http.ts`. Both pass the same contract tests. */
export interface Upstream {
  readonly name: string;
  /** Reaches the server (once; later calls share the answer) and tells who it is. */
  identity(signal: AbortSignal): Promise<UpstreamIdentity>;
  /**
   * Every entry of one list, all pages read, each as the upstream's JSON text. Bounded: more than 10,000 entries or 1,000 pages
   * is refused with `upstream_failed`. A list that the server does not declare is empty. `capabilities`: those of the clients that
   * it is for, since servers may offer more to some; default: none.
   */
  list(list: ListName, signal: AbortSignal, capabilities?: JsonObject): Promise<readonly string[]>;
  /**
   * Sends one call and resolves with its one outcome. Throws `DrawbridgeError` (`upstream_unavailable`, `upstream_failed`,
   * `upstream_timeout`, `overloaded`, `answer_too_large`, `cancelled`; and with credentials what their maker rejects with, such
   * as `unauthenticated`) when there is none. Aborting `signal` cancels upstream
   * (`notifications/cancelled` or closing the request) and rejects at once. Never sends the caller's token or id.
   */
  send(call: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome>;
  /**
   * Starts or stops upstream notifications for one resource; counted by whoever asks, idempotent here. A server that keeps its
   * callers apart tells of a resource as the caller's own instance sees it, and needs `caller`.
   */
  subscribe(uri: string, signal: AbortSignal, caller?: Caller): Promise<void>;
  unsubscribe(uri: string, signal: AbortSignal, caller?: Caller): Promise<void>;
  /** Names the instance that serves a caller: equal names share processes, sessions and notifications. Absent, or undefined, where all share. */
  instanceOf?(caller: Caller): string | undefined;
  /** Ends at once what was kept for a client's session. */
  sessionEnded?(session: string): void;
  /** Ends at once what is kept for those for whom `stands` does not say yes: no, or no answer. */
  sweep?(stands: (by: Authenticated) => Promise<boolean>): Promise<void>;
  state(): UpstreamState;
  /** Lets calls in flight finish until `signal` aborts, then ends every process and connection. Leaves no orphan. */
  close(signal: AbortSignal): Promise<void>;
}
