/**
 * Another issuer whose tokens are believed: its metadata (RFC 8414, OpenID Connect Discovery) and its keys, kept within bounds that
 * neither it nor who sends tokens can move.
 */
import {
  createLocalJWKSet,
  decodeProtectedHeader,
  errors,
  type JSONWebKeySet,
  type JWTPayload,
  jwtVerify,
  type LocalJWKSet,
} from "jose";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Trusted } from "../net/trusted.ts";

/** Signature algorithms that need no shared secret, and no signature that anybody could make (`none`, `HS256`). */
export const ASYMMETRIC_ALGORITHMS: readonly string[] = [
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
  "PS256",
  "PS384",
  "PS512",
  "RS256",
  "RS384",
  "RS512",
];

export interface IssuerMetadata {
  readonly issuer: string;
  readonly jwksUri: string | undefined;
  readonly authorizationEndpoint: string | undefined;
  readonly tokenEndpoint: string | undefined;
  readonly introspectionEndpoint: string | undefined;
  readonly revocationEndpoint: string | undefined;
  /** The whole document. */
  readonly document: Readonly<Record<string, unknown>>;
}

export interface ExpectedToken {
  /** `aud` must be this or have it among others; of a list, any. */
  readonly audience: string | readonly string[];
  /** The `typ` header must be this one, or one of these; a missing one is refused then. Undefined: anything. */
  readonly typ?: string | readonly string[];
  /** Default: `ASYMMETRIC_ALGORITHMS`, which this can only narrow. */
  readonly algorithms?: readonly string[];
}

export interface ForeignIssuer {
  readonly issuer: string;
  /**
   * Its metadata: kept for as long as it says, one minute to one hour; while it is down, for up to a day. Rejects with
   * `upstream_unavailable`, `upstream_timeout` or `outbound_refused` (another issuer's document, an endpoint without https).
   */
  metadata(): Promise<IssuerMetadata>;
  /**
   * The claims of a token that this issuer signed, for `audience`, not expired (half a minute of difference between clocks is
   * forgiven). An unknown key makes it read the keys again, once in 30 s at most. Rejects with `unauthenticated`, the reason in
   * `detail`; or as `metadata` does, when the keys cannot be had and the last ones are older than a day.
   */
  verify(jwt: string, expected: ExpectedToken): Promise<JWTPayload>;
}

export interface ForeignIssuerOptions {
  /** Exactly as in its metadata and in `iss`. https, or http on loopback. */
  readonly issuer: string;
  /** Where its keys are. Default: its metadata says so. */
  readonly jwksUri?: string | undefined;
  readonly http: Trusted;
  readonly clock?: Clock;
}

const MAX_TOKEN_LENGTH = 16_384;
const MAX_KEYS = 100;
const SKEW_SECONDS = 30;

/** Throws `settings_invalid` for what cannot be an issuer. */
export function foreignIssuer({ issuer, jwksUri, http, clock = systemClock }: ForeignIssuerOptions): ForeignIssuer {
  checkIssuer(issuer);

  const metadata = kept(() => discover(issuer, http), clock);
  const keys = kept(async () => {
    const uri = jwksUri ?? (await metadata.get()).jwksUri;
    if (uri === undefined)
      throw new DrawbridgeError("outbound_refused", `The metadata of ${issuer} does not say where its keys are.`);
    const { body, maxAgeSeconds } = await getJson(uri, http);
    return { value: keySet(body, issuer), maxAgeSeconds };
  }, clock);

  async function claims(jwt: string, keySetNow: LocalJWKSet, { audience, algorithms }: ExpectedToken) {
    const options = {
      issuer,
      audience: typeof audience === "string" ? audience : [...audience],
      algorithms: (algorithms ?? ASYMMETRIC_ALGORITHMS).filter((name) => ASYMMETRIC_ALGORITHMS.includes(name)),
      requiredClaims: ["exp"],
      clockTolerance: SKEW_SECONDS,
      currentDate: new Date(clock()),
    };
    try {
      return (await jwtVerify(jwt, keySetNow, options)).payload;
    } catch (thrown) {
      if (!(thrown instanceof errors.JWKSMultipleMatchingKeys)) throw thrown;
      // No `kid`: each key that could have made the signature is tried.
      for await (const key of thrown) {
        try {
          return (await jwtVerify(jwt, key, options)).payload;
        } catch (failure) {
          if (!(failure instanceof errors.JWSSignatureVerificationFailed)) throw failure;
        }
      }
      throw new errors.JWSSignatureVerificationFailed();
    }
  }

  return {
    issuer,
    metadata: metadata.get,
    async verify(jwt, expected) {
      if (jwt.length > MAX_TOKEN_LENGTH) throw refused(issuer, "it is too long");
      try {
        // Before any key is looked for: what cannot be accepted must not make us ask anybody anything.
        checkHeader(jwt, issuer, expected);
        try {
          return await claims(jwt, await keys.get(), expected);
        } catch (thrown) {
          if (!(thrown instanceof errors.JWKSNoMatchingKey)) throw thrown;
          const renewed = await keys.renew();
          if (renewed === undefined) throw thrown;
          return await claims(jwt, renewed, expected);
        }
      } catch (thrown) {
        if (thrown instanceof errors.JOSEError) throw refused(issuer, `${thrown.code}: ${thrown.message}`, thrown);
        throw DrawbridgeError.from(thrown);
      }
    },
  };
}

