/** Private keys in PEM (RFC 7468) and of OpenSSH and PGP, also within JSON, where a line ends with `\n`. */
import { type Detector, type Found, isAlnum } from "../detector.ts";

/** A key of 16,384 bits has 13 kB; what is longer is masked as far as this. */
const MAX_LENGTH = 65_536;
const HEADER = /^-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----/;
const FOOTER = "-----END ";

export const privateKey: Detector = {
  type: "private_key",
  about: "secret",
  word: begin,
  partial: () => "***",
  hits: [
    [
      "key:\n-----BEGIN RSA PRIVATE KEY-----\nqQG+4igH/7aoMACp\n-----END RSA PRIVATE KEY-----\nbye",
      "-----BEGIN RSA PRIVATE KEY-----\nqQG+4igH/7aoMACp\n-----END RSA PRIVATE KEY-----",
    ],
    [
      '{"key":"-----BEGIN PRIVATE KEY-----\\nO36k/F1K\\n-----END PRIVATE KEY-----","kid":"1"}',
      "-----BEGIN PRIVATE KEY-----\\nO36k/F1K\\n-----END PRIVATE KEY-----",
    ],
    ['{"text":"a\\n-----BEGIN EC PRIVATE KEY-----\\nO36k"}', "-----BEGIN EC PRIVATE KEY-----\\nO36k"],
    ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk="],
    [
      "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n=x\n-----END PGP PRIVATE KEY BLOCK-----",
      "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n=x\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
  ],
  misses: [
    "-----BEGIN PUBLIC KEY-----\nIv5/X6Hc\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\nFpwAvu1L\n-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE PARTY-----",
  ],
};

/** At the end of the word `-----BEGIN`. */
function begin(text: string, _start: number, end: number, found: Found): void {
  if (text.charCodeAt(end - 1) !== 78 || !text.startsWith("-----BEGIN", end - 10)) return;
  const start = end - 10;
  const header = HEADER.exec(text.slice(start, start + 80));
  if (header === null) return;
  const body = start + header[0].length;
  found.add(start, footerEnd(text, body) || bodyEnd(text, body));
}

/** Behind the footer; 0 when a quote, another key or `MAX_LENGTH` comes before it. */
function footerEnd(text: string, body: number): number {
  const limit = Math.min(text.length, body + MAX_LENGTH);
  for (let at = body; at < limit; at++) {
    const code = text.charCodeAt(at);
    if (code === 45 && text.startsWith("-----", at)) {
      if (!text.startsWith(FOOTER, at)) return 0;
      const close = text.slice(at, at + 70).indexOf("-----", FOOTER.length);
      return close > 0 ? at + close + 5 : at + FOOTER.length;
    }
    if (!isBodyCode(code)) return 0;
  }
  return 0;
}

/** A key that was cut off ends with its last character of base64. */
function bodyEnd(text: string, body: number): number {
  const limit = Math.min(text.length, body + MAX_LENGTH);
  let end = body;
  for (let at = body; at < limit; at++) {
    const code = text.charCodeAt(at);
    if (isAlnum(code) || code === 43 || code === 47 || code === 61) end = at + 1;
    else if (code !== 10 && code !== 13 && code !== 92) break;
  }
  return end;
}

/** Base64, line ends also as escapes, and the headers of old encrypted keys (`Proc-Type: 4,ENCRYPTED`). */
function isBodyCode(code: number): boolean {
  if (code <= 32) return code === 32 || code === 10 || code === 13 || code === 9;
  return code < 127 && code !== 34 && code !== 39 && code !== 60 && code !== 96 && code !== 123 && code !== 125;
}
