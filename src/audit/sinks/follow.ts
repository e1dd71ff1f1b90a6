/** Follows the log for one sink: reads on from where the sink is, sends, and writes down how far it is when that has arrived. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import * as events from "../../observe/events.ts";
import type { Logger } from "../../observe/logger.ts";
import type { AuditLog } from "../../store/ports.ts";
import { isStub } from "../link.ts";
import type { PersonalKeys } from "../personal.ts";
import { readRecord } from "../record.ts";
import { BEAT_MS, type Cursor, Lost } from "./cursor.ts";
import { formatted } from "./formats.ts";
import { kindOf, nameOf, type SinkSettings } from "./settings.ts";
import type { Entry, Sink } from "./sink.ts";

/** One sink as operators see it. */
export interface SinkState {
  readonly name: string;
  readonly kind: string;
  /** This replica sends; another one does, or none. */
  readonly sending: boolean;
  /** Records that it has not got yet. Those that it does not want are counted until they are passed. */
  readonly behind: number;
  readonly sequence: number;
  readonly sent: number;
  /** Batches that did not arrive. */
  readonly failures: number;
  /** Records that the other side has refused for good. */
  readonly refused: number;
  /** ISO 8601. */
  readonly lastSent?: string;
  readonly failingSince?: string;
  readonly problem?: string;
}

export interface Follower {
  state(): SinkState;
  /** Sends what there is, up to `drainMs` while that works, lets go of the sink and ends. */
  close(drainMs?: number): Promise<void>;
}

