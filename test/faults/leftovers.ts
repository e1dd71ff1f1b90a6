/** What would stay in this process if something were not let go. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

const KINDS = ["Timeout", "ProcessWrap", "PipeWrap", "TCPSocketWrap", "TCPServerWrap"];

/** Timers, processes, pipes and connections, by kind. */
export function handles(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) if (KINDS.includes(kind)) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}

/** Whether there is nothing more than `before`. */
export function nothingMoreThan(before: Readonly<Record<string, number>>): boolean {
  return Object.entries(handles()).every(([kind, count]) => count <= (before[kind] ?? 0));
}

/** Bytes of live objects, after collections. */
export function heapUsed(): number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  collect();
  collect();
  return process.memoryUsage().heapUsed;
}
