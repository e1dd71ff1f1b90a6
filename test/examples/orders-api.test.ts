/**
 * `docs/token-exchange.md`, followed to the letter: its two commands, a person who signs in, and the API that believes only Drawbridge. Only the ports are others, so that it can run beside whatever runs.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeJwt } from "jose";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { usersIn } from "../../src/oauth/people/users.ts";
import { openStore } from "../../src/store/open.ts";
import { modernRequest } from "../e2e/world.ts";
import { freePort, waitFor } from "../fixtures/processes.ts";
import { Browser, connect, PASSWORD, register, type Tokens } from "../oauth/support.ts";

const root = join(import.meta.dirname, "../..");

let folder: string;
let page: string;
let gateway: string;
let api: string;
const started: { child: ChildProcess; output(): string; ended: Promise<unknown> }[] = [];

interface Accepted {
  readonly subject: string;
  readonly actor: string | undefined;
  readonly scopes: readonly string[];
  readonly tokenId: string;
}
/** Whom the API saw: what it prints. */
const accepted = () =>
  [...(started[0]?.output() ?? "").matchAll(/^accepted (.+)$/gm)].map(([, text = ""]) => JSON.parse(text) as Accepted);
const people = () => accepted().filter(({ actor }) => actor !== undefined);

/** The guide's words with our ports in them. */
const ported = (text: string) =>
  text
    .replaceAll("http://127.0.0.1:7337", gateway)
    .replaceAll("http://127.0.0.1:7340", api)
    .replace("port: 7337", `port: ${new URL(gateway).port}`);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-api-"));
  for (const part of ["src", "bin", "node_modules", "package.json"])
    await symlink(join(root, part), join(folder, part));
  await cp(join(root, "examples"), join(folder, "examples"), {
    recursive: true,
    filter: (path) => !path.includes(".drawbridge"),
  });
  const [gatewayPort, apiPort] = [await freePort(), await freePort()];
  gateway = `http://127.0.0.1:${gatewayPort}`;
  api = `http://127.0.0.1:${apiPort}`;
  page = await readFile(join(root, "docs/token-exchange.md"), "utf8");
  const settings = join(folder, "examples/orders/with-api.yaml");
  await writeFile(settings, ported(await readFile(settings, "utf8")));

  const [startApi = "", serve = ""] = commands(page);
  run(startApi, { PORT: String(apiPort), ISSUER: gateway });
  run(serve, {});
  const [first, second] = started;
  await waitFor(() => first?.output().includes(`listens on ${api}/mcp`), 60_000);
  await waitFor(() => second?.output().includes("Drawbridge is up") || second?.child.exitCode !== null, 60_000);
  expect(second?.output()).toContain("Drawbridge is up");
}, 150_000);

afterAll(async () => {
  for (const { child, ended } of started) {
    signal(child, "SIGTERM");
    const gone = await Promise.race([
      ended.then(() => true),
      new Promise((resolve) => setTimeout(resolve, 10_000, false)),
    ]);
    if (gone !== true) signal(child, "SIGKILL");
  }
  await rm(folder, { recursive: true, force: true });
}, 60_000);

/** The commands in the guide's shell blocks, in their order. */
function commands(text: string): string[] {
  return [...text.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, block = ""]) => block.trim().split("\n"));
}

function run(command: string, environment: Record<string, string>): void {
  const inherited = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_|VITEST|TEST$|CI$|NO_COLOR)/i.test(name)),
  );
  const env = { ...inherited, npm_config_prefer_offline: "true", npm_config_yes: "true", ...environment };
  const child = spawn("sh", ["-c", command], { cwd: folder, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
  started.push({ child, output: () => text, ended: new Promise((resolve) => child.on("close", resolve)) });
}

/** Reaches everything that the command started. */
function signal(child: ChildProcess, name: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, name);
  } catch {
    // It has ended.
  }
}

type Holder = Tokens & { readonly client: string };

/** A person's client, from registration to tokens. */
async function connected(browser: Browser): Promise<Holder> {
  const place = { origin: gateway, base: gateway, resource: `${gateway}/mcp` } as Parameters<typeof connect>[0];
  const client = String((await register(place)).body["client_id"]);
  return { ...(await connect(place, browser, { client })), client };
}

async function call(token: string, name: string, args: Record<string, unknown> = {}) {
  const [body, headers] = modernRequest("tools/call", { name, arguments: args });
  const response = await fetch(`${gateway}/mcp`, {
    method: "POST",
    headers: {
      ...headers,
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    },
    body: JSON.stringify(body),
  });
  const answer = (await response.json()) as {
    result?: { structuredContent?: Record<string, unknown>; isError?: boolean };
  };
  return { status: response.status, ...answer.result };
}

