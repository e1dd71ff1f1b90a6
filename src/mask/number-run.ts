/** Digit groups with what stands between them: read once, looked at by every detector of numbers. */
import type { Codes } from "./char-sets.ts";
import { isAlnum, isLetter } from "./detector.ts";

const MAX_GROUPS = 16;
const MAX_LENGTH = 64;

/** `0161 496-0190`: three groups, eleven digits. One object serves a whole scan; detectors must not keep it. */
export interface NumberRun {
  readonly start: number;
  readonly end: number;
  readonly groups: number;
  readonly digits: number;
  readonly dots: number;
  /** How long its groups are: for one of `n` digits bit `n`, for one of more than 31 bit 31. */
  readonly lengths: number;
  /** Part of a word that began before: the digits of `ORD-88253`. */
  readonly attached: boolean;
  /** A letter or `_` follows at once. */
  readonly lettersAfter: boolean;
  readonly starts: Int32Array;
  readonly ends: Int32Array;
  /** Where the word begins that the last group belongs to, when that is within the run: what the scan goes on with. */
  readonly wordStart: number;
}

export type Writable<T> = { -readonly [Key in keyof T]: T[Key] };

export function emptyRun(): Writable<NumberRun> {
  const starts = new Int32Array(MAX_GROUPS);
  const ends = new Int32Array(MAX_GROUPS);
  return {
    start: 0,
    end: 0,
    groups: 0,
    digits: 0,
    dots: 0,
    lengths: 0,
    attached: false,
    lettersAfter: false,
    starts,
    ends,
    wordStart: 0,
  };
}

/** How many digits group `group` has. */
export function lengthOf(run: NumberRun, group: number): number {
  return (run.ends[group] ?? 0) - (run.starts[group] ?? 0);
}

/** The digits of the groups `first` to `last`. */
export function digitsIn(text: string, run: NumberRun, first: number, last: number): string {
  let digits = "";
  for (let group = first; group <= last; group++) digits += text.slice(run.starts[group], run.ends[group]);
  return digits;
}

/** The text between two neighbouring groups. */
export function between(text: string, run: NumberRun, group: number): string {
  return text.slice(run.ends[group], run.starts[group + 1]);
}

/** True when one and the same of `separators` stands between all groups from `first` to `last`. */
export function evenly(text: string, run: NumberRun, first: number, last: number, separators: string): boolean {
  const { starts, ends } = run;
  const separator = text.charCodeAt(ends[first] ?? 0);
  for (let group = first; group < last; group++) {
    const end = ends[group] ?? 0;
    if (starts[group + 1] !== end + 1 || text.charCodeAt(end) !== separator) return false;
  }
  for (let at = 0; at < separators.length; at++) if (separators.charCodeAt(at) === separator) return true;
  return false;
}

/** Fewer digits are no number of a person. */
const MIN_DIGITS = 6;

/**
 * Reads the run that begins with the digits from `at` to `end`, and returns where it ends. `run.digits` is 0 when no detector needs to
 * be asked: too few digits, a date, a part of a word. Bounded: a longer row of numbers is read in pieces.
 */
export function readRun(codes: Codes, at: number, end: number, attached: boolean, run: Writable<NumberRun>): number {
  run.digits = 0;
  run.wordStart = 0;
  const next = nextGroup(codes, end);
  if (next === 0 && end - at < MIN_DIGITS) return end;
  // Of what is left most are dates.
  if (end - at === 4 && isDate(codes, at)) {
    const last = timeEnd(codes, at + 10);
    if (nextGroup(codes, last) === 0) return last;
  }
  readGroups(codes, at, end, next, run);
  const last = run.end;
  run.attached = attached;
  // Of the parts of a word only a card is told: `card-4111…`.
  if (attached && run.digits < 12) run.digits = 0;
  else if (run.groups > 2) withoutDate(codes, run);
  if (run.digits < MIN_DIGITS && run.dots < 3) run.digits = 0;
  return last;
}

function readGroups(codes: Codes, at: number, firstEnd: number, second: number, run: Writable<NumberRun>): void {
  const { starts, ends } = run;
  starts[0] = at;
  ends[0] = firstEnd;
  let end = firstEnd;
  let groups = 1;
  let digits = end - at;
  let lengths = lengthBit(digits);
  let dots = 0;
  for (
    let next = second;
    next !== 0 && groups !== MAX_GROUPS && next - at <= MAX_LENGTH;
    next = nextGroup(codes, end)
  ) {
    const separator = codes[end];
    if (separator === 46) dots++;
    if (separator !== 45 || next !== end + 1) run.wordStart = next;
    starts[groups] = next;
    end = digitsEnd(codes, next + 1);
    ends[groups++] = end;
    digits += end - next;
    lengths |= lengthBit(end - next);
  }
  const after = codes[end] ?? 0;
  run.start = at;
  run.end = end;
  run.groups = groups;
  run.digits = digits;
  run.dots = dots;
  run.lengths = lengths;
  run.lettersAfter = isLetter(after) || after === 95;
}

/** In `NumberRun.lengths`. */
export function lengthBit(length: number): number {
  return 1 << (length < 31 ? length : 31);
}

