/** `drawbridge approvals`: calls that wait for a person, and the decision, over the gateway's control socket or with a token. */
import type { Command } from "commander";
import type { ApprovalView } from "../gateway/approvals/office.ts";
import { Ended, EXIT } from "./main.ts";
import { facts, table } from "./office.ts";
import { asked, reaching, type ServersOptions } from "./servers.ts";
import { printable, type Terminal } from "./terminal.ts";

interface ApprovalsOptions extends ServersOptions {
  readonly yes?: true;
}

const HELP = `
On the gateway's own machine its control socket is asked, as the user that the gateway runs as, who may decide everything. From
elsewhere name the gateway with --url and put an access token into DRAWBRIDGE_TOKEN: of somebody whom the rule lets decide,
through another client than the one that asked. What is approved is one call with just these arguments; each decision is in
the audit log, with your name. Times are UTC.

Examples:
  $ drawbridge approvals
  $ drawbridge approvals show KTQM-BXVD
  $ drawbridge approvals approve KTQM-BXVD
  $ drawbridge approvals deny KTQM-BXVD
`;

export function define(command: Command, terminal: Terminal): void {
  command.addHelpText("after", HELP);
  const add = (name: string, description: string, options: { isDefault?: boolean } = {}) =>
    reaching(command.command(name, options).description(description)).addHelpText("after", HELP);
  const number = ["<number>", "as the list and the refused call have it"] as const;

  add("list", "print the calls that wait", { isDefault: true }).action((options: ApprovalsOptions) =>
    list(options, terminal),
  );
  add("show", "print one, with what it would send")
    .argument(...number)
    .action((name: string, options: ApprovalsOptions) => show(name, options, terminal));
  add("approve", "let the call be made, once")
    .argument(...number)
    .option("-y, --yes", "do not ask")
    .action((name: string, options: ApprovalsOptions) => approve(name, options, terminal));
  add("deny", "refuse the call")
    .argument(...number)
    .action((name: string, options: ApprovalsOptions) => deny(name, options, terminal));
}

async function list(options: ApprovalsOptions, terminal: Terminal): Promise<void> {
  const { approvals } = (await asked("GET", "/admin/approvals", options, terminal)) as {
    readonly approvals: readonly ApprovalView[];
  };
  const rows = approvals.map(({ number, state, name, requester, until }) => [
    number,
    state,
    name,
    requester.name ?? requester.subject,
    when(until),
  ]);
  const lines =
    rows.length === 0
      ? ["no call waits for an approval"]
      : table(["NUMBER", "STATE", "CALL", "ASKED BY", "UNTIL"], rows, terminal);
  write({ approvals }, lines, options, terminal);
}

async function show(number: string, options: ApprovalsOptions, terminal: Terminal): Promise<void> {
  const found = await shown(number, options, terminal);
  write(found, linesOf(found, terminal), options, terminal);
}

async function approve(number: string, options: ApprovalsOptions, terminal: Terminal): Promise<void> {
  if (options.yes !== true && terminal.ask !== undefined) {
    const found = await shown(number, options, terminal);
    terminal.stderr.write(`${linesOf(found, terminal).join("\n")}\n\n`);
    const answer = await terminal.ask("Approve this call? [y/N] ");
    if (!/^y(es)?$/i.test(answer.trim())) {
      terminal.stderr.write("Nothing was decided.\n");
      throw new Ended(EXIT.failed);
    }
  }
  const decided = (await asked("POST", `${pathOf(number)}/approve`, options, terminal)) as ApprovalView;
  const { name, requester } = decided;
  const who = printable(requester.name ?? requester.subject);
  write(
    decided,
    [`approved: ${who} can make this call of ${printable(name)} once, by repeating it`],
    options,
    terminal,
  );
}

async function deny(number: string, options: ApprovalsOptions, terminal: Terminal): Promise<void> {
  const decided = (await asked("POST", `${pathOf(number)}/deny`, options, terminal)) as ApprovalView;
  write(decided, [`denied: this call of ${printable(decided.name)} is refused`], options, terminal);
}

const shown = async (number: string, options: ApprovalsOptions, terminal: Terminal) =>
  (await asked("GET", pathOf(number), options, terminal)) as ApprovalView;

function linesOf(found: ApprovalView, terminal: Terminal): readonly string[] {
  const { number, state, approver, rules, decided, shown: call = [] } = found;
  const about = facts(
    {
      number,
      state,
      "decided by": decided && `${decided.by}, ${when(decided.at)}`,
      "to decide by": approver,
      rules: rules.join(", "),
    },
    terminal,
  );
  // Made safe to show where they were made; the length is theirs.
  return [...about, "", ...call.map((line) => printable(line, 10_000))];
}

function write(value: unknown, lines: readonly string[], { json }: ApprovalsOptions, terminal: Terminal): void {
  terminal.stdout.write(`${json === true ? JSON.stringify(value, null, 2) : lines.join("\n")}\n`);
}

const when = (iso: string) => iso.slice(0, 16).replace("T", " ");

/** A number of ours needs no escape; anything else is told as what does not exist. */
const pathOf = (number: string) => `/admin/approvals/${encodeURIComponent(number.toUpperCase())}`;
