/** The resource-server side: who a bearer token speaks for. The only place that makes a `Principal`. */
import { createLocalJWKSet, errors, jwtVerify } from "jose";
import type { Authenticated, Principal } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Records } from "../store/ports.ts";
import type { Ended, Grants } from "./grants.ts";
import type { Place } from "./http.ts";
import type { PublicKey } from "./keys.ts";
import type { Users } from "./users.ts";

export type Verify = (token: string) => Authenticated | Promise<Authenticated>;

export interface VerifierOptions {
  readonly place: Pick<Place, "issuer" | "resource">;
  readonly keys: readonly PublicKey[];
  readonly records: Records;
  readonly users: Users;
  readonly grants: Grants;
  readonly maxCached?: number;
  readonly clock?: Clock;
}

/** A verified token is believed for so long before the store is asked again. */
const CACHE_MS = 60_000;
const MAX_TOKEN_LENGTH = 8_192;

interface Cached {
  readonly principal: Authenticated;
  readonly until: number;
}

/**
 * Makes the check of bearer tokens (RFC 9068 §4). Answers at once for a token it verified within the last minute; else checks
 * signature, type, issuer, audience and age, and that token, grant and user still stand. Throws or rejects `unauthenticated`.
 */
export function verifier(options: VerifierOptions): Verify {
  const { place, keys, records, users, grants, maxCached = 10_000, clock = systemClock } = options;
  const keySet = createLocalJWKSet({ keys: keys.map((key) => ({ ...key })) });
  const cache = new Map<string, Cached>();
  /** Counts ends, so that a check that read the store before one does not remember its answer after it. */
  let ends = 0;

  grants.onEnd((ended) => {
    ends++;
    for (const [token, { principal }] of cache) if (endedFor(ended, principal)) cache.delete(token);
  });

  async function check(token: string): Promise<Authenticated> {
    const endsBefore = ends;
    const claims = await claimsOf(token);
    const { jti, sub, client_id: client, gid, scope, exp } = claims;
    if (typeof jti !== "string" || typeof sub !== "string" || typeof client !== "string" || exp === undefined) {
      throw unauthenticated("a claim is missing");
    }
    const grantId = typeof gid === "string" ? gid : undefined;
    const [shadow, grant, user] = await Promise.all([
      records.get("oauth:AccessToken", jti),
      grantId === undefined ? undefined : records.get("oauth:Grant", grantId),
      users.find(sub),
    ]);
    if (shadow === undefined) throw unauthenticated("the token was revoked");
    if (grant === undefined) throw unauthenticated("the grant has ended");
    if (user === undefined || user.disabled) throw unauthenticated("the user is gone or disabled");
    const principal = {
      subject: sub,
      client,
      actors: [],
      groups: user.groups,
      scopes: typeof scope === "string" ? scope.split(" ").filter(Boolean) : [],
      claims: { name: user.name, ...(user.email === undefined ? {} : { email: user.email }) },
      grant: grantId,
      tokenId: jti,
      expiresAt: exp * 1000,
    } satisfies Principal as unknown as Authenticated;
    if (endsBefore === ends) {
      cache.set(token, { principal, until: Math.min(principal.expiresAt, clock() + CACHE_MS) });
      if (cache.size > maxCached) cache.delete(cache.keys().next().value ?? "");
    }
    return principal;
  }

  async function claimsOf(token: string) {
    try {
      const { payload } = await jwtVerify(token, keySet, {
        algorithms: ["ES256"],
        typ: "at+jwt",
        issuer: place.issuer,
        audience: place.resource,
        requiredClaims: ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"],
        currentDate: new Date(clock()),
      });
      // A token for us and for someone else could have been made for someone else and passed on to us.
      if (payload.aud !== place.resource) throw unauthenticated("the audience is not this resource alone");
      if ((payload.iat ?? 0) * 1000 > clock() + 5_000) throw unauthenticated("issued in the future");
      return payload;
    } catch (thrown) {
      if (thrown instanceof errors.JOSEError) throw unauthenticated(`${thrown.code}: ${thrown.message}`);
      throw DrawbridgeError.from(thrown);
    }
  }

  return (token) => {
    const known = cache.get(token);
    if (known !== undefined) {
      if (known.until > clock()) return known.principal;
      // Gone and entered again within a minute: what is in use stays near the end, the oldest entry is one out of use.
      cache.delete(token);
    }
    if (token.length > MAX_TOKEN_LENGTH) throw unauthenticated("longer than any token of ours");
    return check(token);
  };
}

function endedFor({ token, grant, user, client }: Ended, principal: Principal): boolean {
  return (
    (token === undefined || token === principal.tokenId) &&
    (grant === undefined || grant === principal.grant) &&
    (user === undefined || user === principal.subject) &&
    (client === undefined || client === principal.client)
  );
}

function unauthenticated(detail: string): DrawbridgeError {
  return new DrawbridgeError("unauthenticated", "The access token is not valid, or no longer. Sign in again.", {
    detail,
  });
}
