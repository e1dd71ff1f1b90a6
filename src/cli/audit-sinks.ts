/** `drawbridge audit sinks`: how far each sink of `audit.export` is, from the store, beside a running gateway or after it. */
import { type Command, Option } from "commander";
import { type Place, placesIn } from "../audit/sinks/cursor.ts";
import { kindOf, nameOf } from "../audit/sinks/settings.ts";
import type { Settings } from "../config/schema.ts";
import { counted, table } from "./office.ts";
import { withStore } from "./store.ts";
import { painter, printable, type Terminal } from "./terminal.ts";

interface SinksOptions {
  readonly store?: string;
  readonly format: "text" | "json";
}

const HELP = `
A sink that does not work is tried again by the gateway until it does; nothing is lost meanwhile, and retention keeps what it
has not got. One that is not in the settings any more keeps its place, in case it comes back.

Examples:
  $ drawbridge audit sinks
  $ drawbridge audit sinks drawbridge.yaml --format json
`;

export function sinksCommand(command: Command, terminal: Terminal): void {
  command
    .command("sinks")
    .description("where records are sent, how far that is, and what is wrong")
    .argument("[file]", "settings file")
    .option("--store <store>", "the store itself, e.g. sqlite:./.drawbridge/drawbridge.db")
    .addOption(new Option("--format <format>", "how to print").choices(["text", "json"]).default("text"))
    .addHelpText("after", HELP)
    .action((file: string | undefined, { store: named, format }: SinksOptions) =>
      withStore({ file, store: named, readOnly: true }, terminal, async ({ audit, records }, settings) => {
        const newest = (await audit.read({ limit: 1, newest: true }))[0]?.sequence ?? 0;
        const sinks = sinksOf(await placesIn(records), settings, newest);
        if (format === "json") terminal.stdout.write(`${JSON.stringify({ sinks })}\n`);
        else print(sinks, terminal);
      }),
    );
}

interface ShownSink {
  readonly name: string;
  readonly kind: string;
  /** Undefined without a settings file. */
  readonly wanted: boolean | undefined;
  readonly behind: number;
  readonly sequence: number;
  readonly sent: number;
  readonly failures: number;
  readonly refused: number;
  readonly lastSent: string | undefined;
  readonly failingSince: string | undefined;
  readonly problem: string | undefined;
}

function sinksOf(
  places: ReadonlyMap<string, Place>,
  settings: Pick<Settings, "audit"> | undefined,
  newest: number,
): readonly ShownSink[] {
  const wanted = new Map((settings?.audit.export ?? []).map((sink) => [nameOf(sink), kindOf(sink)]));
  const names = [...new Set([...wanted.keys(), ...places.keys()])];
  return names.map((name) => {
    const place = places.get(name);
    return {
      name,
      kind: wanted.get(name) ?? place?.kind ?? "",
      wanted: settings === undefined ? undefined : wanted.has(name),
      behind: Math.max(0, newest - (place?.sequence ?? 0)),
      sequence: place?.sequence ?? 0,
      sent: place?.sent ?? 0,
      failures: place?.failures ?? 0,
      refused: place?.refused ?? 0,
      lastSent: isoOf(place?.sentAt),
      failingSince: isoOf(place?.failingSince),
      problem: place?.problem,
    };
  });
}

const isoOf = (at: number | undefined) => (at === undefined ? undefined : new Date(at).toISOString());

function print(sinks: readonly ShownSink[], terminal: Terminal): void {
  if (sinks.length === 0) {
    terminal.stdout.write("Records are sent nowhere (audit.export).\n");
    return;
  }
  const paint = painter(terminal.stdout, terminal.env);
  const rows = sinks.map(({ name, kind, wanted, behind, sent, lastSent, failingSince }) => [
    name,
    kind,
    wanted === false ? "removed" : failingSince !== undefined ? "failing" : behind === 0 ? "up to date" : "behind",
    String(behind),
    String(sent),
    lastSent ?? "never",
  ]);
  terminal.stdout.write(
    `${table(["sink", "kind", "state", "behind", "sent", "last sent"], rows, terminal).join("\n")}\n`,
  );
  for (const { name, problem, failingSince, refused } of sinks) {
    if (problem !== undefined)
      terminal.stdout.write(`${paint("red", name)} since ${failingSince ?? "?"}: ${printable(problem)}\n`);
    if (refused > 0)
      terminal.stdout.write(`${paint("yellow", name)} has refused ${counted(refused, "record")} for good.\n`);
  }
}
