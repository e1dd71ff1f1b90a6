/** Bad input at the door: a clear refusal, and nothing changes. Driven over HTTP against a running gateway. */
import { connect as connectSocket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fixtureCommand } from "../fixtures/processes.ts";
import { verifies, verifiesEach } from "../requirements.ts";
import { modernRequest, type World, world } from "./world.ts";

let one: World;
let token: string;
beforeAll(async () => {
  one = await world({
    servers: { echo: { command: fixtureCommand("echo-stdio", []) } },
    listen: { maxBodyBytes: 65_536, bodyTimeoutSeconds: 5 },
    roles: { owner: { may: ["*"], deny: ["crash"] } },
    assign: [{ role: "owner", group: "owner" }],
  });
  token = (await one.tokens()).access_token;
});
afterAll(() => one?.[Symbol.asyncDispose]());

const echo = (change: object = {}) => ({
  jsonrpc: "2.0",
  id: 7,
  method: "tools/call",
  params: { name: "echo", arguments: { text: "hi" } },
  ...change,
});
const callsSoFar = async () => {
  const [body, headers] = modernRequest("tools/call", { name: "count", arguments: {} });
  const answer = (await (await one.post(body, headers, token)).json()) as { result: { content: { text: string }[] } };
  return (JSON.parse(answer.result.content[0]?.text ?? "{}") as { calls: number }).calls;
};

