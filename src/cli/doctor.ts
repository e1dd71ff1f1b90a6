/** `drawbridge doctor`: why can a client not connect? Walks its way, or shows how far a real one came. */
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { type Check, type Outcome, STEPS, type Step, type StepName } from "./doctor/examination.ts";
import { LOOPBACK } from "./doctor/http.ts";
import { walk } from "./doctor/walk.ts";
import { Ended, EXIT } from "./main.ts";
import { DEFAULT_FILE, DEFAULT_STORE } from "./store.ts";
import { type Painter, painter, printable, type Terminal } from "./terminal.ts";

interface DoctorOptions {
  readonly until?: StepName;
  readonly signIn?: boolean;
  readonly register?: true;
  readonly clientId?: string;
  readonly clientSecretEnv?: string;
  readonly redirect?: URL;
  readonly scope?: string;
  readonly origin: string;
  readonly open?: true;
  readonly timeout: number;
  readonly ca?: string;
  readonly json?: true;
  /** True: all of them. */
  readonly trail?: string | true;
  readonly file?: string;
  readonly store?: string;
}

const HELP = `
Works with every MCP server, Drawbridge or not. It does what a client does, in this order:
  ${Object.keys(STEPS).join(", ")}

On a terminal it goes all the way when it has a client to go as: --client-id names one, --register makes one for this walk
(and takes it back afterwards). Then it prints a link; sign in there. Without a terminal it stops after \`registration\`,
having changed nothing. Nothing that the server says is run, and only https (or http on this machine) is followed.

For a client that fails at your own gateway, --trail shows how far it came: the last steps of each client, kept for a day, a
few seconds after they happened. The gateway's store is the one of the settings file (./${DEFAULT_FILE} when it is there), or
${DEFAULT_STORE}.

Examples:
  $ drawbridge doctor http://127.0.0.1:7337/mcp
  $ drawbridge doctor --trail
  $ drawbridge doctor --trail https://client.example.com/client.json
  $ drawbridge doctor http://127.0.0.1:7337/mcp --register --open
  $ drawbridge doctor https://mcp.example.com/mcp --client-id https://client.example.com/client.json
  $ drawbridge doctor https://mcp.example.com/mcp --no-sign-in --json

Exit codes: 0 a client can connect (as far as was looked), 1 it cannot, 2 wrong usage.
`;

export function define(command: Command, terminal: Terminal): void {
  command
    .argument("[url]", "the MCP endpoint, as clients are given it")
    .addOption(new Option("--until <step>", "the last step to take").choices(Object.keys(STEPS)))
    .option("--sign-in", "go on to the sign-in, also without a terminal")
    .option("--no-sign-in", "stop before the sign-in")
    .option("--register", "register a client for this walk (RFC 7591)")
    .option("--client-id <id>", "go as this client: an id, or the URL of a metadata document")
    .option("--client-secret-env <name>", "environment variable that holds the client's secret")
    .option(
      "--redirect <uri>",
      "where the client has its answers sent: http on this machine (default: a free port)",
      loopbackUri,
    )
    .option("--scope <scopes>", "ask for these instead of what the server names")
    .option("--origin <origin>", "the web page whose access is tried", webOrigin, "http://localhost:6274")
    .option("--open", "open the link in the browser")
    .option("--timeout <seconds>", "how long to wait for the sign-in", seconds, 180)
    .option("--ca <file>", "PEM certificates to trust beside the system's")
    .option("--trail [client]", "show how far real clients came at your gateway; of one: its id, name, or address")
    .option("--file <settings>", "for --trail: settings file")
    .option("--store <store>", "for --trail: the store itself")
    .option("--json", "print JSON")
    .addHelpText("after", HELP)
    .action(async (url: string | undefined, options: DoctorOptions) => {
      if ((url === undefined) === (options.trail === undefined))
        throw new DrawbridgeError("settings_invalid", "Give the URL of an MCP endpoint, or --trail.");
      if (url !== undefined) return doctor(url, options, terminal);
      const { showTrails } = await import("./doctor/trails.ts");
      return showTrails(options.trail === true ? undefined : options.trail, options, terminal);
    });
}

