/** Masking through a whole gateway: what is private leaves in no part of any message, whoever the client and the server are. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Fixture, fixtureCommand, startFixture } from "../fixtures/processes.ts";
import { legacySession } from "./legacy-client.ts";
import { modernRequest, type World, world } from "./world.ts";

const EMAIL = "anna.bell@shop-customers.test";
const PHONE = "+44 7700 900264";
const KEY = "ghp_k5xd0Yfk1YF6wYOcvvXRaABIx7NFQpa70Sac";
const NAME = "Wilhelmina Quarterstaff";
const SAID = `Write to ${EMAIL} or call ${PHONE}; the key is ${KEY}`;
const DOCUMENT = {
  customer: { name: NAME, email: EMAIL, total: 12.5 },
  note: JSON.stringify({ customer: { name: NAME } }),
};
const VALUES = [EMAIL, PHONE, KEY, NAME, "anna.bell", "900264", Buffer.from(EMAIL).toString("base64").slice(4, 20)];

const SERVERS = ["local", "remote"] as const;
const MASK = { people: "redact", fields: { "customer.name": "redact" }, see: { finance: ["people", "customer.name"] } };

let one: World;
let fixture: Fixture;
let token: string;

beforeAll(async () => {
  fixture = await startFixture("telling", ["--http", "--era", "modern"]);
  one = await world({
    servers: { local: { command: fixtureCommand("telling") }, remote: { url: `${fixture.origin}/mcp` } },
    mask: MASK,
  });
  ({ access_token: token } = await one.tokens());
}, 60_000);
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await fixture?.stop();
});

type Era = "2025" | "2026";
const ERAS: readonly Era[] = ["2025", "2026"];

/** What came back, as bytes on the wire. */
async function ask(era: Era, method: string, params: Record<string, unknown>, by = token, on = one): Promise<string> {
  const meta = { _meta: { progressToken: 7, "io.modelcontextprotocol/logLevel": "debug" } };
  if (era === "2026") {
    const [body, headers] = modernRequest(method, { ...params, ...meta });
    return (await on.post(body, headers, by)).text();
  }
  const body = { jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: { progressToken: 7 } } };
  return (await on.post(body, { "mcp-protocol-version": "2025-11-25" }, by)).text();
}
const call = (era: Era, name: string, args: Record<string, unknown>, by = token, on = one) =>
  ask(era, "tools/call", { name, arguments: args }, by, on);

function leaks(text: string): string[] {
  return VALUES.filter((value) => text.includes(value) || text.includes(encodeURIComponent(value)));
}

/** The last message of a body, JSON or a stream. */
function answerIn(text: string): { result?: Record<string, never>; error?: { code: number; message: string } } {
  const lines = text.split("\n").filter((line) => line.startsWith("data: ") && line.length > 8);
  return JSON.parse(lines.length === 0 ? text : (lines.at(-1)?.slice(6) ?? ""));
}

describe.each(ERAS)("for a client of %s", (era) => {
  describe.each(SERVERS)("and the %s server", (server) => {
    test("nothing private is in text, structured content, resources, links, progress or log", async () => {
      const text = await call(era, `${server}_everywhere`, { say: SAID, document: DOCUMENT });
      expect(leaks(text)).toEqual([]);
      const { result } = answerIn(text) as unknown as { result: Record<string, unknown> };
      expect(result).toMatchObject({
        content: [
          { type: "text", text: "Write to [email] or call [phone]; the key is [api_key]" },
          { type: "text" },
          { type: "resource", resource: { text: expect.stringContaining("[email]") } },
          { type: "resource", resource: { blob: expect.any(String) } },
          { type: "resource_link", uri: "file:///three", title: expect.stringContaining("[phone]") },
        ],
        structuredContent: { document: { customer: { name: "[masked]", email: "[email]", total: 12.5 } } },
      });
      const { blob } = (result["content"] as { resource: { blob: string } }[])[3]?.resource ?? { blob: "" };
      expect(Buffer.from(blob, "base64").toString()).toBe(
        "a,b\nWrite to [email] or call [phone]; the key is [api_key]",
      );
      expect(text).toContain('"method":"notifications/progress"');
    });

    test("nothing private is in errors of the protocol and of tools", async () => {
      const error = await call(era, `${server}_fail`, { say: SAID, document: DOCUMENT });
      expect(answerIn(error).error).toMatchObject({ code: 4242, message: expect.stringContaining("[email]") });
      const complaint = await call(era, `${server}_complain`, { say: SAID });
      expect(leaks(error + complaint)).toEqual([]);
    });

    test("nothing private is in prompts, resources and completions", async () => {
      const prompt = await ask(era, "prompts/get", { name: `${server}_prompt`, arguments: { say: SAID } });
      expect(prompt).toContain("[email]");
      const completion = await ask(era, "completion/complete", {
        ref: { type: "ref/prompt", name: `${server}_prompt` },
        argument: { name: "say", value: SAID },
      });
      expect(completion).toContain("[phone]");
      expect(leaks(prompt + completion)).toEqual([]);
    });
  });

  test("nothing private is in a resource that is read", async () => {
    const read = await ask(era, "resources/read", { uri: `said://of/${encodeURIComponent(EMAIL)}` });
    expect(read).toContain("[email]");
    expect(answerIn(read)).toHaveProperty("result.contents");
    expect(leaks(read)).toEqual([]);
  });

  test("what is not private is as its server wrote it, byte for byte", async () => {
    const document = { z: 1.0, a: "caf\u00e9 ORD-100207", big: "12345678901234567890" };
    const text = await call(era, "local_everywhere", { say: "ORD-100207 at 10:30 on 2026-07-28", document });
    expect(text).toContain("ORD-100207 at 10:30 on 2026-07-28");
    expect(text).toContain(JSON.stringify(document));
  });
});

