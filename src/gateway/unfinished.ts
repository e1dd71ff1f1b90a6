/**
 * What tools with steps have begun and not ended, written down before it is begun: whoever finds a row that nobody works on any more
 * undoes what is in it. A row belongs to one replica at a time, for as long as that one keeps saying so.
 */
import type { RecordedField } from "../audit/record.ts";
import type { Plan } from "../contract/carry-out.ts";
import type { Authenticated, Revision } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Secret } from "../core/secret.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records, Row } from "../store/ports.ts";
import { decrypted, encrypted, sharedKey } from "../store/sealing.ts";

/** Whose run it is; enough to go on with it in another process. */
export interface About {
  readonly tool: string;
  readonly by: Authenticated;
  /** The rule that permitted the call. */
  readonly rule: string;
  readonly revision: Revision;
  readonly trace: { readonly traceId: string; readonly spanId: string };
  readonly startedAt: number;
  /** The client's arguments, as the record keeps them. */
  readonly arguments: RecordedField | undefined;
}

export interface Run {
  readonly id: string;
  /** Aborted when another replica has taken it. */
  readonly lost: AbortSignal;
  /** Writes down what would have to be undone now. Rejects when it could not be written, or the run is another's. */
  keep(plan: Plan): Promise<void>;
  /** Nothing of it is to be undone, whatever comes. Rejects when that could not be written, or the run is another's. */
  commit(): Promise<void>;
  /** What was to be undone is, or never will be. */
  forget(): Promise<void>;
  /** Somebody else goes on with it, not before `at`. */
  leave(at: number): Promise<void>;
}

export interface Found {
  readonly about: About;
  readonly plan: Plan;
  /** How often it was left, from 0. */
  readonly rounds: number;
  readonly run: Run;
}

export interface Unfinished {
  begin(id: string, about: About): Run;
  /** Takes, for this replica, what nobody works on any more. */
  abandoned(): AsyncIterable<Found>;
}

export interface UnfinishedOptions {
  readonly records: Records;
  readonly encryption: Secret | undefined;
  readonly log: Logger;
  /** How long a replica that says nothing is believed to be there. */
  readonly leaseMs?: number;
  readonly clock?: Clock;
}

interface Stored {
  readonly sealed: string;
  /** Somebody works on it until then at least. */
  readonly until: number;
  readonly rounds: number;
  /** It has ended well, and is about to be deleted. */
  readonly ended?: true;
}

const KIND = "unfinished";
export const LEASE_MS = 30_000;
/** What is added to it, because clocks of replicas differ. */
const SKEW = 1 / 3;
const PAGE = 100;
/** Runs that cannot be read, of which each is named in the log once. */
const MAX_NAMED = 1000;
const ENDED_MS = 60_000;
/** What nobody could undo in this time, because no gateway ran, nobody should undo any more. */
const MAX_AGE_MS = 30 * 86_400_000;

export function openUnfinished(options: UnfinishedOptions): Unfinished {
  const { records, encryption, log, leaseMs = LEASE_MS, clock = systemClock } = options;
  let known: Promise<Buffer> | undefined;
  const key = () => {
    known ??= sharedKey(records, KIND, "drawbridge unfinished 1", encryption).catch((error: unknown) => {
      known = undefined;
      throw error;
    });
    return known;
  };
  const lease = () => clock() + leaseMs * (1 + SKEW);
  const bindingOf = (id: string) => `${KIND}\n${id}`;

  function hold(id: string, about: About, written: { version: number; plan: Plan; rounds: number } | undefined): Run {
    const lost = new AbortController();
    let version = written?.version ?? 0;
    let plan = written?.plan;
    let last: Promise<unknown> = Promise.resolve();
    let over = false;
    const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
      const done = last.then(work);
      last = done.catch(() => {});
      return done;
    };
    const write = async (until: number, more: { rounds?: number; ended?: true } = {}) => {
      const sealed = encrypted(await key(), JSON.stringify([about, plan]), bindingOf(id));
      const value: Stored = { sealed, until, rounds: written?.rounds ?? 0, ...more };
      const expiresAt = more.ended ? clock() + ENDED_MS : clock() + MAX_AGE_MS;
      if (!(await records.put(KIND, id, value, { ifVersion: version, expiresAt }))) {
        lost.abort();
        throw new DrawbridgeError("internal", "The call was given up by this gateway.", {
          detail: `another replica has taken the run ${id}`,
        });
      }
      version++;
    };
    const beat = setInterval(() => {
      if (plan === undefined || over) return;
      inTurn(async () => over || write(lease())).catch((error: unknown) =>
        log.warn({ run: id, error }, "a run of steps could not be kept"),
      );
    }, leaseMs / 3);
    beat.unref();
    const end = () => {
      over = true;
      clearInterval(beat);
    };
    return {
      id,
      lost: lost.signal,
      keep: (now) =>
        inTurn(async () => {
          plan = now;
          await write(lease());
        }),
      commit: () =>
        inTurn(async () => {
          if (plan === undefined) return end();
          // Deleting would not tell whether it was still ours.
          await write(0, { ended: true });
          end();
          await records.delete(KIND, id).catch(() => {});
        }),
      async forget() {
        end();
        await inTurn(() => (plan === undefined ? Promise.resolve() : records.delete(KIND, id)));
      },
      async leave(at) {
        end();
        if (plan !== undefined) await inTurn(() => write(at, { rounds: (written?.rounds ?? 0) + 1 }));
      },
    };
  }

  /** Of which it was said already, as far as they are still there. */
  let unreadable: ReadonlySet<string> = new Set();

  function cannotBeRead(run: string, found: Set<string>): void {
    if (found.size === MAX_NAMED) return;
    found.add(run);
    if (unreadable.has(run)) return;
    log.error({ run }, "what a run of steps left to be undone cannot be read, so it stays as it is");
    if (found.size === MAX_NAMED) log.error({ named: MAX_NAMED }, "more runs may be unreadable; they are not named");
  }

  async function taken({ id, value, version }: Row<Stored>, lost: Set<string>): Promise<Found | undefined> {
    const text = decrypted(await key(), value.sealed, bindingOf(id));
    if (text === undefined) {
      // It may be this gateway that has the wrong secret. Another one can read it, or it ends by itself.
      cannotBeRead(id, lost);
      return undefined;
    }
    const until = lease();
    if (!(await records.put(KIND, id, { ...value, until }, { ifVersion: version, expiresAt: clock() + MAX_AGE_MS })))
      return undefined;
    const [about, plan] = JSON.parse(text) as [About, Plan];
    const { rounds } = value;
    return { about, plan, rounds, run: hold(id, about, { version: version + 1, plan, rounds }) };
  }

  return {
    begin: (id, about) => hold(id, about, undefined),
    // One after the other: a run is held from here on, and whoever asked has to work on it.
    async *abandoned() {
      const lost = new Set<string>();
      for (let after: string | undefined; ; ) {
        const rows = await records.list<Stored>(KIND, { limit: PAGE, ...(after !== undefined && { after }) });
        for (const row of rows) {
          const { until, ended } = row.value;
          if (ended || until > clock()) continue;
          const one = await taken(row, lost);
          if (one !== undefined) yield one;
        }
        after = rows.at(-1)?.id;
        if (rows.length < PAGE) break;
      }
      unreadable = lost;
    },
  };
}
