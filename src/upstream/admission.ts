/**
 * Who may wait in a queue that is fair between its flows (`fair-queue.ts`), decided when a call arrives: one that cannot be served
 * in time is refused at once and not after it has waited in vain. What a flow is refused for is its own doing: a newcomer stands
 * behind no more than one call of each other flow, however many those have.
 */
import { type Stopwatch, stopwatch } from "./exchange.ts";

export interface Admission {
  /**
   * Undefined: a call of this flow (a principal) may wait in this lane (a tool). Otherwise it is refused, and the seconds after
   * which it is worth coming back. `withinMs`: how long it can wait at all. Takes the logarithm of a constant, whatever waits.
   */
  refusal(flow: string, lane: string, withinMs: number): number | undefined;
  /** A call waits from now on. */
  joined(flow: string, lane: string): void;
  /** A call waits no longer, for whatever reason. */
  left(flow: string, lane: string): void;
  /**
   * A call of this lane was answered, whether it had waited or not. Those that were given up do not count: a server that works on
   * calls for which nobody waits any more serves nobody.
   */
  served(lane: string): void;
  /** There is more or less to serve with: what was measured before says nothing now. */
  changed(): void;
}

/** A service rate is known after so many calls and so long. Nobody is refused on ignorance. */
const KNOWN_CALLS = 8;
const KNOWN_MS = 1_000;
/** It is measured over one to two such spans, or longer ones where fewer than `KNOWN_CALLS` are served in one. */
const SPAN_MS = 2_000;
/** Bursts may wait as long as a call can. A queue that would take longer than this part of it to drain … */
const TARGET_PART = 1 / 12;
/** … for so long, and does not get shorter, is a standing one: nobody gains by it, and it is kept as short as that. */
const STANDING_MS = 2_000;
/** A burst that is served gets shorter by as much as time passes, and by this part of it at the least. */
const DRAINING_PART = 1 / 3;
/** It is over once nobody has been refused for so long. Until then those who were refused may all come back at once. */
const OVER_MS = 10_000;
/** So few calls before one's own are no standing queue, but a server that takes its time. */
const SHORT = 16;
/** Flows that have more calls than this waiting in a lane are all taken to have everything else before them. */
const MAX_DEPTH = 256;
const MAX_RETRY_SECONDS = 300;
/** Those who are refused are told to come back one after the other, as fast as calls are served, and not later than this. */
const MAX_TURN_MS = 30_000;
/** Lanes without a call that are remembered because calls were refused there. */
const MAX_EMPTY_LANES = 256;

interface Lane {
  size: number;
  /** How many calls each flow has waiting in it. */
  readonly flows: Map<string, number>;
  /** A Fenwick tree of how many flows have at least 1, 2, 3 … calls waiting in it. */
  readonly depths: Int32Array;
  readonly pace: Pace;
  /** Since when it has had more waiting than it could serve in good time, and how long that would have taken then. */
  long: { readonly since: number; readonly drainMs: number } | undefined;
  /** When a call was last refused, how fast calls were served then, and how long it takes to serve all who were refused. */
  refused: { readonly at: number; readonly perMs: number; readonly turnMs: number } | undefined;
}

/**
 * When `maxQueued` calls wait, only flows that have less than an equal share of that are let in. So a flood takes nobody's place;
 * and when one of many floods follows the other, each is let in to a smaller share: `maxQueued` times its logarithm at the very most.
 */
