/**
 * Phone numbers of any country: international ones by the length that their country allows, national ones by a format that only
 * phone numbers have, or by the word before them.
 */
import type { Codes } from "../char-sets.ts";
import { beginsAt, type Detector, digitsOf, type Found, isDigit, isHex } from "../detector.ts";
import { labelBefore, says } from "../label.ts";
import { between, digitsIn, evenly, lengthOf, type NumberRun } from "../number-run.ts";

/** ITU-T E.164 country codes, and how many digits may follow: `shortest-longest`. */
const LEAST = new Uint8Array(1000);
const MOST = new Uint8Array(1000);
readCountries(
  "1:10 7:10 20:8-10 27:9 30:10 31:7-11 32:8-9 33:9 34:9 36:8-9 39:6-12 40:9 41:9 43:4-13 44:7-10 45:8 46:7-10 47:5-8 48:9 " +
    "49:5-13 51:8-11 52:10-11 53:6-8 54:10-11 55:9-11 56:8-11 57:8-11 58:10 60:7-10 61:6-10 62:7-13 63:8-12 64:7-10 65:8-11 66:8-10 " +
    "81:9-10 82:7-11 84:9-10 86:7-11 90:10 91:8-12 92:8-11 93:9 94:9 95:6-10 98:10 211:9 212:9 213:8-9 216:8 218:8-9 220:7 221:9 " +
    "222:8 223:8 224:8-9 225:8-10 226:8 227:8 228:8 229:8-10 230:7-8 231:7-9 232:8 233:8-9 234:7-11 235:8 236:8 237:8-9 238:7 239:7 " +
    "240:9 241:7-8 242:9 243:7-9 244:9 245:7-9 246:7 247:4-6 248:7 249:9 250:8-9 251:9 252:6-9 253:8 254:7-10 255:9 256:9 257:8 " +
    "258:8-9 260:9 261:9-10 262:9 263:8-9 264:8-9 265:7-9 266:8 267:7-8 268:8 269:7 290:4-5 291:7 297:7 298:6 299:6 350:8 351:9 " +
    "352:6-11 353:7-10 354:7-9 355:8-9 356:8 357:8 358:6-12 359:7-9 370:8 371:8 372:7-8 373:8 374:8 375:9 376:6-9 377:8-9 378:6-10 " +
    "380:9-10 381:8-9 382:8 383:8 385:8-9 386:8 387:8 389:8 420:9 421:9 423:7-9 500:5 501:7 502:8-11 503:8-11 504:8-11 505:8 506:8-10 507:7-11 508:6-9 " +
    "509:8 590:9 591:8 592:7 593:8-11 594:9 595:8-9 596:9 597:6-7 598:7-8 599:7-8 670:7-8 672:6 673:7 674:7 675:7-8 676:5-7 677:5-7 " +
    "678:5-7 679:7-11 680:7 681:6 682:5 683:4-7 685:5-7 686:5-8 687:6 688:5-7 689:6-9 690:4-5 691:7 692:7 800:8 808:8 850:8-10 852:8-9 853:8 " +
    "855:8-9 856:8-10 870:9 878:12 880:8-10 881:8 882:7-12 883:7-12 886:8-10 888:8 960:7-10 961:7-8 962:8-9 963:8-9 964:8-10 965:7-8 966:8-10 " +
    "967:7-9 968:8 970:8-9 971:7-11 972:8-10 973:8 974:7-9 975:8 976:7-8 977:8-10 979:9 992:9 993:8 994:9 995:9 996:9 998:9",
);

