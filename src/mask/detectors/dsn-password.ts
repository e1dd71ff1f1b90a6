/** The password within a URL: `postgres://user:password@host/db` (RFC 3986 §3.2.1). */
import { isPlaceholder } from "../credential-names.ts";
import { type Detector, type Found, isAlnum, isDigit } from "../detector.ts";

const MAX_USERINFO = 512;
const [SLASH, COLON, AT] = [47, 58, 64];

export const dsnPassword: Detector = {
  type: "dsn_password",
  about: "secret",
  at: { "://": authority },
  hits: [
    ["DATABASE_URL=postgres://app:X82cYQ3E8xoQuqVJuQ@db.internal:5432/prod", "X82cYQ3E8xoQuqVJuQ"],
    ["mongodb+srv://svc:j!*EeTrO3dmAlWX%rO@cluster0.example.net/?retryWrites=true", "j!*EeTrO3dmAlWX%rO"],
    ['{"db":"postgres://svc:w^VRdt0eD5@db.internal/app"}', "w^VRdt0eD5"],
    ["redis://:G3rjou6nmg@cache.internal:6379/0", "G3rjou6nmg"],
    ["amqp://u:p@ss@mq.internal:5672", "p@ss"],
    ["amqp://u:pa/ss#w0rd@mq.internal:5672", "pa/ss#w0rd"],
    ["https://bob:hunter2@example.com/x", "hunter2"],
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

/** Spaces, quotes, brackets and backslashes end a URL. */
function ends(code: number): boolean {
  return (
    code <= 32 || code === 34 || code === 39 || code === 96 || code === 60 || code === 62 || code === 92 || code === 91
  );
}
