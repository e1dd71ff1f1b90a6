/** Keeps strangers from filling the record: of refusals that one source causes, some are recorded and the others counted. */
import { type Clock, systemClock } from "../core/clock.ts";
import { networkOf } from "../net/source.ts";
import type { OAuthEvent, Report } from "./events.ts";
import { throttle } from "./throttle.ts";

export interface BoundedReport {
  /** Records an event, or counts it for the next record of its kind and source. What is granted is always recorded. */
  readonly report: Report;
  /** Records what was only counted so far. Never rejects: nothing was granted. */
  close(): Promise<void>;
}

const REFUSALS = new Set<OAuthEvent["type"]>(["client-refused", "token-refused", "sign-in-failed"]);
/** Of one kind and source: so many at once, then one every so often. */
const BURST = 300;
const SECONDS_PER_RECORD = 5;
const MAX_SOURCES = 10_000;
const FLUSH_MS = 30_000;

export function boundedReport(record: Report, clock: Clock = systemClock): BoundedReport {
  const bucket = throttle({ burst: BURST, secondsPerTry: SECONDS_PER_RECORD, maxKeys: MAX_SOURCES }, clock);
  /** The last event that was only counted, and how many were. */
  const counted = new Map<string, { readonly event: OAuthEvent; readonly count: number }>();

  async function flush(): Promise<void> {
    const waiting = [...counted.values()];
    counted.clear();
    // The last of them speaks for the others.
    const records = waiting.map(({ event, count }) => record(count > 1 ? { ...event, unrecorded: count - 1 } : event));
    // A log that fails shows elsewhere: whatever is granted meanwhile is refused.
    await Promise.allSettled(records);
  }
  const timer = setInterval(() => void flush(), FLUSH_MS);
  timer.unref();

  return {
    async report(event) {
      if (!REFUSALS.has(event.type)) return record(event);
      const key = `${event.type} ${networkOf(event.source ?? "")}`;
      const earlier = counted.get(key)?.count ?? 0;
      if (bucket.take(key) > 0 && (earlier > 0 || counted.size < MAX_SOURCES)) {
        counted.set(key, { event, count: earlier + 1 });
        return;
      }
      counted.delete(key);
      await record(earlier > 0 ? { ...event, unrecorded: earlier } : event);
    },
    close() {
      clearInterval(timer);
      return flush();
    },
  };
}
