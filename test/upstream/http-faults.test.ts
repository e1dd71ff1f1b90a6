/** HTTP servers that break rules, break down or come back: each call is answered or refused once, and others go on. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, describe, expect, test } from "vitest";
import type { Outcome } from "../../src/core/call.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { openEndpoint } from "../../src/upstream/endpoint.ts";
import { mayRepeat } from "../../src/upstream/repeats.ts";
import { httpServer } from "../../src/upstream/settings.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { type Fixture, freePort, startFixture, waitFor } from "../fixtures/processes.ts";
import {
  codeOf,
  collected,
  end,
  http,
  ignored,
  namedCredentials,
  never,
  permitted,
  textOf,
  toolCall,
} from "./support.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

function up(...args: Parameters<typeof http>): Upstream {
  const { upstream } = http(...args);
  cleanups.push(() => end(upstream));
  return upstream;
}

interface Stats {
  readonly effects: number;
  readonly connections: number;
  readonly deleted: number;
  readonly sessions: number;
  readonly methods: Readonly<Record<string, number>>;
}

async function misbehaving(...args: string[]): Promise<Fixture & { url: string; stats(): Promise<Stats> }> {
  const started = await startFixture("misbehaving-http", args);
  cleanups.push(started.stop);
  const stats = async () => (await fetch(`${started.origin}/stats`)).json() as Promise<Stats>;
  return { ...started, url: `${started.origin}/mcp`, stats };
}

const call = (upstream: Upstream, tool: string, args: Record<string, unknown> = {}): Promise<Outcome> =>
  upstream.send(toolCall(tool, args), ignored, never);
const echo = async (upstream: Upstream, text: string) => textOf(await call(upstream, "echo", { text }));
const problem = (promise: Promise<unknown>): Promise<DrawbridgeError> =>
  promise.then(
    () => Promise.reject(new Error("it succeeded")),
    (error: DrawbridgeError) => error,
  );

describe("a server whose answer is wrong fails that call alone, with a reason for the operator", () => {
  test.each([
    ["body-never-ends", "upstream_timeout", /^$/],
    ["comments-never-end", "upstream_timeout", /^$/],
    ["silence", "upstream_timeout", /^$/],
    ["informational-without-end", "upstream_timeout", /^$/],
    ["body-too-large", "answer_too_large", /^$/],
    ["long-line", "answer_too_large", /^$/],
    ["gzip-bomb", "upstream_failed", /compressed body/],
    ["gzip-transfer", "upstream_failed", /./],
    ["length-too-long", "upstream_failed", /./],
    ["two-lengths", "upstream_failed", /./],
    ["chunk-cut", "upstream_failed", /./],
    ["chunk-nonsense", "upstream_failed", /./],
    ["not-utf8", "upstream_failed", /not UTF-8/],
    ["empty-body", "upstream_failed", /HTTP 200/],
    ["wrong-type", "upstream_failed", /text\/plain/],
    ["html", "upstream_failed", /HTTP 502 text\/html/],
    ["redirect", "upstream_failed", /not followed/],
    ["upgrade", "upstream_failed", /./],
    ["header-flood", "upstream_failed", /HEADERS_OVERFLOW/],
    ["no-http", "upstream_failed", /./],
    ["batch", "upstream_failed", /HTTP 200/],
    ["unknown-id-alone", "upstream_failed", /HTTP 200/],
    ["error-of-another", "upstream_failed", /HTTP 400/],
    ["stream-cut", "upstream_failed", /./],
    ["questions-without-end", "upstream_failed", /requests/],
  ])("%s: %s", async (tool, code, detail) => {
    const { url } = await misbehaving();
    const upstream = up(url, { timeoutSeconds: 2, maxAnswerBytes: 4 << 20, healthSeconds: 0 });
    await upstream.identity(never);
    const spoiled = problem(call(upstream, tool, { to: `${url}-elsewhere` }));
    const beside = Array.from({ length: 20 }, (_, index) => echo(upstream, `beside ${index}`));
    expect(await Promise.all(beside)).toEqual(beside.map((_, index) => `beside ${index}`));
    const error = await spoiled;
    expect([error.code, error.detail ?? ""]).toEqual([code, expect.stringMatching(detail)]);
    expect(error.message).not.toMatch(/secret-internal-detail|10\.0\.0\.7|of another|elsewhere/);
    expect(await echo(upstream, "after")).toBe("after");
    expect(upstream.state()).toMatchObject({ inFlight: 0, queued: 0 });
  });
});

describe("what only looks wrong is understood", () => {
  test.each([
    ["slow-body", "slow"],
    ["type-in-capitals", "capitals"],
    ["two-types", "typed"],
    ["informational", "early"],
    ["twice", "first"],
    ["unknown-ids", "own"],
    ["lies", "the truth"],
  ])("%s", async (tool, text) => {
    const { url } = await misbehaving();
    const upstream = up(url);
    const replies = collected();
    expect(textOf(await upstream.send(toolCall(tool, {}, { progressToken: "p" }), replies, never))).toBe(text);
    expect(replies.all).toEqual([]);
    expect(await echo(upstream, "after")).toBe("after");
  });

  test("characters that arrive a byte at a time stay whole", async () => {
    const { url } = await misbehaving();
    const text = "Zürich ☃ 🙂\u2028 end";
    expect(textOf(await call(up(url), "split-utf8", { text }))).toBe(text);
  });
});

test("what stands behind an answer on the same connection answers nobody else", async () => {
  const { url } = await misbehaving();
  const upstream = up(url, { maxConnections: 1 });
  for (let round = 0; round < 5; round++) {
    expect(textOf(await call(upstream, "length-too-short"))).toBe("whole");
    expect(await echo(upstream, `own ${round}`)).toBe(`own ${round}`);
  }
});

test("a redirect takes no header, and so no key, to another server", async () => {
  let visited = 0;
  const elsewhere = createServer((_, response) => {
    visited++;
    response.end();
  }).listen(0, "127.0.0.1");
  await once(elsewhere, "listening");
  cleanups.push(async () => elsewhere.close());
  const { url } = await misbehaving();
  const to = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/mcp`;
  expect(await codeOf(call(up(url, { headers: { "X-Api-Key": "key" } }), "redirect", { to }))).toBe("upstream_failed");
  expect(visited).toBe(0);
});

describe("a call that may have had an effect", () => {
  test.each([
    ["pay-and-drop", "upstream_failed"],
    ["pay-and-cut", "upstream_failed"],
    ["pay-and-fail", "upstream_failed"],
    ["pay-and-refuse", "overloaded"],
  ])("is not made twice: %s", async (tool, code) => {
    const { url, stats } = await misbehaving();
    const upstream = up(url);
    expect(await codeOf(call(upstream, tool))).toBe(code);
    expect(await echo(upstream, "after")).toBe("after");
    expect((await stats()).effects).toBe(1);
  });

  test("is not made twice when its error reads like a lost session", async () => {
    const { url, stats } = await misbehaving();
    expect(await call(up(url), "pay-and-speak-of-sessions")).toMatchObject({ kind: "error", code: -1 });
    expect((await stats()).effects).toBe(1);
  });

  test("is not made twice when the server is away for a moment before it gives the answer", async () => {
    const { url, stats } = await misbehaving();
    expect(textOf(await call(up(url), "pay-and-leave"))).toBe("paid once");
    expect((await stats()).effects).toBe(1);
  });

  test("is not made twice on a kept connection that the server closes as the call arrives", async () => {
    const { url, stats } = await misbehaving();
    const upstream = up(url, { maxConnections: 4, healthSeconds: 0 });
    for (let round = 0; round < 20; round++) {
      await echo(upstream, "warm");
      expect(await codeOf(call(upstream, "pay-and-drop"))).toBe("upstream_failed");
    }
    expect((await stats()).effects).toBe(20);
  });
});

test("under load, while the server is killed again and again, every call ends once and nothing is paid twice", async () => {
  const port = String(await freePort());
  let server = await misbehaving("--port", port);
  const outputs = [server];
  const upstream = up(server.url, { healthSeconds: 0.2, timeoutSeconds: 10, maxConnections: 20 });
  const answered = new Set<string>();
  const codes = new Map<string, number>();
  let receipts = 0;
  let over = false;
  const pay = async (subject: string) => {
    while (!over) {
      const receipt = `r${receipts++}`;
      const paying = upstream.send(toolCall("pay", { receipt }, { subject }), ignored, never);
      const code = await codeOf(paying);
      codes.set(code, (codes.get(code) ?? 0) + 1);
      if (code === "none") answered.add(receipt);
      else await sleep(5);
    }
  };
  const payers = Array.from({ length: 40 }, (_, index) => pay(`u${index % 8}`));
  for (let round = 0; round < 4; round++) {
    const before = answered.size;
    await waitFor(() => answered.size > before + 200);
    await server.stop();
    server = await misbehaving("--port", port);
    outputs.push(server);
  }
  const before = answered.size;
  await waitFor(() => answered.size > before + 200);
  over = true;
  await Promise.all(payers);
  const paid = outputs.flatMap((one) =>
    [...one.output().matchAll(/^paid (.*)$/gm)].map(([, receipt]) => String(receipt)),
  );
  expect(new Set(paid).size).toBe(paid.length);
  expect([...answered].filter((receipt) => !paid.includes(receipt))).toEqual([]);
  expect(
    [...codes.keys()].filter((code) => !["none", "upstream_failed", "upstream_unavailable"].includes(code)),
  ).toEqual([]);
  expect(upstream.state()).toMatchObject({ state: "ready", inFlight: 0, queued: 0 });
}, 60_000);

describe("a request that changes nothing is sent again", () => {
  const read = (upstream: Upstream, uri: string) => upstream.send(permitted("resources/read", { uri }), ignored, never);

  test("when the server hung up without a word", async () => {
    const { url, stats } = await misbehaving();
    expect((await read(up(url), "test://flaky")).kind).toBe("result");
    expect((await stats()).methods["resources/read"]).toBe(2);
  });

  test("after the time that an overloaded server asks for, during which it holds no connection", async () => {
    const { url, stats } = await misbehaving();
    const upstream = up(url, { maxConnections: 1 });
    await upstream.identity(never);
    const began = performance.now();
    const reading = read(upstream, "test://busy");
    await waitFor(() => upstream.state().inFlight === 0);
    expect(await echo(upstream, "meanwhile")).toBe("meanwhile");
    expect((await reading).kind).toBe("result");
    expect(performance.now() - began).toBeGreaterThan(900);
    expect((await stats()).methods["resources/read"]).toBe(2);
  });

  test("not when there is no time for that: the client is told how long to wait", async () => {
    const { url, stats } = await misbehaving();
    const error = await problem(read(up(url, { timeoutSeconds: 0.9 }), "test://busy"));
    expect([error.code, error.retryAfterSeconds]).toEqual(["overloaded", 1]);
    expect((await stats()).methods["resources/read"]).toBe(1);
  });

  test("and a caller who gives up during the wait ends it", async () => {
    const { url, stats } = await misbehaving();
    const upstream = up(url);
    await upstream.identity(never);
    const control = new AbortController();
    const reading = codeOf(upstream.send(permitted("resources/read", { uri: "test://busy" }), ignored, control.signal));
    await waitFor(async () => (await stats()).methods["resources/read"] === 1 && upstream.state().inFlight === 0);
    control.abort();
    expect(await reading).toBe("cancelled");
    await upstream.close(never);
    expect((await stats()).methods["resources/read"]).toBe(1);
  });

  test("a tool call only when nothing of it was sent", () => {
    expect(mayRepeat("tools/call", "never")).toBe(true);
    for (const reached of ["unready", "maybe", "surely"] as const) expect(mayRepeat("tools/call", reached)).toBe(false);
    expect(mayRepeat("tools/list", "maybe")).toBe(true);
    expect(mayRepeat("initialize", "maybe")).toBe(false);
  });
});

describe("the circuit breaker", () => {
  const quick = { healthSeconds: 0.2, timeoutSeconds: 5, startTimeoutSeconds: 5 };

  test("opens when nobody can be reached, refuses at once, and a server that is started again is found", async () => {
    const port = await freePort();
    const first = await misbehaving("--port", String(port));
    const upstream = up(first.url, quick);
    expect(await echo(upstream, "before")).toBe("before");
    await first.stop();
    await waitFor(async () => {
      const error = await problem(echo(upstream, "lost"));
      return error.code === "upstream_unavailable" && error.retryAfterSeconds !== undefined;
    });
    const began = performance.now();
    const refused = await Promise.all(Array.from({ length: 200 }, () => problem(echo(upstream, "refused"))));
    expect(performance.now() - began).toBeLessThan(500);
    expect(new Set(refused.map(({ code, retryAfterSeconds }) => `${code} ${retryAfterSeconds}`))).toEqual(
      new Set(["upstream_unavailable 1"]),
    );
    const { state, problem: said } = upstream.state();
    expect(state).toBe("degraded");
    expect(said).toMatch(
      /cannot be reached.*times in a row, for \d+ s; asked again .*calls are refused until it answers/,
    );
    await misbehaving("--port", String(port));
    // Nobody calls meanwhile: pings of ours find it.
    await waitFor(() => upstream.state().state === "ready");
    expect(await echo(upstream, "back")).toBe("back");
  });

  test("refuses calls that wait for a connection too, as soon as it opens", async () => {
    const held = createTcpServer((socket) => void socket.on("error", () => {})).listen(0, "127.0.0.1");
    await once(held, "listening");
    const { port } = held.address() as AddressInfo;
    held.close();
    const upstream = up(`http://127.0.0.1:${port}/mcp`, { ...quick, maxConnections: 2 });
    const codes = await Promise.all(Array.from({ length: 100 }, () => codeOf(echo(upstream, "x"))));
    expect(new Set(codes)).toEqual(new Set(["upstream_unavailable"]));
    expect(upstream.state()).toMatchObject({ inFlight: 0, queued: 0 });
  });

  test("stays closed when one caller's calls fail: our own ping is answered", async () => {
    const { url, stats } = await misbehaving();
    const upstream = up(url, quick);
    await upstream.identity(never);
    for (let round = 0; round < 60; round++)
      expect(await codeOf(call(upstream, round % 2 === 0 ? "pay-and-fail" : "pay-and-drop"))).toBe("upstream_failed");
    expect((await stats()).effects).toBe(60);
    expect(await echo(upstream, "others go on")).toBe("others go on");
    await waitFor(() => upstream.state().state === "ready");
  });

  test("opens when pings fail too, and each probe of a server that answers 5xx to everything is one ping", async () => {
    let broken = false;
    let pings = 0;
    let calls = 0;
    const server = await hand((method) => {
      if (method === "ping") pings++;
      if (method === "tools/call") calls++;
      return broken ? 502 : 200;
    });
    const upstream = up(server.url, quick);
    await echo(upstream, "x");
    broken = true;
    await waitFor(async () => (await codeOf(echo(upstream, "x"))) === "upstream_unavailable");
    const before = { pings, calls };
    await waitFor(() => pings > before.pings + 2);
    expect(calls).toBe(before.calls);
    broken = false;
    await waitFor(() => upstream.state().state === "ready");
    expect(calls).toBe(before.calls);
    expect(await codeOf(echo(upstream, "x"))).toBe("none");
  });

  test("closes by a call where we have no credential to ask with ourselves", async () => {
    const port = await freePort();
    const first = await misbehaving("--port", String(port));
    let ours = true;
    const named = namedCredentials();
    const upstream = up(first.url, quick, {
      ...named,
      own: (signal) =>
        ours ? named.own(signal) : Promise.reject(new DrawbridgeError("unauthenticated", "Nobody has connected us.")),
    });
    expect(await echo(upstream, "before")).toBe("before");
    ours = false;
    await first.stop();
    await waitFor(async () => (await problem(echo(upstream, "lost"))).retryAfterSeconds !== undefined);
    await misbehaving("--port", String(port));
    await waitFor(async () => (await codeOf(echo(upstream, "back"))) === "none");
    expect(upstream.state().state).toBe("ready");
  });

  test("is not moved by errors of tools, nor by 4xx", async () => {
    const { url } = await misbehaving();
    const upstream = up(url, quick);
    for (let round = 0; round < 20; round++) {
      expect(await codeOf(call(upstream, "error-of-another"))).toBe("upstream_failed");
      expect((await call(upstream, "no-such-tool")).kind).toBe("error");
    }
    expect(upstream.state()).toMatchObject({ state: "ready", problem: undefined });
  });

  test("a server that is not in use is pinged, and one that is gone is known before anybody calls", async () => {
    const fixture = await misbehaving();
    const upstream = up(fixture.url, quick);
    await upstream.identity(never);
    await waitFor(async () => ((await fixture.stats()).methods["ping"] ?? 0) >= 2);
    await fixture.stop();
    await waitFor(() => upstream.state().state === "degraded");
    expect(upstream.state().problem).toMatch(/cannot be reached/);
  });

  test("with healthSeconds: 0 nobody is pinged who has not failed", async () => {
    const fixture = await misbehaving();
    const upstream = up(fixture.url, { healthSeconds: 0 });
    await echo(upstream, "x");
    await sleep(700);
    expect((await fixture.stats()).methods["ping"]).toBeUndefined();
  });

  test("a modern server is asked who it is instead of a ping", async () => {
    const started = await startFixture("echo-http", ["--era", "modern"]);
    cleanups.push(started.stop);
    const upstream = up(`${started.origin}/mcp`, quick);
    await upstream.identity(never);
    await waitFor(async () => {
      const { headers } = (await (await fetch(`${started.origin}/stats`)).json()) as {
        headers: Record<string, string>[];
      };
      return headers.filter((one) => one["mcp-method"] === "server/discover").length >= 3;
    });
    expect(upstream.state().state).toBe("ready");
  });
});

test("with ten times the load, refusals come at once with the time to come back, and a newcomer is served", async () => {
  const started = await startFixture("echo-http", ["--era", "legacy"]);
  cleanups.push(started.stop);
  const upstream = up(`${started.origin}/mcp`, { maxConnections: 4, maxQueued: 40 });
  await upstream.identity(never);
  const refusals: number[] = [];
  let served = 0;
  const slow = (subject: string) => {
    const began = performance.now();
    return upstream.send(toolCall("slow", { ms: 20 }, { subject }), ignored, never).then(
      () => void served++,
      (error: DrawbridgeError) => {
        refusals.push(performance.now() - began);
        expect([error.code, error.retryAfterSeconds]).toEqual(["overloaded", expect.any(Number)]);
      },
    );
  };
  const crowd = Array.from({ length: 440 }, (_, index) => slow(`greedy-${index % 2}`));
  const began = performance.now();
  await slow("newcomer");
  expect(served).toBeLessThan(30);
  expect(performance.now() - began).toBeLessThan(5_000);
  await Promise.all(crowd);
  expect(refusals.length).toBeGreaterThan(380);
  expect(Math.max(...refusals)).toBeLessThan(500);
  expect(served).toBe(441 - refusals.length);
});

describe("connections", () => {
  test("5,000 of them leave nothing behind", async () => {
    const { url, stats } = await misbehaving();
    const upstream = up(url, { maxConnections: 100, headers: { connection: "close" } });
    await echo(upstream, "warm");
    const sockets = () => process.getActiveResourcesInfo().filter((one) => one === "TCPSocketWrap").length;
    const before = sockets();
    const wave = (size: number) => Promise.all(Array.from({ length: size }, (_, at) => echo(upstream, `${at}`)));
    await wave(500);
    const heapBefore = heapUsed();
    for (let waves = 0; waves < 9; waves++) await wave(500);
    expect((await stats()).connections).toBeGreaterThan(5_000);
    await waitFor(() => sockets() <= before + 1);
    expect(heapUsed() - heapBefore).toBeLessThan(20 << 20);
    expect(upstream.state()).toMatchObject({ inFlight: 0, queued: 0 });
  }, 60_000);

  test("that are idle are closed, whatever the server promises to keep", async () => {
    let open = 0;
    const server = await hand(() => 200, { "keep-alive": "timeout=600" });
    server.on("connection", (socket) => {
      open++;
      socket.on("close", () => open--);
    });
    const events = { listChanged() {}, resourceUpdated() {} };
    const endpoint = openEndpoint("s", httpServer.parse({ url: server.url }), events, { connectionMs: 300 });
    cleanups.push(() => endpoint.close());
    const ping = () =>
      endpoint.ask("ping", "{}", { headers: endpoint.headers, envelope: "" }, { credential: undefined });
    await Promise.all([ping(), ping(), ping()]);
    expect(open).toBe(3);
    await sleep(350);
    await ping();
    await waitFor(() => open === 1);
  });

  test("go to the new address of a server that has moved", async () => {
    const old = await hand(() => 200);
    const { port } = old.address() as AddressInfo;
    const moved = createServer((_, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end('{"jsonrpc":"2.0","error":{"code":7,"message":"moved"}}');
    }).listen(port, "127.0.0.2");
    await once(moved, "listening");
    cleanups.push(async () => {
      moved.closeAllConnections();
      moved.close();
    });
    let address = "127.0.0.1";
    const settings = httpServer.parse({ url: `http://moving.test:${port}/mcp`, allowInsecureHttp: true });
    const endpoint = openEndpoint(
      "s",
      settings,
      { listChanged() {}, resourceUpdated() {} },
      {
        connectionMs: 200,
        lookup: (_, options, answer) =>
          options.all === true ? answer(null, [{ address, family: 4 }]) : answer(null, address, 4),
      },
    );
    cleanups.push(() => endpoint.close());
    const ask = () =>
      endpoint.ask("ping", "{}", { headers: endpoint.headers, envelope: "" }, { credential: undefined });
    expect((await ask()).response?.kind).toBe("result");
    address = "127.0.0.2";
    // The old server is still there and keeps its connection, which is used all the time.
    await waitFor(async () => (await ask()).response?.kind !== "result");
  });
});

/** What is left after everything that can go has gone. */
function heapUsed(): number {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
  return process.memoryUsage().heapUsed;
}

/** A server of this process that answers whatever is asked, with the HTTP status that `status` says. */
async function hand(
  status: (method: string) => number,
  headers: Record<string, string> = {},
): Promise<Server & { url: string }> {
  const server = createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { id, method = "" } = (text === "" ? {} : JSON.parse(text)) as { id?: number; method?: string };
    const code = status(method);
    if (request.method !== "POST") return void response.writeHead(405).end();
    if (code !== 200) return void response.writeHead(code, { "content-type": "text/html" }).end("<h1>no</h1>");
    if (id === undefined) return void response.writeHead(202).end();
    if (method === "server/discover") return void response.writeHead(404).end();
    const result =
      method === "initialize"
        ? { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "h", version: "1" } }
        : { content: [{ type: "text", text: "x" }] };
    response.writeHead(200, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify({ jsonrpc: "2.0", id, result }));
    return undefined;
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  cleanups.push(async () => {
    server.closeAllConnections();
    server.close();
  });
  return Object.assign(server, { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/mcp` });
}
