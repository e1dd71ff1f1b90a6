/**
 * What a stand-in looks like: like its type, out of ranges that belong to nobody, so that it passes a schema and reaches no one.
 * Pure: the same digest gives the same stand-in.
 */

const ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789";
/** RFC 2606 §2 reserves `.example`. */
const MAIL_DOMAIN = "masked.example";

/** The stand-in of a type for 32 random bytes. */
export function standInFor(type: string, digest: Buffer): string {
  const make = SHAPES[type];
  return make === undefined ? `[${type}@${letters(digest, 16)}]` : make(digest);
}

/** Marks of 12 letters, for hashes. */
export function markOf(digest: Buffer): string {
  return letters(digest, 12);
}

/** Stand-ins within a text; `sure` when nothing else looks like it. */
export const STAND_INS: readonly {
  readonly pattern: RegExp;
  readonly sure: boolean;
  readonly plain?: (found: string) => string;
}[] = [
  { pattern: /p-[a-km-z2-9]{16}@masked\.example/g, sure: true },
  { pattern: /\[[a-z][a-z0-9_]{0,39}@[a-km-z2-9]{16}\]/g, sure: true },
  { pattern: /\+999(?:[ -]?\d){12}(?!\d)/g, sure: true, plain: (found) => found.replaceAll(/[ -]/g, "") },
  { pattern: /(?<!\d)9999(?:[ -]?\d){12}(?!\d)/g, sure: false, plain: (found) => found.replaceAll(/[ -]/g, "") },
  { pattern: /XX\d\d[0-9A-Z]{20}/g, sure: true },
  { pattern: /(?<![\d.])2[45]\d\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\d.])/g, sure: false },
  { pattern: /2001:db8(?::[0-9a-f]{4}){6}/g, sure: false },
  { pattern: /(?<!\d)8\d{15}(?!\d)/g, sure: false },
];

/** For a number in JSON, where it is to stay one: sixteen digits, exact in a double. */
export function numberFor(digest: Buffer): string {
  return `8${digits(digest, 15)}`;
}

const SHAPES: Readonly<Record<string, (digest: Buffer) => string>> = {
  email: (digest) => `p-${letters(digest, 16)}@${MAIL_DOMAIN}`,
  // ITU-T E.164: country code 999 is assigned to nobody.
  phone: (digest) => `+999${digits(digest, 12)}`,
  // Cards that begin with 9999 have no issuer.
  credit_card: (digest) => withLuhn(`9999${digits(digest, 11)}`),
  // ISO 3166: XX is for private use.
  iban: (digest) => withRemainder(digits(digest, 20)),
  // RFC 1112 §4: 240.0.0.0/4 is reserved.
  ip_address: (digest) => [240 + ((digest[0] ?? 0) % 15), digest[1], digest[2], digest[3]].join("."),
};

function letters(digest: Buffer, count: number): string {
  return Array.from(digest.subarray(0, count), (byte) => ALPHABET[byte & 31]).join("");
}

function digits(digest: Buffer, count: number): string {
  const number = digest.readBigUInt64BE(0) * 1_000_003n + digest.readBigUInt64BE(8);
  return String(number % 10n ** BigInt(count)).padStart(count, "0");
}

function withLuhn(body: string): string {
  let sum = 0;
  for (let at = body.length - 1, double = true; at >= 0; at--, double = !double) {
    const value = Number(body[at]) * (double ? 2 : 1);
    sum += value > 9 ? value - 9 : value;
  }
  return `${body}${(10 - (sum % 10)) % 10}`;
}

/** ISO 7064 MOD 97-10 over `XX` and the account. */
function withRemainder(account: string): string {
  const check = 98n - (BigInt(`${account}333300`) % 97n);
  return `XX${String(check).padStart(2, "0")}${account}`;
}
