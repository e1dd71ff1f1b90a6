/** Writes audit records, many to a commit, and refuses in time when it cannot: nothing is answered that is not recorded. */
import { setImmediate, setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import * as events from "../observe/events.ts";
import type { Logger } from "../observe/logger.ts";
import type { AuditLog } from "../store/ports.ts";
import type { Chain, Linked } from "./chain.ts";
import { type AuditRecord, type Draft, draftOf } from "./record.ts";
import type { AuditSettings } from "./settings.ts";

export interface Journal extends AsyncDisposable {
  /**
   * Records are written in the order of these calls. `durable`: resolves when the record is on disk. `async`: resolves at once.
   * Rejects with `audit_unavailable` when the write fails, the last one did, or `maxPending` records wait already: the caller must
   * then not answer as if all were well. What was accepted is kept and tried again all the same; a record over `maxPending` is not.
   * `commit` is for what cannot be taken back after its record, whatever the settings say.
   */
  append(record: AuditRecord, commit?: AuditSettings["commit"]): Promise<void>;
  /** Throws `audit_unavailable` when `append` would reject. Ask before anything that can not be taken back. */
  check(): void;
  /** Records that are not on disk yet. */
  readonly pending: number;
  /** Writes what is pending. Throws `audit_unavailable` when that fails; the records are lost then, and logged as lost. */
  close(): Promise<void>;
}

export interface JournalParts {
  readonly log: Pick<AuditLog, "append"> & { close?(): Promise<void> };
  readonly chain: Chain;
  /** Takes out of a record's texts what must be in none, such as the secrets of the settings. */
  readonly clean?: (text: string) => string;
  readonly settings: Pick<AuditSettings, "commit" | "maxPending">;
  readonly logger: Logger;
  readonly clock?: Clock;
  /** Resolves after so many milliseconds; between a failed write and the next try. */
  readonly wait?: (ms: number) => Promise<unknown>;
}

/** Bounds one commit, so that a backlog does not become one long transaction. */
const MAX_BATCH = 1000;
const FIRST_RETRY_MS = 100;
const LAST_RETRY_MS = 5000;
/**
 * A commit costs some 0.2 ms of CPU however many records it has, and each record 7 µs. So under load one waits for company, but no
 * longer than this, and not for everybody who was there last time: while two thirds of the callers wait for the disk the others have
 * their calls done. A caller alone does not wait.
 */
const GATHER_MS = 2;
const GATHER_FROM = 3;
const GATHER_SHARE = 2 / 3;
/** With `async` nobody waits, so there is time; `maxPending` is not to be reached by it. */
const ASYNC_GATHER_MS = 50;
const ASYNC_GATHER_ROWS = MAX_BATCH;

/** Records that go into one commit, and the promise that all their callers share. */
interface Batch {
  readonly drafts: Draft[];
  /** With their places in the chain, which they keep however often they have to be written. */
  linked?: Linked;
  readonly done: PromiseWithResolvers<void>;
  /** Its callers were told that it failed; later records need another one. */
  refused: boolean;
}

export function openJournal(parts: JournalParts): Journal {
  const { log, logger, settings, chain } = parts;
  const clock = parts.clock ?? systemClock;
  const wait = parts.wait ?? ((ms: number) => sleep(ms, undefined, { ref: false }));
  const waiting: Batch[] = [];
  let pending = 0;
  let writing: Promise<void> | undefined;
  let failure: { readonly error: unknown; readonly since: number; readonly retryMs: number } | undefined;
  let closing = false;
  const ending = Promise.withResolvers<void>();
  /** While one waits for company: how many are enough, and what to do then. */
  let enough = Number.POSITIVE_INFINITY;
  let goOn = () => {};
  /** Somebody waits for the next commit although the others do not. */
  let hurried = false;

  function check(): void {
    if (closing) throw unavailable("the journal is closed");
    if (failure !== undefined) throw unavailable("the last write failed", failure.error);
    if (pending >= settings.maxPending) throw unavailable(`${pending} records wait to be written already`);
  }

  function append(record: AuditRecord, commit = settings.commit): Promise<void> {
    const refusal = caught(check);
    if (closing || pending >= settings.maxPending) {
      events.auditLost(logger, { records: 1, first: record.id }, refusal);
      return Promise.reject(refusal);
    }
    let draft: Draft;
    try {
      draft = draftOf(record, parts.clean);
    } catch (thrown) {
      return Promise.reject(unavailable(`record ${record.id} cannot be written as text`, thrown));
    }
    const done = enqueue(draft);
    if (commit === "durable" && settings.commit === "async") {
      hurried = true;
      goOn();
    }
    if (refusal !== undefined) return Promise.reject(refusal);
    return commit === "durable" ? done : Promise.resolve();
  }

  function enqueue(draft: Draft): Promise<void> {
    let batch = waiting.at(-1);
    const full = batch === undefined || batch.linked !== undefined || batch.drafts.length >= MAX_BATCH;
    if (batch === undefined || full || (batch.refused && failure === undefined)) {
      batch = { drafts: [], done: Promise.withResolvers(), refused: false };
      batch.done.promise.catch(() => {}); // Whoever waits sees it; with `async` nobody does.
      waiting.push(batch);
    }
    batch.drafts.push(draft);
    pending++;
    if (pending >= enough) goOn();
    writing ??= writeAll();
    return batch.done.promise;
  }

  /** One commit after the other until nothing waits. Runs at most once at a time, so the order holds. */
  async function writeAll(): Promise<void> {
    await gather(0);
    await setImmediate();
    for (let batch = waiting.shift(); batch !== undefined; batch = waiting.shift()) {
      hurried = false;
      await write(batch);
      if (failure !== undefined) break;
      await gather(batch.drafts.length);
    }
    writing = undefined;
  }

  /** Waits for more records to come while that is worth it, after a commit of `last` of them. */
  async function gather(last: number): Promise<void> {
    if (settings.commit === "async")
      await company(Math.min(ASYNC_GATHER_ROWS, settings.maxPending / 2), ASYNC_GATHER_MS);
    else if (last >= GATHER_FROM) await company(Math.ceil((last + pending) * GATHER_SHARE), GATHER_MS);
  }

  /** Resolves when so many records wait, and after so many milliseconds at the latest. */
  function company(rows: number, ms: number): Promise<void> {
    if (closing || hurried || pending >= rows) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(stop, ms);
      function stop() {
        clearTimeout(timer);
        enough = Number.POSITIVE_INFINITY;
        resolve();
      }
      enough = rows;
      goOn = stop;
    });
  }

  async function write(batch: Batch): Promise<void> {
    for (;;) {
      try {
        batch.linked ??= await chain.link(batch.drafts);
        batch.linked.stands(await log.append(batch.linked.rows, batch.linked.head));
        pending -= batch.drafts.length;
        batch.done.resolve();
        recovered(batch);
        return;
      } catch (error) {
        const retryMs = failed(batch, error);
        if (closing) return void waiting.unshift(batch);
        await Promise.race([wait(retryMs), ending.promise]);
      }
    }
  }

  function recovered(batch: Batch): void {
    if (failure === undefined) return;
    events.auditRecovered(logger, { written: batch.drafts.length, failedForMs: clock() - failure.since });
    failure = undefined;
  }

  /** Tells the callers of everything that waits; the records stay for better times. Returns when to try again. */
  function failed(batch: Batch, error: unknown): number {
    const retryMs = failure === undefined ? FIRST_RETRY_MS : Math.min(failure.retryMs * 2, LAST_RETRY_MS);
    if (failure === undefined) events.auditFailing(logger, { pending, retryMs }, error);
    failure = { error, since: failure?.since ?? clock(), retryMs };
    for (const each of [batch, ...waiting]) {
      each.refused = true;
      each.done.reject(unavailable("a write failed", error));
    }
    return retryMs;
  }

  async function close(): Promise<void> {
    if (closing) return writing;
    closing = true;
    ending.resolve();
    goOn();
    await writing;
    if (pending === 0) await seal();
    await log.close?.();
    if (pending === 0) return;
    events.auditLost(logger, { records: pending, first: waiting[0]?.drafts[0]?.row.id }, failure?.error);
    throw unavailable(`${pending} records could not be written before the end`, failure?.error);
  }

  /** The last checkpoint. Without it all that is missing is its signature over what the last head vouches for. */
  async function seal(): Promise<void> {
    try {
      const end = await chain.end();
      if (end !== undefined) await log.append(end.rows, end.head);
    } catch (error) {
      logger.warn({ error }, "the last checkpoint of the audit log could not be written");
    }
  }

  return {
    append,
    check,
    get pending() {
      return pending;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function caught(run: () => void): unknown {
  try {
    run();
    return undefined;
  } catch (thrown) {
    return thrown;
  }
}

function unavailable(detail: string, cause?: unknown): DrawbridgeError {
  const message = "The audit log cannot be written, so nothing is permitted. Try again soon, or tell the operator.";
  return new DrawbridgeError("audit_unavailable", message, { detail, cause, retryAfterSeconds: 5 });
}
