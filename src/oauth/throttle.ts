/** Counts tries per key in a sliding bucket: so many at once, then one every so often. Bounded in memory. */
import { type Clock, systemClock } from "../core/clock.ts";

export interface Throttle {
  /** Takes one try. 0: go on; else the seconds to wait. */
  take(key: string): number;
  /** Gives a key all its tries back. */
  reset(key: string): void;
}

export interface ThrottleOptions {
  readonly burst: number;
  readonly secondsPerTry: number;
  /** Keys remembered; the one unused for longest goes first. */
  readonly maxKeys?: number;
}

export function throttle(
  { burst, secondsPerTry, maxKeys = 10_000 }: ThrottleOptions,
  clock: Clock = systemClock,
): Throttle {
  /** When a key will have all its tries back (the "theoretical arrival time" of GCRA). */
  const fullAt = new Map<string, number>();
  const step = secondsPerTry * 1000;
  return {
    take(key) {
      const now = clock();
      const next = Math.max(now, fullAt.get(key) ?? 0) + step;
      const early = next - now - burst * step;
      if (early > 0) return Math.ceil(early / 1000);
      fullAt.delete(key);
      fullAt.set(key, next);
      if (fullAt.size > maxKeys) fullAt.delete(fullAt.keys().next().value ?? "");
      return 0;
    },
    reset: (key) => void fullAt.delete(key),
  };
}
