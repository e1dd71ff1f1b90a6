/** UK national insurance numbers: two letters, six digits, a letter from A to D (HMRC, NIM39110). */
import { beginsAt, type Detector, endsAt, type Found, isDigit, isLetter, pairIndex } from "../detector.ts";

const NEVER = new Set(["BG", "GB", "KN", "NK", "NT", "TN", "ZZ"]);
/** Prefixes that are given out, by `pairIndex`. */
const PREFIXES = new Uint8Array(1024);
for (const first of "ABCEGHJKLMNOPRSTWXYZ") {
  for (const second of "ABCEGHJKLMNPRSTWXYZ") {
    if (!NEVER.has(first + second)) PREFIXES[pairIndex(first + second, 0)] = 1;
  }
}

export const ukNino: Detector = {
  type: "uk_nino",
  about: "person",
  pair: nino,
  canonical: (value) => value.toUpperCase().replaceAll(/[^A-Z0-9]/g, ""),
  partial: (value) => `** ** ** *${value.slice(-2)}`,
  hits: [
    ['{"nino":"TH194253D"}', "TH194253D"],
    ["- NI: **GH-38-45-75-A**", "GH-38-45-75-A"],
    ["Her number is xk693495a.", "xk693495a"],
    ["NI AB 12 34 56 C!", "AB 12 34 56 C"],
    ['{"text":"NI:\\nAB123456C"}', "AB123456C"],
  ],
  misses: ["Part code CE569282Z", "GB123456A and QQ123456C", "AB1234567C", "XAB123456C", "AB 12 34 5 C", "ab12cd34"],
};

function nino(text: string, at: number, found: Found): void {
  if (PREFIXES[pairIndex(text, at)] !== 1) return;
  let next = at + 2;
  for (let digits = 0; digits < 6; digits++) {
    if (digits % 2 === 0 && isGap(text.charCodeAt(next))) next++;
    if (!isDigit(text.charCodeAt(next++))) return;
  }
  if (isGap(text.charCodeAt(next)) && isLetter(text.charCodeAt(next + 1))) next++;
  const suffix = text.charCodeAt(next) & 0xdf;
  if (suffix < 65 || suffix > 68 || !isLetter(text.charCodeAt(next))) return;
  if (beginsAt(text, at) && endsAt(text, next + 1)) found.add(at, next + 1);
}

function isGap(code: number): boolean {
  return code === 32 || code === 45 || code === 46;
}
