/** Private keys in PEM (RFC 7468), of OpenSSH, ssh.com, PuTTY and PGP, also within JSON, where a line ends with `\n`. */
import { type Detector, type Found, isAlnum } from "../detector.ts";

/** A key of 16,384 bits has 13 kB; what is longer is masked as far as this. */
const MAX_LENGTH = 65_536;
const HEADER = /^-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----/;
const FOOTER = "-----END ";
/** As ssh.com writes them, in the form of RFC 4716. No word of it is long; the key behind it begins with the bytes `3f6ff9eb 0000`. */
const SSH2 = "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----";
const SSH2_KEY = "P2/56wAA";

export const privateKey: Detector = {
  type: "private_key",
  about: "secret",
  word: { find: begin, behind: "\nn", first: "5", last: "Ns" },
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
    [
      "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B\n\nqQG+4igH/7aoMACp",
      "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B\n\nqQG+4igH/7aoMACp",
    ],
    ["Private-Lines: 2\nAAAAgQDqQG+4igH/7aoMACp\nO36kF1K=\nPrivate-MAC: 1f", "AAAAgQDqQG+4igH/7aoMACp\nO36kF1K="],
    ["-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk="],
    [
      "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n=x\n-----END PGP PRIVATE KEY BLOCK-----",
      "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQOYBF\n=x\n-----END PGP PRIVATE KEY BLOCK-----",
    ],
    [
      'k: ---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: "rsa"\nP2/56wAAAi4AAAA3aWYtbW9kbntz\n---- END SSH2 ENCRYPTED PRIVATE KEY ----.',
      "P2/56wAAAi4AAAA3aWYtbW9kbntz",
    ],
    [
      '---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\r\nComment: "k"\r\nqQG4igH7aoMACpqQG4igH7aoMACp/aB\r\nqQG4',
      "qQG4igH7aoMACpqQG4igH7aoMACp/aB\r\nqQG4",
    ],
    [
      '{"k":"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\\nComment: \\"rsa\\"\\nqQG4igH7aoMACpqQG4igH7aoMACp","a":1}',
      "qQG4igH7aoMACpqQG4igH7aoMACp",
    ],
  ],
  misses: [
    "---- BEGIN SSH2 PUBLIC KEY ----\nAAAAB3NzaC1yc2EAAAADAQABAAABAQ==",
    "-----BEGIN PUBLIC KEY-----\nIv5/X6Hc\n-----END PUBLIC KEY-----",
    "-----BEGIN CERTIFICATE-----\nFpwAvu1L\n-----END CERTIFICATE-----",
    "-----BEGIN PRIVATE PARTY-----",
  ],
};

/** At the end of the word `-----BEGIN`, of the first word of ssh.com's keys, or of PuTTY's `Private-Lines`. */
function begin(text: string, word: number, end: number, found: Found): void {
  const last = text.charCodeAt(end - 1);
  if (last === 115 && end - word === 13 && text.startsWith("Private-Lines:", word)) putty(text, end + 1, found);
  if (text.startsWith(SSH2_KEY, word - 3)) ssh2(text, word - 3, found);
  else if (end - word >= 20 && LINE_BEFORE.test(text.slice(Math.max(0, word - 12), word))) ssh2(text, word, found);
  if (last !== 78 || !text.startsWith("-----BEGIN", end - 10)) return;
  const start = end - 10;
  const header = HEADER.exec(text.slice(start, start + 80));
  if (header === null) return;
  const body = start + header[0].length;
  found.add(start, footerEnd(text, body) || bodyEnd(text, body));
}

/** RFC 4716 section 3.3: a few headers stand between the first line and the key. */
const MAX_HEADERS = 1000;

/** The end of the first line itself, or of a header, whose value is quoted (RFC 4716 section 3.3.2): a key behind it may have been changed. */
const LINE_BEFORE = /[-"](?:\r?\n|(?:\\+r)?\\+n)$/;

/** Behind the first line, which stays. Without one so near, a text of nothing but beginnings would be read to its end from each. */
function ssh2(text: string, key: number, found: Found): void {
  if (text.slice(Math.max(0, key - MAX_HEADERS), key).includes(SSH2)) found.add(key, base64End(text, key));
}

/** Behind `Private-Lines:`, a number and then the key, up to `Private-MAC`. */
function putty(text: string, from: number, found: Found): void {
  const lines = /^ \d{1,4}(?:\r?\n|(?:\\r)?\\n)/.exec(text.slice(from, from + 12));
  if (lines === null) return;
  const start = from + lines[0].length;
  let end = base64End(text, start);
  if (text.startsWith("-MAC", end)) end -= "Private".length;
  while (end > start && text.charCodeAt(end - 1) <= 32) end--;
  if (end > start) found.add(start, end);
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

/** The headers of an old encrypted key, RFC 1421. */
const HEADERS = /^(?:(?:\r?\n|(?:\\+r)?\\+n)(?:Proc-Type|DEK-Info): ?[\w,-]{1,60}?(?=\r|\n|\\)){1,2}/;

/** A key that was cut off ends with its last character of base64. */
function bodyEnd(text: string, body: number): number {
  return base64End(text, body + (HEADERS.exec(text.slice(body, body + 160))?.[0].length ?? 0));
}

/** Behind the last character of base64 from `from` on; lines may end as in the text of JSON. */
function base64End(text: string, from: number): number {
  const limit = Math.min(text.length, from + MAX_LENGTH);
  let end = from;
  for (let at = from; at < limit; at++) {
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
