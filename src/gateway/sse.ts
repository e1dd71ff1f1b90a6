/** Event streams on an HTTP response: the head, and writing within bounds. */
import type { ServerResponse } from "node:http";

/** How often a quiet stream gets a comment, so that nothing on the way takes it for dead. */
export const KEEP_ALIVE_MS = 15_000;
/** A client that does not read this much is cut off, so that it cannot fill our memory. */
const MAX_UNREAD_BYTES = 4 << 20;

/** Sends the head of an SSE answer; proxies are told not to hold it back. */
export function startSse(response: ServerResponse, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(200, {
    "content-type": "text/event-stream",
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
    ...headers,
  });
  response.flushHeaders();
}

/** Writes events; a client that leaves too much unread is cut off. */
export function writeSse(response: ServerResponse, text: string): void {
  if (response.writableLength > MAX_UNREAD_BYTES) response.destroy();
  else response.write(text);
}