test("how much of each type was masked is counted, and nothing else said of it", async () => {
  const before = countIn(await one.metrics(), "email");
  await call("2025", "local_complain", { say: SAID });
  const metrics = await one.metrics();
  expect(countIn(metrics, "email")).toBe(before + 1);
  expect(leaks(metrics)).toEqual([]);
});

function countIn(metrics: string, type: string): number {
  return Number(
    new RegExp(`^drawbridge_masked_values_total\\{[^}]*type="${type}"[^}]*\\} (\\d+)`, "m").exec(metrics)?.[1] ?? 0,
  );
}

test("nothing private is in a stream that its client left at any event and came back to", async () => {
  const session = await legacySession(one.url, token);
  await session.ask("logging/setLevel", { level: "debug" });
  const params = {
    name: "remote_everywhere",
    arguments: { say: SAID, document: DOCUMENT },
    _meta: { progressToken: 7 },
  };
  const begin = (cutAfter?: number) =>
    session.post(
      { jsonrpc: "2.0", id: `at-${cutAfter}`, method: "tools/call", params },
      cutAfter === undefined ? {} : { cutAfter },
    );
  const whole = await begin();
  await whole.ended;
  expect(whole.events.length).toBeGreaterThan(2);
  for (let cutAfter = 1; cutAfter < whole.events.length; cutAfter++) {
    const first = await begin(cutAfter);
    await first.ended;
    const rest = await session.get(first.lastId());
    await rest.ended;
    const said = [...first.events, ...rest.events].map(({ data }) => data).join("\n");
    expect(said).toContain("[email]");
    expect(rest.messages().at(-1)).toHaveProperty("result.structuredContent");
    expect(leaks(said)).toEqual([]);
  }
});

describe("an HTTP server whose stream is cut anywhere", () => {
  test.each(ERAS)("lets nothing private through to a client of %s", async (era) => {
    const { origin, stop } = await dripping();
    await using other = await world({ servers: { drip: { url: `${origin}/mcp` } }, mask: MASK });
    try {
      const { access_token: by } = await other.tokens();
      for (const size of [1, 2, 3, 7, 16, 61]) {
        const text = await call(era, "say", { size }, by, other);
        expect(text).toContain("[email]");
        expect(text).toContain("notifications/progress");
        expect(leaks(text)).toEqual([]);
      }
    } finally {
      await stop();
    }
  });
});

/** A server of 2025-11-25 that writes its events in pieces of so many bytes. */
async function dripping(): Promise<{ origin: string; stop: () => Promise<void> }> {
  const http = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += String(chunk);
    const { id, method, params } = body === "" ? {} : JSON.parse(body);
    const json = (result: unknown) =>
      response
        .writeHead(200, { "content-type": "application/json" })
        .end(JSON.stringify({ jsonrpc: "2.0", id, result }));
    if (method === "initialize")
      return json({
        protocolVersion: "2025-11-25",
        serverInfo: { name: "drip", version: "1" },
        capabilities: { tools: {}, logging: {} },
      });
    if (method === "tools/list")
      return json({
        tools: [{ name: "say", inputSchema: { type: "object", properties: { size: { type: "integer" } } } }],
      });
    if (method !== "tools/call") return response.writeHead(request.method === "POST" ? 202 : 405).end();
    const messages = [
      { method: "notifications/message", params: { level: "error", data: { said: SAID, document: DOCUMENT } } },
      {
        method: "notifications/progress",
        params: { progressToken: params._meta?.progressToken ?? 0, progress: 1, message: SAID },
      },
      { id, result: { content: [{ type: "text", text: SAID }], structuredContent: DOCUMENT } },
    ];
    const bytes = Buffer.from(
      messages.map((one) => `data: ${JSON.stringify({ jsonrpc: "2.0", ...one })}\n\n`).join(""),
    );
    response.writeHead(200, { "content-type": "text/event-stream" });
    const size = Number(params.arguments.size);
    for (let at = 0; at < bytes.length; at += size) {
      response.write(bytes.subarray(at, at + size));
      if (at % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    return response.end();
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(http.address() as AddressInfo).port}`,
    stop: () =>
      new Promise((resolve) => {
        http.closeAllConnections();
        http.close(() => resolve());
      }),
  };
}
