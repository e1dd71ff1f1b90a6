/** Reads server-sent events (WHATWG HTML, 9.2 Server-sent events) from chunks, without a stream object. */

export interface ServerSentEvent {
  readonly type: string;
  readonly data: string;
}

export interface EventReader {
  push(chunk: Buffer): void;
  /** The last `id` that came; empty when none did. */
  readonly lastId: string;
  /** Reconnection time the server asked for, in milliseconds. */
  readonly retryMs: number | undefined;
}

/** Events go to `onEvent` as they are complete. One of more than `maxBytes` ends the reading with one call of `onTooLong`. */
export function eventReader(
  maxBytes: number,
  onEvent: (event: ServerSentEvent) => void,
  onTooLong: () => void,
): EventReader {
  const decoder = new TextDecoder(); // Takes a byte order mark away, and waits for the rest of a split character.
  let held: string[] = [];
  let heldSize = 0;
  let endsInReturn = false;
  let type = "";
  let data: string[] = [];
  let dataSize = 0;
  let over = false;
  /** Plain members, no accessors: one reader for each answer (docs/decisions/006-calls-die-young.md). */
  const reader: { -readonly [Name in keyof EventReader]: EventReader[Name] } = { push, lastId: "", retryMs: undefined };

  function onLine(line: string): void {
    if (line === "") {
      const event = {
        type: type === "" ? "message" : type,
        data: data.length === 1 ? (data[0] ?? "") : data.join("\n"),
      };
      const empty = data.length === 0;
      type = "";
      data = [];
      dataSize = 0;
      if (!empty) onEvent(event);
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const start = colon < 0 ? line.length : line.charCodeAt(colon + 1) === 32 ? colon + 2 : colon + 1;
    const value = line.slice(start);
    if (field === "data") {
      data.push(value);
      dataSize += value.length + 1;
    } else if (field === "event") {
      type = value;
    } else if (field === "id" && !value.includes("\0")) {
      reader.lastId = value.slice(0, 1024);
    } else if (field === "retry" && /^\d{1,9}$/.test(value)) {
      reader.retryMs = Number(value);
    }
  }

  function push(chunk: Buffer): void {
    if (over) return;
    let text = decoder.decode(chunk, { stream: true });
    // A line may end in CR LF, and the two may come in different chunks.
    if (endsInReturn && text.startsWith("\n")) text = text.slice(1);
    if (text !== "") endsInReturn = text.endsWith("\r");
    let start = 0;
    LINES.lastIndex = 0;
    for (let end = LINES.exec(text); end !== null && !over; end = LINES.exec(text)) {
      const rest = text.slice(start, end.index);
      start = LINES.lastIndex;
      if (held.length > 0) {
        held.push(rest);
        onLine(held.join(""));
        held = [];
        heldSize = 0;
      } else {
        onLine(rest);
      }
      if (dataSize > maxBytes) break;
      // A handler may read another stream meanwhile; the expression is shared.
      LINES.lastIndex = start;
    }
    if (start < text.length) {
      held.push(start === 0 ? text : text.slice(start));
      heldSize += text.length - start;
    }
    if (heldSize + dataSize > maxBytes) {
      over = true;
      held = [];
      data = [];
      onTooLong();
    }
  }

  return reader;
}

const LINES = /\r\n|\n|\r/g;
