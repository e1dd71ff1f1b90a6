/** What the schema cannot say of masks: patterns and paths that cannot be read, and types that nobody finds. */
import { compileFields } from "../mask/fields.ts";
import { compilePatterns } from "../mask/patterns.ts";
import { MASK_TYPES } from "../mask/settings.ts";
import { type Finding, nearest, type SettingsPath } from "./problems.ts";
import type { Settings } from "./schema.ts";

/** Every mask that cannot be used, in `mask:` and in contracts. */
export function maskFindings({ mask, tools, resources, prompts }: Partial<Settings>): Finding[] {
  const written = mask === undefined || mask === "off" ? undefined : mask;
  const types = [...MASK_TYPES, ...Object.keys(written?.patterns ?? {}), "masked"];
  const named = new Set([...types, "people", "secrets"]);
  const seen = Object.entries(written?.see ?? {}).flatMap(([role, shown]) =>
    shown.flatMap((path, index) => (named.has(path) ? [] : fieldFinding(["mask", "see", role, index], path))),
  );
  const contracts = Object.entries({ tools, resources, prompts }).flatMap(([section, its]) =>
    Object.entries(its ?? {}).flatMap(([name, contract]) => [
      ...fieldFindings([section, name, "mask"], contract.mask),
      ...("restores" in contract ? restoredFindings([section, name, "restores"], contract.restores, types) : []),
    ]),
  );
  return [
    ...Object.entries(written?.patterns ?? {}).flatMap(([name, one]) =>
      failing(["mask", "patterns", name, "pattern"], () => compilePatterns({ [name]: one })),
    ),
    ...fieldFindings(["mask", "fields"], written?.fields),
    ...seen,
    ...contracts,
  ];
}

function fieldFindings(path: SettingsPath, fields: Readonly<Record<string, unknown>> = {}): Finding[] {
  return Object.keys(fields).flatMap((field) => fieldFinding([...path, field], field));
}

const fieldFinding = (path: SettingsPath, field: string) => failing(path, () => compileFields({ [field]: "keep" }));

function restoredFindings(
  path: SettingsPath,
  restores: boolean | readonly string[] | undefined,
  types: string[],
): Finding[] {
  return (Array.isArray(restores) ? (restores as readonly string[]) : []).flatMap((type, index) =>
    types.includes(type)
      ? []
      : [
          {
            path: [...path, index],
            message: `there is no type ${JSON.stringify(type)}; \`masked\` stands for fields that a path names`,
            suggestion: nearest(type, types),
          },
        ],
  );
}

function failing(path: SettingsPath, attempt: () => unknown): Finding[] {
  try {
    attempt();
    return [];
  } catch (thrown) {
    return [{ path, message: thrown instanceof Error ? thrown.message : String(thrown) }];
  }
}
