/** Digit groups with what stands between them: read once, looked at by every detector of numbers. */
import { isDigit, isLetter } from "./detector.ts";

const MAX_GROUPS = 16;
const MAX_LENGTH = 64;

/** `0161 496-0190`: three groups, eleven digits. One object serves a whole scan; detectors must not keep it. */
export interface NumberRun {
  readonly start: number;
  readonly end: number;
  readonly groups: number;
  readonly digits: number;
  readonly dots: number;
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

/** Reads the run that begins with the digit at `at` into `run`. Bounded: a longer row of numbers is read in pieces. */
export function readRun(text: string, at: number, run: Writable<NumberRun>): void {
  const { starts, ends } = run;
  let groups = 0;
  let digits = 0;
  let dots = 0;
  let end = at;
  for (let next = at; ; ) {
    starts[groups] = next;
    end = next + 1;
    while (isDigit(text.charCodeAt(end))) end++;
    ends[groups++] = end;
    digits += end - next;
    next = nextGroup(text, end);
    if (next === 0 || groups === MAX_GROUPS || next - at > MAX_LENGTH) break;
    const separator = text.charCodeAt(end);
    if (separator === 46) dots++;
    if (separator !== 45 || next !== end + 1) run.wordStart = next;
  }
  const after = text.charCodeAt(end);
  run.start = at;
  run.end = end;
  run.groups = groups;
  run.digits = digits;
  run.dots = dots;
  run.lettersAfter = isLetter(after) || after === 95;
}

/** Where the next group begins when it belongs to the run, otherwise 0. Between groups: ` `, `-`, `.`, `/`, `(`, `)`, at most three. */
export function nextGroup(text: string, end: number): number {
  for (let at = end; at < end + 4; at++) {
    const code = text.charCodeAt(at);
    if (isDigit(code)) return at === end ? 0 : at;
    // A full stop or a slash joins groups alone: `in 2019. 2020 was`.
    if (code === 46 || code === 47) return at === end && isDigit(text.charCodeAt(at + 1)) ? at + 1 : 0;
    if (code !== 32 && code !== 45 && code !== 40 && code !== 41) return 0;
  }
  return 0;
}

/** Takes a date off the front of a run: `2026-09-03`, `03/09/2026`. What is left may be nothing. */
export function withoutDate(text: string, run: Writable<NumberRun>): void {
  const first = lengthOf(run, 0);
  const second = lengthOf(run, 1);
  const third = lengthOf(run, 2);
  if (second > 2 || !((first === 4 && third <= 2) || (first <= 2 && third === 4))) return;
  if (!evenly(text, run, 0, 2, "-./")) return;
  const start = numberIn(text, run, 0);
  const middle = numberIn(text, run, 1);
  const end = numberIn(text, run, 2);
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

/** `2026-09-03` at four digits, and no digit behind it: what `withoutDate` would take off. */
export function isDate(text: string, at: number): boolean {
  if (text.charCodeAt(at + 4) !== 45 || text.charCodeAt(at + 7) !== 45 || isDigit(text.charCodeAt(at + 10)))
    return false;
  const month = twoDigits(text, at + 5);
  const day = twoDigits(text, at + 8);
  if (!(month >= 1 && month <= 12 && day >= 1 && day <= 31)) return false;
  const century = twoDigits(text, at);
  return century >= 19 && century <= 21;
}

/** NaN when there are not two. */
function twoDigits(text: string, at: number): number {
  const tens = text.charCodeAt(at);
  const ones = text.charCodeAt(at + 1);
  return isDigit(tens) && isDigit(ones) ? tens * 10 + ones - 528 : Number.NaN;
}

/** Of a group of at most four digits. */
function numberIn(text: string, run: NumberRun, group: number): number {
  let value = 0;
  for (let at = run.starts[group] ?? 0; at < (run.ends[group] ?? 0); at++)
    value = value * 10 + text.charCodeAt(at) - 48;
  return value;
}
