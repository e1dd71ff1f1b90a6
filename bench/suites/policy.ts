/** What does a decision cost? In this process: no socket, only the calls that the pipeline makes. */
import { Environment } from "@marcbachmann/cel-js";
import type { JsonObject, Principal, Target } from "../../src/core/call.ts";
import { compilePolicy, type Policy } from "../../src/policy/engine.ts";
import type { AssignSettings, RolesSettings } from "../../src/policy/settings.ts";
import { callView, compileCallCondition, userView } from "../../src/policy/when.ts";
import { type Figure, figure, spread } from "../figures.ts";
import type { Effort, Suite, SuiteResult } from "./suite.ts";

export const policy: Suite = {
  name: "policy",
  question: "How long does a decision take, and how long do a thousand rules take to load?",
  run: async (effort) => measure(effort),
};

const ASSIGN: AssignSettings = [{ role: "clerk", group: "clerks" }];

/** One role of so many rules, each with a pattern and a condition. */
function clerk(rules: number, pattern: (at: number) => string, when: (at: number) => string): RolesSettings {
  const all = Array.from({ length: rules }, (_, at) => ({ may: [pattern(at)], deny: [], when: when(at) }));
  return { clerk: { may: [], deny: ["secret_*"], rules: all } };
}

const ofArguments = (at: number) =>
  `args.order_id.startsWith("ORD-") && args.amount <= ${100 + at}.0 && "clerks" in principal.groups`;
const ofCaller = (at: number) => `principal.claims.team == "team ${at}"`;

const principal = (): Principal => ({
  subject: "u",
  client: "c",
  actors: [],
  groups: ["clerks"],
  scopes: ["mcp:read", "mcp:call"],
  claims: { team: "team 99" },
  grant: undefined,
  tokenId: "t",
  expiresAt: 0,
});
const targets = (count: number): readonly Target[] =>
  Array.from({ length: count }, (_, at) => ({
    server: "s",
    kind: "tool",
    name: `tool_${at}`,
    upstreamName: `tool_${at}`,
    pin: undefined,
  }));
const ARGS: JsonObject = { order_id: "ORD-100007", amount: 40 };

interface Contender {
  readonly name: string;
  readonly figure: string;
  readonly policy: Policy;
  readonly args: JsonObject;
  readonly targets: readonly Target[];
}

