/**
 * Who may do what. `compilePolicy` turns the settings into one function that decides lists and calls alike: no role no access,
 * `deny` beats `may`, a condition that fails to evaluate never permits. Pure: no clock, no store, no network.
 */
import { hash } from "node:crypto";
import type { Authenticated, JsonObject, McpCall, PermittedCall, Principal, Target } from "../core/call.ts";
import type { Decision } from "../core/decision.ts";
import { type Explanation, explain, type Held } from "./explain.ts";
import type { StepUpSettings } from "./limit-settings.ts";
import { indexPatterns } from "./pattern-index.ts";
import type { AssignSettings, RolesSettings } from "./settings.ts";
import { compileStepUp } from "./step-up.ts";
import {
  type CallInput,
  type Condition,
  callView,
  compileCallCondition,
  compileUserCondition,
  FAILED,
  MET,
  metAsMeant,
  metByAny,
  type Outcomes,
  resourceView,
  type SharedParts,
  spelled,
  timeView,
  UNMET,
  type UserView,
  userView,
} from "./when.ts";

/** What is known of a call, beside who calls and what. */
export interface CallFacts {
  readonly method: string;
  readonly args: JsonObject;
  /** The scope that a token needs for it, beside those that the settings ask for (`stepUp`). */
  readonly scope: string | undefined;
  /** When it came, in milliseconds since the epoch. Without it conditions over `time` fail. */
  readonly at?: number | undefined;
}

export interface Policy {
  /** Names the roles and assignments it was made of: equal for equal ones, whatever the order of their keys. */
  readonly version: string;
  /** Names of the caller's roles, in the order of the settings. */
  roles(principal: Principal): readonly string[];
  /**
   * Decides about one target. Without `call` (lists) the question is whether the caller could ever use it: what only a call says
   * counts in their favour. Whatever some call would permit is permitted then, too.
   */
  decide(principal: Principal, target: Target, call?: CallFacts): Decision;
  /** The same decision, and how it came about. Slower: for people. */
  explain(principal: Principal, target: Target, call?: CallFacts): Explanation;
}

/** What applies when the settings name no roles: only the owner may call, and may do everything. */
export const DEFAULT_ROLES: RolesSettings = { owner: { may: ["*"], deny: [] } };
export const DEFAULT_ASSIGN: AssignSettings = [{ role: "owner", group: "owner" }];

/** Some patterns of one role under one condition. */
export interface Rule {
  readonly role: string;
  readonly effect: "may" | "deny";
  readonly when: Condition | undefined;
}
/** One pattern of a rule, as records name it: `support: may get_*`, `support.rules.0: may get_*`. */
export interface Clause {
  readonly rule: Rule;
  readonly name: string;
  readonly decision: Decision;
  /** When the condition of its rule cannot be evaluated. */
  readonly failure: Decision;
}
export interface Assignment {
  readonly role: string;
  /** Where it stands, e.g. `assign.2`. */
  readonly path: string;
  readonly settings: AssignSettings[number];
  holds(principal: Principal, user: UserView): boolean;
}

/**
 * What counts for everybody who has the same roles and meets the same conditions about themselves. `open`: only a call says whether
 * the rule counts; `failed`: it cannot be evaluated for them.
 */
interface Standing {
  readonly rules: ReadonlyMap<Rule, "met" | "open" | "failed">;
  readonly candidates: WeakMap<Target, Candidates>;
}

/** What could decide about one target, for one standing. */
interface Candidates {
  readonly target: Target;
  readonly denies: readonly Clause[];
  readonly mays: readonly Clause[];
  /** A clause that decides whatever the call is; then there are no others before it. */
  readonly denied: Decision | undefined;
  readonly permitted: Decision | undefined;
  /** Of a clause to permit whose condition fails for these callers. */
  readonly failure: Decision | undefined;
  readonly needsTime: boolean;
}

interface Caller {
  readonly view: UserView;
  readonly roles: readonly string[];
  readonly standing: Standing;
}

/** In the name of a standing. Whether a rule is met or open follows from the rule. */
const SIGN = { met: "+", open: "+", unmet: "-", failed: "!" } as const;
/** Beyond so many, standings are not kept for others who have the same; they go with their callers. */
const MAX_STANDINGS = 500;
const NOBODY_PERMITS: Decision = { effect: "deny", reason: "no_rule_permits", rule: undefined };

export interface CompileOptions {
  /** Whether roles and rules that are only tried out (`shadow: true`) count. Default: they do not. */
  readonly shadows?: boolean;
  /** Further scopes that calls need. */
  readonly stepUp?: StepUpSettings | undefined;
}

