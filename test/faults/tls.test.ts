/** A server whose TLS handshake is reset, or never goes on. */
import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { expect, test } from "vitest";
import { waitFor } from "../fixtures/processes.ts";
import { codeOf, end, http, ignored, never, toolCall } from "../upstream/support.ts";
import { handles, nothingMoreThan } from "./leftovers.ts";

interface Row {
  readonly what: string;
  readonly codes: readonly string[];
  greet(socket: Socket): void;
}
const ROWS: readonly Row[] = [
  {
    what: "resets",
    codes: ["upstream_unavailable"],
    greet(socket) {
      socket.once("data", () => socket.resetAndDestroy());
    },
  },
  {
    what: "does not answer",
    codes: ["upstream_timeout", "upstream_unavailable"],
    greet(socket) {
      socket.resume();
    },
  },
];

test.each(ROWS)(
  "a server that $what the TLS handshake refuses each call once, and leaves no connection",
  async ({ codes, greet }) => {
    const before = handles();
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {}).on("close", () => sockets.delete(socket));
      greet(socket);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/mcp`;
    const { upstream } = http(url, { timeoutSeconds: 2, startTimeoutSeconds: 2, healthSeconds: 0 });
    try {
      const ends = await Promise.all(
        Array.from({ length: 20 }, () => codeOf(upstream.send(toolCall("echo"), ignored, never))),
      );
      expect(ends.filter((code) => !codes.includes(String(code)))).toEqual([]);
      expect(upstream.state()).toMatchObject({ inFlight: 0, queued: 0 });
    } finally {
      await end(upstream);
      for (const socket of sockets) socket.destroy();
      server.close();
    }
    await waitFor(() => nothingMoreThan(before), 60_000);
  },
  120_000,
);
