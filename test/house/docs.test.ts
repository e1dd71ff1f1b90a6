/** Whoever begins at README.md finds every page, and no link leads nowhere. */
import { existsSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { expect, test } from "vitest";
import { filesIn, root } from "./sources.ts";

const pages = new Map(filesIn(["docs"], [".md"]).map(({ path, text }) => [path, text]));
const readme = readFileSync(join(root, "README.md"), "utf8");

/** The files that a page links to, from the root of the repository. */
function linkedFrom(path: string, text: string): string[] {
  const prose = text.replaceAll(/^```[\s\S]*?^```/gm, "");
  return [...prose.matchAll(/\]\(([^()\s#]+)(?:#[^()\s]*)?\)/g)]
    .map(([, target = ""]) => target)
    .filter((target) => !/^[a-z]+:/.test(target))
    .map((target) => posix.normalize(posix.join(posix.dirname(path), target)));
}

test("docs/README.md is linked from README.md and names every page, one line each; those of a folder with a README are named there", () => {
  expect(linkedFrom("README.md", readme)).toContain("docs/README.md");
  const named = new Map<string, readonly string[]>();
  for (const [path, text] of pages)
    if (posix.basename(path) === "README.md") named.set(posix.dirname(path), linkedFrom(path, text));
  const index = named.get("docs") ?? [];
  const lost = [...pages.keys()].filter(
    (path) =>
      path !== "docs/README.md" && !index.includes(path) && named.get(posix.dirname(path))?.includes(path) !== true,
  );
  expect(lost, "add a line to docs/README.md").toEqual([]);
  const direct = index.filter((path) => pages.has(path));
  expect(direct).toEqual([...new Set(direct)]);
});

test("every link from a page to a file of the repository leads to one", () => {
  const all = [...pages, ["README.md", readme] as const];
  const broken = all.flatMap(([path, text]) =>
    linkedFrom(path, text)
      .filter((target) => !existsSync(join(root, target)))
      .map((target) => `${path}: ${target}`),
  );
  expect(broken).toEqual([]);
});
