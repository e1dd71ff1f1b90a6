/** Shows that "everything on" was on: audit records that reached the store, and traces that reached the receiver. */
import { existsSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { Drawbridge } from "./arms/drawbridge.ts";
import type { Running } from "./processes.ts";

/** One sentence for below a table. Call it while the receiver runs and after the gateways were stopped. */
export async function evidence(arms: readonly Drawbridge[], sink: Running): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${sink.port}/`, { signal: AbortSignal.timeout(10_000) });
  const traces = (await response.json()) as { readonly exports: number; readonly bytes: number };
  return `Checked afterwards: ${recordsOf(arms)}; ${traces.exports} trace exports of ${Math.round(traces.bytes / 1024)} KB in all.`;
}

/** How many calls each of these has recorded, in words. */
export function recordsOf(arms: readonly Drawbridge[]): string {
  return arms.map((arm) => `${auditRecords(arm.folder)} audit records of ${arm.name}`).join(", ");
}

/** How many records an arm's store holds; 0 when it has none, which says that auditing was off. */
function auditRecords(folder: string): number {
  const file = path.join(folder, "drawbridge.db");
  if (!existsSync(file)) return 0;
  const store = new DatabaseSync(file, { readOnly: true });
  try {
    const tables = store.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '%audit%'").all();
    const counts = tables.map(({ name }) => store.prepare(`SELECT count(*) AS n FROM "${String(name)}"`).get()?.["n"]);
    return Math.max(0, ...counts.map(Number));
  } finally {
    store.close();
  }
}
