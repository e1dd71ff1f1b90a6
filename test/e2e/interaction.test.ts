/** Servers that ask their clients in the middle of a call: four pairings, real servers, the SDK's clients of both generations. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as LegacyTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { type RunningGateway, startGateway } from "../../src/gateway/gateway.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { openedRecords } from "../audit/opened.ts";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { resultOf, scripted } from "./scripted.ts";
import { modernRequest, type World, world } from "./world.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "drawbridge-interaction-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

type Json = Record<string, unknown>;
type AnyClient = Pick<LegacyClient, "callTool" | "close">;
const capabilities = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };

/** A client that answers every question, each with the name it has in `mark`. */
async function asked(one: World, era: "legacy" | "modern", token: string, mark: string) {
  const seen: Json[] = [];
  const answers = {
    elicit: (params: Json) => {
      seen.push(params);
      if (params["mode"] === "url") return { action: "accept" as const };
      const { properties } = params["requestedSchema"] as { properties: Json };
      return {
        action: "accept" as const,
        content: Object.fromEntries(Object.keys(properties).map((key) => [key, mark])),
      };
    },
    sample: (params: Json) => {
      seen.push(params);
      return { role: "assistant" as const, model: "m", content: { type: "text" as const, text: `sampled by ${mark}` } };
    },
    roots: () => ({ roots: [{ uri: `file:///${mark}`, name: mark }] }),
  };
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  if (era === "legacy") {
    const client = new LegacyClient({ name: "asked", version: "1" }, { capabilities });
    client.setRequestHandler(ElicitRequestSchema, ({ params }) => answers.elicit(params));
    client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => answers.sample(params));
    client.setRequestHandler(ListRootsRequestSchema, () => answers.roots());
    await client.connect(new LegacyTransport(new URL(one.url), { requestInit }) as never);
    return { client: client as AnyClient, seen };
  }
  const client = new ModernClient(
    { name: "asked", version: "1" },
    { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } },
  );
  client.setRequestHandler("elicitation/create", ({ params }) => answers.elicit(params as unknown as Json));
  client.setRequestHandler(
    "sampling/createMessage",
    ({ params }) => answers.sample(params as unknown as Json) as never,
  );
  client.setRequestHandler("roots/list", () => answers.roots());
  await client.connect(new ModernTransport(new URL(one.url), { requestInit }));
  return { client: client as unknown as AnyClient, seen };
}

/** Tokens of so many clients: at a server over stdio, questions of one client's calls are told apart by that client alone. */
async function principals(one: World, count: number): Promise<string[]> {
  const tokens: string[] = [];
  for (let at = 0; at < count; at++) tokens.push((await one.tokens()).access_token);
  return tokens;
}

const form = (name: string) => ({
  method: "elicitation/create",
  params: {
    mode: "form",
    message: `What is your ${name}?`,
    requestedSchema: { type: "object", properties: { [name]: { type: "string" } }, required: [name] },
  },
});
const sample = {
  method: "sampling/createMessage",
  params: { messages: [{ role: "user", content: { type: "text", text: "Say it." } }], maxTokens: 10 },
};
const everyQuestion = { name: form("name"), sample, roots: { method: "roots/list", params: {} } };
const everyAnswer = (mark: string) => ({
  name: { action: "accept", content: { name: mark } },
  sample: { role: "assistant", content: { type: "text", text: `sampled by ${mark}` } },
  roots: { roots: [{ uri: `file:///${mark}`, name: mark }] },
});

