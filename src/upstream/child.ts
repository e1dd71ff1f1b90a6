/** One child process as an MCP peer: the only owner of its JSON-RPC ids. Knows the protocol; when to send what is the pool's business. */
import {
  type JsonObject,
  LEGACY_REVISIONS,
  MODERN_REVISION,
  type Outcome,
  type PermittedCall,
  type RequestId,
} from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newToken } from "../core/ids.ts";
import { oneLine } from "../core/one-line.ts";
import { brokenAnswerId, isObject, messageTexts, readUpstreamMessage, type UpstreamMessage } from "../mcp/json-text.ts";
import { hadResult, MAX_TASK_MS, readCreated } from "../mcp/tasks.ts";
import type { Logger } from "../observe/logger.ts";
import { Allowance } from "./allowance.ts";
import type { Flavour } from "./capabilities.ts";
import { type Abandoned, Exchange, type Stopwatch } from "./exchange.ts";
import type { Ticket } from "./fair-queue.ts";
import { Flights } from "./flights.ts";
import { lineReader } from "./lines.ts";
import { LogLevel } from "./log-level.ts";
import * as messages from "./messages.ts";
import type { ProcessEvents, ServerProcess } from "./process.ts";
import { ownReply, refusalText, type ServerRequest } from "./questions.ts";
import type { UpstreamEvents, UpstreamIdentity } from "./upstream.ts";

/** What has been learned of one tool of a server (or of one method, for what is not a tool). */
export interface Tool {
  readonly name: string;
  /** How many calls of it one child gets at a time. */
  limit: number;
  /** It has been seen to stop its whole process while it runs. */
  blocking: boolean;
  /** Calls since then during which the process kept answering. */
  calm: number;
  /** When `limit` last grew. */
  grownAt: number;
  /** It has been seen to ask its client something. */
  asks: boolean;
  /** Calls of it that ended without a question; what has none may ask, and nobody could tell in whose name. */
  quiet: number;
}

/** A call in the pool: waiting (with a ticket) or in flight (with a child). */
export class PooledCall extends Exchange {
  tool: Tool | undefined;
  ticket: Ticket<PooledCall> | undefined;
  child: Child | undefined;
  id = 0;
  sentAt = 0;
  /** It may ask, so its process serves nobody else meanwhile. */
  exclusive = false;
}

export interface ChildSettings {
  readonly name: string;
  readonly version: string;
  /** Starts the process, or what is like one. */
  start(events: ProcessEvents): ServerProcess;
  /** What it is told of the clients. */
  readonly flavour: Flavour;
  readonly maxAnswerBytes: number;
  readonly startTimeoutMs: number;
  /** How long a server may go on with a call that it was told is cancelled. */
  readonly ghostMs: number;
  /** Longest wait for an answer to a request of our own. */
  readonly requestTimeoutMs: number;
  /** The revision that an earlier child of this server spoke: saves the wrong handshake. */
  readonly modern: boolean;
}

/** What the pool wants to hear. Calls come synchronously, in the order of the child's output. */
export interface ChildOwner {
  ready(child: Child): void;
  /** Output came while a pulse was missed or waited for; `answered` is the call that it answers, `pong` whether it answers the ping. */
  pulse(child: Child, answered: PooledCall | undefined, pong: boolean): void;
  /** A call is no longer in flight. */
  finished(child: Child, call: PooledCall, answered: boolean): void;
  /** It asks something of a client, and was told that clients can answer. */
  asked(child: Child, question: ServerRequest): void;
  /** The server withdraws a question that waits to be told whose it is. */
  withdrawn(child: Child, id: RequestId): void;
  /** stdin takes more again. */
  writable(): void;
  /** It is not fit for use, and should be replaced once it has done what it does. */
  unfit(child: Child, reason: string): void;
  /** The process is gone; `handshaken`: it had been ready before. */
  ended(child: Child, reason: string, handshaken: boolean, startable: boolean): void;
  stderr(line: string): void;
}

/** A call that was given up, and in whose name the server may still speak. */
interface Ghost {
  readonly id: number;
  readonly principal: string;
  readonly until: number;
  /** It is no call but this task. */
  readonly task?: string;
}

