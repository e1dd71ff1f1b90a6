/**
 * One call from the client's span to the last server: a tool with two steps, one at a stdio server, one over HTTP with a token that was
 * exchanged for the caller's. One trace, one audit record, one exemplar, each found from the others.
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
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { attribute, type Collector, type ExportedSpan, startCollector } from "./collector.ts";
import { modernRequest, type World, world } from "./world.ts";

const SERVER = 2;
const CLIENT = 3;
const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENTS_SPAN = "00f067aa0ba902b7";
const ARGUMENT = "the-argument-nobody-may-see";

const SHIP = {
  description: "Notes a parcel and hands it to the carrier.",
  access: "read",
  input: { parcel: { type: "string", maxLength: 40, description: "The parcel." } },
  steps: [
    { id: "noted", call: "desk/meta", access: "read", with: {} },
    { id: "carried", call: "carrier/headers", access: "read", with: {} },
  ],
  result: { noted: "=steps.noted.meta.traceparent", carried: "=steps.carried.headers.traceparent" },
  output: ["noted", "carried"],
};

describe.each(["legacy", "modern"])("a call to servers of the %s generation", (era) => {
  let folder: string;
  let collector: Collector;
  let api: Fixture;
  let one: World;
  let caller: string;
  let answer: { noted: string; carried: string };
  let metrics: string;
  let spans: readonly ExportedSpan[];
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "drawbridge-story-"));
    collector = await startCollector();
    api = await startFixture("echo-http", ["--era", era]);
    one = await world({
      store: `sqlite:${join(folder, "gateway.db")}`,
      telemetry: { otlpEndpoint: collector.endpoint },
      servers: {
        desk: { command: fixtureCommand("echo-stdio", ["--era", era]) },
        carrier: { url: `${api.origin}/mcp`, credentials: "exchange" },
      },
      tools: { ship: SHIP },
    });
    caller = (await one.tokens()).access_token;
    const _meta = { traceparent: `00-${TRACE}-${CLIENTS_SPAN}-01` };
    const [body, headers] = modernRequest(
      "tools/call",
      { name: "ship", arguments: { parcel: ARGUMENT }, _meta },
      "one",
    );
    const said = (await (await one.post(body, headers, caller)).json()) as {
      result: { structuredContent: typeof answer };
    };
    expect(said).toMatchObject({ result: { structuredContent: { noted: expect.any(String) } } });
    answer = said.result.structuredContent;
    metrics = await (
      await fetch(`${one.origin}/metrics`, { headers: { accept: "application/openmetrics-text" } })
    ).text();
    const all = await waitFor(() => {
      const found = collector.spans().filter(({ traceId }) => traceId === TRACE);
      return found.some(({ kind }) => kind === SERVER) && found.length >= 4 && found;
    });
    spans = all;
  }, 60_000);
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    await api?.stop();
    await collector?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const server = () => spans.find(({ kind }) => kind === SERVER);
  const step = (name: string) => spans.find((span) => attribute(span, "drawbridge.step") === name);
  const records = (): readonly StoredRecord[] => {
    const log = new DatabaseSync(join(folder, "gateway.db"), { readOnly: true, timeout: 10_000 });
    try {
      return openedIn(log, "SELECT json FROM audit WHERE trace_id = ?", TRACE);
    } finally {
      log.close();
    }
  };

  test("is one trace: the client's span, ours below it, and one for each server below that", () => {
    expect(server()).toMatchObject({ parentSpanId: CLIENTS_SPAN, name: "tools/call ship" });
    const whole = spans.find(({ parentSpanId, kind }) => kind === CLIENT && parentSpanId === server()?.spanId);
    expect(whole).toBeDefined();
    for (const [name, where] of [
      ["noted", "desk"],
      ["carried", "carrier"],
    ] as const) {
      expect(step(name)).toMatchObject({ kind: CLIENT, parentSpanId: whole?.spanId });
      expect(attribute(step(name), "server.address")).toBe(where);
    }
    expect(spans).toHaveLength(4);
  });

  test("is told to the stdio server in `_meta` and to the API in its header, each as the parent of what it does", async () => {
    expect(answer.noted).toBe(`00-${TRACE}-${step("noted")?.spanId}-01`);
    expect(answer.carried).toBe(`00-${TRACE}-${step("carried")?.spanId}-01`);
  });

  test("reaches the API with a token of its own for the same person, and never with the caller's", async () => {
    const { headers } = (await (await fetch(`${api.origin}/stats`)).json()) as {
      headers: readonly Record<string, string>[];
    };
    const [seen] = headers.filter(({ traceparent }) => traceparent === answer.carried);
    const token = decodeJwt(seen?.["authorization"]?.replace(/^Bearer /, "") ?? "");
    expect(token).toMatchObject({ sub: decodeJwt(caller).sub, aud: `${api.origin}/mcp` });
    expect(JSON.stringify(headers)).not.toContain(caller);
    const [record] = records();
    expect(record?.call?.upstreamTokenId).toBe(token.jti);
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
    for (const secret of [ARGUMENT, "olive", sub, jti, caller]) {
      expect(collector.text()).not.toContain(secret);
      expect(metrics).not.toContain(secret);
    }
  });
});
