/** NHS numbers of England, Wales and the Isle of Man: ten digits, the last a checksum modulo 11. */
import { type Detector, digitsOf, type Found } from "../detector.ts";
import { labelBefore, says } from "../label.ts";
import { digitsIn, evenly, lengthOf, type NumberRun } from "../number-run.ts";

const saysNhs = says(/nhs|patient|health (?:service )?n(?:umber|o)/);

/** FHIR: `{"system":"https://fhir.nhs.uk/Id/nhs-number","value":"…"}`. */
const SYSTEM = /nhs-number[\\"]{1,9}, ?[\\"]{1,9}value[\\"]{1,9}: ?[\\"]{1,9}$/;

export const ukNhsNumber: Detector = {
  type: "uk_nhs_number",
  about: "person",
  number: { find: numbers, digits: 10, groups: [3, 10] },
  canonical: digitsOf,
  partial: (value) => `*** *** ${digitsOf(value).slice(-4)}`,
  hits: [
    ["Patient NHS number 506-338-3319", "506-338-3319"],
    ["NHS no. 307 642 8829.", "307 642 8829"],
    ['{"nhsNumber":"9434765919"}', "9434765919"],
    ['{"nhs_number":9434765919}', "9434765919"],
    ['{"system":"https://fhir.nhs.uk/Id/nhs-number","value":"9434765919"}', "9434765919"],
    ["NHS 943 476 5919 2026-03-18T10:15:00Z", "943 476 5919"],
  ],
  misses: ["NHS no. 307 642 8828", "943-476-5918", "order 9434765919", "NHS England has 1400000 staff"],
};

function numbers(text: string, run: NumberRun, found: Found): void {
  for (let first = 0; first < run.groups; first++) {
    const last = lengthOf(run, first) === 10 ? first : first + 2;
    if (last >= run.groups || (run.lettersAfter && last === run.groups - 1)) continue;
    const grouped = last !== first;
    if (grouped && (lengthOf(run, first) !== 3 || lengthOf(run, first + 1) !== 3 || lengthOf(run, last) !== 4))
      continue;
    if (grouped && !evenly(text, run, first, last, "- ")) continue;
    if (!hasChecksum(digitsIn(text, run, first, last))) continue;
    const start = run.starts[first] ?? 0;
    if (first > 0 || !(saysNhs(labelBefore(text, start)) || SYSTEM.test(text.slice(Math.max(0, start - 48), start))))
      continue;
    found.add(start, run.ends[last] ?? 0);
    first = last;
  }
}

function hasChecksum(digits: string): boolean {
  let sum = 0;
  for (let at = 0; at < 9; at++) sum += (10 - at) * (digits.charCodeAt(at) - 48);
  const check = (11 - (sum % 11)) % 11;
  return check !== 10 && check === digits.charCodeAt(9) - 48;
}
