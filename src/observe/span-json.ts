/**
 * A finished span as the JSON of OTLP (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): ids in hex, 64-bit integers
 * as text, enumerations as numbers. Written by hand: it runs twice for every call.
 */
import type { TraceContext } from "../core/call.ts";

/** `internal`: work within this process. */
export type SpanKind = "server" | "client" | "internal";
export type SpanAttributes = Readonly<Record<string, string | number | boolean | undefined>>;

/** A moment within a span. */
export interface SpanEvent {
  readonly name: string;
  /** Milliseconds since the epoch, with fractions. */
  readonly at: number;
}

export interface FinishedSpan {
  readonly name: string;
  readonly kind: SpanKind;
  readonly context: TraceContext;
  readonly parent: { readonly spanId: string; readonly remote: boolean } | undefined;
  /** Milliseconds since the epoch, with fractions. */
  readonly startedAt: number;
  readonly endedAt: number;
  readonly attributes: SpanAttributes;
  /** What happened meanwhile, in order. */
  readonly events?: readonly SpanEvent[];
  /** Undefined: it went well. */
  readonly error: { readonly description: string | undefined } | undefined;
}

/** https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto */
const KIND = { internal: 1, server: 2, client: 3 } as const satisfies Record<SpanKind, number>;
const STATUS_UNSET = '{"code":0}';
const STATUS_ERROR = 2;
const FLAG_SAMPLED = 0x001;
const FLAG_REMOTE_KNOWN = 0x100;
const FLAG_REMOTE = 0x200;

const MAX_TEXT = 1024;
const MAX_ATTRIBUTES = 64;

export function spanJson(span: FinishedSpan): string {
  const { context, parent, error } = span;
  const flags = FLAG_SAMPLED | FLAG_REMOTE_KNOWN | (parent?.remote === true ? FLAG_REMOTE : 0);
  let text = `{"traceId":"${context.traceId}","spanId":"${context.spanId}","flags":${flags}`;
  if (parent !== undefined) text += `,"parentSpanId":"${parent.spanId}"`;
  if (context.tracestate !== undefined) text += `,"traceState":${JSON.stringify(context.tracestate)}`;
  text += `,"name":${quoted(span.name)},"kind":${KIND[span.kind]},"startTimeUnixNano":"${nanoseconds(span.startedAt)}"`;
  text += `,"endTimeUnixNano":"${nanoseconds(Math.max(span.startedAt, span.endedAt))}"`;
  const said = error?.description === undefined ? "" : `,"message":${quoted(error.description)}`;
  const status = error === undefined ? STATUS_UNSET : `{"code":${STATUS_ERROR}${said}}`;
  return `${text},"attributes":${attributesJson(span.attributes)}${eventsJson(span.events)},"status":${status}}`;
}

function eventsJson(events: readonly SpanEvent[] = []): string {
  if (events.length === 0) return "";
  const all = events.map(({ name, at }) => `{"timeUnixNano":"${nanoseconds(at)}","name":${quoted(name)}}`);
  return `,"events":[${all.join()}]`;
}

/** A list of `KeyValue`. Absent values are left out, long texts cut, and no more than 64 are written. */
export function attributesJson(attributes: SpanAttributes): string {
  let text = "";
  let count = 0;
  for (const key in attributes) {
    const value = attributes[key];
    if (value === undefined) continue;
    if (++count > MAX_ATTRIBUTES) break;
    text += `${count === 1 ? "" : ","}{"key":${JSON.stringify(key)},"value":${valueJson(value)}}`;
  }
  return `[${text}]`;
}

function valueJson(value: string | number | boolean): string {
  if (typeof value === "string") return `{"stringValue":${quoted(value)}}`;
  if (typeof value === "boolean") return `{"boolValue":${value}}`;
  if (Number.isSafeInteger(value)) return `{"intValue":"${value}"}`;
  // protobuf's JSON writes what JSON has no number for as text.
  return `{"doubleValue":${Number.isFinite(value) ? value : `"${value}"`}}`;
}

function quoted(text: string): string {
  return JSON.stringify(text.length > MAX_TEXT ? text.slice(0, MAX_TEXT) : text);
}

/** Microseconds are what a double can hold of today's time. In two parts, because small integers become text faster. */
function nanoseconds(ms: number): string {
  const micros = Math.round(ms * 1000);
  const seconds = Math.floor(micros / 1_000_000);
  return `${seconds}${String(micros - seconds * 1_000_000 + 1_000_000).slice(1)}000`;
}
