/** `drawbridge init`: looks at a server and writes a settings file with contracts for it. */
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname, relative, resolve } from "node:path";
import type { Command } from "commander";
import { settingsForCommand, settingsForUrl } from "../config/defaults.ts";
import { type LoadedSettings, loadSettings } from "../config/load.ts";
import { proposedFile } from "../config/proposed-file.ts";
import { isSchemaObject } from "../contract/accepts.ts";
import { resultOf } from "../contract/carry-out.ts";
import { type Offer, type Proposal, proposeContracts } from "../contract/propose.ts";
import { estimateTokens } from "../contract/tokens.ts";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { type Look, openLook } from "./look.ts";
import { counted } from "./office.ts";
import { painter, printable, type Terminal } from "./terminal.ts";

const DEFAULT_FILE = "drawbridge.yaml";

const HELP = `
Starts the server as \`serve\` would, reads its lists, and proposes for each tool what agents may send, what comes back and what
it may do at most. Tools that no contract makes safe (any SQL, any command, everything at once) are left out, and the file says
which and why. What is only a guess stands in a comment. Nothing is called, unless --sample is given.

Examples:
  $ drawbridge init -- npx -y @modelcontextprotocol/server-filesystem ./docs
  $ drawbridge init https://mcp.example.com/mcp --output mcp.yaml
  $ drawbridge init orders --settings drawbridge.yaml --output orders.yaml
  $ drawbridge init --sample -- node server.js     (calls tools that only read, once, to see what they answer)
  $ drawbridge init --output - -- node server.js   (prints the file)
`;

interface InitOptions {
  readonly output?: string;
  readonly settings?: string;
  readonly sample?: true;
  readonly force?: true;
}

export function define(command: Command, terminal: Terminal, rest: readonly string[] | undefined): void {
  command
    .argument("[server]", "a URL, or the name of a server in the settings file; or, after --, a command")
    .option("-o, --output <file>", `the file to write; - prints it (default ${DEFAULT_FILE})`)
    .option("--settings <file>", `settings file with the named server (default ${DEFAULT_FILE})`)
    .option("--sample", "call tools that only read and need no arguments that have to be known, to see their answers")
    .option("--force", "replace the file if it is there")
    .addHelpText("after", HELP)
    .action((server: string | undefined, options: InitOptions) => init(server, options, rest, terminal));
}

async function init(
  server: string | undefined,
  options: InitOptions,
  rest: readonly string[] | undefined,
  terminal: Terminal,
): Promise<void> {
  const output = options.output ?? DEFAULT_FILE;
  const file = output === "-" ? undefined : resolve(terminal.cwd, output);
  if (file !== undefined && existsSync(file) && options.force !== true) throw taken(output);
  const { loaded, name } = await chosen(server, options, rest, terminal);
  const paint = painter(terminal.stderr, terminal.env);
  const say = (line: string) => terminal.stderr.write(`${line}\n`);
  say(paint("dim", `Reading what ${name} offers …`));
  await using look = openLook(loaded, terminal);
  const offer: Offer = { server: name, ...(await look.offered(name)) };
  const first = await proposeContracts(offer);
  const samples = options.sample === true ? await sampled(first, offer, look) : undefined;
  const proposal = samples === undefined ? first : await proposeContracts({ ...offer, samples });
  const folder = file === undefined ? terminal.cwd : dirname(file);
  const text = proposedFile({ proposal, server: { name, settings: entryOf(loaded, name, folder, terminal.cwd) } });
  if (file === undefined) terminal.stdout.write(text);
  else await write(file, output, text, options.force === true);
  if (file !== undefined) say(`${paint("green", "wrote")} ${output}`);
  for (const line of summary(proposal, offer, samples)) say(line);
  if (file !== undefined) say(`\nNext: read it, then drawbridge contract test ${output} && drawbridge serve ${output}`);
}

