/** `audit.export` in the running gateway: the sinks, and how a changed list of them is taken. And where records go without a store. */
import { dirname, join, resolve } from "node:path";
import { openSinks, reachedBy, type Sinks, type SinksParts } from "../audit/sinks/sinks.ts";
import type { Settings } from "../config/schema.ts";
import { type Change, type Prepared, sameSettings } from "./reload.ts";

export interface AuditExport {
  /** Begins to send; what is told to others is known only when the port is bound. */
  begin(parts: Omit<SinksParts, "settings">): void;
  readonly state: Sinks["state"];
  /** The greatest number of the log that may be taken out. */
  readonly reached: () => Promise<number>;
  /** Everything else of `audit` counts after a restart. */
  readonly applier: (wanted: Settings["audit"]) => Prepared;
  /** Sends what there is, for a few seconds at most. */
  readonly close: () => Promise<void>;
}

const DRAIN_MS = 3000;

export function openAuditExport(first: Settings["audit"], records: SinksParts["records"]): AuditExport {
  let wantedSinks = first.export;
  let sinks: Sinks | undefined;
  return {
    begin(parts) {
      sinks = openSinks({ ...parts, settings: wantedSinks });
    },
    state: () => sinks?.state() ?? [],
    reached: () => reachedBy(wantedSinks, records),
    applier: (wanted) => ({
      async commit() {
        const changes: Change[] = [];
        if (!sameSettings(wantedSinks, wanted.export)) {
          wantedSinks = wanted.export;
          await sinks?.apply(wantedSinks, sameSettings);
          changes.push({ setting: "audit.export", change: "changed" });
        }
        for (const key of new Set([...Object.keys(first), ...Object.keys(wanted)]))
          if (key !== "export" && !sameSettings(Reflect.get(first, key), Reflect.get(wanted, key)))
            changes.push({ setting: `audit.${key}`, change: "restart" });
        return changes;
      },
      abandon: async () => {},
    }),
    close: async () => sinks?.close(DRAIN_MS),
  };
}

/** The folder of `audit.whenUnavailable: spill`. `folder`: what paths in the settings are relative to. */
export function spillFolderOf({ audit, store }: Pick<Settings, "audit" | "store">, folder: string): string {
  if (audit.spillFolder !== undefined) return resolve(folder, audit.spillFolder);
  const place = typeof store === "string" ? store : "";
  return place.startsWith("sqlite:") && place !== "sqlite::memory:"
    ? dirname(resolve(folder, place.slice("sqlite:".length)))
    : join(folder, ".drawbridge");
}
