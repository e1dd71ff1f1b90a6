/**
 * Conditions of roles and assignments: CEL, parsed and type-checked when the settings are loaded, bounded in size. Of a condition
 * it is known what it depends on, so that lists can say what a call could ever get before there are arguments.
 */
import { type ASTNode, Environment, serialize } from "@marcbachmann/cel-js";
import type { JsonObject, Principal, Target } from "../core/call.ts";
import { effectOf } from "./globs.ts";

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
  if (kind !== "resource") return {};
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

const userEnvironment = new Environment({ limits })
  .registerVariable("principal", "map")
  .registerVariable("user", "map");
const callEnvironment = new Environment({ limits })
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
export function compileCallCondition(expression: string): Condition {
  return compile(callEnvironment, expression);
}

function compile(environment: Environment, expression: string): Condition {
  const parsed = environment.parse(expression);
  // Read before the check, which rewrites the tree.
  const names = new Set<string>();
  collectNames(parsed.ast, names);
  const tree = splitAt(parsed.ast, environment);
  const conjuncts = conjunctsOf(parsed.ast).map(serialize);
  const evaluate = checked(parsed);
  let parts: readonly { readonly text: string; readonly evaluate: Evaluate }[] | undefined;
  return {
    text: expression,
    ofCallerAlone: [...names].every((name) => OF_CALLER.has(name)),
    needsTime: names.has("time"),
    evaluate,
    possible: (input) => outcomes(tree, input),
    parts(input) {
      parts ??= conjuncts.map((text) => ({ text, evaluate: checked(environment.parse(text)) }));
      return parts.map((part) => ({ text: part.text, met: part.evaluate(input) }));
    },
  };
}

type Evaluate = (input: UserInput | CallInput) => boolean | undefined;

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
  /** Undefined: what it comes to depends on what only a call says. */
  | { readonly op: "leaf"; readonly evaluate: Evaluate | undefined; readonly ofResource: boolean };

function splitAt(node: ASTNode, environment: Environment): Tree {
  if (node.op === "&&" || node.op === "||") {
    const [left, right] = node.args;
    return { op: node.op, left: splitAt(left, environment), right: splitAt(right, environment) };
  }
  if (node.op === "!_") return { op: "!", of: splitAt(node.args, environment) };
  const names = new Set<string>();
  collectNames(node, names);
  const open = ["args", "time", "method"].some((name) => names.has(name));
  return {
    op: "leaf",
    evaluate: open ? undefined : unchecked(environment.parse(serialize(node))),
    ofResource: names.has("resource"),
  };
}

/** A part of an expression whose whole is checked elsewhere: of the wrong type, it only ever fails. */
function unchecked(parsed: ReturnType<Environment["parse"]>): Evaluate {
  try {
    return checked(parsed);
  } catch {
    return () => undefined;
  }
}

const ANYTHING: Outcomes = MET | UNMET | FAILED;

function outcomes(tree: Tree, input: CallInput): Outcomes {
  switch (tree.op) {
    case "leaf": {
      if (tree.evaluate === undefined) return ANYTHING;
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
