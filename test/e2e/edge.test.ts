/** The HTTP edge: CORS, probes, metrics, the operator's page, TLS and its renewal, Host. Driven over real sockets. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent, request } from "node:https";
import { connect as connectSocket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TLSSocket } from "node:tls";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import { selfSigned } from "../oauth/certificate.ts";
import { modernRequest, type World, world } from "./world.ts";

let one: World;
let token: string;
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-edge-"));
  one = await world({
    servers: { echo: { command: fixtureCommand("echo-stdio") } },
    listen: { allowedOrigins: ["https://inspector.example"] },
  });
  token = (await one.tokens()).access_token;
});
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** One request with just these headers; `fetch` would not let some of them through. */
function raw(
  path: string,
  headers: Record<string, string>,
  method = "GET",
): Promise<{ status: number; headers: IncomingMessage["headers"]; body: string }> {
  return new Promise((resolve, reject) => {
    httpRequest(`${one.origin}${path}`, { method, headers, agent: new HttpAgent() }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        body += chunk;
      });
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
    })
      .on("error", reject)
      .end();
  });
}

describe("a page of another origin", () => {
  test("is told by the preflight which methods and headers it may use, its own Mcp-Param- headers too", async () => {
    const { status, headers } = await raw(
      "/mcp",
      {
        origin: "https://inspector.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, mcp-method, Mcp-Param-Region, x-evil, mcp-param-a_b, cookie",
      },
      "OPTIONS",
    );
    expect(status).toBe(204);
    expect(headers["access-control-allow-origin"]).toBe("https://inspector.example");
    expect(headers["vary"]).toContain("origin");
    expect(headers["access-control-allow-credentials"]).toBeUndefined();
    expect(headers["access-control-allow-methods"]?.split(", ")).toEqual(
      expect.arrayContaining(["POST", "GET", "DELETE"]),
    );
    const allowed = headers["access-control-allow-headers"]?.split(", ") ?? [];
    for (const name of [
      "authorization",
      "content-type",
      "mcp-protocol-version",
      "mcp-session-id",
      "mcp-method",
      "mcp-name",
      "mcp-param-region",
      "last-event-id",
    ])
      expect(allowed, name).toContain(name);
    for (const name of ["x-evil", "mcp-param-a_b", "cookie"]) expect(allowed, name).not.toContain(name);
  });
  test("can read the headers that a client needs", async () => {
    const response = await one.post(
      { jsonrpc: "2.0", id: 1, method: "ping" },
      { origin: "https://inspector.example" },
      "",
    );
    expect(response.status).toBe(401);
    const exposed = response.headers.get("access-control-expose-headers")?.split(", ") ?? [];
    for (const name of ["mcp-session-id", "mcp-protocol-version", "www-authenticate", "retry-after"])
      expect(exposed).toContain(name);
  });
  test.each([
    "/mcp",
    "/mcp/",
    "/account",
    "/oauth/authorize",
    "/sign-in",
    "/admin/servers",
    "/health",
    "/ready",
    "/metrics",
    "/",
  ])("that is not allowed never sees its origin reflected by %s", async (path) => {
    for (const method of ["OPTIONS", "GET", "POST"]) {
      const { headers, body } = await raw(
        path,
        { origin: "https://evil.example", "access-control-request-method": "POST" },
        method,
      );
      expect(JSON.stringify([headers, body]), method).not.toContain("evil.example");
      expect(headers["access-control-allow-credentials"]).toBeUndefined();
    }
  });
  test.each([
    "null",
    "https://inspector.example.evil.example",
    "https://inspector.example:444",
    "http://localhost.evil.example",
  ])("that looks like an allowed one is refused: %s", async (origin) => {
    const { status, headers } = await raw("/mcp", { origin, "access-control-request-method": "POST" }, "OPTIONS");
    expect([status, headers["access-control-allow-origin"]]).toEqual([403, undefined]);
  });
});

