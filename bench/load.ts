/**
 * One measured run of the load generator, in a process of its own: `load(plan)` starts this very file pinned to the
 * generator's core, hands it the plan on stdin and reads the result from its stdout.
 */
import { spawn } from "node:child_process";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Connection, callRequest, type Endpoint, fault, openSession, type Reply } from "./client.ts";
import { GENERATOR_CORE, onCore } from "./cores.ts";
import { Dialogue } from "./dialogue.ts";
import { machineUsage, type TreeUsage, treeUsage } from "./proc.ts";

export type Shape =
  /** Every connection asks again as soon as it has its answer, for so long; one that was refused when it was told to. */
  | {
      readonly kind: "closed";
      readonly warmSeconds: number;
      readonly seconds: number;
    }
  /** Exactly so many calls, shared out over the connections, and no warm-up. */
  | { readonly kind: "count"; readonly calls: number }
  /** So many calls a second whether or not earlier ones are answered; latency counts from the scheduled moment. */
  | { readonly kind: "open"; readonly warmSeconds: number; readonly seconds: number; readonly perSecond: number };

export interface LoadPlan {
  readonly endpoint: Endpoint;
  readonly connections: number;
  readonly shape: Shape;
  /**
   * Gives the calls of all connections the same JSON-RPC id, as independent clients that count for themselves do. Within
   * one session, where a client may not use an id again, each connection counts from 1.
   */
  readonly sameId: boolean;
  readonly timeoutMs: number;
  /** Process trees whose CPU and memory are read, by name: all that this bench runs, or it counts as foreign. */
  readonly watched: Readonly<Record<string, number>>;
}

export interface LoadResult {
  readonly answered: number;
  readonly failed: number;
  readonly failures: Readonly<Record<string, number>>;
  readonly seconds: number;
  readonly perSecond: number;
  /** Of answered and failed calls alike, in milliseconds. */
  readonly latency: Latency;
  /** Of those refused for overload. */
  readonly refused: Latency;
  readonly cpuMsPerCall: Readonly<Record<string, number>>;
  /** The highest seen, in bytes. */
  readonly rssBytes: Readonly<Record<string, number>>;
  readonly processes: Readonly<Record<string, number>>;
  readonly generatorCores: number;
  /** How many cores processes other than the generator and the watched ones used meanwhile. */
  readonly foreignCores: number;
  readonly stolenSeconds: number;
}

