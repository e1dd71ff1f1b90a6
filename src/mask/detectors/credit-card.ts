/** Numbers of payment cards: an issuer's range and length, and the Luhn checksum (ISO/IEC 7812). */
import { type Detector, digitsOf, type Found, isDigit, isLetter } from "../detector.ts";
import { labelBefore, says } from "../label.ts";
import { digitsIn, evenly, lengthOf, type NumberRun } from "../number-run.ts";

/** First digits `from` to `to` of an issuer, and the length by which its numbers are told from others without any word. */
interface Issuer {
  readonly from: number;
  readonly to: number;
  readonly digits: number;
}

const ISSUERS: readonly Issuer[] = [
  { from: 4, to: 4, digits: 16 }, // Visa
  { from: 51, to: 55, digits: 16 }, // Mastercard
  { from: 2221, to: 2720, digits: 16 },
  { from: 34, to: 34, digits: 15 }, // American Express
  { from: 37, to: 37, digits: 15 },
  { from: 300, to: 305, digits: 14 }, // Diners Club
  { from: 36, to: 36, digits: 14 },
  { from: 38, to: 39, digits: 14 },
  { from: 6011, to: 6011, digits: 16 }, // Discover
  { from: 644, to: 659, digits: 16 },
  { from: 3528, to: 3589, digits: 16 }, // JCB
  { from: 62, to: 62, digits: 16 }, // UnionPay
  { from: 2200, to: 2204, digits: 16 }, // Mir
  { from: 9792, to: 9792, digits: 16 }, // Troy
];
const saysCard = says(
  /card|\bpan\b|visa|master|maestro|amex|american express|discover|diners|jcb|unionpay|credit|debit|tarjeta|karte|carte|kaart|carta|カード|\bcc\b|ccn|cc[_-]?n(?:um|o)/,
);

export const creditCard: Detector = {
  type: "credit_card",
  about: "person",
  number: numbers,
  canonical: digitsOf,
  partial: (value) => `**** ${digitsOf(value).slice(-4)}`,
  hits: [
    ["Card 6011910970069989 was declined.", "6011910970069989"],
    ['{"pan":5239791409176951,"qty":3}', "5239791409176951"],
    ["5570 2881 3722 4788 exp 04/29", "5570 2881 3722 4788"],
    ["3487-751203-30467", "3487-751203-30467"],
    ["3705 538197 84570", "3705 538197 84570"],
    ["5142\u00a02182\u00a06087\u00a00965", "5142\u00a02182\u00a06087\u00a00965"],
    ["5570.2881.3722.4788 is on file.", "5570.2881.3722.4788"],
    ["5142/2182/6087/0965", "5142/2182/6087/0965"],
    ["my card 4131034282458809939 expires", "4131034282458809939"],
    ["card-5215813640666307", "5215813640666307"],
  ],
  misses: [
    "Tracking no. 6011808564903548 is out for delivery",
    "IMEI 354264069779571",
    "EAN 5050126970785",
    "0.5215813640666307",
    "0.5570.2881.3722.4788",
    "x5215813640666307",
    "52158136406663071234",
    "5215 8136 4066 6307 1234 1111",
    "at 1748158514256123",
  ],
};

function numbers(text: string, run: NumberRun, found: Found): void {
  if (run.digits < 12 || run.lettersAfter) return;
  for (let first = 0; first < run.groups; first++) {
    const last = lastGroup(text, run, first);
    if (last < 0) continue;
    const start = run.starts[first] ?? 0;
    const end = run.ends[last] ?? 0;
    if (text.charCodeAt(start) === 48) continue;
    // The digits of a fraction, or a number with one.
    if (text[start - 1] === "." && isDigit(text.charCodeAt(start - 2))) continue;
    if (text[end] === "." && isDigit(text.charCodeAt(end + 1))) continue;
    if (run.attached && (first > 0 || isLetter(text.charCodeAt(start - 1)) || text[start - 1] === "_")) continue;
    if (!isCard(digitsIn(text, run, first, last), text, first === 0 ? start : -1)) continue;
    found.add(start, end);
    first = last;
  }
}

/** Where a number that begins with group `first` ends, when its groups are those of a card; otherwise -1. */
function lastGroup(text: string, run: NumberRun, first: number): number {
  const length = lengthOf(run, first);
  if (length >= 12 && length <= 19) return neighboured(text, run, first, first) ? -1 : first;
  if (length !== 4) return -1;
  const second = lengthOf(run, first + 1);
  let last = -1;
  if (second === 6 && first + 2 < run.groups) {
    const third = lengthOf(run, first + 2);
    if (third === 5 || third === 4) last = first + 2;
  } else if (
    second === 4 &&
    first + 3 < run.groups &&
    lengthOf(run, first + 2) === 4 &&
    lengthOf(run, first + 3) === 4
  ) {
    last = first + 3;
    if (last + 1 < run.groups && lengthOf(run, last + 1) === 3) last++;
  }
  if (last < 0 || !evenly(text, run, first, last, " -./") || neighboured(text, run, first, last)) return -1;
  return last;
}

/** The same row goes on with a group of four before or after, so these are numbers in a table. */
function neighboured(text: string, run: NumberRun, first: number, last: number): boolean {
  const glued = (group: number): boolean => "-.".includes(text[run.ends[group] ?? 0] ?? "");
  if (first > 0 && (glued(first - 1) || (last > first && lengthOf(run, first - 1) === 4))) return true;
  return last + 1 < run.groups && (glued(last) || (last > first && lengthOf(run, last + 1) === 4));
}

/** `start` is negative for a number that others stand before. After a word that says card the checksum is enough: Maestro alone has numbers of twelve to nineteen digits. */
function isCard(digits: string, text: string, start: number): boolean {
  if (!hasLuhn(digits)) return false;
  return ISSUERS.some((issuer) => issues(issuer, digits)) || (start >= 0 && saysCard(labelBefore(text, start)));
}

function issues({ from, to, digits }: Issuer, number: string): boolean {
  if (number.length !== digits) return false;
  const head = Number(number.slice(0, String(from).length));
  return head >= from && head <= to;
}

function hasLuhn(digits: string): boolean {
  let sum = 0;
  for (let at = digits.length - 1, double = false; at >= 0; at--, double = !double) {
    const value = (digits.charCodeAt(at) - 48) * (double ? 2 : 1);
    sum += value > 9 ? value - 9 : value;
  }
  return sum % 10 === 0;
}
