/** `drawbridge discover`: which MCP servers the clients on this machine are set up to run, and whether somebody approved them. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { check, type Judged } from "../check/check.ts";
import { type Approval, type Approved, compareApproved, readApproved, writeApproved } from "../config/approved-file.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { packagesRun, readSettings, type SetServer } from "./discover/machine.ts";
import { Ended, EXIT } from "./main.ts";
import { type Painter, painter, printable, type Terminal } from "./terminal.ts";

interface DiscoverOptions {
  readonly format: "text" | "json";
  readonly approved?: string;
  readonly writeApproved?: string;
  readonly running: boolean;
}

export interface Discovered {
  readonly client: string;
  readonly file: string;
  readonly server: string;
  /** The command or the address; what looks like a secret stands as a reference. */
  readonly runs: string;
  /** Undefined where there is nothing to pin: an address, a program of one's own. */
  readonly pinned: boolean | undefined;
  /** Where a secret stands written out. Never the secret. */
  readonly secrets: readonly string[];
  readonly verdict: "block" | "review" | "clean";
  readonly findings: readonly Judged[];
  readonly fingerprint: string;
  /** Undefined without a list. */
  readonly approval: Approval | undefined;
}

const HELP = `
Reads the settings of Claude, Cursor, VS Code, Windsurf, Gemini and other clients, of this user, of the current folder, and of the
projects that Claude Code knows. Nothing is started or asked, no secret is printed, nothing leaves the machine.

With --approved, servers that are not on the list are shown as new or changed (OWASP MCP09). docs/discover.md tells the format.

Exit codes: 0 all is approved, or there was no list; 1 something is new or changed, or settings could not be read; 2 wrong usage.

Examples:
  $ drawbridge discover
  $ drawbridge discover --write-approved approved.yaml
  $ drawbridge discover --approved approved.yaml --format json
`;

export function define(command: Command, terminal: Terminal): void {
  command
    .option("--format <format>", "text or json", formatOf, "text")
    .option("--approved <file>", "compare with a list of approved servers")
    .option("--write-approved <file>", "write what is there as approved; what the file approves already stays")
    .option("--running", "look at running processes (Linux) and the cache of npx, too", false)
    .addHelpText("after", HELP)
    .action((options: DiscoverOptions) => discover(options, terminal));
}

async function discover(options: DiscoverOptions, terminal: Terminal): Promise<void> {
  const approved =
    options.approved === undefined
      ? undefined
      : readApproved(await textOf(options.approved, terminal), options.approved);
  const { servers: set, unread, notes } = await readSettings(terminal);
  const judged = await Promise.all(set.map(judge));
  const compared = approved === undefined ? undefined : compareApproved(judged, approved);
  const servers = judged.map((one, at): Discovered => ({ ...one, approval: compared?.approvals[at] }));
  const gone = compared?.gone ?? [];
  const strays = options.running
    ? (await packagesRun(terminal)).filter(({ what }) => !set.some(({ words }) => words.includes(what)))
    : [];
  if (options.writeApproved !== undefined) await keep(options.writeApproved, servers, terminal);
  const inventory = { servers, gone, strays, unread, notes };
  if (options.format === "json") terminal.stdout.write(`${JSON.stringify(jsonOf(inventory), null, 2)}\n`);
  else terminal.stdout.write(`${textReport(inventory, painter(terminal.stdout, terminal.env)).join("\n")}\n`);
  const unknown = servers.some(({ approval }) => approval === "new" || approval === "changed");
  if (unknown || (approved !== undefined && unread.length > 0)) throw new Ended(EXIT.failed);
}

async function judge({
  client,
  file,
  name,
  inspected,
  runs,
  pinned,
  words,
}: SetServer): Promise<Omit<Discovered, "approval">> {
  const report = await check({ name: file, servers: [inspected] });
  const [about] = report.servers;
  return {
    client,
    file,
    server: name,
    runs,
    pinned,
    secrets: inspected.literalSecrets ?? [],
    verdict: about?.verdict ?? "clean",
    findings: about?.findings ?? [],
    // Of what is run, with the names of its environment: a secret that is changed is no other server.
    fingerprint: createHash("sha256")
      .update(JSON.stringify([1, words]))
      .digest("hex")
      .slice(0, 32),
  };
}

