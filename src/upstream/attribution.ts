/**
 * Whose question is whose. What a server with a handshake asks does not say which call it belongs to. It is put to the one caller
 * whose calls are in flight in the process that asks, so calls that may ask share no process with those of others. When it happens
 * in spite of that, the question waits until all calls but one caller's have ended.
 */
import type { PermittedCall, RequestId } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { taskOf } from "../mcp/tasks.ts";
import type { Logger } from "../observe/logger.ts";
import { type Child, type PooledCall, principalOf, type Tool } from "./child.ts";
import type { Stopwatch } from "./exchange.ts";
import { OUTSIDE, type ServerRequest } from "./questions.ts";

export interface AttributionOptions {
  readonly name: string;
  /** The server was told that its clients can be asked something; otherwise any calls may share a process. */
  readonly askable: boolean;
  /** How long a call may be silent. */
  readonly silenceMs: number;
  readonly logger: Logger;
  readonly now: Stopwatch;
  children(): readonly Child[];
  /** Of the calls that wait, those that are next. */
  heads(): Iterable<PooledCall>;
  toolOf(call: PooledCall): Tool;
  /** How many more processes there may be. */
  room(): number;
  /** A process can take what it could not before. */
  freed(): void;
}

export interface Attribution {
  /** Whether calls of a tool need a process to themselves. */
  mayAsk(tool: Tool): boolean;
  /** Whether a process can take a call of this caller without doubt about whose question is whose. */
  belongs(child: Child, tool: Tool, principal: string): boolean;
  /** Before a call is sent to a process: one that may ask takes it for its caller alone. */
  lend(child: Child, call: PooledCall, tool: Tool): void;
  /** A call has ended. */
  over(child: Child, call: PooledCall, answered: boolean): void;
  /** A process asks: the question is put to whom it must be for, refused when it is for nobody, held while that cannot be told. */
  asked(child: Child, question: ServerRequest): void;
  /** A process does not want the answer to a question that is held. */
  withdrawn(child: Child, id: RequestId): void;
  /** Whether a process could take any call that waits as soon as it has done something else. */
  shared(child: Child): boolean;
  /** Whether those who wait have waited long enough for a process that others have to themselves. */
  urgent(): boolean;
  /** Who waits. */
  subjects(): ReadonlySet<string>;
  /**
   * More processes are wanted than there may be. Returns one that does nothing and can serve few; when there is none, keeps one
   * back for those who need it to themselves.
   */
  makeRoom(): Child | undefined;
  /**
   * Ends the dialogue whose client has been silent for longest, when a process is wanted that it holds: most of those never come
   * back. `elsewhere`: who waits with other capabilities, and finds no room for a process; default: whoever waits here.
   */
  endForgotten(elsewhere?: ReadonlySet<string>): void;
}

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

