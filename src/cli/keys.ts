/** `drawbridge keys`: the keys that sign tokens, changed on running gateways. */
import type { Command } from "commander";
import type { KeyStatus } from "../oauth/tokens/keys.ts";
import { day, needKeySecret, OFFICE_HELP, type OfficeOptions, officeOptions, openOffice, table } from "./office.ts";
import type { Terminal } from "./terminal.ts";

const HELP = `${OFFICE_HELP}
A rotation refuses no token: the new key is published first, signs when every verifier must have read it, and the old one
goes when its last token has ended. Revoking is for a key that somebody else may have: what it signed is refused at once, so
clients refresh, and cookies stay.

Examples:
  $ drawbridge keys list
  $ drawbridge keys rotate
  $ drawbridge keys revoke Zk3xQ0
`;

export function define(command: Command, terminal: Terminal): void {
  command.addHelpText("after", HELP);
  const add = (name: string, description: string, changes = false) =>
    officeOptions(command.command(name).description(description), changes).addHelpText("after", HELP);

  add("list", "print the keys, the newest first").action((options: OfficeOptions) => list(options, terminal));
  add("rotate", "begin to sign with a new key").action((options: OfficeOptions) => rotate(options, terminal));
  add("revoke", "take a key out of use at once", true)
    .argument("<kid>", "its key id, or the beginning of it")
    .action((kid: string, options: OfficeOptions) => revoke(kid, options, terminal));
}

function list(options: OfficeOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "look", async (office) => {
    needKeySecret(office);
    const keys = await office.administration.keys.list();
    office.show(
      keys,
      keys.length === 0
        ? ["There is no key yet: the gateway makes one at its first start."]
        : table(["STATE", "ALGORITHM", "SIGNS FROM", "VERIFIES UNTIL", "KEY ID"], keys.map(row), terminal),
    );
  });
}

function row({ kid, algorithm, state, signsFrom, until }: KeyStatus): readonly string[] {
  return [state, algorithm, day(signsFrom), until === undefined ? "–" : day(until), kid];
}

function rotate(options: OfficeOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async (office) => {
    needKeySecret(office);
    const key = await office.administration.keys.rotate();
    office.show(key, [`${key.kid} is published, and signs from ${day(key.signsFrom)} UTC`]);
  });
}

function revoke(kid: string, options: OfficeOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async (office) => {
    needKeySecret(office);
    await office.confirm(`Take key ${kid} out of use at once? Every token that it signed is refused.`);
    const signing = await office.administration.keys.revoke(kid);
    office.show({ revoked: kid, signing }, [`revoked ${kid}; ${signing.kid} signs from now on`]);
  });
}