async function keep(file: string, servers: readonly Discovered[], terminal: Terminal): Promise<void> {
  const path = resolve(terminal.cwd, file);
  const before: readonly Approved[] = existsSync(path) ? readApproved(await readFile(path, "utf8"), file) : [];
  const found = servers.map(({ client, server, runs, fingerprint }) => ({ client, server, runs, fingerprint }));
  const replaced = (one: Approved) =>
    found.some(({ client, server }) => one.client === client && one.server === server);
  try {
    await writeFile(path, writeApproved([...before.filter((one) => !replaced(one)), ...found]));
  } catch (cause) {
    throw new DrawbridgeError("settings_invalid", `The list ${file} cannot be written.`, {
      detail: String(cause),
      cause,
    });
  }
  terminal.stderr.write(`wrote ${file}: ${found.length} servers approved\n`);
}

interface Inventory {
  readonly servers: readonly Discovered[];
  readonly gone: readonly Approved[];
  readonly strays: Awaited<ReturnType<typeof packagesRun>>;
  readonly unread: readonly { readonly file: string; readonly problem: string }[];
  readonly notes: readonly string[];
}

/** Keys are added, never renamed or removed. */
function jsonOf({ servers, gone, strays, unread, notes }: Inventory): object {
  return {
    servers: servers.map(({ findings, pinned, approval, ...one }) => ({
      ...one,
      pinned: pinned ?? null,
      ...(approval !== undefined && { approval, ...(approval !== "approved" && { owasp: "MCP09" }) }),
      findings: findings.map(({ rule, owasp, severity, evidence, fix }) => ({ rule, owasp, severity, evidence, fix })),
    })),
    gone,
    strays,
    unread,
    notes,
  };
}

const STYLES = { block: "red", review: "yellow", clean: "green" } as const;
const MAX_CELL = 60;

function textReport({ servers, gone, strays, unread, notes }: Inventory, paint: Painter): readonly string[] {
  if (servers.length === 0 && unread.length === 0 && strays.length === 0 && gone.length === 0)
    return ["No client on this machine is set up to run an MCP server."];
  const listed = servers.some(({ approval }) => approval !== undefined);
  const head = ["CLIENT", "SERVER", "RUNS", "PINNED", "SECRETS", "VERDICT", ...(listed ? ["APPROVED"] : [])];
  const rows = servers.map(({ client, server, runs, pinned, secrets, verdict, approval }) => [
    client,
    server,
    runs,
    pinned === undefined ? "-" : pinned ? "yes" : "no",
    secrets.length === 0 ? "none" : `${secrets.length} written out`,
    verdict,
    ...(listed ? [approval ?? ""] : []),
  ]);
  const cells = [head, ...rows].map((row) => row.map((cell) => printable(cell, MAX_CELL)));
  const widths = head.map((_, column) => Math.max(...cells.map((row) => (row[column] ?? "").length)));
  const lines = cells.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  const [first = "", ...rest] = lines;
  const findings = servers.flatMap(({ client, server, verdict, findings: found }) =>
    found.map(({ rule, evidence, fix }) =>
      paint(STYLES[verdict], `${printable(client)} ${printable(server)}: ${rule}: ${printable(evidence)}. ${fix}`),
    ),
  );
  return [
    ...(servers.length === 0 ? [] : [paint("dim", first), ...rest, ""]),
    ...findings,
    ...gone.map(
      ({ client, server }) => `gone: ${printable(server)}${client === undefined ? "" : ` of ${printable(client)}`}`,
    ),
    ...strays.map(({ where, what }) => `in no settings: ${printable(what)} (${where})`),
    ...unread.map(({ file, problem }) => paint("yellow", `not read: ${printable(file)}: ${printable(problem, 400)}`)),
    ...notes.map((note) => paint("dim", `note: ${printable(note, 400)}`)),
    summary(servers),
  ];
}

function summary(servers: readonly Discovered[]): string {
  const count = (wanted: Approval) => servers.filter(({ approval }) => approval === wanted).length;
  const compared = servers.some(({ approval }) => approval !== undefined)
    ? `: ${count("approved")} approved, ${count("new")} new, ${count("changed")} changed`
    : "";
  return `${servers.length} servers in the settings of clients${compared}`;
}

async function textOf(file: string, { cwd }: Terminal): Promise<string> {
  try {
    return await readFile(resolve(cwd, file), "utf8");
  } catch (cause) {
    throw new DrawbridgeError(
      "settings_invalid",
      `There is no list of approved servers ${file}. Write one with --write-approved.`,
      {
        cause,
      },
    );
  }
}

function formatOf(text: string): DiscoverOptions["format"] {
  if (text === "text" || text === "json") return text;
  throw new DrawbridgeError("settings_invalid", "--format is text or json.");
}
