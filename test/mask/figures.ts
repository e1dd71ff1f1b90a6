/** How much of what is private is found, and how many harmless texts are touched. */
import { DETECTORS } from "../../src/mask/detectors/all.ts";
import { compileScan } from "../../src/mask/scan.ts";
import type { Labelled } from "./generate.ts";

export interface Figures {
  /** By type: of how many values every character was found. */
  readonly types: Readonly<
    Record<string, { readonly values: number; readonly found: number; readonly named: number; readonly wrong: number }>
  >;
  readonly harmless: number;
  readonly touched: number;
  /** Up to twenty texts for whoever looks into a failure. */
  readonly examples: readonly string[];
}

const scan = compileScan(DETECTORS);

export function figures(texts: Iterable<Labelled>): Figures {
  const types: Record<string, { values: number; found: number; named: number; wrong: number }> = {};
  const of = (type: string) => {
    types[type] ??= { values: 0, found: 0, named: 0, wrong: 0 };
    return types[type];
  };
  const examples: string[] = [];
  let harmless = 0;
  let touched = 0;
  for (const { text, spans } of texts) {
    const found = scan(text).spans;
    if (spans.length === 0) {
      harmless++;
      if (found.length > 0) {
        touched++;
        examples.push(
          `touched ${found.map(({ detector, start, end }) => `${detector.type} ${text.slice(start, end)}`)} in ${text}`,
        );
      }
    }
    for (const { start, end, type } of spans) {
      const row = of(type);
      row.values++;
      if (found.some((span) => span.start <= start && span.end >= end)) row.found++;
      else examples.push(`missed ${type} ${text.slice(start, end)} in ${text.slice(0, 300)}`);
      if (found.some((span) => span.start === start && span.end === end && span.detector.type === type)) row.named++;
    }
    for (const span of found) {
      if (!spans.some(({ start, end }) => start < span.end && end > span.start)) of(span.detector.type).wrong++;
    }
  }
  return { types, harmless, touched, examples: examples.slice(0, 20) };
}
