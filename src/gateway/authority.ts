/** Who issues the tokens of a gateway, and what its settings for clients come to where it stands. */
import { readFile } from "node:fs/promises";
import type { Settings } from "../config/schema.ts";
import { trusted } from "../net/trusted.ts";
import type { Authority } from "../oauth/authority.ts";
import { externalAuthority } from "../oauth/external.ts";
import { placeOf } from "../oauth/http.ts";
import { type AuthorizationServer, type AuthorizationServerOptions, authorizationServer } from "../oauth/server.ts";
import type { Logger } from "../observe/logger.ts";
import { LOOPBACK } from "./routes.ts";

/** Who issues the tokens: our own server, or the one of the settings, and then there are no pages and endpoints of ours. */
export async function authorityFor(
  external: Settings["authorization"],
  options: AuthorizationServerOptions,
): Promise<{ readonly authority: Authority; readonly server?: AuthorizationServer }> {
  if (external === undefined) {
    const server = await authorizationServer(options);
    return { authority: server, server };
  }
  const { trustedCertificates, allowPrivateAddresses } = external;
  const http = trusted({
    allowPrivateAddresses,
    ...(trustedCertificates !== undefined && { trustedCertificates: await readFile(trustedCertificates, "utf8") }),
  });
  const { publicUrl, records, log, furtherScopes: further = () => [] } = options;
  const { resource } = placeOf(publicUrl);
  return { authority: externalAuthority(external, { resource, http, records, log, furtherScopes: further }) };
}

/** The settings for clients, as far as they depend on where the gateway stands. */
export function clientsFor(publicUrl: URL, { clients, listen }: Settings, log: Logger): Settings["clients"] {
  const registered = { ...clients, registration: registrationFor(publicUrl, clients.registration) };
  if (!listen.behindTlsProxy || listen.trustedProxies.length > 0) return registered;
  log.warn(
    {},
    "every request seems to come from the proxy in front (listen.behindTlsProxy), so requests cannot be limited per source: name the proxy in listen.trustedProxies",
  );
  // Otherwise one stranger could use up what everybody has.
  return { ...registered, requestsPerSourcePerMinute: 0 };
}

/** What `auto` means: on loopback nobody but this machine's programs can register, and each still needs the user's consent. */
function registrationFor(
  publicUrl: URL,
  setting: Settings["clients"]["registration"],
): Exclude<Settings["clients"]["registration"], "auto"> {
  if (setting !== "auto") return setting;
  return LOOPBACK.has(publicUrl.hostname) ? "open" : "off";
}
