/** US social security numbers: `AAA-GG-SSSS`; without hyphens only after a word that says so. */
import { type Detector, digitsOf, type Found } from "../detector.ts";
import { labelBefore, says } from "../label.ts";
import { digitsIn, evenly, lengthOf, type NumberRun } from "../number-run.ts";

const saysSsn = says(
  /\bssn|ssn["'_: =]|\bsoc(?:ial)?\.?[ _-]?sec|socialsec|\bmy social\b|seguro social|seguridad social|\bss ?(?:#|no\b)|\btin\b|\bitin\b/,
);

export const usSsn: Detector = {
  type: "us_ssn",
  about: "person",
  number: { find: numbers, digits: 9, groups: [3, 9] },
  canonical: digitsOf,
  partial: (value) => `***-**-${digitsOf(value).slice(-4)}`,
  hits: [
    ["SSN on file: 463-30-7630.", "463-30-7630"],
    ["(364-84-3399)", "364-84-3399"],
    ["SSN 375256015 (no dashes)", "375256015"],
    ['{"ssn":375256015}', "375256015"],
    ["social security number 364 84 3399", "364 84 3399"],
    ["463‑30‑7630", "463‑30‑7630"],
    ["463-30-7630 2026-03-18T10:15:00Z", "463-30-7630"],
    ["done – 463-30-7630 – 2026-03-18", "463-30-7630"],
    ["| SSN | 375256015 |", "375256015"],
    ["my social is 364 84 3399", "364 84 3399"],
  ],
  misses: [
    "| SSN | none | 375256015 |",
    "Dummy SSN 160-00-2941",
    "000-12-3456, 666-12-3456, 912-12-3456 and 123-45-0000",
    "order 375256015",
    "SO-463-30-7630",
    "463-30-7630-1",
    "463-30-76301",
    "463-30-7630A",
  ],
};

function numbers(text: string, run: NumberRun, found: Found): void {
  for (let first = 0; first < run.groups; first++) {
    const last = lengthOf(run, first) === 9 ? first : first + 2;
    if (last >= run.groups || (run.lettersAfter && last === run.groups - 1)) continue;
    const grouped = last !== first;
    if (grouped && (lengthOf(run, first) !== 3 || lengthOf(run, first + 1) !== 2 || lengthOf(run, last) !== 4))
      continue;
    const start = run.starts[first] ?? 0;
    const end = run.ends[last] ?? 0;
    if (grouped && !evenly(text, run, first, last, "- .")) continue;
    if (
      text[end] === "-" ||
      (first > 0 && text[start - 1] === "-") ||
      (first === 0 && /[-.+$£€#]/.test(text[start - 1] ?? ""))
    )
      continue;
    const dashed = grouped && text[run.ends[first] ?? 0] === "-";
    if (!dashed && !(first === 0 && saysSsn(labelBefore(text, start)))) continue;
    if (isIssued(digitsIn(text, run, first, last))) found.add(start, end);
    first = last;
  }
}

/** No area 000, 666 or 9xx, no group 00, no serial 0000 (SSA, since June 2011). */
function isIssued(digits: string): boolean {
  const area = digits.slice(0, 3);
  return (
    area !== "000" && area !== "666" && area[0] !== "9" && digits.slice(3, 5) !== "00" && digits.slice(5) !== "0000"
  );
}
