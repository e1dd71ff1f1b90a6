/** A gateway's stand-in that holds one stdio upstream until it is killed: `node holder.ts <mode>`. Prints the pids to watch. */
import { ignored, never, stdio, structuredOf, toolCall } from "./support.ts";

const [mode = ""] = process.argv.slice(2);
const { upstream } = stdio("misbehaving-stdio", [mode]);
const ask = async (tool: string) => structuredOf(await upstream.send(toolCall(tool), ignored, never))["pid"] as number;
const pids = [await ask("whoami")];
if (mode === "forks-grandchild") pids.push(await ask("grandchild"));
process.stdout.write(`${JSON.stringify(pids)}\n`);
setInterval(() => {}, 1000);
