/**
 * The processes of one stdio server and the calls that wait for them. One process serves many calls at once, as long as it
 * answers pings while it works. A process without a pulse is held up by a tool that blocks it: it gets nothing new, and while
 * calls wait, further processes are started beside it.
 */

import type { Outcome, PermittedCall, Replies } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { taskGone } from "../mcp/tasks.ts";
import type { Logger } from "../observe/logger.ts";
import { admission } from "./admission.ts";
import { attribution } from "./attribution.ts";
import type { Flavour } from "./capabilities.ts";
import { Child, type ChildOwner, PooledCall, principalOf, type Tool } from "./child.ts";
import {
  type Abandoned,
  type Deadlines,
  deadlines,
  type Limits,
  type Stopwatch,
  stopwatch,
  timeoutError,
} from "./exchange.ts";
import { fairQueue, type Ticket } from "./fair-queue.ts";
import type { ProcessEvents, ServerProcess } from "./process.ts";
import { pulse as takenPulse } from "./pulse.ts";
import type { UpstreamEvents, UpstreamIdentity, UpstreamState } from "./upstream.ts";
import { vigil as keptVigil } from "./vigil.ts";

/** What a pool needs to know of the server's settings. */
export interface PoolSettings {
  readonly processes: { readonly min: number; readonly max: number; readonly idleSeconds: number };
  readonly maxInFlight: number;
  readonly maxQueued: number;
  readonly timeoutSeconds: number;
  readonly maxCallSeconds: number;
  readonly answerSeconds: number;
  readonly startTimeoutSeconds: number;
  /** A process that is silent for so long is pinged; 0: never. */
  readonly healthSeconds: number;
  readonly maxAnswerBytes: number;
}

export interface PoolOptions {
  readonly name: string;
  readonly version: string;
  /** Starts a process, or what is like one. */
  start(events: ProcessEvents): ServerProcess;
  readonly settings: PoolSettings;
  readonly logger: Logger;
  readonly events: UpstreamEvents;
}

/** What tells the pools of one server apart, and what they share. */
export interface PoolShare {
  /** What its processes are told of the clients. */
  readonly flavour: Flavour;
  /** Processes kept running. */
  readonly min: number;
  /** How many more processes the server may have, in all pools. */
  room(): number;
  /** Calls of these subjects wait, and there is no room: others may have a process to spare. `bare`: this pool has none at all. */
  squeeze(bare: boolean, waiting: ReadonlySet<string>): void;
  /** There is room for one more. */
  vacated(): void;
}

