/** Records of a whole gateway on their way out: while the other side is away, after the gateway was killed, and when the settings change. */
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { loadSettings } from "../../src/config/load.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { idsOf, linesOf, until } from "../audit/sink-log.ts";
import { run } from "../cli/terminal.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { modernRequest, type World, world } from "./world.ts";

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
});

function temporary(): string {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-audit-sinks-"));
  ends.push(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** What the operator's log server is: up, or answering 503. */
async function receiver() {
  const state = { up: true, keys: new Set<string | undefined>() };
  const lines: string[] = [];
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      state.keys.add(request.headers["x-key"]?.toString());
      if (state.up) lines.push(...linesOf(Buffer.concat(parts).toString()));
      response.writeHead(state.up ? 204 : 503).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as { port: number };
  return { state, lines, url: `http://127.0.0.1:${port}/records` };
}

async function call(url: string, token: string, text: string): Promise<number> {
  const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text } });
  const answer = await fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${token}`,
      ...headers,
    },
    body: JSON.stringify(body),
  });
  await answer.text();
  return answer.status;
}

/** All texts of a store that a gateway has or had open. */
async function textsIn(file: string): Promise<readonly string[]> {
  const store = sqliteStore(file, { readOnly: true });
  try {
    const texts: string[] = [];
    for (let after = 0; ; ) {
      const page = await store.audit.read({ limit: 1000, after });
      if (page.length === 0) return texts;
      texts.push(...page.map(({ json }) => json));
      after = page.at(-1)?.sequence ?? after;
    }
  } finally {
    await store.close();
  }
}

const admin = async (one: World, token: string) => {
  const answer = await fetch(`${one.origin}/admin/audit/sinks`, { headers: { authorization: `Bearer ${token}` } });
  return (await answer.json()) as { sinks: { name: string; behind: number; problem?: string; sending: boolean }[] };
};

test("a log server that is away holds no call up, is seen to be behind, and has every record in the end", async () => {
  const folder = temporary();
  const there = await receiver();
  const file = join(folder, "drawbridge.yaml");
  const store = join(folder, "gateway.db");
  const reference = "$" + "{env:SINK_KEY}";
  const env = { ...process.env, SINK_KEY: "a-key-of-the-log-server" };
  const write = (...sinks: object[]) =>
    writeFileSync(
      file,
      JSON.stringify({
        store: `sqlite:${store}`,
        listen: { port: 0, shutdownSeconds: 3 },
        control: { socket: "off" },
        log: { level: "silent" },
        clients: { registration: "open" },
        servers: { echo: { command: fixtureCommand("echo-stdio") } },
        audit: { export: sinks },
      }),
    );
  const http = { http: { url: there.url, headers: { "x-key": reference } } };
  write(http);
  const one = await world({}, { environment: env, load: () => loadSettings(file, { env }) });
  ends.push(() => one[Symbol.asyncDispose]());
  const { access_token: token } = await one.tokens();
  const total = async () => (await textsIn(store)).length;

  expect(await call(one.url, token, "first")).toBe(200);
  await until(async () => there.lines.length === (await total()), "all are there");
  expect(there.state.keys).toEqual(new Set(["a-key-of-the-log-server"]));
  expect(there.lines.join()).not.toContain("first");

  there.state.up = false;
  for (let n = 0; n < 20; n++) expect(await call(one.url, token, `while away ${n}`)).toBe(200);
  await until(async () => ((await admin(one, token)).sinks[0]?.behind ?? 0) > 0, "it is seen to be behind");
  expect((await admin(one, token)).sinks[0]).toMatchObject({ name: "http", sending: true });
  expect((await admin(one, token)).sinks[0]?.problem).toContain("status 503");
  const metrics = await one.metrics();
  expect(metrics).toMatch(/drawbridge_audit_sink_behind\{[^}]*drawbridge_sink="http"[^}]*\} [1-9]/);
  expect(metrics).toMatch(/drawbridge_audit_sink_failures_total\{[^}]*\} [1-9]/);
  await until(async () => {
    const { stdout } = await run(["audit", "sinks", file], { cwd: folder, env: env as Record<string, string> });
    return /http +http +failing +[1-9]/.test(stdout) && stdout.includes("status 503");
  }, "the command line says so, too");

  there.state.up = true;
  await until(async () => there.lines.length === (await total()), "all are there");
  expect(there.lines).toEqual(await textsIn(store));

  // A changed list of sinks counts at once.
  write(http, { file: { path: "audit.jsonl" }, only: { kinds: ["call"] } });
  const changes = await one.gateway.reload({ kind: "operator", name: "tester", via: "signal" });
  expect(changes).toEqual([{ setting: "audit.export", change: "changed" }]);
  expect(await call(one.url, token, "last")).toBe(200);
  const calls = async () => idsOf(await textsIn(store));
  await until(async () => {
    const written = idsOf(linesOf(readFileSync(join(folder, "audit.jsonl"), { encoding: "utf8", flag: "a+" })));
    return written.length === (await calls()).length;
  }, "the file has every call");
  expect(idsOf(linesOf(readFileSync(join(folder, "audit.jsonl"), "utf8")))).toEqual(await calls());
});

test("a gateway that is killed while the log server is away loses nothing of what is to be sent", {
  timeout: 120_000,
}, async () => {
  const folder = temporary();
  const there = await receiver();
  const store = join(folder, "gateway.db");
  const settings = {
    store: `sqlite:${store}`,
    servers: { echo: { command: fixtureCommand("echo-stdio") } },
    tokens: { accessTokenSeconds: 3600 },
    audit: { export: [{ http: { url: there.url, batch: 5 } }] },
  };
  const first = await world(settings);
  const { port } = new URL(first.url);
  const { access_token: token } = await first.tokens();
  await first[Symbol.asyncDispose]();

  const start = async () => {
    const script = join(import.meta.dirname, "../chaos/killed-gateway.ts");
    const child = spawn(process.execPath, [script, JSON.stringify({ ...settings, listen: { port: Number(port) } })], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    const kill = async () => {
      child.kill("SIGKILL");
      await gone;
    };
    ends.push(kill);
    let said = "";
    child.stdout.on("data", (part) => {
      said += String(part);
    });
    await until(() => said.includes("listens"), "the gateway listens");
    return kill;
  };

  for (let round = 0; round < 3; round++) {
    const kill = await start();
    there.state.up = round === 1;
    for (let n = 0; n < 15; n++) expect(await call(first.url, token, `${round} ${n}`)).toBe(200);
    await kill();
  }
  there.state.up = true;
  await start();
  const texts = await textsIn(store);
  await until(() => new Set(there.lines).size >= texts.length, "all are there");
  // At least once, and in order when what came again is left out.
  const firsts = [...new Set(there.lines)];
  expect(firsts.slice(0, texts.length)).toEqual(texts);
});
