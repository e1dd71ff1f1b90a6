/**
 * Turns a TypeScript server of the bench into plain JavaScript under `results/plain/`, so that nobody's start time holds
 * the 25 ms that Node needs to load its type stripper. Such a server imports packages only, no file of ours.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import path from "node:path";
import { RESULTS } from "./processes.ts";

// The one experimental call of the bench is known to be one; every other warning is still shown.
process.removeAllListeners("warning");
process.on("warning", (warning) => {
  if (!warning.message.startsWith("stripTypeScriptTypes")) console.error(warning);
});

/** The path of the plain version of `bench/<file>`. */
export function plain(file: string): string {
  const folder = path.join(RESULTS, "plain");
  mkdirSync(folder, { recursive: true });
  const target = path.join(folder, `${path.basename(file, ".ts")}.mjs`);
  writeFileSync(target, stripTypeScriptTypes(readFileSync(path.join(import.meta.dirname, file), "utf8")));
  return target;
}
