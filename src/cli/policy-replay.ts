/** `drawbridge policy replay`: which calls of the past a policy would have decided otherwise. */
import { resolve } from "node:path";
import type { Command } from "commander";
import { type Replay, type ReplayedPolicy, type ReplayRow, replay, UNJUDGED } from "../audit/replay.ts";
import { loadSettings } from "../config/load.ts";
import { readBesidePolicy, readPolicyFile } from "../config/policy-file.ts";
import type { Settings } from "../config/schema.ts";
import { nameOfServed, servesAll, sourceOf } from "../contract/contract.ts";
import { compileUriTemplate } from "../contract/uri-template.ts";
import type { Access } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { compileGlob } from "../core/glob.ts";
import { compilePolicy } from "../policy/engine.ts";
import { stepUpSettings } from "../policy/limit-settings.ts";
import { shadowPolicySettings } from "../policy/settings.ts";
import { moment } from "./audit.ts";
import { evidenceOf } from "./evidence.ts";
import { Ended, EXIT } from "./main.ts";
import { counted, table } from "./office.ts";
import { DEFAULT_FILE, UNREAD, withStore } from "./store.ts";
import { painter, printable, type Terminal } from "./terminal.ts";

interface ReplayCommand {
  readonly since: number;
  readonly until?: number;
  readonly role?: string;
  readonly tool?: string;
  readonly file?: string;
  readonly json?: true;
  readonly failOnFlip?: true;
}

const HELP = `
Every call that is in the audit log is decided again: by the policy of the file, and by the one of drawbridge.yaml where the call was
decided by another one. Listed are those whose decision would be another. The file is a whole settings file, or \`roles\` and \`assign\`
alone; then the rest is as in drawbridge.yaml. Nothing is changed, and no gateway and no server is needed.

What is not in the log is not guessed: calls whose decision takes it are counted, with what is missing. What was sent in a call is
read where this process has the secrets of the gateway.

Exit codes: 0, with --fail-on-flip 1 where the file would change a decision, 2 the log or the settings cannot be read.

Examples:
  $ drawbridge policy replay --since 30d next.yaml
  $ drawbridge policy replay --since 7d --tool cancel_order next.yaml
  $ drawbridge policy replay --since 30d --fail-on-flip --json next.yaml    (in CI)
`;

export function defineReplay(command: Command, terminal: Terminal): void {
  command
    .command("replay")
    .description("list the calls of the past that a policy would have decided otherwise")
    .argument("<policy>", "settings file, or a file with `roles` and `assign`")
    .option("--since <time>", "calls not older than this: 24h, 30d, or a date", moment, moment("30d"))
    .option("--until <time>", "calls older than this: 24h, 7d, or a date", moment)
    .option("--role <name>", "only where this role decides, or did")
    .option("--tool <name>", "only calls of this tool, prompt or resource, as clients name it")
    .option("--file <settings>", "settings file of the gateway")
    .option("--fail-on-flip", "exit with 1 where the file would change a decision")
    .option("--json", "print JSON")
    .addHelpText("after", HELP)
    .action((policy: string, options: ReplayCommand) => run(policy, options, terminal));
}

async function run(name: string, options: ReplayCommand, terminal: Terminal): Promise<void> {
  const { since, until, role, tool, json } = options;
  const file = resolve(terminal.cwd, options.file ?? DEFAULT_FILE);
  const place = { file, store: undefined, readOnly: true };
  let found: Replay | undefined;
  await withStore(place, terminal, async ({ audit, records }, present) => {
    const settings = present ?? (await settingsIn(file, terminal));
    const next = await asked(resolve(terminal.cwd, name), settings, terminal);
    const progress = progressOf(terminal);
    try {
      found = await replay({
        log: audit,
        keys: evidenceOf({ audit, records }, settings, file)?.keys,
        next,
        now: { settings, served: servedBy(settings) },
        asked: (method) => ASKED[method],
        since,
        until,
        target: tool,
        role,
        progress: progress.read,
      });
    } finally {
      progress.over();
    }
  });
  if (found === undefined) return;
  const text = json === true ? JSON.stringify(found, null, 2) : lines(name, found, options, terminal).join("\n");
  terminal.stdout.write(`${text}\n`);
  if (options.failOnFlip === true && changes(found) > 0) throw new Ended(EXIT.failed);
}

