/** Servers are replaced under a running gateway: no call fails, dialogues finish, and a slow server holds up nobody. */
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as LegacyTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { afterEach, describe, expect, test } from "vitest";
import { type Fixture, fixtureCommand, processesOf, startFixture, waitFor } from "../fixtures/processes.ts";
import { prover } from "../oauth/minting.ts";
import { authorize, REDIRECT, type Running, register, token as tokenRequest } from "../oauth/support.ts";
import { modernRequest, type World, world } from "./world.ts";

let one: World | undefined;
const fixtures: Fixture[] = [];
afterEach(async () => {
  await one?.[Symbol.asyncDispose]();
  one = undefined;
  await Promise.all(fixtures.splice(0).map((fixture) => fixture.stop()));
});

const start = async (...args: Parameters<typeof world>): Promise<World> => {
  one = await world(...args);
  return one;
};
const overHttp = async (fixture: string, args: readonly string[]) => {
  const running = await startFixture(fixture, args);
  fixtures.push(running);
  return { url: `${running.origin}/mcp` };
};

interface Server {
  readonly state: string;
  readonly generation: number;
  readonly finishing: number;
  readonly inFlight: number;
}

/** An owner, who can see and do what operators can. */
function operator(at: World, token: string) {
  const ask = async (method: string, path: string) => {
    const answer = await fetch(`${at.origin}/admin/${path}`, { method, headers: { authorization: `Bearer ${token}` } });
    const body = (await answer.json()) as Server & { error?: { message: string } };
    if (answer.status !== 200) throw new Error(`${path}: ${answer.status} ${body.error?.message}`);
    return body;
  };
  return {
    restart: (name: string) => ask("POST", `servers/${name}/restart`),
    state: (name: string) => ask("GET", `servers/${name}`),
  };
}

describe("ten replacements under load fail no call of clients that all use the same id", () => {
  test.each<[string, () => Promise<object>]>([
    ["stdio", async () => ({ command: fixtureCommand("echo-stdio") })],
    ["a process for each user", async () => ({ command: fixtureCommand("echo-stdio"), isolation: "per-user" })],
    ["HTTP, 2025-11-25", () => overHttp("echo-http", ["--era", "legacy"])],
    ["HTTP, 2026-07-28", () => overHttp("echo-http", ["--era", "modern"])],
  ])(
    "%s",
    async (_, server) => {
      const at = await start({ servers: { echo: await server() } });
      const { access_token: token } = await at.tokens();
      const { restart, state } = operator(at, token);
      const wrong: string[] = [];
      let answered = 0;
      let stop = false;
      const caller = async (who: number) => {
        for (let turn = 0; !stop; turn++) {
          const text = `text-${who}-${turn}-`;
          const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text } });
          const answer = await at.post(body, headers, token).then(
            async (response) => `${response.status} ${await response.text()}`,
            (error: unknown) => String(error),
          );
          answered++;
          if (!answer.startsWith("200 ") || !answer.includes(text) || !answer.includes('"id":1')) wrong.push(answer);
        }
      };
      const callers = Array.from({ length: 32 }, (_unused, who) => caller(who));
      for (let round = 0; round < 10; round++) {
        const before = answered;
        await waitFor(() => answered > before + 32, 60_000);
        await restart("echo");
      }
      stop = true;
      await Promise.all(callers);
      expect(wrong).toEqual([]);
      expect(answered).toBeGreaterThan(320);
      await waitFor(async () => (await state("echo")).finishing === 0);
      expect(await state("echo")).toMatchObject({ generation: 11, inFlight: 0, state: "ready" });
      expect(await at.metrics()).toContain('drawbridge_upstream_replacements_total{drawbridge_server="echo"} 10');
    },
    120_000,
  );
});

describe("a dialogue that is open while its server is replaced is finished by the version that asked", () => {
  const ERAS = ["legacy", "modern"] as const;
  test.each(ERAS.flatMap((server) => ERAS.map((client) => [server, client] as const)))(
    "a %s server and a %s client",
    async (serverEra, clientEra) => {
      const at = await start({
        servers: { asking: { command: fixtureCommand("everything/stdio", ["--era", serverEra]) } },
      });
      const { access_token: token } = await at.tokens();
      const { restart, state } = operator(at, token);
      const asked = Promise.withResolvers<void>();
      const answer = Promise.withResolvers<void>();
      const accept = async () => {
        asked.resolve();
        await answer.promise;
        return { action: "accept" as const, content: { username: "ann", email: "ann@shop.example" } };
      };
      const requestInit = { headers: { authorization: `Bearer ${token}` } };
      const capabilities = { elicitation: { form: {} } };
      const client =
        clientEra === "legacy"
          ? new LegacyClient({ name: "asked", version: "1" }, { capabilities })
          : new ModernClient(
              { name: "asked", version: "1" },
              { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } },
            );
      if (client instanceof LegacyClient) {
        client.setRequestHandler(ElicitRequestSchema, accept);
        await client.connect(new LegacyTransport(new URL(at.url), { requestInit }) as never);
      } else {
        client.setRequestHandler("elicitation/create", accept);
        await client.connect(new ModernTransport(new URL(at.url), { requestInit }));
      }
      const called = (client as LegacyClient).callTool({ name: "test_elicitation", arguments: { message: "Who?" } });
      await asked.promise;
      await restart("asking");
      expect(await state("asking")).toMatchObject({ generation: 2, finishing: 1 });
      answer.resolve();
      expect(JSON.stringify(await called)).toContain("ann");
      await waitFor(async () => (await state("asking")).finishing === 0);
      await client.close();
    },
    60_000,
  );
});

