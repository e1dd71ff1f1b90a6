/** What an app may have done to a request before, and the web's kind of requests: what arrives, and what is refused. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import express, { type RequestHandler } from "express";
import { afterEach, describe, expect, test } from "vitest";
import { openAppEdge } from "../../src/author/app-edge.ts";
import { openWebExchange, type WebExchange } from "../../src/author/web-exchange.ts";
import { listen, stop } from "../oauth/support.ts";

const closing: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

/** An edge below `/desk` whose handler says what it got. */
function edge(bodyMs = 10_000) {
  const made = openAppEdge(new URL("https://shop.example/desk"), bodyMs);
  made.listener.answer(async (request, response) => {
    const got = { url: request.url, length: request.headers["content-length"], body: await text(request) };
    response.setHeader("content-type", "application/json").end(JSON.stringify(got));
  });
  return made;
}
async function expressWith(...before: RequestHandler[]): Promise<string> {
  const app = express();
  const { node } = edge();
  app.use(...before, node);
  const server = createServer(app);
  closing.push(() => stop(server));
  return `http://127.0.0.1:${await listen(server)}/desk/mcp`;
}
const send = async (url: string, body: string, type: string) => {
  const answer = await fetch(url, { method: "POST", body, headers: { "content-type": type } });
  return { status: answer.status, got: (await answer.json()) as { body?: string; error?: { message: string } } };
};
const drain: RequestHandler = (request, _response, next) => void request.resume().once("end", () => next());

describe("a body that the app has read", () => {
  const exact = '{"jsonrpc":"2.0",  "id":12345678901234567890}';

  test.each([
    ["with a raw parser, is what came", express.raw({ type: "*/*" })],
    ["with a text parser, is what came", express.text({ type: "*/*" })],
    [
      "with a JSON parser that kept the bytes, is what came",
      express.json({ verify: (request, _response, bytes) => Object.assign(request, { rawBody: bytes }) }),
    ],
    ["with a parser for something else, is still to be read", express.urlencoded()],
  ])("%s", async (_, parser) => {
    const { status, got } = await send(await expressWith(parser), exact, "application/json");
    expect([status, got.body]).toEqual([200, exact]);
  });

  test("with a JSON parser alone, is the same message", async () => {
    const { got } = await send(
      await expressWith(express.json()),
      '{ "a": [1, "ü", null], "__proto__": 1 }',
      "application/json",
    );
    expect(got.body).toBe('{"a":[1,"ü",null],"__proto__":1}');
  });

  test("as a form, has the fields that came twice twice", async () => {
    const url = await expressWith(express.urlencoded({ extended: false }));
    const { got } = await send(url, "a=1&b=%26+x&a=2", "application/x-www-form-urlencoded");
    expect([...new URLSearchParams(got.body)].toSorted()).toEqual([
      ["a", "1"],
      ["a", "2"],
      ["b", "& x"],
    ]);
  });

  test.each([
    ["and thrown away", drain, "application/json", exact],
    ["as a form that it nested", express.urlencoded({ extended: true }), "application/x-www-form-urlencoded", "a[b]=1"],
    ["under a type that is neither", express.json({ type: "*/*" }), "text/plain", "{}"],
  ] as const)("%s is refused with what to do", async (_, parser, type, body) => {
    const { status, got } = await send(await expressWith(parser), body, type);
    expect([status, got.error?.message]).toEqual([500, expect.stringContaining("before its body parsers")]);
  });
});

describe("what is ours", () => {
  const { owns, documents, node } = edge();
  test.each([
    ["/desk", true],
    ["/desk/mcp?x=1", true],
    ["https://shop.example/desk/oauth/token", true],
    ...documents.map((path) => [path, true] as const),
    ["/desks", false],
    ["/Desk/mcp", false],
    ["//desk/mcp", false],
    ["/x/../desk/mcp", false],
    ["/.well-known/oauth-protected-resource", false],
    ["/", false],
    ["*", false],
    ["", false],
    [undefined, false],
  ] as const)("%s: %s", (url, ours) => expect(owns(url)).toBe(ours));

  test("keeps its whole path inside a router of Express", async () => {
    const app = express();
    app.use("/desk", node);
    const server = createServer(app);
    closing.push(() => stop(server));
    const answer = await fetch(`http://127.0.0.1:${await listen(server)}/desk/mcp?a=b`);
    expect(await answer.json()).toMatchObject({ url: "/desk/mcp?a=b" });
  });

  test("all else is 404 where nobody comes next", async () => {
    const server = createServer((request, response) => node(request, response));
    closing.push(() => stop(server));
    expect((await fetch(`http://127.0.0.1:${await listen(server)}/orders`)).status).toBe(404);
  });
});

