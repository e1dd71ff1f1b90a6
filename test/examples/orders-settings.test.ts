import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { loadSettings } from "../../src/config/load.ts";
import { settingsSchema } from "../../src/config/schema.ts";
import type { JsonObject, Principal, TargetKind } from "../../src/core/call.ts";
import { compilePolicy } from "../../src/policy/engine.ts";

/** The desk as it is, with roles alone. What its contracts add is in orders-contracts.test.ts. */
const file = fileURLToPath(new URL("../../examples/orders/careless.yaml", import.meta.url));
const contracted = fileURLToPath(new URL("../../examples/orders/drawbridge.yaml", import.meta.url));

const policy = settingsSchema.parse(parse(await readFile(file, "utf8")));
const careless = compilePolicy(policy.roles, policy.assign);
const { roles, assign, tools = {} } = settingsSchema.parse(parse(await readFile(contracted, "utf8")));
const strict = compilePolicy(roles, assign);

function may(group: string, kind: TargetKind, name: string, args?: JsonObject, { decide } = careless): boolean {
  const principal: Principal = {
    subject: "u",
    client: "c",
    actors: [],
    groups: [group],
    scopes: [],
    claims: {},
    grant: undefined,
    tokenId: "t",
    expiresAt: 0,
  };
  const target = { server: "orders", kind, name, upstreamName: name, pin: undefined };
  return decide(principal, target, args && { method: "tools/call", args, scope: undefined }).effect === "permit";
}

test.each([file, contracted])("the desk's settings load without a problem or a warning: %s", async (one) => {
  const { settings, warnings } = await loadSettings(one, { env: {} });
  expect(settings.publicUrl).toBe("http://127.0.0.1:7337");
  expect(settings.clients.registration).not.toBe("open");
  expect(warnings).toEqual([]);
});

describe("the desk's roles", () => {
  test("the owner may everything but free-form SQL and the customer file", () => {
    expect(may("owner", "tool", "approve_refund", { refund_id: "REF-10001", approved_by: "me" })).toBe(true);
    expect(may("owner", "resource", "customers://CUS-0001", {})).toBe(true);
    for (const name of ["run_sql", "search_orders", "export_customers"]) expect(may("owner", "tool", name)).toBe(false);
  });

  test("support reads one order by its number, and nothing that is not a number", () => {
    expect(may("support", "tool", "get_order", { order_id: "ORD-100001" })).toBe(true);
    expect(may("support", "tool", "get_order", { order_id: "' OR 1=1 --" })).toBe(false);
    expect(may("support", "tool", "get_order", { order_id: "ORD-100001' UNION SELECT 1" })).toBe(false);
    expect(may("support", "tool", "get_order", { order_id: "ORD-100001\n" })).toBe(false);
    expect(may("support", "tool", "get_order", { order_id: ["ORD-100001"] })).toBe(false);
    expect(may("support", "tool", "get_shipment", { shipment_id: "SHP-100001" })).toBe(true);
    expect(may("support", "tool", "get_shipment", { shipment_id: "1" })).toBe(false);
    expect(may("support", "tool", "list_products", {})).toBe(true);
    expect(may("support", "prompt", "draft_apology", { order_id: "ORD-100001" })).toBe(true);
    for (const name of ["list_customers", "get_customer", "cancel_order", "run_sql"])
      expect(may("support", "tool", name)).toBe(false);
    expect(may("support", "resource", "orders://recent")).toBe(false);
  });

  test("refunds asks for up to 50 pounds and approves nothing", () => {
    const refund = (amount: string) =>
      may("refunds", "tool", "create_refund", { order_id: "ORD-100001", amount, reason: "late" });
    expect(["0", "12.50", "50", "50.00"].map(refund)).toEqual([true, true, true, true]);
    expect(["50.01", "500", "-1", "NaN", "1e9", "", "12,50"].map(refund)).toEqual(
      Array.from({ length: 7 }, () => false),
    );
    expect(may("refunds", "tool", "approve_refund")).toBe(false);
  });

  test("a person in no group may nothing", () => {
    expect(may("nobody", "tool", "get_order")).toBe(false);
  });
});

describe("the roles of the desk behind its contracts", () => {
  const reaches = (group: string, args?: JsonObject) =>
    Object.keys(tools).filter((name) => may(group, "tool", name, args, strict));

  test("the owner may all of it, support may read, and nobody else anything", () => {
    expect(reaches("owner")).toEqual(Object.keys(tools));
    expect(reaches("support")).toEqual(["look_up_order", "find_orders", "list_products", "show_open_work"]);
    expect(reaches("nobody")).toEqual([]);
  });

  test("refunds asks for up to 50 pounds and decides nothing", () => {
    const asking = { order_id: "ORD-100001", amount_pence: 5000, reason: "Arrived late" };
    expect(reaches("refunds", asking)).toEqual(["look_up_order", "request_refund", "write_about_order"]);
    expect(reaches("refunds", { ...asking, amount_pence: 5001 })).toEqual([]);
  });
});