export interface Latency {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** The failure of a call that was refused because there are too many. */
export const REFUSED = "http-503";

/** Runs one plan in a fresh generator process. Rejects when the generator itself fails, never for failed calls. */
export function load(plan: LoadPlan): Promise<LoadResult> {
  const longest = plannedSeconds(plan.shape) + 3 * (plan.timeoutMs / 1000);
  return generated<LoadResult>(fileURLToPath(import.meta.url), plan, longest);
}

/** Starts `file` on the generator's core, hands it `plan` on stdin and reads its result; stopped when it takes too long. */
export async function generated<Result>(file: string, plan: object, longestSeconds: number): Promise<Result> {
  const [program, ...args] = onCore(GENERATOR_CORE, [process.execPath, file], FILES);
  const generator = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"] });
  const ended = new Promise<number | null>((resolve, reject) => {
    generator.once("error", reject);
    generator.once("close", resolve);
  });
  const stop = (): boolean => generator.kill("SIGKILL");
  process.once("exit", stop);
  const longest = setTimeout(stop, (longestSeconds + 30) * 1000);
  try {
    generator.stdin.end(JSON.stringify(plan));
    const [out, errors, code] = await Promise.all([text(generator.stdout), text(generator.stderr), ended]);
    if (code !== 0) throw new Error(`The load generator ended with ${code}: ${errors.trim() || "no message"}`);
    // JSON has no NaN: latencies of a run without a single answer come as null.
    return JSON.parse(out, (_, value) => (value === null ? Number.NaN : value)) as Result;
  } finally {
    clearTimeout(longest);
    process.off("exit", stop);
  }
}

/** Open files that 5,000 connections and the generator itself need. */
const FILES = 12_000;
const WATCH_EVERY_MS = 500;
const SESSIONS_AT_ONCE = 50;
/** Makes a call about as long as a small real one. */
const PADDING = "x".repeat(32);

function plannedSeconds(shape: Shape): number {
  return shape.kind === "count" ? 0 : shape.warmSeconds + shape.seconds;
}

/** Runs a plan in this process. */
async function run(plan: LoadPlan): Promise<LoadResult> {
  const connections = Array.from(
    { length: plan.connections },
    () => new Connection(plan.endpoint.port, plan.timeoutMs),
  );
  const dialogues = connections.flatMap((connection) =>
    plan.endpoint.asks === true ? [new Dialogue(plan.endpoint, connection, plan.timeoutMs)] : [],
  );
  const meter = new Meter(plan.watched);
  const sessions = await openSessions(plan, connections, meter);
  const prefix = `hello-${process.pid}-${Date.now().toString(36)}`;
  let calls = 0;
  const callsOf = new Uint32Array(plan.connections);
  /** Makes one call on a connection that is free and tells when it is free again. */
  const call = (index: number, since: number, free: (reply: Reply) => void): void => {
    calls += 1;
    callsOf[index] = (callsOf[index] ?? 0) + 1;
    const id = !plan.sameId ? calls : plan.endpoint.sessions ? (callsOf[index] ?? 1) : 1;
    const text = `${prefix}-${calls}-${PADDING}`;
    const connection = connections[index];
    if (connection === undefined) throw new Error(`There is no connection ${index}.`);
    const done = (reply: Reply, wrong: string | undefined): void => {
      meter.count(wrong, performance.now() - since);
      free(reply);
    };
    const dialogue = dialogues[index];
    if (dialogue !== undefined) dialogue.call(id, text, sessions[index], done);
    else
      connection.exchange(callRequest(plan.endpoint, id, text, sessions[index]), (reply) =>
        done(reply, fault(reply, id, text)),
      );
  };
  try {
    if (plan.shape.kind === "count") await countedCalls(plan.shape.calls, connections.length, call, meter);
    else if (plan.shape.kind === "closed") await closedLoop(plan.shape, connections.length, call, meter);
    else await openLoop(plan.shape, connections.length, call, meter);
    return meter.result();
  } finally {
    meter.stop();
    for (const one of [...connections, ...dialogues]) one.close();
  }
}

type Call = (connection: number, since: number, free: (reply: Reply) => void) => void;

async function openSessions(
  plan: LoadPlan,
  connections: readonly Connection[],
  meter: Meter,
): Promise<readonly (string | undefined)[]> {
  if (!plan.endpoint.sessions) return [];
  const sessions: (string | undefined)[] = [];
  for (let start = 0; start < connections.length; start += SESSIONS_AT_ONCE) {
    const batch = connections.slice(start, start + SESSIONS_AT_ONCE);
    const opened = await Promise.all(batch.map((connection) => openSession(connection, plan.endpoint)));
    for (const one of opened) {
      sessions.push("session" in one ? one.session : undefined);
      if ("failed" in one) meter.note(one.failed);
    }
  }
  return sessions;
}

async function countedCalls(calls: number, connections: number, call: Call, meter: Meter): Promise<void> {
  meter.begin();
  let toSend = calls;
  const worker = async (index: number): Promise<void> => {
    while (toSend > 0) {
      toSend -= 1;
      await new Promise((resolve) => call(index, performance.now(), resolve));
    }
  };
  await Promise.all(Array.from({ length: connections }, (_, index) => worker(index)));
  meter.end();
}

async function closedLoop(
  shape: Extract<Shape, { kind: "closed" }>,
  connections: number,
  call: Call,
  meter: Meter,
): Promise<void> {
  let stopped = false;
  const resting = new Map<() => void, NodeJS.Timeout>();
  const worker = (index: number): Promise<void> =>
    new Promise((resolve) => {
      const again = (): void => {
        resting.delete(again);
        if (stopped) resolve();
        else call(index, performance.now(), next);
      };
      // A broken connection is tried again after a moment, or a server that is down would be hammered.
      const next = (reply: Reply): void => {
        if (reply.kind === "broken") setTimeout(again, 5);
        else if (reply.retryAfter !== undefined && !stopped)
          resting.set(again, setTimeout(again, reply.retryAfter * 1000));
        else again();
      };
      again();
    });
  const workers = Array.from({ length: connections }, (_, index) => worker(index));
  await pause(shape.warmSeconds);
  meter.begin();
  await pause(shape.seconds);
  meter.end();
  stopped = true;
  for (const [again, timer] of [...resting]) {
    clearTimeout(timer);
    again();
  }
  await Promise.all(workers);
}

async function openLoop(
  shape: Extract<Shape, { kind: "open" }>,
  connections: number,
  call: Call,
  meter: Meter,
): Promise<void> {
  const free = Array.from({ length: connections }, (_, index) => index);
  const waiting: number[] = [];
  const started = performance.now();
  let scheduled = 0;
  const pump = (): void => {
    while (waiting.length > 0 && free.length > 0) {
      const since = waiting.shift() ?? started;
      const index = free.pop() ?? 0;
      call(index, since, () => {
        free.push(index);
        pump();
      });
    }
  };
  const ticker = setInterval(() => {
    const due = ((performance.now() - started) / 1000) * shape.perSecond;
    for (; scheduled < due; scheduled += 1) waiting.push(started + (scheduled * 1000) / shape.perSecond);
    pump();
  }, 1);
  await pause(shape.warmSeconds);
  meter.begin();
  await pause(shape.seconds);
  clearInterval(ticker);
  meter.end();
  waiting.length = 0;
  while (free.length < connections) await pause(0.01); // Each call has its own time limit.
}

/** Counts calls between `begin` and `end` and reads the process trees at both. */
export class Meter {
  readonly #watched: Readonly<Record<string, number>>;
  readonly #latencies: number[] = [];
  readonly #refused: number[] = [];
  readonly #failures: Record<string, number> = {};
  readonly #peaks: Record<string, TreeUsage> = {};
  #answered = 0;
  #failed = 0;
  #measuring = false;
  #before: Snapshot | undefined;
  #after: Snapshot | undefined;
  #watch: NodeJS.Timeout | undefined;

