/** Texts with private values in them, and harmless ones that look alike: made from a seed, of many countries, contexts and formats. */

export interface Labelled {
  readonly text: string;
  readonly spans: readonly { readonly start: number; readonly end: number; readonly type: string }[];
}

export interface Random {
  below(limit: number): number;
  pick<T>(items: readonly T[]): T;
  chars(alphabet: string, length: number): string;
}

/** mulberry32. */
export function random(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
  const below = (limit: number): number => Math.floor(next() * limit);
  return {
    below,
    pick: (items) => items[below(items.length)] as (typeof items)[number],
    chars: (alphabet, length) => Array.from({ length }, () => alphabet[below(alphabet.length)]).join(""),
  };
}

const DIGITS = "0123456789";
const HEX = "0123456789abcdef";
const UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE62 = `${DIGITS}${UPPER}${UPPER.toLowerCase()}`;
const ALNUM = `${DIGITS}${UPPER}`;
const WORD = `${BASE62}-_`;

type Make = (r: Random) => string;

const FIRST = ["anna", "li.wei", "j.o'neill", "maria-jose", "KWAME", "zoë", "p", "ingrid_b", "omar+news", "x99"];
const DOMAINS = [
  "example.org",
  "mail.example.co.uk",
  "EXAMPLE.COM",
  "xn--bcher-kva.example",
  "corp.example.travel",
  "a-b.example",
];

/** How people of each country write their numbers; `#` is a digit, `N` one from 2 to 9. */
const PHONES = [
  "+1 N##-555-01##",
  "+1(N##)N##-####",
  "(N##) N##-####",
  "N##-N##-####",
  "N##.N##.####",
  "1-N##-N##-####",
  "+44 7### ######",
  "+44 20 7### ####",
  "07### ######",
  "020 7### ####",
  "(0161) 4## ####",
  "+4477########",
  "+49 30 ########",
  "+49 (0)89 ######",
  "0341 #######",
  "+33 6 ## ## ## ##",
  "01 ## ## ## ##",
  "06.##.##.##.##",
  "+34 6## ## ## ##",
  "+39 06 #### ####",
  "+31 6 ########",
  "+32 4## ## ## ##",
  "+41 79 ### ## ##",
  "079 ### ## ##",
  "+43 664 #######",
  "+46 70 ### ## ##",
  "+47 ### ## ###",
  "+45 ## ## ## ##",
  "+358 40 #######",
  "+48 5## ### ###",
  "+420 6## ### ###",
  "+36 30 ### ####",
  "+353 85 ### ####",
  "+351 9## ### ###",
  "+30 69# ### ####",
  "+90 5## ### ## ##",
  "+7 9## ###-##-##",
  "+380 50 ### ## ##",
  "+972 5#-###-####",
  "+971 50 ### ####",
  "+91 9#### #####",
  "+86 13# #### ####",
  "+81 90-####-####",
  "03-####-####",
  "+82 10-####-####",
  "+61 4## ### ###",
  "(02) 9### ####",
  "+64 21 ### ####",
  "+55 11 9####-####",
  "(11) 9####-####",
  "+52 55 #### ####",
  "+54 9 11 ####-####",
  "+27 82 ### ####",
  "+234 803 ### ####",
  "+20 10 #### ####",
  "+254 7## ######",
  "0044 20 7### ####",
  "00 33 6 ## ## ## ##",
];

const IBANS: readonly (readonly [string, Make])[] = [
  ["GB", (r) => r.chars(UPPER, 4) + r.chars(DIGITS, 14)],
  ["DE", (r) => r.chars(DIGITS, 18)],
  ["FR", (r) => r.chars(DIGITS, 10) + r.chars(ALNUM, 11) + r.chars(DIGITS, 2)],
  ["NL", (r) => r.chars(UPPER, 4) + r.chars(DIGITS, 10)],
  ["NO", (r) => r.chars(DIGITS, 11)],
  ["ES", (r) => r.chars(DIGITS, 20)],
  ["IT", (r) => r.chars(UPPER, 1) + r.chars(DIGITS, 22)],
  ["PL", (r) => r.chars(DIGITS, 24)],
  ["CH", (r) => r.chars(DIGITS, 17)],
  ["MT", (r) => r.chars(UPPER, 4) + r.chars(DIGITS, 23)],
  ["SA", (r) => r.chars(DIGITS, 20)],
  ["BE", (r) => r.chars(DIGITS, 12)],
];