describe.each([
  ["http", "legacy"],
  ["http", "modern"],
  ["stdio", "legacy"],
  ["stdio", "modern"],
] as const)("a server over %s that speaks %s", (transport, serverEra) => {
  let one: World;
  let fixture: Fixture | undefined;
  let token: string;
  beforeAll(async () => {
    if (transport === "http") fixture = await startFixture("everything/http", ["--era", serverEra]);
    const server =
      fixture === undefined
        ? { command: fixtureCommand("everything/stdio", ["--era", serverEra]) }
        : { url: `${fixture.origin}/mcp` };
    one = await world({ servers: { every: server }, interaction: { maxSuspendedPerPrincipal: 50 } });
    token = (await one.tokens()).access_token;
  });
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    await fixture?.stop();
  });

  describe.each(["legacy", "modern"] as const)("and a %s client", (era) => {
    test("asks for everything at once, then once more, and gets every answer", async () => {
      const { client, seen } = await asked(one, era, token, "ann");
      const rounds = [everyQuestion, { again: form("colour") }];
      const { structuredContent } = await client.callTool({ name: "ask-rounds", arguments: { rounds } });
      expect(structuredContent).toMatchObject({
        answers: [everyAnswer("ann"), { again: { action: "accept", content: { colour: "ann" } } }],
      });
      expect(seen.map(({ message }) => message).sort()).toEqual([
        "What is your colour?",
        "What is your name?",
        undefined,
      ]);
      await client.close();
    });

    test("sends the user to a page", async () => {
      const { client, seen } = await asked(one, era, token, "ann");
      const url = "https://a.test/connect";
      const { structuredContent } = await client.callTool({ name: "visit-url", arguments: { url, way: "question" } });
      expect(structuredContent).toMatchObject({ visit: { action: "accept" } });
      expect(seen).toMatchObject([{ mode: "url", url, message: "Please connect your account." }]);
      expect(typeof seen[0]?.["elicitationId"]).toBe(era === "legacy" ? "string" : "undefined");
      await client.close();
    });

    if (serverEra === "legacy")
      test("withdraws what it does not need any more, and it is taken from the client", async () => {
        const until = join(folder, `enough-${transport}-${era}`);
        const tool = { name: "change-mind", arguments: { until } };
        const blue = { action: "accept", content: { colour: "blue" } };
        const withdrawnBefore = withdrawn(await one.metrics());
        if (era === "modern") {
          const { result: first } = await call(one, token, tool);
          expect(first).toMatchObject({ inputRequests: { user_name: { params: { message: "Your name?" } } } });
          writeFileSync(until, "");
          await waitFor(async () => withdrawn(await one.metrics()) > withdrawnBefore);
          // The answer comes too late to be one.
          const { result: second } = await call(one, token, { ...tool, ...requestState({ result: first }), ...late });
          expect(Object.keys((second as { inputRequests: Json }).inputRequests)).toEqual(["user_colour"]);
          const inputResponses = { user_colour: blue };
          const last = await call(one, token, { ...tool, ...requestState({ result: second }), inputResponses });
          expect(last.result).toMatchObject({ structuredContent: { colour: blue } });
        } else {
          const client = new LegacyClient({ name: "asked", version: "1" }, { capabilities });
          const seen: string[] = [];
          client.setRequestHandler(ElicitRequestSchema, async ({ params }, { signal }) => {
            seen.push(params.message);
            if (params.message !== "Your name?") return { action: "accept" as const, content: { colour: "blue" } };
            writeFileSync(until, "");
            await new Promise((resolve) => signal.addEventListener("abort", resolve));
            seen.push(String(signal.reason));
            return { action: "cancel" as const };
          });
          const requestInit = { headers: { authorization: `Bearer ${token}` } };
          await client.connect(new LegacyTransport(new URL(one.url), { requestInit }) as never);
          expect((await client.callTool(tool)).structuredContent).toEqual({ colour: blue });
          expect(seen.toSorted()).toEqual(["The name was found elsewhere.", "Your colour?", "Your name?"]);
          expect(withdrawn(await one.metrics())).toBe(withdrawnBefore + 1);
          await client.close();
        }
      });

    test("asks twenty at once, and each gets its own answers", async () => {
      const same = Array.from({ length: 20 }, () => token);
      const tokens = transport === "stdio" && serverEra === "legacy" ? await principals(one, 20) : same;
      const clients = await Promise.all(tokens.map((mine, at) => asked(one, era, mine, `client-${at}`)));
      const answers = await Promise.all(
        clients.map(async ({ client }) => {
          const rounds = [everyQuestion, { again: form("colour") }];
          return (await client.callTool({ name: "ask-rounds", arguments: { rounds, ms: 5 } })).structuredContent;
        }),
      );
      answers.forEach((given, at) => {
        const again = { again: { action: "accept", content: { colour: `client-${at}` } } };
        expect(given).toMatchObject({ answers: [everyAnswer(`client-${at}`), again] });
      });
      await Promise.all(clients.map(({ client }) => client.close()));
    }, 60_000);
  });
});

