/** Why a decision came out as it did, and what would change it: in words for the people who write policies. */
import type { Principal } from "../core/call.ts";
import type { Decision } from "../core/decision.ts";
import type { Assignment, Clause } from "./engine.ts";
import { type CallInput, FAILED, MET, UNMET } from "./when.ts";

export interface Explanation {
  readonly decision: Decision;
  /** The roles that the caller has, and by which assignments. */
  readonly roles: readonly { readonly role: string; readonly because: readonly string[] }[];
  /** Every clause of these roles that is about the target, in the order of the settings. */
  readonly looked: readonly Looked[];
  /** What would make it a permission, as sentences; empty when it is one. */
  readonly needed: readonly string[];
}

export interface Looked {
  readonly clause: string;
  readonly effect: "may" | "deny";
  readonly when: string | undefined;
  /** Of the condition. `open`: only a call says. */
  readonly outcome: "met" | "not met" | "failed" | "open";
  /** The parts of the condition that are not met, where there are several. */
  readonly unmet: readonly string[];
  readonly decided: boolean;
}

/** One assignment, and whether the caller has the role by it. */
export interface Held {
  readonly assignment: Assignment;
  readonly holds: boolean;
}

interface Material {
  readonly decision: Decision;
  readonly principal: Principal;
  readonly roles: readonly string[];
  readonly held: readonly Held[];
  /** All that are about the target, whoever has their roles. */
  readonly clauses: readonly Clause[];
  /** As the resource is written, and as it may be meant. */
  readonly inputs: readonly CallInput[];
  /** Whether the arguments are known. */
  readonly ofCall: boolean;
}

export function explain(material: Material): Explanation {
  const { decision, roles, held, clauses, inputs, ofCall } = material;
  const deciding = decision.effect === "step-up" ? undefined : decision.rule;
  const mine = clauses.filter(({ rule }) => roles.includes(rule.role));
  const looked = mine.map((clause) => lookedAt(clause, inputs, ofCall, deciding));
  return {
    decision,
    roles: roles.map((role) => ({
      role,
      because: held
        .filter(({ assignment, holds }) => holds && assignment.role === role)
        .map(({ assignment }) => `${assignment.path}: ${assignmentText(assignment)}`),
    })),
    looked,
    needed: neededFor(material, looked),
  };
}

function lookedAt(
  { name, rule }: Clause,
  inputs: readonly CallInput[],
  ofCall: boolean,
  deciding: string | undefined,
): Looked {
  const { when, effect } = rule;
  const base = { clause: name, effect, when: when?.text, decided: name === deciding };
  const input = telling(rule, inputs, ofCall);
  if (when === undefined || input === undefined) return { ...base, outcome: "met", unmet: [] };
  if (ofCall || when.ofCallerAlone) {
    const met = when.evaluate(input);
    const parts = when.parts(input);
    const unmet = parts.length > 1 ? parts.filter((part) => part.met !== true).map(({ text }) => text) : [];
    return { ...base, outcome: met === undefined ? "failed" : met ? "met" : "not met", unmet };
  }
  const outcomes = when.possible(input);
  // A denial that fails forbids as one that is met does.
  if (effect === "deny" && outcomes === (MET | FAILED)) return { ...base, outcome: "met", unmet: [] };
  const outcome = outcomes === MET ? "met" : outcomes === UNMET ? "not met" : outcomes === FAILED ? "failed" : "open";
  return { ...base, outcome, unmet: [] };
}

/** The spelling of the resource for which the condition came out as it did. */
function telling({ when, effect }: Clause["rule"], inputs: readonly CallInput[], ofCall: boolean) {
  const [written, ...meant] = inputs;
  if (when === undefined || written === undefined || meant.length === 0) return written;
  const forbids = (input: CallInput) =>
    ofCall ? when.evaluate(input) !== false : (when.possible(input) & UNMET) === 0;
  const permits = (input: CallInput) => (ofCall ? when.evaluate(input) === true : (when.possible(input) & MET) !== 0);
  if (effect === "deny") return inputs.find(forbids) ?? written;
  return !permits(written) || meant.some(permits) ? written : meant[0];
}

function neededFor({ decision, roles, held, clauses }: Material, looked: readonly Looked[]): readonly string[] {
  if (decision.effect === "permit") return [];
  if (decision.effect === "step-up") return [`A token with the scope ${decision.scope}.`];
  const deciding = looked.find(({ decided }) => decided);
  if (deciding?.effect === "deny") {
    const role = roleOf(clauses, deciding.clause);
    const by = held.filter(({ assignment, holds }) => holds && assignment.role === role);
    const assigned = by.map(({ assignment }) => `${assignment.path} (${assignmentText(assignment)})`).join(", ");
    const otherwise = `that ${deciding.clause} goes, or that the caller does not have the role ${role}, which ${assigned} gives`;
    if (deciding.when === undefined) return [`No role lifts a denial. It takes ${otherwise}.`];
    const why = deciding.outcome === "failed" ? "can be evaluated and is not met" : "is not met";
    return [`A call for which the condition of the denial ${why}: ${oneLine(deciding.when)}. Or ${otherwise}.`];
  }
  const conditions = looked
    .filter(({ effect, outcome }) => effect === "may" && (outcome === "not met" || outcome === "failed"))
    .map(({ clause, when, unmet, outcome }) => {
      const parts = unmet.length > 0 ? unmet : [when ?? ""];
      const failed = outcome === "failed" ? " (it could not be evaluated: is something missing?)" : "";
      return `For ${clause}, a call that meets ${parts.map(oneLine).join(" and ")}${failed}.`;
    });
  const others = [...new Set(clauses.filter(({ rule }) => rule.effect === "may").map(({ rule }) => rule.role))].filter(
    (role) => !roles.includes(role),
  );
  const roleSentences = others.map((role) => {
    const ways = held.filter(({ assignment }) => assignment.role === role);
    const given = ways.map(({ assignment }) => assignmentText(assignment)).join("; or ");
    return `The role ${role}, ${given === "" ? "which nobody is assigned to" : `for ${given}`}.`;
  });
  const sentences = [...conditions, ...roleSentences];
  return sentences.length > 0 ? sentences : ["A role with a line in `may` that covers it. There is none."];
}

function roleOf(clauses: readonly Clause[], name: string): string {
  return clauses.find((clause) => clause.name === name)?.rule.role ?? "";
}

/** Whom an assignment is for, in words. */
export function assignmentText({ settings }: Assignment): string {
  const { user, group, client, claim, when } = settings;
  return [
    ...(user === undefined ? [] : [`the user ${user}`]),
    ...(group === undefined ? [] : [`members of the group ${group}`]),
    ...(client === undefined ? [] : [`whoever comes through the client ${client}`]),
    ...Object.entries(claim ?? {}).map(([name, value]) => `whose claim ${name} is ${JSON.stringify(value)}`),
    ...(when === undefined ? [] : [`whoever meets ${oneLine(when)}`]),
  ].join(" and ");
}

const oneLine = (text: string) => text.replaceAll(/\s+/g, " ").trim();
