/** Secrets of which each user has one of their own: a folder of files, one a user. */
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Secret } from "../core/secret.ts";
import { type ReadUserSecret, subjectFile } from "../upstream/user-values.ts";
import type { Environment } from "./references.ts";

interface Held {
  readonly value: Secret | undefined;
  /** Changes when the file may have; undefined when there was none. */
  readonly stamp: string | undefined;
  lookedAt: number;
}

/** How often it is looked whether a file has changed. */
const LOOK_MS = 1_000;
const MAX_HELD = 10_000;
const MAX_SECRET_BYTES = 64 * 1024;

/**
 * Finds `$CREDENTIALS_DIRECTORY/<name>/<subject>`, then `secrets/<name>/<subject>` beside the settings, where the subject is written
 * as `subjectFile` says. A file that is taken away is taken away from its user; one that is empty is about to be written, and the
 * value before it stays. One newline at the end of a file is dropped.
 */
export function userSecretReader(
  folder: string,
  env: Environment,
  warn: (message: string) => void,
  now: () => number = () => performance.now(),
  platform: NodeJS.Platform = process.platform,
): ReadUserSecret {
  const folders = [env["CREDENTIALS_DIRECTORY"], join(folder, "secrets")].filter(
    (one) => one !== undefined && one !== "",
  ) as readonly string[];
  // The one asked for longest ago comes first.
  const held = new Map<string, Held>();

  async function find(name: string, subject: string, before: Held | undefined): Promise<Held> {
    const lookedAt = now();
    const file = subjectFile(subject);
    for (const place of folders) {
      const path = join(place, name, file);
      const stamp = await stampOf(path);
      if (stamp === undefined || !(await spelledSo(join(place, name), file, platform))) continue;
      if (before?.stamp === stamp) return { ...before, lookedAt };
      const text = await readSecretFile(path, name, warn);
      if (text !== "") return { value: text === undefined ? undefined : new Secret(text), stamp, lookedAt };
      if (before?.stamp !== undefined) return { ...before, lookedAt };
    }
    return { value: undefined, stamp: undefined, lookedAt };
  }

  return async (name, subject) => {
    const key = JSON.stringify([name, subject]);
    const before = held.get(key);
    if (before !== undefined && now() - before.lookedAt < LOOK_MS) return before.value;
    const found = await find(name, subject, before);
    held.delete(key);
    if (found.stamp === undefined) return undefined;
    held.set(key, found);
    if (held.size > MAX_HELD) for (const oldest of held.keys()) if (held.delete(oldest)) break;
    return found.value;
  };
}

/** Of the file that a link leads to, so that a mounted secret whose link is turned counts as changed. */
async function stampOf(path: string): Promise<string | undefined> {
  try {
    const { ino, size, mtimeMs, ctimeMs } = await stat(path);
    return `${ino} ${size} ${mtimeMs} ${ctimeMs}`;
  } catch (thrown) {
    if (ABSENT.has((thrown as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw thrown;
  }
}
const ABSENT: ReadonlySet<string> = new Set(["ENOENT", "ENOTDIR", "ENAMETOOLONG"]);

/** Where file systems do not tell upper case from lower, `ann` must not get what is Ann's. */
async function spelledSo(folder: string, file: string, platform: NodeJS.Platform): Promise<boolean> {
  return platform === "linux" || (await readdir(folder)).includes(file);
}

/** Undefined for what is no secret: a folder, or a file that is too large. */
async function readSecretFile(
  path: string,
  name: string,
  warn: (message: string) => void,
): Promise<string | undefined> {
  const facts = await stat(path);
  if (!facts.isFile() || facts.size > MAX_SECRET_BYTES) return undefined;
  if (process.platform !== "win32" && (facts.mode & 0o007) !== 0)
    warn(`secret ${name}: a user's file can be read by everyone on this machine; chmod 600 it`);
  return (await readFile(path, "utf8")).replace(/\r?\n$/, "");
}
