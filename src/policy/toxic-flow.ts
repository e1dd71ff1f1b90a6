/**
 * The toxic flow: whoever read private data and then met text of strangers may be made to carry the one out on a word of the other.
 * From then on calls that send outside, or destroy, need somebody's approval. A small state for each user and client, in memory.
 */
import { type Clock, systemClock } from "../core/clock.ts";

/** What is known of the answers that a client has received for its user. */
export interface FlowFacts {
  /** Private data was read: a tool whose contract masks something, or an answer in which people or secrets were found. */
  readonly privateRead: boolean;
  /** Text of strangers came in: a tool that reaches an open world, or an answer with findings. */
  readonly untrustedSeen: boolean;
}

/** Whose flow it is. Sessions of 2025 have flows of their own; those of 2026 have no sessions. */
export interface FlowKey {
  readonly subject: string;
  readonly client: string;
  readonly session?: string | undefined;
}

/** What is known of a tool before it is called. */
export interface FlowTool {
  readonly openWorld: boolean;
  readonly destructive: boolean;
}

export interface ToxicFlow {
  /** Takes down what an answer brought. Facts add up, and are forgotten together when nothing new came for `keepSeconds`. */
  saw(key: FlowKey, facts: FlowFacts): void;
  factsOf(key: FlowKey): FlowFacts;
  /** Forgets a session, or all that a user's client has read without one. */
  forget(key: FlowKey): void;
}

export interface FlowLimits {
  /** How long facts are held after they were last seen. */
  readonly keepSeconds: number;
  /** Flows at one time. Beyond, whoever is not known counts as having met both, until others are forgotten. */
  readonly maxFlows: number;
}

const NONE: FlowFacts = Object.freeze({ privateRead: false, untrustedSeen: false });
const BOTH: FlowFacts = Object.freeze({ privateRead: true, untrustedSeen: true });
const LIMITS: FlowLimits = { keepSeconds: 3600, maxFlows: 100_000 };

/** True when a call of this tool needs approval after what was seen: the reason is the flow and not the tool. */
export function toxic(facts: FlowFacts, tool: FlowTool): boolean {
  return facts.privateRead && facts.untrustedSeen && (tool.openWorld || tool.destructive);
}

/** Keeps flows in memory, the oldest first, so that what has expired is found at once. */
export function toxicFlow(limits: Partial<FlowLimits> = {}, clock: Clock = systemClock): ToxicFlow {
  const { keepSeconds, maxFlows } = { ...LIMITS, ...limits };
  const flows = new Map<string, { readonly facts: FlowFacts; readonly until: number }>();
  // Full: a fact was lost, so nobody unknown is trusted before all that were known then have expired.
  let lostUntil = 0;

  const expire = (now: number) => {
    for (const [key, { until }] of flows) {
      if (until > now) return;
      flows.delete(key);
    }
  };

  return {
    saw: (key, { privateRead, untrustedSeen }) => {
      if (!privateRead && !untrustedSeen) return;
      const now = clock();
      expire(now);
      const id = idOf(key);
      const before = flows.get(id)?.facts ?? (now < lostUntil ? BOTH : NONE);
      // At the end of the map stand those that expire last.
      flows.delete(id);
      if (flows.size >= maxFlows) {
        lostUntil = now + keepSeconds * 1000;
        return;
      }
      flows.set(id, {
        facts: {
          privateRead: privateRead || before.privateRead,
          untrustedSeen: untrustedSeen || before.untrustedSeen,
        },
        until: now + keepSeconds * 1000,
      });
    },
    factsOf: (key) => {
      const now = clock();
      const flow = flows.get(idOf(key));
      if (flow !== undefined && flow.until > now) return flow.facts;
      return now < lostUntil ? BOTH : NONE;
    },
    forget: (key) => {
      flows.delete(idOf(key));
    },
  };
}

function idOf({ subject, client, session }: FlowKey): string {
  return JSON.stringify([subject, client, session ?? ""]);
}
