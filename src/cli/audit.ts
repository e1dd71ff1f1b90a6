/** `drawbridge audit`: reads the record of every call, beside a running gateway or after it. What else there is to do with it is in `audit-keeping.ts`. */
import { type Command, InvalidArgumentError, Option } from "commander";
import type { PersonalKeys } from "../audit/personal.ts";
import { type FoundRecord, followRecords, searchRecords } from "../audit/search.ts";
import type { AuditLog, AuditQuery } from "../store/ports.ts";
import { keepingCommands } from "./audit-keeping.ts";
import { sinksCommand } from "./audit-sinks.ts";
import { evidenceOf } from "./evidence.ts";
import { DEFAULT_FILE, DEFAULT_STORE, withStore } from "./store.ts";
import { type Painter, painter, printable, type Terminal } from "./terminal.ts";

interface AuditOptions {
  readonly store?: string;
  readonly last: number;
  readonly since?: number;
  readonly until?: number;
  readonly user?: string;
  readonly client?: string;
  readonly target?: string;
  readonly outcome?: string;
  readonly trace?: string;
  readonly format: "text" | "json";
}

const HELP = `
The store is the one of the settings file (./${DEFAULT_FILE} when it is there), or ${DEFAULT_STORE}.
With --format json each line is one record. What is about a person is decrypted where the keys can be read.

Examples:
  $ drawbridge audit show --last 20
  $ drawbridge audit show --since 24h --outcome refused
  $ drawbridge audit search --target orders_refund --since 30d --outcome permitted
  $ drawbridge audit show --user u_1 --target orders_refund --format json
  $ drawbridge audit tail examples/orders/drawbridge.yaml
`;

export function define(command: Command, terminal: Terminal): void {
  const show = command.command("show").description("print the newest records, oldest first");
  const search = command.command("search").description("print all records that match, oldest first");
  const tail = command.command("tail").description("print records as they are written, until Ctrl-C");
  for (const one of [show, search, tail]) {
    one
      .argument("[file]", "settings file")
      .option("--store <store>", "the store itself, e.g. sqlite:./.drawbridge/drawbridge.db")
      .option("--since <time>", "not older: 15m, 24h, 7d, or a date", moment)
      .option("--until <time>", "older than this: 15m, 24h, 7d, or a date", moment)
      .option("--user <subject>", "only of this user")
      .option("--client <id>", "only through this OAuth client")
      .option("--target <name>", "only of this tool, prompt or resource, as clients name it")
      .option("--trace <id>", "only of this trace")
      .addOption(
        new Option("--outcome <outcome>", "only those that ended so").choices([
          "permitted",
          "refused",
          "failed",
          "abandoned",
        ]),
      )
      .addOption(new Option("--format <format>", "how to print").choices(["text", "json"]).default("text"))
      .addHelpText("after", HELP);
  }
  show.option("--last <number>", "at most this many of the newest", atMost(1000), 50);
  tail.option("--last <number>", "at most this many of the newest", atMost(1000), 10);
  search.option("--limit <number>", "at most this many", atMost(10_000_000), 1000);
  show.action((file: string | undefined, options: AuditOptions) =>
    reading(file, options, terminal, async ({ audit, keys }) => {
      for (const found of await searchRecords(audit, { ...queryOf(options), newest: true }, keys))
        print(found, options, terminal);
    }),
  );
  search.action((file: string | undefined, options: AuditOptions & { readonly limit: number }) =>
    reading(file, options, terminal, async ({ audit, keys }) => {
      let left = options.limit;
      for (let after = 0; left > 0; ) {
        const limit = Math.min(left, 1000);
        const page = await searchRecords(audit, { ...queryOf(options), limit, after }, keys);
        for (const found of page) print(found, options, terminal);
        left -= page.length;
        after = page.at(-1)?.sequence ?? after;
        if (page.length < limit) return;
      }
      terminal.stderr.write(`There may be more than ${options.limit}; say so with --limit.\n`);
    }),
  );
  tail.action((file: string | undefined, options: AuditOptions) =>
    reading(file, options, terminal, async ({ audit, keys }) => {
      const ended = new AbortController();
      void terminal.stopped().then(() => ended.abort());
      for await (const found of followRecords(audit, queryOf(options), ended.signal, keys))
        print(found, options, terminal);
    }),
  );
  keepingCommands(command, terminal);
  sinksCommand(command, terminal);
}

