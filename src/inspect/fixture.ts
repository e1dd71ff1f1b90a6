/** Definitions for the examples that each rule carries. */
import type { JsonObject } from "../core/call.ts";

/** A tool that says this of itself. */
export function saying(description: string, properties: JsonObject = {}, more: JsonObject = {}): JsonObject {
  return { name: "example", description, inputSchema: { type: "object", properties }, ...more };
}
