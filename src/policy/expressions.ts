/** Expressions of contracts: CEL over `args`, `principal`, `steps` and `run`, bounded in size, with numbers that behave as those of JSON do. */
import { type ASTNode, Environment } from "@marcbachmann/cel-js";
import { isRaw, rawNumber } from "../contract/exact.ts";
import type { Expression, ExpressionInput, Scope } from "../contract/expressions.ts";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { parseLinear, withMatches } from "./matches.ts";
import { limits } from "./when.ts";

const MAX_LENGTH = 4000;
const MAX_DEPTH = 64;

/**
 * Compiles an expression. Names that are not in `scope` are found here. Throws an `Error` whose message says what is wrong. Numbers of
 * JSON are doubles of CEL, which on its own has no `total * 2`: here whole numbers and fractions go together, and whole numbers that a
 * double cannot hold stay exact.
 */
export function compileExpression(text: string, scope: Scope): Expression {
  if (text.length > MAX_LENGTH) throw new Error(`an expression has at most ${MAX_LENGTH} characters`);
  const members = (names: readonly string[]) => Object.fromEntries(names.map((name) => [name, "dyn"]));
  const checked = numbers
    .clone()
    .registerVariable({ name: "args", schema: members(scope.args) })
    .registerVariable({ name: "principal", schema: PRINCIPAL })
    .registerVariable({ name: "steps", schema: members(scope.steps) })
    .registerVariable({ name: "run", schema: { id: "string" } })
    .check(text);
  if (!checked.valid) throw new Error(firstLine(checked.error) ?? "the expression does not type-check");
  return evaluated(text, checked.type);
}

/** The same for arguments that nobody has declared, and without steps. */
export function compileOpenExpression(text: string): Expression {
  if (text.length > MAX_LENGTH) throw new Error(`an expression has at most ${MAX_LENGTH} characters`);
  const checked = numbers
    .clone()
    .registerVariable("args", "map")
    .registerVariable({ name: "principal", schema: PRINCIPAL })
    .check(text);
  if (!checked.valid) throw new Error(firstLine(checked.error) ?? "the expression does not type-check");
  return evaluated(text, checked.type);
}

function evaluated(text: string, type = "dyn"): Expression {
  const parsed = parseLinear(evaluating, text);
  const loops = loopsIn(parsed.ast);
  if (loops > 2) throw new Error("loops stand within each other at most twice");
  return {
    type,
    evaluate(input) {
      let result: unknown;
      if (loops > 1 && longest(input) > MAX_LOOPED)
        throw new Error(`a loop within a loop is for lists of at most ${MAX_LOOPED} elements`);
      try {
        result = parsed(asCel(input));
      } catch (thrown) {
        throw new Error(firstLine(thrown) ?? "it cannot be evaluated", { cause: thrown });
      }
      return asJson(result);
    },
  };
}

const PRINCIPAL = { subject: "string", client: "string", groups: "list", scopes: "list", claims: "map" };

const firstLine = (thrown: unknown) => (thrown instanceof Error ? thrown.message.split("\n")[0] : undefined);

// ---- bounds ----

const LOOPS: ReadonlySet<unknown> = new Set(["all", "exists", "exists_one", "map", "filter"]);
/** What servers answer may be long, and work within work is done a square of times. */
const MAX_LOOPED = 300;

/** How many loops stand within each other. */
function loopsIn(node: ASTNode): number {
  const { op, args } = node as { readonly op: string; readonly args: unknown };
  const deepest = (value: unknown): number => {
    if (Array.isArray(value)) return Math.max(0, ...value.map(deepest));
    return typeof value === "object" && value !== null && "op" in value ? loopsIn(value as ASTNode) : 0;
  };
  if (op !== "rcall" || !Array.isArray(args) || !LOOPS.has(args[0])) return deepest(args);
  // What a loop goes through is worked out once.
  return Math.max(deepest(args[1]), 1 + deepest(args.slice(2)));
}

