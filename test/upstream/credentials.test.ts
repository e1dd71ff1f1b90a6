/** `credentials` of an HTTP upstream: who is at the other end of each request, as the server sees it. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { DrawbridgeError } from "../../src/core/errors.ts";
import type { UpstreamCredentials } from "../../src/upstream/credentials.ts";
import { type Fixture, startFixture, waitFor } from "../fixtures/processes.ts";
import { upstreamContract } from "./contract.ts";
import { collected, end, http, ignored, namedCredentials, never, textOf, toolCall } from "./support.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

upstreamContract("HTTP with credentials, 2025-11-25", {
  modern: false,
  open: async (settings) => http((await fixture("--era", "legacy")).url, settings, namedCredentials()),
});
upstreamContract("HTTP with credentials, 2026-07-28", {
  modern: true,
  open: async (settings) => http((await fixture("--era", "modern")).url, settings, namedCredentials()),
});

interface Stats {
  readonly headers: readonly Readonly<Record<string, string>>[];
  readonly sessions: number;
}

async function fixture(...args: string[]): Promise<Fixture & { url: string; stats(): Promise<Stats> }> {
  const started = await startFixture("echo-http", args);
  cleanups.push(started.stop);
  const stats = async () => (await fetch(`${started.origin}/stats`)).json() as Promise<Stats>;
  return { ...started, url: `${started.origin}/mcp`, stats };
}

function up(
  url: string,
  settings: Parameters<typeof http>[1] = {},
  credentials: UpstreamCredentials = namedCredentials(),
) {
  const recorded = http(url, settings, credentials);
  cleanups.push(() => end(recorded.upstream));
  return recorded.upstream;
}

interface Seen {
  readonly http: string;
  readonly method: string;
  readonly authorization: string | undefined;
}

/** A server of this process: speaks 2026-07-28, offers one tool, and answers calls as told. */
async function server(
  call: (request: IncomingMessage, response: ServerResponse) => void,
  method = "tools/call",
): Promise<{ url: string; seen: Seen[] }> {
  const seen: Seen[] = [];
  const listening = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const message = (text === "" ? {} : JSON.parse(text)) as { id?: number; method?: string };
    seen.push({
      http: String(request.method),
      method: message.method ?? "",
      authorization: request.headers.authorization,
    });
    if (message.method === method) call(request, response);
    if (response.headersSent || response.destroyed) return;
    const result =
      message.method === "server/discover"
        ? { supportedVersions: ["2026-07-28"], capabilities: { tools: {} } }
        : message.method === "tools/list"
          ? { tools: [{ name: "t", inputSchema: {} }] }
          : { content: [{ type: "text", text: "done" }] };
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ jsonrpc: "2.0", id: message.id, result }));
  });
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  cleanups.push(async () => {
    listening.closeAllConnections();
    listening.close();
  });
  return { url: `http://127.0.0.1:${(listening.address() as AddressInfo).port}/mcp`, seen };
}

const problem = (promise: Promise<unknown>): Promise<DrawbridgeError> =>
  promise.then(
    () => Promise.reject(new Error("it succeeded")),
    (error: DrawbridgeError) => error,
  );

const unauthorized = (response: ServerResponse, body?: object) => {
  response.writeHead(401, { "www-authenticate": "Bearer", "content-type": "application/json" });
  response.end(body === undefined ? undefined : JSON.stringify(body));
};

/** Whose credentials came with each session that the server gave. */
function sessionsOf({ headers }: Stats): Map<string, Set<string>> {
  const users = new Map<string, Set<string>>();
  for (const { authorization = "none", "mcp-session-id": session } of headers) {
    if (session !== undefined) users.set(session, (users.get(session) ?? new Set()).add(authorization));
  }
  return users;
}

