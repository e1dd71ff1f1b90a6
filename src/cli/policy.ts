/** `drawbridge policy`: run the cases of a policy; try one out on a running gateway, or on the calls of the past (`policy-replay.ts`). */
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { readPolicyCases, readPolicyFile } from "../config/policy-file.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { type CaseResult, caseResult, type PolicyCase, type PolicyCases } from "../policy/cases.ts";
import type { TrialReport } from "../policy/trial.ts";
import { Ended, EXIT } from "./main.ts";
import { counted, day, table } from "./office.ts";
import { aimedAt, callOf, type PlaceOptions, type PolicyPlace, policyPlace, principalOf } from "./policy-place.ts";
import { defineReplay } from "./policy-replay.ts";
import { asked } from "./servers.ts";
import { DEFAULT_FILE } from "./store.ts";
import { type Painter, painter, printable, type Terminal } from "./terminal.ts";
import { explanationLines } from "./why.ts";

interface TestOptions extends PlaceOptions {
  readonly shadow?: true;
  readonly json?: true;
  readonly verbose?: true;
}

const DEFAULT_CASES = "policy.test.yaml";

const HELP = `
A file of cases:

  people:
    sam: { groups: [support] }
  cases:
    - { who: sam, call: look_up_order, args: { order_id: ORD-100007 }, expect: permit, rule: "support: may look_up_order" }
    - { who: sam, call: cancel_order, expect: deny }

Exit codes: 0 all as expected, 1 some are not, 2 the cases or the settings cannot be read. For CI: no gateway, no server.

Examples:
  $ drawbridge policy test
  $ drawbridge policy test cases/support.yaml --file drawbridge.yaml
  $ drawbridge policy test --shadow    (against the policy that is only tried out)
`;

interface ShadowOptions {
  readonly file?: string;
  readonly socket?: string;
  readonly off?: true;
  readonly json?: true;
}

const SHADOW_HELP = `
The policy is a file with \`roles\` and \`assign\`, which may be a whole settings file. It decides nothing: each call is decided
by the policy that counts, and where the other one would have said something else, that is counted here, and written in the call's
audit record and in the log. It goes on until --off or until the gateway stops; drawbridge.yaml is not changed. It is asked for at
the gateway's control socket; of several replicas each has its own.

Examples:
  $ drawbridge policy shadow next.yaml    (begin)
  $ drawbridge policy shadow              (what would have been different so far)
  $ drawbridge policy shadow --off        (the same, and end)
`;

export function define(command: Command, terminal: Terminal): void {
  command
    .command("shadow")
    .description("try a policy out on the running gateway, beside the one that counts")
    .argument("[policy]", "file with `roles` and `assign`")
    .option("--off", "end it")
    .option("--file <settings>", "settings file of the gateway")
    .option("--socket <path>", "control socket of the gateway")
    .option("--json", "print JSON")
    .addHelpText("after", SHADOW_HELP)
    .action((policy: string | undefined, options: ShadowOptions) => shadow(policy, options, terminal));
  command
    .command("test")
    .description("run cases against the roles of the settings")
    .argument("[cases]", `file of cases (default: ${DEFAULT_CASES})`)
    .option("--file <settings>", "settings file (default: as the cases say, or drawbridge.yaml beside them)")
    .option("--shadow", "against `shadowPolicy`, or the rules with `shadow: true`")
    .option("--open", "ask the servers what they offer, in place of the store")
    .option("--verbose", "explain every case")
    .option("--json", "print JSON")
    .addHelpText("after", HELP)
    .action((cases: string | undefined, options: TestOptions) => test(cases ?? DEFAULT_CASES, options, terminal));
  defineReplay(command, terminal);
}

