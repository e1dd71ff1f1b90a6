/**
 * Counts that replicas share by Redis. While Redis is away, or slow, nobody waits for it: each replica counts by itself then, and what
 * it counted by itself is not added later.
 */
import { DrawbridgeError } from "../../core/errors.ts";
import type { Logger } from "../../observe/logger.ts";
import type { Held, RedisCounters } from "../../store/redis/counters.ts";
import { LEASE_MS, openRedisCounters } from "../../store/redis/counters.ts";
import type { Refused } from "./counts.ts";
import { digestOf, type Gate, PARTS } from "./gates.ts";

export interface CachedCounts {
  /** Undefined: let through. False: nobody can say now, and what this process counted decides. */
  take(gates: readonly Gate[], holder: string): Promise<Refused | undefined | false>;
  /** Gives back the places of a holder. */
  leave(gates: readonly Gate[], holder: string): void;
  /** Whether the replicas count together at this moment. */
  readonly together: boolean;
  close(): Promise<void>;
}

export interface CachedCountsOptions {
  readonly url: string;
  readonly log: Logger;
  readonly open?: (url: string, warn: (message: string) => void) => Promise<RedisCounters>;
  /** How long a call waits for Redis. */
  readonly deadlineMs?: number;
  /** How long after it could not be reached at the start it is tried again. */
  readonly reopenMs?: number;
}

const DEADLINE_MS = 100;
/** What refuses us says so within this time; what cannot be reached is waited for beside the calls. */
const REFUSES_WITHIN_MS = 1_000;
const AGAIN_MS = 500;
const REOPEN_MS = 5_000;
/** Leaving and renewing do not wait in line for longer: leases end by themselves. */
const MAX_HELD = 100_000;

/** Throws `settings_invalid` when Redis refuses us. One that cannot be reached is asked again and again, beside the calls. */
export async function openCachedCounts(options: CachedCountsOptions): Promise<CachedCounts> {
  const { url, log, open = openRedisCounters, deadlineMs = DEADLINE_MS, reopenMs = REOPEN_MS } = options;
  let counters: RedisCounters | undefined;
  let away = true;
  let closed = false;
  let probe: NodeJS.Timeout | undefined;
  let told = false;
  const held = new Map<string, Held>();
  /** Places that were left while nobody could be told. */
  let left: Held[] = [];

  const opening = () => open(url, (message) => log.warn({}, message));
  const opened = (made: RedisCounters) => {
    if (closed) return void made.close();
    counters = made;
    cameBack();
  };
  async function reopen(tried: Promise<RedisCounters>): Promise<void> {
    try {
      opened(await tried);
    } catch (error) {
      wentAway(error);
      if (closed) return;
      probe = setTimeout(() => {
        probe = undefined;
        void reopen(opening());
      }, reopenMs).unref();
    }
  }

  const first = opening();
  const late = new Promise<"late">((resolve) => setTimeout(resolve, REFUSES_WITHIN_MS, "late").unref());
  const ended = await Promise.race([first, late]);
  if (ended === "late") {
    wentAway(new Error("it cannot be reached"));
    void reopen(first);
  } else opened(ended);

  function wentAway(error: unknown): void {
    if (away && told) return;
    away = true;
    told = true;
    const { message, detail } = DrawbridgeError.from(error);
    log.warn(
      { problem: detail ?? message },
      "the cache does not answer: until it does, each replica counts limits by itself",
    );
  }

  function cameBack(): void {
    if (!away) return;
    away = false;
    if (told) log.info({}, "the cache answers again: replicas count limits together");
    told = false;
  }

  function probeLater(): void {
    if (closed || probe !== undefined) return;
    probe = setTimeout(async () => {
      probe = undefined;
      const came = counters !== undefined && (await answered(counters.ping()));
      // Places that were taken and left meanwhile, or lost with the server, are told before anybody counts on them.
      if (came && (await answered(tellLeft())) && (await answered(renew()))) cameBack();
      else probeLater();
    }, AGAIN_MS);
    probe.unref();
  }

  const answered = (asked: Promise<unknown>) =>
    within(asked, deadlineMs).then(
      () => true,
      () => false,
    );
  const renew = async () => {
    if (held.size > 0) await counters?.renew([...held.values()]);
  };
  const tellLeft = async () => {
    const places = left;
    left = [];
    if (places.length > 0) await counters?.leave(places);
  };
  const renewing = setInterval(() => {
    if (!away) renew().catch(failed);
  }, LEASE_MS / 3);
  renewing.unref();

  function failed(error: unknown): void {
    if (closed) return;
    wentAway(error);
    probeLater();
  }

  const hold = (gates: readonly Gate[], holder: string) => {
    for (const { kind, key } of gates) {
      if (kind !== "place" || held.size >= MAX_HELD) continue;
      const name = digestOf(key);
      held.set(`${name} ${holder}`, { name, holder });
    }
  };

  return {
    async take(gates, holder) {
      // Held even when nobody can say: when Redis is back it hears of the places.
      hold(gates, holder);
      if (away || counters === undefined) return false;
      const counts = gates.map(({ kind, key, limit, cost }) => ({
        kind,
        name: digestOf(key),
        limit: kind === "place" ? limit : limit * PARTS,
        cost,
      }));
      try {
        const answer = await within(counters.take(holder, counts), deadlineMs);
        if (answer === undefined) return undefined;
        const gate = gates[counts.indexOf(answer.refused as (typeof counts)[number])];
        if (gate === undefined) return false;
        forget(gates, holder);
        return { gate, waitMs: answer.waitMs };
      } catch (error) {
        failed(error);
        return false;
      }
    },
    leave(gates, holder) {
      const places = forget(gates, holder);
      if (places.length === 0) return;
      if (away) left.push(...places.slice(0, MAX_HELD - left.length));
      else counters?.leave(places).catch(failed);
    },
    get together() {
      return !away;
    },
    async close() {
      closed = true;
      clearInterval(renewing);
      clearTimeout(probe);
      await counters?.close();
    },
  };

  function forget(gates: readonly Gate[], holder: string): Held[] {
    return gates.flatMap(({ kind, key }) => {
      if (kind !== "place") return [];
      const name = digestOf(key);
      held.delete(`${name} ${holder}`);
      return [{ name, holder }];
    });
  }
}

/** Rejects when there is no answer in time. One that has come while this process was held up counts as in time. */
function within<T>(asked: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      setImmediate(() => setImmediate(() => reject(new Error(`no answer in ${ms} ms`))));
    }, ms);
    asked.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
