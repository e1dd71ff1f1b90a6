/** What happened to others, as the requests that made it happen. The list is in `incidents.ts`, where most point to other tests. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request as httpRequest } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { loadSettings, settleSettings } from "../../src/config/load.ts";
import { compilePolicy } from "../../src/policy/engine.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { filesIn, root } from "../house/sources.ts";
import { principal, target, toolCall } from "../policy/support.ts";
import { incidents } from "./incidents.ts";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const SECRET = "the-value-of-a-secret";
const folder = mkdtempSync(join(tmpdir(), "db-incidents-"));
const proof = join(folder, "ran");
const log: string[] = [];
let gate: World;
let token: string;
let other: string;

beforeAll(async () => {
  gate = await world(
    {
      log: { level: "trace" },
      servers: {
        // What a shell would run.
        echo: {
          command: [...fixtureCommand("echo-stdio"), `; touch ${proof}`, `$(touch ${proof})`],
          processes: { max: 1 },
        },
      },
    },
    {
      environment: { ...process.env, INCIDENT_SECRET: SECRET, JWT_SECRET: SECRET },
      logTo: { write: (line) => void log.push(line) },
    },
  );
  token = (await gate.tokens()).access_token;
  other = (await gate.tokens()).access_token;
});
afterAll(async () => {
  await gate?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const LEGACY = { "mcp-protocol-version": "2025-11-25" };
async function call(name: string, args: object, who = token, era: "legacy" | "modern" = "modern") {
  const [body, headers] =
    era === "modern"
      ? modernRequest("tools/call", { name, arguments: args })
      : [{ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } }, LEGACY];
  return (await gate.post(body, headers, who)).text();
}
/** One request with just these headers; `fetch` would not let some of them through. */
function raw(path: string, method: string, headers: Record<string, string>, body?: string) {
  return new Promise<{ status: number; headers: Record<string, unknown>; text: string }>((resolve, reject) => {
    const sent = httpRequest(`${gate.origin}${path}`, { method, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    });
    sent.on("error", reject).end(body);
  });
}
const list = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} });
const json = { "content-type": "application/json", accept: "application/json, text/event-stream" };

describe("CVE-2025-6514 (mcp-remote), CVE-2025-53967 (Figma MCP)", () => {
  test("a client's words and a server's addresses never reach a shell", async () => {
    for (const text of [`$(touch ${proof})`, `; touch ${proof}`, `\`touch ${proof}\``, `-x|touch ${proof}`, "$(calc)"])
      expect(await call("echo", { text })).toContain(JSON.stringify(text).slice(1, -1));
    expect(existsSync(proof)).toBe(false);
  });
});

describe("CVE-2025-49596 (MCP Inspector), CVE-2025-66414, CVE-2025-66416, CVE-2025-9611", () => {
  const { host } = new URL("http://127.0.0.1");
  test.each([
    ["a name that was made to mean this machine", { host: "attacker.example" }],
    ["such a name with the port", { host: "attacker.example:7337" }],
    ["a page of another site", { origin: "https://attacker.example" }],
    ["a page without an origin", { origin: "null" }],
    ["a page that imitates", { origin: `http://${host}.attacker.example` }],
  ])("a page of another site gets nothing from a gateway with settings of its own making: %s", async (_, headers) => {
    const authorization = `Bearer ${token}`;
    for (const path of ["/mcp", "/admin/servers", "/oauth/token"]) {
      const method = path === "/admin/servers" ? "GET" : "POST";
      const own = { host: new URL(gate.origin).host, ...json, ...LEGACY, authorization, ...headers };
      const { status, text, headers: answered } = await raw(path, method, own, method === "POST" ? list : undefined);
      if ("host" in headers || path === "/mcp") expect(status, path).toBe(403);
      expect(text, path).not.toContain('"tools"');
      // Any page may redeem a code that it got: the endpoint asks for no cookie, and nothing of MCP is there.
      if (path !== "/oauth/token") expect(answered["access-control-allow-origin"], path).toBeUndefined();
      expect(answered["access-control-allow-credentials"], path).toBeUndefined();
    }
  });
});

test("Supabase and Cursor: a role that reads calls nothing that writes, whatever the server says of its tool", () => {
  const policy = compilePolicy({ reader: { may: ["access:read"], deny: [] } }, [{ role: "reader", when: "true" }]);
  const may = (access: Parameters<typeof target>[2]) =>
    [undefined, toolCall()].map((facts) => policy.decide(principal(), target("sql", "tool", access), facts).effect);
  expect(may({ access: { effect: "read", openWorld: false } })).toEqual(["permit", "permit"]);
  // Nobody of ours has said what it does: the server's own `readOnlyHint` is no part of a target.
  expect(may({})).toEqual(["deny", "deny"]);
  expect(may({ access: { effect: undefined, openWorld: false } })).toEqual(["deny", "deny"]);
  expect(may({ access: { effect: "write", openWorld: false } })).toEqual(["deny", "deny"]);
});