function checkIssuer(issuer: string): void {
  const url = URL.parse(issuer);
  if (url !== null && reachable(url) && !/[?#]/.test(issuer) && url.username === "" && url.password === "") return;
  throw new DrawbridgeError(
    "settings_invalid",
    `The issuer ${issuer} must be an https URL (or http on loopback) without a query or fragment (RFC 8414 §2).`,
  );
}

/** The places a metadata document may be: RFC 8414 §3.1, and OpenID Connect Discovery §4.1, the path before or behind. */
function placesOf(issuer: string): readonly string[] {
  const { origin, pathname } = new URL(issuer);
  const path = pathname.replace(/\/$/, "");
  return [
    ...new Set([
      `${origin}/.well-known/oauth-authorization-server${path}`,
      `${origin}${path}/.well-known/openid-configuration`,
      `${origin}/.well-known/openid-configuration${path}`,
    ]),
  ];
}

async function discover(issuer: string, http: Trusted): Promise<Loaded<IssuerMetadata>> {
  let failure: unknown;
  for (const place of placesOf(issuer)) {
    try {
      const { body, maxAgeSeconds } = await getJson(place, http);
      // RFC 8414 §3.3: the document of another issuer says nothing about this one.
      if (body["issuer"] !== issuer) {
        const named = JSON.stringify(body["issuer"] ?? null).slice(0, 200);
        throw new DrawbridgeError(
          "outbound_refused",
          `The metadata at ${place} is of the issuer ${named}, not of ${issuer}. Write the issuer as the document spells it.`,
        );
      }
      return { value: metadataOf(body, issuer), maxAgeSeconds };
    } catch (error) {
      // Of several failures the one that says most: an answer that was wrong, before a page that was not there.
      if (!(failure instanceof DrawbridgeError && failure.code === "outbound_refused")) failure = error;
    }
  }
  throw DrawbridgeError.from(failure, "upstream_unavailable");
}

function metadataOf(document: Record<string, unknown>, issuer: string): IssuerMetadata {
  const endpoint = (name: string) => {
    const value = document[name];
    if (value === undefined || value === null) return undefined;
    const url = typeof value === "string" ? URL.parse(value) : null;
    if (typeof value === "string" && url !== null && reachable(url)) return value;
    throw new DrawbridgeError("outbound_refused", `${name} in the metadata of ${issuer} is not an https URL.`);
  };
  return {
    issuer,
    jwksUri: endpoint("jwks_uri"),
    authorizationEndpoint: endpoint("authorization_endpoint"),
    tokenEndpoint: endpoint("token_endpoint"),
    introspectionEndpoint: endpoint("introspection_endpoint"),
    revocationEndpoint: endpoint("revocation_endpoint"),
    document,
  };
}

function keySet(body: Record<string, unknown>, issuer: string): LocalJWKSet {
  const { keys } = body;
  const unusable = (why: string) => new DrawbridgeError("outbound_refused", `The key set of ${issuer} ${why}.`);
  if (!Array.isArray(keys)) throw unusable("has no list of keys");
  if (keys.length > MAX_KEYS) throw unusable(`has more than ${MAX_KEYS} keys`);
  try {
    // A shared secret has no business in a public document; as a key it would make anybody a signer.
    return createLocalJWKSet({ keys: keys.filter((key) => key?.kty !== "oct") } as JSONWebKeySet);
  } catch (cause) {
    throw new DrawbridgeError("outbound_refused", `The key set of ${issuer} cannot be read.`, { cause });
  }
}

/** What the header says about how to check the token is compared with what we want, never followed: `jku`, `jwk`, `x5u` do not count. */
function checkHeader(jwt: string, issuer: string, { typ, algorithms = ASYMMETRIC_ALGORITHMS }: ExpectedToken): void {
  let header: ReturnType<typeof decodeProtectedHeader>;
  try {
    header = decodeProtectedHeader(jwt);
  } catch {
    throw refused(issuer, "it is not a signed JWT");
  }
  const { alg = "", typ: given } = header;
  if (!algorithms.includes(alg) || !ASYMMETRIC_ALGORITHMS.includes(alg))
    throw refused(issuer, `its algorithm is ${JSON.stringify(alg).slice(0, 40)}`);
  if (typ === undefined) return;
  const type = mediaType(given);
  const accepted = typeof typ === "string" ? [typ] : typ;
  if (type === undefined || !accepted.some((name) => mediaType(name) === type))
    throw refused(issuer, `its type is ${JSON.stringify(given ?? null).slice(0, 60)}`);
}

/** RFC 7515 §4.1.9: `application/` may be left out, and capitals do not count. */
function mediaType(typ: unknown): string | undefined {
  return typeof typ === "string" ? typ.toLowerCase().replace(/^application\/(?=[^/]+$)/, "") : undefined;
}

interface Loaded<T> {
  readonly value: T;
  readonly maxAgeSeconds: number | undefined;
}

async function getJson(
  url: string,
  http: Trusted,
): Promise<{ readonly body: Record<string, unknown>; readonly maxAgeSeconds: number | undefined }> {
  const answer = await http.fetch(url, { headers: { accept: "application/json, application/jwk-set+json" } });
  if (answer.status !== 200)
    throw new DrawbridgeError("upstream_unavailable", `${url} answered with HTTP ${answer.status}.`);
  const maxAge = /(?:^|,) *max-age *= *"?(\d{1,9})/i.exec(answer.headers.get("cache-control") ?? "")?.[1];
  let body: unknown;
  try {
    body = await answer.json();
  } catch {
    // Told below: a page in HTML, mostly.
  }
  if (typeof body !== "object" || body === null || Array.isArray(body))
    throw new DrawbridgeError("outbound_refused", `${url} did not answer with a JSON object.`);
  return {
    body: body as Record<string, unknown>,
    maxAgeSeconds: maxAge === undefined ? undefined : Number(maxAge),
  };
}

const DEFAULT_SECONDS = 600;
const MIN_SECONDS = 60;
const MAX_SECONDS = 3600;
/** What was had last serves for so long while its server does not answer. */
const LAST_GOOD_MS = 86_400_000;
const AGAIN_AFTER_FAILURE_MS = 5_000;
const RENEW_EVERY_MS = 30_000;

interface Kept<T> {
  get(): Promise<T>;
  /** Loads it anew; undefined when that was done within the last half minute, or failed. */
  renew(): Promise<T | undefined>;
}

/** Keeps what `load` gives. Callers that wait at the same time share one load. */
function kept<T>(load: () => Promise<Loaded<T>>, clock: Clock): Kept<T> {
  let last: { readonly value: T; readonly until: number; readonly loadedAt: number } | undefined;
  let failed: { readonly error: unknown; readonly at: number } | undefined;
  let triedAt = Number.NEGATIVE_INFINITY;
  let loading: Promise<T> | undefined;

  async function reload(): Promise<T> {
    triedAt = clock();
    try {
      const { value, maxAgeSeconds = DEFAULT_SECONDS } = await load();
      const seconds = Math.min(MAX_SECONDS, Math.max(MIN_SECONDS, maxAgeSeconds));
      last = { value, until: clock() + seconds * 1000, loadedAt: clock() };
      failed = undefined;
      return value;
    } catch (error) {
      failed = { error, at: clock() };
      throw error;
    } finally {
      loading = undefined;
    }
  }
  const shared = (): Promise<T> => {
    loading ??= reload();
    return loading;
  };

  return {
    async get() {
      const now = clock();
      if (last !== undefined && last.until > now) return last.value;
      const usable = last !== undefined && now - last.loadedAt < LAST_GOOD_MS ? last : undefined;
      if (failed === undefined) {
        return usable === undefined ? shared() : shared().catch(() => usable.value);
      }
      const rests = now - failed.at < AGAIN_AFTER_FAILURE_MS;
      if (usable === undefined) {
        if (rests) throw failed.error;
        return shared();
      }
      // It is known to be down: nobody waits for it, and somebody asks it again now and then.
      if (!rests) shared().catch(() => {});
      return usable.value;
    },
    async renew() {
      if (loading === undefined && clock() - triedAt < RENEW_EVERY_MS) return undefined;
      return shared().catch(() => undefined);
    },
  };
}

function reachable(url: URL): boolean {
  if (url.protocol === "https:") return true;
  return url.protocol === "http:" && ["localhost", "127.0.0.1", "[::1]"].includes(url.hostname);
}

function refused(issuer: string, detail: string, cause?: unknown): DrawbridgeError {
  return new DrawbridgeError("unauthenticated", `This token is not one of ${issuer} that is valid here.`, {
    detail,
    cause,
  });
}
