/**
 * What one replica tells the others: names of things that changed, in one row that each reads again and again. It needs no channel
 * that could fail unseen, and no clocks that agree: whoever was away for too long notices that it has missed something.
 */
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";

export interface Announcements {
  /** Tells the others, within a second when the store works; otherwise as soon as it does, for as long as this process runs. */
  announce(name: string): void;
  close(): Promise<void>;
}

export interface AnnouncementOptions {
  readonly records: Records;
  readonly topic: string;
  /** Hears names that were announced, own ones maybe, too. */
  readonly heard: (names: readonly string[]) => void;
  /** More was announced than could be kept: anything may have changed. */
  readonly missed: () => void;
  readonly log: Logger;
}

interface Told {
  /** How many names were ever announced. */
  readonly count: number;
  /** The newest of them, oldest first. */
  readonly names: readonly string[];
}

const KIND = "announcements";
const EVERY_MS = 250;
const KEPT = 256;
const MAX_OWED = 10_000;
const TRIES = 10;

/** Resolves when it has begun to listen: what is announced from then on is heard. */
export async function openAnnouncements(options: AnnouncementOptions): Promise<Announcements> {
  const { records, topic, heard, missed, log } = options;
  let seen: number | undefined;
  let owed: string[] = [];
  let working: Promise<void> | undefined;
  let closed = false;

  const read = async (): Promise<{ readonly told: Told; readonly version: number }> => {
    const row = await records.get<Told>(KIND, topic);
    return { told: row?.value ?? { count: 0, names: [] }, version: row?.version ?? 0 };
  };
  const notice = ({ count, names }: Told) => {
    const before = seen;
    seen = count;
    if (before === count) return;
    const fresh = before === undefined ? -1 : count - before;
    if (fresh < 0 || fresh > names.length) missed();
    else heard(names.slice(-fresh));
  };
  const write = async () => {
    for (let tries = 0; owed.length > 0 && tries < TRIES; tries++) {
      const { told, version } = await read();
      notice(told);
      const batch = owed.slice(0, KEPT);
      const next: Told = { count: told.count + batch.length, names: [...told.names, ...batch].slice(-KEPT) };
      if (!(await records.put(KIND, topic, next, { ifVersion: version }))) continue;
      seen = next.count;
      owed = owed.slice(batch.length);
      tries = 0;
    }
  };
  const work = () => {
    working ??= (async () => {
      try {
        if (owed.length > 0) await write();
        else notice((await read()).told);
      } catch (error) {
        log.debug({ topic, error }, "what other replicas announced could not be read, or told");
      } finally {
        working = undefined;
      }
    })();
    return working;
  };

  try {
    seen = (await read()).told.count;
  } catch (error) {
    log.warn({ topic, error }, "what other replicas announce cannot be read yet");
  }
  const timer = setInterval(work, EVERY_MS);
  timer.unref();
  return {
    announce(name) {
      if (closed) return;
      owed.push(name);
      // The store has been failing for long: the others will see that they missed something.
      if (owed.length > MAX_OWED) owed = owed.slice(-MAX_OWED / 2);
      void work();
    },
    async close() {
      closed = true;
      clearInterval(timer);
      await working;
      if (owed.length > 0) await work();
    },
  };
}
