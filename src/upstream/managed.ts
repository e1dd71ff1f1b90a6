/** An upstream that can be exchanged while it is used: the new version is opened beside the old, takes over, and the old one finishes. */
import type { McpCall, Outcome, PermittedCall, Replies } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { asksMore } from "../mcp/interaction.ts";
import { hadResult, readCreated } from "../mcp/tasks.ts";
import type { Logger } from "../observe/logger.ts";
import type { Caller, ListName, Upstream, UpstreamEvents, UpstreamState } from "./upstream.ts";

export interface ManagedState extends UpstreamState {
  readonly generation: number;
  readonly draining: boolean;
  /** When the present version was put in place, in milliseconds since the epoch. */
  readonly since: number;
  /** Former versions that still finish what they began. */
  readonly finishing: number;
  /** Why the newest version could not take over, so that the one before it goes on; undefined when it could. */
  readonly refused: string | undefined;
}

/** Opens one version. `events` are its own: what a version that is no longer in place says of its lists is not passed on. */
export type OpenVersion = (events: UpstreamEvents) => Upstream;

/** A version that runs beside the present one and serves nobody yet. */
export interface Candidate {
  /**
   * Puts it in place as soon as it has said who it is, and ends the version before it when that has finished. Rejects with
   * `upstream_unavailable` when it cannot be reached in time, and with `overloaded` while too many former versions still finish;
   * then it is ended and the present one goes on.
   */
  take(): Promise<void>;
  /** Ends it. */
  abandon(): Promise<void>;
}

export interface ManagedUpstream extends Upstream {
  state(): ManagedState;
  /** Opens a version beside the present one. Throws what `open` throws, and then nothing has changed. */
  candidate(open: OpenVersion, terms?: Partial<Terms>): Candidate;
  /** Puts a new version in place that is opened as the present one was. */
  restart(): Promise<void>;
  /** Takes no new calls (`overloaded`, 503) until `resume`; answers of dialogues and questions about tasks that are under way are still taken. Idempotent. */
  drain(): void;
  resume(): void;
}

/** How long things may take, by the settings of the version. */
export interface Terms {
  /** For a new version to say who it is. */
  readonly startSeconds: number;
  /** For a former version to finish its calls, questions to clients included. */
  readonly finishSeconds: number;
  /** For the client of a call that asks to come back with its answers (2026-07-28). */
  readonly answerSeconds: number;
}

export interface ManagedOptions {
  readonly name: string;
  readonly open: OpenVersion;
  readonly terms: Terms;
  readonly events: UpstreamEvents;
  /** A new version has taken over: what the server said of itself may be others now. */
  readonly replaced?: () => void;
  /** Takes out of what the server said in errors and on stderr what nobody may see. Results pass as they are. Default: nothing. */
  readonly conceal?: (text: string) => string;
  readonly logger: Logger;
}

interface Version {
  readonly upstream: Upstream;
  readonly terms: Terms;
  /** What was asked of it and is not answered. */
  busy: number;
  /** It has said who it is, or answered something else. */
  known: boolean;
  /** Looks again whether it has finished. */
  look: (() => void) | undefined;
}

/** Former versions that may finish at the same time: each holds processes or connections. */
const MAX_FINISHING = 8;
/** Dialogues and tasks that are remembered; the oldest beyond it go to whatever version is there. */
const MAX_BEGUN = 10_000;
const SUBSCRIBE_MS = 10_000;
const SUBSCRIBED_AT_ONCE = 16;
/** To end processes that have nothing left to do. */
const END_MS = 5_000;
const LISTS: readonly ListName[] = ["tools", "resources", "resourceTemplates", "prompts"];

