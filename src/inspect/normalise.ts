/** The plain text behind a disguise: what a model makes of a string, with the way back to the characters that were written. */

/** Ways to write a text that reads otherwise than it looks. */
export type Disguise =
  | "tag characters"
  | "direction override"
  | "zero-width characters"
  | "private-use characters"
  | "variation selectors"
  | "control characters"
  | "look-alike letters"
  | "full-width or mathematical letters"
  | "escape sequences"
  | "character references"
  | "spaced letters"
  | "letters written as digits"
  | "reversed text"
  | "rot13"
  | "base64"
  | "hexadecimal"
  | "percent encoding";

export interface Hidden {
  readonly disguise: Disguise;
  /** In the original. */
  readonly start: number;
  readonly end: number;
  readonly count: number;
}

/** A text as it is read. */
export interface View {
  readonly text: string;
  /** For each code unit of `text` and its end: where it stands in the original. Undefined: the same place. */
  readonly offsets: Uint32Array | undefined;
  /** How the text was hidden, for a view that is not the plain one. */
  readonly disguise: Disguise | undefined;
}

export interface Normalised {
  readonly plain: View;
  readonly hidden: readonly Hidden[];
}

/** Where `start` to `end` of a view stands in the original. */
export function original(view: View, start: number, end: number): { readonly start: number; readonly end: number } {
  if (view.offsets === undefined) return { start, end };
  const from = view.offsets[start] ?? 0;
  return { start: from, end: Math.max(from, view.offsets[end] ?? from) };
}

const LOOK_ALIKES: Readonly<Record<string, string>> = Object.fromEntries(
  `аa вb еe кk мm нh оo рp сc тt уy хx ѕs іi јj ԁd ԛq ԝw ҽe һh ӏl гr пn ьb АA ВB ЕE КK МM НH ОO РP СC ТT УY ХX ЅS ІI ЈJ ԌG ҮY
  αa βb εe ηn ιi κk νv οo ρp τt υu χx γy ωw ΑA ΒB ΕE ΖZ ΗH ΙI ΚK ΜM ΝN ΟO ΡP ΤT ΥY ΧX ɑa ɡg ɩi ʟl ոn օo ѵv ցg ıi ƅb ԍg`
    .split(/\s+/)
    .map((pair) => [pair[0] ?? "", pair[1] ?? ""]),
);
/** Letters of phonetics that are small capitals in fancy texts. */
const SMALL_CAPITALS: Readonly<Record<string, string>> = Object.fromEntries(
  [..."ᴀaʙbᴄcᴅdᴇeꜰfɢgʜhɪiᴊjᴋkʟlᴍmɴnᴏoᴘpǫqʀrꜱsᴛtᴜuᴠvᴡwʏyᴢz"].flatMap((char, at, all) =>
    at % 2 === 0 ? [[char, all[at + 1] ?? ""]] : [],
  ),
);
/** Rows of capitals in frames that Unicode does not call the letters they show: in circles and squares of black, flags' halves; and in brackets. */
const FRAMED = [0x1f110, 0x1f150, 0x1f170, 0x1f1e6];
const BRACKETED = 0x249c;
const REFERENCES: Readonly<Record<string, string>> = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'", nbsp: " " };

