/** What a line of the log is: cleaned of secrets, JSON or readable. And a log of such lines that needs nothing else. */
import { styleText } from "node:util";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";

export type Log = (fields: object, message: string) => void;

/** Writes events. Values of secret-like keys at any depth, bearer credentials and JWTs are replaced by `[secret]`. Never throws. */
export interface Logger {
  readonly trace: Log;
  readonly debug: Log;
  readonly info: Log;
  readonly warn: Log;
  readonly error: Log;
  /** A logger that adds `fields` to each of its events. */
  child(fields: object): Logger;
}

/** Where lines go: each `write` is one whole line. A write that throws loses its line, never the caller. */
export interface LogStream {
  write(line: string): unknown;
  readonly isTTY?: boolean;
}

/**
 * A log for a program that shall start quickly: everything from `info` on, in the lines of `createLogger`, without the library that
 * makes many of them cheap.
 */
export function plainLogger(stream: LogStream, fields: object = {}, now: () => number = Date.now): Logger {
  const readableHere = stream.isTTY === true;
  const at =
    (level: Level): Log =>
    (more, message) => {
      const time = new Date(now()).toISOString();
      const line = `${JSON.stringify({ level, time, ...cleanFields(fields), ...cleanFields(more), message: cleanText(message) })}\n`;
      try {
        stream.write(readableHere ? readable(line, true) : line);
      } catch {
        // As in `createLogger`: there is nowhere left to say so.
      }
    };
  return {
    trace: nothing,
    debug: nothing,
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (more) => plainLogger(stream, { ...fields, ...more }, now),
  };
}

const nothing: Log = () => {};
/** Says nothing; for tests. */
export const silentLogger: Logger = {
  trace: nothing,
  debug: nothing,
  info: nothing,
  warn: nothing,
  error: nothing,
  child: () => silentLogger,
};

export type Level = "trace" | "debug" | "info" | "warn" | "error";

const MAX_DEPTH = 6;
const MAX_ENTRIES = 100;
const MAX_CAUSES = 5;
const MAX_TEXT = 8192;
const SECRET = "[secret]";
/** `accessToken`, `refresh_token`, `set-cookie`, `x-api-key`, `clientSecret`, … but not `tokenId`, which names a token without being one. */
const SECRET_KEY =
  /(token|secret|password|passwd|passphrase|authorization|cookie|api[-_]?key|credential|private[-_]?key|verifier|assertion|dpop|jwt)s?$/i;
/** RFC 6750 and RFC 7617 header values, and compact JWS, wherever they stand in a text. */
const CREDENTIAL_TEXT = /\b(Bearer|DPoP|Basic)\s+[A-Za-z0-9._~+/-]{6,}=*|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*/gi;
/** `?code=…&access_token=…` of a URL, and the same members of a form body. */
const SECRET_PARAMETER =
  /([?&;\s"'](?:code|state|(?:access_|refresh_|id_|subject_|actor_)?token|client_secret|client_assertion|assertion|code_verifier|password|api_?key)=)[^&\s"'#;]+/gi;

export function cleanFields(fields: object): Record<string, unknown> {
  // An Error logged as the fields themselves becomes `error`, with whatever the caller meant by it intact.
  const cleaned = fields instanceof Error ? { error: cleanError(fields, 0) } : clean(fields, 0);
  return typeof cleaned === "object" && cleaned !== null ? { ...cleaned } : { value: cleaned };
}

function clean(value: unknown, depth: number): unknown {
  if (typeof value === "string") return cleanText(value);
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "function" || typeof value === "symbol") return undefined;
  if (typeof value !== "object" || value === null) return value;
  if (value instanceof Secret) return SECRET;
  if (value instanceof Error) return cleanError(value, 0);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "invalid date" : value.toISOString();
  if (value instanceof URL) return cleanText(value.href);
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (depth >= MAX_DEPTH) return "[deeper]";
  if (Array.isArray(value)) return value.slice(0, MAX_ENTRIES).map((item) => clean(item, depth + 1));
  const entries = value instanceof Map ? [...value.entries()] : Object.entries(value);
  const result: Record<string, unknown> = {};
  for (const [key, item] of entries.slice(0, MAX_ENTRIES)) {
    const name = String(key);
    const hidden = SECRET_KEY.test(name) && item !== undefined && item !== null && typeof item !== "boolean";
    result[name] = hidden ? SECRET : clean(item, depth + 1);
  }
  return result;
}

function cleanError(error: Error, nested: number): object {
  const ours = error instanceof DrawbridgeError;
  const { code } = error as { code?: unknown };
  return {
    type: error.name,
    ...(typeof code === "string" || typeof code === "number" ? { code } : undefined),
    message: cleanText(error.message),
    ...(ours && error.detail !== undefined ? { detail: cleanText(error.detail) } : undefined),
    // Ours say in words what went wrong; a stranger's needs the place.
    ...(ours || error.stack === undefined ? undefined : { stack: cleanText(error.stack) }),
    ...(error.cause === undefined || nested >= MAX_CAUSES
      ? undefined
      : {
          cause: error.cause instanceof Error ? cleanError(error.cause, nested + 1) : clean(error.cause, MAX_DEPTH - 1),
        }),
  };
}

export function cleanText(text: string): string {
  const short = text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}… (${text.length} characters)` : text;
  return short.replace(CREDENTIAL_TEXT, SECRET).replace(SECRET_PARAMETER, `$1${SECRET}`);
}

const STYLES = { trace: "gray", debug: "gray", info: "green", warn: "yellow", error: "red" } as const;

/** `12:03:04.123 INFO  server started  url=http://127.0.0.1:8080`, stacks on lines of their own. */
export function readable(line: string, colour: boolean): string {
  const { level, time, message, ...fields } = JSON.parse(line) as Record<string, unknown> & { level: Level };
  const stacks: string[] = [];
  const rest = Object.entries(fields).map(([key, value]) => `${printable(key)}=${shown(value, stacks)}`);
  // Colour only where a terminal is; styleText itself obeys NO_COLOR and FORCE_COLOR.
  const paint = (style: Parameters<typeof styleText>[0], part: string) => (colour ? styleText(style, part) : part);
  const head = `${paint("gray", String(time).slice(11, 23))} ${paint(STYLES[level] ?? "red", level.toUpperCase().padEnd(5))}`;
  const tail = rest.length === 0 ? "" : `  ${paint("gray", rest.join(" "))}`;
  return `${[`${head} ${printable(String(message ?? ""))}${tail}`, ...stacks.map((stack) => `    ${printable(stack)}`)].join("\n")}\n`;
}

function shown(value: unknown, stacks: string[]): string {
  if (typeof value === "string") return /^[^\s"=]+$/.test(value) ? printable(value) : printable(JSON.stringify(value));
  if (typeof value !== "object" || value === null) return String(value);
  const { stack, ...others } = value as { stack?: unknown };
  if (typeof stack === "string")
    stacks.push(
      ...stack
        .split("\n")
        .slice(1)
        .map((frame) => frame.trim()),
    );
  return printable(JSON.stringify(Array.isArray(value) ? value : others));
}

/** What strangers wrote must not move the cursor, colour the terminal or turn the text round. */
function printable(text: string): string {
  return text.replace(
    /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