/** Opens the first version. Throws what `open` throws. */
export function managedUpstream(options: ManagedOptions, clock: Clock = systemClock): ManagedUpstream {
  const { name, events, logger, conceal = asItIs } = options;
  /** What clients follow, by resource and instance. */
  const subscribed = new Map<string, { readonly uri: string; readonly caller: Caller | undefined }>();
  /** What is to go on: questions to clients of 2026-07-28 and tasks, with who began them, and until when that is waited for. */
  const begun = new Map<string, { readonly version: Version; readonly until: number }>();
  const finishing = new Map<Version, Promise<void>>();
  let generation = 1;
  /** Restarts of the versions before the present one. */
  let formerRestarts = 0;
  let present: Version;
  let open = options.open;
  let since = clock();
  let draining = false;
  let refused: string | undefined;
  /** `close` was called; and what is left then has no more time. */
  const stopping = new AbortController();
  const cutting = new AbortController();

  function begin(make: OpenVersion, terms: Terms): Version {
    let version: Version | undefined;
    const isPresent = () => version !== undefined && version === present;
    const upstream = make({
      listChanged: (list) => isPresent() && events.listChanged(list),
      resourceUpdated: (uri, params, instance) => isPresent() && events.resourceUpdated(uri, params, instance),
      // What is told of one call or task comes from the version that has it.
      elicitationComplete: (params, instance) => events.elicitationComplete?.(params, instance),
      taskStatus: (params) => events.taskStatus?.(params),
    });
    version = { upstream, terms, busy: 0, known: false, look: undefined };
    return version;
  }

  /** What is asked of a version keeps it from being ended. Nothing may be awaited between its choice and this. */
  async function asking<T>(version: Version, ask: (upstream: Upstream) => Promise<T>): Promise<T> {
    version.busy++;
    try {
      const answer = await ask(version.upstream);
      version.known = true;
      return answer;
    } finally {
      answered(version);
    }
  }

  function answered(version: Version): void {
    version.busy--;
    if (version.busy === 0) version.look?.();
  }

  async function send(call: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> {
    const about = goesOn(call.call);
    if (draining && about === undefined) {
      const message = `The server "${name}" takes no new calls at present. Try again later.`;
      throw new DrawbridgeError("overloaded", message, { retryAfterSeconds: RETRY_SECONDS });
    }
    const version = (about === undefined ? undefined : begun.get(about)?.version) ?? present;
    version.busy++;
    try {
      const outcome = await version.upstream.send(call, replies, signal);
      version.known = true;
      if (about !== undefined && isDone(call.call, outcome)) begun.delete(about);
      remember(version, outcome);
      return outcome.kind === "error" ? concealed(outcome, conceal) : outcome;
    } catch (thrown) {
      throw thrown instanceof DrawbridgeError ? concealedError(thrown, conceal) : thrown;
    } finally {
      answered(version);
    }
  }

  /** A server may keep in its own memory what it began: whoever comes back for it comes to the version that has it. */
  function remember(version: Version, outcome: Outcome): void {
    if (outcome.kind === "error") return;
    const { resultType, requestState, task } = outcome.value;
    const { answerSeconds, finishSeconds } = version.terms;
    if (typeof requestState === "string" && asksMore(outcome))
      begun.set(nameOf("requestState", JSON.stringify(requestState)), {
        version,
        until: clock() + answerSeconds * 1000,
      });
    const made = resultType === "task" || task !== undefined ? readCreated(outcome) : undefined;
    if (made !== undefined)
      begun.set(nameOf("taskId", JSON.stringify(made.id)), { version, until: clock() + finishSeconds * 1000 });
    if (begun.size > MAX_BEGUN) for (const oldest of begun.keys()) if (begun.delete(oldest)) break;
  }

  /** When the last of what it began is given up; undefined when nobody will come back. */
  function awaitedUntil(version: Version): number | undefined {
    const now = clock();
    let last: number | undefined;
    for (const [key, work] of begun) {
      if (work.until <= now) begun.delete(key);
      else if (work.version === version) last = Math.max(last ?? 0, work.until);
    }
    return last;
  }

  function candidate(make: OpenVersion, changed: Partial<Terms> = {}): Candidate {
    const version = begin(make, { ...present.terms, ...changed });
    const abandon = () => version.upstream.close(AbortSignal.timeout(END_MS));
    return {
      abandon,
      async take() {
        try {
          if (finishing.size >= MAX_FINISHING) {
            const message = `${finishing.size} former versions of the server "${name}" still finish their calls. Try again later.`;
            throw new DrawbridgeError("overloaded", message, { retryAfterSeconds: RETRY_SECONDS });
          }
          // One that never answered is not worth waiting for: the new one cannot be worse.
          if (present.known || present.upstream.state().state === "ready") await met(version);
          await subscribeAll(version);
          if (stopping.signal.aborted)
            throw new DrawbridgeError("upstream_unavailable", `The server "${name}" is being shut down.`);
        } catch (thrown) {
          const error = DrawbridgeError.from(thrown, "upstream_unavailable");
          refused = error.message;
          logger.warn(
            { server: name, error },
            "a new version of a server could not take over; the one before it goes on",
          );
          await abandon();
          throw error;
        }
        put(version);
        open = make;
      },
    };
  }

  async function met(version: Version): Promise<void> {
    const limit = AbortSignal.timeout(version.terms.startSeconds * 1000);
    try {
      await version.upstream.identity(AbortSignal.any([limit, stopping.signal]));
      version.known = true;
    } catch (cause) {
      const problem = limit.aborted
        ? `it did not say who it is within ${version.terms.startSeconds} seconds`
        : (version.upstream.state().problem ?? (cause instanceof DrawbridgeError ? cause.message : "it failed"));
      const message = `The new version of the server "${name}" cannot be reached: ${problem}.`.replace(/\.+$/, ".");
      throw new DrawbridgeError("upstream_unavailable", message, { cause });
    }
  }

  /** Before it takes over, so that no update falls between the two. */
  async function subscribeAll(version: Version): Promise<void> {
    const told = new Set<string>();
    for (;;) {
      const missing = [...subscribed].filter(([key]) => !told.has(key)).slice(0, SUBSCRIBED_AT_ONCE);
      if (missing.length === 0) return;
      const signal = AbortSignal.any([AbortSignal.timeout(SUBSCRIBE_MS), stopping.signal]);
      const answers = await Promise.allSettled(
        missing.map(([, { uri, caller }]) => version.upstream.subscribe(uri, signal, caller)),
      );
      for (const [key] of missing) told.add(key);
      const lost = answers.filter((answer) => answer.status === "rejected");
      if (lost.length > 0)
        logger.warn(
          { server: name, resources: lost.length, error: lost[0]?.reason },
          "a new version of a server does not tell of some resources that clients follow",
        );
    }
  }

  function put(version: Version): void {
    const former = present;
    present = version;
    since = clock();
    generation++;
    refused = undefined;
    formerRestarts += former.upstream.state().restarts;
    finishing.set(
      former,
      finish(former).finally(() => finishing.delete(former)),
    );
    logger.info({ server: name, generation }, "a new version of a server has taken over");
    options.replaced?.();
    for (const list of LISTS) events.listChanged(list);
  }

  /** Waits until nothing is under way in a former version, for as long as that may take, and ends it. */
  async function finish(version: Version): Promise<void> {
    const limit = AbortSignal.any([AbortSignal.timeout(version.terms.finishSeconds * 1000), cutting.signal]);
    while (!limit.aborted) {
      // Whoever comes back after a stop comes to another process anyway.
      const until = stopping.signal.aborted ? undefined : awaitedUntil(version);
      if (version.busy === 0 && until === undefined) break;
      await somethingHappened(version, until, limit);
    }
    for (const [key, work] of begun) if (work.version === version) begun.delete(key);
    // What is in it still has had its time.
    const signal = version.busy > 0 ? AbortSignal.abort() : AbortSignal.timeout(END_MS);
    await version.upstream.close(signal).catch((error: unknown) => {
      logger.warn({ server: name, error }, "a former version of a server could not be ended cleanly");
    });
  }

  function somethingHappened(version: Version, until: number | undefined, limit: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        clearTimeout(timer);
        limit.removeEventListener("abort", look);
        version.look = undefined;
        resolve();
      };
      const timer = until === undefined ? undefined : setTimeout(look, Math.max(0, until - clock()) + 1);
      timer?.unref();
      limit.addEventListener("abort", look, { once: true });
      version.look = look;
    });
  }

  const keyOf = (uri: string, caller: Caller | undefined) =>
    `${(caller && present.upstream.instanceOf?.(caller)) ?? ""}\n${uri}`;

  present = begin(open, options.terms);
  return {
    name,
    identity: (signal) => asking(present, (upstream) => upstream.identity(signal)),
    list: (list, signal, capabilities) => asking(present, (upstream) => upstream.list(list, signal, capabilities)),
    send,
    instanceOf: (caller) => present.upstream.instanceOf?.(caller),
    sessionEnded(session) {
      for (const { upstream } of [present, ...finishing.keys()]) upstream.sessionEnded?.(session);
    },
    async sweep(stands) {
      await Promise.all([present, ...finishing.keys()].map(({ upstream }) => upstream.sweep?.(stands)));
    },
    async subscribe(uri, signal, caller) {
      const key = keyOf(uri, caller);
      subscribed.set(key, { uri, caller });
      for (;;) {
        const version = present;
        try {
          await asking(version, (upstream) => upstream.subscribe(uri, signal, caller));
        } catch (error) {
          // Refused by a version that has gone since, it is asked of the one that came.
          if (version !== present && !signal.aborted) continue;
          subscribed.delete(key);
          throw error;
        }
        if (version === present) return;
      }
    },
    async unsubscribe(uri, signal, caller) {
      subscribed.delete(keyOf(uri, caller));
      await asking(present, (upstream) => upstream.unsubscribe(uri, signal, caller));
    },
    state() {
      const now = present.upstream.state();
      const others = [...finishing.keys()].map((version) => version.upstream.state());
      const sum = (of: (state: UpstreamState) => number) => others.reduce((total, state) => total + of(state), of(now));
      return {
        ...now,
        problem: now.problem === undefined ? undefined : conceal(now.problem),
        stderr: now.stderr.map(conceal),
        size: sum(({ size }) => size),
        inFlight: sum(({ inFlight }) => inFlight),
        queued: sum(({ queued }) => queued),
        restarts: now.restarts + formerRestarts,
        generation,
        draining,
        since,
        finishing: finishing.size,
        refused,
      };
    },
    candidate,
    restart: () => candidate(open).take(),
    drain() {
      draining = true;
    },
    resume() {
      draining = false;
    },
    async close(signal) {
      stopping.abort();
      if (signal.aborted) cutting.abort();
      else signal.addEventListener("abort", () => cutting.abort(), { once: true });
      for (const version of finishing.keys()) version.look?.();
      await Promise.all([present.upstream.close(signal), ...finishing.values()]);
    },
  };
}

