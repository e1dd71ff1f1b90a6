/** How often and how many at a time: the `limits` of the settings, per user and client, in this process. */
import type { Principal, Target } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { ownerOf } from "../mcp/sessions.ts";
import type { LimitsSettings } from "../policy/settings.ts";

export interface Limits {
  /** Counts one request. Throws `rate_limited` with the seconds to wait. */
  spend(principal: Principal): void;
  /** Counts one call of a target, when the settings limit that. Throws `rate_limited`. */
  spendOn(principal: Principal, target: Target): void;
  /** Takes one of the principal's places for calls under way; give it back with `leave`. Throws `rate_limited`. */
  enter(principal: Principal): void;
  leave(principal: Principal): void;
  /** Other limits count from now on; what was counted stays counted. */
  change(settings: LimitsSettings): void;
}

export function openLimits(first: LimitsSettings, clock: Clock = systemClock): Limits {
  let settings = first;
  const requests = window(() => settings.perPrincipalPerMinute, clock);
  const calls = window(() => settings.perToolPerMinute, clock);
  const underWay = new Map<string, number>();
  return {
    spend: (principal) => requests(ownerOf(principal), "requests"),
    spendOn(principal, target) {
      if (settings.perToolPerMinute === undefined) return;
      calls(`${ownerOf(principal)}\n${target.kind}\n${target.name}`, `calls of ${target.name}`);
    },
    enter(principal) {
      const owner = ownerOf(principal);
      const now = underWay.get(owner) ?? 0;
      if (now >= settings.concurrentPerPrincipal) {
        const message = `Too many calls at the same time (limit ${settings.concurrentPerPrincipal}).`;
        throw new DrawbridgeError("rate_limited", message, { retryAfterSeconds: 1 });
      }
      underWay.set(owner, now + 1);
    },
    leave(principal) {
      const owner = ownerOf(principal);
      const left = (underWay.get(owner) ?? 1) - 1;
      if (left > 0) underWay.set(owner, left);
      else underWay.delete(owner);
    },
    change(wanted) {
      settings = wanted;
    },
  };
}

const WINDOW_MS = 60_000;
/** Windows that ended are forgotten when there are so many. */
const MAX_WINDOWS = 10_000;

/** Counts by key within windows of a minute that begin with the first count. */
function window(limitNow: () => number | undefined, clock: Clock): (key: string, what: string) => void {
  const windows = new Map<string, { count: number; readonly endsAt: number }>();
  return (key, what) => {
    const now = clock();
    let current = windows.get(key);
    if (current === undefined || current.endsAt <= now) {
      if (windows.size >= MAX_WINDOWS) for (const [old, { endsAt }] of windows) if (endsAt <= now) windows.delete(old);
      current = { count: 0, endsAt: now + WINDOW_MS };
      windows.set(key, current);
    }
    const limit = limitNow();
    if (++current.count <= (limit ?? Number.POSITIVE_INFINITY)) return;
    const seconds = Math.ceil((current.endsAt - now) / 1000);
    const message = `Too many ${what}: ${limit} a minute are permitted. Try again in ${seconds} s.`;
    throw new DrawbridgeError("rate_limited", message, { retryAfterSeconds: seconds });
  };
}
