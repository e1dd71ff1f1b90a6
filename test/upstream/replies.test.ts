/** What we say ourselves to a server's questions, and what it may cost others. */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { fewAtATime } from "../../src/upstream/few-at-a-time.ts";
import type { Message } from "../fixtures/messages.ts";
import { waitFor } from "../fixtures/processes.ts";
import { codeOf, end, http, ignored, never, textOf, toolCall } from "./support.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test("a server that asks without end and takes no answer keeps no connection from calls", async () => {
  const { url, unanswered } = await asking(500);
  const { upstream } = http(url, { maxConnections: 2, healthSeconds: 0 });
  cleanups.push(() => end(upstream));
  const control = new AbortController();
  const asks = codeOf(upstream.send(toolCall("ask"), ignored, control.signal));
  await waitFor(() => unanswered() > 0);
  // With each of them on a connection of its own, there would be none left.
  for (let n = 0; n < 20; n++)
    expect(textOf(await upstream.send(toolCall("echo", { text: `${n}` }), ignored, never))).toBe(`${n}`);
  expect(unanswered()).toBeLessThanOrEqual(4);
  control.abort();
  expect(await asks).toBe("cancelled");
});

test("things are done in the order they came, so many at a time, and beyond what may wait they are forgotten", async () => {
  const few = fewAtATime(2, 3);
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  for (let n = 1; n <= 8; n++)
    few.run((done) => {
      begun.push(n);
      ends.push(done);
    });
  expect(begun).toEqual([1, 2]);
  for (let n = 0; n < 5; n++) {
    ends[n]?.();
    await Promise.resolve();
  }
  expect(begun).toEqual([1, 2, 3, 4, 5]);
});

test("ten thousand things that are done at once need no stack", async () => {
  const few = fewAtATime(1, 10_000);
  let count = 0;
  let first = () => {};
  few.run((done) => {
    first = done;
  });
  for (let n = 0; n < 10_000; n++)
    few.run((done) => {
      count++;
      done();
    });
  first();
  await waitFor(() => count === 10_000);
});

test("what was forgotten is not done", async () => {
  const few = fewAtATime(1, 10);
  let first = () => {};
  let done = false;
  few.run((over) => {
    first = over;
  });
  few.run(() => {
    done = true;
  });
  few.forget();
  first();
  await Promise.resolve();
  expect(done).toBe(false);
});

/** A server whose tool `ask` asks `questions` times and never answers, neither the call nor what it is told. */
async function asking(questions: number): Promise<{ url: string; unanswered(): number }> {
  let unanswered = 0;
  const session = randomUUID();
  const server = createServer(async (request, response) => {
    if (request.method !== "POST") return void response.writeHead(request.method === "DELETE" ? 200 : 405).end();
    let body = "";
    for await (const chunk of request) body += chunk;
    const message = JSON.parse(body) as Message;
    const { id, method, params } = message;
    const say = (result: unknown) =>
      void response
        .writeHead(200, { "content-type": "application/json", "mcp-session-id": session })
        .end(JSON.stringify({ jsonrpc: "2.0", id, result }));
    if (method === undefined) {
      unanswered++;
      response.once("close", () => unanswered--);
    } else if (method === "initialize") {
      const serverInfo = { name: "asking", version: "1" };
      say({ protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo });
    } else if (method === "server/discover") response.writeHead(400).end();
    else if (id === undefined) response.writeHead(202).end();
    else if (params?.["name"] === "ask") ask(response, questions);
    else say({ content: [{ type: "text", text: String((params?.["arguments"] as { text?: string })?.text) }] });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(async () => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/mcp`, unanswered: () => unanswered };
}

function ask(response: ServerResponse, questions: number): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (let n = 0; n < questions; n++)
    response.write(`data: ${JSON.stringify({ jsonrpc: "2.0", id: `q${n}`, method: "ping" })}\n\n`);
}
