/** A/B/A/B: every contender is up, warmed, and measured once in each round, in an order that rotates. */
import type { Endpoint } from "./client.ts";
import { type LoadPlan, type LoadResult, load } from "./load.ts";
import { machineUsage } from "./proc.ts";

/** A server that is up, as seen by the load generator. */
export interface Contender {
  readonly name: string;
  readonly endpoint: Endpoint;
  /** The root of its process tree; undefined for one that is not measured itself, such as the upstream called directly. */
  readonly pid: number | undefined;
}

export interface Patience {
  /** More foreign cores than this make a run a disturbed one. */
  readonly foreignCores: number;
  /** How often a disturbed run is repeated at most; the quietest one counts. */
  readonly repeats: number;
  /** How long to wait for a quiet machine before each run. */
  readonly waitSeconds: number;
}

export interface RoundsPlan extends Omit<LoadPlan, "endpoint" | "watched"> {
  readonly rounds: number;
  /** Each contender is called for so long before the first round, unmeasured; what fails then counts with the first round. */
  readonly warmSeconds: number;
  readonly patience: Patience;
}

/** Results by contender, one per round, in the order of rounds. `others` are the process trees that all of them use. */
export async function inTurns(
  contenders: readonly Contender[],
  others: Readonly<Record<string, number>>,
  plan: RoundsPlan,
  tell: (line: string) => void,
): Promise<ReadonlyMap<string, readonly LoadResult[]>> {
  const results = new Map<string, LoadResult[]>(contenders.map((contender) => [contender.name, []]));
  // All are watched in every run: an idle contender's background work is ours, not foreign.
  const trees = contenders.flatMap(({ name, pid }) => (pid === undefined ? [] : [[name, pid] as const]));
  const watched = { ...Object.fromEntries(trees), ...others };
  const cold = new Map<string, LoadResult>();
  if (plan.warmSeconds > 0) {
    const shape = { kind: "closed", warmSeconds: 0, seconds: plan.warmSeconds } as const;
    for (const { name, endpoint } of contenders) cold.set(name, await load({ ...plan, shape, endpoint, watched }));
  }
  for (let round = 0; round < plan.rounds; round += 1) {
    for (let turn = 0; turn < contenders.length; turn += 1) {
      const contender = contenders[(round + turn) % contenders.length];
      if (contender === undefined) continue;
      const measured = await undisturbed({ ...plan, endpoint: contender.endpoint, watched }, plan.patience);
      // A call that fails before anybody measures has failed all the same.
      const result = round === 0 ? withFailures(measured, cold.get(contender.name)) : measured;
      results.get(contender.name)?.push(result);
      const cpu = result.cpuMsPerCall[contender.name];
      tell(
        `round ${round + 1}/${plan.rounds}  ${contender.name.padEnd(24)} ${result.perSecond.toFixed(0).padStart(7)}/s  ` +
          `p50 ${result.latency.p50.toFixed(2)} ms  cpu ${cpu === undefined ? "–" : `${cpu.toFixed(4)} ms`}  ` +
          `failed ${result.failed}  foreign ${result.foreignCores.toFixed(2)}`,
      );
    }
  }
  return results;
}

function withFailures(result: LoadResult, before: LoadResult | undefined): LoadResult {
  if (before === undefined || before.failed === 0) return result;
  const failures = { ...result.failures };
  for (const [kind, count] of Object.entries(before.failures)) failures[kind] = (failures[kind] ?? 0) + count;
  return { ...result, failed: result.failed + before.failed, failures };
}

/** Measures once the machine is quiet, and again when others disturbed the run; never more often than `repeats` says. */
export async function undisturbed(plan: LoadPlan, patience: Patience): Promise<LoadResult> {
  await quietMachine(patience);
  let best = await load(plan);
  for (let again = 0; again < patience.repeats && best.foreignCores > patience.foreignCores; again += 1) {
    await quietMachine(patience);
    const next = await load(plan);
    if (next.foreignCores < best.foreignCores) best = next;
  }
  return best;
}

/** Waits until the machine is quiet, at most as long as patience says. */
export async function quietMachine(patience: Patience): Promise<void> {
  const until = Date.now() + patience.waitSeconds * 1000;
  for (;;) {
    const before = machineUsage().busySeconds;
    const at = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 300));
    const busyCores = (machineUsage().busySeconds - before) / ((performance.now() - at) / 1000);
    if (busyCores <= patience.foreignCores || Date.now() > until) return;
  }
}
