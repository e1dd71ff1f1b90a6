/**
 * What is kept, and for how long: records go when they are older than `audit.keep`, unless somebody put them on hold. What goes is
 * recorded in the log itself, so that a log from which anything else is missing does not verify.
 */
import { DrawbridgeError } from "../core/errors.ts";
import type { AuditLog, Records, Retired } from "../store/ports.ts";
import type { Journal } from "./journal.ts";
import { leafHash } from "./merkle.ts";
import { type Link, logRecord, readRecord, type StoredRecord } from "./record.ts";
import { readHead } from "./statements.ts";
import { isStub, linkOf, type RetiredChain, stubHash } from "./verify.ts";

/** A legal hold: records that it matches stay, however old. */
export interface Hold {
  /** Its name, e.g. a case number. */
  readonly id: string;
  readonly reason: string;
  /** Absent: of everybody. */
  readonly subject?: string | undefined;
  readonly target?: string | undefined;
  /** Milliseconds since the epoch: not before `since`, before `until`. */
  readonly since?: number | undefined;
  readonly until?: number | undefined;
  readonly placedBy: string;
  readonly placedAt: number;
}

const HOLDS = "audit-hold";

export async function holds(records: Records): Promise<readonly Hold[]> {
  return (await records.list<Hold>(HOLDS, { limit: 1000 })).map(({ value }) => value);
}

/** Throws `settings_invalid` when there is one of that name. */
export async function placeHold(records: Records, hold: Hold): Promise<void> {
  if (await records.put(HOLDS, hold.id, hold, { ifVersion: 0 })) return;
  throw new DrawbridgeError("settings_invalid", `There is a hold ${hold.id} already. Choose another name.`);
}

/** Returns whether there was one. */
export async function liftHold(records: Records, id: string): Promise<boolean> {
  return (await records.take(HOLDS, id)) !== undefined;
}

export interface Retirement {
  /** Records that went. */
  readonly removed: number;
  /** Of which a hash is left, because records before them are on hold. */
  readonly stubs: number;
  /** Records that are old enough and stay, because they are on hold. */
  readonly held: number;
}

export interface RetentionParts {
  readonly log: Pick<AuditLog, "read" | "heads" | "retire">;
  readonly records: Records;
  readonly journal: Pick<Journal, "append">;
  readonly replica: string;
  readonly clock: () => number;
  /** The greatest number of the log that may go; what comes after it is still to be sent somewhere. Default: all of them. */
  readonly notBeyond?: () => Promise<number>;
}

const PAGE = 1000;
/** Records that one run looks at; the next one goes on. */
const MAX_RECORDS = 200_000;

/** What is left of a chain, while its old records are looked at. */
interface Remaining {
  /** The first record that stays; all before it go. */
  n: number;
  prev: string;
  /** Some before this one go, and leave their hash. */
  through: number;
  /** One of its records stays, so those after it cannot go without a trace. */
  holds: boolean;
}

/**
 * Takes the records out that began before `before` (milliseconds since the epoch) and are not on hold, oldest first. What is to go is
 * recorded before it goes: what an interrupted run has left is taken by the next one.
 */
export async function retire(before: number, parts: RetentionParts): Promise<Retirement> {
  const { log, records, journal, replica, clock, notBeyond } = parts;
  const last = (await notBeyond?.()) ?? Number.POSITIVE_INFINITY;
  const inForce = await holds(records);
  const chains = new Map<string, Remaining>();
  const retired: Retired["records"][number][] = [];
  let held = 0;
  for await (const { sequence, json, record } of oldest(log, before, last)) {
    const link = linkOf(json);
    if (link === undefined) {
      retired.push({ sequence, stub: undefined });
      continue;
    }
    const chain = chains.get(link.id) ?? { n: link.n, prev: link.prev, through: link.n, holds: false };
    chains.set(link.id, chain);
    if (record !== undefined && inForce.some((hold) => isHeld(record, hold))) {
      held++;
      chain.holds = true;
    } else if (!chain.holds) {
      chain.n = link.n + 1;
      chain.prev = record === undefined ? stubHash(json) : leafHash(json).toString("base64url");
      chain.through = chain.n;
      retired.push({ sequence, stub: undefined });
    } else if (record !== undefined) {
      chain.through = link.n + 1;
      retired.push({ sequence, stub: stubOf(leafHash(json).toString("base64url"), link) });
    }
  }
  if (retired.length === 0) return { removed: 0, stubs: 0, held };

  const told = await withEarlier(records, chains);
  const details = {
    before: new Date(before).toISOString(),
    removed: retired.length,
    held,
    chains: told.map((one) => ({ ...one })),
  };
  await journal.append(logRecord("audit.retired", details, replica, clock()));
  await records.put(RETIRED, "chains", told);
  for (let from = 0; from < retired.length; from += PAGE)
    await log.retire({ records: retired.slice(from, from + PAGE), heads: [] });
  const gone = (await log.heads()).filter(
    ({ chain, json }) => readHead(JSON.parse(json))?.size === chains.get(chain)?.n,
  );
  await log.retire({ records: [], heads: gone });
  return { removed: retired.length, stubs: retired.filter(({ stub }) => stub !== undefined).length, held };
}

