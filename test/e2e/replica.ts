/** A second gateway on the store of a first one, as behind the same load balancer. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { settleSettings } from "../../src/config/load.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { World } from "./world.ts";

export interface Replica extends AsyncDisposable {
  /** Its own MCP endpoint; the public URL is the first one's. */
  readonly url: string;
}

/** `settings` are those of the first gateway. */
export async function replicaOf(one: World, settings: Record<string, unknown>): Promise<Replica> {
  const port = await freePort();
  const loaded = await settleSettings(
    {
      clients: { registration: "open" },
      log: { level: "silent" },
      ...settings,
      publicUrl: one.gateway.publicUrl,
      listen: { shutdownSeconds: 3, ...(settings["listen"] as object | undefined), port },
    },
    process.cwd(),
    { env: process.env },
  );
  const gateway = await startGateway({ settings: loaded, environment: process.env, logger: silentLogger });
  await gateway.ready;
  return { url: `http://127.0.0.1:${port}/mcp`, [Symbol.asyncDispose]: () => gateway.close() };
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise<void>((resolve) => server.close(() => resolve()));
  return port;
}
