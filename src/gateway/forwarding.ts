/**
 * Streams that go on at another replica than the one that has them, because the client came back there: their events come as letters.
 * This is for the few calls whose connection broke; it takes a fraction of a second longer, and the store carries each message.
 */
import type { ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { newId, newToken } from "../core/ids.ts";
import type { Session } from "../mcp/sessions.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import { openMailbox } from "./mailbox.ts";
import { type Resumption, resumeOn, type Sink } from "./resume.ts";
import type { Seals } from "./sealed-state.ts";
import { KEEP_ALIVE_MS } from "./sse.ts";

export interface Forwarding {
  /** Goes on with a stream that answers a request, on this response; false, and nothing was sent, when that replica does not have it. */
  goOn(home: string, session: Session, lastEventId: string, response: ServerResponse): Promise<boolean>;
  close(): Promise<void>;
}

export interface ForwardingOptions {
  readonly resumption: Resumption;
  /** Shared by the replicas; undefined when there can be only this process. */
  readonly shared: Records | undefined;
  readonly seals: Seals;
  readonly log: Logger;
}

type Letter =
  | {
      readonly kind: "resume";
      readonly id: string;
      readonly from: string;
      readonly session: string;
      readonly owner: string;
      readonly lastEventId: string;
    }
  | { readonly kind: "begun" | "lost" | "ended"; readonly id: string }
  | { readonly kind: "said"; readonly id: string; readonly text: string }
  /** The client has gone again. */
  | { readonly kind: "gone"; readonly id: string };

const BEGUN_WITHIN_MS = 5_000;
const NOTICED_WITHIN_MS = 1_000;
const NOTICE_MS = 50;
/** A stream that is not even kept alive has nobody at the other end. */
const SILENT_MS = 3 * KEEP_ALIVE_MS;
const LETTER_LENGTH = 128 << 10;
const MAX_WAITING_LENGTH = 4 << 20;

export function openForwarding({ resumption, shared, seals, log }: ForwardingOptions): Forwarding {
  if (shared === undefined) return { goOn: () => Promise.resolve(false), close: () => Promise.resolve() };
  const addressOf = (home: string) => `streams ${home}`;
  /** What comes to us, and what ends that which goes out from us. */
  const incoming = new Map<string, (letter: Letter) => void>();
  const outgoing = new Map<string, () => void>();
  const mailbox = openMailbox({
    records: shared,
    seals,
    address: addressOf(resumption.home),
    log,
    deliver(content) {
      const letter = content as Letter;
      if (letter.kind === "resume") serve(letter);
      else if (letter.kind === "gone") outgoing.get(letter.id)?.();
      else incoming.get(letter.id)?.(letter);
    },
  });
  let stopWaiting = () => {};
  resumption.onAway((away) => {
    if (away) stopWaiting = mailbox.wait();
    else stopWaiting();
  });

  /** A client of ours came back to another replica. */
  const serve = (letter: Letter & { readonly kind: "resume" }) => {
    const session = resumption.sessionOf(letter.session, letter.owner);
    const found = session && resumption.find(session, letter.lastEventId);
    const here = found?.kind === "here" && found.channel.answers ? found : undefined;
    const sink = letters(letter.id, letter.from, here === undefined ? "lost" : "begun");
    here?.channel.attach(sink, here.after);
  };

  /** Sends what is written as letters, in order. */
  const letters = (id: string, to: string, first: "lost" | "begun"): Sink => {
    let waiting = "";
    let ending = first === "lost";
    let over = false;
    let gone = () => {};
    const release = mailbox.wait();
    const stop = () => {
      if (over) return;
      over = true;
      outgoing.delete(id);
      release();
      gone();
    };
    const post = async (letter: Letter) => {
      if (!over && !(await mailbox.post(addressOf(to), newId(), letter))) stop();
    };
    const send = async () => {
      await post({ kind: first, id });
      while (!over) {
        if (waiting !== "") {
          const text = waiting.slice(0, LETTER_LENGTH);
          waiting = waiting.slice(LETTER_LENGTH);
          await post({ kind: "said", id, text });
        } else if (ending) {
          if (first === "begun") await post({ kind: "ended", id });
          stop();
        } else await new Promise<void>((resolve) => (more = resolve));
      }
    };
    let more = () => {};
    outgoing.set(id, () => {
      stop();
      more();
    });
    send().catch((error: unknown) => {
      log.warn({ error }, "a stream could not be forwarded to another replica");
      stop();
    });
    return {
      write(text) {
        waiting += text;
        if (waiting.length > MAX_WAITING_LENGTH) stop();
        more();
      },
      end() {
        ending = true;
        more();
      },
      whenGone(callback) {
        if (over) callback();
        else gone = callback;
      },
    };
  };

  /** A gateway takes letters once it knows that a client of its own has gone, and the client knows that a moment before. */
  const askedAt = async (home: string, letter: Letter): Promise<boolean> => {
    for (let tries = NOTICED_WITHIN_MS / NOTICE_MS; tries > 0; tries--) {
      if (await mailbox.post(addressOf(home), newId(), letter)) return true;
      await sleep(NOTICE_MS);
    }
    return false;
  };

  return {
    async goOn(home, session, lastEventId, response) {
      const id = newToken();
      const release = mailbox.wait();
      const begun = Promise.withResolvers<boolean>();
      let silence: NodeJS.Timeout | undefined;
      let sink: Sink | undefined;
      /** What came before the answer has begun here. */
      let early = "";
      let ended = false;
      const end = () => {
        ended = true;
        begun.resolve(false);
        sink?.end();
      };
      const patient = (ms: number) => {
        clearTimeout(silence);
        silence = setTimeout(end, ms);
      };
      const over = () => {
        clearTimeout(silence);
        incoming.delete(id);
        release();
      };
      patient(BEGUN_WITHIN_MS);
      incoming.set(id, (letter) => {
        patient(SILENT_MS);
        if (letter.kind === "begun") begun.resolve(true);
        else if (letter.kind !== "said") end();
        else if (sink === undefined) early += letter.text;
        else sink.write(letter.text);
      });
      const tellGone = () =>
        mailbox
          .post(addressOf(home), newId(), { kind: "gone", id } satisfies Letter)
          .catch((error: unknown) => log.debug({ error }, "another replica was not told that its client has gone"));
      try {
        await mailbox.present();
        const { id: name, owner } = session;
        const letter: Letter = { kind: "resume", id, from: resumption.home, session: name, owner, lastEventId };
        if (!(await askedAt(home, letter)) || !(await begun.promise)) {
          over();
          return false;
        }
      } catch (error) {
        over();
        throw error;
      }
      sink = resumeOn(response);
      if (early !== "") sink.write(early);
      if (ended) sink.end();
      sink.whenGone(() => {
        over();
        if (!response.writableFinished) void tellGone();
      });
      return true;
    },
    close: () => mailbox.close(),
  };
}
