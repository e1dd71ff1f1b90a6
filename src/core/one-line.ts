/** JSON where a line is a message: on stdio, and in records that are read line by line. */

const LINE_BREAKS = /[\r\n\u0085\u2028\u2029]/;

/**
 * JSON text as one line for every reader, with the same meaning. What strangers wrote is kept as it came, with line breaks between
 * its tokens: an object within it, on a line of its own, would be read as a message or a record of its own, which nobody authorised.
 */
export function oneLine(json: string): string {
  if (!LINE_BREAKS.test(json)) return json;
  // Between tokens JSON has only \r and \n, within strings only the other three.
  return json
    .replace(/[\r\n]+/g, " ")
    .replace(/[\u0085\u2028\u2029]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
