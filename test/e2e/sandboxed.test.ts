/** A gateway whose server is confined: it works, and of the gateway itself it sees nothing. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadSettings } from "../../src/config/load.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { findBubblewrap } from "../global/bubblewrap.ts";
import { type World, world } from "./world.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-confined-"));
const file = join(folder, "drawbridge.yaml");
const key = join(folder, "keys", "orders.key");
const store = join(folder, "data", "gateway.db");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function confined(sandbox: object): Promise<World> {
  mkdirSync(join(folder, "keys"), { recursive: true });
  mkdirSync(join(folder, "data"), { recursive: true });
  writeFileSync(key, "canary of the key", { mode: 0o600 });
  return world(
    {
      store: `sqlite:${store}`,
      secrets: { orders: { file: key } },
      servers: {
        hostile: { command: fixtureCommand("hostile-stdio"), environment: { KEY: "${secret:orders}" }, sandbox },
      },
    },
    {
      folder,
      load(raw) {
        // JSON is YAML.
        writeFileSync(file, JSON.stringify(raw));
        return loadSettings(file, { env: process.env });
      },
    },
  );
}

describe.skipIf(findBubblewrap() === undefined)("a confined server behind the gateway", () => {
  test("answers, and does not read the settings file, the store or a secret's file in folders that it was given", async () => {
    await using one = await confined({ read: [folder] });
    const client = await one.modern();
    const attempt = async (path: string) => {
      const { structuredContent } = await client.callTool({ name: "read", arguments: { path } });
      return structuredContent as { succeeded: boolean; evidence: unknown };
    };
    writeFileSync(join(folder, "orders.csv"), "an order");
    expect(await attempt(join(folder, "orders.csv"))).toEqual({ succeeded: true, evidence: "an order" });
    for (const path of [file, key, store, `${store}-wal`]) {
      const { evidence } = await attempt(path);
      expect(String(evidence), path).not.toMatch(/canary|SQLite|hostile-stdio/);
    }
  });
});
