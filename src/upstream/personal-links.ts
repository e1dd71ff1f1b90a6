/**
 * Links to a server that keeps sessions: one for each user, client and flavour, never shared, bounded, ended when it is idle. What
 * comes on a session's own stream is thus for its one caller.
 */
import type { Authenticated } from "../core/call.ts";
import { isObject } from "../mcp/json-text.ts";
import type { Flavour } from "./capabilities.ts";
import type { CredentialSource, UpstreamCredentials } from "./credentials.ts";
import type { Endpoint, Notification, Terms } from "./endpoint.ts";
import type { Exchange, Stopwatch } from "./exchange.ts";
import type { Link, LinkEvents } from "./link.ts";
import * as messages from "./messages.ts";
import { OUTSIDE, ownReply, refusalText, type ServerRequest } from "./questions.ts";

export interface PersonalLinks {
  /** The caller's link, made when there is none; it stays until each call has given it back. */
  take(by: Authenticated, flavour: Flavour): Personal;
  giveBack(personal: Personal, call: Exchange): void;
  /** Ends the links of a flavour; false when one of them is in use. */
  release(flavour: Flavour): boolean;
  readonly size: number;
  /** Ends every session. */
  close(): Promise<void>;
}

/** One user's link through one client. */
export interface Personal {
  readonly link: Link;
  readonly flavour: Flavour;
  /** The newest proof of who it is: tokens are refreshed while a link lives. */
  by: Authenticated;
  /** Calls that use it or are about to. */
  users: number;
  /** Those that were sent, oldest first. */
  readonly calls: Exchange[];
  usedAt: number;
  /** Resolves when the server can ask what it wants; undefined once it can, and where it may ask nothing. */
  hearing: Promise<void> | undefined;
  stopHearing(): void;
}

export interface PersonalLinksOptions {
  readonly endpoint: Endpoint;
  /** Undefined at a server that needs none. */
  readonly credentials: UpstreamCredentials | undefined;
  readonly sessions: { readonly max: number; readonly idleSeconds: number };
  open(source: CredentialSource, flavour: Flavour, events: LinkEvents): Link;
  /** Opens the session's own stream. */
  listen(terms: Terms, source: CredentialSource, hear: Hearing): () => void;
  readonly now: Stopwatch;
}

/** What is heard on a session's own stream. */
export interface Hearing {
  opened(open: boolean): void;
  question(request: ServerRequest): void;
  notification(message: Notification): boolean;
}

/** How long the first call waits for the stream on which the server may ask. */
const OPENING_MS = 2_000;
/** Servers ask for roots of their own accord when a session has begun, some after a third of a second (server-everything). */
const SETTLING_MS = 450;

