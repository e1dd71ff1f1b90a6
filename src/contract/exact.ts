/** JSON values whose numbers keep the digits that they were written with: those that a number of ours cannot hold stay text. */
import type { JsonValue } from "../core/call.ts";

/** What may be a number that loses something: sixteen digits or more, a long fraction, an exponent. */
const DOUBTFUL = /[[:,\s]-?(\d{16}|\d+\.\d{15}|\d[\d.]*[eE])/;

interface RawJson {
  rawJSON(text: string): JsonValue;
  isRawJSON(value: unknown): boolean;
}
const { rawJSON, isRawJSON } = JSON as unknown as RawJson;

/** Whether numbers in this text may be more than the values that `JSON.parse` makes of them. */
export const isDoubtful = (text: string) => DOUBTFUL.test(text) || /^-?\d/.test(text.trimStart());

/**
 * `JSON.parse`, but a number that would not be written again as it was becomes a raw one, which `JSON.stringify` writes as it was.
 * A reviver would do the same in three times the time.
 */
export function parseExactly(text: string): JsonValue {
  if (!isDoubtful(text)) return JSON.parse(text) as JsonValue;
  const marked = withMarks(text);
  if (marked === text) return JSON.parse(text) as JsonValue;
  // Who writes the mark as a text of their own is not to get a number for it.
  return text.includes(MARK) ? revived(text) : withRaw(JSON.parse(marked) as JsonValue, text);
}

/** As it stands in JSON, and as it is read. */
const MARK = "\\u0000";
const MARKED = "\0";
const [QUOTE, BACKSLASH, PLUS, MINUS, DOT, ZERO, NINE, UPPER_E, LOWER_E] = [34, 92, 43, 45, 46, 48, 57, 69, 101];

/** The text with each number that loses digits as a text with a mark. */
function withMarks(text: string): string {
  let result = "";
  let done = 0;
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === QUOTE) {
      for (at++; at < text.length && text.charCodeAt(at) !== QUOTE; at++) if (text.charCodeAt(at) === BACKSLASH) at++;
    } else if (char === MINUS || (char >= ZERO && char <= NINE)) {
      const from = at;
      let plain = char !== MINUS;
      for (at++; at < text.length; at++) {
        const next = text.charCodeAt(at);
        if (next >= ZERO && next <= NINE) continue;
        if (next !== DOT && next !== UPPER_E && next !== LOWER_E && next !== PLUS && next !== MINUS) break;
        plain = false;
      }
      const source = plain && at - from < SAFE_DIGITS ? undefined : text.slice(from, at);
      if (source !== undefined && losesDigits(source, Number(source))) {
        result += `${text.slice(done, from)}"${MARK}${source}"`;
        done = at;
      }
      at--;
    }
  }
  return done === 0 ? text : result + text.slice(done);
}

/** With raw numbers for the texts that are marked; in place. Throws what `JSON.parse` throws of the text that it was. */
function withRaw(value: JsonValue, text: string): JsonValue {
  if (typeof value === "string") return value.startsWith(MARKED) ? rawJSON(value.slice(1)) : value;
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    const list = value as JsonValue[];
    for (let at = 0; at < list.length; at++) {
      const one = list[at] as JsonValue;
      if (typeof one === "string" || typeof one === "object") list[at] = withRaw(one, text);
    }
    return value;
  }
  const object = value as Record<string, JsonValue>;
  for (const name in object) {
    // A number in place of a name.
    if (name.startsWith(MARKED)) return JSON.parse(text) as JsonValue;
    const one = object[name] as JsonValue;
    if (typeof one === "string" || typeof one === "object") object[name] = withRaw(one, text);
  }
  return value;
}

function revived(text: string): JsonValue {
  const keep = (_key: string, value: JsonValue, { source }: { readonly source?: string }) =>
    typeof value === "number" && source !== undefined && losesDigits(source, value) ? rawJSON(source) : value;
  return JSON.parse(text, keep as (key: string, value: JsonValue) => JsonValue) as JsonValue;
}

/** A number as its text. */
export const rawNumber = (text: string): JsonValue => rawJSON(text);

/** Most numbers tell by their length. */
function losesDigits(source: string, value: number): boolean {
  return source.length > MOST_DIGITS || String(value) !== source;
}
/** A sign and the digits that any number keeps are fewer. */
const MOST_DIGITS = 18;
/** Whole numbers of fewer are always written as they were. */
const SAFE_DIGITS = 16;

export const isRaw = (value: unknown): boolean => isRawJSON(value);

/** The same with every number as a value, for those that calculate. */
export function withoutRaw(value: JsonValue): JsonValue {
  return hasRaw(value) ? (JSON.parse(JSON.stringify(value)) as JsonValue) : value;
}

function hasRaw(value: JsonValue): boolean {
  if (typeof value !== "object" || value === null) return false;
  return isRawJSON(value) || Object.values(value).some((one) => hasRaw(one as JsonValue));
}