/** What only ASCII without escapes holds is plain already. */
const NEEDS_WORK = /[^\t\n\x20-\x7e]|&(?:#|[a-z]{2,4};)|\\(?:u\{?[0-9a-fA-F]{2}|x[0-9a-fA-F]{2})/;
const LETTER = /\p{L}/u;
const FOREIGN = /[\p{Script=Cyrillic}\p{Script=Greek}\p{Script=Armenian}ɑɡɩʟıƅ]/u;

/** Folds a text: NFKC, look-alikes, what is not seen, escapes and references. Linear in its length. */
export function normalise(text: string): Normalised {
  if (!NEEDS_WORK.test(text)) return { plain: { text, offsets: undefined, disguise: undefined }, hidden: [] };
  const pieces: string[] = [];
  const offsets = new Uint32Array(text.length * 4 + 1);
  const runs = new Map<Disguise, { start: number; end: number; count: number }>();
  let length = 0;
  let at = 0;
  const write = (piece: string, from: number) => {
    if (piece === "" || length + piece.length > offsets.length - 1) return;
    for (let unit = 0; unit < piece.length; unit++) offsets[length++] = from;
    pieces.push(piece);
  };
  const note = (disguise: Disguise, start: number, end: number) => {
    const run = runs.get(disguise);
    if (run === undefined) runs.set(disguise, { start, end, count: 1 });
    else {
      run.end = end;
      run.count++;
    }
  };
  while (at < text.length) {
    const code = text.codePointAt(at) ?? 0;
    const size = code > 0xffff ? 2 : 1;
    const end = at + size;
    if (code < 0x80) {
      const escaped = code === 0x26 ? referenceAt(text, at) : code === 0x5c ? escapeAt(text, at) : undefined;
      if (escaped !== undefined) {
        note(code === 0x26 ? "character references" : "escape sequences", at, at + escaped.length);
        write(escaped.char, at);
        at += escaped.length;
        continue;
      }
      if (code === 0x1b) {
        const sequence = ansiAt(text, at);
        note("control characters", at, at + sequence);
        at += sequence;
        continue;
      }
      if ((code < 0x20 && code !== 9 && code !== 10 && code !== 13) || code === 0x7f)
        note("control characters", at, end);
      else write(text[at] ?? "", at);
      at = end;
      continue;
    }
    const unseen = unseenClass(code, text, at);
    if (unseen === "tag characters" && code >= 0xe0020 && code <= 0xe007e)
      write(String.fromCharCode(code - 0xe0000), at);
    if (unseen !== undefined) {
      note(unseen, at, end);
      at = end;
      continue;
    }
    if (code === 0xad || (code >= 0xfe00 && code <= 0xfe0f) || code === 0x200d || code === 0x200c || code === 0xfeff) {
      at = end;
      continue;
    }
    const char = text.slice(at, end);
    if (code >= 0x300 && code <= 0x36f) {
      // An accent belongs to its letter; lines through a letter and whatever else is heaped upon it say nothing.
      const composed = `${pieces.at(-1) ?? ""}${char}`.normalize("NFC");
      if (composed.length === 1) pieces[pieces.length - 1] = composed;
      at = end;
      continue;
    }
    const folded = letterOf(code, char) ?? char.normalize("NFKC");
    if (folded !== char && folded.length === 1 && /[a-z]/i.test(folded))
      note("full-width or mathematical letters", at, end);
    write(folded, at);
    at = end;
  }
  offsets[length] = text.length;
  const joined = pieces.join("");
  const plain = foldLookAlikes(joined, (start, end) =>
    note("look-alike letters", offsets[start] ?? 0, offsets[end] ?? 0),
  );
  return {
    plain: { text: plain, offsets: offsets.subarray(0, length + 1), disguise: undefined },
    hidden: [...runs].map(([disguise, run]) => ({ disguise, ...run })),
  };
}

/** The plain letter that a fancy one shows, where NFKC does not know it. */
function letterOf(code: number, char: string): string | undefined {
  if (code >= BRACKETED && code < BRACKETED + 26) return String.fromCharCode(97 + code - BRACKETED);
  for (const first of FRAMED) if (code >= first && code < first + 26) return String.fromCharCode(65 + code - first);
  return SMALL_CAPITALS[char];
}

/** The class of a character that nobody sees; joiners within emoji and scripts that need them are seen. */
function unseenClass(code: number, text: string, at: number): Disguise | undefined {
  if (code >= 0xe0000 && code <= 0xe007f)
    // The flags of England, Scotland and Wales end their tags with a cancel tag.
    return flagAt(text, at) ? undefined : "tag characters";
  if ((code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069)) return "direction override";
  if (code >= 0xe000 && code <= 0xf8ff) return "private-use characters";
  if (code >= 0xf0000 && code <= 0x10fffd) return "private-use characters";
  if (code >= 0xe0100 && code <= 0xe01ef) return "variation selectors";
  if (code >= 0x80 && code <= 0x9f && code !== 0x85) return "control characters";
  if (code === 0x200b || (code >= 0x2060 && code <= 0x2064) || code === 0x180e || code === 0x115f || code === 0x3164)
    return "zero-width characters";
  const previous = text.charCodeAt(at - 1);
  const next = text.charCodeAt(at + 1);
  const plainNeighbours = isPlain(previous) && isPlain(next);
  if (code === 0xfeff) return at === 0 ? undefined : "zero-width characters";
  if ((code === 0x200c || code === 0x200d) && (isPlain(previous) || isPlain(next))) return "zero-width characters";
  if (code === 0xad && plainNeighbours) return "zero-width characters";
  if (code >= 0xfe00 && code <= 0xfe0f && isLetter(previous)) return "variation selectors";
  return undefined;
}

function isPlain(code: number): boolean {
  return code >= 0x20 && code < 0x7f;
}

function isLetter(code: number): boolean {
  return (code >= 65 && code <= 90) || (code >= 97 && code <= 122);
}

function flagAt(text: string, at: number): boolean {
  let start = at;
  for (let back = 0; back < 16 && text.codePointAt(start - 2) !== undefined; back += 1) {
    const before = text.codePointAt(start - 2) ?? 0;
    if (before === 0x1f3f4) return true;
    if (before < 0xe0000 || before > 0xe007f) return false;
    start -= 2;
  }
  return false;
}

function referenceAt(text: string, at: number): { char: string; length: number } | undefined {
  const end = text.indexOf(";", at);
  if (end < 0 || end - at > 10) return undefined;
  const body = text.slice(at + 1, end);
  const numeric = /^#(?:x([0-9a-f]{1,6})|([0-9]{1,7}))$/i.exec(body);
  if (numeric !== null) {
    const code = numeric[1] === undefined ? Number(numeric[2]) : Number.parseInt(numeric[1], 16);
    return code > 0 && code <= 0x10ffff ? { char: String.fromCodePoint(code), length: end - at + 1 } : undefined;
  }
  const named = REFERENCES[body];
  return named === undefined ? undefined : { char: named, length: end - at + 1 };
}

const ESCAPE = /\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))/y;

