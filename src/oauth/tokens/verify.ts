/** The resource-server side of the embedded server: who a token speaks for. With `external.ts` the only place that makes a `Principal`. */
import { createLocalJWKSet, errors, type JWTPayload, jwtVerify } from "jose";
import type { Authenticated, Principal } from "../../core/call.ts";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import type { Records } from "../../store/ports.ts";
import type { Authority } from "../authority.ts";
import { isDisabled } from "../clients/disabled.ts";
import type { Place } from "../http.ts";
import type { User, Users } from "../people/users.ts";
import type { Service } from "../resources.ts";
import type { Watch } from "../watch.ts";
import type { CheckProof } from "./dpop.ts";
import type { Keys } from "./keys.ts";

export type Verifier = Pick<Authority, "verify" | "stands" | "current">;

export interface VerifierOptions {
  readonly place: Pick<Place, "issuer" | "resource">;
  readonly keys: Keys;
  readonly records: Records;
  readonly users: Pick<Users, "find">;
  /** Clients that have tokens for themselves, by their id. */
  readonly services: ReadonlyMap<string, Service>;
  readonly watch: Watch;
  /** Undefined: tokens bound to a key are refused. */
  readonly checkProof: CheckProof | undefined;
  /** Tokens that are bound to no key are refused. */
  readonly proofRequired: boolean;
  readonly maxCached?: number;
  readonly clock?: Clock;
}

/** What the store said of a token is believed for so long, and no longer than until anything ends anywhere. */
const CACHE_MS = 60_000;
const MAX_TOKEN_LENGTH = 8_192;
const MAX_ACTORS = 10;

