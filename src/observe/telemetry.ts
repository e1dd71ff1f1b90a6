/** Traces and metrics. Without an OTLP endpoint a span is only its ids. */
import type { TraceContext } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import type { Logger } from "./logger.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import { openOtlp, type SpanExporter } from "./otlp.ts";
import type { TelemetrySettings } from "./settings.ts";
import { type FinishedSpan, type SpanAttributes, type SpanKind, spanJson } from "./span-json.ts";
import { childContext, parseTrace, type TraceHeaders } from "./trace-context.ts";

export type { SpanAttributes, SpanKind } from "./span-json.ts";
export { traceparent } from "./trace-context.ts";

export interface Span {
  /** What the next hop is told: `traceparent(span.context)`. */
  readonly context: TraceContext;
  /** Whether it is going to be exported, unless it is one that is exported only when it fails. */
  readonly recording: boolean;
  set(key: string, value: string | number | boolean): void;
  /** Gives it another name. */
  rename(name: string): void;
  /** Notes that a step of the work is done. The names are ours, and say nothing of anybody. `at`: as `performance.now()` has it. */
  step(name: string, at?: number): void;
  /** Ends the span; once. With `error` (MCP's `error.type`: the JSON-RPC code, or `tool_error`) it counts as failed. */
  end(error?: string, description?: string): void;
}

export interface Telemetry extends Metrics, AsyncDisposable {
  /**
   * Begins a span below `parent`: headers of a stranger (malformed ones begin a new trace) or our own context. Names and attributes
   * follow the MCP semantic conventions: `tools/call orders_lookup`, `mcp.method.name`, `gen_ai.tool.name`. Never fails.
   */
  begin(
    name: string,
    kind: SpanKind,
    parent: TraceHeaders | TraceContext | undefined,
    attributes: SpanAttributes,
    /** When it began, as `performance.now()` has it. Default: now. */
    startedAt?: number,
  ): Span;
  /** Sends what is still to be sent, for five seconds at most. */
  close(): Promise<void>;
}

/** The variables that telemetry reads: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ */
export type TelemetryEnvironment = Readonly<Record<string, string | undefined>>;

/**
 * Starts telemetry as `settings` say; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_EXPORTER_OTLP_HEADERS` of `environment` add to them. A
 * collector that is away costs its spans and one line a minute in the log, never a call.
 */
export async function createTelemetry(
  settings: TelemetrySettings,
  logger: Logger,
  environment: TelemetryEnvironment = {},
  clock: Clock = systemClock,
): Promise<Telemetry> {
  const { otlpEndpoint: endpoint, otlpHeaders, serviceName } = settings;
  if (endpoint === undefined) {
    const spans = idsOnly(settings);
    return { ...createMetrics(serviceName, undefined, clock), ...spans, [Symbol.asyncDispose]: spans.close };
  }
  const exporter = openOtlp({
    endpoint,
    headers: { ...listed(environment["OTEL_EXPORTER_OTLP_HEADERS"]), ...otlpHeaders },
    resource: { ...listed(environment["OTEL_RESOURCE_ATTRIBUTES"]), "service.name": serviceName },
    logger,
    clock,
  });
  const metrics = createMetrics(serviceName, () => exporter.dropped, clock);
  const spans = exporting(settings, exporter, clock);
  return { ...metrics, ...spans, [Symbol.asyncDispose]: spans.close };
}

/** `key=value,key=value`, the values percent-encoded (W3C Baggage); what is malformed is left out. */
function listed(text = ""): Readonly<Record<string, string>> {
  const pairs = text.split(",").flatMap((pair) => {
    const [, key, value] = /^\s*([^=\s]+)\s*=\s*(.*?)\s*$/.exec(pair) ?? [];
    if (key === undefined || value === undefined) return [];
    try {
      return [[key, decodeURIComponent(value)] as const];
    } catch {
      return [];
    }
  });
  return Object.fromEntries(pairs);
}

type Spans = Pick<Telemetry, "begin" | "close">;

function idsOnly({ sampleRatio }: TelemetrySettings): Spans {
  return {
    begin: (_name, _kind, parent) => ({
      context: childContext(contextOf(parent), sampleRatio),
      ...NOT_RECORDED,
    }),
    close: async () => {},
  };
}

