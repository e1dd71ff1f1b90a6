/** What is left of a server's speed when ten times as many clients ask as it can serve in time? */
import { type Arm, startAll } from "../arms/arm.ts";
import { direct, nodeServer, openEndpoint } from "../arms/http.ts";
import { mcpProxy } from "../arms/rivals.ts";
import { WRONG_ANSWER } from "../client.ts";
import { ANY_CORE, GENERATOR_CORE } from "../cores.ts";
import { evidence } from "../evidence.ts";
import { amount, each, type Figure, failures, kinds, ratio, spread, type Table } from "../figures.ts";
import { type LoadResult, load, REFUSED } from "../load.ts";
import { plain } from "../plain.ts";
import { undisturbed } from "../rounds.ts";
import { drawbridges, type Effort, type Suite, type SuiteResult } from "./suite.ts";

export const overload: Suite = {
  name: "overload",
  question: "How many calls still succeed when ten times the clients ask, and how soon are the others told?",
  run,
};

/** As many as wait a second and a half for a server of 200 calls a second. */
const CLIENTS = 300;
/** A client gives up then; with ten times the clients each would have to wait for 15 s. */
const LIMIT_SECONDS = 10;
/** Longer than the server needs for all that clients have left behind in its queue. */
const BACKLOG_SECONDS = 120;
/** Until those have given up who came before anybody knew that it was too many. */
const WARM_SECONDS = 18;

async function run(effort: Effort): Promise<SuiteResult> {
  const child = [process.execPath, plain("upstreams/stdio-busy.ts")];
  const stdio = await flooded(effort, "stdio", await drawbridges({ command: child, processes: { min: 1, max: 1 } }), [
    mcpProxy(child, true),
    mcpProxy(child, false),
  ]);
  const upstream = await nodeServer("upstream", "http-busy.ts", GENERATOR_CORE);
  try {
    const ours = await drawbridges({ url: `http://127.0.0.1:${upstream.port}/mcp` });
    // It works on for clients that have given up, and whoever comes next would stand in line behind them.
    const idle = async () => {
      const asked = { endpoint: openEndpoint(upstream.port), connections: 1, sameId: true, watched: {} } as const;
      await load({ ...asked, shape: { kind: "count", calls: 1 }, timeoutMs: BACKLOG_SECONDS * 1000 });
    };
    const http = await flooded(effort, "HTTP", ours, [direct(upstream)], idle);
    const figures = Object.entries(http.figures).map(([name, figure]) => [`${name}.http`, figure]);
    return {
      tables: [...stdio.tables, ...http.tables],
      figures: { ...stdio.figures, ...Object.fromEntries(figures) },
      raw: { stdio: stdio.raw, http: http.raw },
    };
  } finally {
    await upstream.stop();
  }
}

/** What Drawbridge and the others make of the flood; each round of each from a fresh start. */
async function flooded(
  effort: Effort,
  transport: "stdio" | "HTTP",
  ours: Awaited<ReturnType<typeof drawbridges>>,
  others: readonly Arm[],
  idle: () => Promise<void> = async () => {},
): Promise<SuiteResult> {
  const [durable] = ours.arms;
  if (durable === undefined) throw new Error("There is no Drawbridge arm.");
  const peaks = new Map<string, LoadResult[]>();
  const floods = new Map<string, LoadResult[]>();
  const missing: string[] = [];
  for (let round = 0; round < effort.rounds; round += 1) {
    for (const arm of [durable, ...others]) {
      // Each from a fresh start: what a flood left behind must not show in what comes after.
      await idle();
      const started = await startAll([arm], ANY_CORE, effort.tell);
      if (round === 0) missing.push(...started.missing);
      for (const running of started.running) {
        const plan = {
          endpoint: running.endpoint,
          sameId: true,
          timeoutMs: LIMIT_SECONDS * 1000,
          watched: running.pid === undefined ? {} : { [arm.name]: running.pid },
        } as const;
        const shape = { kind: "closed", seconds: effort.seconds } as const;
        const patience = { ...effort.patience, repeats: 0 };
        const peak = await undisturbed(
          { ...plan, connections: CLIENTS, shape: { ...shape, warmSeconds: 4 } },
          patience,
        );
        const flood = await undisturbed(
          { ...plan, connections: 10 * CLIENTS, shape: { ...shape, warmSeconds: WARM_SECONDS } },
          patience,
        );
        await running.stop();
        peaks.set(arm.name, [...(peaks.get(arm.name) ?? []), peak]);
        floods.set(arm.name, [...(floods.get(arm.name) ?? []), flood]);
        effort.tell(
          `round ${round + 1}/${effort.rounds}  ${arm.name.padEnd(24)} ${peak.perSecond.toFixed(0)}/s, then ` +
            `${flood.perSecond.toFixed(0)}/s (${kinds(failures([flood]))}), refused in ${flood.refused.p99.toFixed(1)} ms`,
        );
      }
    }
  }
  const figures: Record<string, Figure> = {
    "overload.goodput": ratio(floods.get(durable.name), peaks.get(durable.name), (result) => result.perSecond),
    "overload.refusalP99": each(floods.get(durable.name), (result) => result.refused.p99),
    "overload.wrong": each(floods.get(durable.name), (result) => result.failures[WRONG_ANSWER] ?? 0),
  };
  const table: Table = {
    title: `A server of 200 calls a second over ${transport}, ${CLIENTS} clients and ten times as many, limit ${LIMIT_SECONDS} s, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: [
      "arm",
      "calls/s",
      "calls/s at ten times",
      "of that before",
      "p50 s",
      "failures",
      "wrong answers",
      "refusals p99 ms",
    ],
    rows: [...floods].map(([name, flood]) => [
      name,
      spread(
        each(peaks.get(name), (result) => result.perSecond),
        0,
      ),
      spread(
        each(flood, (result) => result.perSecond),
        0,
      ),
      spread(
        ratio(flood, peaks.get(name), (result) => result.perSecond),
        2,
      ),
      amount(each(flood, (result) => result.latency.p50 / 1000).median, 2),
      kinds(failures(flood)),
      String(each(flood, (result) => result.failures[WRONG_ANSWER] ?? 0).max),
      spread(
        each(flood, (result) => result.refused.p99),
        1,
      ),
    ]),
    notes: [
      `Every client asks again when it has its answer, and one that was refused (${REFUSED}) when it was told to.`,
      ...(transport === "stdio" ? ["supergateway is spared: it starts a process for each call."] : []),
      ...missing,
      await evidence([durable], ours.sink),
    ],
  };
  return { tables: [table], figures, raw: { peaks: Object.fromEntries(peaks), floods: Object.fromEntries(floods) } };
}