describe("probes", () => {
  test("are answered by any address, and say little", async () => {
    for (const path of ["/health", "/livez", "/ready", "/readyz"]) {
      const { status, body } = await raw(path, { host: "10.1.2.3:7337" });
      expect([path, status]).toEqual([path, 200]);
      expect(body).not.toContain(token.slice(0, 20));
    }
    expect(JSON.parse((await raw("/ready", {})).body)).toMatchObject({
      status: "ready",
      servers: { echo: "ready" },
      audit: "ok",
    });
    expect((await raw("/health", {}, "POST")).status).toBe(405);
  });
  test("are the only thing that another Host may ask for", async () => {
    for (const path of [
      "/mcp",
      "/",
      "/account",
      "/admin/servers",
      "/metrics",
      "/health/../mcp",
      "/healthy",
      "/ready/x",
    ])
      expect([path, (await raw(path, { host: "evil.example" })).status]).toEqual([path, 403]);
  });
  test("say that the gateway is not ready while no server can be reached, and is alive all the same", async () => {
    await using down = await world({ servers: { gone: { command: ["/nonexistent/program"] } } });
    const ready = await waitFor(async () => {
      const response = await fetch(`${down.origin}/ready`);
      return response.status === 503 && response;
    });
    expect(await ready.json()).toMatchObject({ status: "not ready" });
    expect((await fetch(`${down.origin}/health`)).status).toBe(200);
  });
});

describe("/metrics", () => {
  test("counts calls by names of the catalogue, and never by a name that only a client made up", async () => {
    const call = async (name: string) => {
      const [body, headers] = modernRequest("tools/call", { name, arguments: { text: "hi" } });
      return one.post(body, headers, token);
    };
    await call("echo");
    for (let index = 0; index < 5; index++) await call(`made_up_${index}`);
    const [unknown, headers] = modernRequest("made/up_method");
    await one.post(unknown, headers, token);
    const { status, headers: answered, body } = await raw("/metrics", {});
    expect(status).toBe(200);
    expect(answered["content-type"]).toContain("text/plain; version=0.0.4");
    expect(body).toMatch(/mcp_server_operation_duration_seconds_count\{[^}]*gen_ai_tool_name="echo"[^}]*\} [1-9]/);
    expect(body).toMatch(/drawbridge_refusals(_total)?\{[^}]*code="unknown_target"[^}]*\} 5/);
    expect(body).toMatch(/drawbridge_upstream_ready\{[^}]*echo[^}]*\} 1/);
    expect(body).toContain("drawbridge_sessions");
    expect(body).toContain("drawbridge_audit_pending");
    expect(body).not.toContain("made_up");
    expect(body).not.toContain("made/up");
  });
  test.each([
    ["x-forwarded-for", "127.0.0.1"],
    ["forwarded", "for=127.0.0.1"],
    ["via", "1.1 proxy"],
    ["host", "evil.example"],
  ])("is refused to what came through a proxy or by a strange name: %s", async (name, value) => {
    const { status, body } = await raw("/metrics", { [name]: value });
    expect([403, 404]).toContain(status);
    expect(body).not.toContain("drawbridge_");
  });
});

describe("/admin/servers", () => {
  test("shows an owner the servers and what is withheld", async () => {
    const response = await fetch(`${one.origin}/admin/servers`, { headers: { authorization: `Bearer ${token}` } });
    expect(response.status).toBe(200);
    expect(response.headers.get("cache-control")).toBe("no-store");
    expect(await response.json()).toMatchObject({ servers: [{ name: "echo", state: "ready" }], withheld: [] });
  });
  test("is refused without a token, with a bad one, and by another method", async () => {
    const ask = (init: RequestInit) => fetch(`${one.origin}/admin/servers`, init).then((response) => response.status);
    expect(await ask({})).toBe(401);
    expect(await ask({ headers: { authorization: "Bearer nonsense" } })).toBe(401);
    expect(await ask({ method: "POST", headers: { authorization: `Bearer ${token}` } })).toBe(405);
  });
});

