/** Values after the name of a credential: what is private only because of what stands before it. */
import type { Codes } from "./char-sets.ts";
import { isAlnum, type NamedValue } from "./detector.ts";

const MAX_NAME = 40;
const MAX_VALUE = 1024;
const [TAB, SPACE, QUOTE, APOSTROPHE, BACKTICK, BACKSLASH] = [9, 32, 34, 39, 96, 92];
const [COLON, EQUALS, GREATER, LESS, SLASH, STAR, BAR] = [58, 61, 62, 60, 47, 42, 124];

const PASSWORD =
  /(?:passwords?|passwd|passphrase|pwd|passcode|passwort|kennwort|contrase[nñ]a|motdepasse|^passe|senha|wachtwoord|has[lł]o|[sş]ifre|lösenord|passord|adgangskode|salasana|heslo|jelszó|parola|пароль|κωδικός|密码|密碼|口令|パスワード|비밀번호|암호|khẩu|รหัสผ่าน|पासवर्ड|المرور|סיסמה|(?:db|database|user|smtp|mail|admin|root|ftp|redis|mysql|pg|postgres|mongo|login|auth)pass)$/;
const AWS_SECRET = /(?:secretaccesskey|awssecretkey|awssecret)$/;
const KEY =
  /(?:(?:api|access|secret|private|auth|encryption|signing|signature|master|account|storage|service|subscription|license|application|app|client|admin|shared|write|ingest|webhook|deploy|openai|anthropic|stripe|datadog|dd|heroku|sendgrid|azure)keys?|secrets?|secretkeybase|tokens?|credentials?|apitoken|cookie)$/;
/** Tokens that open nothing: where a list goes on, what a language model counts. */
const HARMLESS =
  /(?:next|page|paging|continuation|continue|sync|cursor|csrf|xsrf|resume|start|(?<!back|front|s)end|progress|idempotency|skip|max|(?<!ad)min|total|prompt|completion|input|output|stop|pad|eos|bos|unk|mask|cls|sep|cancellation|(?<!ex)change|delta|public)(?:page)?(?:tokens?|keys?)$/;

/** The last three letters of names of credentials: nearly every other name is turned away by them. */
const ENDINGS = new Uint8Array(1 << 15);
for (const ending of (
  "ass ord rds swd pwd ase ode ort ena sse key eys ret ets ken ens ial als kie ion lue eña nha ord asło slo fre ana ola " +
  "szó оль кός κός ード 번호 ẩu ่าน र्ड رور סמה"
).split(" ")) {
  ENDINGS[packed(ending, ending.length)] = 1;
}
// Names of two characters: what stands before them is any.
for (const name of ["密码", "密碼", "口令", "암호"]) {
  for (let before = 0; before < 32; before++) ENDINGS[packed(String.fromCharCode(before) + name, 3)] = 1;
}
const MAX_MEMO = 2000;
const memo = new Map<string, NamedValue["kind"] | undefined>();

/** False for nearly every `:`, `=` and `>` that no name of a credential stands before. */
export function mayNameCredential(text: string, at: number): boolean {
  let end = at;
  let code = text.charCodeAt(end - 1);
  if (code === COLON) code = text.charCodeAt(--end - 1);
  while (at - end < 3 && (code === SPACE || code === STAR)) code = text.charCodeAt(--end - 1);
  if (code === QUOTE || code === APOSTROPHE || code === BACKTICK) {
    code = text.charCodeAt(--end - 1);
    while (code === BACKSLASH) code = text.charCodeAt(--end - 1);
  }
  return ENDINGS[packed(text, end)] === 1;
}

/** The same of the codes of a text: for the scan, which asks at every such place. */
export function mayNameIn(codes: Codes, at: number): boolean {
  let end = at;
  let code = codes[end - 1] ?? 0;
  if (code === COLON) code = codes[--end - 1] ?? 0;
  while (at - end < 3 && (code === SPACE || code === STAR)) code = codes[--end - 1] ?? 0;
  if (code === QUOTE || code === APOSTROPHE || code === BACKTICK) {
    code = codes[--end - 1] ?? 0;
    while (code === BACKSLASH) code = codes[--end - 1] ?? 0;
  }
  return ENDINGS[(((codes[end - 3] ?? 0) & 31) << 10) | (((codes[end - 2] ?? 0) & 31) << 5) | (code & 31)] === 1;
}

