/** Where in an author's own files something is declared. */
import { fileURLToPath } from "node:url";

/** `file:line` of the nearest caller outside of this folder; `unknown` when the stack does not tell. */
export function declaredAt(): string {
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = 12;
  const { stack = "" } = new Error();
  Error.stackTraceLimit = limit;
  for (const frame of stack.split("\n").slice(1)) {
    const [, url, line] = /\(?((?:file:\/\/)?[^\s()]+?):(\d+):\d+\)?$/.exec(frame) ?? [];
    if (url === undefined || url.startsWith("node:")) continue;
    const file = url.startsWith("file:") ? fileURLToPath(url.replace(/\?.*$/, "")) : url.replace(/\?.*$/, "");
    if (!file.startsWith(import.meta.dirname)) return `${file}:${line}`;
  }
  return "unknown";
}
