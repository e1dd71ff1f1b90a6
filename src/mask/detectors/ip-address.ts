/** IPv4 and IPv6 addresses, not versions, section numbers, MAC addresses or times. */
import type { Codes } from "../char-sets.ts";
import { beginsAt, type Detector, endsAt, type Found, isAlnum, isDigit, isHex, isLetter } from "../detector.ts";
import { labelBefore, says } from "../label.ts";
import { evenly, lengthOf, type NumberRun } from "../number-run.ts";

const saysVersion = says(
  /vers[ií]|верси|wersj|sürüm|バージョン|版本|버전|\bver\b|\bver\.|build|release|upgrad|downgrad|firmware|driver|kernel|changelog|\brev\b|\bsdk\b|runtime|windows nt|chrome|\bapi v|section|§|clause|chapter|step |oid\b|asn\b|[<>]= ?$|[a-z]==$|image: ?\S+:$/,
);

export const ipAddress: Detector = {
  type: "ip_address",
  about: "person",
  number: { find: version4, digits: 0 },
  at: { "::": version6, "f:": version6 },
  canonical: (value) => value.toLowerCase(),
  partial: (value) =>
    value.includes(":")
      ? `${value.split(":").slice(0, 2).join(":")}:***`
      : `${value.split(".").slice(0, 2).join(".")}.*.*`,
  hits: [
    ["Blocked 10.5.222.72 after 5 attempts", "10.5.222.72"],
    ['{"clientIp":"198.51.100.105","build":"3.5.16.37"}', "198.51.100.105"],
    ["http://203.0.113.9:8080/", "203.0.113.9"],
    ["192.0.2.223 - - [21/Nov/2026:15:07:41 +0000]", "192.0.2.223"],
    ["from 2001:db8:5b13:4509::221.", "2001:db8:5b13:4509::221"],
    ["2001:db8:53f7:a2dd:8c06:0d61:b161:28c9 upgraded", "2001:db8:53f7:a2dd:8c06:0d61:b161:28c9"],
    ["http://[fe80::1ff:fe23:4567:890a]:80/", "fe80::1ff:fe23:4567:890a"],
    ["::ffff:198.51.100.7", "::ffff:198.51.100.7"],
    ["10.0.0.0/8", "10.0.0.0"],
    ["10.20.30.5 2026-03-18T10:15:00Z GET /", "10.20.30.5"],
    ["10.0.0.5-10.0.0.9", "10.0.0.5"],
    ["IP:2001:db8::e379", "2001:db8::e379"],
    ["IP地址：2a00:48b8:496c:efa6:8f95:fcb6:56b9:5143", "2a00:48b8:496c:efa6:8f95:fcb6:56b9:5143"],
  ],
  misses: [
    "Upgrade from version 10.0.23.71 to version 10.0.11.31",
    '{"build":"3.5.16.37"}',
    "Chrome/23.12.6.41 on Windows NT 10.0",
    "NIC 31:b5:b1:ba:24:f1 link up",
    "at 10:15:22, ratio 1:2:3:4",
    "std::vector<a::b> x; Foo::Bar()",
    "127.0.0.1, 0.0.0.0, ::1 and 255.255.255.0",
    "1.3.6.1.4.1.311",
    "256.1.1.1 and 1.2.3",
    "v1.2.3.4",
    "версия 1.17.14.3, wersja 2.5.10.1, requires >= 1.22.4.6",
    "image: nginx:4.13.73.2",
    "Guile 3.0.5.130-5a1e7",
    "de:ad:2001:db8:1",
  ],
};

function version4(text: string, run: NumberRun, found: Found): void {
  for (let first = 0; first + 3 < run.groups; first++) {
    const last = first + 3;
    if ((run.lettersAfter && last === run.groups - 1) || !evenly(text, run, first, last, ".")) continue;
    const start = run.starts[first] ?? 0;
    const end = run.ends[last] ?? 0;
    if (text[start - 1] === "." || (text[end] === "." && isDigit(text.charCodeAt(end + 1)))) continue;
    if (/[-+_]/.test(text[start - 1] ?? "") || (text[start - 1] === "/" && isLetter(text.charCodeAt(start - 2))))
      continue;
    if (isBuild(text, end) || !isAddress(text, run, first) || saysVersion(labelBefore(text, start))) continue;
    found.add(start, end);
    first = last;
  }
}

/** `3.0.5.130-5a1e7`, and not a range, `10.0.0.5-10.0.0.9`. */
function isBuild(text: string, end: number): boolean {
  return (
    text.charCodeAt(end) === 45 && isAlnum(text.charCodeAt(end + 1)) && !/^\d{1,3}\./.test(text.slice(end + 1, end + 5))
  );
}

function isAddress(text: string, run: NumberRun, first: number): boolean {
  for (let group = first; group < first + 4; group++) {
    const length = lengthOf(run, group);
    if (length > 3 || (length > 1 && text[run.starts[group] ?? 0] === "0")) return false;
    if (Number(text.slice(run.starts[group], run.ends[group])) > 255) return false;
  }
  const head = Number(text.slice(run.starts[first], run.ends[first]));
  // This host, loopback and masks belong to nobody.
  return head !== 0 && head !== 127 && head !== 255;
}

/** At the first colon of an address. */
function version6(text: string, colon: number, found: Found, codes: Codes): void {
  let start = colon;
  while (start > 0 && colon - start < 5 && isHex(codes[start - 1] ?? 0)) start--;
  if (colon - start > 4 || (start > 0 && codes[start - 1] === 58 && !isLabel(text, start - 1))) return;
  if (start === colon && text.charCodeAt(colon + 1) !== 58) return;
  if (!beginsAt(text, start) || text.charCodeAt(start - 1) === 46) return;
  let groups = 0;
  let digits = 0;
  let long = 0;
  let gap = false;
  let at = start;
  let end = start;
  while (groups < 9) {
    const from = at;
    while (at - from < 5 && isHex(text.charCodeAt(at))) {
      if (isDigit(text.charCodeAt(at))) digits++;
      at++;
    }
    if (at - from > 4) return;
    if (at > from) {
      // The last 32 bits may be written as IPv4.
      if (text.charCodeAt(at) === 46 && isDigit(text.charCodeAt(at + 1)) && groups > 0) {
        const four = /^(?:\d{1,3}\.){3}\d{1,3}(?![\w.])/.exec(text.slice(from, from + 16));
        if (four === null || !gap) return;
        found.add(start, from + four[0].length);
        return;
      }
      groups++;
      if (at - from >= 3) long++;
      end = at;
    }
    if (text.charCodeAt(at) !== 58) break;
    if (text.charCodeAt(at + 1) === 58) {
      if (gap) return;
      gap = true;
      at += 2;
      end = at;
    } else if (isHex(text.charCodeAt(at + 1))) at++;
    else break;
  }
  if (gap ? groups > 7 : groups !== 8) return;
  // `::1` is this host, `a::b` a name in a program.
  if (gap && (digits === 0 || long === 0 || groups < 2) && !(groups >= 3 && digits > 0)) return;
  if (endsAt(text, end)) found.add(start, end);
}

/** The word before the colon at `colon` is none of an address: `ip:2001:…`. */
function isLabel(text: string, colon: number): boolean {
  // Of ASCII only letters, and one of them no hexadecimal digit: `src:`, not `dead:`.
  let plain = text.charCodeAt(colon - 1) > 127;
  let at = colon - 1;
  for (; colon - at <= 12 && isLetter(text.charCodeAt(at)); at--) plain ||= !isHex(text.charCodeAt(at));
  return plain && !isDigit(text.charCodeAt(at));
}
