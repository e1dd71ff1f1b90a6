/** One trace for each call, from the client's context to the server's, as a collector gets it. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { modernRequest, type World, world } from "./world.ts";

interface ExportedSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly attributes: { key: string; value: { stringValue?: string; intValue?: unknown; boolValue?: boolean } }[];
  readonly status?: { code?: number };
}
const SERVER = 2;
const CLIENT = 3;
const FAILED = 2;
const SECRET = "the-argument-nobody-may-see";

let folder: string;
let collector: Server;
let bodies: string[];
let one: World;
let http: Fixture;
let token: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-tracing-"));
  bodies = [];
  collector = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => {
      body += chunk;
    });
    request.on("end", () => {
      if (request.url === "/v1/traces") bodies.push(body);
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
  http = await startFixture("echo-http", ["--era", "modern"]);
  one = await world({
    store: `sqlite:${join(folder, "gateway.db")}`,
    servers: { echo: { command: fixtureCommand("echo-stdio") }, web: { url: `${http.origin}/mcp` } },
    telemetry: { otlpEndpoint: `http://127.0.0.1:${(collector.address() as AddressInfo).port}` },
  });
  token = (await one.tokens()).access_token;
});
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await http?.stop();
  collector?.closeAllConnections();
  await new Promise((resolve) => collector?.close(resolve));
  await rm(folder, { recursive: true, force: true });
});

const spans = (): ExportedSpan[] =>
  bodies.flatMap((body) => {
    const { resourceSpans } = JSON.parse(body) as {
      resourceSpans: { scopeSpans: { spans: ExportedSpan[] }[] }[];
    };
    return resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans));
  });
const attribute = (span: ExportedSpan | undefined, key: string) => {
  const value = span?.attributes.find((each) => each.key === key)?.value;
  return value?.stringValue ?? value?.intValue ?? value?.boolValue;
};
/** The two spans of a call, found by the JSON-RPC id it had. */
const traceOf = async (id: string, kinds = [SERVER, CLIENT]) =>
  waitFor(() => {
    const all = spans();
    const server = all.find((span) => span.kind === SERVER && attribute(span, "jsonrpc.request.id") === id);
    const client = all.find((span) => span.kind === CLIENT && span.parentSpanId === server?.spanId);
    return server !== undefined && (client !== undefined || !kinds.includes(CLIENT)) && { server, client };
  });
const call = async (
  id: string,
  name: string,
  args: object = {},
  { meta = {}, headers = {} }: { meta?: object; headers?: Record<string, string> } = {},
) => {
  const [body, own] = modernRequest("tools/call", { name, arguments: args, _meta: meta }, id);
  return (await (await one.post(body, { ...own, ...headers }, token)).json()) as {
    result?: { structuredContent?: { meta?: Record<string, string>; headers?: Record<string, string> } };
  };
};
const PARENT_TRACE = "0af7651916cd43dd8448eb211c80319c";
const PARENT = `00-${PARENT_TRACE}-b7ad6b7169203331-01`;

