/**
 * What `npm test` runs: prepares what the tests need, then types, style, generated files, and every test. Ends with the counts.
 * `npm test -- <filter>` runs the test files whose path contains the filter.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { bubblewrapProblem, findBubblewrap } from "./global/bubblewrap.ts";
import { CHROMIUM_NAMES, findChromium } from "./global/chromium.ts";
import { findKcat, findNats, findPostgres, findRedis } from "./global/programs.ts";

const root = join(import.meta.dirname, "..");
const ci = (process.env["CI"] ?? "") !== "" && process.env["CI"] !== "false";
const filters = process.argv.slice(2);

/**
 * Tests that may be skipped in CI, as a part of their full name: those that need data which is not in the repository, a second Node, or
 * a system that lets us make control groups.
 */
const MAY_BE_SKIPPED: readonly string[] = ["[development data]", "[old Node]", "[control groups]"];

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly success: boolean;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[];
  }[];
}

async function main(): Promise<number> {
  console.log(`Node ${process.versions.node} (${process.execPath})`);
  // All of them, so that one run says everything that is missing.
  const prepared = PROGRAMS.map(prepare).every(Boolean);
  const types = await step("types", [bin("typescript", "tsc"), "--noEmit"]);
  const style = filters.length > 0 ? true : await step("style", [bin("@biomejs/biome", "biome"), "check", "."]);
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-test-"));
  try {
    const reportFile = join(folder, "report.json");
    const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${reportFile}`];
    reporters.push(`--reporter=${join(root, "test/global/watchdog.ts")}`);
    const tests = await step("tests", [
      join(root, "node_modules", "vitest", "vitest.mjs"),
      "run",
      ...reporters,
      ...filters,
    ]);
    const report = existsSync(reportFile) ? (JSON.parse(readFileSync(reportFile, "utf8")) as Report) : undefined;
    return conclude(report, { prepared, types, style, tests });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function conclude(report: Report | undefined, steps: Readonly<Record<string, boolean>>): number {
  const passed = report?.numPassedTests ?? 0;
  const failed = report?.numFailedTests ?? 0;
  const skipped = (report?.numPendingTests ?? 0) + (report?.numTodoTests ?? 0);
  const problems = Object.entries(steps).flatMap(([name, fine]) => (fine ? [] : [`${name} failed`]));
  if (passed + failed === 0) problems.push("no test ran");
  // A file that does not load has no failed test to show for it.
  for (const file of report?.testResults ?? []) {
    if (file.status === "failed" && file.assertionResults.every((one) => one.status !== "failed"))
      problems.push(`${file.name} did not run`);
  }
  if (ci) {
    const results = (report?.testResults ?? []).flatMap((file) => file.assertionResults);
    const byAccident = results.filter(
      (one) =>
        ["pending", "skipped", "todo", "disabled"].includes(one.status) &&
        !MAY_BE_SKIPPED.some((name) => one.fullName.includes(name)),
    );
    problems.push(...byAccident.map((one) => `skipped in CI: ${one.fullName}`));
  }
  for (const problem of problems) console.log(`✗ ${problem}`);
  console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
  return problems.length > 0 || failed > 0 ? 1 : 0;
}

interface Program {
  readonly name: string;
  /** Where it is. Tests find it by the same function. */
  readonly find: () => string | undefined;
  /** Debian's package, and without it what is left out and how to provide it. */
  readonly debian: string;
  readonly wanted: string;
  readonly without: string;
}

const PROGRAMS: readonly Program[] = [
  {
    name: "Chromium",
    find: findChromium,
    debian: "chromium",
    wanted: `${CHROMIUM_NAMES.join(", ")}, or CHROMIUM=<path>`,
    without: "tests that click in a browser",
  },
  {
    name: "PostgreSQL",
    find: findPostgres,
    debian: "postgresql",
    wanted: "initdb and postgres, in PATH or below /usr/lib/postgresql",
    without: "tests of stores on PostgreSQL",
  },
  {
    name: "Redis",
    find: findRedis,
    debian: "redis-server",
    wanted: "redis-server or valkey-server in PATH",
    without: "tests of stores on Redis",
  },
  {
    name: "kcat",
    find: findKcat,
    debian: "kcat",
    wanted: "kcat in PATH",
    without: "tests of audit sinks on Kafka",
  },
  {
    name: "NATS",
    find: findNats,
    debian: "nats-server",
    wanted: "nats-server in PATH",
    without: "tests of audit sinks on NATS",
  },
  {
    name: "bubblewrap",
    find: findBubblewrap,
    debian: "bubblewrap",
    get wanted() {
      return bubblewrapProblem();
    },
    without: "tests of the sandbox",
  },
];

/** Finds a program, or installs it where that can be done without asking. False: it is missing, and that is a failure in CI. */
function prepare({ name, find, debian, wanted, without }: Program): boolean {
  let found = find();
  if (
    found === undefined &&
    process.platform === "linux" &&
    process.getuid?.() === 0 &&
    existsSync("/etc/debian_version")
  ) {
    console.log(`· ${name}: installing by apt-get …`);
    if (install(debian)) found = find();
  }
  if (found !== undefined) {
    console.log(`· ${name}: ${found}`);
    return true;
  }
  console.log(`${ci ? "✗" : "·"} ${name}: none found (${wanted}); ${without} are left out`);
  return !ci;
}

function install(name: string): boolean {
  // Servers that are installed are not to be started by that; each test run starts its own.
  const environment = { ...process.env, DEBIAN_FRONTEND: "noninteractive", RUNLEVEL: "1" };
  const apt = (...words: string[]) =>
    spawnSync("apt-get", words, { stdio: ["ignore", "ignore", "inherit"], env: environment, timeout: 600_000 })
      .status === 0;
  return apt("update") && apt("install", "-y", "--no-install-recommends", name);
}

function bin(packageName: string, command: string): string {
  const folder = join(root, "node_modules", packageName);
  const { bin: bins } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    bin: Record<string, string>;
  };
  const file = bins[command];
  if (file === undefined) throw new Error(`${packageName} has no command ${command}; run npm ci`);
  return join(folder, file);
}

/** Runs a script with this Node, so that whatever it starts finds the same one first. */
function step(name: string, words: readonly string[]): Promise<boolean> {
  const started = performance.now();
  const env = { ...process.env, PATH: [join(root, "node_modules", ".bin"), process.env["PATH"] ?? ""].join(delimiter) };
  return new Promise((resolve) => {
    const child = spawn(process.execPath, words, { cwd: root, stdio: ["ignore", "inherit", "inherit"], env });
    const forward = () => child.kill("SIGTERM");
    process.once("SIGTERM", forward);
    process.once("SIGINT", forward);
    child.on("exit", (code) => {
      process.off("SIGTERM", forward);
      process.off("SIGINT", forward);
      console.log(
        `${code === 0 ? "·" : "✗"} ${name}: ${code === 0 ? "fine" : "failed"} (${((performance.now() - started) / 1000).toFixed(1)} s)`,
      );
      resolve(code === 0);
    });
  });
}

process.exitCode = await main();
