/**
 * Us as a client of an MCP server's authorization server: registration, authorization code with PKCE, refreshing, revocation, tokens
 * bound to keys. Nothing is kept here; whoever calls keeps what comes back, sealed.
 */
import type { webcrypto } from "node:crypto";
import {
  AuthorizationResponseError,
  allowInsecureRequests,
  authorizationCodeGrant,
  buildAuthorizationUrl,
  buildAuthorizationUrlWithPAR,
  type ClientMetadata,
  ClientSecretBasic,
  ClientSecretPost,
  Configuration,
  calculatePKCECodeChallenge,
  clientCredentialsGrant,
  customFetch,
  type DPoPHandle,
  dynamicClientRegistration,
  getDPoPHandle,
  None,
  ResponseBodyError,
  randomDPoPKeyPair,
  refreshTokenGrant,
  type ServerMetadata,
  type TokenEndpointResponse,
  tokenRevocation,
} from "openid-client";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { newToken } from "../../core/ids.ts";
import type { OAuthServerSettings } from "../settings.ts";
import {
  askedWithoutToken,
  canonical,
  type Discovered,
  discover,
  PROOF_ALGORITHM,
  readScopes,
  serverMetadata,
  unfit,
} from "./discovery.ts";
import type { AuthorizationNet } from "./net.ts";

/** Who we are at one authorization server. */
export interface OAuthClient {
  readonly id: string;
  readonly secret?: string | undefined;
}

/** What a person, or the operator, has given us. Secret as a whole. */
export interface Authorization {
  /** The authorization server that gave it, and the only one that it is ever shown to again. */
  readonly issuer: string;
  readonly client: OAuthClient;
  readonly resource: string;
  readonly accessToken: string;
  /** Milliseconds since the epoch. */
  readonly issuedAt: number;
  /** It came for a refresh token. */
  readonly renewed: boolean;
  /** Undefined: the server did not say. */
  readonly expiresAt?: number | undefined;
  readonly refreshToken?: string | undefined;
  readonly scopes: readonly string[];
  /** The private key that the tokens are bound to (RFC 9449), if they are. */
  readonly key?: webcrypto.JsonWebKey | undefined;
}

/** An authorization under way. Secret: whoever has it and the code can finish it. */
export interface Departure {
  readonly state: string;
  readonly verifier: string;
  readonly issuer: string;
  readonly client: OAuthClient;
  readonly redirectUri: string;
  readonly resource: string;
  readonly scopes: readonly string[];
  readonly key?: webcrypto.JsonWebKey | undefined;
}

export interface AuthorizationClient {
  /** Whether the server answers nobody who brings no token. */
  needsToken(): Promise<boolean>;
  /** Asks the server and its authorization server who they are; what was found is kept for an hour. */
  discover(): Promise<Discovered>;
  /** Registers us (RFC 7591). Rejects with `upstream_failed` when that is not offered. */
  register(
    at: Discovered,
    redirectUri: string,
    clientName: string,
  ): Promise<OAuthClient & { readonly expiresAt: number | undefined }>;
  /** Where to send the browser. `scopes`: beside those that the server asks for at first. */
  begin(at: Discovered, client: OAuthClient, redirectUri: string, scopes: readonly string[]): Promise<Begun>;
  /**
   * Redeems the answer that the browser brought back. Rejects with `outbound_refused` when it is not the answer to this departure
   * (state, RFC 9207 `iss`), is a refusal, or gives a token that is not for the server.
   */
  finish(answer: URLSearchParams, departure: Departure): Promise<Authorization>;
  /** New tokens. Undefined: the authorization has ended, and the person must be asked again. Rejects when nobody can say now. */
  refresh(authorization: Authorization): Promise<Authorization | undefined>;
  /** Tells the authorization server that the tokens are not needed any more (RFC 7009), where it wants to know. */
  revoke(authorization: Authorization): Promise<void>;
  /** A token of our own; undefined where none is given to clients for themselves. */
  own(): Promise<Authorization | undefined>;
  close(): Promise<void>;
}

export interface Begun {
  readonly url: URL;
  readonly departure: Departure;
}

export interface AuthorizationClientOptions {
  readonly name: string;
  readonly settings: OAuthServerSettings;
  readonly net: AuthorizationNet;
  readonly clock?: Clock;
}

const REMEMBERED_MS = 3_600_000;
/** What an authorization server says of a grant, or of us, that has ended (RFC 6749 §5.2). */
const ENDED = ["invalid_grant", "invalid_client", "unauthorized_client"];

