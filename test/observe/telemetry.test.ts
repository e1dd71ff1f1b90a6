import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { createLogger, silentLogger } from "../../src/observe/logger.ts";
import { telemetrySettings } from "../../src/observe/settings.ts";
import { createTelemetry, traceparent } from "../../src/observe/telemetry.ts";
import { parseTrace } from "../../src/observe/trace-context.ts";
import { verifies } from "../requirements.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const SPAN = "b7ad6b7169203331";

describe("trace context", () => {
  verifies("meta-trace", "of a caller is taken over", () => {
    expect(
      parseTrace({ traceparent: `00-${TRACE}-${SPAN}-01`, tracestate: "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7" }),
    ).toEqual({
      traceId: TRACE,
      spanId: SPAN,
      sampled: true,
      tracestate: "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7",
    });
    expect(parseTrace({ traceparent: `00-${TRACE}-${SPAN}-00` })).toMatchObject({
      sampled: false,
      tracestate: undefined,
    });
    // §2.2.1: a later version may have more after what this one knows.
    expect(parseTrace({ traceparent: `cc-${TRACE}-${SPAN}-03-what-comes` })).toMatchObject({
      traceId: TRACE,
      sampled: true,
    });
  });

  const malformed: readonly [string, string][] = [
    ["empty", ""],
    ["upper-case", `00-${TRACE.toUpperCase()}-${SPAN}-01`],
    ["short", `00-${TRACE.slice(1)}-${SPAN}-01`],
    ["with a trace id of zeros", `00-${"0".repeat(32)}-${SPAN}-01`],
    ["with a span id of zeros", `00-${TRACE}-${"0".repeat(16)}-01`],
    ["of version ff", `ff-${TRACE}-${SPAN}-01`],
    ["of version 00 with more behind", `00-${TRACE}-${SPAN}-01-more`],
    ["with a line break", `00-${TRACE}-${SPAN}-01\n`],
    ["with white space before", ` 00-${TRACE}-${SPAN}-01`],
    ["without flags", `00-${TRACE}-${SPAN}`],
  ];
  for (const [what, traceparent] of malformed) {
    test(`that is ${what} is refused, and a new trace begins`, async () => {
      expect(parseTrace({ traceparent })).toBeUndefined();
      const telemetry = await createTelemetry(telemetrySettings.parse({}), silentLogger);
      const { context } = telemetry.begin("ping", "server", { traceparent, tracestate: "a=b" }, {});
      expect(context.traceId).toMatch(/^[0-9a-f]{32}$/);
      expect(context.traceId).not.toBe(TRACE);
      expect(context.tracestate).toBeUndefined();
    });
  }

  test("that is no text at all is refused", () => {
    expect(parseTrace({ traceparent: 7 as unknown as string })).toBeUndefined();
    expect(parseTrace({ traceparent: `00-${TRACE}-${SPAN}-01`, tracestate: {} as unknown as string })).toMatchObject({
      tracestate: undefined,
    });
  });

  test("with a bad tracestate keeps its traceparent alone", () => {
    for (const tracestate of [
      "a",
      "a=b,a=c",
      "A=b",
      "a=b\r\nx: y",
      "=b",
      "a=",
      `a=${"x".repeat(600)}`,
      `${"a=b,".repeat(40)}`,
      "ü=1",
    ]) {
      expect(parseTrace({ traceparent: `00-${TRACE}-${SPAN}-01`, tracestate })).toMatchObject({
        traceId: TRACE,
        tracestate: undefined,
      });
    }
  });
});

