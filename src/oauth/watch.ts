/** What is ended, and which keys there are, as every process hears of it: one counter per subject, among the rows that each looks at. */
import { DrawbridgeError } from "../core/errors.ts";
import type { Records } from "../store/ports.ts";
import { CHANGES, type Changes } from "../store/watch.ts";

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
}

export function watch(records: Records, changes: Changes): Watch {
  const listeners: Readonly<Record<Subject, (() => void)[]>> = { ended: [], keys: [] };
  /** Announcements that the store has not taken yet. */
  const owed = new Set<Subject>();
  const tell = (subject: Subject) => {
    for (const listener of listeners[subject]) listener();
  };
  changes.before(async () => {
    for (const subject of owed) {
      await announceTo(records, subject);
      owed.delete(subject);
    }
  });
  for (const subject of ["ended", "keys"] as const) changes.on(subject, () => tell(subject));
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
    on: (subject, listener) => void listeners[subject].push(listener),
    fresh: changes.fresh,
    onStale: changes.onStale,
  };
}

/** Tells every running gateway about a change, from a process that is none: a command. */
export async function announceTo(records: Records, subject: Subject): Promise<void> {
  // Without `ifVersion` each write counts one up, also when many are made at once.
  await records.put(CHANGES, subject, {});
}
