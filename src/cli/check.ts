/** `drawbridge check`: what is suspicious and what is careless in a server, before anybody serves it. */
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type Command, Option } from "commander";
import { readBaseline, type Waiver, writeBaseline } from "../check/baseline.ts";
import { check, type Report, worst } from "../check/check.ts";
import { atLeastAsBad, type Grade } from "../check/grade.ts";
import { jsonReport } from "../check/reports/json.ts";
import { markdownReport } from "../check/reports/markdown.ts";
import { sarifReport } from "../check/reports/sarif.ts";
import { textReport } from "../check/reports/text.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { readTarget } from "./check-targets.ts";
import { Ended, EXIT, version } from "./main.ts";
import { painter, type Terminal } from "./terminal.ts";

const HELP = `
Judges every tool (block, review or clean) and grades the server from A to F by the five principles. Offline, without an account.
It takes the URL of a running server, which is asked a hundred small questions at most; the answer to tools/list as a file,
{"tools": […]}; a command after --, or the module of a server of drawbridge-mcp/author, which are started in a sandbox without
network; a drawbridge.yaml, of which it grades what is served, or a folder with one; the settings of a client (mcp.json, or claude,
cursor, vscode, …); a lockfile.
docs/check.md explains grades and formats, docs/detection.md how often verdicts are right, docs/rules/ what each rule finds.

At a server on this machine a client is registered for the probe, and taken back; elsewhere only with --register.

Exit codes: 0 nothing at or above --fail-on, 1 something is, or a server could not be read, 2 wrong usage or an unreadable file.

Examples:
  $ drawbridge check tools.json
  $ drawbridge check server.ts
  $ drawbridge check -- node server.js
  $ drawbridge check https://mcp.example.com/mcp --token-env TOKEN
  $ drawbridge check --fail-on C drawbridge.yaml
  $ drawbridge check --format sarif mcp.json > check.sarif
  $ drawbridge check --write-baseline accepted.json --reason "reviewed in June" tools.json
  $ drawbridge check --baseline accepted.json tools.json
`;

interface CheckCommandOptions {
  readonly format: keyof typeof REPORTS;
  readonly isolate: boolean;
  readonly failOn: keyof typeof FAILS | Grade;
  readonly baseline?: string;
  readonly writeBaseline?: string;
  readonly reason?: string;
  readonly expires?: string;
  readonly start: boolean;
  readonly read: readonly string[];
  readonly sandbox: boolean;
  readonly tokenEnv?: string;
  readonly register?: boolean;
  readonly clientId?: string;
  readonly redirect?: string;
  readonly ca?: string;
}

/** Which verdicts make the command fail. */
const FAILS = { block: ["block"], review: ["block", "review"], never: [] } as const satisfies Record<
  string,
  readonly string[]
>;
const GRADES = ["B", "C", "D", "F"] as const satisfies readonly Grade[];
const REPORTS = {
  text: (report: Report, terminal: Terminal) => textReport(report, painter(terminal.stdout, terminal.env)),
  json: jsonReport,
  sarif: (report: Report) => sarifReport(report, version()),
  markdown: markdownReport,
} as const;
/** How long a waiver holds unless --expires says so. */
const WAIVER_DAYS = 90;
const DAY_MS = 86_400_000;

export function define(command: Command, terminal: Terminal, rest: readonly string[] | undefined): void {
  command
    .argument(
      "[target]",
      "a URL, a file, a folder, or the name of a client; - reads a list of tools from standard input",
    )
    .addOption(
      new Option("--format <format>", "how the report is written").choices(Object.keys(REPORTS)).default("text"),
    )
    .option("--isolate", "judge each tool by itself: compare none with the others, and give no grades", false)
    .addOption(
      new Option("--fail-on <what>", "end with exit code 1 at this verdict, or at this grade or a worse one")
        .choices([...Object.keys(FAILS), ...GRADES])
        .default("block"),
    )
    .option("--baseline <file>", "findings that a person took: they count for nothing until they expire")
    .option("--write-baseline <file>", "write what is found now, and not waived yet, as a baseline")
    .option("--reason <text>", "with --write-baseline: why these findings are taken")
    .option("--expires <date>", `with --write-baseline: the last day, YYYY-MM-DD (default: in ${WAIVER_DAYS} days)`)
    .option("--start", "start the servers of a client's settings, in a sandbox, and judge their tools", false)
    .option("--read <path...>", "what a command after --, or a module, may read beside its own program", [])
    .option("--no-sandbox", "start a command after --, or a module, as you, with your network and files")
    .option("--token-env <name>", "for a URL: environment variable that holds a token; the tools are judged, too")
    .option("--register", "for a URL: register a client for the probe (RFC 7591)")
    .option("--no-register", "for a URL: register none, also at a server on this machine")
    .option("--client-id <id>", "for a URL: a client that its authorization server knows, in place of a registered one")
    .option("--redirect <uri>", "with --client-id: a redirect that is registered for it")
    .option("--ca <file>", "for a URL: PEM certificates to trust beside the system's")
    .addHelpText("after", HELP)
    .action((target: string | undefined, options: CheckCommandOptions) => run(target, rest, options, terminal));
}

