/** How the probe asks: a bounded number of small requests within a bounded time, and no answer is an answer, too. */
import type { Attempt } from "../../check/probe/observed.ts";
import { type Answer, type Http, openHttp, parsed } from "../doctor/http.ts";
import { resultOf } from "../doctor/mcp.ts";

export interface Asking extends Http {
  /** Undefined: no answer came, or the probe has asked enough. Never rejects. */
  ask(url: string | URL, init?: RequestInit): Promise<Answer | undefined>;
  /** Takes back what the probe made: beyond the bound, too, and whether it worked is not known. */
  end(url: string | URL, init: RequestInit): Promise<void>;
  /** Questions that were not asked, because the bound was reached, and answers that asked to come back later. */
  readonly left: { count: number; limited: number };
}

export interface AskingLimits {
  readonly requests: number;
  readonly ms: number;
}

/** A probe is no load: so many requests and milliseconds in all. */
const LIMITS: AskingLimits = { requests: 100, ms: 60_000 };
const ONE_ANSWER_MS = 8_000;
/** Taking back has so much more. */
const END_MS = 15_000;

/** Rejects with `upstream_unavailable` when the name of `url` cannot be resolved. */
export async function openAsking(
  url: URL,
  trustedCertificates: string | undefined,
  limits: AskingLimits = LIMITS,
): Promise<Asking> {
  const http = await openHttp(url, {
    timeoutMs: ONE_ANSWER_MS,
    ...(trustedCertificates !== undefined && { trustedCertificates }),
  });
  const over = AbortSignal.timeout(limits.ms);
  const left = { count: 0, limited: 0 };
  let asked = 0;
  const sent = (to: string | URL, init: RequestInit, signal: AbortSignal) => {
    const headers = new Headers(init.headers);
    headers.set("user-agent", "drawbridge-check");
    return http.send(to, { ...init, headers, signal });
  };
  const send: Http["send"] = (to, init = {}) => sent(to, init, over);
  const ended = AbortSignal.timeout(limits.ms + END_MS);
  return {
    ...http,
    send,
    left,
    async ask(to, init) {
      if (asked >= limits.requests || over.aborted) {
        left.count++;
        return undefined;
      }
      asked++;
      const answer = await send(to, init).catch(() => undefined);
      if (answer?.status !== 429) return answer;
      // Neither yes nor no.
      left.limited++;
      return undefined;
    },
    end: (to, init) =>
      sent(to, init, ended).then(
        () => {},
        () => {},
      ),
  };
}

export const LEGACY = "2025-11-25";
const MODERN = "2026-07-28";

/** A request of MCP as a client of 2025-11-25 sends it. */
export function legacyRequest(
  method: string,
  { id = 1, params = {}, headers = {} }: { id?: number; params?: object; headers?: Record<string, string> } = {},
): RequestInit {
  const begins = method === "initialize";
  const hello = {
    protocolVersion: LEGACY,
    capabilities: {},
    clientInfo: { name: "drawbridge-check", version: "1" },
  };
  return posted(
    { jsonrpc: "2.0", ...(method.startsWith("notifications/") ? {} : { id }), method, params: begins ? hello : params },
    { ...(begins ? {} : { "mcp-protocol-version": LEGACY }), ...headers },
  );
}

/** A request of MCP as a client of 2026-07-28 sends it. */
export function modernRequest(method: string, params: object, headers: Record<string, string>): RequestInit {
  const _meta = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
  };
  const own = { "mcp-protocol-version": MODERN, "mcp-method": method, ...headers };
  return posted({ jsonrpc: "2.0", id: 1, method, params: { ...params, _meta } }, own);
}

export function posted(body: object | string, headers: Record<string, string> = {}): RequestInit {
  return {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  };
}

export function form(fields: Record<string, string>): RequestInit {
  return {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded", accept: "application/json" },
    body: new URLSearchParams(fields).toString(),
  };
}

/** Whether an MCP request was answered with a result, refused, or neither. */
export function attemptOf(answer: Answer | undefined): Attempt {
  if (answer === undefined) return { outcome: "unclear", said: "no answer" };
  const { status } = answer;
  if (status >= 200 && status < 300 && typeof resultOf(answer, 1) !== "string")
    return { outcome: "taken", said: `${status} and a result` };
  if (status === 401 || status === 403) return { outcome: "refused", said: `${status}` };
  if (status >= 400 && status < 500) return { outcome: "refused", said: `${status}${errorOf(answer)}` };
  // An error in band: the request was looked at, and refused.
  const refused = status === 200 && parsed(answer.text)?.["error"] !== undefined;
  return { outcome: refused ? "refused" : "unclear", said: `${status}${errorOf(answer)}` };
}

/** Whether an endpoint of OAuth gave what was asked for. */
export function grantOf(answer: Answer | undefined, wanted: string): Attempt {
  if (answer === undefined) return { outcome: "unclear", said: "no answer" };
  const { status } = answer;
  const given = status >= 200 && status < 300 && typeof parsed(answer.text)?.[wanted] === "string";
  const outcome = given ? "taken" : status >= 400 && status < 500 ? "refused" : "unclear";
  return { outcome, said: `${status}${given ? ` and ${wanted}` : errorOf(answer)}` };
}

/** The code of an error, when it is a plain word. Descriptions are left out: they can repeat what was sent. */
function errorOf({ text }: Answer): string {
  const error = parsed(text)?.["error"];
  const code = typeof error === "object" && error !== null ? (error as Record<string, unknown>)["code"] : error;
  return /^[\w-]{1,60}$/.test(String(code ?? "")) ? ` ${String(code)}` : "";
}