describe("a request", () => {
  test.each(["legacy", "modern"])(
    "carries the caller's credential in a call, and ours in all the rest (%s)",
    async (era) => {
      const { url, stats } = await fixture("--era", era);
      const upstream = up(url);
      await upstream.list("tools", never);
      await upstream.subscribe("test://static/greeting", never);
      await Promise.all(
        ["ann", "ben"].map((subject) =>
          upstream.send(toolCall("echo", { text: subject }, { subject }), ignored, never),
        ),
      );
      const all = (await stats()).headers.filter((one) => one["content-type"] !== undefined);
      const count = (authorization: string) => all.filter((one) => one["authorization"] === authorization).length;
      expect(count("Bearer own") + count("Bearer ann") + count("Bearer ben")).toBe(all.length);
      // A user of an older server has a session: a handshake of two requests, and the call.
      expect([count("Bearer ann"), count("Bearer ben")]).toEqual(era === "legacy" ? [3, 3] : [1, 1]);
    },
  );

  test("of the caller never goes with our own credential when there is none for the caller", async () => {
    const { url, seen } = await server(() => {});
    const upstream = up(
      url,
      {},
      {
        ...namedCredentials(),
        for: () => Promise.reject(new DrawbridgeError("unauthenticated", "The grant has ended.")),
      },
    );
    expect((await problem(upstream.send(toolCall("t"), ignored, never))).code).toBe("unauthenticated");
    expect(seen.filter(({ method }) => method === "tools/call")).toEqual([]);
    // It is the caller's trouble and not the server's.
    expect(upstream.state()).toMatchObject({ state: "ready", problem: undefined });
  });

  test("that is cancelled is cancelled in the caller's name", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url);
    const control = new AbortController();
    const replies = collected();
    const sent = upstream.send(toolCall("slow", { ms: 5_000 }, { progressToken: 1 }), replies, control.signal);
    await waitFor(() => replies.all.length > 0);
    control.abort();
    await problem(sent);
    await waitFor(async () => ((await stats()) as unknown as { cancelled: number }).cancelled === 1);
    const last = (await stats()).headers.filter((one) => one["authorization"] === "Bearer ann");
    // The handshake, the call, and its end.
    expect(last).toHaveLength(4);
  });

  test("is not sent at all when the settings ask for credentials that nobody makes", () => {
    expect(() => http("http://127.0.0.1:9/mcp", { credentials: "exchange" })).toThrow(
      expect.objectContaining({ code: "settings_invalid" }),
    );
  });
});

describe("a session at a server that keeps them", () => {
  const call = (upstream: ReturnType<typeof up>, subject: string, client = "c") =>
    upstream.send(toolCall("echo", { text: subject }, { subject, client }), ignored, never);

  test("belongs to one user and one client, and to ourselves apart from them", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url);
    for (let round = 0; round < 3; round++) {
      await Promise.all([call(upstream, "ann"), call(upstream, "ann", "other"), call(upstream, "ben")]);
    }
    const users = [...sessionsOf(await stats()).values()].map((seen) => [...seen]).sort();
    expect(users).toEqual([["Bearer ann"], ["Bearer ann"], ["Bearer ben"], ["Bearer own"]]);
    expect((await stats()).sessions).toBe(4);
  });

  test("is not begun for anybody at a server of 2026-07-28, or one without sessions", async () => {
    for (const args of [
      ["--era", "modern"],
      ["--era", "legacy", "--stateless"],
    ]) {
      const { url, stats } = await fixture(...args);
      const upstream = up(url);
      await Promise.all([call(upstream, "ann"), call(upstream, "ben")]);
      expect(sessionsOf(await stats()).size).toBe(0);
    }
  });

  test("is ended when there are too many, the one that was unused for longest first, and none that is in use", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url, { sessions: { max: 2 } });
    const replies = collected();
    const busy = upstream.send(toolCall("slow", { ms: 2_500 }, { subject: "busy", progressToken: 1 }), replies, never);
    await waitFor(() => replies.all.length > 0);
    for (const subject of ["ann", "ben", "eve"]) await call(upstream, subject);
    // Beside our own: the busy one and the newest.
    await waitFor(async () => (await stats()).sessions === 3);
    expect(textOf(await busy)).toBe("slept 2500 ms");
    expect(textOf(await call(upstream, "ann"))).toBe("ann");
  });

  test("is ended when it was unused for a while", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url, { sessions: { idleSeconds: 0.2 } });
    await call(upstream, "ann");
    expect((await stats()).sessions).toBeGreaterThan(0);
    await waitFor(async () => (await stats()).sessions === 1);
    expect(textOf(await call(upstream, "ann"))).toBe("ann");
  });

  test("is ended by us when its user's credential has ended before it", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    let over = false;
    const named = namedCredentials();
    const upstream = up(
      url,
      { sessions: { idleSeconds: 0.2 } },
      {
        ...named,
        for: (...asked) =>
          over ? Promise.reject(new DrawbridgeError("unauthenticated", "Over.")) : named.for(...asked),
      },
    );
    await call(upstream, "ann");
    over = true;
    await waitFor(async () => (await stats()).sessions === 1);
  });

  test("is ended when the upstream is closed", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url);
    await Promise.all(["ann", "ben", "eve"].map((subject) => call(upstream, subject)));
    expect((await stats()).sessions).toBe(4);
    await upstream.close(never);
    expect((await stats()).sessions).toBe(0);
  });

  test("that the server has forgotten is made anew for whoever calls, and the call sent again", async () => {
    const { url, stats } = await fixture("--era", "legacy");
    const upstream = up(url);
    await Promise.all([call(upstream, "ann"), call(upstream, "ben")]);
    await upstream.send(toolCall("forget-sessions", {}, { subject: "ann" }), ignored, never);
    expect(textOf(await call(upstream, "ben"))).toBe("ben");
    const users = [...sessionsOf(await stats()).values()].map((seen) => [...seen]);
    expect(users.every((seen) => seen.length === 1)).toBe(true);
  });
});