const CARDS: readonly (readonly [string, number, readonly number[]])[] = [
  ["4", 16, [4, 4, 4, 4]],
  ["53", 16, [4, 4, 4, 4]],
  ["2345", 16, [4, 4, 4, 4]],
  ["34", 15, [4, 6, 5]],
  ["37", 15, [4, 6, 5]],
  ["6011", 16, [4, 4, 4, 4]],
  ["3540", 16, [4, 4, 4, 4]],
  ["62", 16, [4, 4, 4, 4]],
  ["36", 14, [4, 6, 4]],
  ["65", 16, [4, 4, 4, 4]],
];

const KEYS: readonly Make[] = [
  (r) => `ghp_${r.chars(BASE62, 36)}`,
  (r) => `gho_${r.chars(BASE62, 36)}`,
  (r) => `github_pat_${r.chars(BASE62, 22)}_${r.chars(BASE62, 59)}`,
  (r) => `glpat-${r.chars(WORD, 20)}`,
  (r) => `xoxb-${r.chars(DIGITS, 12)}-${r.chars(DIGITS, 13)}-${r.chars(BASE62, 24)}`,
  (r) => `xapp-1-A${r.chars(ALNUM, 10)}-${r.chars(DIGITS, 13)}-${r.chars(HEX, 64)}`,
  (r) => `sk_live_${r.chars(BASE62, 24)}`,
  (r) => `rk_live_${r.chars(BASE62, 24)}`,
  (r) => `whsec_${r.chars(BASE62, 32)}`,
  (r) => `AIza${r.chars(WORD, 35)}`,
  (r) => `GOCSPX-${r.chars(WORD, 28)}`,
  (r) => `ya29.${r.chars(WORD, 120)}`,
  (r) => `sk-proj-${r.chars(WORD, 60)}`,
  (r) => `sk-${r.chars(BASE62, 48)}`,
  (r) => `sk-ant-api03-${r.chars(WORD, 93)}AA`,
  (r) => `npm_${r.chars(BASE62, 36)}`,
  (r) => `pypi-AgEIcHlwaS5vcmc${r.chars(WORD, 120)}`,
  (r) => `SK${r.chars(HEX, 32)}`,
  (r) => `SG.${r.chars(WORD, 22)}.${r.chars(WORD, 43)}`,
  (r) => `dop_v1_${r.chars(HEX, 64)}`,
  (r) => `shpat_${r.chars(HEX, 32)}`,
  (r) => `figd_${r.chars(WORD, 40)}`,
  (r) => `hf_${r.chars(BASE62, 34)}`,
  (r) => `hvs.${r.chars(WORD, 90)}`,
  (r) => `dapi${r.chars(HEX, 32)}`,
  (r) => `glsa_${r.chars(BASE62, 32)}_${r.chars(HEX, 8)}`,
  (r) => `NRAK-${r.chars(ALNUM, 27)}`,
  (r) => `dckr_pat_${r.chars(WORD, 27)}`,
  (r) => `sntrys_${r.chars(BASE62, 100)}`,
  (r) => `PMAK-${r.chars(HEX, 24)}-${r.chars(HEX, 34)}`,
  (r) => `key-${r.chars(HEX, 32)}`,
  (r) => `lin_api_${r.chars(BASE62, 40)}`,
  (r) => `gsk_${r.chars(BASE62, 52)}`,
  (r) => `xkeysib-${r.chars(HEX, 64)}-${r.chars(BASE62, 16)}`,
  (r) => `${r.chars(DIGITS, 9).replace(/^0/, "1")}:AA${r.chars(WORD, 33)}`,
  (r) => `${r.chars(BASE62, 3)}8Q~${r.chars(BASE62, 34)}`,
];