/**
 * Takes out what is older than `days` once a day, on one of the replicas; `failed` hears when that did not work. Gives back what ends
 * it, and waits for a run under way.
 */
export function keepFor(
  days: number,
  parts: RetentionParts & {
    readonly done: (retirement: Retirement) => void;
    readonly failed: (error: unknown) => void;
  },
): () => Promise<void> {
  const { records, clock, done, failed } = parts;
  let running = Promise.resolve();
  const run = async () => {
    const today = String(Math.floor(clock() / DAY_MS));
    if (!(await records.put(RUNS, today, {}, { ifVersion: 0, expiresAt: clock() + 2 * DAY_MS }))) return;
    for (let more = true; more; ) {
      const retirement = await retire(clock() - days * DAY_MS, parts);
      if (retirement.removed > 0) done(retirement);
      more = retirement.removed >= MAX_RECORDS;
    }
  };
  const tick = () => {
    running = running.then(run).catch(failed);
  };
  const timer = setInterval(tick, LOOK_MS);
  timer.unref();
  tick();
  return () => {
    clearInterval(timer);
    return running;
  };
}

const RUNS = "audit-retention";
const DAY_MS = 86_400_000;
const LOOK_MS = 3_600_000;

/** Records that began before a moment, from the first of the log to the first that did not. Of a stub there is no record. */
async function* oldest(log: Pick<AuditLog, "read">, before: number, last: number) {
  let after = 0;
  for (let looked = 0; looked < MAX_RECORDS; looked += PAGE) {
    const page = await log.read({ limit: PAGE, after });
    for (const { sequence, json } of page) {
      const record = isStub(json) ? undefined : await readRecord(json);
      if (sequence > last || (record !== undefined && Date.parse(record.at) >= before)) return;
      yield { sequence, json, record };
      after = sequence;
    }
    if (page.length < PAGE) return;
  }
}

/** All that is known to be gone: each record of a retirement says it anew, so that the earlier ones can go. */
async function withEarlier(records: Records, chains: ReadonlyMap<string, Remaining>): Promise<readonly RetiredChain[]> {
  const earlier = (await records.get<readonly RetiredChain[]>(RETIRED, "chains"))?.value ?? [];
  const now = [...chains].map(([chain, { n, prev, through }]) => ({ chain, n, prev, through }));
  const known = new Map(earlier.map((one) => [one.chain, one]));
  for (const one of now) {
    const before = known.get(one.chain);
    known.set(one.chain, { ...one, through: Math.max(one.through, before?.through ?? 0) });
  }
  return [...known.values()].sort((a, b) => (a.chain < b.chain ? -1 : 1)).slice(-MAX_CHAINS);
}

const RETIRED = "audit-retired";
/** Chains are named by time: beyond so many, the oldest are known to nobody any more. */
const MAX_CHAINS = 1000;

function isHeld(record: StoredRecord, { subject, target, since, until }: Hold): boolean {
  const at = Date.parse(record.at);
  if (since !== undefined && at < since) return false;
  if (until !== undefined && at >= until) return false;
  return (
    (subject === undefined || record.principal?.subject === subject) &&
    (target === undefined || record.call?.name === target)
  );
}

function stubOf(digest: string, { id, n, prev }: Link): string {
  return `{"retired":{"hash":"${digest}"},"chain":{"id":"${id}","n":${n},"prev":"${prev}"}}`;
}
