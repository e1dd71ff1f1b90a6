/**
 * Patterns of schemas, run in linear time and read as ECMA-262 has them with the `u` flag, which is how validators read them. RE2 does
 * the work, but in its own words: there `.`, `\s` and `[[:alpha:]]` would mean something else.
 */

import { RE2JS } from "re2js";
import { JS } from "refa";
import { languageOf } from "./regular.ts";

/** Whether a pattern is found in a text. */
export interface Matcher {
  (text: string): boolean;
  /** Steps that one character may take, about: time is linear in a text, and as much longer as this is larger. */
  readonly weight: number;
}

/** Parts at most, repetitions written out: more take long to compile, and for ever to run. */
const MAX_WEIGHT = 5_000;

/** Undefined for a pattern that nothing here can run: look-around, back-references, `((a{0,99}){0,99}){0,99}`. */
export function matcherOf(pattern: string): Matcher | undefined {
  const weight = weightOf(pattern);
  if (weight > MAX_WEIGHT) return undefined;
  try {
    const compiled = RE2JS.compile(inRe2(pattern));
    return Object.assign((value: string) => compiled.matcher(value).find(), { weight });
  } catch {
    // RE2 repeats nothing more than a thousand times; an automaton may.
    const strings = languageOf(pattern)?.strings;
    if (strings === undefined) return undefined;
    const test = (value: string) => strings.test(Array.from(value, (one) => one.codePointAt(0) ?? 0));
    return Object.assign(test, { weight: 1 });
  }
}

/** How many parts a pattern has when its repetitions are written out, as RE2 and automata have them; before either is made. */
export function weightOf(pattern: string): number {
  try {
    return weightOfAny(JS.Parser.fromLiteral({ source: pattern, flags: "u" }).ast.pattern.alternatives);
  } catch {
    return pattern.length;
  }
}

function weightOfAny(alternatives: readonly Alternative[]): number {
  return alternatives.reduce(
    (sum, { elements }) => sum + 1 + elements.reduce((all, one) => all + weightOfOne(one), 0),
    0,
  );
}

function weightOfOne(element: Element): number {
  if (element.type === "Group" || element.type === "CapturingGroup") return weightOfAny(element.alternatives);
  if (element.type !== "Quantifier") return 1;
  const { element: inner, min, max } = element;
  const times = max === Number.POSITIVE_INFINITY ? min + 1 : max;
  return 1 + weightOfOne(inner) * times;
}

type Alternative = JS.RegexppAst["pattern"]["alternatives"][number];
type Element = Alternative["elements"][number];

/** Throws for what is beyond RE2. What is no pattern with the `u` flag, so that validators refuse it, is read as RE2 would. */
function inRe2(pattern: string): string {
  let ast: JS.RegexppAst;
  try {
    ({ ast } = JS.Parser.fromLiteral({ source: pattern, flags: "u" }));
  } catch {
    return RE2JS.translateRegExp(pattern);
  }
  return anyOf(ast.pattern.alternatives);
}

const anyOf = (alternatives: readonly Alternative[]): string =>
  alternatives.map(({ elements }) => elements.map(printed).join("")).join("|");

function printed(element: Element): string {
  switch (element.type) {
    case "Group":
    case "CapturingGroup":
      if (element.type === "Group" && element.modifiers !== null) throw new Error("modifiers");
      return `(?:${anyOf(element.alternatives)})`;
    case "Quantifier": {
      const most = element.max === Number.POSITIVE_INFINITY ? "" : element.max;
      return `(?:${printed(element.element)}){${element.min},${most}}`;
    }
    case "Character":
      return code(element.value);
    case "CharacterSet":
      return element.kind === "any" ? `[^${ranges(LINE_ENDS)}]` : `[${setOf(element)}]`;
    case "CharacterClass": {
      if (element.unicodeSets) throw new Error("sets");
      const inside = element.elements.map((part) => {
        if (part.type === "Character") return code(part.value);
        return part.type === "CharacterSet" ? setOf(part) : ranges([[part.min.value, part.max.value]]);
      });
      // RE2 has no empty class.
      if (inside.length === 0) return `[${element.negate ? "" : "^"}${ranges(complement([]))}]`;
      return `[${element.negate ? "^" : ""}${inside.join("")}]`;
    }
    case "Assertion":
      if (element.kind === "start") return "\\A";
      if (element.kind === "end") return "\\z";
      if (element.kind === "word") return element.negate ? "\\B" : "\\b";
      throw new Error(element.kind);
    default:
      throw new Error(element.type);
  }
}

type Ranges = readonly (readonly [number, number])[];

// ECMA-262, CharacterClassEscape, WhiteSpace and LineTerminator.
const LINE_ENDS: Ranges = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const SETS: Readonly<Record<"digit" | "word" | "space", Ranges>> = {
  digit: [[0x30, 0x39]],
  word: [
    [0x30, 0x39],
    [0x41, 0x5a],
    [0x5f, 0x5f],
    [0x61, 0x7a],
  ],
  space: [
    [0x09, 0x0d],
    [0x20, 0x20],
    [0xa0, 0xa0],
    [0x1680, 0x1680],
    [0x2000, 0x200a],
    [0x2028, 0x2029],
    [0x202f, 0x202f],
    [0x205f, 0x205f],
    [0x3000, 0x3000],
    [0xfeff, 0xfeff],
  ],
};

/** For between brackets. */
function setOf(set: Extract<Element, { type: "CharacterSet" }>): string {
  if (set.kind === "any") throw new Error("is no part of a class");
  if (set.kind === "property") return set.raw;
  return ranges(set.negate ? complement(SETS[set.kind]) : SETS[set.kind]);
}

function complement(some: Ranges): Ranges {
  const edges = [-1, ...some.flat(), 0x110000];
  const gaps: [number, number][] = [];
  for (let at = 0; at < edges.length; at += 2) gaps.push([(edges[at] as number) + 1, (edges[at + 1] as number) - 1]);
  return gaps.filter(([from, to]) => from <= to);
}

const ranges = (some: Ranges) => some.map(([from, to]) => `${code(from)}-${code(to)}`).join("");
const code = (point: number) => `\\x{${point.toString(16)}}`;
