/** The bench's own honesty: an answer that belongs to somebody else may never count as a success. */
import http from "node:http";
import { afterEach, describe, expect, test } from "vitest";
import { Connection, callRequest, type Endpoint, fault, listTools, WRONG_ANSWER } from "../../bench/client.ts";

type Message = { readonly id: number; readonly params: { readonly arguments: { readonly text: string } } };
type Answering = (message: Message, response: http.ServerResponse) => void;

const servers: http.Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

async function called(answer: Answering, calls = 1, timeoutMs = 10_000): Promise<readonly (string | undefined)[]> {
  const endpoint = await serving(answer);
  const connection = new Connection(endpoint.port, timeoutMs);
  const faults: (string | undefined)[] = [];
  for (let call = 1; call <= calls; call += 1) {
    const text = `hello-${call}`;
    faults.push(fault(await connection.request(callRequest(endpoint, call, text, undefined)), call, text));
  }
  connection.close();
  return faults;
}

async function serving(answer: Answering): Promise<Endpoint> {
  const server = http.createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    answer(JSON.parse(body), response);
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return { port, path: "/mcp", revision: "2026-07-28", sessions: false, tool: "echo", token: undefined };
}

function answerOf(id: number, text: string): string {
  return JSON.stringify({ jsonrpc: "2.0", id, result: { content: [{ type: "text", text }] } });
}

describe("the bench's client", () => {
  test("takes its own answer, call after call on one connection", async () => {
    const faults = await called(({ id, params }, response) => response.end(answerOf(id, params.arguments.text)), 3);
    expect(faults).toEqual([undefined, undefined, undefined]);
  });

  test("takes an answer that comes as an event stream in pieces, after a notification", async () => {
    const faults = await called(({ id, params }, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write('event: message\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n');
      const [first, second] = [
        answerOf(id, params.arguments.text).slice(0, 20),
        answerOf(id, params.arguments.text).slice(20),
      ];
      response.write(`data: ${first}`);
      setImmediate(() => response.end(`${second}\n\n`));
    }, 2);
    expect(faults).toEqual([undefined, undefined]);
  });

  test("counts another caller's text as a wrong answer even when the id is its own", async () => {
    expect(await called(({ id }, response) => response.end(answerOf(id, "hello-99")))).toEqual([WRONG_ANSWER]);
  });

  test("counts another caller's id as a wrong answer even when the text is its own", async () => {
    const faults = await called(({ params }, response) => response.end(answerOf(99, params.arguments.text)));
    expect(faults).toEqual([WRONG_ANSWER]);
  });

  test("tells refusals, errors and silence apart", async () => {
    expect(await called((_, response) => response.writeHead(503).end())).toEqual(["http-503"]);
    const error = (id: number): string =>
      JSON.stringify({ jsonrpc: "2.0", id, error: { code: -32603, message: "no" } });
    expect(await called(({ id }, response) => response.end(error(id)))).toEqual(["rpc-error:-32603"]);
    expect(await called((_, response) => response.end("<html>"))).toEqual(["not-json"]);
    expect(await called((_, response) => response.destroy())).toEqual(["closed"]);
    expect(await called(() => {}, 1, 50)).toEqual(["timeout"]);
  });

  test("finds out what a server calls its tools", async () => {
    const endpoint = await serving(({ id }, response) => {
      response.end(JSON.stringify({ jsonrpc: "2.0", id, result: { tools: [{ name: "desk_echo" }] } }));
    });
    expect(await listTools(endpoint)).toEqual(["desk_echo"]);
  });
});
