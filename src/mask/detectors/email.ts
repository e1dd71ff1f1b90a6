/** E-mail addresses, found at their `@`, and those written `name [at] example [dot] com`. */
import type { Codes } from "../char-sets.ts";
import { afterEscape, type Detector, type Found, isAlnum, isDigit, isLetter, pairIndex } from "../detector.ts";

const MAX_LOCAL = 64;
const MAX_DOMAIN = 253;
const [QUOTE, HYPHEN, DOT] = [34, 45, 46];
/** RFC 5322 allows more; these occur. `'` and `-` only inside. */
const LOCAL = new Uint8Array(65_536);
/** Letters of ASCII, and those of Latin, Greek and Cyrillic (RFC 6531): scripts without spaces would take in the words before. */
const LETTER = new Uint8Array(65_536);
for (let code = 0; code < 0x530; code++) {
  const foreign = (code >= 0xc0 && code <= 0x24f && code !== 0xd7 && code !== 0xf7) || code >= 0x370;
  if (foreign || isLetter(code)) LETTER[code] = 1;
  if (foreign || isAlnum(code)) LOCAL[code] = 1;
}
/** Letters of other scripts. Words before and behind an address are told from it by the script it begins with, if at all. */
const OTHER = /^[\p{L}\p{M}\p{Nd}]$/u;
const MAX_OTHER = 16;
for (const char of "._%+'-&~!#$") LOCAL[char.charCodeAt(0)] = 1;
/** Users of version control, no people: `git@github.com:team/repo`. */
const SERVICE = new Set(["git", "svn", "hg", "gitlab"]);
const LONGEST_SERVICE = 6;
/** What follows the dot of a file name (`logo@2x.png`) and is no top-level domain. */
const FILES = new Set([
  "png",
  "jpg",
  "jpeg",
  "gif",
  "svg",
  "webp",
  "ico",
  "css",
  "js",
  "ts",
  "tsx",
  "jsx",
  "json",
  "html",
  "yaml",
  "yml",
  "txt",
  "pdf",
  "local",
  "localdomain",
]);

/** By `pairIndex`: the two letters that they begin with. */
const FILE_PAIRS = new Uint8Array(1024);
for (const ending of FILES) FILE_PAIRS[pairIndex(ending, 0)] = 1;

export const email: Detector = {
  type: "email",
  about: "person",
  at: { "@": address, "%": inUrl, "[": spelledOut, "(": spelledOut },
  canonical: (value) => value.toLowerCase().replace("%40", "@"),
  partial: (value) => {
    const sign = value.search(/@|%40/);
    return sign > 0 ? `${value[0]}***${value.slice(sign)}` : "***";
  },
  hits: [
    ["Write to anna.smith@example.org, please.", "anna.smith@example.org"],
    ["<s.o'byrne+news@mail.example.co.uk>", "s.o'byrne+news@mail.example.co.uk"],
    ["'q@example.io'", "q@example.io"],
    ['{"text":"To:\\nbob@example.com\\n"}', "bob@example.com"],
    ["jürgen@bücher.example", "jürgen@bücher.example"],
    ["メール:名前@例え.jpまで", "名前@例え.jp"],
    ["用户@nhs.example", "用户@nhs.example"],
    ["お問い合わせはinfo@example.comまで", "info@example.com"],
    ["mail anna@[203.0.113.9] today", "anna@[203.0.113.9]"],
    ["rené!x#y@example.com", "rené!x#y@example.com"],
    ["user=A.B@XN--BCHER-KVA.EXAMPLE status=200", "A.B@XN--BCHER-KVA.EXAMPLE"],
    ["https://shop.example/u?of=anna.smith%40example.org&page=2", "anna.smith%40example.org"],
    ["write to jo.doe [at] example [dot] com please", "jo.doe [at] example [dot] com"],
    ["jo(at)example(dot)co(dot)uk", "jo(at)example(dot)co(dot)uk"],
    ['cc "jo doe"@example.com;', '"jo doe"@example.com'],
  ],
  misses: [
    "git clone git@github.com:example/repo.git",
    "postgres://app@db.internal/app",
    "lodash@4.17.21 and left-pad@1.3.0-beta.next",
    "logo@2x.png",
    '@app.tool("search")',
    "image: app@sha256:6a1e410037e2b92c29a4350ce30ba066",
    "uses: actions/checkout@v4",
    "meet @ noon. ok",
    "user@localhost",
    "a discount of%40 for.all",
  ],
};

