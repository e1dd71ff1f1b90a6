/** What the commands of an operator share: the store opened, changes recorded, tables, questions. */
import { userInfo } from "node:os";
import type { Command } from "commander";
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { forgetStandIns } from "../gateway/masking/key.ts";
import { oauthRecord } from "../gateway/oauth-record.ts";
import { type Administration, administration } from "../oauth/administration.ts";
import { documentNet } from "../oauth/clients/clients.ts";
import { endsAccess, type Report } from "../oauth/events.ts";
import { clientsSettings } from "../oauth/settings.ts";
import type { Records } from "../store/ports.ts";
import { recorderOf } from "./evidence.ts";
import { Ended, EXIT } from "./main.ts";
import { DEFAULT_FILE, DEFAULT_STORE, UNREAD, withStore } from "./store.ts";
import { painter, printable, type Terminal } from "./terminal.ts";

export interface OfficeOptions {
  readonly file?: string;
  readonly store?: string;
  readonly json?: true;
  readonly yes?: true;
}

export interface Office {
  readonly administration: Administration;
  readonly records: Records;
  /** Writes an event to the audit log. */
  readonly report: Report;
  /** Of the settings file; undefined when only a store was named. */
  readonly settings: Settings | undefined;
  /** Writes a result: as one JSON value with --json, else the lines. */
  show(value: unknown, lines: readonly string[]): void;
  /** Asks whether something that cannot be undone is meant. Ends the command when it is not. */
  confirm(question: string): Promise<void>;
}

export const OFFICE_HELP = `
The store is the one of the settings file (./${DEFAULT_FILE} when it is there), or ${DEFAULT_STORE}. A running gateway
follows a change within a second, and so do all its replicas. Each change is in the audit log, with your name. Times are UTC.
`;

/** Options that every one of these commands has; `changes`: it has something to ask about. */
export function officeOptions(command: Command, changes = false): Command {
  command
    .option("--file <settings>", "settings file")
    .option("--store <store>", "the store itself, e.g. sqlite:./.drawbridge/drawbridge.db")
    .option("--json", "print JSON");
  return changes ? command.option("-y, --yes", "do not ask") : command;
}

/** Opens the store for `use`: to look only, or to change. */
export function openOffice(
  options: OfficeOptions,
  terminal: Terminal,
  mode: "look" | "change",
  use: (office: Office) => Promise<void>,
): Promise<void> {
  const place = { file: options.file, store: options.store, readOnly: mode === "look" };
  return withStore(place, terminal, async (store, settings) => {
    const clients = settings?.clients ?? clientsSettings.parse({});
    const net = await documentNet(clients.metadataDocuments);
    const encryption = settings?.tokens.keyEncryptionSecret;
    const recorder = recorderOf(store, settings, options.file);
    const report: Report = async (event) => {
      await recorder.append(oauthRecord(event, "command line", Date.now()));
      if (endsAccess(event)) await forgetStandIns(store.records, encryption, event.user);
    };
    const office: Office = {
      records: store.records,
      report,
      administration: administration(store.records, {
        report,
        operator: userInfo().username,
        keys: { ...(settings !== undefined && { algorithm: settings.tokens.signingAlgorithm }), encryption },
        clients,
        net,
      }),
      settings,
      show(value, lines) {
        const text = options.json === true ? JSON.stringify(value, null, 2) : lines.join("\n");
        if (text !== "") terminal.stdout.write(`${text}\n`);
      },
      async confirm(question) {
        if (options.yes === true || terminal.ask === undefined) return;
        const answer = await terminal.ask(`${question} [y/N] `);
        if (/^y(es)?$/i.test(answer.trim())) return;
        terminal.stderr.write("Nothing was changed.\n");
        throw new Ended(EXIT.failed);
      },
    };
    try {
      await use(office);
    } finally {
      await recorder.close();
      await net.close();
    }
  });
}

/** Throws `settings_invalid` when the keys are encrypted with a secret that was not given to this process. */
export function needKeySecret({ settings }: Office): void {
  if (settings?.tokens.keyEncryptionSecret?.equals(UNREAD) !== true) return;
  throw new DrawbridgeError(
    "settings_invalid",
    "The secret of tokens.keyEncryptionSecret cannot be read here. Run this where the gateway runs, with its secrets.",
  );
}

/** The link with a one-time token at its end. Throws `settings_invalid` when nobody knows where the gateway is. */
export function linkTo(path: string, { settings }: Office, publicUrl: string | undefined): string {
  const { port = 7337, host = "127.0.0.1" } = settings?.listen ?? {};
  const base = publicUrl ?? settings?.publicUrl ?? (port === 0 ? undefined : `http://${host}:${port}`);
  if (base === undefined)
    throw new DrawbridgeError(
      "settings_invalid",
      "Where the gateway is reached is not in the settings. Name it with --public-url.",
    );
  return `${base.replace(/\/+$/, "")}${path}`;
}

export const PUBLIC_URL = [
  "--public-url <url>",
  "where people reach the gateway (default: as in the settings)",
] as const;

/** Rows under a head, in columns. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  terminal: Terminal,
): readonly string[] {
  const [first = "", ...rest] = columns([head, ...rows]);
  return [painter(terminal.stdout, terminal.env)("dim", first), ...rest];
}

/** Rows in columns as wide as their widest cell. Cells are made printable. */
export function columns(rows: readonly (readonly string[])[]): readonly string[] {
  const cells = rows.map((row) => row.map((cell) => printable(cell, 1024)));
  const widths = (cells[0] ?? []).map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)));
  return cells.map((row) =>
    row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join("  "),
  );
}

/** Facts about one thing, one a line. Absent ones are left out. */
export function facts(pairs: Readonly<Record<string, string | undefined>>, terminal: Terminal): readonly string[] {
  const paint = painter(terminal.stdout, terminal.env);
  const given = Object.entries(pairs).filter((pair): pair is [string, string] => pair[1] !== undefined);
  const width = Math.max(...given.map(([name]) => name.length));
  return given.map(([name, value]) => `${paint("dim", name.padEnd(width))}  ${printable(value, 2048)}`);
}

/** `2026-11-21 10:00` in UTC, as in the audit log. */
export function day(ms: number | undefined): string {
  return ms === undefined ? "never" : new Date(ms).toISOString().slice(0, 16).replace("T", " ");
}

export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
