/** The sink for OpenTelemetry logs, against a collector that does what the test tells it to. */
import { createServer } from "node:http";
import { afterEach, expect, test } from "vitest";
import type { Sinks } from "../../src/audit/sinks/sinks.ts";
import { sinkLog, until } from "./sink-log.ts";

interface LogRecord {
  readonly timeUnixNano: string;
  readonly severityText: string;
  readonly eventName: string;
  readonly body: { readonly stringValue: string };
  readonly traceId?: string;
  readonly spanId?: string;
  readonly attributes: readonly { readonly key: string; readonly value: Record<string, string> }[];
}

/** OTLP/HTTP with JSON, as the specification has it: what it does not understand it refuses. */
async function collector() {
  const records: LogRecord[] = [];
  const paths = new Set<string>();
  const state = { status: 200, answer: "{}", keys: [] as (string | undefined)[] };
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      paths.add(`${request.method} ${request.url} ${request.headers["content-type"]}`);
      state.keys.push(request.headers["x-key"]?.toString());
      if (state.status === 200) {
        const { resourceLogs } = JSON.parse(Buffer.concat(parts).toString()) as {
          resourceLogs: readonly { scopeLogs: readonly { logRecords: readonly LogRecord[] }[] }[];
        };
        for (const { scopeLogs } of resourceLogs) for (const { logRecords } of scopeLogs) records.push(...logRecords);
      }
      response.writeHead(state.status, { "content-type": "application/json" }).end(state.answer);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    records,
    paths,
    state,
    endpoint: `http://127.0.0.1:${port}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});
async function world() {
  const there = await collector();
  ends.push(there.close);
  const log = sinkLog();
  const start = (): Sinks => {
    const sinks = log.sinks([{ otlp: { endpoint: `${there.endpoint}/`, headers: { "x-key": "abc" } } }]);
    ends.push(() => sinks.close());
    return sinks;
  };
  const caughtUp = (sinks: Sinks) =>
    until(async () => (sinks.state()[0]?.sequence ?? 0) >= (await log.texts()).length, "caught up");
  return { there, log, start, caughtUp };
}

test("each record is a log record with its text, its trace and what it is found by", async () => {
  const { there, log, start, caughtUp } = await world();
  await log.write(1, { outcome: "refused", error: { code: "insufficient_scope", message: "No." } });
  await caughtUp(start());
  expect([...there.paths]).toEqual(["POST /v1/logs application/json"]);
  expect(there.state.keys).toEqual(["abc"]);
  const texts = await log.texts();
  expect(there.records.map(({ body }) => body.stringValue)).toEqual(texts);
  const call = there.records[1];
  expect(call).toMatchObject({
    timeUnixNano: `${Date.parse("2026-11-21T10:00:00.123Z")}000000`,
    severityText: "WARN",
    eventName: "drawbridge.audit.call",
    traceId: "0af7651916cd43dd8448eb211c80319c",
    spanId: "b7ad6b7169203331",
  });
  const attributes = Object.fromEntries(call?.attributes.map(({ key, value }) => [key, Object.values(value)[0]]) ?? []);
  const record = JSON.parse(texts[1] ?? "") as { id: string; chain: { id: string } };
  expect(attributes).toEqual({
    "log.record.uid": record.id,
    "drawbridge.outcome": "refused",
    "mcp.method.name": "tools/call",
    "gen_ai.tool.name": "orders.refund",
    "drawbridge.server": "orders",
    "user.id": "u_1",
    "drawbridge.client": "https://claude.ai/client.json",
    "error.type": "insufficient_scope",
    "drawbridge.chain": record.chain.id,
    "drawbridge.n": "1",
  });
});

test.each([429, 503, 400])("a collector that answers %s under load loses nothing", async (status) => {
  const { there, log, start, caughtUp } = await world();
  const sinks = start();
  await log.write(100);
  await caughtUp(sinks);
  there.state.status = status;
  await log.write(100);
  await until(() => (sinks.state()[0]?.failures ?? 0) > 1, "it has failed twice");
  await log.write(100);
  there.state.status = 200;
  await caughtUp(sinks);
  expect(there.records.map(({ body }) => body.stringValue)).toEqual(await log.texts());
});

test("what a collector rejects is counted, and not sent again", async () => {
  const { there, log, start, caughtUp } = await world();
  there.state.answer = '{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"too old"}}';
  await log.write(5);
  const sinks = start();
  await caughtUp(sinks);
  expect(sinks.state()[0]).toMatchObject({ sent: 6, refused: 2, failures: 0 });
  expect(there.records).toHaveLength(6);
});
