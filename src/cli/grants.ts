/** `drawbridge grants`: who allowed which client what, and the end of it. */
import type { Command } from "commander";
import { DrawbridgeError } from "../core/errors.ts";
import type { GrantFilter } from "../oauth/administration.ts";
import type { Grant } from "../oauth/tokens/grants.ts";
import {
  counted,
  day,
  facts,
  OFFICE_HELP,
  type Office,
  type OfficeOptions,
  officeOptions,
  openOffice,
  table,
} from "./office.ts";
import type { Terminal } from "./terminal.ts";

interface GrantsOptions extends OfficeOptions {
  readonly user?: string;
  readonly client?: string;
  readonly allOfUser?: string;
}

const HELP = `${OFFICE_HELP}
Examples:
  $ drawbridge grants list --user jane
  $ drawbridge grants revoke Zk3xQ0
  $ drawbridge grants revoke --all-of-user jane
  $ drawbridge grants revoke --client https://client.example.com/client.json
`;

export function define(command: Command, terminal: Terminal): void {
  command.addHelpText("after", HELP);
  const add = (name: string, description: string, changes = false) =>
    officeOptions(command.command(name).description(description), changes).addHelpText("after", HELP);

  add("list", "print the grants in force")
    .option("--user <user>", "only of this user: name, id or provider:subject")
    .option("--client <client>", "only of this client: id, beginning of it, or name")
    .action((options: GrantsOptions) => list(options, terminal));
  add("show", "print one grant")
    .argument("<id>", "its id, or the beginning of it")
    .action((id: string, options: GrantsOptions) => show(id, options, terminal));
  add("revoke", "end one grant with its tokens; or all of a user, of a client, or of both", true)
    .argument("[id]", "its id, or the beginning of it")
    .option("--all-of-user <user>", "everything that this user allowed, and their sessions")
    .option("--user <user>", "what this user allowed the client of --client")
    .option("--client <client>", "everything that was allowed to this client")
    .action((id: string | undefined, options: GrantsOptions) => revoke(id, options, terminal));
}

async function filterOf(options: GrantsOptions, { administration: { users, clients } }: Office): Promise<GrantFilter> {
  const user = options.allOfUser ?? options.user;
  return {
    ...(user !== undefined && { user: (await users.get(user)).id }),
    ...(options.client !== undefined && { client: (await clients.get(options.client)).id }),
  };
}

/** Names for people and clients, as far as they are known. */
async function namesIn({ administration: { users, clients } }: Office) {
  const people = new Map((await users.list()).map(({ id, name }) => [id, name]));
  const programs = new Map((await clients.list()).map(({ id, name }) => [id, name]));
  return ({ user, client }: Grant) => ({
    userName: people.get(user) ?? user,
    clientName: programs.get(client) || client,
  });
}

function list(options: GrantsOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "look", async (office) => {
    const found = await office.administration.grants.list(await filterOf(options, office));
    const names = await namesIn(office);
    const grants = found.map((grant) => ({ ...grant, ...names(grant) }));
    const rows = grants.map(({ id, userName, clientName, scopes, since, until }) => [
      userName,
      clientName,
      scopes.join(" "),
      day(since),
      day(until),
      id,
    ]);
    office.show(
      grants,
      rows.length === 0
        ? ["There is no grant in force."]
        : table(["USER", "CLIENT", "SCOPES", "SINCE", "UNTIL", "ID"], rows, terminal),
    );
  });
}

function show(id: string, options: GrantsOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "look", async (office) => {
    const grant = await office.administration.grants.get(id);
    const names = (await namesIn(office))(grant);
    office.show(
      { ...grant, ...names },
      facts(
        {
          id: grant.id,
          user: `${names.userName} (${grant.user})`,
          client: names.clientName === grant.client ? grant.client : `${names.clientName} (${grant.client})`,
          scopes: grant.scopes.join(" "),
          since: day(grant.since),
          until: day(grant.until),
        },
        terminal,
      ),
    );
  });
}

function revoke(id: string | undefined, options: GrantsOptions, terminal: Terminal): Promise<void> {
  const { user, client, allOfUser } = options;
  const ways = [id, allOfUser, client].filter((way) => way !== undefined).length;
  if (ways !== 1 || (user !== undefined && client === undefined))
    throw new DrawbridgeError(
      "settings_invalid",
      "Name one of: the id of a grant, --all-of-user, or --client (with --user: only of that user).",
    );
  return openOffice(options, terminal, "change", async (office) => {
    const { grants } = office.administration;
    if (id !== undefined) {
      const grant = await grants.get(id);
      await office.confirm(`End grant ${grant.id} of ${grant.client}?`);
      await grants.revoke(grant);
      return office.show({ revoked: 1 }, [`revoked ${grant.id}; its tokens are refused`]);
    }
    const filter = await filterOf(options, office);
    const { length } = await grants.list(filter);
    await office.confirm(`End ${counted(length, "grant")}, and forget the consents behind?`);
    const revoked = await grants.revokeAll(filter);
    office.show({ revoked }, [`revoked ${counted(revoked, "grant")}; their tokens are refused`]);
  });
}
