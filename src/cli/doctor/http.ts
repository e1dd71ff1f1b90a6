/** How the doctor asks: bounded, never redirected, and only where a client may go. Every word of an answer is a stranger's. */
import { DrawbridgeError } from "../../core/errors.ts";
import { publicAddress } from "../../net/addresses.ts";
import { resolveBySystem } from "../../net/outbound.ts";
import { trusted } from "../../net/trusted.ts";

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
}

export interface Http {
  /** Rejects with `outbound_refused`, `upstream_unavailable` or `upstream_timeout`. */
  send(url: string | URL, init?: RequestInit): Promise<Answer>;
  /** The server that is examined is on this machine or its network, and so may be what it names. */
  readonly local: boolean;
  /** What its name resolves to. */
  readonly addresses: readonly string[];
  close(): Promise<void>;
}

export interface HttpOptions {
  /** PEM certificates to trust beside the system's. */
  readonly trustedCertificates?: string;
  /** For one answer. */
  readonly timeoutMs?: number;
}

const MAX_BYTES = 1 << 20;

/** Rejects with `upstream_unavailable` when the name of `url` cannot be resolved. */
export async function openHttp(url: URL, options: HttpOptions = {}): Promise<Http> {
  const found = await resolveBySystem(url.hostname.replace(/^\[|\]$/g, "")).catch((cause: Error) => {
    const message = `The name ${url.hostname} cannot be resolved.`;
    throw new DrawbridgeError("upstream_unavailable", message, { cause, detail: cause.message });
  });
  const addresses = found.map(({ address }) => address);
  const local = addresses.some((address) => !publicAddress(address));
  // A server on the internet that names an address of the network we are in wants us to ask there in its place.
  const net = trusted({ ...options, allowPrivateAddresses: local, maxBytes: MAX_BYTES });
  return {
    local,
    addresses,
    async send(to, init = {}) {
      const headers = new Headers(init.headers);
      if (!headers.has("user-agent")) headers.set("user-agent", "drawbridge-doctor");
      const answer = await net.fetch(to, { ...init, headers });
      return { status: answer.status, headers: answer.headers, text: await answer.text() };
    },
    close: () => net.close(),
  };
}

/** The document at a place, or in words why there is none to be had. */
export async function documentAt(http: Http, place: string): Promise<Document> {
  try {
    return jsonOf(await http.send(place));
  } catch (thrown) {
    const { message, detail } = DrawbridgeError.from(thrown);
    return { problem: `cannot be read: ${message}${detail === undefined ? "" : ` (${detail})`}` };
  }
}

type Document = { readonly value: Record<string, unknown> } | { readonly problem: string };

function jsonOf(answer: Answer): Document {
  const { status, headers, text } = answer;
  if (status >= 300 && status < 400)
    return { problem: `redirects (${status}) to ${headers.get("location") ?? "nowhere"}, which clients do not follow` };
  if (status !== 200) return { problem: `answers ${status}` };
  const type = headers.get("content-type") ?? "no content type";
  if (!/^application\/(?:[\w.-]+\+)?json *(?:;|$)/i.test(type))
    return {
      problem: `answers ${type} instead of application/json${/html/i.test(type) ? " (a web page, perhaps of an app that answers every path)" : ""}`,
    };
  const value = parsed(text);
  return value === undefined ? { problem: "answers something that is no JSON object" } : { value };
}

/** A JSON object, or undefined. */
export function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** The parameters of a scheme's challenge, wherever it stands in the header (RFC 9110 §11.6.1); undefined: there is none. */
export function challengeParams(header: string, wanted: "bearer" | "dpop"): ReadonlyMap<string, string> | undefined {
  const params = new Map<string, string>();
  let scheme: string | undefined;
  let found = false;
  const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
  const parts = new RegExp(`(${token})\\s*=\\s*(?:"((?:[^"\\\\]|\\\\.)*)"|([^\\s,]+))|(${token})`, "g");
  for (const [, name, quoted, plain, word] of header.slice(0, 8192).matchAll(parts)) {
    if (word !== undefined) {
      scheme = word.toLowerCase();
      found ||= scheme === wanted;
    } else if (scheme === wanted && name !== undefined) {
      params.set(name.toLowerCase(), quoted === undefined ? (plain ?? "") : quoted.replaceAll(/\\(.)/g, "$1"));
    }
  }
  return found ? params : undefined;
}

/** Hosts of this machine, as `URL.hostname` spells them. */
export const LOOPBACK: ReadonlySet<string> = new Set(["localhost", "127.0.0.1", "[::1]"]);

/**
 * Why an address that a server names is neither fetched nor opened; undefined: it may be. CVE-2025-6514: an
 * `authorization_endpoint` reached a shell.
 */
export function urlProblem(text: unknown, local: boolean): string | undefined {
  if (typeof text !== "string") return "is missing";
  const url = URL.parse(text);
  if (url === null || text.length > 2048) return `is not a URL: ${text.slice(0, 200)}`;
  if (url.protocol !== "https:" && url.protocol !== "http:")
    return `has the scheme ${url.protocol} – only https is ever fetched or opened: ${text.slice(0, 200)}`;
  // Legal or not, none of these belongs into an endpoint, and each means something to some shell.
  if (/[\s"'`|<>\\^{}\p{C}]|\$\(/u.test(text))
    return `holds characters that could be meant for a shell; it is not opened: ${text.slice(0, 200)}`;
  if (url.username !== "" || url.password !== "") return `holds a user name: ${text.slice(0, 200)}`;
  if (LOOPBACK.has(url.hostname) && !local) return `points to your own computer: ${text.slice(0, 200)}`;
  if (url.protocol === "http:" && !LOOPBACK.has(url.hostname)) return `is plain http: ${text.slice(0, 200)}`;
  return undefined;
}

/** Strings of a list that a stranger wrote. */
export function strings(value: unknown): readonly string[] {
  return Array.isArray(value) ? value.filter((one): one is string => typeof one === "string") : [];
}
