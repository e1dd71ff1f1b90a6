/**
 * What a detector is: one shape of private text, where the scan stops to ask for it, and examples that prove it. Adding one is a
 * file in `detectors/` and a line in `detectors/all.ts`; `test/mask/detectors.test.ts` holds every one to the same promises.
 */
import type { Codes } from "./char-sets.ts";
import type { NumberRun } from "./number-run.ts";

/** Takes hits. Offsets are UTF-16 code units of the text that is scanned; `end` is exclusive. */
export interface Found {
  add(start: number, end: number): void;
}

/** Looks at one place. Reads a bounded stretch around it, so that a scan stays linear whatever the text is. */
export type Finder = (text: string, at: number, found: Found, codes: Codes) => void;

/** Which words of ten characters or more a detector looks at: those of which one of these is true. */
export interface Words {
  readonly find: (text: string, start: number, end: number, found: Found) => void;
  /** They begin with one of these characters, or do so behind `-` and `_`. */
  readonly first?: string;
  readonly last?: string;
  /** They stand behind one of these. A quote that stands behind a blank is as good as the blank. */
  readonly behind?: string;
  /** They have one of these lengths, less than 128. */
  readonly lengths?: readonly number[];
}

/** Which two letters a detector looks at: `GB82…`, `QQ-12…`. */
export interface Pairs {
  /** At the first of the two. */
  readonly find: Finder;
  /** In capitals; small ones are looked at, too. */
  readonly of: readonly string[];
}

/** Which runs of digit groups a detector looks at. */
export interface Numbers {
  readonly find: (text: string, run: NumberRun, found: Found, codes: Codes) => void;
  /** With so many digits or more, six at least; or with three full stops when it is 0. */
  readonly digits: number;
  /** With a group of one of these lengths; of any without. */
  readonly groups?: readonly number[];
  /** Also those that a word with `-` goes on with: `card-4111…`. */
  readonly attached?: true;
}

export interface Detector {
  /** What a hit is called in settings, counts and `[type]`: lower case with underscores. */
  readonly type: string;
  /** What kind of thing it is: settings choose an action for each of the two at once. */
  readonly about: "person" | "secret";
  /** Asked at each of these characters, or at the colon of `://`, of `::`, or of `f:`, which is one behind a hexadecimal digit. */
  readonly at?: Readonly<Record<string, Finder>>;
  /** Asked where two letters begin a word and a digit stands behind them. */
  readonly pair?: Pairs;
  /** Asked for runs of digit groups. Dates are left out. */
  readonly number?: Numbers;
  /** Asked for words (letters, digits, `_`, `-`) of ten characters or more. */
  readonly word?: Words;
  /** Asked for each value that stands after the name of a credential, see `credential-names.ts`. */
  readonly named?: (text: string, value: NamedValue, found: Found) => void;
  /** The same thing written in another way gives the same string: what stand-ins and hashes are made of. */
  readonly canonical?: (value: string) => string;
  /** What `partial` shows; without it the last four characters of values that are long enough. */
  readonly partial?: (value: string) => string;
  /** Texts and the private part that must be found in each. */
  readonly hits: readonly (readonly [text: string, value: string])[];
  /** Texts that look alike and in which it must find nothing. */
  readonly misses: readonly string[];
}

/** A value after the name of a credential: `password=…`, `"apiKey": "…"`, `Authorization: Bearer …`, `<secret>…`. */
export interface NamedValue {
  readonly kind: "password" | "key" | "aws" | "authorization";
  readonly start: number;
  readonly end: number;
  /** Name and value stand in quotes, or in an XML element: this is data and no prose. */
  readonly quoted: boolean;
}

const ALNUM = new Uint8Array(65_536);
for (let code = 48; code <= 57; code++) ALNUM[code] = 1;
for (let code = 65; code <= 90; code++) ALNUM[code] = ALNUM[code + 32] = 2;

export function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}
/** Of ASCII. NaN, which is what lies beyond a text, is none. */
export function isLetter(code: number): boolean {
  return ALNUM[code] === 2;
}
export function isAlnum(code: number): boolean {
  return (ALNUM[code] ?? 0) > 0;
}
export function isHex(code: number): boolean {
  return isDigit(code) || (code >= 97 && code <= 102) || (code >= 65 && code <= 70);
}

const BACKSLASH = 92;
const ESCAPE_LETTERS = new Set([..."bfnrt"].map((letter) => letter.charCodeAt(0)));

/**
 * Moves `start` behind the letter of an escape: in the text of JSON `\nbob` begins a line and the name is `bob`. Detectors look
 * back with it, since JSON is scanned as it is written.
 */
export function afterEscape(text: string, start: number): number {
  return text.charCodeAt(start - 1) === BACKSLASH && ESCAPE_LETTERS.has(text.charCodeAt(start)) ? start + 1 : start;
}

/** No letter, digit or `_` stands before `at`: something begins here. */
export function beginsAt(text: string, at: number): boolean {
  const before = text.charCodeAt(at - 1);
  if (!isAlnum(before) && before !== 95) return true;
  return text.charCodeAt(at - 2) === BACKSLASH && ESCAPE_LETTERS.has(before);
}

/** No letter, digit or `_` follows: something ends here. */
export function endsAt(text: string, end: number): boolean {
  const after = text.charCodeAt(end);
  return !isAlnum(after) && after !== 95;
}

/** Two letters at `at`, whatever their case, as a number below 1024. */
export function pairIndex(text: string, at: number): number {
  return ((text.charCodeAt(at) & 31) << 5) | (text.charCodeAt(at + 1) & 31);
}

/** The digits of a value alone. */
export function digitsOf(value: string): string {
  let digits = "";
  for (let at = 0; at < value.length; at++) if (isDigit(value.charCodeAt(at))) digits += value[at];
  return digits;
}
