import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, test } from "vitest";
import { createLogger, silentLogger } from "../../src/observe/logger.ts";
import { telemetrySettings } from "../../src/observe/settings.ts";
import { createTelemetry, type Telemetry, traceparent } from "../../src/observe/telemetry.ts";
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
  readonly traceState?: string;
  readonly flags: number;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { key: string; value: Record<string, unknown> }[];
  readonly status: { code: number; message?: string };
}

interface Collector extends AsyncDisposable {
  readonly url: string;
  readonly spans: SentSpan[];
  readonly headers: string[];
  readonly resources: unknown[];
  stop(): Promise<void>;
}

/** An OTLP/HTTP collector that keeps what it is sent, and gives its answers in turn, the last one again and again. */
async function collector(
  ...answers: readonly (readonly [status: number, body: string] | "silence")[]
): Promise<Collector> {
  const spans: SentSpan[] = [];
  const headers: string[] = [];
  const resources: unknown[] = [];
  let asked = 0;
  const server = createServer(async (request, response) => {
    const answer = answers[Math.min(asked++, answers.length - 1)] ?? ([200, "{}"] as const);
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    headers.push(String(request.headers["x-team"]));
    const sent = JSON.parse(body) as { resourceSpans: { resource: unknown; scopeSpans: { spans: SentSpan[] }[] }[] };
    if (answer === "silence") return;
    for (const { resource, scopeSpans } of answer[0] === 200 && request.url === "/v1/traces"
      ? sent.resourceSpans
      : []) {
      resources.push(resource);
      for (const scope of scopeSpans) spans.push(...scope.spans);
    }
    response.writeHead(answer[0], { "content-type": "application/json" }).end(answer[1]);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return { url, spans, headers, resources, stop, [Symbol.asyncDispose]: stop };
}

/** A logger and what it has said of failed exports. */
function listening() {
  const lines: string[] = [];
  const logger = createLogger({ level: "info", format: "json" }, { write: (line) => lines.push(line) });
  return { logger, complaints: () => lines.filter((line) => line.includes("telemetry cannot be exported")) };
}

const droppedSpans = async (telemetry: Telemetry) =>
  Number(/^drawbridge_spans_dropped_total (\d+)$/m.exec(await telemetry.metricsText())?.[1]);

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

  test.each([
    [true, ["failed"]],
    [false, []],
  ])("a request that failed is sent though the ratio left it out: %s", async (alwaysFailed, sent) => {
    await using sink = await collector();
    const settings = telemetrySettings.parse({ otlpEndpoint: sink.url, sampleRatio: 0, alwaysFailed });
    const telemetry = await createTelemetry(settings, silentLogger);
    const went = telemetry.begin("well", "server", undefined, {});
    const failed = telemetry.begin("failed", "server", undefined, {});
    const below = telemetry.begin("below", "client", failed.context, {});
    // Who calls does not want it traced.
    const unwanted = telemetry.begin("unwanted", "server", { traceparent: `00-${TRACE}-${SPAN}-00` }, {});
    expect([went, failed, below, unwanted].map(({ recording, context }) => [recording, context.sampled])).toEqual(
      Array.from({ length: 4 }, () => [false, false]),
    );
    went.end();
    for (const span of [below, failed, unwanted]) span.end("-32603");
    await telemetry.close();
    expect(sink.spans.map(({ name }) => name)).toEqual(sent);
  });

  test("a span has the name it was given last, begins when it is said to, and tells its steps in order", async () => {
    await using sink = await collector();
    const telemetry = await createTelemetry(telemetrySettings.parse({ otlpEndpoint: sink.url }), silentLogger);
    const began = performance.now() - 50;
    const span = telemetry.begin("tools/call", "server", undefined, {}, began);
    span.step("authenticate", began + 20);
    span.step("authorize");
    for (let more = 0; more < 100; more++) span.step("more");
    span.rename("tools/call orders");
    span.end();
    await telemetry.close();
    const [sent] = sink.spans as unknown as {
      name: string;
      startTimeUnixNano: string;
      events: { name: string; timeUnixNano: string }[];
    }[];
    expect(sent).toMatchObject({ name: "tools/call orders" });
    expect(sent?.events.slice(0, 3).map(({ name }) => name)).toEqual(["authenticate", "authorize", "more"]);
    expect(sent?.events).toHaveLength(32);
    const msAfter = (at: string | undefined) => Number(BigInt(at ?? 0) - BigInt(sent?.startTimeUnixNano ?? 0)) / 1e6;
    expect(msAfter(sent?.events[0]?.timeUnixNano)).toBeCloseTo(20, 1);
    expect(msAfter(sent?.events[1]?.timeUnixNano)).toBeGreaterThanOrEqual(50);
  });

  test("a collector that refuses costs one line in the log a minute, and closing still ends", async () => {
    await using sink = await collector([400, "who are you?"]);
    const { logger, complaints } = listening();
    const telemetry = await createTelemetry(telemetrySettings.parse({ otlpEndpoint: sink.url }), logger);
    for (let n = 0; n < 3000; n++) telemetry.begin("ping", "server", undefined, {}).end();
    await telemetry.close();
    expect(sink.headers.length).toBeGreaterThan(1);
    expect(complaints()).toHaveLength(1);
    expect(complaints()[0]).toContain("status 400: who are you?");
    expect(await droppedSpans(telemetry)).toBe(3000);
  });

  test("a span has the form that OTLP asks for", async () => {
    await using sink = await collector();
    const telemetry = await createTelemetry(telemetrySettings.parse({ otlpEndpoint: sink.url }), silentLogger);
    const parent = { traceparent: `00-${TRACE}-${SPAN}-01`, tracestate: "a=b" };
    const before = Date.now();
    const server = telemetry.begin('odd "name"\n\ud800', "server", parent, {
      text: "naïve 漢字",
      whole: 7,
      part: 0.5,
      yes: true,
      none: Number.NaN,
      huge: 1e300,
      long: "x".repeat(5000),
      absent: undefined,
    });
    const client = telemetry.begin("below", "client", server.context, {});
    server.set("whole", 8);
    client.end();
    server.end();
    server.end("again");
    const root = telemetry.begin("root", "server", undefined, {});
    root.end("-32000");
    await telemetry.close();

    const [sentClient, sentServer, sentRoot] = ["below", 'odd "name"\n\ud800', "root"].map((name) =>
      sink.spans.find((span) => span.name === name),
    );
    expect(sink.spans).toHaveLength(3);
    expect(sentServer).toMatchObject({ traceState: "a=b", flags: 0x301, status: { code: 0 } });
    expect(sentServer?.attributes).toEqual([
      { key: "text", value: { stringValue: "naïve 漢字" } },
      { key: "whole", value: { intValue: "8" } },
      { key: "part", value: { doubleValue: 0.5 } },
      { key: "yes", value: { boolValue: true } },
      { key: "none", value: { doubleValue: "NaN" } },
      { key: "huge", value: { doubleValue: 1e300 } },
      { key: "long", value: { stringValue: "x".repeat(1024) } },
    ]);
    expect(sentClient).toMatchObject({ traceState: "a=b", flags: 0x101, parentSpanId: server.context.spanId });
    expect(sentRoot).toMatchObject({ flags: 0x101, status: { code: 2 } });
    expect(sentRoot).not.toHaveProperty("parentSpanId");
    const [from, to, innerFrom, innerTo] = [sentServer, sentClient].flatMap((span) => [
      BigInt(span?.startTimeUnixNano ?? 0),
      BigInt(span?.endTimeUnixNano ?? 0),
    ]) as [bigint, bigint, bigint, bigint];
    expect(Number(from / 1_000_000n)).toBeGreaterThanOrEqual(before - 20);
    expect(from <= innerFrom && innerFrom <= innerTo && innerTo <= to).toBe(true);
  });

  test("the environment adds to the resource and to the headers, the settings win", async () => {
    await using sink = await collector();
    const settings = telemetrySettings.parse({ otlpEndpoint: sink.url, serviceName: "gate" });
    const telemetry = await createTelemetry(settings, silentLogger, {
      OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=pro%20duction, service.name=other,broken,bad=%zz",
      OTEL_EXPORTER_OTLP_HEADERS: "x-team=blue",
    });
    telemetry.begin("ping", "server", undefined, {}).end();
    await telemetry.close();
    expect(sink.headers).toEqual(["blue"]);
    expect(sink.resources).toEqual([
      {
        attributes: [
          { key: "deployment.environment.name", value: { stringValue: "pro duction" } },
          { key: "service.name", value: { stringValue: "gate" } },
        ],
      },
    ]);
  });

  test("an address that is no URL is refused at the start", async () => {
    for (const otlpEndpoint of ["collector:4318", "nonsense", "file:///tmp"]) {
      const settings = { ...telemetrySettings.parse({}), otlpEndpoint };
      await expect(createTelemetry(settings, silentLogger)).rejects.toMatchObject({ code: "settings_invalid" });
    }
  });

  test("an overloaded collector is asked a second time", async () => {
    await using sink = await collector([503, ""], [200, ""]);
    const { logger, complaints } = listening();
    const telemetry = await createTelemetry(telemetrySettings.parse({ otlpEndpoint: sink.url }), logger);
    telemetry.begin("ping", "server", undefined, {}).end();
    await telemetry.close();
    expect(sink.spans).toHaveLength(1);
    expect(complaints()).toEqual([]);
  });

  test("a collector that is not there costs one line and its spans, and closing still ends", async () => {
    const sink = await collector();
    await sink.stop();
    const { logger, complaints } = listening();
    const telemetry = await createTelemetry(telemetrySettings.parse({ otlpEndpoint: sink.url }), logger);
    telemetry.begin("ping", "server", undefined, {}).end();
    await telemetry.close();
    telemetry.begin("late", "server", undefined, {}).end();
    expect(complaints()).toHaveLength(1);
    expect(await droppedSpans(telemetry)).toBe(2);
  });

  test("spans that a collector rejects are counted", async () => {
    const partial = JSON.stringify({ partialSuccess: { rejectedSpans: "2", errorMessage: "too old" } });
    await using sink = await collector([200, partial]);
    const { logger, complaints } = listening();
    const telemetry = await createTelemetry(telemetrySettings.parse({ otlpEndpoint: sink.url }), logger);
    for (let n = 0; n < 5; n++) telemetry.begin("ping", "server", undefined, {}).end();
    await telemetry.close();
    expect(complaints()[0]).toContain("too old");
    expect(await droppedSpans(telemetry)).toBe(2);
  });

  test("what waits for a silent collector has a bound, and the rest is dropped and counted", async () => {
    const sink = await collector("silence");
    const { logger } = listening();
    const telemetry = await createTelemetry(telemetrySettings.parse({ otlpEndpoint: sink.url }), logger);
    const text = "x".repeat(1000);
    for (let n = 0; n < 5000; n++) telemetry.begin("ping", "server", undefined, { text }).end();
    const dropped = await droppedSpans(telemetry);
    // 4 MiB of spans of 1.3 kB.
    expect(dropped).toBeGreaterThan(1000);
    expect(dropped).toBeLessThan(3000);
    await sink.stop();
    await telemetry.close();
    expect(await droppedSpans(telemetry)).toBe(5000);
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
