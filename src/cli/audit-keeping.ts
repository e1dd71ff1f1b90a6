/** `drawbridge audit verify | export | key | prune | hold | erase`: proving the log, handing it out, and letting go of what must go. */
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { resolve } from "node:path";
import { Argument, type Command, Option } from "commander";
import { type Evidence, knownSigners } from "../audit/evidence.ts";
import { exported, verifyExport } from "../audit/export.ts";
import { type AuditRecord, logRecord } from "../audit/record.ts";
import { holds, liftHold, placeHold, retire } from "../audit/retention.ts";
import { vouchersOf } from "../audit/signing.ts";
import { reachedBy } from "../audit/sinks/sinks.ts";
import { verifyLog } from "../audit/standing.ts";
import type { Verdict } from "../audit/verify.ts";
import type { Settings } from "../config/schema.ts";
import type { JsonObject } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Store } from "../store/ports.ts";
import { atMost, moment } from "./audit.ts";
import { evidenceOf, recorderOf } from "./evidence.ts";
import { Ended, EXIT } from "./main.ts";
import { counted, day, table } from "./office.ts";
import { withStore } from "./store.ts";
import { painter, printable, type Terminal } from "./terminal.ts";
import { writer } from "./writer.ts";

interface Place {
  readonly store?: string;
  readonly file?: string;
}

const VERIFY_HELP = `
A log that is whole ends with exit code 0, one that is not with 1 and the first record that was changed, removed, added or
moved. Without --export the log of the store is verified. Unless --key names others, the key is trusted that the gateway signs with;
where its secrets cannot be read, those that the store names, which proves nothing to somebody who does not trust the store.

Examples:
  $ drawbridge audit key > audit-public.pem
  $ drawbridge audit export --since 30d > november.jsonl
  $ drawbridge audit verify --export november.jsonl --key audit-public.pem
`;

const EARLIER_KEYS = "PEM file of a public key that the log was signed with before audit.signingKey was another";

export function keepingCommands(command: Command, terminal: Terminal): void {
  const place = (one: Command) =>
    one
      .argument("[file]", "settings file")
      .option("--store <store>", "the store itself, e.g. sqlite:./.drawbridge/drawbridge.db");
  place(command.command("verify"))
    .description("check that nothing was changed, removed, added or moved")
    .option("--export <file>", "verify an export instead of a store; nothing else is needed for it")
    .option("--roots", "make the Merkle roots of checkpoints again, too")
    .option("--key <file...>", "PEM file of a public key that is trusted (drawbridge audit key)")
    .addOption(new Option("--format <format>", "how to print").choices(["text", "json"]).default("text"))
    .addHelpText("after", VERIFY_HELP)
    .action((file: string | undefined, options: VerifyOptions) => verify(file, options, terminal));
  place(command.command("export"))
    .description("write records as they are, with what it takes to verify them, one a line")
    .option("--since <time>", "from the first record of that time on: 24h, 30d, or a date", moment)
    .option("--until <time>", "up to the first record of that time", moment)
    .option("--key <file...>", EARLIER_KEYS)
    .action((file: string | undefined, options: ExportOptions) => exportTo(file, options, terminal));
  place(command.command("key"))
    .description("print the public key that the log is signed with")
    .action((file: string | undefined, options: Place) =>
      withStore({ file, store: options.store, readOnly: true }, terminal, async ({ records }) => {
        const keys = await knownSigners(records);
        if (keys.length === 0) throw new DrawbridgeError("settings_invalid", "Nothing was signed in this store yet.");
        terminal.stdout.write(keys.join(""));
      }),
    );
  place(command.command("prune"))
    .description("take out records that are older than audit.keep, or than --older-than, unless they are on hold")
    .option("--older-than <days>", "days", atMost(100_000))
    .option("--key <file...>", EARLIER_KEYS)
    .action((file: string | undefined, options: PruneOptions) => prune(file, options, terminal));
  const hold = command.command("hold").description("legal hold: records that stay, however old");
  place(hold.command("list")).action((file: string | undefined, options: Place) => listHolds(file, options, terminal));
  const named = (one: Command) => place(one.addArgument(new Argument("<name>", "of the hold, e.g. a case number")));
  named(hold.command("place"))
    .requiredOption("--reason <text>", "why")
    .option("--user <subject>", "only records of this user")
    .option("--target <name>", "only of this tool, prompt or resource")
    .option("--since <time>", "only not older than this", moment)
    .option("--until <time>", "only older than this", moment)
    .action((name: string, file: string | undefined, options: HoldOptions) => place_(name, file, options, terminal));
  named(hold.command("lift")).action((name: string, file: string | undefined, options: Place) =>
    keeping(file, options, terminal, { action: "audit.hold-lifted", details: { hold: name } }, async ({ records }) => {
      if (!(await liftHold(records, name))) throw new DrawbridgeError("settings_invalid", `There is no hold ${name}.`);
      terminal.stdout.write(`The hold ${printable(name)} is lifted.\n`);
    }),
  );
  place(command.command("erase").addArgument(new Argument("<subject>", "the user, as in the records")))
    .description("destroy the keys of what is about a person: arguments, results, addresses. The log still verifies")
    .option("-y, --yes", "do not ask")
    .action((subject: string, file: string | undefined, options: Place & { readonly yes?: true }) =>
      erase(subject, file, options, terminal),
    );
}

