/** A gateway's stand-in that holds processes of two users until it is killed. Prints the pids to watch. */
import { silentLogger } from "../../src/observe/logger.ts";
import { openUpstream } from "../../src/upstream/open.ts";
import { stdioServer } from "../../src/upstream/settings.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { ignored, never, structuredOf, toolCall } from "./support.ts";

const upstream = openUpstream(
  "s",
  stdioServer.parse({ command: fixtureCommand("diary-stdio"), isolation: "per-user" }),
  {
    logger: silentLogger,
    version: "0.0.0",
    baseDirectory: import.meta.dirname,
    environment: { PATH: process.env["PATH"] },
    events: { listChanged() {}, resourceUpdated() {} },
  },
);
const pidOf = async (subject: string) =>
  structuredOf(await upstream.send(toolCall("environment", {}, { subject }), ignored, never))["pid"];
process.stdout.write(`${JSON.stringify([await pidOf("ann"), await pidOf("bob")])}\n`);
setInterval(() => {}, 1000);
