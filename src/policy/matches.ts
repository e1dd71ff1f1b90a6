/**
 * `matches()` of CEL in linear time. The library's own hands patterns to V8, which goes back and forth; the language says RE2
 * (https://github.com/google/re2/wiki/Syntax), and so do we. Patterns that stand in the settings are compiled when they are loaded.
 */
import type { ASTNode, Environment } from "@marcbachmann/cel-js";
import { RE2JS } from "re2js";

/** `undefined`: the text is too long for the pattern to tell. */
export type Test = (text: string) => boolean | undefined;

type Parsed = ReturnType<Environment["parse"]>;

/** Patterns that calls bring along are small, and so is what they are tried on. */
const MAX_GIVEN = { pattern: 200, program: 1_000, text: 10_000 } as const;
/** A text times the size of a pattern of the settings: linear time, too, holds everybody up when a text has megabytes. */
const MAX_STEPS = 5_000_000;
const MAX_KEPT = 5_000;
const MAX_GIVEN_KEPT = 200;

/** In place of `matches`, whose signature the library does not let others have: for patterns of the settings and for others. */
const STANDING = "matchesStanding";
const GIVEN = "matchesGiven";

/** Gives an environment what `parseLinear` needs. */
export function withMatches(environment: Environment): Environment {
  return environment
    .registerFunction(`string.${STANDING}(string): bool`, (text: string, pattern: string) => {
      const found = standing(pattern)(text);
      if (found === undefined) throw new Error("the text is too long for the pattern");
      return found;
    })
    .registerFunction(`string.${GIVEN}(string): bool`, (text: string, pattern: string) => given(pattern, text));
}

/** Parses an expression whose `matches()` takes linear time. Throws an `Error` for a pattern that is none. */
export function parseLinear(environment: Environment, expression: string): Parsed {
  const parsed = environment.parse(expression);
  const found = uses(parsed.ast);
  if (found.length === 0) return parsed;
  // What is wrong is said in the words of whoever wrote it.
  const { valid, error } = environment.check(expression);
  if (!valid) throw error ?? new Error("the expression does not type-check");
  for (const { args } of found) {
    const pattern = literalOf(args[2][0]);
    if (pattern !== undefined) standing(pattern);
    args[0] = pattern === undefined ? GIVEN : STANDING;
  }
  return parsed;
}

const kept = new Map<string, Test>();

/** Compiles a pattern of the settings. Throws an `Error` when it is none. */
export function standing(pattern: string): Test {
  const known = kept.get(pattern);
  if (known !== undefined) return known;
  return keep(pattern, isFixed(pattern) ? natively(pattern) : tester(compiled(pattern)));
}

const givenBefore = new Map<string, RE2JS>();

function given(pattern: string, text: string): boolean {
  if (pattern.length > MAX_GIVEN.pattern || text.length > MAX_GIVEN.text)
    throw new Error(
      `a pattern that is not written in the settings has at most ${MAX_GIVEN.pattern} characters, and its text ${MAX_GIVEN.text}`,
    );
  let expression = givenBefore.get(pattern);
  if (expression === undefined) {
    expression = compiled(pattern);
    if (expression.programSize() > MAX_GIVEN.program) throw new Error("the pattern is too large");
    if (givenBefore.size >= MAX_GIVEN_KEPT) givenBefore.clear();
    givenBefore.set(pattern, expression);
  }
  return expression.matcher(text).find();
}

function keep(pattern: string, test: Test): Test {
  if (kept.size >= MAX_KEPT) kept.clear();
  kept.set(pattern, test);
  return test;
}

function compiled(pattern: string): RE2JS {
  try {
    return RE2JS.compile(RE2JS.translateRegExp(pattern));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message.replace(/^error parsing regexp: /, "") : String(cause);
    throw new Error(
      `${JSON.stringify(pattern)} is not a pattern of RE2, which has no lookaround and no backreferences: ${why}`,
      {
        cause,
      },
    );
  }
}

function tester(expression: RE2JS): Test {
  const longest = MAX_STEPS / expression.programSize();
  return (text) => (text.length > longest ? undefined : expression.matcher(text).find());
}

function natively(pattern: string): Test {
  const expression = new RegExp(pattern);
  return (text) => expression.test(text);
}

/**
 * Letters and classes of ASCII, a fixed number of times each; after `^` the last may come any number of times. There is nothing to go
 * back to, V8 and RE2 mean the same by it, and V8 is twenty times as fast.
 */
const ATOM = String.raw`(?:[A-Za-z0-9 _:;,@#%&=<>"'~/-]|\\[dw.\-/]|\[(?:[A-Za-z0-9_ .]|[A-Za-z]-[A-Za-z]|[0-9]-[0-9])+-?\])`;
const FIXED = new RegExp(String.raw`^\^?(?:${ATOM}(?:\{[1-9]\d?\})?)+\$?$`);
const LAST_REPEATED = new RegExp(
  String.raw`^\^(?:${ATOM}(?:\{[1-9]\d?\})?)*${ATOM}(?:[+*?]|\{\d\d?,(?:[1-9]\d?)?\})\$?$`,
);

export function isFixed(pattern: string): boolean {
  if (!FIXED.test(pattern) && !LAST_REPEATED.test(pattern)) return false;
  try {
    // What RE2 does not take, such as a range that goes backwards, is a mistake for V8, too.
    return new RegExp(pattern) !== undefined && compiled(pattern) !== undefined;
  } catch {
    return false;
  }
}

interface Use {
  readonly args: [name: string, receiver: ASTNode, args: readonly ASTNode[]];
}

function uses(node: ASTNode): readonly Use[] {
  const found: Use[] = [];
  const visit = (value: unknown) => {
    if (Array.isArray(value)) for (const one of value) visit(one);
    else if (typeof value === "object" && value !== null && "op" in value && "args" in value) {
      const { op, args } = value;
      if (op === "rcall" && Array.isArray(args) && args[0] === "matches" && args[2]?.length === 1)
        found.push(value as Use);
      visit(args);
    }
  };
  visit(node);
  return found;
}

export function literalOf(node: ASTNode | undefined): string | undefined {
  return node?.op === "value" && typeof node.args === "string" ? node.args : undefined;
}
