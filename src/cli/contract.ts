/** `drawbridge contract`: runs the examples of contracts, and reads their documentation as a model would. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import type { Command } from "commander";
import { type LoadedSettings, loadSettings } from "../config/load.ts";
import {
  type Contract,
  type ContractProblem,
  type ContractSettings,
  compileContract,
  compileOutcome,
  isContract,
  type OutcomeSettings,
  servesAll,
  sourceOf,
} from "../contract/contract.ts";
import { type Definition, type DefinitionKind, pinOf, readDefinition } from "../contract/definition.ts";
import { type DocumentFinding, lintDocumentation } from "../contract/document.ts";
import { checkExample, type Mismatch } from "../contract/examples.ts";
import type { StepSettings, ToolContractSettings } from "../contract/settings.ts";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { lockPath, readLockFile } from "../gateway/lock.ts";
import { compileExpression } from "../policy/expressions.ts";
import type { ListName } from "../upstream/upstream.ts";
import { type Look, openLook } from "./look.ts";
import { Ended, EXIT } from "./main.ts";
import { counted } from "./office.ts";
import { type Painter, painter, printable, type Terminal } from "./terminal.ts";

const DEFAULT_FILE = "drawbridge.yaml";

const HELP = `
For each contract: does it fit what the server offers, do its examples come about, and is its documentation complete? An example
says what the server gets of a client's arguments (\`sends\`), or why they are refused (\`refused\`), and what the client gets
(\`returns\`) of an answer (\`answer\`).

Definitions come from the lockfile when there is one, else from the servers, which are started for it. With --live the servers
answer, too: the examples of tools that only read are called, and each answer must be of the form that the contract says.

Exit codes: 0 all is well (findings about documentation are advice, unless --strict), 1 something is not, 2 wrong usage or settings.

Examples:
  $ drawbridge contract test
  $ drawbridge contract test drawbridge.yaml --live
  $ drawbridge contract test --strict --json
`;

interface TestOptions {
  readonly live?: true;
  readonly fresh?: true;
  readonly strict?: true;
  readonly json?: true;
}

export function define(command: Command, terminal: Terminal): void {
  command
    .command("test")
    .argument("[file]", "settings file", DEFAULT_FILE)
    .description("run the examples of each contract, and read its documentation")
    .option("--live", "call tools that only read, in place of the answers in the examples")
    .option("--fresh", "read definitions from the servers, although there is a lockfile")
    .option("--strict", "findings about documentation fail, too")
    .option("--json", "print JSON")
    .addHelpText("after", HELP)
    .action((file: string, options: TestOptions) => test(file, options, terminal));
}

interface Report {
  readonly kind: DefinitionKind;
  readonly name: string;
  readonly problems: readonly ContractProblem[];
  readonly examples: readonly ExampleReport[];
  readonly findings: readonly DocumentFinding[];
}
interface ExampleReport {
  readonly number: number;
  readonly mismatches: readonly Mismatch[];
  /** Why it was not run. */
  readonly skipped: string | undefined;
}

async function test(file: string, options: TestOptions, terminal: Terminal): Promise<void> {
  const loaded = await loadSettings(resolve(terminal.cwd, file), { env: terminal.env });
  const { tools, resources, prompts } = loaded.settings;
  if (tools === undefined && resources === undefined && prompts === undefined)
    throw new DrawbridgeError(
      "settings_invalid",
      `${file} has no contracts (tools:, resources:, prompts:). \`drawbridge init\` proposes some.`,
    );
  await using look = openLook(loaded, terminal);
  const definitions = await definitionsOf(loaded, options, look, terminal);
  const reports: Report[] = [];
  for (const [name, settings] of Object.entries(tools ?? {}))
    if (!servesAll(name)) reports.push(await toolReport(name, settings, definitions, loaded, options, look));
  for (const [section, kinds] of Object.entries(OTHERS) as [keyof typeof OTHERS, readonly DefinitionKind[]][]) {
    for (const [name, settings] of Object.entries(loaded.settings[section] ?? {})) {
      if (servesAll(name)) continue;
      const definition = kinds.map((kind) => definitions.find(kind, settings.from)).find((one) => one !== undefined);
      const made = definition === undefined ? missing : await compileContract(name, settings, definition);
      const problems = isContract(made) ? [] : made;
      reports.push({ kind: kinds[0] ?? "prompt", name, problems, examples: [], findings: [] });
    }
  }
  const ok = reports.every((report) => succeeded(report, options.strict === true));
  if (options.json === true) terminal.stdout.write(`${JSON.stringify({ ok, contracts: reports }, null, 2)}\n`);
  else terminal.stdout.write(`${textOf(reports, definitions.from, terminal).join("\n")}\n`);
  if (!ok) throw new Ended(EXIT.failed);
}

const OTHERS = { resources: ["resource", "resourceTemplate"], prompts: ["prompt"] } as const;
const missing: readonly ContractProblem[] = [{ path: ["from"], message: "the server does not offer it" }];

// ---- definitions ----

