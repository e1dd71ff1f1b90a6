/** Characters are sorted into sets by a kernel of WebAssembly, and as one would do it by hand. */
import { describe, expect, test, vi } from "vitest";
import { BEYOND, charSets, codesOf, compiled, PIECE, plain, ROW } from "../../src/mask/char-sets.ts";
import { fc, runs } from "../properties.ts";

const ASCII = Array.from({ length: 127 }, (_, index) => String.fromCharCode(index + 1));
const SETS = ["0123456789", "abcXYZ", "\u0001\u000f\u0010\u007f", ASCII.join(""), "", "-_", "@", "\\"];

/** The characters of each set, by their places from `from` on, as far as one piece goes. */
function sorted(sets: readonly string[], text: string, from: number): readonly (readonly number[])[] {
  const { sort, bits } = charSets(sets);
  const rows = sort(codesOf(text), from, text.length);
  return Array.from({ length: ROW }, (_, set) =>
    Array.from({ length: rows * 32 }, (_, at) => at).filter(
      (at) => ((bits[ROW * (at >> 5) + set] ?? 0) >>> (at & 31)) & 1,
    ),
  );
}

function expected(sets: readonly string[], text: string, from: number): readonly (readonly number[])[] {
  const piece = text.slice(from, from + PIECE);
  return Array.from({ length: ROW }, (_, set) =>
    Array.from({ length: piece.length }, (_, at) => at).filter((at) =>
      set === BEYOND ? piece.charCodeAt(at) > 127 : (sets[set] ?? "").includes(piece.charAt(at)),
    ),
  );
}

describe("sorting", () => {
  test("every code unit belongs where it should, at every place of a block", () => {
    const every = Array.from({ length: 65_536 }, (_, code) => String.fromCharCode(code)).join("");
    for (const shift of [0, 1, 15, 16, 17, 31]) {
      const text = " ".repeat(shift) + every;
      for (let from = 0; from <= text.length; from += PIECE)
        expect(sorted(SETS, text, from)).toEqual(expected(SETS, text, from));
    }
  });

  test("any text, from any place on", () => {
    const text = fc.oneof(fc.string({ unit: "binary", maxLength: 300 }), fc.string({ maxLength: 300 }));
    const sets = fc.array(fc.string({ unit: fc.constantFrom(...ASCII), maxLength: 20 }), { maxLength: 8 });
    fc.assert(
      fc.property(text, sets, fc.nat(), (text, sets, cut) => {
        const from = cut % (text.length + 1);
        expect(sorted(sets, text, from)).toEqual(expected(sets, text, from));
      }),
      { numRuns: runs(500) },
    );
  });

  test("what was sorted before leaves no trace behind the end of a text", () => {
    sorted(SETS, "0".repeat(PIECE + 200), 0);
    expect(sorted(SETS, "0".repeat(40), 0)[0]).toEqual(Array.from({ length: 40 }, (_, at) => at));
  });

  test("behind a text that ends within a piece at least one place belongs to no set", () => {
    const { sort } = charSets(SETS);
    for (const length of [0, 1, 31, 32, 33, 64, PIECE - 1])
      expect(sort(codesOf("a".repeat(length)), 0, length) * 32).toBeGreaterThan(length);
    expect(sort(codesOf("a".repeat(PIECE)), 0, PIECE) * 32).toBe(PIECE);
  });
});

test("the kernel runs here, and writes what the plain way writes", () => {
  const [kernel, hand] = [compiled(), plain()];
  expect(kernel).toBeDefined();
  if (kernel === undefined) return;
  fc.assert(
    fc.property(
      fc.uint16Array({ minLength: 1, maxLength: 400 }),
      fc.uint8Array({ minLength: 128, maxLength: 128 }),
      fc.nat({ max: 40 }),
      (codes, tables, first) => {
        const rows = Math.ceil(codes.length / 32);
        for (const sorter of [kernel, hand]) {
          sorter.codes.set(codes, first);
          sorter.tables.set(tables);
          sorter.sortRows(first, rows);
        }
        expect(kernel.bits.subarray(0, rows * ROW)).toEqual(hand.bits.subarray(0, rows * ROW));
      },
    ),
    { numRuns: runs(300) },
  );
});

test("without WebAssembly the plain way takes its place", async () => {
  vi.resetModules();
  vi.stubGlobal("WebAssembly", undefined);
  try {
    const without = await import("../../src/mask/char-sets.ts");
    expect(without.compiled()).toBeUndefined();
    const { sort, bits } = without.charSets(SETS);
    expect(sort(without.codesOf("a1é"), 0, 3)).toBe(1);
    expect([...bits.subarray(0, ROW)]).toEqual([2, 1, 0, 3, 0, 0, 0, 0, 4]);
  } finally {
    vi.unstubAllGlobals();
  }
});
