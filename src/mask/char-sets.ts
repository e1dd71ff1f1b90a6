/**
 * Which characters of a text belong to which of some sets, as bits: 32 characters to a number, so that whoever looks for something
 * passes over all else without a look. Sixteen characters are sorted at once by a small loop of WebAssembly (`char-sets-kernel.ts`), in
 * a fraction of the time that one by one would take; where there is none (`--jitless`, very old processors), JavaScript does the same.
 */
import { kernelModule, type Layout } from "./char-sets-kernel.ts";

/** At most so many characters are sorted at once; what comes after them is the next piece. */
export const PIECE = 32_768;
const MAX_SETS = 8;
/** The numbers that tell of 32 characters: one of each set, one of characters beyond ASCII. */
export const ROW = MAX_SETS + 1;
export const BEYOND = MAX_SETS;

/** The code units of a text, and behind them zeros: to be read up to 64 places behind the end. */
export type Codes = Uint16Array;

export interface CharSets {
  /**
   * Of each set, and at `BEYOND` of what is beyond ASCII: of character `32 * n + k` of the piece bit `k` of number `ROW * n + set`. All
   * sets of all kinds are written to the same place: what stands there is of the text that was sorted last.
   */
  readonly bits: Uint32Array;
  /**
   * Sorts the code units of a text of this length, from `from` on as far as a piece goes. Returns how many times 32 characters that
   * are: when the text ends within the piece, one at least is behind it, and belongs to no set.
   */
  sort(codes: Codes, from: number, length: number): number;
}

/** Prepares sets of characters of ASCII, U+0000 not among them; up to eight. */
export function charSets(sets: readonly string[]): CharSets {
  const mine = tablesOf(sets);
  return {
    bits,
    sort(codes, from, length) {
      const rest = length - from;
      const rows = rest < PIECE ? (rest >> 5) + 1 : PIECE / 32;
      const first = codes === piece ? from : 0;
      if (codes !== piece) piece.set(codes.subarray(from, from + rows * 32));
      tables.set(mine);
      sortRows(first, rows);
      return rows;
    },
  };
}

/** Longer texts than this get a room of their own, which is let go. */
const MAX_SCRATCH = 1 << 20;
let scratch: Codes = new Uint16Array(0);

/** The code units of a text: read one by one, an array is three times as fast as a string. The next call writes over them. */
export function codesOf(text: string): Codes {
  const room = roomFor(text.length + AHEAD);
  Buffer.from(room.buffer, 0, text.length * 2).write(text, "utf16le");
  room.fill(0, text.length, text.length + AHEAD);
  return room;
}

function roomFor(needed: number): Codes {
  if (needed <= piece.length) return piece;
  if (needed <= scratch.length) return scratch;
  const room = new Uint16Array(needed);
  if (needed < MAX_SCRATCH) scratch = room;
  return room;
}

/** For each set sixteen bytes: of the character `0xRC` bit `R` of byte `C` is set. */
function tablesOf(sets: readonly string[]): Uint8Array {
  const all = new Uint8Array(MAX_SETS * 16);
  for (const [set, chars] of sets.entries()) {
    for (const char of chars) {
      const code = char.charCodeAt(0);
      const place = set * 16 + (code & 15);
      all[place] = (all[place] ?? 0) | (1 << (code >> 4));
    }
  }
  return all;
}

/** At least 64 places to read ahead, and what is missing in the last 32. */
const AHEAD = 96;
// The memory: a piece of text in UTF-16 with zeros behind it, the tables in use, the bits.
const TABLES = (PIECE + AHEAD) * 2;
const BITS = TABLES + MAX_SETS * 16;
const MAX_ROWS = PIECE / 32 + 1;
const LAYOUT: Layout = {
  tables: TABLES,
  sets: MAX_SETS,
  bits: BITS,
  pages: Math.ceil((BITS + MAX_ROWS * ROW * 4) / 65_536),
};

/** Something that sorts, and where it does. */
export interface Sorter {
  /** A piece of text, and zeros. */
  readonly codes: Codes;
  readonly tables: Uint8Array;
  readonly bits: Uint32Array;
  /** Sorts so many times 32 characters, from a place of the piece on. */
  readonly sortRows: (first: number, rows: number) => void;
}

const { codes: piece, tables, bits, sortRows } = compiled() ?? plain();

/** The kernel, ready to run; undefined where this process has no WebAssembly, or its processor none of the instructions. */
export function compiled(): Sorter | undefined {
  const { WebAssembly } = globalThis as unknown as { readonly WebAssembly?: WebAssemblyOfHost };
  if (WebAssembly === undefined) return undefined;
  try {
    const { memory, sort } = new WebAssembly.Instance(new WebAssembly.Module(kernelModule(LAYOUT))).exports;
    return { ...placesIn(memory.buffer), sortRows: (first, rows) => sort(first * 2, first * 2 + rows * 64) };
  } catch {
    return undefined; // It does not compile here: the plain way remains.
  }
}

/** What the kernel does, in JavaScript: for where it does not run, and to compare it with. */
export function plain(): Sorter {
  const { codes, tables, bits } = placesIn(new ArrayBuffer(LAYOUT.pages * 65_536));
  const isIn = (set: number, code: number): boolean =>
    code > 127 ? set === BEYOND : set !== BEYOND && ((tables[set * 16 + (code & 15)] ?? 0) & (1 << (code >> 4))) !== 0;
  const sortRows = (first: number, rows: number): void => {
    bits.fill(0, 0, rows * ROW);
    for (let at = 0; at < rows * 32; at++) {
      const code = codes[first + at] ?? 0;
      for (let set = 0; set < ROW; set++) {
        const place = (at >> 5) * ROW + set;
        if (isIn(set, code)) bits[place] = (bits[place] ?? 0) | (1 << (at & 31));
      }
    }
  };
  return { codes, tables, bits, sortRows };
}

function placesIn(memory: ArrayBuffer): Pick<Sorter, "codes" | "tables" | "bits"> {
  return {
    codes: new Uint16Array(memory, 0, PIECE + AHEAD),
    tables: new Uint8Array(memory, TABLES, MAX_SETS * 16),
    bits: new Uint32Array(memory, BITS, MAX_ROWS * ROW),
  };
}

/** As much of it as is used: the types of Node.js leave it to those of browsers. */
interface WebAssemblyOfHost {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (
    module: object,
  ) => {
    readonly exports: {
      readonly memory: { readonly buffer: ArrayBuffer };
      readonly sort: (from: number, end: number) => void;
    };
  };
}