interface Definitions {
  /** Where they were read, for people. */
  readonly from: string;
  /** `from`: `server/name`. */
  find(kind: DefinitionKind, from: string): Definition | undefined;
  /** What the servers call their tools. */
  readonly toolNames: readonly string[];
}

const LISTS = {
  tools: "tool",
  resources: "resource",
  resourceTemplates: "resourceTemplate",
  prompts: "prompt",
} as const satisfies Record<ListName, DefinitionKind>;

async function definitionsOf(
  loaded: LoadedSettings,
  { fresh, live }: TestOptions,
  look: Look,
  terminal: Terminal,
): Promise<Definitions> {
  const { settings, folder, file } = loaded;
  const place = { settings: settings.lock, folder, beside: file !== undefined };
  const path = lockPath(place);
  const locked = fresh !== true && path !== undefined && existsSync(path) ? await readLockFile(place) : undefined;
  const found = new Map<string, Definition>();
  const names: string[] = [];
  const keep = (definition: Definition) => {
    found.set(`${definition.kind}\n${definition.server}/${definition.name}`, definition);
    if (definition.kind === "tool") names.push(definition.name);
  };
  const read: string[] = [];
  for (const server of serversIn(settings)) {
    const entries = locked?.get(server);
    if (entries !== undefined) {
      for (const { kind, name, value } of entries.values())
        if (kind !== "server") keep({ server, kind, name, value, text: JSON.stringify(value) });
      continue;
    }
    const paint = painter(terminal.stderr, terminal.env);
    if (terminal.stderr.isTTY === true) terminal.stderr.write(paint("dim", `Reading what ${server} offers …\n`));
    read.push(server);
    const offered = await look.offered(server);
    for (const [list, kind] of Object.entries(LISTS) as [ListName, DefinitionKind][]) {
      for (const value of offered[list]) {
        const definition = readDefinition(server, kind, JSON.stringify(value));
        if (definition !== undefined) keep(definition);
      }
    }
  }
  const from = [
    ...(locked === undefined ? [] : [`the lockfile${live === true ? " (answers from the servers)" : ""}`]),
    ...(read.length === 0 ? [] : [read.join(", ")]),
  ].join(" and ");
  return { from, find: (kind, of) => found.get(`${kind}\n${of}`), toolNames: names };
}

/** Servers that a contract is about, other than to serve all of them as it is: no other needs to be started. */
function serversIn({ servers, tools, resources, prompts }: LoadedSettings["settings"]): readonly string[] {
  const contracts = [tools, resources, prompts].flatMap((section) => Object.entries(section ?? {}));
  const named = new Set(
    contracts
      .filter(([name]) => !servesAll(name))
      .flatMap(([, contract]) => [
        ...(contract.from === undefined ? [] : [contract.from]),
        ...stepsOf(contract).flatMap(({ call, undo }) => [call, ...(undo === undefined ? [] : [undo.call])]),
      ])
      .map((from) => sourceOf(from).server),
  );
  return Object.keys(servers).filter((server) => named.has(server));
}

const stepsOf = (contract: ContractSettings): readonly StepSettings[] =>
  "steps" in contract ? (contract.steps ?? []) : [];

// ---- tools ----

async function toolReport(
  name: string,
  settings: ToolContractSettings,
  definitions: Definitions,
  { settings: all }: LoadedSettings,
  { live }: TestOptions,
  look: Look,
): Promise<Report> {
  const made = await compiled(name, settings, definitions);
  if (!isContract(made)) return { kind: "tool", name, problems: made, examples: [], findings: [] };
  const hiddenNames = definitions.toolNames.filter((one) => !Object.hasOwn(all.tools ?? {}, one));
  const findings = lintDocumentation({
    name,
    title: settings.title,
    description: settings.description,
    inputSchema: made.narrowing?.served ?? {},
    hiddenNames,
  });
  const examples: ExampleReport[] = [];
  for (const [at, example] of settings.examples.entries()) {
    const answered = live === true && example.refused === undefined;
    const skipped = answered && made.access !== "read" ? "it does more than read" : undefined;
    const mismatches = skipped === undefined ? await checkExample(made, example, answered ? look.call : undefined) : [];
    examples.push({ number: at + 1, mismatches, skipped });
  }
  return { kind: "tool", name, problems: [], examples, findings };
}

function compiled(
  name: string,
  settings: ToolContractSettings,
  { find }: Definitions,
): Promise<Contract | readonly ContractProblem[]> {
  if (settings.from !== undefined) {
    const definition = find("tool", settings.from);
    return definition === undefined ? Promise.resolve(missing) : compileContract(name, settings, definition);
  }
  return compileOutcome(name, settings as OutcomeSettings, {
    compile: compileExpression,
    find(server, tool) {
      const definition = find("tool", `${server}/${tool}`);
      return definition && { value: definition.value, pin: pinOf(definition) };
    },
  });
}

function succeeded({ problems, examples, findings }: Report, strict: boolean): boolean {
  return (
    problems.length === 0 &&
    examples.every(({ mismatches }) => mismatches.length === 0) &&
    !(strict && findings.length > 0)
  );
}

// ---- text ----

