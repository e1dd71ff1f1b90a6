/**
 * Links to a server that keeps sessions, each for one caller alone (`tenants.ts`) and one flavour. What comes on a session's own stream
 * is thus for its one caller.
 */
import type { PermittedCall } from "../core/call.ts";
import { isObject } from "../mcp/json-text.ts";
import type { Flavour } from "./capabilities.ts";
import type { Endpoint, Notification, Party, Terms } from "./endpoint.ts";
import type { Exchange, Stopwatch } from "./exchange.ts";
import type { Link, LinkEvents } from "./link.ts";
import * as messages from "./messages.ts";
import type { Parties } from "./parties.ts";
import { OUTSIDE, ownReply, refusalText, type ServerRequest } from "./questions.ts";
import { type Tenancy, type Tenants, tenants } from "./tenants.ts";

export interface PersonalLinks extends Pick<Tenants<Personal>, "sessionEnded" | "sweep" | "size" | "close"> {
  /** The caller's link, made when there is none; it stays until each call has given it back. */
  take(permitted: PermittedCall, flavour: Flavour): Personal;
  giveBack(personal: Personal, call: Exchange): void;
  /** Ends the links of a flavour; false when one of them is in use. */
  release(flavour: Flavour): boolean;
}

/** One user's link through one client. */
export interface Personal {
  readonly tenancy: Tenancy;
  readonly link: Link;
  readonly flavour: Flavour;
  /** Calls that were sent over it, oldest first. */
  readonly calls: Exchange[];
  /** Resolves when the server can ask what it wants; undefined once it can, and where it may ask nothing. */
  hearing: Promise<void> | undefined;
  stopHearing(): void;
}

export interface PersonalLinksOptions {
  readonly endpoint: Endpoint;
  readonly parties: Parties;
  /** Whether sessions of one user through one client have links of their own. A client of 2026-07-28 has but one. */
  readonly perSession: boolean;
  readonly sessions: { readonly max: number; readonly idleSeconds: number };
  open(party: Party, flavour: Flavour, events: LinkEvents): Link;
  /** Opens the session's own stream. */
  listen(terms: Terms, party: Party, hear: Hearing): () => void;
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
  const { endpoint, parties, perSession, sessions, open, listen, now } = options;
  const kept = tenants<Personal>({
    perSession,
    trait: parties.trait,
    sessions,
    end({ link, tenancy, stopHearing }) {
      stopHearing();
      return link.end(parties.ending(tenancy.by));
    },
    now,
  });

  function make(tenancy: Tenancy, flavour: Flavour): Personal {
    const party = parties.of(() => tenancy.by);
    const personal: Personal = {
      tenancy,
      flavour,
      calls: [],
      hearing: undefined,
      stopHearing() {},
      link: open(party, flavour, {
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
    const tell = (text: string) => endpoint.notify(text, terms, link.party);
    const ourselves = (text: string) => endpoint.reply(text, terms, link.party);
    const put = (request: ServerRequest) => {
      const call = likeliest(personal.calls);
      if (call === undefined) ourselves(refusalText(request.id, OUTSIDE));
      else call.ask(request, tell, () => put(request));
    };
    const stop = listen(terms, link.party, {
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
        if (reply !== undefined) ourselves(reply);
        else if (starting) ourselves(refusalText(request.id, OUTSIDE));
        else put(request);
        if (starting) ready();
      },
      notification: (message) => relay(personal.calls, message),
    });
    const stopHearing = () => {
      clearTimeout(patience);
      ready();
      stop();
    };
    personal.stopHearing = stopHearing;
  }

  return {
    take: (permitted, flavour) => kept.take(permitted, flavour.text, (tenancy) => make(tenancy, flavour)),
    giveBack(personal, call) {
      const at = personal.calls.indexOf(call);
      if (at >= 0) personal.calls.splice(at, 1);
      kept.giveBack(personal);
    },
    sessionEnded: kept.sessionEnded,
    sweep: kept.sweep,
    release(flavour) {
      const its = [...kept.all()].filter((personal) => personal.flavour.text === flavour.text);
      if (its.some(({ tenancy }) => tenancy.users > 0)) return false;
      kept.endAll((personal) => its.includes(personal));
      return true;
    },
    get size() {
      return kept.size;
    },
    close: kept.close,
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
    const { requestId, reason } = message.params;
    if (typeof requestId !== "string" && typeof requestId !== "number") return true;
    for (const call of calls) if (call.withdraw(requestId, reason)) break;
    return true;
  }
  if (message.method !== "notifications/message") return false;
  const call = calls.find(({ permitted }) => messages.wantsMessage(permitted.call, message));
  call?.notify({ method: message.method, params: messages.paramsText(message) });
  return true;
}