  constructor(watched: Readonly<Record<string, number>>) {
    this.#watched = watched;
  }

  begin(): void {
    this.#before = snapshot(this.#watched);
    this.#measuring = true;
    this.#watch = setInterval(() => this.#peak(snapshotTrees(this.#watched)), WATCH_EVERY_MS);
  }

  count(why: string | undefined, milliseconds: number): void {
    if (!this.#measuring) return;
    this.#latencies.push(milliseconds);
    if (why === REFUSED) this.#refused.push(milliseconds);
    if (why === undefined) this.#answered += 1;
    else this.note(why);
  }

  /** A failure outside any call, such as a session that could not be opened. */
  note(why: string): void {
    this.#failed += 1;
    this.#failures[why] = (this.#failures[why] ?? 0) + 1;
  }

  end(): void {
    this.#measuring = false;
    this.#after = snapshot(this.#watched);
    this.#peak(this.#after.trees);
    this.stop();
  }

  stop(): void {
    clearInterval(this.#watch);
  }

  result(): LoadResult {
    const before = this.#before;
    const after = this.#after;
    if (before === undefined || after === undefined) throw new Error("The run was not measured to its end.");
    const seconds = (after.at - before.at) / 1000;
    const cpuSeconds = mapValues(this.#watched, (_, name) => {
      return (after.trees[name]?.cpuSeconds ?? 0) - (before.trees[name]?.cpuSeconds ?? 0);
    });
    const own = after.ownSeconds - before.ownSeconds;
    const known = Object.values(cpuSeconds).reduce((total, one) => total + one, own);
    return {
      answered: this.#answered,
      failed: this.#failed,
      failures: this.#failures,
      seconds: round(seconds, 3),
      perSecond: round(this.#answered / seconds, 1),
      latency: latencyOf(this.#latencies),
      refused: latencyOf(this.#refused),
      cpuMsPerCall: mapValues(cpuSeconds, (spent) => round((spent * 1000) / this.#answered, 5)),
      rssBytes: mapValues(this.#peaks, (tree) => tree.rssBytes),
      processes: mapValues(this.#peaks, (tree) => tree.processes),
      generatorCores: round(own / seconds, 3),
      foreignCores: round(Math.max(0, (after.machine.busySeconds - before.machine.busySeconds - known) / seconds), 3),
      stolenSeconds: round(after.machine.stolenSeconds - before.machine.stolenSeconds, 2),
    };
  }

  #peak(trees: Readonly<Record<string, TreeUsage>>): void {
    for (const [name, tree] of Object.entries(trees)) {
      const highest = this.#peaks[name];
      this.#peaks[name] = {
        cpuSeconds: tree.cpuSeconds,
        rssBytes: Math.max(tree.rssBytes, highest?.rssBytes ?? 0),
        processes: Math.max(tree.processes, highest?.processes ?? 0),
      };
    }
  }
}

function latencyOf(milliseconds: readonly number[]): Latency {
  const sorted = Float64Array.from(milliseconds).sort();
  const at = (share: number): number =>
    round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN, 3);
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
}

interface Snapshot {
  readonly at: number;
  readonly trees: Readonly<Record<string, TreeUsage>>;
  readonly machine: ReturnType<typeof machineUsage>;
  readonly ownSeconds: number;
}

function snapshot(watched: Readonly<Record<string, number>>): Snapshot {
  const { user, system } = process.cpuUsage();
  return {
    at: performance.now(),
    trees: snapshotTrees(watched),
    machine: machineUsage(),
    ownSeconds: (user + system) / 1e6,
  };
}

function snapshotTrees(watched: Readonly<Record<string, number>>): Readonly<Record<string, TreeUsage>> {
  return mapValues(watched, treeUsage);
}

function mapValues<T, R>(
  record: Readonly<Record<string, T>>,
  map: (value: T, name: string) => R,
): Readonly<Record<string, R>> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, map(value, name)]));
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

if (import.meta.main) {
  const plan = JSON.parse(await text(process.stdin)) as LoadPlan;
  process.stdout.write(JSON.stringify(await run(plan)));
}
