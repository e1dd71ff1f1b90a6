/** `drawbridge why`: what the policy says of one call, and how it came to that. */
import type { Command } from "commander";
import type { JsonObject, Principal, Target } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { compileGlob } from "../core/glob.ts";
import { type ApprovalNeed, approvalFor, approversText, compileApprovals } from "../policy/approvals.ts";
import type { CallFacts } from "../policy/engine.ts";
import type { Explanation } from "../policy/explain.ts";
import { Ended, EXIT } from "./main.ts";
import {
  aimedAt,
  callOf,
  knownUser,
  type PlaceOptions,
  type PolicyPlace,
  policyPlace,
  principalOf,
} from "./policy-place.ts";
import { type Painter, painter, printable, type Terminal } from "./terminal.ts";

interface WhyOptions extends PlaceOptions {
  readonly client?: string;
  readonly groups?: string;
  readonly claims?: string;
  readonly scopes?: string;
  readonly at?: string;
  readonly list?: true;
  readonly json?: true;
}

const HELP = `
The user is looked up in the store of the settings, for their id and groups; --groups says them in place of the store.
The target is a tool, or resource: and a URI, or prompt: and a name. The exit code is 0 for a permission and 1 for
anything else. No gateway needs to run.

Examples:
  $ drawbridge why sam look_up_order '{"order_id": "ORD-100007"}'
  $ drawbridge why sam cancel_order --groups support
  $ drawbridge why anna resource:orders://ORD-100007 --claims '{"department": "finance"}'
`;

export function define(command: Command, terminal: Terminal): void {
  command
    .argument("<user>", "name or id of a user")
    .argument("<target>", "a tool, resource:<uri> or prompt:<name>")
    .argument("[arguments]", "JSON, the arguments of the call")
    .option("--file <settings>", "settings file")
    .option("--client <id>", "the client that they call through")
    .option("--groups <names>", "their groups, with commas between")
    .option("--claims <json>", "further claims of their token")
    .option("--scopes <names>", "scopes of their token, with commas between (default: mcp:read,mcp:call)")
    .option("--at <time>", "when, ISO 8601 (default: now)")
    .option("--list", "ask as lists do: could they ever?")
    .option("--open", "ask the servers what they offer, in place of the store")
    .option("--json", "print JSON")
    .addHelpText("after", HELP)
    .action((user: string, target: string, args: string | undefined, options: WhyOptions) =>
      why(user, target, args, options, terminal),
    );
}

async function why(
  user: string,
  wanted: string,
  argsText: string | undefined,
  options: WhyOptions,
  terminal: Terminal,
): Promise<void> {
  const args = argsText === undefined ? undefined : jsonObject("The arguments", argsText);
  const claims = options.claims === undefined ? undefined : jsonObject("--claims", options.claims);
  const at = options.at === undefined ? Date.now() : Date.parse(options.at);
  if (Number.isNaN(at))
    throw new DrawbridgeError("settings_invalid", "--at must be a time, e.g. 2026-11-21T10:00:00Z.");
  const place = await policyPlace(options, terminal);
  const known = await knownUser(place.file, user, terminal);
  const groups = options.groups === undefined ? known?.groups : listed(options.groups);
  const scopes = options.scopes === undefined ? undefined : listed(options.scopes);
  const who = principalOf({ user: known?.id ?? user, client: options.client, groups, scopes, claims });
  const { target, known: served } = aimedAt(wanted, place.things);
  const facts = options.list === true ? undefined : callOf(target, args, at);
  const explanation = place.policy.explain(who, target, facts);
  const unserved =
    served || place.missing !== undefined
      ? place.missing
      : `Nothing is served as ${wanted}, so that is what everybody is told, whatever the roles say.`;
  const notes = [
    ...(known === undefined && groups === undefined
      ? [`The store does not know ${user}, so they are in no group. --groups says otherwise.`]
      : []),
    ...(unserved === undefined ? [] : [unserved]),
  ];
  const needed = explanation.decision.effect === "permit" ? neededApproval(place, who, target, facts) : undefined;
  const paint = painter(terminal.stdout, terminal.env);
  const asked = `${user} ${facts === undefined ? "lists" : "calls"} ${wanted}${argsText === undefined ? "" : ` ${argsText}`}`;
  const text =
    options.json === true
      ? JSON.stringify(
          { asked, policy: place.policy.version, groups: who.groups, ...explanation, approval: needed, notes },
          null,
          2,
        )
      : [
          ...explanationLines(asked, explanation, paint),
          ...(needed === undefined ? [] : [paint("yellow", approvalLine(needed))]),
          ...notes.map((note) => paint("dim", printable(note, 500))),
        ].join("\n");
  terminal.stdout.write(`${text}\n`);
  if (explanation.decision.effect !== "permit") throw new Ended(EXIT.failed);
}

