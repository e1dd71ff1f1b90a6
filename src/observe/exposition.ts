/**
 * Metrics as text: Prometheus' format 0.0.4, by OpenTelemetry's writer, and OpenMetrics 1.0
 * (https://prometheus.io/docs/specs/om/open_metrics_spec/), which alone has room for exemplars. The same names and values in both.
 */
import type { Attributes } from "@opentelemetry/api";
import type { MetricData } from "@opentelemetry/sdk-metrics";

export type Point = readonly [attributes: Attributes, value: number];

/** Calls of one kind, by how long they took. */
export interface Series {
  readonly attributes: Attributes;
  readonly counts: number[];
  count: number;
  sum: number;
  /** Of each bucket the last call that is in a trace. */
  readonly exemplars: (Exemplar | undefined)[];
}

/** Leads from a number to one call behind it. */
export interface Exemplar {
  readonly traceId: string;
  readonly spanId: string;
  /** Id of its audit record. */
  readonly record: string;
  readonly value: number;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** One metric. Names have dots; of counters without `_total`. */
export type Family = { readonly name: string; readonly description: string } & (
  | { readonly kind: "histogram"; readonly series: readonly Series[]; readonly buckets: readonly number[] }
  | { readonly kind: "counter" | "gauge"; readonly points: readonly Point[] }
);

// ---- OpenMetrics ----

export const OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/** Whether the client prefers OpenMetrics, as Prometheus does when it keeps exemplars. */
export function wantsOpenMetrics(accept: string | undefined): boolean {
  const weights = new Map<string, number>();
  for (const one of (accept ?? "").slice(0, 2000).toLowerCase().split(",")) {
    const [type = "", ...parameters] = one.split(";").map((part) => part.trim());
    const quality = parameters.find((part) => part.startsWith("q="));
    weights.set(type, Math.max(weights.get(type) ?? 0, quality === undefined ? 1 : Number(quality.slice(2)) || 0));
  }
  const wanted = weights.get("application/openmetrics-text") ?? 0;
  return wanted > 0 && wanted >= (weights.get("text/plain") ?? 0);
}

export function openMetricsText(serviceName: string, families: readonly Family[]): string {
  const lines = [
    "# TYPE target info",
    "# HELP target Target metadata",
    `target_info{service_name=${quoted(serviceName)}} 1`,
  ];
  for (const family of families) {
    const name = nameOf(family.name);
    lines.push(`# TYPE ${name} ${family.kind}`, `# HELP ${name} ${family.description.replaceAll(/[\\\n"]/g, escaped)}`);
    if (family.kind === "histogram")
      for (const series of family.series) lines.push(...histogramLines(name, series, family.buckets));
    else {
      const suffix = family.kind === "counter" ? "_total" : "";
      for (const [attributes, value] of family.points)
        lines.push(`${name}${suffix}${labels(attributes)} ${number(value)}`);
    }
  }
  return `${lines.join("\n")}\n# EOF\n`;
}

function histogramLines(name: string, series: Series, buckets: readonly number[]): readonly string[] {
  const { attributes, counts, count, sum, exemplars } = series;
  let upTo = 0;
  const rows = counts.map((inBucket, at) => {
    upTo += inBucket;
    const le = at < buckets.length ? number(buckets[at] ?? 0) : "+Inf";
    return `${name}_bucket${labels(attributes, `le="${le}"`)} ${upTo}${exemplarText(exemplars[at])}`;
  });
  return [`${name}_count${labels(attributes)} ${count}`, `${name}_sum${labels(attributes)} ${number(sum)}`, ...rows];
}

/** The labels of an exemplar may have 128 characters together; these have 111. */
function exemplarText(exemplar: Exemplar | undefined): string {
  if (exemplar === undefined) return "";
  const { traceId, spanId, record, value, at } = exemplar;
  const named = `trace_id="${traceId}",span_id="${spanId}",audit_record="${record}"`;
  return ` # {${named}} ${number(value)} ${(at / 1000).toFixed(3)}`;
}

function labels(attributes: Attributes, more = ""): string {
  const own = Object.entries(attributes).map(([key, value]) => `${nameOf(key)}=${quoted(String(value))}`);
  const all = [...own, ...(more === "" ? [] : [more])];
  return all.length === 0 ? "" : `{${all.join(",")}}`;
}

const nameOf = (dotted: string) => dotted.replaceAll(/[^a-zA-Z0-9_]/g, "_");
const quoted = (text: string) => `"${text.replaceAll(/[\\\n"]/g, escaped)}"`;
const escaped = (char: string) => (char === "\n" ? "\\n" : `\\${char}`);

function number(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  return Number.isFinite(value) ? String(value) : value > 0 ? "+Inf" : "-Inf";
}

// ---- Prometheus ----

/** Loads OpenTelemetry's writer, which takes some 50 ms. */
export async function prometheusWriter(serviceName: string): Promise<(families: readonly Family[]) => string> {
  const [{ PrometheusSerializer }, sdk, { resourceFromAttributes }, { ValueType }] = await Promise.all([
    import("@opentelemetry/exporter-prometheus"),
    import("@opentelemetry/sdk-metrics"),
    import("@opentelemetry/resources"),
    import("@opentelemetry/api"),
  ]);
  const point = <T>(attributes: Attributes, value: T) => {
    const never: [number, number] = [0, 0]; // No timestamps are written.
    return { attributes, value, startTime: never, endTime: never };
  };
  const metric = (family: Family): MetricData => {
    const { name, description } = family;
    const common = {
      descriptor: { name, description, unit: "", valueType: ValueType.DOUBLE },
      aggregationTemporality: sdk.AggregationTemporality.CUMULATIVE,
    };
    if (family.kind === "histogram")
      return {
        ...common,
        dataPointType: sdk.DataPointType.HISTOGRAM,
        dataPoints: family.series.map(({ attributes, counts, count, sum }) =>
          point(attributes, { buckets: { boundaries: [...family.buckets], counts }, count, sum }),
        ),
      };
    const dataPoints = family.points.map(([attributes, value]) => point(attributes, value));
    return family.kind === "counter"
      ? { ...common, dataPointType: sdk.DataPointType.SUM, isMonotonic: true, dataPoints }
      : { ...common, dataPointType: sdk.DataPointType.GAUGE, dataPoints };
  };
  const serializer = new PrometheusSerializer(undefined, false, undefined, false, true);
  const resource = resourceFromAttributes({ "service.name": serviceName });
  const scope = { name: "drawbridge" };
  return (families) =>
    `${serializer.serialize({ resource, scopeMetrics: [{ scope, metrics: families.map(metric) }] })}\n`;
}
