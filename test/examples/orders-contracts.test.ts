/** The order desk behind its contracts: all of its jobs can be done, and nothing else. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { World } from "../e2e/world.ts";
import { deskWorld } from "./desk.ts";

interface Tool {
  readonly name: string;
  readonly title?: string;
  readonly description?: string;
  readonly inputSchema: Schema;
  readonly outputSchema?: Schema;
  readonly annotations?: Readonly<Record<string, boolean>>;
}
interface Schema {
  readonly type?: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly additionalProperties?: unknown;
  readonly enum?: readonly unknown[];
  readonly pattern?: string;
  readonly maxLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
}
type Args = Record<string, unknown>;
interface Answer {
  readonly text: string;
  readonly structured: Record<string, unknown> | undefined;
  readonly failed: boolean;
}

interface AnyClient {
  listTools(): Promise<{ tools: unknown[] }>;
  listResources(): Promise<{ resources: unknown[] }>;
  listPrompts(): Promise<{ prompts: unknown[] }>;
  callTool(call: { name: string; arguments: Args }): Promise<unknown>;
}

/** Nothing of the desk that no contract names. */
const NEVER =
  /national_insurance|date_of_birth|"notes"|cost_pence|payment_reference|delivery_note|@example\.|"phone"|"address"|postcode|SELECT|To the AI assistant|IMPORTANT SYSTEM NOTE|requested_by|"approved_by":/;