function address(text: string, sign: number, found: Found, codes: Codes): void {
  addressAround(text, codes, sign, sign + 1, found);
}

/** RFC 3986 §2.1: the `@` as URLs have it. */
function inUrl(text: string, percent: number, found: Found, codes: Codes): void {
  if (codes[percent + 1] === 52 && codes[percent + 2] === 48) addressAround(text, codes, percent, percent + 3, found);
}

function addressAround(text: string, codes: Codes, sign: number, domain: number, found: Found): void {
  if (sign === 0) return;
  if (codes[sign - 1] === QUOTE) {
    quoted(text, codes, sign, domain, found);
    return;
  }
  const local = LOCAL;
  const floor = Math.max(0, sign - MAX_LOCAL);
  let start = sign;
  for (let behind = 0; start > floor; start--) {
    const code = codes[start - 1] ?? 0;
    if (local[code] !== 1 || (code === DOT && behind === DOT)) break; // well...bob@
    behind = code;
  }
  if (start === sign) start = otherLocal(text, sign);
  start = afterEscape(text, start);
  while (start < sign && !beginsLocal(codes[start] ?? 0)) start++;
  if (start === sign) return;
  const end = codes[domain] === BRACKET ? literalEnd(text, domain) : domainEnd(text, codes, domain);
  if (end === 0 || (sign - start <= LONGEST_SERVICE && SERVICE.has(text.slice(start, sign)))) return;
  if (!isUserOfUrl(text, start)) found.add(start, end);
}

function beginsLocal(code: number): boolean {
  return isAlnum(code) || code === 95 || code > 127;
}

/** Where a local part in a script without capitals begins (用户@…): what stands before it unparted is taken in, up to a bound. */
function otherLocal(text: string, sign: number): number {
  let start = sign;
  while (sign - start < MAX_OTHER && (isOther(text, start - 1) || (start < sign && isLocal(text, start - 1)))) start--;
  return start;
}

function isOther(text: string, at: number): boolean {
  return text.charCodeAt(at) >= 0x530 && OTHER.test(text[at] ?? "");
}

const BRACKET = 91;

/** RFC 5321 §4.1.3: behind `[192.0.2.1]` at `start`; 0: it is none. */
function literalEnd(text: string, start: number): number {
  const literal = /^\[\d{1,3}(?:\.\d{1,3}){3}\]/.exec(text.slice(start, start + 18));
  return literal === null ? 0 : start + literal[0].length;
}

/** The account at a database or a machine, `postgres://app@db.internal`. Behind any other scheme it may be a person. */
function isUserOfUrl(text: string, start: number): boolean {
  return (
    text.charCodeAt(start - 1) === 47 &&
    text.startsWith("://", start - 3) &&
    MACHINES.test(text.slice(Math.max(0, start - 3 - LONGEST_SCHEME), start - 3))
  );
}

const LONGEST_SCHEME = 24;
const MACHINES =
  /(?:postgres(?:ql)?|mysql|mariadb|mongodb|srv|rediss?|amqps?|mqtts?|nats|kafka|clickhouse|cockroachdb|sqlserver|mssql|oracle|ldaps?|s?ftps?|ssh|git|svn|rsync|smb|vnc|rdp)$/i;

