/**
 * The pulse of a server's processes, taken by pings while calls wait, and what it teaches of their tools: those during which a
 * process falls silent block it, and get one process for each call; of the others a process is given more and more at once.
 */
import type { PermittedCall } from "../core/call.ts";
import type { Logger } from "../observe/logger.ts";
import type { Child, PooledCall, Tool } from "./child.ts";
import type { Stopwatch } from "./exchange.ts";

export interface PulseOptions {
  readonly maxInFlight: number;
  readonly logger: Logger;
  readonly now: Stopwatch;
  children(): readonly Child[];
  /** Of the calls that wait, those that are next. */
  heads(): Iterable<PooledCall>;
  /** Whether calls wait: of this tool, or any. */
  waiting(tool?: string): boolean;
  /** A process may be able to take more. */
  freed(): void;
  /** After each look at the processes. */
  looked(): void;
  /** Nobody waits any more, and nobody looks until somebody does. */
  rested(): void;
  /** A process with nothing in flight has given no sign of life for so long. */
  wedged(child: Child): void;
}

export interface Pulse {
  /** What is known of the tool of a call. */
  toolOf(call: PermittedCall): Tool;
  /** Looks after the processes for as long as calls wait. */
  take(): void;
  /** Something came out of a process that was watched: the answer to a call, or to the ping. */
  heard(child: Child, answered: PooledCall | undefined, pong: boolean): void;
  /** A call was answered. */
  answered(child: Child, call: PooledCall): void;
  /** Whether what a process works on keeps it from more; `perhaps`: the silence is still a short one. */
  heldUp(child: Child): "no" | "perhaps" | "yes";
  stop(): void;
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
const MAX_TOOLS = 10_000;

export function pulse(options: PulseOptions): Pulse {
  const { maxInFlight, logger, now, children, heads, waiting } = options;
  const tools = new Map<string, Tool>();
  let timer: NodeJS.Timeout | undefined;
  let lookedAt = 0;

  function toolOf({ call }: PermittedCall): Tool {
    const { kind, upstreamName } = call.target;
    // A prompt may ask as a tool may; resources are too many to know each.
    const key =
      call.method === "tools/call" ? upstreamName : kind === "prompt" ? `${call.method} ${upstreamName}` : call.method;
    let tool = tools.get(key);
    if (tool === undefined) {
      if (tools.size >= MAX_TOOLS)
        for (const [old, { blocking }] of tools) if (!blocking && !waiting(old) && tools.delete(old)) break;
      const limit = Math.min(FIRST_LIMIT, maxInFlight);
      tool = { name: key, limit, blocking: false, calm: 0, grownAt: 0, asks: false, quiet: 0 };
      tools.set(key, tool);
    }
    return tool;
  }

  function look(): void {
    if (!waiting()) {
      stop();
      options.rested();
      return;
    }
    const time = now();
    // While the gateway itself stood still nobody listened, and silence proves nothing.
    const listened = Math.min(time - lookedAt, 2 * TICK_MS);
    lookedAt = time;
    for (const child of children()) {
      const watched = child.flights.size > 0 || child.full || child.blocked || child.suspectId !== 0;
      if (child.phase !== "ready" || !watched) continue;
      if (child.pingId === 0) {
        if (!child.heard || mayGrow(child)) child.ping();
      } else if (!child.heard) {
        child.silentMs += listened;
        if (child.silentMs >= BLOCKED_MS) child.blocked = true;
        if (child.silentMs >= LESSON_MS) suspectOnly(child);
        if (child.silentMs >= WEDGED_MS && child.flights.size === 0) options.wedged(child);
      }
      child.heard = false;
    }
    options.looked();
  }

  function stop(): void {
    clearInterval(timer);
    timer = undefined;
  }

  const mayGrow = (child: Child) => [...heads()].some(({ permitted }) => growable(toolOf(permitted), child));

  const growable = (tool: Tool, child: Child) =>
    !tool.blocking && tool.limit < maxInFlight && (child.counts.get(tool) ?? 0) > 0;

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

  function calm(tool: Tool, calls: number): void {
    tool.calm += calls;
    if (tool.calm < CALM_CALLS) return;
    tool.blocking = false;
    tool.limit = Math.min(FIRST_LIMIT, maxInFlight);
  }

  /** Whether all it works on has been seen not to block. */
  function trusted(child: Child): boolean {
    for (const [tool, count] of child.counts)
      if (count > 0 && (tool.blocking || tool.limit < 4 * FIRST_LIMIT)) return false;
    return true;
  }

  return {
    toolOf,
    take() {
      if (timer !== undefined) return;
      lookedAt = now();
      timer = setInterval(() => setImmediate(look), TICK_MS);
      look();
    },
    heard(child, answered, pong) {
      const time = now();
      if (child.silentMs >= LESSON_MS) {
        child.silenceEndedAt = time;
        // A process that was held up speaks first of what held it up.
        if (answered?.tool !== undefined) learnBlocking(answered.tool);
      }
      const awake = child.blocked;
      child.blocked = false;
      if (pong && time - child.pingSentAt < BLOCKED_MS) {
        for (const { permitted } of heads()) {
          const tool = toolOf(permitted);
          if (!growable(tool, child) || time - tool.grownAt < GROWTH_MS) continue;
          tool.limit = Math.min(maxInFlight, tool.limit * 2);
          tool.grownAt = time;
        }
        for (const call of child.flights.values())
          if (call.tool?.blocking && call.sentAt <= child.pingSentAt) calm(call.tool, 4);
      }
      // An answer to a call frees a place when it has left the books.
      if ((pong || awake) && answered === undefined) options.freed();
    },
    answered(child, { tool, sentAt }) {
      if (tool === undefined || !tool.blocking || child.silenceEndedAt > sentAt) return;
      if (now() - sentAt < BLOCKED_MS) calm(tool, 1);
    },
    heldUp(child) {
      if (child.suspectId !== 0 && now() - child.suspectSince > SUSPECT_MS) return "yes";
      if (!child.blocked || child.silentMs < (trusted(child) ? TRUST : 1) * BLOCKED_MS) return "no";
      return child.silentMs < LESSON_MS ? "perhaps" : "yes";
    },
    stop,
  };
}
