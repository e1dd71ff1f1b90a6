/** Replacements in a text: made where something is private, applied at the end, so that all else stays byte for byte. */

/** A private part of a text. UTF-16 code units, `end` exclusive. */
export interface PrivatePart {
  readonly start: number;
  readonly end: number;
  /** A detector's type, or `field` for what a path named. */
  readonly type: string;
}

export interface Edit extends PrivatePart {
  /** What stands there instead. */
  readonly text: string;
}

/** Applies edits that are in order and do not overlap. */
export function applied(text: string, edits: readonly Edit[]): string {
  let result = "";
  let from = 0;
  for (const { start, end, text: replacement } of edits) {
    result += text.slice(from, start) + replacement;
    from = end;
  }
  return from === 0 ? text : result + text.slice(from);
}