/** Behind the digits that stand at `at`, when any do. */
export function digitsEnd(codes: Codes, at: number): number {
  let end = at;
  for (let code = codes[end] ?? 0; code >= 48 && code <= 57; code = codes[++end] ?? 0);
  return end;
}

/** 1 for what may stand between groups. */
export const JOINS = new Uint8Array(65_536);
for (const char of " -./()") JOINS[char.charCodeAt(0)] = 1;

/** Where the next group begins when it belongs to the run, otherwise 0. Between groups: ` `, `-`, `.`, `/`, `(`, `)`, at most three. */
function nextGroup(codes: Codes, end: number): number {
  const joins = JOINS;
  const code = codes[end] ?? 0;
  if (joins[code] === 0) return 0;
  let next = codes[end + 1] ?? 0;
  if (next >= 48 && next <= 57) return end + 1;
  // A full stop or a slash joins groups alone: `in 2019. 2020 was`.
  if (code === 46 || code === 47 || next === 46 || next === 47 || joins[next] === 0) return 0;
  next = codes[end + 2] ?? 0;
  if (next >= 48 && next <= 57) return end + 2;
  if (next === 46 || next === 47 || joins[next] === 0) return 0;
  next = codes[end + 3] ?? 0;
  return next >= 48 && next <= 57 ? end + 3 : 0;
}

/** Takes a date off the front of a run: `2026-09-03`, `03/09/2026`. What is left may be nothing. */
function withoutDate(codes: Codes, run: Writable<NumberRun>): void {
  const first = lengthOf(run, 0);
  const second = lengthOf(run, 1);
  const third = lengthOf(run, 2);
  if (second > 2 || !((first === 4 && third <= 2) || (first <= 2 && third === 4))) return;
  if (!evenlyJoined(codes, run)) return;
  const start = numberIn(codes, run, 0);
  const middle = numberIn(codes, run, 1);
  const end = numberIn(codes, run, 2);
  const year = first === 4 ? start : end;
  const other = first === 4 ? end : start;
  const month = first === 4 ? middle : Math.min(middle, other);
  const day = first === 4 ? other : Math.max(middle, other);
  if (year < 1900 || year > 2199 || month < 1 || month > 12 || day < 1 || day > 31) return;
  run.digits -= first + second + third;
  run.groups -= 3;
  for (let group = 0; group < run.groups; group++) {
    run.starts[group] = run.starts[group + 3] ?? 0;
    run.ends[group] = run.ends[group + 3] ?? 0;
  }
  run.start = run.groups > 0 ? (run.starts[0] ?? 0) : run.end;
  run.attached = false;
}

/** One and the same of `-`, `.` and `/` stands between the first three groups. */
function evenlyJoined(codes: Codes, { starts, ends }: NumberRun): boolean {
  const [one, two] = [ends[0] ?? 0, ends[1] ?? 0];
  const separator = codes[one];
  if (starts[1] !== one + 1 || starts[2] !== two + 1 || codes[two] !== separator) return false;
  return separator === 45 || separator === 46 || separator === 47;
}

/** `2026-09-03` at four digits, and no digit behind it: what `withoutDate` would take off. */
function isDate(codes: Codes, at: number): boolean {
  if (codes[at + 4] !== 45 || codes[at + 7] !== 45) return false;
  const after = codes[at + 10] ?? 0;
  if (after >= 48 && after <= 57) return false;
  const month = twoDigits(codes, at + 5);
  const day = twoDigits(codes, at + 8);
  if (month < 1 || month > 12 || day < 1 || day > 31) return false;
  const century = twoDigits(codes, at);
  return century >= 19 && century <= 21;
}

/**
 * Behind a time that stands behind a date: `T09:28:39.589`, ` 09:28`. `at` when there is none, or when it goes on in a way that no time
 * does: then it may be part of something else.
 */
function timeEnd(codes: Codes, at: number): number {
  const separator = codes[at];
  if ((separator !== 84 && separator !== 32) || codes[at + 3] !== 58) return at;
  if (twoDigits(codes, at + 1) < 0 || twoDigits(codes, at + 4) < 0) return at;
  let end = at + 6;
  if (codes[end] === 58 && twoDigits(codes, end + 1) >= 0) {
    end += 3;
    if (codes[end] === 46 || codes[end] === 44) {
      const fraction = digitsEnd(codes, end + 1);
      if (fraction > end + 1 && fraction <= end + 10) end = fraction;
    }
  }
  const after = codes[end] ?? 0;
  return (isAlnum(after) && after !== 90) || after === 95 || after === 58 ? at : end;
}

/** Negative when there are not two. */
function twoDigits(codes: Codes, at: number): number {
  const tens = codes[at] ?? 0;
  const ones = codes[at + 1] ?? 0;
  return tens >= 48 && tens <= 57 && ones >= 48 && ones <= 57 ? tens * 10 + ones - 528 : -1;
}

/** Of a group of at most four digits. */
function numberIn(codes: Codes, run: NumberRun, group: number): number {
  let value = 0;
  for (let at = run.starts[group] ?? 0; at < (run.ends[group] ?? 0); at++) value = value * 10 + (codes[at] ?? 0) - 48;
  return value;
}
