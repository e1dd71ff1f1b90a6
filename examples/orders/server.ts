/**
 * The order desk of a small household goods shop, as an MCP server over stdio: customers, orders, shipments, refunds.
 *
 *     node examples/orders/server.ts
 *
 * The database is $ORDERS_DB, or .drawbridge/orders.db in the working directory; it is made on first start.
 *
 * This is how many servers are first written: one tool for every query that somebody needed, strings for everything, whole
 * records back. It works. What is careless about it, and what a gateway in front can do, is in the README beside this file.
 */
import { resolve } from "node:path";
import type { SQLInputValue } from "node:sqlite";
import { McpServer, ResourceTemplate } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { z } from "zod";
import { openDatabase } from "./database.ts";

type Row = Record<string, unknown>;

const database = openDatabase(resolve(process.env["ORDERS_DB"] ?? ".drawbridge/orders.db"));

function query(sql: string): Row[] {
  try {
    return database.prepare(sql).all();
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.message : error} in: ${sql}`);
  }
}

function run(sql: string, ...values: SQLInputValue[]): void {
  database.prepare(sql).run(...values);
}

function find(table: string, id: string): Row {
  const row = query(`SELECT * FROM ${table} WHERE ${table === "products" ? "sku" : "id"} = '${id}'`)[0];
  if (!row) throw new Error(`No such row in ${table}: ${id}`);
  return row;
}

/** The next free number of a table, with its prefix. Run it inside `together`. */
function nextId(table: string, prefix: string, digits: number): string {
  const [row] = query(`SELECT max(CAST(substr(id, ${prefix.length + 1}) AS INTEGER)) AS last FROM ${table}`);
  return prefix + String(Number(row?.["last"] ?? 0) + 1).padStart(digits, "0");
}

/** Runs `work` as one transaction, so that two processes do not get in each other's way. */
function together<T>(work: () => T): T {
  database.exec("BEGIN IMMEDIATE");
  try {
    const result = work();
    database.exec("COMMIT");
    return result;
  } catch (error) {
    database.exec("ROLLBACK");
    throw error;
  }
}

function wholeOrder(id: string): Row {
  const order = find("orders", id);
  return {
    ...order,
    customer: query(`SELECT * FROM customers WHERE id = '${order["customer_id"]}'`)[0] ?? null,
    items: query(`SELECT * FROM order_items WHERE order_id = '${order["id"]}'`),
    shipments: query(`SELECT * FROM shipments WHERE order_id = '${order["id"]}'`),
    refunds: query(`SELECT * FROM refunds WHERE order_id = '${order["id"]}'`),
  };
}

function pence(pounds: string): number {
  return Math.round(Number(pounds) * 100);
}

const now = () => new Date().toISOString();
const json = (value: unknown) => JSON.stringify(value, null, 2);

function createServer(): McpServer {
  const server = new McpServer(
    { name: "order-desk", title: "Order desk", version: "1.0.0" },
    { instructions: "Full access to the order desk. Use run_sql for anything the other tools do not do." },
  );

  function tool<Shape extends z.ZodRawShape>(
    name: string,
    description: string,
    shape: Shape,
    work: (args: z.infer<z.ZodObject<Shape>>) => unknown,
  ): void {
    server.registerTool(name, { description, inputSchema: z.object(shape) as z.ZodObject }, (args) => {
      const answer = work(args as z.infer<z.ZodObject<Shape>>);
      return { content: [{ type: "text", text: typeof answer === "string" ? answer : json(answer) }] };
    });
  }
  const text = z.string();
  const optional = z.string().optional();

  // Customers

  tool("get_customer", "Get customer", { customer_id: text }, ({ customer_id }) => find("customers", customer_id));
  tool("list_customers", "List customers", { limit: optional, offset: optional }, ({ limit, offset }) =>
    query(`SELECT * FROM customers ORDER BY id LIMIT ${limit ?? 50} OFFSET ${offset ?? 0}`),
  );
  tool("search_customers", "Search customers by name, e-mail, phone or city", { query: text }, (args) =>
    query(
      `SELECT * FROM customers WHERE name LIKE '%${args.query}%' OR email LIKE '%${args.query}%' OR phone LIKE '%${args.query}%' OR city LIKE '%${args.query}%'`,
    ),
  );
  tool("create_customer", "Create customer", { name: text, email: text, phone: optional, address: optional }, (args) =>
    together(() => {
      const id = nextId("customers", "CUS-", 4);
      run(
        "INSERT INTO customers (id, name, email, phone, address, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        ...[id, args.name, args.email, args.phone ?? null, args.address ?? null, now()],
      );
      return find("customers", id);
    }),
  );
  tool(
    "update_customer_email",
    "Change a customer's e-mail",
    { customer_id: text, email: text },
    ({ customer_id, email }) => {
      run("UPDATE customers SET email = ? WHERE id = ?", email, customer_id);
      return find("customers", customer_id);
    },
  );
  tool(
    "update_customer_address",
    "Change a customer's address",
    { customer_id: text, address: text },
    ({ customer_id, address }) => {
      run("UPDATE customers SET address = ? WHERE id = ?", address, customer_id);
      return find("customers", customer_id);
    },
  );
  tool(
    "add_customer_note",
    "Add an internal note to a customer",
    { customer_id: text, note: text },
    ({ customer_id, note }) => {
      run("UPDATE customers SET notes = trim(notes || char(10) || ?, char(10)) WHERE id = ?", note, customer_id);
      return find("customers", customer_id);
    },
  );
  tool("delete_customer", "Delete customer", { customer_id: text }, ({ customer_id }) => {
    const customer = find("customers", customer_id);
    run("DELETE FROM customers WHERE id = ?", customer_id);
    return { deleted: customer };
  });
  tool("export_customers", "Export all customers as CSV", {}, () => {
    const rows = query("SELECT * FROM customers ORDER BY id");
    const cell = (value: unknown) => `"${String(value ?? "").replaceAll('"', '""')}"`;
    return [Object.keys(rows[0] ?? {}), ...rows.map((row) => Object.values(row))]
      .map((line) => line.map(cell).join(","))
      .join("\n");
  });

  // Orders

  tool(
    "get_order",
    "Get order with customer, items, shipments, refunds",
    { order_id: text, region: optional, verbose: z.boolean().optional() },
    ({ order_id, region, verbose }) => {
      const order = wholeOrder(order_id);
      if (region && order["region"] !== region)
        throw new Error(`${order_id} is in region ${order["region"]}, not ${region}`);
      if (!verbose) return order;
      return {
        ...order,
        other_orders: query(
          `SELECT * FROM orders WHERE customer_id = '${order["customer_id"]}' AND id <> '${order["id"]}'`,
        ),
      };
    },
  );
  tool(
    "list_orders",
    "List orders, newest first",
    { status: optional, limit: optional, offset: optional },
    ({ status, limit, offset }) =>
      query(
        `SELECT * FROM orders ${status ? `WHERE status = '${status}'` : ""} ORDER BY placed_at DESC LIMIT ${limit ?? 50} OFFSET ${offset ?? 0}`,
      ),
  );
  tool(
    "search_orders",
    "Search orders by any SQL condition, e.g. total_pence > 10000 AND status = 'paid'",
    { where: text },
    ({ where }) =>
      query(`SELECT o.*, c.* FROM orders o JOIN customers c ON c.id = o.customer_id WHERE ${where} LIMIT 200`),
  );
  tool("get_customer_orders", "All orders of a customer", { customer_id: text }, ({ customer_id }) =>
    query(`SELECT * FROM orders WHERE customer_id = '${customer_id}' ORDER BY placed_at DESC`),
  );
  tool(
    "create_order",
    "Create an empty order for a customer",
    { customer_id: text, delivery_note: optional },
    ({ customer_id, delivery_note }) =>
      together(() => {
        find("customers", customer_id);
        const id = nextId("orders", "ORD-", 6);
        run(
          "INSERT INTO orders (id, customer_id, status, region, channel, total_pence, delivery_note, placed_at) VALUES (?, ?, 'pending', 'south', 'desk', 0, ?, ?)",
          ...[id, customer_id, delivery_note ?? "", now()],
        );
        return wholeOrder(id);
      }),
  );
  tool(
    "add_order_item",
    "Add item to order. Price in pounds, leave out for the list price",
    { order_id: text, sku: text, quantity: text, price: optional },
    ({ order_id, sku, quantity, price }) =>
      together(() => {
        const product = find("products", sku);
        const unit = price === undefined ? Number(product["price_pence"]) : pence(price);
        run(
          "INSERT INTO order_items (order_id, sku, name, quantity, unit_pence) VALUES (?, ?, ?, ?, ?)",
          ...[order_id, sku, String(product["name"]), Number(quantity), unit],
        );
        run("UPDATE orders SET total_pence = total_pence + ? WHERE id = ?", unit * Number(quantity), order_id);
        return wholeOrder(order_id);
      }),
  );
  tool("update_order_status", "Set order status", { order_id: text, status: text }, ({ order_id, status }) => {
    run("UPDATE orders SET status = ? WHERE id = ?", status, order_id);
    return wholeOrder(order_id);
  });
  tool("cancel_order", "Cancel order", { order_id: text, reason: optional }, ({ order_id, reason }) => {
    run(
      "UPDATE orders SET status = 'cancelled', delivery_note = delivery_note || ? WHERE id = ?",
      reason ? ` Cancelled: ${reason}` : "",
      order_id,
    );
    return wholeOrder(order_id);
  });

  // Shipments

  tool("get_shipment", "Get shipment", { shipment_id: text }, ({ shipment_id }) => find("shipments", shipment_id));
  tool("list_shipments", "List shipments", { status: optional, limit: optional }, ({ status, limit }) =>
    query(
      `SELECT * FROM shipments ${status ? `WHERE status = '${status}'` : ""} ORDER BY dispatched_at DESC LIMIT ${limit ?? 50}`,
    ),
  );
  tool(
    "create_shipment",
    "Ship an order",
    { order_id: text, carrier: text, tracking_number: text, address: optional },
    (args) =>
      together(() => {
        const customer = (wholeOrder(args.order_id)["customer"] ?? {}) as Row;
        const address =
          args.address ?? `${customer["name"]}, ${customer["address"]}, ${customer["city"]} ${customer["postcode"]}`;
        const id = nextId("shipments", "SHP-", 6);
        run(
          "INSERT INTO shipments (id, order_id, carrier, tracking_number, status, address, dispatched_at) VALUES (?, ?, ?, ?, 'in transit', ?, ?)",
          ...[id, args.order_id, args.carrier, args.tracking_number, address, now()],
        );
        run("UPDATE orders SET status = 'shipped' WHERE id = ?", args.order_id);
        return find("shipments", id);
      }),
  );
  tool(
    "update_shipment_address",
    "Redirect a shipment",
    { shipment_id: text, address: text },
    ({ shipment_id, address }) => {
      run("UPDATE shipments SET address = ? WHERE id = ?", address, shipment_id);
      return find("shipments", shipment_id);
    },
  );

  // Refunds

  tool("list_refunds", "List refunds", { status: optional }, ({ status }) =>
    query(
      `SELECT r.*, c.* , r.id AS refund_id FROM refunds r JOIN orders o ON o.id = r.order_id JOIN customers c ON c.id = o.customer_id ${status ? `WHERE r.status = '${status}'` : ""}`,
    ),
  );
  tool(
    "create_refund",
    "Request refund. Amount in pounds",
    { order_id: text, amount: text, reason: text },
    ({ order_id, amount, reason }) =>
      together(() => {
        const order = wholeOrder(order_id);
        const id = nextId("refunds", "REF-", 5);
        run(
          "INSERT INTO refunds (id, order_id, amount_pence, reason, status, requested_by, created_at) VALUES (?, ?, ?, ?, 'requested', ?, ?)",
          ...[id, order_id, pence(amount), reason, String(((order["customer"] ?? {}) as Row)["email"] ?? ""), now()],
        );
        return find("refunds", id);
      }),
  );
  tool(
    "approve_refund",
    "Approve refund and pay it out",
    { refund_id: text, approved_by: text },
    ({ refund_id, approved_by }) => {
      run("UPDATE refunds SET status = 'approved', approved_by = ? WHERE id = ?", approved_by, refund_id);
      return find("refunds", refund_id);
    },
  );
  tool("reject_refund", "Reject refund", { refund_id: text }, ({ refund_id }) => {
    run("UPDATE refunds SET status = 'rejected' WHERE id = ?", refund_id);
    return find("refunds", refund_id);
  });

  // The rest

  tool("list_products", "List products with prices, costs and stock", {}, () =>
    query("SELECT * FROM products ORDER BY sku"),
  );
  tool("adjust_stock", "Change stock by a number, e.g. -3", { sku: text, by: text }, ({ sku, by }) => {
    run("UPDATE products SET stock = stock + ? WHERE sku = ?", Number(by), sku);
    return find("products", sku);
  });
  tool(
    "sales_report",
    "Sales per day, week or month (strftime format)",
    { period: optional, since: optional },
    ({ period, since }) =>
      query(
        `SELECT strftime('${period ?? "%Y-%m"}', placed_at) AS period, count(*) AS orders, sum(total_pence) AS total_pence FROM orders WHERE status <> 'cancelled' AND placed_at >= '${since ?? ""}' GROUP BY 1 ORDER BY 1`,
      ),
  );
  tool("email_customer", "Send an e-mail", { to: text, subject: text, body: text }, ({ to, subject, body }) => {
    run("INSERT INTO outbox (recipient, subject, body, created_at) VALUES (?, ?, ?, ?)", to, subject, body, now());
    return `Queued for ${to}`;
  });
  tool("run_sql", "Run any SQL statement against the database", { sql: text }, ({ sql }) => query(sql));

  // Resources

  server.registerResource(
    "recent",
    "orders://recent",
    { title: "Recent orders", mimeType: "application/json" },
    (uri) => {
      const recent = query(
        "SELECT o.*, c.name, c.email, c.phone FROM orders o JOIN customers c ON c.id = o.customer_id ORDER BY placed_at DESC LIMIT 20",
      );
      return { contents: [{ uri: uri.href, mimeType: "application/json", text: json(recent) }] };
    },
  );
  const everyCustomer = () => ({
    resources: query("SELECT * FROM customers ORDER BY id").map((customer) => ({
      uri: `customers://${customer["id"]}`,
      name: String(customer["name"]),
      description: `${customer["email"]}, ${customer["phone"]}`,
    })),
  });
  server.registerResource(
    "customer",
    new ResourceTemplate("customers://{id}", { list: everyCustomer }),
    { title: "A customer", mimeType: "application/json" },
    (uri, { id }) => {
      const customer = {
        ...find("customers", String(id)),
        orders: query(`SELECT * FROM orders WHERE customer_id = '${id}'`),
      };
      return { contents: [{ uri: uri.href, mimeType: "application/json", text: json(customer) }] };
    },
  );

  // Prompts

  server.registerPrompt(
    "draft_apology",
    {
      description: "Draft an apology for an order that went wrong",
      argsSchema: z.object({ order_id: text, what_happened: optional }),
    },
    ({ order_id, what_happened }) => {
      const order = wholeOrder(order_id);
      const task = `Write a short, warm apology to the customer of this order. ${what_happened ? `What happened: ${what_happened}. ` : ""}Offer a refund if it fits.`;
      return { messages: [{ role: "user", content: { type: "text", text: `${task}\n\n${json(order)}` } }] };
    },
  );
  server.registerPrompt("daily_summary", { description: "Summarise what needs attention today" }, () => {
    const open = query("SELECT * FROM orders WHERE status IN ('pending', 'paid', 'packed') ORDER BY placed_at");
    const refunds = query("SELECT * FROM refunds WHERE status = 'requested'");
    const task = "Summarise the open orders and the refunds that wait for a decision, the most urgent first.";
    return { messages: [{ role: "user", content: { type: "text", text: `${task}\n\n${json({ open, refunds })}` } }] };
  });

  return server;
}

serveStdio(createServer);
