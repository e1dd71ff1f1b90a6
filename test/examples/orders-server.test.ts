import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Client as ClientV2 } from "@modelcontextprotocol/client";
import { StdioClientTransport as StdioV2 } from "@modelcontextprotocol/client/stdio";
import { Client as ClientV1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport as StdioV1 } from "@modelcontextprotocol/sdk/client/stdio.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

const server = fileURLToPath(new URL("../../examples/orders/server.ts", import.meta.url));
const info = { name: "orders-test", version: "1.0.0" };

type Connect = (folder: string) => Promise<ClientV1 | ClientV2>;
const program = (folder: string) => ({ command: process.execPath, args: [server], cwd: folder });
const connectV1: Connect = async (folder) => {
  const client = new ClientV1(info);
  await client.connect(new StdioV1(program(folder)));
  return client;
};
const connectV2 =
  (mode: "legacy" | "auto"): Connect =>
  async (folder) => {
    const client = new ClientV2(info, { versionNegotiation: { mode } });
    await client.connect(new StdioV2(program(folder)));
    expect(client.getProtocolEra()).toBe(mode === "auto" ? "modern" : "legacy");
    return client;
  };

/** Every tool, with arguments that work and what must be in the answer. In this order: some need what others did. */
const CALLS: readonly (readonly [name: string, args: Record<string, unknown>, expected: string])[] = [
  ["get_customer", { customer_id: "CUS-0001" }, '"national_insurance_number"'],
  ["list_customers", { limit: "3", offset: "157" }, '"CUS-0160"'],
  ["search_customers", { query: "example.org" }, "@example.org"],
  ["create_customer", { name: "Nia O'Brien", email: "nia@example.com" }, '"CUS-0161"'],
  ["update_customer_email", { customer_id: "CUS-0161", email: "new@example.com" }, '"new@example.com"'],
  ["update_customer_address", { customer_id: "CUS-0161", address: "1 Mill Lane" }, '"1 Mill Lane"'],
  ["add_customer_note", { customer_id: "CUS-0161", note: "Friendly." }, '"Friendly."'],
  ["get_order", { order_id: "ORD-100001", verbose: true }, '"other_orders"'],
  ["list_orders", { status: "delivered", limit: "2" }, '"delivered"'],
  ["search_orders", { where: "total_pence > 20000" }, '"payment_reference"'],
  ["get_customer_orders", { customer_id: "CUS-0002" }, "ORD-"],
  ["create_order", { customer_id: "CUS-0161", delivery_note: "Ring twice." }, '"ORD-100421"'],
  ["add_order_item", { order_id: "ORD-100421", sku: "KET-01", quantity: "2" }, '"total_pence": 6980'],
  ["update_order_status", { order_id: "ORD-100421", status: "paid" }, '"paid"'],
  ["create_shipment", { order_id: "ORD-100421", carrier: "Northway", tracking_number: "GB1TR" }, '"GB1TR"'],
  ["list_shipments", { status: "in transit", limit: "200" }, '"GB1TR"'],
  ["get_shipment", { shipment_id: "SHP-100001" }, '"ORD-'],
  ["update_shipment_address", { shipment_id: "SHP-100001", address: "Elsewhere" }, '"Elsewhere"'],
  ["create_refund", { order_id: "ORD-100421", amount: "12.50", reason: "Scratched" }, '"amount_pence": 1250'],
  ["list_refunds", { status: "requested" }, '"Scratched"'],
  ["approve_refund", { refund_id: "REF-10001", approved_by: "whoever I say" }, '"whoever I say"'],
  ["reject_refund", { refund_id: "REF-10002" }, '"rejected"'],
  ["cancel_order", { order_id: "ORD-100421", reason: "Test" }, "Cancelled: Test"],
  ["list_products", {}, '"cost_pence"'],
  ["adjust_stock", { sku: "MUG-01", by: "-10" }, '"stock": 400'],
  ["sales_report", { period: "%Y-%m" }, '"2026-05"'],
  ["email_customer", { to: "new@example.com", subject: "Hello", body: "…" }, "Queued"],
  ["run_sql", { sql: "SELECT count(*) AS n FROM outbox" }, '"n": 1'],
  ["export_customers", {}, '"CUS-0161","Nia O\'Brien"'],
  ["delete_customer", { customer_id: "CUS-0161" }, '"deleted"'],
];

