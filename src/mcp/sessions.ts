/**
 * Sessions of clients that speak 2025-11-25 or older. A session is a small record, bound to the principal that opened it: no
 * process, no transport and no SDK object hangs on it.
 */
import {
  type Authenticated,
  type JsonObject,
  LEGACY_REVISIONS,
  type LegacyRevision,
  type Principal,
  type RequestId,
} from "../core/call.ts";

export interface Session {
  readonly id: string;
  /** Subject and client; both stay the same when a token is refreshed. */
  readonly owner: string;
  /** The newest proof of who that is: tokens are refreshed while a session lives. */
  by: Authenticated;
  readonly revision: LegacyRevision;
  readonly clientName: string;
  /** What the client declared at `initialize`. */
  readonly capabilities: JsonObject;
  logLevel: string | undefined;
  lastUsed: number;
  /** Cancels calls under way by the client's own ids; created with the first one. */
  calls: Map<RequestId, AbortController> | undefined;
  /** Resources the client subscribed to, with their servers; created with the first one. */
  subscriptions: ReadonlyMap<string, string> | undefined;
}

export function ownerOf(principal: Principal): string {
  return `${principal.subject}\n${principal.client}`;
}

/** The revision we answer to `initialize`: the client's own when we know it, else our newest with sessions (MCP, Lifecycle, Version Negotiation). */
export function negotiate(requested: unknown): LegacyRevision {
  return LEGACY_REVISIONS.find((revision) => revision === requested) ?? "2025-11-25";
}
