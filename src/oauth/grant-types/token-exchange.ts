/** Token exchange over HTTP (RFC 8693): an API that was called with a token asks for one with which it may call the next. */
import type Provider from "oidc-provider";
import { errors } from "oidc-provider";
import type { Clock } from "../../core/clock.ts";
import { sourceOf } from "../refusals.ts";
import type { Resources } from "../resources.ts";
import type { Tokens } from "../tokens/issue.ts";
import { delegate } from "./delegation.ts";
import type { CheckProof } from "./proof.ts";

export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token";
const PARAMETERS = [
  "subject_token",
  "subject_token_type",
  "actor_token",
  "actor_token_type",
  "requested_token_type",
  "audience",
  "resource",
  "scope",
] as const;

type Parameters = Partial<Record<(typeof PARAMETERS)[number], string>>;

export interface TokenExchangeOptions {
  readonly tokens: Tokens;
  readonly resources: Resources;
  readonly checkProof: CheckProof;
  readonly clock: Clock;
}

export function registerTokenExchange(
  provider: Provider,
  { tokens, resources, checkProof, clock }: TokenExchangeOptions,
): void {
  provider.registerGrantType<Parameters>(
    TOKEN_EXCHANGE,
    async (ctx) => {
      const { client, params } = ctx.oidc;
      if (client.clientAuthMethod === "none")
        throw new errors.UnauthorizedClient("Only a client that authenticates exchanges tokens.");
      checkTypes(params);
      const audience = audienceOf(params, resources);
      const target = resources.target(client.clientId, audience);
      if (target === undefined)
        throw new errors.InvalidTarget(`This client may not exchange tokens for ${audience.slice(0, 200)}.`);

      const jkt = await checkProof(ctx);
      // RFC 8693 §2.2.2: a subject token that cannot be taken is an invalid_request.
      const from = await tokens.identify(params.subject_token ?? "");
      const row = from === undefined ? undefined : await tokens.find(from);
      if (from === undefined || row === undefined)
        throw new errors.InvalidRequest("The subject token is not a valid access token of this server.");
      // Whoever else came by the token, its thief or its client, gets nothing for it. It is the API it was sent to that hands on,
      // and which has seen the proof when there was a key to prove.
      if (!resources.owns(client.clientId, row.aud))
        throw new errors.InvalidRequest(
          "The subject token was not made for this client: only the API it is for may exchange it.",
        );

      const made = await delegate(
        tokens,
        {
          from,
          actor: client.clientId,
          target,
          scopes: params.scope?.split(" "),
          jkt,
          source: sourceOf(ctx).source,
        },
        clock,
      );
      if ("refused" in made) {
        if (made.refused === "scope") throw new errors.InvalidScope(made.reason, params.scope ?? "");
        throw new errors.InvalidRequest(made.reason);
      }
      ctx.body = {
        access_token: made.token,
        issued_token_type: ACCESS_TOKEN,
        token_type: jkt === undefined ? "Bearer" : "DPoP",
        expires_in: made.expiresInSeconds,
        ...(made.scopes.length === 0 ? {} : { scope: made.scopes.join(" ") }),
      };
    },
    PARAMETERS,
    ["audience", "resource"],
  );
}

function checkTypes(params: Parameters): void {
  if (params.subject_token === undefined) throw new errors.InvalidRequest("There is no subject_token.");
  if (params.subject_token_type !== ACCESS_TOKEN)
    throw new errors.InvalidRequest(`The only subject_token_type here is ${ACCESS_TOKEN}.`);
  if (params.requested_token_type !== undefined && params.requested_token_type !== ACCESS_TOKEN)
    throw new errors.InvalidRequest(`The only requested_token_type here is ${ACCESS_TOKEN}.`);
  if (params.actor_token !== undefined || params.actor_token_type !== undefined)
    throw new errors.InvalidRequest("actor_token is not accepted: who acts is the client that authenticates.");
}

/** RFC 8693 §2.1: the target by its URL, by its name, or both ways; here they are the same thing. */
function audienceOf({ resource, audience }: { resource?: unknown; audience?: unknown }, resources: Resources): string {
  const named = [resource, audience].flat().filter((name) => typeof name === "string");
  const [first, ...others] = new Set(named.map((name) => resources.canonical(name)));
  if (first === undefined) throw new errors.InvalidTarget("Name the API that the token is for: resource or audience.");
  if (others.length > 0) throw new errors.InvalidTarget("A token is for one API. Ask for each on its own.");
  return first;
}
