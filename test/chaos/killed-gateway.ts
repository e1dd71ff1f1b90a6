/** A gateway in a process of its own, to be killed: `node killed-gateway.ts <settings as JSON>` says when it listens. */
import { settleSettings } from "../../src/config/load.ts";
import { startGateway } from "../../src/gateway/gateway.ts";

const raw = JSON.parse(process.argv[2] ?? "{}") as Record<string, unknown>;
const settings = await settleSettings({ log: { level: "silent" }, ...raw }, process.cwd(), { env: process.env });
const gateway = await startGateway({ settings, environment: process.env });
await gateway.ready;
process.stdout.write(`listens ${gateway.url}\n`);
