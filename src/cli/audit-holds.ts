/** `drawbridge audit hold place | list | lift`: legal holds, each placed and lifted by a record of the log. */
import { userInfo } from "node:os";
import { Argument, type Command } from "commander";
import { knownSigners } from "../audit/evidence.ts";
import {
  type Hold,
  LIFTED,
  liftedDetails,
  lookAtHolds,
  PLACED,
  placedDetails,
  placeHold,
  removeHold,
  storedHolds,
} from "../audit/holds.ts";
import { logRecord } from "../audit/record.ts";
import { vouchersOf } from "../audit/signing.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import { moment } from "./audit.ts";
import { neededEvidence, trustedIn } from "./evidence.ts";
import { day, table } from "./office.ts";
import { withStore } from "./store.ts";
import { printable, type Terminal } from "./terminal.ts";

interface Place {
  readonly store?: string;
}
interface HoldOptions extends Place {
  readonly reason: string;
  readonly user?: string;
  readonly target?: string;
  readonly since?: number;
  readonly until?: number;
}

export function holdCommands(command: Command, terminal: Terminal): void {
  const place = (one: Command) =>
    one
      .argument("[file]", "settings file")
      .option("--store <store>", "the store itself, e.g. sqlite:./.drawbridge/drawbridge.db");
  const hold = command.command("hold").description("legal hold: records that stay, however old");
  place(hold.command("list")).action((file: string | undefined, options: Place) => listHolds(file, options, terminal));
  const named = (one: Command) => place(one.addArgument(new Argument("<name>", "of the hold, e.g. a case number")));
  named(hold.command("place"))
    .requiredOption("--reason <text>", "why")
    .option("--user <subject>", "only records of this user")
    .option("--target <name>", "only of this tool, prompt or resource")
    .option("--since <time>", "only not older than this", moment)
    .option("--until <time>", "only older than this", moment)
    .action((name: string, file: string | undefined, options: HoldOptions) => placed(name, file, options, terminal));
  named(hold.command("lift")).action((name: string, file: string | undefined, options: Place) =>
    lifted(name, file, options, terminal),
  );
}

function placed(name: string, file: string | undefined, options: HoldOptions, terminal: Terminal): Promise<void> {
  const { reason, user, target, since, until } = options;
  const placedBy = userInfo().username;
  const placedAt = Date.now();
  const hold: Hold = { id: name, key: newId(), reason, subject: user, target, since, until, placedBy, placedAt };
  return withStore({ file, store: options.store, readOnly: false }, terminal, async ({ audit, records }, settings) => {
    if ((await storedHolds(records)).some((one) => one.hold.id === name))
      throw new DrawbridgeError("settings_invalid", `There is a hold ${name} already. Choose another name.`);
    const evidence = neededEvidence({ audit, records }, settings, file);
    const signer = await evidence.signer();
    await using journal = evidence.journal;
    await journal.append(logRecord(PLACED, placedDetails(hold), "command line", placedAt));
    try {
      await placeHold(records, hold, signer);
    } catch (error) {
      // Somebody was first. What was recorded would hold without it.
      const lifting = logRecord(LIFTED, liftedDetails(name, [hold], placedBy), "command line", Date.now());
      await journal.append(lifting);
      throw error;
    }
    terminal.stdout.write(`The hold ${printable(name)} is placed. What it matches stays until it is lifted.\n`);
  });
}

function lifted(name: string, file: string | undefined, options: Place, terminal: Terminal): Promise<void> {
  return withStore({ file, store: options.store, readOnly: false }, terminal, async ({ audit, records }, settings) => {
    const evidence = neededEvidence({ audit, records }, settings, file);
    const vouchers = vouchersOf([(await evidence.signer()).publicKey]);
    const { inForce } = await lookAtHolds(audit, records, vouchers);
    const those = inForce.filter(({ id }) => id === name);
    if (those.length === 0) throw new DrawbridgeError("settings_invalid", `There is no hold ${name}.`);
    await using journal = evidence.journal;
    const details = liftedDetails(name, those, userInfo().username);
    await journal.append(logRecord(LIFTED, details, "command line", Date.now()));
    await removeHold(records, name);
    terminal.stdout.write(`The hold ${printable(name)} is lifted.\n`);
  });
}

function listHolds(file: string | undefined, { store: named }: Place, terminal: Terminal): Promise<void> {
  return withStore({ file, store: named, readOnly: true }, terminal, async ({ audit, records }, settings) => {
    const signed = (await knownSigners(records)).length > 0;
    const vouchers = vouchersOf(signed ? await trustedIn({ audit, records }, settings, file, terminal) : []);
    const { inForce, doubts, unsigned } = await lookAtHolds(audit, records, vouchers);
    const state = (id: string) =>
      doubts.find(({ hold }) => hold === id)?.kind ?? (unsigned.has(id) ? "unsigned" : "signed");
    const rows = inForce.map(({ id, reason, subject, target, placedBy, placedAt }) => [
      id,
      subject ?? "everybody",
      target ?? "everything",
      day(placedAt),
      placedBy,
      state(id),
      reason,
    ]);
    if (rows.length === 0) terminal.stdout.write("Nothing is on hold.\n");
    else
      terminal.stdout.write(
        `${table(["hold", "user", "target", "placed", "by", "state", "reason"], rows, terminal).join("\n")}\n`,
      );
  });
}