describe("the purchase order API behind Drawbridge", () => {
  let olive: Holder;
  let ben: Holder;

  beforeAll(async () => {
    const link = /http:\/\/127\.0\.0\.1:\d+\/setup\S+/.exec(started[1]?.output() ?? "")?.[0] ?? "";
    const browser = new Browser(gateway);
    await browser.go(link);
    await browser.submit({ name: "olive", email: "olive@shop.example", password: PASSWORD, again: PASSWORD });
    olive = await connected(browser);

    const store = await openStore(`sqlite:${join(folder, "examples/orders/.drawbridge/drawbridge.db")}`);
    await usersIn(store.records).create({
      name: "ben",
      email: "ben@shop.example",
      password: PASSWORD,
      groups: ["buyer"],
    });
    await store.close();
    const other = new Browser(gateway);
    await other.go(`${gateway}/account`);
    await other.submit({ name: "ben", password: PASSWORD });
    ben = await connected(other);
  }, 60_000);

  test("sees who asks, that Drawbridge acts, and what they may", async () => {
    const low = await call(olive.access_token, "purchasing_find_low_stock");
    expect(low.structuredContent?.["products"]).toContainEqual(expect.objectContaining({ sku: "BLK-01" }));
    const { sub } = decodeJwt(olive.access_token);
    expect(people().at(-1)).toMatchObject({
      subject: sub,
      actor: gateway,
      scopes: ["purchases:read", "purchases:write"],
    });
    // Its lists were read by Drawbridge for itself.
    expect(accepted().find(({ actor }) => actor === undefined)?.subject).toBe(gateway);
  });

  test("keeps what people do apart, by the token and by nothing that a caller writes", async () => {
    const order = { sku: "BLK-01", quantity: 50, reason: "Winter" };
    const placed = await call(olive.access_token, "purchasing_place_purchase_order", order);
    const id = (placed.structuredContent?.["order"] as { id: string } | undefined)?.id;
    await call(ben.access_token, "purchasing_place_purchase_order", { ...order, sku: "LMP-01" });
    const mine = await call(ben.access_token, "purchasing_list_my_purchase_orders");
    expect(mine.structuredContent).toMatchObject({
      buyer: decodeJwt(ben.access_token).sub,
      orders: [{ sku: "LMP-01" }],
    });
    expect(await call(ben.access_token, "purchasing_cancel_my_purchase_order", { order_id: id })).toMatchObject({
      isError: true,
    });
    const cancelled = await call(olive.access_token, "purchasing_cancel_my_purchase_order", { order_id: id });
    expect(cancelled.structuredContent).toMatchObject({ order: { id, status: "cancelled" } });
    const named = await call(ben.access_token, "purchasing_list_my_purchase_orders", {
      buyer: decodeJwt(olive.access_token).sub,
    });
    expect(named.isError).toBe(true);
  });

  test("gets another token for another person", async () => {
    const tokensOf = (subject: string | undefined) =>
      new Set(people().flatMap((one) => (one.subject === subject ? [one.tokenId] : [])));
    const [hers, his] = [olive, ben].map(({ access_token }) => tokensOf(decodeJwt(access_token).sub));
    expect(hers?.size).toBe(1);
    expect(his?.size).toBe(1);
    expect([...(hers ?? [])]).not.toEqual([...(his ?? [])]);
  });

  test("is bound by the gateway's roles: a buyer orders a hundred at most and sees no tool of the desk's but one", async () => {
    const order = { sku: "LMP-02", quantity: 101, reason: "Too many" };
    const before = people().length;
    const refused = await call(ben.access_token, "purchasing_place_purchase_order", order);
    expect(refused.structuredContent).toBeUndefined();
    expect(people()).toHaveLength(before);
    expect(
      (await call(ben.access_token, "orders_get_customer", { customer_id: "CUS-0001" })).structuredContent,
    ).toBeUndefined();
  });

  test("refuses whoever comes directly, the client's own token included, as the guide shows it", () => {
    const [, , curl = ""] = commands(page);
    const shown = /```text\n(HTTP\/1\.1 401 [\s\S]*?)```/.exec(page)?.[1] ?? "";
    for (const token of [olive.access_token, "made-up", ""]) {
      const { stdout } = spawnSync("sh", ["-c", ported(curl)], {
        env: { ...process.env, TOKEN: token },
        encoding: "utf8",
      });
      const [status, challenge] = ported(shown).trim().split("\n");
      expect(stdout).toContain(status);
      if (token !== "") expect(stdout).toContain(challenge);
      else expect(stdout).toMatch(/www-authenticate: Bearer .*resource_metadata=/);
    }
  });

  test("tells where its tokens come from", async () => {
    const metadata = await fetch(`${api}/.well-known/oauth-protected-resource/mcp`);
    expect(await metadata.json()).toMatchObject({ resource: `${api}/mcp`, authorization_servers: [gateway] });
  });

  test("is not reached any more once the grant has ended", async () => {
    await fetch(`${gateway}/oauth/revoke`, {
      method: "POST",
      body: new URLSearchParams({ token: olive.refresh_token, client_id: olive.client }),
    });
    const before = people().length;
    expect((await call(olive.access_token, "purchasing_find_low_stock")).status).toBe(401);
    expect(people()).toHaveLength(before);
    expect((await call(ben.access_token, "purchasing_find_low_stock")).status).toBe(200);
  });
});
