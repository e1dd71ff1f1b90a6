/** What the gateway asks of whoever issues its tokens: the embedded authorization server, or another one. */
import type { Authenticated } from "../core/call.ts";
import type { Secret } from "../core/secret.ts";

/** The proof that comes with a token that is bound to a key (RFC 9449 §4). */
export interface Proof {
  /** The value of the one `DPoP` header. */
  readonly jwt: string;
  /** HTTP method of the request. */
  readonly method: string;
  /** Where it was sent, by the configured public URL. Default: the protected resource. */
  readonly url?: string;
}

/** An API that a token is wanted for. */
export interface ExchangeTarget {
  /** RFC 8707 resource identifier. */
  readonly audience: string;
  /** The API's scopes: a list, or for each of ours those it stands for there. Undefined: the same names. */
  readonly scopes: readonly string[] | Readonly<Record<string, readonly string[]>> | undefined;
}

export interface ExchangedToken {
  readonly token: Secret;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

export interface Authority {
  /**
   * Who a token speaks for: signature, type, issuer, audience, age, and that it was not revoked. A token that is bound to a key
   * needs its `proof`; a proof of a token that is not bound is refused. Answers at once for a token it saw lately, else with a
   * promise. Throws or rejects with `unauthenticated`.
   */
  verify(token: string, proof?: Proof): Authenticated | Promise<Authenticated>;
  /**
   * A token for `target` that acts for `by` (RFC 8693 §1.1, delegation: `act` names us, then who acted before), with no more
   * than `by` may do and no longer than it may. Remembered until shortly before it ends. Rejects with `unauthenticated` when
   * the caller's grant has ended, `insufficient_scope` when no scope is left, `upstream_unavailable` when nobody can say.
   * `refused` is a token that the API has just turned away: it is forgotten, and another one is made.
   */
  exchange(
    by: Authenticated,
    target: ExchangeTarget,
    signal: AbortSignal,
    refused?: Secret | undefined,
  ): Promise<ExchangedToken>;
  /** A token of our own for `target`, for what is asked on nobody's behalf: who it is, and what it lists. */
  ownToken(target: ExchangeTarget, signal: AbortSignal, refused?: Secret | undefined): Promise<ExchangedToken>;
  /** True while what `verify` was told about still stands: not revoked, its user and client not disabled. */
  stands(by: Authenticated): Promise<boolean>;
  /** The same as it is now, with the groups and claims that its user has by now; undefined when it does not stand any more. */
  current(by: Authenticated): Promise<Authenticated | undefined>;
  /** Called when anything was ended, or what users are changed, here or in another replica: open streams of whoever lost their access must close. */
  onEnded(listener: () => void): void;
  readonly metadata: {
    readonly issuer: string;
    /** RFC 8707 identifier of our MCP endpoint. */
    readonly resource: string;
    /** Our names of all scopes that a token may have here: those, and what some calls need beside them. */
    readonly offered: () => readonly string[];
    /** What a client asks its issuer for, as long as no call needs more. */
    readonly scopes: readonly string[];
    /** What the issuer calls our scopes, where it calls them otherwise. */
    readonly scopeNames: Readonly<Record<string, string | undefined>>;
    /** Signature algorithms for DPoP proofs (RFC 9449 §5.1); empty: tokens bound to keys are not accepted. */
    readonly dpopAlgorithms: readonly string[];
    /** True when nothing but tokens bound to keys is accepted. */
    readonly dpopRequired: boolean;
  };
  close(): Promise<void>;
}
