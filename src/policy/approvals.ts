/**
 * Which calls need the approval of a person, whose, and for how long: `approvals:` of the settings and `approval` of a contract
 * compile to the same. Pure: what is asked and kept is the business of `gateway/approvals/`.
 */
import { hash } from "node:crypto";
import type { ApprovalTerms, ToolContractSettings } from "../contract/settings.ts";
import type { Principal, Target } from "../core/call.ts";
import type { ApprovalsSettings } from "./approval-settings.ts";
import type { CallFacts } from "./engine.ts";
import { indexPatterns, type PatternIndex } from "./pattern-index.ts";
import {
  type CallInput,
  type Condition,
  callView,
  compileCallCondition,
  metByAny,
  resourceView,
  spelled,
  timeView,
  UNMET,
  userView,
} from "./when.ts";

/** What has to happen before a call is made. */
export interface ApprovalNeed {
  /** What asks for it, e.g. `approvals.0`, `tools.refund.approval`. */
  readonly rules: readonly string[];
  /** For each rule that names roles: one of these the approver must have. Empty: the caller confirms the call. */
  readonly by: readonly (readonly string[])[];
  /** The approver must be another user than the caller. */
  readonly fourEyes: boolean;
  readonly expiresSeconds: number;
  /** For people to read. */
  readonly reasons: readonly string[];
  /** Whether it is needed, only the arguments of a call say. */
  readonly depends: boolean;
}

/** `approvals:`, compiled. */
export interface ApprovalRules {
  /** Equal for equal settings. */
  readonly version: string;
  readonly index: PatternIndex<CompiledRule>;
  readonly empty: boolean;
}

/** What the contract of a tool says itself. */
export interface OwnApproval {
  /** What clients call the tool. */
  readonly name: string;
  readonly approval: ToolContractSettings["approval"];
}

interface CompiledRule extends ApprovalTerms {
  readonly name: string;
  readonly condition: Condition | undefined;
}

/** Compiles `approvals:`. Throws an `Error` naming the rule and what is wrong with it. */
export function compileApprovals(settings: ApprovalsSettings = []): ApprovalRules {
  const rules = settings.map(({ tools, ...terms }, at) => ({ tools, rule: compiled(`approvals.${at}`, terms) }));
  return {
    version: hash("sha256", JSON.stringify(settings), "hex").slice(0, 32),
    // As a denial has it: at least that, and what nobody has said of a tool counts as the worst.
    index: indexPatterns(
      rules.flatMap(({ tools, rule }) => tools.map((pattern) => ({ pattern, to: "deny" as const, entry: rule }))),
    ),
    empty: rules.length === 0,
  };
}

/** Whether a call needs an approval. Without `call`: whether one could. A condition that cannot be evaluated asks for it. */
export function approvalFor(
  rules: ApprovalRules,
  principal: Principal,
  target: Target,
  call: CallFacts | undefined,
  own?: OwnApproval,
): ApprovalNeed | undefined {
  const mine = own?.approval === undefined ? undefined : ownRule(own.name, own.approval);
  if (rules.empty && mine === undefined) return undefined;
  const matching = new Set(rules.empty ? [] : rules.index.matching(target));
  if (mine !== undefined) matching.add(mine);
  if (matching.size === 0) return undefined;
  let inputs: readonly CallInput[] | undefined;
  const needs: ApprovalNeed[] = [];
  for (const rule of matching) {
    let depends = false;
    if (rule.condition !== undefined) {
      inputs ??= spelled(inputOf(principal, target, call));
      const { condition } = rule;
      if (call !== undefined && metByAny(condition, inputs) === false) continue;
      const outcomes = call === undefined ? inputs.map((input) => condition.possible(input)) : [];
      if (call === undefined && outcomes.every((one) => one === UNMET)) continue;
      depends = call === undefined && outcomes.every((one) => (one & UNMET) !== 0);
    }
    const { name, by, fourEyes, expiresSeconds, reason } = rule;
    needs.push({
      rules: [name],
      by: by === undefined ? [] : [by],
      fourEyes,
      expiresSeconds,
      reasons: reason === undefined ? [] : [reason],
      depends,
    });
  }
  return together(needs);
}

/** Several needs as one, which whoever approves must meet in all its parts; undefined for none. */
export function together(needs: readonly ApprovalNeed[]): ApprovalNeed | undefined {
  const [first, ...others] = needs;
  if (first === undefined || others.length === 0) return first;
  return {
    rules: [...new Set(needs.flatMap(({ rules }) => rules))],
    by: needs.flatMap(({ by }) => by),
    fourEyes: needs.some(({ fourEyes }) => fourEyes),
    expiresSeconds: Math.min(...needs.map(({ expiresSeconds }) => expiresSeconds)),
    reasons: [...new Set(needs.flatMap(({ reasons }) => reasons))],
    depends: needs.every(({ depends }) => depends),
  };
}

/** Whether somebody may approve what another user, or they themselves, asked for. `roles`: those of the approver. */
export function mayApprove(
  { by, fourEyes }: Pick<ApprovalNeed, "by" | "fourEyes">,
  approver: { readonly subject: string; readonly roles: readonly string[] },
  requester: string,
): boolean {
  if (fourEyes && approver.subject === requester) return false;
  if (by.length === 0) return approver.subject === requester;
  return by.every((roles) => roles.some((role) => approver.roles.includes(role)));
}

/** Who may approve, in words. */
export function approversText({ by, fourEyes }: Pick<ApprovalNeed, "by" | "fourEyes">): string {
  if (by.length === 0) return "the user who calls";
  const roles = by.map((names) => `the role ${names.join(" or ")}`).join(" and ");
  return `${fourEyes ? "another user" : "somebody"} with ${roles}`;
}

const own = new WeakMap<object, CompiledRule>();
const REQUIRED: ApprovalTerms = { fourEyes: false, expiresSeconds: 900 };

/** Kept with the settings that it was made of. */
function ownRule(name: string, approval: NonNullable<OwnApproval["approval"]>): CompiledRule {
  const path = `tools.${name}.approval`;
  if (approval === "required") return { ...REQUIRED, name: path, condition: undefined };
  const known = own.get(approval) ?? compiled(path, approval);
  own.set(approval, known);
  return known;
}

function compiled(name: string, terms: ApprovalTerms): CompiledRule {
  try {
    return { ...terms, name, condition: terms.when === undefined ? undefined : compileCallCondition(terms.when) };
  } catch (thrown) {
    throw new Error(`${name}.when: ${thrown instanceof Error ? thrown.message.split("\n")[0] : String(thrown)}`, {
      cause: thrown,
    });
  }
}

function inputOf(principal: Principal, target: Target, call: CallFacts | undefined): CallInput {
  const view = userView(principal);
  return {
    principal: view,
    user: view,
    args: call?.args ?? {},
    call: callView(target, call?.method ?? ""),
    resource: resourceView(target),
    time: call?.at === undefined ? {} : timeView(call.at),
  };
}
