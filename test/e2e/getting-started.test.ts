/**
 * `docs/getting-started.md`, followed to the letter: its commands, in its order, in a fresh clone, with a browser that presses the buttons
 * it names and a client that nobody registered.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { Client, type OAuthClientProvider, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { type Browser, chromium } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import { findChromium } from "../global/chromium.ts";

const root = join(import.meta.dirname, "../..");
const chromiumPath = findChromium();
const PASSWORD = "a calm and long phrase";

let folder: string;
let clone: string;
let guide: string;
let browser: Browser;
const started: ChildProcess[] = [];

beforeAll(async () => {
  guide = await readFile(join(root, "docs/getting-started.md"), "utf8");
  folder = await mkdtemp(join(tmpdir(), "drawbridge-guide-"));
  clone = join(folder, "drawbridge");
  const cloned = spawnSync("git", ["clone", "--quiet", root, clone], { encoding: "utf8" });
  if (cloned.status !== 0) throw new Error(`git clone: ${cloned.stderr}`);
  // What is not committed yet is tried too; in CI there is nothing of that kind.
  for (const part of ["src", "bin", "examples", "docs", "package.json", "package-lock.json", ".npmrc"]) {
    await cp(join(root, part), join(clone, part), { recursive: true, filter: (path) => !path.includes(".drawbridge") });
  }
  if (chromiumPath === undefined)
    throw new Error("The guide needs a browser: install Chromium, or set CHROMIUM to its path.");
  browser = await chromium.launch({
    executablePath: chromiumPath,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}, 120_000);

afterAll(async () => {
  for (const child of started) end(child, "SIGKILL");
  await browser?.close();
  await rm(folder, { recursive: true, force: true });
});

/** A command of the guide, as a person's shell would run it: without this repository's tools in the path. */
function shell(command: string): { child: ChildProcess; output: () => string; ended: Promise<number | null> } {
  const path = (process.env["PATH"] ?? "").split(delimiter).filter((part) => !part.includes("node_modules"));
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_|VITEST|TEST$|CI$|NO_COLOR)/i.test(name)),
  );
  const child = spawn("sh", ["-c", command], {
    cwd: clone,
    env: { ...env, PATH: path.join(delimiter), npm_config_prefer_offline: "true", npm_config_yes: "true" },
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  started.push(child);
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
  return { child, output: () => text, ended: new Promise((resolve) => child.on("close", resolve)) };
}

/** Ctrl-C reaches everything that the terminal runs. */
function end(child: ChildProcess, signal: NodeJS.Signals = "SIGINT"): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It ended meanwhile.
  }
}

/** The commands in the guide's shell blocks, in their order. */
function commands(): string[] {
  return [...guide.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, block = ""]) => block.trim().split("\n"));
}

function portIsFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createTcpServer();
    probe.once("error", () => resolve(false));
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}

