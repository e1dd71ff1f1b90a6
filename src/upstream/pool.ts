/**
 * The processes of one stdio server and the calls that wait for them. One process serves many calls at once, as long as it
 * answers pings while it works. A process without a pulse is held up by a tool that blocks it: it gets nothing new, and while
 * calls wait, further processes are started beside it.
 */

import type { Outcome, PermittedCall, Replies } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import { Child, type ChildOwner, PooledCall, type Tool } from "./child.ts";
import { type Deadlines, deadlines, type Limits, type Stopwatch, stopwatch, timeoutError } from "./exchange.ts";
import { fairQueue } from "./fair-queue.ts";
import type { ProcessOptions } from "./process.ts";
import type { StdioServerSettings } from "./settings.ts";
import type { UpstreamEvents, UpstreamIdentity, UpstreamState } from "./upstream.ts";

export interface PoolOptions {
  readonly name: string;
  readonly version: string;
  readonly process: ProcessOptions;
  readonly settings: StdioServerSettings;
  readonly logger: Logger;
  readonly events: UpstreamEvents;
}

export interface Pool {
  /** A process that has shaken hands, started if need be. Rejects when the server cannot be started. */
  reach(signal: AbortSignal): Promise<Child>;
  send(call: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome>;
  /** Processes that have shaken hands. */
  ready(): readonly Child[];
  /** Who the server said it was, last time it was reached. */
  identity(): UpstreamIdentity | undefined;
  state(): UpstreamState;
  close(signal: AbortSignal): Promise<void>;
}

/** Calls of a tool in one process before it has been seen to answer while it works. */
const FIRST_LIMIT = 2;
/** How often a pulse is taken while calls wait. */
const TICK_MS = 10;
/** A process silent for so long gets no new calls. */
const BLOCKED_MS = 50;
/** A silence so long teaches us that a tool blocks. Shorter ones are the machine's noise. */
const LESSON_MS = 100;
/** A process that works on a call known to block has so long to show that it does not this time. */
const SUSPECT_MS = 20;
/** Processes that have shown that they answer while they work are given this much more time before others are started. */
const TRUST = 4;
/** A process with no call left that is silent so long while calls wait is given up. */
const WEDGED_MS = 10_000;
/** A limit doubles at most this often, so that a process shows the effect of one step before the next. */
const GROWTH_MS = 15;
/** Calls without a silence that clear a tool of the suspicion to block. */
const CALM_CALLS = 16;
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
const MAX_TOOLS = 10_000;
const MAX_STDERR_LINES = 100;

export function processPool(
  options: PoolOptions,
  subscribed: ReadonlySet<string>,
  now: Stopwatch = stopwatch,
  random: () => number = Math.random,
): Pool {
  const { name, settings, logger } = options;
  const { min, max, idleSeconds } = {
    ...settings.processes,
    max: Math.max(settings.processes.min, settings.processes.max),
  };
  const limits: Limits = { silenceMs: settings.timeoutSeconds * 1000, totalMs: settings.maxCallSeconds * 1000 };
  const queue = fairQueue<PooledCall>();
  const tools = new Map<string, Tool>();
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
  let pulseTimer: NodeJS.Timeout | undefined;
  let pulseAt = 0;
  let idleTimer: NodeJS.Timeout | undefined;
  let closing = false;
  let whenIdle: (() => void) | undefined;

  const owner: ChildOwner = {
    ready(child) {
      identity = child.identity;
      failures = 0;
      unstartable = false;
      problem = undefined;
      logger.debug({ pid: child.pid, revision: identity?.revision }, "server process is ready");
      for (const waiter of waiters) waiter.resolve(child);
      waiters.clear();
      armIdle();
      dispatch();
    },
    pulse: onPulse,
    finished(child, call, answered) {
      const { tool } = call;
      if (answered && tool !== undefined) onCalm(child, call, tool);
      dispatch();
      if (closing && inFlight() === 0) whenIdle?.();
    },
    writable: dispatch,
    ended: onEnded,
    stderr(line) {
      if (stderr.push(line) > MAX_STDERR_LINES) stderr.shift();
      logger.debug({ line }, "stderr of the server");
    },
  };

  // ---- calls ----

  function send(permitted: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      if (closing || degraded()) {
        reject(unavailable(closing ? "is being shut down" : "cannot be started at present"));
        return;
      }
      const call = new PooledCall(permitted, replies, signal, watch, now(), resolve, reject);
      if (call.settled) return;
      call.release = (abandoned) => {
        if (call.child !== undefined) call.child.release(call, abandoned);
        else if (call.ticket !== undefined) queue.remove(call.ticket);
      };
      const tool = toolOf(permitted);
      const child = queue.waitingIn(tool.name) === 0 ? place(permitted, tool) : undefined;
      if (child !== undefined) child.send(call, tool);
      else enqueue(call, tool);
    });
  }

  function enqueue(call: PooledCall, tool: Tool): void {
    if (queue.size >= settings.maxQueued) {
      const message = `The server "${name}" has too many calls waiting. Try again later.`;
      call.fail(new DrawbridgeError("overloaded", message, { retryAfterSeconds: 1 }));
      return;
    }
    call.ticket = queue.push(principalOf(call.permitted), tool.name, call);
    takePulse();
    ensure();
  }

  /** Sends what waits to whoever can take it. Afterwards nothing waits that could be sent. */
  function dispatch(): void {
    if (queue.size === 0) return;
    for (;;) {
      const call = queue.take((lane) => {
        const tool = tools.get(lane);
        return tool !== undefined && children.some((child) => canTake(child, tool));
      });
      if (call === undefined) return;
      const tool = toolOf(call.permitted);
      const child = place(call.permitted, tool);
      if (child !== undefined) child.send(call, tool);
    }
  }

  /** The process for a call: its home if that can take it, else the least busy one, the oldest of equals. */
  function place(permitted: PermittedCall, tool: Tool): Child | undefined {
    const key = permitted.call.session ?? principalOf(permitted);
    const home = homes.get(key);
    if (home !== undefined && canTake(home, tool)) return home;
    let best: Child | undefined;
    for (const child of children) {
      if (canTake(child, tool) && (best === undefined || child.flights.size < best.flights.size)) best = child;
    }
    if (best !== undefined) {
      homes.delete(key);
      homes.set(key, best);
      if (homes.size > MAX_HOMES) for (const oldest of homes.keys()) if (homes.delete(oldest)) break;
    }
    return best;
  }

  function canTake(child: Child, tool: Tool): boolean {
    return (
      child.phase === "ready" &&
      !child.blocked &&
      child.suspectId === 0 &&
      !child.full &&
      child.flights.size < settings.maxInFlight &&
      (child.counts.get(tool) ?? 0) < tool.limit
    );
  }

  function toolOf({ call }: PermittedCall): Tool {
    const key = call.target.kind === "tool" ? call.target.upstreamName : call.method;
    let tool = tools.get(key);
    if (tool === undefined) {
      if (tools.size >= MAX_TOOLS)
        for (const [old, { blocking }] of tools)
          if (!blocking && queue.waitingIn(old) === 0 && tools.delete(old)) break;
      tool = { name: key, limit: Math.min(FIRST_LIMIT, settings.maxInFlight), blocking: false, calm: 0, grownAt: 0 };
      tools.set(key, tool);
    }
    return tool;
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

  // ---- pulse ----

  /** Looks after the processes for as long as calls wait. */
  function takePulse(): void {
    if (pulseTimer !== undefined) return;
    pulseAt = now();
    pulseTimer = setInterval(() => setImmediate(onTick), TICK_MS);
    onTick();
  }

  function onTick(): void {
    if (queue.size === 0) {
      clearInterval(pulseTimer);
      pulseTimer = undefined;
      return;
    }
    const time = now();
    // While the gateway itself stood still nobody listened, and silence proves nothing.
    const listened = Math.min(time - pulseAt, 2 * TICK_MS);
    pulseAt = time;
    for (const child of children) {
      const watched = child.flights.size > 0 || child.full || child.blocked || child.suspectId !== 0;
      if (child.phase !== "ready" || !watched) continue;
      if (child.pingId === 0) {
        if (!child.heard || mayGrow(child)) child.ping();
      } else if (!child.heard) {
        child.silentMs += listened;
        if (child.silentMs >= BLOCKED_MS) child.blocked = true;
        if (child.silentMs >= LESSON_MS) suspectOnly(child);
        if (child.silentMs >= WEDGED_MS && child.flights.size === 0) replace(child);
      }
      child.heard = false;
    }
    dispatch();
    ensure();
  }

  const mayGrow = (child: Child) => [...queue.lanes()].some((lane) => growable(tools.get(lane), child));

  const growable = (tool: Tool | undefined, child: Child) =>
    tool !== undefined && !tool.blocking && tool.limit < settings.maxInFlight && (child.counts.get(tool) ?? 0) > 0;

  /** Something came out of a process that was watched. */
  function onPulse(child: Child, answered: PooledCall | undefined, pong: boolean): void {
    const time = now();
    if (child.silentMs >= LESSON_MS) {
      child.silenceEndedAt = time;
      // A process that was held up speaks first of what held it up.
      if (answered?.tool !== undefined) learnBlocking(answered.tool);
    }
    const awake = child.blocked;
    child.blocked = false;
    if (pong && time - child.pingSentAt < BLOCKED_MS) {
      for (const lane of queue.lanes()) {
        const tool = tools.get(lane);
        if (tool === undefined || !growable(tool, child) || time - tool.grownAt < GROWTH_MS) continue;
        tool.limit = Math.min(settings.maxInFlight, tool.limit * 2);
        tool.grownAt = time;
      }
      for (const call of child.flights.values())
        if (call.tool?.blocking && call.sentAt <= child.pingSentAt) calm(call.tool, 4);
    }
    // An answer to a call dispatches when it has left the books.
    if ((pong || awake) && answered === undefined) dispatch();
  }

  /** The one tool in flight in a silent process must be what blocks it. */
  function suspectOnly(child: Child): void {
    let only: Tool | undefined;
    for (const [tool, count] of child.counts) {
      if (count === 0) continue;
      if (only !== undefined) return;
      only = tool;
    }
    if (only !== undefined) learnBlocking(only);
  }

  function learnBlocking(tool: Tool): void {
    if (!tool.blocking) logger.debug({ tool: tool.name }, "the tool blocks its process; it gets one process per call");
    tool.blocking = true;
    tool.limit = 1;
    tool.calm = 0;
  }

  function onCalm(child: Child, call: PooledCall, tool: Tool): void {
    if (!tool.blocking || child.silenceEndedAt > call.sentAt) return;
    if (now() - call.sentAt < BLOCKED_MS) calm(tool, 1);
  }

  function calm(tool: Tool, calls: number): void {
    tool.calm += calls;
    if (tool.calm < CALM_CALLS) return;
    tool.blocking = false;
    tool.limit = Math.min(FIRST_LIMIT, settings.maxInFlight);
  }

  // ---- processes ----

  /** Starts what is missing: the least that is to run, one for whoever waits, more while all are held up. */
  function ensure(): void {
    if (closing) return;
    const demand = queue.size > 0 || waiters.size > 0 || degraded() ? 1 : 0;
    let missing = Math.max(min, demand) - children.length;
    const starting = children.filter((child) => child.phase === "starting").length;
    if (missing <= 0 && queue.size > 0) missing = wanted() - starting;
    missing = Math.min(missing, max - children.length);
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
    for (const child of children) {
      if (child.phase !== "ready") continue;
      ready = true;
      const suspect = child.suspectId !== 0 && now() - child.suspectSince > SUSPECT_MS;
      const heldUp = suspect || (child.blocked && child.silentMs >= (trusted(child) ? TRUST : 1) * BLOCKED_MS);
      if (!heldUp) return 0;
      if (!suspect && child.silentMs < LESSON_MS) patience = true;
    }
    return patience || !ready ? 1 : Math.ceil(queue.size / CALLS_PER_START);
  }

  /** Whether all it works on has been seen not to block. */
  function trusted(child: Child): boolean {
    for (const [tool, count] of child.counts)
      if (count > 0 && (tool.blocking || tool.limit < 4 * FIRST_LIMIT)) return false;
    return true;
  }

  function start(): void {
    const child = new Child(
      {
        name,
        version: options.version,
        process: options.process,
        maxAnswerBytes: settings.maxAnswerBytes,
        startTimeoutMs: settings.startTimeoutSeconds * 1000,
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

  /** Ends a process that does nothing for anybody any more, so that another may take its place. */
  function replace(child: Child): void {
    logger.warn({ pid: child.pid }, "a server process gives no sign of life and is replaced");
    leave(child);
    restarts++;
    endings.add(settled(child.end()));
  }

  function leave(child: Child): void {
    children = children.filter((other) => other !== child);
    for (const [key, home] of homes) if (home === child) homes.delete(key);
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
          leave(child);
          logger.debug({ pid: child.pid }, "server process was idle and is stopped");
          endings.add(settled(child.end()));
        }
        armIdle();
      },
      Math.max(5, idleMs / 4),
    ).unref();
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
      clearInterval(pulseTimer);
      await Promise.all(endings);
    },
  };
}

function principalOf({ by }: PermittedCall): string {
  return `${by.subject}\n${by.client}`;
}