const late = { inputResponses: { user_name: { action: "accept", content: { name: "late" } } } };
const metric = (text: string, name: string, labels: string) => {
  const line = text.split("\n").find((one) => one.startsWith(`${name}{`) && one.includes(labels));
  return Number(line?.split(" ").at(-1) ?? 0);
};
const withdrawn = (text: string) => metric(text, "drawbridge_questions_ended_total", 'drawbridge_outcome="withdrawn"');

/** One call of 2026-07-28 by hand; the result or error of its answer. */
async function call(one: Pick<World, "post">, token: string, params: Json, declared: Json = capabilities) {
  const meta = { "io.modelcontextprotocol/clientCapabilities": declared };
  const [body, headers] = modernRequest("tools/call", { arguments: {}, ...params, _meta: meta });
  const response = await one.post(body, headers, token);
  const text = await response.text();
  const last = text.split("\n").findLast((line) => line.startsWith("data: "));
  const answer = JSON.parse(last === undefined ? text : last.slice(6)) as {
    result?: Json;
    error?: { code: number; data?: Json; message: string };
  };
  return { ...answer, status: response.status };
}
const answered = { user_name: { action: "accept", content: { name: "ann" } } };

describe("a legacy server and requests of 2026-07-28 by hand", () => {
  let one: World;
  let token: string;
  const nameCall = { name: "test_input_required_result_elicitation" };
  beforeAll(async () => {
    one = await world({
      servers: { every: { command: fixtureCommand("everything/stdio", ["--era", "legacy"]) } },
      interaction: { maxSuspendedPerPrincipal: 3 },
    });
    token = (await one.tokens()).access_token;
  });
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
  });

  verifies(
    ["mrtr-state-verified", "mrtr-state-bound", "elicitation-bound"],
    "a retry of another user's client, with other arguments or of another tool is refused",
    async () => {
      const { result } = await call(one, token, nameCall);
      const { requestState } = result as { requestState: string };
      const retry = { ...nameCall, requestState, inputResponses: answered };
      const other = (await one.tokens()).access_token;
      for (const [who, params] of [
        [other, retry],
        [token, { ...retry, arguments: { extra: 1 } }],
        [token, { ...retry, name: "test_input_required_result_list_roots" }],
        [token, { ...retry, requestState: `${requestState}-TAMPERED` }],
        [token, { ...retry, requestState: 7 }],
      ] as [string, Json][]) {
        const refused = await call(one, who, params);
        expect(refused.error).toMatchObject({ code: -32602 });
        expect(JSON.stringify(refused)).not.toContain("Hello");
      }
      expect((await call(one, token, retry)).result).toMatchObject({ content: [{ text: "Hello, ann!" }] });
      expect((await call(one, token, retry)).error).toMatchObject({ code: -32602 });
    },
  );

  test("one client's abandoned rounds end with its own quota; another is served meanwhile", async () => {
    const careless = await one.tokens();
    const careful = await one.tokens();
    for (let at = 0; at < 3; at++) expect(await call(one, careless.access_token, nameCall)).toHaveProperty("result");
    expect((await call(one, careless.access_token, nameCall)).error).toMatchObject({ code: -31503 });
    const { result } = await call(one, careful.access_token, nameCall);
    const { requestState } = result as { requestState: string };
    const done = await call(one, careful.access_token, { ...nameCall, requestState, inputResponses: answered });
    expect(done.result).toMatchObject({ content: [{ text: "Hello, ann!" }] });
  });

  test("a client that cannot be asked is not, and the server's own words come back", async () => {
    const { result, error } = await call(one, token, nameCall, {});
    expect(result?.["isError"] ?? error).toBeTruthy();
  });
});

