/**
 * Calls that ask their client something, in all four pairings of revisions. A server's question is one thing here; it becomes a
 * request to a client of 2025-11-25 and before, and an `input_required` answer to a client of 2026-07-28, whichever way it came.
 * A call that asks nothing passes through and costs nothing.
 */
import { type Authenticated, MODERN_REVISION, type Outcome, type PermittedCall } from "../core/call.ts";
import type { InboundResponse } from "../mcp/inbound.ts";
import type { Session } from "../mcp/sessions.ts";
import type { Logger } from "../observe/logger.ts";
import type { MeasuredQuestions, Metrics } from "../observe/metrics.ts";
import type { Records } from "../store/ports.ts";
import type { Upstream, UpstreamIdentity } from "../upstream/upstream.ts";
import { type Bridge, next } from "./bridged-call.ts";
import { type AnswerLetter, openClientRequests } from "./client-requests.ts";
import { type Mailbox, noMailbox, openMailbox } from "./mailbox.ts";
import type { Asked } from "./parts.ts";
import { openRoundTrips, type RoundTripLetter } from "./round-trips.ts";
import type { Seals } from "./sealed-state.ts";
import type { InteractionSettings } from "./settings.ts";
import type { Streams } from "./streams.ts";

export interface Interaction {
  /**
   * Sends a call with whatever its client can be asked. The outcome may still ask (`asksMore`): then `settle` makes of it what the
   * client can be answered with. Throws what `Upstream.send` throws, and `invalid_params` for a `requestState` that is not good for this request.
   */
  send(upstream: Upstream, permitted: PermittedCall, asked: Asked, gone: AbortController): Promise<Outcome>;
  settle(
    upstream: Upstream,
    permitted: PermittedCall,
    asked: Asked,
    gone: AbortController,
    outcome: Outcome,
  ): Promise<Outcome>;
  /** The call was answered or has failed: nobody needs the answers to its questions any more. */
  over(asked: Asked): void;
  /** This outcome did not reach its client. */
  unheard(outcome: Outcome): void;
  /** A legacy client's answer to a question. What answers nothing is ignored. */
  heard(response: InboundResponse, by: Authenticated, session: Session | undefined): Promise<void>;
  sessionEnded(session: Session): void;
  /**
   * A server says in `params`, JSON text, that a page it had asked for is done; the session that was shown the page is told, if it
   * is one of those that who says so serves.
   */
  elicitationComplete(server: string, params: string, serves?: (session: Session) => boolean): void;
  /** What is open now, for each server that has asked something. */
  open(): readonly MeasuredQuestions[];
  /** Ends every question and every suspended call. */
  close(): Promise<void>;
}

export interface InteractionOptions {
  readonly settings: InteractionSettings;
  readonly seals: Seals;
  readonly streams: Pick<Streams, "tell">;
  readonly telemetry: Pick<Metrics, "questionEnded">;
  /** Who the reachable upstreams said they are. */
  readonly identities: () => ReadonlyMap<string, UpstreamIdentity>;
  /** Names this process; answers that reach another one find their way by it. */
  readonly replica: string;
  /** Shared by the replicas; undefined when there can be only this process. */
  readonly shared: Records | undefined;
  readonly log: Logger;
  /** What of `params` of a notification somebody may see. Default: all. */
  readonly said?: Bridge["said"];
}

export function openInteraction(options: InteractionOptions): Interaction {
  const {
    settings,
    seals,
    streams,
    telemetry,
    identities,
    replica,
    shared,
    log,
    said = (_, params) => params,
  } = options;
  const deliver = (letter: unknown) => {
    const known = letter as AnswerLetter | RoundTripLetter;
    if (known.kind === "answer") requests.received(known);
    else roundTrips.received(known);
  };
  const mailbox: Mailbox =
    shared === undefined ? noMailbox : openMailbox({ records: shared, seals, address: replica, log, deliver });
  let stopWaiting = () => {};
  const onWaiting = (waits: boolean) => {
    if (waits) stopWaiting = mailbox.wait();
    else stopWaiting();
  };
  const revisionOf = (upstream: Upstream) => identities().get(upstream.name)?.revision;
  const bridge: Bridge = { settings, seals, mailbox, replica, questionEnded: telemetry.questionEnded, said };
  const roundTrips = openRoundTrips({ ...bridge, revisionOf, onWaiting, log });
  const requests = openClientRequests(bridge, streams);

  return {
    send(upstream, permitted, asked, gone) {
      if (asked.inbound.era === "modern") return roundTrips.send({ upstream, permitted, asked, gone });
      const { forward } = permitted.call;
      const answers = forward.has("requestState") || forward.has("inputResponses");
      // To a server of 2026-07-28 these would mean what they never meant to this client.
      const strip = answers && (revisionOf(upstream) ?? MODERN_REVISION) === MODERN_REVISION;
      return requests.send({ upstream, permitted: strip ? next(permitted, undefined) : permitted, asked, gone });
    },
    settle(upstream, permitted, asked, gone, outcome) {
      const way = asked.inbound.era === "modern" ? roundTrips : requests;
      return way.settle({ upstream, permitted, asked, gone }, outcome);
    },
    over: requests.over,
    unheard: roundTrips.unheard,
    heard: (response, by, session) => requests.heard(response, by, session),
    sessionEnded: requests.sessionEnded,
    elicitationComplete: requests.elicitationComplete,
    open() {
      const counts = new Map<string, { server: string; open: number; suspended: number }>();
      const of = (server: string) => {
        const known = counts.get(server) ?? { server, open: 0, suspended: 0 };
        counts.set(server, known);
        return known;
      };
      for (const server of [...requests.open(), ...roundTrips.open()]) of(server).open++;
      for (const server of roundTrips.suspended()) of(server).suspended++;
      return [...counts.values()];
    },
    async close() {
      roundTrips.close();
      requests.close();
      await mailbox.close();
    },
  };
}
