/** Counts tries per key in a sliding bucket: so many at once, then one every so often. Bounded in memory. */
import { type Clock, systemClock } from "../core/clock.ts";

export interface Throttle {
  /** Takes one try. 0: go on; else the seconds to wait. */
  take(key: string): number;
  /** Takes more than was taken, or gives back (`tries` below 0), without asking. A debt is never larger than a whole bucket. */
  charge(key: string, tries: number): void;
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
  /** When a key will be full, at least now. No debt is larger than this, unless the clock was turned back meanwhile. */
  const debtOf = (key: string, now: number) => {
    const at = fullAt.get(key) ?? 0;
    return at > now + 2 * burst * step ? now : Math.max(now, at);
  };
  const set = (key: string, at: number) => {
    fullAt.delete(key);
    fullAt.set(key, at);
    if (fullAt.size > maxKeys) fullAt.delete(fullAt.keys().next().value ?? "");
  };
  return {
    take(key) {
      const now = clock();
      const next = debtOf(key, now) + step;
      const early = next - now - burst * step;
      if (early > 0) return Math.ceil(early / 1000);
      set(key, next);
      return 0;
    },
    charge(key, tries) {
      const now = clock();
      const next = debtOf(key, now) + tries * step;
      set(key, Math.min(next, now + 2 * burst * step));
    },
    reset: (key) => void fullAt.delete(key),
  };
}