function longest({ args, steps }: ExpressionInput): number {
  const of = (value: JsonValue): number => {
    if (typeof value !== "object" || value === null || isRaw(value)) return 0;
    const parts = Object.values(value) as JsonValue[];
    return parts.reduce<number>((most, part) => Math.max(most, of(part)), parts.length);
  };
  return Math.max(of(args), of(steps));
}

// ---- numbers ----

const isWhole = (value: unknown) => Number.isSafeInteger(value);
const ARITHMETIC = {
  "+": [(a: bigint, b: bigint) => a + b, (a: number, b: number) => a + b],
  "-": [(a: bigint, b: bigint) => a - b, (a: number, b: number) => a - b],
  "*": [(a: bigint, b: bigint) => a * b, (a: number, b: number) => a * b],
} as const;

const numbers = withMatches(new Environment({ limits, homogeneousAggregateLiterals: false }));
for (const [operator, [exactly, nearly]] of Object.entries(ARITHMETIC)) {
  const both = (a: number | bigint, b: number | bigint): number | bigint => {
    const exact = (typeof a === "bigint" || isWhole(a)) && (typeof b === "bigint" || isWhole(b));
    if (!exact) return nearly(Number(a), Number(b));
    const result = exactly(BigInt(a), BigInt(b));
    return isWhole(Number(result)) ? Number(result) : result;
  };
  numbers.registerOperator(`double ${operator} int: dyn`, both);
  numbers.registerOperator(`int ${operator} double: dyn`, both);
}
numbers.registerOperator("double / int: double", (a: number, b: bigint) => a / Number(b));
numbers.registerOperator("int / double: double", (a: bigint, b: number) => Number(a) / b);
numbers.registerOperator("double % int: double", (a: number, b: bigint) => a % Number(b));
numbers.registerOperator("int % double: double", (a: bigint, b: number) => Number(a) % b);
numbers.registerOperator("double % double: double", (a: number, b: number) => a % b);

const evaluating = numbers
  .clone()
  .registerVariable("args", "map")
  .registerVariable("principal", "map")
  .registerVariable("steps", "map")
  .registerVariable("run", "map");

// ---- JSON as CEL, and back ----

function asCel({ args, principal, steps, run }: ExpressionInput): Record<string, unknown> {
  const { subject, client, groups, scopes, claims } = principal;
  return {
    args: inCel(args),
    principal: { subject, client, groups, scopes, claims },
    steps: inCel(steps),
    run: { id: run.id },
  };
}

/** The same value where nothing in it has to change. */
function inCel(value: JsonValue): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (isRaw(value)) {
    const text = JSON.stringify(value);
    return /^-?\d{1,20}$/.test(text) && fitsInt64(text) ? BigInt(text) : Number(text);
  }
  if (Array.isArray(value)) {
    const parts = value.map(inCel);
    return parts.some((part, at) => part !== value[at]) ? parts : value;
  }
  const object = value as JsonObject;
  const parts = Object.entries(object).map(([key, part]) => [key, inCel(part as JsonValue)] as const);
  return parts.some(([key, part]) => part !== object[key]) ? Object.fromEntries(parts) : value;
}

const fitsInt64 = (text: string) => BigInt.asIntN(64, BigInt(text)) === BigInt(text);

function asJson(value: unknown, depth = 0): JsonValue {
  if (depth > MAX_DEPTH) throw new Error("the result is nested too deeply");
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "bigint") return isWhole(Number(value)) ? Number(value) : rawNumber(String(value));
  if (typeof value === "number") {
    if (Number.isFinite(value)) return value;
    throw new Error("the result is not a number");
  }
  if (isRaw(value)) return value as JsonValue;
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map((part) => asJson(part, depth + 1));
  if (value instanceof Map || isPlain(value)) {
    const members: Iterable<[unknown, unknown]> = value instanceof Map ? value : Object.entries(value);
    return Object.fromEntries([...members].map(([key, part]) => [String(key), asJson(part, depth + 1)]));
  }
  throw new Error("the result is nothing that JSON has; make a text of it with string()");
}

function isPlain(value: unknown): value is object {
  if (typeof value !== "object" || value === null) return false;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