interface VerifyOptions extends Place {
  readonly export?: string;
  readonly key?: readonly string[];
  readonly roots?: true;
  readonly format: "text" | "json";
}

async function verify(file: string | undefined, options: VerifyOptions, terminal: Terminal): Promise<void> {
  const pems = await keysIn(options, terminal);
  if (options.export !== undefined) {
    if (pems.length === 0)
      throw new DrawbridgeError(
        "settings_invalid",
        "An export proves nothing by itself. Name the public key with --key.",
      );
    const pieces = createReadStream(resolve(terminal.cwd, options.export), { highWaterMark: 1 << 20 });
    return tell(await verifyExport(pieces, vouchersOf(pems, "--key"), options), "line", options, terminal);
  }
  await withStore({ file, store: options.store, readOnly: true }, terminal, async ({ audit, records }, settings) => {
    const trusted = pems.length > 0 ? pems : await trustedIn({ audit, records }, settings, file, terminal);
    const vouchers = vouchersOf(trusted, "--key");
    tell((await verifyLog(audit, vouchers, options)).verdict, "record", options, terminal);
  });
}

/** What the files of `--key` hold. */
function keysIn({ key = [] }: { readonly key?: readonly string[] }, { cwd }: Terminal): Promise<readonly string[]> {
  return Promise.all(key.map((path) => readFile(resolve(cwd, path), "utf8")));
}

/**
 * The key that the gateway signs with, where it can be read. The store names keys, too, but so could whoever has written the log anew.
 */
async function trustedIn(
  store: Pick<Store, "audit" | "records">,
  settings: Settings | undefined,
  file: string | undefined,
  terminal: Terminal,
): Promise<readonly string[]> {
  const known = await knownSigners(store.records);
  if (known.length === 0)
    throw new DrawbridgeError(
      "settings_invalid",
      "Nothing was signed in this store yet, so there is nothing to verify.",
    );
  const evidence = settings && evidenceOf(store, settings, file);
  if (evidence !== undefined) return [(await evidence.signer()).publicKey];
  terminal.stderr.write(
    "The keys that are trusted are those that the store itself names. To be sure, name yours with --key.\n",
  );
  return known;
}

function tell(verdict: Verdict, where: "line" | "record", { format }: VerifyOptions, terminal: Terminal): void {
  const { problem, records, chains, checkpoints, unchained, retired } = verdict;
  const paint = painter(terminal.stdout, terminal.env);
  if (format === "json") terminal.stdout.write(`${JSON.stringify({ whole: problem === undefined, ...verdict })}\n`);
  else {
    const older = unchained === 0 ? "" : `, ${unchained} of them from before there were chains`;
    const gone = retired === 0 ? "" : `, ${counted(retired, "record")} taken out by retention`;
    const found = `${counted(records, "record")}${older} in ${counted(chains, "chain")}, ${counted(checkpoints, "checkpoint")}${gone}`;
    if (problem === undefined) terminal.stdout.write(`${paint("green", "whole")}  ${found}\n`);
    else {
      const at = problem.at === 0 ? "the log" : `${where} ${problem.at}`;
      const id = problem.id === undefined || problem.id === "" ? "" : ` (${printable(problem.id)})`;
      terminal.stdout.write(`${paint("red", problem.kind)}  ${at}${id}: ${printable(problem.why)}\n${found}\n`);
    }
  }
  if (problem !== undefined) throw new Ended(EXIT.failed);
}

interface ExportOptions extends Place {
  readonly since?: number;
  readonly until?: number;
  readonly key?: readonly string[];
}

function exportTo(file: string | undefined, options: ExportOptions, terminal: Terminal): Promise<void> {
  const { store: named, since, until } = options;
  return withStore({ file, store: named, readOnly: true }, terminal, async ({ audit, records }, settings) => {
    const signer = await needed(evidenceOf({ audit, records }, settings, file)).signer();
    const write = writer(terminal);
    const lines = exported(audit, signer, { since, until }, Date.now(), await keysIn(options, terminal));
    for await (const line of lines) await write(line);
  });
}

interface PruneOptions extends Place {
  readonly olderThan?: number;
  readonly key?: readonly string[];
}

