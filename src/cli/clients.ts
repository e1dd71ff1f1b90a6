/** `drawbridge clients`: the programs that connect, what they were given, and the end of it. */
import { type Command, InvalidArgumentError } from "commander";
import type { KnownClient } from "../oauth/administration.ts";
import {
  columns,
  counted,
  day,
  facts,
  OFFICE_HELP,
  type OfficeOptions,
  officeOptions,
  openOffice,
  table,
} from "./office.ts";
import type { Terminal } from "./terminal.ts";

interface ClientsOptions extends OfficeOptions {
  readonly uses: number;
  readonly days: number;
  readonly note?: string;
  readonly list?: true;
  readonly revoke?: string;
}

const HELP = `${OFFICE_HELP}
A client is named by its id, the beginning of it, or its name.

Examples:
  $ drawbridge clients show https://client.example.com/client.json
  $ drawbridge clients disable https://client.example.com/client.json
  $ drawbridge clients token --uses 5 --days 7 --note "build agents"
`;

export function define(command: Command, terminal: Terminal): void {
  command.addHelpText("after", HELP);
  const add = (name: string, description: string, changes = false) =>
    officeOptions(command.command(name).description(description), changes).addHelpText("after", HELP);
  const which = ["<client>", "id, beginning of an id, or name"] as const;

  add("list", "print every client that is known").action((options: ClientsOptions) => list(options, terminal));
  add("show", "print one client: where it came from, who let it in, the hash that pins its document")
    .argument(...which)
    .action((client: string, options: ClientsOptions) => show(client, options, terminal));
  add("disable", "refuse a client and all that it was given, until it is enabled", true)
    .argument(...which)
    .action((client: string, options: ClientsOptions) => disable(client, options, terminal));
  add("enable", "let a disabled client in again")
    .argument(...which)
    .action((client: string, options: ClientsOptions) => enable(client, options, terminal));
  add("remove", "end all that was allowed to a client, and forget its registration", true)
    .argument(...which)
    .action((client: string, options: ClientsOptions) => remove(client, options, terminal));
  add("token", "make a token with which clients can be registered (clients.registration: initial-access-token)")
    .option("--uses <number>", "registrations it is good for", wholeNumber(1, 10_000), 1)
    .option("--days <number>", "days it is good for", wholeNumber(1, 365), 7)
    .option("--note <text>", "what it is for")
    .option("--list", "print those there are instead")
    .option("--revoke <id>", "end one instead")
    .action((options: ClientsOptions) => token(options, terminal));
}

const KNOWN_BY = {
  settings: "settings file",
  workload: "settings file, a workload",
  registration: "registered itself",
  document: "document",
} as const satisfies Record<KnownClient["knownBy"], string>;

const TRUST = {
  allowed: "allowed by the settings",
  asked: "people are asked, with a warning",
  denied: "refused by the settings",
} as const;

function list(options: ClientsOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "look", async ({ administration, show: print }) => {
    const clients = await administration.clients.list();
    const rows = clients.map(({ id, name, knownBy, disabled, grants, people, expiresAt }) => [
      name || "–",
      KNOWN_BY[knownBy],
      disabled ? "disabled" : "active",
      String(grants),
      String(people),
      day(expiresAt),
      id,
    ]);
    print(
      clients,
      rows.length === 0
        ? ["No client has connected yet."]
        : table(["NAME", "KNOWN BY", "STATE", "GRANTS", "PEOPLE", "EXPIRES", "ID"], rows, terminal),
    );
  });
}

function show(text: string, options: ClientsOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "look", async (office) => {
    const { clients, users } = office.administration;
    const client = await clients.show(text);
    const names = new Map((await users.list()).map(({ id, name }) => [id, name]));
    const { id, name, knownBy, disabled, grants, people, redirectUris, expiresAt, consents, document } = client;
    office.show(client, [
      ...facts(
        {
          name: name || undefined,
          id,
          "known by": KNOWN_BY[knownBy],
          trust: document && TRUST[document.trust],
          state: disabled ? "disabled" : "active",
          grants: `${grants}, of ${people} ${people === 1 ? "person" : "people"}`,
          redirects: redirectUris.join(" ") || undefined,
          expires: knownBy === "registration" ? day(expiresAt) : undefined,
          document: document?.sha256,
          pinned: document?.pin,
          problem: document?.problem,
        },
        terminal,
      ),
      ...(consents.length === 0 ? [] : ["", "Let in by:"]),
      ...columns(
        consents.map(({ user, scopes, lastAt, until }) => [
          `  ${names.get(user) ?? user}`,
          scopes.join(" "),
          `${day(lastAt)}`,
          `until ${day(until)}`,
        ]),
      ),
    ]);
  });
}

function disable(text: string, options: ClientsOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async (office) => {
    const { id, grants } = await office.administration.clients.get(text);
    await office.confirm(`Refuse ${id} from now on (${counted(grants, "grant")})?`);
    await office.administration.clients.disable(id);
    office.show({ id, disabled: true }, [`disabled ${id}; what it was given is refused until it is enabled`]);
  });
}

function enable(text: string, options: ClientsOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async (office) => {
    const { id } = await office.administration.clients.get(text);
    await office.administration.clients.enable(id);
    office.show({ id, disabled: false }, [`enabled ${id}`]);
  });
}

function remove(text: string, options: ClientsOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async ({ administration: { clients }, confirm, show: print }) => {
    const client = await clients.get(text);
    await confirm(`Remove ${client.id}, and end ${counted(client.grants, "grant")}?`);
    await clients.remove(client);
    const again = client.knownBy === "document" ? ". It may ask again: to keep it out, disable it" : "";
    print({ removed: client.id, endedGrants: client.grants }, [
      `removed ${client.id}; ended ${counted(client.grants, "grant")}${again}`,
    ]);
  });
}

function token(options: ClientsOptions, terminal: Terminal): Promise<void> {
  const mode = options.list === true ? "look" : "change";
  return openOffice(options, terminal, mode, async ({ administration: { clients }, settings, show: print }) => {
    if (options.list === true) {
      const tokens = await clients.tokens();
      const rows = tokens.map(({ id, note, usesLeft, expiresAt }) => [id, String(usesLeft), day(expiresAt), note]);
      return print(
        tokens,
        rows.length === 0 ? ["There is no token."] : table(["ID", "LEFT", "EXPIRES", "NOTE"], rows, terminal),
      );
    }
    if (options.revoke !== undefined) {
      await clients.revokeToken(options.revoke);
      return print({ revoked: options.revoke }, [`revoked ${options.revoke}; what was registered with it stays`]);
    }
    const { uses, days, note } = options;
    const expiresAt = Date.now() + days * 86_400_000;
    const made = await clients.newToken({ uses, expiresAt, ...(note !== undefined && { note }) });
    const mode = settings?.clients.registration;
    const warning =
      mode === undefined || mode === "initial-access-token"
        ? []
        : [`The settings have clients.registration: ${mode}, which asks for no token. Set it to initial-access-token.`];
    print({ ...made, token: made.token.reveal() }, [
      `token ${made.id} for ${counted(uses, "registration")} until ${day(expiresAt)}. It is shown this once:`,
      `  ${made.token.reveal()}`,
      ...warning,
    ]);
  });
}

function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const number = Number(text);
    if (!Number.isInteger(number) || number < least || number > most)
      throw new InvalidArgumentError(`It must be a whole number from ${least} to ${most}.`);
    return number;
  };
}
