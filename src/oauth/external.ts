/**
 * Another authorization server instead of the embedded one: its tokens are checked as RFC 9068 JWTs or by introspection (RFC 7662),
 * and exchanged at its token endpoint (RFC 8693). With `verify.ts` the only place that makes a `Principal`.
 */
import { hash } from "node:crypto";
import { decodeProtectedHeader } from "jose";
import type { Authenticated, JsonObject, Principal } from "../core/call.ts";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Trusted } from "../net/trusted.ts";
import type { Logger } from "../observe/logger.ts";
import type { Records } from "../store/ports.ts";
import type { Authority, ExchangedToken } from "./authority.ts";
import { foreignIssuer, type IssuerMetadata } from "./issuers.ts";
import { ALL_SCOPES, type ScopeText } from "./metadata.ts";
import { isKeptElsewhere } from "./people/claims.ts";
import { scopesFor } from "./resources.ts";
import type { AuthorizationSettings } from "./settings.ts";
import { DPOP_ALGORITHMS, proofCheck } from "./tokens/dpop.ts";
import { actorsOf, boundTo, unauthenticated } from "./tokens/verify.ts";

export interface ExternalAuthorityOptions {
  /** RFC 8707 identifier of our MCP endpoint. */
  readonly resource: string;
  /** Closed with the authority. */
  readonly http: Trusted;
  /** Keeps the proofs that were used, for all replicas. */
  readonly records: Records;
  readonly log: Logger;
  /** Scopes that some calls need, beside reading and calling; the same list until they change. */
  readonly furtherScopes?: () => readonly ScopeText[];
  readonly maxCached?: number;
  readonly clock?: Clock;
}

/** A signature that was good is good for so long, unless the token ends before. */
const CHECKED_MS = 60_000;
/** What the server said of a token is believed for so long: within it a revocation there is not seen here. */
const INTROSPECTED_MS = 10_000;
/** Streams are looked at so often: they end with the token that opened them. */
const STREAMS_MS = 5_000;
const MAX_TOKEN_LENGTH = 16_384;
const MAX_ASKED_AT_ONCE = 1_024;
const MAX_GROUPS = 1_000;
const NONE: readonly ScopeText[] = [];
const OURS: ReadonlySet<string> = new Set(ALL_SCOPES);
/** An exchanged token is not used in the last moments of its life. */
const SPARE_MS = 30_000;
const DEFAULT_LIFE_SECONDS = 60;

const EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";

interface Known {
  readonly principal: Authenticated;
  readonly jkt: string | undefined;
  readonly until: number;
}

/**
 * Makes the authority for `settings.authorization`. Nothing is asked before the first token comes, so the gateway starts while
 * the server is down; then calls are refused with `overloaded`.
 */
