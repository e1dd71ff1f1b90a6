/** Does a wrapped stdio server hold under many clients, and does each get its own answer? How fast is one child? */
import { freemem } from "node:os";
import { type Arm, LeftOut, startAll } from "../arms/arm.ts";
import { drawbridge } from "../arms/drawbridge.ts";
import { mcpProxy, supergateway } from "../arms/rivals.ts";
import { WRONG_ANSWER } from "../client.ts";
import { ANY_CORE, SERVER_CORE } from "../cores.ts";
import { evidence } from "../evidence.ts";
import { amount, each, type Figure, failures, kinds, ratio, spread, type Table } from "../figures.ts";
import { INSPECTED } from "../inspector.ts";
import type { LoadResult } from "../load.ts";
import { plain } from "../plain.ts";
import { inTurns, undisturbed } from "../rounds.ts";
import { leftBehind } from "./left-behind.ts";
import { AUDITS, armName, drawbridges, type Effort, type Suite, type SuiteResult } from "./suite.ts";

export const stdio: Suite = {
  name: "stdio",
  question: "How many calls to a wrapped stdio server fail, or come back to the wrong client, as connections grow?",
  run: survival,
};

export const stdioThroughput: Suite = {
  name: "stdio-throughput",
  question: "How many calls a second does one stdio child answer?",
  run: throughput,
};

interface Stress {
  readonly key: string;
  readonly title: string;
  readonly connections: number;
  readonly calls: number;
  readonly tool: "echo" | "block";
  readonly timeoutMs: number;
  readonly repeats: number;
}

/** Stacklok's shape first: 22 calls over 20 connections. */
const STRESSES: readonly Stress[] = [
  { key: "20", connections: 20, calls: 22, tool: "echo", timeoutMs: 30_000, repeats: 3 },
  { key: "blocked", connections: 20, calls: 22, tool: "block", timeoutMs: 10_000, repeats: 3 },
  { key: "200", connections: 200, calls: 220, tool: "echo", timeoutMs: 30_000, repeats: 1 },
  { key: "1000", connections: 1000, calls: 1100, tool: "echo", timeoutMs: 30_000, repeats: 1 },
  { key: "5000", connections: 5000, calls: 5500, tool: "echo", timeoutMs: 30_000, repeats: 1 },
].map((stress) => ({ ...stress, title: titleOf(stress) }) as Stress);

function titleOf({ calls, connections, tool, timeoutMs }: Omit<Stress, "title" | "tool"> & { tool: string }): string {
  const what = tool === "block" ? "calls of a tool that blocks 0.5 s" : "calls";
  return `${calls} ${what} over ${connections} connections, limit ${timeoutMs / 1000} s`;
}

/** No arm may take more of the memory that is free at that moment. */
const MEMORY_SHARE = 0.4;

async function survival(effort: Effort): Promise<SuiteResult> {
  const child = [process.execPath, plain("upstreams/stdio-sdk-v1.ts")];
  const ours = await drawbridges({ command: child });
  const [durable] = ours.arms;
  if (durable === undefined) throw new Error("There is no Drawbridge arm.");
  // As they come: default settings, audit durable, and no core is reserved for anybody.
  const arms: readonly Arm[] = [durable, supergateway(child), mcpProxy(child, true), mcpProxy(child, false)];
  const raw: Record<string, Record<string, readonly LoadResult[] | string>> = {};
  const figures: Record<string, Figure> = {};
  const tables: Table[] = [];
  for (const stress of STRESSES) {
    const outcomes: Record<string, readonly LoadResult[] | string> = {};
    for (const arm of arms) {
      const refusal = whyNot(arm.name, stress, raw);
      const outcome = refusal ?? (await stressed(arm, stress, effort));
      outcomes[arm.name] = outcome;
      effort.tell(`${stress.title}: ${arm.name}: ${typeof outcome === "string" ? outcome : summary(outcome)}`);
    }
    raw[stress.key] = outcomes;
    tables.push(survivalTable(stress, outcomes));
    const own = outcomes[durable.name];
    if (typeof own === "object") {
      figures[`stdio.failed.${stress.key}`] = each(own, (run) => run.failed);
      figures[`stdio.wrong.${stress.key}`] = each(own, (run) => run.failures[WRONG_ANSWER] ?? 0);
    }
  }
  const inspected = drawbridge({
    name: "drawbridge, inspected",
    audit: "durable",
    // Idle processes go soon here, so that it shows whether all of them do.
    server: { command: child, processes: { idleSeconds: 5 } },
    otlp: `http://127.0.0.1:${ours.sink.port}`,
    nodeFlags: INSPECTED,
  });
  const left = await leftBehind(inspected, [200, 1000, 5000], effort);
  const last = tables.at(-1);
  const notes = [
    "All connections use the same JSON-RPC id, as independent clients that count for themselves do. A fresh start for each run.",
    await evidence([durable], ours.sink),
  ];
  if (last !== undefined) tables[tables.length - 1] = { ...last, notes: [...last.notes, ...notes] };
  return {
    tables: [...tables, left.table],
    figures: { ...figures, ...left.figures },
    raw: { stresses: raw, left: left.raw },
  };
}

