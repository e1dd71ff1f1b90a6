/**
 * Schemas of zod, read at start: what of them types could not say, and the JSON Schema that clients see. The schema that is served is
 * closed and bounded, so a gateway takes it as a contract without a word of its own.
 */
import { z } from "zod";
import type { JsonObject, JsonValue } from "../core/call.ts";

/** A schema of zod as data. */
type Def = {
  readonly type: string;
  readonly checks?: readonly { readonly _zod: { readonly def: CheckDef } }[];
} & Readonly<Record<string, unknown>>;
interface CheckDef {
  readonly check: string;
  readonly maximum?: number;
  readonly length?: number;
  readonly pattern?: RegExp;
  readonly format?: string;
}
interface Schema {
  readonly _zod: { readonly def: Def };
}

const WRAPPERS: ReadonlySet<string> = new Set([
  "optional",
  "nullable",
  "default",
  "prefault",
  "nonoptional",
  "readonly",
]);
const PLAIN: ReadonlySet<string> = new Set(["number", "boolean", "enum", "literal", "null"]);
const SHORT_FORMATS: ReadonlySet<string> = new Set(["uuid", "guid", "date", "time", "datetime", "ipv4", "ipv6"]);

const defOf = (schema: unknown): Def => (schema as Schema)._zod.def;
const shapeOf = (def: Def): Readonly<Record<string, unknown>> => def["shape"] as Readonly<Record<string, unknown>>;

// ---- problems ----

/** Everything that is wrong with an input, one sentence each. */
export function inputProblems(input: z.ZodObject): readonly string[] {
  const def = defOf(input);
  if (def.type !== "object") return ["the input must be z.object({…})"];
  return [
    ...(isOpen(def) ? ["the input takes fields that nobody declared: write z.object({…})"] : []),
    ...Object.entries(shapeOf(def)).flatMap(([name, field]) => [
      ...fieldProblems(field).map((problem) => `input ${JSON.stringify(name)} ${problem}`),
      ...(descriptionOf(field) === undefined
        ? [`input ${JSON.stringify(name)} needs .describe("…"): what it means, with an example`]
        : []),
    ]),
  ];
}

function fieldProblems(schema: unknown): readonly string[] {
  const def = defOf(schema);
  if (WRAPPERS.has(def.type)) return fieldProblems(def["innerType"]);
  if (def.type !== "array") return recordProblems(schema);
  const bound = hasCheck(def, "max_length", "length_equals") ? [] : ["is a list without a bound: add .max(n)"];
  return [...bound, ...recordProblems(def["element"])];
}

function recordProblems(schema: unknown): readonly string[] {
  const def = defOf(schema);
  if (def.type === "record") {
    if (!["enum", "literal"].includes(defOf(def["keyType"]).type))
      return ["is a record with keys of any name: give it z.enum([…]) for its keys, or make it a list"];
    return scalarProblems(def["valueType"]);
  }
  if (def.type !== "object") return scalarProblems(schema);
  if (isOpen(def)) return [FREE_FORM];
  return Object.entries(shapeOf(def)).flatMap(([name, field]) =>
    scalarProblems(field).map((problem) => `${problem} (at ${JSON.stringify(name)})`),
  );
}

function scalarProblems(schema: unknown): readonly string[] {
  const def = defOf(schema);
  if (WRAPPERS.has(def.type)) return scalarProblems(def["innerType"]);
  if (def.type === "union") return (def["options"] as readonly unknown[]).flatMap(scalarProblems);
  if (def.type === "string") return stringProblems(def);
  if (PLAIN.has(def.type)) return [];
  return [NESTED.has(def.type) ? "is nested: make its inner fields inputs of their own" : FREE_FORM];
}

const FREE_FORM = "is free-form: give it a type of its own, or declare its fields as inputs";
const NESTED: ReadonlySet<string> = new Set(["array", "object", "record", "tuple", "map", "set", "intersection"]);

function stringProblems(def: Def): readonly string[] {
  const patterns = (def.checks ?? []).flatMap(({ _zod }) =>
    _zod.def.check === "string_format" && _zod.def.format === "regex" && _zod.def.pattern !== undefined
      ? [_zod.def.pattern]
      : [],
  );
  const flags = patterns.filter(({ flags }) => /[imsy]/.test(flags));
  const ends =
    hasCheck(def, "max_length", "length_equals") ||
    SHORT_FORMATS.has(String(def["format"])) ||
    patterns.some(({ source }) => endsSomewhere(source));
  return [
    ...(ends
      ? []
      : ["is a string without a bound: add .max(n), .length(n), an anchored .regex(/^…$/), or take z.enum([…])"]),
    ...flags.map(
      ({ source, flags }) => `has the pattern /${source}/${flags}, whose flags no schema can say: write it without`,
    ),
  ];
}

/** Whether a pattern is anchored at both ends and has nothing that repeats without end. */
function endsSomewhere(source: string): boolean {
  const plain = source.replace(/\\./g, "x").replace(/\[[^\]]*\]/g, "x");
  if (!plain.startsWith("^") || !plain.endsWith("$") || /[*+]|\{\d+,\}/.test(plain)) return false;
  let depth = 0;
  for (const char of plain) {
    if (char === "(") depth++;
    if (char === ")") depth--;
    // An alternative at the top has anchors of its own.
    if (char === "|" && depth === 0) return false;
  }
  return true;
}

