/** One call under way to an upstream: it settles exactly once, whatever comes first, and gives back what it held. */
import type { CallNotification, Outcome, PermittedCall, Replies, RequestId, UpstreamCredential } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { answerText, questionOf, refusalText, type ServerRequest } from "./questions.ts";

/** Milliseconds of a clock that never goes back. */
export type Stopwatch = () => number;
export const stopwatch: Stopwatch = () => performance.now();

export interface Limits {
  /** Longest silence of the upstream. */
  readonly silenceMs: number;
  /** Longest call, progress or not. */
  readonly totalMs: number;
  /** Longest wait for the client's answer to a question of the server. */
  readonly answerMs: number;
}

/** Why the upstream should stop working on a call; undefined when it has answered or is gone. */
export type Abandoned = string | undefined;

/** A question that waits for the client. */
interface OpenQuestion {
  readonly timer: NodeJS.Timeout;
  readonly tell: (text: string) => void;
  readonly mistaken: (() => void) | undefined;
  /** Tells the client's side that nobody waits for the answer. */
  readonly withdrawn: AbortController;
}

/** A server may ask so often in one call; each question may hold the call up for a while. */
const MAX_QUESTIONS = 64;
const MAX_REASON_LENGTH = 500;
const WITHDRAWN = "The server does not need an answer any more.";
const ENDED = "The call has ended.";

export class Exchange {
  readonly permitted: PermittedCall;
  /** Later than it really was by the time that the client took to answer questions. */
  startedAt: number;
  /** When the upstream was last heard on this call. */
  heardAt: number;
  /** Since when the client is being asked, so that the upstream may be silent; -1 when it is not. */
  askingSince = -1;
  /** Questions of the server so far. */
  questions = 0;
  settled = false;
  /** Where `Deadlines` keeps it; -1 when it does not. */
  place = -1;
  /** Called once at the end, before the promise settles: the transport frees the slot and tells the upstream. */
  release: (abandoned: Abandoned) => void = () => {};
  readonly #replies: Replies;
  readonly #signal: AbortSignal;
  readonly #deadlines: Deadlines;
  readonly #resolve: (outcome: Outcome) => void;
  readonly #reject: (error: DrawbridgeError) => void;
  /** The caller's signal was aborted. A function: of an object as listener Node keeps a closure that outlives the call. */
  readonly #gone = (): void =>
    this.fail(new DrawbridgeError("cancelled", "The call was cancelled."), "the client cancelled the request");
  /** Made with the first question; most calls have none. */
  #open: Map<RequestId, OpenQuestion> | undefined;

