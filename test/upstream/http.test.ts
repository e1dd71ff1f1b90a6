import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import type { DrawbridgeError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { type Fixture, freePort, startFixture, waitFor } from "../fixtures/processes.ts";
import { codeOf, collected, end, http, ignored, never, permitted, structuredOf, textOf, toolCall } from "./support.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function up(...args: Parameters<typeof http>) {
  const recorded = http(...args);
  cleanups.push(() => end(recorded.upstream));
  return recorded.upstream;
}

async function fixture(
  ...args: string[]
): Promise<Fixture & { url: string; stats(): Promise<Record<string, unknown>> }> {
  const started = await startFixture("echo-http", args);
  cleanups.push(started.stop);
  const stats = async () => (await fetch(`${started.origin}/stats`)).json() as Promise<Record<string, unknown>>;
  return { ...started, url: `${started.origin}/mcp`, stats };
}

interface Message {
  readonly id?: number;
  readonly method: string;
  readonly params?: Record<string, unknown>;
}

/** A server of this process that answers as told. `handle` returns a result, an error with a status, or writes by itself. */
async function server(
  handle: (message: Message, request: IncomingMessage, response: ServerResponse) => unknown,
): Promise<{ url: string; seen: (Message & { http: string })[] }> {
  const seen: (Message & { http: string })[] = [];
  const listening = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const message = (text === "" ? { method: "" } : JSON.parse(text)) as Message;
    seen.push({ ...message, http: String(request.method) });
    const result = handle(message, request, response);
    if (response.headersSent || response.destroyed || result === undefined) return;
    const { status = 200, ...body } = result as { status?: number };
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify({ jsonrpc: "2.0", id: message.id, ...body }));
  });
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  cleanups.push(async () => {
    listening.closeAllConnections();
    listening.close();
  });
  return { url: `http://127.0.0.1:${(listening.address() as AddressInfo).port}/mcp`, seen };
}

/** The part of a legacy server that every test needs. */
function legacy(message: Message, response: ServerResponse): unknown {
  if (message.method === "initialize") {
    response.setHeader("mcp-session-id", "session-1");
    const serverInfo = { name: "hand-made", version: "1" };
    return { result: { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo } };
  }
  if (message.id === undefined) return void response.writeHead(202).end();
  if (message.method === "server/discover") return { status: 400, error: { code: -32601, message: "no" } };
  return undefined;
}

const problem = (promise: Promise<unknown>): Promise<DrawbridgeError> =>
  promise.then(
    () => Promise.reject(new Error("it succeeded")),
    (error: DrawbridgeError) => error,
  );

describe("the era of a server", () => {
  test("is that of 2026-07-28 when a server speaks both", async () => {
    const upstream = up((await fixture("--era", "both")).url);
    expect((await upstream.identity(never)).revision).toBe("2026-07-28");
  });

  test("is the older one when a server without sessions does not know the new one", async () => {
    const { url } = await fixture("--era", "legacy", "--stateless");
    const upstream = up(url);
    expect((await upstream.identity(never)).revision).toBe("2025-11-25");
    expect(textOf(await upstream.send(toolCall("echo", { text: "hello" }), ignored, never))).toBe("hello");
  });

  test("is asked for again after a failure that says nothing of it", async () => {
    let down = true;
    const { url } = await server((message, _, response) => {
      if (down) return void response.writeHead(503, { "retry-after": "7" }).end();
      return legacy(message, response) ?? { result: { content: [{ type: "text", text: "up" }] } };
    });
    const upstream = up(url);
    const refused = await problem(upstream.send(toolCall("echo"), ignored, never));
    expect([refused.code, refused.retryAfterSeconds]).toEqual(["overloaded", 7]);
    down = false;
    expect(textOf(await upstream.send(toolCall("echo"), ignored, never))).toBe("up");
  });
});

