/** `drawbridge servers`: the servers behind a running gateway, over its control socket, or from afar with a token. */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { Command } from "commander";
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { ServerView } from "../gateway/admin.ts";
import { askControl, type ControlAnswer, controlSocketOf } from "../gateway/control.ts";
import type { Change } from "../gateway/reload.ts";
import { controlSettings } from "../gateway/settings.ts";
import { trusted } from "../net/trusted.ts";
import { Ended, EXIT } from "./main.ts";
import { counted, facts, table } from "./office.ts";
import { DEFAULT_FILE, DEFAULT_STORE, settingsOf } from "./store.ts";
import { printable, type Terminal } from "./terminal.ts";

export interface ServersOptions {
  readonly file?: string;
  readonly socket?: string;
  readonly url?: string;
  readonly stderr?: true;
  readonly json?: true;
}

const TOKEN = "DRAWBRIDGE_TOKEN";

const HELP = `
On the gateway's own machine its control socket is asked, as the user that the gateway runs as: the one of the settings
file (./${DEFAULT_FILE} when it is there), or .drawbridge/control.sock here. From elsewhere name the gateway with --url and
put an access token of somebody in the group owner into ${TOKEN}. Each change is in the audit log, with your name.

Examples:
  $ drawbridge servers
  $ drawbridge servers show orders
  $ drawbridge servers restart orders      (a new one beside the old, which finishes its calls)
  $ drawbridge servers drain orders        (no new calls; "resume" takes them again)
  $ drawbridge servers reload              (what changed in the settings file)
  $ ${TOKEN}=… drawbridge servers list --url https://mcp.example.com
`;

export function define(command: Command, terminal: Terminal): void {
  command.addHelpText("after", HELP);
  const add = (name: string, description: string, options: { isDefault?: boolean } = {}) =>
    reaching(command.command(name, options).description(description)).addHelpText("after", HELP);
  const server = ["<server>", "its name in the settings"] as const;

  add("list", "print the servers and how they are", { isDefault: true }).action((options: ServersOptions) =>
    list(options, terminal),
  );
  add("show", "print one server, with the newest lines of its stderr")
    .argument(...server)
    .action((name: string, options: ServersOptions) => show(name, options, terminal));
  for (const [verb, { description, done }] of Object.entries(DEEDS))
    add(verb, description)
      .argument(...server)
      .action((name: string, options: ServersOptions) => act(verb, done, name, options, terminal));
  add("reload", "read the settings file again and take what changed").action((options: ServersOptions) =>
    reload(options, terminal),
  );
}

/** Options of a command that asks a running gateway. */
export function reaching(command: Command): Command {
  return command
    .option("--file <settings>", "settings file of the gateway")
    .option("--socket <path>", "its control socket")
    .option("--url <url>", `its public URL; the token comes from ${TOKEN}`)
    .option("--json", "print JSON");
}

const DEEDS = {
  restart: {
    description: "put a new one in place without a failed call",
    done: ({ name, generation }: ServerView) =>
      `restarted ${name}: version ${generation} has taken over, and the one before it finishes its calls`,
  },
  drain: {
    description: "take no new calls; those under way are finished",
    done: ({ name, inFlight }: ServerView) =>
      `${name} takes no new calls; ${inFlight === 0 ? "none is under way" : `${counted(inFlight, "call")} under way`}`,
  },
  resume: {
    description: "take calls again after a drain",
    done: ({ name }: ServerView) => `${name} takes calls again`,
  },
} as const;

interface Listed {
  readonly servers: readonly ServerView[];
  readonly withheld: readonly unknown[];
  readonly lostSecrets: Readonly<Record<string, string>>;
}

async function list(options: ServersOptions, terminal: Terminal): Promise<void> {
  const listed = (await asked("GET", "/admin/servers", options, terminal)) as Listed;
  const lines = table(
    ["SERVER", "STATE", "SIZE", "CALLS", "QUEUE", "RESTARTS", "VERSION", "SINCE"],
    listed.servers.map((server) => [
      server.name,
      stateOf(server),
      String(server.size),
      String(server.inFlight),
      String(server.queued),
      String(server.restarts),
      String(server.generation),
      when(server.since),
    ]),
    terminal,
  );
  const problems = listed.servers.flatMap(({ name, problem, refused }) => [
    ...(problem === undefined ? [] : [`${name}: ${problem}`]),
    ...(refused === undefined ? [] : [`${name}: ${refused}`]),
  ]);
  const lost = Object.entries(listed.lostSecrets).map(([name, why]) => `${why} (${name}: its last value is used)`);
  const held = listed.withheld.length;
  const notes = [
    ...problems,
    ...lost,
    ...(held === 0 ? [] : [`${counted(held, "definition")} held back: drawbridge pins`]),
  ].map((note) => printable(note, 500));
  write(listed, [...lines, ...(notes.length === 0 ? [] : ["", ...notes])], options, terminal);
}

async function show(name: string, options: ServersOptions, terminal: Terminal): Promise<void> {
  const server = (await asked("GET", `${pathOf(name)}?stderr`, options, terminal)) as ServerView;
  const { stderr = [] } = server;
  const lines = facts(
    {
      name: server.name,
      state: stateOf(server),
      problem: server.problem,
      "not replaced": server.refused,
      version: `${server.generation}, since ${when(server.since)}`,
      "still ending": server.finishing === 0 ? undefined : counted(server.finishing, "former version"),
      size: String(server.size),
      instances: server.instances === undefined ? undefined : String(server.instances),
      calls: `${server.inFlight} under way, ${server.queued} waiting`,
      restarts: String(server.restarts),
      sandbox: server.sandbox,
    },
    terminal,
  );
  const said = stderr.map((line) => `  ${printable(line, 500)}`);
  write(server, [...lines, ...(said.length === 0 ? [] : ["", "It said last:", ...said])], options, terminal);
}