const PHONE_WORDS =
  /phone|mobil|mob[:. ]|\bcell|\btel\b|tel[.:]|\btele?f|tél|\bfax|\bsms\b|whatsapp|signal|viber|handy|móvil|celular|portable|gsm|\btlf|puhelin|telep|тел|電話|手机|手機|电话|전화|연락처|\bcall(?:ed|ing|s|back)?\b|\bring\b|\bdial(?:s|l?ed|l?ing)?\b|text (?:me|us|him|her|them)|reach (?:me|us|him|her|them)|contact|msisdn|hotline|helpline|landline|caller|registered|answering|messages to|ruf|rückruf|appel|ll[aá]m|chiama|\breach\b|\btext $|\bmy number\b|mobiel|\bbel(?:t|len)? |puh[. ]|zadzwo|dzwoni|komórk|\bligue|\bligar|звон|моб|τηλ|κινητ|携帯|휴대|โทร|điện thoại|هاتف|جوال|موبايل|फ़ोन|फोन|मोबाइल|sími|tālrun|تلفن|تليفون|فون|محمول|ফোন|মোবাইল|טל[':. ]|טלפון|נייד|☎|📞|📱|(?:^|\n)[tmf]: ?$|n[uú]m[eé]ro[:"= ]*$/;
const OTHER_WORDS =
  /order|invoice|ticket|account|acct|iban|card|\bssn\b|social|imei|serial|sku|isbn|ean\b|barcode|tracking|version|build|epoch|timestamp|created|updated|amount|price|total|reference|nhs|passport|\bvat\b|\btax\b|(?<![a-z])id["':= ]*$|_id["':= ]*$|[a-z]id"/;
/** The label speaks of a phone, and of nothing else behind that word. */
const saysPhone = says(PHONE_WORDS);
const saysOther = says(OTHER_WORDS);
const saysCode = says(
  /order|invoice|serial|sku|isbn|barcode|tracking|version|build|\blot\b|batch|\bzip\b|\bplz\b|\bvat\b|meeting|article|\bpart\b|score|\bref\b|reference|seguimiento|suivi|sendung|commande|pedido|bestell|auftrag|rechnung|factur|zamówie|заказ|sipariş|注文|订单|訂單/,
);
const AFTERWARDS = /^\\?["')\]]?[\s,–—-]{0,3}\(?(?:office|fax|mobile|cell|home|work|desk)\b/i;
const EXTENSION = /^ ?(?:x|ext\.? ?|extension |#)\d{1,6}(?!\w)/i;

export const phone: Detector = {
  type: "phone",
  about: "person",
  number: { find: numbers, digits: 7 },
  canonical: (value) => digitsOf(value).replace(/^00/, ""),
  partial: (value) => `***${digitsOf(value).slice(-3)}`,
  hits: [
    ["Ring +44 7700 900264 now", "+44 7700 900264"],
    ["+12125550169", "+12125550169"],
    ["+49 (0)30 23125-309", "+49 (0)30 23125-309"],
    ["00353 85 012 3726", "00353 85 012 3726"],
    ["Call (303) 555-0112 or text", "(303) 555-0112"],
    ["415-555-0180", "415-555-0180"],
    ["1-800-555-0199", "1-800-555-0199"],
    ["303.555.0187 x45", "303.555.0187 x45"],
    ["07700 900389", "07700 900389"],
    ["(0161) 496 0190", "(0161) 496 0190"],
    ["01 99 00 54 04", "01 99 00 54 04"],
    ["03-1234-5678", "03-1234-5678"],
    ["(11) 91234-5678", "(11) 91234-5678"],
    ['{"phone":"612345645"}', "612345645"],
    ['{"text":"Mobile:\\n9472 7916"}', "9472 7916"],
    ["tel:+31-6-12345249", "+31-6-12345249"],
    ["Tel.: 030/1234567", "030/1234567"],
    ["Tel. ０３-１２３４-５６７８", "０３-１２３４-５６７８"],
    ["+66 1800 181 308", "+66 1800 181 308"],
    ["전화: 31234567", "31234567"],
    ["携帯 800126702", "800126702"],
    ["Điện thoại: 0912.344.716", "0912.344.716"],
    ["Llámame al 612 34 56 45", "612 34 56 45"],
    ["1800 620 202", "1800 620 202"],
    ["0800 1234567", "0800 1234567"],
    ["0 801 23 22 19", "0 801 23 22 19"],
    ["from 011 44 20 7946 0958", "011 44 20 7946 0958"],
    ["(022) 12589", "(022) 12589"],
    ["Ana (612 34 36 91)", "612 34 36 91"],
  ],
  misses: [
    "epoch 1748158514256 / 1732185988",
    "from 2026-09-03 to 2027-01-12, at 03.09.2026 10:15",
    "ORD-88253-8049 and SO-046-23-51089",
    "ISO 9001-2015, part 817-391, 46/58/48",
    "51.593664, -1.390227",
    "[21/Nov/2026:15:07:41 +0000]",
    "1.2.3+20130313144700",
    "3612fdf8-4481-7041-9032-817391390227",
    "00517757-8965-4999-b7ce-51f77a384bfb",
    "ISBN 978-3-446-44628-8, EAN 5050126970785",
    "IMEI 354264069779571",
    "It rose from 100 200 300 to 1 000 000 000",
    '{"orderId":"0123456789","total":1234567890}',
    "10.0.18093.1174",
    "número de seguimiento 7489 9824 8522",
    "Commande 0280/880894 expédiée, Lot 02317/2965, VAT GB 048 9934 91",
    "from T19:45:15+02:00 – 2018.05.18 07:36",
    "000-43-5564",
    "Boston, MA 02110-1301, USA",
    "dialog-accept\nresize 1920 1080",
    "open 0800-1700, Mon 0800 - 1630",
    "ref NL83 KEHB 0256 6472 94 unknown",
  ],
};

function numbers(text: string, run: NumberRun, found: Found, codes: Codes): void {
  for (let first = 0; first < run.groups; first++) {
    const last = phoneFrom(text, codes, run, first);
    if (last < 0) continue;
    const end = run.ends[last] ?? 0;
    // A letter behind is an extension, or this is no number.
    const extension = extensionLength(text, codes, end);
    if (last === run.groups - 1 && run.lettersAfter && extension === 0) continue;
    found.add(startOf(text, run, first), end + extension);
    first = last;
  }
}

function extensionLength(text: string, codes: Codes, end: number): number {
  const code = codes[end] === 32 ? codes[end + 1] : codes[end];
  if (code !== 120 && code !== 101 && code !== 35 && code !== 88 && code !== 69) return 0; // x, e, #
  return EXTENSION.exec(text.slice(end, end + 18))?.[0].length ?? 0;
}

/** The last group of the phone number that begins with group `first`; -1: none begins there. */
function phoneFrom(text: string, codes: Codes, run: NumberRun, first: number): number {
  const start = run.starts[first] ?? 0;
  const final = run.groups - 1;
  const before = start > 0 ? codes[start - 1] : 0;
  // Decimals, amounts and parts of other numbers.
  if (first === 0 && (before === 46 || before === 44) && isDigit(text.charCodeAt(start - 2))) return -1;
  if (first === 0 && before === 43) return beginsAt(text, start - 1) ? international(codes, run, 0) : -1;
  if (first === 0 && before === 40 && text.charCodeAt(start - 2) === 43) return international(codes, run, 0);
  // The zeros of a time zone are no prefix: `+02:00 – 2018`.
  if (first === 0 && text.startsWith("00", start) && run.groups > 1 && before !== 58) {
    const last = international(codes, run, 2);
    if (last > 0 && !goesOnAsId(text, run.ends[last] ?? 0) && !endsAccount(text, start)) return last;
  }
  // From North America one dials 011 before the country.
  if (first === 0 && text.startsWith("011", start) && lengthOf(run, 0) === 3 && run.groups > 2) {
    const last = international(codes, run, 3);
    if (last > 1) return last;
  }
  for (let last = Math.min(final, first + 5); last >= first; last--) {
    if (!standsAlone(text, run, first, last)) continue;
    if (isNational(text, run, first, last)) return last;
  }
  return -1;
}

/** `00517757-8965-4999-b7ce-…` is a UUID. */
function goesOnAsId(text: string, end: number): boolean {
  return text.charCodeAt(end) === 45 && isHex(text.charCodeAt(end + 1));
}

/** `NL83 KEHB` stands before `0256 6472 94`: an account number that the check digits deny. */
function endsAccount(text: string, start: number): boolean {
  return (
    text.charCodeAt(start - 1) === 32 && /[A-Z]{2}\d\d(?: [A-Z]{4})? $/.test(text.slice(Math.max(0, start - 10), start))
  );
}

/** A number that other numbers follow is one only when it is set apart from them by how it is written. */
function standsAlone(text: string, run: NumberRun, first: number, last: number): boolean {
  const inside = first === last ? "" : between(text, run, last - 1);
  const left = first === 0 || between(text, run, first - 1) !== inside;
  const right = last === run.groups - 1 || between(text, run, last) !== inside;
  return left && right && !joined(text, run, first - 1) && !joined(text, run, last);
}

/** Dashes and full stops hold groups together more than a space does. */
function joined(text: string, run: NumberRun, group: number): boolean {
  if (group < 0 || group >= run.groups - 1) return false;
  const separator = between(text, run, group);
  return separator === "-" || separator === "." || separator === "/";
}

/** The last group of `+…` or `00…` whose length its country allows, the longest first. `skip` digits stand before the country. */
function international(codes: Codes, { start, end, groups, starts, ends }: NumberRun, skip: number): number {
  let country = 0;
  let read = -skip;
  for (let at = start; read < 3 && at < end; at++) {
    const code = codes[at] ?? 0;
    if (code < 48 || code > 57) continue;
    if (read++ < 0) continue;
    if (read === 1 && code === 48) return -1;
    country = country * 10 + code - 48;
    if (MOST[country] !== 0) break;
  }
  const most = MOST[country] ?? 0;
  if (most === 0 || country === 0) return -1;
  const least = LEAST[country] ?? 0;
  let count = -skip - read;
  let best = -1;
  for (let group = 0; group < groups; group++) {
    const from = starts[group] ?? 0;
    const length = (ends[group] ?? 0) - from;
    count += length;
    // The (0) that falls away when one dials from abroad.
    if (length === 1 && from > 0 && codes[from - 1] === 40 && codes[from] === 48) count--;
    if (count > most) break;
    if (count >= least) best = group;
  }
  return best;
}

function isNational(text: string, run: NumberRun, first: number, last: number): boolean {
  const count = digitsIn(text, run, first, last).length;
  if (count < 7 || count > 15) return false;
  const start = run.starts[first] ?? 0;
  const end = run.ends[last] ?? 0;
  if (first === 0 && !startsClean(text, start)) return false;
  if (last === run.groups - 1) {
    if (AFTERWARDS.test(text.slice(end, end + 14))) return true;
    if (!endsClean(text, end)) return false;
  }
  // What stands before a row of numbers speaks of the first.
  const label = first === 0 ? labelBefore(text, start) : "";
  if (saysPhone(label)) return !saysOther(label.slice(label.search(PHONE_WORDS)));
  return hasPhoneFormat(text, run, first, last, count) && !saysCode(label) && !endsAccount(text, start);
}

/** Formats that hardly anything else is written in. */
function hasPhoneFormat(text: string, run: NumberRun, first: number, last: number, count: number): boolean {
  const groups = last - first + 1;
  // A US postal code: MA 02110-1301.
  if (groups === 2 && lengthOf(run, first) === 5 && lengthOf(run, last) === 4) return false;
  const bracketed = text[(run.starts[first] ?? 0) - 1] === "(" && text[run.ends[first] ?? 0] === ")";
  const at = (group: number): number => text.charCodeAt(run.starts[first + group] ?? 0);
  const long = (...lengths: readonly number[]): boolean =>
    groups === lengths.length && lengths.every((length, group) => lengthOf(run, first + group) === length);
  const headIs = (digits: string): boolean => lengthOf(run, first) === 4 && text.startsWith(digits, run.starts[first]);
  // North America: 303-555-0187, (303) 555-0187, 1-303-555-0187. Neither the area nor the exchange begins with 0 or 1.
  if (long(3, 3, 4)) {
    const even = evenly(text, run, first, last, "-. ");
    if (at(0) >= 50 && at(1) >= 50 && (even || bracketed)) return true;
  }
  if (long(1, 3, 3, 4) && at(0) === 49 && at(1) >= 50 && at(2) >= 50) return true;
  // Free of charge: 1800 620 202, 0800 1234567.
  if (long(4, 3, 3) && at(0) === 49 && (headIs("1800") || headIs("1300"))) return true;
  if (groups >= 2 && groups <= 4 && count >= 9 && count <= 14 && headIs("0800")) return true;
  // France and Spain with their own groups: 0 801 23 22 19, 612 34 56 45.
  if (long(1, 3, 2, 2, 2) && at(0) === 48 && at(1) === 56) return true;
  if (long(3, 2, 2, 2) && at(0) >= 54 && evenly(text, run, first, last, " ")) return true;
  // An area in brackets: (0161) 496 0190, (11) 91234-5678.
  if (
    bracketed &&
    groups >= 2 &&
    count >= (at(0) === 48 ? 8 : 9) &&
    count <= 12 &&
    lengthOf(run, first) >= 2 &&
    lengthOf(run, first) <= 5
  )
    return true;
  // A trunk 0: 07700 900389, 01 99 00 54 04, 03-1234-5678, 030/1234567.
  const head = lengthOf(run, first);
  if (at(0) !== 48 || at(1) === undefined || text.charCodeAt((run.starts[first] ?? 0) + 1) === 48) return false;
  if (groups < 2 || groups > 5 || count < 9 || count > 12 || head < 2 || head > 5) return false;
  for (let group = first + 1; group <= last; group++)
    if (lengthOf(run, group) < 2 || lengthOf(run, group) > 8) return false;
  if (between(text, run, first) === ".") return long(2, 2, 2, 2, 2) && evenly(text, run, first, last, ".");
  return count <= 11 || groups <= 3;
}

function startsClean(text: string, start: number): boolean {
  const before = text.charCodeAt(start - 1);
  if (before === 35 || before === 36 || before === 0xa3 || before === 0x20ac) return false; // #, $, £, €
  return (before === 40 ? beginsAt(text, start - 1) : beginsAt(text, start)) && before !== 95;
}

function endsClean(text: string, end: number): boolean {
  const after = text.charCodeAt(end);
  if ((after === 44 || after === 46 || after === 58) && isDigit(text.charCodeAt(end + 1))) return false;
  return after !== 37 && after !== 45;
}

/** With the `+` or `(` before the first group. */
function startOf(text: string, run: NumberRun, first: number): number {
  let start = run.starts[first] ?? 0;
  const before = text.charCodeAt(start - 1);
  if (before === 43) return start - 1;
  if (before !== 40) return start;
  const close = text.indexOf(")", start);
  if (close >= 0 && close <= (run.ends[first] ?? 0)) start--;
  return text.charCodeAt(start - 1) === 43 ? start - 1 : start;
}

function readCountries(list: string): void {
  for (const row of list.split(" ")) {
    const [code = "", lengths = ""] = row.split(":");
    const [least = "", most = least] = lengths.split("-");
    LEAST[Number(code)] = Number(least);
    MOST[Number(code)] = Number(most);
  }
}
