/**
 * Regular expressions as sets of strings: whether one holds all of another. Only where that can be told for certain: assertions
 * other than ^ and $ at the ends, back-references and Unicode properties cannot be read.
 */
import { DFA, isDisjointWith, JS, NFA, type ReadonlyDFA, type TransitionIterator } from "refa";

/** The strings of which a pattern finds a part, as JSON Schema has it. */
export interface Language {
  readonly strings: ReadonlyDFA;
  readonly complement: ReadonlyDFA;
  /** In code points. */
  readonly shortest: number;
  /** Infinity when there is no longest. */
  readonly longest: number;
}

/** States and nodes at most: a pattern that needs more is not read. */
const MAX_NODES = 5_000;
/** Steps at most to make one pattern deterministic: its states, each as many times as it is in a set of them. Some 50 ms. */
const MAX_WORK = 20_000;
const MAX_CACHED = 1000;
const known = new Map<string, Language | undefined>();

/** Steps that are left to whoever compares; those who ask without a bound have one for each pattern alone. */
let left = Number.POSITIVE_INFINITY;

/** Takes no more than so many steps over all the patterns that `compare` asks about; what is beyond them it is told as unknown. */
export function bounded<T>(steps: number, compare: () => T): T {
  const before = left;
  left = Math.min(left, steps);
  const given = left;
  try {
    return compare();
  } finally {
    left = before - (given - left);
  }
}

/**
 * The language of a pattern as ECMA-262 reads it with the `u` flag; undefined when it cannot be read exactly, or would take too long
 * to read: `(a{0,50}){0,50}` is short and holds every state in every other.
 */
export function languageOf(pattern: string): Language | undefined {
  if (!known.has(pattern)) {
    if (left <= 0) return undefined;
    const most = Math.min(left, MAX_WORK);
    const { language, work } = read(pattern, most);
    left -= work;
    // It was not its own fault.
    if (language === undefined && work >= most && most < MAX_WORK) return undefined;
    if (known.size >= MAX_CACHED) known.clear();
    known.set(pattern, language);
  }
  return known.get(pattern);
}

/** The strings of at least `min` and at most `max` code points; undefined when that is too many to write down. */
export function lengthsBetween(min: number, max: number): Language | undefined {
  if (min > 2000 || (max > 2000 && max !== Number.POSITIVE_INFINITY)) return undefined;
  return languageOf(`^[^]{${min},${max === Number.POSITIVE_INFINITY ? "" : max}}$`);
}

/** Whether every string that is in all of `some` is in `other`; undefined when that takes too long to tell. */
export function within(some: readonly Language[], other: Language): boolean | undefined {
  return empty([...some.map(({ strings }) => strings), other.complement]);
}

/** Whether no string is in all of them; undefined when that takes too long to tell. */
export function disjoint(languages: readonly Language[]): boolean | undefined {
  return empty(languages.map(({ strings }) => strings));
}

function empty(automata: readonly ReadonlyDFA[]): boolean | undefined {
  const [first, ...rest] = automata;
  const last = rest.pop();
  if (first === undefined) return false;
  if (last === undefined) return first.isEmpty;
  if (left <= 0) return undefined;
  left -= WORK_OF_PRODUCT;
  try {
    let all: ReadonlyDFA = first;
    for (const one of rest) all = DFA.fromIntersection(all, one, new DFA.LimitedNodeFactory(MAX_NODES));
    return isDisjointWith(all, last, MAX_NODES);
  } catch {
    return undefined;
  }
}

/** Of two languages together, as it mostly is. */
const WORK_OF_PRODUCT = 50;

function read(pattern: string, most: number): { readonly language: Language | undefined; readonly work: number } {
  let work = 1;
  const one = () => {
    if (++work > most) throw new Error("takes too long");
  };
  return { language: readWithin(pattern, one), work };
}

function readWithin(pattern: string, step: () => void): Language | undefined {
  try {
    const { ast } = JS.Parser.fromLiteral({ source: pattern, flags: "u" });
    if (BEYOND.test(pattern)) return undefined;
    const source = ast.pattern.alternatives.map(searched).join("|");
    const parser = JS.Parser.fromLiteral({ source, flags: "u" });
    const options = { assertions: "throw", backreferences: "throw", maxNodes: MAX_NODES } as const;
    const { expression, maxCharacter } = parser.parse(options);
    const nodes = () => new DFA.LimitedNodeFactory(MAX_NODES);
    const nfa = NFA.fromRegex(expression, { maxCharacter }, {}, new NFA.LimitedNodeFactory(MAX_NODES));
    const strings = DFA.fromTransitionIterator(stepping(nfa.transitionIterator(), step), { maxCharacter }, nodes());
    strings.minimize();
    const complement = strings.copy(nodes());
    complement.complement(nodes());
    return { strings, complement, ...lengths(strings) };
  } catch {
    return undefined;
  }
}

/** The same, and tells of every step. */
function stepping<Node>(iterator: TransitionIterator<Node>, step: () => void): TransitionIterator<Node> {
  return {
    ...iterator,
    getOut(node) {
      step();
      return iterator.getOut(node);
    },
  };
}

/** Unicode properties are large, and differ with the version of Unicode; and modifiers. */
const BEYOND = /\\[pP]\{|\(\?[a-z]*-?[a-z]*:(?<!\(\?:)/;

type Alternative = JS.RegexppAst["pattern"]["alternatives"][number];
type Element = Alternative["elements"][number];

/** A pattern is searched for: what is not anchored may have anything beside it. */
function searched({ elements }: Alternative): string {
  const rest = [...elements];
  let before = "[^]*";
  let after = "[^]*";
  for (; isEdge(rest[0], "start"); rest.shift()) before = "";
  for (; isEdge(rest.at(-1), "end"); rest.pop()) after = "";
  return `${before}(?:${rest.map(({ raw }) => raw).join("")})${after}`;
}

const isEdge = (element: Element | undefined, kind: "start" | "end") =>
  element?.type === "Assertion" && element.kind === kind;

function lengths(dfa: ReadonlyDFA): { readonly shortest: number; readonly longest: number } {
  const { getOut, isFinal, initial } = dfa.transitionIterator();
  const found = new Map([[initial, 0]]);
  let shortest = Number.POSITIVE_INFINITY;
  for (const [node, length] of found) {
    if (isFinal(node)) shortest = Math.min(shortest, length);
    for (const next of getOut(node).keys()) if (!found.has(next)) found.set(next, length + 1);
  }
  return { shortest, longest: dfa.isFinite ? longest(dfa) : Number.POSITIVE_INFINITY };
}

/** Of a language that is finite, so no way through it is a circle. */
function longest(dfa: ReadonlyDFA): number {
  const { getOut, isFinal, initial } = dfa.transitionIterator();
  const found = new Map<DFA.ReadonlyNode, number>();
  const from = (node: DFA.ReadonlyNode): number => {
    let most = found.get(node);
    if (most !== undefined) return most;
    most = isFinal(node) ? 0 : Number.NEGATIVE_INFINITY;
    for (const next of getOut(node).keys()) most = Math.max(most, 1 + from(next));
    found.set(node, most);
    return most;
  };
  return from(initial);
}