export function personalLinks(options: PersonalLinksOptions): PersonalLinks {
  const { endpoint, credentials, sessions, open, listen, now } = options;
  const idleMs = sessions.idleSeconds * 1000;
  // A Map keeps insertion order; taking a link puts it last, so the first is the one unused for longest.
  const links = new Map<string, Personal>();
  let timer: NodeJS.Timeout | undefined;

  /** Ends what is idle, and what is too much of what nobody uses at the moment. */
  function reap(): void {
    const time = now();
    for (const [key, personal] of links) {
      const idle = time - personal.usedAt > idleMs;
      if (personal.users > 0 || (!idle && links.size <= sessions.max)) continue;
      links.delete(key);
      void end(personal);
    }
    if (links.size === 0) {
      clearInterval(timer);
      timer = undefined;
    }
  }

  /** By the time a session is idle its user's last token has often ended, and the session is ours to end. */
  function end({ link, by, stopHearing }: Personal): Promise<void> {
    stopHearing();
    if (credentials === undefined) return link.end();
    return link.end((signal, refused) =>
      credentials.for(by, signal, refused).catch(() => credentials.own(signal, refused)),
    );
  }

  function make(by: Authenticated, flavour: Flavour): Personal {
    const source: CredentialSource =
      credentials && ((signal, refused) => credentials.for(personal.by, signal, refused));
    const personal: Personal = {
      by,
      flavour,
      users: 0,
      calls: [],
      usedAt: now(),
      hearing: undefined,
      stopHearing() {},
      link: open(source, flavour, {
        reached(terms) {
          if (flavour.askable) hear(personal, terms);
        },
        failed() {},
        lost: () => personal.stopHearing(),
      }),
    };
    return personal;
  }

  /** Opens the stream on which the server may ask, and waits until it does no longer ask about its own start. */
  function hear(personal: Personal, terms: Terms): void {
    const { link, flavour } = personal;
    const heard = Promise.withResolvers<void>();
    const ready = () => {
      clearTimeout(patience);
      personal.hearing = undefined;
      heard.resolve();
    };
    let patience = setTimeout(ready, OPENING_MS);
    let opened = false;
    personal.stopHearing();
    personal.hearing = heard.promise;
    const tell = (text: string) => endpoint.notify(text, terms, link.source);
    const put = (request: ServerRequest) => {
      const call = likeliest(personal.calls);
      if (call === undefined) tell(refusalText(request.id, OUTSIDE));
      else call.ask(request, tell, () => put(request));
    };
    const stop = listen(terms, link.source, {
      opened(open) {
        if (opened || personal.hearing !== heard.promise) return;
        opened = true;
        clearTimeout(patience);
        if (open && isObject(flavour.capabilities["roots"])) patience = setTimeout(ready, SETTLING_MS);
        else ready();
      },
      question(request) {
        const reply = ownReply(request, flavour.capabilities);
        const starting = request.method === "roots/list" && personal.hearing === heard.promise;
        if (reply !== undefined) tell(reply);
        else if (starting) tell(refusalText(request.id, OUTSIDE));
        else put(request);
        if (starting) ready();
      },
      notification: (message) => relay(personal.calls, message),
    });
    personal.stopHearing = () => {
      clearTimeout(patience);
      ready();
      stop();
    };
  }

  return {
    take(by, flavour) {
      const key = `${by.subject}\n${by.client}\n${flavour.text}`;
      let personal = links.get(key);
      if (personal === undefined) {
        personal = make(by, flavour);
        timer ??= setInterval(reap, Math.min(60_000, idleMs)).unref();
      } else {
        links.delete(key);
      }
      links.set(key, personal);
      personal.by = by;
      personal.users++;
      personal.usedAt = now();
      if (links.size > sessions.max) reap();
      return personal;
    },
    giveBack(personal, call) {
      personal.users--;
      const at = personal.calls.indexOf(call);
      if (at >= 0) personal.calls.splice(at, 1);
      personal.usedAt = now();
    },
    release(flavour) {
      const its = [...links].filter(([, personal]) => personal.flavour.text === flavour.text);
      if (its.some(([, { users }]) => users > 0)) return false;
      for (const [key, personal] of its) {
        links.delete(key);
        void end(personal);
      }
      return true;
    },
    get size() {
      return links.size;
    },
    async close() {
      clearInterval(timer);
      const all = [...links.values()];
      links.clear();
      await Promise.all(all.map(end));
    },
  };
}

/** Of one caller's calls, which may all have asked: those that have asked least come first, then the oldest. */
function likeliest(calls: readonly Exchange[]): Exchange | undefined {
  let best: Exchange | undefined;
  for (const call of calls) if (best === undefined || call.questions < best.questions) best = call;
  return best;
}

/** What a server says on the session's own stream, and withdraws there, is for its one caller. */
function relay(calls: readonly Exchange[], message: Notification): boolean {
  if (message.method === "notifications/cancelled") {
    const { requestId } = message.params;
    if (typeof requestId !== "string" && typeof requestId !== "number") return true;
    for (const call of calls) if (call.withdraw(requestId)) break;
    return true;
  }
  if (message.method !== "notifications/message") return false;
  const call = calls.find(({ permitted }) => messages.wantsMessage(permitted.call, message));
  call?.notify({ method: message.method, params: messages.paramsText(message) });
  return true;
}