const part = (r: Random, head: string): string => Buffer.from(`${head}"${r.chars(BASE62, 24)}"}`).toString("base64url");

/** A value of each type. */
export const VALUES: Readonly<Record<string, Make>> = {
  email: (r) => `${r.pick(FIRST)}${r.below(100)}@${r.pick(DOMAINS)}`,
  phone: (r) => r.pick(PHONES).replaceAll(/[#N]/g, (sign) => String(sign === "#" ? r.below(10) : 2 + r.below(8))),
  credit_card: (r) => card(r, r.pick(["", "", " ", "-"])),
  iban: (r) => {
    const [country, account] = r.pick(IBANS);
    const number = withCheck(country, account(r));
    const written = r.below(2) === 0 ? number : (number.match(/.{1,4}/g) ?? []).join(" ");
    return r.below(6) === 0 ? written.toLowerCase() : written;
  },
  us_ssn: (r) => `${100 + r.below(500)}-${10 + r.below(89)}-${1000 + r.below(8999)}`,
  uk_nino: (r) => {
    const number = `${r.pick(["AB", "CE", "JG", "PA", "TH", "WM", "ZY"])}${r.chars(DIGITS, 6)}${r.pick(["A", "B", "C", "D"])}`;
    const written = r.pick([
      number,
      number.replace(/(..)(..)(..)(..)(.)/, "$1 $2 $3 $4 $5"),
      number.replace(/(..)(..)(..)(..)(.)/, "$1-$2-$3-$4-$5"),
    ]);
    return r.below(4) === 0 ? written.toLowerCase() : written;
  },
  ip_address: (r) =>
    r.pick([
      `${11 + r.below(90)}.${r.below(256)}.${r.below(256)}.${1 + r.below(254)}`,
      Array.from({ length: 8 }, () => r.chars(HEX, 4)).join(":"),
      `2001:db8:${r.chars(HEX, 4)}::${r.chars("123456789abcdef", 1)}${r.chars(HEX, 2)}`,
    ]),
  api_key: (r) => r.pick(KEYS)(r),
  aws_access_key_id: (r) => `${r.pick(["AKIA", "ASIA"])}${r.chars(`${UPPER}234567`, 16)}`,
  jwt: (r) => `${part(r, '{"alg":"ES256","kid":')}.${part(r, '{"sub":')}.${r.chars(WORD, 86)}`,
  private_key: (r) => {
    const kind = r.pick(["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "]);
    const body = Array.from({ length: 1 + r.below(8) }, () => r.chars(`${BASE62}+/`, 64)).join("\n");
    return `-----BEGIN ${kind}PRIVATE KEY-----\n${body}\n-----END ${kind}PRIVATE KEY-----`;
  },
};

/** Values that only what stands before them tells: text around `%`. */
const LABELLED: readonly (readonly [type: string, around: readonly string[], Make])[] = [
  [
    "dsn_password",
    [
      "postgres://app:%@db.internal:5432/x",
      "redis://:%@cache:6379",
      "DATABASE_URL=mysql://root:%@10.x/db",
      "amqps://svc:%@mq.example.net/v",
    ],
    (r) => r.chars(`${BASE62}!^*_%.-`, 8 + r.below(14)).replace(/^\d/, "k"),
  ],
  [
    "aws_secret_key",
    ["aws_secret_access_key = %", "AWS_SECRET_ACCESS_KEY=%", '"secretAccessKey":"%"', "SecretAccessKey: %"],
    (r) => `a9${r.chars(`${BASE62}+/`, 36)}Z2`,
  ],
  [
    "bearer_token",
    ["Authorization: Bearer %", 'authorization="Bearer %"', "curl -H 'Authorization: Bearer %' https://x.example"],
    (r) => `${r.chars(BASE62, 30)}a1B2`,
  ],
  ["uk_nhs_number", ["NHS number %", "Patient (NHS no. %)", '"nhsNumber":"%"'], (r) => nhs(r)],
  [
    "us_ssn",
    ["SSN % (no dashes)", '"ssn":"%"', "social security number: %"],
    (r) => `${100 + r.below(500)}${10 + r.below(89)}${1000 + r.below(8999)}`,
  ],
  [
    "phone",
    ['"phone":"%"', "Tel: %", "call me on %.", "WhatsApp %", '"mobileNumber":"%"'],
    (r) => `6${r.chars(DIGITS, 8)}`,
  ],
  ["credit_card", ['{"pan":%,"qty":1}', "card number %"], (r) => card(r, "")],
  ["api_key", ["DD_API_KEY=%", '"client_secret":"%"', "x-api-key: %"], (r) => `${r.chars(HEX, 30)}4f`],
  ["password", ['"password":"%"', "Password=%;", "PGPASSWORD=% psql"], (r) => `${r.chars(BASE62, 8)}!7x`],
];

/** Around `%`. */
const AROUND = [
  "%",
  "Please note %, thanks.",
  "(%)",
  "Kunde: %",
  "value=% end",
  "お客様: %",
  "🔐 %",
  "| a | % |\n|---|---|",
  "- **%**",
  "`%`",
  "<x>%</x>",
  "'%'",
  '{"value":"%"}',
  '{"a":1,"b":["%"],"c":null}',
  '{\\"x\\":\\"%\\"}',
  "2026-09-03T09:28:39.589Z INFO v=% ok",
  "%\nnext line",
];

/** A text with one value, its type named. */
export function privateText(r: Random): Labelled {
  if (r.below(3) === 0) {
    const [type, around, make] = r.pick(LABELLED);
    return placed(r.pick(around), make(r), type);
  }
  const [type, make] = r.pick(Object.entries(VALUES));
  const around = r.pick(AROUND);
  const value = make(r);
  return placed(around, around.startsWith("{") ? value.replaceAll("\n", "\\n") : value, type);
}

function placed(around: string, value: string, type: string): Labelled {
  const start = around.indexOf("%");
  return { text: around.replace("%", () => value), spans: [{ start, end: start + value.length, type }] };
}

const uuid: Make = (r) =>
  `${r.chars(HEX, 8)}-${r.chars(HEX, 4)}-4${r.chars(HEX, 3)}-a${r.chars(HEX, 3)}-${r.chars(HEX, 12)}`;

const HARMLESS: readonly Make[] = [
  (r) => `Order ${r.pick(["ORD-", "SO-", "INV-2026-", "PO"])}${r.chars(DIGITS, 5)}-${r.chars(DIGITS, 4)} shipped`,
  (r) => `{"id":"${uuid(r)}","total":${r.below(100_000)}.${r.below(100)},"qty":${r.below(1e9)}}`,
  (r) => `commit ${r.chars(HEX, 40)} by build ${r.below(99)}.${r.below(99)}.${r.below(9999)}`,
  (r) => `{"version":"${r.below(30)}.${r.below(30)}.${r.below(250)}.${r.below(250)}","sha":"${r.chars(HEX, 64)}"}`,
  (r) => `v${r.below(30)}.${r.below(30)}.${r.below(30)}-rc.${r.below(9)}+build.${r.below(999_999)}`,
  (r) => `{"createdAt":${1_600_000_000_000 + r.below(2_000_000_000)},"expires":${1_700_000_000 + r.below(90_000_000)}}`,
  (r) =>
    `at 2026-0${1 + r.below(9)}-1${r.below(10)}T0${r.below(10)}:28:39.589Z, due 1${r.below(10)}-0${1 + r.below(9)}-2026 10:1${r.below(10)}`,
  (r) => `traceparent: 00-${r.chars(HEX, 32)}-${r.chars(HEX, 16)}-01`,
  (r) => `IMEI 35${r.chars(DIGITS, 13)} and EAN 5${r.chars(DIGITS, 12)}`,
  (r) => `Location ${r.below(90)}.${r.chars(DIGITS, 6)}, -${r.below(180)}.${r.chars(DIGITS, 6)}`,
  (r) => `NIC ${Array.from({ length: 6 }, () => r.chars(HEX, 2)).join(":")} link up`,
  (r) =>
    `price £${r.below(99)},${r.chars(DIGITS, 3)}.${r.chars(DIGITS, 2)} × ${r.below(12)}, SKU ${r.chars(UPPER, 2)}-${r.chars(DIGITS, 4)}-${r.chars(UPPER, 2)}`,
  (r) => `npm i left-pad@${r.below(9)}.${r.below(20)}.${r.below(20)} @scope/pkg@${r.below(9)}.0.1-beta.${r.below(9)}`,
  (r) => `git@github.com:example/repo-${r.below(99)}.git and logo@${r.below(4)}x.png`,
  (r) => `integrity sha512-${r.chars(`${BASE62}+/`, 86)}==`,
  (r) => `<img src="data:image/png;base64,iVBORw0KGgo${r.chars(`${BASE62}+/`, 80)}==">`,
  (r) => `{"nextCursor":"${Buffer.from(`{"offset": ${r.below(999)}, "v": 2}`).toString("base64url")}"}`,
  (r) =>
    `{"apiKey":"${r.pick(["YOUR_API_KEY", "process.env.API_KEY", "sk-...", "<token>", "${API_KEY}", "********"])}"}`,
  (r) =>
    `const token = await readToken(${r.below(99)}); if (password.length < ${r.below(20)}) throw new Error("password: too short");`,
  (r) =>
    `${1 + r.below(998)} ${r.chars(DIGITS, 3)} ${r.chars(DIGITS, 3)} rows in ${r.below(4000)} ms, ${r.chars(DIGITS, 7)} bytes`,
  (r) => `[${Array.from({ length: 6 }, () => 1_000_000 + r.below(9_000_000)).join(",")}]`,
  (r) => `https://example.com:8443/items/${r.below(1e9)}?page=${r.below(90)}#L${r.below(400)}`,
  (r) => `-----BEGIN PUBLIC KEY-----\n${r.chars(`${BASE62}+/`, 64)}\n-----END PUBLIC KEY-----`,
  (r) =>
    `Meeting ${r.below(12)}:${r.chars("012345", 1)}0–1${r.below(3)}:30, room ${r.below(400)}, score ${r.below(9)}-${r.below(9)}, 2019–2024`,
  (r) => `0${r.chars("0123456789ABCDEFGHJKMNPQRSTVWXYZ", 25)} created, ${r.below(99)}% of ISO 9001-2015`,
  (r) => `class A${r.below(9)}::B::c extends std::vector<int>; x = a ? b : c[${r.below(99)}:${r.below(99)}]`,
];

/** A text without anything private. */
export function harmlessText(r: Random): string {
  return Array.from({ length: 1 + r.below(3) }, () => r.pick(HARMLESS)(r)).join(r.pick([" ", "\n", "; "]));
}

function card(r: Random, separator: string): string {
  const [prefix, length, groups] = r.pick(CARDS);
  const body = prefix + r.chars(DIGITS, length - prefix.length - 1);
  let sum = 0;
  for (let at = body.length - 1, double = true; at >= 0; at--, double = !double) {
    const value = Number(body[at]) * (double ? 2 : 1);
    sum += value > 9 ? value - 9 : value;
  }
  const number = body + ((10 - (sum % 10)) % 10);
  let from = 0;
  const parts = groups.map((size) => {
    from += size;
    return number.slice(from - size, from);
  });
  return parts.join(separator);
}

function withCheck(country: string, account: string): string {
  const expanded = [...`${account}${country}00`].map((char) => Number.parseInt(char, 36)).join("");
  return `${country}${String(98n - (BigInt(expanded) % 97n)).padStart(2, "0")}${account}`;
}

function nhs(r: Random): string {
  for (;;) {
    const body = r.chars(DIGITS, 9);
    const sum = [...body].reduce((total, digit, at) => total + Number(digit) * (10 - at), 0);
    const check = (11 - (sum % 11)) % 11;
    if (check < 10)
      return r
        .pick(["$1 $2 $3", "$1-$2-$3", "$1$2$3"])
        .replace("$1", body.slice(0, 3))
        .replace("$2", body.slice(3, 6))
        .replace("$3", body.slice(6) + check);
  }
}
