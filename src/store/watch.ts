/**
 * What other processes change in the store is seen here within a fraction of a second: a few rows, read again and again, all in one
 * read. It needs no channel that could fail unseen: when the store does not answer, nothing is fresh. While nobody relies on it the
 * rows are read less often.
 */
import type { Records, Row } from "./ports.ts";

export interface Changes {
  /** Calls `listener` with a row whenever a look finds another version of it than the look before did; undefined: there is none. */
  on<T>(id: string, listener: (row: Row<T> | undefined) => void): void;
  /** The row as the last look found it. */
  last<T>(id: string): Row<T> | undefined;
  /** Does this before each look; what it throws is taken for a store that does not answer. */
  before(step: () => Promise<void>): void;
  /** True when a change older than a second would have been seen. False: ask the store itself. Whoever asks relies on it. */
  fresh(): boolean;
  /** Says that somebody relies on it. A promise after a time in which nobody did: until it resolves, changes may be unseen. */
  wake(): Promise<void> | undefined;
  /** For as long as this says so, somebody relies on it. */
  whileUsed(used: () => boolean): void;
  /** Called when the store does not answer and nothing is fresh: whoever has something open checks it now, or closes it. */
  onStale(listener: () => void): void;
  close(): void;
}

/** The kind of these rows. Each row is one subject; whoever changes something writes it. */
export const CHANGES = "changes";
const EVERY_MS = 250;
const FRESH_MS = 900;
const IDLE_EVERY_MS = 2_000;
const IDLE_AFTER_MS = 30_000;
const MAX_ROWS = 100;

/** Resolves after the first look, whether the store answered or not. `monotonic`: milliseconds that only grow, whatever happens to the time of day. */
export async function watchChanges(records: Records, monotonic = () => performance.now()): Promise<Changes> {
  const listeners = new Map<string, ((row: Row | undefined) => void)[]>();
  const staleListeners: (() => void)[] = [];
  const steps: (() => Promise<void>)[] = [];
  const uses: (() => boolean)[] = [];
  let known: ReadonlyMap<string, Row> | undefined;
  let lookedAt = Number.NEGATIVE_INFINITY;
  let usedAt = monotonic();
  let stale = false;
  let idle = false;
  let looking: Promise<void> | undefined;
  let closed = false;

  const recent = () => monotonic() - lookedAt < FRESH_MS;

  function tick(): void {
    // Only when the store fails or hangs: when this process was held up, the next look comes at once and tells all.
    if (looking !== undefined) {
      grewStale();
      return;
    }
    const now = monotonic();
    idle = now - usedAt > IDLE_AFTER_MS && !uses.some((used) => used());
    if (!idle || now - lookedAt >= IDLE_EVERY_MS) void look();
  }

  function look(): Promise<void> {
    if (closed) return Promise.resolve();
    looking ??= read().finally(() => {
      looking = undefined;
    });
    return looking;
  }

  async function read(): Promise<void> {
    try {
      for (const step of steps) await step();
      const began = monotonic();
      const rows = await records.list(CHANGES, { limit: MAX_ROWS });
      if (closed) return;
      const before = known;
      known = new Map(rows.map((row) => [row.id, row]));
      lookedAt = began;
      stale = false;
      for (const [id, those] of listeners) {
        const row = known.get(id);
        if (before !== undefined && before.get(id)?.version !== row?.version) for (const tell of those) tell(row);
      }
    } catch {
      // Whoever relies on what is fresh asks the store now, and reports what that says.
      grewStale();
    }
  }

  function grewStale(): void {
    if (stale || recent()) return;
    stale = true;
    for (const listener of staleListeners) listener();
  }

  function wake(): Promise<void> | undefined {
    usedAt = monotonic();
    if (!idle) return undefined;
    return look().then(() => {
      idle = false;
    });
  }

  await look();
  const timer = setInterval(tick, EVERY_MS);
  timer.unref();
  return {
    on<T>(id: string, listener: (row: Row<T> | undefined) => void) {
      const those = listeners.get(id) ?? [];
      listeners.set(id, those);
      those.push(listener as (row: Row | undefined) => void);
    },
    last: <T>(id: string) => known?.get(id) as Row<T> | undefined,
    before: (step) => void steps.push(step),
    fresh() {
      void wake();
      return recent();
    },
    wake,
    whileUsed: (used) => void uses.push(used),
    onStale: (listener) => void staleListeners.push(listener),
    close() {
      closed = true;
      clearInterval(timer);
    },
  };
}
