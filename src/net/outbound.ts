/**
 * The only outbound HTTP of the gateway for addresses that strangers chose: client documents, key sets. Nothing is sent to
 * an address that is not public; the address that was checked is the one connected to (no DNS rebinding).
 */
import { type LookupAddress, promises, lookup as systemLookup } from "node:dns";
import { isIP } from "node:net";
import { getCACertificates } from "node:tls";
import { Agent, request } from "undici";
import { DrawbridgeError, type ErrorOptions } from "../core/errors.ts";
import { publicAddress } from "./addresses.ts";

export interface OutboundOptions {
  /** Insecure: loopback and private addresses too. For development. */
  readonly allowPrivateAddresses?: boolean;
  /** Ports beside 443. */
  readonly extraPorts?: readonly number[];
  /** PEM certificates to trust beside the system's. */
  readonly trustedCertificates?: string;
}

export interface OutboundLimits {
  /** The largest body. */
  readonly maxBytes: number;
  /** From the first packet to the last byte of the body. */
  readonly timeoutMs: number;
}

export interface OutboundAnswer {
  /** 200, or 304 when `etag` was given. */
  readonly status: number;
  /** Empty on 304. */
  readonly body: Buffer;
  readonly etag: string | undefined;
  readonly cacheControl: string | undefined;
}

/** Resolves a name to all of its addresses. */
export type Resolve = (host: string) => Promise<readonly LookupAddress[]>;

export interface Outbound {
  /** Throws `outbound_refused` for a URL that is never fetched, whatever its host resolves to. Asks nobody. */
  check(url: string): void;
  /**
   * Gets a JSON document over https. Rejects with `outbound_refused`: a URL, address or port that is not allowed (nothing
   * is sent), a redirect, another status than 200, another content type than JSON, a compressed body, a body too large. Rejects
   * with `upstream_unavailable` or `upstream_timeout` when the other side may do better later.
   */
  getJson(url: string, limits: OutboundLimits, etag?: string): Promise<OutboundAnswer>;
  close(): Promise<void>;
}

const MAX_URL_LENGTH = 2048;

export function outbound(
  options: OutboundOptions = {},
  resolve: Resolve = options.allowPrivateAddresses === true ? resolveBySystem : resolveByDns,
): Outbound {
  const ports = new Set([443, ...(options.extraPorts ?? [])]);
  const allowed = (address: string) => options.allowPrivateAddresses === true || publicAddress(address);

  const agent = new Agent({
    connections: 4,
    pipelining: 0,
    keepAliveTimeout: 1_000,
    maxHeaderSize: 16_384,
    maxOrigins: 1_000,
    allowH2: false,
    connect: {
      timeout: 3_000,
      ...(options.trustedCertificates === undefined
        ? {}
        : { ca: [...getCACertificates("default"), options.trustedCertificates] }),
      // The socket connects to what this lookup answers and to nothing else, so what was checked is what is reached.
      lookup(host, { all }, answer) {
        resolve(host).then(
          (addresses) => {
            const [first] = addresses;
            // One special-use address among public ones is how rebinding begins: the whole answer is refused.
            if (first === undefined || !addresses.every(({ address }) => allowed(address))) {
              answer(refused(`The address of ${host} is not a public one.`), "", 0);
            } else if (all) {
              answer(null, [...addresses]);
            } else {
              answer(null, first.address, first.family);
            }
          },
          (cause: Error) => answer(cause, "", 0),
        );
      },
    },
  });

  return {
    check: (url) => void checkedUrl(url, ports, allowed),
    async getJson(text, limits, etag) {
      const url = checkedUrl(text, ports, allowed);
      const signal = AbortSignal.timeout(limits.timeoutMs);
      try {
        const asked = request(url, {
          dispatcher: agent,
          signal,
          headersTimeout: limits.timeoutMs,
          bodyTimeout: limits.timeoutMs,
          headers: {
            accept: "application/json",
            "accept-encoding": "identity",
            "user-agent": "drawbridge",
            ...(etag === undefined ? {} : { "if-none-match": etag }),
          },
        });
        const answer = await orAborted(asked, signal);
        const header = (name: string) => {
          const value = answer.headers[name];
          return Array.isArray(value) ? value.join(", ") : value;
        };
        try {
          const facts = { etag: header("etag"), cacheControl: header("cache-control") };
          if (answer.statusCode === 304 && etag !== undefined) return { status: 304, body: Buffer.alloc(0), ...facts };
          if (answer.statusCode >= 500) throw unavailable(`${url.host} answered with status ${answer.statusCode}.`);
          if (answer.statusCode !== 200) throw refused(`${url.host} answered with status ${answer.statusCode}.`);
          if (!/^application\/(?:[\w.-]+\+)?json *(?:;|$)/i.test(header("content-type") ?? "")) {
            throw refused(`${url.host} answered with another content type than application/json.`);
          }
          if ((header("content-encoding") ?? "identity") !== "identity") {
            throw refused(`${url.host} answered with a compressed body, which was not asked for.`);
          }
          return { status: 200, body: await bounded(answer.body, limits.maxBytes, url.host), ...facts };
        } finally {
          // What was not read is not wanted; destroying a body that was read does nothing.
          answer.body.on("error", () => {}).destroy();
        }
      } catch (thrown) {
        throw translated(thrown, url.host, limits.timeoutMs);
      }
    },
    // Whatever still runs has a deadline of seconds, but a gateway that stops does not wait for strangers.
    close: () => agent.destroy(),
  };
}

