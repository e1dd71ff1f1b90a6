/** Several messages in one body, which sessions of 2025-03-26 may send and servers of that revision may answer with. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fixtureCommand } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { legacySession, type Message, send } from "./legacy-client.ts";
import { type World, world } from "./world.ts";

let one: World;
let token: string;
let session: Awaited<ReturnType<typeof legacySession>>;
const folder = mkdtempSync(join(tmpdir(), "drawbridge-batches-"));
beforeAll(async () => {
  one = await world({
    store: `sqlite:${join(folder, "store.db")}`,
    servers: { things: { command: fixtureCommand("echo-stdio") } },
    limits: { concurrentPerPrincipal: 8 },
  });
  token = (await one.tokens()).access_token;
  session = await legacySession(one.url, token, { version: "2025-03-26" });
}, 30_000);
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const request = (id: unknown, method: string, params: object = {}) => ({ jsonrpc: "2.0", id, method, params });
const echo = (id: unknown, text: string) => request(id, "tools/call", { name: "echo", arguments: { text } });

/** Clients of 2025-03-26 send no header with their revision. */
async function batch(messages: unknown, accept = "application/json, text/event-stream") {
  const headers = { "mcp-session-id": session.id, accept };
  const answer = await send(one.url, token, { headers, body: messages });
  await answer.ended;
  return { ...answer, parsed: answer.messages() as unknown[] };
}

describe("a batch in a session of 2025-03-26", () => {
  verifies("batch-received", "gets its answers together, one for each request and none for the rest", async () => {
    const { status, headers, parsed } = await batch([
      echo(1, "one"),
      { jsonrpc: "2.0", method: "notifications/progress", params: {} },
      echo("two", "two"),
      request(3, "ping"),
      request(4, "tools/call", { name: "nothing" }),
      request(5, "no/method"),
      { jsonrpc: "2.0", id: "unasked", result: {} },
    ]);
    expect([status, headers["content-type"]]).toEqual([200, "application/json"]);
    const answers = new Map((parsed[0] as Message[]).map((answer) => [answer.id, answer]));
    expect([...answers.keys()].toSorted()).toEqual([1, 3, 4, 5, "two"]);
    expect(answers.get(1)?.result?.content?.[0]?.text).toContain("one");
    expect(answers.get("two")?.result?.content?.[0]?.text).toContain("two");
    expect(answers.get(3)?.result).toEqual({});
    expect(answers.get(4)?.error?.code).toBe(-32602);
    expect(answers.get(5)?.error?.code).toBe(-32601);
  });

  verifies("batch-received", "that asks nothing is accepted", async () => {
    const { status, parsed } = await batch([{ jsonrpc: "2.0", method: "notifications/initialized" }]);
    expect([status, parsed]).toEqual([202, []]);
  });

  test("becomes one stream when something is said before the answers, or when its client takes no other", async () => {
    const slow = (id: number) => ({
      ...request(id, "tools/call", { name: "slow", arguments: { ms: 100 }, _meta: { progressToken: `p${id}` } }),
    });
    for (const [messages, accept] of [
      [[slow(1), echo(2, "two"), slow(3)], undefined],
      [[echo(1, "one"), echo(2, "two"), echo(3, "three")], "text/event-stream"],
    ] as const) {
      const { streams, parsed } = await batch(messages, accept);
      expect(streams).toBe(true);
      const said = parsed as Message[];
      expect(said.flatMap(({ id }) => (id === undefined ? [] : [id])).toSorted()).toEqual([1, 2, 3]);
      if (accept === undefined) expect(said.some(({ method }) => method === "notifications/progress")).toBe(true);
    }
  });

  test("has a message that is none answered by itself", async () => {
    const { parsed } = await batch([echo(1, "one"), 7, { jsonrpc: "1.0", id: 2, method: "ping" }, [echo(9, "x")]]);
    const answers = parsed[0] as Message[];
    expect(answers).toHaveLength(4);
    expect(answers.filter(({ error }) => error?.code === -32600)).toHaveLength(3);
    expect(answers.find(({ id }) => id === 1)?.result).toBeDefined();
  });

  test("has its own record for each call, and its place among the caller's limits", async () => {
    const marks = Array.from({ length: 40 }, (_, at) => echo(`mark-${at}`, `m${at}`));
    const { parsed } = await batch(marks);
    expect((parsed[0] as Message[]).filter(({ result }) => result !== undefined)).toHaveLength(40);
    const { sqliteStore } = await import("../../src/store/sqlite/sqlite.ts");
    const store = await sqliteStore(join(folder, "store.db"));
    try {
      const rows = await store.audit.read({ limit: 1000 });
      const calls = rows.map(({ json }) => JSON.parse(json) as { call?: { requestId?: unknown; name?: string } });
      const ids = calls.map(({ call }) => String(call?.requestId)).filter((id) => id.startsWith("mark-"));
      expect(new Set(ids).size).toBe(40);
      expect(ids).toHaveLength(40);
    } finally {
      await store.close();
    }
  });

  const refusals: readonly (readonly [string, unknown])[] = [
    ["that is empty", []],
    ["with the same id twice", [echo(1, "a"), echo(1, "b")]],
    ["of more than a hundred messages", Array.from({ length: 101 }, (_, at) => request(at, "ping"))],
  ];
  test.each(refusals)("%s is refused as a whole", async (_, messages) => {
    const { status, parsed } = await batch(messages);
    expect([status, (parsed[0] as Message).error?.code]).toEqual([400, -32600]);
  });

  verifies("batch-initialize", "with `initialize` in it is refused as a whole", async () => {
    const hello = { protocolVersion: "2025-03-26", capabilities: {}, clientInfo: { name: "x", version: "1" } };
    const { status, parsed } = await batch([request(1, "initialize", hello), echo(2, "x")]);
    expect([status, (parsed[0] as Message).error?.code]).toEqual([400, -32600]);
  });

  test("is refused in a session of another revision, and without one", async () => {
    const later = await legacySession(one.url, token, { version: "2025-06-18" });
    for (const headers of [later.headers, {}]) {
      const answer = await send(one.url, token, { headers, body: [echo(1, "x")] });
      await answer.ended;
      expect([answer.status, answer.messages()[0]?.error?.code]).toEqual([400, -32600]);
    }
  });
});

