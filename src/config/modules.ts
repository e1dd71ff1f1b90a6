/**
 * Servers that are modules (`drawbridge-mcp/author`) bring contracts, limits and scopes of their own. Here they join those of the file,
 * which count first, so that all that follows knows one kind of contract.
 */
import { resolve } from "node:path";
import { z } from "zod";
import { promptContract, resourceContract, toolContract } from "../contract/settings.ts";
import type { JsonObject } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { ModuleContracts } from "../mcp/module-server.ts";
import { loadModuleServer } from "../upstream/module.ts";
import type { Finding } from "./problems.ts";
import type { Settings } from "./schema.ts";

const SECTIONS = ["tools", "resources", "prompts"] as const;
const CONTRACTS = { tools: toolContract, resources: resourceContract, prompts: promptContract } as const;

/** The settings with what modules declare. Loads each module, which runs it; a setting of a module that cannot be served is a finding. */
export async function withModules(
  settings: Settings,
  folder: string,
): Promise<{
  readonly settings: Settings;
  readonly findings: readonly Finding[];
  readonly warnings: readonly string[];
}> {
  const findings: Finding[] = [];
  const warnings: string[] = [];
  let merged = settings;
  for (const [name, server] of Object.entries(settings.servers)) {
    if (!("module" in server)) continue;
    const path = ["servers", name, "module"];
    try {
      const declared = (await loadModuleServer(resolve(folder, server.module))).contracts(name);
      warnings.push(...hiding(settings, declared, name));
      merged = joined(merged, declared);
    } catch (thrown) {
      const { message } = DrawbridgeError.from(thrown, "settings_invalid");
      findings.push({ path, message: thrown instanceof z.ZodError ? z.prettifyError(thrown) : message });
    }
  }
  return { settings: merged, findings, warnings };
}

function joined(settings: Settings, declared: ModuleContracts): Settings {
  const sections = Object.fromEntries(
    SECTIONS.flatMap((section) => {
      const brought = Object.entries(declared[section]);
      if (brought.length === 0) return [];
      const written: Readonly<Record<string, JsonObject>> = (settings[section] ?? {}) as never;
      const all = new Map<string, unknown>(Object.entries(written));
      for (const [name, contract] of brought) {
        const one = contract as JsonObject;
        const own = Object.entries(written).filter(([, { from }]) => from === one["from"]);
        // The operator's contract counts, and is no wider for what it does not say.
        for (const [key, contract] of own) all.set(key, silentFrom(contract, one));
        if (own.length === 0 && !all.has(name)) all.set(name, CONTRACTS[section].parse(one));
      }
      return [[section, Object.fromEntries(all)]];
    }),
  ) as Partial<Settings>;
  return {
    ...settings,
    ...sections,
    ...(Object.keys(declared.limits).length > 0 && {
      limits: { ...settings.limits, tools: { ...(declared.limits as object), ...settings.limits.tools } },
    }),
    ...(Object.keys(declared.stepUp).length > 0 && {
      stepUp: { ...(declared.stepUp as Settings["stepUp"]), ...settings.stepUp },
    }),
  };
}

/** A contract of the file with what a module declares and it does not say. */
function silentFrom(written: JsonObject, declared: JsonObject): unknown {
  const said = Object.fromEntries(Object.entries(written).filter(([, value]) => value !== undefined));
  const mask = { ...(declared["mask"] as object | undefined), ...(said["mask"] as object | undefined) };
  return { ...declared, ...said, ...(Object.keys(mask).length > 0 && { mask }) };
}

/** Contracts of a module make a section that the file does not have, and then the other servers need contracts, too. */
function hiding({ servers, ...settings }: Settings, declared: ModuleContracts, server: string): readonly string[] {
  const others = Object.entries(servers).flatMap(([name, one]) => ("module" in one ? [] : [name]));
  return SECTIONS.flatMap((section) =>
    others.length === 0 || settings[section] !== undefined || Object.keys(declared[section]).length === 0
      ? []
      : [
          `servers.${server}.module brings contracts, so nothing of ${others.join(", ")} is served under \`${section}\` until it has contracts, too: "drawbridge init ${others[0] ?? ""}" writes them.`,
        ],
  );
}