async function chosen(
  server: string | undefined,
  { settings }: InitOptions,
  rest: readonly string[] | undefined,
  terminal: Terminal,
): Promise<{ readonly loaded: LoadedSettings; readonly name: string }> {
  const load = { env: terminal.env };
  if (rest !== undefined && server !== undefined)
    throw usage("Give one of: a command after --, a URL, or the name of a server.");
  const only = (loaded: LoadedSettings) => ({ loaded, name: Object.keys(loaded.settings.servers)[0] ?? "" });
  if (rest !== undefined) {
    if (rest.length === 0)
      throw usage("A command is missing after --, e.g. drawbridge init -- npx -y @modelcontextprotocol/server-memory");
    return only(await settingsForCommand(rest, terminal.cwd, load));
  }
  if (server === undefined)
    throw usage(`Which server? Try one of
  drawbridge init -- npx -y @modelcontextprotocol/server-memory
  drawbridge init http://127.0.0.1:9000/mcp
  drawbridge init orders --settings ${DEFAULT_FILE}`);
  if (/^https?:\/\//.test(server)) return only(await settingsForUrl(server, terminal.cwd, load));
  const loaded = await loadSettings(resolve(terminal.cwd, settings ?? DEFAULT_FILE), load);
  if (!Object.hasOwn(loaded.settings.servers, server))
    throw usage(
      `There is no server ${server} in ${settings ?? DEFAULT_FILE}; there ${Object.keys(loaded.settings.servers).length === 1 ? "is" : "are"} ${Object.keys(loaded.settings.servers).join(", ")}.`,
    );
  return { loaded, name: server };
}

/** The entry of `servers:` for a file in `folder`: no secret is copied, and relative paths still lead where they did. */
function entryOf({ settings, file }: LoadedSettings, name: string, folder: string, cwd: string): JsonObject {
  const server = settings.servers[name];
  if (server === undefined) return {};
  const plain = (value: string | Secret, where: string): string =>
    value instanceof Secret ? `\${secret:${name}-${where.toLowerCase()}}` : value;
  const plainly = (values: Readonly<Record<string, string | Secret>>): JsonObject =>
    Object.fromEntries(Object.entries(values).map(([key, value]) => [key, plain(value, key)]));
  if ("module" in server) return { module: relative(folder, resolve(dirname(file ?? cwd), server.module)) };
  if (!("command" in server))
    return { url: server.url, ...(Object.keys(server.headers).length > 0 && { headers: plainly(server.headers) }) };
  const place = relative(folder, file === undefined ? cwd : (server.cwd ?? cwd));
  return {
    command: server.command.map((word, at) => plain(word, `argument-${at}`)),
    ...(place !== "" && { cwd: place }),
    ...(Object.keys(server.environment).length > 0 && { environment: plainly(server.environment) }),
    ...(server.sandbox !== undefined && { sandbox: JSON.parse(JSON.stringify(server.sandbox)) as JsonObject }),
  };
}

/**
 * Answers of tools that only read, each called once: first with arguments that could be made up, then those that ask for what the
 * first ones told (`order_id`, when a list of orders has an `id`). A refusal is no sample.
 */
async function sampled({ tools }: Proposal, { server }: Offer, look: Look): Promise<ReadonlyMap<string, JsonValue>> {
  const found = new Map<string, JsonValue>();
  const known = new Map<string, string>();
  const reading = tools.filter(({ access }) => access === "read");
  for (let round = 0; round < 2; round++) {
    for (const { about, contract } of reading) {
      const [example] = (contract["examples"] ?? []) as readonly JsonObject[];
      const tool = String(contract["from"]).slice(server.length + 1);
      if (example === undefined || found.has(tool)) continue;
      const args = Object.entries(example["arguments"] as JsonObject).map(([name, value]) => [
        name,
        known.get(name) ?? value,
      ]);
      const answer = await look.call(server, tool, Object.fromEntries(args)).catch(() => undefined);
      if (answer === undefined || answer["isError"] === true) continue;
      const document = resultOf(JSON.stringify(answer));
      if (Array.isArray(document) && document.length === 0) continue;
      found.set(tool, document);
      learn(document, about, known);
    }
  }
  return found;
}

/** Keeps the first value of each member that names something: `customer_id`, `sku`, and the `id` of what a list is about. */
function learn(value: JsonValue, about: string, known: Map<string, string>): void {
  const first = Array.isArray(value) ? value[0] : value;
  if (!isSchemaObject(first)) return;
  for (const [key, one] of Object.entries(first)) {
    const name = key === "id" ? `${about}_id` : key;
    if (typeof one === "string" && /(_id|^sku|^slug|^code)$/.test(name) && !known.has(name)) known.set(name, one);
  }
}

async function write(file: string, named: string, text: string, force: boolean): Promise<void> {
  try {
    await writeFile(file, text, { flag: force ? "w" : "wx" });
  } catch (thrown) {
    throw (thrown as NodeJS.ErrnoException).code === "EEXIST" ? taken(named) : thrown;
  }
}

function summary(
  { tools, leftOut, resources, prompts }: Proposal,
  offer: Offer,
  samples: ReadonlyMap<string, JsonValue> | undefined,
): readonly string[] {
  const before = estimateTokens(JSON.stringify(offer.tools));
  const of = (access: string) => tools.filter((tool) => tool.access === access).length;
  return [
    `  ${tools.length} of ${counted(offer.tools.length, "tool")} (${before} tokens as the server lists them): ${of("read")} read, ${of("write")} write, ${of("destructive")} destroy`,
    `  ${counted(resources.length, "resource")}, ${counted(prompts.length, "prompt")}`,
    ...(samples === undefined ? [] : [`  ${counted(samples.size, "sample")} taken`]),
    ...leftOut.map(({ name, why }) => `  left out ${printable(name, 80)}: ${printable(why, 300)}`),
  ];
}

const taken = (file: string) =>
  usage(`${file} is there already. Give another --output (- prints), or --force to replace it.`);
const usage = (message: string) => new DrawbridgeError("settings_invalid", message);
