/** Consents that need not be asked for again, and when they must be. */
import type Provider from "oidc-provider";
import type { KoaContextWithOIDC } from "oidc-provider";
import { type Clock, systemClock } from "../core/clock.ts";
import type { Report } from "./events.ts";
import { fingerprintOf, type Grants } from "./grants.ts";
import type { Place } from "./http.ts";
import { ALL_SCOPES } from "./metadata.ts";
import { sourceOf } from "./refusals.ts";

export interface RememberedOptions {
  readonly place: Place;
  readonly grants: Grants;
  readonly report: Report;
  readonly clock?: Clock;
}

/** The grant for an authorization request: the one just consented to, or a new one from a remembered consent. */
export async function rememberedGrant(
  provider: Provider,
  { place, grants, report, clock = systemClock }: RememberedOptions,
  ctx: KoaContextWithOIDC,
) {
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
