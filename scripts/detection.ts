/**
 * Prints what `drawbridge check` finds in labelled sets of tools, by subset: rows of JSON, `{subset, label, server, attack_type, tool}`.
 *
 *   node scripts/detection.ts malicious.jsonl benign.jsonl [--misses half|all] [--subset name,name]
 *
 * `--misses` prints what was judged wrongly; `half` leaves out the half of the sources that is held out.
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { crc32 } from "node:zlib";
import type { JsonObject } from "../src/core/call.ts";
import type { Inspection } from "../src/inspect/finding.ts";
import { inspectDefinition } from "../src/inspect/inspect.ts";

interface Row {
  readonly id: string;
  readonly label: "malicious" | "benign";
  readonly subset: string;
  readonly attack_type: string;
  readonly server: string;
  readonly tool: JsonObject;
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { misses: { type: "string" }, subset: { type: "string" } },
});
const rows = positionals.flatMap((file) =>
  readFileSync(file, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Row),
);
const started = performance.now();
const judged = rows.map((row) => ({ row, inspection: inspectDefinition("tool", row.tool, { server: row.server }) }));
const took = performance.now() - started;

/** Sources in the second half are never read while rules are written, only counted. */
const heldOut = (row: Row) =>
  crc32(row.label === "benign" && row.subset !== row.server ? row.server : row.id) % 2 === 1;

for (const label of ["malicious", "benign"]) {
  const subsets = [...new Set(judged.filter(({ row }) => row.label === label).map(({ row }) => row.subset))].sort();
  for (const subset of [...subsets, "all"]) {
    const of = judged.filter(({ row }) => row.label === label && (subset === "all" || row.subset === subset));
    const open = of.filter(({ row }) => !heldOut(row));
    const held = of.filter(({ row }) => heldOut(row));
    console.log(
      `${label.padEnd(10)} ${subset.padEnd(22)} ${share(of)}  | read ${share(open)} | held out ${share(held)}`,
    );
  }
}
console.log(`${rows.length} tools in ${took.toFixed(0)} ms`);

function share(of: readonly { inspection: Inspection }[]): string {
  const reviewed = of.filter(({ inspection }) => inspection.verdict !== "clean").length;
  const blocked = of.filter(({ inspection }) => inspection.verdict === "block").length;
  const percent = (count: number) => `${((100 * count) / Math.max(1, of.length)).toFixed(1)}%`.padStart(6);
  return `n ${String(of.length).padStart(4)} review ${percent(reviewed)} block ${percent(blocked)}`;
}

if (values.misses !== undefined)
  for (const { row, inspection } of judged) {
    if (values.misses !== "all" && heldOut(row)) continue;
    if (values.subset !== undefined && !values.subset.split(",").includes(row.subset)) continue;
    const wrong = row.label === "malicious" ? inspection.verdict !== "block" : inspection.verdict !== "clean";
    if (!wrong) continue;
    const text = JSON.stringify(row.tool);
    console.log(`\n${row.id} ${row.subset} ${row.attack_type} ${inspection.verdict} ${String(row.tool["name"])}`);
    if (row.label === "malicious") console.log(`  ${text.slice(0, 300)}`);
    for (const { rule, severity, confidence, evidence, where } of inspection.findings)
      console.log(`  - ${rule} ${severity}/${confidence} ${where} ${JSON.stringify(evidence.slice(0, 150))}`);
  }
