/** The settings of `oidc-provider` for an MCP gateway: everything it must be told so that its defaults do no harm. */
import type { EventEmitter } from "node:events";
import Provider, {
  type Adapter,
  type Configuration,
  errors,
  interactionPolicy,
  type KoaContextWithOIDC,
} from "oidc-provider";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { CachedDocuments } from "../net/cached.ts";
import type { Logger } from "../observe/logger.ts";
import type { Browsers } from "./browser.ts";
import { type ClientMetadata, type ClientPolicy, localRedirect } from "./clients.ts";
import type { Report } from "./events.ts";
import { fingerprintOf, type Grants } from "./grants.ts";
import type { Place } from "./http.ts";
import type { Keys } from "./keys.ts";
import { ALL_SCOPES } from "./metadata.ts";
import type { Registration } from "./registration.ts";
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
  const { place, keys, signIn, clients, tokens, policy, registration, users, browsers, grants, report, log } = options;
  const clock = options.clock ?? systemClock;
  const days = (count: number) => Math.max(1, Math.floor(count * 86_400));
  const cookie = { signed: true, httpOnly: true, sameSite: "lax", secure: place.secure } as const;
  const names = place.secure
    ? {
        session: "__Host-drawbridge-oauth",
        interaction: "__Secure-drawbridge-ask",
        resume: "__Secure-drawbridge-resume",
      }
    : { session: "drawbridge-oauth", interaction: "drawbridge-ask", resume: "drawbridge-resume" };
  /** Documents that `allowFetch` loaded, put right, for the fetch that follows it. */
  const loaded = new Map<string, ClientMetadata>();
  const refusedIn = new WeakMap<object, Error>();

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
    loadExistingGrant: (ctx) => rememberedGrant(ctx),
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
        async jwt(ctx, token, jwt) {
          const { jti, exp = 0, iat = 0 } = jwt.payload as { jti: string; exp?: number; iat?: number };
          const { clientId = "", accountId, grantId, scope = "", aud, gty } = token as unknown as Shadow;
          // The token itself is not stored; this row is what can be revoked and introspected.
          const shadow = { jti, iat, exp, kind: token.kind, clientId, accountId, grantId, gty, aud, scope };
          await options.adapter("AccessToken").upsert(jti, shadow, exp - Math.floor(clock() / 1000));
          await registration.used(clientId);
          const refreshed = ctx.oidc.params?.["grant_type"] === "refresh_token";
          await report({
            type: refreshed ? "token-refreshed" : "token-issued",
            token: jti,
            scopes: scope.split(" ").filter(Boolean),
            client: clientId,
            ...(accountId === undefined ? {} : { user: accountId }),
            ...(grantId === undefined ? {} : { grant: grantId }),
            ...sourceOf(ctx),
          });
        },
      },
    },
    async fetch(input) {
      const url = String(input);
      const document = loaded.get(url);
      const body = document === undefined ? await options.keySets.get(url) : JSON.stringify(document);
      return new Response(body, { headers: { "content-type": "application/json", "cache-control": "max-age=1" } });
    },
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
      clientIdMetadataDocument: {
        enabled: clients.metadataDocuments.enabled,
        ack: "draft-02",
        // Our own cache knows ETag, failures and limits; this one only joins the lookups of one request.
        cacheDuration: { min: 1, max: 1 },
        async allowFetch(ctx, clientId) {
          const before = ctx === undefined ? undefined : refusedIn.get(ctx);
          // A refused request looks its client up once more, to see where it may send the refusal.
          if (before !== undefined) throw before;
          try {
            const document = await policy.loadDocument(clientId);
            loaded.delete(clientId);
            loaded.set(clientId, document);
            if (loaded.size > 1000) loaded.delete(loaded.keys().next().value ?? "");
            return true;
          } catch (thrown) {
            const { message, detail } = DrawbridgeError.from(thrown);
            log.info({ clientId, message, detail }, "client document refused");
            await report({
              type: "client-refused",
              client: clientId.slice(0, 1024),
              reason: message,
              ...sourceOf(ctx),
            });
            const refusal = new errors.InvalidClient(message);
            if (ctx !== undefined) refusedIn.set(ctx, refusal);
            throw refusal;
          }
        },
        allowClient: () => true,
      },
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
  logFailures(provider, report, log);
  return provider;

  /** The grant for an authorization request: the one just consented to, or a new one from a remembered consent. */
  async function rememberedGrant(ctx: KoaContextWithOIDC) {
    const { client, session, result, params } = ctx.oidc;
    const answered = result?.consent?.grantId;
    if (answered !== undefined) return provider.Grant.find(answered);
    const user = session?.accountId;
    // In the middle of an interaction a person is there: they are asked, so that nobody signs in and finds all allowed.
    if (client === undefined || user === undefined || result !== undefined) return undefined;
    // Anything on the user's machine can pose as a native client; another site can send a browser here unseen.
    const site = ctx.get("sec-fetch-site");
    if (client.applicationType === "native" || (site !== "none" && site !== "same-origin")) return undefined;
    const consent = await grants.consents.find(user, client.clientId);
    const requested = new Set(String(params?.["scope"] ?? "").split(" "));
    const unchanged = consent?.fingerprint === fingerprintOfClient(client);
    const covered = ALL_SCOPES.every((scope) => !requested.has(scope) || consent?.scopes.includes(scope));
    if (consent === undefined || !unchanged || !covered) return undefined;
    const remaining = Math.floor((consent.until - clock()) / 1000);
    if (remaining <= 0) return undefined;
    const grant = new provider.Grant({ accountId: user, clientId: client.clientId });
    grant.addResourceScope(place.resource, consent.scopes.join(" "));
    grant.addOIDCScope("openid offline_access");
    const id = await (grant as Saveable).save(remaining);
    await report({
      type: "consent-granted",
      asked: false,
      user,
      client: client.clientId,
      grant: id,
      scopes: consent.scopes,
      refused: [],
      ...sourceOf(ctx),
    });
    return grant;
  }
}