describe("a session of 2025-11-25", () => {
  test("that the server has forgotten is made anew, and the call sent again", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url);
    await upstream.send(toolCall("forget-sessions"), ignored, never);
    expect(textOf(await upstream.send(toolCall("echo", { text: "again" }), ignored, never))).toBe("again");
    expect(upstream.state().restarts).toBe(1);
    expect((await stats())["sessions"]).toBe(1);
  });

  test("that is lost under many calls at once is made anew once", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url);
    await upstream.send(toolCall("forget-sessions"), ignored, never);
    const texts = Array.from({ length: 30 }, (_, index) => `text ${index}`);
    const answers = await Promise.all(texts.map((text) => upstream.send(toolCall("echo", { text }), ignored, never)));
    expect(answers.map(textOf)).toEqual(texts);
    expect((await stats())["sessions"]).toBe(1);
  });

  test("is ended when the upstream is closed", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url);
    await upstream.identity(never);
    expect((await stats())["sessions"]).toBe(1);
    await upstream.close(never);
    expect((await stats())["sessions"]).toBe(0);
  });

  test("goes on after the server hung up in the middle of an answer that can be resumed", async () => {
    const { url, seen } = await server((message, request, response) => {
      const known = request.method === "GET" ? undefined : legacy(message, response);
      if (known !== undefined || response.headersSent) return known;
      response.writeHead(200, { "content-type": "text/event-stream" });
      if (request.method === "GET") {
        expect(request.headers["last-event-id"]).toBe("e-1");
        const id = seen.find(({ method }) => method === "tools/call")?.id;
        const result = { content: [{ type: "text", text: "resumed" }] };
        response.end(`id: e-2\ndata: ${JSON.stringify({ jsonrpc: "2.0", id, result })}\n\n`);
      } else {
        response.end("id: e-1\nretry: 10\ndata:\n\n");
      }
      return undefined;
    });
    expect(textOf(await up(url).send(toolCall("echo"), ignored, never))).toBe("resumed");
  });

  test("that is lost while an answer is resumed does not send the call a second time", async () => {
    const { url, seen } = await server((message, request, response) => {
      if (request.method === "GET") return void response.writeHead(404).end();
      const known = legacy(message, response);
      if (known !== undefined || response.headersSent) return known;
      return void response.writeHead(200, { "content-type": "text/event-stream" }).end("id: e-1\nretry: 10\ndata:\n\n");
    });
    expect(await codeOf(up(url).send(toolCall("pay"), ignored, never))).toBe("upstream_failed");
    expect(seen.filter(({ method }) => method === "tools/call")).toHaveLength(1);
  });

  test("carries the server's questions, which are answered beside the call", async () => {
    let answer: unknown;
    const { url } = await server((message, _, response) => {
      if (message.method === undefined) answer = message;
      const known = legacy(message, response);
      if (known !== undefined || response.headersSent) return known;
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`data: {"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}\n\n`);
      const finish = () => {
        if (answer === undefined) return void setTimeout(finish, 5);
        const result = { content: [{ type: "text", text: "asked" }] };
        response.end(`data: ${JSON.stringify({ jsonrpc: "2.0", id: message.id, result })}\n\n`);
      };
      finish();
      return undefined;
    });
    expect(textOf(await up(url).send(toolCall("echo"), ignored, never))).toBe("asked");
    expect(answer).toMatchObject({ id: "q", error: { code: -32601 } });
  });
});

describe("2026-07-28", () => {
  test("repeats method, name and annotated parameters in headers, encoded where needed", async () => {
    const { url, stats } = await fixture("--era", "modern");
    const upstream = up(url);
    // Never listed before: the gateway finds out by itself what is to be repeated.
    expect(textOf(await upstream.send(toolCall("region", { region: "Zürich ☃" }), ignored, never))).toBe("Zürich ☃");
    const missing = await upstream.send(permitted("resources/read", { uri: "test://items/ü" }), ignored, never);
    expect(missing.kind).toBe("result");
    const headers = (await stats())["headers"] as Record<string, string>[];
    expect(headers.find((one) => one["mcp-name"] === "region")).toMatchObject({
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": "tools/call",
      "mcp-param-region": `=?base64?${Buffer.from("Zürich ☃").toString("base64")}?=`,
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    });
  });

  test("learns the parameters to repeat anew when the server says that they do not match", async () => {
    let header = "Old";
    const { url } = await server((message, request) => {
      if (message.method === "server/discover") {
        return { result: { supportedVersions: ["2026-07-28"], capabilities: { tools: {} } } };
      }
      if (message.method === "tools/list") {
        const properties = { region: { type: "string", "x-mcp-header": header } };
        return { result: { tools: [{ name: "t", inputSchema: { type: "object", properties } }] } };
      }
      if (request.headers[`mcp-param-${header.toLowerCase()}`] !== "eu") {
        return { status: 400, error: { code: -32020, message: "Header mismatch" } };
      }
      return { result: { content: [{ type: "text", text: header }] } };
    });
    const upstream = up(url);
    await upstream.list("tools", never);
    header = "New";
    expect(textOf(await upstream.send(toolCall("t", { region: "eu" }), ignored, never))).toBe("New");
  });

  test("does not offer a tool whose annotations break the rules", async () => {
    const { url } = await server((message) => {
      if (message.method === "server/discover") {
        return { result: { supportedVersions: ["2026-07-28"], capabilities: { tools: {} } } };
      }
      const bad = { type: "object", properties: { a: { type: "number", "x-mcp-header": "A" } } };
      return {
        result: {
          tools: [
            { name: "bad", inputSchema: bad },
            { name: "good", inputSchema: {} },
          ],
        },
      };
    });
    const tools = await up(url).list("tools", never);
    expect(tools.map((tool) => (JSON.parse(tool) as { name: string }).name)).toEqual(["good"]);
  });
});

