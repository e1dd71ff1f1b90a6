/**
 * The usual parts of conditions as functions: comparisons, `in`, `startsWith` and the like over members of JSON. They mean what the
 * library means by them, without its way through types and exceptions; whatever they do not know for certain they ask it.
 */
import type { ASTNode } from "@marcbachmann/cel-js";
import { literalOf, standing } from "./matches.ts";

/** `undefined`: it could not be evaluated. */
export type Evaluate = (input: object) => boolean | undefined;

/** Compiles one part. `ask` evaluates it as the library does; undefined when the part is none of the usual ones. */
export function compileLeaf(node: ASTNode, ask: Evaluate): Evaluate | undefined {
  switch (node.op) {
    case "value":
      return typeof node.args === "boolean" ? always(node.args) : undefined;
    case ".":
    case "[]":
      return truth(node, ask);
    case "==":
    case "!=":
      return equality(node.args, node.op === "!=", ask);
    case "<":
    case "<=":
    case ">":
    case ">=":
      return order(node.args, ORDERS[node.op], ask);
    case "in":
      return membership(node.args, ask);
    case "call": {
      const [name, args] = node.args;
      return name === "has" && args[0] !== undefined ? presence(args[0], ask) : undefined;
    }
    case "rcall": {
      const [name, receiver, args] = node.args;
      const [first] = args;
      return first !== undefined && args.length === 1 ? ofText(name, receiver, first, ask) : undefined;
    }
    default:
      return undefined;
  }
}

// ---- values ----

/** What there is not. */
const ABSENT = Symbol("absent");
/** What only the library knows about. */
const ODD = Symbol("odd");

/** A value of JSON, or one of the two above. */
type Read = (input: object) => unknown;

const ROOTS: ReadonlySet<string> = new Set(["principal", "user", "args", "call", "resource", "time"]);

interface Path {
  readonly root: string;
  readonly keys: readonly string[];
}

function pathOf(node: ASTNode): Path | undefined {
  if (node.op === "id") return ROOTS.has(node.args) ? { root: node.args, keys: [] } : undefined;
  if (node.op !== "." && node.op !== "[]") return undefined;
  const [of, member] = node.args;
  const key = typeof member === "string" ? member : literalOf(member);
  const path = pathOf(of);
  return key === undefined || path === undefined ? undefined : { ...path, keys: [...path.keys, key] };
}

type Members = Readonly<Record<string, unknown>>;

function reader({ root, keys }: Path): Read {
  const [first, ...more] = keys;
  if (first === undefined) return (input) => (input as Members)[root];
  if (more.length === 0) return (input) => memberOf((input as Members)[root], first);
  return (input) => {
    let value = memberOf((input as Members)[root], first);
    for (const key of more) value = memberOf(value, key);
    return value;
  };
}

function memberOf(value: unknown, key: string): unknown {
  if (typeof value !== "object" || value === null) return value === ODD ? ODD : ABSENT;
  if (value.constructor !== Object) return ODD;
  const member = (value as Members)[key];
  // What every object has is not the caller's.
  return member === undefined || !Object.hasOwn(value, key) ? ABSENT : member;
}

type Literal = string | number | boolean | null;

/** Whole numbers of CEL are compared with those of JSON by their value, so they may be numbers where a number holds them. */
function constantOf(node: ASTNode): Literal | undefined {
  if (node.op === "-_") {
    const value = constantOf(node.args);
    return typeof value === "number" ? -value : undefined;
  }
  if (node.op !== "value") return undefined;
  const value: unknown = node.args;
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : undefined;
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean" || value === null
    ? value
    : undefined;
}

/** A member of what is known, or what is written. */
function operandOf(node: ASTNode): Read | undefined {
  const path = pathOf(node);
  if (path !== undefined) return path.keys.length > 0 ? reader(path) : undefined;
  const value = constantOf(node);
  return value === undefined ? undefined : () => value;
}

/** Two sides of which one at least is no constant: what is to be said of constants is for the library. */
function sides([left, right]: readonly [ASTNode, ASTNode]): readonly [Read, Read] | undefined {
  if (pathOf(left) === undefined && pathOf(right) === undefined) return undefined;
  const one = operandOf(left);
  const other = operandOf(right);
  return one === undefined || other === undefined ? undefined : [one, other];
}

// ---- the parts ----

const always = (value: boolean) => () => value;

function truth(node: ASTNode, ask: Evaluate): Evaluate | undefined {
  const read = operandOf(node);
  if (read === undefined) return undefined;
  return (input) => {
    const value = read(input);
    if (value === ODD) return ask(input);
    return typeof value === "boolean" ? value : undefined;
  };
}

function equality(args: readonly [ASTNode, ASTNode], negated: boolean, ask: Evaluate): Evaluate | undefined {
  const both = sides(args);
  if (both === undefined) return undefined;
  const [left, right] = both;
  return (input) => {
    const one = left(input);
    const other = right(input);
    if (one === ABSENT || other === ABSENT) return one === ODD || other === ODD ? ask(input) : undefined;
    if (!isPlain(one) || !isPlain(other)) return ask(input);
    return (one === other) !== negated;
  };
}

