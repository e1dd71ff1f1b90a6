/** Opaque tokens after `Bearer` and in the header `Authorization` (RFC 6750 §2.1). */
import { isPlaceholder, looksRandom } from "../credential-names.ts";
import { type Detector, type Found, isAlnum, type NamedValue } from "../detector.ts";

const MAX_LENGTH = 4096;

export const bearerToken: Detector = {
  type: "bearer_token",
  about: "secret",
  word: { find: afterBearer, behind: " " },
  named,
  hits: [
    ["Authorization: Bearer T1aFGIw9VZuNStXHsr71cNyjj7d19m-Y", "T1aFGIw9VZuNStXHsr71cNyjj7d19m-Y"],
    [
      'authorization="Bearer cF-L5V3PSeZL8s5QIqEnM4OrUBOTYSF9P5plVxps" span=00',
      "cF-L5V3PSeZL8s5QIqEnM4OrUBOTYSF9P5plVxps",
    ],
    ["send bearer 1L_GJlTS6elvcEXS_ZT-XqVgXz5OlaTh along", "1L_GJlTS6elvcEXS_ZT-XqVgXz5OlaTh"],
    ["Authorization: Basic YWxhZGRpbjpvcGVuc2VzYW1lMTIz", "YWxhZGRpbjpvcGVuc2VzYW1lMTIz"],
    ['authorization="Bearer nrFPsouJyRDExOzoUrnnICIbKcFnkFdB"', "nrFPsouJyRDExOzoUrnnICIbKcFnkFdB"],
    ["-H 'Authorization: Bearer 9aK2.xQ7/Lm3+Zt8Vw1Yb5Nc=='", "9aK2.xQ7/Lm3+Zt8Vw1Yb5Nc=="],
  ],
  misses: [
    "Authorization: Bearer <token>",
    "the bearer authentication scheme",
    '{"token_type":"Bearer","expires_in":900}',
    "Bearer YOUR_ACCESS_TOKEN_123",
  ],
};

function afterBearer(text: string, start: number, end: number, found: Found): void {
  if (
    text.charCodeAt(start - 1) !== 32 ||
    text.charCodeAt(start - 2) !== 114 ||
    !/^[Bb]earer$/.test(text.slice(start - 7, start - 1))
  )
    return;
  let last = end;
  while (last - start < MAX_LENGTH && isTokenCode(text.charCodeAt(last))) last++;
  while (text.charCodeAt(last - 1) === 46) last--;
  add(text, start, last, found);
}

function named(text: string, value: NamedValue, found: Found): void {
  if (value.kind === "authorization") add(text, value.start, value.end, found);
}

function add(text: string, start: number, end: number, found: Found): void {
  const word = text.slice(start, end);
  // Without a digit only what turns more often than the names of programs do.
  const random = looksRandom(word, 16, 4) || looksRandom(word, 20, 10, false);
  if (random && !isPlaceholder(word)) found.add(start, end);
}

/** `b64token` of RFC 6750. */
function isTokenCode(code: number): boolean {
  return (
    isAlnum(code) ||
    code === 45 ||
    code === 46 ||
    code === 95 ||
    code === 126 ||
    code === 43 ||
    code === 47 ||
    code === 61
  );
}