describe.each(["stdio", "http"] as const)("a server of 2026-07-28 over %s", (transport) => {
  verifies(
    ["mrtr-client-state", "mrtr-client-id", "mrtr-client-scope"],
    "gets its state back to the byte, with another id, and nothing of it with any other call",
    async () => {
      const complete = '{"resultType":"complete","content":[]}';
      await using one = await scripted(transport, {
        s: {
          era: "modern",
          capabilities: '{"tools":{}}',
          results: {
            "tools/list": {
              result:
                '{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[{"name":"asks","inputSchema":{"type":"object"}},{"name":"other","inputSchema":{"type":"object"}},{"name":"recorded","inputSchema":{"type":"object"}}]}',
            },
            "tools/call asks": {
              result:
                '{"resultType":"input_required","requestState":"\\u00e9\\n{\\"a\\":1}","inputRequests":{"r":{"method":"roots/list"}}}',
            },
            "tools/call other": { result: complete },
          },
        },
      });
      const client = await one.client("modern", '{"roots":{}}');
      const first = resultOf(await client.ask("tools/call", ['"name":"asks"']));
      await client.ask("tools/call", ['"name":"other"']);
      const answers = [
        '"inputResponses":{"r":{"roots":[]}}',
        `"requestState":${JSON.stringify(first["requestState"])}`,
      ];
      const second = resultOf(await client.ask("tools/call", ['"name":"asks"', ...answers]));
      expect(second).toMatchObject({ resultType: "input_required" });
      const calls = (await one.recorded())
        .map((text) => JSON.parse(text) as { id: unknown; method: string; params: Json })
        .filter(({ method, params }) => method === "tools/call" && params["name"] !== "recorded");
      expect(
        calls.map(({ params: { name, requestState, inputResponses } }) => [name, requestState, inputResponses]),
      ).toEqual([
        ["asks", undefined, undefined],
        ["other", undefined, undefined],
        ["asks", 'é\n{"a":1}', { r: { roots: [] } }],
      ]);
      expect(new Set(calls.map(({ id }) => id)).size).toBe(3);
    },
  );
});

describe("@modelcontextprotocol/server-everything over stdio, and clients of 2026-07-28", () => {
  let one: World;
  let token: string;
  beforeAll(async () => {
    one = await world({
      servers: {
        every: { command: ["node", "node_modules/@modelcontextprotocol/server-everything/dist/index.js", "stdio"] },
      },
      interaction: { maxSuspendedPerPrincipal: 50 },
    });
    token = (await one.tokens()).access_token;
  }, 30_000);
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
  });
  const words = (result: unknown) => JSON.stringify((result as { content: unknown }).content);

  test("elicitation, sampling and roots reach the client and come back", async () => {
    const { client } = await asked(one, "modern", token, "ann");
    expect(words(await client.callTool({ name: "trigger-elicitation-request", arguments: {} }))).toContain("ann");
    const sampling = { name: "trigger-sampling-request", arguments: { prompt: "Say it." } };
    expect(words(await client.callTool(sampling))).toContain("sampled by ann");
    expect(words(await client.callTool({ name: "get-roots-list", arguments: {} }))).toContain("file:///ann");
    await client.close();
  }, 30_000);

  test("twenty at once, and each gets its own", async () => {
    const tokens = await principals(one, 20);
    const clients = await Promise.all(tokens.map((mine, at) => asked(one, "modern", mine, `client-${at}.`)));
    const said = await Promise.all(
      clients.map(async ({ client }, at) =>
        words(
          await client.callTool(
            at % 2 === 0
              ? { name: "trigger-elicitation-request", arguments: {} }
              : { name: "trigger-sampling-request", arguments: { prompt: "Say it." } },
          ),
        ),
      ),
    );
    for (const [at, text] of said.entries()) {
      expect(text).toContain(`client-${at}.`);
      expect(new Set(text.match(/client-\d+\./g))).toEqual(new Set([`client-${at}.`]));
    }
    await Promise.all(clients.map(({ client }) => client.close()));
  }, 60_000);
});

test("each round has its record, linked to the others, with what was asked and what the user did", async () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-interaction-"));
  const store = `sqlite:${join(folder, "store.db")}`;
  try {
    {
      await using one = await world({
        store,
        servers: { every: { command: fixtureCommand("everything/stdio", ["--era", "legacy"]) } },
        audit: { arguments: "none", results: "none" },
      });
      const { access_token } = await one.tokens();
      const { client } = await asked(one, "modern", access_token, "secret answer");
      await client.callTool({ name: "test_input_required_result_elicitation", arguments: {} });
      await client.close();
      const legacy = await asked(one, "legacy", access_token, "secret answer");
      await legacy.client.callTool({ name: "test_input_required_result_elicitation", arguments: {} });
      await legacy.client.close();
    }
    const log = sqliteStore(join(folder, "store.db"));
    const rows = await openedRecords(log, { target: "test_input_required_result_elicitation" });
    await log.close();
    const records = rows as unknown as { outcome: string; details: { interaction: Json } }[];
    expect(records.map(({ outcome }) => outcome)).toEqual(["permitted", "permitted", "permitted"]);
    const [first, second, third] = records.map(({ details }) => details.interaction);
    const question = { method: "elicitation/create", mode: "form" };
    expect(first).toEqual({ id: expect.any(String), round: 1, questions: [{ ...question, key: "user_name" }] });
    expect(second).toEqual({
      id: first?.["id"],
      round: 2,
      questions: [{ ...question, key: "user_name", action: "accepted" }],
    });
    expect(third).toEqual({ questions: [{ ...question, action: "accepted" }] });
    expect(JSON.stringify(rows)).not.toContain("secret answer");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}, 30_000);

