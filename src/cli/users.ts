/** `drawbridge users`: the people who may sign in, what they are allowed, and the end of it. */
import type { Command } from "commander";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { browserName } from "../oauth/people/sessions.ts";
import type { User } from "../oauth/people/users.ts";
import {
  columns,
  counted,
  day,
  facts,
  linkTo,
  OFFICE_HELP,
  type Office,
  type OfficeOptions,
  officeOptions,
  openOffice,
  PUBLIC_URL,
  table,
} from "./office.ts";
import type { Terminal } from "./terminal.ts";

interface UsersOptions extends OfficeOptions {
  readonly email?: string;
  readonly group?: readonly string[];
  readonly none?: true;
  readonly stdin?: true;
  readonly publicUrl?: string;
  readonly end?: string;
  readonly endAll?: true;
}

const HELP = `${OFFICE_HELP}
A user is named by what they sign in with, by id, or by provider:subject.

Examples:
  $ drawbridge users create jane --group support --email jane@example.com
  $ drawbridge users groups jane support refunds
  $ drawbridge users sessions jane --end-all
  $ drawbridge users disable jane
`;

export function define(command: Command, terminal: Terminal): void {
  command.addHelpText("after", HELP);
  const add = (name: string, description: string, changes = false) =>
    officeOptions(command.command(name).description(description), changes).addHelpText("after", HELP);
  const who = ["<user>", "name, id or provider:subject"] as const;

  add("list", "print who there is").action((options: UsersOptions) => list(options, terminal));
  add("show", "print one user: groups, sessions, what they allowed")
    .argument(...who)
    .action((user: string, options: UsersOptions) => show(user, options, terminal));
  add("create", "make a user, and the one-time link with which they choose a password")
    .argument("<name>", "what they sign in with")
    .option("--email <address>", "their e-mail address")
    .option("--group <groups...>", "groups they are in")
    .option(...PUBLIC_URL)
    .action((name: string, options: UsersOptions) => create(name, options, terminal));
  add("invite", "make a new one-time link with which a user chooses a password")
    .argument(...who)
    .option(...PUBLIC_URL)
    .action((user: string, options: UsersOptions) => invite(user, options, terminal));
  add("groups", "set the groups of a user")
    .argument(...who)
    .argument("[groups...]", "all groups they shall be in")
    .option("--none", "none at all")
    .action((user: string, groups: string[], options: UsersOptions) => setGroups(user, groups, options, terminal));
  add("password", "set a user's password, read from a pipe; their sessions end")
    .argument(...who)
    .option("--stdin", "read the password from standard input")
    .action((user: string, options: UsersOptions) => setPassword(user, options, terminal));
  add("sessions", "print the browsers that are signed in; end them")
    .argument(...who)
    .option("--end <id>", "end this one; the beginning of its id is enough")
    .option("--end-all", "end all of them")
    .action((user: string, options: UsersOptions) => sessions(user, options, terminal));
  add("disable", "end all that a user has, and let them in no more", true)
    .argument(...who)
    .action((user: string, options: UsersOptions) => disable(user, options, terminal));
  add("enable", "let a disabled user in again")
    .argument(...who)
    .action((user: string, options: UsersOptions) => enable(user, options, terminal));
  add("remove", "delete a user with all that is kept of them, except the audit log", true)
    .argument(...who)
    .action((user: string, options: UsersOptions) => remove(user, options, terminal));
}

/** A user without the hash of their password. */
function told({ id, name, email, groups, disabled, from, password, createdAt }: User) {
  const state = disabled ? "disabled" : from === undefined && password === undefined ? "invited" : "active";
  return { id, name, email: email ?? null, groups, state, from: from ?? null, createdAt };
}

function list(options: UsersOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "look", async ({ administration, show: print }) => {
    const users = (await administration.users.list()).map(told);
    const rows = users.map(({ id, name, groups, state, from, createdAt }) => [
      name,
      state,
      groups.join(", ") || "–",
      from === null ? "here" : from.provider,
      day(createdAt),
      id,
    ]);
    print(
      users,
      rows.length === 0
        ? ["There is nobody yet. Start the gateway: it prints the link that makes the first account."]
        : table(["NAME", "STATE", "GROUPS", "FROM", "SINCE", "ID"], rows, terminal),
    );
  });
}

function show(text: string, options: UsersOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "look", async ({ administration, show: print }) => {
    const { users, grants } = administration;
    const user = await users.get(text);
    const [open, given, consents] = await Promise.all([
      users.sessions(user),
      grants.list({ user: user.id }),
      grants.consents({ user: user.id }),
    ]);
    const { id, name, email, groups, state, from, createdAt } = told(user);
    print({ ...told(user), sessions: open.length, grants: given, consents }, [
      ...facts(
        {
          name,
          id,
          state,
          email: email ?? undefined,
          groups: groups.join(", ") || "none",
          from: from === null ? undefined : `${from.provider}, as ${from.subject}`,
          since: day(createdAt),
          sessions: String(open.length),
          grants: String(given.length),
        },
        terminal,
      ),
      ...(consents.length === 0 ? [] : ["", "Clients they let in:"]),
      ...columns(
        consents.map(({ client, clientName, scopes, until }) => [
          `  ${clientName}`,
          scopes.join(" "),
          `until ${day(until)}`,
          client,
        ]),
      ),
    ]);
  });
}