describe("an answer that is none", () => {
  test.each([
    ["http500", "upstream_failed", /HTTP 500/],
    ["http401", "upstream_failed", /credential/],
    ["not-json", "upstream_failed", /HTTP 200/],
    ["html", "upstream_failed", /text\/html/],
    ["hangup", "upstream_failed", /UND_ERR_SOCKET|ECONNRESET/],
    ["redirect", "upstream_failed", /not followed/],
  ])("(%s) is %s, with the reason for the operator alone", async (tool, code, detail) => {
    const { url } = await fixture("--era", "legacy");
    const upstream = up(url);
    const error = await problem(upstream.send(toolCall(tool), ignored, never));
    expect(error.code).toBe(code);
    expect(error.detail).toMatch(detail);
    expect(error.message).not.toMatch(/secret-internal-detail|\/elsewhere|Welcome/);
    expect(textOf(await upstream.send(toolCall("echo", { text: "after" }), ignored, never))).toBe("after");
  });

  test("is not followed by a second attempt when the server may have seen the first", async () => {
    const { url, seen } = await server((message, request, response) => {
      const known = legacy(message, response);
      if (known !== undefined || response.headersSent) return known;
      return void request.socket.destroy();
    });
    expect(await codeOf(up(url).send(toolCall("pay"), ignored, never))).toBe("upstream_failed");
    expect(seen.filter(({ method }) => method === "tools/call")).toHaveLength(1);
  });

  test("and one with another id than the call's is not taken for its answer", async () => {
    const { url } = await server(
      (message, _, response) =>
        legacy(message, response) ?? (response.headersSent ? undefined : { id: 9999, result: {} }),
    );
    expect(await codeOf(up(url).send(toolCall("echo"), ignored, never))).toBe("upstream_failed");
  });

  test("of a server that nobody listens for is unavailable, until somebody does", async () => {
    const port = await freePort();
    const upstream = up(`http://127.0.0.1:${port}/mcp`);
    const error = await problem(upstream.send(toolCall("echo", { text: "x" }), ignored, never));
    expect(error.code).toBe("upstream_unavailable");
    expect(upstream.state()).toMatchObject({ state: "degraded" });
    await fixture("--port", String(port));
    // It may have been pinged in vain so often that calls are refused; then a ping finds it.
    await waitFor(
      async () => (await codeOf(upstream.send(toolCall("echo", { text: "now" }), ignored, never))) === "none",
    );
    expect(upstream.state()).toMatchObject({ state: "ready", problem: undefined });
  });
});

test("sends the operator's headers, and nothing of them shows", async () => {
  const { url } = await fixture("--key", "s3cret-key");
  expect(await codeOf(up(url).identity(never))).toBe("upstream_failed");
  const upstream = up(url, { headers: { "X-Api-Key": new Secret("s3cret-key") } });
  const headers = structuredOf(await upstream.send(toolCall("headers"), ignored, never))["headers"] as object;
  expect(headers).toMatchObject({ "x-api-key": "s3cret-key" });
  expect(Object.keys(headers)).not.toContain("authorization");
});

test("lets calls wait for a connection, refuses more of whoever has many, and serves principals in turn", async () => {
  const { url } = await fixture("--era", "legacy");
  const upstream = up(url, { maxConnections: 1, maxQueued: 31 });
  await upstream.identity(never);
  const order: string[] = [];
  const call = (subject: string) =>
    upstream.send(toolCall("slow", { ms: 4 }, { subject }), ignored, never).then(() => void order.push(subject));
  const calls = [...Array.from({ length: 32 }, () => call("greedy")), call("modest")];
  expect(upstream.state()).toMatchObject({ inFlight: 1, queued: 32 });
  const refused = await problem(call("greedy"));
  expect([refused.code, refused.retryAfterSeconds]).toEqual(["overloaded", expect.any(Number)]);
  await Promise.all(calls);
  expect(order.indexOf("modest")).toBeLessThan(4);
});

test("closes the request of a cancelled call, and tells a server of before 2026-07-28 so", async () => {
  for (const era of ["legacy", "modern"]) {
    const { url, stats } = await fixture("--era", era);
    const upstream = up(url);
    await upstream.identity(never);
    const control = new AbortController();
    const replies = collected();
    const sent = codeOf(
      upstream.send(toolCall("drip", { events: 1000, ms: 5 }, { progressToken: 1 }), replies, control.signal),
    );
    await waitFor(() => replies.all.length > 0);
    control.abort();
    expect(await sent).toBe("cancelled");
    const seen = replies.all.length;
    await waitFor(async () => (await stats())["cancelled"] === 1);
    expect(replies.all).toHaveLength(seen);
  }
});

describe("a URL", () => {
  test.each([
    ["http://upstream.example.test/mcp", {}],
    ["http://192.168.0.1/mcp", {}],
    ["https://user:password@upstream.example.test/mcp", {}],
    ["https://10.0.0.1/mcp", { allowPrivateAddresses: false }],
    ["https://[::1]/mcp", { allowPrivateAddresses: false }],
  ])("that is unsafe is refused before anything is sent: %s", (url, settings) => {
    expect(() => http(url, settings)).toThrow(expect.objectContaining({ code: "settings_invalid" }));
  });

  test("that resolves to a private address is not connected to when that is not allowed", async () => {
    const upstream = up("https://localhost:9/mcp", { allowPrivateAddresses: false });
    const error = await problem(upstream.identity(never));
    expect(error.detail).toContain("not a public one");
  });
});
