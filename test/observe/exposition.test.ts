/** The text of metrics in both formats, exemplars, and which one is asked for. */
import { expect, test } from "vitest";
import { wantsOpenMetrics } from "../../src/observe/exposition.ts";
import { createMetrics, type MeasuredCall } from "../../src/observe/metrics.ts";

const AT = Date.parse("2026-11-21T10:00:00.500Z");
const exemplar = { traceId: "4bf92f3577b34da6a3ce929d0e0e4736", spanId: "00f067aa0ba902b7", record: "019aa60e-1c9b" };
const call = (more: Partial<MeasuredCall> = {}): MeasuredCall => ({
  method: "tools/call",
  tool: 'quo"ted\\',
  server: "orders",
  outcome: "permitted",
  seconds: 0.003,
  ...more,
});

test.each([
  ["application/openmetrics-text;version=1.0.0,text/plain;q=0.5", true],
  ["application/openmetrics-text; version=1.0.0; q=0.8, text/plain;version=0.0.4;q=0.3,*/*;q=0.2", true],
  ["text/plain;version=0.0.4;q=0.9, application/openmetrics-text;q=0.1", false],
  ["application/openmetrics-text;q=0", false],
  ["text/html,*/*", false],
  ["", false],
  [undefined, false],
])("of %s OpenMetrics is wanted: %s", (accept, wanted) => {
  expect(wantsOpenMetrics(accept)).toBe(wanted);
});

test("both formats have the same samples, and OpenMetrics ends as it must", async () => {
  const metrics = createMetrics("gate", () => 3);
  metrics.call(call());
  metrics.call(call({ outcome: "failed", errorType: "tool_error", seconds: 700 }));
  metrics.refused("rate_limited");
  metrics.masked({ email: 2 });
  metrics.observeUpstreams(() => [
    { name: "orders", state: "ready", size: 1, inFlight: 0, queued: 0, restarts: 2, instances: 4 },
  ]);
  const [plain, open] = [await metrics.metricsText(), await metrics.metricsText(true)];
  const samples = (text: string) =>
    text
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#") && !/^(process|v8js)/.test(line))
      .sort();
  expect(samples(open)).toEqual(samples(plain));
  expect(open.endsWith("\n# EOF\n")).toBe(true);
  expect(open).toContain("# TYPE drawbridge_refusals counter\n");
  expect(open).toContain('drawbridge_refusals_total{code="rate_limited"} 1\n');
  expect(open).toContain('gen_ai_tool_name="quo\\"ted\\\\"');
});

test("each bucket leads to the last call in it, where that is in a trace", async () => {
  const metrics = createMetrics("gate", undefined, () => AT);
  metrics.call(call({ exemplar: { ...exemplar, record: "the one before" } }));
  metrics.call(call({ exemplar }));
  metrics.call(call());
  metrics.call(call({ seconds: 1e4, exemplar: { ...exemplar, record: "slow" } }));
  const lines = (await metrics.metricsText(true)).split("\n").filter((line) => line.includes("# {"));
  const named = `trace_id="${exemplar.traceId}",span_id="${exemplar.spanId}"`;
  expect(lines).toEqual([expect.stringMatching(/le="0.005"\} 3 # \{/), expect.stringMatching(/le="\+Inf"\} 4 # \{/)]);
  expect(lines[0]).toContain(` # {${named},audit_record="019aa60e-1c9b"} 0.003 ${(AT / 1000).toFixed(3)}`);
  // Prometheus' older format has no room for them.
  expect(await metrics.metricsText()).not.toContain("trace_id");
});