const RETRY_SECONDS = 5;

/** Dialogues and tasks are known by what their servers call them. */
const nameOf = (kind: "requestState" | "taskId", json: string) => `${kind} ${json}`;

/** What a call goes on with; undefined for one that begins something. */
function goesOn({ forward, method }: McpCall): string | undefined {
  const state = forward.get("requestState");
  if (state !== undefined) return nameOf("requestState", state);
  const task = method.startsWith("tasks/") ? forward.get("taskId") : undefined;
  return task === undefined ? undefined : nameOf("taskId", task);
}

/** A task may be asked for again and again; a question is answered once. */
const isDone = ({ method }: McpCall, outcome: Outcome) => !method.startsWith("tasks/") || hadResult(method, outcome);

const asItIs = (text: string) => text;

function concealed(
  { kind, code, message, data }: Extract<Outcome, { kind: "error" }>,
  conceal: (text: string) => string,
): Outcome {
  return { kind, code, message: conceal(message), data: data === undefined ? undefined : conceal(data) };
}

/** The same error when it had nothing to hide. */
function concealedError(error: DrawbridgeError, conceal: (text: string) => string): DrawbridgeError {
  const message = conceal(error.message);
  const detail = error.detail === undefined ? undefined : conceal(error.detail);
  if (message === error.message && detail === error.detail) return error;
  const { code, data, retryAfterSeconds, scope, cause } = error;
  return new DrawbridgeError(code, message, {
    ...(detail !== undefined && { detail }),
    ...(data !== undefined && { data }),
    ...(retryAfterSeconds !== undefined && { retryAfterSeconds }),
    ...(scope !== undefined && { scope }),
    cause,
  });
}
