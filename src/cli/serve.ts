/** `drawbridge serve`: starts the gateway and tells how to use it. */
import { existsSync } from "node:fs";
import { userInfo } from "node:os";
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { isLoopback } from "../config/checks.ts";
import { settingsForCommand, settingsForModule, settingsForUrl } from "../config/defaults.ts";
import { type LoadedSettings, loadSettings, type Overrides } from "../config/load.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Actor } from "../gateway/deeds.ts";
import type { RunningGateway } from "../gateway/gateway.ts";
import { painter, printable, type Terminal } from "./terminal.ts";

const DEFAULT_FILE = "drawbridge.yaml";

const HELP = `
Without a file the defaults are safe: loopback only, local users, SQLite under ./.drawbridge/, every definition of the
server pinned at first sight, and only the signed-in owner may call. The first start prints a one-time link that makes
the owner's account. Ctrl-C lets calls in flight finish; a second one ends at once.

Examples:
  $ drawbridge serve -- npx -y @modelcontextprotocol/server-filesystem ./docs
  $ drawbridge serve -- uvx mcp-server-git --repository .
  $ drawbridge serve --url http://127.0.0.1:9000/mcp --port 8080
  $ drawbridge serve drawbridge.yaml
  $ drawbridge serve server.ts  (written with drawbridge-mcp/author, in this process)
  $ drawbridge serve            (reads ./${DEFAULT_FILE})

Changes of the file are taken as it is saved, without a restart and without a failed call; with "control.watch: false"
on SIGHUP, or by "drawbridge servers reload", alone. A file with a mistake changes nothing. Some settings need a
restart, and the log says so.
`;

interface ServeOptions {
  readonly url?: string;
  readonly port?: number;
  readonly host?: string;
  readonly publicUrl?: string;
  readonly logLevel?: string;
  readonly allowRegistration?: true;
  readonly watch?: true;
}

export function define(command: Command, terminal: Terminal, rest: readonly string[] | undefined): void {
  command
    .argument(
      "[file]",
      "settings file, or a server of drawbridge-mcp/author (.ts, .js); or, after --, the command that starts a stdio server",
    )
    .option("--url <url>", "serve an MCP server that speaks Streamable HTTP")
    .option("--port <port>", "port to listen on; 0 takes a free one (default 7337)", wholeNumber)
    .option("--host <address>", "address to listen on (default 127.0.0.1)")
    .option("--public-url <url>", "where clients reach the gateway")
    .option("--allow-registration", "let clients register themselves (RFC 7591), for those without a metadata document")
    .option("--watch", "take changes of the settings file as they are saved, whatever it says itself")
    .addOption(
      new Option("--log-level <level>", "what to log").choices(["trace", "debug", "info", "warn", "error", "silent"]),
    )
    .addHelpText("after", HELP)
    .action((file: string | undefined, options: ServeOptions) => serve(file, options, rest, terminal));
}

async function serve(
  file: string | undefined,
  options: ServeOptions,
  rest: readonly string[] | undefined,
  terminal: Terminal,
): Promise<void> {
  const settings = await chosenSettings(file, options, rest, terminal);
  const paintError = painter(terminal.stderr, terminal.env);
  for (const warning of settings.warnings) terminal.stderr.write(`${paintError("yellow", "warning")} ${warning}\n`);
  // Asked for before the start, so that a signal during it is not lost.
  const stopped = terminal.stopped();
  if (options.watch === true && settings.file === undefined) throw usage("--watch needs a settings file.");
  let running: RunningGateway | undefined;
  const reload = (by: Actor) => {
    // What changed before the start was over is read by it, or by the next wish.
    running?.reload(by).catch((thrown: unknown) => {
      terminal.stderr.write(
        `${paintError("red", "not reloaded")} Nothing was changed:\n${DrawbridgeError.from(thrown).message}\n`,
      );
    });
  };
  terminal.hungUp?.(() => reload({ kind: "operator", name: userInfo().username, via: "signal" }));
  const gateway = await terminal.startGateway({ settings, environment: terminal.env });
  running = gateway;
  try {
    if (terminal.stderr.isTTY === true) terminal.stderr.write(paintError("dim", "Reading what the servers offer …\n"));
    const started = await Promise.race([gateway.ready.then(() => true), stopped.then(() => false)]);
    if (started) {
      // Records and nothing else, where they are collected from there.
      const records = settings.settings.audit.export.some(({ stdout }) => stdout !== undefined);
      (records ? terminal.stderr : terminal.stdout).write(await welcome(gateway, settings, terminal));
      await stopped;
    }
    terminal.stderr.write("\nStopping: letting calls in flight finish. Once more ends at once.\n");
  } finally {
    await gateway.close();
  }
}

