/** `drawbridge access`: the blast radius of each role. */
import type { Command } from "commander";
import { DrawbridgeError } from "../core/errors.ts";
import { type BlastRadius, blastRadius, type Reached, type Source } from "../policy/blast-radius.ts";
import { type PlaceOptions, policyPlace } from "./policy-place.ts";
import { type Painter, painter, printable, type Terminal } from "./terminal.ts";

interface AccessOptions extends PlaceOptions {
  readonly as?: string;
  readonly json?: true;
}

const HELP = `
What whoever holds a role could read, change, destroy and send outside at most: conditions count as met. A contract says
what a tool does; * marks what only its server says, ? what is guessed from names and descriptions.

Examples:
  $ drawbridge access
  $ drawbridge access --as support --json
`;

export function define(command: Command, terminal: Terminal): void {
  command
    .option("--file <settings>", "settings file")
    .option("--as <role>", "only this role")
    .option("--open", "ask the servers what they offer, in place of the store")
    .option("--json", "print JSON")
    .addHelpText("after", HELP)
    .action((options: AccessOptions) => access(options, terminal));
}

async function access(options: AccessOptions, terminal: Terminal): Promise<void> {
  const { roles, things, missing } = await policyPlace(options, terminal);
  const names = Object.keys(roles).filter((name) => options.as === undefined || name === options.as);
  if (names.length === 0)
    throw new DrawbridgeError(
      "settings_invalid",
      `There is no role ${JSON.stringify(options.as)}; known roles: ${Object.keys(roles).join(", ")}.`,
    );
  const found = names.flatMap((name) => {
    const role = roles[name];
    return role === undefined ? [] : [blastRadius(name, role, things)];
  });
  const paint = painter(terminal.stdout, terminal.env);
  const lines = found.flatMap((one, at) => [...(at === 0 ? [] : [""]), ...radiusLines(one, paint)]);
  const notes = [
    ...(found.some(hasGuesses)
      ? ["* said by its server, ? guessed from its name and words: a contract says it for certain."]
      : []),
    ...(missing === undefined ? [] : [missing]),
  ];
  const text =
    options.json === true
      ? JSON.stringify({ roles: found, ...(missing !== undefined && { missing }) }, null, 2)
      : [...lines, ...(notes.length === 0 ? [] : ["", ...notes.map((note) => paint("dim", note))])].join("\n");
  terminal.stdout.write(`${text}\n`);
}

const MARK: Record<Source, string> = { contract: "", server: "*", guess: "?" };

function radiusLines(radius: BlastRadius, paint: Painter): readonly string[] {
  const rows: [string, readonly Reached[]][] = [
    ["reads", radius.reads],
    ["changes", radius.changes],
    ["destroys", radius.destroys],
    ["sends outside", radius.sends],
  ];
  const { trifecta, unsaid } = radius;
  return [
    paint("bold", printable(radius.role)),
    ...rows.map(
      ([what, all]) => `  ${what.padEnd(14)} ${all.length === 0 ? "nothing" : all.map(reachedText).join(", ")}`,
    ),
    ...(unsaid.length === 0
      ? []
      : [`  nobody says whether it reaches outside: ${unsaid.map((name) => printable(name)).join(", ")}`]),
    ...(trifecta === undefined
      ? []
      : [
          paint("yellow", `  warning: the lethal trifecta${trifecta.guessed ? " (partly guessed)" : ""}`),
          `    private data:        ${trifecta.privateData.map((name) => printable(name)).join(", ")}`,
          `    text of strangers:   ${trifecta.strangersText.map((name) => printable(name)).join(", ")}`,
          `    a way out:           ${trifecta.wayOut.map((name) => printable(name)).join(", ")}`,
          "    Words in what it reads could have it send what it reads. Take one of the three away, or have a person approve the way out.",
        ]),
  ];
}

function reachedText({ name, kind, by, when }: Reached): string {
  const shown = `${kind === "tool" ? "" : `${kind}:`}${printable(name)}${MARK[by]}`;
  return when.length === 0 ? shown : `${shown} (on condition)`;
}

function hasGuesses({ reads, changes, destroys, sends }: BlastRadius): boolean {
  return [...reads, ...changes, ...destroys, ...sends].some(({ by }) => by !== "contract");
}
