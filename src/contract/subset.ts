/**
 * Proves that one JSON Schema (2020-12) accepts no more than another. Sound, not complete: what is called proved is so for every
 * value; what is not may be so all the same. Of the narrow schema anything that is not understood is left out, which makes it wider;
 * of the wide one anything that is not understood must stand in the narrow one word for word.
 */
import type { JsonValue } from "../core/call.ts";
import { type At, accepts, isSchemaObject, patience, type Schema } from "./accepts.ts";
import { bounded, disjoint } from "./regular.ts";
import {
  type Atom,
  alternatives,
  atomOf,
  longest,
  MAX_DEPTH,
  MAX_SPLIT,
  mayBe,
  shortest,
  TYPES,
  type Values,
  valuesOf,
} from "./subset/atoms.ts";
import { type Check, COMMON, KEYWORDS } from "./subset/keywords.ts";
import { brief, same, sameMember } from "./subset/sameness.ts";

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

const MAX_STEPS = 20_000;
/** Over all patterns that are new: a few hard ones. Beyond it patterns cannot be compared. */
export const MAX_PATTERN_STEPS = 60_000;

export class Prover {
  #steps = 0;
  readonly #patience = patience();

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
      const bad = atom.values.find((value) => this.accepts(value, wide) !== true);
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

  /** Whether a schema accepts a value, told only where it is certain. */
  accepts(value: JsonValue, at: At): boolean | undefined {
    return accepts(value, at, this.#patience);
  }

  /** No value of the atom meets `other`, for certain. */
  disjoint(atom: Atom, other: At, depth: number): boolean {
    if (atom.kind === "values") return atom.values.every((value) => this.accepts(value, other) === false);
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
      const values = first.filter((value) => facts.every((fact) => this.accepts(value, fact) !== false));
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
