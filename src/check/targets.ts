/** What can be checked: lists of tools, with what is known of the servers that they came from. */
import { z } from "zod";
import type { JsonObject, JsonValue } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { isObject } from "../inspect/parameters.ts";
import type { InspectedServer, SetFinding } from "../inspect/set-rule.ts";

export interface Target {
  /** What reports call it: a file, a command. */
  readonly name: string;
  readonly servers: readonly InspectedServer[];
  /** Servers that could not be read, and why. */
  readonly unread?: readonly { readonly server: string; readonly problem: string }[];
  /** What was found by asking running servers. */
  readonly probed?: readonly SetFinding[];
  /** What could not be looked at, in sentences. */
  readonly untested?: readonly string[];
}

/** A list of more tools than this is not read. */
const MAX_TOOLS = 100_000;

/** What is no object is no tool, and is judged by what it says all the same: a report has one line for each entry. */
const entry = z.unknown().transform((one): JsonObject => {
  if (isObject(one)) return one;
  return one === null || one === undefined ? {} : { "": one as JsonValue };
});
const list = z.object({ tools: z.array(entry).max(MAX_TOOLS) });
/** `{tools}`, the result of `tools/list`, its whole JSON-RPC answer, or a bare array of tools. */
const file = z.union([
  list,
  z.object({ result: list }).transform(({ result }) => result),
  z
    .array(z.record(z.string(), z.unknown()).transform((one) => one as JsonObject))
    .max(MAX_TOOLS)
    .transform((tools) => ({ tools })),
]);

/** Reads a file of tools. `name` is what messages call it. */
export function readTools(text: string, name: string): Target {
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\ufeff/, ""));
  } catch (cause) {
    throw new DrawbridgeError(
      "settings_invalid",
      `${name} is no JSON. Give it the answer to tools/list, {"tools": […]}.`,
      { cause },
    );
  }
  const read = file.safeParse(value);
  if (!read.success)
    throw new DrawbridgeError(
      "settings_invalid",
      `${name} holds no list of tools. Give it the answer to tools/list, {"tools": […]}.`,
      { detail: z.prettifyError(read.error) },
    );
  return { name, servers: [{ name: "", tools: read.data.tools }] };
}
