/**
 * Names that could be taken for another definition's. The first who has a name keeps it, and the later one is held: by the order
 * of the settings between servers, and within one server by who was there before.
 */
import { letters, skeleton } from "../core/confusables.ts";

export interface Named {
  readonly server: string;
  /** What the server calls it. */
  readonly name: string;
  /** What clients call it. */
  readonly served: string;
  /** A person has seen it beside the others: it is never held, and comes before those that nobody has. */
  readonly reviewed?: boolean;
}

/**
 * For each name that looks like an earlier one of the list, the reason for holding it, by its place in the list. Equal names of two
 * servers do not count: their servers' names tell them apart, and the operator chose those.
 */
export function lookAlikes(names: readonly Named[]): ReadonlyMap<number, string> {
  const found = new Map<number, string>();
  const bySkeleton = new Map<string, Named[]>();
  const byServed = new Map<string, Named>();
  const near = new Map<string, Named[]>();
  // One letter matters between servers alone.
  const apart = names.length <= MAX_NEAR && new Set(names.map(({ server }) => server)).size > 1;
  const inTurn = [...names.entries()].sort(([, a], [, b]) => Number(b.reviewed ?? false) - Number(a.reviewed ?? false));
  for (const [at, one] of inTurn) {
    const look = skeleton(one.name);
    const alike =
      bySkeleton.get(look)?.find((other) => confusable(one, other)) ??
      differing(byServed.get(skeleton(one.served)), one) ??
      nearby(near, look, LONG_APART).find(
        (other) => other.server !== one.server && mistakable(one.name, other.name, LONG_APART),
      );
    if (alike !== undefined && one.reviewed !== true) {
      found.set(at, `its name looks like ${JSON.stringify(alike.served)}, which was there first`);
      continue;
    }
    put(bySkeleton, look, one);
    if (!byServed.has(skeleton(one.served))) byServed.set(skeleton(one.served), one);
    if (apart && look.length >= LONG_APART) for (const key of shortened(look)) put(near, key, one);
  }
  return found;
}

/**
 * Tells which of the names that a server had before a new one of its could be taken for: nearly spelt the same, its plural, or the
 * same with a word such as `v2` or `safe` before or behind. For names that come later alone: what a server offered from the
 * beginning, say `get_order` and `get_orders`, is its own way of naming.
 */
export function resemblance(before: readonly string[]): (name: string) => string | undefined {
  const bySkeleton = new Map<string, string>();
  const byBare = new Map<string, string>();
  const near = new Map<string, string[]>();
  for (const name of before) {
    const [look, bare] = [skeleton(name), withoutAffixes(name)];
    if (!bySkeleton.has(look)) bySkeleton.set(look, name);
    if (bare !== "" && !byBare.has(bare)) byBare.set(bare, name);
    if (before.length <= MAX_NEAR && look.length >= LONG) for (const key of shortened(look)) put(near, key, name);
  }
  return (name) => {
    const look = skeleton(name);
    const spelt = [look, `${look}s`, `${look}es`, look.replace(/s$/, ""), look.replace(/es$/, "")];
    const found = [...spelt.map((one) => bySkeleton.get(one)), byBare.get(withoutAffixes(name))];
    const other = found.find((one) => one !== undefined && one !== name);
    return other ?? nearby(near, look, LONG).find((one) => mistakable(name, one, LONG));
  };
}

/** From how many letters on a single one is overlooked. */
const LONG = 8;
/** The same between servers, where names that resemble each other by chance are more. */
const LONG_APART = 12;

/** On two servers, other case and separators are but two ways of naming; letters that only look alike never are. */
function confusable(one: Named, other: Named): boolean {
  if (one.name === other.name) return false;
  return one.server === other.server || letters(one.name) !== letters(other.name);
}

function differing(other: Named | undefined, one: Named): Named | undefined {
  return other !== undefined && other.name !== one.name ? other : undefined;
}

/** One letter apart, and not just by a number or by the s of a plural. */
function mistakable(some: string, other: string, long: number): boolean {
  const [a, b] = [letters(some), letters(other)];
  if (Math.min(a.length, b.length) < long || a === b) return false;
  if (a.replaceAll(/\p{N}/gu, "") === b.replaceAll(/\p{N}/gu, "") || plural(a, b)) return false;
  return oneApart(a, b);
}

/** One letter more, less, other, or two neighbours swapped. */
function oneApart(a: string, b: string): boolean {
  if (Math.abs(a.length - b.length) > 1) return false;
  let start = 0;
  while (start < a.length && a[start] === b[start]) start++;
  const [restA, restB] = [a.slice(start), b.slice(start)];
  if (restA.slice(1) === restB.slice(1) || restA.slice(1) === restB || restA === restB.slice(1)) return true;
  return restA[0] === restB[1] && restA[1] === restB[0] && restA.slice(2) === restB.slice(2);
}

/** Whether one is the other with an s or es behind it. */
const plural = (a: string, b: string) =>
  [a, b].some((one) => [`${one}s`, `${one}es`].some((many) => many === a || many === b));

const AFFIXES = new Set(
  "v new old latest safe secure official real true trusted verified preferred fixed better improved fast pro plus beta alt copy tmp test final internal enhanced original legacy ng next my the".split(
    " ",
  ),
);

/** The words of a name without those that only say which one it is; empty when nothing is left. */
function withoutAffixes(name: string): string {
  const words = name
    .normalize("NFKD")
    .replaceAll(/(?<=\p{Ll})(?=\p{Lu})/gu, "_")
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .map((word) => word.replace(/\d+$/, ""));
  const kept = words.filter((word) => word !== "" && !AFFIXES.has(word));
  return kept.join("_");
}

/** The text, and it with each one letter left out: two texts that are one letter apart have one of these in common. */
function shortened(text: string): Set<string> {
  return new Set([text, ...Array.from(text, (_, at) => text.slice(0, at) + text.slice(at + 1))]);
}

function nearby<T>(near: ReadonlyMap<string, readonly T[]>, look: string, long: number): readonly T[] {
  return look.length < long ? [] : [...shortened(look)].flatMap((key) => near.get(key) ?? []);
}

function put<T>(map: Map<string, T[]>, key: string, one: T): void {
  const there = map.get(key);
  if (there === undefined) map.set(key, [one]);
  // So many alike are enough to find one.
  else if (there.length < MAX_ALIKE) there.push(one);
}

const MAX_ALIKE = 50;
/** Of more names only those that look the same are found: whoever offers so many must not keep the process busy for seconds. */
const MAX_NEAR = 2000;