export function attribution(options: AttributionOptions): Attribution {
  const { name, askable, silenceMs, logger, now, children, heads, toolOf, room, freed } = options;

  const mayAsk = (tool: Tool) => askable && (tool.asks || tool.quiet < QUIET_CALLS);

  /** Nobody has all processes to themselves, however many clients they call through. */
  const mostLeases = () => Math.max(1, (children().length + room()) >> 1);

  function leasesOf(principal: string): number {
    const subject = subjectOf(principal);
    return children().filter(({ lease }) => lease !== undefined && subjectOf(lease) === subject).length;
  }

  /** Puts a question to whom it must be for, or refuses it when it is for nobody; false when that cannot be told now. */
  function tryToAsk(child: Child, question: ServerRequest): boolean {
    const task = taskOf(question.params);
    if (task !== undefined) {
      const waits = [...child.flights.values()].find(({ permitted }) => isAbout(permitted, task));
      if (waits === undefined) child.refuse(question, OUTSIDE);
      else child.ask(waits, question);
      return true;
    }
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
        freed();
      },
      Math.min(MAX_HELD_MS, silenceMs / 2),
    );
    child.held.push({ question, timer });
  }

  function subjects(): ReadonlySet<string> {
    return new Set([...heads()].map(({ permitted }) => permitted.by.subject));
  }

  return {
    mayAsk,
    belongs(child, tool, principal) {
      if (!askable) return true;
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
    },
    lend(child, call, tool) {
      if (!mayAsk(tool)) return;
      call.exclusive = true;
      child.lease = principalOf(call.permitted);
      child.leases++;
      child.reserved = false;
    },
    over(child, call, answered) {
      if (!askable) return;
      if (call.exclusive && --child.leases === 0) child.lease = undefined;
      if (answered && call.questions === 0 && call.tool !== undefined) call.tool.quiet++;
      if (child.held.length === 0 || child.phase === "ended") return;
      child.held = child.held.filter(({ question, timer }) => {
        if (!tryToAsk(child, question)) return true;
        clearTimeout(timer);
        return false;
      });
    },
    asked(child, question) {
      if (question.method === "roots/list" && !child.settled) {
        child.refuse(question, OUTSIDE);
        child.startedUp();
      } else if (!tryToAsk(child, question)) {
        hold(child, question);
      }
    },
    withdrawn(child, id) {
      const withdrawn = child.held.find(({ question }) => question.id === id);
      if (withdrawn === undefined) return;
      clearTimeout(withdrawn.timer);
      child.held = child.held.filter((other) => other !== withdrawn);
      freed();
    },
    shared(child) {
      if (!askable) return true;
      if (child.held.length > 0 || child.leaving) return false;
      const owner = child.lease ?? child.owner;
      for (const call of heads()) {
        const principal = principalOf(call.permitted);
        if (owner !== undefined && principal !== owner) return false;
        if (!mayAsk(toolOf(call))) continue;
        if (inDialogue(child) && leasesOf(principal) < mostLeases()) return false;
        if (child.flights.size > 0 ? owner === undefined : child.hauntedFor(principal)) return false;
      }
      return true;
    },
    urgent() {
      const time = now();
      for (const { startedAt } of heads()) if (time - startedAt >= SHARE_MS) return true;
      return false;
    },
    subjects,
    makeRoom() {
      if (!askable) return undefined;
      const kept = children().find(
        (child) =>
          (child.owner !== undefined || child.hauntedFor("")) && child.flights.size === 0 && child.phase === "ready",
      );
      if (kept !== undefined) return kept;
      // Whoever needs a process to themselves gets one when it has done what it does for others.
      let best: Child | undefined;
      for (const child of children()) {
        if (child.reserved) return undefined;
        if (child.phase !== "ready" || !child.settled || !canLend(child)) continue;
        if (best === undefined || child.flights.size < best.flights.size) best = child;
      }
      const wants = [...heads()].some((call) => mayAsk(toolOf(call)));
      if (best !== undefined && wants) best.reserved = true;
      return undefined;
    },
    endForgotten(elsewhere) {
      if (!askable) return;
      const waiting = elsewhere ?? subjects();
      const ownPatienceMs = elsewhere === undefined ? YIELDS_TO_OWN_MS : YIELDS_TO_OWN_ELSEWHERE_MS;
      // Where there is a process for others, or about to be, only who has too many dialogues of their own is in their own way.
      const nowhere = elsewhere !== undefined || (room() <= 0 && children().every(({ lease }) => lease !== undefined));
      const time = now();
      let forgotten: PooledCall | undefined;
      for (const child of children()) {
        for (const call of child.flights.values()) {
          if (call.asking === 0) continue;
          const own = waiting.has(call.permitted.by.subject);
          const patience = own ? ownPatienceMs : nowhere ? YIELDS_TO_OTHERS_MS : Number.POSITIVE_INFINITY;
          if (time - call.askingSince < patience) continue;
          if (forgotten === undefined || call.askingSince < forgotten.askingSince) forgotten = call;
        }
      }
      const message = `The server "${name}" is needed for other calls, and its question was not answered. Call again.`;
      const busy = new DrawbridgeError("overloaded", message, { retryAfterSeconds: 1 });
      forgotten?.fail(busy, "the question was not answered");
    },
  };
}

function inDialogue(child: Child): boolean {
  for (const call of child.flights.values()) if (call.asking > 0) return true;
  return false;
}

function canLend(child: Child): boolean {
  return child.lease === undefined && child.owner === undefined && child.held.length === 0 && !child.hauntedFor("");
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

/** Whether a call waits for the result of that task, to which the server's questions of the task go (2025-11-25, Tasks, Input Required Status). */
function isAbout({ call }: PermittedCall, task: string): boolean {
  return call.method === "tasks/result" && call.forward.get("taskId") === JSON.stringify(task);
}
