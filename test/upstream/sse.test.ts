import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { DrawbridgeError } from "../../src/core/errors.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { startFixture, waitFor } from "../fixtures/processes.ts";
import { anyHttp, codeOf, collected, end, ignored, namedCredentials, never, textOf, toolCall } from "./support.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function fixture(...args: string[]): Promise<string> {
  const started = await startFixture("echo-sse", args);
  cleanups.push(started.stop);
  return started.origin;
}
function up(...args: Parameters<typeof anyHttp>): Upstream {
  const { upstream } = anyHttp(...args);
  cleanups.push(() => end(upstream));
  return upstream;
}
const echo = async (upstream: Upstream, text: string) =>
  textOf(await upstream.send(toolCall("echo", { text }), ignored, never));

describe("HTTP+SSE", () => {
  test.each(["auto", "sse"] as const)(
    "is spoken to a server that knows nothing else (transport: %s)",
    async (transport) => {
      const upstream = up(`${await fixture()}/sse`, { transport });
      expect(await echo(upstream, "hello")).toBe("hello");
      expect(upstream.state()).toMatchObject({ state: "ready", problem: undefined });
    },
  );

  test("is not tried when the settings say Streamable HTTP", async () => {
    const upstream = up(`${await fixture()}/sse`, { transport: "streamable-http" });
    expect(await codeOf(upstream.identity(never))).toBe("upstream_failed");
  });

  test("connects again after the server hung up; the calls that were under way have failed", async () => {
    const upstream = up(`${await fixture()}/sse`);
    expect(await codeOf(upstream.send(toolCall("drop-streams"), ignored, never))).toBe("upstream_failed");
    expect(await echo(upstream, "again")).toBe("again");
    expect(upstream.state().restarts).toBe(1);
  });

  test("fails just the call whose message the server refuses", async () => {
    const upstream = up(`${await fixture()}/sse`);
    const replies = collected();
    const slow = codeOf(upstream.send(toolCall("slow", { ms: 1_000 }, { progressToken: 1 }), replies, never));
    await waitFor(() => replies.all.length > 0);
    await upstream.send(toolCall("refuse-next"), ignored, never);
    expect(await codeOf(upstream.send(toolCall("echo", { text: "x" }), ignored, never))).toBe("upstream_failed");
    expect(await slow).toBe("none");
    expect(await echo(upstream, "after")).toBe("after");
    expect(upstream.state().restarts).toBe(0);
  });

  test("sends nothing to an endpoint at another origin", async () => {
    const upstream = up(`${await fixture("--foreign")}/sse`, { transport: "sse" });
    expect(await codeOf(upstream.identity(never))).toBe("upstream_unavailable");
    expect(upstream.state().problem).toContain("another origin");
  });

  test("gives way when the server has come back with Streamable HTTP", async () => {
    const older = await startFixture("echo-sse", ["--at", "/mcp"]);
    cleanups.push(older.stop);
    const upstream = up(`${older.origin}/mcp`);
    expect(await echo(upstream, "older")).toBe("older");
    await older.stop();
    const newer = await startFixture("echo-http", ["--port", String(older.port)]);
    cleanups.push(newer.stop);
    await waitFor(() => codeOf(echo(upstream, "newer")).then((code) => code === "none"));
    expect(await echo(upstream, "newer")).toBe("newer");
  });
});

describe("HTTP+SSE with credentials or isolation", () => {
  test("each caller has a connection of its own, opened and used with its own credential", async () => {
    const { url, opened } = await hand();
    for (const transport of ["sse", "auto"] as const) {
      const upstream = up(url, { transport }, namedCredentials());
      const users = Array.from({ length: 20 }, (_, index) => `user-${index}`);
      const answers = await Promise.all(
        users.flatMap((subject) =>
          [0, 1].map(() => upstream.send(toolCall("whoami", {}, { subject }), ignored, never)),
        ),
      );
      expect(answers.map(textOf)).toEqual(
        users.flatMap((subject) => Array(2).fill(`stream Bearer ${subject}, message Bearer ${subject}`)),
      );
      expect((await upstream.list("tools", never)).length).toBe(1);
      expect(upstream.state()).toMatchObject({ instances: 20, inFlight: 0 });
    }
    // Ours for the lists, and theirs, for each of the two.
    expect(new Set(opened).size).toBe(21);
    expect(opened).toHaveLength(42);
  });

  test("per-session keeps sessions of one user apart, and their end ends the connection", async () => {
    const { url, open } = await hand();
    const upstream = up(url, { transport: "sse", isolation: "per-session", sessions: { max: 3, idleSeconds: 60 } });
    const from = (session: string) =>
      upstream.send(toolCall("whoami", {}, { subject: "ann", session }), ignored, never).then(textOf);
    await Promise.all([from("1"), from("2")]);
    await waitFor(() => open() === 3);
    upstream.sessionEnded?.("1");
    await waitFor(() => open() === 2);
    for (let session = 3; session < 12; session++) await from(String(session));
    await waitFor(() => open() <= 4);
    await upstream.sweep?.(async () => false);
    await waitFor(() => open() === 1);
    await upstream.close(never);
    await waitFor(() => open() === 0);
  });

  test("a caller without a credential is told so, and reaches nobody", async () => {
    const { url, opened } = await hand();
    const credentials = {
      ...namedCredentials(),
      for: () => Promise.reject(new DrawbridgeError("unauthenticated", "Sign in.")),
    };
    const upstream = up(url, { transport: "sse", startTimeoutSeconds: 2 }, credentials);
    expect(await codeOf(upstream.send(toolCall("whoami"), ignored, never))).toBe("unauthenticated");
    await upstream.identity(never);
    expect(new Set(opened)).toEqual(new Set(["Bearer own"]));
  });
});