export interface FollowerParts {
  readonly settings: SinkSettings;
  /** Made anew after each failure. */
  readonly open: () => Promise<Sink>;
  readonly cursor: Cursor;
  readonly log: Pick<AuditLog, "read">;
  /** Asked for each batch, if `open` is set: a key that was destroyed meanwhile opens nothing. */
  readonly keys: Pick<PersonalKeys, "open" | "forget">;
  /** URI of the gateway. */
  readonly source: string;
  /** Takes secrets out of what the other side is said to have answered. */
  readonly conceal?: (text: string) => string;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/** Records that are read at once. */
const PAGE = 250;
/** How often the log is looked at for more. */
const LOOK_MS = 250;
/** How often a replica that does not send looks whether it has to. */
const TAKE_MS = 1000;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 30_000;
const MAX_RETRY_AFTER_MS = 300_000;
const SEND_MS = 60_000;
const CLOSE_MS = 3000;
const MAX_PROBLEM = 500;

export function follow(parts: FollowerParts): Follower {
  const { settings, cursor, log, keys, logger, clock = systemClock, conceal = (text) => text } = parts;
  const name = nameOf(settings);
  const kind = kindOf(settings);
  const wanted = {
    kinds: settings.only?.kinds && new Set<string>(settings.only.kinds),
    outcomes: settings.only?.outcomes && new Set<string>(settings.only.outcomes),
  };
  const ending = new AbortController();
  let draining = false;
  let sink: Sink | undefined;
  let newest = 0;
  let retryMs = 0;
  /** The last record of the page that was tried last. */
  let again = 0;
  /** Since when it does not work; said once. */
  let failingSince: number | undefined;

  const said = (text: string) => conceal(text).slice(0, MAX_PROBLEM);
  const pause = (ms: number) => sleep(ms, undefined, { signal: ending.signal, ref: false }).catch(() => {});
  /** Whoever sends shows that it lives, also while it waits for the other side. */
  const beat = setInterval(() => {
    if (cursor.held) cursor.write({}).catch(() => {});
    log.read({ limit: 1, newest: true }).then(
      ([last]) => {
        newest = Math.max(newest, last?.sequence ?? 0);
      },
      () => {},
    );
  }, BEAT_MS);
  beat.unref();

  async function run(): Promise<void> {
    while (!ending.signal.aborted) {
      try {
        if (!cursor.held) {
          if (draining) return;
          if (!(await cursor.take())) {
            await pause(TAKE_MS);
            continue;
          }
        }
        const more = await deliver();
        if (!more && draining) return;
        if (!more) await pause(LOOK_MS);
      } catch (thrown) {
        if (ending.signal.aborted) return;
        // A connection that hangs may hang in its end, too.
        void sink?.close().catch(() => {});
        sink = undefined;
        if (thrown instanceof Lost) continue;
        failed(thrown);
        if (draining) return;
        await pause(retryAfterOf(thrown));
      }
    }
  }

  /** One page of the log. False: there was nothing more. */
  async function deliver(): Promise<boolean> {
    const { sequence } = cursor.place;
    const read = await log.read({ limit: PAGE, after: sequence });
    // What did not arrive goes again as it was cut: a request that is repeated is the same request.
    const page = again > sequence ? read.filter((one) => one.sequence <= again) : read;
    const through = page.at(-1)?.sequence;
    if (through === undefined) return false;
    again = through;
    newest = Math.max(newest, through);
    const entries = await entriesOf(page);
    if (entries.length > 0) await sendAll(entries);
    if (through > cursor.place.sequence) await cursor.write({ sequence: through });
    return read.length === PAGE || page.length < read.length;
  }

  async function entriesOf(page: readonly { readonly sequence: number; readonly json: string }[]): Promise<Entry[]> {
    const { format, open } = settings;
    if (open) keys.forget();
    const entries: Entry[] = [];
    for (const { sequence, json } of page) {
      if (isStub(json)) continue;
      const record = await readRecord(json, open ? keys.open : undefined);
      if (wanted.kinds?.has(record.kind) === false || wanted.outcomes?.has(record.outcome) === false) continue;
      const opened = open && record.sealed === undefined && SEALED.test(json);
      const text = formatted(format, { record, json, opened, sequence, source: parts.source });
      entries.push({ sequence, record, text });
    }
    return entries;
  }

  /** In batches as the sink wants them, smaller ones when the other side does not take so much. */
  async function sendAll(entries: readonly Entry[]): Promise<void> {
    sink ??= await parts.open();
    const batches = batchesOf(entries, sink.most);
    for (let batch = batches.shift(); batch !== undefined; batch = batches.shift()) {
      await cursor.sure();
      try {
        const refused = await inTime(sink, batch);
        const { place } = cursor;
        arrived();
        if (refused !== undefined)
          events.sinkRefused(logger, { sink: name, records: refused.records, why: said(refused.why) });
        await cursor.write({
          sequence: batch.at(-1)?.sequence ?? place.sequence,
          sent: place.sent + batch.length,
          refused: place.refused + (refused?.records ?? 0),
          sentAt: clock(),
          failingSince: undefined,
          problem: undefined,
        });
      } catch (thrown) {
        const large = thrown instanceof DrawbridgeError && thrown.code === "body_too_large" && batch.length > 1;
        if (!large) throw thrown;
        const half = Math.ceil(batch.length / 2);
        batches.unshift(batch.slice(0, half), batch.slice(half));
      }
    }
  }

  async function inTime(to: Sink, batch: readonly Entry[]) {
    const signal = AbortSignal.any([ending.signal, AbortSignal.timeout(SEND_MS)]);
    const { promise: aborted, reject } = Promise.withResolvers<never>();
    const abort = () =>
      reject(new DrawbridgeError("upstream_timeout", `There was no answer within ${SEND_MS / 1000} s.`));
    signal.addEventListener("abort", abort, { once: true });
    try {
      return await Promise.race([to.send(batch, signal), aborted]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  function failed(thrown: unknown): void {
    const { place } = cursor;
    const problem = said(wordsOf(thrown));
    retryMs = retryMs === 0 ? FIRST_RETRY_MS : Math.min(retryMs * 2, LAST_RETRY_MS);
    if (failingSince === undefined) events.sinkFailing(logger, { sink: name, kind, problem });
    failingSince ??= place.failingSince ?? clock();
    // A store that cannot be written learns of it later.
    cursor.write({ failures: place.failures + 1, failingSince, problem }).catch(() => {});
  }

  function arrived(): void {
    retryMs = 0;
    if (failingSince !== undefined)
      events.sinkRecovered(logger, { sink: name, kind, failedForMs: clock() - failingSince });
    failingSince = undefined;
  }

  function retryAfterOf(thrown: unknown): number {
    const asked = thrown instanceof DrawbridgeError ? (thrown.retryAfterSeconds ?? 0) * 1000 : 0;
    return Math.max(retryMs, Math.min(asked, MAX_RETRY_AFTER_MS));
  }

  const running = run();
  return {
    state() {
      const { sequence, sent, failures, refused, sentAt, failingSince, problem } = cursor.place;
      return {
        name,
        kind,
        sending: cursor.held,
        behind: Math.max(0, newest - sequence),
        sequence,
        sent,
        failures,
        refused,
        ...(sentAt !== undefined && { lastSent: new Date(sentAt).toISOString() }),
        ...(failingSince !== undefined && { failingSince: new Date(failingSince).toISOString() }),
        ...(problem !== undefined && { problem }),
      };
    },
    async close(drainMs = 0) {
      draining = true;
      const late = setTimeout(() => ending.abort(), failingSince === undefined ? drainMs : 0);
      await running;
      clearTimeout(late);
      ending.abort();
      clearInterval(beat);
      // Neither the other side nor the store may hold up the end.
      const bye = Promise.allSettled([sink?.close(), cursor.release()]);
      await Promise.race([bye, sleep(CLOSE_MS, undefined, { ref: false })]);
    },
  };
}

const SEALED = /,"sealed":\{"key":"/;

function batchesOf(entries: readonly Entry[], most: Sink["most"]): (readonly Entry[])[] {
  const batches: Entry[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const entry of entries) {
    const size = Buffer.byteLength(entry.text);
    const last = batches.at(-1);
    if (last === undefined || last.length >= most.entries || bytes + size > most.bytes) {
      batches.push([entry]);
      bytes = size;
    } else {
      last.push(entry);
      bytes += size;
    }
  }
  return batches;
}

/** What went wrong, in words for the operator. */
function wordsOf(thrown: unknown): string {
  if (thrown instanceof DrawbridgeError)
    return thrown.detail === undefined ? thrown.message : `${thrown.message} (${thrown.detail})`;
  return thrown instanceof Error ? thrown.message : String(thrown);
}
