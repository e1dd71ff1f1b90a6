/**
 * Conditions of roles and assignments: CEL, parsed and type-checked when the settings are loaded, bounded in size. Of a condition
 * it is known what it depends on, so that lists can say what a call could ever get before there are arguments.
 */
import { type ASTNode, Environment } from "@marcbachmann/cel-js";
import type { JsonObject, Principal, Target } from "../core/call.ts";
import { effectOf } from "./globs.ts";
import { compileLeaf, type Evaluate } from "./leaf.ts";
import { parseLinear, withMatches } from "./matches.ts";
import { otherSpellings } from "./spellings.ts";
import { textOf } from "./written.ts";

/** What conditions see of the caller: `principal`, and by its former name `user`. */
export interface UserView {
  readonly id: string;
  readonly subject: string;
  readonly client: string;
  /** Who acts for whom (RFC 8693 `act`), nearest first. */
  readonly actors: readonly string[];
  readonly groups: readonly string[];
  readonly scopes: readonly string[];
  readonly claims: JsonObject;
}

export interface UserInput {
  readonly principal: UserView;
  readonly user: UserView;
}
export interface CallInput extends UserInput {
  readonly args: JsonObject;
  readonly call: {
    readonly method: string;
    readonly kind: string;
    readonly name: string;
    readonly server: string;
    readonly access: string;
    readonly openWorld: boolean;
  };
  /** Of a resource: its URI and the parts of it; empty for tools and prompts. */
  readonly resource: ResourceView | JsonObject;
  /** When the call came, UTC; empty when nobody said so. */
  readonly time: TimeView | JsonObject;
  /** Another one for each decision: parts that several conditions have are evaluated once in each. Without it, each time. */
  readonly turn?: number;
}
export interface ResourceView {
  readonly uri: string;
  readonly scheme: string;
  readonly host: string;
  readonly path: string;
  /** Of the path, decoded; the host first where the scheme is not one of the web (`orders://ORD-1/items`). */
  readonly parts: readonly string[];
}
export interface TimeView {
  readonly hour: number;
  readonly minute: number;
  /** 1 is Monday, 7 Sunday (ISO 8601). */
  readonly weekday: number;
  /** `2026-11-21`. */
  readonly date: string;
}

/** What a condition may come to, when not everything is known: any of these bits. */
export const MET = 1;
export const UNMET = 2;
export const FAILED = 4;
export type Outcomes = number;

export interface Condition {
  readonly text: string;
  /** It looks at the caller and at nothing else, so it stands as long as their token. */
  readonly ofCallerAlone: boolean;
  readonly needsTime: boolean;
  /** `undefined`: it could not be evaluated. The caller decides what that means, and it never means yes. */
  evaluate(input: UserInput | CallInput): boolean | undefined;
  /** What it may come to for a call whose arguments, method and time are not known yet. Never less than what is possible. */
  possible(input: CallInput): Outcomes;
  /** The parts that all must be met, each with what it comes to; for explanations. */
  parts(input: CallInput): readonly { readonly text: string; readonly met: boolean | undefined }[];
}

export function userView(principal: Principal): UserView {
  const { subject, client, actors, groups, scopes, claims } = principal;
  return { id: subject, subject, client, actors, groups, scopes, claims };
}

export function callView({ kind, name, server, access }: Target, method: string): CallInput["call"] {
  // Resources and prompts are read; what no contract says of a tool counts as the worst.
  if (kind !== "tool") return { method, kind, name, server, access: "read", openWorld: access?.openWorld === true };
  return { method, kind, name, server, access: effectOf(access), openWorld: access?.openWorld !== false };
}

export function resourceView({ kind, name }: Target): CallInput["resource"] {
  return kind === "resource" ? viewOfUri(name) : {};
}

/**
 * A call as its resource is written, and then as it may be meant: conditions are asked of each. What permits must be met as written
 * and as meant; what forbids, in any way. Of one that cannot be read otherwise, and of tools and prompts, only the first.
 */
