/** What thousands of connections leave behind in one and the same gateway: processes, descriptors, live objects. */
import { readdirSync } from "node:fs";
import type { Drawbridge } from "../arms/drawbridge.ts";
import { ANY_CORE } from "../cores.ts";
import { type Figure, figure, kinds, type Table } from "../figures.ts";
import { heapAfterCollection } from "../inspector.ts";
import { load } from "../load.ts";
import { treeUsage } from "../proc.ts";
import type { Running } from "../processes.ts";
import type { Effort } from "./suite.ts";

/** What a gateway holds that nobody uses. */
interface Held {
  readonly processes: number;
  readonly descriptors: number;
  readonly heapBytes: number;
  readonly rssBytes: number;
}

/** How long idle processes and connections may take to go, beyond which they count as left. */
const LET_GO_MS = 90_000;
const TIMEOUT_MS = 60_000;
/** Compiles code and fills caches once, before anything is read. */
const WARM = { connections: 200, calls: 2_000 };

/**
 * Lets `sizes` connections at a time, all with the same JSON-RPC id, call a gateway that was started with `INSPECTED`, and reads what
 * is left after each. Figures: what there is more of at the end than at the beginning.
 */
export async function leftBehind(
  arm: Drawbridge,
  sizes: readonly number[],
  effort: Effort,
): Promise<{ readonly table: Table; readonly figures: Readonly<Record<string, Figure>>; readonly raw: unknown }> {
  const { server, endpoint, stop } = await arm.start(ANY_CORE);
  const call = (connections: number, calls: number) =>
    load({
      endpoint,
      connections,
      shape: { kind: "count", calls },
      sameId: true,
      timeoutMs: TIMEOUT_MS,
      watched: { [arm.name]: server.pid },
    });
  await call(WARM.connections, WARM.calls);
  const first = await held(server);
  const raw: Record<string, Held> = { before: first };
  const rows = [row("before", "–", first)];
  let last = first;
  for (const size of sizes) {
    const run = await call(size, size);
    last = await held(server, first);
    raw[size] = last;
    rows.push(row(`after ${size} connections`, kinds(run.failures), last));
    effort.tell(`left behind by ${size} connections: ${rows.at(-1)?.slice(2).join(" / ")}`);
  }
  await stop();
  const more = (of: keyof Held) => figure([last[of] - first[of]]);
  return {
    table: {
      title: "What connections with equal ids leave behind in one gateway in front of a wrapped stdio server",
      head: ["", "failures", "processes", "descriptors", "heap MB", "RSS MB"],
      rows,
      notes: [
        "Idle, once its processes and connections are gone. Heap after forced collections; RSS is V8's to give back.",
      ],
    },
    figures: {
      "stdio.left.processes": more("processes"),
      "stdio.left.descriptors": more("descriptors"),
      "stdio.left.heapMb": figure([(last.heapBytes - first.heapBytes) / 1e6]),
    },
    raw,
  };
}

const row = (what: string, failed: string, { processes, descriptors, heapBytes, rssBytes }: Held): string[] => [
  what,
  failed,
  String(processes),
  String(descriptors),
  (heapBytes / 1e6).toFixed(1),
  (rssBytes / 1e6).toFixed(0),
];

/** As soon as there are no more processes and descriptors than `before`, or when it took too long. */
async function held(server: Running, before?: Held): Promise<Held> {
  const until = Date.now() + (before === undefined ? 15_000 : LET_GO_MS);
  for (;;) {
    const descriptors = readdirSync(`/proc/${server.pid}/fd`).length;
    const { processes, rssBytes } = treeUsage(server.pid);
    const gone = before !== undefined && processes <= before.processes && descriptors <= before.descriptors;
    if (gone || Date.now() > until)
      return { processes, descriptors, rssBytes, heapBytes: await heapAfterCollection(server) };
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