/** Compiles roles and assignments. Throws an `Error` naming the role and what is wrong with it. */
export function compilePolicy(
  roles: RolesSettings = DEFAULT_ROLES,
  // Whoever names other roles and nobody for them has given them to nobody.
  assign: AssignSettings = Object.hasOwn(roles, "owner") ? DEFAULT_ASSIGN : [],
  { shadows = false, stepUp }: CompileOptions = {},
): Policy {
  const conditions = new Map<string, Condition>();
  const parts: SharedParts = new Map();
  const conditionOf = (path: string, text: string | undefined): Condition | undefined => {
    if (text === undefined) return undefined;
    const known =
      conditions.get(text) ?? condition(path, (expression) => compileCallCondition(expression, parts), text);
    conditions.set(text, known);
    return known;
  };
  const counting = shadows ? roles : withoutShadows(roles);
  const clauses = Object.entries(counting).flatMap(([name, role]) => clausesOf(name, role, conditionOf));
  const index = indexPatterns(
    clauses.map(({ pattern, clause }) => ({ pattern, to: clause.rule.effect, entry: clause })),
  );
  const rulesOf = Map.groupBy(new Set(clauses.map(({ clause }) => clause.rule)), ({ role }) => role);
  const assignments = assign
    .map((entry, at) => compileAssignment(entry, at, roles))
    .filter(({ role }) => Object.hasOwn(counting, role));
  const order = Object.keys(counting);
  const version = versionOf(counting, assign, stepUp);
  const { scopesFor } = compileStepUp(stepUp);

  const callers = new WeakMap<Principal, Caller>();
  const standings = new Map<string, Standing>();
  const callerOf = (principal: Principal): Caller => {
    const known = callers.get(principal);
    if (known !== undefined) return known;
    const view = userView(principal);
    const held = new Set(assignments.filter((one) => one.holds(principal, view)).map(({ role }) => role));
    const mine = order.filter((name) => held.has(name));
    const caller = { view, roles: mine, standing: standingOf(mine, view) };
    callers.set(principal, caller);
    return caller;
  };
  const standingOf = (mine: readonly string[], view: UserView): Standing => {
    const rules = new Map<Rule, "met" | "open" | "failed">();
    // Names of roles may end like signs, so they end with what no name has.
    let key = `${mine.join()}\n`;
    for (const role of mine) {
      for (const rule of rulesOf.get(role) ?? []) {
        const { when } = rule;
        const state =
          when === undefined
            ? "met"
            : when.ofCallerAlone
              ? stateOf(when.evaluate({ principal: view, user: view }))
              : "open";
        if (state !== "unmet") rules.set(rule, state);
        key += SIGN[state];
      }
    }
    const known = standings.get(key);
    if (known !== undefined) return known;
    const standing: Standing = { rules, candidates: new WeakMap() };
    if (standings.size < MAX_STANDINGS) standings.set(key, standing);
    return standing;
  };
  const candidatesOf = (standing: Standing, target: Target): Candidates => {
    let known = standing.candidates.get(target);
    if (known === undefined) {
      known = gathered(standing, target, index.matching(target));
      standing.candidates.set(target, known);
    }
    return known;
  };

  const decide: Policy["decide"] = (principal, target, call) => {
    const { view, standing } = callerOf(principal);
    const candidates = candidatesOf(standing, call === undefined ? target : asCalled(target));
    if (call === undefined) return couldEver(candidates, view);
    const decision = weighed(candidates, view, call);
    // Last, so that nobody learns from it of what they may not use anyway.
    return decision.effect === "permit" ? withScopes(decision, principal, call.scope, scopesFor(target)) : decision;
  };
  return {
    version,
    roles: (principal) => callerOf(principal).roles,
    decide,
    explain(principal, target, call) {
      const { view, roles: mine } = callerOf(principal);
      const held = assignments.map((assignment): Held => ({ assignment, holds: assignment.holds(principal, view) }));
      const aimed = call === undefined ? target : asCalled(target);
      return explain({
        decision: decide(principal, target, call),
        principal,
        roles: mine,
        held,
        clauses: index.matching(aimed),
        inputs: call === undefined ? listInputs(aimed, view) : spelled(callInput(aimed, view, call)),
        ofCall: call !== undefined,
      });
    },
  };
}

/** Gives the proof that `Upstream.send` asks for, when the decision is to permit. The only place that makes one. */
export function permit(by: Authenticated, call: McpCall, decision: Decision & { effect: "permit" }): PermittedCall {
  return { call, by, rule: decision.rule } as PermittedCall;
}

