/**
 * Numbers of the running gateway. The call path only adds to plain counters (0.2 µs); OpenTelemetry's Prometheus writer, which takes
 * some 50 ms to load, is loaded when somebody first asks for the text.
 */
import type { Attributes } from "@opentelemetry/api";
import type { MetricData } from "@opentelemetry/sdk-metrics";
import type { ErrorCode } from "../core/errors.ts";

/** One finished call. Names come from the catalogue, never from the client: each distinct value is a series for ever. */
export interface MeasuredCall {
  readonly method: string;
  readonly tool?: string | undefined;
  readonly prompt?: string | undefined;
  /** The upstream's name. */
  readonly server?: string | undefined;
  /** As in its audit record. */
  readonly outcome: string;
  /** JSON-RPC code, or `tool_error`. */
  readonly errorType?: string | undefined;
  readonly seconds: number;
}

/** One upstream, now; the members of `UpstreamState` with its name. */
export interface MeasuredUpstream {
  readonly name: string;
  readonly state: string;
  readonly size: number;
  readonly inFlight: number;
  readonly queued: number;
  readonly restarts: number;
}

export interface Metrics {
  call(call: MeasuredCall): void;
  /** A request that was answered with an error of ours. */
  refused(code: ErrorCode): void;
  /** What is read when somebody asks; a later function takes the place of an earlier one. */
  observeUpstreams(read: () => readonly MeasuredUpstream[]): void;
  observeSessions(read: () => number): void;
  observeJournal(read: () => number): void;
  /** Prometheus text exposition format 0.0.4. */
  metricsText(): Promise<string>;
}

/** Seconds. From half a millisecond, because that is what the gateway itself adds, to the longest call. */
const BUCKETS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];
/** Beyond so many series of calls, further ones are counted together as `_other`. */
const MAX_SERIES = 2000;

interface Series {
  readonly attributes: Attributes;
  readonly counts: number[];
  count: number;
  sum: number;
}

/** `droppedSpans` is read when somebody asks. */
export function createMetrics(serviceName: string, droppedSpans?: () => number): Metrics {
  const calls = new Map<string, Series>();
  const refusals = new Map<ErrorCode, number>();
  let upstreams: () => readonly MeasuredUpstream[] = () => [];
  let sessions: (() => number) | undefined;
  let journal: (() => number) | undefined;

  function seriesOf(call: MeasuredCall): Series {
    const { method, tool, prompt, server, outcome, errorType } = call;
    const key = `${method}\n${server}\n${tool}\n${prompt}\n${outcome}\n${errorType}`;
    const known = calls.get(key);
    if (known !== undefined) return known;
    if (calls.size >= MAX_SERIES && method !== "_other") return seriesOf({ method: "_other", outcome, seconds: 0 });
    const series = {
      attributes: callAttributes(call),
      counts: new Array<number>(BUCKETS.length + 1).fill(0),
      count: 0,
      sum: 0,
    };
    calls.set(key, series);
    return series;
  }

  function collect(kinds: Kinds): MetricData[] {
    const up = safely(upstreams, []);
    const perUpstream = (value: (upstream: MeasuredUpstream) => number) =>
      up.map((each): Point => [{ "drawbridge.server": each.name }, value(each)]);
    const { cpuUser, cpuSystem, rss, heap } = processNumbers();
    return [
      kinds.histogram(
        "mcp.server.operation.duration.seconds",
        "How long calls took, from request to answer.",
        calls.values(),
      ),
      kinds.counter(
        "drawbridge.refusals",
        "Requests answered with an error of the gateway, by its code.",
        [...refusals].map(([code, n]): Point => [{ code }, n]),
      ),
      kinds.gauge(
        "drawbridge.upstream.ready",
        "1 when the upstream can be called.",
        perUpstream(({ state }) => Number(state === "ready")),
      ),
      kinds.gauge(
        "drawbridge.upstream.size",
        "Processes or connections of the upstream.",
        perUpstream(({ size }) => size),
      ),
      kinds.gauge(
        "drawbridge.upstream.in_flight",
        "Calls under way.",
        perUpstream(({ inFlight }) => inFlight),
      ),
      kinds.gauge(
        "drawbridge.upstream.queued",
        "Calls that wait for the upstream.",
        perUpstream(({ queued }) => queued),
      ),
      kinds.counter(
        "drawbridge.upstream.restarts",
        "Times the upstream was started again.",
        perUpstream(({ restarts }) => restarts),
      ),
      kinds.gauge("drawbridge.sessions", "Open sessions of clients.", one(sessions)),
      kinds.gauge("drawbridge.audit.pending", "Audit records not on disk yet.", one(journal)),
      kinds.counter("drawbridge.spans.dropped", "Spans that did not reach the collector.", one(droppedSpans)),
      kinds.counter("process.cpu.time.seconds", "CPU time of this process.", [
        [{ "cpu.mode": "user" }, cpuUser],
        [{ "cpu.mode": "system" }, cpuSystem],
      ]),
      kinds.gauge("process.memory.usage.bytes", "Resident memory of this process.", [[{}, rss]]),
      kinds.gauge("v8js.memory.heap.used.bytes", "Used heap of this process.", [[{}, heap]]),
    ].filter(({ dataPoints }) => dataPoints.length > 0);
  }

  let writer: Promise<(metrics: (kinds: Kinds) => MetricData[]) => string> | undefined;
  return {
    call(call) {
      const series = seriesOf(call);
      let bucket = 0;
      while (bucket < BUCKETS.length && call.seconds > (BUCKETS[bucket] ?? 0)) bucket++;
      series.counts[bucket] = (series.counts[bucket] ?? 0) + 1;
      series.count++;
      series.sum += call.seconds;
    },
    refused(code) {
      refusals.set(code, (refusals.get(code) ?? 0) + 1);
    },
    observeUpstreams(read) {
      upstreams = read;
    },
    observeSessions(read) {
      sessions = read;
    },
    observeJournal(read) {
      journal = read;
    },
    async metricsText() {
      writer ??= prometheusWriter(serviceName);
      return (await writer)(collect);
    },
  };
}

