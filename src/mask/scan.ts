/**
 * One pass over a text, whatever the number of detectors: its characters are sorted into a few sets (`char-sets.ts`), 32 to a number, and
 * what the pass asks of a text is asked of those numbers: where digits begin, where a long word ends, where a character stands that a
 * shape is told by. Only there are detectors asked. No pattern is searched for twice and none backtracks, so time grows with the length
 * and nothing else. `test/mask/slow-scan.ts` is the same pass without a shortcut.
 */
import { BEYOND, type CharSets, type Codes, charSets, codesOf, PIECE, ROW } from "./char-sets.ts";
import { mayNameIn, namedValue } from "./credential-names.ts";
import { type Detector, type Finder, type Found, isAlnum, isHex, pairIndex, type Words } from "./detector.ts";
import { fold, folds } from "./fold.ts";
import { digitsEnd, emptyRun, JOINS, lengthBit, readRun } from "./number-run.ts";
import type { Pattern } from "./patterns.ts";

/** A private part of a text: UTF-16 code units, `end` exclusive. */
export interface Span {
  readonly start: number;
  readonly end: number;
  readonly detector: Detector;
}

/** A span as it was found. */
export interface FoundSpan extends Span {
  /** The last quote before it that has no backslash before it, -1 when there is none: in JSON the string it is in begins there. */
  readonly quote: number;
}

export interface Scanned {
  /** In order, none overlaps another. */
  readonly spans: readonly FoundSpan[];
  /** The text holds `\u…` or `\/`: as the text of JSON it may say more once it is decoded. */
  readonly escaped: boolean;
}

/** Scans `text` from `from` on; what stands before is looked back to, but nothing is found there. */
export type Scan = (text: string, from?: number) => Scanned;

const LONG_VALUE = 48;
const NOTHING: Scanned = { spans: [], escaped: false };