async function test(name: string, options: TestOptions, terminal: Terminal): Promise<void> {
  const file = resolve(terminal.cwd, name);
  const cases = await readPolicyCases(file, name);
  const settings = options.file ?? resolve(dirname(file), cases.settings ?? DEFAULT_FILE);
  const place = await policyPlace({ ...options, file: settings }, terminal);
  const results = cases.cases.map((one) => caseResult(one, explained(one, cases, place, options.shadow === true)));
  const failed = results.filter(({ passed }) => !passed);
  const paint = painter(terminal.stdout, terminal.env);
  const lines = results.flatMap((result) => resultLines(result, options.verbose === true, paint));
  const summary = `${counted(results.length, "case")}, ${failed.length === 0 ? "all as expected" : `${failed.length} not as expected`}`;
  const text =
    options.json === true
      ? JSON.stringify({ passed: results.length - failed.length, failed: failed.length, results }, null, 2)
      : [...lines, paint(failed.length === 0 ? "green" : "red", summary)].join("\n");
  terminal.stdout.write(`${text}\n`);
  if (failed.length > 0) throw new Ended(EXIT.failed);
}

async function shadow(name: string | undefined, options: ShadowOptions, terminal: Terminal): Promise<void> {
  const { off, json, ...gateway } = options;
  if (name !== undefined && off === true)
    throw new DrawbridgeError("settings_invalid", "Name a policy to begin with, or --off to end; not both.");
  const path = "/admin/policy/shadow";
  const answer =
    name !== undefined
      ? await asked("POST", path, gateway, terminal, JSON.stringify({ name, policy: await policyOf(name, terminal) }))
      : off === true
        ? await asked("POST", `${path}/end`, gateway, terminal)
        : await asked("GET", path, gateway, terminal);
  const { trial } = answer as { readonly trial: TrialReport | null };
  const lines =
    trial === null ? ["No policy is tried out."] : name === undefined ? trialLines(trial, terminal) : begun(trial);
  terminal.stdout.write(`${json === true ? JSON.stringify(answer, null, 2) : lines.join("\n")}\n`);
}

async function policyOf(name: string, terminal: Terminal): Promise<unknown> {
  try {
    return await readPolicyFile(resolve(terminal.cwd, name));
  } catch (cause) {
    throw new DrawbridgeError("settings_invalid", `The policy cannot be used: ${(cause as Error).message}.`, { cause });
  }
}

const begun = ({ name }: TrialReport) => [
  `${printable(name)} is tried out from now on, and decides nothing.`,
  "drawbridge policy shadow says what it would have changed, with --off it ends.",
];

function trialLines({ name, since, calls, different, rows }: TrialReport, terminal: Terminal): readonly string[] {
  const head = `${printable(name)}, since ${day(Date.parse(since))}: ${counted(calls, "call")}, ${different} of them otherwise`;
  if (rows.length === 0) return [head];
  const shown = rows.map(({ role, kind, name: target, from, to, rule, calls: count }) => [
    role === "" ? "-" : role,
    target === "" ? "(nothing that is served)" : kind === "tool" ? target : `${kind}:${target}`,
    from,
    to,
    String(count),
    rule ?? "no rule permits it",
  ]);
  return [head, ...table(["ROLE", "WHAT", "NOW", "THEN", "CALLS", "BY"], shown, terminal)];
}

function explained(one: PolicyCase, { people }: PolicyCases, place: PolicyPlace, shadow: boolean) {
  const who = typeof one.who === "string" ? (people[one.who] ?? { user: one.who }) : one.who;
  const named = typeof one.who === "string" && who.user === "somebody" ? { ...who, user: one.who } : who;
  const { target } = aimedAt(one.call ?? one.list ?? "", place.things);
  const at = one.at === undefined ? Date.now() : Date.parse(one.at);
  const facts = one.list === undefined ? callOf(target, one.args, at) : undefined;
  return (shadow ? place.policy.tried : place.policy.now).explain(principalOf(named), target, facts);
}

function resultLines(result: CaseResult, verbose: boolean, paint: Painter): readonly string[] {
  const { name, passed, differences, explanation } = result;
  const shown = printable(name, 300);
  const head = passed ? `${paint("green", "ok")}    ${shown}` : `${paint("red", "wrong")} ${shown}`;
  const diff = differences.flatMap(({ what, expected, got }) => [
    paint("red", `        - ${what}: ${printable(expected)}`),
    paint("green", `        + ${what}: ${printable(got)}`),
  ]);
  if (passed && !verbose) return [head];
  return [
    head,
    ...diff,
    ...explanationLines(name, explanation, paint)
      .slice(1)
      .map((line) => `        ${line}`.trimEnd()),
  ];
}
