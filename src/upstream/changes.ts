/** A stream of change notifications that stays open for as long as the terms hold; 2026-07-28 by request, before that by GET. */
import type { IncomingHttpHeaders } from "node:http";
import { isObject, messageTexts, readUpstreamMessage } from "../mcp/json-text.ts";
import type { Logger } from "../observe/logger.ts";
import {
  type Endpoint,
  FIRST_RELISTEN_MS,
  MAX_RELISTEN_MS,
  type Notification,
  type Party,
  type Terms,
} from "./endpoint.ts";
import type { WireEnd } from "./http-wire.ts";
import * as messages from "./messages.ts";
import { replyTo, type ServerRequest } from "./questions.ts";
import type { UpstreamEvents } from "./upstream.ts";

export interface ChangesOptions {
  readonly endpoint: Endpoint;
  readonly terms: Terms;
  readonly party: Party;
  /** Resources to hear of. */
  readonly subscribed: ReadonlySet<string>;
  readonly events: UpstreamEvents;
  readonly logger: Logger;
  /** Whoever wants to hear more than changes; the stream is opened whatever the server declares. */
  readonly more?: {
    /** Whether the stream is open; false when the server offers none. */
    opened(open: boolean): void;
    question(request: ServerRequest): void;
    /** False when it is nothing that anybody wants. */
    notification(message: Notification): boolean;
  };
  /** The server no longer knows the session. */
  lost(): void;
  readonly random: () => number;
}

/** Opens the stream, again and again, unless the server has nothing to say on one. The function returned ends it. */
export function watchChanges(options: ChangesOptions): () => void {
  const { endpoint, terms, party, subscribed, events, logger, more, lost, random } = options;
  const { capabilities } = terms.identity;
  const modern = terms.envelope !== "";
  const subscribable = isObject(capabilities["resources"]) && capabilities["resources"]["subscribe"] === true;
  if (more === undefined && !modern && messages.listenParams(terms.identity, subscribed) === undefined && !subscribable)
    return () => {};
  let stopped = false;
  let waitMs = FIRST_RELISTEN_MS;
  let lastEventId = "";
  let timer: NodeJS.Timeout | undefined;
  let close = () => {};

  const handler = {
    head(status: number, _: IncomingHttpHeaders, streams: boolean) {
      if (status < 300 && streams) waitMs = FIRST_RELISTEN_MS;
      more?.opened(status < 300 && streams);
    },
    message(text: string) {
      for (const one of messageTexts(text, terms.identity.revision)) handler.heard(one);
    },
    heard(text: string) {
      const message = readUpstreamMessage(text);
      if (message?.kind === "request") {
        if (more !== undefined) more.question(message);
        else endpoint.reply(replyTo(message), terms, party);
      } else if (
        message?.kind === "notification" &&
        more?.notification(message) !== true &&
        !messages.reportChange(message, events)
      ) {
        logger.debug({ method: message.method }, "notification of the server");
      }
    },
    end({ status, streamed, lastEventId: last, retryMs }: WireEnd) {
      lastEventId = last;
      if (!streamed) more?.opened(false);
      if (status === 404 && terms.sessionId !== undefined) {
        lost();
        return;
      }
      // It does not offer the stream (405, or no such method); a credential it turns down may be a better one next time.
      const turnedDown = party.credential !== undefined && status === 401;
      if (!streamed && status >= 200 && status < 500 && status !== 429 && !turnedDown) return;
      again(retryMs);
    },
    fail() {
      more?.opened(false);
      again(undefined);
    },
  };
  function open(): void {
    if (!modern) {
      close = endpoint.stream(terms, party, lastEventId, handler);
      return;
    }
    const params = messages.listenParams(terms.identity, subscribed);
    if (params === undefined) return;
    const body = messages.requestText(endpoint.newId(), "subscriptions/listen", params, terms.envelope);
    const headers = [...terms.headers, "mcp-method", "subscriptions/listen"];
    close = endpoint.send({ method: "POST", headers, body }, party, handler);
  }
  function again(retryMs: number | undefined): void {
    if (stopped) return;
    timer = setTimeout(open, Math.min(retryMs ?? waitMs * (0.5 + random() / 2), MAX_RELISTEN_MS)).unref();
    waitMs = Math.min(waitMs * 2, MAX_RELISTEN_MS);
  }

  open();
  return () => {
    stopped = true;
    clearTimeout(timer);
    close();
  };
}
