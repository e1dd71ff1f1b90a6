/** Counts on a Redis server that several replicas share: each question is one script, so one round trip. */
import { checkUrl } from "../place.ts";
import { openRedis } from "./connection.ts";

/** What is counted, and up to where. */
export interface Counted {
  /** `place`: one at a time, until it is left. `request`: raised even when another count refuses. */
  readonly kind: "request" | "minute" | "day" | "place";
  /** Short, and of any characters. */
  readonly name: string;
  readonly limit: number;
  /** A whole number. */
  readonly cost: number;
}

/** A place that somebody has. */
export interface Held {
  readonly name: string;
  readonly holder: string;
}

export interface RedisCounters {
  /**
   * Raises all counts and takes all places for `holder`, or none; then says which refused, and after how many milliseconds it may not.
   * Rejects with `internal`: then they may have been raised.
   */
  take(
    holder: string,
    counts: readonly Counted[],
  ): Promise<{ readonly refused: Counted; readonly waitMs: number } | undefined>;
  leave(places: readonly Held[]): Promise<void>;
  /** Places that are not renewed for `LEASE_MS` are free. */
  renew(places: readonly Held[]): Promise<void>;
  /** Rejects while the server does not answer. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

export const LEASE_MS = 30_000;
/** Places in one script, so that it does not hold up others. */
const AT_ONCE = 500;

/** Throws `settings_invalid` when the server cannot be reached within ten seconds, or refuses us. */
export async function openRedisCounters(url: string, warn: (message: string) => void): Promise<RedisCounters> {
  checkUrl(url, "cache");
  const redis = await openRedis(url, warn, "cache");
  const { protocol, hostname } = new URL(url);
  if (protocol === "redis:" && !/^(localhost|127\..*|\[::1\])$/i.test(hostname))
    warn(`The connection to the cache ${redis.place} is not encrypted; use rediss:// where the server can.`);
  const inGroups = async (places: readonly Held[], run: (words: readonly string[]) => Promise<unknown>) => {
    const groups: Promise<unknown>[] = [];
    // All are sent now: what is sent after them is done after them.
    for (let at = 0; at < places.length; at += AT_ONCE)
      groups.push(run(places.slice(at, at + AT_ONCE).flatMap(({ name, holder }) => [name, holder])));
    await Promise.all(groups);
  };
  return {
    async take(holder, counts) {
      const words = counts.flatMap(({ kind, name, limit, cost }) => [kind, name, String(limit), String(cost)]);
      const reply = await redis.run("countTake", [holder, String(LEASE_MS), ...words]);
      const [which, waitMs] = Array.isArray(reply) ? reply.map(Number) : [];
      const refused = counts[(which ?? 0) - 1];
      return refused && { refused, waitMs: waitMs ?? 0 };
    },
    leave: (places) => inGroups(places, (words) => redis.run("countLeave", words)),
    renew: (places) => inGroups(places, (words) => redis.run("countRenew", [String(LEASE_MS), ...words])),
    async ping() {
      await redis.command("PING");
    },
    close: () => redis.close(),
  };
}
