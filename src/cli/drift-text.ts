/** A change of a definition as a person reads it: which part, what kind of change, old and new words, nothing invisible, 80 columns. */
import type { Drift, PartDrift } from "../contract/drift.ts";
import type { JsonObject, JsonValue } from "../core/call.ts";
import type { Painter } from "./terminal.ts";

const WIDTH = 76;
/** Words that stay are shown around what changed, so many of them. */
const CONTEXT_WORDS = 6;
const MAX_LINES = 40;

/** The lines below the headline of one definition. */
export function driftLines({ parts, alarms, classes }: Drift, paint: Painter): string[] {
  const only = classes.includes("new") ? "+" : classes.includes("gone") ? "-" : undefined;
  const told = only === undefined ? parts : parts.filter(({ part }) => SHOWN.has(part));
  return [
    ...(alarms.length === 0 ? [] : wrapped(`it brings ${seen(alarms.join(", "))}`, WIDTH - 2)).map((line, at) =>
      paint(["red", "bold"], `  ${at === 0 ? "!" : " "} ${line}`),
    ),
    ...told.flatMap((part) => partLines(part, only === undefined, paint)),
  ];
}

/** Of a definition that is new or gone as a whole. */
const SHOWN = new Set(["title", "description", "instructions", "inputSchema", "arguments", "annotations"]);

function partLines({ part, classes, before, after, notes }: PartDrift, changed: boolean, paint: Painter): string[] {
  const headline = [changed ? classes.join(", ") : "", notes.slice(0, 3).join("; ")].filter((one) => one !== "");
  const lines = wrapped(`${part}${headline.length === 0 ? "" : `  ${headline.join(": ")}`}`, WIDTH - 2).map(
    (line, at) => `  ${at === 0 ? "" : "  "}${line}`,
  );
  const pieces = differences(before, after, "").flatMap(({ path, was, is }) => [
    ...(path === "" ? [] : [`    ${paint("dim", path)}`]),
    ...sided(was, is, paint),
  ]);
  const rest = pieces.length - MAX_LINES;
  return [...lines, ...pieces.slice(0, MAX_LINES), ...(rest > 0 ? [paint("dim", `    … ${rest} more lines`)] : [])];
}

interface Difference {
  readonly path: string;
  readonly was: JsonValue | undefined;
  readonly is: JsonValue | undefined;
}

/** As deep as both sides are objects. */
function differences(was: JsonValue | undefined, is: JsonValue | undefined, path: string): Difference[] {
  if (JSON.stringify(was) === JSON.stringify(is)) return [];
  if (!isObject(was) || !isObject(is)) return [{ path, was, is }];
  const own = (object: JsonObject, key: string) => (Object.hasOwn(object, key) ? object[key] : undefined);
  return [...new Set([...Object.keys(was), ...Object.keys(is)])].flatMap((key) =>
    differences(own(was, key), own(is, key), `${path}/${seen(key)}`),
  );
}

function sided(was: JsonValue | undefined, is: JsonValue | undefined, paint: Painter): string[] {
  const [before, after] =
    typeof was === "string" && typeof is === "string" ? trimmed(was, is) : [shown(was), shown(is)];
  const side = (sign: string, text: string | undefined, style: "red" | "green") =>
    text === undefined ? [] : wrapped(text, WIDTH - 6).map((line) => paint(style, `    ${sign} ${line}`));
  return [...side("-", before, "red"), ...side("+", after, "green")];
}

function shown(value: JsonValue | undefined): string | undefined {
  if (value === undefined) return undefined;
  return seen(typeof value === "string" ? value : JSON.stringify(value));
}

const isObject = (value: JsonValue | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** Both texts from a few words before their first difference to a few words after their last. */
function trimmed(was: string, is: string): [string, string] {
  const [a, b] = [was, is].map((text) => text.split(/(?<=\s)(?=\S)/)) as [string[], string[]];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const from = Math.max(0, start - CONTEXT_WORDS);
  const behind = Math.max(0, end - CONTEXT_WORDS);
  const cut = (words: string[]) =>
    `${from > 0 ? "… " : ""}${seen(words.slice(from, words.length - behind).join(""))}${behind > 0 ? "…" : ""}`;
  return [cut(a), cut(b)];
}

/** Safe for a terminal, and nothing in it that cannot be seen: an invisible character is shown by its number. */
export function seen(text: string): string {
  return text
    .replaceAll("\n", "⏎")
    .replaceAll(
      /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Zl}\p{Zp}\u00A0\u115F\u1160\u3164\uFFA0]|[\uFE00-\uFE0F]|[\u{E0100}-\u{E01EF}]/gu,
      (found) => `<U+${(found.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}>`,
    );
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/(?<=\s)(?=\S)/)) {
    if (line !== "" && line.length + word.trimEnd().length > width) {
      lines.push(line.trimEnd());
      line = "";
    }
    line += word;
    while (line.length > width) {
      lines.push(line.slice(0, width));
      line = line.slice(width);
    }
  }
  return [...lines, line.trimEnd()];
}
