/**
 * Counts of one day (UTC). Where there is a store they outlive this process: what was counted is added there in groups, a second after
 * it was counted, to what other replicas have added, which is thereby known here. What a process that is killed has counted in its last
 * second is lost.
 */
import { type Clock, systemClock } from "../../core/clock.ts";
import type { Logger } from "../../observe/logger.ts";
import type { Records } from "../../store/ports.ts";
import { DAY_MS } from "./counts.ts";
import { digestOf } from "./gates.ts";

export interface Days {
  /** How much was counted today, in parts. */
  count(key: string): number;
  add(key: string, parts: number): void;
  /** Writes what was not written yet. */
  close(): Promise<void>;
}

const KIND = "limits:day";
const FLUSH_MS = 1_000;
/** Rows of one day. */
const GROUPS = 64;
/** Counts in one row; those beyond are this process's own. */
const MAX_IN_GROUP = 20_000;
/** Writers of one row at the same time are few: the replicas. */
const TRIES = 8;

/** Counts of a group, by the digests of their keys. */
type Group = Readonly<Record<string, number>>;

/** Without `records` what is counted ends with this process. Reads what was counted today; rejects when the store cannot be read. */
export async function openDays(records: Records | undefined, log: Logger, clock: Clock = systemClock): Promise<Days> {
  let day = dayOf(clock());
  const counts = new Map<string, number>();
  /** Not in the store yet. */
  let owed = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;
  let flushing: Promise<void> | undefined;
  let failing = false;

  if (records !== undefined) {
    const rows = await records.list<Group>(KIND, { limit: 1000, after: `${day}/` });
    for (const { id, value } of rows)
      if (id.startsWith(`${day}/`)) for (const [name, parts] of Object.entries(value)) counts.set(name, parts);
  }

  function turn(): void {
    const today = dayOf(clock());
    if (today === day) return;
    day = today;
    counts.clear();
    owed = new Map();
  }

  function later(): void {
    if (records === undefined || timer !== undefined) return;
    timer = setTimeout(() => {
      timer = undefined;
      void flush();
    }, FLUSH_MS);
    timer.unref();
  }

  function flush(): Promise<void> {
    if (records === undefined) return Promise.resolve();
    const into = records;
    flushing ??= write(into).finally(() => {
      flushing = undefined;
      if (owed.size > 0) later();
    });
    return flushing;
  }

  async function write(into: Records): Promise<void> {
    const of = day;
    const groups = Map.groupBy(owed, ([name]) => groupOf(name));
    try {
      for (const [group, entries] of groups) await writeGroup(into, of, group, entries);
      if (failing) log.info({}, "daily limits are written to the store again");
      failing = false;
    } catch (error) {
      if (!failing) log.warn({ error }, "daily limits could not be written; this process counts on by itself");
      failing = true;
    }
  }

  async function writeGroup(into: Records, of: number, group: string, entries: readonly [string, number][]) {
    for (let tries = 0; tries < TRIES; tries++) {
      const row = await into.get<Group>(KIND, `${of}/${group}`);
      const known = new Map(Object.entries(row?.value ?? {}));
      for (const [name, parts] of entries)
        if (known.has(name) || known.size < MAX_IN_GROUP) known.set(name, Math.max(0, (known.get(name) ?? 0) + parts));
      const options = { ifVersion: row?.version ?? 0, expiresAt: (of + 2) * DAY_MS };
      if (!(await into.put(KIND, `${of}/${group}`, Object.fromEntries(known), options))) continue;
      if (of !== day) return;
      for (const [name, parts] of entries) {
        const left = (owed.get(name) ?? 0) - parts;
        if (left === 0) owed.delete(name);
        else owed.set(name, left);
      }
      // With what others have added.
      for (const [name, parts] of known) counts.set(name, parts + (owed.get(name) ?? 0));
      return;
    }
  }

  return {
    count(key) {
      turn();
      return counts.get(digestOf(key)) ?? 0;
    },
    add(key, parts) {
      turn();
      const name = digestOf(key);
      counts.set(name, Math.max(0, (counts.get(name) ?? 0) + parts));
      if (records === undefined) return;
      owed.set(name, (owed.get(name) ?? 0) + parts);
      later();
    },
    async close() {
      clearTimeout(timer);
      await flushing;
      if (owed.size > 0) await flush();
      clearTimeout(timer);
    },
  };
}

const dayOf = (ms: number) => Math.floor(ms / DAY_MS);

/** By the first characters of a digest, which are spread evenly. */
function groupOf(name: string): string {
  return String((name.charCodeAt(0) * 31 + name.charCodeAt(1)) % GROUPS).padStart(2, "0");
}
