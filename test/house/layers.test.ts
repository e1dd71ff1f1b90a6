/** Who may import whom: docs/architecture.md as data. */
import { builtinModules } from "node:module";
import { posix } from "node:path";
import { expect, test } from "vitest";
import { filesIn, lineOf, withoutComments } from "./sources.ts";

interface Layer {
  /** Folders of `src/` beside its own. */
  readonly folders: readonly string[];
  /** Packages from npm. */
  readonly packages: readonly string[];
}

const LAYERS: Readonly<Record<string, Layer>> = {
  core: { folders: [], packages: ["zod", "re2js"] },
  observe: {
    folders: ["core"],
    packages: [
      "zod",
      "pino",
      "@opentelemetry/api",
      "@opentelemetry/exporter-prometheus",
      "@opentelemetry/resources",
      "@opentelemetry/sdk-metrics",
    ],
  },
  net: { folders: ["core", "observe"], packages: ["undici", "zod"] },
  store: { folders: ["core", "observe"], packages: ["zod", "pg", "@redis/client"] },
  contract: { folders: ["core"], packages: ["ajv", "ajv-formats", "re2js", "refa", "canonicalize", "zod"] },
  policy: { folders: ["core", "contract"], packages: ["zod", "re2js", "@marcbachmann/cel-js"] },
  mask: { folders: ["core", "store"], packages: ["zod", "re2js"] },
  inspect: { folders: ["core", "contract"], packages: ["zod"] },
  check: { folders: ["core", "contract", "inspect"], packages: ["zod"] },
  mcp: { folders: ["core"], packages: ["zod", "@modelcontextprotocol/core"] },
  author: { folders: ["core", "observe", "contract", "policy", "mcp", "config", "gateway"], packages: ["zod"] },
  audit: {
    folders: ["core", "observe", "net", "store", "policy"],
    packages: ["zod", "canonicalize", "@platformatic/kafka", "@nats-io/jetstream", "@nats-io/transport-node"],
  },
  upstream: { folders: ["core", "observe", "net", "store", "mcp"], packages: ["zod", "undici", "openid-client"] },
  oauth: { folders: ["core", "observe", "net", "store"], packages: ["zod", "oidc-provider", "jose", "openid-client"] },
  config: {
    folders: [
      "core",
      "observe",
      "net",
      "store",
      "contract",
      "policy",
      "inspect",
      "mask",
      "mcp",
      "audit",
      "upstream",
      "oauth",
      "gateway",
    ],
    packages: ["zod", "yaml", "jsonc-parser"],
  },
  gateway: {
    folders: [
      "core",
      "observe",
      "net",
      "store",
      "contract",
      "policy",
      "mask",
      "inspect",
      "mcp",
      "audit",
      "upstream",
      "oauth",
      "config",
    ],
    packages: ["zod"],
  },
  cli: {
    folders: [
      "core",
      "observe",
      "net",
      "store",
      "contract",
      "policy",
      "mask",
      "check",
      "audit",
      "upstream",
      "oauth",
      "config",
      "gateway",
    ],
    packages: ["commander", "zod"],
  },
};

/** Of these folders only the settings slices may be imported from below: the schema is put together from them. */
const ONLY_SETTINGS: Readonly<Record<string, readonly string[]>> = { config: ["gateway"] };

const builtin = new Set([...builtinModules, "sqlite", "test"].map((name) => name.replace(/^node:/, "")));

/** Every module a file names: `import`, `export … from`, `import()`, `require()`, types too. */
function imports(text: string): { specifier: string; line: number }[] {
  const code = withoutComments(text);
  const patterns = [
    /\b(?:import|export)\b[^"';]*?\bfrom\s*["']([^"']+)["']/g,
    /\bimport\s*["']([^"']+)["']/g,
    /\b(?:import|require)\s*\(\s*["']([^"']+)["']/g,
  ];
  return patterns.flatMap((pattern) =>
    [...code.matchAll(pattern)].map((match) => ({ specifier: match[1] ?? "", line: lineOf(code, match.index) })),
  );
}

function offences(path: string, text: string): string[] {
  const [, own = ""] = path.split("/");
  const layer = LAYERS[own];
  if (layer === undefined)
    return path.split("/").length > 2 ? [`${path}: the folder ${own} is not in the table of layers`] : [];
  return imports(text).flatMap(({ specifier, line }) => {
    const at = `${path}:${line}: `;
    if (specifier.startsWith("node:"))
      return builtin.has(specifier.slice("node:".length).split("/")[0] ?? "")
        ? []
        : [`${at}${specifier} is no module of Node`];
    if (!specifier.startsWith(".")) {
      if (builtin.has(specifier)) return [`${at}write node:${specifier}`];
      const name = specifier
        .split("/")
        .slice(0, specifier.startsWith("@") ? 2 : 1)
        .join("/");
      return layer.packages.includes(name) ? [] : [`${at}${own} may not use the package ${name}`];
    }
    const target = posix.join(posix.dirname(path), specifier);
    if (!target.startsWith("src/")) return [`${at}${specifier} leads out of src/`];
    const [, folder = ""] = target.split("/");
    if (folder === own) return [];
    if (!layer.folders.includes(folder)) return [`${at}${own} may not import ${folder} (${specifier})`];
    if (ONLY_SETTINGS[own]?.includes(folder) === true && !target.endsWith("/settings.ts"))
      return [`${at}${own} may import only the settings of ${folder} (${specifier})`];
    return [];
  });
}

test("every import in src/ points to a layer below and to a package of its folder", () => {
  expect(filesIn(["src"], [".ts"]).flatMap(({ path, text }) => offences(path, text))).toEqual([]);
});

test("the layers test sees static, dynamic, type-only, re-exported and bare imports", () => {
  const wrong = [
    'import { a } from "../gateway/gateway.ts";',
    'import type { B } from "../gateway/gateway.ts";',
    'const c = await import("../gateway/gateway.ts");',
    'export { d } from "../gateway/gateway.ts";',
    'import "../gateway/gateway.ts";',
    'import pino from "pino";',
    'import { readFile } from "fs/promises";',
    'import { x } from "../../test/requirements.ts";',
    'import {\n  e,\n} from "../gateway/gateway.ts";',
  ];
  for (const line of wrong) expect(offences("src/core/x.ts", line), line).toHaveLength(1);
  expect(
    offences(
      "src/core/x.ts",
      '// import { a } from "../gateway/gateway.ts";\nimport { hash } from "node:crypto";\nimport { z } from "zod";',
    ),
  ).toEqual([]);
});
