/** Cuts a byte stream into lines without copying what has come before: chunks are kept until their line is whole, then decoded at once. */

const NEWLINE = 10;

/**
 * Returns a function to feed chunks to. Each whole line that is not blank goes to `onLine`, without its ending. A line of more
 * than `maxBytes` ends the reading: `onTooLong` is called once, and nothing after it is kept or reported.
 */
export function lineReader(
  maxBytes: number,
  onLine: (line: string) => void,
  onTooLong: () => void,
): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let held = 0;
  let over = false;

  const tooLong = () => {
    over = true;
    parts = [];
    onTooLong();
  };
  const emit = (line: string, mayBeLong: boolean) => {
    if (over) return;
    if (mayBeLong && Buffer.byteLength(line) > maxBytes) return tooLong();
    const text = line.endsWith("\r") ? line.slice(0, -1) : line;
    if (text.length > 0) onLine(text);
  };

  return (chunk) => {
    if (over) return;
    const end = chunk.lastIndexOf(NEWLINE);
    if (end < 0) {
      parts.push(chunk);
      held += chunk.length;
      if (held > maxBytes) tooLong();
      return;
    }
    const head = chunk.subarray(0, end);
    const whole = parts.length === 0 ? head : Buffer.concat([...parts, head]);
    const tail = chunk.subarray(end + 1);
    parts = tail.length === 0 ? [] : [tail];
    held = tail.length;
    // A newline byte is never part of a longer UTF-8 sequence, so all whole lines are decoded in one go.
    const text = whole.toString("utf8");
    const mayBeLong = whole.length > maxBytes;
    let start = 0;
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", start)) {
      emit(text.slice(start, at), mayBeLong);
      start = at + 1;
    }
    emit(start === 0 ? text : text.slice(start), mayBeLong);
    if (held > maxBytes && !over) tooLong();
  };
}
