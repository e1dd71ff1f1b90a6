/** Appends lines to a file that grows to a bound, then to the next one. A batch is on disk when it counts as sent. */
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { type Clock, systemClock } from "../../core/clock.ts";
import { syncFolder } from "../sync-folder.ts";
import type { FileSinkSettings } from "./settings.ts";
import type { Sink } from "./sink.ts";

/** Finished files are named by the time of their end: `audit.jsonl.2026-11-21T10-00-00.123Z`. */
export async function fileSink(settings: FileSinkSettings, clock: Clock = systemClock): Promise<Sink> {
  const { path, maxBytes, daily, keepFiles } = settings;
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  let file = await openWhole(path);

  async function ready(): Promise<void> {
    // Somebody else's rotation has moved it, or somebody has deleted it.
    const there = await stat(path).catch(() => undefined);
    if (there?.ino !== file.inode) {
      await file.handle.close();
      file = await openWhole(path);
    }
    const due = file.bytes >= maxBytes || (daily && file.bytes > 0 && dayOf(file.begun) !== dayOf(clock()));
    if (due) await rotate();
  }

  async function rotate(): Promise<void> {
    await file.handle.close();
    const suffix = new Date(clock()).toISOString().replaceAll(":", "-");
    let name = `${path}.${suffix}`;
    for (let again = 1; await stat(name).catch(() => undefined); again++) name = `${path}.${suffix}.${again}`;
    await rename(path, name);
    file = await openWhole(path);
    await syncFolder(dirname(path));
    const finished = (await readdir(dirname(path)))
      .filter((one) => one.startsWith(`${basename(path)}.`) && FINISHED.test(one.slice(basename(path).length)))
      .sort();
    for (const old of finished.slice(0, -keepFiles)) await rm(join(dirname(path), old), { force: true });
  }

  return {
    most: { entries: 1000, bytes: 1 << 20 },
    async send(entries) {
      await ready();
      const bytes = Buffer.from(entries.map(({ text }) => `${text}\n`).join(""));
      await file.handle.appendFile(bytes);
      await file.handle.datasync();
      file.bytes += bytes.length;
      return undefined;
    },
    close: () => file.handle.close(),
  };
}

const FINISHED = /^\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z(\.\d+)?$/;
const TAIL_BYTES = 65_536;

interface OpenFile {
  readonly handle: FileHandle;
  readonly inode: number;
  /** Milliseconds since the epoch: when it was made, as far as the file system says. */
  readonly begun: number;
  bytes: number;
}

/** Opens it for appending and takes off the line that a crash has cut: its record was not acknowledged, so it comes again. */
async function openWhole(path: string): Promise<OpenFile> {
  const existed = await stat(path).catch(() => undefined);
  const handle = await open(path, "a+", 0o600);
  try {
    await handle.chmod(0o600);
    const { size, ino, birthtimeMs, mtimeMs } = await handle.stat();
    const bytes = await wholeLines(handle, size);
    if (bytes < size) await handle.truncate(bytes);
    if (existed === undefined) await syncFolder(dirname(path));
    // Where the time of birth is not known it is 0.
    return { handle, inode: ino, begun: birthtimeMs > 0 ? birthtimeMs : mtimeMs, bytes };
  } catch (error) {
    await handle.close();
    throw error;
  }
}

/** Up to the last line feed, how many bytes there are. */
async function wholeLines(handle: FileHandle, size: number): Promise<number> {
  for (let end = size; end > 0; ) {
    const from = Math.max(0, end - TAIL_BYTES);
    const { bytesRead, buffer } = await handle.read(Buffer.alloc(end - from), 0, end - from, from);
    const last = buffer.subarray(0, bytesRead).lastIndexOf(10);
    if (last >= 0) return from + last + 1;
    end = from;
  }
  return 0;
}

const dayOf = (at: number) => Math.floor(at / 86_400_000);
