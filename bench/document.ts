/** Puts measured tables into `docs/performance.md`, so that no figure there was ever typed by hand. */
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Table } from "./figures.ts";

const PAGE = path.resolve(import.meta.dirname, "../docs/performance.md");

/** Replaces what stands between `<!-- measured: name -->` and the next `<!-- end -->`, for each name given. */
export function document(sections: Readonly<Record<string, string>>): void {
  let page = readFileSync(PAGE, "utf8");
  for (const [name, text] of Object.entries(sections)) {
    const opening = `<!-- measured: ${name} -->`;
    const start = page.indexOf(opening);
    const end = page.indexOf("<!-- end -->", start);
    if (start < 0 || end < 0) throw new Error(`docs/performance.md has no place for ${name}.`);
    page = `${page.slice(0, start + opening.length)}\n\n${text}\n\n${page.slice(end)}`;
  }
  writeFileSync(PAGE, page);
}

export function markdown(table: Table): string {
  const row = (cells: readonly string[]): string =>
    `| ${table.head.map((_, column) => cells[column] ?? "").join(" | ")} |`;
  const rule = `|${table.head.map((_, column) => (column === 0 ? "---" : "--:")).join("|")}|`;
  const notes = table.notes.length === 0 ? [] : ["", ...table.notes.map((note) => `- ${note}`)];
  return [`**${table.title}**`, "", row(table.head), rule, ...table.rows.map(row), ...notes].join("\n");
}