/** RFC 5322 §3.4.1: a local part in quotes may hold blanks. In the text of JSON a backslash stands before each quote. */
function quoted(text: string, codes: Codes, sign: number, domain: number, found: Found): void {
  const escaped = text.charCodeAt(sign - 2) === 92 ? 1 : 0;
  const open = text.lastIndexOf('"', sign - 2 - escaped);
  if (open < 0 || sign - open > MAX_LOCAL || sign - open < 3 + 2 * escaped || /[\n<>:{}]/.test(text.slice(open, sign)))
    return;
  const end = domainEnd(text, codes, domain);
  if (end > 0) found.add(open - escaped, end);
}

function isLocal(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  if (code === 46 && text.charCodeAt(at + 1) === 46) return false; // well...bob@
  return LOCAL[code] === 1;
}

/** Where the domain that begins at `start` ends: two labels or more, the last one of letters or `xn--…`. 0: no domain. */
function domainEnd(text: string, codes: Codes, start: number): number {
  const letter = LETTER;
  const limit = Math.min(text.length, start + MAX_DOMAIN);
  const head = codes[start] ?? 0;
  if (head >= 48 && head <= 57 && isVersion(text, start)) return 0;
  let end = 0;
  let top = 0;
  let labels = 0;
  for (let at = start; at < limit; at++) {
    const from = at;
    let letters = true;
    const other = (codes[at] ?? 0) > 127 && isOther(text, at);
    for (; at < limit; at++) {
      const code = codes[at] ?? 0;
      if (letter[code] === 1 || (other && isOther(text, at))) continue;
      if ((code < 48 || code > 57) && code !== HYPHEN) break;
      letters = false;
    }
    let last = at;
    while (last > from && codes[last - 1] === HYPHEN) last--;
    if (last === from) break;
    labels++;
    if (labels > 1 && last - from >= 2 && (letters || isPunycode(text, from))) {
      end = last;
      top = from;
    }
    if (last !== at || codes[at] !== DOT) break;
  }
  return end > 0 && isFile(text, top, end) ? 0 : end;
}

function isFile(text: string, start: number, end: number): boolean {
  return FILE_PAIRS[pairIndex(text, start)] === 1 && FILES.has(text.slice(start, end).toLowerCase());
}

function isPunycode(text: string, at: number): boolean {
  return text.slice(at, at + 4).toLowerCase() === "xn--";
}

/** `4.17`, `1.3.0-beta`: a package and its version. */
function isVersion(text: string, start: number): boolean {
  let at = start;
  while (isDigit(text.charCodeAt(at)) && at - start < 8) at++;
  return text.charCodeAt(at) === 46 && isDigit(text.charCodeAt(at + 1));
}

/** At the bracket of `[at]` or `(at)`. */
function spelledOut(text: string, bracket: number, found: Found): void {
  const close = text[bracket] === "[" ? "]" : ")";
  if (text.slice(bracket + 1, bracket + 3).toLowerCase() !== "at" || text[bracket + 3] !== close) return;
  let name = text[bracket - 1] === " " ? bracket - 1 : bracket;
  const nameEnd = name;
  const floor = Math.max(0, name - MAX_LOCAL);
  while (name > floor && isLocal(text, name - 1)) name--;
  name = afterEscape(text, name);
  if (name === nameEnd) return;
  let at = text[bracket + 4] === " " ? bracket + 5 : bracket + 4;
  let end = 0;
  for (let labels = 0; labels < 6; labels++) {
    const from = at;
    while (at - from < 63 && (isAlnum(text.charCodeAt(at)) || text.charCodeAt(at) === 45)) at++;
    if (at === from) break;
    if (labels > 0) end = at;
    const dot = dotEnd(text, at);
    if (dot === 0) break;
    at = dot;
  }
  if (end > 0) found.add(name, end);
}

/** Behind ` [dot] `, `(dot)`, ` dot ` or `.`; 0 when none of them stands there. */
function dotEnd(text: string, at: number): number {
  const next = text.slice(at, at + 8).toLowerCase();
  const dot = [" [dot] ", "[dot]", " (dot) ", "(dot)", " dot ", "."].find((way) => next.startsWith(way));
  return dot === undefined ? 0 : at + dot.length;
}