function escapeAt(text: string, at: number): { char: string; length: number } | undefined {
  ESCAPE.lastIndex = at;
  const match = ESCAPE.exec(text);
  if (match === null) return undefined;
  const code = Number.parseInt(match[1] ?? match[2] ?? match[3] ?? "", 16);
  return code > 0 && code <= 0x10ffff ? { char: String.fromCodePoint(code), length: match[0].length } : undefined;
}

const ANSI = /\x1b(?:\[[0-9;?]{0,32}[ -/]{0,4}[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[@-_])/y;

function ansiAt(text: string, at: number): number {
  ANSI.lastIndex = at;
  return ANSI.exec(text)?.[0].length ?? 1;
}

/** Words that mix Latin with letters of another script that look Latin are read as Latin. Keeps the length. */
function foldLookAlikes(text: string, found: (start: number, end: number) => void): string {
  if (!FOREIGN.test(text)) return text;
  return text.replace(/[\p{L}\p{M}\p{N}_]{1,64}/gu, (word, start: number) => {
    if (!FOREIGN.test(word) || word.length < 2) return word;
    const folded = [...word].map((char) => LOOK_ALIKES[char] ?? char).join("");
    const latin = /[a-z]/i.test(word);
    const whole = [...folded].every((char) => !LETTER.test(char) || /[a-z]/i.test(char));
    // A word of another language is left alone: only a mixture, or a whole English word, is a disguise.
    if (folded.length !== word.length || !(latin ? whole : whole && ENGLISH.has(folded.toLowerCase()))) return word;
    found(start, start + word.length);
    return folded;
  });
}

/** Words that hidden orders are made of, and which could be written in look-alikes throughout. */
const ENGLISH = new Set("a as copy see so us use user access pass peace hope cost space cope eco spy".split(" "));
