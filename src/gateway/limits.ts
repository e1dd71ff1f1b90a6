/** How often and how many at a time: the `limits` of the settings, per user and client, in this process. */
import { RateLimiterMemory, RateLimiterRes } from "rate-limiter-flexible";
import type { Principal, Target } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { ownerOf } from "../mcp/sessions.ts";
import type { LimitsSettings } from "../policy/settings.ts";

export interface Limits {
  /** Counts one request. Throws `rate_limited` with the seconds to wait. */
  spend(principal: Principal): Promise<void>;
  /** Whether the settings limit calls of one target. */
  readonly perTarget: boolean;
  /** Counts one call of a target, when the settings limit that. */
  spendOn(principal: Principal, target: Target): Promise<void>;
  /** Takes one of the principal's places for calls under way; give it back with the function returned. Throws `rate_limited`. */
  enter(principal: Principal): () => void;
}

export function openLimits(settings: LimitsSettings): Limits {
  const perPrincipal = new RateLimiterMemory({ points: settings.perPrincipalPerMinute, duration: 60 });
  const perTool =
    settings.perToolPerMinute === undefined
      ? undefined
      : new RateLimiterMemory({ points: settings.perToolPerMinute, duration: 60 });
  const underWay = new Map<string, number>();
  return {
    perTarget: perTool !== undefined,
    spend: (principal) => consume(perPrincipal, ownerOf(principal), "requests"),
    async spendOn(principal, target) {
      if (perTool !== undefined)
        await consume(perTool, `${ownerOf(principal)}\n${target.kind}\n${target.name}`, `calls of ${target.name}`);
    },
    enter(principal) {
      const owner = ownerOf(principal);
      const now = underWay.get(owner) ?? 0;
      if (now >= settings.concurrentPerPrincipal) {
        throw new DrawbridgeError(
          "rate_limited",
          `Too many calls at the same time (limit ${settings.concurrentPerPrincipal}).`,
          { retryAfterSeconds: 1 },
        );
      }
      underWay.set(owner, now + 1);
      return () => {
        const left = (underWay.get(owner) ?? 1) - 1;
        if (left > 0) underWay.set(owner, left);
        else underWay.delete(owner);
      };
    },
  };
}

async function consume(limiter: RateLimiterMemory, key: string, what: string): Promise<void> {
  try {
    await limiter.consume(key);
  } catch (thrown) {
    if (!(thrown instanceof RateLimiterRes)) throw thrown;
    const seconds = Math.max(1, Math.ceil(thrown.msBeforeNext / 1000));
    throw new DrawbridgeError(
      "rate_limited",
      `Too many ${what}: ${limiter.points} a minute are permitted. Try again in ${seconds} s.`,
      { retryAfterSeconds: seconds },
    );
  }
}
