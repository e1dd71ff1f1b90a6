/** Numbers of payment cards: an issuer's range and length, and the Luhn checksum (ISO/IEC 7812). */
import { type Detector, digitsOf, type Found, isDigit, isLetter } from "../detector.ts";
import { labelBefore, says } from "../label.ts";
import { between, digitsIn, lengthOf, type NumberRun } from "../number-run.ts";

/** First digits `from` to `to` of an issuer, and the length by which its numbers are told from others without any word. */
interface Issuer {
  readonly from: number;
  readonly to: number;
  readonly digits: number;
}

const ISSUERS: readonly Issuer[] = [
  { from: 4, to: 4, digits: 16 }, // Visa
  { from: 4, to: 4, digits: 19 },
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
  { from: 62, to: 62, digits: 19 },
  { from: 60, to: 60, digits: 16 }, // RuPay
  { from: 8172, to: 8172, digits: 16 },
  { from: 508, to: 508, digits: 16 },
  { from: 5018, to: 5018, digits: 16 }, // Maestro
  { from: 5020, to: 5020, digits: 16 },
  { from: 5038, to: 5038, digits: 16 },
  { from: 6304, to: 6304, digits: 16 },
  { from: 6759, to: 6763, digits: 16 },
  { from: 36, to: 36, digits: 16 }, // Diners Club
  { from: 5066, to: 5067, digits: 16 }, // Elo
  { from: 6362, to: 6363, digits: 16 },
  { from: 2200, to: 2204, digits: 16 }, // Mir
  { from: 9792, to: 9792, digits: 16 }, // Troy
];
/** Lengths that are told by their groups alone: `6759 9225 4424 0766 56`. In one piece they are ids as often as not. */
const GROUPED: readonly Issuer[] = [
  { from: 4, to: 4, digits: 13 }, // Visa
  { from: 5018, to: 5018, digits: 18 }, // Maestro
  { from: 5020, to: 5020, digits: 18 },
  { from: 5038, to: 5038, digits: 18 },
  { from: 6304, to: 6304, digits: 18 },
  { from: 6759, to: 6763, digits: 18 },
];
const saysCard = says(
  /card|\bpan\b|visa|master|maestro|amex|american express|discover|diners|jcb|unionpay|rupay|credit|debit|tarjeta|karte|carte|kaart|carta|cartão|cartao|\bkarta|\bkart[ıyęu]|\bkort\b|карт|カード|카드|卡号|卡號|银行卡|信用卡|بطاق|\bcc\b|ccn|cc[_-]?n(?:um|o)/,
);

export const creditCard: Detector = {
  type: "credit_card",
  about: "person",
  number: { find: numbers, digits: 12, groups: [4, 12, 13, 14, 15, 16, 17, 18, 19], attached: true },
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
    ["Paid – 5570 2881 3722 4788 – on 2026-03-18", "5570 2881 3722 4788"],
    ["6265-1855-0394-9156-213", "6265-1855-0394-9156-213"],
    ["信用卡号 4222222222222", "4222222222222"],
    ["5570  2881  3722  4788", "5570  2881  3722  4788"],
    ["3690 1831 6381 2210", "3690 1831 6381 2210"],
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
  for (let first = 0; first < run.groups; first++) {
    const last = lastGroup(text, run, first);
    if (last < 0 || (run.lettersAfter && last === run.groups - 1)) continue;
    const start = run.starts[first] ?? 0;
    const end = run.ends[last] ?? 0;
    if (text.charCodeAt(start) === 48) continue;
    // The digits of a fraction, or a number with one.
    if (text[start - 1] === "." && isDigit(text.charCodeAt(start - 2))) continue;
    if (text[end] === "." && isDigit(text.charCodeAt(end + 1))) continue;
    if (run.attached && (first > 0 || isLetter(text.charCodeAt(start - 1)) || text[start - 1] === "_")) continue;
    if (!isCard(digitsIn(text, run, first, last), text, first === 0 ? start : -1, last > first)) continue;
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
  } else if (second === 4 && first + 2 < run.groups && lengthOf(run, first + 2) === 4) {
    // Groups of four, and what is left: 12, 13, 16, 18 or 19 digits.
    last = first + 2;
    const fourth = last + 1 < run.groups ? lengthOf(run, last + 1) : 0;
    if (fourth === 1 || fourth === 4) last++;
    const fifth = fourth === 4 && last + 1 < run.groups ? lengthOf(run, last + 1) : 0;
    if (fifth === 2 || fifth === 3) last++;
  }
  if (last < 0 || !isParted(text, run, first, last) || neighboured(text, run, first, last)) return -1;
  return last;
}

const GAPS = new Set([" ", "  ", "-", ".", "/"]);

/** The same stands between all groups. */
function isParted(text: string, run: NumberRun, first: number, last: number): boolean {
  const gap = between(text, run, first);
  for (let group = first + 1; group < last; group++) if (between(text, run, group) !== gap) return false;
  return GAPS.has(gap);
}

/** The same row goes on with a group of four before or after, so these are numbers in a table. */
function neighboured(text: string, run: NumberRun, first: number, last: number): boolean {
  const gap = last > first ? between(text, run, first) : "";
  return (
    (first > 0 && joined(text, run, first - 1, lengthOf(run, first - 1) === 4 ? gap : "")) ||
    (last + 1 < run.groups &&
      joined(text, run, last, lengthOf(run, last + 1) === 4 && !beginsDate(text, run, last + 1) ? gap : ""))
  );
}

/** `2026-` is a year. */
function beginsDate(text: string, run: NumberRun, group: number): boolean {
  return text.charCodeAt(run.ends[group] ?? 0) === 45 && "12".includes(text[run.starts[group] ?? 0] ?? "");
}

/** A hyphen or a full stop stands behind `group`, or the `gap` of the number. ` – ` parts sentences. */
function joined(text: string, run: NumberRun, group: number, gap: string): boolean {
  const separator = text.charCodeAt(run.ends[group] ?? 0);
  return separator === 45 || separator === 46 || (gap !== "" && between(text, run, group) === gap);
}

/** `start` is negative for a number that others stand before. After a word that says card the checksum is enough: Maestro alone has numbers of twelve to nineteen digits. */
function isCard(digits: string, text: string, start: number, grouped: boolean): boolean {
  if (!hasLuhn(digits)) return false;
  if (ISSUERS.some((issuer) => issues(issuer, digits))) return true;
  if (grouped && GROUPED.some((issuer) => issues(issuer, digits))) return true;
  return start >= 0 && saysCard(labelBefore(text, start));
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