/** Prepares a scan for some detectors; those that come first win where two find the same place, patterns come last. */
export function compileScan(shapes: readonly Detector[], patterns: readonly Pattern[] = []): Scan {
  const detectors = [...shapes, ...patterns];
  const sets = setsFor(detectors);
  const byChar = Array.from({ length: 128 }, (_, code) =>
    ranked(detectors, ({ at }) => at?.[String.fromCharCode(code)]),
  );
  const bySlashes = ranked(detectors, ({ at }) => at?.["://"]);
  const byColons = ranked(detectors, ({ at }) => at?.["::"]);
  const byHex = ranked(detectors, ({ at }) => at?.["f:"]);
  const words = ranked(detectors, ({ word }) => word?.find);
  const [firstAsks, lastAsks, behindAsks, lengthAsks] = wordAsks(
    detectors.flatMap(({ word }) => (word === undefined ? [] : [word])),
  );
  const numbers = ranked(detectors, ({ number }) => number);
  const groupsAsked = numbers.finders.map(
    ({ groups }) => groups?.reduce((bits, length) => bits | lengthBit(length), 0) ?? -1,
  );
  const pairs = ranked(detectors, ({ pair }) => pair?.find);
  const pairAsks = asksOfPairs(detectors.flatMap(({ pair }) => (pair === undefined ? [] : [pair.of])));
  const names = ranked(detectors, ({ named }) => named);
  const run = emptyRun();
  const hits = new Hits(detectors);
  let assignedTo = 0;

  function scan(text: string, from: number, folding: boolean): Scanned {
    const { length } = text;
    const codes = codesOf(text);
    hits.clear(from);
    assignedTo = names.finders.length === 0 ? length : 0;
    // Names of this loop: what is looked up in another scope or module costs as much as the work, and this is where the time goes.
    const { bits } = sets;
    const colons = COLONS;
    const naming = NAMING;
    const joining = JOINS;
    const numbersRead = readRun;
    const mayName = mayNameIn;
    /** What stands before has been dealt with. */
    let at = from;
    /** No word begins before it: a run of numbers that was read reaches so far. */
    let floor = from;
    let lastBreak = from - 1;
    let escaped = false;
    // Of the block before, for what reaches from one into the next.
    let digitBefore = 0;
    let letterBefore = 0;
    let jointBefore = 0;
    let wordBefore = 0;
    let twoBefore = 0;
    let fourBefore = 0;
    let tenBefore = 0;
    let backslashBefore = 0;
    for (let piece = from; piece <= length; piece += PIECE) {
      const blocks = sets.sort(codes, piece, length);
      for (let block = 0; block < blocks; block++) {
        const base = (piece + block * 32) | 0;
        const row = block * ROW;
        if (bits[row + BEYOND] !== 0 && folding && foldsIn(codes, base)) return scanFolded(text, from);
        const digit = bits[row + DIGIT] ?? 0;
        const joint = bits[row + JOINT] ?? 0;
        const asked = bits[row + ASKED] ?? 0;
        const backslash = bits[row + BACKSLASH] ?? 0;
        const after = (backslash << 1) | (backslashBefore >>> 31);
        hits.base = base;
        hits.quotes = (bits[row + QUOTE] ?? 0) & ~after;
        let letter = bits[row + LETTER] ?? 0;
        if (after !== 0) {
          if ((after & (bits[row + UNREAD] ?? 0)) !== 0) escaped = true;
          // The letter of `\n` belongs to no word.
          letter &= ~(after & (bits[row + ESCAPE] ?? 0));
        }
        const word = digit | letter | joint;
        const first = digit & ~((digit << 1) | (digitBefore >>> 31));
        const begins = first & (~((word << 1) | (wordBefore >>> 31)) | (joint << 1) | (jointBefore >>> 31));
        const letter2 = (letter << 2) | (letterBefore >>> 30);
        const hyphened = begins & letter2 & ((letter << 3) | (letterBefore >>> 29));
        const paired = first & ((letter << 1) | (letterBefore >>> 31)) & letter2 & ~((word << 3) | (wordBefore >>> 29));
        // Of a word: two in a row, four, eight, ten.
        const two = word & ((word << 1) | (wordBefore >>> 31));
        const four = two & ((two << 2) | (twoBefore >>> 30));
        const ten = four & ((four << 4) | (fourBefore >>> 28)) & ((two << 8) | (twoBefore >>> 24));
        const ends = ~word & ((ten << 1) | (tenBefore >>> 31));
        for (let places = begins | paired | ends | asked; places !== 0; places &= places - 1) {
          const place = places & -places;
          const here = (base + 31 - Math.clz32(place)) | 0;
          if (here < at) continue;
          if ((begins & place) !== 0) {
            const before = here > from ? (codes[here - 1] ?? 0) : 0;
            if (before === UNDERSCORE) continue;
            if ((hyphened & place) !== 0) askPair(text, codes, here - 3);
            const others = ~digit & -place;
            const end = (others === 0 ? digitsEnd(codes, base + 32) : base + 31 - Math.clz32(others & -others)) | 0;
            // Most are short and stand alone.
            if (end - here < 6 && joining[codes[end] ?? 0] === 0) continue;
            at = numbersRead(codes, here, end, before === HYPHEN, run) | 0;
            if (before === HYPHEN) {
              // The word that these digits go on with may end within the run: of `hvs.…-123 200` behind the first of its numbers.
              const behind = ~word & -place;
              const last = (behind === 0 ? wordEnd(codes, base + 32) : base + 31 - Math.clz32(behind & -behind)) | 0;
              const gap = ~word & (place - 1);
              const begin = (gap === 0 ? lastBreak + 1 : base + 32 - Math.clz32(gap)) | 0;
              const start = floor > begin ? floor : begin;
              if (last < at && last - start >= 10) askWord(text, codes, start, last);
            }
            if (run.wordStart > floor) floor = run.wordStart | 0;
            if (run.digits !== 0) askNumber(text, codes);
            continue;
          }
          if ((ends & place) !== 0) {
            const gap = ~word & (place - 1);
            const begin = (gap === 0 ? lastBreak + 1 : base + 32 - Math.clz32(gap)) | 0;
            const start = floor > begin ? floor : begin;
            if (here - start >= 10) askWord(text, codes, start, here);
          }
          if ((asked & place) !== 0) {
            const code = codes[here] ?? 0;
            if (code !== COLON) askAt(byChar[code], text, codes, here);
            else if (((colons[codes[here + 1] ?? 0] ?? 0) | (here > 0 ? (colons[codes[here - 1] ?? 0] ?? 0) : 0)) !== 0)
              askColon(text, codes, here);
            if (naming[code] === 1 && here > 1 && mayName(codes, here) && here >= assignedTo) assigned(text, here);
          } else if ((paired & place) !== 0) askPair(text, codes, here - 2);
        }
        if (hits.quotes !== 0) hits.lastQuote = (base + 31 - Math.clz32(hits.quotes)) | 0;
        if (word !== -1) lastBreak = (base + 31 - Math.clz32(~word)) | 0;
        digitBefore = digit;
        letterBefore = letter;
        jointBefore = joint;
        wordBefore = word;
        twoBefore = two;
        fourBefore = four;
        tenBefore = ten;
        backslashBefore = backslash;
      }
    }
    hits.endBlocks();
    for (const [index, { findAll }] of patterns.entries()) {
      hits.rank = shapes.length + index;
      findAll(text, from, (start, end) => hits.add(start, end));
    }
    const spans = hits.settled();
    return spans.length === 0 && !escaped ? NOTHING : { spans, escaped };
  }

  function askNumber(text: string, codes: Codes): void {
    const { finders, ranks } = numbers;
    const { digits, dots, attached, lengths } = run;
    for (let index = 0; index < finders.length; index++) {
      if (((groupsAsked[index] ?? 0) & lengths) === 0) continue;
      const asked = finders[index];
      if (asked === undefined || (asked.digits === 0 ? dots < 3 : digits < asked.digits)) continue;
      if (attached && asked.attached !== true) continue;
      hits.rank = ranks[index] ?? 0;
      asked.find(text, run, hits, codes);
    }
  }

  function askColon(text: string, codes: Codes, at: number): void {
    const next = codes[at + 1] ?? 0;
    if (next === SLASH && codes[at + 2] === SLASH) askAt(bySlashes, text, codes, at);
    else if (at > 0 && isHex(codes[at - 1] ?? 0)) askAt(byHex, text, codes, at);
    else if (next === COLON) askAt(byColons, text, codes, at);
  }

  function askAt(asks: Ranked<Finder> | undefined, text: string, codes: Codes, at: number): void {
    if (asks === undefined) return;
    const { finders, ranks } = asks;
    for (let index = 0; index < finders.length; index++) {
      hits.rank = ranks[index] ?? 0;
      finders[index]?.(text, at, hits, codes);
    }
  }

  function askWord(text: string, codes: Codes, start: number, end: number): void {
    let before = start > 0 ? (codes[start - 1] ?? 0) : 0;
    if ((before === 34 || before === 39) && start > 1 && codes[start - 2] === BLANK) before = BLANK;
    let first = start;
    while (first < end && (codes[first] === HYPHEN || codes[first] === UNDERSCORE)) first++;
    let asks =
      (firstAsks[codes[start] ?? 0] ?? 0) |
      (firstAsks[codes[first] ?? 0] ?? 0) |
      (lastAsks[codes[end - 1] ?? 0] ?? 0) |
      (behindAsks[before] ?? 0) |
      (lengthAsks[end - start] ?? 0);
    for (; asks !== 0; asks &= asks - 1) {
      const index = 31 - Math.clz32(asks & -asks);
      hits.rank = words.ranks[index] ?? 0;
      words.finders[index]?.(text, start, end, hits);
    }
  }

  function askPair(text: string, codes: Codes, at: number): void {
    let asks = pairAsks[(((codes[at] ?? 0) & 31) << 5) | ((codes[at + 1] ?? 0) & 31)] ?? 0;
    for (; asks !== 0; asks &= asks - 1) {
      const index = 31 - Math.clz32(asks & -asks);
      hits.rank = pairs.ranks[index] ?? 0;
      pairs.finders[index]?.(text, at, hits, codes);
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
      spans: spans.map(({ start, end, detector, quote }) => {
        // Characters nobody sees stay outside: the end is the one behind the last that counts.
        const last = offsets[end - 1] ?? 0;
        return {
          start: offsets[start] ?? 0,
          end: last + ((text.codePointAt(last) ?? 0) > 0xffff ? 2 : 1),
          detector,
          quote: offsets[quote] ?? -1,
        };
      }),
    };
  }

  return (text, from = 0) => scan(text, from, true);
}

