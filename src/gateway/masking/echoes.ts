/**
 * What was put back into the arguments of a call and is said again in its answer: a server that repeats a value which only the path of
 * its field had told would show it, so the caller gets back what the caller gave.
 */
import { decoded, encoded, type Token, walk } from "../../core/json-tokens.ts";
import type { PutBack } from "../../mask/masker.ts";

/** Words of the protocol, which a private value may be by chance. */
const WORDS: ReadonlySet<string> = new Set(["type", "role", "mimeType", "resultType", "requestState", "taskId"]);
/** Shorter values are parts of other words. */
const MIN_LENGTH = 6;

/** JSON text with stand-ins in place of the values that they stand for, within strings and as numbers. */
export function withoutEchoes(text: string, put: readonly PutBack[]): string {
  let result = "";
  let from = 0;
  let key = "";
  const replace = (token: Token) => {
    const { kind, start, end } = token;
    const written = text.slice(start, end);
    if (kind === "key") {
      key = written;
      return;
    }
    if (kind === "word" || WORDS.has(key)) return;
    const value = kind === "string" && written.includes("\\") ? decoded(text, start, end).text : written;
    const shown = kind === "number" ? (numberFor(value, put) ?? value) : withoutEchoesInText(value, put);
    if (shown === value) return;
    result += text.slice(from, start) + (kind === "string" ? encoded(shown) : shown);
    from = end;
  };
  walk<undefined>(text, undefined, {
    member: () => undefined,
    element: () => {
      key = "";
      return undefined;
    },
    drops: () => false,
    dropped: () => {},
    scalar: replace,
  });
  return from === 0 ? text : result + text.slice(from);
}

/** The same for a text that is no JSON. */
export function withoutEchoesInText(text: string, put: readonly PutBack[]): string {
  let result = text;
  for (const { value, standIn } of put) result = replaced(result, value, standIn);
  return result;
}

function numberFor(written: string, put: readonly PutBack[]): string | undefined {
  const found = put.find(({ value }) => value === written);
  return found === undefined ? undefined : /^-?\d+$/.test(found.standIn) ? found.standIn : "0";
}

/** Whatever the case; short values as words of their own. */
function replaced(text: string, value: string, standIn: string): string {
  if (value === "" || text === standIn) return text;
  const folded = text.toLowerCase();
  const looked = folded.length === text.length ? folded : text;
  const wanted = looked === text ? value : value.toLowerCase();
  let result = "";
  let from = 0;
  for (let at = looked.indexOf(wanted); at >= 0; at = looked.indexOf(wanted, at + wanted.length)) {
    const end = at + wanted.length;
    const word = WORD.test(text[at - 1] ?? " ") || WORD.test(text[end] ?? " ");
    if (wanted.length < MIN_LENGTH && word) continue;
    result += text.slice(from, at) + standIn;
    from = end;
  }
  return from === 0 ? text : result + text.slice(from);
}

const WORD = /[\p{L}\p{N}]/u;
