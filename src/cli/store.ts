/** Opens the store of a gateway from outside of it, for the commands that read or change what it keeps. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { loadSettings } from "../config/load.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Store } from "../store/ports.ts";
import { sqliteStore } from "../store/sqlite/sqlite.ts";
import type { Terminal } from "./terminal.ts";

export const DEFAULT_FILE = "drawbridge.yaml";
export const DEFAULT_STORE = "sqlite:./.drawbridge/drawbridge.db";

export interface StorePlace {
  /** A settings file; default `drawbridge.yaml` of the current folder, when it is there. */
  readonly file: string | undefined;
  /** The store itself, as in the settings; wins over the file. */
  readonly store: string | undefined;
  readonly readOnly: boolean;
}

/** Hands the store to `use` and closes it afterwards. Throws `settings_invalid` when there is none; never makes one. */
export async function withStore(
  place: StorePlace,
  terminal: Terminal,
  use: (store: Store) => Promise<void>,
): Promise<void> {
  const setting = place.store ?? (await storeOf(place.file, terminal));
  if (!setting.startsWith("sqlite:")) {
    throw new DrawbridgeError("settings_invalid", `The store ${setting} cannot be opened from outside the gateway.`);
  }
  const database = resolve(terminal.cwd, setting.slice("sqlite:".length));
  if (!existsSync(database)) {
    throw new DrawbridgeError(
      "settings_invalid",
      `There is no store ${database}. Name the settings file, or the store with --store.`,
    );
  }
  const store = sqliteStore(database, { readOnly: place.readOnly });
  try {
    await use(store);
  } finally {
    await store.close();
  }
}

async function storeOf(file: string | undefined, terminal: Terminal): Promise<string> {
  const path = resolve(terminal.cwd, file ?? DEFAULT_FILE);
  if (file === undefined && !existsSync(path)) return DEFAULT_STORE;
  // Only the store's place is wanted: whoever opens it need not have the gateway's secrets.
  const { settings } = await loadSettings(path, { env: terminal.env, readSecret: async () => "not needed" });
  return settings.store;
}
