/**
 * What other processes change in the store (a revocation, new keys) is seen here within a fraction of a second: a counter per
 * subject, read again and again. It needs no channel that could fail unseen: when the store does not answer, nothing is fresh.
 */
import type { Records } from "../store/ports.ts";

/** `ended`: something was revoked, disabled or deleted. `keys`: other keys are in the store. `clients`: a client was changed. */
export type Subject = "ended" | "keys" | "clients";

export interface Watch {
  /** Tells every process about a change that was already written. This one has heard of it when the promise resolves. */
  announce(subject: Subject): Promise<void>;
  /** Called once for each change seen, whoever made it. */
  on(subject: Subject, listener: () => void): void;
  /** True when a change older than a second would have been seen. False: ask the store itself. */
  fresh(): boolean;
  close(): void;
}

const KIND = "oauth:changes";
const EVERY_MS = 250;
const FRESH_MS = 900;
const SUBJECTS: readonly Subject[] = ["ended", "keys", "clients"];

/** `monotonic`: milliseconds that only grow, whatever happens to the time of day. */
export async function watch(records: Records, monotonic = () => performance.now()): Promise<Watch> {
  const listeners = new Map<Subject, (() => void)[]>(SUBJECTS.map((subject) => [subject, []]));
  const versions = new Map<Subject, number>();
  let lookedAt = Number.NEGATIVE_INFINITY;
  let looking = false;
  let closed = false;

  async function look(): Promise<void> {
    if (looking || closed) return;
    looking = true;
    try {
      const began = monotonic();
      const found = await Promise.all(SUBJECTS.map((subject) => records.get(KIND, subject)));
      for (const [at, subject] of SUBJECTS.entries()) saw(subject, found[at]?.version ?? 0);
      lookedAt = began;
    } catch {
      // Not fresh any more: whoever relies on it asks the store, and reports what that says.
    } finally {
      looking = false;
    }
  }

  function saw(subject: Subject, version: number): void {
    const known = versions.get(subject);
    versions.set(subject, version);
    if (known === undefined || known === version) return;
    for (const listener of listeners.get(subject) ?? []) listener();
  }

  await look();
  const timer = setInterval(() => void look(), EVERY_MS);
  timer.unref();
  return {
    async announce(subject) {
      for (const listener of listeners.get(subject) ?? []) listener();
      // Without `ifVersion` each write counts one up, also when many are made at once.
      await records.put(KIND, subject, {});
    },
    on: (subject, listener) => void listeners.get(subject)?.push(listener),
    fresh: () => monotonic() - lookedAt < FRESH_MS,
    close() {
      closed = true;
      clearInterval(timer);
    },
  };
}
