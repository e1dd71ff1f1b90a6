/** How calls end that ask their clients something: answered, expired, left, with the gateway, and with nothing of them left behind. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { openedIn } from "../audit/opened.ts";
import { fixtureCommand, freePort, processesOf, waitFor } from "../fixtures/processes.ts";
import { newUser, tokensOf } from "./connected.ts";
import { modernRequest, type World, world } from "./world.ts";

type Json = Record<string, unknown>;
const capabilities = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-ends-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const gauges = (text: string, name: string, label = "") =>
  text
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
const suspended = async (one: World) => gauges(await one.metrics(), "drawbridge_calls_suspended");
const ended = async (one: World, how: string) =>
  gauges(await one.metrics(), "drawbridge_questions_ended_total", `drawbridge_outcome="${how}"`);

/** One call of 2026-07-28 by hand. */
async function call(one: World, token: string, params: Json, signal?: AbortSignal) {
  const _meta = { "io.modelcontextprotocol/clientCapabilities": capabilities };
  const [body, headers] = modernRequest("tools/call", { arguments: {}, ...params, _meta });
  const response = await fetch(one.url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${token}`,
      ...headers,
    },
    body: JSON.stringify(body),
    ...(signal !== undefined && { signal }),
  });
  const text = await response.text();
  const last = text.split("\n").findLast((line) => line.startsWith("data: "));
  return JSON.parse(last === undefined ? text : last.slice(6)) as {
    result?: { requestState: string; inputRequests: Json; content: { text: string }[] };
    error?: { code: number; message: string };
  };
}

/** Calls with what they asked, as the store has them: the outcome of each record of one interaction, in order. */
function recordedCalls(file: string) {
  using log = new DatabaseSync(file, { timeout: 10_000 });
  const records = openedIn(log).filter(({ kind, details }) => kind === "call" && details !== undefined);
  const calls = Map.groupBy(records, ({ details = {} }) => (details["interaction"] as { id: string }).id);
  return [...calls.values()];
}
const outcomes = (records: readonly StoredRecord[]) => records.map(({ outcome }) => outcome);

test("each call has one record of its end, however it ends", async () => {
  const file = join(folder, "ends.db");
  const tool = { name: "test_input_required_result_elicitation" };
  const ask = {
    name: "ask-rounds",
    arguments: {
      ms: 1_500,
      rounds: [
        {
          name: {
            method: "elicitation/create",
            params: { message: "Who?", requestedSchema: { type: "object", properties: { name: { type: "string" } } } },
          },
        },
      ],
    },
  };
  const inputResponses = { user_name: { action: "accept", content: { name: "Ann" } } };
  {
    await using one = await world({
      store: `sqlite:${file}`,
      servers: { every: { command: fixtureCommand("everything/stdio", ["--era", "legacy"]) } },
      interaction: { answerSeconds: 5 },
    });
    const token = (await one.tokens()).access_token;
    // It expires.
    expect(await call(one, token, tool)).toHaveProperty("result.inputRequests");
    expect(await suspended(one)).toBe(1);
    // It is answered.
    const other = (await one.tokens()).access_token;
    const { requestState } = (await call(one, other, tool)).result ?? {};
    expect(await call(one, other, { ...tool, requestState, inputResponses })).toHaveProperty("result.content");
    // Its client leaves after it has answered.
    const leaver = (await one.tokens()).access_token;
    const begun = await call(one, leaver, ask);
    const [leaving, answered] = [new AbortController(), await ended(one, "answered")];
    const retry = { ...ask, requestState: begun.result?.requestState, inputResponses };
    const left = call(one, leaver, retry, leaving.signal);
    await waitFor(async () => (await ended(one, "answered")) > answered);
    leaving.abort();
    await expect(left).rejects.toThrow();
    await waitFor(async () => (await ended(one, "expired")) === 1);
    expect(await suspended(one)).toBe(0);
    // The gateway stops.
    expect(await call(one, token, tool)).toHaveProperty("result.inputRequests");
  }
  const calls = recordedCalls(file);
  expect(calls.map(outcomes).map(String).sort()).toEqual([
    "permitted,abandoned",
    "permitted,abandoned",
    "permitted,abandoned",
    "permitted,permitted",
  ]);
  const ends = calls.map((records) => records.at(-1)).filter((record) => record?.outcome === "abandoned");
  const messages = ends.map((record) => record?.error?.message).sort();
  expect(messages).toEqual([
    "Nobody answered the server's question in time.",
    "The client went away.",
    "The gateway is being stopped.",
  ]);
  const expired = ends.find((record) => record?.error?.message.startsWith("Nobody"));
  expect(expired).toMatchObject({
    principal: { subject: expect.any(String) },
    call: { method: "tools/call", name: tool.name },
    details: {
      interaction: { round: 1, questions: [{ method: "elicitation/create", mode: "form", key: "user_name" }] },
    },
  });
  expect(expired?.durationMs).toBeGreaterThan(4_900);
}, 60_000);

describe("@modelcontextprotocol/server-everything and twenty clients of 2026-07-28", () => {
  const marker = `--ends-${crypto.randomUUID()}`;
  const TOOLS = ["trigger-elicitation-request", "trigger-sampling-request", "get-roots-list"] as const;

  /** A client that answers, once `until` resolves, with its mark. */
  async function asked(one: World, token: string, mark: string, until: () => Promise<unknown>) {
    const client = new Client(
      { name: "asked", version: "1" },
      { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } },
    );
    const seen: string[] = [];
    const when = async <T>(what: string, answer: T) => {
      seen.push(what);
      await until();
      return answer;
    };
    client.setRequestHandler("elicitation/create", ({ params }) => {
      const { properties = {} } = (params as { requestedSchema?: { properties?: Json } }).requestedSchema ?? {};
      const content = Object.fromEntries(Object.keys(properties).map((key) => [key, mark]));
      return when("elicitation", { action: "accept" as const, content });
    });
    const content = { type: "text" as const, text: `sampled by ${mark}` };
    client.setRequestHandler(
      "sampling/createMessage",
      () => when("sampling", { role: "assistant" as const, model: "m", content }) as never,
    );
    client.setRequestHandler("roots/list", () => when("roots", { roots: [{ uri: `file:///${mark}`, name: mark }] }));
    const requestInit = { headers: { authorization: `Bearer ${token}` } };
    await client.connect(new StreamableHTTPClientTransport(new URL(one.url), { requestInit }));
    return { client, seen };
  }
  const words = (result: unknown) => JSON.stringify((result as { content: unknown }).content);
  const argumentsOf = (name: string) => (name === "trigger-sampling-request" ? { prompt: "Say it." } : {});

  test("a restart in between is told to each of them, leaves nothing behind, and the next calls work", async () => {
    const file = join(folder, "restart.db");
    const settings = {
      store: `sqlite:${file}`,
      listen: { port: await freePort(), shutdownSeconds: 5 },
      servers: {
        every: {
          command: ["node", "node_modules/@modelcontextprotocol/server-everything/dist/index.js", "stdio", marker],
          processes: { max: 6 },
        },
      },
    };
    const kept = () => {
      using store = new DatabaseSync(file, { timeout: 10_000 });
      // A pin is kept for each definition that was ever shown.
      const lasting =
        "SELECT kind, count(*) AS n FROM records WHERE expires_at IS NULL AND kind <> 'pin' GROUP BY kind";
      const rows = store.prepare(lasting).all();
      const passing = store.prepare("SELECT count(*) AS n FROM records WHERE kind IN ('letter', 'mailbox')").get();
      return { rows: rows.map(({ kind, n }) => [kind, n]), passing: passing?.["n"] };
    };
    const handles = () => {
      const all = process.getActiveResourcesInfo();
      return ["ProcessWrap", "TCPServerWrap", "PipeWrap", "FSEventWrap"].map(
        (name) => all.filter((one) => one === name).length,
      );
    };
    const before = handles();
    const restarted = Promise.withResolvers<void>();
    const one = await world(settings);
    const tokens: string[] = [];
    for (let at = 0; at < 20; at++) tokens.push((await one.tokens()).access_token);
    const rows = kept().rows;
    const clients = await Promise.all(
      tokens.map((token, at) => asked(one, token, `client-${at}.`, () => restarted.promise)),
    );
    const calls = clients.map(({ client }, at) => {
      const name = TOOLS[at % 3] ?? TOOLS[0];
      return client.callTool({ name, arguments: argumentsOf(name) }).then(
        (result) => ({ answered: words(result) }),
        (error: Error & { code?: number }) => ({ code: error.code, message: error.message }),
      );
    });
    // As many as there are processes ask; the others wait for them.
    await waitFor(() => clients.filter(({ seen }) => seen.length > 0).length >= 3, 60_000);
    expect(await suspended(one)).toBeGreaterThanOrEqual(3);
    await one[Symbol.asyncDispose]();
    expect(await processesOf(marker)).toEqual([]);
    expect(kept()).toEqual({ rows, passing: 0 });
    expect(new Set(recordedCalls(file).map((records) => outcomes(records).at(-1)))).toEqual(new Set(["abandoned"]));

    const two = await world(settings);
    restarted.resolve();
    const told = await Promise.all(calls);
    for (const end of told) {
      expect(end).toMatchObject({ message: expect.stringMatching(/call again|try again|being stopped|shut down/i) });
    }
    expect(told.filter((end) => "code" in end && end.code === -32602).length).toBeGreaterThanOrEqual(3);

    const said = await Promise.all(
      clients.map(async ({ client }, at) => {
        const name = TOOLS[at % 3] ?? TOOLS[0];
        return words(await client.callTool({ name, arguments: argumentsOf(name) }, { timeout: 120_000 }));
      }),
    );
    for (const [at, text] of said.entries())
      expect(new Set(text.match(/client-\d+\./g))).toEqual(new Set([`client-${at}.`]));
    await Promise.all(clients.map(({ client }) => client.close()));
    expect(await suspended(two)).toBe(0);
    await two[Symbol.asyncDispose]();
    expect(await processesOf(marker)).toEqual([]);
    expect(kept().passing).toBe(0);
    await waitFor(() => handles().every((count, at) => count <= (before[at] ?? 0)));
  }, 180_000);
});

