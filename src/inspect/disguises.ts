/** Other readings of a text: what is decoded from it, or what it says when it is put right. Each leads back to the original. */
import { type Disguise, type Hidden, normalise, type View } from "./normalise.ts";
import { known } from "./phrases.ts";

/** Of one text no more encoded pieces than this are decoded, each up to so many characters. */
const MAX_PIECES = 16;
const MAX_PIECE = 16_384;

/** What the author of `text` may have hidden in its plain view: every other way to read it that gives words. */
export function disguisedViews(plain: View, raw: string, hidden: readonly Hidden[]): readonly View[] {
  const { text } = plain;
  return [
    ...decoded(plain, BASE64, "base64", fromBase64),
    ...decoded(plain, HEX, "hexadecimal", (piece) => fromBytes(piece.replace(/[^0-9a-f]/gi, ""), "hex")),
    ...decoded(plain, PERCENT, "percent encoding", fromPercent),
    ...spaced(plain),
    ...leet(plain),
    ...whole(plain, "rot13", ROT13, (char) => ROT13_LETTERS.get(char) ?? char),
    ...(hidden.some(({ disguise }) => disguise === "direction override") || REVERSED.test(text)
      ? [reversed(plain, raw)]
      : []),
  ];
}

const BASE64 = /[A-Za-z0-9+/_-]{20,16384}={0,2}/g;
const HEX = /(?:(?:0x|\\x)?[0-9a-fA-F]{2}[\s,:]{0,2}){12,8192}/g;
const PERCENT = /(?:%[0-9a-fA-F]{2}[\w.~-]{0,3}){6,2048}/g;
/** Words that are seldom anything else but turned English. */
const ROT13 = /\b(?:vtaber|orsber|cnffjbeq|hfre|gbby|gur|vafgehpgvbaf|cerivbhf|fraq|arire|pbagragf|flfgrz)\b/gi;
const REVERSED = /\b(?:erongi|snoitcurtsni|suoiverp|erofeb|drowssap|stnetnoc|metsys|noitcurtsni)\b/i;

function* decoded(
  plain: View,
  pattern: RegExp,
  disguise: Disguise,
  decode: (piece: string) => string | undefined,
): Generator<View> {
  let pieces = 0;
  for (const match of plain.text.matchAll(pattern)) {
    if (pieces >= MAX_PIECES) return;
    const piece = match[0].slice(0, MAX_PIECE);
    const text = decode(piece);
    if (text === undefined || !readable(text)) continue;
    pieces++;
    const start = plain.offsets?.[match.index] ?? match.index;
    const end = plain.offsets?.[match.index + piece.length] ?? match.index + piece.length;
    yield everywhere(normalise(text).plain.text, start, end, disguise);
  }
}

/** A view whose every character comes from one piece of the original. */
function everywhere(text: string, start: number, end: number, disguise: Disguise): View {
  const offsets = new Uint32Array(text.length + 1).fill(start);
  offsets[text.length] = end;
  // A span that ends before the last character should still show the whole piece.
  for (let at = 1; at < text.length; at++) offsets[at] = end;
  return { text, offsets, disguise };
}

const ENCODED_AGAIN = /^[A-Za-z0-9+/]{20,16384}={0,2}$/;

function fromBase64(piece: string): string | undefined {
  // Words of an identifier or a path are base64 by their letters, too: real base64 mixes cases or ends in padding.
  if (!/[a-z]/.test(piece) || !(/[A-Z]/.test(piece) || piece.includes("="))) return undefined;
  const text = fromBytes(piece, /[-_]/.test(piece) ? "base64url" : "base64");
  return text !== undefined && ENCODED_AGAIN.test(text) ? Buffer.from(text, "base64").toString("utf8") : text;
}

function fromBytes(piece: string, encoding: "base64" | "base64url" | "hex"): string | undefined {
  if (encoding === "hex" && piece.length % 2 !== 0) return fromBytes(piece.slice(0, -1), encoding);
  return Buffer.from(piece, encoding).toString("utf8");
}

function fromPercent(piece: string): string | undefined {
  try {
    return decodeURIComponent(piece);
  } catch {
    return undefined; // Not UTF-8: no text.
  }
}

function readable(text: string): boolean {
  if (text.length < 8) return false;
  let printable = 0;
  let letters = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 0xfffd) return false;
    if ((code >= 32 && code < 127) || code === 10 || code === 9 || code > 0xa0) printable++;
    if (code === 32 || (code >= 97 && code <= 122) || code > 0x3000) letters++;
  }
  return printable === text.length && (letters * 3 >= text.length * 2 || runs(text));
}

const RUNS =
  /https?:\/\/\S{4,}|\/(?:bin|tmp|dev|etc)\/\S|(?:\||&&|;)\s?(?:ba|z)?sh\b|\b(?:curl|wget|bash|powershell|chmod|rm\s-\w{1,3}|nc\s-\w|eval|exec|os\.system|subprocess)\b/;

