/**
 * Outbound HTTP to addresses that the operator wrote into the settings file: identity providers, other authorization servers.
 * They may be on private networks; what they answer is still bounded in size and time, and never followed elsewhere.
 */
import { getCACertificates } from "node:tls";
import { Agent, fetch as undiciFetch } from "undici";
import { DrawbridgeError } from "../core/errors.ts";
import { publicAddress } from "./addresses.ts";
import { type Resolve, resolveBySystem } from "./outbound.ts";

export interface TrustedOptions {
  /** PEM certificates to trust beside the system's. */
  readonly trustedCertificates?: string;
  /** False refuses private, loopback and link-local addresses. */
  readonly allowPrivateAddresses?: boolean;
  /** Insecure: plain http anywhere, not only on loopback. */
  readonly allowInsecureHttp?: boolean;
  /** The largest answer; default 1 MiB. */
  readonly maxBytes?: number;
  /** From the first packet to the last byte; default 10 s. */
  readonly timeoutMs?: number;
}

export interface Trusted {
  /**
   * `fetch` as libraries want it. https anywhere, plain http on loopback only; redirects are answered as they came, not
   * followed. Rejects with `outbound_refused`, `upstream_unavailable` or `upstream_timeout`.
   */
  fetch(url: string | URL, init?: RequestInit): Promise<Response>;
  close(): Promise<void>;
}

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

export function trusted(options: TrustedOptions = {}, resolve: Resolve = resolveBySystem): Trusted {
  const { trustedCertificates, allowPrivateAddresses = true, maxBytes = 1 << 20, timeoutMs = 10_000 } = options;
  const overHttp = (url: URL) => url.protocol === "http:" && (options.allowInsecureHttp || LOOPBACK.has(url.hostname));
  const agent = new Agent({
    connections: 16,
    keepAliveTimeout: 4_000,
    maxHeaderSize: 32_768,
    connect: {
      timeout: Math.min(timeoutMs, 5_000),
      ...(trustedCertificates === undefined ? {} : { ca: [...getCACertificates("default"), trustedCertificates] }),
      lookup(host, { all }, answer) {
        resolve(host).then(
          (addresses) => {
            const [first] = addresses;
            const fine = allowPrivateAddresses || addresses.every(({ address }) => publicAddress(address));
            if (first === undefined || !fine) answer(refused(`The address of ${host} is not a public one.`), "", 0);
            else if (all) answer(null, [...addresses]);
            else answer(null, first.address, first.family);
          },
          (cause: Error) => answer(cause, "", 0),
        );
      },
    },
  });

  return {
    async fetch(address, init = {}) {
      const url = new URL(address);
      if (url.protocol !== "https:" && !overHttp(url)) {
        throw refused(`${url.origin} is not https, nor on this machine.`);
      }
      const literal = url.hostname.replace(/^\[|\]$/g, "");
      if (!allowPrivateAddresses && /^[\d.]+$|:/.test(literal) && !publicAddress(literal)) {
        throw refused(`The address ${literal} is not a public one.`);
      }
      const deadline = AbortSignal.timeout(timeoutMs);
      const signal = init.signal == null ? deadline : AbortSignal.any([init.signal, deadline]);
      try {
        const request = { ...init, signal, redirect: "manual", dispatcher: agent } as Parameters<typeof undiciFetch>[1];
        const answer = await undiciFetch(url, request);
        const body = await bounded(answer.body, maxBytes, url.host);
        const empty = answer.status === 204 || answer.status === 304;
        return new Response(empty ? null : body, { status: answer.status, headers: [...answer.headers] });
      } catch (thrown) {
        throw translated(thrown, url.host, timeoutMs);
      }
    },
    close: () => agent.destroy(),
  };
}

async function bounded(
  body: AsyncIterable<Uint8Array> | null,
  maxBytes: number,
  host: string,
): Promise<Buffer<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for await (const part of body ?? []) {
    size += part.length;
    if (size > maxBytes) throw refused(`${host} answered with more than ${maxBytes} bytes.`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

function translated(thrown: unknown, host: string, timeoutMs: number): DrawbridgeError {
  const { name, message, cause } =
    thrown instanceof Error ? thrown : { name: "", message: String(thrown), cause: undefined };
  if (thrown instanceof DrawbridgeError) return thrown;
  if (cause instanceof DrawbridgeError) return cause;
  if (name === "TimeoutError") {
    return new DrawbridgeError("upstream_timeout", `${host} did not answer within ${timeoutMs / 1000} s.`, {
      cause: thrown,
    });
  }
  const detail = cause instanceof Error ? `${message}: ${cause.message}` : message;
  return new DrawbridgeError("upstream_unavailable", `${host} could not be reached.`, { cause: thrown, detail });
}

function refused(message: string): DrawbridgeError {
  return new DrawbridgeError("outbound_refused", message);
}
