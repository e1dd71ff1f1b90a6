/**
 * What other processes change in the store (a revocation, new keys) is seen here within a fraction of a second: a counter per
 * subject, read again and again. It needs no channel that could fail unseen: when the store does not answer, nothing is fresh.
 */
import { DrawbridgeError } from "../core/errors.ts";
import type { Records } from "../store/ports.ts";

/** `ended`: something was revoked, disabled or deleted. `keys`: other keys are in the store. */
export type Subject = "ended" | "keys";

export interface Watch {
  /**
   * Tells every process about a change that was already written. This one has heard of it at once. Rejects when the others
   * cannot be told now; they are told as soon as the store takes it, for as long as this process runs.
   */
  announce(subject: Subject): Promise<void>;
  /** Called once for each change seen, whoever made it. */
  on(subject: Subject, listener: () => void): void;
  /** True when a change older than a second would have been seen. False: ask the store itself. */
  fresh(): boolean;
  /** Called when `fresh` has become false: whoever has something open checks it now, or closes it. */
  onStale(listener: () => void): void;
  close(): void;
}

const KIND = "oauth:changes";
const EVERY_MS = 250;
const FRESH_MS = 900;
const SUBJECTS: readonly Subject[] = ["ended", "keys"];

/** `monotonic`: milliseconds that only grow, whatever happens to the time of day. */
export async function watch(records: Records, monotonic = () => performance.now()): Promise<Watch> {
  const listeners = new Map<Subject, (() => void)[]>(SUBJECTS.map((subject) => [subject, []]));
  const staleListeners: (() => void)[] = [];
  const versions = new Map<Subject, number>();
  /** Announcements that the store has not taken yet. */
  const owed = new Set<Subject>();
  let lookedAt = Number.NEGATIVE_INFINITY;
  let stale = false;
  let looking = false;
  let closed = false;

  const fresh = () => monotonic() - lookedAt < FRESH_MS;

  async function look(): Promise<void> {
    if (closed) return;
    // Only when the store fails or hangs: when this process was held up, the next look comes at once and tells all.
    if (looking) return grewStale();
    looking = true;
    try {
      for (const subject of owed) {
        await announceTo(records, subject);
        owed.delete(subject);
      }
      const began = monotonic();
      const rows = await records.list(KIND, { limit: 100 });
      for (const subject of SUBJECTS) saw(subject, rows.find(({ id }) => id === subject)?.version ?? 0);
      lookedAt = began;
      stale = false;
    } catch {
      // Whoever relies on what is fresh asks the store now, and reports what that says.
      grewStale();
    } finally {
      looking = false;
    }
  }

  function grewStale(): void {
    if (stale || fresh()) return;
    stale = true;
    for (const listener of staleListeners) listener();
  }

  function saw(subject: Subject, version: number): void {
    const known = versions.get(subject);
    versions.set(subject, version);
    if (known !== undefined && known !== version) tell(subject);
  }
  const tell = (subject: Subject) => {
    for (const listener of listeners.get(subject) ?? []) listener();
  };

  await look();
  const timer = setInterval(() => void look(), EVERY_MS);
  timer.unref();
  return {
    async announce(subject) {
      tell(subject);
      try {
        await announceTo(records, subject);
      } catch (thrown) {
        owed.add(subject);
        throw DrawbridgeError.from(thrown);
      }
    },
    on: (subject, listener) => void listeners.get(subject)?.push(listener),
    fresh,
    onStale: (listener) => void staleListeners.push(listener),
    close() {
      closed = true;
      clearInterval(timer);
    },
  };
}

/** Tells every running gateway about a change, from a process that is none: a command. */
export async function announceTo(records: Records, subject: Subject): Promise<void> {
  // Without `ifVersion` each write counts one up, also when many are made at once.
  await records.put(KIND, subject, {});
}