export function externalAuthority(settings: AuthorizationSettings, options: ExternalAuthorityOptions): Authority {
  const { resource, http, records, log, furtherScopes = () => NONE, maxCached = 10_000, clock = systemClock } = options;
  const { issuer, introspection, audience = resource } = settings;
  const server = foreignIssuer({ issuer, http, clock });
  const checkProof = proofCheck({ resource, records, nonceSecrets: undefined, clock });
  const cache = new Map<string, Known>();
  /** What is asked for beside reading and calling, when what is in the cache was read. */
  let knownScopes = furtherScopes();
  const underWay = new Map<string, Promise<Known>>();
  /** What a principal came with. It is handed to nobody but the server that made it. */
  const tokens = new WeakMap<Authenticated, Secret>();
  const endpoints = endpointCaller(settings, server.metadata, http);
  const exchanged = keptTokens(maxCached, clock);

  async function check(token: string): Promise<Known> {
    try {
      const claims = introspection === undefined ? await claimsOfJwt(token) : await claimsAskedFor(token);
      const principal = principalOf(claims, token, settings, knownScopes);
      tokens.set(principal, new Secret(token));
      const believed = clock() + (introspection === undefined ? CHECKED_MS : INTROSPECTED_MS);
      const known = { principal, jkt: boundTo(claims["cnf"]), until: Math.min(principal.expiresAt, believed) };
      cache.delete(token);
      cache.set(token, known);
      if (cache.size > maxCached) cache.delete(cache.keys().next().value ?? "");
      return known;
    } catch (thrown) {
      const error = DrawbridgeError.from(thrown);
      if (error.code === "unauthenticated" || error.code === "overloaded") throw error;
      log.warn({ error, issuer }, "the authorization server could not be asked about a token");
      throw new DrawbridgeError("overloaded", "The authorization server cannot be asked at this moment. Try again.", {
        cause: error,
        detail: error.detail ?? error.message,
        retryAfterSeconds: 5,
      });
    }
  }

  async function claimsOfJwt(token: string): Promise<Claims> {
    const payload = await server.verify(token, { audience });
    refuseOtherTokens(typeOf(token), payload);
    return payload;
  }

  async function claimsAskedFor(token: string): Promise<Claims> {
    const answer = await endpoints.introspect(token);
    if (answer["active"] !== true) throw unauthenticated("the server says that the token is not active");
    if (answer["iss"] !== undefined && answer["iss"] !== issuer)
      throw unauthenticated("the token is of another issuer");
    const { aud } = answer;
    // RFC 7662 leaves it open; without it anybody's token for anything would do.
    if (aud !== audience && !(Array.isArray(aud) && aud.includes(audience)))
      throw unauthenticated(`the audience is not ${audience}`);
    refuseOtherTokens(undefined, answer);
    const { exp = Math.ceil((clock() + INTROSPECTED_MS) / 1000) } = answer;
    if (typeof exp !== "number" || exp * 1000 <= clock()) throw unauthenticated("expired");
    return { ...answer, exp };
  }

  function checked(token: string): Promise<Known> {
    const asked = underWay.get(token);
    if (asked !== undefined) return asked;
    if (underWay.size >= MAX_ASKED_AT_ONCE) {
      throw new DrawbridgeError("overloaded", "Too many new tokens come at once. Try again shortly.", {
        retryAfterSeconds: 1,
      });
    }
    const checking = check(token).finally(() => underWay.delete(token));
    underWay.set(token, checking);
    return checking;
  }

  const proven = async ({ principal, jkt }: Known, token: string, proof: Parameters<Authority["verify"]>[1]) => {
    if (jkt === undefined && proof !== undefined)
      throw unauthenticated("a proof came with a token that is bound to no key");
    if (jkt !== undefined && proof === undefined)
      throw unauthenticated("a token that is bound to a key came without a proof");
    if (jkt !== undefined && proof !== undefined) await checkProof(proof, token, jkt);
    return principal;
  };

  const listeners: (() => void)[] = [];
  const timer = setInterval(() => {
    for (const listener of listeners) listener();
  }, STREAMS_MS);
  timer.unref();

  const scopeNames = { "mcp:read": settings.scopes.read[0], "mcp:call": settings.scopes.call[0] };
  return {
    verify(token, proof) {
      if (furtherScopes() !== knownScopes) {
        knownScopes = furtherScopes();
        cache.clear();
      }
      const known = cache.get(token);
      if (known !== undefined && known.until > clock()) {
        return known.jkt === undefined && proof === undefined ? known.principal : proven(known, token, proof);
      }
      if (token.length > MAX_TOKEN_LENGTH) throw unauthenticated("longer than any token");
      return checked(token).then((now) => proven(now, token, proof));
    },
    async stands(by) {
      if (by.expiresAt <= clock()) return false;
      const token = tokens.get(by);
      if (token === undefined) return false;
      const text = token.reveal();
      const known = cache.get(text);
      if (known !== undefined && known.until > clock()) return true;
      return checked(text).then(
        () => true,
        () => false,
      );
    },
    async current(by) {
      const token = tokens.get(by);
      if (token === undefined || by.expiresAt <= clock()) return undefined;
      const text = token.reveal();
      const known = cache.get(text);
      if (known !== undefined && known.until > clock()) return known.principal;
      return checked(text).then(
        ({ principal }) => principal,
        () => undefined,
      );
    },
    onEnded: (listener) => void listeners.push(listener),
    async exchange(by, target, signal, refused) {
      const token = tokens.get(by);
      if (token === undefined || by.expiresAt <= clock()) throw unauthenticated("the caller's token has ended");
      const scopes = scopesFor(target.scopes, by.scopes);
      if (scopes.length === 0) {
        throw new DrawbridgeError("insufficient_scope", "None of the token's scopes stands for one of the upstream.");
      }
      const key = JSON.stringify([hash("sha256", token.reveal()), target.audience, scopes]);
      const asking = exchanged(key, by.expiresAt, refused, () =>
        endpoints.token({
          grant_type: EXCHANGE,
          subject_token: token.reveal(),
          subject_token_type: ACCESS_TOKEN,
          requested_token_type: ACCESS_TOKEN,
          audience: target.audience,
          scope: scopes.join(" "),
        }),
      );
      return orCancelled(asking, signal);
    },
    async ownToken(target, signal, refused) {
      const scopes = scopesFor(target.scopes, Object.keys(scopeNames));
      const key = JSON.stringify(["own", target.audience, scopes]);
      const { audience } = target;
      const form = { grant_type: "client_credentials", audience, resource: audience, scope: scopes.join(" ") };
      return orCancelled(
        exchanged(key, Number.MAX_SAFE_INTEGER, refused, () => endpoints.token(form)),
        signal,
      );
    },
    metadata: {
      issuer,
      resource,
      offered: () => [...Object.keys(scopeNames), ...furtherScopes().map(({ scope }) => scope)],
      scopes: [...new Set(Object.values(scopeNames).filter((name) => name !== undefined))],
      scopeNames,
      dpopAlgorithms: DPOP_ALGORITHMS,
      dpopRequired: false,
    },
    async close() {
      clearInterval(timer);
      await http.close();
    },
  };
}

