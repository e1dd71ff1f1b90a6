/** Finds the patterns that match a target without asking each: exact names in maps, prefixes by length, the rest one by one. */
import type { Target } from "../core/call.ts";
import { compilePattern, type Matcher, readPattern } from "./globs.ts";
import { compileUriGlob, isPlain } from "./spellings.ts";

export interface PatternIndex<Entry> {
  /** Every entry whose pattern matches, in the order of adding. */
  matching(target: Target): readonly Entry[];
}

interface Placed<Entry> {
  readonly at: number;
  readonly entry: Entry;
  readonly matches: Matcher;
}

export function indexPatterns<Entry>(
  entries: readonly { readonly pattern: string; readonly to: "may" | "deny"; readonly entry: Entry }[],
): PatternIndex<Entry> {
  const all: Placed<Entry>[] = [];
  const exact = new Map<string, Placed<Entry>[]>();
  const prefixes = new Map<string, Placed<Entry>[]>();
  const lengths = new Set<number>();
  const rest: Placed<Entry>[] = [];
  for (const [at, { pattern, to, entry }] of entries.entries()) {
    const placed = { at, entry, matches: compilePattern(pattern, to) };
    all.push(placed);
    const read = readPattern(pattern);
    // A URI that is written in another way than it is meant is compared by its matcher.
    const odd = read.about === "names" && read.kind === "resource" && !compileUriGlob(read.glob).plain;
    if (read.about !== "names" || odd) rest.push(placed);
    else if (!read.glob.includes("*")) add(exact, `${read.kind}\n${read.glob}`, placed);
    else if (read.glob.indexOf("*") === read.glob.length - 1) {
      const prefix = read.glob.slice(0, -1);
      lengths.add(prefix.length);
      add(prefixes, `${read.kind}\n${prefix}`, placed);
    } else rest.push(placed);
  }
  return {
    matching(target) {
      const { kind, name } = target;
      // A template and a URI with other spellings meet patterns in ways that no index of names knows.
      const indexed = target.template !== true && (kind !== "resource" || isPlain(name));
      const found = indexed ? [] : all.filter(({ matches }) => matches(target));
      if (indexed) {
        found.push(...(exact.get(`${kind}\n${name}`) ?? []));
        for (const length of lengths)
          if (length <= name.length) found.push(...(prefixes.get(`${kind}\n${name.slice(0, length)}`) ?? []));
        for (const placed of rest) if (placed.matches(target)) found.push(placed);
        found.sort((one, other) => one.at - other.at);
      }
      return found.map(({ entry }) => entry);
    },
  };
}

function add<Value>(map: Map<string, Value[]>, key: string, value: Value): void {
  const there = map.get(key);
  if (there === undefined) map.set(key, [value]);
  else there.push(value);
}
