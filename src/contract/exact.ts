/** JSON values whose numbers keep the digits that they were written with: those that a number of ours cannot hold stay text. */
import type { JsonValue } from "../core/call.ts";

/** What may be a number that loses something: sixteen digits or more, a long fraction, an exponent. */
const DOUBTFUL = /[[:,\s]-?(\d{16}|\d+\.\d{15}|\d[\d.]*[eE])/;

type Reviver = (key: string, value: JsonValue, context: { readonly source?: string }) => JsonValue;
interface RawJson {
  rawJSON(text: string): JsonValue;
  isRawJSON(value: unknown): boolean;
}
const { rawJSON, isRawJSON } = JSON as unknown as RawJson;

/** Whether numbers in this text may be more than the values that `JSON.parse` makes of them. */
export const isDoubtful = (text: string) => DOUBTFUL.test(text) || /^-?\d/.test(text.trimStart());

/** `JSON.parse`, but a number that would not be written again as it was becomes a raw one, which `JSON.stringify` writes as it was. */
export function parseExactly(text: string): JsonValue {
  if (!isDoubtful(text)) return JSON.parse(text) as JsonValue;
  const keep: Reviver = (_key, value, { source }) =>
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

export const isRaw = (value: unknown): boolean => isRawJSON(value);

/** The same with every number as a value, for those that calculate. */
export function withoutRaw(value: JsonValue): JsonValue {
  return hasRaw(value) ? (JSON.parse(JSON.stringify(value)) as JsonValue) : value;
}

function hasRaw(value: JsonValue): boolean {
  if (typeof value !== "object" || value === null) return false;
  return isRawJSON(value) || Object.values(value).some((one) => hasRaw(one as JsonValue));
}
