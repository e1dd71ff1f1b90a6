/** UK national insurance numbers: two letters, six digits, a letter from A to D (HMRC, NIM39110). */
import type { Codes } from "../char-sets.ts";
import { beginsAt, type Detector, endsAt, type Found, isLetter } from "../detector.ts";

const NEVER = new Set(["BG", "GB", "KN", "NK", "NT", "TN", "ZZ"]);
/** Prefixes that are given out. */
const PREFIXES = [..."ABCEGHJKLMNOPRSTWXYZ"]
  .flatMap((first) => [..."ABCEGHJKLMNPRSTWXYZ"].map((second) => first + second))
  .filter((prefix) => !NEVER.has(prefix));

export const ukNino: Detector = {
  type: "uk_nino",
  about: "person",
  pair: { find: nino, of: PREFIXES },
  canonical: (value) => value.toUpperCase().replaceAll(/[^A-Z0-9]/g, ""),
  partial: (value) => `** ** ** *${value.slice(-2)}`,
  hits: [
    ['{"nino":"TH194253D"}', "TH194253D"],
    ["- NI: **GH-38-45-75-A**", "GH-38-45-75-A"],
    ["Her number is xk693495a.", "xk693495a"],
    ["NI AB 12 34 56 C!", "AB 12 34 56 C"],
    ['{"text":"NI:\\nAB123456C"}', "AB123456C"],
  ],
  misses: [
    "Part code CE569282Z",
    "GB123456A and QQ123456C",
    "AB1234567C",
    "XAB123456C",
    "AB 12 34 5 C",
    "ab12cd34",
    "0x804841A: main",
  ],
};

function nino(text: string, at: number, found: Found, codes: Codes): void {
  let next = at + 2;
  for (let digits = 0; digits < 6; digits++) {
    let code = codes[next] ?? 0;
    if (digits % 2 === 0 && isGap(code)) code = codes[++next] ?? 0;
    if (code < 48 || code > 57) return;
    next++;
  }
  if (isGap(codes[next] ?? 0) && isLetter(codes[next + 1] ?? 0)) next++;
  const suffix = (codes[next] ?? 0) & 0xdf;
  if (suffix < 65 || suffix > 68 || !isLetter(codes[next] ?? 0)) return;
  if (beginsAt(text, at) && endsAt(text, next + 1)) found.add(at, next + 1);
}

function isGap(code: number): boolean {
  return code === 32 || code === 45 || code === 46;
}
