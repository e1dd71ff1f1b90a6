/** The password within a URL: `postgres://user:password@host/db` (RFC 3986 §3.2.1). */

import type { Codes } from "../char-sets.ts";
import { isPlaceholder, looksRandom } from "../credential-names.ts";
import { type Detector, type Found, isAlnum, isDigit } from "../detector.ts";

const MAX_USERINFO = 512;
const [SLASH, COLON, AT] = [47, 58, 64];

export const dsnPassword: Detector = {
  type: "dsn_password",
  about: "secret",
  at: { "://": authority, "@": oracle },
  hits: [
    ["DATABASE_URL=postgres://app:X82cYQ3E8xoQuqVJuQ@db.internal:5432/prod", "X82cYQ3E8xoQuqVJuQ"],
    ["mongodb+srv://svc:j!*EeTrO3dmAlWX%rO@cluster0.example.net/?retryWrites=true", "j!*EeTrO3dmAlWX%rO"],
    ['{"db":"postgres://svc:w^VRdt0eD5@db.internal/app"}', "w^VRdt0eD5"],
    ["redis://:G3rjou6nmg@cache.internal:6379/0", "G3rjou6nmg"],
    ["amqp://u:p@ss@mq.internal:5672", "p@ss"],
    ["amqp://u:pa/ss#w0rd@mq.internal:5672", "pa/ss#w0rd"],
    ["https://bob:hunter2@example.com/x", "hunter2"],
    ["https://87f08757a3beff460f5a5b24666d282e@o12.ingest.sentry.io/45", "87f08757a3beff460f5a5b24666d282e"],
    ["jdbc:oracle:thin:app/jKPhpPYJLVpaNHV@db.internal:1521/ORCL", "jKPhpPYJLVpaNHV"],
  ],
  misses: [
    "https://example.com:8080/path@v1",
    "ssh://git@github.com/example/repo.git",
    "https://example.com/a:b@c",
    "postgres://user:password@localhost/db",
    "postgres://app:${DB_PASSWORD}@db/prod",
    "postgres://app:***@db/prod",
    "http://[2001:db8::1]:80/",
    "see https://example.com: mail@",
  ],
};

/** At the colon of `://`. */
function authority(text: string, colon: number, found: Found): void {
  if (!isAlnum(text.charCodeAt(colon - 1))) return;
  const limit = Math.min(text.length, colon + 3 + MAX_USERINFO);
  let start = 0;
  let end = 0;
  let slashed = false;
  for (let at = colon + 3; at < limit; at++) {
    const code = text.charCodeAt(at);
    if (ends(code)) break;
    if (code === AT && start === 0) {
      // A token in the place of the user: `https://87f0…@o12.ingest.sentry.io`.
      const user = text.slice(colon + 3, at);
      if (looksRandom(user, 20, 4) && !isPlaceholder(user)) found.add(colon + 3, at);
      return;
    }
    if (code === SLASH || code === 63 || code === 35) {
      // Before the password a path begins; within it, it was not encoded. A port is no password.
      if (start === 0 || end > 0 || isDigit(text.charCodeAt(start))) break;
      slashed = true;
    } else if (code === COLON && start === 0) start = at + 1;
    else if (code === AT && start > 0) {
      if (slashed && end > 0) break;
      end = at;
    } else if (code === COLON && slashed) break;
  }
  if (end <= start || start === 0) return;
  const password = text.slice(start, end);
  if (!isPlaceholder(password) && !/^(?:pass|pwd|user|x-oauth-basic|x)$/i.test(password)) found.add(start, end);
}

/** At the `@` of `jdbc:oracle:thin:user/password@host`. */
function oracle(text: string, sign: number, found: Found, codes: Codes): void {
  const breaks = BREAKS;
  const limit = Math.max(0, sign - 64);
  let slash = sign - 1;
  while (slash > limit && breaks[codes[slash] ?? 0] === 0) slash--;
  if (slash < 0 || codes[slash] !== SLASH || slash + 1 >= sign) return;
  const before = text.slice(Math.max(0, slash - 60), slash);
  if (/oracle:(?:thin|oci8?):[\w.$-]{1,40}$/i.test(before) && !isPlaceholder(text.slice(slash + 1, sign)))
    found.add(slash + 1, sign);
}

/** 1 for what ends a URL, and for a slash. */
const BREAKS = new Uint8Array(65_536);
for (let code = 0; code < 128; code++) if (ends(code) || code === SLASH) BREAKS[code] = 1;

/** Spaces, quotes, brackets and backslashes end a URL. */
function ends(code: number): boolean {
  return (
    code <= 32 || code === 34 || code === 39 || code === 96 || code === 60 || code === 62 || code === 92 || code === 91
  );
}
