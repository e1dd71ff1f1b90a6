/** What a conjunction of schemas comes to: values of one type each, with all that bounds them. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { type At, isSchemaObject, resolveRef, type Schema } from "../accepts.ts";
import { type Language, languageOf } from "../regular.ts";

/** Values of one JSON type, or some values by name: what a conjunction of schemas comes to. */
export type Atom = Values | Numbers | Strings | Arrays | Objects;

interface Simple {
  /** The schemas that all values of the atom meet, without references and combinations. */
  readonly facts: readonly At[];
}
export interface Values extends Simple {
  readonly kind: "values";
  readonly values: readonly JsonValue[];
}
interface Numbers extends Simple {
  readonly kind: "number";
  readonly integer: boolean;
  readonly min: number;
  readonly minOpen: boolean;
  readonly max: number;
  readonly maxOpen: boolean;
  readonly multiples: readonly number[];
}
interface Strings extends Simple {
  readonly kind: "string";
  readonly min: number;
  readonly max: number;
  readonly patterns: readonly string[];
  readonly languages: readonly Language[];
  readonly formats: readonly string[];
}
export interface Arrays extends Simple {
  readonly kind: "array";
  readonly min: number;
  readonly max: number;
  readonly unique: boolean;
  readonly prefix: readonly (readonly At[])[];
  readonly rest: readonly At[];
}
export interface Objects extends Simple {
  readonly kind: "object";
  readonly required: ReadonlySet<string>;
  readonly min: number;
  readonly max: number;
  readonly properties: ReadonlyMap<string, readonly At[]>;
  /** What all other properties meet. */
  readonly rest: readonly At[];
}

export const MAX_DEPTH = 40;
const MAX_COMBINATIONS = 64;
export const MAX_SPLIT = 50;
export const TYPES = ["null", "boolean", "number", "string", "array", "object"] as const;
type Type = (typeof TYPES)[number];

/**
 * References, `allOf`, `anyOf` and `oneOf` written out: lists of simple schemas, of which one list must be met. `enough`: it has taken
 * long, and what is not written out yet stays as it is.
 */
export function alternatives(all: readonly At[], enough: () => boolean, depth = 0): readonly (readonly At[])[] {
  let lists: readonly (readonly At[])[] = [[]];
  for (const at of all) {
    const parts = partsOf(at, enough, depth);
    if (parts.length === 0) return [];
    // Too many to look at one by one: leaving one out only makes more values possible.
    if (lists.length * parts.length > MAX_COMBINATIONS) continue;
    lists = lists.flatMap((list) => parts.map((part) => [...list, ...part]));
  }
  return lists;
}

function partsOf(at: At, enough: () => boolean, depth: number): readonly (readonly At[])[] {
  const { schema, root } = at;
  if (!isSchemaObject(schema)) return schema === false ? [] : [[]];
  const inner = (some: JsonValue | undefined): At[] =>
    Array.isArray(some) ? some.map((one) => ({ schema: one as Schema, root })) : [];
  const conjuncts: (readonly (readonly At[])[])[] = [[[at]]];
  if (depth < MAX_DEPTH && !enough()) {
    const target = typeof schema["$ref"] === "string" ? resolveRef(schema["$ref"], root) : undefined;
    if (target !== undefined) conjuncts.push(alternatives([{ schema: target, root }], enough, depth + 1));
    if (schema["allOf"] !== undefined) conjuncts.push(alternatives(inner(schema["allOf"]), enough, depth + 1));
    for (const either of [schema["anyOf"], schema["oneOf"]]) {
      if (!Array.isArray(either) || either.length > MAX_COMBINATIONS) continue;
      const branches = inner(either).flatMap((branch) => alternatives([branch], enough, depth + 1));
      if (branches.length <= MAX_COMBINATIONS) conjuncts.push(branches);
    }
  }
  let lists: readonly (readonly At[])[] = [[]];
  for (const options of conjuncts) {
    if (options.length === 0) return [];
    if (lists.length * options.length > MAX_COMBINATIONS) continue;
    lists = lists.flatMap((list) => options.map((option) => [...list, ...option]));
  }
  return lists;
}

export function valuesOf(schema: Schema): readonly JsonValue[] | undefined {
  if (!isSchemaObject(schema)) return undefined;
  if (Object.hasOwn(schema, "const")) return [schema["const"] as JsonValue];
  return Array.isArray(schema["enum"]) ? schema["enum"] : undefined;
}

export const typesOf = (schema: Schema): readonly string[] | undefined => {
  if (!isSchemaObject(schema)) return undefined;
  const type = schema["type"];
  if (typeof type === "string") return [type];
  return Array.isArray(type) ? type.map(String) : undefined;
};

export function mayBe(schema: Schema, type: Type): boolean {
  const types = typesOf(schema);
  return types === undefined || types.includes(type) || (type === "number" && types.includes("integer"));
}

