/** Opens the store of a gateway from outside of it, for the commands that read or change what it keeps. */
import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { loadSettings } from "../config/load.ts";
import type { Settings } from "../config/schema.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import { openStore } from "../store/open.ts";
import type { Store } from "../store/ports.ts";
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
  use: (store: Store, settings: Settings | undefined) => Promise<void>,
): Promise<void> {
  const settings = await settingsOf(place, terminal);
  const named = place.store ?? settings?.store ?? DEFAULT_STORE;
  const store = await openExisting(named instanceof Secret ? named : new Secret(named), place.readOnly, terminal);
  try {
    await use(store, settings);
  } finally {
    await store.close();
  }
}

async function openExisting(setting: Secret, readOnly: boolean, terminal: Terminal): Promise<Store> {
  const place = setting.reveal();
  if (place === "memory") {
    throw new DrawbridgeError("settings_invalid", "The store memory cannot be opened from outside the gateway.");
  }
  const file = place.startsWith("sqlite:") ? resolve(terminal.cwd, place.slice("sqlite:".length)) : undefined;
  if (file !== undefined && !existsSync(file)) {
    throw new DrawbridgeError(
      "settings_invalid",
      `There is no store ${file}. Name the settings file, or the store with --store.`,
    );
  }
  const options = { baseDirectory: terminal.cwd, warn: (message: string) => terminal.stderr.write(`${message}\n`) };
  const reader = await openStore(setting, { ...options, readOnly: true });
  if (readOnly) return reader;
  // Known to be there now; a writer alone would make one.
  await reader.close();
  return openStore(setting, options);
}

/** What a secret reads as that this process was not given. */
export const UNREAD = "not needed";

/** Top-level settings whose secrets open the store, and the keys in it. */
const OF_THE_STORE: ReadonlySet<string | number | undefined> = new Set(["store", "tokens"]);

/** The file's settings, with a relative store made absolute; undefined when there is no file, or only a store was named. */
export async function settingsOf(
  { file, store }: Pick<StorePlace, "file" | "store">,
  terminal: Terminal,
): Promise<Settings | undefined> {
  const path = resolve(terminal.cwd, file ?? DEFAULT_FILE);
  if (file === undefined && (store !== undefined || !existsSync(path))) return undefined;
  // Only the store's own secrets are wanted: whoever opens it need not have the gateway's others.
  const { settings } = await loadSettings(path, {
    env: terminal.env,
    readSecret: async (name, [key], provided) =>
      OF_THE_STORE.has(key) ? ((await provided(name).catch(() => undefined)) ?? UNREAD) : UNREAD,
  });
  const named = settings.store instanceof Secret ? settings.store.reveal() : settings.store;
  if (!named.startsWith("sqlite:")) return settings;
  return { ...settings, store: `sqlite:${resolve(dirname(path), named.slice("sqlite:".length))}` };
}
