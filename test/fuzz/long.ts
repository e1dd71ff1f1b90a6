/**
 * The whole campaign, as long as one likes: `node test/fuzz/long.ts --messages 1000000 [--seed 1]`. Nine of ten messages are read in
 * this process, the tenth goes over HTTP to a running gateway. Ends with what came of them, or with the first that broke a promise.
 */
import { parseArgs } from "node:util";
import { fc } from "../properties.ts";
import { PROPERTIES, tally } from "./readers.ts";
import { startTarget } from "./target.ts";
import { hangUpEverywhere, sendMessages } from "./wire.ts";

const { values } = parseArgs({ options: { messages: { type: "string" }, seed: { type: "string" } } });
const messages = Number(values.messages ?? 1_000_000);
const seed = Number(values.seed ?? Date.now() % 0x7fffffff);
/** fast-check remembers every run; so many at a time keep that small. */
const BATCH = 20_000;

console.log(`${messages} messages, seed ${seed}`);
const started = performance.now();
const elapsed = () => `${((performance.now() - started) / 1000).toFixed(0)} s`;
for (const [name, { property, share }] of Object.entries(PROPERTIES)) {
  const runs = Math.round(messages * share * 0.9);
  for (let done = 0; done < runs; done += BATCH)
    fc.assert(property, { seed: seed + done, numRuns: Math.min(BATCH, runs - done) });
  console.log(`${runs} · ${name} (${elapsed()})`);
}
await using target = await startTarget();
const answers = await sendMessages(target, Math.round(messages * 0.1), seed);
await target.unharmed();
console.log(`${Math.round(messages * 0.1)} · over HTTP (${elapsed()})`);
const times = await hangUpEverywhere(target);
await target.unharmed();
console.log(`${times} · hung up (${elapsed()})`);
for (const [what, count] of [...tally, ...answers].toSorted(([a], [b]) => (a < b ? -1 : 1)))
  console.log(`${String(count).padStart(9)}  ${what}`);