async function act(
  verb: string,
  done: (server: ServerView) => string,
  name: string,
  options: ServersOptions,
  terminal: Terminal,
): Promise<void> {
  const server = (await asked("POST", `${pathOf(name)}/${verb}`, options, terminal)) as ServerView;
  write(server, [done(server)], options, terminal);
}

const SAID = {
  added: "added",
  removed: "removed; it finishes its calls",
  replaced: "replaced; the one before it finishes its calls",
  changed: "changed, and counts from now on",
  kept: "kept as it was",
  restart: "counts after a restart of the gateway",
} as const satisfies Record<Change["change"], string>;

async function reload(options: ServersOptions, terminal: Terminal): Promise<void> {
  const answer = (await asked("POST", "/admin/reload", options, terminal)) as { readonly changes: readonly Change[] };
  const lines = answer.changes.map(
    ({ setting, change, problem }) =>
      `${printable(setting)}: ${SAID[change]}${problem === undefined ? "" : `. ${printable(problem, 500)}`}`,
  );
  write(answer, lines.length === 0 ? ["nothing has changed"] : lines, options, terminal);
  if (answer.changes.some(({ change }) => change === "kept")) throw new Ended(EXIT.failed);
}

/** Asks the gateway. Throws what it refused with, and `upstream_unavailable` when none answers. */
export async function asked(
  method: "GET" | "POST",
  target: string,
  options: ServersOptions,
  terminal: Terminal,
  /** JSON; only the socket takes one. */
  sent?: string,
): Promise<unknown> {
  const { status, body } =
    options.url === undefined
      ? await askControl(await socketOf(options, terminal), method, target, sent)
      : await askAfar(options.url, method, target, terminal);
  if (status === 200) return body;
  const { message } = ((body as { error?: unknown } | null)?.error ?? {}) as { message?: unknown };
  const said = typeof message === "string" ? message : `The gateway answered with ${status}.`;
  const code = status === 422 ? "settings_invalid" : status === 401 ? "unauthenticated" : "upstream_failed";
  throw new DrawbridgeError(code, options.url !== undefined && status === 404 ? `${said} ${NOT_OWNER}` : said);
}

const NOT_OWNER = "(Those who are not in the group owner are told the same.)";

async function socketOf({ file, socket }: ServersOptions, terminal: Terminal): Promise<string> {
  if (socket !== undefined) return resolve(terminal.cwd, socket);
  const folder = dirname(resolve(terminal.cwd, file ?? DEFAULT_FILE));
  let found: Settings | undefined;
  try {
    found = await settingsOf({ file, store: undefined }, terminal);
  } catch (thrown) {
    // The gateway that runs has read a file without the mistakes, and is the one to ask what they are.
    const usual = join(folder, dirname(DEFAULT_DATABASE), "control.sock");
    if (existsSync(usual)) return usual;
    throw thrown;
  }
  // Without a file the gateway was started with the defaults of `serve -- command`.
  const settings = found ?? {
    control: controlSettings.parse({}),
    store: `sqlite:${resolve(terminal.cwd, DEFAULT_DATABASE)}`,
  };
  const path = controlSocketOf(settings, folder, found !== undefined, terminal.platform);
  if (path !== undefined) return path;
  throw new DrawbridgeError(
    "settings_invalid",
    "The gateway of these settings has no control socket (control.socket). Name it with --url, or give it a socket.",
  );
}

const DEFAULT_DATABASE = DEFAULT_STORE.slice("sqlite:".length);
const ASK_MS = 120_000;

async function askAfar(url: string, method: "GET" | "POST", target: string, { env }: Terminal): Promise<ControlAnswer> {
  const token = env[TOKEN];
  if (token === undefined || token === "")
    throw new DrawbridgeError("settings_invalid", `With --url an access token of an owner is needed, in ${TOKEN}.`);
  if (!URL.canParse(url)) throw new DrawbridgeError("settings_invalid", "--url must be the gateway's public URL.");
  const base = url.replace(/\/(mcp\/?)?$/, "");
  const net = trusted({ maxBytes: 16 << 20, timeoutMs: ASK_MS });
  try {
    const answer = await net.fetch(`${base}${target}`, { method, headers: { authorization: `Bearer ${token}` } });
    const text = await answer.text();
    try {
      return { status: answer.status, body: JSON.parse(text) };
    } catch {
      return { status: answer.status, body: undefined };
    }
  } finally {
    await net.close();
  }
}

function write(value: unknown, lines: readonly string[], { json }: ServersOptions, terminal: Terminal): void {
  terminal.stdout.write(`${json === true ? JSON.stringify(value, null, 2) : lines.join("\n")}\n`);
}

const stateOf = ({ state, draining }: ServerView) => (draining && state === "ready" ? "draining" : state);

const when = (iso: string) => iso.slice(0, 16).replace("T", " ");

/** A name of the settings needs no escape; anything else is told as what does not exist. */
const pathOf = (name: string) => `/admin/servers/${encodeURIComponent(name)}`;
