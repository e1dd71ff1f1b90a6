/** Limits of tools where there is no gateway: one user, one process. Counted from the start of the process; a day is one of UTC. */
import { DrawbridgeError } from "../core/errors.ts";
import type { Tool } from "./tool.ts";

export interface Counts {
  /** Counts a call, at all limits of its tool or at none. Throws `rate_limited`, as a gateway does; what is returned ends the call. */
  take(tool: Tool): () => void;
}

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;

interface Window {
  begins: number;
  counted: number;
}

export function openCounts(now: () => number = Date.now): Counts {
  const windows = new Map<string, Window>();
  const under = new Map<string, number>();
  /** The window that is open now, if one is. */
  const open = (key: string, ms: number): Window | undefined => {
    const found = windows.get(key);
    return found !== undefined && now() < found.begins + ms ? found : undefined;
  };
  return {
    take({ name, limits = {} }) {
      const { perMinute, perDay, concurrent, cost = 1 } = limits;
      const rates = [
        { key: `minute ${name}`, per: "minute", limit: perMinute, ms: MINUTE_MS, begins: now() },
        { key: `day ${name}`, per: "day", limit: perDay, ms: DAY_MS, begins: Math.floor(now() / DAY_MS) * DAY_MS },
      ].flatMap(({ limit, ...rate }) => (limit === undefined ? [] : [{ ...rate, limit }]));
      const running = under.get(name) ?? 0;
      if (concurrent !== undefined && running >= concurrent) throw full(name, concurrent);
      for (const { key, per, limit, ms } of rates) {
        const window = open(key, ms);
        if ((window?.counted ?? 0) + cost > limit)
          throw spent(name, per, limit, window === undefined ? undefined : window.begins + ms - now());
      }
      for (const { key, ms, begins } of rates) {
        const window = open(key, ms) ?? { begins, counted: 0 };
        window.counted += cost;
        windows.set(key, window);
      }
      if (concurrent === undefined) return () => {};
      under.set(name, running + 1);
      return () => void under.set(name, (under.get(name) ?? 1) - 1);
    },
  };
}

function full(name: string, permitted: number): DrawbridgeError {
  return new DrawbridgeError("rate_limited", `Too many calls of ${name} at the same time (limit ${permitted}).`, {
    retryAfterSeconds: 1,
    data: { limit: `limits.tools.${name}`, permitted, per: "place" },
  });
}

/** `waitMs`: undefined when a call counts for more than there ever is. */
function spent(name: string, per: string, permitted: number, waitMs: number | undefined): DrawbridgeError {
  const data = { limit: `limits.tools.${name}`, permitted, per };
  if (waitMs === undefined)
    return new DrawbridgeError("rate_limited", `A call of ${name} counts for more than ${permitted} a ${per}.`, {
      data,
    });
  const retryAfterSeconds = Math.max(1, Math.ceil(waitMs / 1000));
  const message = `Too many calls of ${name}: ${permitted} a ${per} are permitted. Try again in ${retryAfterSeconds} s.`;
  return new DrawbridgeError("rate_limited", message, { retryAfterSeconds, data });
}
