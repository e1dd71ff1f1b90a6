/**
 * Event streams of legacy sessions that outlive their connection (MCP 2025-11-25, Transports, Resumability and Redelivery). What is
 * said on one is kept, within bounds, for a client that comes back with the id of the last event it saw; it gets what it missed on
 * that stream and then the rest. Who does not come back in time has gone.
 */
import type { ServerResponse } from "node:http";
import type { RequestId } from "../core/call.ts";
import { randomHex } from "../core/ids.ts";
import { SSE_KEEP_ALIVE, sseEvent } from "../mcp/answers.ts";
import type { Session } from "../mcp/sessions.ts";
import { KEEP_ALIVE_MS, startSse, writeSse } from "./sse.ts";

export interface Resumption {
  /** A stream of a session, on a response whose head was sent; `request` is the one it answers. Undefined when streams cannot be resumed. */
  begin(session: Session, response: ServerResponse, request?: RequestId): Channel | undefined;
  /** What the id of an event says about where to go on. */
  find(session: Session, lastEventId: string): Found;
  sessionEnded(session: Session): void;
  /** Nobody can come back from now on; who is connected stays so. */
  close(): void;
  /** Names this process in event ids. */
  readonly home: string;
  /** A session that has streams here. */
  sessionOf(id: string, owner: string): Session | undefined;
  /** Calls `listener` when the first client of a call leaves its stream, and when none is away any more. */
  onAway(listener: (away: boolean) => void): void;
}

export type Found =
  | { readonly kind: "here"; readonly channel: Channel; readonly after: number }
  /** That was the last event of its stream. */
  | { readonly kind: "over" }
  /** Another replica has it, if anyone; here it is lost. */
  | { readonly kind: "elsewhere"; readonly home: string; readonly lost: Lost | undefined }
  /** Too late, or what was kept became too much, or it is no id of ours. */
  | { readonly kind: "lost"; readonly lost: Lost | undefined };

/** The answer to this request does not come any more; `last` is an event id to say so with, after which a client asks no more. */
export interface Lost {
  readonly request: RequestId;
  readonly last: string;
}

/** One stream, over all the connections that it is sent on. */
export interface Channel {
  /** Answers a request; otherwise it is a stream of its session. */
  readonly answers: boolean;
  /** Somebody is connected. */
  readonly present: boolean;
  /** It was ended, or nobody came back in time. */
  readonly over: boolean;
  /** False when it is over. */
  send(message: string): boolean;
  /** Sends what there is to say at last, and ends the stream. */
  end(message?: string): void;
  /** Whether somebody is connected; a promise while somebody may come back. */
  returned(): boolean | Promise<boolean>;
  /** Called once when nobody came back in time; at once when that was before. */
  whenLapsed(callback: () => void): void;
  /** Sends what came after that event on this response, and from now on everything. */
  attach(sink: Sink, after: number): void;
}

/** Where the events of a channel go: a response, or another replica. */
export interface Sink {
  write(text: string): void;
  end(): void;
  /** Called once when nobody listens any more. */
  whenGone(callback: () => void): void;
}

export interface ResumeLimits {
  /** How long a client may stay away; 0: no stream can be resumed. */
  readonly resumeSeconds: number;
  readonly maxBytes?: number;
  readonly maxSessionBytes?: number;
}

/** When a client whose stream was ended shall come back (SEP-1699). */
const RETRY_MS = 1000;
/** What an event costs beside its text. */
const EVENT_BYTES = 300;

interface Event {
  readonly channel: OpenChannel;
  readonly number: number;
  readonly text: string;
}
interface Kept {
  readonly channels: Map<string, OpenChannel>;
  bytes: number;
}

const sizeOf = (event: Event) => event.text.length + EVENT_BYTES;

