/** Operator's own patterns. RE2 semantics: no backreferences, no lookaround, time linear in the text. */
import { RE2JS } from "re2js";
import { DrawbridgeError } from "../core/errors.ts";
import type { Detector } from "./detector.ts";
import type { MaskSettings } from "./settings.ts";

/**
 * Finds a pattern everywhere in a text, in order. Throws `upstream_failed` for a text in which that would hold everybody up: to find one
 * match takes linear time, but `KUNDE-\d+( .*ENDE)?` looks to the end of the line behind each of many.
 */
export interface Pattern extends Detector {
  readonly findAll: (text: string, from: number, hit: (start: number, end: number) => void) => void;
}

/** What a search may take: linear time, generously, of the processor and not of the clock, so that a busy machine changes nothing. */
const ALLOWED_US = 40_000;
const ALLOWED_US_PER_CHARACTER = 3;
/** Microseconds that this thread has worked. */
const worked = () => {
  const { user, system } = process.threadCpuUsage();
  return user + system;
};

/** Compiles `patterns:`. Throws `settings_invalid` and names the pattern that RE2 does not accept. */
export function compilePatterns(patterns: MaskSettings["patterns"], cpu: () => number = worked): readonly Pattern[] {
  return Object.entries(patterns).map(([type, { pattern }]) => ({
    type,
    about: "person",
    hits: [],
    misses: [],
    findAll: isFixed(pattern) ? natively(pattern) : withRe2(type, pattern, cpu),
  }));
}

/**
 * Literals and classes, each once or a fixed number of times, and `\b`: there is one way to match at each place, so V8's own engine
 * cannot backtrack and is fifty times as fast.
 */
function isFixed(pattern: string): boolean {
  return /^(?:(?:[A-Za-z0-9 _:;,@#%&=<>"'~/-]|\\[dws.\-/]|\[(?:[A-Za-z0-9_ .]|[A-Za-z0-9]-[A-Za-z0-9])+\])(?:\{[1-9]\d?\})?|\\b)+$/.test(
    pattern,
  );
}

function natively(pattern: string): Pattern["findAll"] {
  const expression = new RegExp(pattern, "g");
  return (text, from, hit) => {
    expression.lastIndex = from;
    for (let match = expression.exec(text); match !== null; match = expression.exec(text)) {
      if (match[0].length === 0) expression.lastIndex++;
      else hit(match.index, match.index + match[0].length);
    }
  };
}

function withRe2(type: string, pattern: string, cpu: () => number): Pattern["findAll"] {
  const compiled = compile(type, pattern);
  return (text, from, hit) => {
    const matcher = compiled.matcher(text);
    let before: number | undefined;
    for (let found = matcher.find(from); found; found = matcher.find()) {
      if (matcher.end() > matcher.start()) hit(matcher.start(), matcher.end());
      if (before === undefined) before = cpu();
      else if (cpu() - before > ALLOWED_US + ALLOWED_US_PER_CHARACTER * (matcher.end() - from))
        throw new DrawbridgeError("upstream_failed", "The answer cannot be looked through for private data in time.", {
          detail: `mask.patterns.${type} looks far beyond each of its many matches; end it sooner, or write [^\\n]{0,100} for .*`,
        });
    }
  };
}

function compile(type: string, pattern: string): RE2JS {
  try {
    return RE2JS.compile(RE2JS.translateRegExp(pattern));
  } catch (cause) {
    throw new DrawbridgeError(
      "settings_invalid",
      `mask.patterns.${type}: the pattern is not valid in RE2 syntax (no lookaround, no backreferences). Correct it.`,
      { cause, detail: cause instanceof Error ? cause.message : String(cause) },
    );
  }
}
