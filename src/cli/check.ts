/** `drawbridge check`: what is suspicious in the tools of a server, before anybody serves them. */
import { readFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { type Command, Option } from "commander";
import { check, type Report, worst } from "../check/check.ts";
import { jsonReport } from "../check/reports/json.ts";
import { textReport } from "../check/reports/text.ts";
import { readTools } from "../check/targets.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Ended, EXIT } from "./main.ts";
import { painter, type Terminal } from "./terminal.ts";

const HELP = `
Reads the answer to tools/list from a file, {"tools": […]}, and judges every tool: block, review or clean. It needs no network and
no account. docs/detection.md says how often it is right, docs/rules/ what each rule finds.

Exit codes: 0 nothing at or above --fail-on, 1 something is, 2 wrong usage or a file that cannot be read.

Examples:
  $ drawbridge check tools.json
  $ drawbridge check --fail-on review tools.json
  $ drawbridge check --isolate --format json tools.json > report.json
`;

interface CheckCommandOptions {
  readonly format: "text" | "json";
  readonly isolate: boolean;
  readonly failOn: keyof typeof FAILS;
}

/** Which verdicts make the command fail. */
const FAILS = { block: ["block"], review: ["block", "review"], never: [] } as const satisfies Record<
  string,
  readonly string[]
>;
const REPORTS = {
  text: (report: Report, terminal: Terminal) => textReport(report, painter(terminal.stdout, terminal.env)),
  json: jsonReport,
} as const;

export function define(command: Command, terminal: Terminal): void {
  command
    .argument("<tools.json>", "the answer to tools/list, as a file; - reads standard input")
    .addOption(
      new Option("--format <format>", "how the report is written").choices(Object.keys(REPORTS)).default("text"),
    )
    .option("--isolate", "judge each tool by itself, and compare none with the others", false)
    .addOption(
      new Option("--fail-on <verdict>", "end with exit code 1 when a tool is so grave")
        .choices(Object.keys(FAILS))
        .default("block"),
    )
    .addHelpText("after", HELP)
    .action((file: string, options: CheckCommandOptions) => run(file, options, terminal));
}

async function run(file: string, { format, isolate, failOn }: CheckCommandOptions, terminal: Terminal): Promise<void> {
  const target = readTools(await textOf(file, terminal), file === "-" ? "Standard input" : file);
  const report = await check(target, { isolate });
  await written(REPORTS[format](report, terminal), terminal);
  const grave: readonly string[] = FAILS[failOn];
  if (grave.includes(worst(report))) throw new Ended(EXIT.failed);
}

async function textOf(file: string, terminal: Terminal): Promise<string> {
  if (file === "-") {
    const pieces: string[] = [];
    for await (const piece of terminal.pieces?.() ?? []) pieces.push(piece);
    return pieces.join("");
  }
  try {
    return await readFile(isAbsolute(file) ? file : join(terminal.cwd, file), "utf8");
  } catch (cause) {
    throw new DrawbridgeError("settings_invalid", `${file} cannot be read.`, { detail: String(cause), cause });
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
