/** HTTP to another process of ours on this machine: answers are handed on as they come, and nothing beyond loopback is ever asked. */
import { Agent, fetch as undiciFetch } from "undici";
import { DrawbridgeError } from "../core/errors.ts";

export interface Loopback {
  /** Redirects are answered as they came. Rejects with `outbound_refused`, `upstream_unavailable`, or the reason of `init.signal`. */
  fetch(url: string | URL, init: RequestInit & { readonly signal: AbortSignal }): Promise<Response>;
  close(): Promise<void>;
}

const HOSTS: ReadonlySet<string> = new Set(["127.0.0.1", "[::1]"]);
const CONNECT_MS = 2_000;

/** There is no time limit but that of each request's signal: an answer may wait for a person. */
export function loopback(): Loopback {
  const agent = new Agent({ connect: { timeout: CONNECT_MS }, headersTimeout: 0, bodyTimeout: 0 });
  return {
    async fetch(address, init) {
      const url = new URL(address);
      if (url.protocol !== "http:" || !HOSTS.has(url.hostname))
        throw new DrawbridgeError("outbound_refused", `${url.origin} is not on this machine.`);
      try {
        const options = { ...init, redirect: "manual", dispatcher: agent } as Parameters<typeof undiciFetch>[1];
        return (await undiciFetch(url, options)) as unknown as Response;
      } catch (cause) {
        init.signal.throwIfAborted();
        throw new DrawbridgeError("upstream_unavailable", `${url.host} did not answer.`, { cause });
      }
    },
    // What is under way would hold it up for ever.
    close: () => agent.destroy(),
  };
}
