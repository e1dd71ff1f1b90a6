/** What does a server cost that was written with `drawbridge-mcp/author`: served alone with every control on, and started? */
import { spawn } from "node:child_process";
import { copyFileSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { startAll } from "../arms/arm.ts";
import { builtPackage, drawbridge } from "../arms/drawbridge.ts";
import { nodeServer, runningArm } from "../arms/http.ts";
import { ANY_CORE, onCore, SERVER_CORE } from "../cores.ts";
import { recordsOf } from "../evidence.ts";
import { amount, each, type Figure, failures, figure, kinds, ratio, spread, type Table } from "../figures.ts";
import type { LoadResult } from "../load.ts";
import { plain } from "../plain.ts";
import { RESULTS } from "../processes.ts";
import { inTurns, quietMachine } from "../rounds.ts";
import { AUDITS, armName, type Effort, type Suite, type SuiteResult } from "./suite.ts";

export const author: Suite = {
  name: "author",
  question: "How many calls a second does a declared server make with every control on, beside the SDK's with none?",
  run: throughput,
};

export const authorCold: Suite = {
  name: "author-cold",
  question: "How long from starting a declared server to its first answered call, over stdio?",
  run: coldStarts,
};

const CONNECTIONS = 20;
const WARM_SECONDS = 10;
const SDK = "SDK v2, no control";

async function throughput(effort: Effort): Promise<SuiteResult> {
  const server = { module: declaredDesk() };
  const ours = AUDITS.map((audit) => drawbridge({ name: armName(audit), audit, server }));
  const sdk = {
    name: SDK,
    start: async (core: number | undefined) => runningArm(await nodeServer(SDK, "sdk-v2-desk.ts", core)),
  };
  const { running, missing } = await startAll([sdk, ...ours], SERVER_CORE, effort.tell);
  const results = await inTurns(
    running,
    {},
    {
      connections: CONNECTIONS,
      shape: { kind: "closed", warmSeconds: 1, seconds: effort.seconds },
      sameId: false,
      timeoutMs: 30_000,
      rounds: effort.rounds,
      warmSeconds: WARM_SECONDS,
      patience: effort.patience,
    },
    effort.tell,
  );
  for (const arm of running) await arm.stop();
  const base = results.get(SDK);
  const perSecond = (run: LoadResult) => run.perSecond;
  const cpuOf = (name: string) => (run: LoadResult) => run.cpuMsPerCall[name] ?? Number.NaN;
  const perCpu = (runs: readonly LoadResult[] | undefined, name: string) =>
    figure((runs ?? []).map((run, round) => cpuOf(SDK)(base?.[round] ?? run) / cpuOf(name)(run)));
  const table: Table = {
    title: `One tool, served alone, ${CONNECTIONS} connections, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: [
      "arm",
      "calls/s",
      "times the SDK's",
      "CPU ms/call",
      "times less CPU",
      "p50 ms",
      "p99 ms",
      "failures",
      "foreign cores",
    ],
    rows: [...results].map(([name, runs]) => [
      name,
      spread(each(runs, perSecond), 0),
      spread(ratio(runs, base, perSecond), 2),
      spread(each(runs, cpuOf(name)), 4),
      spread(perCpu(runs, name), 2),
      amount(each(runs, (run) => run.latency.p50).median, 2),
      amount(each(runs, (run) => run.latency.p99).median, 2),
      kinds(failures(runs)),
      amount(each(runs, (run) => run.foreignCores).max, 2),
    ]),
    notes: [
      "Ours: `drawbridge serve server.ts`, each call with a verified ES256 token, roles, limits of the user and the tool, a mask of the answer, one audit record. The SDK's: `createMcpHandler` on node:http as its guide has it, open to everybody.",
      ...missing,
      `Checked afterwards: ${recordsOf(ours)}.`,
    ],
  };
  const figures = Object.fromEntries(
    AUDITS.flatMap((audit) => {
      const runs = results.get(armName(audit));
      return [
        [`author.perSdk.${audit}`, ratio(runs, base, perSecond)],
        [`author.cpuPerSdk.${audit}`, perCpu(runs, armName(audit))],
      ];
    }),
  );
  return { tables: [table], figures, raw: Object.fromEntries(results) };
}

const STARTS = 20;
const LONGEST_MS = 30_000;

interface Starter {
  readonly name: string;
  readonly figure: string;
  readonly file: string;
  readonly flags: readonly string[];
}

async function coldStarts(effort: Effort): Promise<SuiteResult> {
  const desk = declaredDesk();
  const sources = path.join(import.meta.dirname, "../upstreams/author-desk.ts");
  const kept = ["--import", "drawbridge-mcp/compile-cache"];
  const starters: readonly Starter[] = [
    { name: "declared, the package", figure: "author.cold.package", file: desk, flags: [] },
    { name: "declared, the package, with what was kept", figure: "author.cold.package.kept", file: desk, flags: kept },
    { name: "declared, the clone", figure: "author.cold.sources", file: sources, flags: [] },
    { name: "declared, the clone, with what was kept", figure: "author.cold.sources.kept", file: sources, flags: kept },
    { name: "SDK v2", figure: "author.cold.sdk", file: plain("upstreams/sdk-v2-stdio-desk.ts"), flags: [] },
    { name: "no library", figure: "author.cold.floor", file: plain("upstreams/stdio-floor.ts"), flags: [] },
  ];
  const times = new Map<string, number[]>(starters.map(({ name }) => [name, []]));
  const starts = Math.min(STARTS, 4 * effort.rounds);
  for (let round = -1; round < starts; round += 1) {
    for (let turn = 0; turn < starters.length; turn += 1) {
      const starter = starters[(Math.max(round, 0) + turn) % starters.length];
      if (starter === undefined) continue;
      await quietMachine(effort.patience);
      const milliseconds = await firstAnswer(starter);
      // The first start of all finds no file of the package in memory.
      if (round < 0) continue;
      times.get(starter.name)?.push(milliseconds);
      effort.tell(`start ${round + 1}/${starts}  ${starter.name.padEnd(42)} ${milliseconds.toFixed(0)} ms`);
    }
  }
  const measured = starters.map(({ name, figure: key }) => ({ name, key, ms: figure(times.get(name) ?? []) }));
  const table: Table = {
    title: `Cold start over stdio: from spawn to the first answered call, ${starts} starts, interleaved`,
    head: ["what starts", "ms"],
    rows: measured.map(({ name, ms }) => [name, spread(ms, 0)]),
    notes: [
      "`initialize`, its notification and a call are written as soon as the process is there. A start before these is not counted.",
    ],
  };
  const seconds = ({ median, min, max }: Figure): Figure => ({
    median: median / 1000,
    min: min / 1000,
    max: max / 1000,
  });
  return {
    tables: [table],
    figures: Object.fromEntries(measured.map(({ key, ms }) => [key, seconds(ms)])),
    raw: Object.fromEntries(times),
  };
}

const OPENING = [
  '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"drawbridge-bench","version":"1.0.0"}}}',
  '{"jsonrpc":"2.0","method":"notifications/initialized"}',
  '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"hello"}}}',
];

/** Milliseconds until a new process has answered its first call rightly. It is ended then. */
function firstAnswer({ name, file, flags }: Starter): Promise<number> {
  const [program, ...args] = onCore(ANY_CORE, [process.execPath, ...flags, file]);
  // What is kept is kept for this run alone.
  const env = { ...process.env, XDG_CACHE_HOME: path.join(RESULTS, "author/cache") };
  const began = performance.now();
  const child = spawn(program, args, {
    cwd: path.dirname(file),
    env,
    stdio: ["pipe", "pipe", "ignore"],
    timeout: LONGEST_MS,
  });
  return new Promise((resolve, reject) => {
    let said = "";
    let took: number | undefined;
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (took !== undefined || !said.split("\n").some((line) => line.includes('"id":1') && line.includes("hello")))
        return;
      took = performance.now() - began;
      child.stdin.end();
    });
    child.once("error", reject);
    child.once("close", () =>
      took === undefined ? reject(new Error(`${name} gave no right answer: ${said.slice(-500)}`)) : resolve(took),
    );
    child.stdin.write(`${OPENING.join("\n")}\n`);
  });
}

/** The desk as a user has it: in a folder where the published package is installed. */
function declaredDesk(): string {
  const folder = path.join(RESULTS, "author");
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(path.join(folder, "node_modules"), { recursive: true });
  writeFileSync(path.join(folder, "package.json"), '{ "type": "module" }');
  symlinkSync(builtPackage(), path.join(folder, "node_modules/drawbridge-mcp"), "junction");
  const file = path.join(folder, "server.ts");
  copyFileSync(path.join(import.meta.dirname, "../upstreams/author-desk.ts"), file);
  return file;
}
