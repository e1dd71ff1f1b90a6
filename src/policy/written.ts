/**
 * The text of a part of an expression, for the library to read again and for people. Its own `serialize` leaves out brackets
 * (`a - (b - c)`) and writes numbers that it cannot read (`1e300`), so every text is compared with the part before it is used.
 */
import { type ASTNode, type Environment, serialize } from "@marcbachmann/cel-js";

/** As it stands in the source where that can be cut out, else written anew. Throws an `Error` when neither means the same. */
export function textOf(node: ASTNode, source: string, environment: Environment): string {
  const found = [source.slice(node.start, node.end), written(node)].find((text) => means(text, node, environment));
  if (found === undefined) throw new Error(`a part of ${JSON.stringify(source)} cannot be taken out of it`);
  return found;
}

function means(text: string, node: ASTNode, environment: Environment): boolean {
  try {
    return same(environment.parse(text).ast, node);
  } catch {
    return false;
  }
}

function same(one: unknown, other: unknown): boolean {
  if (Array.isArray(one) && Array.isArray(other))
    return one.length === other.length && one.every((part, at) => same(part, other[at]));
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null)
    return Object.is(one, other);
  if ("op" in one && "op" in other && "args" in one && "args" in other)
    return one.op === other.op && same(one.args, other.args);
  // Bytes and unsigned numbers.
  return one.constructor === other.constructor && String(one.valueOf()) === String(other.valueOf());
}

/** With brackets around everything that could need them. */
function written(node: ASTNode): string {
  switch (node.op) {
    case "value":
      return typeof node.args === "number" ? double(node.args) : serialize(node);
    case "id":
      return node.args;
    case ".":
      return `${closed(node.args[0])}.${node.args[1]}`;
    case "[]":
      return `${closed(node.args[0])}[${written(node.args[1])}]`;
    case "call":
      return `${node.args[0]}(${all(node.args[1])})`;
    case "rcall":
      return `${closed(node.args[1])}.${node.args[0]}(${all(node.args[2])})`;
    case "list":
      return `[${all(node.args)}]`;
    case "map":
      return `{${node.args.map(([key, value]) => `${written(key)}: ${written(value)}`).join(", ")}}`;
    case "!_":
    case "-_":
      return `${node.op[0]}${closed(node.args)}`;
    case "?:":
      return `${closed(node.args[0])} ? ${closed(node.args[1])} : ${closed(node.args[2])}`;
    case "==":
    case "!=":
    case "<":
    case "<=":
    case ">":
    case ">=":
    case "+":
    case "-":
    case "*":
    case "/":
    case "%":
    case "in":
    case "&&":
    case "||":
      return `${closed(node.args[0])} ${node.op} ${closed(node.args[1])}`;
    default:
      return serialize(node);
  }
}

const all = (nodes: readonly ASTNode[]) => nodes.map(written).join(", ");

const CLOSED: ReadonlySet<string> = new Set(["value", "id", ".", "[]", "call", "rcall", "list", "map"]);
const closed = (node: ASTNode): string => (CLOSED.has(node.op) ? written(node) : `(${written(node)})`);

function double(value: number): string {
  const text = String(value).replace("e+", "e");
  return /^-?\d+$/.test(text) ? `${text}.0` : text;
}