const ignore = () => {};
const NOT_RECORDED = { recording: false, set: ignore, rename: ignore, step: ignore, end: ignore };

function contextOf(parent: TraceHeaders | TraceContext | undefined): TraceContext | undefined {
  return parent === undefined || "traceId" in parent ? parent : parseTrace(parent);
}

function exporting({ sampleRatio, alwaysFailed }: TelemetrySettings, exporter: SpanExporter, clock: Clock): Spans {
  const originAt = fineClock(clock);
  return {
    begin(name, kind, parent, attributes, startedAt = performance.now()) {
      const from = contextOf(parent);
      const context = childContext(from, sampleRatio);
      // What a client does not want traced is not; what only the ratio left out is, when it fails.
      const onlyFailed = !context.sampled && from === undefined && alwaysFailed;
      if (!context.sampled && !onlyFailed) return { context, ...NOT_RECORDED };
      const under = from === undefined ? undefined : { spanId: from.spanId, remote: from !== parent };
      const origin = originAt(performance.now());
      return new RecordedSpan(exporter, { origin, startedAt, onlyFailed }, name, kind, context, under, attributes);
    },
    close: exporter.close,
  };
}

const MAX_STEPS = 32;
const COMPARE_EVERY_MS = 1000;
const MAX_DRIFT_MS = 20;

/** What to add to `performance.now()` for the time in fractions of milliseconds. Follows the clock when that is set. */
function fineClock(clock: Clock): (now: number) => number {
  let origin = clock() - performance.now();
  let compared = 0;
  return (now) => {
    if (now - compared > COMPARE_EVERY_MS) {
      compared = now;
      if (Math.abs(clock() - origin - now) > MAX_DRIFT_MS) origin = clock() - now;
    }
    return origin;
  };
}

/** A span that is under way. What remains of it afterwards is its text. */
class RecordedSpan implements Span {
  readonly context: TraceContext;
  readonly #exporter: SpanExporter;
  #name: string;
  readonly #kind: SpanKind;
  readonly #parent: FinishedSpan["parent"];
  readonly #attributes: Record<string, string | number | boolean | undefined>;
  /** Kept until the end, because the clock may be set meanwhile. */
  readonly #origin: number;
  readonly #started: number;
  readonly #onlyFailed: boolean;
  #steps: { readonly name: string; readonly at: number }[] | undefined;
  #ended = false;

  constructor(
    exporter: SpanExporter,
    { origin, startedAt, onlyFailed }: { origin: number; startedAt: number; onlyFailed: boolean },
    name: string,
    kind: SpanKind,
    context: TraceContext,
    parent: FinishedSpan["parent"],
    attributes: SpanAttributes,
  ) {
    this.#exporter = exporter;
    this.#origin = origin;
    this.#started = startedAt;
    this.#onlyFailed = onlyFailed;
    this.#name = name;
    this.#kind = kind;
    this.context = context;
    this.#parent = parent;
    this.#attributes = { ...attributes };
  }

  get recording(): boolean {
    return !this.#onlyFailed;
  }
  set(key: string, value: string | number | boolean): void {
    this.#attributes[key] = value;
  }
  rename(name: string): void {
    this.#name = name;
  }
  step(name: string, at = performance.now()): void {
    this.#steps ??= [];
    if (this.#steps.length < MAX_STEPS) this.#steps.push({ name, at: this.#origin + at });
  }

  end(error?: string, description?: string): void {
    if (this.#ended) return;
    this.#ended = true;
    if (error === undefined && this.#onlyFailed) return;
    if (error !== undefined) this.#attributes["error.type"] = error;
    this.#exporter.add(
      spanJson({
        name: this.#name,
        kind: this.#kind,
        context: this.context,
        parent: this.#parent,
        startedAt: this.#origin + this.#started,
        endedAt: this.#origin + performance.now(),
        attributes: this.#attributes,
        ...(this.#steps !== undefined && { events: this.#steps }),
        error: error === undefined ? undefined : { description },
      }),
    );
  }
}
