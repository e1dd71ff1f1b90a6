/** `drawbridge audit verify | export | key | prune | hold | erase`: proving the log, handing it out, and letting go of what must go. */
import { createReadStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { resolve } from "node:path";
import { Argument, type Command, Option } from "commander";
import { knownSigners } from "../audit/evidence.ts";
import { exported, verifyExport } from "../audit/export.ts";
import { type HoldDoubt, lookAtHolds } from "../audit/holds.ts";
import { logRecord } from "../audit/record.ts";
import { retire } from "../audit/retention.ts";
import { vouchersOf } from "../audit/signing.ts";
import { reachedBy } from "../audit/sinks/sinks.ts";
import type { Verdict } from "../audit/verify.ts";
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { atMost, moment } from "./audit.ts";
import { holdCommands } from "./audit-holds.ts";
import { neededEvidence, trustedIn } from "./evidence.ts";
import { Ended, EXIT } from "./main.ts";
import { counted } from "./office.ts";
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
  holdCommands(command, terminal);
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
    const pieces = piecesOf(options.export, terminal);
    return tell(await verifyExport(pieces, vouchersOf(pems, "--key"), options), [], "line", options, terminal);
  }
  await withStore({ file, store: options.store, readOnly: true }, terminal, async ({ audit, records }, settings) => {
    const trusted = pems.length > 0 ? pems : await trustedIn({ audit, records }, settings, file, terminal);
    const { verdict, doubts } = await lookAtHolds(audit, records, vouchersOf(trusted, "--key"), options);
    tell(verdict, doubts, "record", options, terminal);
  });
}

/** What the files of `--key` hold. */
function keysIn({ key = [] }: { readonly key?: readonly string[] }, { cwd }: Terminal): Promise<readonly string[]> {
  return Promise.all(
    key.map((path) =>
      readFile(resolve(cwd, path), "utf8").catch((cause: unknown) => {
        throw unread("--key", path, cause);
      }),
    ),
  );
}

async function* piecesOf(path: string, { cwd }: Terminal): AsyncGenerator<Buffer> {
  try {
    yield* createReadStream(resolve(cwd, path), { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>;
  } catch (cause) {
    throw unread("--export", path, cause);
  }
}

/** A file that is not there says nothing about the log, which ends with 1 when it is not whole. */
function unread(option: string, path: string, cause: unknown): DrawbridgeError {
  const code = (cause as NodeJS.ErrnoException).code ?? "unknown";
  return new DrawbridgeError("settings_invalid", `${option}: the file ${path} cannot be read (${code}).`, { cause });
}

function tell(
  verdict: Verdict,
  doubts: readonly HoldDoubt[],
  where: "line" | "record",
  { format }: VerifyOptions,
  terminal: Terminal,
): void {
  const { problem, records, chains, checkpoints, unchained, retired } = verdict;
  const paint = painter(terminal.stdout, terminal.env);
  const whole = problem === undefined && doubts.length === 0;
  if (format === "json") terminal.stdout.write(`${JSON.stringify({ whole, ...verdict, holds: doubts })}\n`);
  else {
    const older = unchained === 0 ? "" : `, ${unchained} of them from before there were chains`;
    const gone = retired === 0 ? "" : `, ${counted(retired, "record")} taken out by retention`;
    const found = `${counted(records, "record")}${older} in ${counted(chains, "chain")}, ${counted(checkpoints, "checkpoint")}${gone}`;
    for (const { hold, kind, why } of doubts)
      terminal.stdout.write(`${paint("red", kind)}  hold ${printable(hold)}: ${printable(why)}\n`);
    if (whole) terminal.stdout.write(`${paint("green", "whole")}  ${found}\n`);
    else if (problem === undefined) terminal.stdout.write(`${found}, all of them whole\n`);
    else {
      const at = problem.at === 0 ? "the log" : `${where} ${problem.at}`;
      const id = problem.id === undefined || problem.id === "" ? "" : ` (${printable(problem.id)})`;
      terminal.stdout.write(`${paint("red", problem.kind)}  ${at}${id}: ${printable(problem.why)}\n${found}\n`);
    }
  }
  if (!whole) throw new Ended(EXIT.failed);
}

interface ExportOptions extends Place {
  readonly since?: number;
  readonly until?: number;
  readonly key?: readonly string[];
}

function exportTo(file: string | undefined, options: ExportOptions, terminal: Terminal): Promise<void> {
  const { store: named, since, until } = options;
  return withStore({ file, store: named, readOnly: true }, terminal, async ({ audit, records }, settings) => {
    const signer = await neededEvidence({ audit, records }, settings, file).signer();
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
    const evidence = neededEvidence(store, settings, file);
    // The journal tries again and again, which a person need not wait for when it is the key that is wrong.
    await evidence.signer();
    await using journal = evidence.journal;
    const { removed, stubs, held, doubts } = await retire(Date.now() - days * DAY_MS, {
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
    for (const { hold, why } of doubts)
      terminal.stderr.write(
        `The hold ${printable(hold)} is in doubt, so all that it may match stayed. ${printable(why)}\n`,
      );
    if (doubts.length > 0) throw new Ended(EXIT.failed);
  });
}

/** `audit.keep` in days. */
export function keptDays(settings: Pick<Settings, "audit"> | undefined): number | undefined {
  const keep = settings?.audit.keep;
  return keep === undefined ? undefined : Number.parseInt(keep, 10);
}
const DAY_MS = 86_400_000;

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
    const evidence = neededEvidence(store, settings, file);
    const vouchers = vouchersOf([(await evidence.signer()).publicKey]);
    const { inForce } = await lookAtHolds(store.audit, store.records, vouchers);
    const onHold = inForce.filter((hold) => hold.subject === undefined || hold.subject === subject);
    if (onHold.length > 0)
      throw new DrawbridgeError(
        "settings_invalid",
        `Records of ${subject} may be on hold (${onHold.map(({ id }) => id).join(", ")}). Lift that first.`,
      );
    await using journal = evidence.journal;
    const operator = userInfo().username;
    await journal.append(logRecord("audit.erased", { subject, operator }, "command line", Date.now()));
    const keys = await evidence.keys.destroy(subject);
    terminal.stdout.write(
      keys === 0
        ? `The log has nothing of ${printable(subject)} that could be erased.\n`
        : `Erased: nobody can read any more what ${printable(subject)} sent and got. The log still verifies.\n`,
    );
  });
}
