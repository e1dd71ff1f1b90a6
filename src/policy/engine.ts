/**
 * Who may do what. `compilePolicy` turns the settings into one function that decides lists and calls alike: no role no access,
 * `deny` beats `may`, a condition that fails to evaluate never permits. Pure: no clock, no store, no network.
 */
import type { Authenticated, JsonObject, McpCall, PermittedCall, Principal, Target } from "../core/call.ts";
import type { Decision } from "../core/decision.ts";
import { compilePattern, type Matcher } from "./globs.ts";
import type { AssignSettings, RolesSettings } from "./settings.ts";
import {
  type CallInput,
  type Condition,
  compileCallCondition,
  compileUserCondition,
  type UserInput,
  type UserView,
  userView,
} from "./when.ts";

export interface Policy {
  /** Names of the caller's roles, in the order of the settings. */
  roles(principal: Principal): readonly string[];
  /**
   * Decides about one target. Without `call` (lists, subscriptions) the question is whether the caller could ever use it, so a
   * `when` counts as met; with `call` it is evaluated on the arguments.
   */
  decide(
    principal: Principal,
    target: Target,
    call?: { readonly method: string; readonly args: JsonObject; readonly scope: string | undefined },
  ): Decision;
}

/** What applies when the settings name no roles: only the owner may call, and may do everything. */
export const DEFAULT_ROLES: RolesSettings = { owner: { may: ["*"], deny: [] } };
export const DEFAULT_ASSIGN: AssignSettings = [{ role: "owner", group: "owner" }];

interface CompiledRole {
  readonly name: string;
  readonly may: readonly { readonly pattern: string; readonly matches: Matcher }[];
  readonly deny: readonly { readonly pattern: string; readonly matches: Matcher }[];
  readonly when: Condition<CallInput> | undefined;
}
interface Assignment {
  readonly role: CompiledRole;
  holds(principal: Principal, user: UserView): boolean;
}

/** Compiles roles and assignments. Throws an `Error` naming the role and what is wrong with it. */
export function compilePolicy(roles: RolesSettings = DEFAULT_ROLES, assign: AssignSettings = DEFAULT_ASSIGN): Policy {
  const compiled = new Map(Object.entries(roles).map(([name, role]) => [name, compileRole(name, role)]));
  const assignments = assign.map((entry, index) => compileAssignment(entry, index, compiled));
  const rolesOf = new WeakMap<Principal, readonly CompiledRole[]>();

  const held = (principal: Principal): readonly CompiledRole[] => {
    let mine = rolesOf.get(principal);
    if (mine === undefined) {
      const user = userView(principal);
      mine = [...new Set(assignments.filter((entry) => entry.holds(principal, user)).map((entry) => entry.role))];
      rolesOf.set(principal, mine);
    }
    return mine;
  };

  return {
    roles: (principal) => held(principal).map((role) => role.name),
    decide(principal, target, call) {
      const mine = held(principal);
      for (const role of mine) {
        const denied = role.deny.find((entry) => entry.matches(target));
        if (denied !== undefined)
          return { effect: "deny", reason: "denied_by_rule", rule: `${role.name}: deny ${denied.pattern}` };
      }
      let failed: string | undefined;
      for (const role of mine) {
        const permitted = role.may.find((entry) => entry.matches(target));
        if (permitted === undefined) continue;
        const rule = `${role.name}: may ${permitted.pattern}`;
        const met = role.when === undefined || call === undefined || role.when(input(principal, target, call));
        if (met === undefined) failed ??= rule;
        if (met !== true) continue;
        if (call?.scope !== undefined && !principal.scopes.includes(call.scope))
          return { effect: "step-up", reason: "scope_missing", scope: call.scope };
        return { effect: "permit", reason: "permitted_by_rule", rule };
      }
      return { effect: "deny", reason: failed === undefined ? "no_rule_permits" : "rule_failed", rule: failed };
    },
  };
}

/** Gives the proof that `Upstream.send` asks for, when the decision is to permit. The only place that makes one. */
export function permit(by: Authenticated, call: McpCall, decision: Decision & { effect: "permit" }): PermittedCall {
  return { call, by, rule: decision.rule } as PermittedCall;
}

function input(principal: Principal, target: Target, call: { method: string; args: JsonObject }): CallInput {
  return {
    user: userView(principal),
    args: call.args,
    call: { method: call.method, kind: target.kind, name: target.name, server: target.server },
  };
}

function compileRole(name: string, role: RolesSettings[string]): CompiledRole {
  const patterns = (list: readonly string[]) => list.map((pattern) => ({ pattern, matches: compilePattern(pattern) }));
  return {
    name,
    may: patterns(role.may),
    deny: patterns(role.deny),
    when: role.when === undefined ? undefined : condition(`roles.${name}.when`, compileCallCondition, role.when),
  };
}

function compileAssignment(
  entry: AssignSettings[number],
  index: number,
  roles: ReadonlyMap<string, CompiledRole>,
): Assignment {
  const role = roles.get(entry.role);
  if (role === undefined)
    throw new Error(
      `assign.${index}.role: there is no role ${JSON.stringify(entry.role)}; known roles: ${[...roles.keys()].join(", ")}`,
    );
  if ((entry.group ?? entry.user ?? entry.client ?? entry.when) === undefined) {
    throw new Error(
      `assign.${index}: says to nobody; add group, user, client or when ('true' for everyone who can sign in)`,
    );
  }
  const when =
    entry.when === undefined ? undefined : condition(`assign.${index}.when`, compileUserCondition, entry.when);
  return {
    role,
    holds: (principal, user) =>
      (entry.group === undefined || principal.groups.includes(entry.group)) &&
      (entry.user === undefined || principal.subject === entry.user) &&
      (entry.client === undefined || principal.client === entry.client) &&
      (when === undefined || when({ user } satisfies UserInput) === true),
  };
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
