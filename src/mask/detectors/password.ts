/** Whatever stands after the name of a password: `password=…`, `"passwd": "…"`, `<pwd>…`. */
import { isPlaceholder, looksRandom, mayNameCredential, namedValue } from "../credential-names.ts";
import type { Detector, Found, NamedValue } from "../detector.ts";

export const password: Detector = {
  type: "password",
  about: "secret",
  named,
  word: { find: flag, first: "-" },
  partial: () => "***",
  hits: [
    ["Server=db;User Id=sa;Password=hunter2!x;", "hunter2!x"],
    ['{"user":"amy","password":"correct horse"}', "correct horse"],
    ["PGPASSWORD=s3cr3tPw psql", "s3cr3tPw"],
    ["<password>Tr0ub4dor</password>", "Tr0ub4dor"],
    ['{\\"pwd\\":\\"a1b2c3\\"}', "a1b2c3"],
    ["db.password = 'kX9!mm'", "kX9!mm"],
    ['Password = "SfvaXW@UhOOo"', "SfvaXW@UhOOo"],
    ["Server=db;Database=app;Uid=app;Pwd=eQtpQWKAsrKKy;", "eQtpQWKAsrKKy"],
    ["jdbc:mysql://db/app?user=svc&password=secondgarden&useSSL=false", "secondgarden"],
    ['{"name":"DB_PASSWORD","value":"s3cr3t-x"}', "s3cr3t-x"],
    ["- name: DB_PASSWORD\n  value: hunter2x", "hunter2x"],
    ["пароль: Tr0ub4dor", "Tr0ub4dor"],
    ["密码：a1B2c3d4", "a1B2c3d4"],
    ["Mot de passe : a1B2c3d4", "a1B2c3d4"],
    ["| host | db |\n| password | a1B2c3d4! |", "a1B2c3d4!"],
    ["**password**: `a1B2c3d4`", "a1B2c3d4"],
    ["Driver={x};Server=db;Uid=app;Pwd={zdKjqwGpaaLy};", "zdKjqwGpaaLy"],
    ["psql --password correct-horse-42 app", "correct-horse-42"],
    ["docker run -e DB_PASSWORD=correcthorse app", "correcthorse"],
    ["host=db port=5432 user=svc password=zdKjqwGpaaLy dbname=app", "zdKjqwGpaaLy"],
  ],
  misses: [
    "type A = 'new-password' | 'one-time-code2' | 'organization';",
    "| password | string | required |",
    '{"name":"password","value":"string"}',
    "Password: must have 12 characters",
    '{"password":"string"}',
    '{"properties":{"password":{"type":"string"}}}',
    "password = getPassword()",
    "password=${DB_PASSWORD}",
    '{"password":"********"}',
    '{"password":null,"passwordChanged":"2026-01-01"}',
    "Forgot password: https://example.com/reset2",
    "the password: required",
    '{"password":"••••••••"}',
    "password: arn:aws:secretsmanager:eu-west-1:123456789012:secret:db",
    "const label = { password: 'Password' };",
    "login(user, password=userPassword)",
    "console.log('password:', password);",
    "host: auth[0], password: auth[1],",
    '{"pg":"8.23.1","pgpass":"1.0.5"}',
    "env: { PWD: '/home/robot' }",
  ],
};

/** Where a password is kept, or the dots that hide one. */
const ELSEWHERE =
  /^(?:[•●·*x._-]+|replace.?me|env:.*|!.*|enc\[.*|arn:.*|op:.*|(?:config|self|this|settings|process)\..*)$/i;
/** In code `auth[1]`, and versions: `"pgpass": "1.0.5"`. */
const NO_VALUE = /^(?:[a-z_$][\w$.]*(?:\[\w*\])+|[\^~]?\d+(?:\.\d+)+)$/i;
/** Other parts of a connection string (ODBC, ADO.NET, libpq, JDBC) stand shortly before the name and its `=`. */
const CONNECTION =
  /(?:server|host|source|catalog|user ?id|uid|user(?:name)?|dbname|database)=[^=\n"']{1,80}[;&?\s][\w ]{2,12}=$/i;

/** At the end of `--password`, behind which a blank stands for `=`. */
function flag(text: string, start: number, end: number, found: Found): void {
  if (text.charCodeAt(start) !== 45 || text.charCodeAt(end) !== 32 || !mayNameCredential(text, end)) return;
  const value = namedValue(text, end);
  if (value !== undefined) named(text, value, found);
}

function named(text: string, value: NamedValue, found: Found): void {
  if (value.kind !== "password") return;
  const word = text.slice(value.start, value.end);
  if (word.length < 4 || isPlaceholder(word) || ELSEWHERE.test(word) || NO_VALUE.test(word) || word.includes("://"))
    return;
  if (value.quoted || hasPasswordForm(word) || isAssigned(text, value.start, word)) found.add(value.start, value.end);
}

/** In code `password = "…"` any value counts that is no plain word, in a connection string any at all. */
function isAssigned(text: string, start: number, word: string): boolean {
  const before = text.charCodeAt(start - 1);
  if (before === 34 || before === 39)
    return !/\s|^[~/,;)]/.test(word) && (looksRandom(word, 6, 3, false) || /[^a-z]/i.test(word.slice(1, -1)));
  // ODBC has braces around it: Pwd={…}.
  const from = before === 123 ? start - 1 : start;
  if (text.charCodeAt(from - 1) !== 61) return false;
  // A variable of the environment is given as it is: DB_PASSWORD=correcthorse.
  const name = text.charCodeAt(from - 2);
  if (name >= 65 && name <= 90 && word.length >= 6) return !/^[~/$]/.test(word);
  return CONNECTION.test(text.slice(Math.max(0, from - 120), from));
}

/** Out of quotes it may be prose or code: a password has letters and digits in turns, or characters that words have not. */
function hasPasswordForm(word: string): boolean {
  if (!/[a-zA-Z]/.test(word)) return word.length >= 6 && /^\d+$/.test(word) === false;
  return looksRandom(word, 5, 1) || (/\d/.test(word) && /[!@#$%^*?]/.test(word));
}
