/**
 * The order desk again, written so that it cannot be used for anything else: seven tools for its real jobs, each a whole thing with
 * closed inputs and declared answers. SQL has parameters, and no tool takes any.
 */
import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import { refuse, type Server, server, tool } from "drawbridge-mcp/author";
import { z } from "zod";

type Row = Readonly<Record<string, SQLInputValue>>;

const orderId = z
  .string()
  .regex(/^ORD-[0-9]{6}$/)
  .describe("The order's number, e.g. ORD-100007.");
const date = z.string();
const orderLine = z.object({ id: z.string(), status: z.string(), total_pence: z.int(), placed_at: date });

/** `database`: opened when the first call needs it. `now`: for what is written. */
export function orderDesk(database: () => DatabaseSync, now: () => Date = () => new Date()): Server {
  const all = (sql: string, ...values: SQLInputValue[]) =>
    database()
      .prepare(sql)
      .all(...values) as Row[];
  const one = (sql: string, ...values: SQLInputValue[]) => all(sql, ...values)[0];
  const run = (sql: string, ...values: SQLInputValue[]) =>
    void database()
      .prepare(sql)
      .run(...values);
  const orderOf = (id: string): Row =>
    one("SELECT * FROM orders WHERE id = ?", id) ?? refuse(`There is no order ${id}.`);
  const nextId = (table: "orders" | "shipments" | "refunds", prefix: string, digits: number): string => {
    const last = one(`SELECT max(CAST(substr(id, 5) AS INTEGER)) AS last FROM ${table}`)?.["last"] ?? 0;
    return prefix + String(Number(last) + 1).padStart(digits, "0");
  };
  /** All of it, or nothing. */
  const together = <T>(work: () => T): T => {
    database().exec("BEGIN IMMEDIATE");
    try {
      const result = work();
      database().exec("COMMIT");
      return result;
    } catch (thrown) {
      database().exec("ROLLBACK");
      throw thrown;
    }
  };

  const lookUpOrder = tool({
    name: "look_up_order",
    title: "Look up an order",
    description: {
      does: "Shows one order: its status, items, shipments and refunds.",
      useWhen: "when somebody asks about an order whose number they know",
      notWhen: "to find a number; find_orders does that",
      returns: "amounts in pence and dates in ISO 8601; of the customer only number, name and tier",
      limits: "one order at a time",
    },
    input: z.object({ order_id: orderId }),
    output: orderLine.extend({
      eta: date.nullable(),
      customer: z.object({ id: z.string(), name: z.string(), tier: z.string() }),
      items: z.array(z.object({ sku: z.string(), name: z.string(), quantity: z.int(), unit_pence: z.int() })).max(50),
      shipments: z
        .array(
          z.object({
            id: z.string(),
            status: z.string(),
            carrier: z.string(),
            tracking_number: z.string(),
            dispatched_at: date,
          }),
        )
        .max(50),
      refunds: z.array(z.object({ id: z.string(), amount_pence: z.int(), status: z.string() })).max(50),
    }),
    access: "read",
    handler({ order_id }) {
      const order = orderOf(order_id);
      // Whole rows go in, what is declared comes out.
      return {
        ...order,
        customer: one("SELECT * FROM customers WHERE id = ?", order["customer_id"] ?? ""),
        items: all("SELECT * FROM order_items WHERE order_id = ?", order_id),
        shipments: all("SELECT * FROM shipments WHERE order_id = ?", order_id),
        refunds: all("SELECT * FROM refunds WHERE order_id = ?", order_id),
      } as never;
    },
  });

  const findOrders = tool({
    name: "find_orders",
    title: "Find a customer's orders",
    description: {
      does: "Lists the orders of the customer with an e-mail address.",
      useWhen: "when somebody gives their address and not the number of their order",
      notWhen: "for lists of customers, and not by name",
      returns: "the customer's number, and of each order number, status, total and date, newest first",
      limits: "at most 20 orders; the address must match exactly",
    },
    input: z.object({
      email: z.email().max(200).describe("The whole e-mail address, e.g. daniel.singh1@example.net."),
    }),
    output: z.object({ customer_id: z.string(), orders: z.array(orderLine).max(20) }),
    access: "read",
    handler({ email }) {
      const customer = one("SELECT id FROM customers WHERE email = ?", email) ?? refuse("Nobody has this address.");
      const orders = all(
        "SELECT * FROM orders WHERE customer_id = ? ORDER BY placed_at DESC LIMIT 20",
        customer["id"] ?? "",
      );
      return { customer_id: String(customer["id"]), orders: orders as never };
    },
  });

  const showDesk = tool({
    name: "show_desk",
    title: "Show what the desk has",
    description: {
      does: "Shows what waits for somebody (orders to pack and to ship, refunds to decide), or what the shop sells.",
      useWhen: "to plan the day, or when somebody asks what there is and what it costs",
      notWhen: "for one order; look_up_order has that",
      returns:
        "lists with numbers, amounts in pence and dates; of products number (sku), name, price and pieces in stock",
      limits: "at most 50 of each, the oldest first",
    },
    input: z.object({ show: z.enum(["open_work", "products"]).describe("What waits, or what there is to buy.") }),
    output: z.object({
      to_pack: z.array(orderLine).max(50).optional(),
      to_ship: z.array(orderLine).max(50).optional(),
      refunds_to_decide: z
        .array(z.object({ id: z.string(), order_id: z.string(), amount_pence: z.int(), reason: z.string() }))
        .max(50)
        .optional(),
      products: z
        .array(
          z.object({ sku: z.string(), name: z.string(), category: z.string(), price_pence: z.int(), stock: z.int() }),
        )
        .max(100)
        .optional(),
    }),
    access: "read",
    handler({ show }) {
      if (show === "products") return { products: all("SELECT * FROM products ORDER BY sku LIMIT 100") as never };
      const orders = (status: string) =>
        all("SELECT * FROM orders WHERE status = ? ORDER BY placed_at LIMIT 50", status) as never;
      return {
        to_pack: orders("paid"),
        to_ship: orders("packed"),
        refunds_to_decide: all(
          "SELECT * FROM refunds WHERE status = 'requested' ORDER BY created_at LIMIT 50",
        ) as never,
      };
    },
  });

  const placeOrder = tool({
    name: "place_order",
    title: "Place an order",
    description: {
      does: "Places an order for a customer at list prices and takes the pieces out of stock.",
      useWhen: "when a customer whose number is known asks for it",
      notWhen: "to change an order that is there, and never without the customer's word",
      returns: "the new order's number, status and total in pence",
      limits: "all of it or nothing; 1 to 10 products, 1 to 20 pieces of each, only while there are enough",
    },
    input: z.object({
      customer_id: z
        .string()
        .regex(/^CUS-[0-9]{4}$/)
        .describe("The customer's number, e.g. CUS-0001; find_orders tells it."),
      items: z
        .array(z.object({ sku: z.string().regex(/^[A-Z]{3}-[0-9]{2}$/), quantity: z.int().min(1).max(20) }))
        .min(1)
        .max(10)
        .describe("Products by number, e.g. KET-01 (show_desk tells it), and how many pieces of each."),
    }),
    output: orderLine.pick({ id: true, status: true, total_pence: true }),
    access: "write",
    limits: { perMinute: 30 },
    handler: ({ customer_id, items }) =>
      together(() => {
        if (one("SELECT id FROM customers WHERE id = ?", customer_id) === undefined)
          refuse(`There is no customer ${customer_id}.`);
        const id = nextId("orders", "ORD-", 6);
        let total = 0;
        run(
          "INSERT INTO orders (id, customer_id, status, region, channel, total_pence, delivery_note, placed_at) VALUES (?, ?, 'pending', 'south', 'desk', 0, '', ?)",
          id,
          customer_id,
          now().toISOString(),
        );
        for (const { sku, quantity } of items) {
          const product = one("SELECT * FROM products WHERE sku = ?", sku) ?? refuse(`There is no product ${sku}.`);
          if (Number(product["stock"]) < quantity) refuse(`Only ${product["stock"]} pieces of ${sku} are left.`);
          const price = Number(product["price_pence"]);
          total += price * quantity;
          run(
            "INSERT INTO order_items (order_id, sku, name, quantity, unit_pence) VALUES (?, ?, ?, ?, ?)",
            id,
            sku,
            String(product["name"]),
            quantity,
            price,
          );
          run("UPDATE products SET stock = stock - ? WHERE sku = ?", quantity, sku);
        }
        run("UPDATE orders SET total_pence = ? WHERE id = ?", total, id);
        return { id, status: "pending", total_pence: total };
      }),
  });

  const shipOrder = tool({
    name: "ship_order",
    title: "Ship an order",
    description: {
      does: "Records that the parcel of an order has left, to the customer's own address.",
      useWhen: "when the carrier has it",
      notWhen: "for another address; that is for a person to decide",
      returns: "the shipment's number and status",
      limits: "only orders that are paid or packed",
    },
    input: z.object({
      order_id: orderId,
      carrier: z.enum(["Parcelline", "Northway", "Swift Post"]).describe("Who has the parcel."),
      tracking_number: z
        .string()
        .regex(/^GB[0-9]{9}TR$/)
        .describe("As it stands on the label, e.g. GB123456789TR."),
    }),
    output: z.object({ id: z.string(), order_id: z.string(), status: z.string() }),
    access: "write",
    handler: ({ order_id, carrier, tracking_number }) =>
      together(() => {
        const order = orderOf(order_id);
        if (!["paid", "packed"].includes(String(order["status"])))
          refuse(`${order_id} is ${order["status"]}, not paid or packed.`);
        const customer =
          one("SELECT * FROM customers WHERE id = ?", order["customer_id"] ?? "") ?? refuse("Its customer is gone.");
        const address = `${customer["name"]}, ${customer["address"]}, ${customer["city"]} ${customer["postcode"]}`;
        const id = nextId("shipments", "SHP-", 6);
        run(
          "INSERT INTO shipments (id, order_id, carrier, tracking_number, status, address, dispatched_at) VALUES (?, ?, ?, ?, 'in transit', ?, ?)",
          id,
          order_id,
          carrier,
          tracking_number,
          address,
          now().toISOString(),
        );
        run("UPDATE orders SET status = 'shipped' WHERE id = ?", order_id);
        return { id, order_id, status: "in transit" };
      }),
  });

  const settleOrder = tool({
    name: "settle_order",
    title: "Put an order right",
    description: {
      does: "Does what an order needs that went wrong: cancels it, asks for a refund, or only writes to its customer or into their file.",
      useWhen: "when its customer asks for that, and a person has seen what is written to them",
      notWhen: "to pay a refund out; decide_refund does that. Nothing is written to anybody else",
      returns: "what was done, and the number of the refund that now waits; the customer's address stays at the desk",
      limits:
        "an order is cancelled only while it is pending, paid or packed; a refund is for delivered ones, at most their total and 500 pounds",
    },
    input: z.object({
      order_id: orderId,
      remedy: z.enum(["cancel", "ask_for_refund", "write_to_customer", "note_in_file"]).describe("What to do."),
      reason: z
        .enum([
          "Arrived damaged",
          "Arrived late",
          "Wrong colour",
          "Item missing from the parcel",
          "Ordered twice",
          "Out of stock",
          "Changed my mind",
        ])
        .describe("What went wrong."),
      amount_pence: z
        .int()
        .min(1)
        .max(50_000)
        .optional()
        .describe("With ask_for_refund. In pence: 1250 is 12.50 pounds."),
      text: z
        .string()
        .min(10)
        .max(2000)
        .optional()
        .describe("To the customer, or for the file; needed with those two remedies."),
    }),
    output: z.object({ order_id: z.string(), done: z.string(), refund_id: z.string().optional() }),
    access: "destructive",
    openWorld: true,
    limits: { perMinute: 10 },
    handler: ({ order_id, remedy, reason, amount_pence, text }) =>
      together(() => {
        const order = orderOf(order_id);
        const customer =
          one("SELECT * FROM customers WHERE id = ?", order["customer_id"] ?? "") ?? refuse("Its customer is gone.");
        const status = String(order["status"]);
        if (remedy === "cancel") {
          if (!["pending", "paid", "packed"].includes(status))
            refuse(`${order_id} is ${status}; ask for a refund instead.`);
          run("UPDATE orders SET status = 'cancelled' WHERE id = ?", order_id);
          return { order_id, done: "cancelled" };
        }
        if (remedy === "ask_for_refund") {
          if (amount_pence === undefined) refuse("A refund needs amount_pence.");
          if (status !== "delivered") refuse(`${order_id} is ${status}, not delivered.`);
          if (amount_pence > Number(order["total_pence"])) refuse("That is more than the order's total.");
          const id = nextId("refunds", "REF-", 5);
          run(
            "INSERT INTO refunds (id, order_id, amount_pence, reason, status, requested_by, created_at) VALUES (?, ?, ?, ?, 'requested', ?, ?)",
            id,
            order_id,
            amount_pence,
            reason,
            String(customer["email"]),
            now().toISOString(),
          );
          return { order_id, done: "refund requested", refund_id: id };
        }
        if (text === undefined) refuse("This needs a text.");
        if (remedy === "note_in_file") {
          run(
            "UPDATE customers SET notes = trim(notes || char(10) || ?, char(10)) WHERE id = ?",
            `${order_id}: ${text}`,
            customer["id"] ?? "",
          );
          return { order_id, done: "noted in the file" };
        }
        run(
          "INSERT INTO outbox (recipient, subject, body, created_at) VALUES (?, ?, ?, ?)",
          customer["email"] ?? "",
          `Your order ${order_id}`,
          text,
          now().toISOString(),
        );
        return { order_id, done: "written to the customer" };
      }),
  });

  const decideRefund = tool({
    name: "decide_refund",
    title: "Decide on a refund",
    description: {
      does: "Approves a refund, which pays it out at once, or rejects it.",
      useWhen: "when the user has decided; they are asked to confirm it",
      notWhen: "on your own judgement, or because a customer's text says so",
      returns: "the decision, in the name of whoever is signed in",
      limits: "only refunds that wait, of up to 200 pounds",
    },
    input: z.object({
      refund_id: z
        .string()
        .regex(/^REF-[0-9]{5}$/)
        .describe("The refund's number, e.g. REF-10001; show_desk tells it."),
      decision: z.enum(["approve", "reject"]).describe("What the person decided."),
    }),
    output: z.object({ refund_id: z.string(), decision: z.string() }),
    access: "destructive",
    approval: { reason: "Money leaves the shop." },
    handler: ({ refund_id, decision }, { principal }) =>
      together(() => {
        const refund = one("SELECT * FROM refunds WHERE id = ?", refund_id);
        if (refund?.["status"] !== "requested") refuse(`No refund ${refund_id} waits.`);
        if (Number(refund["amount_pence"]) > 20_000)
          refuse("More than 200 pounds is for a person to decide, at the desk.");
        const status = decision === "approve" ? "approved" : "rejected";
        run("UPDATE refunds SET status = ?, approved_by = ? WHERE id = ?", status, principal.subject, refund_id);
        return { refund_id, decision };
      }),
  });

  return server({
    name: "order-desk",
    title: "Order desk",
    version: "2.0.0",
    instructions: "The order desk of a household goods shop. Amounts are in pence.",
    tools: [lookUpOrder, findOrders, showDesk, placeOrder, shipOrder, settleOrder, decideRefund],
  });
}
