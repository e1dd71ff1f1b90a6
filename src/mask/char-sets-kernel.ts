/**
 * The inner loop of `char-sets.ts` as WebAssembly: sixteen characters at a time with vector instructions, which JavaScript has not.
 * It is assembled here from the listing below, so that what runs can be read (WebAssembly Core Specification 2.0, section 5).
 */

/** What stands where in the memory of the kernel, in bytes. */
export interface Layout {
  /** Sixteen bytes for each set: of the character `0xRC` bit `R` of byte `C` is set. */
  readonly tables: number;
  readonly sets: number;
  /** Four bytes for each set, four of characters beyond ASCII; then the same of the next 32 characters. */
  readonly bits: number;
  /** Of 64 KiB. */
  readonly pages: number;
}

/** The opcodes in use. */
const CODES = {
  loop: [0x03],
  br_if: [0x0d],
  end: [0x0b],
  "local.get": [0x20],
  "local.set": [0x21],
  "local.tee": [0x22],
  "i32.const": [0x41],
  "i32.add": [0x6a],
  "i32.lt_u": [0x49],
  "i32.store16": [0x3b],
  "v128.load": [0xfd, 0x00],
  "v128.const": [0xfd, 0x0c],
  "v128.and": [0xfd, 0x4e],
  "i8x16.swizzle": [0xfd, 0x0e],
  "i8x16.eq": [0xfd, 0x23],
  "i8x16.bitmask": [0xfd, 0x64],
  "i8x16.narrow_i16x8_u": [0xfd, 0x66],
  "i8x16.shr_u": [0xfd, 0x6d],
  "i16x8.min_u": [0xfd, 0x97, 0x01],
} as const;
type Instruction = readonly [name: keyof typeof CODES, ...operands: readonly number[]];

const VOID = 0x40;
const [I32, V128, FUNCTION] = [0x7f, 0x7b, 0x60];
const [FIRST, PAIR] = [0, 1];
/** The locals: the parameters, then what the loop needs. */
const [AT, END, OUT, CHARS, LOW, HIGH, BYTE, HALF, PLACES] = [0, 1, 2, 3, 4, 5, 6, 7, 8];

/** `(func (export "sort") (param $at i32) (param $end i32))`: sorts the characters from one address to another, 32 in each round. */
function listing(layout: Layout): readonly Instruction[] {
  return [
    ["v128.const", ...filled(0xff, 0)],
    ["local.set", BYTE],
    ["v128.const", ...filled(0x8f)],
    ["local.set", HALF],
    ["v128.const", 1, 2, 4, 8, 16, 32, 64, 128, 1, 1, 1, 1, 1, 1, 1, 1],
    ["local.set", PLACES],
    ["loop", VOID],
    ...sixteen(0, layout),
    ...sixteen(1, layout),
    ["local.get", OUT],
    ["i32.const", 4 * (layout.sets + 1)],
    ["i32.add"],
    ["local.set", OUT],
    ["local.get", AT],
    ["i32.const", 64],
    ["i32.add"],
    ["local.tee", AT],
    ["local.get", END],
    ["i32.lt_u"],
    ["br_if", 0],
    ["end"],
    ["end"],
  ];
}

/** One half of a round: its bits are the lower or the upper two bytes of each set. */
function sixteen(half: 0 | 1, { tables, sets, bits }: Layout): readonly Instruction[] {
  return [
    // $chars: sixteen characters, each made a byte. Those beyond ASCII have the highest bit, whatever they are.
    ["local.get", AT],
    ["v128.load", PAIR, 32 * half],
    ["local.get", BYTE],
    ["i16x8.min_u"],
    ["local.get", AT],
    ["v128.load", PAIR, 32 * half + 16],
    ["local.get", BYTE],
    ["i16x8.min_u"],
    ["i8x16.narrow_i16x8_u"],
    ["local.set", CHARS],
    // $low: the lower half of each; beyond ASCII more than 15, for which every table has 0.
    ["local.get", CHARS],
    ["local.get", HALF],
    ["v128.and"],
    ["local.set", LOW],
    // $high: one bit, the place of which is the upper half.
    ["local.get", PLACES],
    ["local.get", CHARS],
    ["i32.const", 4],
    ["i8x16.shr_u"],
    ["i8x16.swizzle"],
    ["local.set", HIGH],
    ...Array.from({ length: sets }, (_, set): readonly Instruction[] => [
      ["local.get", OUT],
      ["i32.const", 0],
      ["v128.load", FIRST, tables + 16 * set],
      ["local.get", LOW],
      ["i8x16.swizzle"],
      ["local.get", HIGH],
      ["v128.and"],
      ["local.get", HIGH],
      ["i8x16.eq"],
      ["i8x16.bitmask"],
      ["i32.store16", PAIR, bits + 4 * set + 2 * half],
    ]).flat(),
    ["local.get", OUT],
    ["local.get", CHARS],
    ["i8x16.bitmask"],
    ["i32.store16", PAIR, bits + 4 * sets + 2 * half],
  ];
}

/** The module, with its memory: what `new WebAssembly.Module` takes. */
export function kernelModule(layout: Layout): Uint8Array {
  const code = listing(layout).flatMap(([name, ...operands]) => [...CODES[name], ...encoded(name, operands)]);
  const locals = [2, 1, I32, 6, V128];
  return Uint8Array.from([
    ...[0, ...ascii("asm"), 1, 0, 0, 0],
    ...section(1, [1, FUNCTION, 2, I32, I32, 0]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, layout.pages]),
    ...section(7, [2, ...name("memory"), 2, 0, ...name("sort"), 0, 0]),
    ...section(10, [1, ...sized([...locals, ...code])]),
  ]);
}

function section(id: number, content: readonly number[]): readonly number[] {
  return [id, ...sized(content)];
}
function name(text: string): readonly number[] {
  return sized(ascii(text));
}
function sized(content: readonly number[]): readonly number[] {
  return [...leb128(content.length), ...content];
}
function ascii(text: string): readonly number[] {
  return [...Buffer.from(text, "ascii")];
}

function encoded(name: Instruction[0], operands: readonly number[]): readonly number[] {
  if (name === "v128.const") return operands;
  // Numbers with a sign have it in their seventh bit: above 63 they need another byte.
  return operands.flatMap((operand) => leb128(operand, name === "i32.const" ? 64 : 128));
}

/** LEB128 of what is not negative: seven bits in each byte, and in the last one less than `limit`. */
function leb128(value: number, limit = 128): readonly number[] {
  return value < limit ? [value] : [(value & 127) | 128, ...leb128(value >>> 7, limit)];
}

/** The sixteen bytes of a vector. */
function filled(...pattern: readonly number[]): readonly number[] {
  return Array.from({ length: 16 }, (_, index) => pattern[index % pattern.length] ?? 0);
}
