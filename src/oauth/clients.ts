/**
 * Who may ask as a client, and how far it is trusted: clients named by the URL of their metadata document
 * (draft-ietf-oauth-client-id-metadata-document), registered ones (RFC 7591) and those of the settings file.
 */
import { domainToUnicode } from "node:url";
import { DrawbridgeError } from "../core/errors.ts";
import type { CachedDocuments } from "../net/cached.ts";
import type { ClientsSettings } from "./settings.ts";

/** `allowed` and `asked` are documents; the host of their URL is proved by having been fetched from it. */
export type Trust = "preregistered" | "allowed" | "asked" | "registered";

export interface ClientPolicy {
  trustOf(clientId: string): Trust;
  /** Which redirect URIs are refused, in words; undefined: all are fine. */
  redirectProblem(uris: unknown): string | undefined;
  /**
   * Loads a client's document and puts it right. Rejects with `outbound_refused` when none may be fetched from there (nothing
   * is sent then), when it is not one, or not its own; with what the fetch said when that failed.
   */
  loadDocument(clientId: string): Promise<ClientMetadata>;
  /** Puts right what a client wants to register. */
  normalise(metadata: Record<string, unknown>): ClientMetadata;
}

export type ClientMetadata = Record<string, unknown>;

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);
const MAX_ID_LENGTH = 1024;
const MAX_REDIRECTS = 100;
const MAX_NAME = 80;

/** What is taken from a client's metadata. Everything else is left out: some of it would make the server fetch more. */
const TAKEN = [
  "client_id",
  "client_name",
  "client_uri",
  "redirect_uris",
  "grant_types",
  "response_types",
  "application_type",
  "token_endpoint_auth_method",
  "token_endpoint_auth_signing_alg",
  "jwks",
  "jwks_uri",
] as const;

export function clientPolicy(settings: ClientsSettings, documents: CachedDocuments): ClientPolicy {
  const { metadataDocuments } = settings;
  const preregistered = new Set(settings.preregistered.map(({ id }) => id));
  const schemes = new Set(settings.customSchemes.map((scheme) => `${scheme}:`));

  function normalise(given: Record<string, unknown>): ClientMetadata {
    const metadata: ClientMetadata = {};
    for (const name of TAKEN) if (given[name] !== undefined && given[name] !== null) metadata[name] = given[name];
    const uris = Array.isArray(metadata["redirect_uris"]) ? metadata["redirect_uris"] : [];
    // RFC 8252 §7.3: a program on the user's machine takes any port. Few say that they are one, their redirects do.
    metadata["application_type"] = uris.some(localRedirect) ? "native" : "web";
    metadata["client_name"] = displayName(given["client_name"]);
    if (metadata["client_name"] === "") delete metadata["client_name"];
    metadata["response_types"] = ["code"];
    // Other grants in its list are what it does elsewhere.
    const grants = given["grant_types"];
    const refreshes = !Array.isArray(grants) || grants.includes("refresh_token");
    metadata["grant_types"] = refreshes ? ["authorization_code", "refresh_token"] : ["authorization_code"];
    return metadata;
  }

  function checkDocumentUrl(clientId: string): URL {
    const url = URL.parse(clientId);
    if (!metadataDocuments.enabled) throw refused("Client ID metadata documents are switched off here.");
    const plain =
      url !== null && url.href === clientId && url.pathname !== "/" && url.hash === "" && url.username === "";
    if (!plain || clientId.length > MAX_ID_LENGTH) {
      throw refused("This client id is not the URL of a document, in its plain spelling with a path.");
    }
    if (matches(metadataDocuments.deny, url)) throw refused(`Clients of ${url.host} are not allowed here.`);
    if (metadataDocuments.others === "deny" && !matches(metadataDocuments.allow, url)) {
      throw refused(`Clients of ${url.host} are not on the list of those allowed here. Ask your operator to add it.`);
    }
    return url;
  }

  function problemOf(uris: unknown): string | undefined {
    if (!Array.isArray(uris) || uris.length === 0) return "redirect_uris must be a list with at least one URI.";
    if (uris.length > MAX_REDIRECTS) return `redirect_uris has more than ${MAX_REDIRECTS} entries.`;
    for (const uri of uris) {
      const problem = redirectProblem(uri, schemes);
      if (problem !== undefined) return `${JSON.stringify(String(uri).slice(0, 200))} in redirect_uris ${problem}.`;
    }
    return undefined;
  }

  return {
    normalise,
    redirectProblem: problemOf,
    trustOf(clientId) {
      if (preregistered.has(clientId)) return "preregistered";
      if (!isDocumentUrl(clientId)) return "registered";
      return matches(metadataDocuments.allow, new URL(clientId)) ? "allowed" : "asked";
    },
    async loadDocument(clientId) {
      const { host } = checkDocumentUrl(clientId);
      const document = jsonObject(await documents.get(clientId));
      if (document === undefined) throw refused(`The document at ${clientId} is not a JSON object.`);
      if (document["client_id"] !== clientId)
        throw refused(`The document at ${clientId} is not its own: its client_id differs.`);
      if ("client_secret" in document || String(document["token_endpoint_auth_method"]).startsWith("client_secret")) {
        throw refused(`The document at ${clientId} relies on a secret, which a public document cannot.`);
      }
      const problem = problemOf(document["redirect_uris"]);
      if (problem !== undefined) throw refused(`The document of ${host} cannot be used: ${problem}`);
      const metadata = normalise(document);
      // RFC 7591's default, client_secret_basic, cannot be meant by a public document.
      metadata["token_endpoint_auth_method"] ??=
        "jwks" in metadata || "jwks_uri" in metadata ? "private_key_jwt" : "none";
      return metadata;
    },
  };
}