const WIDTH = 80;

function textOf(reports: readonly Report[], from: string, terminal: Terminal): readonly string[] {
  const paint = painter(terminal.stdout, terminal.env);
  const lines = from === "" ? [] : [paint("dim", `Definitions from ${from}.`), ""];
  const longest = Math.min(40, Math.max(0, ...reports.map(({ name }) => name.length)));
  for (const report of reports) {
    const { name, problems, examples, findings } = report;
    const failed = examples.filter(({ mismatches }) => mismatches.length > 0);
    const skipped = examples.filter((one) => one.skipped !== undefined).length;
    const good = succeeded(report, false);
    const count =
      problems.length > 0
        ? "does not fit its server"
        : failed.length > 0
          ? `${failed.length} of ${counted(examples.length, "example")} did not come about`
          : examples.length === 0
            ? report.kind === "tool"
              ? "no example"
              : "fits"
            : `${counted(examples.length, "example")}${skipped > 0 ? `, ${skipped} not called` : ""}`;
    lines.push(
      `${paint(good ? "green" : "red", good ? "✓" : "✗")} ${printable(name).padEnd(longest)}  ${paint("dim", count)}`,
    );
    for (const { path, message } of problems) lines.push(...wrapped(`${placed(path)}${message}`, "    "));
    for (const { number, mismatches } of failed)
      for (const mismatch of mismatches) lines.push(...difference(number, mismatch, paint));
    for (const advice of shortly(findings)) lines.push(...wrapped(advice, `  ${paint("yellow", "!")} `, "    "));
  }
  return [...lines, "", summary(reports)];
}

const IN_SHORT: Partial<Record<DocumentFinding["rule"], string>> = {
  what: "what it does",
  when: "when to use it",
  "when-not": "when not",
  returns: "what comes back",
  limits: "its limits",
};

/** What several findings have in common is said once. */
function shortly(findings: readonly DocumentFinding[]): readonly string[] {
  const parts = findings.flatMap(({ rule }) => IN_SHORT[rule] ?? []);
  const bare = findings.filter(({ rule }) => rule === "argument").map(({ path }) => path[1] ?? "");
  const others = findings.filter(({ rule }) => IN_SHORT[rule] === undefined && rule !== "argument");
  return [
    ...(parts.length === 0 ? [] : [`description: does not say ${parts.join(", ")}`]),
    ...others.map(({ path, message }) => `${placed(path)}${message}`),
    ...(bare.length === 0 ? [] : [`input: ${bare.join(", ")} ${bare.length === 1 ? "needs" : "need"} a description`]),
  ];
}

function summary(reports: readonly Report[]): string {
  const examples = reports.flatMap((report) => report.examples);
  const bad = examples.filter(({ mismatches }) => mismatches.length > 0).length;
  const unfit = reports.filter(({ problems }) => problems.length > 0).length;
  const findings = reports.flatMap((report) => report.findings).length;
  const parts = [
    counted(reports.length, "contract"),
    `${counted(examples.length, "example")}${bad > 0 ? ` (${bad} failed)` : ""}`,
    ...(unfit > 0 ? [`${unfit} that ${unfit === 1 ? "does" : "do"} not fit`] : []),
    ...(findings > 0 ? [`${counted(findings, "finding")} about documentation`] : []),
  ];
  return `${parts.join(", ")}.`;
}

const placed = (path: readonly string[]) => (path.length === 0 ? "" : `${path.join(".")}: `);

/** The lines of what was expected and of what was found that are not in both. */
function difference(number: number, { about, expected, found }: Mismatch, paint: Painter): readonly string[] {
  const head = `    example ${number}, ${about}:`;
  if (expected === undefined) return [head, ...wrapped(String(found), "      ")];
  const [wanted, got] = [linesOf(expected), linesOf(found)];
  return [
    head,
    ...wanted.filter((line) => !got.includes(line)).map((line) => `      ${paint("red", `- ${short(line)}`)}`),
    ...got.filter((line) => !wanted.includes(line)).map((line) => `      ${paint("green", `+ ${short(line)}`)}`),
  ];
}

/** One line for each scalar, with its path. */
function linesOf(value: JsonValue, path = ""): readonly string[] {
  if (typeof value !== "object" || value === null) return [`${path === "" ? "" : `${path}: `}${JSON.stringify(value)}`];
  const entries = Object.entries(value as JsonObject);
  if (entries.length === 0) return [`${path === "" ? "" : `${path}: `}${Array.isArray(value) ? "[]" : "{}"}`];
  return entries.flatMap(([key, one]) => linesOf(one as JsonValue, path === "" ? key : `${path}/${key}`));
}

const short = (line: string) => {
  const text = printable(line, 1000);
  return text.length > WIDTH - 8 ? `${text.slice(0, WIDTH - 9)}…` : text;
};

function wrapped(text: string, first: string, rest = first): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of printable(text, 2000).split(" ")) {
    if (line !== "" && line.length + word.length + rest.length + 1 > WIDTH) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  lines.push(line);
  return lines.map((one, at) => `${at === 0 ? first : rest}${one}`);
}
