/** The source files that the house tests read. */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";

export const root = join(import.meta.dirname, "../..");

export interface SourceFile {
  /** From the root of the repository, with `/`. */
  readonly path: string;
  readonly text: string;
}

/** Every file below some folders whose name ends with one of `endings`, sorted; installed and built files left out. */
export function filesIn(folders: readonly string[], endings: readonly string[]): SourceFile[] {
  return folders
    .flatMap((folder) => readdirSync(join(root, folder), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && endings.some((ending) => entry.name.endsWith(ending)))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .filter((path) => !/(^|\/)(node_modules|dist|results|\.drawbridge)\//.test(path))
    .sort()
    .map((path) => ({ path, text: readFileSync(join(root, path), "utf8") }));
}

/** The text with comments blanked out and everything else where it was. Good enough for code that Biome has formatted. */
export function withoutComments(text: string): string {
  const pattern = /\/\*[\s\S]*?\*\/|(?<=^|[\s;{}(),])\/\/[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/g;
  return text.replaceAll(pattern, (all) => (all.startsWith("/") ? all.replaceAll(/[^\n]/g, " ") : all));
}

export function lineOf(text: string, offset: number): number {
  return text.slice(0, offset).split("\n").length;
}
