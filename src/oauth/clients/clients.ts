/**
 * Who may ask as a client, and how far it is trusted: clients named by the URL of their metadata document
 * (draft-ietf-oauth-client-id-metadata-document), registered ones (RFC 7591) and those of the settings file.
 */
import { hash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { domainToASCII, domainToUnicode } from "node:url";
import { DrawbridgeError } from "../../core/errors.ts";
import type { CachedDocuments } from "../../net/cached.ts";
import { type Outbound, outbound, type Resolve } from "../../net/outbound.ts";
import { strictJsonObject } from "../../net/strict-json.ts";
import type { ClientsSettings } from "../settings.ts";

/**
 * `allowed` and `asked` are documents; the host of their URL is proved by having been fetched from it. `allowed`: the operator
 * lists the domain, or pins the document.
 */
export type Trust = "preregistered" | "allowed" | "asked" | "registered";

export interface ClientPolicy {
  trustOf(clientId: string): Trust;
  /** Which redirect URIs are refused, in words; undefined: all are fine. */
  redirectProblem(uris: unknown): string | undefined;
  /** Why no document is taken from there, whatever it says; undefined: one may be. */
  documentProblem(clientId: string): string | undefined;
  /** What else of a client's metadata is refused, in words; undefined: nothing. */
  metadataProblem(given: ClientMetadata): string | undefined;
  /**
   * Loads a client's document and puts it right. Rejects with `outbound_refused` when none may be fetched from there (nothing
   * is sent then), when it is not one, not its own, or not the pinned one; with what the fetch said when that failed. `source`:
   * on whose behalf, for the limits.
   */
  loadDocument(clientId: string, source?: string): Promise<ClientMetadata>;
  /** Puts right what a client wants to register. */
  normalise(metadata: Record<string, unknown>): ClientMetadata;
}

export type ClientMetadata = Record<string, unknown>;

/** A metadata document of a client (draft-ietf-oauth-client-id-metadata-document §6.6 recommends this bound). */
export const DOCUMENT_LIMITS = { maxBytes: 5 * 1024, timeoutMs: 3_000 } as const;

/** RFC 7523 §2.1. */
export const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);
/** A scheme that can only be a program's own; those of the web, and those that run or read something, spoil a document. */
const PROGRAM_SCHEME =
  /^(?!(?:https?|javascript|data|file|filesystem|blob|vbscript|about|wss?|ftp|mailto|tel|sms|view-source|jar):$)[a-z][a-z0-9+.-]*:$/;
const MAX_ID_LENGTH = 1024;
const MAX_REDIRECTS = 100;
const MAX_NAME = 80;
const MAX_KEYS = 20;

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
  const allowed = domains(metadataDocuments.allow);
  const denied = domains(metadataDocuments.deny);
  const pins = new Map(Object.entries(metadataDocuments.pins));
  const known = (url: URL) => allowed(url) || pins.has(url.href);

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
    // RFC 9449 §5.2.
    if (given["dpop_bound_access_tokens"] === true) metadata["dpop_bound_access_tokens"] = true;
    return metadata;
  }

  function documentProblem(clientId: string): string | undefined {
    const url = URL.parse(clientId);
    if (!metadataDocuments.enabled) return "Client ID metadata documents are switched off here.";
    const plain =
      url !== null && url.href === clientId && url.pathname !== "/" && !clientId.includes("#") && url.username === "";
    if (!plain || clientId.length > MAX_ID_LENGTH)
      return "This client id is not the URL of a document, in its plain spelling with a path.";
    // A denied domain stays denied, whatever else names it.
    if (denied(url)) return `Clients of ${url.host} are not allowed here.`;
    if (metadataDocuments.others === "deny" && !known(url))
      return `Clients of ${url.host} are not on the list of those allowed here. Ask your operator to add it.`;
    return undefined;
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

  /**
   * A document is written once for all servers. A scheme of a program that is not allowed here does not spoil its other redirects,
   * as long as there are any.
   */
  function withoutForeignSchemes(uris: unknown): unknown {
    if (!Array.isArray(uris)) return uris;
    const usable = uris.filter((uri) => {
      const protocol = typeof uri === "string" ? (URL.parse(uri)?.protocol ?? "") : "";
      return !PROGRAM_SCHEME.test(protocol) || schemes.has(protocol);
    });
    return usable.length > 0 ? usable : uris;
  }

  function checkPin(clientId: string, body: Buffer): void {
    const pin = pins.get(clientId);
    const found = documentHash(body);
    if (pin === undefined || pin === found) return;
    throw refused(
      `The document at ${clientId} is not the one that your operator pinned. It may have been changed since; ask your operator to look at it.`,
      `clients.metadataDocuments.pins has ${pin}, the document's SHA-256 is ${found}`,
    );
  }

  return {
    normalise,
    redirectProblem: problemOf,
    metadataProblem,
    documentProblem,
    trustOf(clientId) {
      if (preregistered.has(clientId)) return "preregistered";
      if (!isDocumentUrl(clientId)) return "registered";
      return known(new URL(clientId)) ? "allowed" : "asked";
    },
    async loadDocument(clientId, source) {
      const unwelcome = documentProblem(clientId);
      if (unwelcome !== undefined) throw refused(unwelcome);
      const { host } = new URL(clientId);
      const body = await documents.get(clientId, source);
      checkPin(clientId, body);
      const document = readDocument(clientId, body);
      if (document["client_id"] !== clientId)
        throw refused(`The document at ${clientId} is not its own: its client_id differs.`);
      if ("client_secret" in document || String(document["token_endpoint_auth_method"]).startsWith("client_secret")) {
        throw refused(`The document at ${clientId} relies on a secret, which a public document cannot.`);
      }
      const redirectUris = withoutForeignSchemes(document["redirect_uris"]);
      const problem = problemOf(redirectUris) ?? metadataProblem(document);
      if (problem !== undefined) throw refused(`The document of ${host} cannot be used: ${problem}`);
      const metadata = normalise({ ...document, redirect_uris: redirectUris });
      // RFC 7591's default, client_secret_basic, cannot be meant by a public document.
      metadata["token_endpoint_auth_method"] ??=
        "jwks" in metadata || "jwks_uri" in metadata ? "private_key_jwt" : "none";
      // Its users' identity provider may vouch for them (RFC 7523), to a client that proves who it is.
      const { grant_types: grants, token_endpoint_auth_method: method } = metadata;
      if (method === "private_key_jwt" && [document["grant_types"]].flat().includes(JWT_BEARER))
        metadata["grant_types"] = [...[grants].flat(), JWT_BEARER];
      return metadata;
    },
  };
}

