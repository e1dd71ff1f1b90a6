/**
 * Other ways to write ASCII: full-width and mathematical digits, the digits of other scripts, spaces and hyphens of every kind,
 * and characters nobody sees. A text that holds one is scanned as the plain text it stands for.
 */

export interface Folded {
  readonly text: string;
  /** For each code unit of `text` and its end: where it stands in the original. */
  readonly offsets: Uint32Array;
}

const SPACES = [0xa0, 0x1680, ...range(0x2000, 0x200a), 0x202f, 0x205f, 0x3000];
const HYPHENS = [...range(0x2010, 0x2015), 0x2212, 0xfe58, 0xfe63];
const UNSEEN = [
  0xad,
  0x61c,
  0x180e,
  ...range(0x200b, 0x200f),
  ...range(0x202a, 0x202e),
  ...range(0x2060, 0x2064),
  0xfeff,
];
/** Zeros of decimal digits in the basic plane, Unicode general category Nd; full-width ones are folded with their block. */
const ZEROS = [
  0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0, 0xf20,
  0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0,
  0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0,
];
const MATH_LEAD = 0xd835;
const REMOVED = 0xffff;

/** What a code unit stands for; 0: itself. */
const FOLD = new Uint16Array(65_536);
for (const code of SPACES) FOLD[code] = 32;
for (const code of HYPHENS) FOLD[code] = 45;
for (const code of UNSEEN) FOLD[code] = REMOVED;
for (const zero of ZEROS) for (let digit = 0; digit < 10; digit++) FOLD[zero + digit] = 48 + digit;
for (let code = 0xff01; code <= 0xff5e; code++) FOLD[code] = code - 0xfee0;

/** True for a code unit that `fold` changes. */
export function folds(code: number): boolean {
  return FOLD[code] !== 0 || code === MATH_LEAD;
}

/** Folds a text. Linear; offsets lead back to it. */
export function fold(text: string): Folded {
  const units = new Uint16Array(text.length);
  const offsets = new Uint32Array(text.length + 1);
  let length = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    let plain = FOLD[code] ?? 0;
    if (plain === REMOVED) continue;
    offsets[length] = at;
    if (code === MATH_LEAD) {
      // U+1D7CE to U+1D7FF: five alphabets of mathematical digits.
      const digit = text.charCodeAt(at + 1) - 0xdfce;
      if (digit >= 0 && digit < 50) {
        plain = 48 + (digit % 10);
        at++;
      }
    }
    units[length++] = plain === 0 ? code : plain;
  }
  offsets[length] = text.length;
  return { text: Buffer.from(units.buffer, 0, length * 2).toString("utf16le"), offsets };
}

function range(first: number, last: number): readonly number[] {
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
