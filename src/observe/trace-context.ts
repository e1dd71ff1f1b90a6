/** W3C Trace Context (https://www.w3.org/TR/trace-context/): read strictly, since it comes from strangers, and written. */
import type { TraceContext } from "../core/call.ts";
import { randomHex } from "../core/ids.ts";

/** What a request carries, in `params._meta` or in headers. */
export interface TraceHeaders {
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
}

/** The `traceparent` that tells the next hop about `context`. */
export function traceparent(context: TraceContext): string {
  return `00-${context.traceId}-${context.spanId}-${context.sampled ? "01" : "00"}`;
}

/** The caller's context; undefined when there is none or it is malformed (§3.2: then a new trace begins). */
export function parseTrace(headers: TraceHeaders): TraceContext | undefined {
  const match = typeof headers.traceparent === "string" ? TRACEPARENT.exec(headers.traceparent) : null;
  const [, version, traceId = "", spanId = "", flags = "", more] = match ?? [];
  if (match === null || version === "ff" || (version === "00" && more !== undefined)) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  const sampled = (Number.parseInt(flags, 16) & 1) === 1;
  return { traceId, spanId, sampled, tracestate: validTracestate(headers.tracestate) };
}

/** Our own span below `parent`, or the first of a new trace, of which `sampleRatio` are sampled. About 0.3 µs. */
export function childContext(parent: TraceContext | undefined, sampleRatio: number): TraceContext {
  if (parent !== undefined) return { ...parent, spanId: randomHex(8) };
  const traceId = randomHex(16);
  // By the id's own random bits, so that whoever asks again decides alike.
  const sampled = sampleRatio >= 1 || Number.parseInt(traceId.slice(-8), 16) < sampleRatio * 0x1_0000_0000;
  return { traceId, spanId: randomHex(8), sampled, tracestate: undefined };
}

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/;
const MAX_TRACESTATE = 512;
const MAX_MEMBERS = 32;
/** §3.3.1.3: `key=value`, the key simple or `tenant@system`. */
const MEMBER =
  /^(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/;

/** §3.3: one bad member makes all of it worthless; the `traceparent` stays good. */
function validTracestate(text: unknown): string | undefined {
  if (typeof text !== "string" || text.length === 0 || text.length > MAX_TRACESTATE) return undefined;
  const members = text.split(",").map((member) => member.trim());
  const filled = members.filter((member) => member !== "");
  if (filled.length === 0 || members.length > MAX_MEMBERS || !filled.every((member) => MEMBER.test(member)))
    return undefined;
  const keys = new Set(filled.map((member) => member.slice(0, member.indexOf("="))));
  return keys.size === filled.length ? filled.join(",") : undefined;
}
