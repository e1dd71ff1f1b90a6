/**
 * What is kept, and for how long: records go when they are older than `audit.keep`, unless somebody put them on hold. What goes is
 * recorded in the log itself, so that a log from which anything else is missing does not verify.
 */
import { setImmediate } from "node:timers/promises";
import type { JsonObject } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { AuditLog, Records, Retired } from "../store/ports.ts";
import { type HoldDoubt, isHeld, lookAtHolds, storedHolds } from "./holds.ts";
import type { Journal } from "./journal.ts";
import { leaving, type OldText } from "./leaving.ts";
import { isStub } from "./link.ts";
import { logRecord, readRecord } from "./record.ts";
import { keepRetired, type LastRetired, lastRetired, type Told, vouchersBeside } from "./retired.ts";
import type { Signer, Vouchers } from "./signing.ts";
import { verifyLog } from "./standing.ts";
import { headIn } from "./statements.ts";
import type { Problem } from "./verify.ts";

export interface Retirement {
  /** Records that went. */
  readonly removed: number;
  /** Of which a hash is left, because records before them are on hold. */
  readonly stubs: number;
  /** Records that are old enough and stay, because they are on hold. */
  readonly held: number;
  /** What of the holds is not as the log says; it was kept as much as any of them asks for. */
  readonly doubts: readonly HoldDoubt[];
}

export interface RetentionParts {
  readonly log: Pick<AuditLog, "read" | "heads" | "retire">;
  readonly records: Records;
  readonly journal: Pick<Journal, "append">;
  /** Who signs what is left of the log. */
  readonly signer: () => Promise<Signer>;
  /** Public keys as PEM that the log was signed with before. */
  readonly earlierKeys?: readonly string[];
  readonly replica: string;
  readonly clock: () => number;
  /** The greatest number of the log that may go; what comes after it is still to be sent somewhere. Default: all of them. */
  readonly notBeyond?: () => Promise<number>;
  /** Records that one `audit.retired` speaks of; more are taken by one after the other. */
  readonly atOnce?: number;
}

const PAGE = 1000;
const AT_ONCE = 50_000;
/** Runs that begin anew because of a hold that was placed meanwhile; what is left then goes another time. */
const MAX_RUNS = 5;
/** Another process may begin when this one has said nothing for so long. */
const LEASE_MS = 600_000;

/**
 * Takes the records out that began before `before` (milliseconds since the epoch) and are not on hold, oldest first. What is to go is
 * recorded before it goes: what an interrupted run has left is taken by the next one. A hold that is placed meanwhile keeps all of its
 * records that are still there. Throws `audit_unavailable` when the log is not what the last run has left, and while another process
 * takes records out.
 */
export async function retire(before: number, parts: RetentionParts): Promise<Retirement> {
  const { records, clock } = parts;
  const lease = () => ({ expiresAt: clock() + LEASE_MS });
  if (!(await records.put(RETIRING, "run", {}, { ifVersion: 0, ...lease() })))
    throw new DrawbridgeError("audit_unavailable", "Another process takes out old records just now. Try again later.");
  try {
    let removed = 0;
    let stubs = 0;
    for (let runs = 1; ; runs++) {
      const run = await retireOnce(before, parts, () => records.put(RETIRING, "run", {}, lease()));
      removed += run.removed;
      stubs += run.stubs;
      if (!run.interrupted || runs === MAX_RUNS) return { removed, stubs, held: run.held, doubts: run.doubts };
    }
  } finally {
    await records.delete(RETIRING, "run");
  }
}
const RETIRING = "audit-retiring";

