/** Reads the heap of a running Node process through its inspector: forced collections need no hook in what is measured. */
import type { Running } from "./processes.ts";

/** Makes Node open an inspector on a free loopback port and print its address. */
export const INSPECTED: readonly string[] = ["--inspect=127.0.0.1:0"];

/** Bytes of live objects, after collections until two readings agree within half a percent. */
export async function heapAfterCollection(server: Running): Promise<number> {
  const address = /Debugger listening on (ws:\S+)/.exec(server.output())?.[1];
  if (address === undefined) throw new Error(`${server.name} was started without an inspector.`);
  const socket = new WebSocket(address);
  try {
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve, { once: true });
      socket.addEventListener("error", () => reject(new Error(`${server.name}'s inspector refused.`)), { once: true });
    });
    let last = Number.POSITIVE_INFINITY;
    for (let tries = 0; tries < 10; tries += 1) {
      await ask(socket, "HeapProfiler.collectGarbage");
      const { usedSize = Number.NaN } = await ask(socket, "Runtime.getHeapUsage");
      if (Math.abs(usedSize - last) < 0.005 * usedSize) return Math.min(last, usedSize);
      last = usedSize;
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    return last;
  } finally {
    socket.close();
  }
}

let lastId = 0;

function ask(socket: WebSocket, method: string): Promise<{ readonly usedSize?: number }> {
  lastId += 1;
  const id = lastId;
  return new Promise((resolve, reject) => {
    const tooLate = setTimeout(() => reject(new Error(`${method} took longer than 30 s.`)), 30_000);
    const listen = ({ data }: MessageEvent): void => {
      const message = JSON.parse(String(data)) as { id?: number; result?: { usedSize?: number } };
      if (message.id !== id) return;
      clearTimeout(tooLate);
      socket.removeEventListener("message", listen);
      resolve(message.result ?? {});
    };
    socket.addEventListener("message", listen);
    socket.send(JSON.stringify({ id, method }));
  });
}
