/** The lockfile of a running gateway: read at the start, followed while it runs. */
import { type FileHandle, open, stat } from "node:fs/promises";
import { join } from "node:path";
import type { LockSettings } from "../contract/lock-settings.ts";
import { type Lock, readLock } from "../contract/lockfile.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";

export interface FollowedLock {
  /** The newest that could be trusted; undefined when there is none. */
  now(): Lock | undefined;
  /** Called when another one took its place. */
  onChange(listener: () => void): void;
  close(): void;
}

export interface LockPlace {
  readonly settings: Pick<LockSettings, "file" | "keys" | "unsigned">;
  /** The folder of the settings file. */
  readonly folder: string;
  /** Whether there is a settings file that a lockfile can lie beside. */
  readonly beside: boolean;
}

export const LOCK_NAME = "drawbridge.lock";
const MAX_BYTES = 32 << 20;
const LOOK_MS = 500;

/** Where the lockfile is, or would be; undefined when there is no place for one. */
export function lockPath({ settings, folder, beside }: LockPlace): string | undefined {
  return settings.file ?? (beside ? join(folder, LOCK_NAME) : undefined);
}

/**
 * Reads the lockfile; undefined where there is none and none is asked for. Throws `settings_invalid` when it cannot be trusted, or is
 * missing although the settings name it or its keys: whoever can delete it must not thereby be rid of it.
 */
export async function readLockFile(place: LockPlace): Promise<Lock | undefined> {
  const path = lockPath(place);
  const { keys, file } = place.settings;
  const text = path === undefined ? undefined : await textOf(path);
  if (path !== undefined && text !== undefined) return readLock(text, place.settings, path);
  if (file === undefined && keys.length === 0) return undefined;
  throw new DrawbridgeError(
    "settings_invalid",
    `There is no lockfile ${path ?? LOCK_NAME}, and the settings ask for one (lock.${file === undefined ? "keys" : "file"}). \`drawbridge pin\` writes it.`,
  );
}

/** Follows the lockfile. A new one that cannot be trusted changes nothing, and neither does its disappearance; the log says so. */
export async function followLock(place: LockPlace, log: Logger): Promise<FollowedLock> {
  const path = lockPath(place);
  let seen = path === undefined ? undefined : await stampOf(path);
  let lock = await readLockFile(place);
  const listeners: (() => void)[] = [];
  let looking = false;
  async function look(file: string): Promise<void> {
    const stamp = await stampOf(file);
    if (stamp === seen) return;
    seen = stamp;
    if (stamp === undefined) {
      log.error({ file }, "the lockfile is gone; what it said stays in force until the gateway is restarted");
      return;
    }
    try {
      lock = await readLockFile(place);
      log.info({ file }, "the lockfile changed and is in force");
      for (const listener of listeners) listener();
    } catch (error) {
      const { message } = DrawbridgeError.from(error);
      log.error(
        { file, problem: message },
        "the lockfile changed and cannot be trusted; the one before it stays in force",
      );
    }
  }
  const timer = setInterval(() => {
    if (looking || path === undefined) return;
    looking = true;
    look(path)
      .catch((error: unknown) => log.error({ error }, "the lockfile cannot be looked at"))
      .finally(() => {
        looking = false;
      });
  }, LOOK_MS);
  timer.unref();
  return {
    now: () => lock,
    onChange: (listener) => void listeners.push(listener),
    close: () => clearInterval(timer),
  };
}

/** Equal for equal contents, as far as the file system can tell. */
async function stampOf(path: string): Promise<string | undefined> {
  try {
    const { mtimeNs, size, ino } = await stat(path, { bigint: true });
    return `${mtimeNs}/${size}/${ino}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

async function textOf(path: string): Promise<string | undefined> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new DrawbridgeError("settings_invalid", `The lockfile ${path} cannot be read (${code ?? "unknown"}).`);
  }
  try {
    const { size } = await handle.stat();
    if (size > MAX_BYTES)
      throw new DrawbridgeError("settings_invalid", `The lockfile ${path} is larger than ${MAX_BYTES} bytes.`);
    return new TextDecoder("utf-8", { fatal: true }).decode(await handle.readFile());
  } catch (error) {
    if (error instanceof DrawbridgeError) throw error;
    throw new DrawbridgeError("settings_invalid", `The lockfile ${path} is damaged: it is not UTF-8 text.`);
  } finally {
    await handle.close();
  }
}
