/** What a server shows of itself when TLS begins: for examining it, never for trusting it. */
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