describe("a body", () => {
  verifiesEach(
    ["http-single-message"],
    [
      ["that is not JSON", "{", 400, -32700],
      ["that is empty", "", 400, -32700],
      ["that is not UTF-8", new Uint8Array([0x7b, 0xff, 0x7d]), 400, -32700],
      [
        "with a key twice",
        '{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","name":"count"}}',
        400,
        -32600,
      ],
      ["that is a batch", JSON.stringify([echo(), echo()]), 400, -32600],
      [
        "nested 10,000 levels deep",
        `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":${"[".repeat(10_000)}${"]".repeat(10_000)}}}}`,
        400,
        -32600,
      ],
      [
        "larger than the limit",
        JSON.stringify(echo({ params: { name: "echo", arguments: { text: "x".repeat(70_000) } } })),
        413,
        -31413,
      ],
    ],
    "%s is refused",
    async (_title, body, status, code) => {
      const before = await callsSoFar();
      const response = await one.post(body, {}, token);
      expect(response.status).toBe(status);
      expect(await response.json()).toMatchObject({ jsonrpc: "2.0", error: { code } });
      expect(await callsSoFar()).toBe(before + 1);
    },
  );

  test("of 50 MB is refused without being read to its end", async () => {
    const { hostname, port } = new URL(one.url);
    const sent = await new Promise<number>((resolve) => {
      const socket = connectSocket(Number(port), hostname);
      let written = 0;
      const chunk = Buffer.alloc(65_536, 0x20);
      const write = () => {
        while (written < 50 << 20 && socket.writable) {
          written += chunk.length;
          if (!socket.write(chunk)) return void socket.once("drain", write);
        }
      };
      socket.on("error", () => {});
      socket.on("close", () => resolve(socket.bytesWritten));
      let answer = "";
      socket.on("data", (data: Buffer) => {
        answer += data.toString("latin1");
        if (answer.includes("413")) socket.destroy();
      });
      socket.write(
        `POST /mcp HTTP/1.1\r\nhost: ${new URL(one.url).host}\r\ncontent-type: application/json\r\naccept: application/json\r\nauthorization: Bearer ${token}\r\ntransfer-encoding: chunked\r\n\r\n${(50 << 20).toString(16)}\r\n`,
      );
      write();
    });
    expect(sent).toBeLessThan(10 << 20);
  });

  test("that does not arrive in time is refused", async () => {
    const { host, hostname, port } = new URL(one.url);
    const answer = await new Promise<string>((resolve) => {
      const socket = connectSocket(Number(port), hostname);
      let text = "";
      socket.on("data", (data: Buffer) => {
        text += data.toString("latin1");
      });
      socket.on("error", () => {});
      socket.on("close", () => resolve(text));
      socket.write(
        `POST /mcp HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\naccept: application/json\r\nauthorization: Bearer ${token}\r\ncontent-length: 100\r\n\r\n{"half":`,
      );
    });
    expect(answer).toMatch(/^HTTP\/1\.1 408/);
  });

  test.each(["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])(
    "of content type %j is refused",
    async (type) => {
      expect((await one.post(echo(), { "content-type": type }, token)).status).toBe(415);
    },
  );
  test("whose sender accepts neither JSON nor a stream is refused", async () => {
    expect((await one.post(echo(), { accept: "image/png" }, token)).status).toBe(406);
  });
});

describe("a request without the right to ask", () => {
  verifies(
    ["auth-401", "http-authenticated", "rfc9728-challenge", "rfc6750-challenge"],
    "and without a token is told where to sign in, and no error",
    async () => {
      const response = await one.post(echo(), {}, "");
      expect(response.status).toBe(401);
      const challenge = response.headers.get("www-authenticate") ?? "";
      expect(challenge).toContain(`resource_metadata="${one.origin}/.well-known/oauth-protected-resource/mcp"`);
      expect(challenge).toContain('scope="mcp:read mcp:call"');
      expect(challenge).not.toContain("error=");
    },
  );
  test.each([
    ["a token that is none", "Bearer nonsense"],
    ["a JWT that somebody else signed", "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiJ4In0.AAAA"],
    ["two words", "Bearer a b"],
  ])("with %s is refused as invalid_token", async (_title, authorization) => {
    const response = await fetch(one.url, {
      method: "POST",
      headers: { "content-type": "application/json", authorization },
      body: JSON.stringify(echo()),
    });
    expect(response.status).toBe(401);
    expect(response.headers.get("www-authenticate")).toContain('error="invalid_token"');
  });
  verifies("auth-no-query-token", "with the token in the query is refused", async () => {
    expect(
      (
        await fetch(`${one.url}?access_token=${token}`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          body: JSON.stringify(echo()),
        })
      ).status,
    ).toBe(401);
  });
  verifies("rfc6750-header", "with two Authorization headers is refused", async () => {
    const { host, hostname, port } = new URL(one.url);
    const answer = await new Promise<string>((resolve) => {
      const socket = connectSocket(Number(port), hostname);
      socket.once("data", (data: Buffer) => {
        resolve(data.toString("latin1"));
        socket.destroy();
      });
      const body = JSON.stringify(echo());
      socket.write(
        `POST /mcp HTTP/1.1\r\nhost: ${host}\r\ncontent-type: application/json\r\nauthorization: Bearer ${token}\r\nauthorization: Bearer other\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      );
    });
    expect(answer).toMatch(/^HTTP\/1\.1 401/);
  });
  verifies(["rfc6750-invalid-token", "rfc7009-revoked"], "after its grant was revoked is refused", async () => {
    const own = await one.tokens();
    expect((await one.post(echo(), {}, own.access_token)).status).toBe(200);
    await fetch(`${one.origin}/oauth/revoke`, {
      method: "POST",
      body: new URLSearchParams({ token: own.refresh_token, client_id: own.client }),
    });
    expect((await one.post(echo(), {}, own.access_token)).status).toBe(401);
  });
});

describe("names", () => {
  test("a wrong Host is refused on every path", async () => {
    const { hostname, port } = new URL(one.url);
    for (const path of [
      "/mcp",
      "/.well-known/oauth-protected-resource/mcp",
      "/.well-known/oauth-authorization-server",
      "/oauth/authorize",
      "/account",
    ]) {
      const answer = await new Promise<string>((resolve) => {
        const socket = connectSocket(Number(port), hostname);
        socket.once("data", (data: Buffer) => {
          resolve(data.toString("latin1"));
          socket.destroy();
        });
        socket.write(`GET ${path} HTTP/1.1\r\nhost: evil.example\r\n\r\n`);
      });
      expect(answer, path).toMatch(/^HTTP\/1\.1 403/);
    }
  });
  verifies(
    "http-origin",
    "a wrong Origin is refused; our own and other loopback ones are allowed by name, never by *",
    async () => {
      expect((await one.post(echo(), { origin: "https://evil.example" }, token)).status).toBe(403);
      const allowed = await one.post(echo(), { origin: "http://localhost:6274" }, token);
      expect([allowed.status, allowed.headers.get("access-control-allow-origin")]).toEqual([
        200,
        "http://localhost:6274",
      ]);
      expect(allowed.headers.get("access-control-allow-credentials")).toBeNull();
    },
  );
  verifies("rfc9728-hosts", "no document is built from Host or X-Forwarded headers", async () => {
    const document = await (
      await fetch(`${one.origin}/.well-known/oauth-protected-resource/mcp`, {
        headers: { "x-forwarded-host": "evil.example", "x-forwarded-proto": "https", forwarded: "host=evil.example" },
      })
    ).text();
    expect(document).not.toContain("evil.example");
  });
});

describe("a call", () => {
  verifies("tool-unknown", "of a tool that is not there and of one the role denies are refused alike", async () => {
    const answers = await Promise.all(
      ["nothing_here", "crash"].map(async (name) =>
        (await one.post(echo({ params: { name, arguments: {} } }), {}, token)).json(),
      ),
    );
    expect(answers.map((answer) => JSON.stringify(answer).replaceAll(/nothing_here|crash/g, "NAME"))).toEqual([
      expect.stringContaining("-32602"),
      JSON.stringify(answers[0]).replaceAll("nothing_here", "NAME"),
    ]);
    const list = (await (await one.post({ jsonrpc: "2.0", id: 1, method: "tools/list" }, {}, token)).json()) as {
      result: { tools: { name: string }[] };
    };
    expect(list.result.tools.map((tool) => tool.name)).not.toContain("crash");
  });
  verifies("tool-input", "with arguments against the schema never reaches the server", async () => {
    const before = await callsSoFar();
    const answer = await (await one.post(echo({ params: { name: "echo", arguments: { text: 7 } } }), {}, token)).json();
    expect(answer).toMatchObject({
      result: {
        isError: true,
        content: [{ type: "text", text: expect.stringContaining("arguments/text must be string") }],
      },
    });
    expect(await callsSoFar()).toBe(before + 1);
  });
  verifies("rfc6750-scope", "with too narrow a token is told which scope is missing", async () => {
    const { access_token } = await one.tokens({ without: ["mcp:call"] });
    const response = await one.post(echo(), {}, access_token);
    expect(response.status).toBe(403);
    expect(response.headers.get("www-authenticate")).toMatch(/error="insufficient_scope".*scope="mcp:read mcp:call"/);
  });
  verifies(
    "http-unknown-method",
    "of an unknown method is refused: 404 to modern clients, in band to legacy ones",
    async () => {
      const [body, headers] = modernRequest("tools/destroy");
      expect((await one.post(body, headers, token)).status).toBe(404);
      const legacy = await one.post(echo({ method: "tools/destroy" }), {}, token);
      expect([legacy.status, ((await legacy.json()) as { error: { code: number } }).error.code]).toEqual([200, -32601]);
    },
  );
});

describe("a session", () => {
  const initialize = {
    jsonrpc: "2.0",
    id: 0,
    method: "initialize",
    params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } },
  };
  verifies(
    ["legacy-session-owner", "legacy-session-required"],
    "of somebody else looks like one that does not exist",
    async () => {
      const other = (await one.tokens()).access_token;
      const session = (await one.post(initialize, {}, token)).headers.get("mcp-session-id") ?? "";
      expect(session).not.toBe("");
      const ping = { jsonrpc: "2.0", id: 1, method: "ping" };
      expect((await one.post(ping, { "mcp-session-id": session }, token)).status).toBe(200);
      const foreign = await one.post(ping, { "mcp-session-id": session }, other);
      const unknown = await one.post(ping, { "mcp-session-id": "no-such-session" }, other);
      expect([foreign.status, unknown.status]).toEqual([404, 404]);
      expect(await foreign.text()).toBe(await unknown.text());
    },
  );
  verifies(
    ["legacy-session-delete", "legacy-session-required"],
    "that was ended answers 404 from then on",
    async () => {
      const session = (await one.post(initialize, {}, token)).headers.get("mcp-session-id") ?? "";
      const headers = { authorization: `Bearer ${token}`, "mcp-session-id": session };
      expect((await fetch(one.url, { method: "DELETE", headers })).status).toBe(204);
      expect(
        (await one.post({ jsonrpc: "2.0", id: 1, method: "ping" }, { "mcp-session-id": session }, token)).status,
      ).toBe(404);
      expect((await fetch(one.url, { headers: { ...headers, accept: "text/event-stream" } })).status).toBe(404);
    },
  );
});

describe("an upstream", () => {
  test("that dies in the middle of a call fails that call alone", async () => {
    await using other = await world({ servers: { bad: { command: fixtureCommand("echo-stdio", []) } } });
    const [crash, crashHeaders] = modernRequest("tools/call", { name: "crash", arguments: {} });
    const answer = await (await other.post(crash, crashHeaders)).json();
    expect(answer).toMatchObject({ error: { code: -31502, message: expect.any(String) } });
    const [again, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "back" } });
    expect(await (await other.post(again, headers)).json()).toMatchObject({ result: { content: [{ text: "back" }] } });
  });
  verifies("request-timeout", "that never answers is given up after its time, and told so", async () => {
    await using other = await world({
      servers: { quiet: { command: fixtureCommand("echo-stdio", []), timeoutSeconds: 0.3 } },
    });
    const [body, headers] = modernRequest("tools/call", { name: "silent", arguments: {} });
    expect(await (await other.post(body, headers)).json()).toMatchObject({ error: { code: -31504 } });
  });
  verifies("stdio-stdout", "that prints garbage is understood all the same", async () => {
    await using other = await world({
      servers: { noisy: { command: fixtureCommand("misbehaving-stdio", ["garbage"]) } },
    });
    const client = await other.legacy();
    expect(JSON.stringify(await client.callTool({ name: "echo", arguments: { text: "clear" } }))).toContain("clear");
  });
});

verifies("auth-no-passthrough", "the client's token never reaches the server", async () => {
  const { startFixture } = await import("../fixtures/processes.ts");
  await using fixture = await startFixture("echo-http", []);
  await using other = await world({ servers: { http: { url: `${fixture.origin}/mcp` } } });
  const own = (await other.tokens()).access_token;
  const [body, headers] = modernRequest("tools/call", { name: "headers", arguments: {} });
  expect((await other.post(body, headers, own)).status).toBe(200);
  expect(await (await fetch(`${fixture.origin}/stats`)).text()).not.toContain(own.slice(0, 40));
});