export function spelled(input: CallInput): readonly CallInput[] {
  const { uri } = input.resource;
  const spellings = typeof uri === "string" ? otherSpellings(uri) : [];
  if (spellings?.length === 0) return [input];
  const { turn: _, ...plain } = input;
  // Of one that nobody can read nothing is known, so that conditions about it fail.
  const others = spellings?.map((other) => ({
    ...plain,
    resource: viewOfUri(other),
    args: Object.hasOwn(plain.args, "uri") ? { ...plain.args, uri: other } : plain.args,
  }));
  return [input, ...(others ?? [{ ...plain, resource: {}, args: {} }])];
}

/** Of a condition that forbids: what it comes to of the spelling that is worst for the caller. */
export function metByAny(when: Condition | undefined, inputs: readonly CallInput[]): boolean | undefined {
  for (const input of inputs) {
    const met = when?.evaluate(input);
    if (met !== false) return met;
  }
  return false;
}

/** Of a condition that permits. */
export function metAsMeant(
  when: Condition | undefined,
  [written, ...meant]: readonly CallInput[],
): boolean | undefined {
  const met = written && when?.evaluate(written);
  if (met !== true || meant.length === 0) return met;
  const all = meant.map((input) => when?.evaluate(input));
  return all.includes(true) ? true : all.includes(false) ? false : undefined;
}

