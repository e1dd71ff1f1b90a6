/**
 * Looks after processes that nobody hears of, by pings, so that a dead one is found before a call finds it. The longer a process
 * is not used, the less often it is woken.
 */
import type { Child } from "./child.ts";
import type { Stopwatch } from "./exchange.ts";

export interface VigilOptions {
  /** How long a process may be silent before it is asked for a sign of life; 0: for ever. */
  readonly everySeconds: number;
  /** How long a process may go on with a call that was given up before silence counts against it. */
  readonly silenceMs: number;
  children(): readonly Child[];
  /** A process that nothing holds up has not answered. */
  dead(child: Child, reason: string): void;
  readonly now: Stopwatch;
}

export interface Vigil {
  /** To be called when a process is ready. */
  keep(): void;
  /** A process has answered a ping, so it can. */
  answered(): void;
  stop(): void;
}

/** A process that has not been used for long is asked this many times less often at most. */
const MOST_REST = 8;
const MIN_ANSWER_MS = 1_000;
const MAX_ANSWER_MS = 10_000;

export function vigil({ everySeconds, silenceMs, children, dead, now }: VigilOptions): Vigil {
  const everyMs = everySeconds * 1000;
  const answerMs = Math.min(MAX_ANSWER_MS, Math.max(MIN_ANSWER_MS, everyMs));
  let timer: NodeJS.Timeout | undefined;
  /** There are servers that know no ping; their silence means nothing. */
  let pinging = false;

  function look(): void {
    timer = undefined;
    const time = now();
    let asked = false;
    for (const child of children()) {
      if (child.phase !== "ready" || child.leaving) continue;
      if (child.spoke) {
        child.spoke = false;
        child.unanswered = 0;
        child.spokeAt = time;
      } else if (child.pingId === 0) {
        const restMs = Math.min(MOST_REST * everyMs, (time - child.idleSince) / 2);
        if (time - child.spokeAt >= Math.max(everyMs, restMs)) child.ping();
      } else if (pinging) {
        judge(child, time);
      }
      asked ||= child.pingId !== 0;
    }
    arm(asked ? Math.min(everyMs, answerMs / 2) : everyMs);
  }

  /** Silence counts when it was found twice, with time between: the gateway or the machine itself may have stood still. */
  function judge(child: Child, time: number): void {
    const silentMs = time - Math.max(child.pingSentAt, child.spokeAt);
    if (silentMs < answerMs / 2 || ++child.unanswered < 2) return;
    if (child.flights.size > 0) {
      // What it works on may hold it up, and has a deadline of its own.
      child.blocked = true;
      return;
    }
    if (child.hauntedFor("") && silentMs < silenceMs) return;
    dead(child, `did not answer a ping for ${Math.max(1, Math.round(silentMs / 1000))} s`);
  }

  function arm(ms: number): void {
    if (everyMs === 0 || timer !== undefined || children().length === 0) return;
    // Input that has arrived is read first.
    timer = setTimeout(() => setImmediate(look), ms).unref();
  }

  return {
    keep: () => arm(everyMs),
    answered() {
      pinging = true;
    },
    stop() {
      clearTimeout(timer);
      timer = undefined;
    },
  };
}
