/**
 * Where records go while the store cannot be written (`audit.whenUnavailable: spill`): files beside it, each commit a line that is on
 * disk before anybody is answered. When the store is back they are written into it first, in their order. Lines may be written again
 * and again, by whoever finds them: the store keeps one row of each id. So nothing is lost or doubled by a crash at any moment.
 */
import { constants, mkdirSync, readdirSync, statSync } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { newId } from "../core/ids.ts";
import * as events from "../observe/events.ts";
import type { Logger } from "../observe/logger.ts";
import type { AuditHead, AuditLog, AuditRow, Records, Store } from "../store/ports.ts";
import { ERASED, type KeptKey, restoreKey } from "./personal.ts";
import { readHead } from "./statements.ts";
import { syncFolder } from "./sync-folder.ts";

export interface Spill extends Pick<AuditLog, "append" | "heads"> {
  /** The store's records for the keys of persons: one that cannot be kept there is spilled, before the rows that it encrypts. */
  readonly records: Records;
  /** What is on disk stays there until the next start. */
  close(): Promise<void>;
}

export interface SpillParts {
  readonly store: Pick<Store, "audit" | "records">;
  readonly folder: string;
  /** All files together; beyond it nothing is accepted. */
  readonly maxBytes: number;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/** A line: rows with the end of their chain, or a key of a person and when it was made. */
type Line =
  | { readonly rows: readonly AuditRow[]; readonly head?: AuditHead }
  | { readonly put: KeptKey; readonly at?: number };

/** By the time of their making, so in their order by name; the second part is new each time somebody takes the file. */
const NAME = /^audit-spill-[0-9a-f-]{36}-[0-9a-f-]{36}\.jsonl$/;
const ORDER_CHARACTERS = "audit-spill-".length + 36;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 5000;

/** Throws `settings_invalid` when the folder cannot be used. What others have left there is written with the first append, or soon. */
export function openSpill(parts: SpillParts): Spill {
  const { folder, maxBytes, logger } = parts;
  const { audit, records } = parts.store;
  const clock = parts.clock ?? systemClock;
  const left = leftIn(folder);
  let bytes = left.bytes;
  /** Something is on disk that is not in the store. */
  let pending = left.files > 0;
  let file: string | undefined;
  /** Lines that are in the store, of files that are not there as a whole: a store that fails often gets on nevertheless. */
  const passed = new Map<string, number>();
  let retryMs = 0;
  let retryAt = 0;
  let since = 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  let last: Promise<unknown> = Promise.resolve();

  /** One at a time, in the order of asking. */
  function inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work);
    last = turn.catch(() => {});
    return turn;
  }

  /** Tries the store, after what is on disk; what fails goes to disk. */
  async function orSpill<T>(line: Line, work: () => Promise<T>, spilled: T): Promise<T> {
    let failure: unknown;
    if (!pending || clock() >= retryAt) {
      try {
        await drain();
        return await work();
      } catch (error) {
        failure = error;
      }
    }
    try {
      await toDisk(line);
    } catch (error) {
      throw failure ?? error;
    }
    if (!pending || retryMs === 0) events.auditSpilling(logger, { folder }, failure);
    if (since === 0) since = clock();
    pending = true;
    if (failure !== undefined) tryLater();
    else arm();
    return spilled;
  }

  function tryLater(): void {
    retryMs = retryMs === 0 ? FIRST_RETRY_MS : Math.min(retryMs * 2, LAST_RETRY_MS);
    retryAt = clock() + retryMs;
    arm();
  }

  /** Also when nothing more comes. */
  function arm(): void {
    if (closed) return;
    timer ??= setTimeout(
      () => {
        timer = undefined;
        if (!closed) inTurn(drain).catch(tryLater);
      },
      Math.max(FIRST_RETRY_MS, retryAt - clock()),
    ).unref();
  }

  /** Writes everything that is on disk into the store. */
  async function drain(): Promise<void> {
    if (!pending) return;
    let written = 0;
    // Whatever comes now goes to a file behind those.
    file = undefined;
    const sizes = await headSizes();
    for (let names = await spillsIn(folder); names.length > 0; names = await spillsIn(folder))
      for (const name of names) {
        const taken = join(folder, `${name.slice(0, ORDER_CHARACTERS)}-${newId()}.jsonl`);
        // Whoever has it can add nothing to it unseen from now on.
        if (!(await renamed(join(folder, name), taken))) continue;
        const order = name.slice(0, ORDER_CHARACTERS);
        let at = 0;
        for await (const line of linesOf(taken)) {
          if (at++ < (passed.get(order) ?? 0)) continue;
          written += await write(line, sizes);
          passed.set(order, at);
        }
        // Another process may have taken it meanwhile, under one more name: it has no more to write than is written now. Two who leave
        // each other's alone would take the same file from each other for as long as they are in step.
        for (const other of await spillsIn(folder))
          if (other.startsWith(order)) await rm(join(folder, other), { force: true });
        passed.delete(order);
        await syncFolder(folder);
      }
    pending = false;
    bytes = 0;
    file = undefined;
    events.auditUnspilled(logger, { written, spilledForMs: since === 0 ? 0 : clock() - since });
    since = 0;
    retryMs = 0;
    retryAt = 0;
  }

  /** A head that the store has outgrown must not take its place. */
  async function write(line: Line, sizes: Map<string, number>): Promise<number> {
    if ("put" in line) {
      await restoreKey(records, line.put, line.at ?? 0);
      return 0;
    }
    const { rows, head } = line;
    const size = head === undefined ? 0 : sizeOf(head);
    const newer = head !== undefined && size > (sizes.get(head.chain) ?? 0);
    if (newer) sizes.set(head.chain, size);
    await audit.append(rows, newer ? head : undefined);
    return rows.length;
  }

  async function headSizes(): Promise<Map<string, number>> {
    return new Map((await audit.heads()).map((head) => [head.chain, sizeOf(head)]));
  }

  async function toDisk(line: Line): Promise<void> {
    const text = Buffer.from(`${JSON.stringify(line)}\n`);
    if (bytes + text.length > maxBytes)
      throw new DrawbridgeError("audit_unavailable", "The audit log cannot be written, and its spill files are full.");
    // Another process has taken the file when it is not there any more: nobody knows whether that has seen this line.
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const path = file ?? join(folder, `audit-spill-${newId()}-${newId()}.jsonl`);
      const flags =
        constants.O_WRONLY | constants.O_APPEND | (file === undefined ? constants.O_CREAT | constants.O_EXCL : 0);
      // A line that was cut off is the last one of its file.
      file = undefined;
      const there = await appended(path, flags, text);
      bytes += text.length;
      if (there) {
        file = path;
        return;
      }
      // They take whatever they see until nothing is left: the next one would go the same way at once.
      await sleep(2 ** tries);
    }
    throw new DrawbridgeError("audit_unavailable", "Other processes take the spill files of the audit log.");
  }

  if (pending) arm();
  return {
    append: (rows, head) =>
      inTurn(() => orSpill({ rows, ...(head !== undefined && { head }) }, () => audit.append(rows, head), undefined)),
    heads: () =>
      inTurn(async () => {
        await drain();
        return audit.heads();
      }),
    records: {
      ...records,
      // Nobody can tell whether there is a key for this person, so there will be another one; both are found when they are destroyed.
      find: async <T>(...asked: Parameters<Records["find"]>) => {
        try {
          return await records.find<T>(...asked);
        } catch {
          return [];
        }
      },
      // Nor who was erased: a key is not restored for whoever was.
      get: async <T>(...asked: Parameters<Records["get"]>) => {
        try {
          return await records.get<T>(...asked);
        } catch (error) {
          if (asked[0] === ERASED) return undefined;
          throw error;
        }
      },
      put: (...asked) => inTurn(() => orSpill({ put: asked, at: clock() }, () => records.put(...asked), true)),
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      await last;
    },
  };
}

