/** How changed settings are taken into the running gateway: what the appliers of `reload.ts` are made of. */
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import type { Policy } from "../policy/engine.ts";
import { compileExpression } from "../policy/expressions.ts";
import type { LivePolicy } from "../policy/live.ts";
import type { Records } from "../store/ports.ts";
import { CHANGES, type Changes } from "../store/watch.ts";
import type { Catalogue } from "./catalogue.ts";
import { openContracts } from "./contracts.ts";
import type { Appliers, Change, Prepared, ReloadOptions } from "./reload.ts";

/** Its entries are told by the setting that uses them. */
export const NOTHING_TO_DO: Prepared = { commit: async () => [], abandon: async () => {} };

/** A change that is put in place by one function that cannot fail. */
export function taking(setting: string, take: () => void, change: Change["change"] = "changed"): Prepared {
  return {
    ...NOTHING_TO_DO,
    async commit() {
      take();
      return [{ setting, change }];
    },
  };
}

/**
 * How changed roles and assignments are taken: together, however many of them changed, and refused together when the new ones cannot
 * be used. `onChange` hears of each change once.
 */
export function policyChanges(
  policy: LivePolicy,
  onChange: (before: Policy, now: Policy) => void,
): (setting: "roles" | "assign" | "shadowPolicy" | "stepUp", all: Settings) => Prepared {
  const prepared = new WeakMap<Settings, () => void>();
  return (setting, all) => {
    let take = prepared.get(all);
    if (take === undefined) {
      let put: (() => void) | undefined = prepareOf(policy, all);
      take = () => {
        const before = policy.now;
        put?.();
        if (put !== undefined && policy.version !== before.version) onChange(before, policy.now);
        put = undefined;
      };
      prepared.set(all, take);
    }
    return taking(setting, take);
  };
}

function prepareOf(policy: LivePolicy, all: Settings): () => void {
  return usable("roles", () => policy.prepare(all));
}

/** What `prepare` makes of settings; what it throws says which of them cannot be used. */
export function usable<T>(setting: string, prepare: () => T): T {
  try {
    return prepare();
  } catch (thrown) {
    const problem = thrown instanceof Error ? thrown.message : String(thrown);
    throw new DrawbridgeError("settings_invalid", `The ${setting} cannot be used: ${problem}`, { cause: thrown });
  }
}

/** Contracts are taken as they are; one that does not fit withholds what it is about. */
export function contractAppliers(catalogue: Catalogue, log: Logger): Appliers {
  const sections = ["tools", "resources", "prompts"] as const;
  const applier =
    (section: (typeof sections)[number]) =>
    (_: unknown, all: Settings): Prepared => ({
      ...NOTHING_TO_DO,
      async commit() {
        await catalogue.contract(openContracts(all, log, compileExpression));
        return [{ setting: section, change: "replaced" }];
      },
    });
  return Object.fromEntries(sections.map((section) => [section, applier(section)]));
}

/** The row of `CHANGES` that is written when a replica was asked to read its settings again. */
const SETTINGS_CHANGED = "settings";

/** The other replicas of a gateway, each with a settings file of its own. */
export function otherReplicas(
  records: Records,
  changes: Changes,
  replica: string,
): NonNullable<ReloadOptions["others"]> {
  return {
    tell: async () => void (await records.put(CHANGES, SETTINGS_CHANGED, { by: replica })),
    onTold: (listener) =>
      changes.on<{ by: string }>(SETTINGS_CHANGED, (row) => {
        if (row !== undefined && row.value.by !== replica) listener();
      }),
  };
}
