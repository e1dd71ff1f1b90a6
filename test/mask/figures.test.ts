/** The figures that masking promises, on texts from fresh seeds and on the development set where it is at hand. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Figures, figures } from "./figures.ts";
import { harmlessText, type Labelled, privateText, random } from "./generate.ts";

const SEEDS = [1, 20_261_121, Date.now() % 1_000_000];
/** Labelled texts that are not part of the project. */
const DATA = process.env["DRAWBRIDGE_MASK_DATA"] ?? join(import.meta.dirname, "../../../shared/data");

function promised(found: Figures): void {
  const shown = found.examples.join("\n");
  for (const [type, { values, found: hits }] of Object.entries(found.types)) {
    if (values < 3) continue;
    expect(hits / values, `${type}\n${shown}`).toBeGreaterThanOrEqual(type.toLowerCase() === "phone" ? 0.95 : 0.97);
  }
  expect(found.touched / Math.max(1, found.harmless), shown).toBeLessThanOrEqual(0.01);
}

describe("masking finds 97 % of every type, 95 % of phone numbers, and touches at most 1 % of harmless texts", () => {
  test.for(SEEDS)("in texts from seed %i", (seed) => {
    const r = random(seed);
    promised(
      figures(
        Array.from({ length: 6000 }, (_, index) =>
          index % 2 === 0 ? privateText(r) : { text: harmlessText(r), spans: [] },
        ),
      ),
    );
  });

  test.for(["pii.dev.jsonl", "pii_presidio.jsonl"])("in %s [development data]", (name, { skip }) => {
    const file = join(DATA, name);
    if (!existsSync(file)) return skip();
    const rows = readFileSync(file, "utf8").trim().split("\n");
    promised(figures(rows.map((row) => JSON.parse(row) as Labelled)));
  });
});
