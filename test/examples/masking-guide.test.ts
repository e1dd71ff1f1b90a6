/** `docs/masking.md`: its settings load and meet the desk's definitions, and do what the page says. */
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parse } from "yaml";
import { settleSettings } from "../../src/config/load.ts";
import { world } from "../e2e/world.ts";
import { deskFolder } from "./desk.ts";

const page = await readFile(join(import.meta.dirname, "../../docs/masking.md"), "utf8");
const snippets = [...page.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map(([, text = ""]) => parse(text));
const folder = mkdtempSync(join(tmpdir(), "drawbridge-masking-guide-"));
const environment = { ORDERS_DB: join(folder, "orders.db") };
const servers = { orders: { command: [process.execPath, join(deskFolder, "server.ts")], environment } };
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test.each(snippets.map((snippet, at) => [at + 1, snippet] as const))(
  "snippet %i is a settings file's",
  async (_, snippet) => {
    const { warnings } = await settleSettings({ servers, ...snippet }, process.cwd(), { env: {} });
    expect(warnings).toEqual([]);
  },
);

test("the contracts of the page let an agent write to whom it does not know", async () => {
  await using one = await world({ servers, ...snippets[1] }, { folder: deskFolder });
  const agent = await one.legacy();
  const found = await agent.callTool({ name: "find_customer", arguments: { customer_id: "CUS-0001" } });
  const { name, email } = found.structuredContent as { name: string; email: string };
  expect(name).toBe("[masked]");
  expect(email).toMatch(/^p-[a-z0-9]{16}@masked\.example$/);
  const letter = { to: email, subject: "Your order", body: "It is on its way." };
  const sent = await agent.callTool({ name: "write_to_customer", arguments: letter });
  expect(sent.content).toEqual([{ type: "text", text: `Queued for ${email}` }]);
  const stranger = { ...letter, to: "p-aaaaaaaaaaaaaaaa@masked.example" };
  await expect(agent.callTool({ name: "write_to_customer", arguments: stranger })).rejects.toThrow(
    "was not given to you",
  );
});

test.each([
  [{ mask: { patterns: { bad: { pattern: "(?=x)" } } } }, "mask.patterns.bad"],
  [{ mask: { fields: { "a..b": "redact" } } }, "a..b"],
  [{ mask: { see: { owner: ["customer..name"] } } }, "customer..name"],
  [{ mask: { people: "hide" } }, "mask.people"],
  [{ tools: { t: { from: "orders/get_order", restores: ["emial"] } } }, "email"],
] as const)("what cannot be used is refused with its place: %j", async (wrong, said) => {
  await expect(settleSettings({ servers, ...wrong }, process.cwd(), { env: {} })).rejects.toThrow(said);
});