export function openResumption({
  resumeSeconds,
  maxBytes = 64 << 20,
  maxSessionBytes = 4 << 20,
}: ResumeLimits): Resumption {
  const home = randomHex(6);
  const sessions = new Map<Session, Kept>();
  /** What all sessions keep, oldest first. */
  const events = new Set<Event>();
  /** Channels that end when nobody comes, with the moment; soonest first, because each waits for equally long. */
  const lapsing = new Map<OpenChannel, number>();
  const present = new Set<Sink>();
  /** Calls whose clients have left. */
  const away = new Set<OpenChannel>();
  let tellAway = (_: boolean) => {};
  let bytes = 0;
  let last = 0;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;

  const keepAlive = setInterval(() => {
    for (const sink of present) sink.write(SSE_KEEP_ALIVE);
  }, KEEP_ALIVE_MS);
  keepAlive.unref();

  const lapse = () => {
    timer = undefined;
    const now = performance.now();
    for (const [channel, at] of lapsing) {
      if (at > now && !closed) {
        timer = setTimeout(lapse, at - now + 1).unref();
        return;
      }
      channel.lapse();
    }
  };
  const back = (channel: OpenChannel) => {
    if (away.delete(channel) && away.size === 0) tellAway(false);
  };
  const host: Host = {
    present,
    lapses(channel) {
      if (channel.answers && !channel.over && away.size === 0) tellAway(true);
      if (channel.answers && !channel.over) away.add(channel);
      else back(channel);
      lapsing.delete(channel);
      lapsing.set(channel, performance.now() + resumeSeconds * 1000);
      if (closed) channel.lapse();
      else timer ??= setTimeout(lapse, resumeSeconds * 1000).unref();
    },
    stays(channel) {
      lapsing.delete(channel);
      back(channel);
    },
    keep(event) {
      const kept = sessions.get(event.channel.session);
      if (kept === undefined || !kept.channels.has(event.channel.name)) return false;
      const size = sizeOf(event);
      events.add(event);
      kept.bytes += size;
      bytes += size;
      while (bytes > maxBytes) drop(events.values().next().value);
      for (const channel of kept.channels.values())
        while (kept.bytes > maxSessionBytes && channel.events.length > 0) drop(channel.events[0]);
      return true;
    },
    remove(channel) {
      lapsing.delete(channel);
      back(channel);
      while (channel.events.length > 0) drop(channel.events[0]);
      const kept = sessions.get(channel.session);
      kept?.channels.delete(channel.name);
      if (kept?.channels.size === 0) sessions.delete(channel.session);
    },
  };
  /** The oldest event of a channel. */
  const drop = (event: Event | undefined) => {
    if (event === undefined) return;
    const { channel } = event;
    channel.events.shift();
    events.delete(event);
    bytes -= sizeOf(event);
    const kept = sessions.get(channel.session);
    if (kept !== undefined) kept.bytes -= sizeOf(event);
  };

  return {
    home,
    sessionOf(id, owner) {
      for (const session of sessions.keys()) if (session.id === id && session.owner === owner) return session;
      return undefined;
    },
    onAway: (listener) => {
      tellAway = listener;
    },
    begin(session, response, request) {
      if (resumeSeconds === 0 || closed) return undefined;
      const name = (++last).toString(36);
      const channel = new OpenChannel(host, session, name, request, home);
      const kept = sessions.get(session) ?? { channels: new Map<string, OpenChannel>(), bytes: 0 };
      sessions.set(session, kept);
      kept.channels.set(name, channel);
      channel.begin(sinkOf(response));
      return channel;
    },
    find(session, lastEventId) {
      const read = readEventId(lastEventId);
      if (read === undefined) return { kind: "lost", lost: undefined };
      if (read.final) return { kind: "over" };
      const channel = read.home === home ? sessions.get(session)?.channels.get(read.name) : undefined;
      if (channel?.canResume(read.number) && channel.request === read.request)
        return { kind: "here", channel, after: read.number };
      const { request } = read;
      const lost =
        request === undefined ? undefined : { request, last: eventId(read.home, read.name, 0, request, true) };
      return read.home === home ? { kind: "lost", lost } : { kind: "elsewhere", home: read.home, lost };
    },
    sessionEnded(session) {
      // Whoever is connected hears from the calls themselves that they were cancelled.
      for (const channel of sessions.get(session)?.channels.values() ?? []) if (!channel.present) channel.lapse();
    },
    close() {
      closed = true;
      clearTimeout(timer);
      clearInterval(keepAlive);
      lapse();
    },
  };
}

/** One event with its id. */
export function eventText(id: string, message: string): string {
  return `id: ${id}\n${sseEvent(message)}`;
}

export function sinkOf(response: ServerResponse): Sink {
  return {
    write: (text) => writeSse(response, text),
    end: () => void response.end(),
    whenGone(callback) {
      if (response.destroyed) callback();
      else response.once("close", callback);
    },
  };
}

/** Sends the head of a stream, for one that goes on. */
export function resumeOn(response: ServerResponse): Sink {
  startSse(response);
  return sinkOf(response);
}

interface Host {
  readonly present: Set<Sink>;
  lapses(channel: OpenChannel): void;
  stays(channel: OpenChannel): void;
  keep(event: Event): boolean;
  remove(channel: OpenChannel): void;
}

class OpenChannel implements Channel {
  readonly session: Session;
  readonly name: string;
  readonly request: RequestId | undefined;
  /** What is kept of it, oldest first. */
  readonly events: Event[] = [];
  readonly #host: Host;
  readonly #home: string;
  #sink: Sink | undefined;
  #sent = 0;
  #ended = false;
  #lapsed = false;
  #onLapse: (() => void) | undefined;
  #onReturn: ((returned: boolean) => void)[] | undefined;

