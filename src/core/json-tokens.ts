/** JSON as text: where its strings, keys and numbers stand, and how its strings read. Masking and inspection edit answers with it. */
import { DrawbridgeError } from "./errors.ts";

/** Deeper documents are refused where their structure matters; parsers and their stacks differ on them. */
const MAX_DEPTH = 500;
const [QUOTE, COMMA, COLON, BACKSLASH] = [34, 44, 58, 92];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [91, 93, 123, 125];

/** A scalar or key; of strings `start` and `end` are those within the quotes. */
export interface Token {
  readonly kind: "string" | "key" | "number" | "word";
  readonly start: number;
  readonly end: number;
}

/** What is told of a document while it is walked. `State` goes down with the walk. */
export interface Visitor<State> {
  member(state: State, token: Token): State;
  element(state: State, index: number): State;
  /** True: leave the value out, with its key and comma. Asked before the value is visited. */
  drops(state: State): boolean;
  scalar(token: Token, state: State): void;
  /** A member or element to leave out: from its first character to its last, with one comma. */
  dropped(start: number, end: number): void;
}

/** Walks JSON text that `JSON.parse` accepts, in order. Throws for one that is nested too deeply. */
export function walk<State>(text: string, top: State, visitor: Visitor<State>): void {
  if (visitor.drops(top)) {
    const start = blankEnd(text, 0);
    visitor.scalar({ kind: "word", start, end: text.trimEnd().length }, top);
    return;
  }
  valueAt(text, blankEnd(text, 0), top, visitor, 0);
}

/** Visits one value and returns where it ends. */
function valueAt<State>(text: string, at: number, state: State, visitor: Visitor<State>, depth: number): number {
  const code = text.charCodeAt(at);
  if (code === QUOTE) {
    const end = stringEnd(text, at);
    visitor.scalar({ kind: "string", start: at + 1, end }, state);
    return end + 1;
  }
  if (code === OPEN_OBJECT || code === OPEN_LIST) return listAt(text, at, state, visitor, depth + 1);
  const end = scalarEnd(text, at);
  visitor.scalar({ kind: code === 45 || (code >= 48 && code <= 57) ? "number" : "word", start: at, end }, state);
  return end;
}

function listAt<State>(text: string, open: number, state: State, visitor: Visitor<State>, depth: number): number {
  if (depth > MAX_DEPTH) {
    throw new DrawbridgeError("upstream_failed", "The server's answer is nested too deeply to be read.");
  }
  const object = text.charCodeAt(open) === OPEN_OBJECT;
  const close = object ? CLOSE_OBJECT : CLOSE_LIST;
  let at = blankEnd(text, open + 1);
  let comma = -1;
  let kept = 0;
  for (let index = 0; text.charCodeAt(at) !== close; index++) {
    if (at >= text.length) return at;
    const start = at;
    let below: State;
    if (object) {
      const end = stringEnd(text, at);
      const key: Token = { kind: "key", start: at + 1, end };
      below = visitor.member(state, key);
      at = blankEnd(text, blankEnd(text, end + 1) + 1);
      if (!visitor.drops(below)) visitor.scalar(key, below);
    } else below = visitor.element(state, index);
    const drops = visitor.drops(below);
    const end = drops ? valueAt(text, at, below, PASSED, depth) : valueAt(text, at, below, visitor, depth);
    at = blankEnd(text, end);
    const next = text.charCodeAt(at) === COMMA ? blankEnd(text, at + 1) : -1;
    if (!drops) kept++;
    else if (kept > 0) visitor.dropped(comma, end);
    else visitor.dropped(start, next < 0 ? end : next);
    if (next < 0) {
      if (text.charCodeAt(at) !== close) return text.length;
    } else {
      comma = at;
      at = next;
    }
  }
  return at + 1;
}

/** Sees nothing: walks over what is dropped. */
const PASSED: Visitor<unknown> = {
  member: (state) => state,
  element: (state) => state,
  drops: () => false,
  scalar: () => {},
  dropped: () => {},
};

/** Where the string whose quote is at `open` has its closing quote. */
export function stringEnd(text: string, open: number): number {
  for (let at = text.indexOf('"', open + 1); at >= 0; at = text.indexOf('"', at + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(at - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return at;
  }
  return text.length;
}

/** Behind blanks. */
export function blankEnd(text: string, at: number): number {
  let end = at;
  while (isBlank(text.charCodeAt(end))) end++;
  return end;
}

export function isBlank(code: number): boolean {
  return code === 32 || code === 10 || code === 13 || code === 9;
}

function scalarEnd(text: string, at: number): number {
  let end = at;
  while (end < text.length) {
    const code = text.charCodeAt(end);
    if (isBlank(code) || code === COMMA || code === CLOSE_LIST || code === CLOSE_OBJECT || code === COLON) break;
    end++;
  }
  return end;
}

const ESCAPES: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

/** A string as it reads, with the way back to how it is written. */
class Decoded {
  readonly text: string;
  readonly #start: number;
  /** Behind each escape: its index in `text`, and where that is written. */
  readonly #read: readonly number[];
  readonly #written: readonly number[];

  constructor(text: string, start: number, read: readonly number[], written: readonly number[]) {
    this.text = text;
    this.#start = start;
    this.#read = read;
    this.#written = written;
  }

  /** Where a code unit of `text`, or its end, is written. */
  at(index: number): number {
    let low = 0;
    let high = this.#read.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#read[middle] ?? 0) <= index) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? this.#start + index : (this.#written[low - 1] ?? 0) + index - (this.#read[low - 1] ?? 0);
  }
}

/** Reads the string between `start` and `end`. */
export function decoded(text: string, start: number, end: number): Decoded {
  const read: number[] = [];
  const written: number[] = [];
  let value = "";
  let at = start;
  for (;;) {
    const slash = text.indexOf("\\", at);
    if (slash < 0 || slash >= end) return new Decoded(value + text.slice(at, end), start, read, written);
    const letter = text[slash + 1] ?? "";
    const unicode = letter === "u";
    value += text.slice(at, slash);
    value += unicode
      ? String.fromCharCode(Number.parseInt(text.slice(slash + 2, slash + 6), 16))
      : (ESCAPES[letter] ?? letter);
    at = slash + (unicode ? 6 : 2);
    read.push(value.length);
    written.push(at);
  }
}

/** As it is written between quotes. */
export function encoded(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}

/** Begins like an object, or like a list of objects, lists or strings; only parsing tells. A log line may begin with `[`. */
export function mayBeJson(text: string): boolean {
  const first = blankEnd(text, 0);
  const next = text.charCodeAt(blankEnd(text, first + 1));
  if (text.charCodeAt(first) === OPEN_OBJECT) return next === QUOTE || next === CLOSE_OBJECT;
  return text.charCodeAt(first) === OPEN_LIST && [OPEN_OBJECT, OPEN_LIST, QUOTE, CLOSE_LIST].includes(next);
}

export function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
