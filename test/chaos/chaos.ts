/**
 * A gateway of its own process under mixed load while its servers and itself are killed, stopped, replaced and reloaded at random.
 * What must hold is in `Report.broken`: empty when every call was answered or refused once, nobody had another's answer, nothing was
 * left behind, and each answer has its one record in the audit log.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Agent } from "undici";
import { INSPECTED } from "../../bench/inspector.ts";
import { askControl } from "../../src/gateway/control.ts";
import { openedIn } from "../audit/opened.ts";
import {
  alive,
  type Fixture,
  fixtureCommand,
  freePort,
  processesOf,
  startFixture,
  waitFor,
} from "../fixtures/processes.ts";
import { type ForeignServer, foreignServer } from "../oauth/foreign-server.ts";
import { type Caller, caller, type Ending } from "./caller.ts";
import { type Random, seeded } from "./random.ts";
import { grown, type Measured, type Size, settled, sizeText } from "./size.ts";

export interface ChaosOptions {
  readonly seconds: number;
  readonly seed: number;
  readonly callers: number;
  readonly tell?: (line: string) => void;
  /** Ends it early; what was started is ended all the same. */
  readonly signal?: AbortSignal;
}

export interface Report {
  /** What must not happen and did; empty when all is well. */
  readonly broken: readonly string[];
  /** How often each thing was done to it. */
  readonly events: Readonly<Record<string, number>>;
  /** Calls by what they did and how they ended. */
  readonly calls: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly begin: Size;
  readonly end: Size;
  readonly records: number;
  readonly longestMs: number;
}

/** What is done to the gateway and its servers, and how often beside the others. */
const EVENTS = {
  "kill a server process": 6,
  "terminate a server process": 3,
  "stop a server process for a while": 4,
  "kill an HTTP server": 3,
  "stop an HTTP server for a while": 2,
  "replace a server": 6,
  "drain a server and resume it": 2,
  "reload changed settings": 3,
  "kill the gateway": 2,
  "terminate the gateway": 2,
  "stop the gateway for a while": 1,
} as const;
type Event = keyof typeof EVENTS;

const STDIO = ["shared", "modern", "users", "sessions", "asking"] as const;
const WEB = ["web", "web-modern"] as const;
/** The gateway is left alone for this part of the time, at the end, so that its last life is long enough to be looked at. */
const QUIET_PART = 0.2;
const MAX_BROKEN = 50;
const GONE_MS = 60_000;
const WARM_MS = 3_000;

export async function chaos(options: ChaosOptions): Promise<Report> {
  const { seconds, seed, callers: count, tell = () => {} } = options;
  const random = seeded(seed);
  const run = await begin(tell);
  const broken = new Set<string>();
  const say = (what: string) => {
    if (broken.size < MAX_BROKEN) broken.add(what);
    tell(`BROKEN  ${what}`);
  };
  const events: Record<string, number> = {};
  const calls: Record<string, Record<string, number>> = {};
  /** Calls that were answered, by the mark in their arguments. */
  const answered = new Map<string, number>();
  let longestMs = 0;
  const ended = (ending: Ending) => {
    const row = calls[ending.what] ?? {};
    calls[ending.what] = row;
    row[ending.how] = (row[ending.how] ?? 0) + 1;
    longestMs = Math.max(longestMs, ending.ms);
    for (const mark of ending.answered ?? []) answered.set(mark, (answered.get(mark) ?? 0) + 1);
    if (ending.how === "cut" && !run.troubled(ending.began))
      say(`${ending.what}: cut off while the gateway ran: ${ending.why}`);
    if (ending.broken !== undefined) say(`${ending.what} of ${ending.by}: ${ending.broken}`);
  };
  try {
    // A warm gateway is what the end is compared with.
    const warm = start(run, Math.min(count, 8), seeded(seed + 1), ended);
    await sleep(WARM_MS);
    await warm.stop();
    const first = await settled(run);
    tell(`begins with ${sizeText(first)}`);

    const everybody = start(run, count, seeded(seed + 2), ended);
    const until = Date.now() + seconds * 1000;
    const quietFrom = until - seconds * 1000 * QUIET_PART;
    const plan = planned(random);
    while (Date.now() < until && options.signal?.aborted !== true) {
      await sleep(300 + random.below(2_000));
      const event = plan(Date.now() > quietFrom);
      events[event] = (events[event] ?? 0) + 1;
      tell(`${((until - Date.now()) / 1000).toFixed(0).padStart(4)} s left  ${event}`);
      await DEEDS[event](run, random, say);
    }
    await everybody.stop();
    const last = await settled(run, first);
    tell(`ends with ${sizeText(last)}`);
    for (const what of grown(first, last)) say(`${what}: ${sizeText(first)}, then ${sizeText(last)}`);
    const code = await run.terminate();
    if (code !== 0) say(`the gateway ended with ${code} when it was told to stop`);
    await run.nothingLeft(say);
    const records = checkRecords(run.store, answered, say);
    return { broken: [...broken], events, calls, begin: first, end: last, records, longestMs };
  } finally {
    await run[Symbol.asyncDispose]();
  }
}

