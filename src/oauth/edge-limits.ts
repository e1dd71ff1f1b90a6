/**
 * How much one source may ask of the authorization server before anybody knows who it is. What fails costs more than what
 * succeeds, so guessing ends long before a busy office does.
 */
import type { ServerResponse } from "node:http";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { networkOf } from "../net/source.ts";
import { throttle } from "./throttle.ts";

export interface EdgeLimits {
  /**
   * Counts a request for `path`. Throws `rate_limited` when its source has used up what it had. The function it returns is called
   * once the answer is known, and counts how that went.
   */
  begin(source: string, path: string): (response: Pick<ServerResponse, "statusCode" | "hasHeader">) => void;
}

interface Class {
  readonly name: string;
  readonly paths: RegExp;
  /** What one request takes of the source's requests in a minute. */
  readonly success: number;
  readonly failure: number;
}

/** Each class counts for itself: who may not guess codes any more can still sign in. What is in no class costs next to nothing to answer. */
const CLASSES: readonly Class[] = [
  // Whoever succeeds here has proved something: a code, a token, a secret.
  { name: "token", paths: /^\/oauth\/(?:token|revoke|introspect)$/, success: 0, failure: 20 },
  { name: "registration", paths: /^\/oauth\/register(?:\/|$)/, success: 1, failure: 5 },
  {
    name: "authorization",
    paths: /^\/(?:oauth\/(?:authorize|par)|sign-in|consent|setup|account)(?:\/|$)/,
    success: 1,
    failure: 5,
  },
];

const FREE = () => {};

/** `requestsPerMinute` 0: no limits, for when sources cannot be told apart. */
export function edgeLimits(requestsPerMinute: number, clock: Clock = systemClock): EdgeLimits {
  if (requestsPerMinute === 0) return { begin: () => FREE };
  const limits = CLASSES.map((limited) => ({
    ...limited,
    bucket: throttle({ burst: requestsPerMinute, secondsPerTry: 60 / requestsPerMinute }, clock),
  }));
  return {
    begin(source, path) {
      const limited = limits.find(({ paths }) => paths.test(path));
      if (limited === undefined) return FREE;
      const { name, bucket, success, failure } = limited;
      const key = networkOf(source);
      const wait = bucket.take(key);
      if (wait > 0) {
        throw new DrawbridgeError("rate_limited", `Too many requests from this address. Try again in ${wait} s.`, {
          detail: `${name} requests of ${key}`,
          retryAfterSeconds: wait,
        });
      }
      return (response) => bucket.charge(key, (failed(response) ? failure : success) - 1);
    },
  };
}

function failed(response: Pick<ServerResponse, "statusCode" | "hasHeader">): boolean {
  const { statusCode } = response;
  // Refused for coming too often was counted already, what we failed at is not the source's fault.
  if (statusCode < 400 || statusCode >= 500 || statusCode === 429) return false;
  // RFC 9449 §8: being asked for a nonce is how a client begins.
  return !response.hasHeader("dpop-nonce");
}
