/**
 * The pass over a text as one would write it first: character by character, every detector asked at every place that it could want,
 * no shortcut taken. `scan.test.ts` holds the real one to it.
 */
import { namedValue } from "../../src/mask/credential-names.ts";
import type { Detector, Found } from "../../src/mask/detector.ts";
import { emptyRun, lengthBit, type NumberRun, type Writable } from "../../src/mask/number-run.ts";

export interface SlowSpan {
  readonly start: number;
  readonly end: number;
  readonly type: string;
}

interface Hit extends SlowSpan {
  readonly rank: number;
}

/** Of a text without characters that are folded. */
export function slowScan(detectors: readonly Detector[], text: string): readonly SlowSpan[] {
  const codes = Uint16Array.from({ length: text.length + 100 }, (_, at) => text.charCodeAt(at) || 0);
  const hits: Hit[] = [];
  const ask = (asks: (detector: Detector, found: Found) => void): void => {
    for (const [rank, detector] of detectors.entries())
      asks(detector, { add: (start, end) => hits.push({ start, end, type: detector.type, rank }) });
  };
  const askPair = (at: number): void => {
    const letters = text.slice(Math.max(0, at), Math.max(0, at + 2)).toUpperCase();
    if (/^[A-Z]{2}$/.test(letters))
      ask(({ pair }, found) => {
        if (pair?.of.includes(letters)) pair.find(text, at, found, codes);
      });
  };

  // Whom no number interests, digits are letters.
  const letters = detectors.some(({ number, pair }) => number ?? pair) ? /[A-Za-z_-]/ : /[\w-]/;
  let wordStart = 0;
  let escapeEnd = 0;
  let assignedTo = 0;
  const wordEndsAt = (at: number): void => {
    if (at - wordStart >= 10) ask(({ word }, found) => word?.find(text, wordStart, at, found));
  };
  for (let at = 0; at < text.length; ) {
    const char = text[at] ?? "";
    if (letters.test(char)) {
      at++;
    } else if (/\d/.test(char) && at > wordStart && text[at - 1] !== "-") {
      if (at - wordStart === 2) askPair(wordStart);
      at += matched(/\d+/y, text, at).length;
    } else if (/\d/.test(char)) {
      if (at - 3 >= escapeEnd) askPair(at - 3);
      const { run, end, word } = runAt(text, at, at > wordStart);
      const { digits, dots, attached } = run;
      if ((digits >= 6 || dots >= 3) && !(attached && digits < 12))
        ask(({ number }, found) => {
          if (number === undefined || (attached && number.attached !== true)) return;
          if (number.digits === 0 ? dots >= 3 : digits >= number.digits) number.find(text, run, found, codes);
        });
      // The word that these digits go on with may end among them.
      const last = at + matched(/[\w-]*/y, text, at).length;
      if (text[at - 1] === "-" && last < end) wordEndsAt(last);
      wordStart = Math.max(wordStart, word);
      at = end;
    } else if (char === "\\") {
      wordEndsAt(at);
      at += matched(/\\+[bfnrt]?/y, text, at).length;
      wordStart = at;
      escapeEnd = at;
    } else {
      wordEndsAt(at);
      const colon = text.startsWith("://", at) ? "://" : "::";
      const place = at++;
      wordStart = at;
      ask((detector, found) => detector.at?.[char === ":" ? colon : char]?.(text, place, found, codes));
      const value = /[:=>|]/.test(char) && place >= assignedTo ? namedValue(text, place) : undefined;
      if (value === undefined) continue;
      if (value.end - value.start > 48) assignedTo = value.end;
      ask(({ named }, found) => named?.(text, value, found));
    }
  }
  wordEndsAt(text.length);
  return settled(hits);
}

/** The groups of digits at `at`, a date in front of them taken off; where they end; where the word begins that the last is part of. */
function runAt(text: string, at: number, attached: boolean): { run: NumberRun; end: number; word: number } {
  const groups: { start: number; digits: string }[] = [];
  let [end, dots, word] = [at, 0, 0];
  for (let gap = ""; groups.length < 16; ) {
    const digits = matched(/\d+/y, text, end + gap.length);
    if (gap === ".") dots++;
    if (groups.length > 0 && gap !== "-") word = end + gap.length;
    groups.push({ start: end + gap.length, digits });
    end += gap.length + digits.length;
    gap = matched(/(?:[ ()-]{1,3}|[./])(?=\d)/y, text, end);
    if (gap === "" || end + gap.length - at > 64) break;
  }
  const count = () => groups.reduce((sum, { digits }) => sum + digits.length, 0);
  const dated = !(attached && count() < 12) && isDate(text.slice(at, groups[3]?.start ?? end), groups.length);
  if (dated) groups.splice(0, 3);
  const run: Writable<NumberRun> = emptyRun();
  for (const [index, { start, digits }] of groups.entries()) {
    run.starts[index] = start;
    run.ends[index] = start + digits.length;
    run.lengths |= lengthBit(digits.length);
  }
  run.groups = groups.length;
  run.start = groups[0]?.start ?? end;
  run.end = end;
  run.digits = count();
  run.dots = dots;
  run.attached = attached && !dated;
  run.lettersAfter = /[A-Za-z_]/.test(text[end] ?? "");
  return { run, end, word };
}

function isDate(text: string, groups: number): boolean {
  const [, year = "", , month = "", day = ""] = /^(\d{4})([-./])(\d{1,2})\2(\d{1,2})(?!\d)/.exec(text) ?? [];
  const [, one = "", , two = "", last = ""] = /^(\d{1,2})([-./])(\d{1,2})\2(\d{4})(?!\d)/.exec(text) ?? [];
  if (groups < 3 || (year === "" && last === "")) return false;
  const parts = year === "" ? [Number(one), Number(two)].toSorted((a, b) => a - b) : [Number(month), Number(day)];
  const [m = 0, d = 0] = parts;
  const y = Number(year === "" ? last : year);
  return y >= 1900 && y <= 2199 && m >= 1 && m <= 12 && d >= 1 && d <= 31;
}

function matched(expression: RegExp, text: string, at: number): string {
  expression.lastIndex = at;
  return expression.exec(text)?.[0] ?? "";
}

/** Of two that overlap the better rank stays, of one rank the longer. */
function settled(hits: readonly Hit[]): readonly SlowSpan[] {
  const kept: Hit[] = [];
  for (const hit of hits.toSorted((a, b) => a.start - b.start || a.rank - b.rank || b.end - a.end)) {
    for (;;) {
      const last = kept.at(-1);
      if (last === undefined || hit.start >= last.end) {
        kept.push(hit);
        break;
      }
      if (hit.rank > last.rank || (hit.rank === last.rank && hit.end - hit.start <= last.end - last.start)) break;
      kept.pop();
    }
  }
  return kept.map(({ start, end, type }) => ({ start, end, type }));
}
