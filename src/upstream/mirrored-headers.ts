/** Request headers that repeat parts of the body (2026-07-28 transports, Request Metadata): `Mcp-Name` and `Mcp-Param-*`. */
import type { JsonObject, McpCall } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { decodedHeader, type Headers } from "../mcp/inbound.ts";
import { isObject } from "../mcp/json-text.ts";

/** Parameters of one tool that its server wants repeated: header name → where the value is in the arguments. */
export type MirroredParameters = readonly { readonly header: string; readonly path: readonly string[] }[];

/** Value Encoding: what is not plain visible ASCII, or looks like the encoded form, travels as Base64. */
export function headerValue(value: string): string {
  const plain =
    /^[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?$/.test(value) &&
    !(value.startsWith("=?base64?") && value.endsWith("?="));
  return plain ? value : `=?base64?${Buffer.from(value).toString("base64")}?=`;
}

/** `Mcp-Name` of a call; undefined for methods that have none. */
export function nameHeader(call: McpCall): string | undefined {
  const member =
    call.method === "tools/call" || call.method === "prompts/get"
      ? "name"
      : call.method === "resources/read"
        ? "uri"
        : call.method.startsWith("tasks/")
          ? "taskId"
          : undefined;
  const text = member === undefined ? undefined : call.forward.get(member);
  if (text === undefined) return undefined;
  const name: unknown = JSON.parse(text);
  return typeof name === "string" ? headerValue(name) : undefined;
}

/** `Mcp-Param-*` of a tool call, taken from what is really sent. A missing or null value has no header. */
export function parameterHeaders(call: McpCall, parameters: MirroredParameters): string[] {
  const text = call.forward.get("arguments");
  if (text === undefined || parameters.length === 0) return [];
  const args: unknown = JSON.parse(text);
  const headers: string[] = [];
  for (const { header, path } of parameters) {
    const value = valueAt(args, path);
    if (typeof value === "string") headers.push(header, headerValue(value));
    else if (typeof value === "boolean" || typeof value === "number") headers.push(header, String(value));
  }
  return headers;
}

/**
 * Checks what a client repeated of the arguments (Server Behavior for Custom Headers). Throws `header_mismatch` for a header that
 * is missing, malformed, or says something else than the body.
 */
export function mustMirror(headers: Headers, args: JsonObject, parameters: MirroredParameters): void {
  for (const { header, path } of parameters) {
    const value = valueAt(args, path);
    const sent = headers[header];
    // A value of another type cannot be put into a header; that it does not fit the schema is said later, and better.
    const expected = typeof value === "string" || typeof value === "boolean" || Number.isSafeInteger(value);
    if (sent === undefined && !expected) continue;
    const told = typeof sent === "string" ? decodedHeader(sent.trim()) : undefined;
    if (expected && told !== undefined && says(told, value)) continue;
    throw new DrawbridgeError(
      "header_mismatch",
      `Header mismatch: ${header} ${sent === undefined ? "is missing" : "differs from the body"}. Ask for tools/list again and repeat ${path.join(".")} in this header.`,
    );
  }
}

/** Integers are compared as numbers: 42.0 is 42. */
function says(told: string, value: unknown): boolean {
  return typeof value === "number" ? /^-?\d+(\.0+)?$/.test(told) && Number(told) === value : told === String(value);
}

function valueAt(args: unknown, path: readonly string[]): unknown {
  let value = args;
  for (const key of path) value = isObject(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  return value;
}

/**
 * Finds the `x-mcp-header` annotations of a tool. Returns a reason instead when one of them breaks the rules: such a tool must
 * not be offered (Schema Extension).
 */
export function mirroredParameters(inputSchema: unknown): MirroredParameters | string {
  const found: { header: string; path: string[] }[] = [];
  const names = new Set<string>();

  function walk(schema: JsonObject, path: string[]): string | undefined {
    const name = schema["x-mcp-header"];
    if (name !== undefined) {
      if (typeof name !== "string" || !TOKEN.test(name)) return `${JSON.stringify(name)} is no header name`;
      if (path.length === 0 || !PRIMITIVES.has(String(schema["type"])))
        return `${name} is not on a string, integer or boolean`;
      if (names.has(name.toLowerCase())) return `${name} is there twice`;
      names.add(name.toLowerCase());
      found.push({ header: `mcp-param-${name.toLowerCase()}`, path });
    }
    for (const [key, value] of Object.entries(schema)) {
      if (key === "properties" && isObject(value)) {
        for (const [property, inner] of Object.entries(value)) {
          const problem = isObject(inner) ? walk(inner, [...path, property]) : undefined;
          if (problem !== undefined) return problem;
        }
      } else if (!DATA.has(key) && mentions(value)) {
        return `an annotation within ${key} cannot be reached by properties alone`;
      }
    }
    return undefined;
  }
  return isObject(inputSchema) ? (walk(inputSchema, []) ?? found) : found;
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/;
const PRIMITIVES = new Set(["string", "integer", "boolean"]);
/** Keywords whose values are data and not schemas. */
const DATA = new Set(["default", "const", "enum", "examples", "x-mcp-header"]);

function mentions(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(mentions);
  return isObject(value) && (value["x-mcp-header"] !== undefined || Object.values(value).some(mentions));
}
