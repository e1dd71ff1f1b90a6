/** What is kept of an access token. The token itself is not stored; a row under its `jti` is what can be revoked and introspected. */
import type { Adapter, KoaContextWithOIDC } from "oidc-provider";
import { type Clock, systemClock } from "../core/clock.ts";
import type { Report } from "./events.ts";
import { sourceOf } from "./refusals.ts";
import type { Registration } from "./registration.ts";

export interface IssuedOptions {
  readonly adapter: (model: string) => Adapter;
  readonly registration: Registration;
  readonly report: Report;
  readonly clock?: Clock;
}

interface Token {
  readonly kind?: string;
  readonly clientId?: string;
  readonly accountId?: string;
  readonly grantId?: string;
  readonly scope?: string;
  readonly aud?: string;
  readonly gty?: string;
}

/** A customizer of the `jwt` format that writes the row and reports the event; when either fails, no token is given. */
export function recordIssued({ adapter, registration, report, clock = systemClock }: IssuedOptions) {
  return async (ctx: KoaContextWithOIDC, token: unknown, jwt: { readonly payload: object }): Promise<undefined> => {
    const { jti, exp = 0, iat = 0 } = jwt.payload as { jti: string; exp?: number; iat?: number };
    const { kind, clientId = "", accountId, grantId, scope = "", aud, gty } = token as Token;
    const row = { jti, iat, exp, kind, clientId, accountId, grantId, gty, aud, scope };
    await adapter("AccessToken").upsert(jti, row, exp - Math.floor(clock() / 1000));
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
  };
}