describe("two gateways on one store", () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-interaction-"));
  const settings = {
    store: `sqlite:${join(folder, "store.db")}`,
    servers: { every: { command: fixtureCommand("everything/stdio", ["--era", "legacy"]) } },
  };
  let one: World;
  let two: RunningGateway;
  let other: Pick<World, "post">;
  let token: string;
  beforeAll(async () => {
    one = await world(settings);
    const port = await freePort();
    const loaded = await settleSettings(
      {
        ...settings,
        clients: { registration: "open" },
        log: { level: "silent" },
        publicUrl: one.gateway.publicUrl,
        listen: { port },
      },
      process.cwd(),
      { env: process.env },
    );
    two = await startGateway({ settings: loaded, environment: process.env, logger: silentLogger });
    await two.ready;
    other = {
      post: (body, headers, bearer) =>
        fetch(`http://127.0.0.1:${port}/mcp`, {
          method: "POST",
          headers: {
            "content-type": "application/json",
            accept: "application/json, text/event-stream",
            authorization: `Bearer ${bearer}`,
            ...headers,
          },
          body: JSON.stringify(body),
        }),
    };
    token = (await one.tokens()).access_token;
  }, 60_000);
  afterAll(async () => {
    await two?.close();
    await one?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  test("a legacy client's answer that reaches the other one finds its question", async () => {
    const legacy = { "mcp-protocol-version": "2025-11-25" };
    const hello = { protocolVersion: "2025-11-25", capabilities, clientInfo: { name: "raw", version: "1" } };
    const opened = await one.post({ jsonrpc: "2.0", id: 0, method: "initialize", params: hello }, {}, token);
    await opened.text();
    const session = { ...legacy, "mcp-session-id": opened.headers.get("mcp-session-id") ?? "" };
    const params = { name: "test_input_required_result_elicitation", arguments: {} };
    const calling = await one.post({ jsonrpc: "2.0", id: 1, method: "tools/call", params }, session, token);
    const seen: (Json & { id?: string })[] = [];
    let text = "";
    for await (const chunk of calling.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      text += chunk;
      const messages = text.split("\n").filter((line) => line.startsWith("data: {") && line.endsWith("}"));
      for (const message of messages.slice(seen.length)) {
        seen.push(JSON.parse(message.slice(6)) as Json);
        const { id, method } = seen.at(-1) ?? {};
        if (method !== "elicitation/create") continue;
        const result = { action: "accept", content: { name: "Ann" } };
        const taken = await other.post({ jsonrpc: "2.0", id, result }, session, token);
        expect(taken.status).toBe(202);
      }
    }
    expect(seen.at(-1)).toMatchObject({ id: 1, result: { content: [{ text: "Hello, Ann!" }] } });
  }, 30_000);

  test("a retry that reaches the other one goes on with the call; one after a restart is told to call again", async () => {
    const params = { name: "test_input_required_result_multi_round" };
    const first = await call(one, token, params);
    const inputResponses = { user_name: { action: "accept", content: { name: "Ann" } } };
    const second = await call(other, token, { ...params, ...requestState(first), inputResponses });
    expect(second.result).toMatchObject({ resultType: "input_required", inputRequests: { user_color: {} } });
    const colour = { user_color: { action: "accept", content: { color: "blue" } } };
    const third = await call(other, token, { ...params, ...requestState(second), inputResponses: colour });
    expect(third.result).toMatchObject({ content: [{ text: "Ann likes blue." }] });

    const lost = await call(other, token, params);
    await two.close();
    const late = await call(one, token, { ...params, ...requestState(lost), inputResponses });
    expect(late.error).toMatchObject({
      code: -32602,
      message: "The server's question was lost. Call again without requestState.",
    });
    await waitFor(async () => (await call(one, token, params)).result !== undefined);
  }, 60_000);
});

const requestState = ({ result }: { result?: Json | undefined }) => ({ requestState: result?.["requestState"] });

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
