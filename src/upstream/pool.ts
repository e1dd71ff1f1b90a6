/**
 * The processes of one stdio server and the calls that wait for them. One process serves many calls at once, as long as it
 * answers pings while it works. A process without a pulse is held up by a tool that blocks it: it gets nothing new, and while
 * calls wait, further processes are started beside it.
 */

import type { Outcome, PermittedCall, Replies, RequestId } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Flavour } from "./capabilities.ts";
import { Child, type ChildOwner, PooledCall, principalOf, type Tool } from "./child.ts";
import { type Deadlines, deadlines, type Limits, type Stopwatch, stopwatch, timeoutError } from "./exchange.ts";
import { fairQueue } from "./fair-queue.ts";
import type { ProcessEvents, ServerProcess } from "./process.ts";
import { OUTSIDE, type ServerRequest } from "./questions.ts";
import type { UpstreamEvents, UpstreamIdentity, UpstreamState } from "./upstream.ts";

/** What a pool needs to know of the server's settings. */
export interface PoolSettings {
  readonly processes: { readonly min: number; readonly max: number; readonly idleSeconds: number };
  readonly maxInFlight: number;
  readonly maxQueued: number;
  readonly timeoutSeconds: number;
  readonly maxCallSeconds: number;
  readonly answerSeconds: number;
  readonly startTimeoutSeconds: number;
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
  /** Nothing is in flight and nobody waits. */
  readonly idle: boolean;
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
/** Calls without a question after which it is known that a tool may run beside those of others. */
const QUIET_CALLS = 1;
/** The same for a tool that was there when nobody could tell whose question it was. */
const SUSPECT_QUIET_CALLS = 8;
/** A question that may be one of several callers' is held for so long at most. */
const MAX_HELD_MS = 30_000;
const MAX_HELD = 64;
/**
 * A question that its client leaves unanswered gives way to other calls: soon to those of the same user, soonest when they come
 * with other capabilities, as from a client that was started anew; later to those of others.
 */
const YIELDS_TO_OWN_ELSEWHERE_MS = 1_000;
const YIELDS_TO_OWN_MS = 10_000;
const YIELDS_TO_OTHERS_MS = 30_000;
/** Calls that need a process to themselves wait so long for one that is there before another is started. */
const SHARE_MS = 50;
/** Processes started at once for them. */
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
      if (askable) onOver(child, call, answered);
      if (child.leaving && child.flights.size === 0) retire(child, "makes room for others");
      dispatch();
      if (closing && inFlight() === 0) whenIdle?.();
    },
    asked: onQuestion,
    withdrawn: onWithdrawn,
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
      const lane = laneOf(permitted, tool);
      const child = queue.waitingIn(lane) === 0 ? place(permitted, tool) : undefined;
      if (child !== undefined) assign(child, call, tool);
      else enqueue(call, lane);
    });
  }

  function assign(child: Child, call: PooledCall, tool: Tool): void {
    if (mayAsk(tool)) {
      call.exclusive = true;
      child.lease = principalOf(call.permitted);
      child.leases++;
      child.reserved = false;
    }
    child.send(call, tool);
  }

  function enqueue(call: PooledCall, lane: string): void {
    if (queue.size >= settings.maxQueued) {
      const message = `The server "${name}" has too many calls waiting. Try again later.`;
      call.fail(new DrawbridgeError("overloaded", message, { retryAfterSeconds: 1 }));
      return;
    }
    call.ticket = queue.push(principalOf(call.permitted), lane, call);
    takePulse();
    ensure();
  }

  /** Sends what waits to whoever can take it. Afterwards nothing waits that could be sent. */
  function dispatch(): void {
    if (queue.size === 0) return;
    for (;;) {
      const call = queue.take((_, { permitted }) => {
        const tool = toolOf(permitted);
        return children.some((child) => canTake(child, tool, permitted));
      });
      if (call === undefined) return;
      const tool = toolOf(call.permitted);
      const child = place(call.permitted, tool);
      if (child !== undefined) assign(child, call, tool);
    }
  }

  /** Calls wait in line for their tool; those that need a process to themselves, also for their caller. */
  const laneOf = (permitted: PermittedCall, tool: Tool) =>
    mayAsk(tool) ? `${JSON.stringify(tool.name)}\n${principalOf(permitted)}` : tool.name;

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
      child.flights.size < settings.maxInFlight &&
      (child.counts.get(tool) ?? 0) < tool.limit &&
      !child.leaving &&
      (!askable || belongs(child, tool, principalOf(permitted)))
    );
  }

  function toolOf({ call }: PermittedCall): Tool {
    const { kind, upstreamName } = call.target;
    // A prompt may ask as a tool may; resources are too many to know each.
    const key = kind === "tool" ? upstreamName : kind === "prompt" ? `${call.method} ${upstreamName}` : call.method;
    let tool = tools.get(key);
    if (tool === undefined) {
      if (tools.size >= MAX_TOOLS)
        for (const [old, { blocking }] of tools)
          if (!blocking && queue.waitingIn(old) === 0 && tools.delete(old)) break;
      const limit = Math.min(FIRST_LIMIT, settings.maxInFlight);
      tool = { name: key, limit, blocking: false, calm: 0, grownAt: 0, asks: false, quiet: 0 };
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

  // ---- questions ----

  // A question does not say which call it belongs to. It is put to the one caller whose calls are in flight in the process that
  // asks, so calls that may ask share no process with those of others. When it happens in spite of that, the question waits until
  // all calls but one caller's have ended.

  const mayAsk = (tool: Tool) => askable && (tool.asks || tool.quiet < QUIET_CALLS);

  /** Whether a process can take a call of this caller without doubt about whose question is whose. */
  function belongs(child: Child, tool: Tool, principal: string): boolean {
    if (child.held.length > 0) return false;
    if ((child.lease ?? principal) !== principal || (child.owner ?? principal) !== principal) return false;
    if (!mayAsk(tool)) return !child.reserved;
    if (!child.settled || child.hauntedFor(principal)) return false;
    const atMost = leasesOf(principal) >= mostLeases();
    if (child.lease === undefined && atMost) return false;
    // Two dialogues of one caller in one process are told apart by nothing, so they share one only when they must.
    if (!atMost && inDialogue(child)) return false;
    for (const call of child.flights.values()) if (principalOf(call.permitted) !== principal) return false;
    return true;
  }

  function inDialogue(child: Child): boolean {
    for (const call of child.flights.values()) if (call.asking > 0) return true;
    return false;
  }

  /** Nobody has all processes to themselves, however many clients they call through. */
  const mostLeases = () => Math.max(1, (children.length + share.room()) >> 1);

  function leasesOf(principal: string): number {
    const subject = subjectOf(principal);
    return children.filter(({ lease }) => lease !== undefined && subjectOf(lease) === subject).length;
  }

  const waitingSubjects = () => new Set([...queue.heads()].map(({ permitted }) => permitted.by.subject));

  /**
   * Ends the dialogue whose client has been silent for longest, when a process is wanted that it holds: most of those never come
   * back. `all`: there is no process for anybody; otherwise only who has too many dialogues of their own is in their own way.
   */
  function endForgotten(waiting: ReadonlySet<string>, all: boolean, ownPatienceMs: number): void {
    const time = now();
    let forgotten: PooledCall | undefined;
    for (const child of children) {
      for (const call of child.flights.values()) {
        if (call.asking === 0) continue;
        const own = waiting.has(call.permitted.by.subject);
        const patience = own ? ownPatienceMs : all ? YIELDS_TO_OTHERS_MS : Number.POSITIVE_INFINITY;
        if (time - call.askingSince < patience) continue;
        if (forgotten === undefined || call.askingSince < forgotten.askingSince) forgotten = call;
      }
    }
    const message = `The server "${name}" is needed for other calls, and its question was not answered. Call again.`;
    const busy = new DrawbridgeError("overloaded", message, { retryAfterSeconds: 1 });
    forgotten?.fail(busy, "the question was not answered");
  }

  function onQuestion(child: Child, question: ServerRequest): void {
    if (question.method === "roots/list" && !child.settled) {
      child.refuse(question, OUTSIDE);
      child.startedUp();
    } else if (!tryToAsk(child, question)) {
      hold(child, question);
    }
  }

  /** Puts a question to whom it must be for, or refuses it when it is for nobody; false when that cannot be told now. */
  function tryToAsk(child: Child, question: ServerRequest): boolean {
    let best: PooledCall | undefined;
    for (const call of child.flights.values()) {
      if (best !== undefined && principalOf(best.permitted) !== principalOf(call.permitted)) return false;
      if (best === undefined || likelier(call, best)) best = call;
    }
    if (best === undefined) {
      child.refuse(question, OUTSIDE);
      return true;
    }
    if (child.hauntedFor(principalOf(best.permitted))) return false;
    if (best.tool !== undefined) {
      if (!best.tool.asks) logger.debug({ tool: best.tool.name }, "the tool asks; calls of it share no process");
      best.tool.asks = true;
    }
    // Servers keep the roots they were told for all their calls to come.
    if (question.method === "roots/list") child.owner = principalOf(best.permitted);
    child.ask(best, question);
    return true;
  }

  function hold(child: Child, question: ServerRequest): void {
    if (child.held.length >= MAX_HELD) {
      child.refuse(question, "Too many questions wait.");
      return;
    }
    const timer = setTimeout(
      () => {
        child.held = child.held.filter((other) => other.question !== question);
        // One of them has asked, and all of them may.
        for (const { tool } of child.flights.values())
          if (tool !== undefined) tool.quiet = Math.min(tool.quiet, QUIET_CALLS - SUSPECT_QUIET_CALLS);
        logger.warn({ pid: child.pid, method: question.method }, "a question of the server was in nobody's name");
        child.refuse(question, "The question cannot be told from those of other calls.");
        dispatch();
      },
      Math.min(MAX_HELD_MS, limits.silenceMs / 2),
    );
    child.held.push({ question, timer });
  }

  function onWithdrawn(child: Child, id: RequestId): void {
    const withdrawn = child.held.find(({ question }) => question.id === id);
    if (withdrawn === undefined) return;
    clearTimeout(withdrawn.timer);
    child.held = child.held.filter((other) => other !== withdrawn);
    dispatch();
  }

  function onOver(child: Child, call: PooledCall, answered: boolean): void {
    if (call.exclusive && --child.leases === 0) child.lease = undefined;
    if (answered && call.questions === 0 && call.tool !== undefined) call.tool.quiet++;
    if (child.held.length === 0 || child.phase === "ended") return;
    child.held = child.held.filter(({ question, timer }) => {
      if (!tryToAsk(child, question)) return true;
      clearTimeout(timer);
      return false;
    });
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
      for (const child of children) child.reserved = false;
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
    if (askable && queue.size > 0 && waitedMs() >= SHARE_MS) {
      const all = share.room() <= 0 && children.every(({ phase, lease }) => phase !== "ready" || lease !== undefined);
      endForgotten(waitingSubjects(), all, YIELDS_TO_OWN_MS);
    }
  }

  const mayGrow = (child: Child) => [...queue.heads()].some(({ permitted }) => growable(toolOf(permitted), child));

  const growable = (tool: Tool, child: Child) =>
    !tool.blocking && tool.limit < settings.maxInFlight && (child.counts.get(tool) ?? 0) > 0;

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
      for (const { permitted } of queue.heads()) {
        const tool = toolOf(permitted);
        if (!growable(tool, child) || time - tool.grownAt < GROWTH_MS) continue;
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
      if (child.phase !== "ready") continue;
      ready = true;
      if (askable && !shared(child)) {
        unshared = true;
        continue;
      }
      const suspect = child.suspectId !== 0 && now() - child.suspectSince > SUSPECT_MS;
      const heldUp = suspect || (child.blocked && child.silentMs >= (trusted(child) ? TRUST : 1) * BLOCKED_MS);
      if (!heldUp) return 0;
      if (!suspect && child.silentMs < LESSON_MS) patience = true;
    }
    if (unshared) return waitedMs() < SHARE_MS ? 0 : STARTS_AT_ONCE;
    return patience || !ready ? 1 : Math.ceil(queue.size / CALLS_PER_START);
  }

  /** Whether a process could take any call that waits as soon as it has done something else. */
  function shared(child: Child): boolean {
    if (child.held.length > 0 || child.leaving) return false;
    const owner = child.lease ?? child.owner;
    for (const { permitted } of queue.heads()) {
      const principal = principalOf(permitted);
      if (owner !== undefined && principal !== owner) return false;
      if (mayAsk(toolOf(permitted)) && inDialogue(child) && leasesOf(principal) < mostLeases()) return false;
      if (mayAsk(toolOf(permitted)) && (child.flights.size > 0 ? owner === undefined : child.hauntedFor(principal)))
        return false;
    }
    return true;
  }

  /** How long the first of those who wait has waited. */
  function waitedMs(): number {
    let since = now();
    const time = since;
    for (const { startedAt } of queue.heads()) since = Math.min(since, startedAt);
    return time - since;
  }

  /** Processes are wanted, and there is no room for them. */
  function crowded(): void {
    share.squeeze(children.length === 0, waitingSubjects());
    if (!askable || share.room() > 0) return;
    const kept = children.find(
      (child) =>
        (child.owner !== undefined || child.hauntedFor("")) && child.flights.size === 0 && child.phase === "ready",
    );
    if (kept !== undefined) {
      retire(kept, "makes room for others");
      return;
    }
    // Whoever needs a process to themselves gets one when it has done what it does for others.
    let best: Child | undefined;
    for (const child of children) {
      if (child.reserved) return;
      if (child.phase !== "ready" || !child.settled || !canLend(child)) continue;
      if (best === undefined || child.flights.size < best.flights.size) best = child;
    }
    const wants = [...queue.heads()].some(({ permitted }) => mayAsk(toolOf(permitted)));
    if (best !== undefined && wants) best.reserved = true;
  }

  const canLend = (child: Child) =>
    child.lease === undefined && child.owner === undefined && child.held.length === 0 && !child.hauntedFor("");

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
      const idle = ready.find((child) => child.flights.size === 0);
      if (queue.size === 0 && idle !== undefined && children.length > (must ? 0 : min)) {
        retire(idle, "makes room for others");
        return true;
      }
      if (!must) return false;
      endForgotten(waiting, true, YIELDS_TO_OWN_ELSEWHERE_MS);
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
    get idle() {
      return queue.size === 0 && waiters.size === 0 && inFlight() === 0;
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

/** Of calls of one caller: those whose tool is known to ask, those that have asked least, and the oldest come first. */
function likelier(call: PooledCall, other: PooledCall): boolean {
  const asks = Number(call.tool?.asks ?? false) - Number(other.tool?.asks ?? false);
  const fewer = other.questions - call.questions;
  return asks > 0 || (asks === 0 && (fewer > 0 || (fewer === 0 && call.id < other.id)));
}

/** A client's id is a URL or ours, and has no line breaks. */
function subjectOf(principal: string): string {
  return principal.slice(0, principal.lastIndexOf("\n"));
}
