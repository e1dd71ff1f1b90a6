/**
 * One resource has many spellings: `file:///public/../secret/x`, `FILE:///secret/x` and `file:///%73ecret/x` are the same file to most
 * servers. A policy decides about what a server may take a URI for, and not only about the letters that a client chose.
 */
import { domainToASCII } from "node:url";
import { compileGlob } from "../core/glob.ts";

/** Longer URIs are not taken apart: nothing is known of them. */
const MAX_LENGTH = 16_384;

/**
 * What else a URI may be taken for: its normal form (RFC 3986 §6.2), with what needs it percent-encoded, and the same decoded. Empty
 * where that is what is written. Undefined for one that is too long to say.
 */
export function otherSpellings(uri: string): readonly string[] | undefined {
  if (uri.length > MAX_LENGTH) return undefined;
  if (PLAIN.test(uri)) return [];
  const parts = normal(uri);
  if (parts === undefined) return [];
  const { scheme, query } = parts;
  const [host, path] = OF_HOSTS.has(scheme)
    ? [parts.authority, scheme === "file" ? resolved(decoded(parts.path)) : unhidden(parts.path)]
    : hostAndPath(parts.authority, unhidden((parts.authority ?? "") + parts.path));
  const readable = path.replace(/[?#]/g, encodeURIComponent);
  const encoded = encodeURI(readable.toWellFormed()).replace(/%25(2F|5C|3F|23)/gi, "%$1");
  const head = `${scheme}:${host === undefined ? "" : `//${host}`}`;
  const forms = [...new Set([head + encoded + query, head + readable + query])];
  return forms.length === 1 && forms[0] === uri ? [] : forms;
}

/**
 * Compiles a glob over URIs. `written` is about the letters; `meant` compares what both stand for, as the most lenient of servers would:
 * decoded, without dot segments and user names, and files also in whatever case. Undefined of a URI that is too long to say.
 */
export function compileUriGlob(glob: string): {
  written(uri: string): boolean;
  meant(uri: string): boolean | undefined;
  /** Of a plain URI both say the same. */
  readonly plain: boolean;
} {
  const folded = meaningOf(split(glob)) ?? decoded(glob).normalize("NFC");
  const small = folded.toLowerCase();
  const exact = compileGlob(folded);
  const inAnyCase = compileGlob(small);
  return {
    written: compileGlob(glob),
    meant(uri) {
      if (uri.length > MAX_LENGTH) return undefined;
      const meaning = PLAIN.test(uri) ? uri : (meaningOf(normal(uri)) ?? decoded(uri).normalize("NFC"));
      return meaning.startsWith("file:") ? inAnyCase(meaning.toLowerCase()) : exact(meaning);
    },
    plain: folded === glob && (small === glob || !mayBeOfFiles(glob)),
  };
}

/** What has no other spelling and need not be taken apart: most URIs. */
export const isPlain = (uri: string): boolean => uri.length <= MAX_LENGTH && PLAIN.test(uri);

const NO_DOTS = String.raw`(?!\.{1,2}(?:\/|$))`;
const segments = (characters: string) => String.raw`(?:\/${NO_DOTS}[${characters}]+)*\/?`;
const PLAIN = new RegExp(
  String.raw`^(?:file:\/\/${segments("a-z0-9_.~-")}|(?!(?:https?|wss?|ftp|file):)[a-z][a-z0-9+.-]*:\/\/${NO_DOTS}[A-Za-z0-9._-]+${segments("A-Za-z0-9_.~-")})$`,
);

const mayBeOfFiles = (glob: string) => glob.startsWith("file:") || !/^[a-z0-9+.-]+:/i.test(glob);

interface Parts {
  readonly scheme: string;
  readonly authority: string | undefined;
  readonly path: string;
  /** With its question mark; empty of a file. */
  readonly query: string;
}

/** Schemes whose hosts are names of the network, and whose paths are hierarchies (https://url.spec.whatwg.org/#special-scheme). */
const OF_HOSTS: ReadonlySet<string> = new Set(["http", "https", "ws", "wss", "ftp", "file"]);

/** As programs read it that know the URL standard: many a control character, slash and port goes. */
function normal(uri: string): Parts | undefined {
  let [from, to] = [0, uri.length];
  while (uri.charCodeAt(from) <= SPACE) from++;
  while (to > from && uri.charCodeAt(to - 1) <= SPACE) to--;
  const cleaned = uri.slice(from, to).replace(/[\t\n\r]/g, "");
  const scheme = cleaned.slice(0, Math.max(0, cleaned.indexOf(":"))).toLowerCase();
  return split((OF_HOSTS.has(scheme) ? URL.parse(cleaned)?.href : undefined) ?? cleaned);
}
const SPACE = 32;

const URI = /^([a-z][a-z0-9+.-]*):(?:\/\/([^/?#\\]*))?([^?#]*)(\?[^#]*)?(?:#.*)?$/is;

/** Undefined for what has no scheme. The fragment is nothing that a server is asked for. */
function split(uri: string): Parts | undefined {
  const [whole, name = "", host, path = "", asked = ""] = URI.exec(uri) ?? [];
  if (whole === undefined) return undefined;
  const scheme = name.toLowerCase();
  const query = scheme === "file" || asked === "?" ? "" : asked;
  if (!OF_HOSTS.has(scheme)) return { scheme, authority: host, path, query };
  const bare = host?.slice(host.lastIndexOf("@") + 1).toLowerCase();
  const known = scheme === "file" && bare === "localhost" ? "" : bare;
  return {
    scheme,
    authority: known && (domainToASCII(known) || known),
    path: path === "" && known?.endsWith("*") === false ? "/" : path,
    query,
  };
}

/** Everything that the most lenient reader would take for the same, made the same. */
function meaningOf(parts: Parts | undefined): string | undefined {
  if (parts === undefined) return undefined;
  const { scheme, authority, path, query } = parts;
  const nobody = authority?.slice(authority.lastIndexOf("@") + 1);
  // With other schemes the host is as much a part of the path as not: `notes://public/../secret`.
  const place = OF_HOSTS.has(scheme)
    ? `//${nobody ?? ""}${resolved(decoded(path))}`
    : nobody === undefined
      ? resolved(decoded(path))
      : `//${resolved(decoded(nobody + path)).replace(/^\//, "")}`;
  return `${scheme}:${place}${decoded(query)}`.normalize("NFC");
}

function hostAndPath(authority: string | undefined, place: string): readonly [string | undefined, string] {
  const slash = place.indexOf("/");
  if (authority === undefined) return [undefined, place];
  return slash < 0 ? [place, ""] : [place.slice(0, slash), place.slice(slash)];
}

/** With every byte that is percent-encoded as what it stands for, and those that stand for nothing as they are. */
function decoded(text: string): string {
  return text.replace(/(?:%[0-9a-f]{2})+/gi, (run) => {
    try {
      return decodeURIComponent(run);
    } catch {
      return run.replace(/%[0-7][0-9a-f]/gi, (one) => String.fromCharCode(Number.parseInt(one.slice(1), 16)));
    }
  });
}

/** A path in which an encoded slash need not be one: it stays, unless there is a way up to hide. */
function unhidden(path: string): string {
  const whole = decoded(path);
  return WAY_UP.test(whole) ? resolved(whole) : decoded(path.replace(/%(?=2f|5c)/gi, "%25"));
}
const WAY_UP = /(?:^|[/\\])\.{1,2}(?:[/\\]|$)/;

/** Without dot segments and empty ones; a backslash is a slash. */
function resolved(path: string): string {
  const all = path.replaceAll("\\", "/").split("/");
  const kept: string[] = [];
  for (const [at, segment] of all.entries()) {
    const last = at === all.length - 1;
    if (segment === "..") kept.pop();
    else if (segment !== "." && (segment !== "" || last)) kept.push(segment);
    if (last && (segment === "." || segment === "..")) kept.push("");
  }
  return (all.length > 1 && all[0] === "" ? "/" : "") + kept.join("/");
}
