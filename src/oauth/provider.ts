/** The settings of `oidc-provider` for an MCP gateway: everything it must be told so that its defaults do no harm. */
import Provider, {
  type Adapter,
  type Configuration,
  errors,
  interactionPolicy,
  type KoaContextWithOIDC,
} from "oidc-provider";
import type { Clock } from "../core/clock.ts";
import type { CachedDocuments } from "../net/cached.ts";
import type { Logger } from "../observe/logger.ts";
import type { Browsers } from "./browser.ts";
import { clientDocuments } from "./client-documents.ts";
import { type ClientPolicy, localRedirect } from "./clients.ts";
import type { Report } from "./events.ts";
import type { Grants } from "./grants.ts";
import type { Place } from "./http.ts";
import { recordIssued } from "./issued.ts";
import type { Keys } from "./keys.ts";
import { ALL_SCOPES } from "./metadata.ts";
import { recordRefusals } from "./refusals.ts";
import type { Registration } from "./registration.ts";
import { rememberedGrant } from "./remembered.ts";
import type { ClientsSettings, SignInSettings, TokensSettings } from "./settings.ts";
import type { Users } from "./users.ts";

export interface ProviderOptions {
  readonly place: Place;
  readonly keys: Keys;
  readonly adapter: (model: string) => Adapter;
  readonly signIn: SignInSettings;
  readonly clients: ClientsSettings;
  readonly tokens: TokensSettings;
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
  readonly clock?: Clock;
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

const CORRECTED_METADATA = {
  scopes_supported: [...ALL_SCOPES, "openid", "offline_access"],
  response_modes_supported: ["query"],
};

export function createProvider(options: ProviderOptions): Provider {
  const { place, keys, signIn, clients, tokens, registration, users, browsers, report, log } = options;
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

  const resourceServer = {
    scope: ALL_SCOPES.join(" "),
    audience: place.resource,
    accessTokenTTL: tokens.accessTokenSeconds,
    accessTokenFormat: "jwt",
    jwt: { sign: { alg: "ES256" } },
  } as const;

  const provider = new Provider(place.issuer, {
    adapter: options.adapter,
    jwks: { keys: keys.signing.map((key) => ({ ...key })) },
    routes: ENDPOINTS,
    clients: clients.preregistered.map((client) => ({
      client_id: client.id,
      client_name: client.name,
      redirect_uris: client.redirectUris,
      application_type: client.redirectUris.some(localRedirect) ? "native" : "web",
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      ...(client.secret === undefined
        ? { token_endpoint_auth_method: "none" }
        : { token_endpoint_auth_method: "client_secret_basic", client_secret: client.secret.reveal() }),
    })),
    clientDefaults: {
      id_token_signed_response_alg: "ES256",
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
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
      Grant: days(tokens.grantDays),
      IdToken: tokens.accessTokenSeconds,
      Interaction: 600,
      RefreshToken: days(tokens.refreshTokenDays),
      Session: Math.max(1, Math.floor(signIn.sessionHours * 3600)),
    },
    extraTokenClaims: (_ctx, token) => ("grantId" in token && token.grantId ? { gid: token.grantId } : undefined),
    formats: {
      customizers: {
        jwt: recordIssued(options),
      },
    },
    fetch: documents.fetch,
    features: {
      devInteractions: { enabled: false },
      userinfo: { enabled: false },
      rpInitiatedLogout: { enabled: false },
      pushedAuthorizationRequests: { enabled: true },
      registration: { enabled: registration.open, initialAccessToken: false, issueRegistrationAccessToken: false },
      revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId },
      introspection: {
        enabled: true,
        allowedPolicy: (_ctx, client, token) =>
          client.clientAuthMethod !== "none" && token.clientId === client.clientId,
      },
      clientIdMetadataDocument: documents.feature,
      resourceIndicators: {
        enabled: true,
        defaultResource: () => place.resource,
        useGrantedResource: () => true,
        getResourceServerInfo(_ctx, resource) {
          if (resource !== place.resource)
            throw new errors.InvalidTarget(`the only resource here is ${place.resource}`);
          return resourceServer;
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
    if (ctx.oidc?.route === "discovery") Object.assign(ctx.body as object, CORRECTED_METADATA);
  });
  recordRefusals(provider, report, log);
  return provider;
}

type Features = NonNullable<Configuration["features"]> & Record<string, unknown>;
