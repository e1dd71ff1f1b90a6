/**
 * A text in pieces. What was received is scanned at once up to a place where nothing private can cross: the end of a line, or a
 * character within a long one that parts what stands before it from what follows.
 */
import { isJson, mayBeJson } from "../core/json-tokens.ts";
import type { Masked } from "./masker.ts";
import type { Span } from "./scan.ts";

export interface MaskStream {
  /** Takes a piece, and gives what can be said of the text so far. */
  push(piece: string): Masked;
  /** The rest. Nothing may be pushed afterwards. */
  end(): Masked;
}

export interface StreamParts {
  /** Masks a whole text. */
  readonly whole: (text: string) => Masked;
  readonly scan: (text: string, from: number) => readonly Span[];
  /** Replaces spans of a text; `lines` when it may be lines of JSON, with what stands before it. */
  readonly replace: (text: string, spans: readonly Span[], lines?: { readonly before: string }) => Masked;
}

/**
 * A text that begins like JSON is kept back whole up to this many characters: it is masked as a document when it is one. Lines of
 * JSON are known as such when a second one begins.
 */
const MAX_JSON = 1_048_576;
/** Characters before a place that detectors look back to. */
const CONTEXT = 1024;
/** A line is not cut before it has so many characters, and so many of it stay behind the cut: detectors look ahead. */
const LONG_LINE = 16_384;
const LOOK_AHEAD = 8192;
/** A line without any place to cut is cut here, and a private key without an end is given up. */
const MAX_HELD = 131_072;
/** A place to cut a line is looked for after so many more characters. */
const WAKE = 4096;
/** How private keys of several lines begin and end: none of their lines says by itself what it is. */
const KEYS: readonly { readonly begin: string; readonly end: RegExp }[] = [
  { begin: "-----BEGIN ", end: /-----END [^-]{0,50}-----/ },
  { begin: "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----", end: /---- END SSH2 / },
  { begin: "Private-Lines: ", end: /Private-MAC/ },
];

/** Makes a stream. It holds at most `MAX_JSON` characters and one piece. */
export function maskStream({ whole: maskWhole, scan, replace }: StreamParts): MaskStream {
  let held = "";
  /** Of `held`, how much has been given out already and stays for context. */
  let given = 0;
  let lines = false;
  let whole: boolean | undefined;
  let document = false;
  let wakeAt = 0;

  function push(piece: string): Masked {
    held += piece;
    whole ??= begins(held);
    if (whole === undefined) return NOTHING;
    if (whole) {
      lines = true;
      if (held.length < MAX_JSON && !hasSecondLine(piece)) return NOTHING;
      whole = false;
    }
    if (held.length < wakeAt && !piece.includes("\n")) return NOTHING;
    wakeAt = held.length + WAKE;
    const cut = cutIn(held, given);
    return cut > given ? give(cut) : NOTHING;
  }

  /** The first line is a document, and another line begins. */
  function hasSecondLine(piece: string): boolean {
    if (document || !(piece.includes("\n") || held[held.length - piece.length - 1] === "\n")) return false;
    const line = held.search(/\n\S/);
    if (line < 0) return false;
    document = !isJson(held.slice(0, line));
    return !document;
  }

  /** Gives out what stands before `cut`. */
  function give(cut: number): Masked {
    const spans = scan(held, given);
    let end = cut;
    for (const span of spans) if (span.start < end && span.end > end) end = span.start;
    if (end <= given) return NOTHING;
    const from = given;
    const part = held.slice(from, end);
    const masked = replace(
      part,
      spans.flatMap((span) => (span.end <= end ? [{ ...span, start: span.start - from, end: span.end - from }] : [])),
      lines ? { before: held.slice(0, from) } : undefined,
    );
    const start = Math.max(0, end - CONTEXT);
    held = held.slice(start);
    given = end - start;
    wakeAt = held.length + WAKE;
    return masked;
  }

  return {
    push,
    end() {
      if (whole !== false) return maskWhole(held);
      return held.length > given ? give(held.length) : NOTHING;
    },
  };
}

const NOTHING: Masked = { text: "", counts: {}, parts: [], shown: false, kept: undefined };

/** Whether a text begins like JSON; undefined when too little of it is there to tell. */
function begins(text: string): boolean | undefined {
  if (mayBeJson(text)) return true;
  const start = text.trimStart();
  return start === "" || ((start[0] === "{" || start[0] === "[") && start.slice(1).trimStart() === "")
    ? undefined
    : false;
}

/** The last place at which the text may be cut: what is before it is found without what follows. At most `given`: none yet. */
function cutIn(text: string, given: number): number {
  const open = openKey(text, given);
  const limit = open >= 0 && text.length - open < MAX_HELD ? open : text.length;
  const line = text.lastIndexOf("\n", limit - 1) + 1;
  if (line > given) return line;
  if (limit - given < LONG_LINE) return given;
  for (let at = limit - LOOK_AHEAD; at > given; at--) if (parts(text, at)) return at;
  return text.length - given > MAX_HELD ? limit - LOOK_AHEAD : given;
}

/** Where the first private key begins that has not ended; -1: none. */
function openKey(text: string, given: number): number {
  const open = KEYS.map(({ begin, end }) => {
    const last = text.lastIndexOf(begin);
    if (last >= given) return end.test(text.slice(last)) ? -1 : last;
    // The beginning of one may have been cut.
    for (let length = Math.min(begin.length - 1, text.length - given); length > 0; length--) {
      if (text.endsWith(begin.slice(0, length))) return text.length - length;
    }
    return -1;
  }).filter((at) => at >= 0);
  return open.length === 0 ? -1 : Math.min(...open);
}

/** Nothing that is private, and no word that says so, reaches across this place. */
function parts(text: string, at: number): boolean {
  const before = text[at - 1] ?? "";
  return (before === "," || before === "}" || before === ">") && '"{[<'.includes(text[at] ?? " ");
}
