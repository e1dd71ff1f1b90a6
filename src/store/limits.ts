/** What every backend refuses alike, so that a caller's mistake fails in tests as it would in production. */
import { DrawbridgeError } from "../core/errors.ts";
import type { AuditQuery, AuditRow, Page, PutOptions } from "./ports.ts";

const MAX_ROWS = 1000;
/** Of a row's kind and id together, and of an index's name and value: what the narrowest backend (a PostgreSQL B-tree) can hold. */
const MAX_KEY_BYTES = 2048;

/** Throws `internal` unless 1 to 1000 rows are asked for. */
export function checkPage(page: Page | AuditQuery): void {
  if (Number.isInteger(page.limit) && page.limit >= 1 && page.limit <= MAX_ROWS) return;
  throw new DrawbridgeError("internal", "The gateway could not complete the request.", {
    detail: `a page of ${page.limit} rows was asked of the store; ask for 1 to ${MAX_ROWS}`,
  });
}

/** Throws `internal` for a row that some backend could not find again. */
export function checkKeys(kind: string, id: string, index: PutOptions["index"] = {}): void {
  const long = [[kind, id], ...Object.entries(index)].find(
    (parts) => Buffer.byteLength(parts.join("")) > MAX_KEY_BYTES,
  );
  if (long === undefined) return;
  throw new DrawbridgeError("internal", "The gateway could not complete the request.", {
    detail: `a row of kind ${kind.slice(0, 100)} has a name of more than ${MAX_KEY_BYTES} bytes; store a digest of it instead`,
  });
}

/** Throws `internal` for a record that some backend could not keep or find, before any of its batch is written. */
export function checkAuditRows(rows: readonly AuditRow[]): void {
  for (const { id, at, json } of rows) {
    if (Number.isFinite(at) && !json.includes("\u0000")) continue;
    throw new DrawbridgeError("internal", "The gateway could not complete the request.", {
      detail: `audit record ${id.slice(0, 100)} ${Number.isFinite(at) ? "is not JSON text" : "has no time"}`,
    });
  }
}

/** The JSON text of `value`. Throws `internal` for what JSON cannot hold. */
export function valueText(kind: string, value: unknown): string {
  const text = JSON.stringify(value);
  if (text !== undefined) return text;
  throw new DrawbridgeError("internal", "The gateway could not complete the request.", {
    detail: `a value of kind ${kind} is not JSON (${typeof value}); store an object, a list, a text, a number, a truth value or null`,
  });
}
