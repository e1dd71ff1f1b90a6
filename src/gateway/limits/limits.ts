/**
 * How often, how much a day and how many at a time: the `limits` of the settings and of roles. What this process has counted is looked
 * at first, and costs no wait; where replicas share a cache, it has the last word about each limit that somebody has set.
 */
import type { Principal } from "../../core/call.ts";
import { type Clock, systemClock } from "../../core/clock.ts";
import { newToken } from "../../core/ids.ts";
import type { Logger } from "../../observe/logger.ts";
import type { Records } from "../../store/ports.ts";
import { type CachedCounts, openCachedCounts } from "./cached-counts.ts";
import { type Counts, openCounts } from "./counts.ts";
import { openDays } from "./days.ts";
import {
  compileGates,
  digestOf,
  type Gate,
  type Gates,
  type LimitedCall,
  type LimitSettings,
  refusal,
} from "./gates.ts";

export interface Limits {
  /** Lets one request in, and counts it. Throws `rate_limited` with the seconds to wait. Whoever is let in leaves again. */
  enter(principal: Principal): Admission;
  /** Compiles other settings and gives back what puts them in place; what was counted stays counted. Throws an `Error` that says what is wrong with them. */
  prepare(settings: LimitSettings): () => void;
  /** Whether replicas count together now; undefined where there is nothing that they could share. */
  readonly together: boolean | undefined;
  close(): Promise<void>;
}

/** A request that was let in. */
export interface Admission {
  /** For a request that is no call: counted by all replicas, where they share that. Throws or rejects with `rate_limited`. */
  request(): Promise<void> | undefined;
  /**
   * Counts a call that is permitted, at all its limits or at none. Throws or rejects with `rate_limited`, and with `invalid_params`
   * when nobody can say what it costs. `round`: it goes on with a call that was counted, as nothing else does that has this text.
   */
  call(call: Omit<LimitedCall, "principal">, round?: string): Promise<void> | undefined;
  /** Gives back whatever it has taken. */
  leave(): void;
}

export interface LimitsOptions {
  readonly settings: LimitSettings;
  /** `redis://…`; undefined: each process counts by itself. */
  readonly cache?: string | undefined;
  /** Where daily counts are kept when there is no cache; undefined: they end with this process. */
  readonly records?: Records | undefined;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly deadlineMs?: number;
}

/** Rounds that were let through without counting: each is one answer to one question. */
const MAX_ROUNDS = 50_000;

/** Rejects with `settings_invalid` when a pattern or expression cannot be used, or the cache refuses us. */
export async function openLimits(options: LimitsOptions): Promise<Limits> {
  const { cache, records, log, clock = systemClock, deadlineMs } = options;
  let gates: Gates = compileGates(options.settings);
  const shared =
    cache === undefined
      ? undefined
      : await openCachedCounts({ url: cache, log, ...(deadlineMs !== undefined && { deadlineMs }) });
  const days = await openDays(shared === undefined ? records : undefined, log, clock).catch(async (error: unknown) => {
    await shared?.close();
    throw error;
  });
  const counts = openCounts(days, clock);
  const rounds = new Set<string>();

  /** A round may pass without counting once; undefined when it has. Else what to do when it was refused all the same. */
  function goesOn(round: string): (() => void) | undefined {
    const name = digestOf(round);
    if (rounds.has(name)) return undefined;
    if (rounds.size >= MAX_ROUNDS) for (const oldest of rounds) if (rounds.delete(oldest)) break;
    rounds.add(name);
    return () => void rounds.delete(name);
  }

  return {
    enter(principal) {
      const [place, request] = gates.door(principal);
      const full = counts.take([place]) ?? counts.take([request]);
      if (full !== undefined) {
        if (full.gate === request) counts.leave([place]);
        throw refusal(full.gate, full.waitMs);
      }
      const door = shared === undefined ? NONE : [place, request].filter(({ kind }) => gates.sharedAtDoor.has(kind));
      return admitted({ principal, place, door, gates, shared, counts, goesOn });
    },
    prepare(settings) {
      const next = compileGates(settings);
      return () => {
        gates = next;
      };
    },
    get together() {
      return shared?.together;
    },
    async close() {
      await days.close();
      await shared?.close();
    },
  };
}

const NONE: readonly Gate[] = [];

interface Entered {
  readonly principal: Principal;
  readonly place: Gate;
  /** What replicas have to count of the request. */
  readonly door: readonly Gate[];
  readonly gates: Gates;
  readonly shared: CachedCounts | undefined;
  readonly counts: Counts;
  readonly goesOn: (round: string) => (() => void) | undefined;
}

function admitted({ principal, place, door, gates, shared, counts, goesOn }: Entered): Admission {
  /** Taken here, to be given back. */
  const here: Gate[] = [place];
  /** What the others are told of, and by what name; nothing yet. */
  let holder: string | undefined;
  let there: readonly Gate[] = NONE;

  async function takeThere(all: readonly Gate[], own: readonly Gate[], refused: () => void): Promise<void> {
    if (shared === undefined) return;
    holder = newToken();
    there = all;
    const full = await shared.take(all, holder);
    if (full === undefined || full === false) return;
    there = NONE;
    counts.undo(own);
    for (const gate of own) here.splice(here.indexOf(gate), 1);
    refused();
    throw refusal(full.gate, full.waitMs);
  }

  return {
    request: () => (door.length === 0 ? undefined : takeThere(door, NONE, () => {})),
    call(call, round) {
      let own = gates.call({ principal, ...call });
      // Rounds of one call are one call; what takes a place takes it each time.
      const again = own.length > 0 && round !== undefined ? goesOn(round) : undefined;
      if (again !== undefined) own = own.filter(({ kind }) => kind === "place");
      const refused = again ?? (() => {});
      if (own.length > 0) {
        const full = counts.take(own);
        if (full !== undefined) {
          refused();
          throw refusal(full.gate, full.waitMs);
        }
        here.push(...own);
      }
      return shared === undefined || door.length + own.length === 0
        ? undefined
        : takeThere([...door, ...own], own, refused);
    },
    leave() {
      counts.leave(here.splice(0));
      if (holder !== undefined) shared?.leave(there, holder);
      else if (door.length > 0) {
        // Refused before it was known what it is: a request it was all the same.
        const request = door.filter(({ kind }) => kind === "request");
        if (request.length > 0) void shared?.take(request, "");
      }
      holder = "";
      there = NONE;
    },
  };
}