describe("without a collector", () => {
  test("spans are ids below their parent, and follow its sampling", async () => {
    await using telemetry = await createTelemetry(telemetrySettings.parse({}), silentLogger);
    const server = telemetry.begin(
      "tools/call x",
      "server",
      { traceparent: `00-${TRACE}-${SPAN}-00`, tracestate: "a=b" },
      {},
    );
    const client = telemetry.begin("tools/call x", "client", server.context, {});
    expect(server.context).toMatchObject({ traceId: TRACE, sampled: false, tracestate: "a=b" });
    expect(client.context.traceId).toBe(TRACE);
    expect(new Set([SPAN, server.context.spanId, client.context.spanId]).size).toBe(3);
    expect(parseTrace({ traceparent: traceparent(client.context) })).toMatchObject({ spanId: client.context.spanId });
    server.set("a", 1);
    server.end("-32602", "bad");
  });

  test("the share of sampled new traces is the one asked for", async () => {
    for (const [ratio, least, most] of [
      [0, 0, 0],
      [1, 1000, 1000],
      [0.5, 400, 600],
    ] as const) {
      const telemetry = await createTelemetry(telemetrySettings.parse({ sampleRatio: ratio }), silentLogger);
      const spans = Array.from({ length: 1000 }, () => telemetry.begin("ping", "server", undefined, {}));
      const sampled = spans.filter(({ context }) => context.sampled).length;
      expect(sampled).toBeGreaterThanOrEqual(least);
      expect(sampled).toBeLessThanOrEqual(most);
    }
  });
});

interface SentSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly attributes: readonly { key: string; value: Record<string, unknown> }[];
  readonly status: { code: number; message?: string };
}

/** An OTLP/HTTP collector that keeps what it is sent. */
async function collector(
  status = 200,
): Promise<{ url: string; spans: SentSpan[]; headers: string[] } & AsyncDisposable> {
  const spans: SentSpan[] = [];
  const headers: string[] = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    if (request.url === "/v1/traces") {
      headers.push(String(request.headers["x-team"]));
      const sent = JSON.parse(body) as { resourceSpans: { scopeSpans: { spans: SentSpan[] }[] }[] };
      for (const { scopeSpans } of sent.resourceSpans) for (const scope of scopeSpans) spans.push(...scope.spans);
    }
    response.writeHead(status, { "content-type": "application/json" }).end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    headers,
    [Symbol.asyncDispose]: stop,
  };
}

describe("with a collector", () => {
  test("a call arrives as a server span and a client span of the caller's trace", async () => {
    await using sink = await collector();
    const settings = telemetrySettings.parse({ otlpEndpoint: `${sink.url}/`, otlpHeaders: { "x-team": "gate" } });
    const telemetry = await createTelemetry(settings, silentLogger);
    const attributes = { "mcp.method.name": "tools/call", "gen_ai.tool.name": "lookup", absent: undefined };
    const server = telemetry.begin(
      "tools/call lookup",
      "server",
      { traceparent: `00-${TRACE}-${SPAN}-01` },
      attributes,
    );
    const client = telemetry.begin("tools/call lookup", "client", server.context, attributes);
    client.end();
    server.set("drawbridge.rule", "support");
    server.end("-32602", "no such order");
    await telemetry.close();

    expect(sink.headers).toContain("gate");
    const [sentClient, sentServer] = [SPAN_KIND.client, SPAN_KIND.server].map((kind) =>
      sink.spans.find((span) => span.kind === kind),
    );
    expect(sentServer).toMatchObject({
      traceId: TRACE,
      spanId: server.context.spanId,
      parentSpanId: SPAN,
      name: "tools/call lookup",
      status: { code: 2, message: "no such order" },
    });
    expect(sentClient).toMatchObject({ traceId: TRACE, parentSpanId: server.context.spanId, status: { code: 0 } });
    const sent = Object.fromEntries(
      (sentServer?.attributes ?? []).map(({ key, value }) => [key, value["stringValue"]]),
    );
    expect(sent).toEqual({
      "mcp.method.name": "tools/call",
      "gen_ai.tool.name": "lookup",
      "drawbridge.rule": "support",
      "error.type": "-32602",
    });
  });

  test("unsampled traces are not sent, and their ids go on all the same", async () => {
    await using sink = await collector();
    const telemetry = await createTelemetry(
      telemetrySettings.parse({ otlpEndpoint: sink.url, sampleRatio: 0 }),
      silentLogger,
    );
    const own = telemetry.begin("ping", "server", undefined, {});
    const followed = telemetry.begin("ping", "server", { traceparent: `00-${TRACE}-${SPAN}-01` }, {});
    expect(own.context.sampled).toBe(false);
    expect(traceparent(own.context)).toMatch(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/);
    own.end();
    followed.end();
    await telemetry.close();
    expect(sink.spans.map(({ traceId }) => traceId)).toEqual([TRACE]);
  });

  test("a collector that refuses costs one line in the log a minute, and closing still ends", async () => {
    await using sink = await collector(400);
    const lines: string[] = [];
    const logger = createLogger({ level: "info", format: "json" }, { write: (line) => lines.push(line) });
    const telemetry = await createTelemetry(telemetrySettings.parse({ otlpEndpoint: sink.url }), logger);
    for (let n = 0; n < 3000; n++) telemetry.begin("ping", "server", undefined, {}).end();
    await telemetry.close();
    expect(sink.headers.length).toBeGreaterThan(1);
    expect(lines.filter((line) => line.includes("telemetry cannot be exported"))).toHaveLength(1);
  });

  const SPAN_KIND = { server: 2, client: 3 };
});

