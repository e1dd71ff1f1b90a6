/** The order desk behind a gateway, with the settings of one of its files and a database of its own. */
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parse } from "yaml";
import { type World, world } from "../e2e/world.ts";

export const deskFolder = join(import.meta.dirname, "../../examples/orders");

/** `file`: in the desk's folder. */
export async function deskWorld(file: "drawbridge.yaml" | "careless.yaml"): Promise<World> {
  const { publicUrl: _, limits: __, ...settings } = parse(await readFile(join(deskFolder, file), "utf8"));
  const folder = mkdtempSync(join(tmpdir(), "desk-"));
  const { orders } = settings.servers;
  const environment = { ORDERS_DB: join(folder, "orders.db") };
  const started = await world(
    {
      ...settings,
      store: "memory",
      clients: { registration: "open" },
      servers: { orders: { ...orders, environment, processes: { min: 1, max: 1 } } },
    },
    { folder: deskFolder },
  );
  return {
    ...started,
    async [Symbol.asyncDispose]() {
      await started[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