/** What a permitted call has to wait for. */
function neededApproval(
  { settings }: PolicyPlace,
  who: Principal,
  target: Target,
  facts: CallFacts | undefined,
): ApprovalNeed | undefined {
  const contract = Object.entries(settings.tools ?? {}).find(([name, { as }]) =>
    as === undefined
      ? target.kind === "tool" && name === target.name
      : target.kind === "resource" && compileGlob(as.resource.replace(/\{[^{}]*\}/g, "*"))(target.name),
  );
  const own = contract && { name: contract[0], approval: contract[1].approval };
  return approvalFor(compileApprovals(settings.approvals), who, target, facts, own);
}

function approvalLine(need: ApprovalNeed): string {
  const whether = need.depends ? "It depends on the call whether it has to be" : "Each such call has to be";
  return printable(`${whether} approved first, by ${approversText(need)} (${need.rules.join(", ")}).`, 1000);
}

const OUTCOME = {
  met: "",
  "not met": "  not met",
  failed: "  could not be evaluated",
  open: "  depends on the call",
} as const;

/** An explanation for people, with what decided first. */
export function explanationLines(asked: string, explanation: Explanation, paint: Painter): readonly string[] {
  const { decision, roles, looked, needed } = explanation;
  const colour = decision.effect === "permit" ? "green" : decision.effect === "deny" ? "red" : "yellow";
  const by =
    decision.effect === "step-up" ? `needs the scope ${decision.scope}` : (decision.rule ?? "no rule permits it");
  return [
    `${printable(asked, 500)}`,
    `${paint(colour, decision.effect)}  ${printable(by)}`,
    "",
    roles.length === 0 ? "Roles: none" : "Roles:",
    ...roles.map(({ role, because }) => `  ${printable(role)}  (${printable(because.join("; "), 500)})`),
    ...(looked.length === 0 ? ["Rules of these roles about it: none"] : ["Rules of these roles about it:"]),
    ...looked.flatMap(({ clause, when, outcome, unmet, decided }) => [
      `  ${decided ? paint(colour, ">") : " "} ${printable(clause)}${when === undefined ? "" : OUTCOME[outcome]}`,
      ...(when === undefined ? [] : [paint("dim", `      when ${oneLine(when)}`)]),
      ...unmet.map((part) => `      not met: ${oneLine(part)}`),
    ]),
    ...(needed.length === 0 ? [] : [needed.length === 1 ? "Needed:" : "Needed, one of:"]),
    ...needed.map((sentence) => `  ${printable(sentence, 1000)}`),
  ];
}

const oneLine = (text: string) => printable(text.replaceAll(/\s+/g, " ").trim(), 1000);

const listed = (text: string) =>
  text
    .split(",")
    .map((one) => one.trim())
    .filter((one) => one !== "");

function jsonObject(what: string, text: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new DrawbridgeError("settings_invalid", `${what} must be a JSON object, e.g. '{"order_id": "ORD-100007"}'.`);
}
