/** What one call counts as, for the limits of calls: a number, or CEL over its arguments and its caller. */
import type { JsonObject, Principal } from "../core/call.ts";
import { compileOpenExpression } from "./expressions.ts";
import { MAX_COST } from "./limit-settings.ts";

/** Throws an `Error` when the arguments make no number of it that a call can cost. */
export type Cost = (args: JsonObject, principal: Principal) => number;

/** Compiles a `cost`. Throws an `Error` whose message says what is wrong with the expression. */
export function compileCost(cost: number | string): Cost {
  if (typeof cost === "number") return () => cost;
  const { type, evaluate } = compileOpenExpression(cost.slice(1));
  if (!NUMBERS.has(type)) throw new Error(`the expression must be a number, it is of type ${type}`);
  return (args, { subject, client, groups, scopes, claims }) => {
    const principal = { subject, client, groups, scopes, claims };
    const value = evaluate({ args, principal, steps: {}, run: { id: "" } });
    if (typeof value !== "number" || !(value >= 0 && value <= MAX_COST))
      throw new Error(`it is no number from 0 to ${MAX_COST}`);
    return value;
  };
}

const NUMBERS: ReadonlySet<string> = new Set(["int", "uint", "double", "dyn"]);