/** Who calls cannot mean more resources than the one that is named. */
function asCalled(target: Target): Target {
  if (target.template !== true) return target;
  const { template: _, ...named } = target;
  return named;
}

function gathered({ rules }: Standing, target: Target, matching: readonly Clause[]): Candidates {
  const mine = matching.filter(({ rule }) => rules.has(rule));
  const of = (effect: Rule["effect"], state: "met" | "open" | "failed") =>
    mine.filter(({ rule }) => rule.effect === effect && rules.get(rule) === state);
  // What cannot be evaluated forbids, and permits nothing.
  const [forbidden] = of("deny", "met");
  const [failing] = of("deny", "failed");
  const denied = forbidden?.decision ?? failing?.failure;
  const denies = denied === undefined ? of("deny", "open") : [];
  const permitted = denied === undefined ? of("may", "met")[0]?.decision : undefined;
  // What the same condition forbids, it never permits.
  const undone = new Set(denies.map(({ rule }) => rule.when));
  const mays =
    denied === undefined && permitted === undefined
      ? of("may", "open").filter(({ rule }) => !undone.has(rule.when))
      : [];
  return {
    target,
    denies,
    mays,
    denied,
    permitted,
    failure: of("may", "failed")[0]?.failure,
    needsTime: [...denies, ...mays].some(({ rule }) => rule.when?.needsTime === true),
  };
}

function weighed(candidates: Candidates, view: UserView, call: CallFacts): Decision {
  const { target, denies, mays, denied } = candidates;
  if (denied !== undefined) return denied;
  let { permitted, failure } = candidates;
  if (denies.length > 0 || mays.length > 0) {
    const inputs = spelled(callInput(target, view, call, candidates.needsTime));
    for (const clause of denies) {
      const met = metByAny(clause.rule.when, inputs);
      if (met !== false) return met === true ? clause.decision : clause.failure;
    }
    for (const clause of permitted === undefined ? mays : []) {
      const met = metAsMeant(clause.rule.when, inputs);
      if (met === undefined) failure ??= clause.failure;
      if (met !== true) continue;
      permitted = clause.decision;
      break;
    }
  }
  return permitted ?? failure ?? NOBODY_PERMITS;
}

/** What is permitted, if the token has the scopes for it; else all that it lacks. */
function withScopes(
  permitted: Decision,
  { scopes }: Principal,
  ofMethod: string | undefined,
  further: readonly string[],
): Decision {
  const held = (scope: string) => scopes.includes(scope);
  if ((ofMethod === undefined || held(ofMethod)) && further.every(held)) return permitted;
  const needed = new Set(ofMethod === undefined ? further : [ofMethod, ...further]);
  const missing = [...needed].filter((scope) => !held(scope));
  return { effect: "step-up", reason: "scope_missing", scope: missing.join(" ") };
}

/** What only a call says is as the caller would like it to be. */
function couldEver({ target, denies, mays, denied, permitted, failure }: Candidates, view: UserView): Decision {
  if (denied !== undefined) return denied;
  if (denies.length === 0 && permitted !== undefined) return permitted;
  const [input, ...meant] = listInputs(target, view);
  const possible = ({ rule }: Clause, as: CallInput): Outcomes => rule.when?.possible(as) ?? MET;
  for (const clause of denies) {
    const outcomes = [input, ...meant].map((as) => possible(clause, as)).find((one) => (one & UNMET) === 0);
    if (outcomes !== undefined) return outcomes === FAILED ? clause.failure : clause.decision;
  }
  if (permitted !== undefined) return permitted;
  let failed = failure;
  for (const clause of mays) {
    const outcomes = possible(clause, input);
    const could = meant.length === 0 || meant.some((as) => (possible(clause, as) & MET) !== 0);
    if ((outcomes & MET) !== 0 && could) return clause.decision;
    if ((outcomes & FAILED) !== 0) failed ??= clause.failure;
  }
  return failed ?? NOBODY_PERMITS;
}

function callInput(target: Target, view: UserView, call: CallFacts, needsTime = true): CallInput {
  return {
    principal: view,
    user: view,
    args: call.args,
    call: callView(target, call.method),
    resource: resourceView(target),
    time: needsTime && call.at !== undefined ? timeView(call.at) : NOTHING,
    turn: ++turns,
  };
}

let turns = 0;

/** Never empty. What a template stands for is not known, however it is spelled. */
function listInputs(target: Target, view: UserView): readonly [CallInput, ...CallInput[]] {
  const input = callInput(target, view, { method: "", args: NOTHING, scope: undefined }, false);
  return target.template === true ? [input] : [input, ...spelled(input).slice(1)];
}

