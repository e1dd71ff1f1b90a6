/** `drawbridge dev`: tries a server while it is written. Each change is loaded anew, and a page calls its tools as whoever one wants to be. */
import { existsSync, statSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { DrawbridgeError } from "../core/errors.ts";
import { type Desk, openDesk, REQUESTS } from "./dev/desk.ts";
import { openIssuer } from "./dev/issuer.ts";
import { ERAS } from "./dev/mcp.ts";
import type { Subject } from "./dev/messages.ts";
import { problemOf } from "./dev/problem.ts";
import { type Answers, openSite } from "./dev/site.ts";
import { openVersions, type Versions } from "./dev/versions.ts";
import { type Output, painter, printable, type Terminal } from "./terminal.ts";

const DEFAULT_FILE = "drawbridge.yaml";
const DEFAULT_MODULES = ["server.ts", "server.js", "server.mts", "server.mjs"];

const HELP = `
Give it a server of drawbridge-mcp/author, a settings file, or a folder with one of them; nothing is the folder you are in. It
starts the gateway on this machine only, with the roles, contracts, masks, limits and approvals that would hold in production,
and loads all of it anew when a file changes. A change that cannot be loaded is told, with its place, and the version before
goes on. Records, stand-ins and counts are kept in memory and gone at the end; nothing is exported.

The printed link opens the page, once. There you choose a role, see what it sees, and call: the answer as an agent gets it, what
the handler had returned, which rule decided, the audit record, and the grade of the tools.

$DRAWBRIDGE_DEV_UPSTREAM_TOKEN is what \`context.upstreamToken()\` gives; without it, a token that no API knows.

Examples:
  $ drawbridge dev
  $ drawbridge dev server.ts
  $ drawbridge dev drawbridge.yaml --port 7400
`;

interface DevOptions {
  readonly port: number;
  readonly open?: boolean;
  readonly logLevel: string;
}

export function define(command: Command, terminal: Terminal, rest: readonly string[] | undefined): void {
  command
    .argument("[what]", "a server of drawbridge-mcp/author (.ts, .js), a settings file, or a folder with one of them")
    .option("--port <port>", "port of the page; 0 takes a free one", wholeNumber, 0)
    .option("--open", "show the page in a browser, also without a terminal")
    .option("--no-open", "do not show it")
    .addOption(
      new Option("--log-level <level>", "what the gateway logs")
        .choices(["trace", "debug", "info", "warn", "error", "silent"])
        .default("warn"),
    )
    .addHelpText("after", HELP)
    .action((what: string | undefined, options: DevOptions) => {
      if (rest !== undefined)
        throw usage("A command cannot be tried here. Put the server into a settings file, and name that.");
      return dev(subjectOf(what, terminal.cwd), options, terminal);
    });
}

async function dev(subject: Subject, options: DevOptions, terminal: Terminal): Promise<void> {
  const { stdout, stderr, env, cwd, openBrowser } = terminal;
  const paint = painter(stdout, env);
  // Asked for before the start, so that a signal during it is not lost.
  const stopped = terminal.stopped();
  const made: { versions?: Versions; desk?: Desk } = {};
  const site = await openSite(options.port, ({ origin, tell }) => {
    const issuer = openIssuer(origin, env["DRAWBRIDGE_DEV_UPSTREAM_TOKEN"]);
    const state = () => stateOf(subject, made.versions, cwd);
    const told = telling(stdout, stderr, env);
    const versions = openVersions({
      subject,
      issuer: issuer.place,
      logLevel: options.logLevel,
      env,
      cwd,
      stdout,
      stderr,
      onChange() {
        tell("state", state());
        told(made.versions);
      },
    });
    made.versions = versions;
    const desk = openDesk(versions.current, issuer, (heard) => tell("told", heard));
    made.desk = desk;
    return { issuer, greeting: () => ({ event: "state", data: state() }), answers: answersOf(desk) };
  });
  try {
    stdout.write(
      `\n${paint("bold", "Drawbridge dev")} tries ${placeOf(subject, cwd)}\n\n  ${paint("dim", "Page")}  ${paint(["bold", "cyan"], site.launch)}  ${paint("dim", "(opens once)")}\n\n${paint("dim", "Changes are loaded as they are saved. Ctrl-C stops.")}\n\n`,
    );
    if (options.open ?? stdout.isTTY === true) openBrowser?.(new URL(site.launch));
    await stopped;
    stderr.write("\nStopping.\n");
  } finally {
    await made.desk?.close();
    await made.versions?.close();
    await site.close();
  }
}

function answersOf(desk: Desk): Answers {
  const entries = Object.entries(REQUESTS).map(([name, shape]) => {
    const answer = desk[name as keyof typeof REQUESTS] as (wanted: never) => Promise<object>;
    return [name, { shape, answer }];
  });
  return Object.fromEntries(entries) as Answers;
}

/** What the page shows of the whole. */
function stateOf(subject: Subject, versions: Versions | undefined, cwd: string): object {
  const current = versions?.current();
  return {
    place: placeOf(subject, cwd),
    eras: ERAS,
    loading: versions?.loading ?? true,
    problem: problemOf(versions?.problem()),
    version: current?.number,
    offer: current?.offer,
  };
}

/** Says in the terminal what came of each change, once. */
function telling(stdout: Output, stderr: Output, env: Terminal["env"]): (versions: Versions | undefined) => void {
  const paint = painter(stdout, env);
  const paintError = painter(stderr, env);
  let said = 0;
  let problemSaid: string | undefined;
  return (versions) => {
    if (versions === undefined || versions.loading) return;
    const current = versions.current();
    const problem = versions.problem();
    if (problem !== undefined && problem !== problemSaid) {
      const { message, frame } = problemOf(problem) ?? { message: problem };
      const goesOn = current === undefined ? "" : ` Version ${current.number} goes on.`;
      stderr.write(
        `${paintError("red", "not loaded")}${goesOn}\n${text(message)}\n${frame === undefined ? "" : `${paintError("dim", text(frame.lines.map(({ number, text: line, here }) => `${here ? ">" : " "} ${String(number).padStart(4)}  ${line}`).join("\n")))}\n`}`,
      );
    }
    problemSaid = problem;
    if (current === undefined || current.number === said) return;
    said = current.number;
    const { servers, warnings } = current.offer;
    if (said === 1)
      for (const warning of warnings) stderr.write(`${paintError("yellow", "warning")} ${text(warning)}\n`);
    for (const { name, state, problem: why, tools, resources, prompts } of servers)
      stdout.write(
        `${paint("green", "loaded")} version ${said}: ${printable(name)}, ${state === "ready" ? `${tools.length} tools, ${resources} resources, ${prompts} prompts` : `${state}${why === undefined ? "" : `: ${printable(why, 500)}`}`}\n`,
      );
  };
}

/** More than one line, none of which does anything to the terminal. */
const text = (lines: string) =>
  lines
    .split("\n")
    .map((line) => printable(line, 500))
    .join("\n");

/** The file that is developed. Throws `settings_invalid` when there is none, or it cannot be told which. */
function subjectOf(what: string | undefined, cwd: string): Subject {
  const path = resolve(cwd, what ?? ".");
  const found = statSync(path, { throwIfNoEntry: false });
  if (found === undefined) throw usage(`There is no ${path}.`);
  if (!found.isDirectory()) return /\.m?[jt]s$/.test(path) ? { module: path } : { file: path };
  const file = join(path, DEFAULT_FILE);
  if (existsSync(file)) return { file };
  const module = DEFAULT_MODULES.map((name) => join(path, name)).find((one) => existsSync(one));
  if (module !== undefined) return { module };
  throw usage(
    `There is nothing to try in ${path}: no ${DEFAULT_FILE}, and no ${DEFAULT_MODULES.join(", ")}. \`drawbridge new\` writes a server.`,
  );
}

const placeOf = (subject: Subject, cwd: string) => relative(cwd, "module" in subject ? subject.module : subject.file);

function usage(message: string): DrawbridgeError {
  return new DrawbridgeError("settings_invalid", message);
}

function wholeNumber(text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535)
    throw new InvalidArgumentError("It must be a whole number from 0 to 65535.");
  return Number(text);
}