/** A gateway that is started again whenever it is gone, with its servers and the issuer of its tokens. */
export interface Run extends AsyncDisposable, Measured {
  readonly url: string;
  readonly store: string;
  readonly socket: string;
  readonly webs: Map<string, Fixture>;
  token(user: string): Promise<string>;
  /** Whether the gateway was away at any time since. */
  troubled(since: number): boolean;
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  terminate(): Promise<number | string>;
  restart(): Promise<void>;
  /** Processes of its stdio servers. */
  children(): Promise<number[]>;
  /** Waits until nothing is left of the life that has ended. */
  nothingLeft(say: (what: string) => void): Promise<void>;
  /** Writes the settings file anew, with something changed. */
  change(): void;
}

async function begin(tell: (line: string) => void): Promise<Run> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-chaos-"));
  const marker = `chaos-${randomUUID()}`;
  const issuer = await openIssuer();
  const webs = new Map<string, Fixture>();
  for (const name of WEB)
    webs.set(name, await startFixture("echo-http", ["--era", name === "web" ? "legacy" : "modern"]));
  const port = await freePort();
  const store = join(folder, "store.db");
  const file = join(folder, "drawbridge.yaml");
  let version = 0;
  const write = () => {
    const command = (name: string, args: readonly string[] = []) => [...fixtureCommand(name, args), marker];
    const limits = { timeoutSeconds: 8, maxCallSeconds: 20, healthSeconds: 2 };
    const userEnvironment = { WHO: { from: "subject", otherwise: "nobody" } };
    const apart = { userEnvironment, instances: { max: 16, processes: 1, idleSeconds: 5 } };
    // Clients that can be asked have sessions of their own there, each with a stream, until they are idle.
    const web = (name: string) => ({ url: `${webs.get(name)?.origin}/mcp`, sessions: { idleSeconds: 5 }, ...limits });
    const settings = {
      listen: { port, shutdownSeconds: 5 },
      store: `sqlite:${store}`,
      authorization: { issuer: issuer.origin },
      log: { level: "warn" },
      roles: { all: { may: ["*"] } },
      assign: [{ role: "all", when: "true" }],
      limits: { perPrincipalPerMinute: 1_000_000, perToolPerMinute: 1_000_000, concurrentPerPrincipal: 1_000 },
      servers: {
        shared: {
          command: command("echo-stdio"),
          environment: { VERSION: String(version) },
          processes: { idleSeconds: 5 },
          ...limits,
        },
        modern: { command: command("echo-stdio", ["--era", "modern"]), processes: { idleSeconds: 5 }, ...limits },
        users: { command: command("diary-stdio"), isolation: "per-user", ...apart, ...limits },
        sessions: { command: command("diary-stdio"), isolation: "per-session", ...apart, ...limits },
        asking: { command: command("everything/stdio"), processes: { idleSeconds: 5 }, ...limits },
        web: web("web"),
        "web-modern": web("web-modern"),
      },
    };
    writeFileSync(file, JSON.stringify(settings));
  };
  write();

  const program = fileURLToPath(new URL("../../bin/drawbridge.js", import.meta.url));
  let gateway: ChildProcess | undefined;
  let downSince = 0;
  let lastTrouble = 0;
  let former: number[] = [];
  const output: string[] = [];
  let firstWords = "";
  const origin = `http://127.0.0.1:${port}`;
  const up = async () => {
    const child = spawn(process.execPath, [...INSPECTED, program, "serve", file], {
      cwd: folder,
      env: { ...process.env, CHAOS: marker },
      stdio: ["ignore", "pipe", "pipe"],
    });
    gateway = child;
    firstWords = "";
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding("utf8").on("data", (text: string) => {
        // The inspector's address is among them.
        if (firstWords.length < 10_000) firstWords += text;
        output.push(text);
        if (output.length > 200) output.shift();
      });
    await waitFor(async () => {
      if (child.exitCode !== null) throw new Error(`the gateway did not start: ${output.join("").slice(-2000)}`);
      return fetch(`${origin}/mcp`, { method: "POST" }).then(
        (answer) => answer.status > 0,
        () => false,
      );
    }, 120_000);
    downSince = 0;
    lastTrouble = Date.now();
  };
  const over = async (signal: NodeJS.Signals) => {
    const child = gateway as ChildProcess;
    downSince = Date.now();
    former = await run.children();
    const gone = new Promise<number | string>(
      (resolve) => void child.once("exit", (code, how) => resolve(code ?? how ?? 0)),
    );
    child.kill(signal);
    const code = await gone;
    lastTrouble = Date.now();
    return code;
  };
  const tokens = new Map<string, { text: string; until: number }>();
  const run: Run = {
    url: `${origin}/mcp`,
    store,
    socket: join(folder, "control.sock"),
    webs,
    get pid() {
      return gateway?.pid ?? 0;
    },
    output: () => firstWords,
    async token(user) {
      const kept = tokens.get(user);
      if (kept !== undefined && kept.until > Date.now()) return kept.text;
      const claims = { sub: user, aud: `${origin}/mcp`, client_id: "chaos", scope: "mcp:read mcp:call" };
      const text = await issuer.server.sign(claims, { typ: "at+jwt" });
      tokens.set(user, { text, until: Date.now() + 120_000 });
      return text;
    },
    troubled: (since) => downSince !== 0 || lastTrouble >= since,
    kill: async () => void (await over("SIGKILL")),
    terminate: () => over("SIGTERM"),
    restart: up,
    children: async () =>
      (await processesOf(marker))
        .filter(({ pid, command }) => pid !== gateway?.pid && command.includes(marker))
        .map(({ pid }) => pid),
    async nothingLeft(say) {
      const left = async () => {
        const there = await Promise.all(former.map(alive));
        return former.filter((_, index) => there[index]);
      };
      await waitFor(async () => (await left()).length === 0, GONE_MS).catch(async () => {
        const pids = await left();
        say(`${pids.length} processes outlived their gateway by ${GONE_MS} ms: ${pids.join(" ")}`);
        for (const pid of pids) end(pid);
      });
      former = [];
    },
    change() {
      version++;
      write();
    },
    async [Symbol.asyncDispose]() {
      if (gateway !== undefined && gateway.exitCode === null && gateway.signalCode === null) await over("SIGKILL");
      for (const web of webs.values()) await web.stop();
      await issuer.close();
      for (const pid of await run.children()) end(pid);
      if (output.length > 0) tell(`the gateway's last words:\n${output.join("").slice(-1500)}`);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await up();
  return run;
}

async function openIssuer(): Promise<{ server: ForeignServer; origin: string; close(): Promise<void> }> {
  let server: ForeignServer;
  const http = createServer(async (asked, response) => {
    const answer = await server.http.fetch(new URL(asked.url ?? "/", origin));
    response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  server = await foreignServer(Date.now, origin);
  server.answers.set(`${origin}/.well-known/oauth-authorization-server`, () =>
    Response.json({ issuer: origin, jwks_uri: `${origin}/keys`, token_endpoint: `${origin}/token` }),
  );
  return {
    server,
    origin,
    close: () =>
      new Promise((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      }),
  };
}

/** Each kind comes once before any comes twice, as long as there is time. */
function planned(random: Random): (gatewayRests: boolean) => Event {
  const kinds = Object.keys(EVENTS) as Event[];
  const due = random.shuffled(kinds);
  const weighted = kinds.flatMap((kind) => new Array<Event>(EVENTS[kind]).fill(kind));
  return (gatewayRests) => {
    for (;;) {
      const event = due.shift() ?? random.pick(weighted);
      if (!gatewayRests || !event.endsWith("the gateway")) return event;
    }
  };
}

type Deed = (run: Run, random: Random, say: (what: string) => void) => Promise<void>;

const DEEDS: Readonly<Record<Event, Deed>> = {
  "kill a server process": (run, random) => signalOne(run, random, "SIGKILL"),
  "terminate a server process": (run, random) => signalOne(run, random, "SIGTERM"),
  async "stop a server process for a while"(run, random) {
    const children = await run.children();
    if (children.length > 0) await halted(random.pick(children), 500 + random.below(3_000));
  },
  async "kill an HTTP server"(run, random) {
    const name = random.pick(WEB);
    const web = run.webs.get(name) as Fixture;
    await web.stop();
    await sleep(random.below(1_500));
    const args = ["--era", name === "web" ? "legacy" : "modern", "--port", String(web.port)];
    run.webs.set(name, await startFixture("echo-http", args));
  },
  async "stop an HTTP server for a while"(run, random) {
    await halted((run.webs.get(random.pick(WEB)) as Fixture).pid, 500 + random.below(2_500));
  },
  "replace a server": (run, random) => control(run, `/servers/${random.pick([...STDIO, ...WEB])}/restart`),
  async "drain a server and resume it"(run, random) {
    const name = random.pick([...STDIO, ...WEB]);
    await control(run, `/servers/${name}/drain`);
    await sleep(random.below(1_000));
    await control(run, `/servers/${name}/resume`);
  },
  async "reload changed settings"(run) {
    run.change();
    await control(run, "/reload");
  },
  async "kill the gateway"(run, _random, say) {
    await run.kill();
    await run.nothingLeft(say);
    await run.restart();
  },
  async "terminate the gateway"(run, _random, say) {
    const code = await run.terminate();
    if (code !== 0) say(`the gateway ended with ${code} when it was told to stop`);
    await run.nothingLeft(say);
    await run.restart();
  },
  async "stop the gateway for a while"(run, random) {
    await halted(run.pid, 500 + random.below(1_500));
  },
};

async function signalOne(run: Run, random: Random, signal: NodeJS.Signals): Promise<void> {
  const children = await run.children();
  if (children.length > 0) end(random.pick(children), signal);
}

function end(pid: number, signal: NodeJS.Signals = "SIGKILL"): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It was quicker.
  }
}

async function halted(pid: number, ms: number): Promise<void> {
  end(pid, "SIGSTOP");
  try {
    await sleep(ms);
  } finally {
    end(pid, "SIGCONT");
  }
}

/** Asks the gateway's own door. What it refuses (a server that cannot be started now) is its right. */
async function control(run: Run, path: string): Promise<void> {
  await askControl(run.socket, "POST", `/admin${path}`).catch(() => {});
}

/** Callers over connections of their own, which `stop` closes. */
function start(run: Run, count: number, random: Random, ended: (ending: Ending) => void): Caller {
  const connections = new Agent();
  const all = Array.from({ length: count }, (_, index) =>
    caller(run, connections, index, seeded(random.below(2 ** 31)), ended),
  );
  return {
    async stop() {
      await Promise.all(all.map((one) => one.stop()));
      await connections.destroy();
    },
  };
}

/** Each answer that a caller has is in the log once. Returns how many records of calls there are. */
function checkRecords(store: string, answered: ReadonlyMap<string, number>, say: (what: string) => void): number {
  const database = new DatabaseSync(store, { readOnly: true });
  try {
    const { integrity_check: sound } = database.prepare("PRAGMA integrity_check").get() as { integrity_check: string };
    if (sound !== "ok") say(`the store is damaged: ${sound}`);
    const found = new Map<string, number>();
    let records = 0;
    for (const record of openedIn(database)) {
      const text = JSON.stringify(record);
      if (!text.includes('"kind":"call"')) continue;
      records++;
      if (!text.includes('"outcome":"permitted"')) continue;
      const mark = /mark-[0-9a-f-]{36}/.exec(text)?.[0];
      if (mark !== undefined) found.set(mark, (found.get(mark) ?? 0) + 1);
    }
    for (const [mark, times] of answered)
      if (found.get(mark) !== times) say(`${mark} was answered ${times} times and has ${found.get(mark) ?? 0} records`);
    return records;
  } finally {
    database.close();
  }
}
