/**
 * Who calls an API behind Drawbridge: the check of a token that Drawbridge made for this API in exchange for its caller's own
 * (RFC 8693). Everything it needs is the issuer, which publishes its keys, and the API's own URL. docs/token-exchange.md explains it.
 */
import { createRemoteJWKSet, errors, type JWTVerifyGetKey, jwtVerify } from "jose";

export interface Caller {
  /** The person or service on whose behalf the call is made (`sub`); the same at each call. */
  readonly subject: string;
  /** Who makes the call for them (`act.sub`): Drawbridge. Undefined when it asks for itself, for what the API offers. */
  readonly actor: string | undefined;
  readonly client: string;
  readonly scopes: readonly string[];
  readonly tokenId: string;
  /** Seconds since the epoch. */
  readonly expiresAt: number;
}

/** Checks tokens of `issuer` for the API `audience`. Rejects with the reason, for the log. */
export function tokensFor(audience: string, issuer: string): (token: string) => Promise<Caller> {
  let keys: Promise<JWTVerifyGetKey> | undefined;
  return async (token) => {
    keys ??= keysOf(issuer);
    // Whoever could not be asked now is asked again by the next call.
    keys.catch(() => {
      keys = undefined;
    });
    const { payload } = await jwtVerify(token, await keys, {
      issuer,
      audience,
      typ: "at+jwt", // RFC 9068 §4: an ID token is no access token.
      algorithms: ["ES256", "EdDSA", "RS256"],
      requiredClaims: ["sub", "client_id", "jti", "exp"],
    });
    const act = payload["act"] as { sub?: unknown } | undefined;
    if (act !== undefined && act.sub !== issuer)
      throw new errors.JWTClaimValidationFailed("somebody else than Drawbridge acts", payload, "act");
    return {
      subject: String(payload.sub),
      actor: act === undefined ? undefined : String(act.sub),
      client: String(payload["client_id"]),
      scopes: String(payload["scope"] ?? "")
        .split(" ")
        .filter(Boolean),
      tokenId: String(payload.jti),
      expiresAt: payload.exp ?? 0,
    };
  };
}

/** Whether the token is at fault, and not that the keys cannot be had. */
export function isAboutToken(error: Error): boolean {
  return error instanceof errors.JOSEError && /^ERR_(JW[ST]|JOSE_ALG|JOSE_NOT|JWKS_NO)_/.test(error.code);
}

/** The issuer's public keys, found by its metadata document (RFC 8414 §3) and kept up to date by jose. */
async function keysOf(issuer: string): Promise<JWTVerifyGetKey> {
  const { origin, pathname } = new URL(issuer);
  const place = `${origin}/.well-known/oauth-authorization-server${pathname === "/" ? "" : pathname}`;
  const response = await fetch(place, { redirect: "error", signal: AbortSignal.timeout(5_000) });
  const metadata = (await response.json()) as { issuer?: unknown; jwks_uri?: unknown };
  if (metadata.issuer !== issuer) throw new Error(`${place} is about another issuer`);
  return createRemoteJWKSet(new URL(String(metadata.jwks_uri)));
}
