/** A tool with two steps, one at a stdio server and one over HTTP with an exchanged token: a span for each, told to its server as the parent. */
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { attribute, type Collector, type ExportedSpan, startCollector } from "./collector.ts";
import { modernRequest, type World, world } from "./world.ts";

const SERVER = 2;
const CLIENT = 3;
const TRACE = "4bf92f3577b34da6a3ce929d0e0e4737";

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

describe.each(["legacy", "modern"])("a tool with steps at servers of the %s generation", (era) => {
  let collector: Collector;
  let api: Fixture;
  let one: World;
  let caller: string;
  let answer: { readonly noted: string; readonly carried: string };
  let spans: readonly ExportedSpan[];
  beforeAll(async () => {
    collector = await startCollector();
    api = await startFixture("echo-http", ["--era", era]);
    one = await world({
      telemetry: { otlpEndpoint: collector.endpoint },
      servers: {
        desk: { command: fixtureCommand("echo-stdio", ["--era", era]) },
        carrier: { url: `${api.origin}/mcp`, credentials: "exchange" },
      },
      tools: { ship: SHIP },
    });
    caller = (await one.tokens()).access_token;
    const _meta = { traceparent: `00-${TRACE}-00f067aa0ba902b7-01` };
    const call = modernRequest("tools/call", { name: "ship", arguments: { parcel: "P-1" }, _meta });
    const said = (await (await one.post(...call, caller)).json()) as { result: { structuredContent: typeof answer } };
    answer = said.result.structuredContent;
    spans = await waitFor(() => {
      const found = collector.spans().filter(({ traceId }) => traceId === TRACE);
      return found.some(({ kind }) => kind === SERVER) && found.length >= 4 && found;
    });
  }, 60_000);
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    await api?.stop();
    await collector?.[Symbol.asyncDispose]();
  });

  const step = (name: string) => spans.find((span) => attribute(span, "drawbridge.step") === name);

  test("has a span for each step, below that of the whole", () => {
    const server = spans.find(({ kind }) => kind === SERVER);
    const whole = spans.find(({ parentSpanId, kind }) => kind === CLIENT && parentSpanId === server?.spanId);
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

  test("tells it to the stdio server in `_meta` and to the one over HTTP in its header", () => {
    expect(answer.noted).toBe(`00-${TRACE}-${step("noted")?.spanId}-01`);
    expect(answer.carried).toBe(`00-${TRACE}-${step("carried")?.spanId}-01`);
  });

  test("reaches the one over HTTP with a token of its own for the same person, and never with the caller's", async () => {
    const { headers } = (await (await fetch(`${api.origin}/stats`)).json()) as {
      headers: readonly Record<string, string>[];
    };
    const [seen] = headers.filter(({ traceparent }) => traceparent === answer.carried);
    const token = decodeJwt(seen?.["authorization"]?.replace(/^Bearer /, "") ?? "");
    expect(token).toMatchObject({ sub: decodeJwt(caller).sub, aud: `${api.origin}/mcp` });
    expect(JSON.stringify(headers)).not.toContain(caller);
  });
});
