/** Consents that need not be asked for again, and when they must be. */
import { hash } from "node:crypto";
import type Provider from "oidc-provider";
import type { KoaContextWithOIDC } from "oidc-provider";
import { type Clock, systemClock } from "../../core/clock.ts";
import { newToken } from "../../core/ids.ts";
import { displayName } from "../clients/clients.ts";
import type { Report } from "../events.ts";
import type { Place } from "../http.ts";
import type { OfferedScopes } from "../metadata.ts";
import { sourceOf } from "../refusals.ts";
import type { Consent, Grants } from "./grants.ts";

export interface RememberedOptions {
  readonly place: Place;
  readonly grants: Grants;
  readonly scopes: OfferedScopes;
  readonly report: Report;
  readonly clock?: Clock;
}

/** The grant for an authorization request: the one just consented to, or a new one from a remembered consent. */
export async function rememberedGrant(
  provider: Provider,
  { place, grants, scopes, report, clock = systemClock }: RememberedOptions,
  ctx: KoaContextWithOIDC,
) {
  const { client, session, result, params } = ctx.oidc;
  const answered = result?.consent?.grantId;
  if (answered !== undefined) return provider.Grant.find(answered);
  const user = session?.accountId;
  // In the middle of an interaction a person is there: they are asked, so that nobody signs in and finds all allowed.
  if (client === undefined || user === undefined || result !== undefined) return undefined;
  // A client that has the person asked, or signed in anew, is not answered from what is remembered.
  const prompts = String(params?.["prompt"] ?? "").split(" ");
  if (prompts.some((prompt) => prompt !== "" && prompt !== "none")) return undefined;
  // Anything on the user's machine can pose as a native client; another site can send a browser here unseen.
  const site = ctx.get("sec-fetch-site");
  if (client.applicationType === "native" || (site !== "none" && site !== "same-origin")) return undefined;
  const consent = await grants.consents.find(user, client.clientId);
  if (consent === undefined || changesSince(consent, factsOf(client)).length > 0) return undefined;
  const requested = new Set(String(params?.["scope"] ?? "").split(" "));
  // Both were on the page that was answered.
  if (!consent.answersTo.includes(String(params?.["redirect_uri"]))) return undefined;
  if (!scopes.all().every((scope) => !requested.has(scope) || consent.scopes.includes(scope))) return undefined;
  const remaining = Math.floor((consent.until - clock()) / 1000);
  if (remaining <= 0) return undefined;
  const grant = new provider.Grant({ accountId: user, clientId: client.clientId });
  grant.addResourceScope(place.resource, consent.scopes.join(" "));
  grant.addOIDCScope("openid offline_access");
  grant.jti = newToken();
  await report({
    type: "consent-granted",
    asked: false,
    user,
    client: client.clientId,
    grant: grant.jti,
    scopes: consent.scopes,
    refused: [],
    ...sourceOf(ctx),
  });
  await (grant as Saveable).save(remaining);
  // What ends a consent ends the grants that are there. This one may have come a moment too late for that.
  if ((await grants.consents.find(user, client.clientId)) !== undefined) return grant;
  await grants.end(grant.jti, { user, client: client.clientId });
  return undefined;
}

/** What of a client a person relies on when they let it in. */
export type ClientFacts = Pick<Consent, "clientName" | "redirectUris" | "keys">;

export function factsOf(client: {
  readonly clientId: string;
  readonly clientName?: string | undefined;
  readonly redirectUris?: readonly string[] | undefined;
}): ClientFacts {
  const { jwks, jwksUri } = client as { jwks?: unknown; jwksUri?: string };
  return {
    clientName: displayName(client.clientName) || displayName(client.clientId),
    redirectUris: [...(client.redirectUris ?? [])].sort(),
    keys: jwks === undefined ? jwksUri : hash("sha256", JSON.stringify(jwks), "base64url"),
  };
}

export type Change =
  | { readonly what: "name"; readonly before: string }
  | { readonly what: "redirects"; readonly added: readonly string[]; readonly removed: readonly string[] }
  | { readonly what: "keys" };

/** What differs from what a person saw when they consented. Nothing: the consent still stands. */
export function changesSince(before: ClientFacts, now: ClientFacts): readonly Change[] {
  const changes: Change[] = [];
  if (before.clientName !== now.clientName) changes.push({ what: "name", before: before.clientName });
  const [old, present] = [new Set(before.redirectUris), new Set(now.redirectUris)];
  const added = [...present].filter((uri) => !old.has(uri));
  const removed = [...old].filter((uri) => !present.has(uri));
  if (added.length > 0 || removed.length > 0) changes.push({ what: "redirects", added, removed });
  if (before.keys !== now.keys) changes.push({ what: "keys" });
  return changes;
}

/** Newer than its type definitions: how long a grant lives may be given. */
interface Saveable {
  save(ttlSeconds: number): Promise<string>;
}