test("a request that does not arrive is ended", async () => {
  const { fetch: ask } = edge(50);
  const never = new ReadableStream<Uint8Array>({});
  const request = new Request("https://shop.example/desk/mcp", {
    method: "POST",
    body: never,
    duplex: "half",
  } as never);
  await expect(ask(request)).rejects.toThrow();
});

describe("a request of the web's kind", () => {
  const exchange = (handler: (request: IncomingMessage, response: ServerResponse) => void): WebExchange => {
    const made = openWebExchange(handler);
    closing.push(() => made.close());
    return made;
  };

  test("comes with its path, host, headers, body and address, and without those of its connection", async () => {
    const { fetch: ask } = exchange(async (request, response) => {
      const { url, method, headers, socket } = request;
      const body = await text(request);
      response.end(JSON.stringify({ url, method, headers, from: socket.remoteAddress, body }));
    });
    const headers = { "X-A": "1", te: "trailers", "content-type": "text/plain" };
    const request = new Request("http://shop.example:81/a%20b?c=d", {
      method: "PUT",
      headers,
      body: "ü".repeat(1 << 20),
    });
    const got = (await (await ask(request, { address: "192.0.2.7" })).json()) as Record<string, unknown>;
    expect(got).toMatchObject({ url: "/a%20b?c=d", method: "PUT", from: "192.0.2.7" });
    expect(String(got["body"]).length).toBe(1 << 20);
    expect(got["headers"]).toMatchObject({ host: "shop.example:81", "x-a": "1", "transfer-encoding": "chunked" });
    expect(got["headers"]).not.toHaveProperty("te");
  });

  test("gets each header that was sent twice, and no body where there is none", async () => {
    const { fetch: ask } = exchange((request, response) => {
      response.setHeader("www-authenticate", ["Bearer a", "DPoP b"]).setHeader("set-cookie", ["a=1", "b=2"]);
      response.writeHead(request.method === "HEAD" ? 200 : 204).end();
    });
    const answer = await ask(new Request("http://a.test/"));
    expect([answer.status, answer.body, answer.headers.getSetCookie()]).toEqual([204, null, ["a=1", "b=2"]]);
    expect(answer.headers.get("www-authenticate")).toBe("Bearer a, DPoP b");
    expect(answer.headers.has("connection")).toBe(false);
    expect((await ask(new Request("http://a.test/", { method: "HEAD" }))).body).toBe(null);
  });

  test("gets what was written before the end was", async () => {
    const first = Promise.withResolvers<void>();
    const { fetch: ask } = exchange((_, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" }).write("data: 1\n\n");
      void first.promise.then(() => response.end("data: 2\n\n"));
    });
    const reader = (await ask(new Request("http://a.test/"))).body?.getReader();
    expect(new TextDecoder().decode((await reader?.read())?.value)).toBe("data: 1\n\n");
    first.resolve();
    expect(new TextDecoder().decode((await reader?.read())?.value)).toBe("data: 2\n\n");
    expect((await reader?.read())?.done).toBe(true);
  });

  test.each(["is aborted", "is not read to its end"])("that %s is over for its handler, too", async (how) => {
    const gone = Promise.withResolvers<void>();
    const { fetch: ask } = exchange((_, response) => {
      response.once("close", () => gone.resolve()).write("x");
    });
    const abort = new AbortController();
    const answer = await ask(new Request("http://a.test/", { signal: abort.signal }));
    if (how === "is aborted") abort.abort();
    else await answer.body?.cancel();
    await gone.promise;
  });

  test("that its handler gives up fails, before and after the first word", async () => {
    const before = exchange((_, response) => void response.destroy());
    await expect(before.fetch(new Request("http://a.test/"))).rejects.toThrow();
    const after = exchange((_, response) => {
      response.write("x");
      setImmediate(() => response.destroy());
    });
    await expect(after.fetch(new Request("http://a.test/")).then((answer) => answer.text())).rejects.toThrow();
  });

  test("is answered although its body was not read", async () => {
    const { fetch: ask } = exchange((_, response) => void response.writeHead(413, { connection: "close" }).end("no"));
    const answer = await ask(new Request("http://a.test/", { method: "POST", body: "x".repeat(8 << 20) }));
    expect([answer.status, await answer.text()]).toEqual([413, "no"]);
  });
});