export interface HeldQuestion {
  readonly question: ServerRequest;
  readonly timer: NodeJS.Timeout;
}

export interface ChildCounters {
  garbage: number;
  strays: number;
  /** Answers to what nobody asked, or to what was answered before. */
  lies: number;
}

const MAX_GARBAGE_LOGGED = 5;
/** A call that was given up counts as work for so many times what calls took lately, and so long at most. */
const LINGER_PART = 2;
const MAX_LINGER_MS = 1000;
/** What calls took is an average over so many. */
const REMEMBERED_CALLS = 8;
/** What a process may say that is for nobody: so many bytes at once, and so many a second. */
const MAX_TALK = 16 << 20;
const TALK_PER_SECOND = 256 << 10;
/** A line that is no message counts for so many bytes more: it takes that much longer to find out. */
const GARBAGE_COST = 512;
const MAY_BE_OBJECT = /^\s*\{/;
/** Answers that nobody asked for. */
const MAX_LIES = 1000;
const LIES_PER_SECOND = 1;
/** Questions of the server that the gateway answers itself. */
const MAX_ASKS = 1000;
const ASKS_PER_SECOND = 100;
const RELISTEN_MS = 1000;
const MAX_GHOSTS = 1000;
/**
 * Servers ask for roots of their own accord when they have started, some after a third of a second (server-everything). What comes
 * before the process has answered so long is not the question of a call.
 */
const SETTLING_MS = 450;
const MAX_SETTLING_MS = 1500;

export class Child {
  readonly flights = new Flights<PooledCall>();
  /** Calls in flight of each tool. */
  readonly counts = new Map<Tool, number>();
  readonly counters: ChildCounters = { garbage: 0, strays: 0, lies: 0 };
  readonly startedAt: number;
  phase: "starting" | "ready" | "ending" | "ended" = "starting";
  identity: UpstreamIdentity | undefined;
  /** No pulse: gets no new calls until something comes out of it. */
  blocked = false;
  /** Id of a call known to block; nothing else is sent until an answer to something later shows that it did not. 0: none. */
  suspectId = 0;
  suspectSince = 0;
  /** Id of the ping that has not been answered; 0: none. */
  pingId = 0;
  pingSentAt = 0;
  /** How long it has been silent while a ping waited and we were listening. */
  silentMs = 0;
  /** Something came out of it since the last look. */
  heard = false;
  /** When its last long silence ended. */
  silenceEndedAt = 0;
  idleSince: number;
  /** Something came out of it since it was last looked after, and when that was so. */
  spoke = false;
  spokeAt: number;
  /** How often in a row it was found that a ping had not been answered in time. */
  unanswered = 0;
  lastStderr: string | undefined;
  /** Whom alone it serves while calls of theirs that may ask are in flight, and how many those are. */
  lease: string | undefined;
  leases = 0;
  /** Whom alone it serves from now on: it was told their roots, and servers keep those. */
  owner: string | undefined;
  /** It gets no new calls but those that may ask, which wait until it has nothing else to do. */
  reserved = false;
  /** It gets no new calls, and is ended when it has none. */
  leaving = false;
  /** Why it is leaving, when it is not only to make room. */
  fault: string | undefined;
  /** Names it among all processes there ever were. */
  readonly key = newToken();
  /** Questions that nobody can tell whose they are while calls of several callers are in flight. */
  held: HeldQuestion[] = [];
  /** What it asks now is no longer about its start. */
  settled: boolean;

  readonly #settings: ChildSettings;
  readonly #owner: ChildOwner;
  readonly #logger: Logger;
  readonly #events: UpstreamEvents;
  readonly #now: Stopwatch;
  readonly #process: ServerProcess;
  /** Oldest first. */
  #ghosts: Ghost[] = [];
  /** Calls that were given up lately, which servers may go on with; oldest first. */
  #lingering: { readonly id: number; readonly until: number }[] = [];
  #takesMs = 0;
  readonly #talk = new Allowance(MAX_TALK, TALK_PER_SECOND);
  readonly #lies = new Allowance(MAX_LIES, LIES_PER_SECOND);
  readonly #asks = new Allowance(MAX_ASKS, ASKS_PER_SECOND);
  /** Until when it is kept for tasks, by its own names for them. */
  readonly #tasks = new Map<string, number>();
  readonly #requests = new Map<number, (outcome: Outcome | DrawbridgeError) => void>();
  readonly #subscribed: ReadonlySet<string>;
  #nextId = 1;
  #envelope = "";
  #listenId = 0;
  readonly #level = new LogLevel();
  #settling: NodeJS.Timeout | undefined;
  #answered = false;
  #startedUp = false;
  #relisten: NodeJS.Timeout | undefined;

  constructor(
    settings: ChildSettings,
    owner: ChildOwner,
    subscribed: ReadonlySet<string>,
    logger: Logger,
    events: UpstreamEvents,
    now: Stopwatch,
  ) {
    this.#settings = settings;
    this.#owner = owner;
    this.#subscribed = subscribed;
    this.#logger = logger;
    this.#events = events;
    this.#now = now;
    this.startedAt = now();
    this.idleSince = this.startedAt;
    this.spokeAt = this.startedAt;
    this.settled = !settings.flavour.askable;
    const read = lineReader(
      settings.maxAnswerBytes,
      (line) => this.#onLine(line),
      () => this.#onTooLong(),
    );
    this.#process = settings.start({
      output: read,
      errorLine: (line) => {
        this.lastStderr = line;
        owner.stderr(line);
      },
      drained: () => owner.writable(),
      unsent: (text, error) => this.#onUnsent(text, error),
      exited: (reason, startable, failure) => this.#onEnd(reason, startable, failure && (() => failure)),
    });
    this.#handshake().then(
      (identity) => {
        if (this.phase !== "starting") return;
        this.identity = identity;
        this.phase = "ready";
        if (identity.revision === MODERN_REVISION) this.listen();
        else for (const uri of this.#subscribed) this.#resubscribe(uri);
        if (!this.settled) this.#settle();
        owner.ready(this);
      },
      (error: unknown) => {
        const failure = DrawbridgeError.from(error, "upstream_failed");
        this.#onEnd(`could not be initialized: ${failure.detail ?? failure.message}`, true);
        void this.#process.end();
      },
    );
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }
  /** It does not read what was written. */
  get full(): boolean {
    return this.#process.full;
  }
  get modern(): boolean {
    return this.identity?.revision === MODERN_REVISION;
  }

  /**
   * What it has to do: the calls in flight, and for a while those that were given up. A server that does not heed the cancellation
   * would otherwise be given more and more for which nobody waits, until it does nothing else.
   */
  get load(): number {
    if (this.#lingering.length > 0) {
      const time = this.#now();
      this.#lingering = this.#lingering.filter(({ until }) => until > time);
    }
    return this.flights.size + this.#lingering.length;
  }

  send(call: PooledCall, tool: Tool): void {
    const id = this.#nextId++;
    call.child = this;
    call.tool = tool;
    call.ticket = undefined;
    call.id = id;
    call.sentAt = this.#now();
    call.heardAt = call.sentAt;
    call.servedBy(this.key);
    this.flights.add(call);
    this.counts.set(tool, (this.counts.get(tool) ?? 0) + 1);
    if (tool.blocking) {
      this.suspectId = id;
      this.suspectSince = call.sentAt;
    }
    if (this.#envelope === "" && call.permitted.call.logLevel !== undefined) this.#raise(call.permitted.call.logLevel);
    this.#write(messages.callText(call.permitted.call, id, this.#envelope));
  }

  /** Whether what it says now could be about a call that somebody else has given up. */
  hauntedFor(principal: string): boolean {
    if (this.#ghosts.length === 0) return false;
    const time = this.#now();
    // Nobody is forgotten before their time: more than can be remembered are everybody's.
    if (this.#ghosts.length > MAX_GHOSTS) return true;
    this.#ghosts = this.#ghosts.filter(({ until }) => until > time);
    return this.#ghosts.some((ghost) => ghost.principal !== principal);
  }

  /** Puts a question of the server to the client of a call. */
  ask(call: PooledCall, question: ServerRequest): void {
    call.ask(
      question,
      (text) => this.#write(text),
      () => this.phase !== "ended" && this.#owner.asked(this, question),
    );
  }

  /** Tells the server that nobody answers its question. */
  refuse(question: ServerRequest, reason: string): void {
    this.#write(refusalText(question.id, reason));
  }

  /** Takes a settled call out of the books; an abandoned one is cancelled in the server. */
  release(call: PooledCall, abandoned: Abandoned): void {
    if (!this.flights.delete(call.id)) return;
    const { tool } = call;
    if (tool !== undefined) this.counts.set(tool, (this.counts.get(tool) ?? 1) - 1);
    this.idleSince = this.#now();
    if (abandoned !== undefined) {
      this.#write(messages.cancelledText(call.id, abandoned));
      const lingerMs = Math.min(MAX_LINGER_MS, LINGER_PART * this.#takesMs);
      this.#lingering.push({ id: call.id, until: this.idleSince + lingerMs });
      const until = this.idleSince + this.#settings.ghostMs;
      this.#ghosts.push({ id: call.id, principal: principalOf(call.permitted), until });
    }
    this.#owner.finished(this, call, abandoned === undefined);
  }

  ping(): void {
    this.pingId = this.#nextId++;
    this.pingSentAt = this.#now();
    this.silentMs = 0;
    this.#write(messages.requestText(this.pingId, "ping", "{}", this.#envelope));
  }

  /** A request of our own. Rejects with `upstream_failed` when the process dies, `upstream_timeout` when it stays silent. */
  request(
    method: string,
    params: string,
    timeoutMs = this.#settings.requestTimeoutMs,
    envelope = this.#envelope,
  ): Promise<Outcome> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#requests.delete(id);
        this.#write(messages.cancelledText(id, "no answer in time"));
        const detail = `no answer to ${method} within ${timeoutMs} ms`;
        reject(
          new DrawbridgeError("upstream_timeout", `The server "${this.#settings.name}" did not answer in time.`, {
            detail,
          }),
        );
      }, timeoutMs);
      this.#requests.set(id, (outcome) => {
        clearTimeout(timer);
        if (outcome instanceof DrawbridgeError) reject(outcome);
        else resolve(outcome);
      });
      this.#write(messages.requestText(id, method, params, envelope));
    });
  }

  /** What a request for clients of these capabilities carries; as every other request does at a server with a handshake. */
  envelopeFor(capabilities: JsonObject): string {
    return messages.envelopeFor(this.#envelope, capabilities);
  }

  /** 2026-07-28: opens the stream of changes, or replaces it after `subscribed` has changed. */
  listen(): void {
    clearTimeout(this.#relisten);
    if (this.phase !== "ready" || this.identity === undefined) return;
    const params = messages.listenParams(this.identity, this.#subscribed);
    const before = this.#listenId;
    this.#listenId = params === undefined ? 0 : this.#nextId++;
    if (params !== undefined)
      this.#write(messages.requestText(this.#listenId, "subscriptions/listen", params, this.#envelope));
    if (before !== 0) this.#write(messages.cancelledText(before, "replaced"));
  }

  /** Ends the process in an orderly way; calls in flight should have ended before. */
  end(): Promise<void> {
    if (this.phase !== "ended") this.phase = "ending";
    clearTimeout(this.#relisten);
    clearTimeout(this.#settling);
    return this.#process.end();
  }

  /** Ends a process that is of no use any more, as if it had ended itself for this reason; `quietly`: in an orderly way. */
  discard(reason: string, quietly: boolean): void {
    this.#onEnd(reason, true);
    if (!quietly) void this.#process.kill();
  }

  async #handshake(): Promise<UpstreamIdentity> {
    const { name, version, startTimeoutMs, modern, flavour } = this.#settings;
    const envelope = messages.envelopeMembers(version);
    let refusal: Outcome | undefined;
    if (!modern) {
      const hello = await this.request(
        "initialize",
        messages.initializeParams(version, flavour.text),
        startTimeoutMs,
        "",
      );
      const known =
        hello.kind === "result" && LEGACY_REVISIONS.some((revision) => revision === hello.value["protocolVersion"]);
      if (hello.kind === "result" && known) {
        this.#write(messages.INITIALIZED);
        return messages.legacyIdentity(name, hello.value);
      }
      refusal = hello;
    }
    // Servers of 2026-07-28 alone refuse `initialize`, each with an error of its own choice.
    const discovered = await this.request("server/discover", "{}", startTimeoutMs, envelope);
    if (discovered.kind === "result") {
      this.#envelope = envelope;
      return messages.modernIdentity(name, discovered.value);
    }
    if (refusal?.kind === "result") return messages.legacyIdentity(name, refusal.value);
    const said = refusal ?? discovered;
    throw new DrawbridgeError("upstream_failed", `The server "${name}" refused the handshake.`, {
      detail: said.kind === "error" ? `it answered ${said.code}: ${said.message}` : "it answered nothing of use",
    });
  }

  #write(message: string): void {
    this.#process.write(`${oneLine(message)}\n`);
  }

  #onLine(line: string): void {
    for (const one of messageTexts(line, this.identity?.revision)) this.#onMessage(one);
  }

  #onMessage(line: string): void {
    if (this.phase === "ended") return;
    this.heard = true;
    this.spoke = true;
    const message = MAY_BE_OBJECT.test(line) ? readUpstreamMessage(line) : undefined;
    // Its calls pay for what it says while it works. Nobody does for the rest, nor ever for what is no message.
    const working = this.flights.size > 0 || (this.#requests.size > 0 && this.phase !== "starting");
    const cost = message === undefined ? line.length + GARBAGE_COST : working ? 0 : line.length;
    if (cost > 0 && this.fault === undefined && !this.#talk.spend(cost, this.#now())) {
      this.#owner.unfit(this, "talked without end, and to nobody");
      return;
    }
    if (message === undefined) {
      if (this.counters.garbage++ < MAX_GARBAGE_LOGGED) {
        this.#logger.debug(
          { pid: this.pid, line: line.slice(0, 200) },
          "the server wrote something that is no message to its stdout",
        );
      }
      this.#onBrokenAnswer(line);
    } else if (message.kind === "result" || message.kind === "error") {
      this.#onResponse(message);
      return;
    } else if (message.kind === "request") {
      this.#onQuestion(message);
    } else {
      this.#onNotification(message);
    }
    this.#onPulse(undefined, false);
  }

  #onResponse(message: Extract<UpstreamMessage, { kind: "result" | "error" }>): void {
    const id = typeof message.id === "number" ? message.id : 0;
    const call = this.flights.get(id);
    const settle = this.#requests.get(id);
    const pong = id !== 0 && id === this.pingId;
    if (id >= this.suspectId) this.suspectId = 0;
    this.#onPulse(call, pong);
    if (call !== undefined) {
      this.#takesMs += (this.#now() - call.sentAt - this.#takesMs) / REMEMBERED_CALLS;
      const outcome = messages.outcomeOf(message);
      this.#noteTask(call, outcome);
      call.answer(outcome);
    } else if (settle !== undefined) {
      this.#requests.delete(id);
      settle(messages.outcomeOf(message));
    } else if (id !== 0 && id === this.#listenId) {
      this.#listenId = 0;
      this.#relisten = setTimeout(() => this.listen(), RELISTEN_MS).unref();
    } else if (!pong) {
      this.#onStray(message.id, id);
    }
  }

  /** Nothing better will come for what was answered so: its caller need not wait. */
  #onBrokenAnswer(line: string): void {
    const id = this.flights.size + this.#requests.size === 0 ? undefined : brokenAnswerId(line);
    if (typeof id !== "number") return;
    const message = `The server "${this.#settings.name}" answered with what is no answer.`;
    const error = new DrawbridgeError("upstream_failed", message, { detail: "it has neither a result nor an error" });
    this.flights.get(id)?.fail(error);
    this.#requests.get(id)?.(error);
    this.#requests.delete(id);
  }

  /** An answer to none of our requests that are open. */
  #onStray(said: RequestId | undefined, id: number): void {
    this.counters.strays++;
    const ghosts = this.#ghosts.filter((ghost) => ghost.id !== id);
    const late = ghosts.length < this.#ghosts.length;
    this.#ghosts = ghosts;
    if (this.#lingering.length > 0) {
      this.#lingering = this.#lingering.filter((call) => call.id !== id);
      this.#owner.writable();
    }
    // Without an id it is about a message that the server could not read.
    if (late || said === undefined) return;
    this.counters.lies++;
    if (!this.#lies.spend(1, this.#now()) && this.fault === undefined)
      this.#owner.unfit(this, "answered what nobody had asked, again and again");
  }

  /** It is kept for a task that it made until the result was had; what it says meanwhile may be about the task. */
  #noteTask({ permitted }: PooledCall, outcome: Outcome): void {
    const { method, forward } = permitted.call;
    if (method === "tools/call") {
      const made = readCreated(outcome);
      if (made === undefined) return;
      const until = this.#now() + Math.min(made.ttlMs ?? MAX_TASK_MS, MAX_TASK_MS);
      this.#tasks.set(made.id, until);
      this.#ghosts.push({ id: 0, principal: principalOf(permitted), until, task: made.id });
    } else if (method.startsWith("tasks/") && hadResult(method, outcome)) {
      const id: unknown = JSON.parse(forward.get("taskId") ?? "null");
      if (typeof id !== "string" || !this.#tasks.delete(id)) return;
      this.#ghosts = this.#ghosts.filter(({ task }) => task !== id);
    }
  }

  /** Tasks that it works on, or whose results nobody has had. */
  get openTasks(): number {
    if (this.#tasks.size === 0) return 0;
    const time = this.#now();
    for (const [id, until] of this.#tasks) if (until <= time) this.#tasks.delete(id);
    return this.#tasks.size;
  }

  #onQuestion(request: ServerRequest): void {
    const reply = ownReply(request, this.#settings.flavour.capabilities);
    if (reply === undefined) this.#owner.asked(this, request);
    // Each answer has to be kept until the server reads it, which whoever asks without end may never do.
    else if (this.#asks.spend(1, this.#now())) this.#write(reply);
    else if (this.fault === undefined) this.#owner.unfit(this, "asked without end");
  }

  /** Anything that comes out is a sign of life; the pool hears of it while it has cause to ask. */
  #onPulse(call: PooledCall | undefined, pong: boolean): void {
    if (this.pingId === 0 && !this.blocked) return;
    if (pong) this.pingId = 0;
    this.#owner.pulse(this, call, pong);
    this.silentMs = 0;
  }

  #onNotification(message: Extract<UpstreamMessage, { kind: "notification" }>): void {
    if (message.method === "notifications/progress") {
      const token = message.params["progressToken"];
      const call = typeof token === "number" ? this.flights.get(token) : undefined;
      if (call === undefined || call.permitted.call.progressToken === undefined) {
        this.counters.strays++;
        return;
      }
      call.heardAt = this.#now();
      call.notify({ method: message.method, params: messages.progressParams(message, call.permitted.call) });
    } else if (message.method === "notifications/message") {
      const reader = this.#readerOf(message);
      if (reader !== undefined) {
        reader.notify({ method: message.method, params: messages.paramsText(message) });
      } else {
        this.#logger.debug({ pid: this.pid, params: message.params }, "message of the server");
      }
    } else if (message.method === "notifications/cancelled") {
      const { requestId, reason } = message.params;
      if (typeof requestId !== "string" && typeof requestId !== "number") return;
      for (const call of this.flights.values()) if (call.withdraw(requestId, reason)) return;
      this.#owner.withdrawn(this, requestId);
    } else if (!messages.reportChange(message, this.#events)) {
      this.#logger.debug({ pid: this.pid, method: message.method }, "notification of the server");
    }
  }

  /**
   * The call that a log message goes to: the first that wants it, while all in flight are one caller's. Of several callers' calls
   * nobody can tell whose message it is, and one must not read another's.
   */
  #readerOf(message: Extract<UpstreamMessage, { kind: "notification" }>): PooledCall | undefined {
    const [first] = this.flights.values();
    if (first === undefined) return undefined;
    const principal = principalOf(first.permitted);
    if (this.hauntedFor(principal)) return undefined;
    let reader: PooledCall | undefined;
    for (const call of this.flights.values()) {
      if (principalOf(call.permitted) !== principal) return undefined;
      if (messages.wantsMessage(call.permitted.call, message)) reader ??= call;
    }
    return reader;
  }

  /** It has asked for roots of its own accord, which it does once. */
  startedUp(): void {
    this.#startedUp = true;
    if (this.#answered) this.#settled();
  }

  /** What it said before it answered this ping it said before it heard of any call. */
  #settle(): void {
    this.#settling = setTimeout(() => this.#settled(), MAX_SETTLING_MS);
    this.request("ping", "{}").then(
      () => {
        this.#answered = true;
        if (this.#startedUp || !isObject(this.#settings.flavour.capabilities["roots"])) {
          this.#settled();
        } else if (!this.settled) {
          clearTimeout(this.#settling);
          this.#settling = setTimeout(() => this.#settled(), SETTLING_MS);
        }
      },
      () => {}, // It died; so did the timer.
    );
  }

  #settled(): void {
    if (this.settled || this.phase !== "ready") return;
    this.settled = true;
    clearTimeout(this.#settling);
    this.#owner.writable();
  }

  /** The server hears of it before the call, since both go down one pipe. */
  #raise(wanted: string): void {
    if (!isObject(this.identity?.capabilities["logging"])) return;
    const level = this.#level.raise(wanted, this.#now());
    if (level !== undefined) this.request("logging/setLevel", JSON.stringify({ level })).catch(() => {});
  }

  #resubscribe(uri: string): void {
    this.request("resources/subscribe", JSON.stringify({ uri })).then(
      (outcome) => {
        if (outcome.kind === "error")
          this.#logger.debug({ uri, error: outcome.message }, "a new process refused a subscription");
      },
      () => {}, // The process died; its successor subscribes anew.
    );
  }

  #onTooLong(): void {
    const { name, maxAnswerBytes } = this.#settings;
    const message = `The server "${name}" sent a message of more than ${maxAnswerBytes} bytes.`;
    // Nobody can tell whose answer it was without reading it, so every call in flight ends with it.
    this.#onEnd(
      `sent a message of more than ${maxAnswerBytes} bytes`,
      true,
      () => new DrawbridgeError("answer_too_large", message),
    );
    void this.#process.kill();
  }

  /** A message could not be sent; whatever else is under way goes on. */
  #onUnsent(text: string, error: DrawbridgeError): void {
    const { id } = JSON.parse(text) as { id?: unknown };
    if (typeof id !== "number") return;
    this.flights.get(id)?.fail(error);
    const settle = this.#requests.get(id);
    this.#requests.delete(id);
    settle?.(error);
  }

  #onEnd(
    reason: string,
    startable: boolean,
    failure = () =>
      new DrawbridgeError("upstream_failed", `The server "${this.#settings.name}" ended while it worked on the call.`, {
        detail: reason,
      }),
  ): void {
    if (this.phase === "ended") return;
    const handshaken = this.identity !== undefined;
    this.phase = "ended";
    clearTimeout(this.#relisten);
    clearTimeout(this.#settling);
    for (const { timer } of this.held) clearTimeout(timer);
    this.held = [];
    for (const settle of [...this.#requests.values()]) settle(failure());
    this.#requests.clear();
    // Not tried again elsewhere: the calls may have had their effect already.
    for (const call of [...this.flights.values()]) call.fail(failure());
    this.#owner.ended(this, reason, handshaken, startable);
  }
}

/** Who calls: a person, through a client. What one is asked and told is for no other. */
export function principalOf({ by }: PermittedCall): string {
  return `${by.subject}\n${by.client}`;
}