  constructor(host: Host, session: Session, name: string, request: RequestId | undefined, home: string) {
    this.#host = host;
    this.session = session;
    this.name = name;
    this.request = request;
    this.#home = home;
  }

  get answers(): boolean {
    return this.request !== undefined;
  }
  get present(): boolean {
    return this.#sink !== undefined;
  }
  get over(): boolean {
    return this.#ended || this.#lapsed;
  }
  /** Whether what came after that event is known, as far as it matters: messages may be forgotten, but not the last one. */
  canResume(after: number): boolean {
    return after <= this.#sent && (!this.#ended || after === this.#sent || this.events.at(-1)?.number === this.#sent);
  }

  begin(sink: Sink): void {
    this.#listen(sink);
    // 2025-11-25: an event without data, so that there is an id to come back with from the beginning. Older clients would read it as JSON.
    if (this.#primed) sink.write(`id: ${this.#id(0)}\nretry: ${RETRY_MS}\ndata:\n\n`);
  }

  send(message: string): boolean {
    if (this.over) return false;
    this.#say(message, false);
    return true;
  }

  end(message?: string): void {
    if (this.over) return;
    if (message !== undefined) this.#say(message, true);
    this.#ended = true;
    const sink = this.#sink;
    this.#sink = undefined;
    if (sink !== undefined) this.#host.present.delete(sink);
    sink?.end();
    if (this.answers) this.#host.lapses(this);
    else this.#host.remove(this);
  }

  returned(): boolean | Promise<boolean> {
    if (this.#sink !== undefined || this.over) return !this.#lapsed;
    return new Promise((resolve) => {
      this.#onReturn ??= [];
      this.#onReturn.push(resolve);
    });
  }

  whenLapsed(callback: () => void): void {
    if (this.#lapsed) callback();
    else this.#onLapse = callback;
  }

  attach(sink: Sink, after: number): void {
    const before = this.#sink;
    this.#sink = undefined;
    if (before !== undefined) this.#host.present.delete(before);
    // A client that comes back has left the other connection, even when that does not show yet.
    before?.end();
    for (const { number, text } of this.events) if (number > after) sink.write(text);
    if (this.over) {
      sink.end();
      return;
    }
    this.#host.stays(this);
    this.#listen(sink);
    for (const resolve of this.#onReturn?.splice(0) ?? []) resolve(true);
  }

  /** Nobody came back in time. */
  lapse(): void {
    this.#host.remove(this);
    if (this.over) return;
    this.#lapsed = true;
    for (const resolve of this.#onReturn?.splice(0) ?? []) resolve(false);
    this.#onLapse?.();
  }

  get #primed(): boolean {
    return this.session.revision === "2025-11-25";
  }

  #say(message: string, final: boolean): void {
    const number = ++this.#sent;
    const text = eventText(this.#id(number, final), message);
    const event: Event = { channel: this, number, text };
    this.events.push(event);
    if (!this.#host.keep(event)) this.events.pop();
    this.#sink?.write(text);
  }

  #listen(sink: Sink): void {
    this.#sink = sink;
    this.#host.present.add(sink);
    sink.whenGone(() => {
      this.#host.present.delete(sink);
      if (this.#sink !== sink) return;
      this.#sink = undefined;
      // Without an id there is no way back.
      if (this.#primed || this.#sent > 0) this.#host.lapses(this);
      else this.lapse();
    });
  }

  #id(number: number, final = false): string {
    return eventId(this.#home, this.name, number, this.request, final);
  }
}

/** Unique in its session, whichever replica it comes from; says which stream, which event, and which request it belongs to. */
function eventId(home: string, name: string, number: number, request: RequestId | undefined, final: boolean): string {
  const asked = request === undefined ? "" : `-${Buffer.from(JSON.stringify(request)).toString("base64url")}`;
  return `${home}-${name}-${number}${final ? "e" : ""}${asked}`;
}

const EVENT_ID = /^([0-9a-f]{12})-([0-9a-z]{1,11})-(\d{1,15})(e?)(?:-([\w-]{1,8192}))?$/;

function readEventId(id: string) {
  const [, home, name, number, final, asked] = EVENT_ID.exec(id) ?? [];
  if (home === undefined || name === undefined) return undefined;
  const request = asked === undefined ? undefined : readRequestId(Buffer.from(asked, "base64url").toString("utf8"));
  if (asked !== undefined && request === undefined) return undefined;
  return { home, name, number: Number(number), final: final === "e", request };
}

function readRequestId(text: string): RequestId | undefined {
  try {
    const id: unknown = JSON.parse(text);
    return typeof id === "string" || typeof id === "number" ? id : undefined;
  } catch {
    return undefined;
  }
}
