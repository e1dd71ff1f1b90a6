/** How big a running gateway is: whatever a leak would let grow. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { heapAfterCollection } from "../../bench/inspector.ts";
import { processesOf } from "../fixtures/processes.ts";

export interface Size {
  /** Open descriptors by what they are: `socket`, `pipe`, `store.db`, … */
  readonly open: Readonly<Record<string, number>>;
  /** Live objects after forced collections, and resident memory, in MB. */
  readonly heap: number;
  readonly resident: number;
  /** The gateway and all its descendants. */
  readonly processes: number;
}

/** A process that was started with `INSPECTED` (`bench/inspector.ts`) and what it wrote until now. */
export interface Measured {
  readonly pid: number;
  output(): string;
}

const LET_GO_MS = 60_000;
/** The first measurement has nothing to be compared with: servers that are idle for five seconds are stopped until then. */
const FIRST_MS = 12_000;
/** What a moment may have open beyond another: a ping under way, a store's checkpoint. */
const SPARE = 4;
/** A heap may not grow by more, in MB: caches fill that have a bound, such as those of sessions, users and metrics. */
const SPARE_HEAP = 25;

/** Measures a gateway that nobody uses: as soon as it is as small as `before`, or after a minute. */
export async function settled(gateway: Measured, before?: Size): Promise<Size> {
  const until = Date.now() + (before === undefined ? FIRST_MS : LET_GO_MS);
  while (Date.now() < until && (before === undefined || grown(before, await lookAt(gateway)).length > 0))
    await sleep(500);
  // Looking at the heap opens a connection of its own: descriptors are counted before.
  const size = await lookAt(gateway);
  return { ...size, heap: megabytes(await heapAfterCollection({ ...gateway, name: "the gateway", port: 0, stop })) };
}

/** What `now` has more of than `before`, beyond what a moment explains. Resident memory is V8's to give back and not judged. */
export function grown(before: Size, now: Size): string[] {
  const kinds: readonly (readonly [what: string, before: number, now: number, spare: number])[] = [
    ["descriptors", total(before), total(now), SPARE],
    ["sockets", before.open["socket"] ?? 0, now.open["socket"] ?? 0, SPARE],
    ["processes", before.processes, now.processes, 0],
    ["MB of heap", before.heap, now.heap, SPARE_HEAP],
  ];
  return kinds
    .filter(([, first, last, spare]) => last > first + spare)
    .map(([what, first, last]) => `${what} grew from ${first} to ${last}`);
}

export const sizeText = (size: Size): string =>
  `${size.processes} processes, ${size.heap} MB of heap, ${size.resident} MB resident, ${total(size)} descriptors (${Object.entries(
    size.open,
  )
    .map(([kind, count]) => `${count} ${kind}`)
    .join(", ")})`;

/** All but the heap, which takes a while. */
async function lookAt({ pid }: Measured): Promise<Size> {
  const open: Record<string, number> = {};
  for (const name of readdirSync(`/proc/${pid}/fd`)) {
    const kind = kindOf(pid, name);
    if (kind !== undefined) open[kind] = (open[kind] ?? 0) + 1;
  }
  const resident = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return {
    open: Object.fromEntries(Object.entries(open).sort()),
    heap: 0,
    resident: megabytes(Number(resident) * 1024),
    processes: (await processesOf(pid)).length,
  };
}

function kindOf(pid: number, name: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/fd/${name}`)
      .replace(/:?\[.*/, "")
      .replace(/^.*\//, "");
  } catch {
    return undefined; // Closed between the listing and the reading.
  }
}

const total = ({ open }: Size) => Object.values(open).reduce((sum, count) => sum + count, 0);
const megabytes = (bytes: number) => Math.round(bytes / 1e6);
const stop = async () => 0;