export function admission(maxQueued: number, now: Stopwatch = stopwatch): Admission {
  /** Those in which somebody waits, or was refused. */
  const lanes = new Map<string, Lane>();
  const flows = new Map<string, number>();
  let size = 0;

  /** Calls that will be served before the next one of a flow. */
  function ahead({ size: inLane, depths }: Lane, own: number): number {
    return own < MAX_DEPTH ? sum(depths, own + 1) : inLane;
  }

  function standing(lane: Lane, drainMs: number, targetMs: number, time: number): boolean {
    if (drainMs <= targetMs) lane.long = undefined;
    else lane.long ??= { since: time, drainMs };
    if (lane.refused !== undefined) return true;
    if (lane.long === undefined) return false;
    const passedMs = time - lane.long.since;
    if (passedMs < STANDING_MS) return false;
    if (drainMs > lane.long.drainMs - passedMs * DRAINING_PART) return true;
    lane.long = { since: time, drainMs };
    return false;
  }

  return {
    refusal(flow, name, withinMs) {
      const own = flows.get(flow) ?? 0;
      const lane = lanes.get(name);
      const time = now();
      if (lane?.refused !== undefined && time - lane.refused.at > OVER_MS) lane.refused = undefined;
      const perMs = lane?.pace.perMs(time) ?? lane?.refused?.perMs;
      if (size >= maxQueued) {
        const sharers = own === 0 ? flows.size + 1 : flows.size;
        if (own >= Math.floor(maxQueued / sharers))
          return seconds(lane === undefined || perMs === undefined ? 0 : lane.size / perMs / 2);
      }
      if (lane === undefined || perMs === undefined) return undefined;
      const before = ahead(lane, own);
      const targetMs = withinMs * TARGET_PART;
      const bounded = standing(lane, lane.size / perMs, targetMs, time) && before > SHORT;
      const overMs = before / perMs - (bounded ? targetMs : withinMs);
      if (overMs <= 0) return undefined;
      const { at = time, turnMs = 0 } = lane.refused ?? {};
      const turn = Math.min(MAX_TURN_MS, Math.max(0, turnMs - (time - at)) + 1 / perMs);
      lane.refused = { at: time, perMs, turnMs: turn };
      return seconds(overMs + turn);
    },
    joined(flow, name) {
      let lane = lanes.get(name);
      if (lane === undefined) {
        const depths = new Int32Array(MAX_DEPTH + 1);
        lane = { size: 0, flows: new Map(), depths, pace: pace(), long: undefined, refused: undefined };
        lanes.set(name, lane);
      }
      // Before, nobody waited, and what was served was no more than what was asked for.
      if (lane.size === 0) lane.pace.forget(now());
      add(lane.depths, count(lane.flows, flow, 1), 1);
      count(flows, flow, 1);
      lane.size++;
      size++;
    },
    left(flow, name) {
      const lane = lanes.get(name);
      if (lane === undefined || !lane.flows.has(flow)) return;
      add(lane.depths, count(lane.flows, flow, -1) + 1, -1);
      count(flows, flow, -1);
      size--;
      if (--lane.size > 0) return;
      lane.long = undefined;
      if (lane.refused === undefined) lanes.delete(name);
      else if (lanes.size > MAX_EMPTY_LANES)
        for (const [other, { size: waiting }] of lanes) if (waiting === 0) lanes.delete(other);
    },
    served(name) {
      lanes.get(name)?.pace.served(now());
    },
    changed() {
      const time = now();
      for (const lane of lanes.values()) {
        lane.pace.forget(time);
        lane.long = undefined;
        lane.refused = undefined;
      }
    },
  };
}

interface Pace {
  served(time: number): void;
  /** Calls served in a millisecond, lately; undefined while that is not known. */
  perMs(time: number): number | undefined;
  /** Begins anew. */
  forget(time: number): void;
}

/** How fast a lane is served while calls wait in it. */
function pace(): Pace {
  let calls = 0;
  let since = 0;
  let callsBefore = 0;
  let sinceBefore = 0;
  return {
    served(time) {
      calls++;
      if (calls < KNOWN_CALLS || time - since < SPAN_MS) return;
      callsBefore = calls;
      sinceBefore = since;
      calls = 0;
      since = time;
    },
    perMs(time) {
      const all = calls + callsBefore;
      const ms = time - sinceBefore;
      return all < KNOWN_CALLS || ms < KNOWN_MS ? undefined : all / ms;
    },
    forget(time) {
      calls = 0;
      callsBefore = 0;
      since = time;
      sinceBefore = time;
    },
  };
}

/** Adds to a counter that is not kept at 0; returns what it is then. */
function count(counters: Map<string, number>, key: string, change: 1 | -1): number {
  const value = (counters.get(key) ?? 0) + change;
  if (value === 0) counters.delete(key);
  else counters.set(key, value);
  return value;
}

function add(tree: Int32Array, index: number, change: number): void {
  for (let at = index; at < tree.length; at += at & -at) tree[at] = (tree[at] ?? 0) + change;
}

function sum(tree: Int32Array, upTo: number): number {
  let total = 0;
  for (let at = upTo; at > 0; at -= at & -at) total += tree[at] ?? 0;
  return total;
}

const seconds = (ms: number): number => Math.min(MAX_RETRY_SECONDS, Math.max(1, Math.ceil(ms / 1000)));
