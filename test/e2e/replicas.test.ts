/** Two gateways behind one URL on one store: what is ended at one, or by a command, ends at the other, streams included. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { type RunningGateway, startGateway } from "../../src/gateway/gateway.ts";
import { disableClient } from "../../src/oauth/clients/disabled.ts";
import { rotateKeys } from "../../src/oauth/tokens/keys.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { modernRequest, type World, world } from "./world.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-replicas-"));
const settings = {
  store: `sqlite:${join(folder, "store.db")}`,
  servers: { things: { command: fixtureCommand("echo-stdio") } },
};
let one: World;
let two: RunningGateway;
/** The MCP endpoint of the second gateway, behind the proxy that both are behind. */
let second: string;

beforeAll(async () => {
  one = await world(settings);
  const port = await freePort();
  const loaded = await settleSettings(
    {
      ...settings,
      clients: { registration: "open" },
      log: { level: "silent" },
      publicUrl: one.gateway.publicUrl,
      listen: { port },
    },
    process.cwd(),
    { env: process.env },
  );
  two = await startGateway({ settings: loaded, environment: process.env, logger: silentLogger });
  second = `http://127.0.0.1:${port}/mcp`;
  await two.ready;
}, 30_000);
afterAll(async () => {
  await two?.close();
  await one?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

const post = (token: string, method: string, params: Record<string, unknown> = {}) => {
  const [body, headers] = modernRequest(method, params);
  return fetch(second, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${token}`,
      ...headers,
    },
    body: JSON.stringify(body),
  });
};
const status = async (token: string) => {
  const answer = await post(token, "tools/list");
  await answer.arrayBuffer();
  return answer.status;
};

/** A stream at the second gateway; resolves when the gateway ends it. */
async function listening(token: string): Promise<{ over: boolean }> {
  const answer = await post(token, "subscriptions/listen", { notifications: { toolsListChanged: true } });
  expect(answer.status).toBe(200);
  const state = { over: false };
  answer
    .text()
    .catch(() => {})
    .finally(() => {
      state.over = true;
    });
  return state;
}

const WAYS: readonly [string, (client: string, token: string) => Promise<unknown>][] = [
  [
    "a token that its client revokes",
    (client, token) =>
      fetch(`${one.gateway.publicUrl}/oauth/revoke`, {
        method: "POST",
        body: new URLSearchParams({ token, client_id: client }),
      }),
  ],
  [
    "a client that its user ends on the account page",
    async (client) => {
      await one.browser.go(`${one.origin}/account`);
      await one.browser.go(`${one.origin}/account/revoke`, one.browser.form({ client }));
    },
  ],
  [
    "a client that an operator disables by a command",
    async (client) => {
      await using store = sqliteStore(join(folder, "store.db"));
      await disableClient(store.records, client);
    },
  ],
];

test.each(WAYS)(
  "%s at one gateway is refused at the other within a second, and its stream there ends",
  async (_what, end) => {
    const { access_token: token, client } = await one.tokens();
    const other = await one.tokens();
    expect(await status(token)).toBe(200);
    const [stream, untouched] = [await listening(token), await listening(other.access_token)];
    await end(client, token);
    await vi.waitUntil(async () => (await status(token)) === 401, { timeout: 2_000, interval: 20 });
    await vi.waitUntil(() => stream.over, { timeout: 2_000, interval: 20 });
    expect(await status(other.access_token)).toBe(200);
    expect(untouched.over).toBe(false);
  },
);

test("a disabled client gets nothing more from the authorization server", async () => {
  const { refresh_token, client } = await one.tokens();
  await using store = sqliteStore(join(folder, "store.db"));
  await disableClient(store.records, client);
  const form = { grant_type: "refresh_token", refresh_token, client_id: client };
  const refreshed = await fetch(`${one.gateway.publicUrl}/oauth/token`, {
    method: "POST",
    body: new URLSearchParams(form),
  });
  expect(await refreshed.json()).toMatchObject({ error: "invalid_client" });
  const query = new URLSearchParams({
    client_id: client,
    response_type: "code",
    redirect_uri: "http://127.0.0.1:49152/callback",
    code_challenge: "x".repeat(43),
    code_challenge_method: "S256",
  });
  expect(await one.browser.go(`${one.origin}/oauth/authorize?${query}`)).toBeUndefined();
  expect(one.browser.last.status).toBe(400);
});

test("a rotation that a command began shows in the key sets of both, and no token is refused", async () => {
  const { access_token: token } = await one.tokens();
  await using store = sqliteStore(join(folder, "store.db"));
  const { kid } = await rotateKeys(store.records, { publishMs: 1_000 });
  for (const origin of [one.origin, new URL(second).origin]) {
    await vi.waitUntil(async () => (await (await fetch(`${origin}/oauth/jwks`)).text()).includes(kid), {
      timeout: 3_000,
    });
  }
  await vi.waitUntil(
    async () => {
      const fresh = (await one.tokens()).access_token;
      expect(await status(fresh)).toBe(200);
      expect(await status(token)).toBe(200);
      return Buffer.from(fresh.split(".")[0] ?? "", "base64url")
        .toString()
        .includes(kid);
    },
    { timeout: 10_000 },
  );
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}
