/** `drawbridge policy`: run the cases of a policy. */
import { dirname, resolve } from "node:path";
import type { Command } from "commander";
import { readPolicyCases } from "../config/policy-file.ts";
import { type CaseResult, caseResult, type PolicyCase, type PolicyCases } from "../policy/cases.ts";
import { Ended, EXIT } from "./main.ts";
import { counted } from "./office.ts";
import { aimedAt, callOf, type PlaceOptions, type PolicyPlace, policyPlace, principalOf } from "./policy-place.ts";
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

export function define(command: Command, terminal: Terminal): void {
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