function callAttributes({ method, tool, prompt, server, outcome, errorType }: MeasuredCall): Attributes {
  return {
    "mcp.method.name": method,
    ...(server === undefined ? undefined : { "drawbridge.server": server }),
    ...(tool === undefined ? undefined : { "gen_ai.tool.name": tool }),
    ...(prompt === undefined ? undefined : { "gen_ai.prompt.name": prompt }),
    "drawbridge.outcome": outcome,
    ...(errorType === undefined ? undefined : { "error.type": errorType }),
  };
}

type Point = readonly [attributes: Attributes, value: number];
const one = (read: (() => number) | undefined): readonly Point[] =>
  read === undefined ? [] : [[{}, safely(read, Number.NaN)]];

/** A gauge that cannot be read must not cost the others. */
function safely<T>(read: () => T, otherwise: T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

function processNumbers(): { cpuUser: number; cpuSystem: number; rss: number; heap: number } {
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  return { cpuUser: user / 1e6, cpuSystem: system / 1e6, rss, heap: heapUsed };
}

/** Makes OpenTelemetry's form of each kind of metric. */
interface Kinds {
  histogram(name: string, description: string, series: Iterable<Series>): MetricData;
  counter(name: string, description: string, points: readonly Point[]): MetricData;
  gauge(name: string, description: string, points: readonly Point[]): MetricData;
}

async function prometheusWriter(serviceName: string): Promise<(metrics: (kinds: Kinds) => MetricData[]) => string> {
  const [{ PrometheusSerializer }, sdk, { resourceFromAttributes }, { ValueType }] = await Promise.all([
    import("@opentelemetry/exporter-prometheus"),
    import("@opentelemetry/sdk-metrics"),
    import("@opentelemetry/resources"),
    import("@opentelemetry/api"),
  ]);
  const common = (name: string, description: string) => ({
    descriptor: { name, description, unit: "", valueType: ValueType.DOUBLE },
    aggregationTemporality: sdk.AggregationTemporality.CUMULATIVE,
  });
  const point = <T>(attributes: Attributes, value: T) => {
    const never: [number, number] = [0, 0]; // No timestamps are written.
    return { attributes, value, startTime: never, endTime: never };
  };
  const points = (all: readonly Point[]) => all.map(([attributes, value]) => point(attributes, value));
  const kinds: Kinds = {
    histogram: (name, description, series) => ({
      ...common(name, description),
      dataPointType: sdk.DataPointType.HISTOGRAM,
      dataPoints: [...series].map(({ attributes, counts, count, sum }) =>
        point(attributes, { buckets: { boundaries: BUCKETS, counts }, count, sum }),
      ),
    }),
    counter: (name, description, all) => ({
      ...common(name, description),
      dataPointType: sdk.DataPointType.SUM,
      isMonotonic: true,
      dataPoints: points(all),
    }),
    gauge: (name, description, all) => ({
      ...common(name, description),
      dataPointType: sdk.DataPointType.GAUGE,
      dataPoints: points(all),
    }),
  };
  const serializer = new PrometheusSerializer(undefined, false, undefined, false, true);
  const resource = resourceFromAttributes({ "service.name": serviceName });
  const scope = { name: "drawbridge" };
  return (metrics) => `${serializer.serialize({ resource, scopeMetrics: [{ scope, metrics: metrics(kinds) }] })}\n`;
}