/** Whether a text that was decoded is something to run, or to fetch what is run from. */
export function runs(decoded: string): boolean {
  return RUNS.test(decoded.slice(0, 4096));
}

/** Letters and what parts them share no character: a run is read in one way only. */
const SPACED = /(?<![\p{L}\p{N}])(?:[\p{L}\p{N}@$!~/;:,'][ .\-_*|\t]{1,4}){9,4000}[\p{L}\p{N}]?/gu;

/** `i g n o r e   a l l`: letters that stand apart, joined. Where words stand no wider apart than letters, the lexicon parts them. */
function* spaced(plain: View): Generator<View> {
  const { text } = plain;
  const at = (index: number) => plain.offsets?.[index] ?? index;
  for (const run of text.matchAll(SPACED)) {
    const joined: string[] = [];
    const offsets: number[] = [];
    const letters = /([^ .\-_*|\t])([ .\-_*|\t]{0,4})/g;
    const wide = / {2,4}/.test(run[0]);
    for (const letter of run[0].matchAll(letters)) {
      offsets.push(at(run.index + letter.index));
      joined.push(letter[1] ?? "");
      if (wide && (letter[2]?.length ?? 0) > 1) {
        offsets.push(at(run.index + letter.index + 1));
        joined.push(" ");
      }
    }
    const plainWord = joined.join("");
    const parted = wide ? { text: plainWord, from: offsets } : part(plainWord, offsets);
    const ends = Uint32Array.from([...parted.from, at(run.index + run[0].length)]);
    yield { text: parted.text, offsets: ends, disguise: "spaced letters" };
  }
}

/** Parts a run of letters into known words, the longest way. */
function part(text: string, from: readonly number[]): { text: string; from: readonly number[] } {
  const limit = Math.min(text.length, 2000);
  const lower = text.toLowerCase();
  const best = new Float64Array(limit + 1).fill(-1);
  const back = new Int32Array(limit + 1);
  best[0] = 0;
  for (let end = 1; end <= limit; end++)
    for (let length = 1; length <= Math.min(16, end); length++) {
      const before = best[end - length] ?? -1;
      if (before < 0) continue;
      const word = lower.slice(end - length, end);
      const score = before + (known(word) ? length * length : length === 1 ? 0 : -1e9);
      if (score >= 0 && score > (best[end] ?? -1)) {
        best[end] = score;
        back[end] = length;
      }
    }
  const cuts: number[] = [];
  for (let end = limit; end > 0; end -= back[end] || 1) cuts.push(end);
  const pieces: string[] = [];
  const offsets: number[] = [];
  let start = 0;
  for (const end of cuts.reverse()) {
    for (let at = start; at < end; at++) offsets.push(from[at] ?? 0);
    offsets.push(from[end - 1] ?? 0);
    pieces.push(text.slice(start, end), " ");
    start = end;
  }
  return { text: pieces.join(""), from: offsets };
}

const LEET: Readonly<Record<string, string>> = {
  0: "o",
  1: "i",
  3: "e",
  4: "a",
  5: "s",
  7: "t",
  "@": "a",
  $: "s",
  "!": "i",
};
const LEET_WORD = /[A-Za-z0-9@$!]{2,24}/g;

/** Words with digits among their letters, when several of them become known words. Keeps the length. */
function* leet(plain: View): Generator<View> {
  let turned = 0;
  const text = plain.text.replace(LEET_WORD, (word) => {
    if (!/[013457@$!]/.test(word) || !/[a-z]|^[0-9]{1,3}$/i.test(word)) return word;
    const spelt = [...word]
      .map((char, index) => (char === "!" && index === word.length - 1 ? char : (LEET[char] ?? char)))
      .join("");
    if (word.length > 3 && /[a-z]/i.test(word) && known(spelt.toLowerCase())) turned++;
    return spelt;
  });
  if (turned >= 3) yield { text, offsets: plain.offsets, disguise: "letters written as digits" };
}

const ROT13_LETTERS = new Map(
  [..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"].map((char, index, all) => [
    char,
    all[index < 26 ? (index + 13) % 26 : 26 + ((index + 13) % 26)] ?? char,
  ]),
);

function* whole(plain: View, disguise: Disguise, sign: RegExp, turn: (char: string) => string): Generator<View> {
  if ((plain.text.match(sign)?.length ?? 0) < 2) return;
  yield { text: plain.text.replace(/[A-Za-z]/g, turn), offsets: plain.offsets, disguise };
}

/** The text from its last character to its first. */
function reversed(plain: View, raw: string): View {
  const text = [...plain.text].reverse().join("");
  const offsets = new Uint32Array(text.length + 1);
  // Spans turn round with the text, so each is led back to the whole of what is turned.
  const start = Math.max(0, raw.search(/[\u202a-\u202e\u2066-\u2069]/));
  offsets.fill(raw.length, 1);
  offsets[0] = start;
  return { text, offsets, disguise: "reversed text" };
}