/** Several runs, each against a fresh start: what one run left in a queue must not show in the next. */
async function stressed(arm: Arm, stress: Stress, effort: Effort): Promise<readonly LoadResult[] | string> {
  const runs: LoadResult[] = [];
  for (let repeat = 0; repeat < Math.min(stress.repeats, effort.rounds); repeat += 1) {
    try {
      const running = await arm.start(ANY_CORE);
      const endpoint = { ...running.endpoint, tool: running.endpoint.tool.replace(/echo$/, stress.tool) };
      const run = await undisturbed(
        {
          endpoint,
          connections: stress.connections,
          shape: { kind: "count", calls: stress.calls },
          sameId: true,
          timeoutMs: stress.timeoutMs,
          watched: running.pid === undefined ? {} : { [arm.name]: running.pid },
        },
        { ...effort.patience, repeats: 0 }, // A repeat would find the queues of the first try.
      );
      runs.push(run);
      const left = await running.stop();
      if (left > 0) effort.tell(`${arm.name} left ${left} processes behind; they were killed.`);
    } catch (error) {
      if (error instanceof LeftOut) return `left out: ${error.message}`;
      throw error;
    }
  }
  return runs;
}

/** Why an arm is spared a bigger stress: it failed at a smaller one, or would need more memory than the machine can give. */
function whyNot(
  arm: string,
  stress: Stress,
  before: Readonly<Record<string, Readonly<Record<string, readonly LoadResult[] | string>>>>,
): string | undefined {
  if (stress.tool === "block") return undefined;
  const smaller = STRESSES.slice(0, STRESSES.indexOf(stress)).filter((other) => other.tool === "echo");
  for (const other of smaller.reverse()) {
    const outcome = before[other.key]?.[arm];
    if (outcome === undefined || typeof outcome === "string") continue;
    const worst = each(outcome, (run) => run.failed / (run.failed + run.answered)).max;
    if (worst > 0.5) return `spared, ${Math.round(worst * 100)} % failed at ${other.connections} connections`;
    const processes = each(outcome, (run) => run.processes[arm] ?? 0).max;
    // A process for each client grows with the clients; one process does not.
    const perConnection = each(outcome, (run) => run.rssBytes[arm] ?? 0).max / other.connections;
    const needed = perConnection * stress.connections;
    if (processes > other.connections && needed > MEMORY_SHARE * freemem()) {
      return `spared, ${processes} processes at ${other.connections} connections, so some ${Math.round(needed / 1e9)} GB here`;
    }
    return undefined;
  }
  return undefined;
}

function survivalTable(stress: Stress, outcomes: Readonly<Record<string, readonly LoadResult[] | string>>): Table {
  const rows = Object.entries(outcomes).map(([name, outcome]) => {
    if (typeof outcome === "string") return [name, "not run"];
    return [
      name,
      outcome.map((run) => String(run.failed)).join(" / "),
      kinds(failures(outcome)),
      String(each(outcome, (run) => run.failures[WRONG_ANSWER] ?? 0).max),
      amount(each(outcome, (run) => run.latency.p50 / 1000).median, 2),
      amount(each(outcome, (run) => run.latency.max / 1000).median, 2),
      amount(each(outcome, (run) => run.perSecond).median, 0),
      amount(each(outcome, (run) => run.processes[name] ?? Number.NaN).max, 0),
      amount(each(outcome, (run) => run.rssBytes[name] ?? Number.NaN).max / 1e6, 0),
    ];
  });
  const head = ["arm", "failed", "kinds", "wrong answers", "p50 s", "max s", "calls/s", "processes", "RSS MB"];
  const notes = Object.entries(outcomes).flatMap(([name, outcome]) =>
    typeof outcome === "string" ? [`${name}: ${outcome}`] : [],
  );
  return { title: `stdio server (SDK v1): ${stress.title}`, head, rows, notes };
}

