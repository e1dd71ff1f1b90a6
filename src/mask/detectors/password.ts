/** Whatever stands after the name of a password: `password=…`, `"passwd": "…"`, `<pwd>…`. */
import { isPlaceholder, looksRandom } from "../credential-names.ts";
import type { Detector, Found, NamedValue } from "../detector.ts";

export const password: Detector = {
  type: "password",
  about: "secret",
  named,
  partial: () => "***",
  hits: [
    ["Server=db;User Id=sa;Password=hunter2!x;", "hunter2!x"],
    ['{"user":"amy","password":"correct horse"}', "correct horse"],
    ["PGPASSWORD=s3cr3tPw psql", "s3cr3tPw"],
    ["<password>Tr0ub4dor</password>", "Tr0ub4dor"],
    ['{\\"pwd\\":\\"a1b2c3\\"}', "a1b2c3"],
    ["db.password = 'kX9!mm'", "kX9!mm"],
  ],
  misses: [
    "Password: must have 12 characters",
    '{"password":"string"}',
    '{"properties":{"password":{"type":"string"}}}',
    "password = getPassword()",
    "password=${DB_PASSWORD}",
    '{"password":"********"}',
    '{"password":null,"passwordChanged":"2026-01-01"}',
    "Forgot password: https://example.com/reset2",
    "the password: required",
  ],
};

function named(text: string, value: NamedValue, found: Found): void {
  if (value.kind !== "password") return;
  const word = text.slice(value.start, value.end);
  if (word.length < 4 || isPlaceholder(word) || word.includes("://")) return;
  if (value.quoted || hasPasswordForm(word)) found.add(value.start, value.end);
}

/** Out of quotes it may be prose or code: a password has letters and digits in turns, or characters that words have not. */
function hasPasswordForm(word: string): boolean {
  if (!/[a-zA-Z]/.test(word)) return word.length >= 6 && /^\d+$/.test(word) === false;
  return looksRandom(word, 5, 1) || (/\d/.test(word) && /[!@#$%^*?]/.test(word));
}