/** Behind the letters, digits, hyphens and underscores at `at`. */
function wordEnd(codes: Codes, at: number): number {
  let end = at;
  for (let code = codes[end] ?? 0; isAlnum(code) || code === HYPHEN || code === UNDERSCORE; code = codes[++end] ?? 0);
  return end;
}

/** A character of these 32 is another way to write ASCII. */
function foldsIn(codes: Codes, from: number): boolean {
  for (let at = from; at < from + 32; at++) if (folds(codes[at] ?? 0)) return true;
  return false;
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

interface Hit extends FoundSpan {
  readonly rank: number;
}

/** Gathers what the detectors find, and settles who has a place that several claim. Serves one scan after the other. */
class Hits implements Found {
  /** Of the detector that is asked; lower wins. */
  rank = 0;
  /** Of the block that is read: where it begins, its quotes without backslash, and the last of them before it. */
  base = 0;
  quotes = 0;
  lastQuote = -1;
  readonly #detectors: readonly Detector[];
  #found: Hit[] = [];
  #ordered = true;
  #last = 0;
  #from = 0;

  constructor(detectors: readonly Detector[]) {
    this.#detectors = detectors;
  }

  /** Nothing is found before `from`: whatever is said to begin there begins at it. */
  clear(from: number): void {
    this.#from = from;
    this.#found = [];
    this.#ordered = true;
    this.#last = 0;
    this.lastQuote = -1;
  }

  add(begin: number, end: number): void {
    const detector = this.#detectors[this.rank];
    if (detector === undefined) return;
    const start = begin < this.#from ? this.#from : begin;
    if (start < this.#last) this.#ordered = false;
    this.#last = end;
    this.#found.push({ start, end, detector, rank: this.rank, quote: this.#quoteBefore(start) });
  }

  /** What is added from now on stands anywhere, so nothing is known of the quote before it. */
  endBlocks(): void {
    this.base = Number.MAX_SAFE_INTEGER;
    this.lastQuote = -1;
  }

  #quoteBefore(at: number): number {
    const within = at - this.base;
    const before = within < 0 ? 0 : within < 32 ? this.quotes & ((1 << within) - 1) : this.quotes;
    return before === 0 ? this.lastQuote : this.base + 31 - Math.clz32(before);
  }

  /** In order, without overlaps: of two the better rank stays, of one rank the longer. */
  settled(): readonly FoundSpan[] {
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

const BLANK = 32;
const HYPHEN = 45;
const SLASH = 47;
const COLON = 58;
const UNDERSCORE = 95;
/** 1 for what stands behind or before a colon at which somebody may be asked: hexadecimal digits, colons, slashes. */
const COLONS = new Uint8Array(65_536);
for (const char of "0123456789abcdefABCDEF:/") COLONS[char.charCodeAt(0)] = 1;
/** `:`, `=`, `>`: the name of a credential may stand before them. */
const NAMING = new Uint8Array(65_536);
for (const char of ":=>|") NAMING[char.charCodeAt(0)] = 1;

/** By `pairIndex`: who asks for those two letters, a bit for each. */
function asksOfPairs(lists: readonly (readonly string[])[]): Uint32Array {
  const table = new Uint32Array(1024);
  for (const [index, pairs] of lists.entries())
    for (const pair of pairs) table[pairIndex(pair, 0)] = (table[pairIndex(pair, 0)] ?? 0) | (1 << index);
  return table;
}

/** By the character that begins a word, ends it, or stands before it, and by its length: who asks for that word, a bit for each. */
function wordAsks(words: readonly Words[]): readonly [Uint32Array, Uint32Array, Uint32Array, Uint32Array] {
  const asks = (pick: (word: Words) => readonly number[]): Uint32Array => {
    const table = new Uint32Array(128);
    for (const [index, word] of words.entries())
      for (const place of pick(word)) table[place] = (table[place] ?? 0) | (1 << index);
    return table;
  };
  const codes = (chars = "") => [...chars].map((char) => char.charCodeAt(0));
  return [
    asks(({ first }) => codes(first)),
    asks(({ last }) => codes(last)),
    asks(({ behind }) => codes(behind)),
    asks(({ lengths }) => lengths ?? []),
  ];
}

// The sets that the pass looks at, by their numbers.
const [DIGIT, LETTER, JOINT, ASKED, BACKSLASH, ESCAPE, UNREAD, QUOTE] = [0, 1, 2, 3, 4, 5, 6, 7];
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const DIGITS = "0123456789";

function setsFor(detectors: readonly Detector[]): CharSets {
  // Whom no number interests, digits are letters.
  const numbers = detectors.some(({ number, pair }) => number !== undefined || pair !== undefined);
  const asked = new Set(detectors.flatMap(({ at }) => Object.keys(at ?? {}).map((key) => key.charAt(0))));
  if (detectors.some(({ named }) => named !== undefined)) for (const char of ":=>|") asked.add(char);
  const digits = numbers ? DIGITS : "";
  const joints = numbers ? "-_" : `-_${DIGITS}`;
  return charSets([digits, LETTERS, joints, [...asked].join(""), "\\", "bfnrt", "u/", '"']);
}