const ORDERS = {
  "<": (one: string | number, other: string | number) => one < other,
  "<=": (one: string | number, other: string | number) => one <= other,
  ">": (one: string | number, other: string | number) => one > other,
  ">=": (one: string | number, other: string | number) => one >= other,
} as const;

function order(
  args: readonly [ASTNode, ASTNode],
  holds: (typeof ORDERS)[keyof typeof ORDERS],
  ask: Evaluate,
): Evaluate | undefined {
  const both = sides(args);
  if (both === undefined) return undefined;
  const [left, right] = both;
  const limit = constantOf(args[1]);
  const compared = (one: unknown, other: unknown, input: object) => {
    if (typeof one === "number" && typeof other === "number") return holds(one, other);
    if (typeof one === "string" && typeof other === "string") return holds(one, other);
    // Texts and numbers have no order between them, and nothing has one with what is not there.
    return isKnown(one) && isKnown(other) && !isOrdered(one, other) ? undefined : ask(input);
  };
  // The most usual one, spared a step.
  if (typeof limit === "number")
    return (input) => {
      const one = left(input);
      return typeof one === "number" ? holds(one, limit) : compared(one, limit, input);
    };
  return (input) => compared(left(input), right(input), input);
}

/** What is left: whether that has an order is for the library to say. */
function isOrdered(one: unknown, other: unknown): boolean {
  return one !== ABSENT && other !== ABSENT && typeof one === typeof other;
}

function membership([element, whole]: readonly [ASTNode, ASTNode], ask: Evaluate): Evaluate | undefined {
  const read = operandOf(element);
  if (read === undefined) return undefined;
  if (whole.op === "list") {
    const texts = whole.args.map(literalOf);
    if (texts.length === 0 || texts.some((text) => text === undefined) || pathOf(element) === undefined)
      return undefined;
    const all = new Set<unknown>(texts);
    return (input) => {
      const value = read(input);
      if (value === ABSENT) return undefined;
      return typeof value === "string" ? all.has(value) : ask(input);
    };
  }
  const path = pathOf(whole);
  if (path === undefined || path.keys.length === 0) return undefined;
  const list = reader(path);
  return (input) => {
    const value = read(input);
    const of = list(input);
    if (typeof value === "string" && Array.isArray(of) && (of.length === 0 || typeof of[0] === "string"))
      return of.includes(value);
    return (value === ABSENT || of === ABSENT) && value !== ODD && of !== ODD ? undefined : ask(input);
  };
}

function presence(node: ASTNode, ask: Evaluate): Evaluate | undefined {
  if (node.op !== ".") return undefined;
  const [of, member] = node.args;
  const path = pathOf(of);
  // `has(args["a"].b)` is none of the language's.
  if (path === undefined || typeof member !== "string" || !onlyDots(of)) return undefined;
  const read = reader(path);
  return (input) => {
    const value = read(input);
    if (value === ABSENT) return undefined;
    if (typeof value !== "object" || value === null || value.constructor !== Object) return ask(input);
    if (!Object.hasOwn(value, member)) return false;
    return isPlain((value as Members)[member]) ? true : ask(input);
  };
}

const onlyDots = (node: ASTNode): boolean => node.op === "id" || (node.op === "." && onlyDots(node.args[0]));

const TEXTS = {
  startsWith: (text: string, other: string) => text.startsWith(other),
  endsWith: (text: string, other: string) => text.endsWith(other),
  contains: (text: string, other: string) => text.includes(other),
} as const;

function ofText(name: string, receiver: ASTNode, argument: ASTNode, ask: Evaluate): Evaluate | undefined {
  const path = pathOf(receiver);
  const read = path && operandOf(receiver);
  if (read === undefined) return undefined;
  const constant = literalOf(argument);
  if (name === "matches") {
    if (constant === undefined) return undefined;
    const test = standing(constant);
    return (input) => {
      const text = read(input);
      return typeof text === "string" ? test(text) : isScalar(text) || text === ABSENT ? undefined : ask(input);
    };
  }
  const other = operandOf(argument);
  if (other === undefined || !Object.hasOwn(TEXTS, name)) return undefined;
  const holds = TEXTS[name as keyof typeof TEXTS];
  return (input) => {
    const text = read(input);
    const wanted = other(input);
    if (typeof text === "string" && typeof wanted === "string") return holds(text, wanted);
    return isKnown(text) && isKnown(wanted) ? undefined : ask(input);
  };
}

const isScalar = (value: unknown) =>
  typeof value === "string" || typeof value === "number" || typeof value === "boolean";
const isPlain = (value: unknown) => isScalar(value) || value === null;
const isKnown = (value: unknown) => isPlain(value) || value === ABSENT;