export function authorizationClient(options: AuthorizationClientOptions): AuthorizationClient {
  const { name, settings, net, clock = systemClock } = options;
  const { oauth } = settings.credentials;
  const found = remembered(() => discover({ name, url: settings.url, issuer: oauth.issuer, net }), clock);
  const unaided = remembered(() => askedWithoutToken(new URL(settings.url), net), clock);
  const metadata = new Map<string, () => Promise<ServerMetadata>>();

  /** By issuer: a server that names another one meanwhile does not get what the first one gave. */
  function metadataOf(issuer: string): Promise<ServerMetadata> {
    let known = metadata.get(issuer);
    if (known === undefined) {
      if (metadata.size >= 10) metadata.clear();
      known = remembered(() => serverMetadata(name, issuer, net), clock);
      metadata.set(issuer, known);
    }
    return known();
  }

  function configured(server: ServerMetadata, { id, secret }: OAuthClient): Configuration {
    const about: Partial<ClientMetadata> = { client_id: id };
    const made = new Configuration(server, id, about, authentication(secret));
    const ask: (typeof made)[typeof customFetch] = (url, init) => net.fetch(url, init as RequestInit);
    made[customFetch] = ask;
    made.timeout = 15;
    // What may be asked over plain http is the net's decision.
    allowInsecureRequests(made);
    return made;
  }

  async function proving(
    configuration: Configuration,
    key: webcrypto.JsonWebKey | undefined,
  ): Promise<{ DPoP?: DPoPHandle }> {
    return key === undefined ? {} : { DPoP: getDPoPHandle(configuration, await keyPair(key)) };
  }

  function authorizationFrom(
    answer: TokenEndpointResponse,
    renewed: boolean,
    before: Pick<Authorization, "issuer" | "client" | "resource" | "scopes" | "refreshToken" | "key">,
  ): Authorization {
    const { access_token: accessToken, expires_in: expiresIn, refresh_token: refreshToken, token_type: type } = answer;
    const bound = type.toLowerCase() === "dpop";
    // Bound to no key although a key was shown: it is an ordinary token, which works without proofs.
    if (bound && before.key === undefined) throw unfit(name, "got a token that is bound to a key nobody has");
    if (!good(accessToken) || (refreshToken !== undefined && !good(refreshToken)))
      throw unfit(name, "got a token that is none");
    if (isForAnother(accessToken, settings.url)) throw unfit(name, "got a token that is meant for another server");
    const now = clock();
    return {
      issuer: before.issuer,
      client: before.client,
      resource: before.resource,
      accessToken,
      issuedAt: now,
      renewed,
      expiresAt: expiresIn === undefined ? undefined : now + expiresIn * 1000,
      refreshToken: refreshToken ?? before.refreshToken,
      scopes: readScopes(answer.scope) ?? before.scopes,
      key: bound ? before.key : undefined,
    };
  }

  return {
    needsToken: async () => (await unaided()).refused,
    discover: found,
    async register({ server }, redirectUri, clientName) {
      if (server.registration_endpoint === undefined) {
        throw new DrawbridgeError(
          "upstream_failed",
          `The server "${name}" cannot be connected to before this gateway is registered there. Ask whoever runs it.`,
          { detail: `${server.issuer} registers nobody by itself: set credentials.oauth.clientId of the server` },
        );
      }
      const wanted = {
        client_name: clientName,
        redirect_uris: [redirectUri],
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
        token_endpoint_auth_method: "none",
        application_type: new URL(redirectUri).protocol === "http:" ? "native" : "web",
      };
      // The library reads the metadata itself; it is shown what was checked.
      const answerWith = (url: string, init: unknown) =>
        url.includes("/.well-known/") ? Promise.resolve(Response.json(server)) : net.fetch(url, init as RequestInit);
      try {
        const registered = await dynamicClientRegistration(new URL(server.issuer), wanted, undefined, {
          [customFetch]: answerWith,
          algorithm: "oauth2",
          execute: [allowInsecureRequests],
        });
        const { client_id: id, client_secret: secret, client_secret_expires_at: until } = registered.clientMetadata();
        if (!good(id) || id.length > 2048) throw unfit(name, "was registered at without an id");
        return {
          id,
          secret: typeof secret === "string" ? secret : undefined,
          expiresAt: typeof until === "number" && until > 0 ? until * 1000 : undefined,
        };
      } catch (thrown) {
        throw failure(name, "refused to register the gateway", thrown);
      }
    },
    async begin(at, client, redirectUri, more) {
      const { server, resource } = at;
      const offline = server.scopes_supported?.includes("offline_access") === true ? ["offline_access"] : [];
      const asked = oauth.scopes ?? at.scopes;
      // Where nobody names scopes, naming only what was missing would give less than there was.
      const named = [...new Set([...(asked ?? []), ...more])];
      const scopes = named.length === 0 ? offline : [...new Set([...named, ...offline])];
      const key = at.bound ? await newKey() : undefined;
      const departure: Departure = {
        state: newToken(),
        verifier: newToken(),
        issuer: server.issuer,
        client,
        redirectUri,
        resource,
        scopes,
        key,
      };
      const configuration = configured(server, client);
      const proof = await proving(configuration, key);
      const parameters = {
        redirect_uri: redirectUri,
        resource,
        state: departure.state,
        code_challenge: await calculatePKCECodeChallenge(departure.verifier),
        code_challenge_method: "S256",
        ...(scopes.length > 0 && { scope: scopes.join(" ") }),
        // OpenID Connect Core §11: otherwise it is ignored.
        ...(offline.length > 0 && { prompt: "consent" }),
        ...(proof.DPoP !== undefined && { dpop_jkt: await proof.DPoP.calculateThumbprint() }),
      };
      try {
        const url = server.require_pushed_authorization_requests
          ? await buildAuthorizationUrlWithPAR(configuration, parameters, proof)
          : buildAuthorizationUrl(configuration, parameters);
        return { url, departure };
      } catch (thrown) {
        throw failure(name, "refused the request for an authorization", thrown);
      }
    },
    async finish(answer, departure) {
      const { issuer, client, redirectUri, state, verifier, resource, key } = departure;
      const configuration = configured(await metadataOf(issuer), client);
      try {
        const tokens = await authorizationCodeGrant(
          configuration,
          new URL(`${redirectUri}?${answer}`),
          { expectedState: state, pkceCodeVerifier: verifier },
          { resource },
          await proving(configuration, key),
        );
        return authorizationFrom(tokens, false, { ...departure, refreshToken: undefined });
      } catch (thrown) {
        throw failure(name, "did not give an authorization", thrown);
      }
    },
    async refresh(authorization) {
      const { issuer, client, refreshToken, resource, key } = authorization;
      if (refreshToken === undefined) return undefined;
      const configuration = configured(await metadataOf(issuer), client);
      try {
        const proof = await proving(configuration, key);
        const tokens = await refreshTokenGrant(configuration, refreshToken, { resource }, proof);
        return authorizationFrom(tokens, true, authorization);
      } catch (thrown) {
        if (thrown instanceof ResponseBodyError && ENDED.includes(thrown.error)) return undefined;
        throw failure(name, "did not renew an authorization", thrown);
      }
    },
    async revoke({ issuer, client, refreshToken, accessToken }) {
      const server = await metadataOf(issuer);
      if (server.revocation_endpoint === undefined) return;
      const configuration = configured(server, client);
      try {
        // RFC 7009 §2.1: the refresh token takes its access tokens with it; not every server does so.
        if (refreshToken !== undefined) await tokenRevocation(configuration, refreshToken);
        await tokenRevocation(configuration, accessToken);
      } catch (thrown) {
        throw failure(name, "did not revoke an authorization", thrown);
      }
    },
    async own() {
      const { clientId: id, clientSecret } = oauth;
      if (id === undefined || clientSecret === undefined) return undefined;
      const at = await found();
      const { server, resource } = at;
      if (server.grant_types_supported?.includes("client_credentials") !== true) return undefined;
      const client = { id, secret: clientSecret.reveal() };
      const configuration = configured(server, client);
      const scope = (oauth.scopes ?? at.scopes)?.join(" ");
      const key = at.bound ? await newKey() : undefined;
      try {
        const parameters = { resource, ...(scope !== undefined && { scope }) };
        const tokens = await clientCredentialsGrant(configuration, parameters, await proving(configuration, key));
        const { issuer } = server;
        const given = { issuer, client, resource, scopes: oauth.scopes ?? [], refreshToken: undefined, key };
        return authorizationFrom(tokens, false, given);
      } catch (thrown) {
        if (thrown instanceof ResponseBodyError) return undefined;
        throw failure(name, "did not give the gateway a token", thrown);
      }
    },
    close: () => net.close(),
  };
}