interface Claims {
  readonly jti: string;
  readonly sub: string;
  readonly client: string;
  readonly grant: string | undefined;
  readonly scopes: readonly string[];
  readonly actors: readonly string[];
  readonly jkt: string | undefined;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

interface Known {
  readonly claims: Claims;
  readonly principal: Authenticated;
  readonly until: number;
  /** How many ends had been heard of when the store was asked. */
  readonly ends: number;
  /** The keys its signature was checked with. */
  readonly keySet: object;
}

/**
 * Makes the check of access tokens (RFC 9068 §4): signature, type, issuer, audience and age, and that token, grant, user and
 * client still stand. Answers at once for a bearer token it knows, while it hears what other replicas end; whenever it cannot,
 * it asks the store about each call.
 */
export function verifier(options: VerifierOptions): Verifier {
  const { place, keys, records, users, services, watch, checkProof, proofRequired, maxCached = 10_000 } = options;
  const { clock = systemClock } = options;
  const cache = new Map<string, Known>();
  let keySet = keySetOf(keys);
  let ends = 0;
  watch.on("ended", () => {
    ends++;
  });
  keys.onChange(() => {
    keySet = keySetOf(keys);
    cache.clear();
  });

  async function check(token: string, known: Known | undefined): Promise<Known> {
    // Counted before the store is asked: an answer that is older than an end is asked for again.
    const endsBefore = ends;
    const keySetBefore = keySet;
    const claims = known?.keySet === keySet ? known.claims : await claimsOf(token);
    if (claims.expiresAt <= clock()) throw unauthenticated("expired");
    const principal = principalOf(claims, await standing(claims).catch(unknowable));
    const checked: Known = {
      claims,
      principal,
      until: Math.min(claims.expiresAt, clock() + CACHE_MS),
      ends: endsBefore,
      keySet: keySetBefore,
    };
    // Gone and entered again within a minute: what is in use stays near the end, the oldest entry is one out of use.
    cache.delete(token);
    cache.set(token, checked);
    if (cache.size > maxCached) cache.delete(cache.keys().next().value ?? "");
    return checked;
  }

  async function claimsOf(token: string): Promise<Claims> {
    if (token.length > MAX_TOKEN_LENGTH) throw unauthenticated("longer than any token of ours");
    try {
      return readClaims(await payloadOf(token), place.resource, clock());
    } catch (thrown) {
      if (thrown instanceof errors.JOSEError) throw unauthenticated(`${thrown.code}: ${thrown.message}`);
      throw DrawbridgeError.from(thrown);
    }
  }

  async function payloadOf(token: string): Promise<JWTPayload> {
    const checks = {
      algorithms: ["ES256", "EdDSA", "RS256"],
      typ: "at+jwt",
      issuer: place.issuer,
      audience: place.resource,
      requiredClaims: ["iss", "sub", "aud", "exp", "iat", "jti", "client_id"],
      currentDate: new Date(clock()),
    };
    try {
      return (await jwtVerify(token, keySet, checks)).payload;
    } catch (thrown) {
      if (!(thrown instanceof errors.JWKSNoMatchingKey)) throw thrown;
      // After an emergency another replica may sign with a key that is a moment old.
      await keys.refresh();
      return (await jwtVerify(token, keySet, checks)).payload;
    }
  }

  interface Standing extends Pick<Principal, "groups" | "claims"> {}

  async function standing({ jti, sub, client, grant }: Claims): Promise<Standing> {
    const own = sub === client && grant === undefined;
    const [row, grantRow, user, disabled] = await Promise.all([
      records.get("oauth:AccessToken", jti),
      grant === undefined ? undefined : records.get("oauth:Grant", grant),
      own ? undefined : users.find(sub),
      isDisabled(records, client),
    ]);
    if (row === undefined) throw unauthenticated("the token was revoked");
    if (disabled) throw unauthenticated("the client is disabled");
    if (own) return serviceOf(client);
    if (grantRow === undefined) throw unauthenticated("the grant has ended");
    if (user === undefined || user.disabled) throw unauthenticated("the user is gone or disabled");
    return rightsOf(user);
  }

  function serviceOf(client: string): Standing {
    const service = services.get(client);
    if (service === undefined) throw unauthenticated("the client is no service any more");
    return { groups: service.groups, claims: { name: service.name } };
  }

  async function proven({ claims, principal }: Known, token: string, proof: Parameters<Authority["verify"]>[1]) {
    const { jkt } = claims;
    if (jkt === undefined) {
      if (proof !== undefined) throw unauthenticated("a proof came with a token that is bound to no key");
      if (proofRequired) throw unauthenticated("the token is bound to no key, and tokens.dpop is required");
    } else {
      if (proof === undefined) throw unauthenticated("a token that is bound to a key came without a proof");
      if (checkProof === undefined) throw unauthenticated("the token is bound to a key, and tokens.dpop is off");
      await checkProof(proof, token, jkt);
    }
    return principal;
  }

  async function stands({ tokenId, subject, client, grant, expiresAt }: Authenticated): Promise<boolean> {
    const own = subject === client && grant === undefined;
    const [row, grantRow, user, disabled] = await Promise.all([
      // After its time the row is gone, which says nothing: what the grant allows goes on with another token.
      expiresAt <= clock() || records.get("oauth:AccessToken", tokenId),
      grant === undefined ? own || undefined : records.get("oauth:Grant", grant),
      own ? undefined : users.find(subject),
      isDisabled(records, client),
    ]);
    if (row === undefined || grantRow === undefined || disabled) return false;
    return own ? services.has(client) : user?.disabled === false;
  }

  return {
    verify(token, proof) {
      const known = cache.get(token);
      if (known === undefined || known.until <= clock() || known.ends !== ends || !watch.fresh()) {
        return check(token, known).then((checked) => proven(checked, token, proof));
      }
      if (proof === undefined && known.claims.jkt === undefined && !proofRequired) return known.principal;
      return proven(known, token, proof);
    },
    stands,
    async current(by) {
      if (!(await stands(by))) return undefined;
      const { subject, client, grant } = by;
      if (subject === client && grant === undefined) return withRights(by, serviceOf(client));
      const user = await users.find(subject);
      return user === undefined || user.disabled ? undefined : withRights(by, rightsOf(user));
    },
  };
}

function rightsOf({ name, email, groups }: User): Pick<Principal, "groups" | "claims"> {
  return { groups, claims: { name, ...(email !== undefined && { email }) } };
}

/** The very same while nothing has changed. */
function withRights(by: Authenticated, { groups, claims }: Pick<Principal, "groups" | "claims">): Authenticated {
  const same = JSON.stringify([by.groups, by.claims]) === JSON.stringify([groups, claims]);
  return same ? by : { ...by, groups, claims };
}

/** A store that fails says nothing of the token: the caller may try again, and must not sign in anew. */
function unknowable(thrown: unknown): never {
  const cause = DrawbridgeError.from(thrown);
  if (cause.code !== "internal") throw cause;
  throw new DrawbridgeError("overloaded", "The access token cannot be looked up at this moment. Try again.", {
    cause,
    detail: cause.detail ?? cause.message,
    retryAfterSeconds: 2,
  });
}

function keySetOf(keys: Keys) {
  return createLocalJWKSet({ keys: keys.public.map((key) => ({ ...key })) });
}

function readClaims(payload: JWTPayload, resource: string, now: number): Claims {
  const { jti, sub, client_id: client, gid, scope, exp, iat = 0, aud, act, cnf } = payload;
  // A token for us and for someone else could have been made for someone else and passed on to us.
  if (aud !== resource) throw unauthenticated("the audience is not this resource alone");
  if (typeof jti !== "string" || typeof sub !== "string" || typeof client !== "string" || exp === undefined) {
    throw unauthenticated("a claim is missing");
  }
  if (iat * 1000 > now + 5_000) throw unauthenticated("issued in the future");
  return {
    jti,
    sub,
    client,
    grant: typeof gid === "string" ? gid : undefined,
    scopes: typeof scope === "string" ? scope.split(" ").filter(Boolean) : [],
    actors: actorsOf(act),
    jkt: boundTo(cnf),
    expiresAt: exp * 1000,
  };
}

/** RFC 8693 §4.1, nearest actor first. */
export function actorsOf(act: unknown): readonly string[] {
  const actors: string[] = [];
  for (let actor = act; actor !== undefined; ) {
    if (typeof actor !== "object" || actor === null || !("sub" in actor) || typeof actor.sub !== "string")
      throw unauthenticated("the actors cannot be read");
    if (actors.push(actor.sub) > MAX_ACTORS) throw unauthenticated("too many actors");
    actor = "act" in actor ? actor.act : undefined;
  }
  return actors;
}

/** RFC 9449 §6.1. A confirmation that we do not know is one we cannot check. */
export function boundTo(cnf: unknown): string | undefined {
  if (cnf === undefined) return undefined;
  if (typeof cnf === "object" && cnf !== null && "jkt" in cnf && typeof cnf.jkt === "string") return cnf.jkt;
  throw unauthenticated("the token is bound in a way that is not known here");
}

function principalOf(
  { jti, sub, client, grant, scopes, actors, expiresAt }: Claims,
  who: Pick<Principal, "groups" | "claims">,
) {
  return {
    subject: sub,
    client,
    actors,
    groups: who.groups,
    scopes,
    claims: who.claims,
    grant,
    tokenId: jti,
    expiresAt,
  } satisfies Principal as unknown as Authenticated;
}

export function unauthenticated(detail: string): DrawbridgeError {
  return new DrawbridgeError("unauthenticated", "The access token is not valid, or no longer. Sign in again.", {
    detail,
  });
}