test("CVE-2025-6515 (oatpp-mcp): the ids of sessions have 128 random bits at least, and belong to who began them", async () => {
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "t", version: "1" } };
  const ids = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const response = await gate.post({ jsonrpc: "2.0", id: 1, method: "initialize", params }, {}, token);
      await response.text();
      return response.headers.get("mcp-session-id") ?? "";
    }),
  );
  expect(new Set(ids).size).toBe(40);
  for (const id of ids) expect(id).toMatch(/^[\x21-\x7e]{22,}$/);
  // At every place letters differ as random ones do: nothing counts up, and nothing stays but a prefix.
  const length = Math.min(...ids.map((id) => id.length));
  const varied = Array.from({ length }, (_, at) => new Set(ids.map((id) => id[at])).size).filter((kinds) => kinds >= 8);
  expect(varied.length).toBeGreaterThanOrEqual(22);
  const headers = { ...LEGACY, "mcp-session-id": ids[0] ?? "" };
  expect((await gate.post(JSON.parse(list), headers, other)).status).toBe(404);
  expect((await gate.post(JSON.parse(list), headers, token)).status).toBe(200);
});

test("CVE-2026-0621 (TypeScript SDK): a URI that fits no template is answered at once, however long it is", async () => {
  for (const uri of [
    `test://items/${"1,".repeat(40_000)}X`,
    `test://items/${"/".repeat(80_000)}`,
    `test://items/${"%2C".repeat(20_000)}{id}`,
    `test://${"a{b}".repeat(20_000)}`,
  ]) {
    const started = process.cpuUsage();
    const [body] = modernRequest("resources/read", { uri });
    const answer = await gate.post({ ...body, params: { uri } }, LEGACY, token);
    expect(await answer.text()).toMatch(/"(error|result)"/);
    expect(process.cpuUsage(started).user / 1000).toBeLessThan(2_000);
  }
});

test("CVE-2026-25536 (TypeScript SDK): of several hundred calls at once, in both eras, each gets its own answer", async () => {
  const answers = await Promise.all(
    Array.from({ length: 400 }, async (_, at) => {
      const text = `for ${at} alone`;
      const answer = await call("echo", { text }, at % 2 === 0 ? token : other, at % 3 === 0 ? "legacy" : "modern");
      return answer.includes(text) && (answer.match(/for \d+ alone/g) ?? []).every((one) => one === text);
    }),
  );
  expect(answers.filter((right) => right)).toHaveLength(400);
});

test("CVE-2026-32625, CVE-2026-31951 (LibreChat): what clients write is filled in from no environment and from no secret", async () => {
  for (const text of [
    "${JWT_SECRET}",
    "${secret:INCIDENT_SECRET}",
    "${env:INCIDENT_SECRET}",
    "$INCIDENT_SECRET",
    "{{JWT_SECRET}}",
  ]) {
    const answer = await call("echo", { text });
    expect(answer).toContain(text);
    expect(answer).not.toContain(SECRET);
    const registered = await fetch(`${gate.origin}/oauth/register`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        client_name: text,
        redirect_uris: ["http://127.0.0.1/cb"],
        client_uri: `https://x.example/${text}`,
      }),
    });
    expect(await registered.text()).not.toContain(SECRET);
  }
  expect(log.join("\n")).not.toContain(SECRET);
});

test("CVE-2026-41495, CVE-2026-42282 (n8n-mcp): no token and no argument is in the log, of served and of refused requests", async () => {
  const canary = "canary-argument-4711";
  await call("echo", { text: canary });
  await call("nobody", { text: canary });
  await call("sum", { text: canary });
  await call("echo", { text: canary }, `${token}x`);
  await call("echo", { text: canary }, "canary-token-4711");
  await call("echo", { text: canary }, token, "legacy");
  const written = log.join("\n");
  expect(written.length).toBeGreaterThan(0);
  for (const secret of [canary, token, other, token.split(".")[2] ?? token, "canary-token-4711"])
    expect(written.includes(secret), secret.slice(0, 20)).toBe(false);
});

test("CVE-2026-42271, CVE-2026-30623 (LiteLLM): nobody who asks over HTTP can have a command started or a server added", async () => {
  const server = { name: "x", command: ["touch", proof], transport: "stdio" };
  const headers = { ...json, authorization: `Bearer ${token}` };
  for (const path of [
    "/admin/servers",
    "/admin/servers/x",
    "/admin/servers/test",
    "/admin/servers/echo/test",
    "/mcp-rest/test/connection",
    "/admin/policy",
  ])
    for (const method of ["POST", "PUT", "PATCH"]) {
      const { status } = await fetch(`${gate.origin}${path}`, { method, headers, body: JSON.stringify(server) });
      expect([404, 405], `${method} ${path}`).toContain(status);
    }
  expect(existsSync(proof)).toBe(false);
  const all = await fetch(`${gate.origin}/admin/servers`, { headers });
  expect(((await all.json()) as { servers: { name: string }[] }).servers.map(({ name }) => name)).toEqual(["echo"]);
});