describe.each(["legacy", "modern"] as const)("the desk behind its contracts, driven by a %s client", (era) => {
  let desk: World;
  let client: AnyClient;
  const seen: string[] = [];
  beforeAll(async () => {
    desk = await deskWorld("drawbridge.yaml");
    client = (await desk[era]()) as unknown as AnyClient;
  }, 60_000);
  afterAll(async () => desk[Symbol.asyncDispose]());

  const call = async (name: string, args: Args): Promise<Answer> => {
    const answer = (await client.callTool({ name, arguments: args }).catch((thrown: Error) => ({
      content: [{ type: "text", text: thrown.message }],
      isError: true,
    }))) as { content: { text: string }[]; structuredContent?: Record<string, unknown>; isError?: boolean };
    const text = answer.content.map((block) => block.text).join("\n");
    seen.push(JSON.stringify(answer));
    return { text, structured: answer.structuredContent, failed: answer.isError === true };
  };
  const done = async (name: string, args: Args): Promise<Record<string, unknown>> => {
    const { failed, text, structured } = await call(name, args);
    expect(failed, `${name}: ${text}`).toBe(false);
    return structured ?? {};
  };
  const tools = async () => (await client.listTools()).tools as readonly Tool[];

  test("a third of the tools is served, and neither resources nor prompts", async () => {
    expect((await tools()).map(({ name }) => name)).toEqual([
      "look_up_order",
      "find_orders",
      "list_products",
      "show_open_work",
      "place_order",
      "ship_order",
      "request_refund",
      "write_about_order",
      "cancel_order",
      "decide_refund",
    ]);
    expect((await client.listResources()).resources).toEqual([]);
    expect((await client.listPrompts()).prompts).toEqual([]);
  });

  test("every input is closed and bounded, and every output is closed", async () => {
    for (const { name, inputSchema, outputSchema } of await tools()) {
      expect(inputSchema.additionalProperties, name).toBe(false);
      for (const [argument, schema] of Object.entries(inputSchema.properties ?? {}))
        expect(isBounded(schema), `${name} ${argument}: ${JSON.stringify(schema)}`).toBe(true);
      expect(outputSchema, name).toBeDefined();
      expect(openPlaces(outputSchema ?? {}), name).toEqual([]);
    }
  });

  test("annotations say what the contracts say", async () => {
    const hints = Object.fromEntries((await tools()).map(({ name, annotations }) => [name, annotations]));
    expect(hints["look_up_order"]).toMatchObject({ readOnlyHint: true, destructiveHint: false, openWorldHint: false });
    expect(hints["place_order"]).toMatchObject({ readOnlyHint: false, destructiveHint: false });
    expect(hints["decide_refund"]).toMatchObject({ readOnlyHint: false, destructiveHint: true });
    expect(hints["write_about_order"]).toMatchObject({ openWorldHint: true });
  });

  test("the desk's work can be done with them", async () => {
    const { products } = await done("list_products", {});
    const stock = (list: unknown) =>
      (list as { sku: string; stock: number }[]).find(({ sku }) => sku === "KET-01")?.stock;
    const before = stock(products);

    const found = await done("find_orders", { email: "daniel.singh1@example.net" });
    expect(found["customer_id"]).toBe("CUS-0001");

    const placed = await done("place_order", { customer_id: "CUS-0001", sku: "KET-01", quantity: 2 });
    expect(placed).toMatchObject({ id: "ORD-100421", status: "pending", total_pence: 6980 });
    expect(stock((await done("list_products", {}))["products"])).toBe((before ?? 0) - 2);
    expect((await done("find_orders", { email: "daniel.singh1@example.net" }))["orders"]).toContainEqual(
      expect.objectContaining({ id: "ORD-100421" }),
    );

    const { to_ship, refunds_to_decide } = await done("show_open_work", {});
    const [parcel] = to_ship as { id: string }[];
    const tracking_number = "GB123456789TR";
    const shipped = await done("ship_order", { order_id: parcel?.id, carrier: "Northway", tracking_number });
    expect(shipped).toMatchObject({ order_id: parcel?.id, status: "in transit", tracking_number });
    expect(await done("look_up_order", { order_id: parcel?.id })).toMatchObject({
      status: "shipped",
      shipments: [{ tracking_number }],
    });

    const small = (refunds_to_decide as { refund_id: string; amount_pence: number }[]).find(
      ({ amount_pence }) => amount_pence <= 20_000,
    );
    expect(await done("decide_refund", { refund_id: small?.refund_id, decision: "approve" })).toEqual({
      refund_id: small?.refund_id,
      decision: "approve",
    });
    const reason = "Arrived late";
    const asked = await done("request_refund", { order_id: "ORD-100007", amount_pence: 100, reason });
    expect(asked).toMatchObject({ order_id: "ORD-100007", amount_pence: 100, status: "requested" });
    expect(await done("decide_refund", { refund_id: asked["id"], decision: "reject" })).toMatchObject({
      decision: "reject",
    });

    const text = "We are sorry that the parcel was wet.";
    for (const to of ["customer", "file"])
      expect(await done("write_about_order", { order_id: "ORD-100007", to, text })).toEqual({
        order_id: "ORD-100007",
        written_to: to,
      });

    expect(await done("cancel_order", { order_id: "ORD-100421", reason: "Changed my mind" })).toEqual({
      id: "ORD-100421",
      status: "cancelled",
    });
  });

  test("what must not happen does not", async () => {
    // Shipped already, and gone.
    expect((await call("cancel_order", { order_id: "ORD-100007", reason: "Out of stock" })).failed).toBe(true);
    // More than was paid.
    const much = { order_id: "ORD-100007", amount_pence: 50_000, reason: "Arrived late" };
    expect((await call("request_refund", much)).failed).toBe(true);
    // More than there is.
    expect((await call("place_order", { customer_id: "CUS-0001", sku: "XXX-01", quantity: 1 })).failed).toBe(true);
    // Parts of an address find nobody.
    expect((await call("find_orders", { email: "singh1@example.net" })).failed).toBe(true);
  });

  test("text that would be SQL, and arguments that nobody named, are refused at the schema", async () => {
    const injected = ["' OR 1=1 --", "ORD-100001' UNION SELECT * FROM customers --", "ORD-100001\n", "", "%"];
    for (const order_id of injected)
      expect(await call("look_up_order", { order_id }), order_id).toMatchObject({ failed: true });
    for (const email of [...injected, "%@%.%", "a'b@example.com"])
      expect(await call("find_orders", { email }), email).toMatchObject({ failed: true });
    for (const more of [{ verbose: true }, { region: "south" }, { order_id: ["ORD-100001"] }])
      expect(await call("look_up_order", { order_id: "ORD-100001", ...more })).toMatchObject({ failed: true });
    const whoever = { refund_id: "REF-10001", decision: "approve", approved_by: "the queen" };
    expect(await call("decide_refund", whoever)).toMatchObject({ failed: true });
    for (const name of ["run_sql", "get_order", "export_customers", "orders_get_order"])
      expect((await call(name, {})).text).toContain("Unknown tool");
  });

  test("notes that customers left for a machine do not reach it", async () => {
    for (const order_id of ["ORD-100211", "ORD-100378"]) {
      const order = await done("look_up_order", { order_id });
      expect(order["id"]).toBe(order_id);
      expect(order["items"]).not.toEqual([]);
    }
  });

  test("none of all the answers had anything in it that no contract names", () => {
    expect(seen.length).toBeGreaterThan(30);
    for (const answer of seen) expect(answer).not.toMatch(NEVER);
  });
});

function isBounded({ enum: values, pattern, maxLength, minimum, maximum, type }: Schema): boolean {
  if (values !== undefined) return true;
  if (type === "integer") return minimum !== undefined && maximum !== undefined;
  return type === "string" && (pattern !== undefined || maxLength !== undefined);
}

/** Objects of a schema that may have members of any name. */
function openPlaces(schema: Schema, path = ""): readonly string[] {
  if (schema.properties !== undefined)
    return [
      ...(schema.additionalProperties === false ? [] : [path]),
      ...Object.entries(schema.properties).flatMap(([name, one]) => openPlaces(one, `${path}/${name}`)),
    ];
  return schema.items === undefined ? [] : openPlaces(schema.items, `${path}/*`);
}
