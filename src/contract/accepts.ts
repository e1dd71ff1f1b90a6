/** Whether a JSON Schema accepts one value, told only where it is certain; and what schemas have in common with each other. */
import formats from "ajv-formats/dist/formats.js";
import canonicalize from "canonicalize";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { languageOf } from "./regular.ts";

export type Schema = JsonObject | boolean;
/** A schema and the document that its references are about. */
export interface At {
  readonly schema: Schema;
  readonly root: JsonValue;
}

export const isSchemaObject = (schema: unknown): schema is JsonObject =>
  typeof schema === "object" && schema !== null && !Array.isArray(schema);

const texts = new WeakMap<object, string>();

/** RFC 8785; what has no such form (half a surrogate pair, an infinite number) has one of the same kind. */
export function canonical(value: JsonValue | undefined): string {
  const known = typeof value === "object" && value !== null ? texts.get(value) : undefined;
  if (known !== undefined) return known;
  let text: string;
  try {
    text = canonicalize(value) ?? "undefined";
  } catch {
    text = sorted(value);
  }
  if (typeof value === "object" && value !== null) texts.set(value, text);
  return text;
}

function sorted(value: JsonValue | undefined): string {
  if (Array.isArray(value)) return `[${value.map((one) => sorted(one as JsonValue)).join()}]`;
  if (!isSchemaObject(value)) return typeof value === "number" ? String(value) : (JSON.stringify(value) ?? "undefined");
  const members = Object.keys(value).sort();
  return `{${members.map((name) => `${JSON.stringify(name)}:${sorted(value[name] as JsonValue)}`).join()}}`;
}

/** What a reference within the document (a JSON pointer or an `$anchor`) is about; undefined when it is about nothing there. */
export function resolveRef(reference: string, root: JsonValue): Schema | undefined {
  if (!reference.startsWith("#") || hasParts(root)) return undefined;
  let pointer: string;
  try {
    pointer = decodeURIComponent(reference.slice(1));
  } catch {
    return undefined;
  }
  let found: JsonValue | undefined = root;
  if (pointer !== "" && !pointer.startsWith("/")) {
    const { $defs = {}, definitions = {} } = (isSchemaObject(root) ? root : {}) as Record<string, JsonValue>;
    const candidates = [...Object.values($defs ?? {}), ...Object.values(definitions ?? {})] as JsonValue[];
    found = candidates.find((one) => isSchemaObject(one) && one["$anchor"] === pointer);
  } else {
    for (const part of pointer.split("/").slice(1)) {
      const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
      if (typeof found !== "object" || found === null || !Object.hasOwn(found, key)) return undefined;
      found = (found as Record<string, JsonValue>)[key];
    }
  }
  return typeof found === "boolean" || isSchemaObject(found) ? found : undefined;
}

const parted = new WeakMap<object, boolean>();

/** A schema with an `$id` within is a document of its own, to which references may be relative. */
function hasParts(root: JsonValue): boolean {
  if (typeof root !== "object" || root === null) return false;
  let found = parted.get(root);
  if (found === undefined) {
    const { $id: _own, ...rest } = root as JsonObject;
    found = JSON.stringify(rest).includes('"$id":');
    parted.set(root, found);
  }
  return found;
}

const MAX_DEPTH = 64;

/** How often a schema may still be asked about a value. One serves a whole comparison. */
export interface Patience {
  left: number;
}

/** A fraction of a second. */
export const patience = (): Patience => ({ left: 100_000 });

/** Undefined where it cannot be told, or the patience is at its end: each schema is asked about each value once. */
export function accepts(value: JsonValue, { schema, root }: At, patient = patience()): boolean | undefined {
  const known = new Map<JsonObject, Map<JsonValue, boolean | undefined>>();
  const resolve = (reference: string) => resolveRef(reference, root);

  function ask(value: JsonValue, schema: JsonValue, depth: number): boolean | undefined {
    if (typeof schema === "boolean") return schema;
    if (!isSchemaObject(schema) || depth > MAX_DEPTH || patient.left <= 0) return undefined;
    patient.left--;
    const verdicts = known.get(schema) ?? new Map<JsonValue, boolean | undefined>();
    known.set(schema, verdicts);
    if (verdicts.has(value)) return verdicts.get(value);
    // A schema that asks itself about the same value says nothing of it.
    verdicts.set(value, undefined);
    let verdict: boolean | undefined = true;
    for (const [keyword, wanted] of Object.entries(schema)) {
      // A keyword may be called `constructor`.
      const check = Object.hasOwn(KEYWORDS, keyword) ? KEYWORDS[keyword] : undefined;
      const inner = (one: JsonValue, of: JsonValue) => ask(one, of, depth + 1);
      const met = check?.({ value, wanted: wanted as JsonValue, schema, inner, resolve });
      if (met === "no") {
        verdict = false;
        break;
      }
      if (met === "unknown") verdict = undefined;
    }
    verdicts.set(value, verdict);
    return verdict;
  }
  return ask(value, schema, 0);
}