test("the guide works as it is written", { timeout: 400_000 }, async () => {
  const [install, start, addToClaude, audit, ownServer, ownUrl, check, serve, ...more] = commands();
  expect([install, start, more]).toEqual(["npm ci", "npm start", []]);
  await waitFor(() => portIsFree(7337), 60_000);

  // 1. Start the example.
  const installed = shell(install ?? "");
  expect(await installed.ended, installed.output()).toBe(0);
  const example = shell(start ?? "");
  const link = /http:\/\/127\.0\.0\.1:7337\/setup\S+/;
  await waitFor(() => link.test(example.output()) || example.child.exitCode !== null, 60_000);
  expect(example.output()).toContain("http://127.0.0.1:7337/mcp");
  expect(example.output()).toContain(addToClaude);
  const setUp = link.exec(example.output())?.[0] ?? "";

  // 2. Make your account.
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(setUp);
  await page.getByLabel("Name", { exact: true }).fill("olive");
  await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
  await page.getByLabel("Password, once more").fill(PASSWORD);
  await page.getByRole("button", { name: button(/press \*\*(.+?)\*\*\.\nYou are the owner/) }).click();
  await page.waitForURL("http://127.0.0.1:7337/account");
  expect((await page.request.get(setUp)).status()).toBeGreaterThanOrEqual(400);

  // 3. Connect a client. It starts in a browser that is not signed in.
  await context.clearCookies();
  const client = new Client({ name: "guide", version: "1" });
  await using callback = await redirectTarget();
  const provider = unregisteredClient(callback.url, async (url) => {
    await page.goto(url.href);
    await page.getByLabel("Name", { exact: true }).fill("olive");
    await page.getByLabel("Password", { exact: true }).fill(PASSWORD);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("button", { name: button(/and press \*\*(Allow)\*\*/) }).click();
  });
  const endpoint = new URL("http://127.0.0.1:7337/mcp");
  const first = new StreamableHTTPClientTransport(endpoint, { authProvider: provider });
  await expect(client.connect(first)).rejects.toThrow();
  await first.finishAuth(await callback.arrived);
  await client.connect(new StreamableHTTPClientTransport(endpoint, { authProvider: provider }));
  const { tools } = await client.listTools();
  expect(tools.map((tool) => tool.name)).toContain("look_up_order");
  expect(tools.map((tool) => tool.name)).not.toContain("run_sql");
  const order = await client.callTool({ name: "look_up_order", arguments: { order_id: "ORD-100211" } });
  expect(JSON.stringify(order)).toContain("ORD-100211");
  expect(JSON.stringify(order)).not.toContain("AI assistant");
  await expect(client.callTool({ name: "run_sql", arguments: { sql: "select 1" } })).rejects.toThrow("Unknown tool");
  await client.close();

  // 4. See what happened.
  const shown = shell(audit ?? "");
  expect(await shown.ended, shown.output()).toBe(0);
  for (const what of ["look_up_order", "run_sql", "signed-in", "consent-granted"])
    expect(shown.output()).toContain(what);
  end(example.child);
  await example.ended;
  expect(example.output()).toContain("Stopping");

  // 5. Your own server.
  for (const command of [ownServer, ownUrl, serve]) {
    await waitFor(() => portIsFree(7337), 60_000);
    const upstream =
      command === ownUrl
        ? spawn(process.execPath, fixtureCommand("echo-http", ["--port", "9000"]).slice(1), { stdio: "ignore" })
        : undefined;
    if (upstream !== undefined) started.push(upstream);
    if (command === serve) {
      await cp(join(clone, "examples/orders"), clone, {
        recursive: true,
        filter: (path) => !path.includes(".drawbridge"),
      });
      const checked = shell(check ?? "");
      expect(await checked.ended, checked.output()).toBe(0);
    }
    const running = shell(command ?? "");
    await waitFor(() => /Drawbridge is up/.test(running.output()) || running.child.exitCode !== null, 120_000);
    expect(running.output()).toMatch(/Drawbridge is up/);
    end(running.child);
    await running.ended;
    upstream?.kill();
  }

  function button(pattern: RegExp): string {
    const name = pattern.exec(guide)?.[1];
    if (name === undefined) throw new Error(`The guide names no button at ${pattern}.`);
    return name;
  }
});

/** Where the browser ends up with the code, as with a command line client. */
async function redirectTarget() {
  const arrived = Promise.withResolvers<URLSearchParams>();
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://127.0.0.1");
    if (url.searchParams.has("code") || url.searchParams.has("error")) arrived.resolve(url.searchParams);
    response.end("You can close this window.");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/callback`,
    arrived: arrived.promise,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function unregisteredClient(redirectUrl: string, open: (url: URL) => Promise<void>): OAuthClientProvider {
  const kept: { information?: unknown; tokens?: unknown; verifier?: string; discovery?: unknown } = {};
  return {
    redirectUrl,
    clientMetadata: { client_name: "Guide", redirect_uris: [redirectUrl] },
    clientInformation: () => kept.information as never,
    saveClientInformation: (information) => {
      kept.information = information;
    },
    tokens: () => kept.tokens as never,
    saveTokens: (tokens) => {
      kept.tokens = tokens;
    },
    saveCodeVerifier: (verifier) => {
      kept.verifier = verifier;
    },
    codeVerifier: () => kept.verifier ?? "",
    discoveryState: () => kept.discovery as never,
    saveDiscoveryState: (state) => {
      kept.discovery = state;
    },
    redirectToAuthorization: open,
  };
}
