/** Rules of the house that the linter does not know. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { filesIn, lineOf, root, withoutComments } from "./sources.ts";

const sources = filesIn(["src"], [".ts"]);
const everything = [
  ...sources,
  ...filesIn(
    ["test", "scripts", "bench", "examples", "docs", "bin", ".ci", ".github", ".changeset"],
    [".ts", ".js", ".md", ".yaml", ".yml", ".json", "run"],
  ),
];

function matches(files: readonly { path: string; text: string }[], pattern: RegExp, code = true): string[] {
  return files.flatMap(({ path, text }) => {
    const searched = code ? withoutComments(text) : text;
    return [...searched.matchAll(pattern)].map(
      (match) => `${path}:${lineOf(searched, match.index)}: ${match[0].trim()}`,
    );
  });
}

/** Lines that are one text, such as a pattern of English words, among which "any" is one. */
const withoutQuotedLines = sources.map((file) => ({ ...file, text: file.text.replaceAll(/^\s*["'`].*$/gm, "") }));

test("nothing is typed any, silenced or asserted away", () => {
  expect(matches(withoutQuotedLines, /(?<=[:<|&,(]\s*)any(?=\s*[;,)>|&=\][{]|\s*$)|\bas any\b/gm)).toEqual([]);
  expect(
    matches(sources, /@ts-(ignore|expect-error|nocheck)|biome-ignore(?!-all)\s+lint\S*\s*:?\s*$/gm, false),
  ).toEqual([]);
});

test("modules export names, never a default and never everything", () => {
  expect(matches(sources, /\bexport\s+default\b|\bexport\s+\*\s+from/g)).toEqual([]);
});

test("only cli/ and config/ read the environment", () => {
  const elsewhere = sources.filter(({ path }) => !/^src\/(cli|config)\//.test(path));
  expect(matches(elsewhere, /\bprocess\.env\b/g)).toEqual([]);
});

test("only net/ and upstream/ open outbound connections", () => {
  const elsewhere = sources.filter(({ path }) => !/^src\/(net|upstream|observe)\//.test(path));
  expect(
    matches(
      elsewhere,
      /(?:\b(?:await|return|void)\s+|[=(,?:>]\s*|globalThis\.)fetch\(|\bhttps?\.request\(|from "undici"/g,
    ),
  ).toEqual([]);
});

test("what is random in tests has the seed of test/properties.ts", () => {
  const tests = everything.filter(({ path }) => path.startsWith("test/") && path !== "test/properties.ts");
  expect(matches(tests, /from "fast-check"/g).filter((place) => !place.startsWith("test/house/"))).toEqual([]);
});

test("no file is an attic", () => {
  expect(
    everything
      .map(({ path }) => path)
      .filter((path) => /(^|\/)(utils?|helpers?|misc|common|shared)(\/|\.ts$)/.test(path)),
  ).toEqual([]);
});

test("no file names a machine, a home folder or a workplace", () => {
  // Put together here, so that this file does not contain what it looks for.
  const places = ["work/(main|shared|\\.)", "root/", "home/[a-z]+/", "Users/[A-Za-z]+/", "tmp/[a-z-]*helper"].map(
    (place) => `/${place}`,
  );
  const allowed = /^test\/(config|cli)\/|^docs\//;
  expect(
    matches(
      everything.filter(({ path }) => !allowed.test(path)),
      new RegExp(`(?<![\\w.:/-])(${places.join("|")})`, "g"),
      false,
    ),
  ).toEqual([]);
});

test("dependencies are pinned exactly", () => {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Record<
    string,
    Record<string, string> | undefined
  >;
  const loose = ["dependencies", "devDependencies", "optionalDependencies"].flatMap((kind) =>
    Object.entries(manifest[kind] ?? {}).filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version)),
  );
  expect(loose).toEqual([]);
});