/** A server of 2025-03-26 that puts every answer, and a notification before it, into one array. */
const SERVER = `
const answer = ({ id, method, params }) => {
  if (id === undefined) return undefined;
  if (method === "initialize") return { protocolVersion: "2025-03-26", capabilities: { tools: {} }, serverInfo: { name: "b", version: "1" } };
  if (method === "tools/list") return { tools: [{ name: "twice", inputSchema: { type: "object" } }] };
  if (method === "tools/call") return { content: [{ type: "text", text: "from a batch" }] };
  return method === "ping" ? {} : undefined;
};
const reply = (text) => {
  const message = JSON.parse(text);
  const result = answer(message);
  if (message.id === undefined) return undefined;
  if (result === undefined) return JSON.stringify({ jsonrpc: "2.0", id: message.id, error: { code: -32601, message: "no" } });
  const own = { jsonrpc: "2.0", id: message.id, result };
  if (message.method !== "tools/call") return JSON.stringify(own);
  const progress = { jsonrpc: "2.0", method: "notifications/progress", params: { progressToken: message.params._meta?.progressToken, progress: 1 } };
  return JSON.stringify([progress, { jsonrpc: "2.0", id: "strange", result: {} }, own]);
};
`;

describe("a server of 2025-03-26 that answers with batches", () => {
  const call = async (servers: object) => {
    await using other = await world({ servers });
    const { access_token } = await other.tokens();
    const client = await legacySession(other.url, access_token);
    const answer = await client.call("twice", {});
    await answer.ended;
    return answer.messages();
  };
  const expected = (messages: readonly Message[]) => {
    expect(messages.map(({ method }) => method)).toEqual(["notifications/progress", undefined]);
    expect(messages.at(-1)?.result?.content?.[0]?.text).toBe("from a batch");
  };

  verifies("batch-received", "is understood over stdio", async () => {
    const file = join(folder, "batching.mjs");
    const loop = `import { createInterface } from "node:readline";\ncreateInterface({ input: process.stdin }).on("line", (line) => { const said = reply(line); if (said !== undefined) process.stdout.write(said + "\\n"); });`;
    writeFileSync(file, `${loop}\n${SERVER}`);
    expected(await call({ b: { command: [process.execPath, file] } }));
  });

  verifies("batch-received", "is understood over HTTP", async () => {
    const reply = new Function(`${SERVER}; return reply;`)() as (text: string) => string | undefined;
    const server = createServer(async (incoming, response) => {
      if (incoming.method !== "POST") return void response.writeHead(405).end();
      const chunks: Buffer[] = [];
      for await (const chunk of incoming) chunks.push(chunk as Buffer);
      const said = reply(Buffer.concat(chunks).toString());
      if (said === undefined) return void response.writeHead(202).end();
      response.writeHead(200, { "content-type": "application/json" }).end(said);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      expected(await call({ b: { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp` } }));
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});