type Met = "yes" | "no" | "unknown";
interface Question {
  readonly value: JsonValue;
  readonly wanted: JsonValue;
  readonly schema: JsonObject;
  inner(value: JsonValue, schema: JsonValue): boolean | undefined;
  resolve(reference: string): Schema | undefined;
}

const of = (holds: boolean | undefined): Met => (holds === undefined ? "unknown" : holds ? "yes" : "no");
const not = (holds: boolean | undefined) => (holds === undefined ? undefined : !holds);
const every = (all: readonly (boolean | undefined)[]) =>
  all.includes(false) ? false : all.includes(undefined) ? undefined : true;
const some = (all: readonly (boolean | undefined)[]) =>
  all.includes(true) ? true : all.includes(undefined) ? undefined : false;
const list = (value: JsonValue | undefined): readonly JsonValue[] => (Array.isArray(value) ? value : []);
const members = (value: JsonValue | undefined): JsonObject => (isSchemaObject(value) ? value : {});
const characters = (text: string) => Array.from(text, (one) => one.codePointAt(0) ?? 0);
const matches = (text: string, pattern: string) => languageOf(pattern)?.strings.test(characters(text));

const number =
  (test: (value: number, wanted: number) => boolean) =>
  ({ value, wanted }: Question): Met =>
    typeof value !== "number" ? "yes" : typeof wanted !== "number" ? "unknown" : of(test(value, wanted));
const size =
  (of_: (value: JsonValue) => number | undefined, test: (value: number, wanted: number) => boolean) =>
  ({ value, wanted }: Question): Met => {
    const found = of_(value);
    return found === undefined ? "yes" : typeof wanted !== "number" ? "unknown" : of(test(found, wanted));
  };
const length = (value: JsonValue) => (typeof value === "string" ? characters(value).length : undefined);
const elements = (value: JsonValue) => (Array.isArray(value) ? value.length : undefined);
const count = (value: JsonValue) => (isSchemaObject(value) ? Object.keys(value).length : undefined);

function typeOf(value: JsonValue, type: JsonValue): boolean {
  if (type === "integer") return typeof value === "number" && Number.isInteger(value);
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return isSchemaObject(value);
  return typeof value === type;
}

/** Each element under the schema of its position. */
function items({ value, schema, inner }: Question): Met {
  if (!Array.isArray(value)) return "yes";
  const prefix = list(Array.isArray(schema["items"]) ? schema["items"] : schema["prefixItems"]);
  const rest = (Array.isArray(schema["items"]) ? schema["additionalItems"] : schema["items"]) ?? true;
  return of(every(value.map((one, at) => inner(one, prefix[at] ?? rest))));
}

function properties({ value, schema, inner }: Question): Met {
  if (!isSchemaObject(value)) return "yes";
  const own = members(schema["properties"]);
  const patterns = Object.entries(members(schema["patternProperties"]));
  const verdicts = Object.entries(value).flatMap(([name, one]): (boolean | undefined)[] => {
    const found = Object.hasOwn(own, name) ? [inner(one as JsonValue, own[name] as JsonValue)] : [];
    let unread = false;
    for (const [pattern, of_] of patterns) {
      const matched = matches(name, pattern);
      if (matched === true) found.push(inner(one as JsonValue, of_ as JsonValue));
      if (matched === undefined) unread = true;
    }
    if (unread) return [...found, undefined];
    return found.length > 0 ? found : [inner(one as JsonValue, schema["additionalProperties"] ?? true)];
  });
  return of(every(verdicts));
}