type Claims = Readonly<Record<string, unknown>>;

function typeOf(token: string): string | undefined {
  return decodeProtectedHeader(token)
    .typ?.toLowerCase()
    .replace(/^application\//, "");
}

/**
 * RFC 9068 §4 wants `at+jwt`; Keycloak and Auth0 write `JWT`, Okta writes nothing. What keeps their ID tokens out is the audience,
 * which is the client there, and that an ID token says of itself what it is.
 */
function refuseOtherTokens(typ: string | undefined, claims: Claims): void {
  if (typ !== undefined && typ !== "at+jwt" && typ !== "jwt") throw unauthenticated(`its type is ${typ}`);
  const kind = claims["typ"] ?? claims["token_use"];
  if (
    kind !== undefined &&
    !["bearer", "dpop", "access", "access_token", "at+jwt", "jwt"].includes(String(kind).toLowerCase())
  )
    throw unauthenticated(`it is a token of the kind ${String(kind).slice(0, 40)}`);
  const telling = ["nonce", "at_hash", "c_hash", "s_hash"].find((name) => name in claims);
  if (telling !== undefined) throw unauthenticated(`it is an ID token: it has ${telling}`);
  if ("events" in claims) throw unauthenticated("it is a security event or logout token");
}

function principalOf(
  claims: Claims,
  token: string,
  settings: AuthorizationSettings,
  further: readonly ScopeText[],
): Authenticated {
  const subject = claimAt(claims, settings.subjectClaim);
  if (typeof subject !== "string" || subject === "") throw unauthenticated(`it has no ${settings.subjectClaim}`);
  const client = settings.clientClaims
    .map((name) => claimAt(claims, name))
    .find((value): value is string => typeof value === "string" && value !== "");
  if (client === undefined) throw unauthenticated(`it has none of ${settings.clientClaims.join(", ")}`);
  const held = new Set(settings.scopeClaims.flatMap((name) => words(claimAt(claims, name))));
  const { read, call } = settings.scopes;
  const scopes: readonly string[] = [
    ...(read.some((name) => held.has(name)) ? (["mcp:read"] as const) : []),
    ...(call.some((name) => held.has(name)) ? (["mcp:call"] as const) : []),
    // These are called the same there. Ours are not: what they are called there, the settings say.
    ...further.flatMap(({ scope }) => (held.has(scope) && !OURS.has(scope) ? [scope] : [])),
  ];
  const { jti, exp, act, name, email, email_verified: verified } = claims;
  const kept: JsonObject = {
    ...(typeof name === "string" && { name }),
    // An address that nobody checked must not open what a rule gives to its domain.
    ...(typeof email === "string" && verified === true && { email }),
  };
  return {
    subject,
    client,
    actors: actorsOf(act),
    groups: groupsIn(claims, settings.groupsClaim),
    scopes,
    claims: kept,
    grant: undefined,
    tokenId: typeof jti === "string" ? jti : hash("sha256", token, "base64url"),
    expiresAt: Number(exp) * 1000,
  } satisfies Principal as unknown as Authenticated;
}

/** A group that was left out could be one that forbids something, so a token that does not name them all is none. */
function groupsIn(claims: Claims, claim: string): readonly string[] {
  const groups = listed(claimAt(claims, claim));
  if (groups.length > MAX_GROUPS) throw unauthenticated(`it names more than ${MAX_GROUPS} groups`);
  if (isKeptElsewhere(claims, claim)) throw unauthenticated(`its ${claim} are kept elsewhere (_claim_names)`);
  return groups;
}

/** A claim by its whole name (which may have dots: `https://acme.example/groups`), or by the path to it. */
function claimAt(claims: Claims, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path];
  let value: unknown = claims;
  for (const name of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
    value = (value as Claims)[name];
  }
  return value;
}

const words = (value: unknown) => listed(value).flatMap((text) => text.split(" ").filter(Boolean));

function listed(value: unknown): readonly string[] {
  if (typeof value === "string") return [value];
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : [];
}

