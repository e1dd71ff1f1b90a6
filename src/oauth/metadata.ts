/** What the MCP endpoint says of itself before a client has a token, and the scopes there are. */
import type { Authority } from "./authority.ts";
import type { SignInSettings } from "./settings.ts";

/** What each scope allows, in the words of the consent page. The order is the order shown. */
export const SCOPES = {
  "mcp:read": {
    title: "See what is there",
    description: "List tools, prompts and resources, and read resources and prompts that you may read.",
  },
  "mcp:call": {
    title: "Use tools for you",
    description: "Call the tools that you may call. Some of them can change or delete things.",
  },
} as const;
export type Scope = keyof typeof SCOPES;
export const ALL_SCOPES = Object.keys(SCOPES) as readonly Scope[];

/** A scope in the words of the consent page. */
export interface ScopeText {
  readonly scope: string;
  readonly title: string;
  readonly description: string;
}

/** Every scope that a token for our endpoint may have. */
export interface OfferedScopes {
  /** In the order of the consent page. */
  all(): readonly string[];
  textOf(scope: string): Omit<ScopeText, "scope"> | undefined;
}

/** Those that everybody asks for, and those that are asked for when a call needs them. `further` is asked each time. */
export function offeredScopes(further: () => readonly ScopeText[] = () => []): OfferedScopes {
  const isOurs = (scope: string): scope is Scope => Object.hasOwn(SCOPES, scope);
  return {
    all: () => [...new Set([...ALL_SCOPES, ...further().map(({ scope }) => scope)])],
    textOf: (scope) => (isOurs(scope) ? SCOPES[scope] : further().find((one) => one.scope === scope)),
  };
}

/** RFC 9728 §2: the document that the gateway serves at `/.well-known/oauth-protected-resource…`. */
export interface ProtectedResourceMetadata {
  readonly resource: string;
  readonly authorization_servers: readonly string[];
  readonly scopes_supported: readonly string[];
  readonly bearer_methods_supported: readonly ["header"];
  readonly resource_name: string;
  readonly dpop_signing_alg_values_supported?: readonly string[];
  readonly dpop_bound_access_tokens_required?: true;
}

export function protectedResourceMetadata(
  { issuer, resource, scopes, dpopAlgorithms, dpopRequired }: Authority["metadata"],
  resourceName = "Drawbridge",
): ProtectedResourceMetadata {
  return {
    resource,
    authorization_servers: [issuer],
    scopes_supported: scopes,
    bearer_methods_supported: ["header"],
    resource_name: resourceName,
    ...(dpopAlgorithms.length > 0 && { dpop_signing_alg_values_supported: dpopAlgorithms }),
    ...(dpopRequired && { dpop_bound_access_tokens_required: true }),
  };
}

/** Scopes of OpenID Connect that say nothing about the resource. */
const OIDC_SCOPES = new Set(["openid", "offline_access", "profile", "email"]);

/** The scopes that a request names; undefined when it names none of the resource's, and so means all that it may have. */
export function namedScopes(scope: string | undefined): readonly string[] | undefined {
  const named = (scope ?? "").split(" ").filter((name) => name !== "" && !OIDC_SCOPES.has(name));
  return named.length === 0 ? undefined : named;
}

/** `authorization_grant_profiles_supported` (draft-ietf-oauth-identity-assertion-authz-grant). */
const ID_JAG_PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag";

export function takesIdentityAssertions(signIn: SignInSettings): boolean {
  return Object.values(signIn.providers).some(({ identityAssertions }) => identityAssertions);
}

/** What `oidc-provider`'s metadata (RFC 8414 §2) leaves out, or says otherwise than it is here. */
export function correctedMetadata(
  clientAlgorithms: readonly string[],
  signIn: SignInSettings,
  scopes: readonly string[],
) {
  const confidential = ["private_key_jwt", "client_secret_basic", "client_secret_post"];
  return {
    scopes_supported: [...scopes, "openid", "offline_access"],
    response_modes_supported: ["query"],
    revocation_endpoint_auth_methods_supported: ["none", ...confidential],
    revocation_endpoint_auth_signing_alg_values_supported: clientAlgorithms,
    introspection_endpoint_auth_methods_supported: confidential,
    introspection_endpoint_auth_signing_alg_values_supported: clientAlgorithms,
    ...(takesIdentityAssertions(signIn) && { authorization_grant_profiles_supported: [ID_JAG_PROFILE] }),
  };
}
