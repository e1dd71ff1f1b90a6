/** What stands between a store and its server, and stops answering on command. */
import { createServer, connect as dial, type Socket } from "node:net";
import { inspect } from "node:util";

export interface Line extends AsyncDisposable {
  readonly url: string;
  /** From now on nothing passes, in either direction, and nobody is told. */
  stall(): void;
  resume(): void;
}

/** A line to the server of `url`, with a URL of its own. */
export async function lineTo(url: string): Promise<Line> {
  const { hostname, port } = new URL(url);
  const sockets = new Set<Socket>();
  let stalled = false;
  const listener = createServer((client) => {
    const server = dial(Number(port), hostname);
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      sockets.add(from);
      if (stalled) from.pause();
      from.on("data", (chunk: Buffer) => to.write(chunk));
      from.on("error", () => to.destroy());
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const own = new URL(url);
  const address = listener.address();
  own.port = String(typeof address === "object" ? address?.port : "");
  return {
    url: own.href,
    stall() {
      stalled = true;
      for (const socket of sockets) socket.pause();
    },
    resume() {
      stalled = false;
      for (const socket of sockets) socket.resume();
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => listener.close(resolve));
    },
  };
}

/** Asks until it succeeds. */
export async function eventually<T>(ask: () => Promise<T>, withinMs = 30_000): Promise<T> {
  for (const end = Date.now() + withinMs; ; ) {
    try {
      return await ask();
    } catch (thrown) {
      if (Date.now() > end) throw thrown;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** All that a log could show of an error: message, detail, causes, properties. */
export function everythingOf(thrown: unknown): string {
  return inspect(thrown, { depth: 20, showHidden: true });
}

/** What a rejected promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error("it did not reject");
    },
    (thrown: unknown) => thrown,
  );
}
