/** The words that say what a number is: those shortly before it, as far as they speak of it. */

const REACH = 44;
const NEWLINE = 10;
/** More digits in a row are a number of their own, and what stands before them speaks of it. */
const MAX_DIGITS = 5;
const MAX_MEMO = 2000;

/**
 * The text before `at` in lower case, back to where something else begins: another member of an object, a cell, a clause, the
 * line before the last. Bounded.
 */
export function labelBefore(text: string, at: number): string {
  const floor = Math.max(0, at - REACH);
  let lines = 0;
  let digits = 0;
  let inCell = false;
  let from = at;
  for (; from > floor; from--) {
    const code = text.charCodeAt(from - 1);
    if (code === 123 || code === 125 || code === 59) break;
    // In a row of a table the cell before says what this one holds.
    if (code === 124 && (inCell || !/^[\s`*"']*$/.test(text.slice(from, at)))) break;
    inCell ||= code === 124;
    if (code === NEWLINE && ++lines > 1) break;
    if (code < 48 || code > 57) digits = 0;
    else if (++digits > MAX_DIGITS) break;
    // A comma behind a quote ends a member of JSON, a digit or quote before it a cell.
    if (code === 44 && endsValue(text.charCodeAt(from - 2))) break;
  }
  return text.slice(from, at).toLowerCase();
}

/** Asks whether a label says something. Labels come again and again, in every row of a table, so answers are remembered. */
export function says(words: RegExp): (label: string) => boolean {
  const memo = new Map<string, boolean>();
  return (label) => {
    if (label.length < 2) return false;
    let answer = memo.get(label);
    if (answer === undefined) {
      answer = words.test(label);
      if (memo.size >= MAX_MEMO) memo.clear();
      memo.set(label, answer);
    }
    return answer;
  };
}

function endsValue(code: number): boolean {
  return code === 34 || code === 93 || code === 125 || (code >= 48 && code <= 57);
}