/** RFC 8414 §2: without a list, it is client_secret_basic. */
function authentication(secret: string | undefined): ReturnType<typeof None> {
  return (server, client, body, headers) => {
    const ways = server.token_endpoint_auth_methods_supported ?? ["client_secret_basic"];
    const way =
      secret === undefined
        ? None()
        : ways.includes("client_secret_basic") || !ways.includes("client_secret_post")
          ? ClientSecretBasic(secret)
          : ClientSecretPost(secret);
    way(server, client, body, headers);
  };
}

/** Loads once for all who ask at the same time, and again after an hour. */
function remembered<T>(load: () => Promise<T>, clock: Clock): () => Promise<T> {
  let known: { readonly value: Promise<T>; readonly at: number } | undefined;
  return () => {
    if (known === undefined || clock() - known.at > REMEMBERED_MS) {
      const loading = { value: load(), at: clock() };
      known = loading;
      loading.value.catch(() => {
        if (known === loading) known = undefined;
      });
    }
    return known.value;
  };
}

async function newKey(): Promise<webcrypto.JsonWebKey> {
  const { privateKey } = await randomDPoPKeyPair(PROOF_ALGORITHM, { extractable: true });
  return crypto.subtle.exportKey("jwk", privateKey);
}

async function keyPair(key: webcrypto.JsonWebKey) {
  const how = { name: "ECDSA", namedCurve: "P-256" };
  const { kty = "", crv = "", x = "", y = "" } = key;
  const [privateKey, publicKey] = await Promise.all([
    crypto.subtle.importKey("jwk", key, how, false, ["sign"]),
    crypto.subtle.importKey("jwk", { kty, crv, x, y }, how, true, ["verify"]),
  ]);
  return { privateKey, publicKey };
}

