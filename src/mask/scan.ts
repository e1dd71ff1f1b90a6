/**
 * One pass over a text, whatever the number of detectors: every character costs one look, and only where a shape may begin are the
 * detectors asked. No pattern is searched for twice and none backtracks, so time grows with the length and nothing else.
 */
import { mayNameCredential, namedValue } from "./credential-names.ts";
import { type Detector, type Found, isDigit, isLetter } from "./detector.ts";
import { fold, folds } from "./fold.ts";
import { emptyRun, isDate, nextGroup, readRun, withoutDate } from "./number-run.ts";
import type { Pattern } from "./patterns.ts";

/** A private part of a text: UTF-16 code units, `end` exclusive. */
export interface Span {
  readonly start: number;
  readonly end: number;
  readonly detector: Detector;
}

export interface Scanned {
  /** In order, none overlaps another. */
  readonly spans: readonly Span[];
  /** The text holds `\u…` or `\/`: as the text of JSON it may say more once it is decoded. */
  readonly escaped: boolean;
}

/** Scans `text` from `from` on; what stands before is looked back to, but nothing is found there. */
export type Scan = (text: string, from?: number) => Scanned;

/** What the pass does at a character. */
const KIND = { word: 0, digit: 1, break: 2, ask: 3, name: 4, backslash: 5, fold: 6 } as const;
const MIN_DIGITS = 6;
const LONG_VALUE = 48;
const NOTHING: Scanned = { spans: [], escaped: false };

/** Prepares a scan for some detectors; those that come first win where two find the same place, patterns come last. */
export function compileScan(shapes: readonly Detector[], patterns: readonly Pattern[] = []): Scan {
  const detectors = [...shapes, ...patterns];
  const kindOf = kindsFor(detectors);
  const byChar = Array.from({ length: 128 }, (_, code) =>
    ranked(detectors, ({ at }) => at?.[String.fromCharCode(code)]),
  );
  const bySlashes = ranked(detectors, ({ at }) => at?.["://"]);
  const words = ranked(detectors, ({ word }) => word);
  const numbers = ranked(detectors, ({ number }) => number);
  const pairs = ranked(detectors, ({ pair }) => pair);
  const names = ranked(detectors, ({ named }) => named);
  const run = emptyRun();
  const hits = new Hits(detectors);
  let assignedTo = 0;

  function scan(text: string, from: number, folding: boolean): Scanned {
    // The numbers are `KIND`: this is the one loop where a name that must be looked up costs as much as the work.
    const kinds = kindOf;
    const length = text.length;
    const codes = codesOf(text);
    hits.clear();
    assignedTo = names.finders.length === 0 ? length : 0;
    let wordStart = from;
    let escaped = false;
    for (let at = from; at < length; ) {
      const kind = kinds[codes[at] ?? 0];
      if (kind === 0) {
        while (kinds[codes[++at] ?? 0] === 0);
        continue;
      }
      if (kind === 1) {
        const first = at;
        while (kinds[codes[++at] ?? 0] === 1);
        if (first > wordStart && text.charCodeAt(first - 1) !== 45) {
          // Digits within a word. Only its third character, after two letters, may begin something.
          if (first - wordStart === 2 && isLetter(text.charCodeAt(first - 1))) askPairs(text, wordStart);
        } else {
          at = digits(text, first, at, wordStart);
          if (run.wordStart > wordStart) wordStart = run.wordStart;
        }
        continue;
      }
      if (at - wordStart >= 10) ask(text, wordStart, at);
      wordStart = ++at;
      if (kind === 2) continue;
      if (kind === 3 || kind === 4) {
        asked(text, at - 1);
        if (kind === 4 && at > assignedTo && mayNameCredential(text, at - 1)) assigned(text, at - 1);
      } else if (kind === 5) {
        while (text.charCodeAt(at) === 92) at++;
        const letter = text.charCodeAt(at);
        // b, f, n, r, t
        if (letter === 110 || letter === 116 || letter === 114 || letter === 98 || letter === 102) at++;
        else if (letter === 117 || letter === 47) escaped = true;
        wordStart = at;
      } else if (folding && folds(text.charCodeAt(at - 1))) return scanFolded(text, from);
    }
    if (length - wordStart >= 10) ask(text, wordStart, length);
    for (const [index, { findAll }] of patterns.entries()) {
      hits.rank = shapes.length + index;
      findAll(text, from, (start, end) => hits.add(start, end));
    }
    const spans = hits.settled();
    return spans.length === 0 && !escaped ? NOTHING : { spans, escaped };
  }

  /** At digits that begin a word or follow `-`, up to `end`: where the pass goes on. */
  function digits(text: string, at: number, end: number, wordStart: number): number {
    run.wordStart = 0;
    if (isLetter(text.charCodeAt(at - 2)) && isLetter(text.charCodeAt(at - 3))) askPairs(text, at - 3);
    // Most are short and stand alone.
    if (end - at < MIN_DIGITS && nextGroup(text, end) === 0) return end;
    // Of what is left most are dates.
    if (end - at === 4 && isDate(text, at) && nextGroup(text, at + 10) === 0) return at + 10;
    readRun(text, at, run);
    if (run.digits < MIN_DIGITS && run.dots < 3) return run.end;
    run.attached = at > wordStart;
    // Of the parts of a word only a card is told: `card-4111…`.
    if (run.attached && run.digits < 12) return run.end;
    const last = run.end;
    if (run.groups > 2) withoutDate(text, run);
    if (run.digits < MIN_DIGITS && run.dots < 3) return last;
    const { finders, ranks } = numbers;
    for (let index = 0; index < finders.length; index++) {
      hits.rank = ranks[index] ?? 0;
      finders[index]?.(text, run, hits);
    }
    return last;
  }

  function asked(text: string, at: number): void {
    const url = text.charCodeAt(at + 1) === 47 && text.charCodeAt(at) === 58 && text.charCodeAt(at + 2) === 47;
    const asks = url ? bySlashes : byChar[text.charCodeAt(at)];
    if (asks === undefined) return;
    const { finders, ranks } = asks;
    for (let index = 0; index < finders.length; index++) {
      hits.rank = ranks[index] ?? 0;
      finders[index]?.(text, at, hits);
    }
  }

  function ask(text: string, start: number, end: number): void {
    const { finders, ranks } = words;
    for (let index = 0; index < finders.length; index++) {
      hits.rank = ranks[index] ?? 0;
      finders[index]?.(text, start, end, hits);
    }
  }

  function askPairs(text: string, at: number): void {
    const { finders, ranks } = pairs;
    for (let index = 0; index < finders.length; index++) {
      hits.rank = ranks[index] ?? 0;
      finders[index]?.(text, at, hits);
    }
  }

  function assigned(text: string, at: number): void {
    const value = namedValue(text, at);
    if (value === undefined) return;
    // Names within a long value are not looked at: a row of them would be read again for each.
    if (value.end - value.start > LONG_VALUE) assignedTo = value.end;
    const { finders, ranks } = names;
    for (let index = 0; index < finders.length; index++) {
      hits.rank = ranks[index] ?? 0;
      finders[index]?.(text, value, hits);
    }
  }

  function scanFolded(text: string, from: number): Scanned {
    const { text: plain, offsets } = fold(text);
    let start = 0;
    while (start < plain.length && (offsets[start] ?? 0) < from) start++;
    const { spans, escaped } = scan(plain, start, false);
    return {
      escaped,
      spans: spans.map(({ start, end, detector }) => {
        // Characters nobody sees stay outside: the end is the one behind the last that counts.
        const last = offsets[end - 1] ?? 0;
        return { start: offsets[start] ?? 0, end: last + ((text.codePointAt(last) ?? 0) > 0xffff ? 2 : 1), detector };
      }),
    };
  }

  return (text, from = 0) => scan(text, from, true);
}