/** What a consent to this client is given to. */
export function fingerprintOfClient(client: {
  readonly clientId: string;
  readonly clientName?: string | undefined;
  readonly redirectUris?: readonly string[] | undefined;
}): string {
  const { jwks, jwksUri } = client as { jwks?: unknown; jwksUri?: unknown };
  const { clientName = client.clientId, redirectUris = [] } = client;
  return fingerprintOf({ name: clientName, redirectUris, keys: jwks ?? jwksUri });
}

/** Newer than its type definitions: how long a grant lives may be given. */
interface Saveable {
  save(ttlSeconds: number): Promise<string>;
}
type Features = NonNullable<Configuration["features"]> & Record<string, unknown>;

interface Shadow {
  readonly clientId?: string;
  readonly accountId?: string;
  readonly grantId?: string;
  readonly scope?: string;
  readonly aud?: string;
  readonly gty?: string;
}

function sourceOf(
  ctx: { readonly req?: { readonly socket?: { readonly remoteAddress?: string | undefined } } } | undefined,
) {
  const source = ctx?.req?.socket?.remoteAddress;
  return source === undefined ? {} : { source };
}

/** What a client is told is a code; why it was refused is what an operator needs. */
function logFailures(provider: EventEmitter, report: Report, log: Logger): void {
  provider.on("error", (error: Error) => log.error({ error: error.message }, "answer could not be sent"));
  provider.on("server_error", (_ctx: KoaContextWithOIDC, error: Error) => {
    log.error({ error: error.message, stack: error.stack }, "authorization server error");
  });
  for (const endpoint of [
    "authorization",
    "grant",
    "pushed_authorization_request",
    "registration_create",
    "revocation",
    "introspection",
  ]) {
    provider.on(
      `${endpoint}.error`,
      (ctx: KoaContextWithOIDC, failure: Error & { error_detail?: string; error?: string }) => {
        const asked = ctx.oidc?.client?.clientId ?? ctx.oidc?.params?.["client_id"];
        const client = typeof asked === "string" ? { client: asked.slice(0, 1024) } : {};
        const error = failure.error ?? failure.message;
        const reason = failure.error_detail ?? failure.message;
        log.info(
          { ...client, endpoint, error, reason, cause: failure.cause && String(failure.cause) },
          "request refused",
        );
        if (endpoint !== "grant") return;
        // Nothing was granted, so nothing has to be taken back when this is not recorded.
        report({ type: "token-refused", error, reason, ...client, ...sourceOf(ctx) }).catch((thrown: unknown) =>
          log.error({ error: DrawbridgeError.from(thrown).detail }, "a refusal could not be recorded"),
        );
      },
    );
  }
}
