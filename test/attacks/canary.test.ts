/** Canaries: keys and private data put wherever a caller or a server can put something, and looked for in all that the gateway keeps. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadSettings } from "../../src/config/load.ts";
import { openedIn } from "../audit/opened.ts";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { type Fixture, fixtureCommand, startFixture } from "../fixtures/processes.ts";

/** One of each kind; none of them is anybody's. */
const CANARIES = {
  api_key: "ghp_k5xd0Yfk1YF6wYOcvvXRaABIx7NFQpa70Sac",
  aws: "AKIAQ3EGR7TN5XWYZ2LK",
  jwt: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnktOTEyMyJ9.k3Jx0fJ5Zt8Q2mB7vL1cW9yRnE4sH6dAoTgUiPqXzMw",
  email: "canary.bird@coal-mine.test",
  phone: "+44 7700 900264",
  card: "5239 7914 0917 6951",
  iban: "GB93LIXY94004679928022",
  dsn: "s3cr3tPassw0rdOfCanaries",
  named: "Zinnia Canarybird",
} as const;
const SAID = `${CANARIES.api_key}, ${CANARIES.aws}, Bearer ${CANARIES.jwt}, mail ${CANARIES.email}, call ${CANARIES.phone}, card ${CANARIES.card}, IBAN ${CANARIES.iban}, postgres://app:${CANARIES.dsn}@db.internal:5432/app`;
const DOCUMENT = {
  customer: { name: CANARIES.named, email: CANARIES.email },
  nested: JSON.stringify({ customer: { name: CANARIES.named } }),
};

let folder: string;
let collector: Server;
let one: World;
let remote: Fixture;
let token: string;
const traces: string[] = [];
const log: string[] = [];
let metrics = "";
/** What callers got, to know that the canaries were there at all. */
const answers: string[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "canary-"));
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
  remote = await startFixture("telling", ["--http", "--era", "modern"]);
  const file = join(folder, "drawbridge.yaml");
  one = await world(
    {
      store: `sqlite:${join(folder, "gateway.db")}`,
      log: { level: "trace", format: "json" },
      audit: { arguments: "full", results: "full" },
      // Whoever calls sees everything: what is kept must not.
      mask: {
        people: "keep",
        secrets: "keep",
        fields: { "customer.name": "redact" },
        see: { owner: ["customer.name"] },
      },
      telemetry: { otlpEndpoint: `http://127.0.0.1:${(collector.address() as AddressInfo).port}` },
      servers: { local: { command: fixtureCommand("telling") }, remote: { url: `${remote.origin}/mcp` } },
    },
    {
      logTo: { write: (line) => void log.push(line) },
      load: async (raw) => {
        writeFileSync(file, JSON.stringify(raw));
        return loadSettings(file, { env: process.env });
      },
    },
  );
  ({ access_token: token } = await one.tokens());
  for (const era of ["2025", "2026"] as const) {
    for (const server of ["local", "remote"]) {
      for (const tool of ["everywhere", "fail", "complain", "silent"])
        await ask(era, "tools/call", { name: `${server}_${tool}`, arguments: { say: SAID, document: DOCUMENT } });
      await ask(era, "tools/call", { name: `${server}_send`, arguments: { to: CANARIES.email, body: SAID } });
      await ask(era, "prompts/get", { name: `${server}_prompt`, arguments: { say: SAID } });
      await ask(era, "completion/complete", {
        ref: { type: "ref/prompt", name: `${server}_prompt` },
        argument: { name: "say", value: SAID },
      });
    }
    // A password without a word for it, and a name, are told by what stands beside them or not at all.
    for (const [kind, secret] of Object.entries(CANARIES)) {
      if (kind === "dsn" || kind === "named") continue;
      await ask(era, "resources/read", { uri: `said://of/${encodeURIComponent(secret)}` });
      await ask(era, "tools/call", { name: secret, arguments: { say: secret } });
      await ask(era, "prompts/get", { name: secret });
    }
    // Refused before anybody was asked.
    await ask(era, "tools/call", { name: "local_silent", arguments: { [CANARIES.api_key]: SAID, say: { no: SAID } } });
    await ask(era, "tools/call", { name: "local_silent", arguments: SAID });
    await ask(era, CANARIES.api_key, { say: SAID });
    await ask(era, "resources/subscribe", { uri: `said://${CANARIES.email}` });
    await ask(era, "tasks/get", { taskId: CANARIES.api_key });
    await ask(era, "logging/setLevel", { level: SAID });
    await ask(era, "tools/list", { cursor: SAID });
  }
  const posts: [string, Record<string, string>][] = [
    [`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"${CANARIES.api_key}`, {}],
    [`{"jsonrpc":"2.0","id":${JSON.stringify(SAID)},"method":"tools/call","params":{"name":"local_silent"}}`, {}],
    [`{"jsonrpc":"2.0","id":1,"method":"ping"}`, { "mcp-protocol-version": CANARIES.api_key }],
    [`{"jsonrpc":"2.0","id":1,"method":"ping"}`, { "mcp-session-id": CANARIES.api_key }],
    [`{"jsonrpc":"2.0","id":1,"method":"ping"}`, { authorization: `Bearer ${CANARIES.jwt}` }],
    [`{"jsonrpc":"2.0","id":1,"method":"ping"}`, { "content-type": CANARIES.api_key }],
    [`{"jsonrpc":"2.0","id":1,"method":"ping"}`, { accept: CANARIES.api_key }],
  ];
  for (const [body, headers] of posts) answers.push(await (await one.post(body, headers, token)).text());
  // Settings that are wrong, with a key in the wrong place.
  const headers = { authorization: `Bearer ${token}` };
  for (const wrong of [
    { mask: { secrets: CANARIES.api_key } },
    { [CANARIES.api_key]: 1 },
    { store: `mysql://a:${CANARIES.dsn}@h/d` },
  ]) {
    const right = readFileSync(file, "utf8");
    writeFileSync(file, JSON.stringify({ ...JSON.parse(right), ...wrong }));
    await (await fetch(`${one.origin}/admin/reload`, { method: "POST", headers })).text();
    writeFileSync(file, right);
  }
  metrics = await one.metrics();
  await one.gateway.close();
}, 120_000);

afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await remote?.stop();
  collector?.closeAllConnections();
  await new Promise((resolve) => collector?.close(resolve));
  rmSync(folder, { recursive: true, force: true });
});

async function ask(era: "2025" | "2026", method: string, params: Record<string, unknown>): Promise<void> {
  const meta = { progressToken: 1, "io.modelcontextprotocol/logLevel": "debug" };
  const [body, headers] =
    era === "2026"
      ? modernRequest(method, { ...params, _meta: meta })
      : [
          { jsonrpc: "2.0", id: 1, method, params: { ...params, _meta: meta } },
          { "mcp-protocol-version": "2025-11-25" } as Record<string, string>,
        ];
  const safe = Object.fromEntries(Object.entries(headers).filter(([, value]) => /^[\x20-\x7e]*$/.test(value)));
  answers.push(await (await one.post(body, safe, token)).text());
}

/** Which canaries are in a text, in whatever spelling. */
function leaks(texts: readonly string[]): string[] {
  return texts.flatMap((text) =>
    Object.entries(CANARIES).flatMap(([name, value]) => {
      const spellings = [
        value,
        encodeURIComponent(value),
        Buffer.from(value)
          .toString("base64")
          .replace(/.{0,3}=*$/, ""),
      ];
      const found = spellings.find((written) => text.includes(written));
      return found === undefined
        ? []
        : [`${name}: ${text.slice(Math.max(0, text.indexOf(found) - 120), text.indexOf(found) + 60)}`];
    }),
  );
}

function auditRows(): string[] {
  const database = new DatabaseSync(join(folder, "gateway.db"), { readOnly: true });
  try {
    return [...database.prepare("SELECT * FROM audit").all(), ...openedIn(database)].map((row) => JSON.stringify(row));
  } finally {
    database.close();
  }
}

describe("canaries of callers and servers", () => {
  test("were there: their callers, who may see them, got them", () => {
    for (const value of Object.values(CANARIES)) expect(answers.join("\n")).toContain(value);
    expect(log.length).toBeGreaterThan(5);
    expect(traces.length).toBeGreaterThan(0);
    expect(auditRows().length).toBeGreaterThan(100);
  });
  test("are in no line of the log", () => {
    expect(leaks(log)).toEqual([]);
  });
  test("are in no trace", () => {
    expect(leaks(traces)).toEqual([]);
  });
  test("are in no metric", () => {
    expect(metrics).toContain("mcp_server_operation_duration_seconds");
    expect(leaks([metrics])).toEqual([]);
  });
  test("are in no audit record, though it keeps arguments and answers", () => {
    const rows = auditRows();
    expect(rows.filter((row) => row.includes("[api_key]")).length).toBeGreaterThan(20);
    expect(leaks(rows)).toEqual([]);
  });
  test("are in no byte of the store's files", () => {
    const files = readdirSync(folder).filter((name) => name.startsWith("gateway.db"));
    expect(files.length).toBeGreaterThan(0);
    expect(leaks(files.map((name) => readFileSync(join(folder, name), "latin1")))).toEqual([]);
  });
});
