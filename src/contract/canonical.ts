/** The hash of a JSON text that is the same for the same value, whatever the order of keys and the spaces between (RFC 8785). */
import { hash } from "node:crypto";
import canonicalize from "canonicalize";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { isDoubtful } from "./exact.ts";

/**
 * SHA-256 over the canonical form, as `sha256:<hex>`. Numbers that a double cannot hold, which RFC 8785 would make one of, stay
 * different. Throws an `Error` for a text that is no JSON or has no canonical form (halves of surrogate pairs).
 */
export function canonicalHash(json: string): string {
  const exact = isDoubtful(json);
  const form = canonicalize(exact ? marked(json) : (JSON.parse(json) as JsonValue));
  return `sha256:${hash("sha256", `${exact ? "exact\n" : ""}${form ?? ""}`, "hex")}`;
}

/** Every number as the text that it was written as, and every string such that it cannot be taken for one. */
function marked(json: string): JsonValue {
  const mark = (_key: string, value: JsonValue, { source }: { readonly source?: string }): JsonValue =>
    typeof value === "number" ? `n${source ?? value}` : typeof value === "string" ? `s${value}` : value;
  return JSON.parse(json, mark as (key: string, value: JsonValue) => JsonValue) as JsonObject;
}
