/**
 * Proves that one JSON Schema (2020-12) accepts no more than another. Sound, not complete: what is called proved is so for every
 * value; what is not may be so all the same. Of the narrow schema anything that is not understood is left out, which makes it wider;
 * of the wide one anything that is not understood must stand in the narrow one word for word.
 */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { type At, accepts, canonical, isSchemaObject, resolveRef, type Schema } from "./accepts.ts";
import { bounded, disjoint, type Language, languageOf, lengthsBetween, within } from "./regular.ts";

export interface Unproved {
  /** JSON pointer into the values, e.g. `/customer/email`; empty for the whole. */
  readonly where: string;
  /** One sentence without a full stop. */
  readonly reason: string;
}

/** Undefined when `narrow` provably accepts a subset of `wide`. Never throws; bounded in time whatever the schemas are. */
export function unprovedSubset(narrow: JsonValue, wide: JsonValue): Unproved | undefined {
  const prove = () =>
    new Prover().everything(
      [{ schema: narrow as Schema, root: narrow }],
      { schema: wide as Schema, root: wide },
      "",
      0,
    );
  return bounded(MAX_PATTERN_STEPS, prove);
}

/** Values of one JSON type, or some values by name: what a conjunction of schemas comes to. */
type Atom = Values | Numbers | Strings | Arrays | Objects;

interface Simple {
  /** The schemas that all values of the atom meet, without references and combinations. */
  readonly facts: readonly At[];
}
interface Values extends Simple {
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
interface Arrays extends Simple {
  readonly kind: "array";
  readonly min: number;
  readonly max: number;
  readonly unique: boolean;
  readonly prefix: readonly (readonly At[])[];
  readonly rest: readonly At[];
}
interface Objects extends Simple {
  readonly kind: "object";
  readonly required: ReadonlySet<string>;
  readonly min: number;
  readonly max: number;
  readonly properties: ReadonlyMap<string, readonly At[]>;
  /** What all other properties meet. */
  readonly rest: readonly At[];
}

const MAX_DEPTH = 40;
const MAX_STEPS = 20_000;
/** Over all patterns that are new: a few hard ones. Beyond it patterns cannot be compared. */
export const MAX_PATTERN_STEPS = 60_000;
const MAX_COMBINATIONS = 64;
const MAX_SPLIT = 50;
const TYPES = ["null", "boolean", "number", "string", "array", "object"] as const;
type Type = (typeof TYPES)[number];

type Check<Kind extends Atom["kind"]> = (
  prover: Prover,
  atom: Extract<Atom, { kind: Kind }>,
  value: JsonValue,
  wide: At,
  where: string,
  depth: number,
) => Unproved | undefined;

class Prover {
  #steps = 0;

  /** Whether every value that meets all of `some` meets `wide`. */
  everything(some: readonly At[], wide: At, where: string, depth: number): Unproved | undefined {
    if (wide.schema === true) return undefined;
    if (some.some((one) => same(one, wide))) return undefined;
    for (const atom of this.atoms(some, depth)) {
      const unproved = this.prove(atom, wide, where, depth);
      if (unproved !== undefined) return unproved;
    }
    return undefined;
  }

  prove(atom: Atom, wide: At, where: string, depth: number): Unproved | undefined {
    if (depth > MAX_DEPTH || ++this.#steps > MAX_STEPS)
      return { where, reason: "the schemas are too large to compare" };
    const { schema } = wide;
    if (schema === true || atom.facts.some((fact) => same(fact, wide)) || this.empty(atom, depth)) return undefined;
    if (schema === false) return { where, reason: "the server takes nothing here" };
    if (!isSchemaObject(schema)) return { where, reason: "the server's schema is not a schema" };
    if (atom.kind === "values") {
      const bad = atom.values.find((value) => accepts(value, wide) !== true);
      return bad === undefined
        ? undefined
        : { where, reason: `it cannot be shown that the server takes ${brief(bad)}` };
    }
    for (const [keyword, value] of Object.entries(schema)) {
      const stands = atom.facts.some((fact) => isSchemaObject(fact.schema) && sameMember(fact, wide, keyword));
      const unproved = stands ? undefined : this.#keyword(atom, keyword, value as JsonValue, wide, where, depth);
      if (unproved !== undefined) return unproved;
    }
    return undefined;
  }

  #keyword(
    atom: Exclude<Atom, Values>,
    keyword: string,
    value: JsonValue,
    wide: At,
    where: string,
    depth: number,
  ): Unproved | undefined {
    // A keyword may be called `constructor`.
    const common = Object.hasOwn(COMMON, keyword) ? COMMON[keyword] : undefined;
    if (common !== undefined) return common(this, atom, value, wide, where, depth);
    const table = KEYWORDS[atom.kind] as Readonly<Record<string, Check<Atom["kind"]>>>;
    const own = Object.hasOwn(table, keyword) ? table[keyword] : undefined;
    return own?.(this, atom, value, wide, where, depth);
  }

