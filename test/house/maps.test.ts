/** docs/owasp.md and docs/eu-ai-act.md: each line names a page and a test that are there, and says what it does not cover. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { root } from "./sources.ts";

const MAPS = [
  ["docs/owasp.md", Array.from({ length: 10 }, (_, at) => `MCP${String(at + 1).padStart(2, "0")}`)],
  ["docs/eu-ai-act.md", ["Article 12", "Article 19", "Article 26"]],
] as const;

describe.each(MAPS)("%s", (file, wanted) => {
  const text = readFileSync(join(root, file), "utf8");
  const sections = text.split(/^## /m).slice(1);

  test("has a section for each, in order, with what is not covered", () => {
    expect(sections).toHaveLength(wanted.length);
    for (const [at, section] of sections.entries()) {
      expect(section.startsWith(wanted[at] ?? "?"), section.slice(0, 20)).toBe(true);
      expect(section).toMatch(/^Not covered: \S/m);
    }
  });

  const rows = sections.flatMap((section) =>
    section.split("\n").filter((line) => line.startsWith("| ") && !/^\| (feature|paragraph) /.test(line)),
  );
  test.each(rows)("%s", (row) => {
    const pages = [...row.matchAll(/\]\(([\w/.-]+\.md)\)/g)].map(([, page = ""]) => join("docs", page));
    const tests = [...row.matchAll(/`(test\/[\w/.-]+\.test\.ts)`/g)].map(([, path = ""]) => path);
    expect(pages.length).toBeGreaterThan(0);
    expect(tests.length).toBeGreaterThan(0);
    for (const path of [...pages, ...tests]) expect(existsSync(join(root, path)), path).toBe(true);
  });
});
