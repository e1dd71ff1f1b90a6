/** Which requests to a server are sent a second time when something went wrong, and how long after. */
import type { IncomingHttpHeaders } from "node:http";

/**
 * How far a request got: there was nothing to send it with (no credential); it certainly was not sent; it may have been, and no byte
 * of an answer came; the server had begun to answer it.
 */
export type Reached = "unready" | "never" | "maybe" | "surely";

/** Times that one request is sent again at most, for whatever reason. */
export const MAX_REPEATS = 2;
const FIRST_PAUSE_MS = 100;

/** Requests that change nothing, or the same thing however often they are sent. */
const SAFE: ReadonlySet<string> = new Set([
  "ping",
  "server/discover",
  "tools/list",
  "resources/list",
  "resources/templates/list",
  "prompts/list",
  "resources/read",
  "prompts/get",
  "completion/complete",
  "logging/setLevel",
  "resources/subscribe",
  "resources/unsubscribe",
]);

/**
 * Whether a request that failed may be sent again. What was never sent, whatever it is. What may have been, when it is safe: mostly
 * the server was closing the kept connection at that moment. Tool calls are not safe, whatever their definition says of itself
 * (`readOnlyHint`, `idempotentHint`): a pin proves that a definition has not changed, not that it is true, and a call that fails
 * visibly does less harm than one that is made twice. What the server has begun to answer is never sent again.
 */
export function mayRepeat(method: string, reached: Reached): boolean {
  return reached === "never" || (reached === "maybe" && SAFE.has(method));
}

/** How long before the next time, in milliseconds: about 0.1 s, then 0.4 s, apart for different callers. */
export const pauseMs = (repeats: number, random: () => number): number =>
  FIRST_PAUSE_MS * 4 ** repeats * (0.5 + random());

/**
 * How long a server that is overloaded (429, 503) wants to be left alone before this request is sent again, in milliseconds;
 * undefined when it may not be, or the server names no time (RFC 9110 §10.2.3).
 */
export function askedToWaitMs(method: string, status: number, headers: IncomingHttpHeaders): number | undefined {
  if ((status !== 429 && status !== 503) || !SAFE.has(method) || headers["retry-after"] === undefined) return undefined;
  return retryAfterSeconds(headers) * 1000;
}

const DEFAULT_SECONDS = 5;
const MAX_SECONDS = 3600;

/** RFC 9110 §10.2.3, in seconds, within reason. */
export function retryAfterSeconds(headers: IncomingHttpHeaders): number {
  const text = String(headers["retry-after"] ?? "");
  const seconds = /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(MAX_SECONDS, Math.max(1, Math.ceil(seconds))) : DEFAULT_SECONDS;
}
