/**
 * The long run: `node test/chaos/run.ts --minutes 10 --seed 1 [--callers 24] [--quiet]`. Prints what was done, how calls ended and
 * what was broken; ends with 1 when anything was. `test/chaos/chaos.test.ts` runs twenty seconds of it.
 */
import { parseArgs } from "node:util";
import { chaos, type Report } from "./chaos.ts";
import { sizeText } from "./size.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "10" },
    seed: { type: "string", default: "1" },
    callers: { type: "string", default: "24" },
    quiet: { type: "boolean", default: false },
  },
});
const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort());
const report = await chaos({
  signal: stop.signal,
  seconds: Number(values.minutes) * 60,
  seed: Number(values.seed),
  callers: Number(values.callers),
  tell: (line) => {
    if (!values.quiet || line.startsWith("BROKEN")) console.log(line);
  },
});
print(report);
process.exit(report.broken.length === 0 ? 0 : 1);

function print({ broken, events, calls, begin, end, records, longestMs }: Report): void {
  console.log("\n| done | times |\n|---|---|");
  for (const [event, times] of Object.entries(events)) console.log(`| ${event} | ${times} |`);
  const hows = [...new Set(Object.values(calls).flatMap((row) => Object.keys(row)))].sort();
  console.log(`\n| calls | ${hows.join(" | ")} |\n|---|${hows.map(() => "---|").join("")}`);
  for (const [what, row] of Object.entries(calls).sort())
    console.log(`| ${what} | ${hows.map((how) => row[how] ?? 0).join(" | ")} |`);
  const total = Object.values(calls).flatMap((row) => Object.values(row));
  console.log(
    `\n${total.reduce((sum, one) => sum + one, 0)} calls, ${records} records, the longest took ${(longestMs / 1000).toFixed(1)} s`,
  );
  console.log(`begin: ${sizeText(begin)}\nend:   ${sizeText(end)}`);
  console.log(
    broken.length === 0 ? "\nnothing was broken" : `\n${broken.length} things were broken:\n${broken.join("\n")}`,
  );
}
