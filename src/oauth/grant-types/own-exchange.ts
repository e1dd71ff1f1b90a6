/** Token exchange for the gateway itself, without HTTP: tokens for upstreams, remembered while they are good. */
import type { Authenticated } from "../../core/call.ts";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { Secret } from "../../core/secret.ts";
import type { Authority, ExchangedToken, ExchangeTarget } from "../authority.ts";
import { allScopesOf, type Resources } from "../resources.ts";
import type { Issued, Tokens } from "../tokens/issue.ts";
import { delegate, type Refusal } from "./delegation.ts";

export type OwnExchange = Pick<Authority, "exchange" | "ownToken">;

export interface OwnExchangeOptions {
  readonly tokens: Tokens;
  readonly resources: Resources;
  /** What the gateway is called as an actor and as a client: its issuer. */
  readonly actor: string;
  /** Whenever anything was ended anywhere: what is remembered is looked up again before it is given out. */
  readonly onEnded: (listener: () => void) => void;
  readonly maxRemembered?: number;
  readonly clock?: Clock;
}

interface Remembered {
  readonly token: Promise<ExchangedToken>;
  /** The new token, once there is one, and its id. */
  given: Secret | undefined;
  id: string | undefined;
  /** How many ends had been heard of when it was made or looked up. */
  ends: number;
  /** When it is not given out any more. */
  until: number;
  /** Whose it is; undefined: our own. */
  readonly by: Authenticated | undefined;
}

/** A token that is given out is good for so long at least, unless its caller's own is not. */
const SPARE_MS = 30_000;

export function ownExchange(options: OwnExchangeOptions): OwnExchange {
  const { tokens, resources, actor, onEnded, maxRemembered = 10_000, clock = systemClock } = options;
  const remembered = new Map<string, Remembered>();
  let ends = 0;
  onEnded(() => {
    ends++;
  });

  /** The token, and the caller's own, are still in the store. Both are gone when grant, user or client have ended. */
  async function stands(entry: Remembered): Promise<boolean> {
    const endsBefore = ends;
    if (entry.ends === endsBefore) return true;
    const ids = [entry.id, ...(entry.by === undefined ? [] : [entry.by.tokenId])];
    const rows = await Promise.all(ids.map((id) => (id === undefined ? undefined : tokens.find(id))));
    if (rows.includes(undefined)) return false;
    entry.ends = endsBefore;
    return true;
  }

  async function once(
    key: string,
    by: Authenticated | undefined,
    make: () => Promise<Issued | Refusal>,
    signal: AbortSignal,
    refused: Secret | undefined,
  ): Promise<ExchangedToken> {
    // Of those that were turned away with one token, the first makes a new one.
    if (refused !== undefined && remembered.get(key)?.given === refused) remembered.delete(key);
    const known = remembered.get(key);
    if (known !== undefined && known.until > clock() && (await stands(known))) return abortable(known.token, signal);
    signal.throwIfAborted();
    // Of those that waited for the store above, the first makes a new one.
    const newer = remembered.get(key);
    if (newer !== undefined && newer !== known) return abortable(newer.token, signal);
    const making = make();
    const entry: Remembered = {
      by,
      given: undefined,
      id: undefined,
      ends,
      until: Number.POSITIVE_INFINITY,
      token: making.then(tokenOf),
    };
    entry.token.then(
      ({ token }) => {
        entry.given = token;
      },
      () => {}, // Told to those that wait for it.
    );
    making.then(
      (made) => {
        if ("refused" in made) return forgetEntry(key, entry);
        entry.id = made.id;
        // As good as its caller's own token: there is no better one to be had.
        entry.until = made.expiresAt - (made.expiresAt === by?.expiresAt ? 1_000 : SPARE_MS);
      },
      // The next call tries again; those that waited hear of the failure.
      () => forgetEntry(key, entry),
    );
    remembered.delete(key);
    remembered.set(key, entry);
    if (remembered.size > maxRemembered) remembered.delete(remembered.keys().next().value ?? "");
    return abortable(entry.token, signal);
  }

  function forgetEntry(key: string, entry: Remembered): void {
    if (remembered.get(key) === entry) remembered.delete(key);
  }

  function known({ audience, scopes }: ExchangeTarget): ExchangeTarget {
    const canonical = resources.canonical(audience);
    if (canonical !== resources.own) return { audience: canonical, scopes };
    throw new DrawbridgeError("settings_invalid", `An upstream may not have the gateway's own identifier ${audience}.`);
  }

  return {
    async exchange(by, given, signal, refused) {
      const target = known(given);
      const key = JSON.stringify([by.tokenId, target.audience, target.scopes ?? null]);
      const order = { from: by.tokenId, actor, target, scopes: undefined, jkt: undefined, source: undefined };
      return once(key, by, () => delegate(tokens, order, clock), signal, refused);
    },
    async ownToken(given, signal, refused) {
      const target = known(given);
      const scopes = allScopesOf(target.scopes);
      const order = { user: undefined, client: actor, audience: target.audience, scopes, means: "own" } as const;
      return once(
        JSON.stringify([null, target.audience, scopes]),
        undefined,
        () => tokens.issue(order),
        signal,
        refused,
      );
    },
  };
}

function tokenOf(made: Issued | Refusal): ExchangedToken {
  if (!("refused" in made)) return { token: new Secret(made.token), expiresAt: made.expiresAt };
  const { refused, reason } = made;
  if (refused === "ended")
    throw new DrawbridgeError("unauthenticated", "The access token is not valid, or no longer. Sign in again.", {
      detail: reason,
    });
  throw new DrawbridgeError("insufficient_scope", "This token allows nothing at the server behind the gateway.", {
    detail: reason,
  });
}

/** Waits no longer than the caller does; what is under way goes on for the others. */
async function abortable<T>(shared: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([shared, aborted]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