/** What client documents are fetched with, as the settings bound it. */
export async function documentNet(
  { allowPrivateAddresses, extraPorts, trustedCertificates }: ClientsSettings["metadataDocuments"],
  resolve?: Resolve,
): Promise<Outbound> {
  const certificates = trustedCertificates === undefined ? undefined : await readFile(trustedCertificates, "utf8");
  return outbound(
    {
      allowPrivateAddresses,
      extraPorts,
      ...(certificates === undefined ? {} : { trustedCertificates: certificates }),
    },
    resolve,
  );
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
    // Letters that show nothing, as fillers and the blank of Braille do, and marks piled on one letter over the lines around it.
    .replace(/[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu, " ")
    .replace(/(\p{M}{3})\p{M}+/gu, "$1")
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

/** The hash that `pins` compares: of the bytes as they came, so that no change goes unseen. */
export function documentHash(body: Uint8Array): string {
  return hash("sha256", body, "hex");
}

const AUTH_METHODS = new Set(["none", "private_key_jwt", "client_secret_basic", "client_secret_post"]);

function metadataProblem(given: ClientMetadata): string | undefined {
  const { jwks, jwks_uri: keySet, client_name: name } = given;
  const method = given["token_endpoint_auth_method"] ?? "none";
  for (const list of ["grant_types", "response_types"]) {
    const values = given[list] ?? [];
    if (!Array.isArray(values) || values.some((value) => typeof value !== "string"))
      return `${list} must be a list of texts.`;
  }
  // Others beside these are what the client does elsewhere.
  if (Array.isArray(given["grant_types"]) && !given["grant_types"].includes("authorization_code"))
    return "grant_types must include authorization_code: the client asks on behalf of people here.";
  if (Array.isArray(given["response_types"]) && !given["response_types"].includes("code"))
    return "response_types must include code, the only response_type here.";
  if (typeof method !== "string" || !AUTH_METHODS.has(method))
    return `token_endpoint_auth_method must be one of ${[...AUTH_METHODS].join(", ")}.`;
  if (name !== undefined && name !== null && typeof name !== "string") return "client_name must be a text.";
  if (jwks != null && keySet != null) return "Give jwks or jwks_uri, not both.";
  if (method === "private_key_jwt" && jwks == null && keySet == null)
    return "private_key_jwt needs public keys, in jwks or behind jwks_uri.";
  const keys = jwks == null ? [] : (jwks as { readonly keys?: unknown }).keys;
  if (!Array.isArray(keys) || keys.length > MAX_KEYS) return `jwks must have a list of at most ${MAX_KEYS} keys.`;
  if (keySet != null && (typeof keySet !== "string" || URL.parse(keySet)?.protocol !== "https:"))
    return "jwks_uri must be an https URL.";
  return undefined;
}

/** Whether a URL lies in one of the domains of a list in the settings. */
function domains(patterns: readonly string[]): (url: URL) => boolean {
  const compiled = patterns.map((pattern) => {
    const [, below, name = "", port] = /^(\*\.)?(.*?)(?::(\d+))?$/.exec(pattern) ?? [];
    // URL spells an internationalised domain as xn--…; people need not.
    return { below: below !== undefined, name: domainToASCII(name), port };
  });
  return (url) =>
    compiled.some(
      ({ below, name, port }) =>
        (below ? url.hostname.endsWith(`.${name}`) : url.hostname === name) &&
        (port === undefined || port === (url.port || "443")),
    );
}

function readDocument(clientId: string, body: Buffer): Record<string, unknown> {
  try {
    return strictJsonObject(body);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : "cannot be read";
    throw refused(`The document at ${clientId} ${reason}.`);
  }
}

function refused(message: string, detail?: string): DrawbridgeError {
  return new DrawbridgeError("outbound_refused", message, detail === undefined ? {} : { detail });
}
