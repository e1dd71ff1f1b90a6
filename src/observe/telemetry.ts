/** Traces and metrics. Without an OTLP endpoint a span is only its ids, and OpenTelemetry is not even loaded. */
import type { Attributes } from "@opentelemetry/api";
import type { SpanExporter } from "@opentelemetry/sdk-trace";
import type { TraceContext } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import * as events from "./events.ts";
import type { Logger } from "./logger.ts";
import { createMetrics, type Metrics } from "./metrics.ts";
import type { TelemetrySettings } from "./settings.ts";
import { childContext, parseTrace, type TraceHeaders } from "./trace-context.ts";

export { traceparent } from "./trace-context.ts";

export type SpanKind = "server" | "client";
export type SpanAttributes = Readonly<Record<string, string | number | boolean | undefined>>;

export interface Span {
  /** What the next hop is told: `traceparent(span.context)`. */
  readonly context: TraceContext;
  set(key: string, value: string | number | boolean): void;
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
  ): Span;
  /** Sends what is still to be sent, for five seconds at most. */
  close(): Promise<void>;
}

/** Starts telemetry as `settings` say. A collector that is away costs its spans and one line a minute in the log, never a call. */
export async function createTelemetry(
  settings: TelemetrySettings,
  logger: Logger,
  clock: Clock = systemClock,
): Promise<Telemetry> {
  const spans =
    settings.otlpEndpoint === undefined
      ? idsOnly(settings)
      : await exporting(settings, settings.otlpEndpoint, logger, clock);
  return { ...createMetrics(settings.serviceName), ...spans, [Symbol.asyncDispose]: spans.close };
}

type Spans = Pick<Telemetry, "begin" | "close">;

function idsOnly({ sampleRatio }: TelemetrySettings): Spans {
  return {
    begin: (_name, _kind, parent) => ({
      context: childContext(contextOf(parent), sampleRatio),
      set: ignore,
      end: ignore,
    }),
    close: async () => {},
  };
}

const ignore = () => {};

function contextOf(parent: TraceHeaders | TraceContext | undefined): TraceContext | undefined {
  return parent === undefined || "traceId" in parent ? parent : parseTrace(parent);
}

/** About 2 MB of spans at most wait for the collector; beyond that they are dropped. */
const MAX_QUEUED_SPANS = 4096;
const MAX_BATCH_SPANS = 512;
const EXPORT_EVERY_MS = 1000;
const EXPORT_TIMEOUT_MS = 5000;

async function exporting(settings: TelemetrySettings, endpoint: string, logger: Logger, clock: Clock): Promise<Spans> {
  const [api, sdk, { resourceFromAttributes }, { OTLPTraceExporter }] = await Promise.all([
    import("@opentelemetry/api"),
    import("@opentelemetry/sdk-trace"),
    import("@opentelemetry/resources"),
    import("@opentelemetry/exporter-trace-otlp-http"),
  ]);
  const url = `${endpoint.replace(/\/+$/, "")}/v1/traces`;
  const exporter = new OTLPTraceExporter({ url, headers: settings.otlpHeaders, timeoutMillis: EXPORT_TIMEOUT_MS });
  const processor = new sdk.BatchSpanProcessor({
    exporter: complaining(exporter, endpoint, logger, clock),
    maxQueueSize: MAX_QUEUED_SPANS,
    maxExportBatchSize: MAX_BATCH_SPANS,
    scheduledDelayMillis: EXPORT_EVERY_MS,
    exportTimeoutMillis: EXPORT_TIMEOUT_MS,
  });
  const provider = new sdk.TracerProvider({
    resource: resourceFromAttributes({ "service.name": settings.serviceName }),
    sampler: new sdk.ParentBasedSampler({ root: new sdk.TraceIdRatioBasedSampler(settings.sampleRatio) }),
    spanProcessors: [processor],
    spanLimits: { attributeValueLengthLimit: 1024, attributeCountLimit: 64 },
  });
  const tracer = provider.getTracer("drawbridge");
  const kinds = { server: api.SpanKind.SERVER, client: api.SpanKind.CLIENT } as const;

  return {
    begin(name, kind, parent, attributes) {
      const from = contextOf(parent);
      const context =
        from === undefined
          ? api.ROOT_CONTEXT
          : api.trace.setSpanContext(api.ROOT_CONTEXT, {
              traceId: from.traceId,
              spanId: from.spanId,
              traceFlags: from.sampled ? api.TraceFlags.SAMPLED : api.TraceFlags.NONE,
              isRemote: from !== parent,
              ...(from.tracestate === undefined ? undefined : { traceState: api.createTraceState(from.tracestate) }),
            });
      const span = tracer.startSpan(name, { kind: kinds[kind], attributes: attributes as Attributes }, context);
      const { traceId, spanId, traceFlags } = span.spanContext();
      const sampled = (traceFlags & api.TraceFlags.SAMPLED) !== 0;
      return {
        context: { traceId, spanId, sampled, tracestate: from?.tracestate },
        set: (key, value) => void span.setAttribute(key, value),
        end(error, description) {
          if (error !== undefined) {
            span.setAttribute("error.type", error);
            span.setStatus({
              code: api.SpanStatusCode.ERROR,
              ...(description === undefined ? undefined : { message: description }),
            });
          }
          span.end();
        },
      };
    },
    async close() {
      // Every failure was said by the exporter already.
      await provider.shutdown().catch(ignore);
    },
  };
}

const COMPLAIN_EVERY_MS = 60_000;

/** Says once a minute at most that spans cannot be sent. */
function complaining(exporter: SpanExporter, endpoint: string, logger: Logger, clock: Clock): SpanExporter {
  let failures = 0;
  let said = Number.NEGATIVE_INFINITY;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        if (result.error !== undefined) {
          failures++;
          if (clock() - said >= COMPLAIN_EVERY_MS) {
            said = clock();
            events.exportFailing(logger, { endpoint, failures }, result.error);
          }
        }
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: async () => exporter.forceFlush?.(),
  };
}
