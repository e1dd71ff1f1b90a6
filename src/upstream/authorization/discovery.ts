/**
 * Who authorizes at an MCP server: from its challenge (RFC 6750 §3, RFC 9728 §5.1) over the metadata of the resource to that of the
 * authorization server (RFC 8414, OpenID Connect Discovery). Everything that is read here may be written by an enemy.
 */
import type { ServerMetadata } from "openid-client";
import { z } from "zod";
import { DrawbridgeError } from "../../core/errors.ts";
import { strictJsonObject } from "../../net/strict-json.ts";
import type { AuthorizationNet } from "./net.ts";

/** What a server says to whoever brings no token, or too small a one. */
export interface Challenge {
  readonly error: string | undefined;
  readonly resourceMetadata: string | undefined;
  /** The scopes that would do; undefined when it names none. */
  readonly scopes: readonly string[] | undefined;
}

export interface Discovered {
  /** The authorization server. Its `issuer` is the one that was asked for, its endpoints are web addresses. */
  readonly server: ServerMetadata;
  /** RFC 8707 identifier of the MCP server: what tokens are wanted for. */
  readonly resource: string;
  /** Scopes to ask for at first; undefined when nobody names any. */
  readonly scopes: readonly string[] | undefined;
  /** The MCP server takes tokens that are bound to a key (RFC 9449), and the authorization server gives them. */
  readonly bound: boolean;
}

export interface DiscoveryOptions {
  /** The server's name in the settings, for messages. */
  readonly name: string;
  readonly url: string;
  /** The only authorization server that is believed; undefined: the first that the server names. */
  readonly issuer: string | undefined;
  readonly net: AuthorizationNet;
}

const MAX_HEADER = 8192;
const MAX_SCOPES = 100;
/** RFC 6749 §3.3. */
const SCOPE = /^[\x21\x23-\x5B\x5D-\x7E]{1,200}$/;
/** How proofs are signed; the one algorithm that RFC 9449 §5.1 servers commonly take. */
export const PROOF_ALGORITHM = "ES256";

/** Finds the authorization server. Rejects with `upstream_failed` for what is not to be believed, or as the net does. */
export async function discover({ name, url, issuer, net }: DiscoveryOptions): Promise<Discovered> {
  const server = new URL(url);
  const { challenge } = await askedWithoutToken(server, net);
  const document = await resourceMetadata(name, server, challenge, net);
  const named = document?.authorization_servers ?? [];
  // 2025-03-26: without such a document the server's own origin is its authorization server.
  const candidates = document === undefined ? [server.origin] : named;
  const chosen = issuer === undefined ? candidates[0] : candidates.find((one) => same(one, issuer));
  if (chosen === undefined) {
    throw unfit(name, issuer === undefined ? "names no authorization server" : `does not name ${issuer}`);
  }
  const metadata = await serverMetadata(name, chosen, net);
  const proofs = document?.dpop_signing_alg_values_supported;
  const takesBound = proofs?.includes(PROOF_ALGORITHM) ?? document?.dpop_bound_access_tokens_required === true;
  return {
    server: metadata,
    resource: document?.resource ?? canonical(server),
    scopes: challenge?.scopes ?? readScopes(document?.scopes_supported?.join(" ")),
    bound: takesBound && metadata.dpop_signing_alg_values_supported?.includes(PROOF_ALGORITHM) === true,
  };
}

/** Reads the first challenge of a `WWW-Authenticate` header that is about tokens; undefined for one that has none. */
export function readChallenge(header: string | null | undefined): Challenge | undefined {
  if (header == null || header.length > MAX_HEADER || !/(?:^|[\s,])(?:bearer|dpop)\b/i.test(header)) return undefined;
  const found = new Map<string, string>();
  for (const [, key = "", quoted, bare] of header.matchAll(/([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))/g)) {
    const value = quoted?.replace(/\\(.)/g, "$1") ?? bare ?? "";
    if (!found.has(key.toLowerCase())) found.set(key.toLowerCase(), value);
  }
  return {
    error: found.get("error"),
    resourceMetadata: found.get("resource_metadata"),
    scopes: readScopes(found.get("scope")),
  };
}

/** What looks like scopes, each once; undefined when nothing does. */
export function readScopes(text: string | undefined): readonly string[] | undefined {
  const scopes = [...new Set((text ?? "").split(" ").filter((one) => SCOPE.test(one)))].slice(0, MAX_SCOPES);
  return scopes.length === 0 ? undefined : scopes;
}

/** The authorization server with this issuer. Rejects with `upstream_failed` when what is there is about another, or unsafe. */
export async function serverMetadata(name: string, issuer: string, net: AuthorizationNet): Promise<ServerMetadata> {
  const url = URL.parse(issuer);
  if (url === null || url.search !== "" || url.hash !== "" || url.username !== "" || !net.mayVisit(url))
    throw unfit(name, `names an authorization server that cannot be one: ${issuer.slice(0, 200)}`);
  const path = url.pathname.replace(/\/$/, "");
  const places = [
    `${url.origin}/.well-known/oauth-authorization-server${path}`,
    `${url.origin}/.well-known/openid-configuration${path}`,
    ...(path === "" ? [] : [`${url.origin}${path}/.well-known/openid-configuration`]),
  ];
  for (const place of places) {
    const found = await document(name, place, authorizationServer, net);
    if (found === undefined) continue;
    // RFC 8414 §3.3: identical, or it is somebody else's.
    if (found.issuer !== issuer) throw unfit(name, `has metadata of another issuer at ${place}`);
    const { authorization_endpoint: authorize, token_endpoint: token } = found;
    for (const endpoint of [authorize, token]) {
      const address = URL.parse(endpoint);
      if (address === null || !net.mayVisit(address))
        throw unfit(name, `has an endpoint that is not https at ${place}`);
    }
    // MCP, Authorization, PKCE: whoever does not say that S256 is taken is not gone on with.
    if (!found.code_challenge_methods_supported?.includes("S256"))
      throw unfit(name, `does not say that it takes PKCE with S256 at ${place}`);
    return found as ServerMetadata;
  }
  throw unfit(name, `names the authorization server ${issuer.slice(0, 200)}, which has no metadata`);
}