function create(name: string, options: UsersOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async (office) => {
    // Where the link leads is known before anything is made.
    linkTo("", office, options.publicUrl);
    const groups = options.group ?? [];
    const { user, token } = await office.administration.users.create({ name, email: options.email, groups });
    showLink(office, user, token, options, "made");
  });
}

function invite(text: string, options: UsersOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async (office) => {
    linkTo("", office, options.publicUrl);
    const { users } = office.administration;
    const user = await users.get(text);
    showLink(office, user, await users.invite(user), options, "invited");
  });
}

function showLink(office: Office, user: User, token: Secret, { publicUrl }: UsersOptions, what: string): void {
  const link = linkTo(`/setup/${token.reveal()}`, office, publicUrl);
  office.show({ ...told(user), link }, [
    `${what} ${user.name} (${user.id})`,
    `Give them this link. It works once, within 24 hours:`,
    `  ${link}`,
  ]);
}

function setGroups(text: string, groups: readonly string[], options: UsersOptions, terminal: Terminal): Promise<void> {
  if ((groups.length === 0) !== (options.none === true))
    throw new DrawbridgeError("settings_invalid", "Name the groups that the user shall be in, or --none.");
  return openOffice(options, terminal, "change", async ({ administration: { users }, show: print }) => {
    const user = await users.get(text);
    const wanted = [...new Set(groups)];
    await users.setGroups(user, wanted);
    print(told({ ...user, groups: wanted }), [`${user.name} is in ${wanted.join(", ") || "no group"}`]);
  });
}

async function setPassword(text: string, options: UsersOptions, terminal: Terminal): Promise<void> {
  if (options.stdin !== true || terminal.input === undefined)
    throw new DrawbridgeError(
      "settings_invalid",
      `Pipe the password in and add --stdin; or let them choose one: drawbridge users invite ${text}`,
    );
  const password = new Secret((await terminal.input()).replace(/\r?\n$/, ""));
  return openOffice(options, terminal, "change", async ({ administration: { users }, show: print }) => {
    const user = await users.get(text);
    await users.setPassword(user, password);
    print(told(user), [`${user.name} has a new password, and is signed out everywhere`]);
  });
}

function sessions(text: string, options: UsersOptions, terminal: Terminal): Promise<void> {
  const ends = options.end !== undefined || options.endAll === true;
  return openOffice(options, terminal, ends ? "change" : "look", async ({ administration: { users }, show: print }) => {
    const user = await users.get(text);
    if (ends) {
      const ended = await users.endSessions(user, options.endAll === true ? undefined : options.end);
      return print({ ended }, [`ended ${counted(ended, "session")} of ${user.name}`]);
    }
    const open = await users.sessions(user);
    const rows = open.map(({ id, userAgent, source, startedAt, lastSeenAt, endsAt }) => [
      id.slice(0, 12),
      browserName(userAgent),
      source,
      day(startedAt),
      day(lastSeenAt),
      day(endsAt),
    ]);
    print(
      open,
      rows.length === 0
        ? [`${user.name} is signed in nowhere.`]
        : table(["ID", "BROWSER", "FROM", "SIGNED IN", "LAST SEEN", "ENDS"], rows, terminal),
    );
  });
}

function disable(text: string, options: UsersOptions, terminal: Terminal): Promise<void> {
  return openOffice(
    options,
    terminal,
    "change",
    async ({ administration: { users, grants }, confirm, show: print }) => {
      const user = await users.get(text);
      const { length } = await grants.list({ user: user.id });
      await confirm(`Disable ${user.name}, and end their sessions and ${counted(length, "grant")}?`);
      await users.disable(user);
      print({ ...told({ ...user, disabled: true }), endedGrants: length }, [
        `disabled ${user.name}; ended ${counted(length, "grant")}`,
      ]);
    },
  );
}

function enable(text: string, options: UsersOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async ({ administration: { users }, show: print }) => {
    const user = await users.get(text);
    await users.enable(user);
    print(told({ ...user, disabled: false }), [`enabled ${user.name}; they sign in and allow their clients anew`]);
  });
}

function remove(text: string, options: UsersOptions, terminal: Terminal): Promise<void> {
  return openOffice(options, terminal, "change", async ({ administration: { users }, confirm, show: print }) => {
    const user = await users.get(text);
    await confirm(`Delete ${user.name} (${user.id}) with all that is kept of them?`);
    await users.remove(user);
    const again = user.from === undefined ? "" : ". Signing in again makes a new user: to keep them out, disable them";
    print({ removed: user.id }, [`removed ${user.name}${again}`]);
  });
}
