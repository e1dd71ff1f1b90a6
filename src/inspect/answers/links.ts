/** Links and images of an answer that lead to hosts nobody listed: where they stand, and how they are written so that nothing loads. */
import { compileGlob } from "../../core/glob.ts";

/** What is done with an address. `defuse`: it stays readable, and no client takes it for a link. */
export type LinkAction = "defuse" | "keep" | "remove";
/** `risky`: of pictures those alone are defused whose address could carry something away; of all else everything. */
export type ImageAction = LinkAction | "risky";

export interface LinkRules {
  /** Hosts whose addresses stay, `*.example.com` for all below one. */
  readonly allow: readonly string[];
  /** What loads or runs by itself or when it is clicked: images, frames, styles, `javascript:` and `data:` addresses. */
  readonly images: ImageAction;
  /** What must be clicked. */
  readonly others: LinkAction;
}

export interface LinkEdit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
  readonly kind: "image" | "link" | "script";
}

/** Read in one step. */
const CHUNK = 32_768;
const SHARED = 640;
/** So many addresses are looked at in one step. */
const TURN = 500;
/** Longer addresses are taken to end here. */
const MAX_URL = 8192;
/** Where an address may stand; each alternative ends right before one. Names of attributes that load something come first. */
const BEFORE =
  /(\]\(\s{0,8}<?)|(?:^|\n) {0,3}\[([^\]\n]{1,256})\]:\s{1,8}<?|\b(src|srcset|poster|background|data|lowsrc|dynsrc|icon|manifest|action|formaction|ping)\s{0,8}=\s{0,8}["']?|\b(href|xlink:href|cite)\s{0,8}=\s{0,8}["']?|\b(url)\(\s{0,8}["']?|@(import)\s{1,8}["']|http-equiv\s{0,8}=\s{0,8}["']?(refresh)["']?[^>]{0,80}url\s{0,8}=\s{0,8}["']?|<(?=[a-z][a-z0-9+.-]{1,20}:)/gi;
const BARE = /\b(?:https?|ftp|wss?):\/\/[^\s"'<>()[\]{}|\\^`]{1,2048}/gi;
/** Some text that has an address somewhere. */
const MAY_LINK = /[:/\\]|&#|%3a/i;
const ENDS = new Set([..." \t\r\n\"'<>)`"]);
const SCRIPT = /^(?:javascript|vbscript|livescript|data|blob|file|jar|about|view-source):/i;
/** Pictures that carry their own bytes and ask nobody. */
const OWN_PICTURE = /^data:image\/(?:png|jpe?g|gif|webp|avif|bmp|x-icon)[;,]/i;

/** Compiles the rules; the edits of a text come in order and do not overlap, in steps. Linear in the text. */
export function compileLinks(rules: LinkRules): (text: string) => Generator<void, readonly LinkEdit[]> {
  const allowed = rules.allow.map((host) => compileGlob(host.toLowerCase()));
  const lists = (host: string) => allowed.some((matches) => matches(host));
  const idle = rules.images === "keep" && rules.others === "keep";

  const editOf = (
    text: string,
    start: number,
    kind: "picture" | "image" | "link",
    end: number,
    spared: Spared,
  ): LinkEdit | undefined => {
    const written = text.slice(start, end);
    const target = targetOf(written);
    if (target === undefined) return undefined;
    if ("script" in target) {
      const action = rules.images;
      return action === "keep"
        ? undefined
        : { start, end, text: `blocked:${action === "remove" ? "" : harmless(written)}`, kind: "script" };
    }
    if (lists(target.host)) return undefined;
    const action = kind === "link" ? rules.others : rules.images;
    if (action === "keep") return undefined;
    const edit: LinkEdit = {
      start,
      end,
      text: action === "remove" ? "blocked:" : defused(target),
      kind: kind === "link" ? "link" : "image",
    };
    if (action !== "risky" || kind !== "picture" || mayCarry(target)) return edit;
    const others = spared.get(target.host);
    if (others === undefined) spared.set(target.host, [edit]);
    else others.push(edit);
    return undefined;
  };

  return function* (text) {
    if (idle || !MAY_LINK.test(text)) return [];
    let edits: LinkEdit[] = [];
    const images = imagesOf(text);
    const spared: Spared = new Map();
    let done = 0;
    let looked = 0;
    const add = (edit: LinkEdit | undefined) => {
      if (edit === undefined || edit.start < done) return;
      edits.push(edit);
      done = edit.end;
    };
    for (let from = 0; from < text.length; from += CHUNK) {
      if (from > 0) yield;
      // Each chunk shows a little of the next, for what begins in it and ends there.
      const chunk = text.length <= CHUNK ? text : text.slice(from, from + CHUNK + SHARED);
      for (const match of chunk.matchAll(BEFORE)) {
        if (match.index >= CHUNK) break;
        const at = from + match.index + match[0].length;
        if (at < done) continue;
        if (++looked % TURN === 0) yield;
        const [, inline, reference, source, , style, imported, refresh] = match;
        const picture =
          (inline !== undefined && images.closings.has(from + match.index)) ||
          (source !== undefined && inPicture(text, from + match.index)) ||
          (reference !== undefined && images.names.has(reference.toLowerCase()));
        const loads = source !== undefined || style !== undefined || imported !== undefined || refresh !== undefined;
        const kind = picture ? "picture" : loads ? "image" : "link";
        if (source?.toLowerCase() === "srcset")
          for (const one of sources(text, at)) add(editOf(text, one.start, kind, one.end, spared));
        else add(editOf(text, at, kind, urlEnd(text, at), spared));
      }
    }
    const alphabets = [...spared.values()].filter((of) => of.length > MAX_PICTURES);
    if (alphabets.length > 0) edits = inOrder([...edits, ...alphabets.flat()]);
    return rules.others === "keep"
      ? edits
      : yield* withBare(text, edits, (start, end) => editOf(text, start, "link", end, spared));
  };
}

/** Pictures that stay as they are, by host. */
type Spared = Map<string, LinkEdit[]>;

/**
 * An alphabet of pictures spells without any query: which of them are shown, and in what order, is the message (a leak of this kind
 * was made of GitHub's own picture proxy in 2025). So many of one host in one text are none that a page needs.
 */
const MAX_PICTURES = 24;
/** Longer than names of pictures and of versions are. */
const MAX_SEGMENT = 48;
const MAX_PATH = 160;
const MAX_LABEL = 32;
const PLACEHOLDER = /[{}<>$[\]*]|%(?:7b|3c|5b|24|2a)/i;

/** Whether a model could write something into the address, or somebody has. */
function mayCarry({ url, host }: { readonly url: URL; readonly host: string }): boolean {
  const { pathname, search, username, password } = url;
  return (
    search !== "" ||
    username !== "" ||
    password !== "" ||
    pathname.length > MAX_PATH ||
    PLACEHOLDER.test(pathname) ||
    pathname.endsWith("/") ||
    pathname.split("/").some((segment) => segment.length > MAX_SEGMENT) ||
    host.split(".").some((label) => label.length > MAX_LABEL)
  );
}

const PICTURE_TAG = /^<\s{0,8}(?:img|image|source|picture|video|audio)\b/i;
const MAX_TAG = 2048;

/** What loads here is shown and does nothing else. */
function inPicture(text: string, at: number): boolean {
  const before = text.slice(Math.max(0, at - MAX_TAG), at);
  return PICTURE_TAG.test(before.slice(Math.max(0, before.lastIndexOf("<"))));
}

function inOrder(edits: readonly LinkEdit[]): LinkEdit[] {
  const sorted = edits.toSorted((one, other) => one.start - other.start);
  return sorted.filter(({ start }, index) => index === 0 || start >= (sorted[index - 1]?.end ?? 0));
}

/** Adds addresses that stand alone in prose. */
function* withBare(
  text: string,
  edits: readonly LinkEdit[],
  editOf: (start: number, end: number) => LinkEdit | undefined,
): Generator<void, readonly LinkEdit[]> {
  const all: LinkEdit[] = [];
  let next = 0;
  let looked = 0;
  for (const match of text.matchAll(BARE)) {
    if (++looked % TURN === 0) yield;
    const end = match.index + match[0].replace(/[.,;:!?*_~]{1,8}$/, "").length;
    while ((edits[next]?.end ?? Number.POSITIVE_INFINITY) <= match.index) all.push(edits[next++] as LinkEdit);
    if ((edits[next]?.start ?? Number.POSITIVE_INFINITY) < end) continue;
    const edit = editOf(match.index, end);
    if (edit !== undefined) all.push(edit);
  }
  return [...all, ...edits.slice(next)];
}

interface Images {
  /** Where the bracket of an image's text closes. */
  readonly closings: ReadonlySet<number>;
  /** Names of references that images use: `![…][name]`, `![name]`. */
  readonly names: ReadonlySet<string>;
}

const MAX_OPEN = 256;
const MAX_NAME = 256;

/** The images of Markdown, by their brackets, which may hold others. */
function imagesOf(text: string): Images {
  const closings = new Set<number>();
  const names = new Set<string>();
  if (!text.includes("![")) return { closings, names };
  const open: number[] = [];
  for (const { index } of text.matchAll(/[[\]]/g)) {
    if (text[index] === "[") {
      if (open.length === MAX_OPEN) open.shift();
      open.push(index);
      continue;
    }
    const from = open.pop();
    if (from === undefined || text[from - 1] !== "!") continue;
    closings.add(index);
    if (index - from <= MAX_NAME) names.add(text.slice(from + 1, index).toLowerCase());
    if (text[index + 1] !== "[") continue;
    const name = text.slice(index + 2, index + 2 + MAX_NAME);
    const end = name.indexOf("]");
    if (end > 0) names.add(name.slice(0, end).toLowerCase());
  }
  return { closings, names };
}

function urlEnd(text: string, start: number): number {
  // A quoted attribute may hold blanks, which a browser leaves out; only line ends and tabs are left out within an address.
  const quote = text[start - 1] === '"' || text[start - 1] === "'" ? text[start - 1] : undefined;
  const limit = Math.min(text.length, start + MAX_URL);
  let depth = 0;
  for (let at = start; at < limit; at++) {
    const char = text[at] ?? "";
    if (quote !== undefined) {
      if (char === quote || char === ">") return at;
    } else if (char === "(") depth++;
    else if (char === ")" && depth > 0) depth--;
    else if (ENDS.has(char)) return at;
  }
  return limit;
}

function* sources(text: string, at: number): Generator<{ start: number; end: number }> {
  const end = urlEnd(text, at);
  for (const match of text.slice(at, end).matchAll(/[^\s,][^\s]*/g)) {
    if (/^[\d.]+[wx],?$/.test(match[0])) continue;
    yield { start: at + match.index, end: at + match.index + match[0].replace(/,+$/, "").length };
  }
}

type Target = { readonly script: true } | { readonly host: string; readonly url: URL };

/** Where a browser would go; undefined for addresses within the same site, for mail, and for what is no address. */
function targetOf(written: string): Target | undefined {
  // A browser leaves out controls within an address, reads references, and takes `\` for `/`.
  const plain = unescaped(written)
    .replace(/[\0-\x1f\x7f\xad\u200b-\u200f\u2060-\u2064\ufeff]/g, "")
    .trim();
  if (plain === "" || plain.startsWith("#")) return undefined;
  if (SCRIPT.test(plain)) return OWN_PICTURE.test(plain) ? undefined : { script: true };
  let url: URL;
  try {
    url = new URL(plain, "https://same.invalid/");
  } catch {
    return undefined;
  }
  if (url.hostname === "" || url.hostname === "same.invalid") return undefined;
  return { host: url.hostname.toLowerCase().replace(/\.$/, ""), url };
}

const NAMED: Readonly<Record<string, string>> = {
  colon: ":",
  sol: "/",
  tab: "",
  newline: "",
  amp: "&",
  period: ".",
  bsol: "\\",
  lpar: "(",
  rpar: ")",
};

function unescaped(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(
    /&(?:#x([0-9a-f]{1,6})|#(\d{1,7})|([a-z]{2,8}));?/gi,
    (whole, hex?: string, decimal?: string, name?: string) => {
      if (name !== undefined) return NAMED[name.toLowerCase()] ?? whole;
      const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
      return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
    },
  );
}

/** As people write an address that nobody should follow: `hxxps://evil[.]example/…`. */
function defused({ url, host }: { readonly url: URL; readonly host: string }): string {
  const scheme = url.protocol.replace("http", "hxxp").replace("ftp", "fxp").replace("ws", "wxs");
  const shown = scheme === url.protocol ? `x-${scheme}` : scheme;
  return `${shown}//${host.replaceAll(".", "[.]")}${url.port === "" ? "" : `:${url.port}`}${url.pathname}${url.search}${url.hash}`.replace(
    /[()<>"'\s]/g,
    (char) => encodeURIComponent(char).replace(/[()']/g, (left) => `%${left.charCodeAt(0).toString(16)}`),
  );
}

/** The start of a script's address, without the colon that would make it run. */
function harmless(written: string): string {
  return written.slice(0, 40).replace(/[^\w./-]/g, "_");
}
