/**
 * What is fetched on the way to an authorization of an MCP server. Where the operator pointed us may be anywhere that the settings
 * allow; where the server points us from there is a stranger's word: public addresses only, never a redirect, little and soon.
 */
import { isIP } from "node:net";
import { publicAddress } from "../../net/addresses.ts";
import { type Resolve, resolveByDns, resolveBySystem } from "../../net/outbound.ts";
import { trusted } from "../../net/trusted.ts";
import type { OAuthServerSettings } from "../settings.ts";

export interface AuthorizationNet {
  fetch(url: string | URL, init?: RequestInit): Promise<Response>;
  /** Whether a browser may be sent there: https, or plain http where the settings allow it. */
  mayVisit(url: URL): boolean;
  close(): Promise<void>;
}

const MAX_BYTES = 256 * 1024;

export function authorizationNet(
  settings: OAuthServerSettings,
  resolve?: Resolve,
  timeoutMs = 10_000,
): AuthorizationNet {
  const { url, allowPrivateAddresses, allowInsecureHttp, credentials } = settings;
  const { oauth } = credentials;
  const server = new URL(url);
  // The operator put the server on this machine or network, so its authorization server may be there as well. A name says nothing
  // of the kind: whoever has a public name can let it resolve to a private address for the moment of our question.
  const within = allowPrivateAddresses && isPrivate(server.hostname);
  const own = trusted(
    {
      maxBytes: MAX_BYTES,
      timeoutMs,
      allowPrivateAddresses,
      allowInsecureHttp: allowInsecureHttp || oauth.allowInsecureHttp,
    },
    resolve ?? resolveBySystem,
  );
  const named = trusted(
    { maxBytes: MAX_BYTES, timeoutMs, allowPrivateAddresses: within, allowInsecureHttp: oauth.allowInsecureHttp },
    resolve ?? (within ? resolveBySystem : resolveByDns),
  );
  const operators = new Set([server.origin, ...(oauth.issuer === undefined ? [] : [new URL(oauth.issuer).origin])]);

  return {
    fetch: (to, init) => (operators.has(new URL(to).origin) ? own : named).fetch(to, init),
    mayVisit: (to) =>
      to.protocol === "https:" ||
      (to.protocol === "http:" && (oauth.allowInsecureHttp || (within && isPrivate(to.hostname)))),
    async close() {
      await Promise.all([own.close(), named.close()]);
    },
  };
}

function isPrivate(hostname: string): boolean {
  const host = hostname.replace(/^\[|\]$/g, "");
  return host === "localhost" || host.endsWith(".localhost") || (isIP(host) !== 0 && !publicAddress(host));
}
