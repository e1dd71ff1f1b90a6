/**
 * Sessions of clients that speak 2025-11-25 or older. A session is a small record, bound to the principal that opened it: no
 * process, no transport and no SDK object hangs on it.
 */
import {
  type JsonObject,
  LEGACY_REVISIONS,
  type LegacyRevision,
  type Principal,
  type RequestId,
} from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newToken } from "../core/ids.ts";

export interface Session {
  readonly id: string;
  /** Subject and client; both stay the same when a token is refreshed. */
  readonly owner: string;
  readonly revision: LegacyRevision;
  readonly clientName: string;
  /** What the client declared at `initialize`. */
  readonly capabilities: JsonObject;
  logLevel: string | undefined;
  lastUsed: number;
  /** Cancels calls under way by the client's own ids; created with the first one. */
  calls: Map<RequestId, AbortController> | undefined;
  /** Resources the client subscribed to, with their servers; created with the first one. */
  subscriptions: Map<string, string> | undefined;
}

export interface Sessions {
  open(principal: Principal, requested: unknown, clientName: string, capabilities?: JsonObject): Session;
  /** Throws `unknown_session` for one that is not there, has ended, or belongs to somebody else: all three look the same. */
  find(id: string, principal: Principal): Session;
  end(session: Session): void;
  readonly size: number;
}

export interface SessionLimits {
  readonly maxSessions: number;
  readonly sessionIdleSeconds: number;
}

export function ownerOf(principal: Principal): string {
  return `${principal.subject}\n${principal.client}`;
}

/** The revision we answer to `initialize`: the client's own when we know it, else our newest with sessions (MCP, Lifecycle, Version Negotiation). */
export function negotiate(requested: unknown): LegacyRevision {
  return LEGACY_REVISIONS.find((revision) => revision === requested) ?? "2025-11-25";
}

/** Sessions in this process. `onEnd` hears of each end: by the client, by idleness, or because there were too many. */
export function openSessions(
  limits: SessionLimits,
  onEnd: (session: Session) => void,
  clock: Clock = systemClock,
): Sessions {
  // A Map keeps insertion order; using a session puts it last, so the first is the one unused for longest.
  const sessions = new Map<string, Session>();
  const idleMs = limits.sessionIdleSeconds * 1000;
  const end = (session: Session) => {
    if (!sessions.delete(session.id)) return;
    for (const call of session.calls?.values() ?? []) call.abort();
    onEnd(session);
  };
  const reap = (now: number) => {
    for (const session of sessions.values()) {
      if (sessions.size <= limits.maxSessions && now - session.lastUsed <= idleMs) return;
      end(session);
    }
  };
  return {
    open(principal, requested, clientName, capabilities = {}) {
      const now = clock();
      const session: Session = {
        id: newToken(),
        owner: ownerOf(principal),
        revision: negotiate(requested),
        clientName,
        capabilities,
        logLevel: undefined,
        lastUsed: now,
        calls: undefined,
        subscriptions: undefined,
      };
      sessions.set(session.id, session);
      reap(now);
      return session;
    },
    find(id, principal) {
      const now = clock();
      const session = sessions.get(id);
      if (session === undefined || session.owner !== ownerOf(principal) || now - session.lastUsed > idleMs) {
        throw new DrawbridgeError(
          "unknown_session",
          "This session is not known here. Start a new one with `initialize`.",
        );
      }
      // Moving it to the end for each call would cost more than it tells; once a second is enough.
      if (now - session.lastUsed > 1000) {
        session.lastUsed = now;
        sessions.delete(id);
        sessions.set(id, session);
      }
      return session;
    },
    end,
    get size() {
      return sessions.size;
    },
  };
}
