/** What every detector promises, by its own examples: the one suite that a new detector must pass. */
import { describe, expect, test } from "vitest";
import { DETECTORS } from "../../src/mask/detectors/all.ts";
import { compileScan } from "../../src/mask/scan.ts";

const all = compileScan(DETECTORS);

describe.for(DETECTORS.map((detector) => [detector.type, detector] as const))("%s", ([type, detector]) => {
  const alone = compileScan([detector]);
  const found = (text: string, scan = alone): readonly string[] =>
    scan(text).spans.flatMap((span) => (span.detector.type === type ? [text.slice(span.start, span.end)] : []));

  test.for(detector.hits)("finds what is private in %j", ([text, value]) => {
    expect(found(text)).toContain(value);
  });

  test.for(detector.misses)("touches nothing in %j", (text) => {
    expect(found(text)).toEqual([]);
  });

  test.for(detector.hits)("is named rightly among all detectors in %j", ([text, value]) => {
    expect(found(text, all)).toContain(value);
  });
});