let scratch = new Uint16Array(32_768);
/** Longer texts get a room of their own, which is let go. */
const MAX_SCRATCH = 1 << 20;

/** The characters of a text as numbers, behind them one of no kind: read one by one, an array is twice as fast as a string. */
function codesOf(text: string): Uint16Array {
  const { length } = text;
  let room = scratch;
  if (length >= room.length) {
    room = new Uint16Array(length + 1);
    if (length < MAX_SCRATCH) scratch = room;
  }
  Buffer.from(room.buffer).write(text, "utf16le");
  room[length] = 0;
  return room;
}

interface Ranked<F> {
  readonly finders: readonly F[];
  /** Of the detector of each finder. */
  readonly ranks: readonly number[];
}

function ranked<F>(detectors: readonly Detector[], pick: (detector: Detector) => F | undefined): Ranked<F> {
  const found = detectors.flatMap((detector, rank) => {
    const finder = pick(detector);
    return finder === undefined ? [] : [{ finder, rank }];
  });
  return { finders: found.map(({ finder }) => finder), ranks: found.map(({ rank }) => rank) };
}

interface Hit extends Span {
  readonly rank: number;
}

/** Gathers what the detectors find, and settles who has a place that several claim. Serves one scan after the other. */
class Hits implements Found {
  /** Of the detector that is asked; lower wins. */
  rank = 0;
  readonly #detectors: readonly Detector[];
  #found: Hit[] = [];
  #ordered = true;
  #last = 0;

  constructor(detectors: readonly Detector[]) {
    this.#detectors = detectors;
  }

  clear(): void {
    this.#found = [];
    this.#ordered = true;
    this.#last = 0;
  }

  add(start: number, end: number): void {
    const detector = this.#detectors[this.rank];
    if (detector === undefined) return;
    if (start < this.#last) this.#ordered = false;
    this.#last = end;
    this.#found.push({ start, end, detector, rank: this.rank });
  }

  /** In order, without overlaps: of two the better rank stays, of one rank the longer. */
  settled(): readonly Span[] {
    const found = this.#found;
    if (this.#ordered) return found;
    found.sort((a, b) => a.start - b.start || a.rank - b.rank || b.end - a.end);
    const kept: Hit[] = [];
    for (const hit of found) {
      let last = kept.at(-1);
      let wins = true;
      while (last !== undefined && hit.start < last.end) {
        wins = hit.rank < last.rank || (hit.rank === last.rank && hit.end - hit.start > last.end - last.start);
        if (!wins) break;
        kept.pop();
        last = kept.at(-1);
      }
      if (wins) kept.push(hit);
    }
    return kept;
  }
}

function kindsFor(detectors: readonly Detector[]): Uint8Array {
  const kinds = new Uint8Array(65_536).fill(KIND.break);
  for (let code = 0; code < 65_536; code++) {
    if (isLetter(code) || code === 95 || code === 45) kinds[code] = KIND.word;
    else if (isDigit(code)) kinds[code] = KIND.digit;
    else if (folds(code)) kinds[code] = KIND.fold;
  }
  // Whom no number interests, digits are letters.
  if (!detectors.some(({ number, pair }) => number !== undefined || pair !== undefined)) kinds.fill(KIND.word, 48, 58);
  kinds[92] = KIND.backslash;
  for (const { at } of detectors) for (const char of Object.keys(at ?? {})) kinds[char.charCodeAt(0)] = KIND.ask;
  if (detectors.some(({ named }) => named !== undefined))
    for (const char of ":=>") kinds[char.charCodeAt(0)] = KIND.name;
  return kinds;
}
