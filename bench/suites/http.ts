/** What a hop costs in front of an HTTP upstream: calls a second, CPU a call, and added latency. */
import { type RunningArm, startAll } from "../arms/arm.ts";
import { bareProxy, direct, nodeServer, openEndpoint, warm } from "../arms/http.ts";
import { nginx } from "../arms/nginx.ts";
import { GENERATOR_CORE, SERVER_CORE } from "../cores.ts";
import { evidence } from "../evidence.ts";
import { amount, difference, each, failures, kinds, ratio, spread, type Table } from "../figures.ts";
import type { LoadResult } from "../load.ts";
import { inTurns } from "../rounds.ts";
import { AUDITS, armName, drawbridges, type Effort, type Suite, type SuiteResult } from "./suite.ts";

export const hop: Suite = {
  name: "hop",
  question: "How much of nginx's throughput is left in front of the barest echo server, and what does a call cost?",
  run: (effort) => throughput("hop", "in front of a bare node:http echo server", "floor.ts", effort),
};

export const sdk: Suite = {
  name: "sdk",
  question: "How much of an SDK v2 server's own throughput is left behind Drawbridge?",
  run: (effort) => throughput("sdk", "in front of an SDK v2 server (createMcpHandler)", "sdk-v2.ts", effort),
};

export const large: Suite = {
  name: "large",
  question: "What does a call cost whose answer has 20 KB, all of it inspected and masked?",
  run: (effort) => throughput("large", "of answers of 20 KB, in front of a bare node:http server", "rows.ts", effort),
};

export const latency: Suite = {
  name: "latency",
  question: "How much later does an answer come, one call at a time and at a steady 500 calls a second?",
  run: addedLatency,
};

const CONNECTIONS = 20;
const TIMEOUT_MS = 30_000;
/** An SDK server, and any gateway, is at half its speed before about six seconds. */
const WARM_SECONDS = 10;

interface Prepared {
  readonly running: readonly RunningArm[];
  readonly others: Readonly<Record<string, number>>;
  /** Stops the arms and returns the notes for below the table. */
  finish(): Promise<readonly string[]>;
}

/** Every arm in front of one upstream, all up at once. */
async function prepare(upstreamFile: string, effort: Effort): Promise<Prepared> {
  const upstream = await nodeServer("upstream", upstreamFile, GENERATOR_CORE);
  await warm(openEndpoint(upstream.port), WARM_SECONDS);
  const ours = await drawbridges({ url: `http://127.0.0.1:${upstream.port}/mcp` });
  const arms = [direct(upstream), nginx(upstream), bareProxy(upstream), ...ours.arms];
  const { running, missing } = await startAll(arms, SERVER_CORE, effort.tell);
  const finish = async (): Promise<readonly string[]> => {
    for (const arm of running) await arm.stop();
    return [...missing, await evidence(ours.arms, ours.sink)];
  };
  return { running, others: { upstream: upstream.pid, "OTLP receiver": ours.sink.pid }, finish };
}

async function throughput(key: string, where: string, upstreamFile: string, effort: Effort): Promise<SuiteResult> {
  const { running, others, finish } = await prepare(upstreamFile, effort);
  const plan = {
    connections: CONNECTIONS,
    shape: { kind: "closed", warmSeconds: 1, seconds: effort.seconds },
    sameId: false,
    timeoutMs: TIMEOUT_MS,
    rounds: effort.rounds,
    warmSeconds: WARM_SECONDS,
    patience: effort.patience,
  } as const;
  const results = await inTurns(running, others, plan, effort.tell);
  const base = (name: string): readonly LoadResult[] | undefined => results.get(name);
  const rows = [...results].map(([name, runs]) => [
    name,
    spread(each(runs, perSecond), 0),
    spread(ratio(runs, base("direct"), perSecond), 2),
    spread(ratio(runs, base("nginx"), perSecond), 2),
    spread(each(runs, cpuOf(name)), 4),
    amount(each(runs, (run) => run.latency.p50).median, 2),
    amount(each(runs, (run) => run.latency.p99).median, 2),
    kinds(failures(runs)),
    amount(each(runs, (run) => run.foreignCores).max, 2),
  ]);
  const table: Table = {
    title: `Throughput ${where}, ${CONNECTIONS} connections, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: ["arm", "calls/s", "of direct", "of nginx", "CPU ms/call", "p50 ms", "p99 ms", "failures", "foreign cores"],
    rows,
    notes: [
      "Medians with their range over the rounds; ratios are taken within each round. CPU is the arm's own process tree.",
      ...(await finish()),
    ],
  };
  const figures = Object.fromEntries(
    AUDITS.flatMap((audit) => {
      const runs = results.get(armName(audit));
      return [
        [`${key}.perNginx.${audit}`, ratio(runs, base("nginx"), perSecond)],
        [`${key}.perDirect.${audit}`, ratio(runs, base("direct"), perSecond)],
        [`${key}.cpuMsPerCall.${audit}`, each(runs, cpuOf(armName(audit)))],
      ];
    }),
  );
  return { tables: [table], figures, raw: Object.fromEntries(results) };
}

async function addedLatency(effort: Effort): Promise<SuiteResult> {
  const { running, others, finish } = await prepare("floor.ts", effort);
  const common = { sameId: false, timeoutMs: TIMEOUT_MS, rounds: effort.rounds, patience: effort.patience } as const;
  const oneByOne = await inTurns(
    running,
    others,
    {
      ...common,
      connections: 1,
      warmSeconds: WARM_SECONDS,
      shape: { kind: "closed", warmSeconds: 0.5, seconds: effort.seconds },
    },
    effort.tell,
  );
  const steady = await inTurns(
    running,
    others,
    {
      ...common,
      connections: 64,
      warmSeconds: 0,
      shape: { kind: "open", warmSeconds: 0.5, seconds: effort.seconds, perSecond: 500 },
    },
    effort.tell,
  );
  const p50 = (run: LoadResult): number => run.latency.p50;
  const p99 = (run: LoadResult): number => run.latency.p99;
  const rows = running.map(({ name }) => [
    name,
    spread(each(oneByOne.get(name), p50), 3),
    spread(difference(oneByOne.get(name), oneByOne.get("direct"), p50), 3),
    spread(each(steady.get(name), p50), 2),
    spread(difference(steady.get(name), steady.get("direct"), p50), 2),
    spread(each(steady.get(name), p99), 1),
    kinds(failures([...(oneByOne.get(name) ?? []), ...(steady.get(name) ?? [])])),
  ]);
  const table: Table = {
    title: `Latency in front of a bare node:http echo server, ms, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: ["arm", "one by one p50", "added", "500/s p50", "added", "500/s p99", "failures"],
    rows,
    notes: [
      "At 500/s the latency counts from the moment a call was due; a millisecond of timer grain is in every arm.",
      ...(await finish()),
    ],
  };
  const figures = Object.fromEntries(
    AUDITS.flatMap((audit) => [
      [`latency.added.${audit}`, difference(oneByOne.get(armName(audit)), oneByOne.get("direct"), p50)],
      [`latency.addedAt500.${audit}`, difference(steady.get(armName(audit)), steady.get("direct"), p50)],
    ]),
  );
  return {
    tables: [table],
    figures,
    raw: { oneByOne: Object.fromEntries(oneByOne), steady: Object.fromEntries(steady) },
  };
}

function perSecond(run: LoadResult): number {
  return run.perSecond;
}

function cpuOf(name: string): (run: LoadResult) => number {
  return (run) => run.cpuMsPerCall[name] ?? Number.NaN;
}
