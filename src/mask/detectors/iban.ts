/** International bank account numbers (ISO 13616): country, length, remainder 1 modulo 97. */
import { beginsAt, type Detector, endsAt, type Found, isAlnum, isDigit, isLetter, pairIndex } from "../detector.ts";

/** SWIFT's registry: how long the number of each country is, by `pairIndex`. */
const COUNTRIES: string[] = [];
const LENGTHS = new Uint8Array(1024);
for (const row of (
  "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 " +
  "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 " +
  "LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 " +
  "SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30 DZ26 AO25 BJ28 BF28 CM27 CV25 CF27 TD27 KM27 CG27 CI28 " +
  "GQ27 GA27 GW25 IR26 MG27 ML28 MA28 MZ25 NE28 SN28 TG28"
).split(" ")) {
  COUNTRIES.push(row.slice(0, 2));
  LENGTHS[pairIndex(row, 0)] = Number(row.slice(2));
}

/** The check digits are digits, and in these countries all that follows (Andorra: the next eight); elsewhere letters may stand. */
const DIGITS = new Uint8Array(1024).fill(4);
const ALL_DIGITS =
  "AE AO AT BA BE CF CG CM CR CV CZ DE DJ DK EE EG ES FI FO GA GL GQ HR HU IL IR IS KM LT MA ME MG MZ NO PL PT RS SE SI SK TD TN " +
  "VA XK";
for (const country of ALL_DIGITS.split(" ")) DIGITS[pairIndex(country, 0)] = 255;
DIGITS[pairIndex("AD", 0)] = 12;

export const iban: Detector = {
  type: "iban",
  about: "person",
  pair: { find: account, of: COUNTRIES },
  canonical: (value) => value.toUpperCase().replaceAll(/[^A-Z0-9]/g, ""),
  partial: (value) => `${value.slice(0, 2).toUpperCase()}** **** ${value.replaceAll(/[^A-Za-z0-9]/g, "").slice(-4)}`,
  hits: [
    ["Refund to IBAN GB93LIXY94004679928022 by Tuesday", "GB93LIXY94004679928022"],
    ["<IBAN>DE09749263204133405988</IBAN>", "DE09749263204133405988"],
    ["IE91 JMOO 7675 6827 1667 57", "IE91 JMOO 7675 6827 1667 57"],
    ["gb42nawi04454264788619", "gb42nawi04454264788619"],
    ["CH23-1603-1055-6202-6899-6", "CH23-1603-1055-6202-6899-6"],
    ["CH23.1603.1055.6202.6899.6", "CH23.1603.1055.6202.6899.6"],
    ['"to:\\nES9121000418450200051332"', "ES9121000418450200051332"],
  ],
  misses: [
    "IBAN DE17351983578066390154 failed its check digits",
    "GB93LIXY9400467992802",
    "XX93LIXY94004679928022",
    "aGB93LIXY94004679928022",
    "AB12 is a part",
    "be707774-3b3e-4477-b7da-4ea4906d19b0",
    "ba25bc0a-9567-4995-bfa5-b77d68fd9edf",
    "ba5e5a08cb3f45e48c8b",
    "CF2713 of the 10 left",
    "id 3e8641136571200903078975",
  ],
};

function account(text: string, at: number, found: Found): void {
  const country = pairIndex(text, at);
  const length = LENGTHS[country] ?? 0;
  if (length === 0 || !isLetter(text.charCodeAt(at)) || !beginsAt(text, at)) return;
  // Country and check digits come last in the remainder, so they are taken after the rest.
  let rest = 0;
  let head = 0;
  let next = at;
  let hyphens = 0;
  // Of the group, while it has nothing else; a bank's code has four, words have any number.
  let letters = -1;
  const digits = DIGITS[country] ?? 0;
  for (let read = 0; read < length; read++) {
    const code = text.charCodeAt(next);
    if (isAlnum(code)) next++;
    else if (read > 3 && (code === 32 || code === 45 || code === 46) && isAlnum(text.charCodeAt(next + 1))) {
      // Hyphens part groups of four, all of them: those of a UUID stand elsewhere, and one in 15,000 has a right remainder.
      if (code !== 32 && read !== 4 * ++hyphens) return;
      if (letters > 0 && letters !== 4) return;
      letters = 0;
      next += 2;
    } else return;
    if (!isDigit(text.charCodeAt(next - 1))) {
      if (read > 1 && read < digits) return;
      if (letters >= 0) letters++;
    } else letters = -1;
    const value = Number.parseInt(text[next - 1] ?? "", 36);
    if (read < 4) head = (head * (value > 9 ? 100 : 10) + value) % 97_000_000;
    else rest = (rest * (value > 9 ? 100 : 10) + value) % 97;
  }
  if (hyphens > 0 && hyphens !== Math.ceil(length / 4) - 1) return;
  if (endsAt(text, next) && (rest * 1_000_000 + head) % 97 === 1) found.add(at, next);
}