/** The value that a `:`, `=` or `>` at `at` gives to the name of a credential; undefined when there is none. */
export function namedValue(text: string, at: number): NamedValue | undefined {
  let end = at;
  let quoted = false;
  if (text.charCodeAt(at) === GREATER) {
    quoted = true;
  } else {
    if (text.charCodeAt(end - 1) === COLON) end--; // `:=`
    for (let spaces = 0; spaces < 2 && text.charCodeAt(end - 1) === SPACE; spaces++) end--;
    for (let stars = 0; stars < 2 && text.charCodeAt(end - 1) === STAR; stars++) end--; // **name**: value
    if (isQuote(text.charCodeAt(end - 1))) {
      quoted = true;
      end--;
      for (let depth = 0; depth < 7 && text.charCodeAt(end - 1) === BACKSLASH; depth++) end--;
    }
  }
  let start = end;
  while (start > 0 && end - start < MAX_NAME && isNameCode(text.charCodeAt(start - 1))) start--;
  if (end - start < 3 && !(end - start === 2 && text.charCodeAt(start) > 127)) return undefined;
  if (text.charCodeAt(at) === GREATER && text.charCodeAt(start - 1) !== LESS) return undefined;
  if (text.charCodeAt(at) === BAR && !beginsCell(text, start)) return undefined;
  // A name of several words: AWS secret access key.
  if (text.charCodeAt(start - 1) === SPACE && isKeyWord(text, start, end)) start = wordsBefore(text, start);
  const name =
    end - start === 5 && text.startsWith("alue", start + 1) ? nameBefore(text, start) : text.slice(start, end);
  if (name === "") return undefined;
  const kind = kindOf(name);
  // What a table in the documentation of a program says stands in quotes too.
  return kind === undefined ? undefined : valueAfter(text, at + 1, kind, quoted && text.charCodeAt(at) !== BAR);
}

/** Only blanks and a mark of code stand between `at` and the begin of a cell: `A | B` in a program is no row of a table. */
function beginsCell(text: string, at: number): boolean {
  let before = at;
  while (at - before < 4 && (isBlank(text.charCodeAt(before - 1)) || text.charCodeAt(before - 1) === BACKTICK))
    before--;
  const code = text.charCodeAt(before - 1);
  return before === 0 || code === BAR || code === 10 || (code === 110 && text.charCodeAt(before - 2) === BACKSLASH);
}

/** `key` alone. */
function isKeyWord(text: string, start: number, end: number): boolean {
  return end - start === 3 && ENDINGS[packed(text, end)] === 1 && (text.charCodeAt(start) | 32) === 107;
}

/** Where the two words before `start` begin. */
function wordsBefore(text: string, start: number): number {
  let at = start;
  for (let words = 0; words < 2 && text.charCodeAt(at - 1) === SPACE; words++) {
    at--;
    while (start - at < MAX_NAME && isAlnum(text.charCodeAt(at - 1))) at--;
  }
  return at;
}

/** `name: DB_PASSWORD` stands before `value: …` at `at`: variables of containers, settings in XML. */
function nameBefore(text: string, at: number): string {
  let end = at;
  while (at - end < 24 && isBetween(text, end - 1)) end--;
  if (at === end || ENDINGS[packed(text, end)] !== 1) return "";
  return NAME.exec(text.slice(Math.max(0, end - 64), end))?.[1] ?? "";
}

