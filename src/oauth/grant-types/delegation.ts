/**
 * Token exchange (RFC 8693), whichever way it is asked for: who called an API is handed on to another one, in a token that says who
 * acts, can do no more, and ends no later.
 */
import { type Clock, systemClock } from "../../core/clock.ts";
import type { ExchangeTarget } from "../authority.ts";
import { scopesFor } from "../resources.ts";
import { type Act, actorsOf, type Issued, type TokenRow, type Tokens } from "../tokens/issue.ts";

export interface Delegation {
  /** `jti` of the token that the actor was called with: one whose signature was checked. */
  readonly from: string;
  /** Who hands on: the audience of that token. */
  readonly actor: string;
  readonly target: ExchangeTarget;
  /** Scopes asked for; undefined: all there are. */
  readonly scopes: readonly string[] | undefined;
  /** The key that the new token is bound to. */
  readonly jkt: string | undefined;
  readonly source: string | undefined;
}

/** `ended`: the token does not stand any more. `scope`: nothing is left that it may do, or less than was asked for. */
export type Refusal = { readonly refused: "ended" | "scope" | "too-deep"; readonly reason: string };

/** Actors in a row: what an API hands on to the next. More is a circle, or nobody's intention. */
const MAX_ACTORS = 5;

/**
 * Makes the exchanged token, or says why there is none. That `actor` may do this, for this `target`, is what the caller has checked.
 */
export async function delegate(
  tokens: Tokens,
  { from, actor, target, scopes: asked, jkt, source }: Delegation,
  clock: Clock = systemClock,
): Promise<Issued | Refusal> {
  const row = await tokens.find(from);
  if (row === undefined) return { refused: "ended", reason: "The subject token was revoked or has expired." };
  const fallen = await tokens.fallen(row);
  if (fallen !== undefined)
    return { refused: "ended", reason: `The subject token does not stand any more: ${fallen}.` };
  // Made now, it would end before anybody could use it.
  if (row.exp * 1000 - clock() < 1_000) return { refused: "ended", reason: "The subject token is about to expire." };

  const before = row.extra?.act;
  if (actorsOf(before).length >= MAX_ACTORS)
    return { refused: "too-deep", reason: `More than ${MAX_ACTORS} actors in a row are not accepted.` };

  const scopes = scopesOf(row, target, asked);
  if (typeof scopes === "string") return { refused: "scope", reason: scopes };
  const act: Act = { sub: actor, ...(before === undefined ? {} : { act: before }) };
  return tokens.issue({
    user: row.accountId,
    subject: row.extra?.sub,
    client: actor,
    audience: target.audience,
    scopes,
    means: "token-exchange",
    notAfter: row.exp * 1000,
    jkt,
    exchanged: { act, from, origin: row.origin ?? { token: from, client: row.clientId, grant: row.grantId } },
    source,
  });
}

/** The scopes of the new token, or why there are none. An API may be one without scopes: its settings say so with an empty list. */
function scopesOf(row: TokenRow, { scopes, audience }: ExchangeTarget, asked: readonly string[] | undefined) {
  const allowed = scopesFor(scopes, row.scope.split(" ").filter(Boolean));
  const beyond = asked?.filter((scope) => !allowed.includes(scope)) ?? [];
  if (beyond.length > 0) return `The subject token does not allow ${beyond.join(" ")} at ${audience}.`;
  const none = Array.isArray(scopes) && scopes.length === 0;
  if (allowed.length === 0 && !none) return `The subject token allows nothing at ${audience}.`;
  return allowed.filter((scope) => asked?.includes(scope) ?? true);
}