test("CVE-2026-46701 (Network-AI): an empty secret is none, and no origin is allowed that nobody named", async () => {
  const file = join(folder, "drawbridge.yaml");
  const settings = { servers: { a: { command: ["x"] } }, tokens: { keyEncryptionSecret: "${env:KEYS}" } };
  writeFileSync(file, JSON.stringify(settings));
  for (const env of [{}, { KEYS: "" }, { KEYS: " " }])
    await expect(loadSettings(file, { env }), JSON.stringify(env)).rejects.toThrow(
      /KEYS is not set|the secret is empty/,
    );
  for (const origin of ["https://attacker.example", "null", "http://localhost.attacker.example"]) {
    const preflight = { origin, "access-control-request-method": "POST", host: new URL(gate.origin).host };
    const { headers } = await raw("/mcp", "OPTIONS", preflight);
    expect(headers["access-control-allow-origin"], origin).toBeUndefined();
  }
});

test("CVE-2026-49257 (mcp-pinot), CVE-2026-33032 (nginx-ui), context-forge #2712: nothing of MCP is served without a token, at whatever path and by whatever method", async () => {
  const host = new URL(gate.origin).host;
  const methods = [
    "tools/list",
    "tools/call",
    "initialize",
    "server/discover",
    "ping",
    "resources/list",
    "subscriptions/listen",
  ];
  for (const method of methods)
    for (const era of [LEGACY, modernRequest(method)[1]]) {
      const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params: {} });
      const { status, text } = await raw("/mcp", "POST", { host, ...json, ...era }, body);
      expect(status, method).toBe(401);
      expect(text).not.toContain("echo");
    }
  for (const [method, path] of [
    ["GET", "/mcp"],
    ["DELETE", "/mcp"],
    ["POST", "/mcp/"],
    ["POST", "/mcp_message"],
    ["POST", "//mcp"],
    ["POST", "/mcp/echo"],
    ["POST", "/servers/echo/mcp"],
    ["GET", "/sse"],
    ["POST", "/message"],
    ["POST", "/"],
  ] as const) {
    const { status, text } = await raw(
      path,
      method,
      { host, ...json, ...LEGACY },
      method === "POST" ? list : undefined,
    );
    expect([400, 401, 403, 404, 405], `${method} ${path}`).toContain(status);
    expect(text).not.toContain('"tools"');
  }
});

test("CVE-2026-26118 (Azure MCP): an address in a call is fetched by nobody here", async () => {
  let asked = 0;
  const { createServer } = await import("node:http");
  const inside = createServer((_, response) => {
    asked++;
    response.end(SECRET);
  });
  await new Promise<void>((resolve) => inside.listen(0, "127.0.0.1", resolve));
  const { port } = inside.address() as { port: number };
  try {
    for (const uri of [
      `http://127.0.0.1:${port}/latest/meta-data`,
      `http://[::ffff:127.0.0.1]:${port}/`,
      "file:///etc/passwd",
    ]) {
      const [body, headers] = modernRequest("resources/read", { uri });
      const text = await (await gate.post(body, headers, token)).text();
      expect(text).toContain("Resource not found");
      expect(await call("echo", { text: uri })).not.toContain(SECRET);
    }
    expect(asked).toBe(0);
  } finally {
    inside.close();
  }
});

test("Scans of 2025 and 2026: without a word in the settings it listens on this machine alone", async () => {
  const { settings } = await settleSettings({ servers: { a: { command: ["x"] } } }, folder, { env: {} });
  expect(settings.listen.host).toBe("127.0.0.1");
});

// ---- the list ----

const files = new Map(
  filesIn(["test"], [".test.ts"]).map(({ path, text }) => [
    path.replace(/^test\//, "").replace(/\.test\.ts$/, ""),
    text,
  ]),
);

test("the list has the 45 incidents, each once", () => {
  expect(new Set(incidents.map(({ name }) => name)).size).toBe(45);
  expect(incidents).toHaveLength(45);
});

test.each(incidents)(
  "$name: $happened; there is a test of it, or a reason why there is none",
  ({ tests, elsewhere }) => {
    if (tests.length === 0) expect(elsewhere).toMatch(/\.$/);
    for (const named of tests) {
      const [, file = "", title = ""] = /^([^:]*): (.*)$/s.exec(named) ?? [];
      expect(files.get(file)?.includes(title), named).toBe(true);
    }
  },
);

test("the threat model names each incident and where it is tested", () => {
  const document = readFileSync(join(root, "docs/threat-model.md"), "utf8");
  const rows = incidents.map(({ name, happened, tests, elsewhere }) => {
    const where = [...new Set(tests.map((one) => `\`test/${one.slice(0, one.indexOf(": "))}.test.ts\``))].join(", ");
    return `| ${name} | ${happened} | ${[where, elsewhere].filter((part) => part).join(". ")} |`;
  });
  const shown = document.split("\n").filter((line) => /^\| .* \| .* \|$/.test(line));
  for (const row of rows) expect(shown).toContain(row);
});
