/** The settings of `oidc-provider` for an MCP gateway: everything it must be told so that its defaults do no harm. */
import { hash } from "node:crypto";
import Provider, {
  type Adapter,
  type Configuration,
  errors,
  interactionPolicy,
  type KoaContextWithOIDC,
} from "oidc-provider";
import type { Clock } from "../core/clock.ts";
import type { CachedDocuments } from "../net/cached.ts";
import type { Trusted } from "../net/trusted.ts";
import type { Logger } from "../observe/logger.ts";
import { clientDocuments } from "./clients/client-documents.ts";
import { compareHashedSecrets } from "./clients/client-secrets.ts";
import type { ClientPolicy } from "./clients/clients.ts";
import { preregisteredClients } from "./clients/preregistered.ts";
import type { Registration } from "./clients/registration.ts";
import type { Report } from "./events.ts";
import { registerJwtBearer, takesAssertions } from "./grant-types/jwt-bearer.ts";
import { proofs } from "./grant-types/proof.ts";
import { registerTokenExchange } from "./grant-types/token-exchange.ts";
import type { Place } from "./http.ts";
import { correctedMetadata, namedScopes, type OfferedScopes } from "./metadata.ts";
import { askBeforeLeaving } from "./pages/leaving.ts";
import type { Browsers } from "./people/browser.ts";
import type { Users } from "./people/users.ts";
import { recordRefusals } from "./refusals.ts";
import type { Resources, Service } from "./resources.ts";
import type { ClientsSettings, SignInSettings, TokensSettings } from "./settings.ts";
import { DPOP_ALGORITHMS } from "./tokens/dpop.ts";
import type { Grants } from "./tokens/grants.ts";
import type { Tokens } from "./tokens/issue.ts";
import type { Keys } from "./tokens/keys.ts";
import { rememberedGrant } from "./tokens/remembered.ts";

export interface ProviderOptions {
  readonly place: Place;
  readonly keys: Keys;
  readonly adapter: (model: string) => Adapter;
  readonly signIn: SignInSettings;
  readonly clients: ClientsSettings;
  readonly tokens: TokensSettings;
  readonly resources: Resources;
  readonly scopes: OfferedScopes;
  readonly issuing: Tokens;
  /** To the issuers of assertions. */
  readonly trustedNet: Trusted;
  readonly policy: ClientPolicy;
  readonly registration: Registration;
  /** Key sets of clients (`jwks_uri`). */
  readonly keySets: CachedDocuments;
  readonly users: Users;
  readonly browsers: Browsers;
  readonly grants: Grants;
  readonly report: Report;
  readonly log: Logger;
  /** Shows an error in a browser. */
  readonly showError: (
    ctx: KoaContextWithOIDC,
    error: { readonly error: string; readonly description: string },
  ) => void;
  readonly clock: Clock;
}

export const ENDPOINTS = {
  authorization: "/oauth/authorize",
  token: "/oauth/token",
  jwks: "/oauth/jwks",
  registration: "/oauth/register",
  revocation: "/oauth/revoke",
  introspection: "/oauth/introspect",
  pushed_authorization_request: "/oauth/par",
} as const;

/** With HS256 the secret would be a key, and the key a secret. */
const CLIENT_ALGORITHMS = ["ES256", "Ed25519", "EdDSA", "PS256", "RS256"] as const;

