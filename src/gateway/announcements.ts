/**
 * What one replica tells the others: names of things that changed, in one row that each looks at. It needs no clocks that agree:
 * whoever was away for too long notices that it has missed something.
 */
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import { CHANGES, type Changes } from "../store/watch.ts";

export interface Announcements {
  /** Tells the others, within a second when the store works; otherwise as soon as it does, for as long as this process runs. */
  announce(name: string): void;
  close(): Promise<void>;
}

export interface AnnouncementOptions {
  readonly records: Records;
  readonly changes: Changes;
  /** Names the row. */
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

const KEPT = 256;
const MAX_OWED = 10_000;
const TRIES = 10;

/** What is announced from now on is heard. */
export function openAnnouncements(options: AnnouncementOptions): Announcements {
  const { records, changes, topic, heard, missed, log } = options;
  let seen = changes.last<Told>(topic)?.value.count ?? 0;
  /** Versions of the row: as we wrote it last, and as a look found it. */
  let written = 0;
  let looked = changes.last(topic)?.version ?? 0;
  let owed: string[] = [];
  let writing: Promise<void> | undefined;
  let closed = false;

  const notice = ({ count, names }: Told) => {
    const fresh = count - seen;
    seen = count;
    if (fresh === 0) return;
    if (fresh < 0 || fresh > names.length) missed();
    else heard(names.slice(-fresh));
  };
  const write = async () => {
    for (let tries = 0; owed.length > 0 && tries < TRIES; tries++) {
      const row = await records.get<Told>(CHANGES, topic);
      const told = row?.value ?? { count: 0, names: [] };
      notice(told);
      const batch = owed.slice(0, KEPT);
      const next: Told = { count: told.count + batch.length, names: [...told.names, ...batch].slice(-KEPT) };
      if (!(await records.put(CHANGES, topic, next, { ifVersion: row?.version ?? 0 }))) continue;
      seen = next.count;
      written = (row?.version ?? 0) + 1;
      owed = owed.slice(batch.length);
      tries = 0;
    }
  };
  const tell = () => {
    writing ??= write()
      .catch((error: unknown) => log.debug({ topic, error }, "other replicas could not be told"))
      .finally(() => {
        writing = undefined;
      });
    return writing;
  };

  changes.on<Told>(topic, (row) => {
    const version = row?.version ?? 0;
    const begunAnew = version < looked;
    looked = version;
    // A write of ours may be newer than the look that found this.
    if (!closed && (begunAnew || version > written)) notice(row?.value ?? { count: 0, names: [] });
  });
  changes.before(async () => {
    if (owed.length > 0) await tell();
  });
  return {
    announce(name) {
      if (closed) return;
      owed.push(name);
      // The store has been failing for long: the others will see that they missed something.
      if (owed.length > MAX_OWED) owed = owed.slice(-MAX_OWED / 2);
      void tell();
    },
    async close() {
      closed = true;
      await writing;
      if (owed.length > 0) await tell();
    },
  };
}