function checkedUrl(text: string, ports: ReadonlySet<number>, allowed: (address: string) => boolean): URL {
  const url = URL.parse(text);
  if (url === null || text.length > MAX_URL_LENGTH) throw refused("This is not a URL that can be fetched.");
  if (url.protocol !== "https:") throw refused("Only https URLs are fetched.");
  if (url.username !== "" || url.password !== "") throw refused("A URL with a user name or password is not fetched.");
  const port = url.port === "" ? 443 : Number(url.port);
  if (!ports.has(port)) throw refused(`Port ${port} is not one that documents are fetched from.`);
  // "host." is another spelling of "host" that lists of names would not know.
  if (url.hostname.endsWith(".")) throw refused("A host name that ends with a dot is not fetched.");
  // The URL parser has already turned octal, hexadecimal and decimal spellings into the usual one. No lookup happens for these.
  const literal = url.hostname.replace(/^\[|\]$/g, "");
  if (isIP(literal) !== 0 && !allowed(literal)) throw refused(`The address ${literal} is not a public one.`);
  return url;
}

/** undici hears of an abort only once it is connected, and who connects slowly must not have longer for it. */
async function orAborted<T>(asked: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  asked.catch(() => {});
  try {
    return await Promise.race([asked, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

async function bounded(body: AsyncIterable<Buffer>, maxBytes: number, host: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of body) {
    size += part.length;
    if (size > maxBytes) throw refused(`${host} answered with more than ${maxBytes} bytes.`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function translated(thrown: unknown, host: string, timeoutMs: number): DrawbridgeError {
  if (thrown instanceof DrawbridgeError) return thrown;
  const { name, message } = thrown instanceof Error ? thrown : { name: "", message: String(thrown) };
  if (name === "TimeoutError" || name === "AbortError") {
    return new DrawbridgeError("upstream_timeout", `${host} did not answer within ${timeoutMs / 1000} s.`, {
      cause: thrown,
    });
  }
  return unavailable(`${host} could not be reached.`, { cause: thrown, detail: message });
}

function unavailable(message: string, options: ErrorOptions = {}): DrawbridgeError {
  return new DrawbridgeError("upstream_unavailable", message, options);
}

function refused(message: string): DrawbridgeError {
  return new DrawbridgeError("outbound_refused", message);
}

/** Asks the system, hosts file and all: for names that the operator chose. */
export const resolveBySystem: Resolve = (host) =>
  new Promise((resolve, reject) => {
    systemLookup(host, { all: true }, (error, addresses) => (error ? reject(error) : resolve(addresses)));
  });

/**
 * Asks name servers, never the system: a system lookup holds one of the four threads that files and passwords wait for, and the
 * name servers of a stranger's domain decide for how long.
 */
export const resolveByDns: Resolve = async (host) => {
  const resolver = new promises.Resolver({ timeout: 1_000, tries: 2 });
  const [ipv4, ipv6] = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
  const addresses = [
    ...(ipv4.status === "fulfilled" ? ipv4.value : []).map((address) => ({ address, family: 4 })),
    ...(ipv6.status === "fulfilled" ? ipv6.value : []).map((address) => ({ address, family: 6 })),
  ];
  if (addresses.length === 0 && ipv4.status === "rejected") throw ipv4.reason;
  return addresses;
};
