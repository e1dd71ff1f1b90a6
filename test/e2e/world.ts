/** A whole gateway on a free port, with real upstreams, a real sign-in, and the SDK clients of both generations. */
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as LegacyTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { type LoadedSettings, settleSettings } from "../../src/config/load.ts";
import { type RunningGateway, startGateway } from "../../src/gateway/gateway.ts";
import type { Logger, LogStream } from "../../src/observe/logger.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { type Browser, Browser as CookieBrowser, connect, PASSWORD, register, type Tokens } from "../oauth/support.ts";

export interface World extends AsyncDisposable {
  readonly gateway: RunningGateway;
  readonly url: string;
  readonly origin: string;
  /** The owner's browser, signed in. */
  readonly browser: Browser;
  /** Registers a client and takes it through consent; a token of the owner. */
  tokens(ask?: { scope?: string; without?: readonly string[] }): Promise<Tokens & { client: string }>;
  /** An SDK v1 client (2025-11-25), connected. */
  legacy(token?: string): Promise<LegacyClient>;
  /** An SDK v2 client (2026-07-28), connected. */
  modern(token?: string): Promise<ModernClient>;
  /** One POST to the MCP endpoint. */
  post(body: unknown, headers?: Record<string, string>, token?: string): Promise<Response>;
  /** What /metrics says. */
  metrics(): Promise<string>;
}

/** Starts a gateway with `settings` (any part of the file) and makes the owner's account. */
export async function world(
  settings: Record<string, unknown>,
  {
    logger = silentLogger,
    folder = process.cwd(),
    environment = process.env,
    load = (raw) => settleSettings(raw, folder, { env: environment }),
    wait = true,
    logTo,
    leaseMs,
  }: {
    logger?: Logger;
    /** In place of a logger. */
    logTo?: LogStream;
    folder?: string;
    environment?: Record<string, string | undefined>;
    /** Makes settings of what the file would have in it. */
    load?: (raw: Record<string, unknown>) => Promise<LoadedSettings>;
    /** False: not until the servers were read. */
    wait?: boolean;
    /** After which what a dead gateway's tools with steps began is undone. */
    leaseMs?: number;
  } = {},
): Promise<World> {
  const loaded = await load({
    store: "memory",
    clients: { registration: "open" },
    log: { level: "silent" },
    ...settings,
    listen: { port: 0, shutdownSeconds: 3, ...(settings["listen"] as object | undefined) },
  });
  const gateway = await startGateway({
    settings: loaded,
    environment,
    ...(logTo === undefined ? { logger } : { logTo }),
    ...(leaseMs !== undefined && { leaseMs }),
  });
  const origin = new URL(gateway.url).origin;
  const browser = new CookieBrowser(origin);
  const link = await gateway.setupLink();
  if (link !== undefined) {
    await browser.go(link);
    await browser.submit({ name: "olive", email: "olive@shop.example", password: PASSWORD, again: PASSWORD });
  }
  if (wait) await gateway.ready;
  const clients: { close(): Promise<void> }[] = [];
  const place = { origin, base: gateway.publicUrl, resource: gateway.url } as Parameters<typeof connect>[0];
  let shared: Promise<Tokens & { client: string }> | undefined;

  const tokens: World["tokens"] = async (ask = {}) => {
    const { body } = await register(place);
    const client = String(body["client_id"]);
    return {
      ...(await connect(place, browser, {
        client,
        scope: ask.scope ?? "mcp:read mcp:call",
        ...(ask.without !== undefined && { without: ask.without }),
      })),
      client,
    };
  };
  const owner = async () => {
    shared ??= tokens();
    return (await shared).access_token;
  };
  const authorization = async (token: string | undefined) => ({ authorization: `Bearer ${token ?? (await owner())}` });
  return {
    gateway,
    url: gateway.url,
    origin,
    browser,
    tokens,
    async legacy(token) {
      const client = new LegacyClient({ name: "legacy-test", version: "1" });
      await client.connect(
        new LegacyTransport(new URL(gateway.url), { requestInit: { headers: await authorization(token) } }) as never,
      );
      clients.push(client);
      return client;
    },
    async modern(token) {
      const client = new ModernClient(
        { name: "modern-test", version: "1" },
        { versionNegotiation: { mode: { pin: "2026-07-28" } } },
      );
      await client.connect(
        new ModernTransport(new URL(gateway.url), { requestInit: { headers: await authorization(token) } }),
      );
      clients.push(client);
      return client;
    },
    async post(body, headers = {}, token) {
      return fetch(gateway.url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          accept: "application/json, text/event-stream",
          ...(token === "" ? {} : await authorization(token)),
          ...headers,
        },
        body: typeof body === "string" || body instanceof Uint8Array ? (body as string) : JSON.stringify(body),
      });
    },
    async metrics() {
      return (await fetch(`${origin}/metrics`)).text();
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) await client.close().catch(() => {});
      await gateway.close();
    },
  };
}

/** A 2026-07-28 request as body and headers, for tests that send what an SDK would not. */
export function modernRequest(
  method: string,
  params: Record<string, unknown> = {},
  id: string | number = 1,
): [object, Record<string, string>] {
  const name = params["name"] ?? params["uri"];
  return [
    {
      jsonrpc: "2.0",
      id,
      method,
      params: {
        ...params,
        _meta: {
          "io.modelcontextprotocol/protocolVersion": "2026-07-28",
          "io.modelcontextprotocol/clientCapabilities": {},
          ...(params["_meta"] as object | undefined),
        },
      },
    },
    {
      "mcp-protocol-version": "2026-07-28",
      "mcp-method": method,
      ...(typeof name === "string" && { "mcp-name": name }),
    },
  ];
}