const NOTHING: JsonObject = {};

function stateOf(met: boolean | undefined): "met" | "unmet" | "failed" {
  return met === undefined ? "failed" : met ? "met" : "unmet";
}

/** `may` and `deny` of a role's own lines are two rules, because its `when` limits `may` alone. */
function clausesOf(
  name: string,
  role: RolesSettings[string],
  conditionOf: (path: string, text: string | undefined) => Condition | undefined,
): readonly { readonly pattern: string; readonly clause: Clause }[] {
  const clauses = (path: string, effect: Rule["effect"], patterns: readonly string[], when: Condition | undefined) => {
    const rule: Rule = { role: name, effect, when };
    return patterns.map((pattern) => ({ pattern, clause: clauseOf(rule, `${path}: ${effect} ${pattern}`) }));
  };
  const further = (role.rules ?? []).flatMap(({ may, deny, when }, at) => {
    const path = `${name}.rules.${at}`;
    const met = conditionOf(`roles.${path}.when`, when);
    return [...clauses(path, "deny", deny, met), ...clauses(path, "may", may, met)];
  });
  return [
    ...clauses(name, "deny", role.deny, undefined),
    ...clauses(name, "may", role.may, conditionOf(`roles.${name}.when`, role.when)),
    ...further,
  ];
}

function clauseOf(rule: Rule, name: string): Clause {
  const decision: Decision =
    rule.effect === "may"
      ? { effect: "permit", reason: "permitted_by_rule", rule: name }
      : { effect: "deny", reason: "denied_by_rule", rule: name };
  return { rule, name, decision, failure: { effect: "deny", reason: "rule_failed", rule: name } };
}

function compileAssignment(entry: AssignSettings[number], at: number, roles: RolesSettings): Assignment {
  const path = `assign.${at}`;
  if (!Object.hasOwn(roles, entry.role))
    throw new Error(
      `${path}.role: there is no role ${JSON.stringify(entry.role)}; known roles: ${Object.keys(roles).join(", ")}`,
    );
  if (namesNobody(entry)) {
    throw new Error(
      `${path}: says to nobody; add group, user, client, claim or when ('true' for everyone who can sign in)`,
    );
  }
  const when = entry.when === undefined ? undefined : condition(`${path}.when`, compileUserCondition, entry.when);
  const claims = Object.entries(entry.claim ?? {});
  return {
    role: entry.role,
    path,
    settings: entry,
    holds: (principal, user) =>
      (entry.group === undefined || principal.groups.includes(entry.group)) &&
      (entry.user === undefined || principal.subject === entry.user) &&
      (entry.client === undefined || principal.client === entry.client) &&
      claims.every(([name, wanted]) => hasClaim(principal, name, wanted)) &&
      (when === undefined || when.evaluate({ principal: user, user }) === true),
  };
}

/** Whether an assignment says to nobody in particular: that is a mistake, and not everybody. */
export function namesNobody({ group, user, client, claim, when }: AssignSettings[number]): boolean {
  const claims = claim !== undefined && Object.keys(claim).length > 0;
  return (group ?? user ?? client ?? when) === undefined && !claims;
}

function hasClaim({ claims }: Principal, name: string, wanted: string | number | boolean): boolean {
  if (!Object.hasOwn(claims, name)) return false;
  const value = claims[name];
  return Array.isArray(value) ? value.includes(wanted) : value === wanted;
}

/** What is only tried out leaves a place behind, because rules are named by their places. */
function withoutShadows(roles: RolesSettings): RolesSettings {
  const counting = Object.entries(roles).filter(([, { shadow }]) => shadow !== true);
  return Object.fromEntries(
    counting.map(([name, role]) => {
      if (role.rules === undefined) return [name, role];
      const last = role.rules.findLastIndex(({ shadow }) => shadow !== true);
      const rules = role.rules.slice(0, last + 1).map((rule) => (rule.shadow === true ? { may: [], deny: [] } : rule));
      return [name, { ...role, rules }];
    }),
  );
}

function versionOf(roles: RolesSettings, assign: AssignSettings, stepUp: StepUpSettings | undefined): string {
  return hash("sha256", JSON.stringify({ roles, assign, stepUp }, inOrder), "hex").slice(0, 32);
}

function inOrder(_: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)));
}

function condition<C>(path: string, compile: (expression: string) => C, expression: string): C {
  try {
    return compile(expression);
  } catch (thrown) {
    throw new Error(`${path}: ${thrown instanceof Error ? thrown.message.split("\n")[0] : String(thrown)}`, {
      cause: thrown,
    });
  }
}