/** Decisions that are others by this policy and not only by what was changed since. */
const changes = ({ flips, already, restored }: Replay) => flips - already + restored;

/** What a policy is asked about a request (`gateway/handle-call.ts`, `tasks.ts`, `lists.ts`). Of a task the call that made it is asked. */
export const ASKED: Readonly<Record<string, { readonly method: string; readonly scope: string | undefined }>> = {
  "tools/call": { method: "tools/call", scope: "mcp:call" },
  "prompts/get": { method: "prompts/get", scope: "mcp:read" },
  "resources/read": { method: "resources/read", scope: "mcp:read" },
  "completion/complete": { method: "completion/complete", scope: "mcp:read" },
  "resources/subscribe": { method: "resources/subscribe", scope: undefined },
  "tasks/get": { method: "tools/call", scope: "mcp:call" },
  "tasks/result": { method: "tools/call", scope: "mcp:call" },
  "tasks/cancel": { method: "tools/call", scope: "mcp:call" },
  "tasks/update": { method: "tools/call", scope: "mcp:call" },
};

// ---- the policy that is asked ----

async function asked(file: string, present: Settings, terminal: Terminal): Promise<ReplayedPolicy> {
  try {
    const { servers, stepUp } = await readBesidePolicy(file);
    if (servers !== undefined) {
      const settings = await settingsIn(file, terminal);
      return { settings, served: servedBy(settings) };
    }
    const { roles, assign } = valid(shadowPolicySettings.safeParse(await readPolicyFile(file)));
    const scopes = stepUp === undefined ? present.stepUp : valid(stepUpSettings.safeParse(stepUp));
    compilePolicy(roles, assign, { stepUp: scopes });
    return { settings: { roles, assign, stepUp: scopes }, served: servedBy(present) };
  } catch (thrown) {
    if (thrown instanceof DrawbridgeError) throw thrown;
    const message = `The policy cannot be used: ${(thrown as Error).message}.`;
    throw new DrawbridgeError("settings_invalid", message, { cause: thrown });
  }
}

type Parsed<T> =
  | { readonly success: true; readonly data: T }
  | {
      readonly success: false;
      readonly error: { readonly issues: readonly { path: PropertyKey[]; message: string }[] };
    };

function valid<T>(parsed: Parsed<T>): T {
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new Error(`${issue?.path.join(".") ?? ""}: ${issue?.message ?? "it is wrong"}`);
}

async function settingsIn(file: string, terminal: Terminal): Promise<Settings> {
  const { settings } = await loadSettings(file, { env: terminal.env, readSecret: async () => UNREAD });
  return settings;
}

/**
 * What the settings serve, and what their contracts say it does. A server need not be asked: what was served of it then, it is taken to
 * offer still, under the name that it has by these settings.
 */
function servedBy(settings: Settings): ReplayedPolicy["served"] {
  const { servers } = settings;
  const prefixed = Object.keys(servers).length > 1;
  const contracts = contractsOf(settings);
  return ({ server = "", kind = "", name = "", upstreamName = name }) => {
    if (!Object.hasOwn(servers, server)) return undefined;
    const mine = contracts[kind as keyof typeof contracts];
    if (mine !== undefined) return mine(server, name, upstreamName);
    if (kind === "resource") return { access: undefined };
    return name === (prefixed ? `${server}_${upstreamName}` : upstreamName) ? { access: undefined } : undefined;
  };
}

type Served = (
  server: string,
  name: string,
  upstreamName: string,
) => { readonly access: Access | undefined } | undefined;

