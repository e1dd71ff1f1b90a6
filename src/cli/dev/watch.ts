/** Notices that one of some files was changed, made or deleted, and that all of them have come to rest. */
import { type FSWatcher, statSync, watch } from "node:fs";
import { dirname } from "node:path";

export interface Watched {
  /**
   * Follows these files instead of those before; some may not be there yet. `since`: what was changed after that moment (milliseconds since
   * the epoch), of files that were not followed yet, is news.
   */
  follow(files: Iterable<string>, since: number): void;
  close(): void;
}

/** Two looks that find the same make it news, so that a file is not read while it is written. */
const REST_MS = 40;
/** The file system tells of most changes at once; of some it never does (volumes of containers, networks). */
const LOOK_MS = 500;
const MAX_FILES = 2_000;
const MAX_FOLDERS = 200;

export function watchFiles(changed: () => void): Watched {
  const stamps = new Map<string, string>();
  const folders = new Map<string, FSWatcher>();
  let resting: NodeJS.Timeout | undefined;
  let seen = "";

  function look(): void {
    clearTimeout(resting);
    resting = undefined;
    const news = [...stamps].flatMap(([file, stamp]) => {
      const now = stampOf(file);
      return now === stamp ? [] : [[file, now] as const];
    });
    const found = news.join("\n");
    const rests = found !== "" && found === seen;
    seen = found;
    if (found === "") return;
    if (!rests) {
      resting = setTimeout(look, REST_MS);
      return;
    }
    // As they were found: what changes from now on is news again.
    for (const [file, now] of news) stamps.set(file, now);
    changed();
  }

  const timer = setInterval(look, LOOK_MS);
  return {
    follow(files, since) {
      const wanted = new Set([...files].slice(0, MAX_FILES));
      for (const file of stamps.keys()) if (!wanted.has(file)) stamps.delete(file);
      let news = false;
      for (const file of wanted) {
        if (stamps.has(file)) continue;
        stamps.set(file, stampOf(file));
        news ||= changedAt(file) > since;
      }
      const around = new Set([...wanted].map((file) => dirname(file)));
      for (const [folder, watcher] of folders)
        if (!around.has(folder)) {
          watcher.close();
          folders.delete(folder);
        }
      for (const folder of around) {
        if (folders.has(folder) || folders.size >= MAX_FOLDERS) continue;
        const watcher = watched(folder, look);
        if (watcher !== undefined) folders.set(folder, watcher);
      }
      if (news) setImmediate(changed);
    },
    close() {
      clearInterval(timer);
      clearTimeout(resting);
      for (const watcher of folders.values()) watcher.close();
    },
  };
}

function watched(folder: string, look: () => void): FSWatcher | undefined {
  try {
    return watch(folder, look).on("error", () => {});
  } catch {
    // Not there, or too many are watched: it is looked at now and then.
    return undefined;
  }
}

/** Equal for equal contents, as far as the file system can tell. */
function stampOf(file: string): string {
  const found = statSync(file, { bigint: true, throwIfNoEntry: false });
  return found === undefined ? "absent" : `${found.mtimeNs}/${found.size}/${found.ino}`;
}

const changedAt = (file: string) => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