function prune(file: string | undefined, options: PruneOptions, terminal: Terminal): Promise<void> {
  return withStore({ file, store: options.store, readOnly: false }, terminal, async (store, settings) => {
    const days = options.olderThan ?? keptDays(settings);
    if (days === undefined)
      throw new DrawbridgeError("settings_invalid", "audit.keep is not set. Say how old with --older-than <days>.");
    const evidence = needed(evidenceOf(store, settings, file));
    // The journal tries again and again, which a person need not wait for when it is the key that is wrong.
    await evidence.signer();
    await using journal = evidence.journal;
    const { removed, stubs, held } = await retire(Date.now() - days * DAY_MS, {
      log: store.audit,
      records: store.records,
      journal,
      signer: evidence.signer,
      earlierKeys: await keysIn(options, terminal),
      replica: "command line",
      clock: Date.now,
      notBeyond: () => reachedBy(settings?.audit.export ?? [], store.records),
    });
    const kept = held === 0 ? "" : ` ${counted(held, "record")} stayed: they are on hold.`;
    const hashes = stubs === 0 ? "" : ` Of ${stubs} of them a hash is left, for those on hold before them.`;
    terminal.stdout.write(
      `${counted(removed, "record")} older than ${counted(days, "day")} taken out.${hashes}${kept}\n`,
    );
  });
}

/** `audit.keep` in days. */
export function keptDays(settings: Pick<Settings, "audit"> | undefined): number | undefined {
  const keep = settings?.audit.keep;
  return keep === undefined ? undefined : Number.parseInt(keep, 10);
}
const DAY_MS = 86_400_000;

interface HoldOptions extends Place {
  readonly reason: string;
  readonly user?: string;
  readonly target?: string;
  readonly since?: number;
  readonly until?: number;
}

function place_(name: string, file: string | undefined, options: HoldOptions, terminal: Terminal): Promise<void> {
  const { reason, user, target, since, until } = options;
  const hold = {
    id: name,
    reason,
    subject: user,
    target,
    since,
    until,
    placedBy: userInfo().username,
    placedAt: Date.now(),
  };
  const details = JSON.parse(JSON.stringify({ hold: name, reason, user, target, since, until })) as JsonObject;
  return keeping(file, options, terminal, { action: "audit.hold-placed", details }, async ({ records }) => {
    await placeHold(records, hold);
    terminal.stdout.write(`The hold ${printable(name)} is placed. What it matches stays until it is lifted.\n`);
  });
}

function listHolds(file: string | undefined, { store: named }: Place, terminal: Terminal): Promise<void> {
  return withStore({ file, store: named, readOnly: true }, terminal, async ({ records }) => {
    const rows = (await holds(records)).map(({ id, reason, subject, target, placedBy, placedAt }) => [
      id,
      subject ?? "everybody",
      target ?? "everything",
      day(placedAt),
      placedBy,
      reason,
    ]);
    if (rows.length === 0) terminal.stdout.write("Nothing is on hold.\n");
    else
      terminal.stdout.write(
        `${table(["hold", "user", "target", "placed", "by", "reason"], rows, terminal).join("\n")}\n`,
      );
  });
}

async function erase(
  subject: string,
  file: string | undefined,
  options: Place & { readonly yes?: true },
  terminal: Terminal,
): Promise<void> {
  if (options.yes !== true && terminal.ask !== undefined) {
    const answer = await terminal.ask(`Erase what the log has of ${printable(subject)}? It cannot be undone. [y/N] `);
    if (!/^y(es)?$/i.test(answer.trim())) throw new Ended(EXIT.failed);
  }
  await withStore({ file, store: options.store, readOnly: false }, terminal, async (store, settings) => {
    const onHold = (await holds(store.records)).filter(
      (hold) => hold.subject === undefined || hold.subject === subject,
    );
    if (onHold.length > 0)
      throw new DrawbridgeError(
        "settings_invalid",
        `Records of ${subject} may be on hold (${onHold.map(({ id }) => id).join(", ")}). Lift that first.`,
      );
    const evidence = needed(evidenceOf(store, settings, file));
    await evidence.signer();
    await using journal = evidence.journal;
    await journal.append(ownRecord("audit.erased", { subject, operator: userInfo().username }));
    const keys = await evidence.keys.destroy(subject);
    terminal.stdout.write(
      keys === 0
        ? `The log has nothing of ${printable(subject)} that could be erased.\n`
        : `Erased: nobody can read any more what ${printable(subject)} sent and got. The log still verifies.\n`,
    );
  });
}

/** Changes what is kept, and records it first. */
function keeping(
  file: string | undefined,
  options: Place,
  terminal: Terminal,
  { action, details }: { readonly action: string; readonly details: JsonObject },
  change: (store: Store) => Promise<void>,
): Promise<void> {
  return withStore({ file, store: options.store, readOnly: false }, terminal, async (store, settings) => {
    await using recorder = recorderOf(store, settings, file);
    await recorder.append(ownRecord(action, { ...details, operator: userInfo().username }));
    await change(store);
  });
}

function ownRecord(action: string, details: JsonObject): AuditRecord {
  return logRecord(action, details, "command line", Date.now());
}

function needed(evidence: Evidence | undefined): Evidence {
  if (evidence !== undefined) return evidence;
  throw new DrawbridgeError(
    "settings_invalid",
    "The secret of tokens.keyEncryptionSecret cannot be read here. Run this where the gateway runs, with its secrets.",
  );
}
