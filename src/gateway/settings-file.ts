/** Notices that the settings file was changed and has come to rest. */
import { stat } from "node:fs/promises";

export interface FollowedFile {
  /** It has just been read: only what changes from now on is news. */
  noted(): Promise<void>;
  close(): void;
}

/** How often it is looked at. Two looks that find the same change make it news, so that a file is not read while it is written. */
const LOOK_MS = 200;

/**
 * Calls `changed` within half a second after the file has changed. It is looked at by its name, which may be a link to another file by
 * then, as it is where a volume of Kubernetes holds it. A file that is gone is no news: what it said goes on.
 */
export async function followFile(file: string, changed: () => void, lookMs = LOOK_MS): Promise<FollowedFile> {
  let taken = await stampOf(file);
  let seen = taken;
  let looking = false;
  async function look(): Promise<void> {
    const stamp = await stampOf(file);
    const rests = stamp === seen;
    seen = stamp;
    if (!rests || stamp === undefined || stamp === taken) return;
    taken = stamp;
    changed();
  }
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void look().finally(() => {
      looking = false;
    });
  }, lookMs);
  timer.unref();
  return {
    async noted() {
      taken = await stampOf(file);
    },
    close: () => clearInterval(timer),
  };
}

/** Equal for equal contents, as far as the file system can tell. */
async function stampOf(path: string): Promise<string | undefined> {
  try {
    const { mtimeNs, size, ino } = await stat(path, { bigint: true });
    return `${mtimeNs}/${size}/${ino}`;
  } catch {
    return undefined;
  }
}
