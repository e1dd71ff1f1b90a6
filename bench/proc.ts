/** CPU time and memory of process trees, and of the whole machine, from Linux' /proc. */
import { readdirSync, readFileSync } from "node:fs";

/** Clock ticks in a second and bytes in a page on every Linux that Node 24 supports here. */
const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;

export interface TreeUsage {
  /** User and system time, with that of children that have ended and were waited for. */
  readonly cpuSeconds: number;
  readonly rssBytes: number;
  readonly processes: number;
}

export interface MachineUsage {
  readonly busySeconds: number;
  /** Time a hypervisor took away. */
  readonly stolenSeconds: number;
}

/** The process ids of `root` and everything below it that runs now. */
export function treeOf(root: number): readonly number[] {
  const children = new Map<number, number[]>();
  for (const entry of readdirSync("/proc")) {
    const pid = Number(entry);
    const stat = Number.isInteger(pid) ? readStat(pid) : undefined;
    if (stat === undefined) continue;
    const siblings = children.get(stat.parent);
    if (siblings === undefined) children.set(stat.parent, [pid]);
    else siblings.push(pid);
  }
  const tree = [root];
  for (const pid of tree) tree.push(...(children.get(pid) ?? []));
  return tree;
}

export function treeUsage(root: number): TreeUsage {
  const stats = treeOf(root).flatMap((pid) => readStat(pid) ?? []);
  const sum = (field: "cpuSeconds" | "rssBytes"): number => stats.reduce((total, stat) => total + stat[field], 0);
  return { cpuSeconds: sum("cpuSeconds"), rssBytes: sum("rssBytes"), processes: stats.length };
}

/** When a process was started, in ticks since boot: tells it from a later one with the same id. Undefined when it is gone. */
export function startOf(pid: number): number | undefined {
  const stat = readStat(pid);
  return stat === undefined || stat.state === "Z" ? undefined : stat.started;
}

export function machineUsage(): MachineUsage {
  const [first = ""] = readFileSync("/proc/stat", "latin1").split("\n");
  const [user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0, stolen = 0] = first
    .trim()
    .split(/\s+/)
    .slice(1)
    .map((ticks) => Number(ticks) / TICKS_PER_SECOND);
  return { busySeconds: user + nice + system + irq + softIrq + stolen, stolenSeconds: stolen };
}

interface Stat {
  readonly state: string;
  readonly parent: number;
  readonly cpuSeconds: number;
  readonly rssBytes: number;
  readonly started: number;
}

function readStat(pid: number): Stat | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch {
    return undefined; // It ended between the listing and the reading.
  }
  // proc(5): the second field is the name in parentheses and may hold spaces; the third follows the last parenthesis.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const field = (number: number): number => Number(fields[number - 3]);
  return {
    state: fields[0] ?? "",
    parent: field(4),
    cpuSeconds: (field(14) + field(15) + field(16) + field(17)) / TICKS_PER_SECOND,
    rssBytes: field(24) * PAGE_BYTES,
    started: field(22),
  };
}
