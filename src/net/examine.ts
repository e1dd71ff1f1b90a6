/** What examining a server takes beyond `fetch`: its certificate as it is, and a request under another name. */
import { request as overHttp } from "node:http";
import { request as overHttps } from "node:https";
import { connect } from "node:tls";
import { DrawbridgeError } from "../core/errors.ts";

export interface Certificate {
  readonly validTo: Date;
  /** `TLSv1.3`. */
  readonly protocol: string;
  /** Why clients do not take it; undefined: they do. */
  readonly problem: string | undefined;
}

/**
 * Begins TLS with one of `addresses`, as `host`, and ends it. `trustedCertificates`: PEM beside the system's. Rejects with
 * `upstream_unavailable` or `upstream_timeout`.
 */
export function certificateOf(
  { hostname, port }: Pick<URL, "hostname" | "port">,
  address: string,
  trustedCertificates: readonly string[] | undefined,
  timeoutMs = 5_000,
): Promise<Certificate> {
  const host = hostname.replace(/^\[|\]$/g, "");
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: address,
      port: port === "" ? 443 : Number(port),
      ...(/^[\d.]+$|:/.test(host) ? {} : { servername: host }),
      ...(trustedCertificates !== undefined && { ca: [...trustedCertificates] }),
      // The handshake goes through either way, so that the certificate can be looked at; nothing is sent after it.
      rejectUnauthorized: false,
    });
    const end = (settle: () => void) => {
      socket.destroy();
      settle();
    };
    socket.setTimeout(timeoutMs, () =>
      end(() => reject(new DrawbridgeError("upstream_timeout", `${hostname} did not finish TLS.`))),
    );
    socket.once("error", (cause) =>
      end(() => reject(new DrawbridgeError("upstream_unavailable", `${hostname} does not speak TLS.`, { cause }))),
    );
    socket.once("secureConnect", () => {
      const validTo = new Date(socket.getPeerCertificate().valid_to);
      const problem = socket.authorized ? undefined : String(socket.authorizationError);
      const protocol = socket.getProtocol() ?? "unknown";
      end(() => resolve({ validTo, protocol, problem }));
    });
  });
}

export interface NamedRequest {
  /** What `Host` says. */
  readonly host: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** PEM certificates in place of the system's. */
  readonly trustedCertificates?: readonly string[] | undefined;
}

/**
 * Posts `body` to `url` at `address` under another name, which `fetch` does not let one give. Resolves with the status alone; the
 * body of the answer is not read. Rejects with `upstream_unavailable` or `upstream_timeout`.
 */
export function statusUnder(
  url: URL,
  address: string,
  { host, headers, body, trustedCertificates }: NamedRequest,
  timeoutMs = 5_000,
): Promise<{ readonly status: number; readonly session: string | undefined }> {
  const secure = url.protocol === "https:";
  return new Promise((resolve, reject) => {
    const request = (secure ? overHttps : overHttp)({
      host: address,
      port: url.port === "" ? (secure ? 443 : 80) : Number(url.port),
      path: `${url.pathname}${url.search}`,
      method: "POST",
      agent: false,
      headers: { ...headers, host, "content-length": Buffer.byteLength(body) },
      ...(secure && { servername: url.hostname, ca: trustedCertificates && [...trustedCertificates] }),
      signal: AbortSignal.timeout(timeoutMs),
    });
    request.once("response", (response) => {
      const session = response.headers["mcp-session-id"];
      response.destroy();
      resolve({ status: response.statusCode ?? 0, session: typeof session === "string" ? session : undefined });
    });
    request.once("error", (cause) => {
      const late = cause.name === "AbortError" || cause.name === "TimeoutError";
      const message = late
        ? `${url.host} did not answer within ${timeoutMs / 1000} s.`
        : `${url.host} could not be reached.`;
      reject(
        new DrawbridgeError(late ? "upstream_timeout" : "upstream_unavailable", message, {
          cause,
          detail: cause.message,
        }),
      );
    });
    request.end(body);
  });
}
