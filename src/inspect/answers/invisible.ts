/** Characters of an answer that nobody sees but a model reads, or that a terminal obeys: which of them are taken out. */

/** Where in a text something is taken out. UTF-16 code units, `end` exclusive. */
export interface Removal {
  readonly start: number;
  readonly end: number;
  readonly what: "control" | "ansi" | "bidi" | "tag" | "zero-width" | "variation";
}

/** Texts without one of these have nothing to take out. */
const SUSPECT =
  /\u034f|[\ufe00-\ufe0f]|[\u180b-\u180f]|[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|\udb40/;
const ESC = 0x1b;
/** So many characters beyond ASCII are looked at in one step. */
const TURN = 2000;
/** The flags of England, Scotland and Wales, and those of American states; any other run of tags spells a text that nobody sees. */
const FLAG_TAGS = /^(?:gb(?:eng|sct|wls)|us[a-z]{2})$/;

/** True when a text may hold a character that `removals` takes out. */
export function mayHide(text: string): boolean {
  return SUSPECT.test(text);
}

/**
 * What is taken out of a text: control characters but tab and line ends, escape sequences of terminals, bidirectional controls, tag
 * characters, and those of no width that do nothing for the letters around them. Joiners in emoji and Indic or Arabic words,
 * variation selectors behind what they vary, and direction marks beside letters written from the right stay. Linear.
 */
export function removals(text: string): readonly Removal[] {
  const steps = removing(text);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

/** The same in steps of a few milliseconds. */
export function* removing(text: string): Generator<void, readonly Removal[]> {
  if (!SUSPECT.test(text)) return [];
  const found: Removal[] = [];
  const terminators = new Terminators(text);
  let looked = 0;
  for (let at = 0; at < text.length; ) {
    const code = text.codePointAt(at) ?? 0;
    const end = at + (code > 0xffff ? 2 : 1);
    if (code >= 0x20 && code < 0x7f) {
      at = end;
      continue;
    }
    if (++looked % TURN === 0) yield;
    if (code === 0x1f3f4) {
      at = flagEnd(text, end);
      continue;
    }
    const removed = removedAt(text, at, end, code, terminators);
    const last = found.at(-1);
    // A row of them goes at once.
    if (removed !== undefined && last?.end === removed.start && last.what === removed.what)
      found[found.length - 1] = { ...removed, start: last.start };
    else if (removed !== undefined) found.push(removed);
    at = removed?.end ?? end;
  }
  return found;
}

function removedAt(
  text: string,
  start: number,
  end: number,
  code: number,
  terminators: Terminators,
): Removal | undefined {
  if (code === ESC || (code >= 0x80 && code <= 0x9f && code !== 0x85)) {
    const sequence = sequenceEnd(text, start, terminators);
    return { start, end: sequence, what: sequence > end ? "ansi" : "control" };
  }
  if (code < 0x20 || code === 0x7f || code === 0x85) {
    return code === 9 || code === 10 || code === 13 ? undefined : { start, end, what: "control" };
  }
  if ((code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x206f)) return { start, end, what: "bidi" };
  if (code >= 0xe0000 && code <= 0xe007f) return { start, end, what: "tag" };
  if (code === 0x200e || code === 0x200f || code === 0x61c) {
    return besideRightToLeft(text, start, end) ? undefined : { start, end, what: "bidi" };
  }
  if (isSelector(code)) return varies(text, start, code) ? undefined : { start, end, what: "variation" };
  return isZeroWidth(code) && !joins(text, start, end, code) ? { start, end, what: "zero-width" } : undefined;
}

function isSelector(code: number): boolean {
  return (
    (code >= 0xfe00 && code <= 0xfe0f) || (code >= 0xe0100 && code <= 0xe01ef) || (code >= 0x180b && code <= 0x180f)
  );
}

function isZeroWidth(code: number): boolean {
  return (
    (code >= 0x200b && code <= 0x200d) ||
    (code >= 0x2060 && code <= 0x2065) ||
    code === 0xad ||
    code === 0x34f ||
    code === 0xfeff ||
    code === 0x115f ||
    code === 0x1160 ||
    code === 0x3164 ||
    code === 0xffa0 ||
    code === 0x17b4 ||
    code === 0x17b5 ||
    (code >= 0xfff9 && code <= 0xfffb)
  );
}

/** Scripts whose words are written with joiners, or parted by spaces that have no width. */
const JOINED =
  /[\p{Script=Arabic}\p{Script=Syriac}\p{Script=Mongolian}\p{Script=Devanagari}\p{Script=Bengali}\p{Script=Gurmukhi}\p{Script=Gujarati}\p{Script=Oriya}\p{Script=Tamil}\p{Script=Telugu}\p{Script=Kannada}\p{Script=Malayalam}\p{Script=Sinhala}\p{Script=Khmer}\p{Script=Thai}\p{Script=Lao}\p{Script=Myanmar}\p{Script=Tibetan}\p{Script=Javanese}\p{Script=Balinese}]/u;
const PARTED =
  /[\p{Script=Khmer}\p{Script=Thai}\p{Script=Lao}\p{Script=Myanmar}\p{Script=Tibetan}\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]/u;
const EMOJI = /[\p{Extended_Pictographic}\p{Emoji_Modifier}\u{1f1e6}-\u{1f1ff}\ufe0f\u20e3]/u;
const HANGUL = /\p{Script=Hangul}/u;
const LETTER = /\p{L}/u;
const RIGHT_TO_LEFT = /[\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;

/** A character of no width that the ones beside it need. Of several in a row none is needed. */
function joins(text: string, start: number, end: number, code: number): boolean {
  const before = charBefore(text, start);
  const after = charAt(text, end);
  if (code === 0xfeff) return start === 0 && end < text.length && !SUSPECT.test(after);
  if (code === 0x200d && EMOJI.test(before)) return EMOJI.test(after);
  if (code === 0x200c || code === 0x200d) return JOINED.test(before) && (JOINED.test(after) || !SUSPECT.test(after));
  if (code === 0x200b || code === 0x2060) return PARTED.test(before) && PARTED.test(after);
  // A soft hyphen parts a long word; several in one word spell something else.
  if (code === 0xad)
    return LETTER.test(before) && LETTER.test(after) && !text.slice(Math.max(0, start - 3), start).includes("\xad");
  if (code === 0x115f || code === 0x1160 || code === 0xffa0) return HANGUL.test(before) || HANGUL.test(after);
  return false;
}

/** A selector that varies the one character before it. */
function varies(text: string, start: number, code: number): boolean {
  const before = charBefore(text, start);
  if (code === 0xfe0e || code === 0xfe0f) return /[\p{Emoji}\p{So}\p{Sm}\u2000-\u33ff]/u.test(before);
  if (code <= 0x180f) return /\p{Script=Mongolian}/u.test(before) && !isSelector(before.codePointAt(0) ?? 0);
  return /[\p{Script=Han}\p{Sm}\p{Script=Myanmar}\p{Script=Phags_Pa}]/u.test(before);
}

/** A letter written from the right stands within two characters; marks in a row stand beside one another only. */
function besideRightToLeft(text: string, start: number, end: number): boolean {
  return RIGHT_TO_LEFT.test(text.slice(Math.max(0, start - 2), start) + text.slice(end, end + 2));
}

function charBefore(text: string, at: number): string {
  const low = text.charCodeAt(at - 1);
  return low >= 0xdc00 && low <= 0xdfff ? text.slice(at - 2, at) : text.slice(Math.max(0, at - 1), at);
}

function charAt(text: string, at: number): string {
  const code = text.codePointAt(at);
  return code === undefined ? "" : String.fromCodePoint(code);
}

/** Behind the tags of a flag that begins before `at`; `at` when they spell no flag that there is. */
function flagEnd(text: string, at: number): number {
  let tags = "";
  let end = at;
  for (; tags.length <= 6; end += 2) {
    const code = text.codePointAt(end) ?? 0;
    if (code === 0xe007f) return FLAG_TAGS.test(tags) ? end + 2 : at;
    if (code < 0xe0030 || code > 0xe007a) return at;
    tags += String.fromCharCode(code - 0xe0000);
  }
  return at;
}

const CSI = /[0-?]{0,64}[ -/]{0,8}[@-~]/y;
const SHORT = /[ -/]{0,4}[0-~]/y;

/** Where an escape sequence (ECMA-48) that begins at `at` ends; one character when it is none. */
function sequenceEnd(text: string, at: number, terminators: Terminators): number {
  const escaped = text.charCodeAt(at) === ESC;
  const kind = escaped ? text.charCodeAt(at + 1) : text.charCodeAt(at) - 0x40;
  const body = at + (escaped ? 2 : 1);
  // CSI; then OSC, DCS, SOS, PM and APC, whose text ends with ST or BEL.
  if (kind === 0x5b) return matchEnd(CSI, text, body) ?? body;
  if (kind === 0x5d || kind === 0x50 || kind === 0x58 || kind === 0x5e || kind === 0x5f) return terminators.after(body);
  return escaped ? (matchEnd(SHORT, text, at + 1) ?? body - 1) : body;
}

function matchEnd(pattern: RegExp, text: string, at: number): number | undefined {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : undefined;
}

/** Finds the ends of control strings. Remembers the next one, so that many unended beginnings cost one search. */
class Terminators {
  readonly #text: string;
  #next = -1;
  #end = -1;

  constructor(text: string) {
    this.#text = text;
  }

  /** Behind the terminator of the string that begins at `at`; `at` when it has none in this line. */
  after(at: number): number {
    if (this.#next < at) this.#find(at);
    const line = this.#text.slice(at, Math.min(this.#next, at + 4096));
    return this.#next < this.#text.length && this.#next - at <= 4096 && !line.includes("\n") ? this.#end : at;
  }

  #find(at: number): void {
    const ends = /\x07|\x1b\\|\x9c/g;
    ends.lastIndex = at;
    const match = ends.exec(this.#text);
    this.#next = match?.index ?? this.#text.length;
    this.#end = match === null ? this.#text.length : ends.lastIndex;
  }
}