async function run(
  given: string | undefined,
  rest: readonly string[] | undefined,
  options: CheckCommandOptions,
  terminal: Terminal,
): Promise<void> {
  const { format, isolate, failOn, baseline: file } = options;
  refuseContradictions(options);
  const baseline = file === undefined ? [] : readBaseline(await textOf(file, terminal), file);
  const target = await readTarget(given, rest, options, terminal);
  const report = await check(target, { isolate, baseline });
  if (options.writeBaseline !== undefined) await keep(report, baseline, options, terminal);
  await written(REPORTS[format](report, terminal), terminal);
  if (options.writeBaseline !== undefined) return;
  if (report.unread.length > 0 || fails(report, failOn)) throw new Ended(EXIT.failed);
}

/** What would silently let something pass is wrong usage. */
function refuseContradictions({ isolate, failOn, writeBaseline: file, reason, expires }: CheckCommandOptions): void {
  if (isolate && isGrade(failOn))
    throw usage(
      `--isolate gives no grades, so --fail-on ${failOn} can never fail. Use block or review, or leave out --isolate.`,
    );
  if (file === undefined) {
    if (reason !== undefined || expires !== undefined)
      throw usage("--reason and --expires are of use with --write-baseline alone.");
    return;
  }
  if ((reason ?? "").trim().length < 3)
    throw usage("--write-baseline needs --reason: say why these findings are taken.");
  if (expires === undefined) return;
  const last = /^\d{4}-\d{2}-\d{2}$/.test(expires) ? new Date(`${expires}T00:00:00Z`) : undefined;
  // A day that no month has is another day for `Date`.
  if (last === undefined || Number.isNaN(last.getTime()) || dayOf(last) !== expires)
    throw usage(`--expires ${expires} is no date. Write it as YYYY-MM-DD.`);
  if (expires < dayOf(new Date())) throw usage(`--expires ${expires} is past: nothing would be waived.`);
}

const dayOf = (date: Date) => date.toISOString().slice(0, 10);

function fails(report: Report, failOn: CheckCommandOptions["failOn"]): boolean {
  if (isGrade(failOn)) return report.grades !== undefined && atLeastAsBad(report.grades.overall, failOn);
  const grave: readonly string[] = FAILS[failOn];
  return grave.includes(worst(report));
}

function isGrade(value: string): value is Grade {
  return (GRADES as readonly string[]).includes(value);
}

/** Waivers that are there stay, with their reasons; what has expired is written anew. */
async function keep(
  { tools, servers }: Report,
  baseline: readonly Waiver[],
  { writeBaseline: file, reason = "", expires }: CheckCommandOptions,
  terminal: Terminal,
): Promise<void> {
  if (file === undefined) return;
  const last = expires ?? dayOf(new Date(Date.now() + WAIVER_DAYS * DAY_MS));
  const found = [
    ...tools.flatMap(({ name, findings }) => findings.map((finding) => ({ about: `tool ${name}`, finding }))),
    ...servers.flatMap(({ name, findings }) => findings.map((finding) => ({ about: `server ${name}`, finding }))),
  ].filter(({ finding }) => !finding.waived);
  const added = found.map(({ about, finding: { rule, where, fingerprint } }) => ({
    fingerprint,
    rule,
    about: `${about}${where}`,
    reason: reason.trim(),
    expires: last,
  }));
  const text = writeBaseline([...baseline, ...added]);
  readBaseline(text, file);
  try {
    await writeFile(resolve(terminal.cwd, file), text);
  } catch (cause) {
    throw new DrawbridgeError("settings_invalid", `The baseline ${file} cannot be written.`, {
      detail: String(cause),
      cause,
    });
  }
  terminal.stderr.write(`wrote ${file}: ${added.length} findings waived until ${last}\n`);
}

async function textOf(file: string, terminal: Terminal): Promise<string> {
  const path = resolve(terminal.cwd, file);
  if (!existsSync(path)) throw usage(`There is no baseline ${file}.`);
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    throw new DrawbridgeError("settings_invalid", `The baseline ${file} cannot be read.`, {
      detail: String(cause),
      cause,
    });
  }
}

/** Waits until the reader has taken it: a report may be longer than a pipe holds. */
async function written(text: string, { stdout }: Terminal): Promise<void> {
  if (stdout.write(text) !== false || stdout.once === undefined) return;
  await new Promise<void>((resolve) => {
    stdout.once?.("drain", resolve);
    stdout.once?.("error", resolve);
  });
}

const usage = (message: string) => new DrawbridgeError("settings_invalid", message);