/** Undefined: what is of this kind has no contracts, and is served as it is. */
function contractsOf({
  tools,
  resources,
  prompts,
}: Settings): Readonly<Record<"tool" | "resource" | "prompt", Served | undefined>> {
  const all = Object.entries(tools ?? {}).map(([name, contract]) => {
    const { access: effect, openWorld } = contract;
    const access: Access | undefined = effect === undefined ? undefined : { effect, openWorld };
    const { server } = sourceOf(contract.from ?? contract.steps?.[0]?.call ?? "");
    return { name, uri: contract.as?.resource, server, access, offers: offersOf(contract.from) };
  });
  const called = all.filter(({ uri }) => uri === undefined);
  const read = all.flatMap(({ uri, ...rest }) => (uri === undefined ? [] : [{ ...rest, name: uri }]));
  const others = (section: Settings["resources"] | Settings["prompts"]) =>
    Object.entries(section ?? {}).map(([name, { from }]) => ({
      name,
      server: sourceOf(from).server,
      access: undefined,
      offers: offersOf(from),
    }));
  const named = (rows: readonly (typeof read)[number][]): Served => {
    const exact = new Map(rows.filter(({ name }) => !servesAll(name)).map((row) => [row.name, row]));
    const wide = rows.filter(({ name }) => servesAll(name) || name.includes("{"));
    return (server, name, upstreamName) => {
      const row =
        exact.get(name) ??
        wide.find((one) =>
          servesAll(one.name)
            ? one.offers(upstreamName) && nameOfServed(one.name, upstreamName) === name
            : matchesTemplate(one.name, name),
        );
      return row?.server === server ? { access: row.access } : undefined;
    };
  };
  return {
    tool: tools && named(called),
    resource: resources === undefined && read.length === 0 ? undefined : named([...others(resources), ...read]),
    prompt: prompts && named(others(prompts)),
  };
}

const offersOf = (from: string | undefined) => compileGlob(sourceOf(from ?? "").name);

function matchesTemplate(template: string, uri: string): boolean {
  return compileUriTemplate(template) !== undefined && compileGlob(template.replace(/\{[^{}]*\}/g, "*"))(uri);
}

// ---- what is printed ----

function lines(name: string, found: Replay, options: ReplayCommand, terminal: Terminal): readonly string[] {
  const { records, calls, flips, already, restored, rows, unlisted, unjudged } = found;
  const paint = painter(terminal.stdout, terminal.env);
  const span = `${stamp(options.since)} to ${options.until === undefined ? "now" : stamp(options.until)}`;
  const notJudged = unjudged.reduce((sum, one) => sum + one.calls, 0);
  const head = [
    `${printable(name)}, ${span}: ${counted(calls, "call")} in ${counted(records, "record")}, ${flips} of them decided otherwise`,
    ...(already > 0 ? [`${already} of these are so by the policy of today, too.`] : []),
    ...(restored > 0
      ? [`${counted(restored, "call")} the policy of today decides otherwise, and this one as it was.`]
      : []),
  ];
  const listed =
    rows.length === 0
      ? []
      : table(
          ["ROLE", "WHAT", "WAS", "NOW", "THEN", "CALLS", "FIRST", "LAST", "BY", "E.G."],
          rows.map(cells),
          terminal,
        );
  const more = unlisted > 0 ? [`and ${counted(unlisted, "call")} in further rows`] : [];
  const missing =
    notJudged === 0
      ? []
      : [
          paint("yellow", `${counted(notJudged, "call")} could not be judged:`),
          ...unjudged.map(
            ({ reason, calls: its, examples }) =>
              `  ${its}  ${UNJUDGED[reason]}, e.g. ${printable(examples.at(-1) ?? "")}`,
          ),
        ];
  return [...head, ...listed, ...more, ...missing];
}

function cells({ role, kind, name, was, now, next, calls, first, last, rule, examples }: ReplayRow): readonly string[] {
  const what = kind === "tool" ? name : `${kind}:${name}`;
  return [
    role === "" ? "-" : printable(role),
    printable(what, 100),
    was,
    now,
    next,
    String(calls),
    stamp(Date.parse(first)),
    stamp(Date.parse(last)),
    rule === undefined ? (next === "step-up" ? "the token's scopes" : "no rule permits it") : printable(rule),
    printable(examples.at(-1) ?? ""),
  ];
}

/** UTC, to the minute. */
const stamp = (ms: number) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");

/** Says on a terminal how far it is, once it takes longer than a second. */
function progressOf({ stderr }: Terminal, clock: () => number = () => performance.now()) {
  const began = clock();
  let said = began;
  return {
    read(records: number): void {
      const now = clock();
      if (stderr.isTTY !== true || now - began < 1000 || now - said < 200) return;
      said = now;
      stderr.write(
        `\r${records.toLocaleString("en")} records, ${Math.round((records * 1000) / (now - began)).toLocaleString("en")} a second `,
      );
    },
    over(): void {
      if (said !== began) stderr.write("\r\u001b[K");
    },
  };
}