/** Undefined for a type that has no values here. */
export function atomOf(type: Type, facts: readonly At[]): Atom | undefined {
  const schemas = facts.map(({ schema }) => schema).filter(isSchemaObject);
  const numbers = (keyword: string) =>
    schemas.map((schema) => schema[keyword]).filter((value): value is number => typeof value === "number");
  const most = (keyword: string) => Math.min(Number.POSITIVE_INFINITY, ...numbers(keyword));
  const least = (keyword: string) => Math.max(0, ...numbers(keyword));
  switch (type) {
    case "null":
      return { kind: "values", values: [null], facts };
    case "boolean":
      return { kind: "values", values: [true, false], facts };
    case "number": {
      const [min, over] = [
        Math.max(Number.NEGATIVE_INFINITY, ...numbers("minimum")),
        Math.max(Number.NEGATIVE_INFINITY, ...numbers("exclusiveMinimum")),
      ];
      const [max, under] = [most("maximum"), most("exclusiveMaximum")];
      const multiples = numbers("multipleOf");
      const integer =
        schemas.some((schema) => {
          const types = typesOf(schema);
          return types?.includes("integer") === true && !types.includes("number");
        }) || multiples.some(Number.isInteger);
      return {
        kind: "number",
        facts,
        integer,
        multiples,
        min: Math.max(min, over),
        minOpen: over >= min && over !== Number.NEGATIVE_INFINITY,
        max: Math.min(max, under),
        maxOpen: under <= max && under !== Number.POSITIVE_INFINITY,
      };
    }
    case "string": {
      const patterns = schemas.map((schema) => schema["pattern"]).filter((value) => typeof value === "string");
      const languages = patterns.map((pattern) => languageOf(pattern)).filter((one) => one !== undefined);
      const formats = schemas.map((schema) => schema["format"]).filter((value) => typeof value === "string");
      return { kind: "string", facts, min: least("minLength"), max: most("maxLength"), patterns, languages, formats };
    }
    case "array": {
      const shapes = facts.filter(({ schema }) => isSchemaObject(schema)).map((fact) => itemsOf(fact));
      const positions = Math.max(0, ...shapes.map(({ prefix }) => prefix.length));
      return {
        kind: "array",
        facts,
        min: least("minItems"),
        max: most("maxItems"),
        unique: schemas.some((schema) => schema["uniqueItems"] === true),
        prefix: Array.from({ length: positions }, (_, at) => shapes.map(({ prefix, rest }) => prefix[at] ?? rest)),
        rest: shapes.map(({ rest }) => rest),
      };
    }
    case "object": {
      const all = facts.filter(({ schema }) => isSchemaObject(schema));
      const names = new Set(schemas.flatMap((schema) => Object.keys(membersOf(schema["properties"]))));
      const required = new Set(
        schemas.flatMap((schema) => (Array.isArray(schema["required"]) ? schema["required"].map(String) : [])),
      );
      for (const name of required) names.add(name);
      return {
        kind: "object",
        facts,
        required,
        min: least("minProperties"),
        max: most("maxProperties"),
        properties: new Map([...names].map((name) => [name, all.flatMap((fact) => propertyOf(fact, name))])),
        rest: all.map(otherProperties),
      };
    }
  }
}

export const membersOf = (value: JsonValue | undefined): JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};

/** Draft-07 has the list in `items` and the rest in `additionalItems`. */
export function itemsOf({ schema, root }: At): { readonly prefix: readonly At[]; readonly rest: At } {
  const { prefixItems, items, additionalItems } = schema as JsonObject;
  const list = Array.isArray(items) ? items : Array.isArray(prefixItems) ? prefixItems : [];
  const rest = Array.isArray(items) ? additionalItems : items;
  return {
    prefix: list.map((one) => ({ schema: one as Schema, root })),
    rest: { schema: (rest ?? true) as Schema, root },
  };
}

/** What a schema says of one property by its name. A pattern that cannot be read may or may not be about it, so it says nothing. */
function propertyOf({ schema, root }: At, name: string): readonly At[] {
  const { properties, patternProperties, additionalProperties } = schema as JsonObject;
  const found: At[] = [];
  const own = membersOf(properties);
  if (Object.hasOwn(own, name)) found.push({ schema: own[name] as Schema, root });
  let unread = false;
  for (const [pattern, value] of Object.entries(membersOf(patternProperties))) {
    const language = languageOf(pattern);
    if (language === undefined) unread = true;
    else if (language.strings.test(codePoints(name))) found.push({ schema: value as Schema, root });
  }
  if (found.length === 0 && !unread && additionalProperties !== undefined)
    found.push({ schema: additionalProperties as Schema, root });
  return found;
}

function otherProperties({ schema, root }: At): At {
  const { patternProperties, additionalProperties = true } = schema as JsonObject;
  const patterns = Object.values(membersOf(patternProperties));
  if (patterns.length === 0) return { schema: additionalProperties as Schema, root };
  return { schema: { anyOf: [additionalProperties, ...patterns] as JsonValue[] }, root };
}

export const codePoints = (text: string) => Array.from(text, (character) => character.codePointAt(0) ?? 0);

export const shortest = (atom: Strings) => Math.max(atom.min, ...atom.languages.map((language) => language.shortest));
export const longest = (atom: Strings) => Math.min(atom.max, ...atom.languages.map((language) => language.longest));
