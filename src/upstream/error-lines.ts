/** What is kept of a stream of complaints (stderr): lines, of which a flood loses its middle and never its end. */
import { type Stopwatch, stopwatch } from "./exchange.ts";

export interface ErrorLines {
  push(chunk: Buffer): void;
  /** Nothing more comes. */
  end(): void;
}

/** Characters of a line. */
const MAX_LINE = 1_000;
/** Bytes that are read in each second; more are counted, and all but the last forgotten. */
const MAX_BYTES = 64 << 10;
const LAST_BYTES = 1 << 10;
const SECOND_MS = 1_000;

/** Each line that is not blank goes to `onLine`, cut where it is too long. Holds some kilobytes at most, whatever comes. */
export function errorLines(onLine: (line: string) => void, now: Stopwatch = stopwatch): ErrorLines {
  let decoder = new TextDecoder();
  let held = "";
  let secondAt = Number.NEGATIVE_INFINITY;
  let read = 0;
  let unread = 0;
  let last: Buffer = Buffer.alloc(0);

  function report(text: string): void {
    const lines = (held + text).split("\n");
    held = (lines.pop() ?? "").slice(0, MAX_LINE);
    for (const line of lines) say(line);
  }
  function say(line: string): void {
    if (line.trim() !== "") onLine(line.slice(0, MAX_LINE).trimEnd());
  }
  /** Tells what was left out, and reads the end of it. */
  function catchUp(): void {
    if (unread === 0) return;
    say(held);
    held = "";
    if (unread > last.length) say(`[${unread - last.length} bytes left out]`);
    decoder = new TextDecoder();
    report(decoder.decode(last, { stream: true }));
    unread = 0;
    last = Buffer.alloc(0);
  }

  return {
    push(chunk) {
      const time = now();
      if (time - secondAt >= SECOND_MS) {
        secondAt = time;
        read = 0;
        catchUp();
      }
      if (read < MAX_BYTES) {
        read += chunk.length;
        report(decoder.decode(chunk, { stream: true }));
        return;
      }
      unread += chunk.length;
      last = Buffer.from(Buffer.concat([last, chunk.subarray(-LAST_BYTES)]).subarray(-LAST_BYTES));
    },
    end() {
      catchUp();
      report(`${decoder.decode()}\n`);
    },
  };
}
