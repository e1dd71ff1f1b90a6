/** Medians with their spread, ratios taken round by round, and the table they are printed in. */
import type { LoadResult } from "./load.ts";

export interface Figure {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export interface Table {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** What a reader must know to read it rightly. */
  readonly notes: readonly string[];
}

export function figure(values: readonly number[]): Figure {
  const sorted = values.toSorted((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  const upper = sorted[half] ?? Number.NaN;
  const lower = sorted.length % 2 === 1 ? upper : (sorted[half - 1] ?? Number.NaN);
  return { median: (upper + lower) / 2, min: sorted[0] ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN };
}

/** One value of each round. */
export function each(results: readonly LoadResult[] | undefined, value: (result: LoadResult) => number): Figure {
  return figure((results ?? []).map(value));
}

/** `a / b` of each round, so that what disturbs a whole round cancels out. */
export function ratio(
  a: readonly LoadResult[] | undefined,
  b: readonly LoadResult[] | undefined,
  value: (result: LoadResult) => number,
): Figure {
  return figure(pairs(a, b).map(([one, other]) => value(one) / value(other)));
}

/** `a - b` of each round. */
export function difference(
  a: readonly LoadResult[] | undefined,
  b: readonly LoadResult[] | undefined,
  value: (result: LoadResult) => number,
): Figure {
  return figure(pairs(a, b).map(([one, other]) => value(one) - value(other)));
}

/** `0.71 (0.68–0.75)`, or a dash when nothing was measured. */
export function spread({ median, min, max }: Figure, digits: number): string {
  if (Number.isNaN(median)) return "–";
  return `${median.toFixed(digits)} (${min.toFixed(digits)}–${max.toFixed(digits)})`;
}

/** `1.25`, or a dash when nothing was measured. */
export function amount(value: number, digits: number): string {
  return Number.isNaN(value) ? "–" : value.toFixed(digits);
}

/** `timeout ×3, WRONG-ANSWER ×1`. */
export function kinds(failures: Readonly<Record<string, number>>): string {
  const listed = Object.entries(failures).map(([kind, count]) => `${kind} ×${count}`);
  return listed.length === 0 ? "–" : listed.join(", ");
}

export function failures(results: readonly LoadResult[]): Readonly<Record<string, number>> {
  const sum: Record<string, number> = {};
  for (const result of results) {
    for (const [kind, count] of Object.entries(result.failures)) sum[kind] = (sum[kind] ?? 0) + count;
  }
  return sum;
}

export function printed(table: Table): string {
  const lines = [table.head, ...table.rows];
  const widths = table.head.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? "").length)));
  const line = (cells: readonly string[]): string =>
    widths
      .map((width, column) => (column === 0 ? (cells[0] ?? "").padEnd(width) : (cells[column] ?? "").padStart(width)))
      .join("  ")
      .trimEnd();
  const rule = widths.map((width) => "─".repeat(width)).join("  ");
  const notes = table.notes.map((note) => `  · ${note}`);
  return [`\n${table.title}`, line(table.head), rule, ...table.rows.map(line), ...notes].join("\n");
}

function pairs(
  a: readonly LoadResult[] | undefined,
  b: readonly LoadResult[] | undefined,
): readonly (readonly [LoadResult, LoadResult])[] {
  return (a ?? []).flatMap((one, round) => {
    const other = b?.[round];
    return other === undefined ? [] : [[one, other] as const];
  });
}