const NAME = /(?:name|key|variable)["'\\]{0,9} ?[:=] ?["'\\]{0,9}([\w.-]{3,40})$/i;

/** Quotes, blanks, line ends and commas between two members, in JSON also escaped. */
function isBetween(text: string, at: number): boolean {
  const code = text.charCodeAt(at);
  if (code <= SPACE || code === 44 || code === BACKSLASH || isQuote(code)) return true;
  return code === 110 && text.charCodeAt(at - 1) === BACKSLASH;
}

/** The three letters before `end`, whatever their case, as one number of fifteen bits. */
function packed(text: string, end: number): number {
  return (
    ((text.charCodeAt(end - 3) & 31) << 10) | ((text.charCodeAt(end - 2) & 31) << 5) | (text.charCodeAt(end - 1) & 31)
  );
}

/** Names come again in every row, so what they are is remembered. */
function kindOf(name: string): NamedValue["kind"] | undefined {
  let kind = memo.get(name);
  if (kind === undefined && !memo.has(name)) {
    kind = kindOfPlain(name.toLowerCase().replaceAll(/[_. -]/g, ""));
    if (memo.size >= MAX_MEMO) memo.clear();
    memo.set(name, kind);
  }
  return kind;
}

function kindOfPlain(name: string): NamedValue["kind"] | undefined {
  if (PASSWORD.test(name)) return "password";
  if (AWS_SECRET.test(name)) return "aws";
  if (name.endsWith("authorization")) return "authorization";
  return KEY.test(name) && !HARMLESS.test(name) ? "key" : undefined;
}

const SCHEMES = ["Bearer ", "bearer ", "Basic ", "basic ", "Token ", "token ", "ApiKey ", "Negotiate "];

function valueAfter(text: string, from: number, kind: NamedValue["kind"], nameQuoted: boolean): NamedValue | undefined {
  const element = text.charCodeAt(from - 1) === GREATER;
  let start = from;
  if (text.charCodeAt(start) === EQUALS || text.charCodeAt(start) === GREATER) start++; // `==`, `=>`
  for (let spaces = 0; spaces < 3 && isBlank(text.charCodeAt(start)); spaces++) start++;
  let quote = 0;
  let depth = 0;
  while (depth < 15 && text.charCodeAt(start + depth) === BACKSLASH) depth++;
  if (isQuote(text.charCodeAt(start + depth))) {
    quote = text.charCodeAt(start + depth);
    start += depth + 1;
  }
  // ODBC: Pwd={…}
  if (quote === 0 && start === from && text.charCodeAt(start) === 123 && text.charCodeAt(start - 1) === EQUALS) start++;
  const scheme = SCHEMES.find((word) => text.startsWith(word, start));
  if (scheme !== undefined) start += scheme.length;
  const limit = Math.min(text.length, start + MAX_VALUE);
  let end = start;
  for (; end < limit; end++) {
    const code = text.charCodeAt(end);
    if (quote === 0 ? endsBare(code) : code < SPACE) break;
    if (code !== quote) continue;
    // The quote of JSON inside JSON has as many backslashes before it as the one that opened; with more it is part of the value.
    let backslashes = 0;
    while (end - backslashes > start && text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes > depth) continue;
    end -= backslashes;
    break;
  }
  if (element && (text.charCodeAt(end) !== LESS || text.charCodeAt(end + 1) !== SLASH)) return undefined;
  if (end === start || text.charCodeAt(end) === 40) return undefined; // a call: token = read(…)
  return { kind, start, end, quoted: element || (quote !== 0 && nameQuoted) };
}

/** What ends a value without quotes. */
function endsBare(code: number): boolean {
  return (
    code <= SPACE ||
    isQuote(code) ||
    code === BACKSLASH ||
    code === 44 ||
    code === 59 ||
    code === 38 ||
    code === 40 ||
    code === 41 ||
    code === LESS ||
    code === GREATER ||
    code === 123 ||
    code === 125 ||
    code === 124
  );
}

function isQuote(code: number): boolean {
  return code === QUOTE || code === APOSTROPHE || code === BACKTICK;
}
function isBlank(code: number): boolean {
  return code === SPACE || code === TAB;
}
function isNameCode(code: number): boolean {
  return isAlnum(code) || code === 95 || code === 45 || code === 46 || isForeign(code);
}
/** Letters of other alphabets, roughly: no signs, no punctuation. */
function isForeign(code: number): boolean {
  return (code >= 0xc0 && code < 0x2000 && code !== 0xd7 && code !== 0xf7) || (code >= 0x3041 && code < 0xe000);
}

const PLACEHOLDER =
  /your|example|sample|dummy|placeholder|changeme|redacted|masked|xxxx|\*\*\*|\.\.\.|…|\.env\b|environ|getenv|secrets\.|vault:|\$\{|\{\{|^\$\(|^\$[A-Z_]+$|^%[A-Z_]+%$|^<[^<>]*>$|^\[[^[\]]*\]$|^\{[^{}]*\}$|^(?:null|none|nil|undefined|true|false|string|str|text|number|boolean|password|secret|token|required|optional|hidden|todo|tbd|unset|empty|invalid|missing|expired|wrong)$/i;

/** What stands where a secret will be: `YOUR_API_KEY`, `${TOKEN}`, `sk-...`, `string`. */
export function isPlaceholder(value: string): boolean {
  return PLACEHOLDER.test(value.length > 200 ? value.slice(0, 200) : value);
}

/** Random enough for a key: small and capital letters and digits in turns, many different ones. */
export function looksRandom(value: string, minLength: number, minTurns: number, needsDigit = true): boolean {
  if (value.length < minLength) return false;
  let turns = 0;
  let digits = 0;
  let letters = 0;
  let last = 0;
  // One bit for each character of ASCII, 32 to a word: fewer than 64 kinds of them are told apart, which is plenty.
  let low = 0;
  let high = 0;
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at);
    if (code & 32) low |= 1 << (code & 31);
    else high |= 1 << (code & 31);
    const kind = code >= 48 && code <= 57 ? 1 : code >= 65 && code <= 90 ? 2 : code >= 97 && code <= 122 ? 3 : 0;
    if (kind === 1) digits++;
    else if (kind !== 0) letters++;
    if (kind === 0) continue;
    if (last !== 0 && kind !== last) turns++;
    last = kind;
  }
  return (
    (digits > 0 || !needsDigit) &&
    letters > 0 &&
    turns >= minTurns &&
    bits(low) + bits(high) >= Math.min(8, minLength / 2)
  );
}

function bits(mask: number): number {
  let count = 0;
  for (let rest = mask; rest !== 0; rest &= rest - 1) count++;
  return count;
}