/** The requests that only a client of the server may make. */
function endpointCaller(settings: AuthorizationSettings, metadata: () => Promise<IssuerMetadata>, http: Trusted) {
  type Credentials = { readonly clientId: string; readonly clientSecret: Secret };

  async function post(url: string, { clientId, clientSecret }: Credentials, form: Readonly<Record<string, string>>) {
    // RFC 6749 §2.3.1: both are form-encoded before they are joined.
    const encoded = [clientId, clientSecret.reveal()].map((text) =>
      new URLSearchParams({ "": text }).toString().slice(1),
    );
    const answer = await http.fetch(url, {
      method: "POST",
      headers: {
        authorization: `Basic ${Buffer.from(encoded.join(":")).toString("base64")}`,
        "content-type": "application/x-www-form-urlencoded",
        accept: "application/json",
      },
      body: new URLSearchParams(form).toString(),
    });
    let body: unknown;
    try {
      body = await answer.json();
    } catch {
      // An error page; the status says enough.
    }
    const json = typeof body === "object" && body !== null && !Array.isArray(body) ? (body as Claims) : {};
    return { status: answer.status, json };
  }

  async function endpoint(name: "introspectionEndpoint" | "tokenEndpoint"): Promise<string> {
    const url = (await metadata())[name];
    if (url !== undefined) return url;
    throw new DrawbridgeError("upstream_unavailable", `The metadata of ${settings.issuer} names no such endpoint.`, {
      detail: name,
    });
  }

  return {
    async introspect(token: string): Promise<Claims> {
      const { introspection } = settings;
      if (introspection === undefined) throw new DrawbridgeError("internal", "Introspection is not set up.");
      const { status, json } = await post(await endpoint("introspectionEndpoint"), introspection, {
        token,
        token_type_hint: "access_token",
      });
      if (status === 200) return json;
      throw new DrawbridgeError("upstream_unavailable", `${settings.issuer} did not answer about a token.`, {
        detail: `HTTP ${status} ${String(json["error"] ?? "")}`,
      });
    },
    async token(form: Readonly<Record<string, string>>): Promise<Answered> {
      const { exchange } = settings;
      if (exchange === undefined) {
        throw new DrawbridgeError(
          "upstream_unavailable",
          "Drawbridge cannot get a token for the upstream: set authorization.exchange.",
        );
      }
      const { status, json } = await post(await endpoint("tokenEndpoint"), exchange, form);
      const { access_token: token, expires_in: life, token_type: type } = json;
      if (status !== 200) throw refusedExchange(settings.issuer, status, json);
      // Bound to a key it would be of no use: the upstream client makes no proofs.
      if (typeof token !== "string" || !/^(bearer|n_a)$/i.test(String(type ?? "bearer")))
        throw new DrawbridgeError("upstream_unavailable", `${settings.issuer} answered without a bearer token.`);
      return { token, lifeSeconds: typeof life === "number" && life > 0 ? life : DEFAULT_LIFE_SECONDS };
    },
  };
}

interface Answered {
  readonly token: string;
  readonly lifeSeconds: number;
}

function refusedExchange(issuer: string, status: number, json: Claims): DrawbridgeError {
  const detail = `HTTP ${status} ${String(json["error"] ?? "")}: ${String(json["error_description"] ?? "")}`.slice(
    0,
    500,
  );
  switch (json["error"]) {
    case "invalid_grant":
      return unauthenticated(`the server refused to exchange it: ${detail}`);
    case "invalid_scope":
    case "insufficient_scope":
      return new DrawbridgeError("insufficient_scope", "The token may not be exchanged for the upstream's scopes.", {
        detail,
      });
    default:
      return new DrawbridgeError("upstream_unavailable", `${issuer} gave no token for the upstream.`, { detail });
  }
}

/** Tokens by what they are for, until shortly before they end. Who asks at the same time shares the request. */
function keptTokens(maxKept: number, clock: Clock) {
  const kept = new Map<string, ExchangedToken>();
  const asked = new Map<string, Promise<ExchangedToken>>();
  return (key: string, notAfter: number, refused: Secret | undefined, ask: () => Promise<Answered>) => {
    const known = kept.get(key);
    if (known !== undefined && known.token !== refused && known.expiresAt - SPARE_MS > clock())
      return Promise.resolve(known);
    const waiting = asked.get(key);
    if (waiting !== undefined) return waiting;
    const asking = (async () => {
      const { token, lifeSeconds } = await ask();
      const made = { token: new Secret(token), expiresAt: Math.min(notAfter, clock() + lifeSeconds * 1000) };
      kept.delete(key);
      kept.set(key, made);
      if (kept.size > maxKept) kept.delete(kept.keys().next().value ?? "");
      return made;
    })().finally(() => asked.delete(key));
    asked.set(key, asking);
    return asking;
  };
}

/** The request is shared, so one caller who goes away must not end it for the others. */
function orCancelled<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const cancel = () => reject(new DrawbridgeError("cancelled", "The call was cancelled."));
    if (signal.aborted) cancel();
    signal.addEventListener("abort", cancel, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", cancel));
  });
}