test("updates of a resource that a client follows go on after a replacement", async () => {
  const at = await start({ servers: { echo: { command: fixtureCommand("echo-stdio") } } });
  const { access_token: token } = await at.tokens();
  const client = await at.legacy(token);
  const uri = "test://static/greeting";
  const updated: string[] = [];
  client.fallbackNotificationHandler = async ({ method }) => void updated.push(method);
  await client.subscribeResource({ uri });
  await operator(at, token).restart("echo");
  await waitFor(async () => {
    await client.callTool({ name: "touch", arguments: { uri } });
    return updated.includes("notifications/resources/updated");
  });
});

test("a definition that the new version changes is held back, as ever", async () => {
  const script = (described: string) => ({
    command: [
      process.execPath,
      "-e",
      `const { serveStdio } = await import(${JSON.stringify(new URL("../fixtures/raw-stdio.ts", import.meta.url).href)});
       const { rawServer, text } = await import(${JSON.stringify(new URL("../fixtures/raw-server.ts", import.meta.url).href)});
       const { readFileSync } = await import("node:fs");
       serveStdio(rawServer({ serverInfo: { name: "s", version: "1" }, instructions: "", resources: [], templates: [], prompts: [],
         tools: { pay: { description: "Pays " + (globalThis.process.env.PAYS ?? String(Date.now())), run: () => text("paid") }, look: { description: "Looks.", run: () => text("seen") } },
         read: () => undefined, prompt: () => ({}), complete: () => ({}) }, { era: "legacy", pageSize: 9 }));`,
    ],
    environment: described === "" ? {} : { PAYS: described },
  });
  const at = await start({ servers: { shop: script("") } });
  const { access_token: token } = await at.tokens();
  const client = await at.legacy(token);
  expect((await client.listTools()).tools.map(({ name }) => name)).toEqual(["pay", "look"]);
  await operator(at, token).restart("shop");
  await waitFor(async () => (await client.listTools()).tools.length === 1);
  expect(at.gateway.withheld()).toMatchObject([{ server: "shop", name: "pay" }]);
});

test("a server that never answers holds up nobody who uses another one", async () => {
  const marker = `mute-e2e-${process.pid}`;
  const mute = { command: [process.execPath, "-e", "setInterval(() => {}, 1e6)", marker], startTimeoutSeconds: 120 };
  const at = await start({ servers: { mute, echo: { command: fixtureCommand("echo-stdio") } } }, { wait: false });
  const ready = await waitFor(async () => {
    const answer = await fetch(`${at.origin}/ready`);
    return answer.status === 200 && ((await answer.json()) as { servers: Record<string, string> });
  });
  expect(ready.servers).toEqual({ mute: "starting", echo: "ready" });
  const { access_token: token } = await at.tokens();
  const began = performance.now();
  const client = await at.legacy(token);
  const { tools } = await client.listTools();
  expect(tools.map(({ name }) => name)).toContain("echo_echo");
  expect(await client.callTool({ name: "echo_echo", arguments: { text: "at once" } })).toMatchObject({
    content: [{ text: "at once" }],
  });
  expect(performance.now() - began).toBeLessThan(10_000);
  const again = performance.now();
  await client.listTools();
  await client.callTool({ name: "echo_echo", arguments: { text: "x" } });
  expect(performance.now() - again).toBeLessThan(2_000);
  expect((await processesOf(marker)).length).toBeGreaterThan(0);
}, 60_000);

test("operators prove their key where tokens are bound to one, for the very URL they ask", async () => {
  const at = await start({ servers: { echo: { command: fixtureCommand("echo-stdio") } } });
  const holder = await prover("ES256", Date.now, at.url);
  const place = { origin: at.origin, base: at.gateway.publicUrl, resource: at.url } as Running;
  const client = String((await register(place)).body["client_id"]);
  const verifier = "d".repeat(64);
  const code = (await authorize(place, at.browser, { client }, verifier)).searchParams.get("code") ?? "";
  const form = {
    grant_type: "authorization_code",
    code,
    client_id: client,
    redirect_uri: REDIRECT,
    code_verifier: verifier,
  };
  const prove = (nonce?: string) =>
    holder.prove("", { htu: `${at.gateway.publicUrl}/oauth/token`, ath: undefined, nonce });
  let answer = await tokenRequest(place, form, { dpop: await prove() });
  if (answer.body["error"] === "use_dpop_nonce")
    answer = await tokenRequest(place, form, { dpop: await prove(answer.headers.get("dpop-nonce") ?? "") });
  const bound = String(answer.body["access_token"]);
  const admin = `${at.gateway.publicUrl}/admin/servers`;
  const ask = (headers: Record<string, string>, path = "") => fetch(`${at.origin}/admin/servers${path}`, { headers });
  const proof = (htu: string) => holder.prove(bound, { htm: "GET", htu });
  expect((await ask({ authorization: `DPoP ${bound}`, dpop: await proof(admin) })).status).toBe(200);
  expect((await ask({ authorization: `DPoP ${bound}`, dpop: await proof(`${admin}/echo`) }, "/echo")).status).toBe(200);
  expect((await ask({ authorization: `DPoP ${bound}`, dpop: await proof(at.url) })).status).toBe(401);
  expect((await ask({ authorization: `DPoP ${bound}`, dpop: await proof(admin) }, "/echo")).status).toBe(401);
  expect((await ask({ authorization: `Bearer ${bound}` })).status).toBe(401);
});
