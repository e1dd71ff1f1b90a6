/**
 * Structured content that was masked and does not fit its schema any more: each place gets what fits there and says nothing, or is
 * left out where it may be. What is shown to a client is what its list promised, or nothing.
 */
import { compileArguments } from "../../contract/arguments.ts";
import { parseExactly } from "../../contract/exact.ts";
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { isObject } from "../../mcp/json-text.ts";

type Check = (value: JsonValue) => boolean;
type Path = readonly (string | number)[];

/** Looks at the whole document each time, so of large ones fewer things are tried. */
const MAX_CHECKED_CHARACTERS = 8_000_000;
const MIN_CHECKS = 24;
const MAX_CHECKS = 600;
const MAX_PLACES = 20_000;

const checks = new WeakMap<JsonObject, Promise<Check>>();

function checkOf(schema: JsonObject): Promise<Check> {
  let known = checks.get(schema);
  if (known === undefined) {
    known = compileArguments(schema).then(
      ({ check }) =>
        (value) =>
          check(value as JsonObject) === undefined,
    );
    checks.set(schema, known);
  }
  return known;
}

/**
 * The text of masked content as it fits `schema`; undefined when nothing fits. Content that did not fit before it was masked is not
 * held to it.
 */
export async function fitted(schema: JsonObject, original: string, masked: string): Promise<string | undefined> {
  const fits = await checkOf(schema);
  const shown = JSON.parse(masked) as JsonValue;
  if (fits(shown)) return masked;
  const before = JSON.parse(original) as JsonValue;
  if (!fits(before)) return masked;
  const places = differences(before, shown);
  if (places === undefined) return undefined;
  let left = Math.min(MAX_CHECKS, Math.max(MIN_CHECKS, Math.floor(MAX_CHECKED_CHARACTERS / original.length)));
  /** What fits at places that differ in nothing but an index. */
  const chosen = new Map<string, Choice>();
  const trial = structuredClone(before) as JsonValue;
  for (const path of places) {
    const name = path.map((step) => (typeof step === "number" ? "*" : step)).join("\n");
    if (chosen.has(name)) continue;
    const was = at(before, path);
    const found = candidates(was, at(shown, path)).find((candidate) => {
      // Without one of its elements a list says something else.
      if (left-- <= 0 || (candidate === LEFT_OUT && typeof path.at(-1) === "number")) return false;
      put(trial, path, candidate);
      const good = fits(trial);
      put(trial, path, was === undefined ? LEFT_OUT : { value: was });
      return good;
    });
    if (found === undefined) return undefined;
    chosen.set(name, found);
  }
  const result = parseExactly(masked);
  for (const path of places.toReversed()) {
    const choice = chosen.get(path.map((step) => (typeof step === "number" ? "*" : step)).join("\n"));
    if (choice !== undefined) put(result, path, choice);
  }
  const text = JSON.stringify(result);
  return fits(JSON.parse(text) as JsonValue) ? text : undefined;
}

/** A value, or the member left out. */
type Choice = { readonly value: JsonValue } | typeof LEFT_OUT;
const LEFT_OUT = Symbol("left out");

/** What says nothing of the value that was there, the best first. */
function candidates(was: JsonValue | undefined, shown: JsonValue | undefined): readonly Choice[] {
  const values: JsonValue[] = [];
  if (typeof was === "string") {
    values.push(...LOOK_ALIKES);
    // As long as it was, and of the same kinds of characters.
    const alike = was
      .replace(/[\p{L}\p{M}]/gu, (letter) => (/\p{Lu}/u.test(letter) ? "X" : "x"))
      .replace(/\p{N}/gu, "0");
    values.push(alike, "x".repeat(was.length), "");
  } else if (typeof was === "number") values.push(1, 100, 10_000, 1_000_000, -1);
  values.push(null);
  const said = shown === undefined ? LEFT_OUT : { value: shown };
  return [said, ...values.filter((value) => value !== was).map((value) => ({ value })), LEFT_OUT];
}

/** Of each format that schemas know, and of the types that detectors find; none of them reaches anybody. */
const LOOK_ALIKES = [
  "masked",
  "masked@masked.example",
  "+999000000000",
  "9999000000000007",
  "XX36000000000000000000",
  "240.0.0.0",
  "2001:db8::",
  "https://masked.example/",
  "masked.example",
  "1970-01-01",
  "1970-01-01T00:00:00Z",
  "00:00:00Z",
  "00000000-0000-4000-8000-000000000000",
] as const;

/** Where two documents differ; undefined when in too many places. A member that is gone is one, too. */
function differences(before: JsonValue, after: JsonValue): readonly Path[] | undefined {
  const found: Path[] = [];
  const visit = (one: JsonValue | undefined, other: JsonValue | undefined, path: Path): boolean => {
    if (Array.isArray(one) && Array.isArray(other) && one.length === other.length)
      return one.every((item, index) => visit(item as JsonValue, other[index] as JsonValue, [...path, index]));
    if (isObject(one) && isObject(other) && Object.keys(other).every((key) => Object.hasOwn(one, key)))
      return Object.keys(one).every((key) => visit(one[key], other[key], [...path, key]));
    if (one !== other) found.push(path);
    return found.length <= MAX_PLACES;
  };
  return visit(before, after, []) ? found : undefined;
}

function at(document: JsonValue | undefined, path: Path): JsonValue | undefined {
  let value = document;
  for (const step of path) {
    if (Array.isArray(value)) value = value[step as number] as JsonValue;
    else if (isObject(value) && Object.hasOwn(value, step)) value = value[step];
    else return undefined;
  }
  return value;
}

function put(document: JsonValue, path: Path, choice: Choice): void {
  const last = path.at(-1);
  const holder = at(document, path.slice(0, -1)) as Record<string | number, JsonValue> | JsonValue[] | undefined;
  if (last === undefined || typeof holder !== "object" || holder === null) return;
  if (choice !== LEFT_OUT) (holder as Record<string | number, JsonValue>)[last] = choice.value;
  else if (!Array.isArray(holder)) delete holder[last];
}
