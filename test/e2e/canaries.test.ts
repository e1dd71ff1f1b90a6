/** Keys of operators and users, each one of a kind, at servers that are careless with them: none gets out where it can be helped. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { loadSettings } from "../../src/config/load.ts";
import { subjectFile } from "../../src/upstream/user-values.ts";
import { openedIn } from "../audit/opened.ts";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { type World, world } from "./world.ts";

const canary = (name: string) => `canary-${name}-${crypto.randomUUID()}`;
const CANARIES = {
  environment: canary("environment"),
  argument: canary("argument"),
  header: canary("header"),
  user: canary("user"),
  command: canary("command"),
};
const SERVERS = ["environment", "argument", "header", "user", "command", "token", "handed"] as const;
const HTTP: ReadonlySet<string> = new Set(["header", "token"]);
const CARELESS = ["fail", "shout", "garble"];

let folder: string;
let collector: Server;
let one: World;
let token: string;
let exchanged: string[];
const fixtures: Fixture[] = [];
const traces: string[] = [];
const log: string[] = [];
/** Everything that came back, with where it came from. */
const answers: string[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "db-canaries-"));
  mkdirSync(join(folder, "secrets", "keys"), { recursive: true, mode: 0o700 });
  for (const name of ["environment", "argument", "header"] as const)
    writeFileSync(join(folder, "secrets", name), CANARIES[name], { mode: 0o600 });
  collector = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => {
      body += chunk;
    });
    request.on("end", () => {
      traces.push(body);
      response.writeHead(200, { "content-type": "application/json" }).end("{}");
    });
  });
  await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
  const [header, exchange] = await Promise.all([startFixture("leaky", ["--http"]), startFixture("leaky", ["--http"])]);
  fixtures.push(header, exchange);
  const file = join(folder, "drawbridge.yaml");
  const settings = {
    store: `sqlite:${join(folder, "state", "gateway.db")}`,
    log: { level: "trace", format: "json" },
    audit: { arguments: "full", results: "full" },
    telemetry: { otlpEndpoint: `http://127.0.0.1:${(collector.address() as AddressInfo).port}` },
    secrets: { printed: { command: [process.execPath, "-p", JSON.stringify(CANARIES.command)] } },
    servers: {
      environment: { command: fixtureCommand("leaky"), environment: { KEY: "${secret:environment}" } },
      argument: { command: [...fixtureCommand("leaky"), "--key", "${secret:argument}"] },
      header: { url: `${header.origin}/mcp`, headers: { "x-api-key": "${secret:header}" } },
      user: {
        command: fixtureCommand("leaky"),
        isolation: "per-user",
        userEnvironment: { KEY: { secret: "keys" } },
      },
      command: { command: fixtureCommand("leaky"), environment: { KEY: "${secret:printed}" } },
      token: { url: `${exchange.origin}/mcp`, credentials: "exchange" },
      handed: {
        command: [...fixtureCommand("leaky"), "--spill", join(folder, "spilt")],
        credentials: { exchange: { audience: "https://api.example" } },
      },
    },
  };
  one = await world(settings, {
    logTo: { write: (line) => void log.push(line) },
    load: async (raw) => {
      writeFileSync(file, JSON.stringify(raw));
      return loadSettings(file, { env: process.env });
    },
    wait: false,
  });
  ({ access_token: token } = await one.tokens());
  const { sub } = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { sub: string };
  writeFileSync(join(folder, "secrets", "keys", subjectFile(sub)), CANARIES.user, { mode: 0o600 });
  await one.gateway.ready;

  for (const server of SERVERS) {
    // The one over HTTP has nobody who would start it again.
    const careless = HTTP.has(server) ? CARELESS : [...CARELESS, "die"];
    for (const tool of ["digest", ...careless, "digest"]) {
      const text = await call(`${server}_${tool}`);
      answers.push(`${server}_${tool}: ${text}`);
      if (tool === "digest") expect(text).toContain('"key":');
    }
    // What it answers with is its own to give; what the gateway keeps of it is not.
    await call(`${server}_answer`);
  }
  const headers = { authorization: `Bearer ${token}` };
  const operated = async (path: string, init: RequestInit = {}) =>
    answers.push(`${path}: ${await (await fetch(`${one.origin}/admin/${path}`, { headers, ...init })).text()}`);
  await waitFor(async () => {
    await operated("servers?stderr");
    return (answers.at(-1)?.split("starting with").length ?? 0) > 3;
  });
  for (const server of SERVERS) await operated(`servers/${server}?stderr`);
  answers.push(`metrics: ${await one.metrics()}`, `servers: ${JSON.stringify(one.gateway.servers())}`);
  // Secrets that end, and a file that is wrong.
  writeFileSync(join(folder, "secrets", "environment"), "short");
  writeFileSync(file, readFileSync(file, "utf8").replace('"log":', '"lag":'));
  await operated("reload", { method: "POST" });
  const stats = (await (await fetch(`${exchange.origin}/stats`)).json()) as { headers: Record<string, string>[] };
  const handed = readFileSync(join(folder, "spilt"), "utf8").split("\n");
  expect(handed.length).toBeGreaterThan(5);
  exchanged = [
    ...new Set([...handed, ...stats.headers.flatMap(({ authorization }) => authorization?.split(" ")[1] ?? [])]),
  ].filter((value) => value !== "");
  await one.gateway.close();
}, 120_000);

afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await Promise.all(fixtures.map((fixture) => fixture.stop()));
  collector?.closeAllConnections();
  await new Promise((resolve) => collector?.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

async function call(name: string): Promise<string> {
  const body = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: {} } };
  return (await one.post(body, { "mcp-protocol-version": "2025-11-25" }, token)).text();
}

/** Which of the canaries is in a text, in whatever spelling. */
function leaks(texts: readonly string[]): string[] {
  const all = [...Object.entries(CANARIES), ...exchanged.map((value) => ["token", value] as const)];
  return texts.flatMap((text) =>
    all.flatMap(([name, value]) =>
      [value, Buffer.from(value).toString("base64"), encodeURIComponent(value)].some((written) =>
        text.includes(written),
      )
        ? [`${name} in ${text.slice(0, 300)}`]
        : [],
    ),
  );
}

test("the servers did have the keys and did let them out", () => {
  expect(exchanged.length).toBeGreaterThan(0);
  expect(answers.filter((text) => /_fail: .*\[secret\]/.test(text))).toHaveLength(SERVERS.length);
  expect(answers.filter((text) => text.startsWith("servers?stderr") && text.includes("key=[secret]"))).not.toEqual([]);
});

test("no answer, error or page of the operator has a key in it", () => {
  expect(answers.length).toBeGreaterThan(40);
  expect(leaks(answers)).toEqual([]);
});

test("no line of the log has one", () => {
  expect(log.length).toBeGreaterThan(20);
  expect(leaks(log)).toEqual([]);
});

test("no trace has one", async () => {
  expect(traces.length).toBeGreaterThan(0);
  expect(leaks(traces)).toEqual([]);
});

test("no audit record has one, though it keeps the answers", () => {
  const database = new DatabaseSync(join(folder, "state", "gateway.db"), { readOnly: true });
  try {
    const texts = database.prepare("SELECT * FROM audit").all();
    const rows = [...texts, ...openedIn(database)].map((row) => JSON.stringify(row));
    expect(rows.filter((row) => /the key is (Bearer )?\[(secret|jwt|bearer_token)\]/.test(row))).toHaveLength(
      SERVERS.length,
    );
    expect(leaks(rows)).toEqual([]);
  } finally {
    database.close();
  }
});