describe("sizes", () => {
  test("headers larger than 16 KiB are refused", async () => {
    const { hostname, port, host } = new URL(one.url);
    const answer = await new Promise<string>((resolve) => {
      const socket = connectSocket(Number(port), hostname);
      socket.once("data", (data: Buffer) => {
        resolve(data.toString("latin1"));
        socket.destroy();
      });
      socket.on("error", () => {});
      socket.write(`GET /mcp HTTP/1.1\r\nhost: ${host}\r\nx-large: ${"x".repeat(20_000)}\r\n\r\n`);
    });
    expect(answer).toMatch(/^HTTP\/1\.1 431/);
  });
});

describe("TLS from files", () => {
  const settingsFor = (certificate: string, key: string) =>
    settleSettings(
      {
        store: "memory",
        servers: { echo: { command: fixtureCommand("echo-stdio") } },
        listen: { port: 0, shutdownSeconds: 1 },
        tls: { certificate, key },
      },
      folder,
      { env: process.env },
    );
  /** GET /health; which certificate answered, and by which local port. */
  const health = (url: string, agent: Agent) =>
    new Promise<{ status: number; fingerprint: string; port: number | undefined }>((resolve, reject) => {
      request(`${new URL(url).origin}/health`, { agent }, (response) => {
        const socket = response.socket as TLSSocket;
        const seen = { fingerprint: socket.getPeerCertificate().fingerprint256, port: socket.localPort };
        response.resume().on("end", () => resolve({ status: response.statusCode ?? 0, ...seen }));
      })
        .on("error", reject)
        .end();
    });
  const fresh = async (url: string) => {
    const agent = new Agent({ rejectUnauthorized: false, maxCachedSessions: 0 });
    try {
      return await health(url, agent);
    } finally {
      agent.destroy();
    }
  };

  test("serves a renewed certificate to new connections, keeps old ones, and does not take a broken pair", async () => {
    const [certificate, key] = [join(folder, "tls.crt"), join(folder, "tls.key")];
    const [first, second, third] = [await selfSigned(), await selfSigned(), await selfSigned()];
    await writeFile(certificate, first.certificate);
    await writeFile(key, first.key);
    const warnings: string[] = [];
    const logger = Object.assign(Object.create(silentLogger) as typeof silentLogger, {
      child: () => silentLogger,
      warn: (_fields: unknown, message?: string) => void warnings.push(String(message)),
    });
    const gateway = await startGateway({
      settings: await settingsFor(certificate, key),
      environment: process.env,
      logger,
    });
    const old = new Agent({ keepAlive: true, maxSockets: 1, rejectUnauthorized: false });
    try {
      expect(gateway.url).toMatch(/^https:/);
      const before = await health(gateway.url, old);
      expect(before.status).toBe(200);

      await writeFile(certificate, second.certificate);
      await writeFile(key, second.key);
      const renewed = await waitFor(async () => {
        const seen = await fresh(gateway.url);
        return seen.fingerprint !== before.fingerprint && seen;
      });
      expect(renewed.status).toBe(200);
      expect(await health(gateway.url, old)).toEqual(before);

      // A key that belongs to another certificate.
      warnings.length = 0;
      await writeFile(key, third.key);
      await waitFor(() => warnings.some((warning) => warning.includes("TLS certificate")));
      expect((await fresh(gateway.url)).fingerprint).toBe(renewed.fingerprint);
      // Once the pair fits again, it is taken.
      await writeFile(certificate, third.certificate);
      await waitFor(async () => (await fresh(gateway.url)).fingerprint !== renewed.fingerprint);
      expect(await health(gateway.url, old)).toEqual(before);
    } finally {
      old.destroy();
      await gateway.close();
    }
  });

  test("a pair that does not fit, or is not there, is a clear error at start", async () => {
    const [certificate, key] = [join(folder, "bad.crt"), join(folder, "bad.key")];
    await writeFile(certificate, (await selfSigned()).certificate);
    await writeFile(key, (await selfSigned()).key);
    const start = async () =>
      startGateway({
        settings: await settingsFor(certificate, key),
        environment: process.env,
        logger: silentLogger,
      });
    await expect(start()).rejects.toMatchObject({ code: "settings_invalid", message: expect.stringContaining("tls:") });
    await rm(key);
    await expect(start()).rejects.toMatchObject({ code: "settings_invalid" });
  });
});
