/**
 * One call from the client's span to the last API: through the gateway to a server over stdio, which calls an HTTP API with the token that
 * was exchanged for the caller's. One trace, one audit record, one exemplar, each found from the others.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { openedIn } from "../audit/opened.ts";
import { run } from "../cli/terminal.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import { exportSpan } from "../fixtures/spans.ts";
import { attribute, type Collector, type ExportedSpan, startCollector } from "./collector.ts";
import { type ParcelApi, startParcelApi } from "./parcel-api.ts";
import { modernRequest, type World, world } from "./world.ts";

const SERVER = 2;
const CLIENT = 3;
const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENTS_SPAN = "00f067aa0ba902b7";
const ARGUMENT = "the-argument-nobody-may-see";

/** Servers that are written in different ways, and clients of both generations in front of them. */
const SHIPPERS = {
  "a server of the legacy generation": fixtureCommand("api-caller", ["--era", "legacy"]),
  "a server of the modern generation": fixtureCommand("api-caller", ["--era", "modern"]),
  "a server of the author library": fixtureCommand("../author/shipper"),
};

describe.each(
  Object.entries(SHIPPERS).flatMap(([name, command]) =>
    (["2025", "2026"] as const).map((client) => [client, name, command] as const),
  ),
)("a call of a %s client to %s over stdio", (client, _name, command) => {
  let folder: string;
  let collector: Collector;
  let api: ParcelApi;
  let one: World;
  let caller: string;
  let metrics: string;
  let spans: readonly ExportedSpan[];
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "drawbridge-story-"));
    collector = await startCollector();
    api = await startParcelApi(collector.endpoint);
    one = await world({
      store: `sqlite:${join(folder, "gateway.db")}`,
      telemetry: { otlpEndpoint: collector.endpoint },
      servers: {
        desk: {
          command: [...command, "--api", api.url, "--otlp", collector.endpoint],
          credentials: { exchange: { audience: api.url, scopes: { "mcp:call": ["parcels:ship"] } } },
        },
      },
    });
    await api.trust(one.gateway.publicUrl);
    caller = (await one.tokens()).access_token;
    const { traceparent } = await exportSpan(collector.endpoint, "agent", CLIENT, `00-${TRACE}`, CLIENTS_SPAN);
    const params = { name: "ship", arguments: { parcel: ARGUMENT }, _meta: { traceparent } };
    const answered =
      client === "2026"
        ? await one.post(...modernRequest("tools/call", params, "one"), caller)
        : await one.post(
            { jsonrpc: "2.0", id: "one", method: "tools/call", params },
            { "mcp-protocol-version": "2025-11-25" },
            caller,
          );
    expect(await answered.json()).toMatchObject({ result: { structuredContent: { status: 200, said: "shipped" } } });
    metrics = await (
      await fetch(`${one.origin}/metrics`, { headers: { accept: "application/openmetrics-text" } })
    ).text();
    spans = await waitFor(() => {
      const found = collector.spans().filter(({ traceId }) => traceId === TRACE);
      return found.length >= 5 && found;
    });
  }, 60_000);
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    await api?.[Symbol.asyncDispose]();
    await collector?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const server = () => spans.find((span) => attribute(span, "drawbridge.audit.record") !== undefined);
  const below = (span: ExportedSpan | undefined) => spans.filter(({ parentSpanId }) => parentSpanId === span?.spanId);
  const records = (): readonly StoredRecord[] => {
    const log = new DatabaseSync(join(folder, "gateway.db"), { readOnly: true, timeout: 10_000 });
    try {
      return openedIn(log, "SELECT json FROM audit WHERE trace_id = ?", TRACE);
    } finally {
      log.close();
    }
  };

  test("is one trace, each span below the one before: client, gateway, its call to the server, the server, the API", () => {
    const chain: ExportedSpan[] = [];
    for (
      let next = spans.filter(({ parentSpanId }) => parentSpanId === undefined);
      next.length > 0;
      next = below(next[0])
    ) {
      expect(next).toHaveLength(1);
      chain.push(...next);
    }
    expect(chain.map(({ name, kind }) => [name, kind])).toEqual([
      ["agent", CLIENT],
      ["tools/call ship", SERVER],
      ["tools/call ship", CLIENT],
      ["ship", SERVER],
      ["POST /parcels", SERVER],
    ]);
    expect(chain[0]?.spanId).toBe(CLIENTS_SPAN);
    expect(chain[1]).toBe(server());
    expect(attribute(chain[2], "server.address")).toBe("desk");
    expect(spans).toHaveLength(5);
  });

  test("reaches the API with a token of its own for the same person, whom it knows from it, and never with the caller's", () => {
    expect(api.refused).toEqual([]);
    const [{ claims, body } = { claims: {}, body: "" }, ...others] = api.accepted;
    expect(others).toEqual([]);
    expect(body).toContain(ARGUMENT);
    // Signature, issuer, audience and who acts were checked by the API itself, with the keys that the gateway publishes.
    expect(claims).toMatchObject({
      iss: one.gateway.publicUrl,
      aud: api.url,
      sub: decodeJwt(caller).sub,
      act: { sub: one.gateway.publicUrl },
      scope: "parcels:ship",
    });
    expect(api.text()).not.toContain(caller);
    expect(records()[0]?.call).toMatchObject({ upstreamTokenId: claims.jti, audience: api.url });
  });

  test("has one audit record, and span, record and exemplar name each other", async () => {
    const [record, ...others] = records();
    expect(others).toEqual([]);
    const { spanId = "" } = server() ?? {};
    expect(record).toMatchObject({ trace: { traceId: TRACE, spanId }, call: { name: "ship", requestId: "one" } });
    expect(attribute(server(), "drawbridge.audit.record")).toBe(record?.id);
    const bucket = metrics.split("\n").find((line) => line.includes(`trace_id="${TRACE}"`)) ?? "";
    expect(bucket).toMatch(/^mcp_server_operation_duration_seconds_bucket\{.*gen_ai_tool_name="ship".*\} 1 # \{/);
    expect(bucket).toContain(`{trace_id="${TRACE}",span_id="${spanId}",audit_record="${record?.id}"}`);
  });

  test("is found by its trace at the command line", async () => {
    const store = ["--store", `sqlite:${join(folder, "gateway.db")}`];
    const found = await run(["audit", "search", "--trace", TRACE, "--format", "json", ...store], { cwd: folder });
    expect(found.stderr).toBe("");
    expect(JSON.parse(found.stdout)).toMatchObject({ id: attribute(server(), "drawbridge.audit.record") });
  });

  test("names the steps of the pipeline in their order, the decision and the rule", () => {
    const events = server()?.events ?? [];
    expect(events.map(({ name }) => name)).toEqual([
      "authenticate",
      "decode",
      "authorize",
      "admit",
      "limits",
      "upstream",
      "mask",
      "record",
    ]);
    const times = [server()?.startTimeUnixNano, ...events.map((each) => each.timeUnixNano), server()?.endTimeUnixNano];
    expect(times).toEqual([...times].sort());
    expect(attribute(server(), "drawbridge.decision")).toBe("permit");
    expect(attribute(server(), "drawbridge.rule")).toBe("owner: may *");
    expect(attribute(server(), "gen_ai.operation.name")).toBe("execute_tool");
  });

  test("says nothing of who called or of what was sent, in spans and metrics", async () => {
    const { sub = "", jti = "" } = decodeJwt(caller);
    const upstreamTokenId = records()[0]?.call?.upstreamTokenId ?? "";
    for (const secret of [ARGUMENT, "olive", sub, jti, caller, upstreamTokenId]) {
      expect(collector.text()).not.toContain(secret);
      expect(metrics).not.toContain(secret);
    }
  });
});