test("abandoned rounds of one user do not hold up another, and none of them has to end for that", async () => {
  const file = join(folder, "abandoned.db");
  await using one = await world({
    store: `sqlite:${file}`,
    servers: { every: { command: fixtureCommand("everything/stdio", ["--era", "legacy"]), processes: { max: 4 } } },
  });
  const store = sqliteStore(file);
  try {
    const tokenOf = async (name: string) =>
      (await tokensOf(one, (await newUser(one, store, name)).browser)).access_token;
    const tool = { name: "test_input_required_result_elicitation" };
    const inputResponses = { user_name: { action: "accept", content: { name: "Ann" } } };
    const careless = await tokenOf("careless");
    const abandoned = await Promise.all(Array.from({ length: 12 }, () => call(one, careless, tool)));
    expect(abandoned.filter(({ result }) => result?.inputRequests !== undefined)).toHaveLength(10);
    expect(abandoned.filter(({ error }) => error?.code === -31503)).toHaveLength(2);
    const before = await ended(one, "withdrawn");
    const careful = await tokenOf("careful");
    for (let at = 0; at < 5; at++) {
      const { result } = await call(one, careful, tool);
      const done = await call(one, careful, { ...tool, requestState: result?.requestState, inputResponses });
      expect(done.result?.content[0]?.text).toBe("Hello, Ann!");
    }
    const plain = await Promise.all(Array.from({ length: 20 }, () => call(one, careful, { name: "test_simple_text" })));
    expect(plain.every(({ result }) => result !== undefined)).toBe(true);
    // All of them still wait, at their server too: none had to give way.
    expect(await suspended(one)).toBe(10);
    expect(await ended(one, "withdrawn")).toBe(before);
  } finally {
    await store.close();
  }
}, 60_000);