  constructor(
    permitted: PermittedCall,
    replies: Replies,
    signal: AbortSignal,
    deadlines: Deadlines,
    now: number,
    resolve: (outcome: Outcome) => void,
    reject: (error: DrawbridgeError) => void,
  ) {
    this.permitted = permitted;
    this.startedAt = now;
    this.heardAt = now;
    this.#replies = replies;
    this.#signal = signal;
    this.#deadlines = deadlines;
    this.#resolve = resolve;
    this.#reject = reject;
    if (signal.aborted) {
      this.#gone();
      return;
    }
    signal.addEventListener("abort", this.#gone, { once: true });
    deadlines.add(this);
  }

  notify(notification: CallNotification): void {
    if (!this.settled) this.#replies.notify(notification);
  }
  sentWith(credential: UpstreamCredential): void {
    if (!this.settled) this.#replies.sentWith?.(credential);
  }
  servedBy(process: string): void {
    if (!this.settled) this.#replies.servedBy?.(process);
  }
  /** Whether its client can be asked something. */
  get answerable(): boolean {
    return this.#replies.ask !== undefined;
  }
  /** Questions that the client has not answered. */
  get asking(): number {
    return this.#open?.size ?? 0;
  }

  /**
   * Puts a question of the server to the client. `tell` gets the JSON-RPC answer: what the client said, or why nobody answers.
   * It is called once, unless the server withdraws the question. Until then the server's silence does not count. A server that
   * answers the call while it waits for the question has asked in another call of the same caller: then `mistaken` is called instead.
   */
  ask(request: ServerRequest, tell: (text: string) => void, mistaken?: () => void): void {
    const { id } = request;
    const question = questionOf(request);
    const reason =
      this.settled || question === undefined || this.#replies.ask === undefined
        ? "There is nobody to ask."
        : this.questions >= MAX_QUESTIONS
          ? "The call has asked too often."
          : this.#open?.has(id)
            ? "A question with this id is open."
            : undefined;
    if (reason !== undefined || question === undefined) {
      tell(refusalText(id, reason ?? ""));
      return;
    }
    this.questions++;
    const { answerMs, now } = this.#deadlines;
    const late = new DOMException("Nobody answered in time.", "TimeoutError");
    const timer = setTimeout(() => this.#close(id, open, refusalText(id, late.message), late), answerMs);
    const open: OpenQuestion = { timer, tell, mistaken, withdrawn: new AbortController() };
    this.#open ??= new Map();
    this.#open.set(id, open);
    if (this.askingSince < 0) this.askingSince = now();
    this.#replies.ask?.(question, open.withdrawn.signal).then(
      (answer) => this.#close(id, open, answerText(id, answer)),
      () => this.#close(id, open, refusalText(id, "The question was not answered.")),
    );
  }

  /** The server does not want an answer any more, for this reason in its words; false when the question is not one of this call. */
  withdraw(id: RequestId, reason: unknown): boolean {
    const open = this.#open?.get(id);
    if (open === undefined) return false;
    const said = typeof reason === "string" && reason !== "" ? reason.slice(0, MAX_REASON_LENGTH) : WITHDRAWN;
    this.#close(id, open, undefined, new DOMException(said, "AbortError"));
    return true;
  }

  answer(outcome: Outcome): void {
    if (this.settled) return;
    this.#end(undefined);
    this.#resolve(outcome);
  }
  fail(error: DrawbridgeError, abandoned?: Abandoned): void {
    if (this.settled) return;
    this.#end(abandoned);
    this.#reject(error);
  }

  #close(id: RequestId, open: OpenQuestion, text: string | undefined, unanswered?: DOMException): void {
    if (this.#open?.get(id) !== open) return;
    this.#open.delete(id);
    clearTimeout(open.timer);
    if (this.#open.size === 0) {
      const time = this.#deadlines.now();
      this.startedAt += time - this.askingSince;
      this.heardAt = time;
      this.askingSince = -1;
    }
    if (unanswered !== undefined) open.withdrawn.abort(unanswered);
    if (text !== undefined) open.tell(text);
  }

  #end(abandoned: Abandoned): void {
    this.settled = true;
    this.#signal.removeEventListener("abort", this.#gone);
    this.#deadlines.delete(this);
    this.release(abandoned);
    if (this.#open === undefined) return;
    for (const [id, open] of this.#open) {
      const mistaken = abandoned === undefined ? open.mistaken : undefined;
      const text = mistaken === undefined ? refusalText(id, ENDED) : undefined;
      this.#close(id, open, text, new DOMException(ENDED, "AbortError"));
      mistaken?.();
    }
  }
}

/** Ends calls that take too long. One coarse timer for all of them: a limit may be overrun by a tenth of itself, at most a quarter second. */
export interface Deadlines {
  add(exchange: Exchange): void;
  delete(exchange: Exchange): void;
  /** Those that have not settled. */
  all(): readonly Exchange[];
  readonly now: Stopwatch;
  readonly answerMs: number;
}

export function deadlines(
  limits: Limits,
  expired: (exchange: Exchange, why: "silence" | "total") => void,
  now: Stopwatch,
): Deadlines {
  // A list and not a Set: a Set under constant change leaves tables behind that keep ended calls from the young collector.
  const watched: Exchange[] = [];
  const everyMs = Math.max(5, Math.min(250, Math.min(limits.silenceMs, limits.totalMs) / 10));
  let timer: NodeJS.Timeout | undefined;

  function sweep(): void {
    const time = now();
    for (const exchange of [...watched]) {
      // What the client is asked has a time of its own.
      if (exchange.askingSince >= 0) continue;
      if (time - exchange.startedAt > limits.totalMs) expired(exchange, "total");
      else if (time - exchange.heardAt > limits.silenceMs) expired(exchange, "silence");
    }
    if (watched.length > 0) arm();
    else timer = undefined;
  }
  function arm(): void {
    // Input that has arrived is read before the sweep, so a process that was suspended does not condemn answered calls.
    timer = setTimeout(() => setImmediate(sweep), everyMs);
  }

  return {
    add(exchange) {
      exchange.place = watched.push(exchange) - 1;
      if (timer === undefined) arm();
    },
    delete(exchange) {
      if (exchange.place < 0) return;
      const last = watched.pop();
      if (last !== undefined && last !== exchange) {
        watched[exchange.place] = last;
        last.place = exchange.place;
      }
      exchange.place = -1;
    },
    all: () => [...watched],
    now,
    answerMs: limits.answerMs,
  };
}

/** The error of an expired call. */
export function timeoutError(name: string, why: "silence" | "total", limits: Limits): DrawbridgeError {
  const message =
    why === "silence"
      ? `The server "${name}" did not answer within ${limits.silenceMs / 1000} s.`
      : `The call to the server "${name}" took longer than ${limits.totalMs / 1000} s.`;
  return new DrawbridgeError("upstream_timeout", message);
}
