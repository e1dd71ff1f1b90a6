/**
 * `npm run bench [-- names…]`: runs the suites, prints their tables, and writes everything to `results/`.
 * All servers are on loopback, each run is bounded in calls or seconds, and every process is stopped by its id.
 */
import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { arch, availableParallelism, cpus, platform, release, totalmem } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { canPin } from "./cores.ts";
import { document, markdown } from "./document.ts";
import { type Figure, printed, type Table } from "./figures.ts";
import { judged } from "./marks.ts";
import { RESULTS, stopAll, stopAtExit } from "./processes.ts";
import { audit } from "./suites/audit.ts";
import { author, authorCold } from "./suites/author.ts";
import { cold } from "./suites/cold.ts";
import { contracts } from "./suites/contracts.ts";
import { eras } from "./suites/eras.ts";
import { hop, large, latency, sdk } from "./suites/http.ts";
import { mask } from "./suites/mask.ts";
import { idle, leak } from "./suites/memory.ts";
import { oauth } from "./suites/oauth.ts";
import { overload } from "./suites/overload.ts";
import { policy } from "./suites/policy.ts";
import { stdio, stdioThroughput } from "./suites/stdio.ts";
import type { Effort, Suite, SuiteResult } from "./suites/suite.ts";

const SUITES: readonly Suite[] = [
  hop,
  large,
  sdk,
  latency,
  stdio,
  stdioThroughput,
  overload,
  idle,
  cold,
  leak,
  oauth,
  mask,
  policy,
  contracts,
  audit,
  eras,
  author,
  authorCold,
];
const ROOT = path.resolve(import.meta.dirname, "..");

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "3" },
    /** One short round of everything, to see that it works. Its figures say little. */
    quick: { type: "boolean", default: false },
    /** Puts the tables into docs/performance.md, too. */
    document: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

const chosen = positionals.length === 0 ? SUITES : SUITES.filter(({ name }) => positionals.includes(name));
const unknown = positionals.filter((name) => !SUITES.some((suite) => suite.name === name));
const effort: Effort = {
  rounds: values.quick ? 1 : number("rounds", values.rounds, 1, 50),
  seconds: values.quick ? 1 : number("seconds", values.seconds, 0.5, 60),
  patience: values.quick
    ? { foreignCores: 0.3, repeats: 0, waitSeconds: 0 }
    : { foreignCores: 0.3, repeats: 2, waitSeconds: 10 },
  tell: (line) => console.error(`  ${line}`),
};

if (values.help || unknown.length > 0) {
  if (unknown.length > 0) console.error(`There is no suite ${unknown.join(", ")}.`);
  console.log(usage());
  process.exit(unknown.length > 0 ? 2 : 0);
}
if (platform() !== "linux") {
  console.error("The bench reads CPU time and memory from /proc and runs on Linux only.");
  process.exit(2);
}
stopAtExit();
await bench();

async function bench(): Promise<void> {
  const machine = describeMachine();
  console.log(
    Object.entries(machine)
      .map(([fact, value]) => `${fact}: ${value}`)
      .join(" · "),
  );
  const results: Record<string, SuiteResult> = {};
  const broken: Record<string, string> = {};
  const started = new Date();
  for (const suite of chosen) {
    console.error(`\n${suite.name}: ${suite.question}`);
    try {
      const result = await suite.run(effort);
      results[suite.name] = result;
      for (const table of result.tables) console.log(printed(table));
    } catch (error) {
      broken[suite.name] = error instanceof Error ? error.message : String(error);
      console.error(`  ${suite.name} could not be measured: ${broken[suite.name]}`);
    } finally {
      await stopAll();
    }
  }
  const figures: Record<string, Figure> = Object.assign({}, ...Object.values(results).map((result) => result.figures));
  const marks = judged(figures);
  console.log(printed(marks));
  mkdirSync(RESULTS, { recursive: true });
  const file = path.join(RESULTS, `bench-${started.toISOString().replaceAll(/[:.]/g, "-")}.json`);
  const { tell: _, ...settings } = effort;
  writeFileSync(
    file,
    JSON.stringify({ started, machine, settings, marks: marks.rows, figures, broken, results }, null, 2),
  );
  console.log(`\nEverything measured: ${path.relative(process.cwd(), file)}`);
  if (values.document) document(sections(results, marks, machine, started));
  rmSync(path.join(RESULTS, "gateways"), { recursive: true, force: true });
  process.exit(Object.keys(broken).length > 0 ? 1 : 0);
}

/** One section for each suite, each with the command that made it; the marks only when nothing is missing from them. */
function sections(
  results: Readonly<Record<string, SuiteResult>>,
  marks: Table,
  machine: Readonly<Record<string, unknown>>,
  started: Date,
): Readonly<Record<string, string>> {
  const facts = Object.entries(machine).map(([fact, value]) => `${fact} ${value}`);
  const effortFlags = values.quick ? "--quick" : `--rounds ${effort.rounds} --seconds ${effort.seconds}`;
  const origin = (names: string): string =>
    `\`npm run bench -- ${names}${effortFlags}\`, ${started.toISOString().slice(0, 10)}: ${facts.join(", ")}.`;
  const suites = Object.entries(results).map(([name, { tables }]) => {
    return [name, [origin(`${name} `), ...tables.map(markdown)].join("\n\n")] as const;
  });
  const complete = SUITES.every(({ name }) => name in results);
  return { ...Object.fromEntries(suites), ...(complete ? { marks: `${origin("")}\n\n${markdown(marks)}` } : {}) };
}

function describeMachine(): Readonly<Record<string, string | number | boolean>> {
  const [cpu] = cpus();
  return {
    node: process.version,
    drawbridge: commit(),
    cpu: cpu?.model ?? "unknown",
    cores: availableParallelism(),
    "memory GB": Math.round(totalmem() / 2 ** 30),
    system: `${platform()} ${release()} ${arch()}`,
    pinned: canPin,
  };
}

function commit(): string {
  try {
    return execFileSync("git", ["describe", "--always", "--dirty"], { cwd: ROOT, stdio: "pipe" }).toString().trim();
  } catch {
    return "unknown";
  }
}

function number(name: string, given: string, least: number, most: number): number {
  const value = Number(given);
  if (value >= least && value <= most) return value;
  console.error(`--${name} takes a number from ${least} to ${most}, not ${given}.`);
  process.exit(2);
}

function usage(): string {
  const width = Math.max(...SUITES.map(({ name }) => name.length));
  const suites = SUITES.map(({ name, question }) => `  ${name.padEnd(width)}  ${question}`);
  return ["npm run bench [-- names…] [--rounds 5] [--seconds 3] [--quick] [--document]", "", "Suites:", ...suites].join(
    "\n",
  );
}