export function createProvider(options: ProviderOptions): Provider {
  const { place, keys, signIn, clients, tokens, resources, scopes, issuing, registration } = options;
  const { users, browsers, report, log } = options;
  const { algorithm } = keys;
  const [nonceSecret = Buffer.alloc(0)] = keys.secretsFor("DPoP nonces of the token endpoint");
  const days = (count: number) => Math.max(1, Math.floor(count * 86_400));
  const cookie = { signed: true, httpOnly: true, sameSite: "lax", secure: place.secure } as const;
  const names = place.secure
    ? {
        session: "__Host-drawbridge-oauth",
        interaction: "__Secure-drawbridge-ask",
        resume: "__Secure-drawbridge-resume",
      }
    : { session: "drawbridge-oauth", interaction: "drawbridge-ask", resume: "drawbridge-resume" };
  const documents = clientDocuments(options);

  const prompts = interactionPolicy.base();
  // Our own session is the one that counts: signed out or disabled there, nothing is granted here.
  prompts.get("login")?.checks.add(
    new interactionPolicy.Check(
      "not_signed_in",
      "End-User authentication is required",
      "login_required",
      async (ctx) => {
        const user = await browsers.user(ctx.req);
        return user === undefined || user.id !== ctx.oidc.session?.accountId;
      },
    ),
  );

  /** RFC 7662 §4: only for who has the token anyway, or is the API that was sent it. */
  async function mayLookInto(_ctx: unknown, client: LookingClient, token: LookedInto): Promise<boolean> {
    if (client.clientAuthMethod === "none") return false;
    const own = token.clientId === client.clientId;
    if (token.kind === "RefreshToken") return own;
    if (!own && !resources.owns(client.clientId, String(token.aud))) return false;
    const row = await issuing.find(token.jti);
    if (row === undefined || (await issuing.fallen(row)) !== undefined) return false;
    // What is said of a token names its client, so there must be one.
    return own || (await provider.Client.find(row.clientId)) !== undefined;
  }

  const resourceServer = {
    audience: place.resource,
    accessTokenTTL: tokens.accessTokenSeconds,
    accessTokenFormat: "jwt",
    jwt: { sign: { alg: algorithm } },
  } as const;

  const provider = new Provider(place.issuer, {
    adapter: options.adapter,
    jwks: { keys: keys.signing.map((key) => ({ ...key })) },
    routes: ENDPOINTS,
    clients: preregisteredClients({ gateway: place.issuer, clients, signIn }),
    clientDefaults: {
      id_token_signed_response_alg: algorithm,
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      ...(tokens.dpop === "required" && { dpop_bound_access_tokens: true }),
    },
    enabledJWA: {
      idTokenSigningAlgValues: [algorithm],
      clientAuthSigningAlgValues: [...CLIENT_ALGORITHMS],
      dPoPSigningAlgValues: [...DPOP_ALGORITHMS],
    },
    clientAuthMethods: ["none", "private_key_jwt", "client_secret_basic", "client_secret_post"],
    cookies: { keys: [...keys.cookies], names, short: cookie, long: cookie },
    interactions: {
      policy: prompts,
      url: (_ctx, { prompt, uid }) => `${place.prefix}/${prompt.name === "login" ? "sign-in" : "consent"}/${uid}`,
    },
    scopes: ["openid", "offline_access"],
    claims: { openid: ["sub"] },
    responseTypes: ["code"],
    subjectTypes: ["public"],
    pkce: { required: () => true },
    allowOmittingSingleRegisteredRedirectUri: false,
    conformIdTokenClaims: true,
    clientBasedCORS: () => true,
    async findAccount(_ctx, id) {
      const user = await users.find(id);
      return user === undefined || user.disabled ? undefined : { accountId: id, claims: () => ({ sub: id }) };
    },
    loadExistingGrant: (ctx) => rememberedGrant(provider, options, ctx),
    // MCP clients often leave offline_access out and still count on refreshing.
    issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed("refresh_token"),
    rotateRefreshToken: () => true,
    expiresWithSession: () => false,
    ttl: {
      AccessToken: tokens.accessTokenSeconds,
      AuthorizationCode: 60,
      ClientCredentials: tokens.accessTokenSeconds,
      Grant: days(tokens.grantDays),
      IdToken: tokens.accessTokenSeconds,
      Interaction: 600,
      RefreshToken: days(tokens.refreshTokenDays),
      Session: Math.max(1, Math.floor(signIn.sessionHours * 3600)),
    },
    extraTokenClaims: (_ctx, token) => ("grantId" in token && token.grantId ? { gid: token.grantId } : undefined),
    formats: {
      customizers: {
        jwt: issuing.recordIssued(registration),
      },
    },
    fetch: documents.fetch,
    features: {
      devInteractions: { enabled: false },
      userinfo: { enabled: false },
      rpInitiatedLogout: { enabled: false },
      pushedAuthorizationRequests: { enabled: true },
      // Who may register is decided before a request gets here.
      registration: {
        enabled: registration.enabled,
        initialAccessToken: false,
        issueRegistrationAccessToken: true,
        idFactory: () => registration.newClientId(),
      },
      registrationManagement: { enabled: registration.enabled, rotateRegistrationAccessToken: true },
      revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId },
      introspection: { enabled: true, allowedPolicy: mayLookInto },
      clientCredentials: { enabled: clients.preregistered.some(({ service }) => service !== undefined) },
      dPoP: {
        enabled: tokens.dpop !== "off",
        nonceSecret,
        requireNonce: () => tokens.dpopNonce,
      },
      clientIdMetadataDocument: documents.feature,
      resourceIndicators: {
        enabled: true,
        defaultResource: () => place.resource,
        useGrantedResource: () => true,
        getResourceServerInfo(ctx, resource, client) {
          if (resource !== place.resource)
            throw new errors.InvalidTarget(`the only resource here is ${place.resource}`);
          const service = resources.services.get(client.clientId);
          const forItself = ctx.oidc.params?.["grant_type"] === "client_credentials" && service !== undefined;
          const scope = forItself ? scopesOfService(ctx, service, scopes.all()) : scopes.all().join(" ");
          return { ...resourceServer, scope };
        },
      },
    } satisfies Features,
    renderError(ctx, { error, error_description: description = "" }) {
      options.showError(ctx, { error, description });
    },
  } satisfies Configuration);

  // Its URLs come from the Host and X-Forwarded-Proto that `replay` writes, never from those that came in.
  provider.proxy = true;
  // Its own `discovery` setting adds what is missing and cannot change what is there.
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route === "discovery")
      Object.assign(ctx.body as object, correctedMetadata(CLIENT_ALGORITHMS, signIn, scopes.all()));
  });
  // One try for each code: who has it without its verifier has it from somebody else. The library would let them try again.
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.route !== "token" || (ctx.body as { error?: string } | undefined)?.error !== "invalid_grant") return;
    const { client, params } = ctx.oidc;
    if (params?.["grant_type"] !== "authorization_code") return;
    const code = await provider.AuthorizationCode.find(String(params["code"]));
    // A code that was used stays, so that its use is noticed again.
    if (code?.isValid !== true || code.clientId !== client?.clientId) return;
    const challenge = hash("sha256", String(params["code_verifier"] ?? ""), "base64url");
    if (challenge !== code.codeChallenge) await code.destroy();
  });
  const checkProof = proofs({
    url: `${place.issuer}${ENDPOINTS.token}`,
    enabled: tokens.dpop !== "off",
    nonces: tokens.dpopNonce,
    nonceSecret,
    clock: options.clock,
  });
  const grantOptions = { ...options, tokens: issuing, settings: tokens, http: options.trustedNet, checkProof };
  if (clients.preregistered.some(({ mayExchangeFor }) => mayExchangeFor.length > 0))
    registerTokenExchange(provider, grantOptions);
  if (takesAssertions(signIn, clients)) registerJwtBearer(provider, grantOptions);
  askBeforeLeaving(provider, options);
  compareHashedSecrets(provider);
  recordRefusals(provider, report, log);
  return provider;
}

/** A service that names no scopes means all of its own. Of what it may not have it gets nothing, as long as something is left. */
function scopesOfService(ctx: KoaContextWithOIDC, { id, scopes }: Service, offered: readonly string[]): string {
  const { params } = ctx.oidc;
  const asked = namedScopes(params?.["scope"] as string | undefined) ?? scopes;
  const unknown = asked.filter((scope) => !offered.includes(scope));
  if (unknown.length > 0) throw new errors.InvalidScope("There is no such scope.", unknown.join(" "));
  if (!asked.some((scope) => scopes.includes(scope)))
    throw new errors.InvalidScope(`The service ${id} may have none of these scopes.`, asked.join(" "));
  if (params !== undefined) params["scope"] = asked.join(" ");
  return scopes.join(" ");
}

type LookingClient = Pick<InstanceType<Provider["Client"]>, "clientId" | "clientAuthMethod">;
interface LookedInto {
  readonly jti: string;
  readonly kind: string;
  readonly clientId?: string | undefined;
  readonly aud?: string | readonly string[] | undefined;
}
type Features = NonNullable<Configuration["features"]> & Record<string, unknown>;
