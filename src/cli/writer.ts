/** Long outputs: written no faster than they are read. */
import { Ended, EXIT } from "./main.ts";
import type { Terminal } from "./terminal.ts";

export type Write = (text: string) => Promise<void>;

/** Writes, and waits while the reader is slow. Ends the command when there is no reader any more (`| head`). */
export function writer({ stdout }: Terminal): Write {
  let gone = false;
  const lost = new Promise<void>((resolve) => {
    stdout.once?.("error", () => {
      gone = true;
      resolve();
    });
  });
  return async (text) => {
    if (text !== "" && !gone && stdout.write(text) === false && stdout.once !== undefined) {
      await Promise.race([lost, new Promise<void>((resolve) => stdout.once?.("drain", resolve))]);
    }
    if (gone) throw new Ended(EXIT.ok);
  };
}
