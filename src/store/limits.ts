/** What every backend refuses alike, so that a caller's mistake fails in tests as it would in production. */
import { DrawbridgeError } from "../core/errors.ts";
import type { AuditQuery, Page } from "./ports.ts";

const MAX_ROWS = 1000;

/** Throws `internal` unless 1 to 1000 rows are asked for. */
export function checkPage(page: Page | AuditQuery): void {
  if (Number.isInteger(page.limit) && page.limit >= 1 && page.limit <= MAX_ROWS) return;
  throw new DrawbridgeError("internal", "The gateway could not complete the request.", {
    detail: `a page of ${page.limit} rows was asked of the store; ask for 1 to ${MAX_ROWS}`,
  });
}

/** The JSON text of `value`. Throws `internal` for what JSON cannot hold. */
export function valueText(kind: string, value: unknown): string {
  const text = JSON.stringify(value);
  if (text !== undefined) return text;
  throw new DrawbridgeError("internal", "The gateway could not complete the request.", {
    detail: `a value of kind ${kind} is not JSON (${typeof value}); store an object, a list, a text, a number, a truth value or null`,
  });
}
