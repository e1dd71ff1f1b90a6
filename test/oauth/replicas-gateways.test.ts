/** Two whole gateways behind one address, on each store that several processes can share: a client notices nothing of it. */
import { createServer, type Server } from "node:http";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { Secret } from "../../src/core/secret.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { attack } from "../attacks/checklist.ts";
import { type Balancer, balanced, twenty } from "../attacks/pair.ts";
import { modernRequest } from "../e2e/world.ts";
import { everyStore } from "../store/backends.ts";
import { type Prover, prover } from "./minting.ts";
import {
  authorize,
  Browser,
  connect,
  listen,
  PASSWORD,
  REDIRECT,
  type Running,
  refresh,
  register,
  stop,
  token,
} from "./support.ts";

const META = "io.modelcontextprotocol";
const VERIFIER = "g".repeat(64);
const shared = everyStore.filter(({ name }) => name !== "memory");

describe.each(shared)("on $name", (backend) => {
  let balancer: Balancer;
  let browser: Browser;
  let here: Running;
  let calls = 0;
  const undo: (() => Promise<unknown>)[] = [];

  beforeAll(async () => {
    const place = await backend.place();
    undo.push(async () => place[Symbol.asyncDispose]());
    balancer = await balanced();
    undo.push(async () => balancer[Symbol.asyncDispose]());
    const things: Server = createServer(async (request, response) => {
      let text = "";
      for await (const chunk of request) text += chunk;
      const { id, method = "" } = JSON.parse(text || "{}") as { id?: number; method?: string };
      if (method === "tools/call") calls++;
      const results: Record<string, object> = {
        "server/discover": {
          supportedVersions: ["2026-07-28"],
          capabilities: { tools: {} },
          _meta: { [`${META}/serverInfo`]: { name: "stub", version: "1" } },
        },
        "tools/list": { tools: [{ name: "count", inputSchema: { type: "object" } }] },
        "tools/call": { content: [] },
      };
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ jsonrpc: "2.0", id, result: { resultType: "complete", ...results[method] } }));
    });
    const port = await listen(things);
    undo.push(() => stop(things));
    const start = async () => {
      const at = await freePort();
      const { settings, ...read } = await settleSettings(
        {
          store: "memory",
          publicUrl: balancer.origin,
          clients: { registration: "open", requestsPerSourcePerMinute: 0 },
          tokens: { refreshGraceSeconds: 0 },
          log: { level: "silent" },
          listen: { port: at, shutdownSeconds: 1 },
          servers: { things: { url: `http://127.0.0.1:${port}/mcp` } },
        },
        process.cwd(),
        { env: process.env },
      );
      // The database of a test has its password in its URL, which no settings file may have.
      const loaded = { ...read, settings: { ...settings, store: new Secret(place.setting) } };
      const gateway = await startGateway({ settings: loaded, environment: process.env, logger: silentLogger });
      undo.push(() => gateway.close());
      await gateway.ready;
      return [gateway, `http://127.0.0.1:${at}`] as const;
    };
    const [first, firstOrigin] = await start();
    const [, secondOrigin] = await start();
    balancer.replicas = [firstOrigin, secondOrigin];
    here = { origin: balancer.origin, base: balancer.origin, resource: `${balancer.origin}/mcp` } as Running;
    browser = new Browser(balancer.origin);
    await browser.go((await first.setupLink()) ?? "");
    await browser.submit({ name: "olive", email: "", password: PASSWORD, again: PASSWORD });
  }, 60_000);
  afterAll(async () => {
    for (const step of undo.toReversed()) await step();
  });

  const registered = async () => String((await register(here)).body["client_id"]);
  /** A call by way of the balancer, or at one of the two. */
  async function count(authorization: string, at?: 0 | 1, dpop?: string): Promise<number> {
    const [body, headers] = modernRequest("tools/call", { name: "count", arguments: {} });
    const answer = await fetch(`${at === undefined ? balancer.origin : balancer.replicas[at]}/mcp`, {
      method: "POST",
      headers: {
        host: new URL(balancer.origin).host,
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        authorization,
        ...headers,
        ...(dpop !== undefined && { dpop }),
      },
      body: JSON.stringify(body),
    });
    await answer.arrayBuffer();
    return answer.status;
  }
  const refused = (accessToken: string) =>
    vi.waitFor(
      async () => {
        for (const at of [0, 1] as const) expect(await count(`Bearer ${accessToken}`, at)).toBe(401);
      },
      { timeout: 1_500, interval: 50 },
    );

  test("sign-in, consent, tokens and calls go to the one and the other in turn, and each call is made once", async () => {
    const client = await registered();
    let tokens = await connect(here, browser, { client });
    const before = calls;
    for (let n = 0; n < 6; n++) {
      expect(await count(`Bearer ${tokens.access_token}`)).toBe(200);
      if (n % 2 === 1) {
        const { body } = await refresh(here, client, tokens.refresh_token);
        tokens = {
          ...tokens,
          access_token: String(body["access_token"]),
          refresh_token: String(body["refresh_token"]),
        };
      }
    }
    expect(calls - before).toBe(6);
    expect(Math.min(...balancer.served)).toBeGreaterThan(5);
  });

  attack(74, "a token revoked at one is refused by the other within a second, another one is not", async () => {
    const [gone, kept] = [await registered(), await registered()];
    const [mine, other] = [
      await connect(here, browser, { client: gone }),
      await connect(here, browser, { client: kept }),
    ];
    for (const at of [0, 1] as const) expect(await count(`Bearer ${mine.access_token}`, at)).toBe(200);
    balancer.to(0);
    const form = new URLSearchParams({ token: mine.refresh_token, client_id: gone });
    expect((await fetch(`${balancer.origin}/oauth/revoke`, { method: "POST", body: form })).status).toBe(200);
    balancer.to("each in turn");
    await refused(mine.access_token);
    for (const at of [0, 1] as const) expect(await count(`Bearer ${other.access_token}`, at)).toBe(200);
  });

  attack([29, 30], "of twenty with one code one gets tokens, and no call is made with them afterwards", async () => {
    const client = await registered();
    const code = (await authorize(here, browser, { client }, VERIFIER)).searchParams.get("code") ?? "";
    const form = {
      grant_type: "authorization_code",
      code,
      client_id: client,
      redirect_uri: REDIRECT,
      code_verifier: VERIFIER,
    };
    const won = (await twenty(() => token(here, form))).filter(({ status }) => status === 200);
    expect(won).toHaveLength(1);
    await refused(String(won[0]?.body["access_token"]));
  });

  attack(39, "of twenty with one refresh token one gets a new one, and the family ends", async () => {
    const client = await registered();
    const tokens = await connect(here, browser, { client });
    const won = (await twenty(() => refresh(here, client, tokens.refresh_token))).filter(
      ({ status }) => status === 200,
    );
    expect(won).toHaveLength(1);
    await refused(tokens.access_token);
    await refused(String(won[0]?.body["access_token"]));
  });

  test("of twenty calls with one proof one is made, and twenty with proofs of their own all are", async () => {
    const by: Prover = await prover("ES256", Date.now, here.resource);
    const client = await registered();
    const code = (await authorize(here, browser, { client }, VERIFIER)).searchParams.get("code") ?? "";
    const { body } = await token(
      here,
      { grant_type: "authorization_code", code, client_id: client, redirect_uri: REDIRECT, code_verifier: VERIFIER },
      { dpop: await by.prove("", { htu: `${here.base}/oauth/token`, ath: undefined }) },
    );
    expect(body["token_type"]).toBe("DPoP");
    const bound = String(body["access_token"]);
    const before = calls;
    const proof = await by.prove(bound);
    const statuses = await twenty(() => count(`DPoP ${bound}`, undefined, proof));
    expect(statuses.filter((status) => status === 200)).toHaveLength(1);
    expect(statuses.filter((status) => status === 401)).toHaveLength(19);
    expect(calls - before).toBe(1);
    const all = await twenty(async () => count(`DPoP ${bound}`, undefined, await by.prove(bound)));
    expect(all).toEqual(Array(20).fill(200));
    expect(calls - before).toBe(21);
  });
});

async function freePort(): Promise<number> {
  const server = createServer();
  const port = await listen(server);
  await stop(server);
  return port;
}