const MAX_TRIES = 10;

function sizeOf({ json }: AuditHead): number {
  return readHead(JSON.parse(json))?.size ?? 0;
}

/** What others have left: whoever was killed in time leaves a file with nothing in it. */
function leftIn(folder: string): { readonly files: number; readonly bytes: number } {
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const names = readdirSync(folder).filter((name) => NAME.test(name));
    const sizes = names.map((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0);
    return { files: names.length, bytes: sizes.reduce((sum, size) => sum + size, 0) };
  } catch (cause) {
    throw new DrawbridgeError("settings_invalid", `audit.spillFolder: ${folder} cannot be used.`, { cause });
  }
}

async function spillsIn(folder: string): Promise<readonly string[]> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  return (await readdir(folder)).filter((name) => NAME.test(name)).sort();
}

/** False: somebody else was first. */
async function renamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw error;
  }
}

/** Appends and waits for the disk. False: the name is not this file's any more. */
async function appended(path: string, flags: number, text: Buffer): Promise<boolean> {
  const handle = await open(path, flags, 0o600).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" && (flags & constants.O_CREAT) === 0) return undefined;
    throw error;
  });
  if (handle === undefined) return false;
  try {
    const { ino, size } = await handle.stat();
    await handle.appendFile(text);
    await handle.datasync();
    if (size === 0) await syncFolder(dirname(path));
    return (await stat(path).catch(() => undefined))?.ino === ino;
  } finally {
    await handle.close();
  }
}

/** The lines of a file; one that was cut off was never answered for. */
async function* linesOf(path: string): AsyncGenerator<Line> {
  let handle: FileHandle;
  try {
    handle = await open(path, "r");
  } catch (error) {
    // Another process has written it into the store meanwhile.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  let rest: Buffer = Buffer.alloc(0);
  for await (const piece of handle.createReadStream({ highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    const bytes = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    let from = 0;
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, from)) {
      yield JSON.parse(bytes.toString("utf8", from, end)) as Line;
      from = end + 1;
    }
    rest = bytes.subarray(from);
  }
}