async function doctor(url: string, options: DoctorOptions, terminal: Terminal): Promise<void> {
  const paint = painter(terminal.stdout, terminal.env);
  const signIn = options.signIn ?? terminal.stdout.isTTY === true;
  const until = options.until ?? (signIn ? "call" : "registration");
  const say = (text: string) => void (options.json === true || terminal.stdout.write(text));
  say(`${paint("bold", "Drawbridge doctor")}  ${printable(url)}\n\n`);
  const steps = await walk({
    url,
    until,
    register: options.register === true,
    clientId: options.clientId,
    clientSecret: secretFrom(options.clientSecretEnv, terminal),
    redirect: options.redirect,
    scope: options.scope,
    origin: options.origin,
    trustedCertificates:
      options.ca === undefined ? undefined : await readFile(resolve(terminal.cwd, options.ca), "utf8"),
    done: (step) => say(stepText(step, paint)),
    show(address) {
      // Progress, not a result: what is piped on stays clean.
      terminal.stderr.write(
        `\nOpen this link and sign in; waiting for up to ${options.timeout} s, Ctrl-C ends it.\n  ${address.href}\n\n`,
      );
      if (options.open === true) terminal.openBrowser?.(address);
    },
    waiting: () => waiting(options.timeout, terminal),
    now: Date.now,
  });
  const verdict = verdictOf(steps, until, options);
  if (options.json === true) terminal.stdout.write(`${JSON.stringify({ url, ...verdict, steps }, null, 2)}\n`);
  else terminal.stdout.write(`\n${paint(["bold", verdict.ok ? "green" : "red"], verdict.sentence)}\n`);
  if (!verdict.ok) throw new Ended(EXIT.failed);
}

function waiting(timeoutSeconds: number, terminal: Terminal): AbortSignal {
  const stopped = new AbortController();
  void terminal.stopped().then(() => stopped.abort());
  return AbortSignal.any([stopped.signal, AbortSignal.timeout(timeoutSeconds * 1000)]);
}

interface DoctorVerdict {
  readonly ok: boolean;
  /** The first step that failed. */
  readonly brokenAt: StepName | null;
  readonly sentence: string;
}

function verdictOf(steps: readonly Step[], until: StepName, options: DoctorOptions): DoctorVerdict {
  const broken = steps.find(({ outcome }) => outcome === "failed");
  if (broken !== undefined) {
    const [first] = broken.checks.filter(({ outcome }) => outcome === "failed");
    const sentence = `It breaks at ${broken.step}: ${first?.message ?? ""}`;
    return { ok: false, brokenAt: broken.step, sentence };
  }
  const last = steps.findLast(({ outcome }) => outcome !== "skipped")?.step ?? "reach";
  if (last === "call")
    return { ok: true, brokenAt: null, sentence: "A client can connect, from the URL to the tools." };
  const noClient = last === "registration" && until !== "registration" && options.clientId === undefined;
  const more = noClient
    ? " To go on as a client, add --register or --client-id."
    : until === "registration"
      ? " The rest needs a person: --sign-in with --register or --client-id."
      : "";
  return { ok: true, brokenAt: null, sentence: `All is well up to ${last}.${more}` };
}

const MARKS = { ok: ["✓", "green"], warning: ["!", "yellow"], failed: ["✗", "red"] } as const satisfies Record<
  Outcome,
  readonly [string, "green" | "yellow" | "red"]
>;

function stepText({ step, outcome, checks }: Step, paint: Painter): string {
  const [mark, colour] = MARKS[outcome === "skipped" ? "ok" : outcome];
  const lines = [`${paint(colour, mark)} ${paint("bold", step.padEnd(13))} ${paint("dim", STEPS[step])}`];
  for (const check of checks) lines.push(...checkLines(check, paint));
  return `${lines.join("\n")}\n`;
}

function checkLines({ outcome, message, advice }: Check, paint: Painter): string[] {
  const [mark, colour] = MARKS[outcome];
  const line = `    ${paint(colour, mark)} ${outcome === "ok" ? paint("dim", message) : message}`;
  return advice === undefined ? [line] : [line, `      ${paint("cyan", `→ ${advice}`)}`];
}

function secretFrom(name: string | undefined, { env }: Terminal): Secret | undefined {
  if (name === undefined) return undefined;
  const value = env[name] ?? "";
  if (value === "")
    throw new DrawbridgeError("settings_invalid", `The environment has no ${name}. Put the client's secret there.`);
  return new Secret(value);
}

function loopbackUri(text: string): URL {
  const url = URL.parse(text);
  if (url?.protocol !== "http:" || !LOOPBACK.has(url.hostname) || url.search !== "" || url.hash !== "")
    throw new InvalidArgumentError("Write an address of this machine, e.g. http://127.0.0.1:8765/callback.");
  return url;
}

function webOrigin(text: string): string {
  const url = URL.parse(text);
  if (url === null || !/^https?:$/.test(url.protocol))
    throw new InvalidArgumentError("Write an origin such as https://app.example.com.");
  return url.origin;
}

function seconds(text: string): number {
  const number = Number(text);
  if (!Number.isInteger(number) || number < 1 || number > 3600)
    throw new InvalidArgumentError("Write whole seconds, from 1 to 3600.");
  return number;
}
