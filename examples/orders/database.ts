/** The order desk's SQLite file: made on first use, shared by as many processes as like. */
import { linkSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { generateDesk } from "./data.ts";

/**
 * Opens the database, and makes and fills it if there is none. Of several processes that start together one's file
 * wins, and it is whole from the first moment: it is written under another name and then linked to its own.
 */
export function openDatabase(file: string): DatabaseSync {
  mkdirSync(dirname(file), { recursive: true });
  try {
    return connect(file);
  } catch (thrown) {
    if ((thrown as { errcode?: number }).errcode !== SQLITE_CANTOPEN) throw thrown;
  }
  const draft = `${file}.${process.pid}.draft`;
  try {
    rmSync(draft, { force: true });
    fill(draft);
    linkSync(draft, file);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code !== "EEXIST") throw thrown;
  } finally {
    rmSync(draft, { force: true });
  }
  return connect(file);
}

const SQLITE_CANTOPEN = 14;

function connect(file: string): DatabaseSync {
  const database = new DatabaseSync(`${fileUrl(file)}?mode=rw`, { timeout: 5000 });
  database.exec("PRAGMA synchronous = NORMAL");
  return database;
}

function fileUrl(file: string): string {
  return `file:${encodeURI(file).replaceAll("?", "%3f").replaceAll("#", "%23")}`;
}

function fill(file: string): void {
  const database = new DatabaseSync(file);
  try {
    // Nobody else knows the file yet, so it needs no protection while it is written.
    database.exec(`PRAGMA synchronous = OFF; PRAGMA journal_mode = WAL; BEGIN; ${SCHEMA}`);
    for (const [table, rows] of Object.entries(generateDesk())) insertAll(database, table, rows);
    database.exec("COMMIT");
  } finally {
    database.close();
  }
}

function insertAll(database: DatabaseSync, table: string, rows: readonly Record<string, SQLInputValue>[]): void {
  const columns = Object.keys(rows[0] ?? {});
  const insert = database.prepare(
    `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${columns.map(() => "?").join(", ")})`,
  );
  for (const row of rows) insert.run(...columns.map((column) => row[column] ?? null));
}

const SCHEMA = `
  CREATE TABLE customers (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, phone TEXT, national_insurance_number TEXT, date_of_birth TEXT,
    address TEXT, city TEXT, postcode TEXT, tier TEXT NOT NULL DEFAULT 'standard', notes TEXT NOT NULL DEFAULT '', created_at TEXT NOT NULL
  );
  CREATE TABLE products (
    sku TEXT PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL, price_pence INTEGER NOT NULL, cost_pence INTEGER NOT NULL, stock INTEGER NOT NULL
  );
  CREATE TABLE orders (
    id TEXT PRIMARY KEY, customer_id TEXT NOT NULL, status TEXT NOT NULL, region TEXT NOT NULL, channel TEXT NOT NULL, total_pence INTEGER NOT NULL,
    payment_reference TEXT, delivery_note TEXT NOT NULL DEFAULT '', eta TEXT, placed_at TEXT NOT NULL
  );
  CREATE INDEX orders_by_customer ON orders (customer_id);
  CREATE TABLE order_items (
    id INTEGER PRIMARY KEY, order_id TEXT NOT NULL, sku TEXT NOT NULL, name TEXT NOT NULL, quantity INTEGER NOT NULL, unit_pence INTEGER NOT NULL
  );
  CREATE INDEX items_by_order ON order_items (order_id);
  CREATE TABLE shipments (
    id TEXT PRIMARY KEY, order_id TEXT NOT NULL, carrier TEXT NOT NULL, tracking_number TEXT NOT NULL, status TEXT NOT NULL, address TEXT NOT NULL,
    dispatched_at TEXT NOT NULL, delivered_at TEXT
  );
  CREATE TABLE refunds (
    id TEXT PRIMARY KEY, order_id TEXT NOT NULL, amount_pence INTEGER NOT NULL, reason TEXT NOT NULL, status TEXT NOT NULL,
    requested_by TEXT, approved_by TEXT, created_at TEXT NOT NULL
  );
  CREATE TABLE outbox (id INTEGER PRIMARY KEY, recipient TEXT NOT NULL, subject TEXT NOT NULL, body TEXT NOT NULL, created_at TEXT NOT NULL);
`;
