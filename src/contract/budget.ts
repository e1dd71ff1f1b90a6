/**
 * Documents within a budget. What is too large is shortened where it is large: lists lose their ends, texts too, and what is left is
 * JSON of the same shape. Takes time in proportion to the document, whatever it looks like.
 */
import type { JsonObject, JsonValue } from "../core/call.ts";
import { isScalar, setMember } from "./fields.ts";
import { estimateTokens } from "./tokens.ts";

/** Measures JSON so that the whole is the sum of its tokens: texts, other scalars and each of `{}[],:`. */
export interface Scale {
  /** Of a text, with its quotes. */
  text(value: string): number;
  /** Of so many of `{}[],:`, and in bytes also of numbers. */
  plain(characters: number): number;
  /** No text of more characters measures one unit; what is longer need not be looked at. */
  readonly mostCharacters: number;
  /** A good guess at how many characters measure one unit. */
  readonly characters: number;
}

/** Nothing in it is escaped, and each character is a byte. */
const PLAIN = /^[ !#-[\]-~]*$/;
const escaped = (json: string) => Buffer.byteLength(JSON.stringify(json)) - 2;

/** The bytes of a document that stands in a text, with a backslash before each quote. */
export const IN_TEXT: Scale = {
  text: (value) => (PLAIN.test(value) ? value.length + 4 : escaped(JSON.stringify(value))),
  plain: (characters) => characters,
  mostCharacters: 1,
  characters: 1,
};
/** The bytes of a document that stands as it is and in a text. */
export const TWICE: Scale = {
  text(value) {
    if (PLAIN.test(value)) return 2 * value.length + 6;
    const json = JSON.stringify(value);
    return Buffer.byteLength(json) + escaped(json);
  },
  plain: (characters) => 2 * characters,
  mostCharacters: 0.5,
  characters: 0.5,
};
export const TOKENS: Scale = {
  text: (value) => estimateTokens(JSON.stringify(value)),
  plain: (characters) => characters,
  mostCharacters: 16,
  characters: 4,
};

/** What was shortened, to be told. */
export class Cuts {
  readonly #lists = new Map<string, { readonly of: number; left: number }>();
  #texts = 0;
  #members = 0;

  /** A list that had `of` elements has `left`. */
  list(path: string, of: number, left: number): void {
    const before = this.#lists.get(path);
    if (before === undefined) this.#lists.set(path, { of, left });
    else before.left = left;
  }
  text(): void {
    this.#texts++;
  }
  members(count: number): void {
    this.#members += count;
  }

  /** One sentence each, at most `most`. */
  sentences(most = 8): readonly string[] {
    const all = [...this.#lists].map(
      ([path, { of, left }]) => `${path === "" ? "the list" : path} has ${left} of ${of}`,
    );
    if (this.#texts > 0) all.push(this.#texts === 1 ? "one text was cut" : `${this.#texts} texts were cut`);
    if (this.#members > 0)
      all.push(this.#members === 1 ? "one value was left out" : `${this.#members} values were left out`);
    return all.length <= most ? all : [...all.slice(0, most), `and ${all.length - most} more`];
  }
}

export type Sizer = (value: JsonValue, limit: number) => number;

/** Measures exactly up to a limit, of which it looks at no more than that takes, and beyond it says something greater. */
export function sizer(scale: Scale): Sizer {
  const unit = scale.plain(1);
  /** Of lists and objects: what they measure, or, below zero, that they measure as much or more. */
  const sizes = new Map<object, number>();
  const size = (value: JsonValue, limit: number): number => {
    // Everything is greater; what is remembered below zero would not be.
    if (limit < 0) return 0;
    if (typeof value === "string") return value.length > limit * scale.mostCharacters ? limit + 1 : scale.text(value);
    if (typeof value === "number") return numberSize(value);
    if (isScalar(value)) return numberSize(JSON.stringify(value));
    const known = sizes.get(value as object);
    if (known !== undefined && (known >= 0 || limit < -known)) return known >= 0 ? known : limit + 1;
    let sum = 2 * unit;
    if (Array.isArray(value)) {
      for (let at = 0; at < value.length && sum <= limit; at++)
        sum += (at > 0 ? unit : 0) + size(value[at] as JsonValue, limit - sum);
    } else {
      let first = true;
      for (const name in value as JsonObject) {
        if (sum > limit) break;
        sum += scale.text(name) + (first ? unit : 2 * unit);
        sum += size((value as JsonObject)[name] as JsonValue, Math.max(0, limit - sum));
        first = false;
      }
    }
    sizes.set(value as object, sum > limit ? -(limit + 1) : sum);
    return sum;
  };
  const numberSize = (value: number | string) => {
    const text = String(value);
    return scale === TOKENS ? estimateTokens(text) : scale.plain(text.length);
  };
  return size;
}

/** The document, shortened so that it measures no more than `room`; undefined when nothing of it does. `size`: of this scale. */
export function shortened(
  document: JsonValue,
  room: number,
  scale: Scale,
  cuts: Cuts,
  size: Sizer = sizer(scale),
): JsonValue | undefined {
  const unit = scale.plain(1);
  const least = scale.text("a few words");

  function within(value: JsonValue, left: number, path: string): JsonValue | undefined {
    if (size(value, left) <= left) return value;
    if (typeof value === "string") return fitText(value, left);
    if (isScalar(value) || left < 2 * unit) {
      cuts.members(1);
      return undefined;
    }
    return Array.isArray(value) ? fitList(value, left, path) : fitObject(value as JsonObject, left, path);
  }

  function fitText(value: string, left: number): string | undefined {
    let length = Math.min(value.length - 1, Math.floor(left * scale.characters));
    while (length >= SHORTEST_TEXT) {
      const cut = `${prefix(value, length)}…`;
      const found = scale.text(cut);
      if (found <= left) {
        cuts.text();
        return cut;
      }
      length = Math.min(length - 1, Math.floor((length * left) / found));
    }
    cuts.members(1);
    return undefined;
  }

  function fitList(list: readonly JsonValue[], left: number, path: string): JsonValue {
    const kept: JsonValue[] = [];
    let rest = left - 2 * unit;
    for (const one of list) {
      const comma = kept.length > 0 ? unit : 0;
      const found = comma + size(one, rest - comma);
      if (found > rest) break;
      kept.push(one);
      rest -= found;
    }
    // Of a few large elements a part of the next one is worth more than nothing.
    const next = list[kept.length];
    if (next !== undefined && rest > left / 2) {
      const part = within(next, rest - unit, join(path, kept.length));
      if (part !== undefined) kept.push(part);
    }
    if (kept.length < list.length) cuts.list(path, list.length, kept.length);
    return kept;
  }

  /** Small members stay whole; the large ones share what is left. */
  function fitObject(object: JsonObject, left: number, path: string): JsonValue {
    let rest = left - unit;
    const members: { readonly name: string; readonly value: JsonValue; readonly size: number }[] = [];
    let needed = 0;
    const names = Object.keys(object);
    for (const name of names) {
      const value = object[name] as JsonValue;
      const head = scale.text(name) + 2 * unit;
      const found = size(value, rest);
      if (needed + head + Math.min(found, least) > rest) break;
      needed += Math.min(found, least);
      rest -= head;
      members.push({ name, value, size: found });
    }
    if (members.length < names.length) cuts.members(names.length - members.length);
    let large = members.length;
    let share = rest / large;
    for (const { size: found } of members.toSorted((one, other) => one.size - other.size)) {
      share = rest / large;
      if (found > share) break;
      rest -= found;
      large--;
    }
    const result: Record<string, JsonValue> = {};
    for (const { name, value, size: found } of members) {
      if (found <= share) {
        setMember(result, name, value);
        continue;
      }
      const part = within(value, Math.floor(rest / large), join(path, name));
      large--;
      if (part === undefined) continue;
      setMember(result, name, part);
      rest -= size(part, rest);
    }
    return result;
  }

  return within(document, Math.floor(room), "");
}

const SHORTEST_TEXT = 4;

const join = (path: string, name: string | number) => (path === "" ? String(name) : `${path}/${name}`);

/** Without half of a character at its end. */
export function prefix(text: string, length: number): string {
  const last = text.charCodeAt(length - 1);
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? length - 1 : length);
}