/** `interrupted`: there are other holds than when it began. */
async function retireOnce(
  before: number,
  parts: RetentionParts,
  alive: () => Promise<unknown>,
): Promise<Retirement & { readonly interrupted: boolean }> {
  const { log, records, journal, replica, clock, notBeyond, atOnce = AT_ONCE } = parts;
  const last = (await notBeyond?.()) ?? Number.POSITIVE_INFINITY;
  const known = new Set((await storedHolds(records)).map(({ text }) => text));
  const signer = await parts.signer();
  const vouchers = vouchersBeside(signer, parts.earlierKeys);
  const held = await lookAtHolds(log, records, vouchers, { followed: following(vouchers) });
  const { problem } = held.verdict;
  if (problem !== undefined) throw notWhole(problem);
  const said = await saidBefore(parts, vouchers);
  const decided = leaving(said, new Map((await headsOf(log)).map((head) => [head.chain, head])));
  let { turn } = said;
  let going: Retired["records"][number][] = [];
  const done = { removed: 0, stubs: 0, held: 0, doubts: held.doubts };

  /** False: there is another hold. What it covers stays, and what comes after that in a chain cannot go without a trace any more. */
  async function take(): Promise<boolean> {
    if (going.length === 0) return true;
    await alive();
    const told = decided.told();
    await keepRetired(records, { ...told, turn: ++turn }, signer);
    const counts = { turn, removed: going.length, stubs: stubsIn(going), held: done.held };
    // As JSON, for a record holds nothing else.
    const details = JSON.parse(
      JSON.stringify({ before: new Date(before).toISOString(), ...counts, ...told }),
    ) as JsonObject;
    await journal.append(logRecord("audit.retired", details, replica, clock()), "durable");
    for (let from = 0; from < going.length; from += PAGE) {
      if ((await storedHolds(records)).some(({ text }) => !known.has(text))) return false;
      const page = going.slice(from, from + PAGE);
      await log.retire({ records: page, heads: [] });
      done.removed += page.length;
      done.stubs += stubsIn(page);
    }
    going = [];
    return true;
  }

  for await (const old of oldest(log, before, last)) {
    const { record } = old;
    const onHold = record !== undefined && held.inForce.some((hold) => isHeld(record, hold));
    const left = decided.next(old, record === undefined ? onHold : held.stays(record, onHold));
    if (left !== undefined) going.push(left);
    else if (record !== undefined) done.held++;
    if (going.length >= atOnce && !(await take())) return { ...done, interrupted: true };
  }
  if (!(await take())) return { ...done, interrupted: true };
  const begins = new Map(decided.told().chains.map(({ chain, n }) => [chain, n]));
  const gone = (await headsOf(log)).filter(({ chain, size }) => size === begins.get(chain));
  if (gone.length > 0) await log.retire({ records: [], heads: gone.map(({ chain, json }) => ({ chain, json })) });
  return { ...done, interrupted: false };
}

/**
 * Follows all chains, and believes what was signed with a key that is not among those that are trusted, such as one before the last
 * change of it: retention goes on, and what is taken has been said to be taken.
 */
function following({ kids, verify }: Vouchers): Vouchers {
  return { kids, verify: (kid, ...rest) => !kids.includes(kid) || verify(kid, ...rest) };
}

function notWhole({ kind, at, why }: Problem): DrawbridgeError {
  const where = at === 0 ? "" : ` at record ${at}`;
  const message = `The audit log is not whole, so nothing is taken out of it: ${kind}${where}. ${why} See drawbridge audit verify.`;
  return new DrawbridgeError("audit_unavailable", message);
}

/** Where the row is missing, or is not what was signed, a log that verifies says the same. What neither says was never taken. */
async function saidBefore({ log, records }: RetentionParts, vouchers: Vouchers): Promise<LastRetired> {
  const { turn, told } = await lastRetired(records, vouchers);
  if (told !== undefined) return { ...told, turn };
  const { verdict, told: recorded } = await verifyLog(log, vouchers);
  return { ...(verdict.problem === undefined ? recorded : NOTHING), turn };
}
const NOTHING: Told = { chains: [], unchained: { taken: 0 } };

function stubsIn(retired: Retired["records"]): number {
  return retired.filter(({ stub }) => stub !== undefined).length;
}

async function headsOf(log: Pick<AuditLog, "heads">) {
  return (await log.heads()).flatMap((each) => {
    const head = headIn(each);
    return head === undefined ? [] : [{ ...each, size: head.size }];
  });
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
    const retirement = await retire(clock() - days * DAY_MS, parts);
    if (retirement.removed > 0) done(retirement);
    if (retirement.doubts.length > 0) throw doubtful(retirement.doubts);
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

function doubtful(doubts: readonly HoldDoubt[]): DrawbridgeError {
  const [{ hold, why } = { hold: "", why: "" }] = doubts;
  const message = `Holds are not as the log says, so all that they match was kept, ${hold} first: ${why} See drawbridge audit verify.`;
  return new DrawbridgeError("audit_unavailable", message);
}

const RUNS = "audit-retention";
const DAY_MS = 86_400_000;
const LOOK_MS = 3_600_000;

/** Records that began before a moment, from the first of the log to the first that did not. */
async function* oldest(log: Pick<AuditLog, "read">, before: number, last: number): AsyncGenerator<OldText> {
  for (let after = 0; ; ) {
    const page = await log.read({ limit: PAGE, after });
    for (const { sequence, json } of page) {
      const record = isStub(json) ? undefined : await readRecord(json).catch(() => undefined);
      if (sequence > last || (record !== undefined && Date.parse(record.at) >= before)) return;
      yield { sequence, json, record };
      after = sequence;
    }
    if (page.length < PAGE) return;
    await setImmediate();
  }
}
