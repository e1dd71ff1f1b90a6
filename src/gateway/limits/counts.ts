/** What this process has counted. Windows of a minute begin with the first count, days are those of UTC. */
import type { Clock } from "../../core/clock.ts";
import type { Days } from "./days.ts";
import { type Gate, PARTS } from "./gates.ts";

/** Who did not let a call through, and how long that will be so; undefined: for ever. */
export interface Refused {
  readonly gate: Gate;
  readonly waitMs: number | undefined;
}

export interface Counts {
  /** Passes all gates, and counts at each, or none. The caller gives back what it took: `undo` soon, `leave` in any case. */
  take(gates: readonly Gate[]): Refused | undefined;
  /** Somebody else refused what was taken here. Places, too. */
  undo(gates: readonly Gate[]): void;
  /** Gives places back. */
  leave(gates: readonly Gate[]): void;
}

export const MINUTE_MS = 60_000;
export const DAY_MS = 86_400_000;
/** Windows that ended are forgotten when there are so many; later whenever there are twice as many as were left. */
const FIRST_SWEEP = 10_000;
/** More windows than these are not kept: the oldest is forgotten. */
const MAX_WINDOWS = 1_000_000;

interface Window {
  /** Parts. */
  count: number;
  readonly endsAt: number;
}

export function openCounts(days: Days, clock: Clock): Counts {
  const windows = new Map<string, Window>();
  const places = new Map<string, number>();
  let sweepAt = FIRST_SWEEP;

  function windowOf({ key }: Gate, now: number): Window {
    let window = windows.get(key);
    if (window !== undefined && window.endsAt > now) return window;
    windows.delete(key);
    if (windows.size >= sweepAt) sweep(now);
    window = { count: 0, endsAt: now + MINUTE_MS };
    windows.set(key, window);
    return window;
  }

  function sweep(now: number): void {
    for (const [name, { endsAt }] of windows) if (endsAt <= now) windows.delete(name);
    // They stand in the order of their beginnings.
    for (const name of windows.keys()) {
      if (windows.size < MAX_WINDOWS) break;
      windows.delete(name);
    }
    sweepAt = Math.max(FIRST_SWEEP, Math.min(windows.size * 2, MAX_WINDOWS));
  }

  function refusedAt(gate: Gate, now: number): Refused | undefined {
    const { kind, key, limit, cost } = gate;
    if (kind === "place") return (places.get(key) ?? 0) < limit ? undefined : { gate, waitMs: 1000 };
    const most = limit * PARTS;
    if (kind === "day") {
      if (days.count(key) + cost <= most) return undefined;
      return { gate, waitMs: cost > most ? undefined : DAY_MS - (now % DAY_MS) };
    }
    const window = windowOf(gate, now);
    // What is counted in any case is counted by now.
    if (window.count + (kind === "request" ? 0 : cost) <= most) return undefined;
    return { gate, waitMs: cost > most ? undefined : window.endsAt - now };
  }

  function count(gate: Gate, now: number): void {
    const { kind, key, cost } = gate;
    if (kind === "place") places.set(key, (places.get(key) ?? 0) + 1);
    else if (kind === "day") days.add(key, cost);
    else if (kind === "minute") windowOf(gate, now).count += cost;
  }

  function leaveOne({ kind, key }: Gate): void {
    if (kind !== "place") return;
    const left = (places.get(key) ?? 1) - 1;
    if (left > 0) places.set(key, left);
    else places.delete(key);
  }

  return {
    take(gates) {
      const now = clock();
      for (const gate of gates) if (gate.kind === "request") windowOf(gate, now).count += gate.cost;
      for (const gate of gates) {
        const refused = refusedAt(gate, now);
        if (refused !== undefined) return refused;
      }
      for (const gate of gates) count(gate, now);
      return undefined;
    },
    undo(gates) {
      for (const gate of gates) {
        leaveOne(gate);
        const { kind, key, cost } = gate;
        if (kind === "day") days.add(key, -cost);
        const window = kind === "minute" ? windows.get(key) : undefined;
        if (window !== undefined) window.count = Math.max(0, window.count - cost);
      }
    },
    leave(gates) {
      for (const gate of gates) leaveOne(gate);
    },
  };
}
