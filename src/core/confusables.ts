/** What is left of a text when one looks at it briefly. For names that a person or a model could take for another. */

/** Equal for texts that look alike: whatever their case, separators, accents, compatibility forms and alphabets (after UTS #39 §4). */
export function skeleton(text: string): string {
  return letters(text)
    .replace(/./gu, (character) => LOOKS_LIKE.get(character) ?? character)
    .replaceAll("rn", "m")
    .replaceAll("vv", "w");
}

/** Its letters and digits alone, in lower case: equal for names that differ in case and separators only. */
export function letters(text: string): string {
  return text
    .normalize("NFKD")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]/gu, "");
}

/** Latin letters, each with the Cyrillic, Greek, Armenian and other letters and digits that look like it in common typefaces. */
const ALIKE = {
  a: "аαɑ",
  b: "ьƅ8",
  c: "сϲⅽ",
  d: "ԁⅾ",
  e: "еєҽε3",
  g: "ɡց9",
  h: "һհ",
  i: "іıɩɪιӏ1l",
  j: "јϳ",
  k: "кκ",
  m: "мⅿ",
  n: "пոη",
  o: "оοօσ0",
  p: "рρ",
  q: "ԛգ",
  r: "гᴦ",
  s: "ѕꜱ5",
  t: "тτ",
  u: "υսц",
  v: "ѵνⅴ",
  w: "ѡԝա",
  x: "хχ",
  y: "уγү",
  z: "ᴢ2",
} as const;
const LOOKS_LIKE = new Map(Object.entries(ALIKE).flatMap(([letter, others]) => [...others].map((o) => [o, letter])));
