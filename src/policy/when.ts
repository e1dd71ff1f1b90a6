/** Conditions of roles and assignments: CEL, parsed and type-checked when the settings are loaded, bounded in size. */
import { Environment } from "@marcbachmann/cel-js";
import type { JsonObject, Principal } from "../core/call.ts";

/** `undefined` means that the condition could not be evaluated: the caller decides what that means, and it never means yes. */
export type Condition<Input> = (input: Input) => boolean | undefined;

export interface UserInput {
  readonly user: UserView;
}
export interface CallInput extends UserInput {
  readonly args: JsonObject;
  readonly call: { readonly method: string; readonly kind: string; readonly name: string; readonly server: string };
}
/** What conditions see of the caller. */
export interface UserView {
  readonly id: string;
  readonly client: string;
  readonly groups: readonly string[];
  readonly scopes: readonly string[];
  readonly claims: JsonObject;
}

export function userView(principal: Principal): UserView {
  return {
    id: principal.subject,
    client: principal.client,
    groups: principal.groups,
    scopes: principal.scopes,
    claims: principal.claims,
  };
}

const limits = { maxAstNodes: 500, maxDepth: 32, maxListElements: 200, maxMapEntries: 200, maxCallArguments: 16 };

const userEnvironment = new Environment({ limits }).registerVariable("user", "map");
const callEnvironment = new Environment({ limits })
  .registerVariable("user", "map")
  .registerVariable("args", "map")
  .registerVariable("call", "map");

/** Compiles a condition of `assign`. Throws an `Error` whose message says what is wrong with the expression. */
export function compileUserCondition(expression: string): Condition<UserInput> {
  return compile(userEnvironment, expression);
}

/** Compiles a condition of a role. Throws an `Error` whose message says what is wrong with the expression. */
export function compileCallCondition(expression: string): Condition<CallInput> {
  return compile(callEnvironment, expression);
}

function compile<Input extends object>(environment: Environment, expression: string): Condition<Input> {
  const parsed = environment.parse(expression);
  const checked = parsed.check();
  if (!checked.valid) throw new Error(checked.error?.message ?? "the expression does not type-check");
  if (checked.type !== "bool" && checked.type !== "dyn")
    throw new Error(`the expression must be true or false, it is of type ${checked.type}`);
  return (input) => {
    try {
      const result: unknown = parsed({ ...input });
      return typeof result === "boolean" ? result : undefined;
    } catch {
      return undefined;
    }
  };
}
