/**
 * `credentials` of a server that is a process: with each call goes, in `_meta`, a token for the API behind the server that was made for
 * the call's user. It travels with the call and never in the environment, so users can share the process, and none is started again when
 * a token ends.
 */
import type { Outcome, PermittedCall, Replies, UpstreamCredential } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { handedText } from "../mcp/upstream-token.ts";
import type { UpstreamCredentials } from "./credentials.ts";
import type { Upstream, UpstreamEvents } from "./upstream.ts";

export interface HandedOptions {
  /** Calls that may wait for their token; further ones are refused. */
  readonly maxWaiting: number;
  /** Undefined where nobody makes any: then there are lists, and no calls. */
  readonly credentials: UpstreamCredentials | undefined;
  /** Takes all secrets that are known out of a text, tokens of other callers among them: they share the process. Default: none. */
  readonly conceal?: ((text: string) => string) | undefined;
  readonly clock?: Clock;
}

/**
 * The same server, whose calls carry their token: none is sent without. The lists and what is followed are asked for without one: that of
 * the gateway acts for nobody, and a process that has it could do at the API what no user may.
 */
export function withHandedTokens(upstream: Upstream, options: HandedOptions): Upstream {
  const { maxWaiting, credentials, conceal = asItIs, clock = systemClock } = options;
  const { name } = upstream;
  let waiting = 0;

  async function send(permitted: PermittedCall, replies: Replies, signal: AbortSignal): Promise<Outcome> {
    if (credentials === undefined)
      throw new DrawbridgeError("upstream_unavailable", `Nobody makes tokens for the server "${name}" here.`, {
        detail: "its `credentials` need a gateway that people sign in to",
      });
    if (waiting >= maxWaiting)
      throw new DrawbridgeError("overloaded", `The server "${name}" has too many calls waiting. Try again later.`, {
        retryAfterSeconds: RETRY_SECONDS,
      });
    const { by } = permitted;
    let credential: UpstreamCredential;
    waiting++;
    try {
      credential = await credentials.for(by, signal);
    } catch (thrown) {
      throw signal.aborted ? new DrawbridgeError("cancelled", "The call was cancelled.") : thrown;
    } finally {
      waiting--;
    }

    const ending = new AbortController();
    const end = () => ending.abort();
    let refusal: unknown;
    let timer: NodeJS.Timeout | undefined;
    let sent: string | undefined;
    /** A call may wait for its process longer than its token, or its user's access, lasts. */
    const renewLater = () => {
      const lastsMs = (credential.expiresAt ?? Number.POSITIVE_INFINITY) - clock();
      timer = setTimeout(renew, Math.max(MIN_RENEW_MS, Math.min(RENEW_MS, lastsMs)));
    };
    const renew = () =>
      credentials.for(by, ending.signal).then(
        (newer) => {
          if (sent !== undefined || ending.signal.aborted) return;
          credential = newer;
          renewLater();
        },
        (error: unknown) => {
          if (sent !== undefined || ending.signal.aborted) return;
          refusal = error;
          end();
        },
      );
    const handed = () => {
      clearTimeout(timer);
      replies.sentWith?.(credential);
      sent = tokenOf(credential);
      return handedText({ token: sent, audience: credential.audience, expiresAt: credential.expiresAt });
    };
    const unsaid = (text: string) =>
      conceal(sent === undefined || !text.includes(sent) ? text : text.replaceAll(sent, "[secret]"));

    renewLater();
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    try {
      const carrying: PermittedCall = { ...permitted, call: { ...permitted.call, handed } };
      return withoutToken(await upstream.send(carrying, discreet(replies, unsaid), ending.signal), unsaid);
    } catch (thrown) {
      throw refusal ?? thrown;
    } finally {
      clearTimeout(timer);
      end();
      signal.removeEventListener("abort", end);
    }
  }

  return { ...upstream, send };
}

/** What such a server says outside of calls, without tokens. */
export function withoutTokens(events: UpstreamEvents, conceal = asItIs): UpstreamEvents {
  const { resourceUpdated, elicitationComplete, taskStatus } = events;
  return {
    ...events,
    resourceUpdated: (uri, params, instance) => resourceUpdated(uri, conceal(params), instance),
    ...(elicitationComplete && {
      elicitationComplete: (params, instance) => elicitationComplete(conceal(params), instance),
    }),
    ...(taskStatus && { taskStatus: (params) => taskStatus(conceal(params)) }),
  };
}

const asItIs = (text: string) => text;

/** While a call waits, its token and its user's access are looked at so often. */
const RENEW_MS = 5_000;
const MIN_RENEW_MS = 500;
const RETRY_SECONDS = 5;

const tokenOf = ({ value }: UpstreamCredential) => value.reveal().replace(/^Bearer /, "");

/** What the server says and asks before its answer, without the token. */
function discreet(replies: Replies, unsaid: (text: string) => string): Replies {
  const ask = replies.ask?.bind(replies);
  return {
    notify: ({ method, params }) => replies.notify({ method, params: unsaid(params) }),
    ...(ask && { ask: ({ method, params }, withdrawn) => ask({ method, params: unsaid(params) }, withdrawn) }),
    servedBy: (process) => replies.servedBy?.(process),
  };
}

/** Some servers repeat the `_meta` of a request in its answer, or print all they know when they fail. */
function withoutToken(outcome: Outcome, unsaid: (text: string) => string): Outcome {
  if (outcome.kind === "error") {
    const { message, data } = outcome;
    return { ...outcome, message: unsaid(message), data: data && unsaid(data) };
  }
  const result = unsaid(outcome.result);
  return result === outcome.result ? outcome : { kind: "result", result, value: JSON.parse(result) };
}
