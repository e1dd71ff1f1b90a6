/** docs/decisions/006-calls-die-young.md: what is made for a call dies in the young generation, whatever server it goes to. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent, request } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Fixture, fixtureCommand, startFixture, stopChild, waitFor } from "../fixtures/processes.ts";
import { modernRequest, world } from "./world.ts";

/** One tool for each kind of server; the desk has its own. */
const FORWARDED = ["json", "sse", "stdio"];
/** Until everything is loaded and compiled, and what is kept from call to call has grown to its size. */
const WARM_CALLS = 400;
const CALLS = 400;
/** With a young generation this small there are 35 to 50, whatever the machine. */
const FEWEST_COLLECTIONS = 20;
/** Some 400 to 700 are left of a call. One function of it that is made in the old generation keeps the whole call, 8,500 to 16,000. */
const MOST_BYTES = 2_500;

const folder = mkdtempSync(join(tmpdir(), "drawbridge-young-"));
const connections = new Agent();
const fixtures: Fixture[] = [];
let gateway: ChildProcessWithoutNullStreams | undefined;
let url = "";
let token = "";

beforeAll(async () => {
  for (const how of [[], ["--sse"]]) fixtures.push(await startFixture("echo-http", ["--era", "modern", ...how]));
  const [json, sse] = fixtures;
  const servers = {
    desk: { module: join(import.meta.dirname, "young-desk.ts") },
    json: { url: `${json?.origin}/mcp` },
    sse: { url: `${sse?.origin}/mcp` },
    stdio: { command: fixtureCommand("echo-stdio") },
  };
  const settings = {
    store: `sqlite:${join(folder, "store.db")}`,
    tokens: { accessTokenSeconds: 3600 },
    limits: { perPrincipalPerMinute: 1_000_000, perToolPerMinute: 1_000_000 },
  };
  // Its only purpose is a token that outlives it.
  const first = await world({ ...settings, servers: { stdio: servers.stdio } });
  ({ url } = first);
  ({ access_token: token } = await first.tokens());
  await first[Symbol.asyncDispose]();

  const file = join(folder, "drawbridge.yaml");
  const tools = Object.fromEntries(FORWARDED.map((name) => [name, contract(name)]));
  const listen = { port: Number(new URL(url).port) };
  writeFileSync(file, JSON.stringify({ ...settings, servers, tools, listen }));
  const program = join(import.meta.dirname, "../../bin/drawbridge.js");
  gateway = spawn(process.execPath, ["--max-semi-space-size=1", program, "serve", file], { cwd: folder });
  let said = "";
  for (const stream of [gateway.stdout, gateway.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
  await waitFor(async () => {
    if (gateway?.exitCode !== null) throw new Error(`the gateway did not start: ${said.slice(-2000)}`);
    const listed = await asked("tools/list").catch(() => "");
    return ["echo", ...FORWARDED].every((name) => listed.includes(`"name":"${name}"`));
  }, 45_000);
  await Promise.all(["echo", ...FORWARDED].map((name) => calls(WARM_CALLS, name)));
}, 90_000);
afterAll(async () => {
  if (gateway !== undefined) await stopChild(gateway);
  for (const fixture of fixtures) await fixture.stop();
  await connections.close();
  rmSync(folder, { recursive: true, force: true });
});

test.each([
  ["in the gateway's process", "echo"],
  ["over HTTP, which answers with JSON", "json"],
  ["over HTTP, which answers with an event stream", "sse"],
  ["over stdio", "stdio"],
])("of a call to a server %s nothing is left in the old generation", async (_, name) => {
  await called("watch");
  await calls(CALLS, name);
  const { collections = 0, bytes = 0 } = await called("left");
  expect(collections).toBeGreaterThan(FEWEST_COLLECTIONS);
  expect(
    (bytes * collections) / CALLS,
    "bytes of each call are left in the old generation: docs/decisions/006-calls-die-young.md says what does that",
  ).toBeLessThan(MOST_BYTES);
});

/** Modules bring contracts, so that the others need them, too. */
function contract(server: string): object {
  const input = { text: { maxLength: 200 } };
  const output = { fields: ["text"], text: true };
  return { from: `${server}/echo`, description: "Gives the text back.", input, output, access: "read" };
}

/** One after the other. */
async function calls(count: number, name: string): Promise<void> {
  for (let call = 0; call < count; call++) await called(name, { text: `hello ${call}` });
}

async function called(name: string, args: object = {}): Promise<Readonly<Record<string, number>>> {
  const answer = await asked("tools/call", { name, arguments: args });
  const { result } = JSON.parse(answer) as {
    result?: { isError?: boolean; structuredContent?: Record<string, number> };
  };
  if (result === undefined || result.isError === true) throw new Error(`${name}: ${answer}`);
  return result.structuredContent ?? {};
}

async function asked(method: string, params: Record<string, unknown> = {}): Promise<string> {
  const [body, headers] = modernRequest(method, params);
  const { body: answer } = await request(url, {
    dispatcher: connections,
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${token}`,
      ...headers,
    },
    body: JSON.stringify(body),
  });
  return answer.text();
}
