/**
 * The order desk as a server: alone over stdio (`node examples/orders-safe/server.ts`), or inside the gateway by `drawbridge.yaml`
 * beside this file. The database is $ORDERS_DB, or .drawbridge/orders.db in the working directory.
 */
import { resolve } from "node:path";
import type { DatabaseSync } from "node:sqlite";
import { openDatabase } from "../orders/database.ts";
import { orderDesk } from "./desk.ts";

let database: DatabaseSync | undefined;

export const desk = orderDesk(() => {
  database ??= openDatabase(resolve(process.env["ORDERS_DB"] ?? ".drawbridge/orders.db"));
  return database;
});

if (import.meta.main) await desk.stdio();