function measure(effort: Effort): SuiteResult {
  const contender = (name: string, key: string, roles: RolesSettings, more: Partial<Contender> = {}): Contender => ({
    name,
    figure: `policy.us.${key}`,
    policy: compilePolicy(roles, ASSIGN),
    args: ARGS,
    targets: targets(100),
    ...more,
  });
  const contenders: readonly Contender[] = [
    contender(
      "100 rules, each for a tool, conditions over arguments",
      "perTool",
      clerk(100, (at) => `tool_${at}`, ofArguments),
    ),
    contender(
      "100 rules, ten for each tool, the last of them permits",
      "tenPerTool",
      clerk(
        100,
        (at) => `tool_${at % 10}*`,
        (at) => (at < 90 ? `args.amount > 1000.0 && ${ofArguments(at)}` : ofArguments(at)),
      ),
    ),
    contender(
      "100 rules for every tool, conditions over the caller",
      "callerOnly",
      clerk(100, () => "*", ofCaller),
    ),
    contender(
      "100 rules for every tool, all with other conditions over arguments, none met",
      "worst",
      clerk(
        100,
        () => "*",
        (at) => `args.amount > ${1000 + at}.0 && ${ofArguments(at)}`,
      ),
    ),
    contender(
      "100 rules for every tool, of each condition the last part not met",
      "lastPart",
      clerk(
        100,
        () => "*",
        (at) => `${ofArguments(at)} && args.order_id != "ORD-100007"`,
      ),
    ),
    contender(
      "100 rules, ten for each tool, with patterns",
      "patterns",
      clerk(
        100,
        (at) => `tool_${at % 10}*`,
        (at) => `args.order_id.matches("^ORD-${at < 90 ? "X" : ""}[0-9]{6}$")`,
      ),
    ),
  ];
  const big = clerk(
    1000,
    (at) => (at % 3 === 0 ? `tool_${at}` : at % 3 === 1 ? `tool_${at}*` : `*_${at}`),
    ofArguments,
  );
  const thousand = targets(1000);
  const alone = conditionsAlone(
    Array.from({ length: 100 }, (_, at) => `args.amount > ${1000 + at}.0 && ${ofArguments(at)}`),
  );
  const names = [
    ...contenders.map((one) => one.figure),
    ...alone.map((one) => one.figure),
    "policy.ms.load",
    "policy.ms.firstList",
    "policy.ms.list",
  ];
  const times: Record<string, number[]> = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = -1; round < effort.rounds; round++) {
    // The first round warms up.
    const keep = (name: string, value: number) => (round >= 0 ? times[name]?.push(value) : 0);
    for (const one of contenders) keep(one.figure, decisionUs(one, (effort.seconds * 1000) / names.length));
    for (const one of alone) keep(one.figure, timed(() => repeated(2_000, one.run)) / 2);
    let loaded = compilePolicy(big, ASSIGN);
    keep(
      "policy.ms.load",
      timed(() => {
        loaded = compilePolicy(big, ASSIGN);
      }),
    );
    const who = principal();
    const list = () => thousand.filter((target) => loaded.decide(who, target).effect === "permit").length;
    keep("policy.ms.firstList", timed(list));
    keep("policy.ms.list", timed(list));
  }
  const figures: Record<string, Figure> = Object.fromEntries(names.map((name) => [name, figure(times[name] ?? [])]));
  const shown = (name: string, digits: number) => {
    const found = figures[name];
    return found === undefined ? "–" : spread(found, digits);
  };
  const decisions = {
    title: "One decision about a call",
    head: ["policy", "CPU µs"],
    rows: [...contenders, ...alone].map((one) => [one.name, shown(one.figure, 2)]),
    notes: [
      "Mean over all targets. Goal: 5 µs at 100 rules with conditions. Where none is met, all hundred conditions are evaluated; the last two rows are those conditions without the decision.",
    ],
  };
  const load = {
    title: "1,000 rules with conditions, 1,000 tools",
    head: ["step", "CPU ms"],
    rows: [
      ["compile the policy", shown("policy.ms.load", 1)],
      ["decide the list, the first time for these roles", shown("policy.ms.firstList", 2)],
      ["decide the list again", shown("policy.ms.list", 2)],
    ],
    notes: ["Goal: compiled and listed within a second."],
  };
  return { tables: [decisions, load], figures, raw: times };
}

/** The same hundred conditions, as they are compiled here and as the library interprets them. */
function conditionsAlone(texts: readonly string[]) {
  const library = new Environment();
  for (const name of ["principal", "user", "args", "call", "resource", "time"]) library.registerVariable(name, "map");
  const view = userView(principal());
  const [target] = targets(1);
  if (target === undefined) throw new Error("no target");
  const call = callView(target, "tools/call");
  const input = { principal: view, user: view, args: ARGS, call, resource: {}, time: {} };
  const compiled = texts.map((text) => compileCallCondition(text));
  const interpreted = texts.map((text) => {
    const parsed = library.parse(text);
    parsed.check();
    return parsed;
  });
  return [
    {
      name: "the hundred conditions alone, compiled",
      figure: "policy.us.compiled",
      run: () => compiled.filter((condition) => condition.evaluate(input) === true),
    },
    {
      name: "the hundred conditions alone, interpreted by the library",
      figure: "policy.us.interpreted",
      run: () => interpreted.filter((parsed) => parsed(input) === true),
    },
  ];
}

function repeated(times: number, work: () => unknown): void {
  for (let turn = 0; turn < times; turn++) work();
}

function decisionUs({ policy: decides, args, targets: aims }: Contender, milliseconds: number): number {
  const who = principal();
  const call = { method: "tools/call", args, scope: "mcp:call", at: 0 };
  const until = performance.now() + milliseconds;
  let spent = 0;
  let decisions = 0;
  while (performance.now() < until) {
    spent += timed(() => {
      for (let turn = 0; turn < 50; turn++) for (const target of aims) decides.decide(who, target, call);
    });
    decisions += aims.length * 50;
  }
  return (spent * 1000) / decisions;
}

/** CPU milliseconds: on a machine that others use, too, the clock on the wall says nothing. */
function timed(work: () => unknown): number {
  const started = process.threadCpuUsage();
  work();
  const { user, system } = process.threadCpuUsage(started);
  return (user + system) / 1000;
}
