/** One child process as an MCP peer: the only owner of its JSON-RPC ids. Knows the protocol; when to send what is the pool's business. */
import { LEGACY_REVISIONS, MODERN_REVISION, type Outcome } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { oneLine } from "../core/one-line.ts";
import { readUpstreamMessage, type UpstreamMessage } from "../mcp/json-text.ts";
import type { Logger } from "../observe/logger.ts";
import { type Abandoned, Exchange, type Stopwatch } from "./exchange.ts";
import type { Ticket } from "./fair-queue.ts";
import { Flights } from "./flights.ts";
import { lineReader } from "./lines.ts";
import * as messages from "./messages.ts";
import { type ProcessOptions, type ServerProcess, startProcess } from "./process.ts";
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
}

/** A call in the pool: waiting (with a ticket) or in flight (with a child). */
export class PooledCall extends Exchange {
  tool: Tool | undefined;
  ticket: Ticket<PooledCall> | undefined;
  child: Child | undefined;
  id = 0;
  sentAt = 0;
}

export interface ChildSettings {
  readonly name: string;
  readonly version: string;
  readonly process: ProcessOptions;
  readonly maxAnswerBytes: number;
  readonly startTimeoutMs: number;
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
  /** stdin takes more again. */
  writable(): void;
  /** The process is gone; `handshaken`: it had been ready before. */
  ended(child: Child, reason: string, handshaken: boolean, startable: boolean): void;
  stderr(line: string): void;
}

export interface ChildCounters {
  garbage: number;
  strays: number;
}

const MAX_GARBAGE_LOGGED = 5;
const RELISTEN_MS = 1000;

export class Child {
  readonly flights = new Flights<PooledCall>();
  /** Calls in flight of each tool. */
  readonly counts = new Map<Tool, number>();
  readonly counters: ChildCounters = { garbage: 0, strays: 0 };
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
  lastStderr: string | undefined;

  readonly #settings: ChildSettings;
  readonly #owner: ChildOwner;
  readonly #logger: Logger;
  readonly #events: UpstreamEvents;
  readonly #now: Stopwatch;
  readonly #process: ServerProcess;
  readonly #requests = new Map<number, (outcome: Outcome | DrawbridgeError) => void>();
  readonly #subscribed: ReadonlySet<string>;
  #nextId = 1;
  #envelope = "";
  #listenId = 0;
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
    const read = lineReader(
      settings.maxAnswerBytes,
      (line) => this.#onLine(line),
      () => this.#onTooLong(),
    );
    this.#process = startProcess(settings.process, logger, {
      output: read,
      errorLine: (line) => {
        this.lastStderr = line;
        owner.stderr(line);
      },
      drained: () => owner.writable(),
      exited: (reason, startable) => this.#onEnd(reason, startable),
    });
    this.#handshake().then(
      (identity) => {
        if (this.phase !== "starting") return;
        this.identity = identity;
        this.phase = "ready";
        if (identity.revision === MODERN_REVISION) this.listen();
        else for (const uri of this.#subscribed) this.#resubscribe(uri);
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

  send(call: PooledCall, tool: Tool): void {
    const id = this.#nextId++;
    call.child = this;
    call.tool = tool;
    call.ticket = undefined;
    call.id = id;
    call.sentAt = this.#now();
    call.heardAt = call.sentAt;
    this.flights.add(call);
    this.counts.set(tool, (this.counts.get(tool) ?? 0) + 1);
    if (tool.blocking) {
      this.suspectId = id;
      this.suspectSince = call.sentAt;
    }
    this.#write(messages.callText(call.permitted.call, id, this.#envelope));
  }

  /** Takes a settled call out of the books; an abandoned one is cancelled in the server. */
  release(call: PooledCall, abandoned: Abandoned): void {
    if (!this.flights.delete(call.id)) return;
    const { tool } = call;
    if (tool !== undefined) this.counts.set(tool, (this.counts.get(tool) ?? 1) - 1);
    this.idleSince = this.#now();
    if (abandoned !== undefined) this.#write(messages.cancelledText(call.id, abandoned));
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
    return this.#process.end();
  }

  async #handshake(): Promise<UpstreamIdentity> {
    const { name, version, startTimeoutMs, modern } = this.#settings;
    const envelope = messages.envelopeMembers(version);
    let refusal: Outcome | undefined;
    if (!modern) {
      const hello = await this.request("initialize", messages.initializeParams(version), startTimeoutMs, "");
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
    if (this.phase === "ended") return;
    this.heard = true;
    const message = readUpstreamMessage(line);
    if (message === undefined) {
      if (this.counters.garbage++ < MAX_GARBAGE_LOGGED) {
        this.#logger.debug(
          { pid: this.pid, line: line.slice(0, 200) },
          "the server wrote something that is no message to its stdout",
        );
      }
    } else if (message.kind === "result" || message.kind === "error") {
      this.#onResponse(message);
      return;
    } else if (message.kind === "request") {
      this.#write(messages.replyTo(message));
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
      call.answer(messages.outcomeOf(message));
    } else if (settle !== undefined) {
      this.#requests.delete(id);
      settle(messages.outcomeOf(message));
    } else if (id !== 0 && id === this.#listenId) {
      this.#listenId = 0;
      this.#relisten = setTimeout(() => this.listen(), RELISTEN_MS).unref();
    } else if (!pong) {
      this.counters.strays++;
    }
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
      // With several calls in flight nobody can tell whose message this is, and one caller must not read another's.
      const [only] = this.flights.size === 1 ? this.flights.values() : [];
      if (only !== undefined && messages.wantsMessage(only.permitted.call, message)) {
        only.notify({ method: message.method, params: JSON.stringify(message.params) });
      } else {
        this.#logger.debug({ pid: this.pid, params: message.params }, "message of the server");
      }
    } else if (!messages.reportChange(message, this.#events)) {
      this.#logger.debug({ pid: this.pid, method: message.method }, "notification of the server");
    }
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
    for (const settle of [...this.#requests.values()]) settle(failure());
    this.#requests.clear();
    // Not tried again elsewhere: the calls may have had their effect already.
    for (const call of [...this.flights.values()]) call.fail(failure());
    this.#owner.ended(this, reason, handshaken, startable);
  }
}
