/**
 * Letters between replicas, through the store: for the few moments in which one replica has an answer that another one waits for.
 * The store is read only while somebody waits, and there is nothing to read in it: letters are sealed.
 */
import { setTimeout as after } from "node:timers/promises";
import { type Clock, systemClock } from "../core/clock.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import type { Seals } from "./sealed-state.ts";

export interface Mailbox {
  /** Leaves a letter for a replica; of several with one id only the first is delivered. False: nobody waits there. */
  post(to: string, id: string, letter: unknown): Promise<boolean>;
  /** Looks for letters until the returned function is called. */
  wait(): () => void;
  /** Resolves when others can see that this replica waits. */
  present(): Promise<void>;
  close(): Promise<void>;
}

export interface MailboxOptions {
  readonly records: Records;
  readonly seals: Seals;
  /** Names this replica. */
  readonly address: string;
  readonly log: Logger;
  /** Takes one letter. */
  readonly deliver: (letter: unknown) => void;
  readonly clock?: Clock;
}

const LETTER = "letter";
const PRESENCE = "mailbox";
const LETTER_SECONDS = 60;
/** How often a replica says that it waits, and how long that is believed. */
const SAY_MS = 5_000;
const BELIEVED_MS = 15_000;
/** How often the store is read: soon after something happened, and when nothing does. */
const EAGER_MS = 100;
const PATIENT_MS = 500;
const EAGER_FOR_MS = 10_000;
const AT_ONCE = 100;

export function openMailbox({ records, seals, address, log, deliver, clock = systemClock }: MailboxOptions): Mailbox {
  const closed = new AbortController();
  let waiting = 0;
  let running: Promise<void> | undefined;
  let arrival = Promise.withResolvers<void>();
  let busyAt = 0;
  const bindingOf = (to: string, id: string) => `letter\n${to}\n${id}`;

  const read = async () => {
    const rows = await records.find<{ sealed: string }>(LETTER, "to", address, { limit: AT_ONCE });
    for (const { id } of rows) {
      const taken = await records.take<{ sealed: string }>(LETTER, id);
      if (taken === undefined) continue;
      busyAt = clock();
      const letter = await seals.open(taken.value.sealed, bindingOf(address, id));
      if (letter !== undefined) deliver(letter);
    }
    return rows.length === AT_ONCE;
  };
  const run = async () => {
    do {
      let saidAt = Number.NEGATIVE_INFINITY;
      while (waiting > 0 && !closed.signal.aborted) {
        let more = false;
        try {
          if (clock() - saidAt >= SAY_MS) {
            await records.put(PRESENCE, address, {}, { expiresAt: clock() + BELIEVED_MS });
            saidAt = clock();
          }
          more = await read();
        } catch (error) {
          log.warn({ error }, "letters of other replicas could not be read");
        }
        arrival.resolve();
        const pause = clock() - busyAt < EAGER_FOR_MS ? EAGER_MS : PATIENT_MS;
        if (!more) await after(pause, undefined, { ref: false, signal: closed.signal }).catch(() => {});
      }
      arrival = Promise.withResolvers();
      await records
        .delete(PRESENCE, address)
        .catch((error: unknown) => log.debug({ error }, "the store still says for a while that we wait"));
    } while (waiting > 0 && !closed.signal.aborted);
    running = undefined;
  };

  return {
    async post(to, id, letter) {
      if ((await records.get(PRESENCE, to)) === undefined) return false;
      const sealed = await seals.seal(letter, bindingOf(to, id), LETTER_SECONDS);
      const expiresAt = clock() + LETTER_SECONDS * 1000;
      await records.put(LETTER, id, { sealed }, { ifVersion: 0, expiresAt, index: { to } });
      return true;
    },
    wait() {
      waiting++;
      busyAt = clock();
      running ??= run();
      let over = false;
      return () => {
        if (!over) waiting--;
        over = true;
      };
    },
    present: () => (waiting > 0 && !closed.signal.aborted ? arrival.promise : Promise.resolve()),
    async close() {
      closed.abort();
      arrival.resolve();
      await running;
    },
  };
}

/** Where there is no second replica there are no letters. */
export const noMailbox: Mailbox = {
  post: () => Promise.resolve(false),
  wait: () => () => {},
  present: () => Promise.resolve(),
  close: () => Promise.resolve(),
};