/** MCP, Canonical Server URI: without fragment, without query, which may hold a key, and without a slash that stands for no path. */
export function canonical({ origin, pathname }: URL): string {
  return `${origin}${pathname === "/" ? "" : pathname}`;
}

const text = z.string().max(2048);
const texts = z.array(text).max(1000);
const protectedResource = z.object({
  resource: text,
  authorization_servers: texts.optional(),
  scopes_supported: texts.optional(),
  dpop_signing_alg_values_supported: texts.optional(),
  dpop_bound_access_tokens_required: z.boolean().optional(),
});
/** What is taken; all else, which might make the library do more, is left out. */
const authorizationServer = z.object({
  issuer: text,
  authorization_endpoint: text,
  token_endpoint: text,
  registration_endpoint: text.optional(),
  revocation_endpoint: text.optional(),
  pushed_authorization_request_endpoint: text.optional(),
  require_pushed_authorization_requests: z.boolean().optional(),
  scopes_supported: texts.optional(),
  grant_types_supported: texts.optional(),
  code_challenge_methods_supported: texts.optional(),
  token_endpoint_auth_methods_supported: texts.optional(),
  dpop_signing_alg_values_supported: texts.optional(),
  id_token_signing_alg_values_supported: texts.optional(),
  authorization_response_iss_parameter_supported: z.boolean().optional(),
  client_id_metadata_document_supported: z.boolean().optional(),
});

export interface Unaided {
  /** Nothing is answered without a token. */
  readonly refused: boolean;
  readonly challenge: Challenge | undefined;
}

/** A harmless request without a token. What it is answered with does not matter unless it is a challenge. */
export async function askedWithoutToken(server: URL, net: AuthorizationNet): Promise<Unaided> {
  const answer = await net.fetch(server, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream" },
    body: '{"jsonrpc":"2.0","id":1,"method":"ping"}',
  });
  const refused = answer.status === 401;
  return { refused, challenge: refused ? readChallenge(answer.headers.get("www-authenticate")) : undefined };
}

async function resourceMetadata(
  name: string,
  server: URL,
  challenge: Challenge | undefined,
  net: AuthorizationNet,
): Promise<z.infer<typeof protectedResource> | undefined> {
  const wellKnown = `${server.origin}/.well-known/oauth-protected-resource`;
  const path = server.pathname === "/" ? "" : server.pathname;
  const named = challenge?.resourceMetadata;
  if (named !== undefined) {
    const url = URL.parse(named);
    if (url === null || !net.mayVisit(url)) throw unfit(name, "names metadata at an address that is not https");
  }
  const places = named === undefined ? [...new Set([`${wellKnown}${path}`, wellKnown])] : [named];
  for (const place of places) {
    const found = await document(name, place, protectedResource, net);
    if (found === undefined) continue;
    // RFC 9728 §3.3: of this server and no other, or the tokens would be good for somebody else. At the root of an origin, where
    // whoever has a path of it writes nothing, the whole origin may be named.
    const whole = place === wellKnown && same(found.resource, server.origin);
    if (!whole && !same(found.resource, canonical(server)))
      throw unfit(name, `has metadata of another resource, ${found.resource.slice(0, 200)}, at ${place}`);
    return found;
  }
  if (named !== undefined) throw unfit(name, `names metadata that is not there: ${named.slice(0, 200)}`);
  return undefined;
}

/** A JSON document; undefined when there is none. Rejects when it is not what belongs there. */
async function document<T>(
  name: string,
  place: string,
  schema: z.ZodType<T>,
  net: AuthorizationNet,
): Promise<T | undefined> {
  const answer = await net.fetch(place, { headers: { accept: "application/json" } });
  if (answer.status >= 500 || answer.status === 429) {
    throw new DrawbridgeError("upstream_unavailable", `The server "${name}" cannot be connected to now. Try again.`, {
      detail: `${place} was answered with ${answer.status}`,
    });
  }
  // A redirect too: it is not followed, so there is nothing here.
  if (answer.status !== 200) return undefined;
  try {
    return schema.parse(strictJsonObject(Buffer.from(await answer.arrayBuffer())));
  } catch (cause) {
    throw unfit(name, `has a document that cannot be read at ${place}`, cause);
  }
}

function same(one: string, other: string): boolean {
  const [a, b] = [URL.parse(one), URL.parse(other)];
  return a !== null && b !== null && a.href.replace(/\/$/, "") === b.href.replace(/\/$/, "");
}

/** What an enemy wrote goes to the operator's log, never to a person. */
export function unfit(name: string, what: string, cause?: unknown): DrawbridgeError {
  return new DrawbridgeError(
    "upstream_failed",
    `The server "${name}" cannot be connected to: what it says about its sign-in is not safe to follow. Ask whoever runs this gateway.`,
    { detail: `the server ${what}`, ...(cause !== undefined && { cause }) },
  );
}