export interface Pool {
  /** A process that has shaken hands, started if need be. Rejects when the server cannot be started. */
  reach(signal: AbortSignal): Promise<Child>;
  send(call: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome>;
  /** Ends a process that does nothing, or when `must` the one that does least as soon as it has done it; false when there is none. */
  spare(must: boolean, waiting: ReadonlySet<string>): boolean;
  /** Starts what is missing, if there is room now. */
  ensure(): void;
  /** Processes that run or start. */
  readonly size: number;
  /** Whether a process of this name is one of them. */
  has(process: string): boolean;
  /** Nothing is in flight, nobody waits, and there is no task. */
  readonly idle: boolean;
  /** Processes that have shaken hands. */
  ready(): readonly Child[];
  /** Who the server said it was, last time it was reached. */
  identity(): UpstreamIdentity | undefined;
  state(): UpstreamState;
  close(signal: AbortSignal): Promise<void>;
}

/** So many waiting calls justify one more process. */
const CALLS_PER_START = 4;
/** Start failures in a row after which calls are refused at once. */
const FAILURES_TO_DEGRADE = 3;
const FIRST_BACK_OFF_MS = 100;
const MAX_BACK_OFF_MS = 30_000;
/** A process that worked and died is replaced sooner than one that never started. */
const MAX_CRASH_BACK_OFF_MS = 2_000;
/** A process that lived so long clears the record of crashes. */
const STEADY_MS = 10_000;
const MAX_HOMES = 10_000;
const MAX_STDERR_LINES = 100;
/** Processes started at once for calls that need one to themselves. */
const STARTS_AT_ONCE = 2;

export function processPool(
  options: PoolOptions,
  share: PoolShare,
  subscribed: ReadonlySet<string>,
  now: Stopwatch = stopwatch,
  random: () => number = Math.random,
): Pool {
  const { name, settings, logger } = options;
  const { min, flavour } = share;
  const { askable } = flavour;
  const { idleSeconds } = settings.processes;
  const limits: Limits = {
    silenceMs: settings.timeoutSeconds * 1000,
    totalMs: settings.maxCallSeconds * 1000,
    answerMs: settings.answerSeconds * 1000,
  };
  const queue = fairQueue<PooledCall>();
  const gate = admission(settings.maxQueued, now);
  /** The process that served a session or principal last: what state it keeps is there. */
  const homes = new Map<string, Child>();
  /** Oldest first; starting and ready ones. */
  let children: Child[] = [];
  const endings = new Set<Promise<void>>();
  const waiters = new Set<PromiseWithResolvers<Child>>();
  const stderr: string[] = [];
  const watch: Deadlines = deadlines(limits, expire, now);

  let identity: UpstreamIdentity | undefined;
  let failures = 0;
  let crashes = 0;
  let restarts = 0;
  let unstartable = false;
  let problem: string | undefined;
  let notBefore = 0;
  let startTimer: NodeJS.Timeout | undefined;
  let idleTimer: NodeJS.Timeout | undefined;
  let closing = false;
  let whenIdle: (() => void) | undefined;

  const owner: ChildOwner = {
    ready(child) {
      identity = child.identity;
      failures = 0;
      unstartable = false;
      problem = undefined;
      gate.changed();
      vigil.keep();
      logger.debug({ pid: child.pid, revision: identity?.revision }, "server process is ready");
      for (const waiter of waiters) waiter.resolve(child);
      waiters.clear();
      armIdle();
      dispatch();
    },
    pulse(child, answered, pong) {
      if (pong) vigil.answered();
      pulse.heard(child, answered, pong);
    },
    finished(child, call, answered) {
      if (answered) {
        gate.served(toolOf(call.permitted).name);
        pulse.answered(child, call);
      }
      whose.over(child, call, answered);
      if (child.leaving && child.flights.size === 0) {
        if (child.fault === undefined) retire(child, "makes room for others");
        else child.discard(child.fault, true);
      }
      dispatch();
      if (closing && inFlight() === 0) whenIdle?.();
    },
    asked: (child, question) => whose.asked(child, question),
    withdrawn: (child, id) => whose.withdrawn(child, id),
    writable: dispatch,
    unfit(child, reason) {
      if (child.flights.size === 0) {
        child.discard(reason, false);
        return;
      }
      child.fault = reason;
      child.leaving = true;
    },
    ended: onEnded,
    stderr(line) {
      if (stderr.push(line) > MAX_STDERR_LINES) stderr.shift();
      logger.debug({ line }, "stderr of the server");
    },
  };

  const pulse = takenPulse({
    maxInFlight: settings.maxInFlight,
    logger,
    now,
    children: () => children,
    heads: queue.heads,
    waiting: (tool) => (tool === undefined ? queue.size > 0 : queue.waitingIn(tool) > 0),
    freed: dispatch,
    looked() {
      dispatch();
      ensure();
      if (whose.urgent()) whose.endForgotten();
    },
    rested() {
      for (const child of children) child.reserved = false;
    },
    wedged: (child) => child.discard("gives no sign of life while calls wait", true),
  });
  const whose = attribution({
    name,
    askable,
    silenceMs: limits.silenceMs,
    logger,
    now,
    children: () => children,
    heads: queue.heads,
    toolOf: ({ permitted }) => toolOf(permitted),
    room: share.room,
    freed: dispatch,
  });
  const vigil = keptVigil({
    everySeconds: settings.healthSeconds,
    silenceMs: limits.silenceMs,
    children: () => children,
    dead: (child, reason) => child.discard(reason, true),
    now,
  });
  const { toolOf } = pulse;

  // ---- calls ----

  function send(permitted: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      if (closing || degraded()) {
        reject(unavailable(closing ? "is being shut down" : "cannot be started at present"));
        return;
      }
      const call = new PooledCall(permitted, replies, signal, watch, now(), resolve, reject);
      if (call.settled) return;
      const release = (abandoned: Abandoned) => {
        if (call.child !== undefined) call.child.release(call, abandoned);
        else if (call.ticket !== undefined) unqueue(call, call.ticket);
      };
      call.release = release;
      const tool = toolOf(permitted);
      const { process } = permitted.call.task ?? {};
      if (process !== undefined) {
        toItsTask(call, process, tool);
        return;
      }
      const lane = laneOf(permitted, tool);
      const child = queue.waitingIn(lane) === 0 ? place(permitted, tool) : undefined;
      if (child !== undefined) assign(child, call, tool);
      else enqueue(call, tool, lane);
    });
  }

  /** What is about a task goes to the process that works on it, at once: it is little work, and no other process knows the task. */
  function toItsTask(call: PooledCall, process: string, tool: Tool): void {
    const child = children.find(({ key, phase }) => key === process && phase === "ready");
    if (child !== undefined) child.send(call, tool);
    else call.fail(taskGone());
  }

  function assign(child: Child, call: PooledCall, tool: Tool): void {
    whose.lend(child, call, tool);
    child.send(call, tool);
  }

  function enqueue(call: PooledCall, tool: Tool, lane: string): void {
    const principal = principalOf(call.permitted);
    const retryAfterSeconds = gate.refusal(principal, tool.name, limits.silenceMs);
    if (retryAfterSeconds !== undefined) {
      const message = `The server "${name}" has too many calls waiting. Try again in ${retryAfterSeconds} s.`;
      call.fail(new DrawbridgeError("overloaded", message, { retryAfterSeconds }));
      return;
    }
    call.ticket = queue.push(principal, lane, call);
    gate.joined(principal, tool.name);
    pulse.take();
    ensure();
  }

  function unqueue(call: PooledCall, ticket: Ticket<PooledCall>): void {
    queue.remove(ticket);
    gate.left(principalOf(call.permitted), toolOf(call.permitted).name);
    call.ticket = undefined;
  }

  /** Sends what waits to whoever can take it. Afterwards nothing waits that could be sent. */
  function dispatch(): void {
    if (queue.size === 0) return;
    for (;;) {
      const call = queue.take((_, { permitted }) => {
        const tool = toolOf(permitted);
        return children.some((child) => canTake(child, tool, permitted));
      });
      if (call?.ticket === undefined) return;
      unqueue(call, call.ticket);
      const tool = toolOf(call.permitted);
      const child = place(call.permitted, tool);
      if (child !== undefined) assign(child, call, tool);
    }
  }

  /** Calls wait in line for their tool; those that need a process to themselves, also for their caller. */
  const laneOf = (permitted: PermittedCall, tool: Tool) =>
    whose.mayAsk(tool) ? `${JSON.stringify(tool.name)}\n${principalOf(permitted)}` : tool.name;

  /** The process for a call: its home if that can take it, else the least busy one, the oldest of equals. */
  function place(permitted: PermittedCall, tool: Tool): Child | undefined {
    const key = permitted.call.session ?? principalOf(permitted);
    const home = homes.get(key);
    if (home !== undefined && canTake(home, tool, permitted)) return home;
    let best: Child | undefined;
    for (const child of children) {
      if (canTake(child, tool, permitted) && (best === undefined || child.flights.size < best.flights.size))
        best = child;
    }
    if (best !== undefined) {
      homes.delete(key);
      homes.set(key, best);
      if (homes.size > MAX_HOMES) for (const oldest of homes.keys()) if (homes.delete(oldest)) break;
    }
    return best;
  }

  function canTake(child: Child, tool: Tool, permitted: PermittedCall): boolean {
    return (
      child.phase === "ready" &&
      !child.blocked &&
      child.suspectId === 0 &&
      !child.full &&
      child.load < settings.maxInFlight &&
      (child.counts.get(tool) ?? 0) < tool.limit &&
      !child.leaving &&
      whose.belongs(child, tool, principalOf(permitted))
    );
  }

  function expire(exchange: unknown, why: "silence" | "total"): void {
    const call = exchange as PooledCall;
    if (call.child !== undefined) {
      call.fail(timeoutError(name, why, limits), "timeout");
      return;
    }
    const message = `The server "${name}" had no process free for the call in time. Try again later.`;
    call.fail(new DrawbridgeError("overloaded", message, { retryAfterSeconds: 5 }));
  }

  // ---- processes ----

  /** Starts what is missing: the least that is to run, one for whoever waits, more while all are held up. */
  function ensure(): void {
    if (closing) return;
    const demand = queue.size > 0 || waiters.size > 0 || degraded() ? 1 : 0;
    let missing = Math.max(min, demand) - children.length;
    const starting = children.filter((child) => child.phase === "starting").length;
    if (missing <= 0 && queue.size > 0) missing = wanted() - starting;
    if (missing <= 0) return;
    if (share.room() < missing) crowded();
    missing = Math.min(missing, share.room());
    if (missing <= 0) return;
    const wait = notBefore - now();
    if (wait > 0) {
      startTimer ??= setTimeout(() => {
        startTimer = undefined;
        ensure();
      }, wait);
      return;
    }
    for (let n = 0; n < missing; n++) start();
  }

  /** How many starting processes the waiting calls justify. */
  function wanted(): number {
    let ready = false;
    let patience = false;
    let unshared = false;
    for (const child of children) {
      // One that takes no more calls serves nobody who waits.
      if (child.phase !== "ready" || child.leaving) continue;
      ready = true;
      if (!whose.shared(child)) {
        unshared = true;
        continue;
      }
      const heldUp = pulse.heldUp(child);
      if (heldUp === "no") return 0;
      if (heldUp === "perhaps") patience = true;
    }
    if (unshared) return whose.urgent() ? STARTS_AT_ONCE : 0;
    return patience || !ready ? 1 : Math.ceil(queue.size / CALLS_PER_START);
  }

  /** Processes are wanted, and there is no room for them. */
  function crowded(): void {
    share.squeeze(children.length === 0, whose.subjects());
    const kept = share.room() > 0 ? undefined : whose.makeRoom();
    if (kept !== undefined) retire(kept, "makes room for others");
  }

  function start(): void {
    const child = new Child(
      {
        name,
        version: options.version,
        start: options.start,
        flavour,
        maxAnswerBytes: settings.maxAnswerBytes,
        startTimeoutMs: settings.startTimeoutSeconds * 1000,
        ghostMs: limits.totalMs,
        requestTimeoutMs: limits.silenceMs,
        modern: identity?.revision === "2026-07-28",
      },
      owner,
      subscribed,
      logger,
      options.events,
      now,
    );
    children.push(child);
    gate.changed();
    logger.debug({ pid: child.pid, size: children.length }, "server process starts");
  }

  function onEnded(child: Child, reason: string, handshaken: boolean, startable: boolean): void {
    const wasKnown = children.includes(child);
    leave(child);
    endings.add(settled(child.end()));
    if (!wasKnown || closing) return;
    restarts++;
    const tail = child.lastStderr === undefined ? "" : `; its last words: ${child.lastStderr}`;
    const sentence = `The process ${reason}${tail}`;
    logger.warn({ pid: child.pid, reason, lastStderr: child.lastStderr }, "a server process ended");
    if (handshaken) {
      crashes = now() - child.startedAt > STEADY_MS ? 1 : crashes + 1;
      backOff(crashes, MAX_CRASH_BACK_OFF_MS);
    } else {
      failures++;
      // The next handshake may belong to another revision.
      if (children.length === 0) identity = identity?.revision === "2026-07-28" ? undefined : identity;
      unstartable = !startable;
      backOff(failures, MAX_BACK_OFF_MS);
    }
    if (children.every((other) => other.phase !== "ready")) problem = sentence;
    if (degraded()) {
      const error = unavailable("cannot be started at present", sentence);
      for (const call of queue.drain()) call.fail(error);
      for (const waiter of waiters) waiter.reject(error);
      waiters.clear();
    }
    ensure();
    dispatch();
  }

  function backOff(times: number, limitMs: number): void {
    const fullMs = Math.min(limitMs, FIRST_BACK_OFF_MS * 2 ** (times - 1));
    notBefore = now() + fullMs * (0.5 + random() / 2);
  }

  function degraded(): boolean {
    return (unstartable || failures >= FAILURES_TO_DEGRADE) && children.every((child) => child.phase !== "ready");
  }

  function leave(child: Child): void {
    children = children.filter((other) => other !== child);
    for (const [key, home] of homes) if (home === child) homes.delete(key);
    share.vacated();
  }

  /** Stops processes beyond the least number after their idle time, the youngest first. */
  function armIdle(): void {
    if (idleTimer !== undefined || children.length <= min || closing) return;
    const idleMs = idleSeconds * 1000;
    idleTimer = setTimeout(
      () => {
        idleTimer = undefined;
        for (const child of [...children].reverse()) {
          if (children.length <= min) break;
          if (child.phase !== "ready" || child.flights.size > 0 || queue.size > 0 || now() - child.idleSince < idleMs)
            continue;
          if (child.openTasks > 0) continue;
          retire(child, "was idle");
        }
        armIdle();
      },
      Math.max(5, idleMs / 4),
    ).unref();
  }

  /** Ends a process that has nothing to do. */
  function retire(child: Child, why: string): void {
    leave(child);
    logger.debug({ pid: child.pid, why }, "server process is stopped");
    endings.add(settled(child.end()));
  }

  /** Forgets an ending once it is over. */
  function settled(ending: Promise<void>): Promise<void> {
    const over = ending
      .catch((error: unknown) => logger.warn({ error }, "a server process could not be ended"))
      .then(() => void endings.delete(over));
    return over;
  }

  const inFlight = () => children.reduce((sum, child) => sum + child.flights.size, 0);

  const unavailable = (what: string, detail = problem) =>
    new DrawbridgeError("upstream_unavailable", `The server "${name}" ${what}.`, {
      ...(detail !== undefined && { detail }),
      ...(notBefore > now() && { retryAfterSeconds: Math.ceil((notBefore - now()) / 1000) }),
    });

  ensure();

  return {
    send,
    identity: () => identity,
    spare(must, waiting) {
      const ready = children.filter((child) => child.phase === "ready" && !child.leaving);
      const idle = ready.find((child) => child.flights.size === 0 && (must || child.openTasks === 0));
      if (queue.size === 0 && idle !== undefined && children.length > (must ? 0 : min)) {
        retire(idle, "makes room for others");
        return true;
      }
      if (!must) return false;
      whose.endForgotten(waiting);
      if (children.some(({ leaving }) => leaving)) return false;
      const [least] = ready.sort((a, b) => a.flights.size - b.flights.size);
      if (least === undefined) return false;
      if (least.flights.size === 0) retire(least, "makes room for others");
      else least.leaving = true;
      return true;
    },
    ensure,
    get size() {
      return children.length;
    },
    has: (process) => children.some(({ key }) => key === process),
    get idle() {
      const busy = queue.size > 0 || waiters.size > 0 || inFlight() > 0;
      return !busy && children.every(({ openTasks }) => openTasks === 0);
    },
    ready: () => children.filter((child) => child.phase === "ready"),
    async reach(signal) {
      if (signal.aborted) throw new DrawbridgeError("cancelled", "The request was cancelled.");
      if (closing) throw unavailable("is being shut down");
      const ready = children
        .filter((child) => child.phase === "ready")
        .sort((a, b) => Number(a.blocked) - Number(b.blocked) || a.flights.size - b.flights.size);
      if (ready[0] !== undefined) return ready[0];
      if (degraded()) throw unavailable("cannot be started at present");
      const waiter = Promise.withResolvers<Child>();
      const abort = () => {
        waiters.delete(waiter);
        waiter.reject(new DrawbridgeError("cancelled", "The request was cancelled."));
      };
      signal.addEventListener("abort", abort, { once: true });
      waiters.add(waiter);
      ensure();
      try {
        return await waiter.promise;
      } finally {
        signal.removeEventListener("abort", abort);
      }
    },
    state() {
      const ready = children.some((child) => child.phase === "ready");
      return {
        state: closing
          ? "stopped"
          : ready || (children.length === 0 && min === 0 && failures === 0)
            ? "ready"
            : degraded()
              ? "degraded"
              : "starting",
        size: children.length,
        inFlight: inFlight(),
        tasks: children.reduce((sum, child) => sum + child.openTasks, 0),
        queued: queue.size,
        restarts,
        problem: ready ? undefined : problem,
        stderr: [...stderr],
      };
    },
    async close(signal) {
      closing = true;
      clearTimeout(startTimer);
      clearTimeout(idleTimer);
      const error = unavailable("is being shut down");
      for (const call of queue.drain()) call.fail(error);
      for (const waiter of waiters) waiter.reject(error);
      waiters.clear();
      if (inFlight() > 0 && !signal.aborted) {
        await new Promise<void>((resolve) => {
          whenIdle = resolve;
          signal.addEventListener("abort", () => resolve(), { once: true });
        });
      }
      for (const child of children)
        for (const call of [...child.flights.values()]) call.fail(error, "the gateway is being shut down");
      for (const child of children) endings.add(settled(child.end()));
      children = [];
      pulse.stop();
      vigil.stop();
      await Promise.all(endings);
    },
  };
}