  /** No value of the atom meets `other`, for certain. */
  disjoint(atom: Atom, other: At, depth: number): boolean {
    if (atom.kind === "values") return atom.values.every((value) => accepts(value, other) === false);
    return this.atoms([...atom.facts, { schema: { type: atom.kind }, root: true }, other], depth + 1).every((each) =>
      this.empty(each, depth + 1),
    );
  }

  /** The atoms of what meets all the schemas, or more than that where a schema is not understood. */
  atoms(all: readonly At[], depth: number): readonly Atom[] {
    if (depth > MAX_DEPTH || ++this.#steps > MAX_STEPS) return TYPES.flatMap((type) => atomOf(type, []) ?? []);
    return alternatives(all, () => ++this.#steps > MAX_STEPS).flatMap((facts) => this.#atomsOf(facts));
  }

  #atomsOf(facts: readonly At[]): readonly Atom[] {
    if (facts.some(({ schema }) => schema === false)) return [];
    const named = facts.map(({ schema }) => valuesOf(schema)).filter((values) => values !== undefined);
    const [first] = named.sort((a, b) => a.length - b.length);
    if (first !== undefined) {
      const values = first.filter((value) => facts.every((fact) => accepts(value, fact) !== false));
      return values.length === 0 ? [] : [{ kind: "values", values, facts }];
    }
    return TYPES.filter((type) => facts.every(({ schema }) => mayBe(schema, type))).flatMap(
      (type) => atomOf(type, facts) ?? [],
    );
  }

  empty(atom: Atom, depth: number): boolean {
    if (depth > MAX_DEPTH) return false;
    const nothing = (all: readonly At[]) => this.atoms(all, depth + 1).every((inner) => this.empty(inner, depth + 1));
    switch (atom.kind) {
      case "values":
        return atom.values.length === 0;
      case "number": {
        const [min, max] = atom.integer ? [Math.ceil(atom.min), Math.floor(atom.max)] : [atom.min, atom.max];
        return min > max || (min === max && (atom.minOpen || atom.maxOpen) && min === atom.min && max === atom.max);
      }
      case "string":
        return shortest(atom) > longest(atom) || (atom.languages.length > 1 && disjoint(atom.languages) === true);
      case "array":
        return (
          atom.min > atom.max ||
          atom.prefix.some((position, at) => at < atom.min && nothing(position)) ||
          (atom.min > atom.prefix.length && nothing(atom.rest))
        );
      case "object":
        return (
          atom.min > atom.max ||
          atom.required.size > atom.max ||
          [...atom.required].some((name) => nothing(atom.properties.get(name) ?? atom.rest))
        );
    }
  }

  /** One of several must hold; which one may depend on a member that has few values. */
  some(atom: Atom, holds: (part: Atom) => Unproved | undefined): Unproved | undefined {
    const whole = holds(atom);
    if (whole === undefined) return undefined;
    for (const parts of this.#split(atom)) if (parts.every((part) => holds(part) === undefined)) return undefined;
    return whole;
  }

  #split(atom: Atom): readonly (readonly Atom[])[] {
    if (atom.kind === "values")
      return atom.values.length < 2 ? [] : [atom.values.map((value) => ({ ...atom, values: [value] }))];
    if (atom.kind !== "object") return [];
    return [...atom.required].flatMap((name) => {
      const inner = this.atoms(atom.properties.get(name) ?? atom.rest, 1);
      if (!inner.every((each) => each.kind === "values")) return [];
      const values = inner.flatMap((each) => each.values);
      if (values.length < 2 || values.length > MAX_SPLIT) return [];
      return [
        values.map((value): Atom => {
          const fixed: At = { schema: { const: value }, root: true };
          const fact: At = { schema: { properties: { [name]: { const: value } }, required: [name] }, root: true };
          const properties = new Map(atom.properties).set(name, [fixed]);
          return { ...atom, properties, facts: [...atom.facts, fact] };
        }),
      ];
    });
  }
}

// ---- conjunctions ----

/**
 * References, `allOf`, `anyOf` and `oneOf` written out: lists of simple schemas, of which one list must be met. `enough`: it has taken
 * long, and what is not written out yet stays as it is.
 */
function alternatives(all: readonly At[], enough: () => boolean, depth = 0): readonly (readonly At[])[] {
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

function valuesOf(schema: Schema): readonly JsonValue[] | undefined {
  if (!isSchemaObject(schema)) return undefined;
  if (Object.hasOwn(schema, "const")) return [schema["const"] as JsonValue];
  return Array.isArray(schema["enum"]) ? schema["enum"] : undefined;
}

const typesOf = (schema: Schema): readonly string[] | undefined => {
  if (!isSchemaObject(schema)) return undefined;
  const type = schema["type"];
  if (typeof type === "string") return [type];
  return Array.isArray(type) ? type.map(String) : undefined;
};

function mayBe(schema: Schema, type: Type): boolean {
  const types = typesOf(schema);
  return types === undefined || types.includes(type) || (type === "number" && types.includes("integer"));
}

/** Undefined for a type that has no values here. */
function atomOf(type: Type, facts: readonly At[]): Atom | undefined {
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

const membersOf = (value: JsonValue | undefined): JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};

/** Draft-07 has the list in `items` and the rest in `additionalItems`. */
function itemsOf({ schema, root }: At): { readonly prefix: readonly At[]; readonly rest: At } {
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

const codePoints = (text: string) => Array.from(text, (character) => character.codePointAt(0) ?? 0);

const shortest = (atom: Strings) => Math.max(atom.min, ...atom.languages.map((language) => language.shortest));
const longest = (atom: Strings) => Math.min(atom.max, ...atom.languages.map((language) => language.longest));

// ---- what the wide schema asks, keyword by keyword ----

const at = (wide: At, schema: JsonValue): At => ({ schema: schema as Schema, root: wide.root });
const listOf = (wide: At, value: JsonValue): readonly At[] =>
  Array.isArray(value) ? value.map((one) => at(wide, one)) : [];
const unless = (holds: boolean, where: string, reason: string): Unproved | undefined =>
  holds ? undefined : { where, reason };

const COMMON: Readonly<Record<string, Check<Atom["kind"]>>> = {
  $ref(prover, atom, value, wide, where, depth) {
    const target = typeof value === "string" ? resolveRef(value, wide.root) : undefined;
    if (target === undefined)
      return { where, reason: `the server's schema refers to ${brief(value)}, which is not in it` };
    return prover.prove(atom, at(wide, target as JsonValue), where, depth + 1);
  },
  allOf(prover, atom, value, wide, where, depth) {
    for (const each of listOf(wide, value)) {
      const unproved = prover.prove(atom, each, where, depth + 1);
      if (unproved !== undefined) return unproved;
    }
    return undefined;
  },
  anyOf(prover, atom, value, wide, where, depth) {
    const branches = listOf(wide, value);
    return prover.some(atom, (part) => {
      const tried = branches.map((branch) => prover.prove(part, branch, where, depth + 1));
      if (tried.includes(undefined)) return undefined;
      return tried.length === 1 ? tried[0] : { where, reason: "it fits none of the server's alternatives as a whole" };
    });
  },
  oneOf(prover, atom, value, wide, where, depth) {
    const branches = listOf(wide, value);
    return prover.some(atom, (part) => {
      const fits = branches.findIndex((branch) => prover.prove(part, branch, where, depth + 1) === undefined);
      if (fits === -1) return { where, reason: "it fits none of the server's alternatives as a whole" };
      const others = branches.filter((_, index) => index !== fits);
      const alone = others.every((branch) => prover.disjoint(part, branch, depth + 1));
      return unless(alone, where, "it may fit more than one of the server's alternatives, and only one is taken");
    });
  },
  not: (prover, atom, value, wide, where, depth) =>
    unless(prover.disjoint(atom, at(wide, value), depth), where, "it may be what the server excludes with `not`"),
  if(prover, atom, value, wide, where, depth) {
    const { then: yes = true, else: no = true } = wide.schema as JsonObject;
    const when = at(wide, value);
    if (!prover.disjoint(atom, when, depth)) {
      for (const part of prover.atoms(
        [...atom.facts, { schema: { type: atom.kind === "values" ? [...TYPES] : atom.kind }, root: true }, when],
        depth + 1,
      )) {
        const unproved = prover.prove(part, at(wide, yes), where, depth + 1);
        if (unproved !== undefined) return unproved;
      }
    }
    const always = prover.prove(atom, when, where, depth + 1) === undefined;
    return always ? undefined : prover.prove(atom, at(wide, no), where, depth + 1);
  },
  type(_prover, atom, _value, wide, where) {
    const types = typesOf(wide.schema) ?? [];
    const whole = atom.kind === "number" && atom.integer && types.includes("integer");
    return unless(
      types.includes(atom.kind) || whole,
      where,
      `the server takes ${types.join(" or ")}, this may be ${atom.kind === "number" ? "any number" : `of type ${atom.kind}`}`,
    );
  },
  enum: (_prover, _atom, value, _wide, where) => ({
    where,
    reason: `the server takes some values alone: ${brief(value)}`,
  }),
  const: (_prover, _atom, value, _wide, where) => ({ where, reason: `the server takes ${brief(value)} alone` }),
  $dynamicRef: (_prover, _atom, _value, _wide, where) => ({ where, reason: "the server's schema uses $dynamicRef" }),
  unevaluatedProperties: (_prover, atom, value, _wide, where) =>
    unless(value === true || atom.kind !== "object", where, "the server's schema uses unevaluatedProperties"),
  unevaluatedItems: (_prover, atom, value, _wide, where) =>
    unless(value === true || atom.kind !== "array", where, "the server's schema uses unevaluatedItems"),
};

const NUMBERS: Readonly<Record<string, Check<"number">>> = {
  minimum: (_prover, atom, value, wide, where) => {
    const strict = (wide.schema as JsonObject)["exclusiveMinimum"] === true;
    const enough = atom.min > Number(value) || (atom.min === Number(value) && (!strict || atom.minOpen));
    return unless(enough, where, `the server takes ${strict ? "more than" : "at least"} ${brief(value)}`);
  },
  exclusiveMinimum: (_prover, atom, value, _wide, where) => {
    if (typeof value !== "number") return undefined; // Draft 4, read with `minimum`.
    const enough = atom.min > value || (atom.min === value && atom.minOpen);
    return unless(enough, where, `the server takes more than ${value}`);
  },
  maximum: (_prover, atom, value, wide, where) => {
    const strict = (wide.schema as JsonObject)["exclusiveMaximum"] === true;
    const enough = atom.max < Number(value) || (atom.max === Number(value) && (!strict || atom.maxOpen));
    return unless(enough, where, `the server takes ${strict ? "less than" : "at most"} ${brief(value)}`);
  },
  exclusiveMaximum: (_prover, atom, value, _wide, where) => {
    if (typeof value !== "number") return undefined;
    const enough = atom.max < value || (atom.max === value && atom.maxOpen);
    return unless(enough, where, `the server takes less than ${value}`);
  },
  multipleOf: (_prover, atom, value, _wide, where) => {
    const steps = atom.integer ? [1, ...atom.multiples] : atom.multiples;
    return unless(
      steps.some((step) => isMultiple(step, Number(value))),
      where,
      `the server takes multiples of ${brief(value)} alone`,
    );
  },
  format: (_prover, _atom, value, _wide, where) => ({
    where,
    reason: `the server asks for the format ${brief(value)}`,
  }),
};

const STRINGS: Readonly<Record<string, Check<"string">>> = {
  minLength: (_prover, atom, value, _wide, where) =>
    unless(shortest(atom) >= Number(value), where, `the server takes ${brief(value)} characters at least`),
  maxLength: (_prover, atom, value, _wide, where) =>
    unless(longest(atom) <= Number(value), where, `the server takes ${brief(value)} characters at most`),
  pattern: (_prover, atom, value, _wide, where) => {
    if (atom.patterns.includes(String(value))) return undefined;
    const wanted = languageOf(String(value));
    if (wanted === undefined)
      return { where, reason: `the server's pattern ${brief(value)} cannot be compared with another` };
    if (within(atom.languages, wanted) === true && atom.languages.length > 0) return undefined;
    const sized = lengthsBetween(atom.min, atom.max);
    const fits = sized !== undefined && within([...atom.languages, sized], wanted) === true;
    return unless(fits, where, `it may be something that the server's pattern ${brief(value)} does not match`);
  },
  format: (_prover, atom, value, _wide, where) =>
    unless(atom.formats.includes(String(value)), where, `the server asks for the format ${brief(value)}`),
};

const ARRAYS: Readonly<Record<string, Check<"array">>> = {
  minItems: (_prover, atom, value, _wide, where) =>
    unless(atom.min >= Number(value), where, `the server takes ${brief(value)} elements at least`),
  maxItems: (_prover, atom, value, _wide, where) =>
    unless(atom.max <= Number(value), where, `the server takes ${brief(value)} elements at most`),
  uniqueItems: (_prover, atom, value, _wide, where) =>
    unless(value !== true || atom.unique || atom.max < 2, where, "the server takes no element twice"),
  prefixItems: (prover, atom, _value, wide, where, depth) => elements(prover, atom, wide, where, depth),
  items: (prover, atom, _value, wide, where, depth) => elements(prover, atom, wide, where, depth),
  contains: (_prover, _atom, _value, _wide, where) => ({
    where,
    reason: "the server asks for an element with `contains`",
  }),
};

function elements(prover: Prover, atom: Arrays, wide: At, where: string, depth: number): Unproved | undefined {
  const { prefix, rest } = itemsOf(wide);
  const positions = Math.max(prefix.length, atom.prefix.length);
  for (let index = 0; index < positions && index < atom.max; index++) {
    const unproved = prover.everything(
      atom.prefix[index] ?? atom.rest,
      prefix[index] ?? rest,
      `${where}/${index}`,
      depth + 1,
    );
    if (unproved !== undefined) return unproved;
  }
  return atom.max <= positions ? undefined : prover.everything(atom.rest, rest, `${where}/*`, depth + 1);
}

const OBJECTS: Readonly<Record<string, Check<"object">>> = {
  required: (_prover, atom, value, _wide, where) => {
    const missing = (Array.isArray(value) ? value : []).find((name) => !atom.required.has(String(name)));
    return unless(missing === undefined, where, `the server needs ${brief(missing ?? "")}, which may be absent`);
  },
  properties: (prover, atom, _value, wide, where, depth) => properties(prover, atom, wide, where, depth),
  patternProperties: (prover, atom, _value, wide, where, depth) => properties(prover, atom, wide, where, depth),
  additionalProperties: (prover, atom, _value, wide, where, depth) => properties(prover, atom, wide, where, depth),
  propertyNames: (prover, atom, value, wide, where, depth) => {
    const names = at(wide, value);
    const bad = [...possible(prover, atom, depth)].find((name) => accepts(name, names) !== true);
    if (bad !== undefined) return { where, reason: `the server may not take a member called ${brief(bad)}` };
    return unless(closed(prover, atom, depth), where, "the server restricts the names of members");
  },
  minProperties: (_prover, atom, value, _wide, where) =>
    unless(
      Math.max(atom.min, atom.required.size) >= Number(value),
      where,
      `the server takes ${brief(value)} members at least`,
    ),
  maxProperties: (prover, atom, value, _wide, where, depth) => {
    const most = closed(prover, atom, depth) ? Math.min(atom.max, possible(prover, atom, depth).size) : atom.max;
    return unless(most <= Number(value), where, `the server takes ${brief(value)} members at most`);
  },
  dependentRequired: (prover, atom, value, _wide, where, depth) => {
    for (const [name, wanted] of Object.entries(membersOf(value)))
      if (
        mayHave(prover, atom, name, depth) &&
        Array.isArray(wanted) &&
        !wanted.every((one) => atom.required.has(String(one)))
      )
        return { where, reason: `with ${brief(name)} the server needs ${brief(wanted)}` };
    return undefined;
  },
  dependentSchemas: (prover, atom, value, wide, where, depth) => dependent(prover, atom, value, wide, where, depth),
  dependencies: (prover, atom, value, wide, where, depth) => dependent(prover, atom, value, wide, where, depth),
};

function dependent(
  prover: Prover,
  atom: Objects,
  value: JsonValue,
  wide: At,
  where: string,
  depth: number,
): Unproved | undefined {
  for (const [name, wanted] of Object.entries(membersOf(value))) {
    if (!mayHave(prover, atom, name, depth)) continue;
    const schema: JsonValue = Array.isArray(wanted) ? { required: wanted } : wanted;
    const unproved = prover.prove(atom, at(wide, schema), where, depth + 1);
    if (unproved !== undefined) return unproved;
  }
  return undefined;
}

/** Each member that there may be must meet all that the wide schema says of its name. */
function properties(prover: Prover, atom: Objects, wide: At, where: string, depth: number): Unproved | undefined {
  const { properties: named, patternProperties, additionalProperties } = wide.schema as JsonObject;
  const own = membersOf(named);
  const patterns = Object.entries(membersOf(patternProperties));
  const additional = additionalProperties === undefined ? undefined : at(wide, additionalProperties);
  for (const name of new Set([...atom.properties.keys(), ...Object.keys(own)])) {
    const mine = atom.properties.get(name) ?? atom.rest;
    const asked: At[] = Object.hasOwn(own, name) ? [at(wide, own[name] as JsonValue)] : [];
    let certain = asked.length > 0;
    for (const [pattern, schema] of patterns) {
      const matches = languageOf(pattern)?.strings.test(codePoints(name));
      if (matches !== false) asked.push(at(wide, schema));
      if (matches === true) certain = true;
    }
    if (!certain && additional !== undefined) asked.push(additional);
    for (const schema of asked) {
      const unproved = prover.everything(mine, schema, `${where}/${pointer(name)}`, depth + 1);
      if (unproved !== undefined) {
        const stranger = schema.schema === false && !Object.hasOwn(own, name);
        return stranger ? { ...unproved, reason: "the server takes no member of this name" } : unproved;
      }
    }
  }
  for (const schema of [
    ...patterns.map(([, one]) => at(wide, one)),
    ...(additional === undefined ? [] : [additional]),
  ]) {
    const unproved = prover.everything(atom.rest, schema, `${where}/*`, depth + 1);
    if (unproved !== undefined)
      return {
        ...unproved,
        reason: schema.schema === false ? "there may be members that the server does not take" : unproved.reason,
      };
  }
  return undefined;
}

const nothing = (prover: Prover, some: readonly At[], depth: number) =>
  prover.atoms(some, depth + 1).every((atom) => prover.empty(atom, depth + 1));
const closed = (prover: Prover, atom: Objects, depth: number) => nothing(prover, atom.rest, depth);
const mayHave = (prover: Prover, atom: Objects, name: string, depth: number) =>
  !nothing(prover, atom.properties.get(name) ?? atom.rest, depth);
const possible = (prover: Prover, atom: Objects, depth: number) =>
  new Set([...atom.properties.keys()].filter((name) => mayHave(prover, atom, name, depth)));

const KEYWORDS = { number: NUMBERS, string: STRINGS, array: ARRAYS, object: OBJECTS } as const;

// ---- small things ----

/** Word for word the same, and meaning the same: a reference only within the same document. */
function same(one: At, other: At): boolean {
  if (one.schema === other.schema && one.root === other.root) return true;
  if (!isSchemaObject(one.schema) || !isSchemaObject(other.schema)) return one.schema === other.schema;
  return canonical(one.schema) === canonical(other.schema) && meansTheSame(one, other, other.schema);
}

function sameMember(one: At, other: At, keyword: string): boolean {
  const [mine, theirs] = [one.schema as JsonObject, other.schema as JsonObject];
  if (!Object.hasOwn(mine, keyword)) return false;
  // What these mean depends on their neighbours.
  const group = TOGETHER.find((keywords) => keywords.includes(keyword)) ?? [keyword];
  return group.every((each) => {
    const value = theirs[each];
    return (
      canonical(mine[each]) === canonical(value) && (value === undefined || meansTheSame(one, other, { [each]: value }))
    );
  });
}

/** What may have looked at members and elements of the same value. */
const IN_PLACE = [
  ...["$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf", "not", "if", "then", "else"],
  ...["dependentSchemas", "dependencies"],
] as const;
const TOGETHER: readonly (readonly string[])[] = [
  ["if", "then", "else"],
  ["contains", "minContains", "maxContains"],
  ["items", "prefixItems", "additionalItems"],
  ["properties", "patternProperties", "additionalProperties"],
  ["unevaluatedProperties", "properties", "patternProperties", "additionalProperties", ...IN_PLACE],
  ["unevaluatedItems", "items", "prefixItems", "additionalItems", "contains", ...IN_PLACE],
  ["minimum", "exclusiveMinimum"],
  ["maximum", "exclusiveMaximum"],
];

function meansTheSame(one: At, other: At, value: JsonValue): boolean {
  return one.root === other.root || !/"\$(dynamicR|r)ef":/.test(JSON.stringify(value));
}

/** For whole numbers, and the same one: validators differ where binary fractions are in the way. */
function isMultiple(step: number, of: number): boolean {
  return step === of || (Number.isSafeInteger(step) && Number.isSafeInteger(of) && of !== 0 && step % of === 0);
}

const pointer = (name: string) => name.replaceAll("~", "~0").replaceAll("/", "~1");

function brief(value: JsonValue): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length <= 80 ? text : `${text.slice(0, 77)}…`;
}