function hasCheck(def: Def, ...names: readonly string[]): boolean {
  return (def.checks ?? []).some(({ _zod }) => names.includes(_zod.def.check));
}

/** Takes, or lets out, members that are not declared. */
function isOpen(def: Def): boolean {
  const rest = def["catchall"];
  return rest !== undefined && defOf(rest).type !== "never";
}

function descriptionOf(schema: unknown): string | undefined {
  const own = z.globalRegistry.get(schema as z.ZodType)?.description;
  if (typeof own === "string" && own.trim() !== "") return own;
  const def = defOf(schema);
  return WRAPPERS.has(def.type) ? descriptionOf(def["innerType"]) : undefined;
}

/** Everything that is wrong with an output. */
export function outputProblems(output: z.ZodObject): readonly string[] {
  if (defOf(output).type !== "object") return ["the output must be z.object({…})"];
  return lettingOut(output, []);
}

function lettingOut(schema: unknown, path: readonly string[]): readonly string[] {
  const def = defOf(schema);
  const at = path.length === 0 ? "the output" : `output ${JSON.stringify(path.join("/"))}`;
  if (path.length > MAX_DEPTH) return [`${at} is nested too deeply`];
  if (WRAPPERS.has(def.type)) return lettingOut(def["innerType"], path);
  if (def.type === "array") return lettingOut(def["element"], [...path, "*"]);
  if (def.type === "record") return lettingOut(def["valueType"], [...path, "*"]);
  if (def.type === "union") return (def["options"] as readonly unknown[]).flatMap((one) => lettingOut(one, path));
  if (def.type === "string" || PLAIN.has(def.type)) return [];
  if (def.type !== "object") return [`${at} may hold anything: declare what leaves, field by field`];
  // Strict objects would fail on what is to be dropped.
  if (def["catchall"] !== undefined) return [`${at} must be z.object({…}): what is not declared in it is dropped`];
  return Object.entries(shapeOf(def)).flatMap(([name, field]) => lettingOut(field, [...path, name]));
}

const MAX_DEPTH = 12;

/** Whether a path such as `items/*\/sku` leads to something that the output declares. */
export function leadsSomewhere(output: z.ZodObject, path: string): boolean {
  const reach = (schema: unknown, [key, ...rest]: readonly string[]): boolean => {
    const def = defOf(schema);
    if (WRAPPERS.has(def.type)) return reach(def["innerType"], key === undefined ? [] : [key, ...rest]);
    if (key === undefined) return true;
    if (def.type === "union") return (def["options"] as readonly unknown[]).some((one) => reach(one, [key, ...rest]));
    if (def.type === "array") return key === "*" && reach(def["element"], rest);
    if (def.type === "record") return reach(def["valueType"], rest);
    if (def.type !== "object") return false;
    const shape = shapeOf(def);
    if (key === "*") return Object.values(shape).some((one) => reach(one, rest));
    return Object.hasOwn(shape, key) && reach(shape[key], rest);
  };
  return reach(output, path.split("/"));
}

// ---- JSON Schema ----

/** The JSON Schema of a flat input or form: closed, without what only zod needs. */
export function flatSchema(schema: z.ZodObject): JsonObject {
  return closed(jsonSchema(schema, "input")) as JsonObject;
}

/** The JSON Schema of what leaves. */
export function outputSchema(schema: z.ZodObject): JsonObject {
  return closed(jsonSchema(schema, "output")) as JsonObject;
}

function jsonSchema(schema: z.ZodObject, io: "input" | "output"): JsonValue {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, {
    io,
    target: "draft-2020-12",
    reused: "inline",
    override({ zodSchema, jsonSchema }) {
      const def = defOf(zodSchema);
      // The patterns of zod's own formats look ahead, which RE2 does not; the format says the same.
      if (typeof def["format"] === "string" && jsonSchema["format"] !== undefined) delete jsonSchema["pattern"];
      if (jsonSchema["minimum"] === Number.MIN_SAFE_INTEGER) delete jsonSchema["minimum"];
      if (jsonSchema["maximum"] === Number.MAX_SAFE_INTEGER) delete jsonSchema["maximum"];
    },
  });
  return rest as JsonValue;
}

/** Objects take what they declare; a record over an enumeration is an object with those members. */
function closed(schema: JsonValue): JsonValue {
  if (Array.isArray(schema)) return schema.map(closed);
  if (typeof schema !== "object" || schema === null) return schema;
  const entries = Object.entries(schema as JsonObject).map(([key, value]) =>
    LITERAL.has(key)
      ? ([key, value] as const)
      : key === "properties"
        ? ([
            key,
            Object.fromEntries(Object.entries(value as JsonObject).map(([name, one]) => [name, closed(one)])),
          ] as const)
        : ([key, closed(value)] as const),
  );
  const made = Object.fromEntries(entries) as Record<string, JsonValue>;
  if (made["type"] !== "object") return made;
  const names = (made["propertyNames"] as JsonObject | undefined)?.["enum"];
  const member = made["additionalProperties"];
  if (Array.isArray(names) && typeof member === "object") {
    delete made["propertyNames"];
    made["properties"] = Object.fromEntries((names as string[]).map((name) => [name, member]));
    made["additionalProperties"] = false;
  } else if (made["properties"] !== undefined || made["additionalProperties"] === undefined) {
    made["additionalProperties"] = false;
  }
  return made;
}

const LITERAL: ReadonlySet<string> = new Set(["enum", "const", "default", "examples", "required"]);
