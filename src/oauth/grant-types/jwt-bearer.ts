/**
 * The JWT bearer grant (RFC 7523 §2.1): identity assertions of an identity provider for its users (ID-JAG, which MCP calls
 * enterprise-managed authorization), and tokens with which a platform says who its workload is.
 */
import { decodeJwt, decodeProtectedHeader, type JWTPayload } from "jose";
import type Provider from "oidc-provider";
import { errors, type KoaContextWithOIDC } from "oidc-provider";
import type { Clock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { compileGlob } from "../../core/glob.ts";
import type { Trusted } from "../../net/trusted.ts";
import { JWT_BEARER } from "../clients/clients.ts";
import type { Report } from "../events.ts";
import type { Place } from "../http.ts";
import { type ForeignIssuer, foreignIssuer } from "../issuers.ts";
import { ALL_SCOPES, namedScopes, type OfferedScopes, takesIdentityAssertions } from "../metadata.ts";
import { admitted, claimAt } from "../people/claims.ts";
import type { User, Users } from "../people/users.ts";
import { sourceOf } from "../refusals.ts";
import type { Resources } from "../resources.ts";
import type { ClientsSettings, SignInProvider, SignInSettings, TokensSettings, Workload } from "../settings.ts";
import type { Issued, Tokens, Wanted } from "../tokens/issue.ts";
import type { CheckProof } from "./proof.ts";

const ID_JAG_TYPE = "oauth-id-jag+jwt";

export interface JwtBearerOptions {
  readonly place: Place;
  readonly signIn: SignInSettings;
  readonly clients: ClientsSettings;
  readonly settings: Pick<TokensSettings, "accessTokenSeconds">;
  readonly resources: Resources;
  readonly scopes: OfferedScopes;
  readonly tokens: Tokens;
  readonly users: Pick<Users, "findByProvider" | "federate">;
  readonly checkProof: CheckProof;
  /** How other issuers are reached. */
  readonly http: Trusted;
  readonly report: Report;
  readonly clock: Clock;
}

type Parameters = { assertion?: string; scope?: string; resource?: string | string[] };
/** An assertion as it came. */
interface Shown {
  readonly ctx: KoaContextWithOIDC;
  readonly assertion: string;
  /** Scopes; undefined: all there are. */
  readonly asked: readonly string[] | undefined;
  /** The key that the request proved to have. */
  readonly jkt: string | undefined;
}
interface Trust extends Workload {
  readonly matches: (subject: string) => boolean;
  readonly from: ForeignIssuer;
}

/** An assertion is made to be used at once. */
const MAX_ASSERTION_SECONDS = 600;
/** A platform's token may lie in a file for a while. */
const MAX_WORKLOAD_AGE_SECONDS = 3_600;
const SKEW_SECONDS = 30;

/** True when there is anybody whose assertions would be taken. */
export function takesAssertions(signIn: SignInSettings, clients: ClientsSettings): boolean {
  return takesIdentityAssertions(signIn) || clients.workloads.length > 0;
}

export function registerJwtBearer(provider: Provider, options: JwtBearerOptions): void {
  const { place, signIn, clients, resources, tokens, users, checkProof, settings, http, report, clock } = options;
  const issuer = (url: string, jwksUri?: string) => foreignIssuer({ issuer: url, jwksUri, http, clock });
  const identityProviders = new Map(
    Object.entries(signIn.providers)
      .filter(([, { identityAssertions }]) => identityAssertions)
      .map(([name, its]) => [its.issuer, { name, its, from: issuer(its.issuer) }]),
  );
  const workloads = clients.workloads.map(
    (workload): Trust => ({
      ...workload,
      matches: compileGlob(workload.subject),
      from: issuer(workload.issuer, workload.jwksUri),
    }),
  );

  /** A person, whom their identity provider lets this client act for. */
  async function forPerson({ ctx, assertion, asked, jkt }: Shown) {
    const client = clientOf(ctx);
    if (client.clientAuthMethod === "none")
      throw new errors.UnauthorizedClient("Identity assertions are taken from clients that authenticate.");
    const trusted = identityProviders.get(String(decoded(assertion).iss));
    if (trusted === undefined)
      throw refused("The issuer of this assertion is not one whose assertions are taken here.");
    const claims = await verified(trusted.from, assertion, place.issuer, ID_JAG_TYPE);
    checkHolder(claims, jkt);
    checkAge(claims, MAX_ASSERTION_SECONDS);
    if (Number(claims.exp) - Number(claims.iat) > MAX_ASSERTION_SECONDS)
      throw refused("This assertion is valid for longer than 10 minutes.");
    if (claims["client_id"] !== client.clientId) throw refused("This assertion was made for another client.");
    const { resource, jti, scope } = claims as { resource?: unknown; jti?: unknown; scope?: unknown };
    if (![resource].flat().some((name) => typeof name === "string" && resources.canonical(name) === resources.own))
      throw refused(`This assertion is for another resource than ${resources.own}.`);
    // At an issuer of many tenants, who somebody is depends on the tenant, and there is no setting that says which is ours.
    if (claims["tenant"] !== undefined)
      throw refused("This assertion is of an issuer with tenants, whose subjects may be different people in each.");
    if (typeof jti !== "string" || jti === "") throw refused("This assertion has no jti.");

    const granted = scope === undefined ? ALL_SCOPES : String(scope).split(" ");
    const scopes = narrowed(options.scopes.all(), granted, asked);
    // After all checks of the assertion, and before anybody is made a user by it.
    await once(trusted.from, jti, claims);
    const user = await personOf(ctx, trusted.name, trusted.its, claims);
    const grant = new provider.Grant({ accountId: user.id, clientId: client.clientId });
    grant.addResourceScope(resources.own, scopes.join(" "));
    const grantId = await (grant as Saveable).save(settings.accessTokenSeconds);
    return { user: user.id, scopes, grant: grantId, means: "identity-assertion" } as const;
  }

  /** A workload, for itself. */
  async function forWorkload({ ctx, assertion, asked, jkt }: Shown) {
    const client = clientOf(ctx);
    const trust = workloads.find(({ id }) => id === client.clientId);
    if (trust === undefined)
      throw refused("This client is no workload, and its assertion is no identity assertion (ID-JAG).");
    if (decoded(assertion).iss !== trust.issuer)
      throw refused("This assertion is of another issuer than this workload's.");
    const claims = await verified(trust.from, assertion, trust.audience ?? place.issuer);
    checkHolder(claims, jkt);
    if (typeof claims.sub !== "string" || !trust.matches(claims.sub))
      throw refused("The subject of this assertion is not this workload.");
    checkAge(claims, MAX_WORKLOAD_AGE_SECONDS);
    const scopes = narrowed(options.scopes.all(), resources.services.get(trust.id)?.scopes ?? [], asked);
    if (typeof claims.jti === "string" && !trust.reusable) await once(trust.from, claims.jti, claims);
    return { user: undefined, scopes, means: "workload" } as const;
  }

  function checkAge({ iat }: JWTPayload, maxSeconds: number): void {
    const now = clock() / 1000;
    if (typeof iat !== "number") throw refused("This assertion does not say when it was made (iat).");
    if (iat > now + SKEW_SECONDS) throw refused("This assertion was made in the future.");
    if (now - iat > maxSeconds + SKEW_SECONDS) throw refused("This assertion was made too long ago.");
  }

  /** RFC 7523 §3 number 7: of two requests with the same assertion one is refused, also when they come at once. */
  async function once(from: ForeignIssuer, jti: string, { exp = 0 }: JWTPayload): Promise<void> {
    if (!(await provider.ReplayDetection.unique(`assertion ${from.issuer} `, jti, exp + SKEW_SECONDS)))
      throw refused("This assertion was used before.");
  }

  async function personOf(
    ctx: KoaContextWithOIDC,
    name: string,
    its: SignInProvider,
    claims: JWTPayload,
  ): Promise<User> {
    const subject = claims.sub ?? "";
    const known = subject === "" ? undefined : await users.findByProvider(name, subject);
    if (known?.disabled) throw refused("The user of this assertion is disabled here.");
    // Most assertions say nothing of groups. Then those of the last sign-in stand.
    if (known !== undefined && claimAt(claims, its.groupsClaim) === undefined) return known;
    const admission = admitted(name, its, claims);
    if (!admission.ok) throw refused(`The user of this assertion may not sign in here: ${admission.reason}.`);
    const { user } = admission;
    const kept = known === undefined ? {} : { name: known.name, email: user.email ?? known.email };
    const person = await users.federate({ ...user, ...kept });
    if (person.disabled) throw refused("The user of this assertion is disabled here.");
    if (known === undefined) {
      const { id, groups } = person;
      await report({
        type: "user-created",
        user: id,
        name: person.name,
        groups,
        client: clientOf(ctx).clientId,
        ...sourceOf(ctx),
      });
    }
    return person;
  }

  provider.registerGrantType<Parameters>(
    JWT_BEARER,
    async (ctx) => {
      const { params } = ctx.oidc;
      const { assertion, scope, resource } = params;
      if (assertion === undefined) throw new errors.InvalidRequest("There is no assertion.");
      for (const name of [resource ?? []].flat())
        if (resources.canonical(name) !== resources.own)
          throw new errors.InvalidTarget(`the only resource here is ${resources.own}`);
      const asked = namedScopes(scope);
      const jkt = await checkProof(ctx);
      const identity = typeOf(assertion) === ID_JAG_TYPE;
      const who = await (identity ? forPerson : forWorkload)({ ctx, assertion, asked, jkt });
      const wanted: Wanted = {
        ...who,
        client: clientOf(ctx).clientId,
        audience: resources.own,
        jkt,
        source: sourceOf(ctx).source,
      };
      ctx.body = answer(await tokens.issue(wanted), jkt);
    },
    ["assertion", "scope", "resource"],
  );
}

/** The client id of the workload that an assertion seems to be of, for requests that name no client. Nothing is believed yet. */
export function workloadFinder(workloads: readonly Workload[]): (assertion: string) => string | undefined {
  const known = workloads.map(({ id, issuer, subject }) => ({ id, issuer, matches: compileGlob(subject) }));
  return (assertion) => {
    try {
      const { iss, sub = "" } = decodeJwt(assertion);
      return known.find(({ issuer, matches }) => issuer === iss && matches(sub))?.id;
    } catch {
      // No JWT, so nobody's.
      return undefined;
    }
  };
}

/** Never with a refresh token: whoever vouched for them is asked again. */
function answer(made: Issued, jkt: string | undefined) {
  return {
    access_token: made.token,
    token_type: jkt === undefined ? "Bearer" : "DPoP",
    expires_in: made.expiresInSeconds,
    scope: made.scopes.join(" "),
  };
}

/** Types that say that a JWT is something else than an assertion (RFC 8725 §3.11). */
const PLAIN_TYPES = new Set(["", "jwt", "jose"]);

async function verified(from: ForeignIssuer, assertion: string, audience: string, typ?: string): Promise<JWTPayload> {
  if (typ === undefined && !PLAIN_TYPES.has(typeOf(assertion)))
    throw refused("This JWT is of a type that is no assertion of a workload.");
  try {
    const claims = await from.verify(assertion, { audience, ...(typ === undefined ? {} : { typ }) });
    // Made for others too, it could have been handed on by one of them.
    if ([claims.aud].flat().length !== 1) throw refused("This assertion has more than one audience.");
    if (typeof claims.sub !== "string" || claims.sub === "") throw refused("This assertion has no subject.");
    return claims;
  } catch (thrown) {
    if (!(thrown instanceof DrawbridgeError)) throw thrown;
    const { code, message, detail } = thrown;
    if (code === "unauthenticated")
      throw refused(`This assertion is not one of ${from.issuer} that is valid for ${audience}.`, detail);
    throw new errors.TemporarilyUnavailable("The keys of the assertion's issuer cannot be had at the moment.", {
      detail: `${message} ${detail ?? ""}`,
    });
  }
}

/** RFC 7800 §3: an assertion that is bound to a key counts only with that key, and one bound in an unknown way not at all. */
function checkHolder({ cnf }: JWTPayload, jkt: string | undefined): void {
  if (cnf === undefined) return;
  const bound = typeof cnf === "object" && cnf !== null && "jkt" in cnf ? cnf.jkt : undefined;
  if (bound === undefined || bound !== jkt)
    throw refused("This assertion is bound to a key, and this request does not prove to have it (DPoP).");
}

/** What was asked for of what may be had. SDKs ask for all there is, so only nothing at all is refused. */
function narrowed(
  offered: readonly string[],
  granted: readonly string[],
  asked: readonly string[] | undefined,
): readonly string[] {
  const scopes = offered.filter((scope) => granted.includes(scope) && (asked?.includes(scope) ?? true));
  if (scopes.length > 0) return scopes;
  throw new errors.InvalidScope("None of the scopes asked for is allowed.", (asked ?? granted).join(" "));
}

function decoded(assertion: string): JWTPayload {
  try {
    return decodeJwt(assertion);
  } catch {
    throw refused("The assertion is not a JWT.");
  }
}

/** RFC 7515 §4.1.9: `application/` may be left out, and capitals do not count. */
function typeOf(assertion: string): string {
  try {
    const { typ = "" } = decodeProtectedHeader(assertion);
    return typ.toLowerCase().replace(/^application\/(?=[^/]+$)/, "");
  } catch {
    throw refused("The assertion is not a JWT.");
  }
}

function clientOf(ctx: KoaContextWithOIDC) {
  const { client } = ctx.oidc;
  if (client === undefined) throw new errors.InvalidClient("There is no client.");
  return client;
}

function refused(description: string, detail?: string): Error {
  return new errors.CustomOIDCProviderError("invalid_grant", description, detail === undefined ? {} : { detail });
}

/** Newer than its type definitions: how long a grant lives may be given. */
interface Saveable {
  save(ttlSeconds: number): Promise<string>;
}