function reading(
  file: string | undefined,
  { store }: Pick<AuditOptions, "store">,
  terminal: Terminal,
  use: (log: { readonly audit: AuditLog; readonly keys: PersonalKeys | undefined }) => Promise<void>,
): Promise<void> {
  return withStore({ file, store, readOnly: true }, terminal, ({ audit, records }, settings) =>
    use({ audit, keys: evidenceOf({ audit, records }, settings, file)?.keys }),
  );
}

function queryOf({ last, since, until, user, client, target, outcome, trace }: AuditOptions): AuditQuery {
  const query = { limit: last, since, until, subject: user, client, target, outcome, traceId: trace };
  return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined)) as unknown as AuditQuery;
}

function print(found: FoundRecord, options: AuditOptions, terminal: Terminal): void {
  terminal.stdout.write(
    options.format === "json"
      ? `${JSON.stringify({ sequence: found.sequence, ...found.record })}\n`
      : `${line(found, painter(terminal.stdout, terminal.env))}\n`,
  );
}

const COLOURS = { permitted: "green", refused: "yellow", failed: "red", abandoned: "magenta" } as const;

/** `12 2026-11-21 10:00:00.123 permitted 4 ms tools/call orders_refund u_1 via claude (support: may *) trace 0af7…` */
function line({ sequence, record }: FoundRecord, paint: Painter): string {
  const { at, outcome, durationMs, call, action, principal, decision, error, trace, details } = record;
  const operator = details?.["operator"];
  const words = [
    paint("dim", String(sequence)),
    new Date(at).toISOString().replace("T", " ").replace("Z", ""),
    paint(COLOURS[outcome], outcome.padEnd(9)),
    `${Math.round(durationMs)} ms`,
    printable(action ?? call?.method ?? ""),
    call?.name === undefined ? undefined : paint("bold", printable(call.name)),
    principal === undefined ? undefined : printable(whoOf(principal)),
    typeof operator === "string" ? printable(`by ${operator}`) : undefined,
    error === undefined
      ? undefined
      : printable([error.code, error.message].filter((word) => word !== undefined).join(": ")),
    decision?.rule === undefined ? undefined : paint("dim", printable(`(${decision.rule})`)),
    trace === undefined ? undefined : paint("dim", printable(`trace ${trace.traceId}`)),
    record.sealed === undefined ? undefined : paint("dim", "(erased, or its key cannot be read here)"),
    record.erased === true ? paint("dim", "(erased before it was written)") : undefined,
  ];
  return words.filter((word) => word !== undefined && word !== "").join("  ");
}

function whoOf({ subject, client }: NonNullable<FoundRecord["record"]["principal"]>): string {
  return [subject, client === "" ? "" : `via ${client}`].filter((word) => word !== "").join(" ");
}

export function atMost(most: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (!Number.isInteger(number) || number < 1 || number > most)
      throw new InvalidArgumentError(`It must be a whole number from 1 to ${most}.`);
    return number;
  };
}

const UNITS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** A moment as milliseconds since the epoch: so long ago, or a date. */
export function moment(text: string): number {
  const ago = /^(\d{1,6})([smhd])$/.exec(text);
  if (ago !== null) return Date.now() - Number(ago[1]) * UNITS[ago[2] as keyof typeof UNITS];
  const date = Date.parse(text);
  if (Number.isNaN(date))
    throw new InvalidArgumentError("Write 30s, 15m, 24h, 7d, or a date such as 2026-11-21T10:00:00Z.");
  return date;
}
