/** Makes `dist/`, the package as it is published: compiled sources, launcher, schema, and a manifest without what only the clone needs. */
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");

/** Fields of the manifest that are published as they are. */
const PUBLISHED = [
  "name",
  "version",
  "description",
  "keywords",
  "license",
  "author",
  "homepage",
  "repository",
  "bugs",
  "type",
  "engines",
  "bin",
  "dependencies",
] as const;
const FILES = ["LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "SECURITY.md"] as const;

/** Builds into `dist`, replacing what was there. Throws when the sources do not compile. */
export function build(dist: string): void {
  rmSync(dist, { recursive: true, force: true });
  mkdirSync(dist, { recursive: true });
  const compiler = join(root, "node_modules", "typescript", "bin", "tsc");
  execFileSync(process.execPath, [compiler, "--project", join(root, "tsconfig.build.json"), "--outDir", dist], {
    stdio: "inherit",
  });
  for (const folder of ["bin", "schema"]) cpSync(join(root, folder), join(dist, folder), { recursive: true });
  // What a browser gets is written as it is sent.
  cpSync(join(root, "src/cli/dev/page"), join(dist, "cli/dev/page"), { recursive: true });
  for (const file of FILES) if (existsSync(join(root, file))) copyFileSync(join(root, file), join(dist, file));
  writeFileSync(join(dist, "package.json"), `${JSON.stringify(publishedManifest(dist), null, 2)}\n`);
}

function publishedManifest(dist: string): Record<string, unknown> {
  const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as Record<string, unknown>;
  const hasIndex = existsSync(join(dist, "index.js"));
  return {
    ...Object.fromEntries(PUBLISHED.filter((key) => manifest[key] !== undefined).map((key) => [key, manifest[key]])),
    // Without an index there is no public module yet, only the command: "." is refused instead of resolving to a stray file.
    exports: {
      ...(hasIndex ? { ".": { types: "./index.d.ts", default: "./index.js" } } : {}),
      "./author": { types: "./author/index.d.ts", default: "./author/index.js" },
      "./mounted": { types: "./author/mounted.d.ts", default: "./author/mounted.js" },
      "./compile-cache": "./bin/compile-cache.js",
      "./schema/config.schema.json": "./schema/config.schema.json",
      "./package.json": "./package.json",
    },
  };
}

if (import.meta.main) {
  const dist = join(root, "dist");
  build(dist);
  console.log("wrote dist/");
}