describe.concurrent("a call", () => {
  test("is one trace: a server span, and below it a client span, with the attributes of the MCP conventions", async () => {
    await call("shape", "echo_echo", { text: SECRET });
    const { server, client } = await traceOf("shape");
    expect(server.name).toMatch(/^tools\/call/);
    expect(server.parentSpanId ?? "").toBe("");
    expect(attribute(server, "mcp.method.name")).toBe("tools/call");
    expect(attribute(server, "mcp.protocol.version")).toBe("2026-07-28");
    expect(attribute(server, "gen_ai.tool.name")).toBe("echo_echo");
    expect(client?.traceId).toBe(server.traceId);
    expect(client?.name).toBe("tools/call echo_echo");
    expect(attribute(client, "mcp.method.name")).toBe("tools/call");
    expect(attribute(client, "gen_ai.tool.name")).toBe("echo");
    expect(attribute(client, "server.address")).toBe("echo");
    expect(spans().filter(({ traceId }) => traceId === server.traceId)).toHaveLength(2);
    expect([server.status?.code ?? 0, client?.status?.code ?? 0]).toEqual([0, 0]);
  });

  test.each([
    ["a failing tool", "echo_fail", "tool_error", [SERVER, CLIENT]],
    ["an error of the server", "echo_rpc-error", "4242", [SERVER, CLIENT]],
    ["an unknown tool", "echo_nothing", "unknown_target", [SERVER]],
  ])("that ends with %s says so", async (_title, name, type, kinds) => {
    await call(`failed-${name}`, name);
    const { server, client } = await traceOf(`failed-${name}`, kinds);
    expect(attribute(server, "error.type")).toBe(type);
    expect(server.status?.code).toBe(FAILED);
    if (kinds.includes(CLIENT)) expect(attribute(client, "error.type")).toBe(type);
  });

  test.each([
    ["_meta", { meta: { traceparent: PARENT, tracestate: "vendor=1" } }],
    ["the HTTP header", { headers: { traceparent: PARENT, tracestate: "vendor=1" } }],
    [
      "_meta, whatever the header says",
      { meta: { traceparent: PARENT }, headers: { traceparent: `00-${"1".repeat(32)}-${"2".repeat(16)}-01` } },
    ],
  ])("goes on with the trace that the client named in %s", async (title, options) => {
    await call(`parent ${title}`, "echo_echo", { text: "hi" }, options);
    const { server } = await traceOf(`parent ${title}`);
    expect([server.traceId, server.parentSpanId]).toEqual([PARENT_TRACE, "b7ad6b7169203331"]);
  });

  test.each([
    "nonsense",
    `00-${"0".repeat(32)}-b7ad6b7169203331-01`,
    `00-${PARENT_TRACE}-${"0".repeat(16)}-01`,
    `ff-${PARENT_TRACE}-b7ad6b7169203331-01`,
    `00-${PARENT_TRACE.toUpperCase()}-b7ad6b7169203331-01`,
    `${PARENT}-more`,
  ])("begins a new trace when the client's context is malformed: %s", async (bad) => {
    for (const [how, options] of [
      ["meta", { meta: { traceparent: bad } }],
      ["header", { headers: { traceparent: bad } }],
    ] as const) {
      await call(`bad ${how} ${bad}`, "echo_echo", { text: "hi" }, options);
      const { server } = await traceOf(`bad ${how} ${bad}`);
      expect(server.traceId).not.toBe(PARENT_TRACE);
      expect(server.parentSpanId ?? "").toBe("");
    }
  });

  verifies("meta-trace", "tells a stdio server our client span as its parent, in `_meta`", async () => {
    const { result } = await call(
      "upstream",
      "echo_meta",
      {},
      { meta: { traceparent: PARENT, tracestate: "vendor=1" } },
    );
    const { client } = await traceOf("upstream");
    expect(result?.structuredContent?.meta).toMatchObject({
      traceparent: `00-${PARENT_TRACE}-${client?.spanId}-01`,
      tracestate: "vendor=1",
    });
  });
  verifies(
    "meta-trace",
    "tells an HTTP server the same, in the header too, and nothing of the client's baggage",
    async () => {
      const seen = await call(
        "upstream-http",
        "web_headers",
        {},
        {
          meta: { traceparent: PARENT, baggage: "user=olive" },
          headers: { baggage: "user=olive" },
        },
      );
      const { client } = await traceOf("upstream-http");
      expect(seen.result?.structuredContent?.headers?.["traceparent"]).toBe(`00-${PARENT_TRACE}-${client?.spanId}-01`);
      expect(JSON.stringify(seen)).not.toContain("olive");
    },
  );
  test("that the client does not sample is not exported", async () => {
    await call("unsampled", "echo_echo", { text: "hi" }, { meta: { traceparent: PARENT.replace(/01$/, "00") } });
    await call("after-unsampled", "echo_echo", { text: "hi" });
    await traceOf("after-unsampled");
    expect(spans().some((span) => attribute(span, "jsonrpc.request.id") === "unsampled")).toBe(false);
  });
});

test("the record of a call names the exported server span", async () => {
  await call("recorded", "echo_echo", { text: "hi" });
  const { server } = await traceOf("recorded");
  const log = new DatabaseSync(join(folder, "gateway.db"), { readOnly: true, timeout: 10_000 });
  const row = log.prepare("SELECT json FROM audit WHERE trace_id = ?").get(server.traceId);
  log.close();
  expect(JSON.parse(String(row?.["json"]))).toMatchObject({
    call: { requestId: "recorded" },
    trace: { traceId: server.traceId, spanId: server.spanId },
  });
});

test("no argument, result or token is in any span", async () => {
  await call("secrets", "echo_echo", { text: SECRET });
  await call("secrets-refused", "echo_echo", { wrong: SECRET });
  await traceOf("secrets");
  await traceOf("secrets-refused", [SERVER]);
  const everything = bodies.join("\n");
  expect(everything).not.toContain(SECRET);
  for (const part of token.split(".")) expect(everything).not.toContain(part);
});
