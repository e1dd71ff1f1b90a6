/** Verifies an export as the command does, in a process that does nothing else: prints records per second of CPU, a line a round. */
import { createReadStream, readFileSync } from "node:fs";
import { verifyExport } from "../src/audit/export.ts";
import { vouchersOf } from "../src/audit/signing.ts";

const [file = "", keys = "", rounds = "1"] = process.argv.slice(2);
const vouchers = vouchersOf(JSON.parse(readFileSync(keys, "utf8")) as readonly string[]);
// The first round warms up.
for (let round = -1; round < Number(rounds); round++) {
  const began = process.cpuUsage();
  const { problem, records } = await verifyExport(createReadStream(file, { highWaterMark: 1 << 20 }), vouchers);
  if (problem !== undefined) throw new Error(`the log does not verify: ${problem.why}`);
  const { user, system } = process.cpuUsage(began);
  if (round >= 0) console.log(records / ((user + system) / 1_000_000));
}