function summary(runs: readonly LoadResult[]): string {
  return `failed ${runs.map((run) => run.failed).join(" / ")} (${kinds(failures(runs))}), p50 ${amount(each(runs, (run) => run.latency.p50).median, 0)} ms`;
}

async function throughput(effort: Effort): Promise<SuiteResult> {
  const child = [process.execPath, plain("upstreams/stdio-sdk-v1.ts")];
  const ours = await drawbridges({ command: child, processes: { min: 1, max: 1 } });
  const arms = [...ours.arms, mcpProxy(child, true), mcpProxy(child, false)];
  const { running, missing } = await startAll(arms, SERVER_CORE, effort.tell);
  const perRequest = await startAll([supergateway(child)], SERVER_CORE, effort.tell);
  const others = { "OTLP receiver": ours.sink.pid };
  const plan = {
    sameId: true,
    timeoutMs: 30_000,
    rounds: effort.rounds,
    warmSeconds: 10,
    patience: effort.patience,
    shape: { kind: "closed", warmSeconds: 1, seconds: effort.seconds },
  } as const;
  const shared = await inTurns(running, others, { ...plan, connections: 20 }, effort.tell);
  // A process for each request: no call is over before a round is, so its calls are counted and not its seconds.
  const counted = { ...plan, warmSeconds: 0, shape: { kind: "count", calls: 40 } } as const;
  const slow = await inTurns(perRequest.running, others, { ...counted, connections: 20 }, effort.tell);
  const few = new Map([...shared, ...slow]);
  const drawbridgesOnly = running.filter(({ name }) => ours.arms.some((arm) => arm.name === name));
  const many = await inTurns(drawbridgesOnly, others, { ...plan, warmSeconds: 2, connections: 200 }, effort.tell);
  for (const arm of [...running, ...perRequest.running]) await arm.stop();
  const notes = [
    "One child for Drawbridge and mcp-proxy; supergateway starts one for each request and is timed over 40 calls. Wrapper and children share one core, the generator has the other.",
    "supergateway's CPU is understated: nobody waits for its processes, so most of their time is lost when they end.",
    ...missing,
    ...perRequest.missing,
    await evidence(ours.arms, ours.sink),
  ];
  const perSecond = (run: LoadResult): number => run.perSecond;
  const figures = Object.fromEntries(
    AUDITS.flatMap((audit) => [
      [`stdio.perSecond.${audit}`, each(few.get(armName(audit)), perSecond)],
      [`stdio.perSecondAt200.${audit}`, each(many.get(armName(audit)), perSecond)],
    ]),
  );
  const proxy = running.find(({ name }) => name.startsWith("mcp-proxy"))?.name ?? "";
  const table = (results: ReadonlyMap<string, readonly LoadResult[]>, connections: number): Table => ({
    title: `Calls through one stdio child (SDK v1), ${connections} connections, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: [
      "arm",
      "calls/s",
      "times mcp-proxy, sessions",
      "CPU ms/call (tree)",
      "p50 ms",
      "p99 ms",
      "failures",
      "RSS MB",
    ],
    rows: [...results].map(([name, runs]) => [
      name,
      spread(each(runs, perSecond), 0),
      spread(ratio(runs, results.get(proxy), perSecond), 1),
      spread(
        each(runs, (run) => run.cpuMsPerCall[name] ?? Number.NaN),
        3,
      ),
      amount(each(runs, (run) => run.latency.p50).median, 2),
      amount(each(runs, (run) => run.latency.p99).median, 2),
      kinds(failures(runs)),
      amount(each(runs, (run) => run.rssBytes[name] ?? Number.NaN).max / 1e6, 0),
    ]),
    notes: connections === 20 ? [] : notes,
  });
  return {
    tables: [table(few, 20), table(many, 200)],
    figures,
    raw: { few: Object.fromEntries(few), many: Object.fromEntries(many) },
  };
}
