/**
 * A desk that lives in the gateway's process and tells what collections of the young generation leave in the old one: `watch` begins,
 * `left` ends. `echo` is what is called meanwhile.
 */
import { GCProfiler } from "node:v8";
import { server, tool } from "drawbridge-mcp/author";
import { z } from "zod";

const words = {
  useWhen: "when it shall be seen what is left of a call",
  notWhen: "for anything else",
  limits: "One watch at a time.",
};

const echo = tool({
  name: "echo",
  title: "Echo",
  description: {
    does: "Gives the text back, with the address of whoever keeps the desk.",
    returns: "the text, and the address as a stand-in",
    ...words,
  },
  input: z.object({
    text: z.string().max(200).describe("The text, e.g. hello."),
  }),
  output: z.object({
    text: z.string(),
    keeper: z.object({ email: z.string() }),
  }),
  access: "read",
  mask: { "keeper/email": "token" },
  limits: { perMinute: 10_000_000, concurrent: 10_000 },
  handler: ({ text }) => ({ text, keeper: { email: "ann@example.net" } }),
});

let profiler: GCProfiler | undefined;

const watch = tool({
  name: "watch",
  title: "Watch",
  description: {
    does: "Begins to note what each collection of the young generation leaves in the old one.",
    returns: "nothing",
    ...words,
  },
  input: z.object({}),
  output: z.object({}),
  access: "read",
  handler: () => {
    profiler = new GCProfiler();
    profiler.start();
    return {};
  },
});

const left = tool({
  name: "left",
  title: "Left",
  description: {
    does: "Ends the watch and tells how much the old generation grew from one collection to the next.",
    returns: "how many collections there were, and the bytes of the middle one",
    ...words,
  },
  input: z.object({}),
  output: z.object({ collections: z.int(), bytes: z.int() }),
  access: "read",
  handler: () => {
    const grown: number[] = [];
    let before: number | undefined;
    for (const { gcType, afterGC } of profiler?.stop()?.statistics ?? []) {
      let old: number | undefined;
      // What a full collection takes away would hide what was left: nothing is compared across one.
      if (gcType === "Scavenge") {
        const spaces = afterGC.heapSpaceStatistics.filter(({ spaceName }) => !spaceName.startsWith("new_"));
        old = spaces.reduce((sum, { spaceUsedSize }) => sum + spaceUsedSize, 0);
      }
      if (old !== undefined && before !== undefined) grown.push(old - before);
      before = old;
    }
    // The middle one: now and then something is compiled, or a list that is kept grows.
    return {
      collections: grown.length,
      bytes: grown.sort((a, b) => a - b)[grown.length >> 1] ?? 0,
    };
  },
});

export const desk = server({
  name: "young-desk",
  version: "1.0.0",
  tools: [echo, watch, left],
});