const KEYWORDS: Readonly<Record<string, (question: Question) => Met>> = {
  $ref: ({ value, wanted, inner, resolve }) => {
    const target = resolve(String(wanted));
    return target === undefined ? "unknown" : of(inner(value, target as JsonValue));
  },
  $dynamicRef: () => "unknown",
  unevaluatedProperties: ({ value, wanted }) => (wanted === true || !isSchemaObject(value) ? "yes" : "unknown"),
  unevaluatedItems: ({ value, wanted }) => (wanted === true || !Array.isArray(value) ? "yes" : "unknown"),
  type: ({ value, wanted }) =>
    of((Array.isArray(wanted) ? wanted : [wanted]).some((type) => typeOf(value, type as JsonValue))),
  enum: ({ value, wanted }) => of(list(wanted).some((one) => canonical(one) === canonical(value))),
  const: ({ value, wanted }) => of(canonical(wanted) === canonical(value)),
  allOf: ({ value, wanted, inner }) => of(every(list(wanted).map((one) => inner(value, one)))),
  anyOf: ({ value, wanted, inner }) => of(some(list(wanted).map((one) => inner(value, one)))),
  oneOf: ({ value, wanted, inner }) => {
    const verdicts = list(wanted).map((one) => inner(value, one));
    if (verdicts.filter((one) => one === true).length > 1) return "no";
    return verdicts.includes(undefined) ? "unknown" : of(verdicts.includes(true));
  },
  not: ({ value, wanted, inner }) => of(not(inner(value, wanted))),
  if: ({ value, wanted, inner, schema }) => {
    const when = inner(value, wanted);
    const [yes, no] = [inner(value, schema["then"] ?? true), inner(value, schema["else"] ?? true)];
    if (when === undefined) return yes === no ? of(yes) : "unknown";
    return of(when ? yes : no);
  },
  minimum: (question) =>
    number((value, wanted) => (question.schema["exclusiveMinimum"] === true ? value > wanted : value >= wanted))(
      question,
    ),
  maximum: (question) =>
    number((value, wanted) => (question.schema["exclusiveMaximum"] === true ? value < wanted : value <= wanted))(
      question,
    ),
  exclusiveMinimum: (question) =>
    typeof question.wanted === "boolean" ? "yes" : number((value, wanted) => value > wanted)(question),
  exclusiveMaximum: (question) =>
    typeof question.wanted === "boolean" ? "yes" : number((value, wanted) => value < wanted)(question),
  multipleOf: ({ value, wanted }) => {
    if (typeof value !== "number") return "yes";
    if (typeof wanted !== "number" || wanted <= 0) return "unknown";
    if (Number.isInteger(value) && Number.isInteger(wanted)) return of(value % wanted === 0);
    const quotient = value / wanted;
    // Validators differ where binary fractions are in the way.
    return Number.isInteger(quotient) ? "yes" : Math.abs(quotient - Math.round(quotient)) < 1e-6 ? "unknown" : "no";
  },
  minLength: size(length, (found, wanted) => found >= wanted),
  maxLength: size(length, (found, wanted) => found <= wanted),
  pattern: ({ value, wanted }) => (typeof value !== "string" ? "yes" : of(matches(value, String(wanted)))),
  format: ({ value, wanted }) => {
    if (typeof value !== "string") return typeof value === "number" ? "unknown" : "yes";
    const { fullFormats } = formats as { readonly fullFormats: Readonly<Record<string, unknown>> };
    const known = Object.hasOwn(fullFormats, String(wanted)) ? fullFormats[String(wanted)] : undefined;
    const test = known instanceof RegExp ? known : ((known as { validate?: unknown } | undefined)?.validate ?? known);
    if (value.length > 1000) return "unknown";
    if (test instanceof RegExp) return of(test.test(value));
    return typeof test === "function" ? of((test as (text: string) => boolean)(value) === true) : "unknown";
  },
  minItems: size(elements, (found, wanted) => found >= wanted),
  maxItems: size(elements, (found, wanted) => found <= wanted),
  uniqueItems: ({ value, wanted }) =>
    wanted !== true || !Array.isArray(value)
      ? "yes"
      : of(new Set(value.map((one) => canonical(one as JsonValue))).size === value.length),
  items,
  prefixItems: items,
  contains: ({ value, wanted, schema, inner }) => {
    if (!Array.isArray(value)) return "yes";
    const { minContains = 1, maxContains = Number.POSITIVE_INFINITY } = schema as Record<string, number>;
    const verdicts = value.map((one) => inner(one as JsonValue, wanted));
    const [sure, unsure] = [
      verdicts.filter((one) => one === true).length,
      verdicts.filter((one) => one === undefined).length,
    ];
    if (sure >= minContains && sure + unsure <= maxContains) return "yes";
    return sure + unsure < minContains || sure > maxContains ? "no" : "unknown";
  },
  properties,
  patternProperties: properties,
  additionalProperties: properties,
  required: ({ value, wanted }) =>
    isSchemaObject(value) ? of(list(wanted).every((name) => Object.hasOwn(value, String(name)))) : "yes",
  propertyNames: ({ value, wanted, inner }) =>
    isSchemaObject(value) ? of(every(Object.keys(value).map((name) => inner(name, wanted)))) : "yes",
  minProperties: size(count, (found, wanted) => found >= wanted),
  maxProperties: size(count, (found, wanted) => found <= wanted),
  dependentRequired: ({ value, wanted }) =>
    isSchemaObject(value)
      ? of(
          Object.entries(members(wanted)).every(
            ([name, needs]) =>
              !Object.hasOwn(value, name) || list(needs as JsonValue).every((one) => Object.hasOwn(value, String(one))),
          ),
        )
      : "yes",
  dependentSchemas: ({ value, wanted, inner }) =>
    isSchemaObject(value)
      ? of(
          every(
            Object.entries(members(wanted)).map(([name, needs]) =>
              Object.hasOwn(value, name) ? inner(value, needs as JsonValue) : true,
            ),
          ),
        )
      : "yes",
  dependencies: ({ value, wanted, inner }) =>
    isSchemaObject(value)
      ? of(
          every(
            Object.entries(members(wanted)).map(([name, needs]) =>
              Object.hasOwn(value, name)
                ? inner(value, Array.isArray(needs) ? { required: needs } : (needs as JsonValue))
                : true,
            ),
          ),
        )
      : "yes",
};