describe("metrics", () => {
  test("are written as Prometheus reads them", async () => {
    await using telemetry = await createTelemetry(telemetrySettings.parse({}), silentLogger);
    const call = { method: "tools/call", tool: 'odd"\\\nname', server: "orders", outcome: "permitted" };
    telemetry.call({ ...call, seconds: 0.0004 });
    telemetry.call({ ...call, seconds: 0.003 });
    telemetry.call({ ...call, seconds: 1e6 });
    telemetry.call({ method: "tools/call", outcome: "failed", errorType: "tool_error", seconds: 0.01 });
    telemetry.refused("unauthenticated");
    telemetry.refused("unauthenticated");
    telemetry.observeUpstreams(() => [
      { name: "orders", state: "ready", size: 2, inFlight: 3, queued: 4, restarts: 5 },
    ]);
    telemetry.observeSessions(() => 7);
    telemetry.observeJournal(() => {
      throw new Error("not yet");
    });
    const text = await telemetry.metricsText();
    const name = "mcp_server_operation_duration_seconds";
    const labels =
      'mcp_method_name="tools/call",drawbridge_server="orders",gen_ai_tool_name="odd\\"\\\\\\nname",drawbridge_outcome="permitted"';
    const lines = text.split("\n");
    expect(lines).toContain(`# TYPE ${name} histogram`);
    expect(lines).toContain(`${name}_bucket{${labels},le="0.0005"} 1`);
    expect(lines).toContain(`${name}_bucket{${labels},le="0.0025"} 1`);
    expect(lines).toContain(`${name}_bucket{${labels},le="0.005"} 2`);
    expect(lines).toContain(`${name}_bucket{${labels},le="600"} 2`);
    expect(lines).toContain(`${name}_bucket{${labels},le="+Inf"} 3`);
    expect(lines).toContain(`${name}_count{${labels}} 3`);
    expect(text).toContain('drawbridge_outcome="failed",error_type="tool_error"');
    expect(lines).toContain('drawbridge_refusals_total{code="unauthenticated"} 2');
    expect(lines).toContain('drawbridge_upstream_ready{drawbridge_server="orders"} 1');
    expect(lines).toContain('drawbridge_upstream_queued{drawbridge_server="orders"} 4');
    expect(lines).toContain('drawbridge_upstream_restarts_total{drawbridge_server="orders"} 5');
    expect(lines).toContain("drawbridge_sessions 7");
    expect(lines).toContain("drawbridge_audit_pending NaN");
    expect(text).toMatch(/^process_memory_usage_bytes \d+$/m);
    expect(text.endsWith("\n")).toBe(true);
    const sample = /^[a-z_][a-z0-9_]*(\{([a-z_]+="([^"\\\n]|\\.)*",?)+\})? (NaN|[+-]?\d[\d.e+-]*)$/i;
    for (const line of lines.filter((each) => each !== "" && !each.startsWith("#"))) expect(line).toMatch(sample);
  });

  test("have a bound: what comes after 2000 series is counted together", async () => {
    await using telemetry = await createTelemetry(telemetrySettings.parse({}), silentLogger);
    for (let n = 0; n < 2500; n++)
      telemetry.call({ method: "tools/call", tool: `t${n}`, outcome: "permitted", seconds: 0.001 });
    const text = await telemetry.metricsText();
    expect(text.match(/_seconds_count\{/g)).toHaveLength(2001);
    expect(text).toContain(
      'mcp_server_operation_duration_seconds_count{mcp_method_name="_other",drawbridge_outcome="permitted"} 500',
    );
  });
});
