/** Starting and stopping: calls in flight are answered, nothing is left behind, and a failed start says why. */
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { settleSettings } from "../../src/config/load.ts";
import { type RunningGateway, startGateway } from "../../src/gateway/gateway.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { fixtureCommand, freePort, processesOf, startFixture, waitFor } from "../fixtures/processes.ts";
import { modernRequest, type World, world } from "./world.ts";

let folder: string;
let marker: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-shutdown-"));
  marker = `shutdown-${crypto.randomUUID()}`;
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** A stdio server whose processes can be found by the marker. */
const stdio = (name = "echo-stdio", args: string[] = []) => ({
  command: [...fixtureCommand(name, args), marker],
});
const begin = async (settings: Record<string, unknown>): Promise<RunningGateway> =>
  startGateway({
    settings: await settleSettings(
      {
        store: "memory",
        log: { level: "silent" },
        ...settings,
        listen: { port: 0, shutdownSeconds: 3, ...(settings["listen"] as object) },
      },
      folder,
      { env: process.env },
    ),
    environment: process.env,
    logger: silentLogger,
  });
const call = async (one: World, token: string, name: string, args: object) => {
  const [body, headers] = modernRequest("tools/call", { name, arguments: args }, "c");
  const response = await one.post(body, headers, token);
  return (await response.json()) as { result?: { content: { text: string }[] }; error?: { code: number } };
};
const inFlight = async (one: World) =>
  Number(/drawbridge_upstream_in_flight\{[^}]*\} (\d+)/.exec(await one.metrics())?.[1] ?? 0);
/** How a new connection to a port fares. */
const reachable = (port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });

describe("close", () => {
  test("lets a call in flight finish, takes no new connection, records the call, and leaves no process", async () => {
    const file = join(folder, "gateway.db");
    const one = await world({ store: `sqlite:${file}`, servers: { echo: stdio() }, listen: { shutdownSeconds: 30 } });
    const { access_token } = await one.tokens();
    const port = Number(new URL(one.url).port);
    expect((await processesOf(marker)).length).toBeGreaterThan(0);
    const slow = call(one, access_token, "slow", { ms: 1500 });
    await waitFor(async () => (await inFlight(one)) === 1);
    const closed = one.gateway.close();
    expect(one.gateway.close()).toBe(closed);
    await waitFor(async () => !(await reachable(port)));
    expect((await slow).result?.content[0]?.text).toBe("slept 1500 ms");
    await closed;
    await waitFor(async () => (await processesOf(marker)).length === 0);
    const log = new DatabaseSync(file, { readOnly: true, timeout: 10_000 });
    const rows = log.prepare("SELECT outcome FROM audit WHERE target = 'slow'").all();
    log.close();
    expect(rows).toMatchObject([{ outcome: "permitted" }]);
    await one[Symbol.asyncDispose]();
  });

  test("does not wait for ever for a call that does not end: it fails, is recorded, and its process is gone", async () => {
    const file = join(folder, "gateway.db");
    const one = await world({ store: `sqlite:${file}`, servers: { echo: stdio() }, listen: { shutdownSeconds: 0.5 } });
    const { access_token } = await one.tokens();
    const silent = call(one, access_token, "silent", {}).catch(() => "cut off" as const);
    await waitFor(async () => (await inFlight(one)) === 1);
    await one.gateway.close();
    const answer = await silent;
    if (answer !== "cut off") expect(answer.error).toBeDefined();
    await waitFor(async () => (await processesOf(marker)).length === 0);
    const log = new DatabaseSync(file, { readOnly: true, timeout: 10_000 });
    const rows = log.prepare("SELECT outcome FROM audit WHERE target = 'silent'").all() as { outcome: string }[];
    log.close();
    expect(rows).toHaveLength(1);
    expect(["failed", "abandoned"]).toContain(rows[0]?.outcome);
    await one[Symbol.asyncDispose]();
  });

  test("is quick when nobody calls, also while clients keep connections open", async () => {
    const one = await world({ servers: { echo: stdio() }, listen: { shutdownSeconds: 60 } });
    const { access_token } = await one.tokens();
    const client = await one.legacy(access_token);
    await client.callTool({ name: "echo", arguments: { text: "hi" } });
    const socket = connect(Number(new URL(one.url).port), "127.0.0.1");
    socket.on("error", () => {});
    await new Promise((resolve) => socket.once("connect", resolve));
    const started = performance.now();
    await one.gateway.close();
    expect(performance.now() - started).toBeLessThan(20_000);
    socket.destroy();
    await one[Symbol.asyncDispose]();
    await waitFor(async () => (await processesOf(marker)).length === 0);
  });

  test("while servers still start leaves no process and no open port, and `ready` resolves", async () => {
    for (const server of [stdio(), stdio("misbehaving-stdio", ["silent"]), { command: ["/nonexistent/program"] }]) {
      const gateway = await begin({ servers: { one: server } });
      const port = Number(new URL(gateway.url).port);
      await gateway.close();
      expect(await reachable(port)).toBe(false);
      await waitFor(async () => (await processesOf(marker)).length === 0);
      await gateway.ready;
    }
  });

  test("ends the gateway's session at an HTTP server", async () => {
    await using fixture = await startFixture("echo-http", ["--era", "legacy"]);
    const sessions = async () =>
      ((await (await fetch(`${fixture.origin}/stats`)).json()) as { sessions: number }).sessions;
    const gateway = await begin({ servers: { web: { url: `${fixture.origin}/mcp` } } });
    await gateway.ready;
    expect(await sessions()).toBe(1);
    await gateway.close();
    expect(await sessions()).toBe(0);
  });

  test("though the last records cannot be written, leaves nothing open", async () => {
    const file = join(folder, "gateway.db");
    const one = await world({ store: `sqlite:${file}`, servers: { echo: stdio() } });
    const { access_token } = await one.tokens();
    const log = new DatabaseSync(file, { timeout: 10_000 });
    log.exec("CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'the disk is full'); END");
    expect(await call(one, access_token, "echo", { text: "hi" })).toMatchObject({ error: { code: -31503 } });
    await expect(one.gateway.close()).rejects.toMatchObject({ code: "audit_unavailable" });
    log.exec("DROP TRIGGER broken");
    // The store is closed: nobody else holds the file.
    log.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT");
    log.close();
    expect(await reachable(Number(new URL(one.url).port))).toBe(false);
    await waitFor(async () => (await processesOf(marker)).length === 0);
  });
});