describe.each([
  ["an SDK v1 client", connectV1],
  ["an SDK v2 client, 2025-11-25", connectV2("legacy")],
  ["an SDK v2 client, 2026-07-28", connectV2("auto")],
])("the order desk, driven by %s", (_, connect) => {
  let folder: string;
  let client: ClientV1;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "orders-"));
    // What is called here is the same in both clients.
    client = (await connect(folder)) as ClientV1;
  });
  afterAll(async () => {
    await client.close();
    await rm(folder, { recursive: true });
  });

  const call = async (name: string, args: Record<string, unknown>) => {
    const { content, isError } = await client.callTool({ name, arguments: args });
    const [{ text } = { text: "" }] = content as { text: string }[];
    return { text, isError: isError === true };
  };

  test("every tool does what it says", async () => {
    const { tools } = await client.listTools();
    expect(tools.map((tool) => tool.name).sort()).toEqual(CALLS.map(([name]) => name).sort());
    for (const [name, args, expected] of CALLS) {
      const { text, isError } = await call(name, args);
      expect(isError, `${name}: ${text}`).toBe(false);
      expect(text, name).toContain(expected);
    }
  });

  test("every resource can be read", async () => {
    const { resources } = await client.listResources();
    expect(resources).toHaveLength(161);
    const { resourceTemplates } = await client.listResourceTemplates();
    expect(resourceTemplates.map((template) => template.uriTemplate)).toEqual(["customers://{id}"]);
    const read = async (uri: string) => JSON.stringify((await client.readResource({ uri })).contents);
    expect(await read("orders://recent")).toContain("@example.");
    for (const { uri } of resources.slice(-3)) expect(await read(uri)).toContain("national_insurance_number");
  });

  test("every prompt can be had", async () => {
    const { prompts } = await client.listPrompts();
    expect(prompts.map((prompt) => prompt.name)).toEqual(["draft_apology", "daily_summary"]);
    const apology = await client.getPrompt({
      name: "draft_apology",
      arguments: { order_id: "ORD-100001", what_happened: "It broke." },
    });
    expect(JSON.stringify(apology.messages)).toContain("What happened: It broke.");
    expect(JSON.stringify((await client.getPrompt({ name: "daily_summary" })).messages)).toContain("requested");
  });

  test("it is careless: strings become SQL, and errors show it", async () => {
    expect((await call("get_order", { order_id: "ORD-999999" })).isError).toBe(true);
    const everybody = await call("search_customers", { query: "' OR 1=1 --" });
    expect(JSON.parse(everybody.text)).toHaveLength(160);
    const leak = await call("get_customer", { customer_id: "O'Brien" });
    expect(leak).toMatchObject({ isError: true, text: expect.stringContaining("SELECT * FROM customers") });
  });
});

test("four desks that start together on an empty folder share one database and give each order its own number", async () => {
  const folder = await mkdtemp(join(tmpdir(), "orders-"));
  const clients = await Promise.all([1, 2, 3, 4].map(() => connectV1(folder) as Promise<ClientV1>));
  try {
    const created = await Promise.all(
      Array.from({ length: 20 }, async (_, index) => {
        const client = clients[index % clients.length];
        const answer = await client?.callTool({ name: "create_order", arguments: { customer_id: "CUS-0001" } });
        const [{ text } = { text: "{}" }] = (answer?.content ?? []) as { text: string }[];
        return (JSON.parse(text) as { id: string }).id;
      }),
    );
    expect(created.sort()).toEqual(Array.from({ length: 20 }, (_, index) => `ORD-${100_421 + index}`));
    const files = await readdir(join(folder, ".drawbridge"));
    expect(files.filter((file) => file.endsWith(".draft"))).toEqual([]);
  } finally {
    await Promise.all(clients.map((client) => client.close()));
    await rm(folder, { recursive: true });
  }
});