/** True when a client id names a document rather than a registration. */
export function isDocumentUrl(clientId: string): boolean {
  return /^https:\/\//i.test(clientId);
}

/** True when the answer goes to a program on the user's own machine: anything there can pose as the client. */
export function localRedirect(uri: unknown): boolean {
  const url = typeof uri === "string" ? URL.parse(uri) : null;
  return url !== null && (url.protocol !== "https:" || LOOPBACK.has(url.hostname));
}

/** A host as people read it; both spellings when it is an internationalised one, so that look-alikes show. */
export function readableHost(url: URL): string {
  const unicode = domainToUnicode(url.hostname);
  return unicode === url.hostname || unicode === "" ? url.host : `${unicode} (${url.host})`;
}

/** A name that strangers gave themselves: no markup is interpreted later, but line breaks and text-direction tricks end here. */
export function displayName(given: unknown): string {
  if (typeof given !== "string") return "";
  const plain = given
    .normalize("NFKC")
    .replace(/[\p{C}\p{Zl}\p{Zp}]/gu, " ")
    .replace(/\s+/g, " ")
    .trim();
  return plain.length > MAX_NAME ? `${plain.slice(0, MAX_NAME - 1)}…` : plain;
}

function redirectProblem(uri: unknown, schemes: ReadonlySet<string>): string | undefined {
  if (typeof uri !== "string" || uri.length > 2000) return "is not a URI of at most 2000 characters";
  const url = URL.parse(uri);
  // The parser drops tabs and line breaks and trims blanks; a URI that needs that is an attempt to be read in two ways.
  if (url === null || /[\s\\\p{C}]/u.test(uri)) return "is not a URI";
  if (uri.includes("#")) return "has a fragment";
  if (url.username !== "" || url.password !== "") return "has a user name";
  if (uri.includes("*")) return "has a wildcard";
  if (url.protocol === "https:" || schemes.has(url.protocol)) return undefined;
  if (url.protocol === "http:")
    return LOOPBACK.has(url.hostname) ? undefined : "is plain http and not on this computer";
  return `has the scheme ${url.protocol.slice(0, -1)}, which is not allowed here (clients.customSchemes)`;
}

function matches(patterns: readonly string[], url: URL): boolean {
  return patterns.some((pattern) => {
    const subject = /:\d+$/.test(pattern) ? url.host : url.hostname;
    return pattern.startsWith("*.") ? subject.endsWith(pattern.slice(1)) : subject === pattern;
  });
}

function jsonObject(body: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(body.toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

function refused(message: string): DrawbridgeError {
  return new DrawbridgeError("outbound_refused", message);
}