/** What can be sent in a header as it is. */
const good = (token: string) => /^[\x21-\x7e]{1,16384}$/.test(token);

/**
 * True for a token that says of itself that it is for other web addresses alone: an authorization server that does not know
 * `resource` may give tokens for the API of somebody else, which the server we send them to could use there (confused deputy).
 */
function isForAnother(accessToken: string, server: string): boolean {
  const { aud } = claimsOf(accessToken);
  const audiences = [aud].flat().filter((one): one is string => typeof one === "string" && /^https?:\/\//i.test(one));
  const named = [aud].flat().filter((one) => typeof one === "string");
  if (named.length === 0 || audiences.length < named.length) return false;
  const { origin } = new URL(server);
  const ours = canonical(new URL(server));
  return !audiences.some((one) => {
    const url = URL.parse(one);
    return (
      url !== null && url.origin === origin && (url.pathname === "/" || `${ours}/`.startsWith(`${canonical(url)}/`))
    );
  });
}

function claimsOf(token: string): { readonly aud?: unknown } {
  try {
    const claims: unknown = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString());
    return typeof claims === "object" && claims !== null ? claims : {};
  } catch {
    return {};
  }
}

/** Messages and error codes for the log, and nothing that could be a code or a token. */
function failure(name: string, what: string, thrown: unknown): DrawbridgeError {
  if (thrown instanceof DrawbridgeError) return thrown;
  const parts: string[] = [];
  let denied = false;
  let passing = false;
  for (let error = thrown; error instanceof Error && parts.length < 4; error = error.cause) {
    if (error instanceof DrawbridgeError) {
      passing ||= ["upstream_unavailable", "upstream_timeout"].includes(error.code);
      parts.push(error.message);
      continue;
    }
    const { error: code } = error as { readonly error?: unknown };
    if (error instanceof AuthorizationResponseError && code === "access_denied") denied = true;
    if (error.cause instanceof Response && error.cause.status >= 500) passing = true;
    parts.push(typeof code === "string" ? `${error.message} (${code.slice(0, 100)})` : error.message);
  }
  const detail = `its authorization server ${what}: ${parts.join(": ")}`;
  if (denied)
    return new DrawbridgeError("outbound_refused", `You did not allow it at the server "${name}".`, { detail });
  if (passing) {
    const message = `The authorization server of "${name}" does not answer at the moment. Try again shortly.`;
    return new DrawbridgeError("upstream_unavailable", message, { detail });
  }
  return new DrawbridgeError("outbound_refused", `The authorization server of "${name}" ${what}. Start again.`, {
    detail,
  });
}
