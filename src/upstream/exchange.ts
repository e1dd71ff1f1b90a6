/** One call under way to an upstream: it settles exactly once, whatever comes first, and gives back what it held. */
import type { CallNotification, Outcome, PermittedCall, Replies, UpstreamCredential } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";

/** Milliseconds of a clock that never goes back. */
export type Stopwatch = () => number;
export const stopwatch: Stopwatch = () => performance.now();

export interface Limits {
  /** Longest silence of the upstream. */
  readonly silenceMs: number;
  /** Longest call, progress or not. */
  readonly totalMs: number;
}

/** Why the upstream should stop working on a call; undefined when it has answered or is gone. */
export type Abandoned = string | undefined;

export class Exchange {
  readonly permitted: PermittedCall;
  readonly startedAt: number;
  /** When the upstream was last heard on this call. */
  heardAt: number;
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
      this.handleEvent();
      return;
    }
    signal.addEventListener("abort", this, { once: true });
    deadlines.add(this);
  }

  notify(notification: CallNotification): void {
    if (!this.settled) this.#replies.notify(notification);
  }
  sentWith(credential: UpstreamCredential): void {
    if (!this.settled) this.#replies.sentWith?.(credential);
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
  /** The caller's signal was aborted. */
  handleEvent(): void {
    this.fail(new DrawbridgeError("cancelled", "The call was cancelled."), "the client cancelled the request");
  }

  #end(abandoned: Abandoned): void {
    this.settled = true;
    this.#signal.removeEventListener("abort", this);
    this.#deadlines.delete(this);
    this.release(abandoned);
  }
}

/** Ends calls that take too long. One coarse timer for all of them: a limit may be overrun by a tenth of itself, at most a quarter second. */
export interface Deadlines {
  add(exchange: Exchange): void;
  delete(exchange: Exchange): void;
  /** Those that have not settled. */
  all(): readonly Exchange[];
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