describe("a server over HTTP+SSE that misbehaves", () => {
  test("with answers in another order, twice, to unknown ids, and cut within characters, gives each caller its own", async () => {
    const { url } = await hand((answers, send) => {
      if (answers.length < 50) return;
      const shuffled = answers.splice(0).reverse();
      const unknown = { jsonrpc: "2.0", id: 1e9, result: { content: [{ type: "text", text: "of nobody" }] } };
      const again = shuffled.map((one) => ({ ...one, result: { content: [{ type: "text", text: "second" }] } }));
      const bytes = Buffer.from(
        [unknown, ...shuffled, ...again].map((one) => `event: message\ndata: ${JSON.stringify(one)}\n\n`).join(""),
      );
      for (let at = 0; at < bytes.length; at += 7) send(bytes.subarray(at, at + 7));
    });
    const upstream = up(url, { transport: "sse" });
    const texts = Array.from({ length: 50 }, (_, index) => `☃ ${index} 🙂`);
    const answers = await Promise.all(
      texts.map((text, index) => upstream.send(toolCall("held", { text }, { subject: `u${index}` }), ignored, never)),
    );
    expect(answers.map(textOf)).toEqual(texts);
  });

  test("with a line that does not end loses the connection and not the gateway, and the next call has a new one", async () => {
    let flood = true;
    const { url, opened } = await hand((answers, send) => {
      if (!flood) {
        for (const one of answers.splice(0)) send(`data: ${JSON.stringify(one)}\n\n`);
        return;
      }
      flood = false;
      answers.splice(0);
      send(`data: ${"x".repeat(3 << 20)}`);
    });
    const upstream = up(url, { transport: "sse", maxAnswerBytes: 1 << 20 });
    expect(await codeOf(upstream.send(toolCall("held", { text: "1" }), ignored, never))).toBe("answer_too_large");
    expect(textOf(await upstream.send(toolCall("held", { text: "2" }), ignored, never))).toBe("2");
    expect(opened.length).toBeGreaterThanOrEqual(2);
  });
});

interface Answer {
  readonly jsonrpc: "2.0";
  readonly id: unknown;
  readonly result: unknown;
}

/**
 * A server of this process. `whoami` tells with which credentials its stream was opened and it was called; answers to `held` are kept for
 * `release`, which is called with all of them at each call.
 */
async function hand(
  release: (answers: Answer[], send: (piece: string | Buffer) => void) => void = () => {},
): Promise<{ url: string; opened: string[]; open(): number }> {
  const streams = new Map<string, { response: ServerResponse; authorization: string; held: Answer[] }>();
  const opened: string[] = [];
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://localhost");
    const authorization = String(request.headers.authorization);
    if (pathname === "/sse" && request.method === "GET") {
      const id = String(opened.push(authorization));
      streams.set(id, { response, authorization, held: [] });
      response.on("close", () => streams.delete(id));
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`event: endpoint\ndata: /messages?id=${id}\n\n`);
      return;
    }
    let text = "";
    for await (const chunk of request) text += chunk;
    const stream = streams.get(searchParams.get("id") ?? "");
    if (pathname !== "/messages" || stream === undefined) {
      response.writeHead(pathname === "/sse" ? 405 : 404).end();
      return;
    }
    response.writeHead(202).end();
    const message = JSON.parse(text) as { id?: number; method: string; params?: { name?: string; arguments?: object } };
    if (message.id === undefined) return;
    const answer = (result: unknown): Answer => ({ jsonrpc: "2.0", id: message.id, result });
    const say = (result: unknown) => void stream.response.write(`data: ${JSON.stringify(answer(result))}\n\n`);
    const textual = (said: string) => ({ content: [{ type: "text", text: said }] });
    const { name, arguments: args } = message.params ?? {};
    if (message.method === "initialize") {
      const serverInfo = { name: "hand", version: "1" };
      say({ protocolVersion: "2024-11-05", capabilities: { tools: {} }, serverInfo });
    } else if (message.method === "tools/list") say({ tools: [{ name: "whoami", inputSchema: { type: "object" } }] });
    else if (name === "whoami") say(textual(`stream ${stream.authorization}, message ${authorization}`));
    else if (name === "held") {
      stream.held.push(answer(textual((args as { text: string }).text)));
      release(stream.held, (piece) => void stream.response.write(piece));
    } else say({});
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(async () => {
    server.closeAllConnections();
    server.close();
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/sse`;
  return { url, opened, open: () => streams.size };
}