function chosenSettings(
  file: string | undefined,
  options: ServeOptions,
  rest: readonly string[] | undefined,
  terminal: Terminal,
): Promise<LoadedSettings> {
  const given = [file, options.url, rest].filter((one) => one !== undefined);
  if (given.length > 1) throw usage("Give one of: a settings file, --url, or a command after --.");
  const overrides: Overrides = {
    "--port": { path: ["listen", "port"], value: options.port },
    "--host": { path: ["listen", "host"], value: options.host },
    "--public-url": { path: ["publicUrl"], value: options.publicUrl },
    "--log-level": { path: ["log", "level"], value: options.logLevel },
    "--watch": { path: ["control", "watch"], value: options.watch },
    "--allow-registration": {
      path: ["clients", "registration"],
      value: options.allowRegistration === true ? "open" : undefined,
    },
  };
  const load = { env: terminal.env, overrides };
  if (rest !== undefined) {
    if (rest.length === 0)
      throw usage("A command is missing after --, e.g. drawbridge serve -- npx -y @modelcontextprotocol/server-memory");
    return settingsForCommand(rest, terminal.cwd, load);
  }
  if (file !== undefined && /\.m?[jt]s$/.test(file)) return settingsForModule(file, terminal.cwd, load);
  if (options.url !== undefined) return settingsForUrl(options.url, terminal.cwd, load);
  if (file === undefined && !existsSync(resolve(terminal.cwd, DEFAULT_FILE))) {
    throw usage(`Nothing to serve: there is no ${DEFAULT_FILE} here. Try one of
  drawbridge serve -- npx -y @modelcontextprotocol/server-memory
  drawbridge serve --url http://127.0.0.1:9000/mcp
  drawbridge import claude --output ${DEFAULT_FILE}`);
  }
  return loadSettings(resolve(terminal.cwd, file ?? DEFAULT_FILE), load);
}

function usage(message: string): DrawbridgeError {
  return new DrawbridgeError("settings_invalid", message);
}

function wholeNumber(text: string): number {
  if (!/^\d{1,5}$/.test(text)) throw new InvalidArgumentError("It must be a whole number from 0 to 65535.");
  return Number(text);
}

const MAX_TOOLS_SHOWN = 24;

/** Everything a user needs to go on: addresses, what is served, how to connect. */
async function welcome(gateway: RunningGateway, { settings }: LoadedSettings, terminal: Terminal): Promise<string> {
  const paint = painter(terminal.stdout, terminal.env);
  const mcpUrl = gateway.url;
  const base = gateway.publicUrl.replace(/\/$/, "");
  const servers = gateway.servers();
  const setup = await gateway.setupLink();
  const lines = ["", `${paint("bold", "Drawbridge")} is up.`, ""];
  const row = (label: string, value: string) => lines.push(`  ${paint("dim", label.padEnd(10))} ${value}`);
  row("MCP URL", paint(["bold", "cyan"], mcpUrl));
  if (setup !== undefined)
    row("Set up", `${paint(["bold", "green"], setup)}  ${paint("dim", "(once: makes the owner's account)")}`);
  row(
    "Account",
    `${base}/account  ${paint("dim", "(consents and clients; consent itself is asked when a client connects)")}`,
  );
  row("Health", `${base}/health  ${paint("dim", "(/ready, /metrics)")}`);

  lines.push(
    "",
    `${paint("bold", "Served")} ${paint("dim", "– definitions pinned at first sight; a later change is held back until it is accepted")}`,
  );
  for (const server of servers) {
    const counts = [
      count(server.tools.length, "tool"),
      count(server.resources, "resource"),
      count(server.prompts, "prompt"),
    ].filter((one) => one !== "");
    const healthy = server.state === "ready";
    lines.push(
      `  ${paint(healthy ? "green" : "red", healthy ? "●" : "○")} ${paint("bold", server.name)}  ${healthy ? counts.join(", ") || "offers nothing" : `${server.state}${server.problem === undefined ? "" : `: ${printable(server.problem)}`}`}`,
    );
    const names = server.tools.slice(0, MAX_TOOLS_SHOWN).map((name) => printable(name));
    if (server.tools.length > MAX_TOOLS_SHOWN) names.push(`and ${server.tools.length - MAX_TOOLS_SHOWN} more`);
    if (names.length > 0) lines.push(...wrapped(names, 100).map((line) => paint("dim", `      ${line}`)));
  }
  const withheld = gateway.withheld();
  if (withheld.length > 0) lines.push("", paint("yellow", `Held back: ${count(withheld.length, "definition")}`));
  for (const one of withheld.slice(0, MAX_TOOLS_SHOWN))
    lines.push(`  ${one.server} ${one.kind} ${printable(one.name)}: ${printable(one.reason)}`);

  const name = servers.length === 1 ? (servers[0]?.name ?? "drawbridge") : "drawbridge";
  lines.push("", paint("bold", "Connect"));
  for (const [client, snippet] of Object.entries(snippets(name, mcpUrl)))
    lines.push(`  ${paint("dim", client)}`, ...snippet.split("\n").map((line) => `    ${line}`));
  const { registration } = settings.clients;
  if (registration === "off" || (registration === "auto" && !isLoopback(new URL(gateway.publicUrl).hostname))) {
    lines.push(
      "",
      paint(
        "dim",
        "  A client that says it cannot register has no metadata document: restart with --allow-registration, or set clients.registration: open.",
      ),
    );
  }
  lines.push("", paint("dim", "Ctrl-C stops."), "");
  return `${lines.join("\n")}\n`;
}

/** What to paste into each client. */
export function snippets(name: string, url: string): Readonly<Record<string, string>> {
  return {
    "Claude Code": `claude mcp add --transport http ${name} ${url}`,
    "Cursor (.cursor/mcp.json)": JSON.stringify({ mcpServers: { [name]: { url } } }),
    "VS Code": `code --add-mcp '${JSON.stringify({ name, type: "http", url })}'`,
    "MCP Inspector": `npx @modelcontextprotocol/inspector --transport http --server-url ${url}`,
  };
}

function count(many: number, noun: string): string {
  return many === 0 ? "" : `${many} ${noun}${many === 1 ? "" : "s"}`;
}

function wrapped(words: readonly string[], width: number): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length + 2 <= width) lines[lines.length - 1] = `${last}, ${word}`;
    else lines.push(word);
  }
  return lines.map((line, index) => (index < lines.length - 1 ? `${line},` : line));
}
