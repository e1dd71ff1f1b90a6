/** What the wide schema asks, keyword by keyword, and why all values of an atom give it. */
import type { JsonObject, JsonValue } from "../../core/call.ts";
import { type At, resolveRef, type Schema } from "../accepts.ts";
import { languageOf, lengthsBetween, within } from "../regular.ts";
import type { Prover, Unproved } from "../subset.ts";
import {
  type Arrays,
  type Atom,
  codePoints,
  itemsOf,
  longest,
  membersOf,
  type Objects,
  shortest,
  TYPES,
  typesOf,
} from "./atoms.ts";
import { brief, isMultiple, pointer } from "./sameness.ts";

export type Check<Kind extends Atom["kind"]> = (
  prover: Prover,
  atom: Extract<Atom, { kind: Kind }>,
  value: JsonValue,
  wide: At,
  where: string,
  depth: number,
) => Unproved | undefined;

export const at = (wide: At, schema: JsonValue): At => ({ schema: schema as Schema, root: wide.root });
const listOf = (wide: At, value: JsonValue): readonly At[] =>
  Array.isArray(value) ? value.map((one) => at(wide, one)) : [];
const unless = (holds: boolean, where: string, reason: string): Unproved | undefined =>
  holds ? undefined : { where, reason };

export const COMMON: Readonly<Record<string, Check<Atom["kind"]>>> = {
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
    const bad = [...possible(prover, atom, depth)].find((name) => prover.accepts(name, names) !== true);
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
export function properties(
  prover: Prover,
  atom: Objects,
  wide: At,
  where: string,
  depth: number,
): Unproved | undefined {
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

export const nothing = (prover: Prover, some: readonly At[], depth: number) =>
  prover.atoms(some, depth + 1).every((atom) => prover.empty(atom, depth + 1));
const closed = (prover: Prover, atom: Objects, depth: number) => nothing(prover, atom.rest, depth);
const mayHave = (prover: Prover, atom: Objects, name: string, depth: number) =>
  !nothing(prover, atom.properties.get(name) ?? atom.rest, depth);
const possible = (prover: Prover, atom: Objects, depth: number) =>
  new Set([...atom.properties.keys()].filter((name) => mayHave(prover, atom, name, depth)));

export const KEYWORDS = { number: NUMBERS, string: STRINGS, array: ARRAYS, object: OBJECTS } as const;
