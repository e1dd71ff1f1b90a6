/**
 * Access tokens: what is kept of every one, and the making of those that `oidc-provider` does not make. The token itself is not
 * stored; a row under its `jti` is what can be revoked, looked into and exchanged. Without the row, a token is worth nothing.
 */
import { type CryptoKey, createLocalJWKSet, errors, importJWK, type JWK, jwtVerify, SignJWT } from "jose";
import type { KoaContextWithOIDC } from "oidc-provider";
import { type Clock, systemClock } from "../../core/clock.ts";
import { newId } from "../../core/ids.ts";
import type { Records } from "../../store/ports.ts";
import { isDisabled } from "../clients/disabled.ts";
import type { Registration } from "../clients/registration.ts";
import type { OAuthEvent, Report } from "../events.ts";
import type { Place } from "../http.ts";
import type { Users } from "../people/users.ts";
import { sourceOf } from "../refusals.ts";
import type { TokensSettings } from "../settings.ts";
import type { Grants } from "./grants.ts";
import type { Keys } from "./keys.ts";

/** Which grant gave a token. */
export type Means = "token-exchange" | "identity-assertion" | "workload" | "own";

/** RFC 8693 §4.1: who acts, and within it who acted before. */
export interface Act {
  readonly sub: string;
  readonly act?: Act;
}

/** What is kept of an access token; `oidc-provider` reads the same row. */
export interface TokenRow {
  readonly jti: string;
  /** Seconds since the epoch. */
  readonly iat: number;
  readonly exp: number;
  readonly kind: "AccessToken";
  readonly clientId: string;
  /** The person; absent in a token that a client has for itself. */
  readonly accountId?: string | undefined;
  /** Absent where the grant is not the client's own: what was exchanged ends with `origin.grant`. */
  readonly grantId?: string | undefined;
  readonly gty?: string | undefined;
  readonly aud: string;
  readonly scope: string;
  /** RFC 7638 thumbprint of the key it is bound to (RFC 9449 §6). */
  readonly jkt?: string | undefined;
  /** Further members of an introspection answer. */
  readonly extra?: { readonly sub?: string; readonly act?: Act };
  /** The first of the tokens that this one was exchanged from. */
  readonly origin?: Origin | undefined;
}

export interface Origin {
  readonly token: string;
  readonly client: string;
  readonly grant: string | undefined;
}

/** A token to be made. */
export interface Wanted {
  /** The person it speaks for; undefined: the client speaks for itself. */
  readonly user: string | undefined;
  /** `sub` when there is no person. Default: the client. */
  readonly subject?: string | undefined;
  readonly client: string;
  readonly audience: string;
  readonly scopes: readonly string[];
  readonly means: Means;
  readonly grant?: string | undefined;
  /** Milliseconds since the epoch: it ends then at the latest. */
  readonly notAfter?: number | undefined;
  readonly jkt?: string | undefined;
  readonly exchanged?: { readonly act: Act; readonly from: string; readonly origin: Origin } | undefined;
  /** Network address of who asked. */
  readonly source?: string | undefined;
}

export interface Issued {
  readonly id: string;
  readonly token: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
  readonly expiresInSeconds: number;
  readonly scopes: readonly string[];
}

export interface Tokens {
  /** Makes a token, with its row and its event. When either cannot be written it rejects, and there is no token. */
  issue(wanted: Wanted): Promise<Issued>;
  /** The `jti` of an access token that we signed and that has not expired, for whichever API it is; undefined: it is none. */
  identify(token: string): Promise<string | undefined>;
  /** What is kept of a token; undefined when it was revoked, has expired, or never was. */
  find(id: string): Promise<TokenRow | undefined>;
  /** Why a token does not stand although its row is there: grant ended, user or client disabled; undefined: it does. */
  fallen(row: TokenRow): Promise<string | undefined>;
  /** A customizer of `oidc-provider`'s `jwt` format that does for its tokens what `issue` does for ours. */
  recordIssued(
    registration: Registration,
  ): (ctx: KoaContextWithOIDC, token: unknown, jwt: { readonly payload: object }) => Promise<undefined>;
}

export interface TokensOptions {
  readonly place: Pick<Place, "issuer">;
  readonly records: Records;
  readonly keys: Pick<Keys, "signing" | "public" | "refresh">;
  readonly users: Pick<Users, "find">;
  readonly grants: Pick<Grants, "indexFor">;
  readonly settings: Pick<TokensSettings, "accessTokenSeconds">;
  readonly report: Report;
  readonly clock?: Clock;
}

const TOKEN = "oauth:AccessToken";
const GRANT = "oauth:Grant";

