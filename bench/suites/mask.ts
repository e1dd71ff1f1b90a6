/** What does masking an answer cost? In this process: no socket, no child, only the call that the pipeline makes. */
import { Secret } from "../../src/core/secret.ts";
import { compileMasker, type Masked } from "../../src/mask/masker.ts";
import { maskSettings } from "../../src/mask/settings.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import { amount, type Figure, figure, spread } from "../figures.ts";
import type { Effort, Suite, SuiteResult } from "./suite.ts";

export const mask: Suite = {
  name: "mask",
  question: "How much CPU does it take to mask an answer?",
  run: measure,
};

const VIEWER = { subject: "bench", roles: [] };

interface Answer {
  readonly name: string;
  readonly figure: string;
  readonly text: string;
}

async function measure(effort: Effort): Promise<SuiteResult> {
  await using store = memoryStore();
  const masker = compileMasker(maskSettings.parse({}), {
    key: new Secret("only for the bench"),
    records: store.records,
  });
  const answers: readonly Answer[] = [
    {
      name: "20 kB, structured, e-mail and phone in each row",
      figure: "mask.20kB.private",
      text: structured(20_000, row),
    },
    { name: "20 kB, structured, nothing private", figure: "mask.20kB.harmless", text: structured(20_000, harmlessRow) },
    { name: "20 kB, JSON in text, e-mail and phone in each row", figure: "mask.20kB.inText", text: inText(20_000) },
    { name: "20 kB, prose", figure: "mask.20kB.prose", text: prose(20_000) },
    {
      name: "1 MB, structured, e-mail and phone in each row",
      figure: "mask.1MB.private",
      text: structured(1_000_000, row),
    },
    {
      name: "1 MB, structured, nothing private",
      figure: "mask.1MB.harmless",
      text: structured(1_000_000, harmlessRow),
    },
  ];
  const figures: Record<string, Figure> = {};
  const rows = answers.map(({ name, figure: key, text }) => {
    const times: number[] = [];
    const run = (): Masked => masker.json(text, VIEWER);
    const { counts } = run();
    for (let round = -1; round < effort.rounds; round++) {
      const spent = cpuOf(run, (effort.seconds * 1000) / answers.length);
      if (round >= 0) times.push(spent); // The first round warms up.
    }
    const found = figure(times);
    figures[key] = found;
    const hits = Object.values(counts).reduce((sum, count) => sum + count, 0);
    return [name, String(text.length), String(hits), spread(found, 4), amount((found.median * 1e6) / text.length, 2)];
  });
  const head = ["answer", "characters", "masked", "CPU ms", "ns / character"];
  const notes = ["Default settings: everything private is redacted.", "Goals: 20 kB in 0.06 ms, 1 MB in 50 ms."];
  return { tables: [{ title: "Masking an answer", head, rows, notes }], figures, raw: rows };
}

/** CPU milliseconds of one call: the mean over about `milliseconds`. */
function cpuOf(run: () => unknown, milliseconds: number): number {
  const until = performance.now() + milliseconds;
  const started = process.cpuUsage();
  let calls = 0;
  while (performance.now() < until) {
    for (let turn = 0; turn < 10; turn++) run();
    calls += 10;
  }
  const { user, system } = process.cpuUsage(started);
  return (user + system) / 1000 / calls;
}

function row(index: number): unknown {
  return {
    id: `0198c1d2-7a4e-7c3b-9f21-${String(index).padStart(12, "0")}`,
    orderId: `ORD-${88_000 + index}-${1000 + (index % 9000)}`,
    customer: {
      name: "Anna Smith",
      email: `anna.smith${index}@example.org`,
      phone: `+44 7700 9${String(10_000 + (index % 90_000))}`,
    },
    status: "shipped to the customer",
    total: 129.5 + index,
    createdAt: "2026-09-03T09:28:39.589Z",
  };
}

function harmlessRow(index: number): unknown {
  return {
    ...(row(index) as object),
    customer: { name: "Anna Smith", note: "left at the front desk with a neighbour" },
  };
}

function rowsOf(characters: number, make: (index: number) => unknown): readonly unknown[] {
  const rows: unknown[] = [];
  for (let length = 0; length < characters; length += JSON.stringify(rows.at(-1)).length + 1)
    rows.push(make(rows.length));
  return rows;
}

function structured(characters: number, make: (index: number) => unknown): string {
  return JSON.stringify({
    content: [{ type: "text", text: "ok" }],
    structuredContent: { rows: rowsOf(characters, make) },
  });
}

function inText(characters: number): string {
  return JSON.stringify({ content: [{ type: "text", text: JSON.stringify(rowsOf(characters, row)) }] });
}

function prose(characters: number): string {
  const line = "The parcel was left with a neighbour, and the customer was told about it on 2026-09-03.\n";
  return JSON.stringify({ content: [{ type: "text", text: line.repeat(Math.ceil(characters / line.length)) }] });
}
