/** Clients that nobody has to register: those of the settings file, workloads, and the gateway itself, as `oidc-provider` knows them. */
import type { ClientMetadata } from "oidc-provider";
import { DrawbridgeError } from "../../core/errors.ts";
import { newToken } from "../../core/ids.ts";
import type { CachedDocuments } from "../../net/cached.ts";
import type { Trusted } from "../../net/trusted.ts";
import { TOKEN_EXCHANGE } from "../grant-types/token-exchange.ts";
import { takesIdentityAssertions } from "../metadata.ts";
import type { ClientsSettings, PreregisteredClient, SignInSettings } from "../settings.ts";
import { JWT_BEARER, localRedirect } from "./clients.ts";

export interface PreregisteredOptions {
  /** What the gateway is called as a client. */
  readonly gateway: string;
  readonly clients: ClientsSettings;
  readonly signIn: SignInSettings;
}

export function preregisteredClients({ gateway, clients, signIn }: PreregisteredOptions): ClientMetadata[] {
  const assertions = takesIdentityAssertions(signIn);
  return [
    ...clients.preregistered.map((client) => ({
      client_id: client.id,
      client_name: client.name,
      redirect_uris: [...client.redirectUris],
      application_type: client.redirectUris.some(localRedirect) ? ("native" as const) : ("web" as const),
      grant_types: grantTypesOf(client, assertions),
      response_types: client.redirectUris.length > 0 ? ["code" as const] : [],
      ...authenticationOf(client),
      ...(client.dpop ? { dpop_bound_access_tokens: true } : {}),
    })),
    // Its assertion is the grant, and says who it is.
    ...clients.workloads.map(({ id, name }) => ({
      ...withoutPeople(id, name),
      grant_types: [JWT_BEARER],
      token_endpoint_auth_method: "none" as const,
    })),
    // It gives itself tokens without asking. It is here for whoever looks into one; nobody can pass for it.
    { ...withoutPeople(gateway, "Drawbridge"), grant_types: [], client_secret: newToken() },
  ];
}

/** Key sets of clients: of those in the settings file from where the operator says they are, also on a private network. */
export function clientKeySets(
  { preregistered }: Pick<ClientsSettings, "preregistered">,
  http: Trusted,
  strangers: CachedDocuments,
): CachedDocuments {
  const trusted = new Set(preregistered.map(({ jwksUri }) => jwksUri));
  return {
    async get(url, ...rest) {
      if (!trusted.has(url)) return strangers.get(url, ...rest);
      const answer = await http.fetch(url, { headers: { accept: "application/json" } });
      if (answer.status === 200) return Buffer.from(await answer.arrayBuffer());
      throw new DrawbridgeError("upstream_unavailable", `${url} answered with HTTP ${answer.status}.`);
    },
  };
}

function authenticationOf({ secret, jwks, jwksUri }: PreregisteredClient): Partial<ClientMetadata> {
  if (secret !== undefined)
    return { token_endpoint_auth_method: "client_secret_basic", client_secret: secret.reveal() };
  if (jwks !== undefined) return { token_endpoint_auth_method: "private_key_jwt", jwks: structuredClone(jwks) };
  if (jwksUri !== undefined) return { token_endpoint_auth_method: "private_key_jwt", jwks_uri: jwksUri };
  return { token_endpoint_auth_method: "none" };
}

function grantTypesOf(client: PreregisteredClient, assertions: boolean): string[] {
  const authenticates = authenticationOf(client).token_endpoint_auth_method !== "none";
  return [
    ...(client.redirectUris.length > 0 ? ["authorization_code", "refresh_token"] : []),
    ...(client.service === undefined ? [] : ["client_credentials"]),
    ...(client.mayExchangeFor.length > 0 ? [TOKEN_EXCHANGE] : []),
    ...(assertions && authenticates ? [JWT_BEARER] : []),
  ];
}

function withoutPeople(id: string, name: string): ClientMetadata {
  return { client_id: id, client_name: name, redirect_uris: [], response_types: [] };
}
