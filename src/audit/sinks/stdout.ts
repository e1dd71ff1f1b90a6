/** Writes lines to standard output, for containers whose output is collected. It counts as sent when the operating system has it. */
import type { Sink } from "./sink.ts";

export interface LineOutput {
  write(text: string, done: (error?: Error | null) => void): unknown;
  on(event: "error", listener: () => void): unknown;
}

export function stdoutSink(output: LineOutput = process.stdout): Sink {
  if (!listened.has(output)) {
    listened.add(output);
    // A closed pipe is told to the write; unheard it would end the gateway.
    output.on("error", () => {});
  }
  return {
    most: { entries: 500, bytes: 1 << 20 },
    send: (entries, signal) =>
      new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(new Error("standard output takes nothing")), { once: true });
        output.write(entries.map(({ text }) => `${text}\n`).join(""), (error) =>
          error ? reject(error) : resolve(undefined),
        );
      }),
    close: async () => {},
  };
}

const listened = new WeakSet<LineOutput>();
