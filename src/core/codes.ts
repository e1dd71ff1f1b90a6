/** Texts as numbers: read one by one, an array is twice as fast as a string. */

const FIRST_ROOM = 32_768;
/** Longer texts get a room of their own, which is let go. */
const MAX_ROOM = 1 << 20;

/** A room that is used for one text after the other: what it gives is the UTF-16 code units of a text, and behind them a 0, until it is asked again. */
export function codeRoom(): (text: string) => Uint16Array {
  let room = new Uint16Array(FIRST_ROOM);
  return (text) => {
    const { length } = text;
    let codes = room;
    if (length >= codes.length) {
      codes = new Uint16Array(length + 1);
      if (length < MAX_ROOM) room = codes;
    }
    Buffer.from(codes.buffer).write(text, "utf16le");
    codes[length] = 0;
    return codes;
  };
}