describe("a credential that the server turns away", () => {
  test("is replaced once, and the call goes through", async () => {
    const { url, seen } = await server((request, response) => {
      if (request.headers.authorization === "Bearer ann") unauthorized(response);
    });
    expect(textOf(await up(url).send(toolCall("t"), ignored, never))).toBe("done");
    const calls = seen.filter(({ method }) => method === "tools/call").map(({ authorization }) => authorization);
    expect(calls).toEqual(["Bearer ann", "Bearer ann-1"]);
  });

  test.each([
    ["with nothing", undefined],
    [
      "with a JSON-RPC error",
      { jsonrpc: "2.0", id: null, error: { code: -32001, message: "Sign in at evil.example" } },
    ],
  ])("twice ends the call, %s, and the client hears nothing of the server's challenge", async (_, body) => {
    const { url, seen } = await server((_request, response) => unauthorized(response, body));
    const error = await problem(up(url).send(toolCall("t"), ignored, never));
    expect(error.code).toBe("upstream_failed");
    expect(error.message).toBe('The server "s" refused the token that was made for it.');
    expect(error.detail).toMatch(/HTTP 401/);
    expect(seen.filter(({ method }) => method === "tools/call")).toHaveLength(2);
  });

  test("is not sent again when there is no other", async () => {
    const { url, seen } = await server((_, response) => unauthorized(response));
    const named = namedCredentials();
    const upstream = up(url, {}, { ...named, for: (by, signal) => named.for(by, signal) });
    expect((await problem(upstream.send(toolCall("t"), ignored, never))).code).toBe("upstream_failed");
    expect(seen.filter(({ method }) => method === "tools/call")).toHaveLength(1);
  });

  test("ends the call as unauthenticated when the caller's grant turns out to have ended", async () => {
    const { url } = await server((_, response) => unauthorized(response));
    const named = namedCredentials();
    const upstream = up(
      url,
      {},
      {
        ...named,
        for: (by, signal, refused) =>
          refused === undefined
            ? named.for(by, signal)
            : Promise.reject(new DrawbridgeError("unauthenticated", "Over.")),
      },
    );
    expect((await problem(upstream.send(toolCall("t"), ignored, never))).code).toBe("unauthenticated");
  });

  test("is replaced for our own requests too", async () => {
    const { url, seen } = await server((request, response) => {
      if (request.headers.authorization === "Bearer own") unauthorized(response);
    }, "tools/list");
    expect(await up(url).list("tools", never)).toHaveLength(1);
    expect(seen.at(-1)).toMatchObject({ method: "tools/list", authorization: "Bearer own-1" });
  });

  test("while an answer is resumed does not send the call a second time", async () => {
    let calls = 0;
    const listening = createServer(async (request, response) => {
      let text = "";
      for await (const chunk of request) text += chunk;
      if (request.method === "GET") return void unauthorized(response);
      const { id, method } = JSON.parse(text) as { id?: number; method: string };
      const answer = (result: object) => {
        response.writeHead(200, { "content-type": "application/json" });
        response.end(JSON.stringify({ jsonrpc: "2.0", id, result }));
      };
      if (method === "initialize")
        return answer({ protocolVersion: "2025-11-25", capabilities: {}, serverInfo: { name: "x", version: "1" } });
      if (method === "notifications/initialized") return void response.writeHead(202).end();
      if (method !== "tools/call") return void response.writeHead(404).end();
      calls++;
      response.writeHead(200, { "content-type": "text/event-stream" }).end("id: e-1\nretry: 10\ndata:\n\n");
    });
    await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
    cleanups.push(async () => {
      listening.closeAllConnections();
      listening.close();
    });
    const upstream = up(`http://127.0.0.1:${(listening.address() as AddressInfo).port}/mcp`);
    expect((await problem(upstream.send(toolCall("pay"), ignored, never))).code).toBe("upstream_failed");
    expect(calls).toBe(1);
  });
});

test("a scope that the server misses is named to the caller, in band and not as a challenge", async () => {
  const { url, seen } = await server((_, response) => {
    const challenge =
      'Bearer error="insufficient_scope", scope="orders:write <b>", resource_metadata="https://evil.example"';
    response.writeHead(403, { "www-authenticate": challenge }).end();
  });
  const error = await problem(up(url).send(toolCall("t"), ignored, never));
  expect([error.code, error.http, error.scope]).toEqual(["upstream_failed", 200, undefined]);
  expect(error.message).toBe(
    'The server "s" asks for the scope orders:write, which the caller\'s token for it does not carry.',
  );
  expect(seen.filter(({ method }) => method === "tools/call")).toHaveLength(1);
});

test("tells which credential a call was sent with, the last one last", async () => {
  const { url } = await server((request, response) => {
    if (request.headers.authorization === "Bearer ann") unauthorized(response);
  });
  const sent: string[] = [];
  const replies = {
    notify() {},
    sentWith: ({ value }: { value: { reveal(): string } }) => void sent.push(value.reveal()),
  };
  await up(url).send(toolCall("t"), replies, never);
  expect(sent).toEqual(["Bearer ann", "Bearer ann-1"]);
});
