/** The order desk written again with `drawbridge-mcp/author`: all of the desk's jobs, by clients of both eras, in a quarter of the tools. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { check } from "../../src/check/check.ts";
import { ofSettings } from "../../src/cli/check-servers.ts";
import { type Answers, type AnyClient, clientAt, ERAS, type Era, textOf } from "../author/clients.ts";
import { root } from "../house/sources.ts";

const program = join(root, "examples/orders-safe/server.ts");
const folder = mkdtempSync(join(tmpdir(), "drawbridge-orders-safe-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const approves: Answers = ({ message }) => ({
  action: "accept",
  content: { approve: String(message).includes("Money leaves") },
});

describe.each(ERAS)("a %s client at the desk", (era: Era) => {
  const file = join(folder, `${era}.db`);
  let desk: AnyClient;
  beforeAll(async () => {
    desk = await clientAt({ program, environment: { ORDERS_DB: file } }, era, approves);
  }, 60_000);
  afterAll(() => desk?.close());
  const did = async (name: string, args: Record<string, unknown>) => {
    const answer = await desk.callTool({ name, arguments: args });
    expect(answer.isError, textOf(answer)).not.toBe(true);
    return answer.structuredContent as Record<string, never>;
  };
  const refused = async (name: string, args: Record<string, unknown>) => {
    const answer = await desk.callTool({ name, arguments: args });
    expect(answer.isError).toBe(true);
    return textOf(answer);
  };
  const inDesk = (sql: string) => {
    const database = new DatabaseSync(file, { readOnly: true });
    try {
      return database.prepare(sql).all() as Record<string, unknown>[];
    } finally {
      database.close();
    }
  };

  test("answers for an order, without what is nobody's business", async () => {
    const answer = await desk.callTool({ name: "look_up_order", arguments: { order_id: "ORD-100211" } });
    expect(answer.structuredContent).toMatchObject({ id: "ORD-100211", status: "delivered" });
    const [customer] = inDesk(
      "SELECT c.* FROM customers c JOIN orders o ON o.customer_id = c.id WHERE o.id = 'ORD-100211'",
    );
    for (const hidden of ["email", "phone", "national_insurance_number", "date_of_birth", "postcode"])
      expect(JSON.stringify(answer)).not.toContain(customer?.[hidden]);
    // Its customer left a note for the machine.
    const [order] = inDesk("SELECT delivery_note FROM orders WHERE id = 'ORD-100211'");
    expect(String(order?.["delivery_note"]).length).toBeGreaterThan(10);
    expect(JSON.stringify(answer)).not.toContain(order?.["delivery_note"]);
  });

  test("finds orders by a whole address, and by nothing else", async () => {
    const [customer] = inDesk(
      "SELECT email, customer_id AS id FROM customers c JOIN orders o ON o.customer_id = c.id LIMIT 1",
    );
    const found = await did("find_orders", { email: customer?.["email"] });
    expect(found).toMatchObject({ customer_id: customer?.["id"] });
    for (const injected of ["' OR 1=1 --", "%@example.net", "' OR ''='@a.example"])
      expect(await refused("find_orders", { email: injected })).toMatch(/refused|Nobody/);
  });

  test("shows what waits and what there is, without cost prices", async () => {
    const { to_pack, refunds_to_decide } = await did("show_desk", { show: "open_work" });
    expect(
      [(to_pack as unknown as unknown[]).length, (refunds_to_decide as unknown as unknown[]).length].every(
        (count) => count > 0,
      ),
    ).toBe(true);
    expect(JSON.stringify(await did("show_desk", { show: "products" }))).not.toContain("cost");
  });

  test("places, ships and cancels orders, all of each or nothing", async () => {
    const placed = await did("place_order", {
      customer_id: "CUS-0001",
      items: [
        { sku: "KET-01", quantity: 2 },
        { sku: "MUG-01", quantity: 1 },
      ],
    });
    expect(placed).toMatchObject({ id: "ORD-100421", status: "pending" });
    const stock = () => inDesk("SELECT stock FROM products WHERE sku = 'KET-01'");
    const before = stock();
    expect(
      await refused("place_order", {
        customer_id: "CUS-0001",
        items: [
          { sku: "KET-01", quantity: 1 },
          { sku: "XXX-99", quantity: 1 },
        ],
      }),
    ).toBe("There is no product XXX-99.");
    expect(stock()).toEqual(before);
    expect(
      await refused("ship_order", { order_id: placed["id"], carrier: "Northway", tracking_number: "GB123456789TR" }),
    ).toContain("is pending");
    expect(
      await did("settle_order", { order_id: placed["id"], remedy: "cancel", reason: "Ordered twice" }),
    ).toMatchObject({ done: "cancelled" });
    const [packed] = inDesk("SELECT id FROM orders WHERE status = 'packed' LIMIT 1");
    const shipped = await did("ship_order", {
      order_id: packed?.["id"],
      carrier: "Northway",
      tracking_number: "GB123456789TR",
    });
    expect(shipped).toMatchObject({ order_id: packed?.["id"], status: "in transit" });
    expect(
      await refused("settle_order", { order_id: packed?.["id"], remedy: "cancel", reason: "Ordered twice" }),
    ).toContain("is shipped");
  });

  test("asks for a refund, and pays it out when its person has approved that", async () => {
    const [order] = inDesk("SELECT id FROM orders WHERE status = 'delivered' AND total_pence > 2000 LIMIT 1");
    const asked = { order_id: order?.["id"], remedy: "ask_for_refund", reason: "Arrived late", amount_pence: 1250 };
    const { refund_id } = await did("settle_order", asked);
    expect(await did("decide_refund", { refund_id, decision: "approve" })).toEqual({ refund_id, decision: "approve" });
    expect(inDesk(`SELECT status, approved_by FROM refunds WHERE id = '${refund_id}'`)).toEqual([
      { status: "approved", approved_by: "local" },
    ]);
    expect(await refused("decide_refund", { refund_id, decision: "reject" })).toContain("waits");
  });

  test("writes to the customer of an order, and into their file, and to nobody else", async () => {
    const [order] = inDesk(
      "SELECT o.id, c.email, c.id AS customer FROM orders o JOIN customers c ON c.id = o.customer_id LIMIT 1",
    );
    const about = { order_id: order?.["id"], reason: "Arrived late", text: "We are sorry; it was late." };
    const written = await did("settle_order", { ...about, remedy: "write_to_customer" });
    expect(JSON.stringify(written)).not.toContain(order?.["email"]);
    expect(inDesk("SELECT recipient, body FROM outbox")).toEqual([{ recipient: order?.["email"], body: about.text }]);
    await did("settle_order", { ...about, remedy: "note_in_file" });
    expect(inDesk(`SELECT notes FROM customers WHERE id = '${order?.["customer"]}'`)[0]?.["notes"]).toContain(
      about.text,
    );
    expect(await refused("settle_order", { ...about, remedy: "write_to_customer", to: "thief@example.net" })).toContain(
      "to",
    );
  });
});

test("it has a quarter of the careless desk's tools, and grade A where that one has F", async () => {
  const [file, careless] = ["examples/orders-safe/drawbridge.yaml", "examples/orders/careless.yaml"].map((path) =>
    join(root, path),
  );
  const terminal = {
    cwd: folder,
    home: folder,
    platform: process.platform,
    env: { PATH: process.env["PATH"], ORDERS_DB: join(folder, "grade.db") },
    stderr: { write: () => true },
  };
  const safe = await ofSettings(file ?? "", "safe", terminal as never);
  const before = await ofSettings(careless ?? "", "careless", terminal as never);
  const count = ({ servers }: typeof safe) => servers.flatMap(({ tools }) => tools).length;
  expect(count(safe) * 4).toBeLessThanOrEqual(count(before));
  const [graded, poor] = await Promise.all([check(safe), check(before)]);
  expect(graded.grades).toMatchObject({ overall: "A", score: 100 });
  expect(graded.tools.every(({ verdict }) => verdict === "clean")).toBe(true);
  expect(poor.grades?.overall).toBe("F");
}, 60_000);
