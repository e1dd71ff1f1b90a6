/** `drawbridge pins`: the definitions as they were first seen, those that changed, and the accepting of a change. */
import { userInfo } from "node:os";
import { isDeepStrictEqual } from "node:util";
import { type Command, Option } from "commander";
import { DrawbridgeError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import { openPins, type Pin } from "../gateway/pins.ts";
import { silentLogger } from "../observe/logger.ts";
import { recorderOf } from "./evidence.ts";
import { DEFAULT_FILE, DEFAULT_STORE, withStore } from "./store.ts";
import { type Painter, painter, printable, type Terminal } from "./terminal.ts";

interface PinsOptions {
  readonly file?: string;
  readonly store?: string;
  readonly changed?: true;
  readonly format: "text" | "json";
}

const HELP = `
A definition that differs from its pin is held back from clients until someone has read and accepted it. Running gateways
follow within a second. For servers of a lockfile the lockfile counts, not these: see drawbridge diff and approve.

The store is the one of the settings file (./${DEFAULT_FILE} when it is there), or ${DEFAULT_STORE}.

Examples:
  $ drawbridge pins list --changed
  $ drawbridge pins accept orders tool refund_order
`;

export function define(command: Command, terminal: Terminal): void {
  const list = command
    .command("list")
    .description("print what is pinned, and what changed since")
    .option("--changed", "only what is held back")
    .addOption(new Option("--format <format>", "how to print").choices(["text", "json"]).default("text"));
  const accept = command
    .command("accept")
    .argument("<server>", "name of the server in the settings")
    .argument("<kind>", "tool, resourceTemplate or prompt; server for what it says of itself, with an empty name")
    .argument("<name>", "name of the definition, as `pins list` prints it")
    .description("make the changed definition the pinned one; recorded in the audit log");
  for (const one of [list, accept]) {
    one
      .option("--file <settings>", "settings file")
      .option("--store <store>", "the store itself, e.g. sqlite:./.drawbridge/drawbridge.db")
      .addHelpText("after", HELP);
  }
  list.action((options: PinsOptions) => listPins(options, terminal));
  accept.action((server: string, kind: string, name: string, options: PinsOptions) =>
    acceptPin(server, kind, name, options, terminal),
  );
}

async function listPins(options: PinsOptions, terminal: Terminal): Promise<void> {
  const paint = painter(terminal.stdout, terminal.env);
  await withStore({ file: options.file, store: options.store, readOnly: true }, terminal, async (store) => {
    const all = await openPins(store.records, silentLogger).list();
    const shown = options.changed === true ? all.filter((pin) => pin.offered !== undefined) : all;
    if (options.format === "json") terminal.stdout.write(`${JSON.stringify(shown, null, 2)}\n`);
    else for (const pin of shown) terminal.stdout.write(pinText(pin, paint));
  });
}

function pinText({ server, kind, name, pin, since, definition, offered, reason }: Pin, paint: Painter): string {
  const title = `${printable(server)} ${kind} ${paint("bold", printable(name))}  ${pin?.slice(0, 14) ?? "not approved"}  since ${new Date(since).toISOString()}`;
  if (offered === undefined) return `${title}\n`;
  const before = definition ?? {};
  const keys = [...new Set([...Object.keys(before), ...Object.keys(offered.definition)])];
  const lines = keys
    .filter((key) => !isDeepStrictEqual(before[key], offered.definition[key]))
    .flatMap((key) => [
      `    ${printable(key)}:`,
      paint("red", `      - ${quoted(before[key])}`),
      paint("green", `      + ${quoted(offered.definition[key])}`),
    ]);
  return `${title}\n  ${paint("yellow", `held back: ${pin === undefined ? "first seen as" : "changed to"} ${offered.pin.slice(0, 14)} at ${new Date(offered.since).toISOString()}`)}\n${reason === undefined ? "" : `  ${printable(reason, 500)}\n`}${lines.join("\n")}\n`;
}

/** A text that a model would read, shown to a person: as JSON, so that nothing in it is invisible. */
function quoted(value: unknown): string {
  return value === undefined ? "(absent)" : printable(JSON.stringify(value), 2000);
}

async function acceptPin(
  server: string,
  kind: string,
  name: string,
  options: PinsOptions,
  terminal: Terminal,
): Promise<void> {
  const pin = await acceptInStore(server, kind, name, options, terminal);
  terminal.stdout.write(`accepted ${printable(server)} ${kind} ${printable(name)}: ${pin.slice(0, 14)}\n`);
}

/** Makes what is offered the pinned one in the store, with its audit record. The new pin. */
export async function acceptInStore(
  server: string,
  kind: string,
  name: string,
  options: { readonly file?: string | undefined; readonly store?: string | undefined },
  terminal: Terminal,
  expected?: string,
): Promise<string> {
  let accepted = "";
  await withStore({ file: options.file, store: options.store, readOnly: false }, terminal, async (store, settings) => {
    const pins = openPins(store.records, silentLogger);
    const pin = (await pins.list()).find((one) => one.server === server && one.kind === kind && one.name === name);
    if (pin?.offered === undefined) {
      const reason = pin === undefined ? "it was never seen" : "it has not changed";
      throw new DrawbridgeError(
        "settings_invalid",
        `There is nothing to accept for ${server} ${kind} ${name}: ${reason}. \`drawbridge pins list --changed\` shows what there is.`,
      );
    }
    const at = Date.now();
    // Recorded first: a change that could not be recorded is not made.
    await using recorder = recorderOf(store, settings, options.file);
    await recorder.append({
      id: newId(at),
      kind: "configuration",
      action: "pin-accepted",
      at,
      durationMs: 0,
      outcome: "permitted",
      details: {
        server,
        kind,
        name,
        ...(pin.pin !== undefined && { from: pin.pin }),
        to: pin.offered.pin,
        operator: userInfo().username,
      },
      replica: "command line",
    });
    if (!(await pins.accept(server, kind, name, expected ?? pin.offered.pin))) {
      throw new DrawbridgeError(
        "internal",
        `${server} ${kind} ${name} changed again in the meantime. Look at it once more.`,
      );
    }
    accepted = pin.offered.pin;
  });
  return accepted;
}
