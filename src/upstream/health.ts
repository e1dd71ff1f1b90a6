/**
 * Whether a server answers. Failures in a row make it suspect; then it is pinged until it answers, and when it does not, a circuit
 * breaker refuses calls at once instead of letting each find out by itself. Pings close it again; users' calls do only where we may
 * not ask ourselves.
 */
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Stopwatch } from "./exchange.ts";
import type { Reached } from "./repeats.ts";

export interface Health {
  /** Undefined when calls may go; otherwise what to refuse them with. Somebody wants the server, so it is pinged soon. */
  refusal(): DrawbridgeError | undefined;
  /** The server was heard, whatever it said: it is well. */
  answered(): void;
  /** It could not be reached, or broke off, or answered with 5xx and nothing else. */
  failed(error: DrawbridgeError, reached: Reached): void;
  /** It is silent where it should speak; a ping will tell. */
  doubted(): void;
  /** What is wrong, since when, and when it is looked at next, for the operator; undefined when nothing is. */
  problem(): string | undefined;
  close(): void;
}

export interface HealthOptions {
  readonly name: string;
  /** Asks the server for a sign of life; rejects when there is none, or nothing to ask with. Must end. */
  ping(): Promise<unknown>;
  /** Calls are under way, so that their answers tell. */
  busy(): boolean;
  /** The breaker has opened. */
  opened(): void;
  /** Between pings of a server that is not in use; 0: only after failures. */
  readonly everySeconds: number;
  readonly logger: Logger;
  readonly now: Stopwatch;
  readonly random: () => number;
}

/** So many failures in a row, of whomever, and a ping that fails too, open the breaker. */
const MAX_FAILURES = 5;
/** Until a server that failed is pinged, doubled each time, and at most. */
const FIRST_PROBE_MS = 500;
const MAX_PROBE_MS = 5_000;
const DEFAULT_EVERY_SECONDS = 15;

export function watchHealth(options: HealthOptions): Health {
  const { name, ping, busy, everySeconds, logger, now, random } = options;
  const everyMs = (everySeconds === 0 ? DEFAULT_EVERY_SECONDS : everySeconds) * 1000;
  let failures = 0;
  /** Those of them that say nothing of who asked or for what: nobody was reached. */
  let unreached = 0;
  let failingSince = 0;
  let lastFailure = "";
  let heardAt = 0;
  let heardTimes = 0;
  let open = false;
  let probes = 0;
  let probing = false;
  let probedAt = Number.NEGATIVE_INFINITY;
  let doubt = false;
  let timer: NodeJS.Timeout | undefined;
  let nextAt = 0;
  let closed = false;

  /** The next ping comes so late, or earlier if one is due before. */
  function arm(inMs: number): void {
    if (closed || probing || (timer !== undefined && nextAt <= now() + inMs)) return;
    clearTimeout(timer);
    nextAt = now() + inMs;
    timer = setTimeout(look, inMs).unref();
  }

  function look(): void {
    timer = undefined;
    if (failures === 0 && !doubt) {
      // While it is in use, or was a moment ago, nobody needs to ask.
      const restMs = busy() ? everyMs : heardAt + everyMs - now();
      if (restMs > 0) {
        arm(restMs);
        return;
      }
    }
    probing = true;
    doubt = false;
    probedAt = now();
    probes++;
    const heardBefore = heardTimes;
    const failedBefore = failures;
    ping()
      .then(answered, (thrown: unknown) => {
        // It may have refused the ping, for the credential perhaps; then it is there.
        if (heardTimes !== heardBefore) return;
        const error = DrawbridgeError.from(thrown, "upstream_failed");
        // What the wire reported is counted already.
        if (failures === failedBefore && error.code === "upstream_timeout") count(error, "maybe");
        if (failures === failedBefore || OF_THE_CREDENTIAL.includes(error.code)) letCallsTell();
        else if (failures >= MAX_FAILURES) trip();
      })
      .finally(() => {
        probing = false;
        if (failures === 0) probes = 0;
        if (failures > 0) arm(backOffMs());
        else if (everySeconds > 0) arm(everyMs);
      });
  }

  /** However many want it, pings keep a distance. */
  const soonMs = () => Math.max(0, probedAt + FIRST_PROBE_MS - now());
  const backOffMs = () =>
    Math.min(everyMs, MAX_PROBE_MS, FIRST_PROBE_MS * 2 ** Math.min(probes, 16)) * (0.75 + random() / 2);

  function count(error: DrawbridgeError, reached: Reached): void {
    if (failures++ === 0) failingSince = now();
    if (reached === "never") unreached++;
    lastFailure = `${error.message} ${error.detail ?? ""}`.trim();
  }

  function trip(): void {
    if (open || closed) return;
    open = true;
    logger.warn({ failures, problem: lastFailure }, "server does not answer: calls are refused until it does");
    options.opened();
  }

  /** We have nothing to ask with (no credential of our own): calls may go, and the next that fails is one too many. */
  function letCallsTell(): void {
    if (!open) return;
    open = false;
    failures = MAX_FAILURES - 1;
    unreached = Math.min(unreached, failures);
  }

  function answered(): void {
    heardAt = now();
    heardTimes++;
    if (failures > 0) {
      if (open) logger.info({ seconds: Math.round((heardAt - failingSince) / 1000) }, "server answers again");
      failures = 0;
      unreached = 0;
      open = false;
      probes = 0;
      if (timer !== undefined) {
        clearTimeout(timer);
        timer = undefined;
      }
    }
    if (timer === undefined && everySeconds > 0) arm(everyMs);
  }

  return {
    refusal() {
      if (!open) return undefined;
      arm(soonMs());
      const retryAfterSeconds = Math.max(1, Math.ceil((nextAt - now()) / 1000));
      const message = `The server "${name}" does not answer at the moment. Try again in ${retryAfterSeconds} s.`;
      return new DrawbridgeError("upstream_unavailable", message, { detail: lastFailure, retryAfterSeconds });
    },
    answered,
    failed(error, reached) {
      if (closed) return;
      count(error, reached);
      if (unreached >= MAX_FAILURES && unreached === failures) trip();
      // One caller may be the cause of its failures, so a ping decides before everybody is refused.
      arm(failures >= MAX_FAILURES && !open ? soonMs() : backOffMs());
    },
    doubted() {
      doubt = true;
      arm(soonMs());
    },
    problem() {
      if (failures === 0) return undefined;
      const seconds = (ms: number) => Math.max(0, Math.round(ms / 1000));
      const since = `${failures === 1 ? "Once" : `${failures} times in a row`}, for ${seconds(now() - failingSince)} s`;
      const next = timer === undefined ? "asked again now" : `asked again in ${seconds(nextAt - now())} s`;
      return `${lastFailure} (${since}; ${next}${open ? "; calls are refused until it answers" : ""}.)`;
    },
    close() {
      closed = true;
      clearTimeout(timer);
      timer = undefined;
    },
  };
}

/** There was nothing to ask with, which says nothing of the server. */
const OF_THE_CREDENTIAL: readonly string[] = ["unauthenticated", "insufficient_scope"];
