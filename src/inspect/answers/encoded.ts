/** Texts within a text that a model decodes at sight: base64, hexadecimal, percent encoding. */

export interface Piece {
  readonly start: number;
  readonly end: number;
  /** What it says. */
  readonly text: string;
}

const MAX_PIECES = 32;
const MAX_PIECE = 16_384;
const PEEK = 48;
const MIN_BASE64 = 24;
const MIN_HEX = 40;
const BASE64 = /[A-Za-z0-9+/_-]{24,16384}={0,2}/g;
const HEX = /(?:(?:0x|\\x)?[0-9a-f]{2}[ ,:]?){20,8192}/gi;
const PERCENT = /(?:%[0-9a-f]{2}[\w.~+-]{0,12}){4,2048}/gi;

/** The encoded pieces of a text that are text again. Linear. */
export function* disguisedPieces(text: string): Generator<Piece> {
  yield* pieces(text, BASE64, (piece) => fromBytes(piece, "base64"));
  yield* pieces(text, HEX, fromHex);
  yield* pieces(text, PERCENT, fromPercent);
}

/**
 * Whether `disguisedPieces` would find something, at a fraction of its cost: ids and hashes, of which answers are full, are told from
 * texts by the first bytes that they stand for. False is sure, true is not; `text` may be JSON as it is written. Linear.
 */
export function mayBeEncoded(text: string): boolean {
  for (
    let run = nextRun(text, LETTERS, MIN_BASE64, 0);
    run !== undefined;
    run = nextRun(text, LETTERS, MIN_BASE64, run.end)
  )
    if (mayBeBase64(text, run.start, run.end)) return true;
  for (let run = nextRun(text, HEXES, MIN_HEX, 0); run !== undefined; run = nextRun(text, HEXES, MIN_HEX, run.end))
    if (mayBeHex(text, run.start, run.end)) return true;
  return text.includes("%") && text.search(PERCENT) >= 0;
}

/** Characters of base64 and base64url; those of hexadecimal and of what stands between its bytes. */
const [LETTERS, HEXES] = [1, 2];
const CLASS = new Uint8Array(65_536);
const SEXTET = new Uint8Array(128);
for (const [value, char] of [..."ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"].entries()) {
  CLASS[char.charCodeAt(0)] = LETTERS;
  SEXTET[char.charCodeAt(0)] = value < 64 ? value : value - 2;
}
for (const char of "0123456789abcdefABCDEFxX\\ ,:")
  CLASS[char.charCodeAt(0)] = (CLASS[char.charCodeAt(0)] ?? 0) | HEXES;

/** The next `min` characters or more of a class. Most of a text is not looked at: such a run has one at every `min`th place. */
function nextRun(text: string, kind: number, min: number, from: number): { start: number; end: number } | undefined {
  const { length } = text;
  const fits = (at: number) => ((CLASS[text.charCodeAt(at)] ?? 0) & kind) !== 0;
  for (let probe = from + min - 1; probe < length; probe += min) {
    if (!fits(probe)) continue;
    let start = probe;
    while (start > from && fits(start - 1)) start--;
    let end = probe + 1;
    while (end < length && fits(end)) end++;
    if (end - start >= min) return { start, end };
    probe = end;
  }
  return undefined;
}

const BACKSLASH = 92;

function mayBeBase64(text: string, start: number, end: number): boolean {
  // As long runs are taken apart.
  for (let from = start; end - from >= MIN_BASE64; from += MAX_PIECE) {
    if (mayBeText(base64At(text, from))) return true;
    // The first letter may be that of an escape, as in `\n`, or the escaped one itself.
    if (text.charCodeAt(from - 1) === BACKSLASH && mayBeText(base64At(text, from + 1))) return true;
  }
  return false;
}

function mayBeHex(text: string, start: number, end: number): boolean {
  const run = text.slice(start, end);
  const [, digits] = PLAIN_HEX.exec(run) ?? [];
  // Bytes that are written apart are rare enough to be read.
  if (digits === undefined) return [...pieces(run, HEX, fromHex)].length > 0;
  for (let from = 0; digits.length - from >= MIN_HEX; from += MAX_PIECE)
    if (mayBeText(Buffer.from(digits.slice(from, from + 2 * FIRST), "hex"))) return true;
  return false;
}

const PLAIN_HEX = /^[ ,:]*([0-9a-fA-F]+)[ ,:]*$/;

/** What is readable has no other byte within its first eight characters, and those are in so many bytes. */
const FIRST = 12;
const first = new Uint8Array(FIRST);

/** The first bytes that stand there; used at once. */
function base64At(text: string, start: number): Uint8Array {
  const sextet = (at: number) => SEXTET[text.charCodeAt(at)] ?? 0;
  for (let byte = 0, at = start; byte < FIRST; byte += 3, at += 4) {
    first[byte] = (sextet(at) << 2) | (sextet(at + 1) >> 4);
    first[byte + 1] = (sextet(at + 1) << 4) | (sextet(at + 2) >> 2);
    first[byte + 2] = (sextet(at + 2) << 6) | sextet(at + 3);
  }
  return first;
}

/** Whether eight characters that are none of what `readable` refuses may begin here. */
function mayBeText(bytes: Uint8Array): boolean {
  for (let at = 0; at < 8; at++) {
    const byte = bytes[at] ?? 0;
    if ((byte < 32 && byte !== 9 && byte !== 10 && byte !== 13) || byte === 0x7f) return false;
    if (byte < 0x80) continue;
    const more = byte < 0xc2 ? 0 : byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : byte < 0xf5 ? 3 : 0;
    if (more === 0) return false;
    for (let last = at + more; at < last; ) if (((bytes[++at] ?? 0) & 0xc0) !== 0x80) return false;
  }
  return true;
}

function* pieces(text: string, pattern: RegExp, decode: (piece: string) => string | undefined): Generator<Piece> {
  let count = 0;
  for (const match of text.matchAll(pattern)) {
    const piece = match[0].slice(0, MAX_PIECE);
    // Most long runs are hashes, keys and pictures: their first characters tell.
    const peek = decode(piece.slice(0, PEEK));
    if (peek === undefined || !readable(peek.slice(0, -3))) continue;
    const decoded = decode(piece);
    if (decoded === undefined || !readable(decoded.slice(0, 200).slice(0, -3))) continue;
    yield { start: match.index, end: match.index + match[0].length, text: decoded };
    if (++count === MAX_PIECES) return;
  }
}

/** Decodes text; undefined for bytes that are none. */
export function fromBytes(piece: string, encoding: "base64" | "hex"): string | undefined {
  const even = encoding === "hex" ? piece.slice(0, piece.length - (piece.length % 2)) : piece;
  const text = Buffer.from(even, encoding).toString("utf8");
  return text.length < 12 ? undefined : text;
}

const fromHex = (piece: string) => fromBytes(piece.replace(/0x|\\x|[ ,:]/gi, ""), "hex");

function fromPercent(piece: string): string | undefined {
  try {
    return decodeURIComponent(piece.replace(/%[0-9a-f]?$/i, "")).replaceAll("+", " ");
  } catch {
    return undefined; // Not UTF-8: no text.
  }
}

/** Letters and blanks, for the greatest part. */
export function readable(text: string): boolean {
  if (text.length < 8) return false;
  let letters = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (code === 0xfffd || (code < 32 && code !== 9 && code !== 10 && code !== 13) || code === 0x7f) return false;
    if (code === 32 || (code >= 65 && code <= 90) || (code >= 97 && code <= 122) || code > 0xbf) letters++;
  }
  return letters * 4 >= text.length * 3;
}