function viewOfUri(name: string): ResourceView {
  const [, scheme = "", host = "", path = ""] = /^([a-z][a-z0-9+.-]*):(?:\/\/([^/?#]*))?([^?#]*)/i.exec(name) ?? [];
  const web = /^(https?|wss?|ftp|file)$/i.test(scheme);
  const parts = [...(web || host === "" ? [] : [host]), ...path.split("/").filter((part) => part !== "")];
  return { uri: name, scheme: scheme.toLowerCase(), host, path, parts: parts.map(decoded) };
}

export function timeView(at: number): TimeView {
  const date = new Date(at);
  return {
    hour: date.getUTCHours(),
    minute: date.getUTCMinutes(),
    weekday: date.getUTCDay() || 7,
    date: date.toISOString().slice(0, 10),
  };
}

/** Of every expression in the settings. */
export const limits = {
  maxAstNodes: 500,
  maxDepth: 32,
  maxListElements: 200,
  maxMapEntries: 200,
  maxCallArguments: 16,
};

const userEnvironment = withMatches(new Environment({ limits }))
  .registerVariable("principal", "map")
  .registerVariable("user", "map");
const callEnvironment = withMatches(new Environment({ limits }))
  .registerVariable("principal", "map")
  .registerVariable("user", "map")
  .registerVariable("args", "map")
  .registerVariable("call", "map")
  .registerVariable("resource", "map")
  .registerVariable("time", "map");

/** Compiles a condition of `assign`. Throws an `Error` whose message says what is wrong with the expression. */
export function compileUserCondition(expression: string): Condition {
  return compile(userEnvironment, expression);
}

/** Compiles a condition of a role. Throws an `Error` whose message says what is wrong with the expression. */
export function compileCallCondition(expression: string, shared?: SharedParts): Condition {
  return compile(callEnvironment, expression, shared);
}

/** Parts of the conditions of one policy, by what they are. */
export type SharedParts = Map<string, { readonly evaluate: Evaluate; readonly again: boolean }>;

function compile(environment: Environment, expression: string, shared: SharedParts = new Map()): Condition {
  const { ast } = environment.parse(expression);
  const names = new Set<string>();
  collectNames(ast, names);
  // Before anything is made of the parts: they are right when the whole is.
  const whole = checked(parseLinear(environment, expression));
  const asked = (leaf: ASTNode) =>
    leaf === ast ? whole : later(() => evaluator(environment, () => textOf(leaf, expression, environment)));
  const tree = splitAt(ast, asked, shared);
  let parts: readonly { readonly text: string; readonly evaluate: Evaluate }[] | undefined;
  return {
    text: expression,
    ofCallerAlone: [...names].every((name) => OF_CALLER.has(name)),
    needsTime: names.has("time"),
    evaluate: evaluatorOf(tree),
    possible: (input) => outcomes(tree, input),
    parts(input) {
      parts ??= conjunctsOf(ast).map((part) => ({
        text: textOf(part, expression, environment),
        evaluate: evaluatorOf(splitAt(part, asked, new Map())),
      }));
      return parts.map((part) => ({ text: part.text, met: part.evaluate(input) }));
    },
  };
}

function checked(parsed: ReturnType<Environment["parse"]>): Evaluate {
  const { valid, error, type } = parsed.check();
  if (!valid) throw new Error(error?.message ?? "the expression does not type-check");
  if (type !== "bool" && type !== "dyn") throw new Error(`the expression must be true or false, it is of type ${type}`);
  return (input) => {
    try {
      const result: unknown = parsed(input);
      return typeof result === "boolean" ? result : undefined;
    } catch {
      return undefined;
    }
  };
}

/** Of a part of an expression whose whole is checked elsewhere: what cannot be read by itself only ever fails. */
function evaluator(environment: Environment, make: () => string): Evaluate {
  try {
    return checked(parseLinear(environment, make()));
  } catch {
    return () => undefined;
  }
}

/** Most parts are never asked of the library, so it reads them when they are. */
function later(make: () => Evaluate): Evaluate {
  let made: Evaluate | undefined;
  return (input) => {
    made ??= make();
    return made(input);
  };
}

const OF_CALLER: ReadonlySet<string> = new Set(["principal", "user"]);
const VARIABLES: ReadonlySet<string> = new Set(["principal", "user", "args", "call", "resource", "time"]);
/** Of `call`, what is known as soon as the target is. */
const OF_TARGET: ReadonlySet<string> = new Set(["kind", "name", "server", "access", "openWorld"]);

/**
 * The variables that an expression mentions; `call.method` counts as `method`. A name that a macro binds counts too, which errs on
 * the side of not knowing.
 */
function collectNames(node: ASTNode, names: Set<string>): void {
  if (node.op === "id") {
    if (VARIABLES.has(node.args)) names.add(node.args === "call" ? "method" : node.args);
    return;
  }
  if (node.op === ".") {
    const [of, member] = node.args;
    if (of.op === "id" && of.args === "call" && OF_TARGET.has(member)) {
      names.add("call");
      return;
    }
  }
  for (const child of childrenOf(node)) collectNames(child, names);
}

function childrenOf({ args }: ASTNode): readonly ASTNode[] {
  const found: ASTNode[] = [];
  const visit = (value: unknown) => {
    if (Array.isArray(value)) for (const one of value) visit(one);
    else if (typeof value === "object" && value !== null && "op" in value && "args" in value)
      found.push(value as ASTNode);
  };
  visit(args);
  return found;
}

/** An expression, taken apart at `&&`, `||` and `!`. */
type Tree =
  | { readonly op: "&&" | "||"; readonly left: Tree; readonly right: Tree }
  | { readonly op: "!"; readonly of: Tree }
  | {
      readonly op: "leaf";
      readonly evaluate: Evaluate;
      /** What it comes to depends on what only a call says. */
      readonly open: boolean;
      readonly ofResource: boolean;
    };

function splitAt(node: ASTNode, ask: (leaf: ASTNode) => Evaluate, shared: SharedParts): Tree {
  if (node.op === "&&" || node.op === "||") {
    const [left, right] = node.args;
    return { op: node.op, left: splitAt(left, ask, shared), right: splitAt(right, ask, shared) };
  }
  if (node.op === "!_") return { op: "!", of: splitAt(node.args, ask, shared) };
  const names = new Set<string>();
  collectNames(node, names);
  return {
    op: "leaf",
    evaluate: sharedPart(node, shared, () => {
      const library = ask(node);
      return compileLeaf(node, library) ?? library;
    }),
    open: ["args", "time", "method"].some((name) => names.has(name)),
    ofResource: names.has("resource"),
  };
}

function sharedPart(node: ASTNode, shared: SharedParts, make: () => Evaluate): Evaluate {
  const key = JSON.stringify([node.op, node.args], (name, value: unknown) => {
    if (name === "pos" || name === "start" || name === "end") return undefined;
    if (typeof value === "bigint" || Object.is(value, -0)) return [typeof value, String(value)];
    if (typeof value !== "object" || value === null || Array.isArray(value) || "op" in value) return value;
    // Bytes and unsigned numbers.
    return [value.constructor.name, String(value.valueOf())];
  });
  const known = shared.get(key);
  if (known?.again === true) return known.evaluate;
  const evaluate = known === undefined ? make() : oncePerTurn(known.evaluate);
  shared.set(key, { evaluate, again: known !== undefined });
  return evaluate;
}

function oncePerTurn(evaluate: Evaluate): Evaluate {
  let last: number | undefined;
  let met: boolean | undefined;
  return (input: { readonly turn?: number }) => {
    if (input.turn === undefined) return evaluate(input);
    if (input.turn !== last) {
      met = evaluate(input);
      last = input.turn;
    }
    return met;
  };
}

/** CEL's logic: a side that decides does so whatever the other, also when the other fails. */
function evaluatorOf(tree: Tree): Evaluate {
  if (tree.op === "leaf") return tree.evaluate;
  if (tree.op === "!") {
    const of = evaluatorOf(tree.of);
    return (input) => {
      const met = of(input);
      return met === undefined ? undefined : !met;
    };
  }
  const decisive = tree.op === "||";
  const [first, ...others] = sameSides(tree, tree.op).map(evaluatorOf);
  return (input) => {
    let met = first?.(input);
    if (met === decisive) return decisive;
    for (const other of others) {
      const one = other(input);
      if (one === decisive) return decisive;
      if (one === undefined) met = undefined;
    }
    return met;
  };
}

/** Of `a && b && c` all three. */
function sameSides(tree: Tree, op: "&&" | "||"): readonly Tree[] {
  return tree.op === op ? [...sameSides(tree.left, op), ...sameSides(tree.right, op)] : [tree];
}

const ANYTHING: Outcomes = MET | UNMET | FAILED;

function outcomes(tree: Tree, input: CallInput): Outcomes {
  switch (tree.op) {
    case "leaf": {
      if (tree.open) return ANYTHING;
      // Of a template only its calls say which resource is meant.
      if (tree.ofResource && "uri" in input.resource && /\{/.test(String(input.resource["uri"]))) return ANYTHING;
      const met = tree.evaluate(input);
      return met === undefined ? FAILED : met ? MET : UNMET;
    }
    case "!": {
      const of = outcomes(tree.of, input);
      return (of & FAILED) | (of & MET ? UNMET : 0) | (of & UNMET ? MET : 0);
    }
    case "&&":
      return both(outcomes(tree.left, input), outcomes(tree.right, input), MET, UNMET);
    case "||":
      return both(outcomes(tree.left, input), outcomes(tree.right, input), UNMET, MET);
  }
}

/** CEL's logic: one `decisive` side decides, whatever the other; both `neutral` are that; anything else fails. */
function both(left: Outcomes, right: Outcomes, neutral: Outcomes, decisive: Outcomes): Outcomes {
  let result = (left | right) & decisive;
  if (left & neutral && right & neutral) result |= neutral;
  if ((left & FAILED && right & (FAILED | neutral)) || (right & FAILED && left & neutral)) result |= FAILED;
  return result;
}

function conjunctsOf(node: ASTNode): readonly ASTNode[] {
  return node.op === "&&" ? node.args.flatMap(conjunctsOf) : [node];
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