describe("a start that fails", () => {
  test("because the port is in use says so, and leaves nothing behind", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as { port: number };
    try {
      await expect(begin({ servers: { echo: stdio() }, listen: { port } })).rejects.toMatchObject({
        code: "settings_invalid",
        message: expect.stringMatching(new RegExp(`Port ${port} .*in use.*listen\\.port`)),
      });
    } finally {
      taken.close();
    }
    expect(await processesOf(marker)).toEqual([]);
  });

  test("at its last server stops those that were started before, and frees the port", async () => {
    const port = await freePort();
    await expect(
      begin({
        servers: { echo: stdio(), web: { url: "http://10.1.2.3/mcp", allowPrivateAddresses: false } },
        listen: { port },
      }),
    ).rejects.toMatchObject({ code: "settings_invalid" });
    await waitFor(async () => (await processesOf(marker)).length === 0);
    expect(await reachable(port)).toBe(false);
  });

  test("because the store is no database of ours says so", async () => {
    const file = join(folder, "other.db");
    const other = new DatabaseSync(file, { timeout: 10_000 });
    other.exec("CREATE TABLE theirs (a)");
    other.close();
    await expect(begin({ store: `sqlite:${file}`, servers: { echo: stdio() } })).rejects.toMatchObject({
      code: "settings_invalid",
      message: expect.stringContaining("another program"),
    });
    expect(await processesOf(marker)).toEqual([]);
  });
});

test("two gateways one after the other on one port and one file carry on", async () => {
  const port = await freePort();
  const settings = { store: `sqlite:${join(folder, "gateway.db")}`, servers: { echo: stdio() }, listen: { port } };
  let token: string;
  {
    await using first = await world(settings);
    token = (await first.tokens()).access_token;
    expect(await call(first, token, "echo", { text: "one" })).toMatchObject({ result: {} });
  }
  await using second = await world(settings);
  // The token of before is still good: the keys are in the store.
  expect(await call(second, token, "echo", { text: "two" })).toMatchObject({ result: { content: [{ text: "two" }] } });
});