export function tokensIn(options: TokensOptions): Tokens {
  const { place, records, keys, users, grants, settings, report, clock = systemClock } = options;
  const signing = signer(keys);
  let verifying: { readonly keys: Keys["public"]; readonly set: ReturnType<typeof createLocalJWKSet> } | undefined;

  async function keep(row: TokenRow, event: OAuthEvent): Promise<void> {
    const { jti, exp, accountId, clientId, origin } = row;
    const grant = row.grantId ?? origin?.grant;
    // What was exchanged is found, and ended, by the client that the person let in.
    const index = {
      ...grants.indexFor(accountId, origin?.client ?? clientId),
      ...(grant === undefined ? {} : { grant }),
    };
    // The record first: a failure in between leaves a record of what was not given, never something given without a record.
    await report(event);
    await records.put(TOKEN, jti, row, { expiresAt: exp * 1000, index });
  }

  /** Rejects for what is forged, expired, or something else: not one of ours, which is all that may be said of it. */
  async function identified(token: string): Promise<string | undefined> {
    const { public: current } = keys;
    // Other keys after a rotation.
    if (verifying?.keys !== current)
      verifying = { keys: current, set: createLocalJWKSet({ keys: current.map((key) => ({ ...key })) }) };
    const { payload } = await jwtVerify(token, verifying.set, {
      issuer: place.issuer,
      typ: "at+jwt",
      algorithms: ["ES256", "EdDSA", "RS256"],
      requiredClaims: ["exp", "jti"],
      currentDate: new Date(clock()),
    });
    return payload.jti;
  }

  return {
    async issue(wanted) {
      const { user, client, audience, scopes, means, grant, notAfter, jkt, exchanged, source } = wanted;
      const { subject = user ?? client } = wanted;
      const id = newId(clock());
      const iat = Math.floor(clock() / 1000);
      const exp = Math.min(iat + settings.accessTokenSeconds, Math.floor((notAfter ?? Number.MAX_SAFE_INTEGER) / 1000));
      const scope = scopes.join(" ");
      const act = exchanged === undefined ? {} : { act: exchanged.act };
      const token = await signing({
        ...act,
        ...(scope === "" ? {} : { scope }),
        ...(grant === undefined ? {} : { gid: grant }),
        ...(jkt === undefined ? {} : { cnf: { jkt } }),
        iss: place.issuer,
        sub: subject,
        aud: audience,
        client_id: client,
        jti: id,
        iat,
        exp,
      });
      const row: TokenRow = {
        jti: id,
        iat,
        exp,
        kind: "AccessToken",
        clientId: client,
        accountId: user,
        grantId: grant,
        gty: means,
        aud: audience,
        scope,
        jkt,
        extra: { ...act, ...(user === undefined ? { sub: subject } : {}) },
        origin: exchanged?.origin,
      };
      const about = {
        token: id,
        scopes,
        audience,
        client,
        ...(user === undefined ? {} : { user }),
        ...(source === undefined ? {} : { source }),
      };
      await keep(
        row,
        exchanged === undefined
          ? { type: "token-issued", means, ...about, ...(grant === undefined ? {} : { grant }) }
          : {
              type: "token-exchanged",
              ...about,
              subject,
              actors: actorsOf(exchanged.act),
              from: exchanged.from,
              origin: exchanged.origin.client,
              ...(exchanged.origin.grant === undefined ? {} : { grant: exchanged.origin.grant }),
            },
      );
      return { id, token, expiresAt: exp * 1000, expiresInSeconds: exp - iat, scopes };
    },

    async identify(token) {
      try {
        return await identified(token);
      } catch (thrown) {
        if (!(thrown instanceof errors.JWKSNoMatchingKey)) return undefined;
      }
      // Another replica may sign with a key that is a moment old.
      await keys.refresh();
      return identified(token).catch(() => undefined);
    },

    async find(id) {
      const row = await records.get<TokenRow>(TOKEN, id);
      return row === undefined ? undefined : { ...row.value, jti: id };
    },

    async fallen(row) {
      const grantId = row.grantId ?? row.origin?.grant;
      const clients = [...new Set([row.clientId, row.origin?.client ?? row.clientId])];
      const [grant, user, ...disabled] = await Promise.all([
        grantId === undefined ? undefined : records.get(GRANT, grantId),
        row.accountId === undefined ? undefined : users.find(row.accountId),
        ...clients.map((client) => isDisabled(records, client)),
      ]);
      if (grantId !== undefined && grant === undefined) return "its grant has ended";
      if (row.accountId !== undefined && (user === undefined || user.disabled)) return "its user is gone or disabled";
      if (disabled.includes(true)) return "its client is disabled";
      return row.exp * 1000 <= clock() ? "it has expired" : undefined;
    },

    recordIssued: (registration) => async (ctx, token, jwt) => {
      const { jti, exp = 0, iat = 0 } = jwt.payload as { jti: string; exp?: number; iat?: number };
      const { clientId = "", accountId, grantId, scope = "", aud = "", gty, jkt } = token as Partial<TokenRow>;
      const own = accountId === undefined ? { extra: { sub: clientId } } : {};
      const grantType = ctx.oidc.params?.["grant_type"];
      const row: TokenRow = {
        jti,
        iat,
        exp,
        kind: "AccessToken",
        clientId,
        accountId,
        grantId,
        gty: gty ?? (accountId === undefined ? "client_credentials" : undefined),
        aud,
        scope,
        jkt,
        ...own,
      };
      await registration.used(clientId);
      await keep(row, {
        type: grantType === "refresh_token" ? "token-refreshed" : "token-issued",
        token: jti,
        scopes: scope.split(" ").filter(Boolean),
        audience: aud,
        client: clientId,
        ...(accountId === undefined ? {} : { user: accountId }),
        ...(grantId === undefined ? {} : { grant: grantId }),
        ...sourceOf(ctx),
      });
    },
  };
}

/** Who acts, nearest first. */
export function actorsOf(act: Act | undefined): readonly string[] {
  return act === undefined ? [] : [act.sub, ...actorsOf(act.act)];
}

/** Signs with whichever key signs at the moment. */
function signer(keys: Pick<Keys, "signing">) {
  const imported = new Map<string, CryptoKey | Uint8Array>();
  return async (claims: Record<string, unknown>): Promise<string> => {
    const [jwk] = keys.signing as readonly JWK[];
    const { kid = "", alg = "ES256" } = jwk ?? {};
    let key = imported.get(kid);
    if (key === undefined && jwk !== undefined) {
      key = await importJWK(jwk, alg);
      // Only the key that signs now is of use.
      imported.clear();
      imported.set(kid, key);
    }
    if (key === undefined) throw new TypeError("there is no key to sign with");
    return new SignJWT(claims).setProtectedHeader({ alg, typ: "at+jwt", kid }).sign(key);
  };
}
