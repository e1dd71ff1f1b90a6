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
const BASE64 = /[A-Za-z0-9+/_-]{24,16384}={0,2}/g;
const HEX = /(?:(?:0x|\\x)?[0-9a-f]{2}[ ,:]?){20,8192}/gi;
const PERCENT = /(?:%[0-9a-f]{2}[\w.~+-]{0,12}){4,2048}/gi;

/** The encoded pieces of a text that are text again. Linear. */
export function* disguisedPieces(text: string): Generator<Piece> {
  yield* pieces(text, BASE64, (piece) => fromBytes(piece, "base64"));
  yield* pieces(text, HEX, (piece) => fromBytes(piece.replace(/0x|\\x|[ ,:]/gi, ""), "hex"));
  yield* pieces(text, PERCENT, (piece) => fromPercent(piece));
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
