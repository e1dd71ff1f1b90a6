/** A gateway's stand-in that holds a hostile server in its sandbox until stdin is closed or it is killed: `node sandbox-holder.ts <marker> [bare]`. */
import { silentLogger } from "../../src/observe/logger.ts";
import { stdioServer } from "../../src/upstream/settings.ts";
import { stdioUpstream } from "../../src/upstream/stdio.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { never } from "./support.ts";

const [marker = "", mode] = process.argv.slice(2);
const upstream = stdioUpstream(
  "held",
  stdioServer.parse({
    command: fixtureCommand("hostile-stdio", ["outlive", marker]),
    ...(mode !== "bare" && { sandbox: { network: ["a.example:443"] } }),
  }),
  {
    logger: silentLogger,
    events: { listChanged() {}, resourceUpdated() {} },
    version: "0.0.0",
    baseDirectory: import.meta.dirname,
    environment: { PATH: process.env["PATH"] },
  },
);
await upstream.identity(never);
process.stdout.write("ready\n");
process.stdin.resume();
process.stdin.once("end", () => void upstream.close(AbortSignal.timeout(2000)).then(() => process.exit()));
