/**
 * Values of a contract that are worked out for each call: with `=` in front they are expressions, anything else is the value itself.
 * The language is CEL; who compiles it (`policy/expressions.ts`) is passed in.
 */
import type { JsonObject, JsonValue, Principal } from "../core/call.ts";

/** What an expression may name. */
export interface Scope {
  readonly args: readonly string[];
  /** The steps that have come before, also those that were left out: their results are null. */
  readonly steps: readonly string[];
}

/** What an expression sees of one call. */
export interface ExpressionInput {
  readonly args: JsonObject;
  readonly principal: PrincipalView;
  readonly steps: JsonObject;
  /** Another one for each call of the tool. */
  readonly run: { readonly id: string };
}
export type PrincipalView = Pick<Principal, "subject" | "client" | "groups" | "scopes" | "claims">;

export interface Expression {
  /** What it gives, as far as that is known before it is evaluated: `bool`, `string`, …, `dyn`. */
  readonly type: string;
  /** Throws an `Error` that says, to the operator, why there is no value. */
  evaluate(input: ExpressionInput): JsonValue;
}

/** Throws an `Error` whose message says what is wrong with the expression. */
export type CompileExpression = (text: string, scope: Scope) => Expression;

export interface Template {
  /** What it is before the call, where that is known. */
  readonly known: Known;
  /** Undefined when the argument of a client that it stands for was not sent. Throws as `Expression.evaluate` does. */
  evaluate(input: ExpressionInput): JsonValue | undefined;
}
export type Known =
  | { readonly kind: "constant"; readonly value: JsonValue }
  | { readonly kind: "argument"; readonly name: string }
  | { readonly kind: "computed" };

/** `=args.order_id` and nothing else: the argument goes on as it came, or not at all. */
const ARGUMENT = /^=\s*args\.([A-Za-z_]\w*)\s*$/;

/** Compiles a value in which, at every depth, texts that begin with `=` are expressions. Throws as `compile` does. */
export function compileTemplate(value: JsonValue, scope: Scope, compile: CompileExpression): Template {
  if (!computes(value)) return { known: { kind: "constant", value }, evaluate: () => value };
  const name = typeof value === "string" ? ARGUMENT.exec(value)?.[1] : undefined;
  if (name !== undefined) {
    compile(`args.${name}`, scope);
    return {
      known: { kind: "argument", name },
      evaluate: ({ args }) => (Object.hasOwn(args, name) ? args[name] : undefined),
    };
  }
  const known: Known = { kind: "computed" };
  if (typeof value === "string") {
    const { evaluate } = compile(value.slice(1), scope);
    return { known, evaluate };
  }
  const parts = Object.entries(value as JsonObject).map(
    ([key, part]) => [key, compileTemplate(part as JsonValue, scope, compile)] as const,
  );
  const evaluated = (input: ExpressionInput) =>
    parts.flatMap(([key, part]) => {
      const one = part.evaluate(input);
      return one === undefined ? [] : [[key, one] as const];
    });
  return {
    known,
    evaluate: (input) =>
      Array.isArray(value) ? evaluated(input).map(([, one]) => one) : Object.fromEntries(evaluated(input)),
  };
}

function computes(value: JsonValue): boolean {
  if (typeof value === "string") return value.startsWith("=");
  return typeof value === "object" && value !== null && Object.values(value).some((one) => computes(one as JsonValue));
}
