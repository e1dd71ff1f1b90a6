/** What happens in the authorization server that somebody may later ask about: one row per kind of event. */

interface About {
  /** The person's stable id (`sub`). */
  readonly user?: string;
  readonly client?: string;
  readonly grant?: string;
  /** Network address of the browser or client. */
  readonly source?: string;
  /** How many more of the kind came from there since the last record of one: refusals are not recorded one by one for ever. */
  readonly unrecorded?: number;
  /** Who did it, when it was done to them from outside: at the command line or the admin API. */
  readonly operator?: string;
}

/** Why somebody who came back from an identity provider was not signed in. */
export type ProviderFailure =
  | "provider-unavailable"
  | "provider-refused"
  | "answer-not-believed"
  | "other-browser"
  | "other-provider"
  | "other-session"
  | "no-subject"
  | "too-many-groups"
  | "not-in-group"
  | "email-not-allowed"
  | "disabled";

export type OAuthEvent = About &
  (
    | { readonly type: "user-created"; readonly name: string; readonly groups: readonly string[] }
    | { readonly type: "signed-in"; readonly name: string; readonly provider?: string }
    | {
        readonly type: "sign-in-failed";
        /** Empty: nobody was named. */
        readonly name: string;
        readonly provider?: string;
        readonly reason: "wrong-credentials" | "throttled" | ProviderFailure;
      }
    | { readonly type: "signed-out" }
    | { readonly type: "sessions-ended"; readonly count: number }
    | { readonly type: "password-changed" }
    | {
        readonly type: "client-registered" | "client-changed";
        readonly name: string;
        readonly redirectUris: readonly string[];
      }
    | { readonly type: "client-refused"; readonly reason: string }
    | {
        readonly type: "consent-granted";
        readonly scopes: readonly string[];
        readonly refused: readonly string[];
        readonly asked: boolean;
      }
    | { readonly type: "consent-denied" }
    | {
        readonly type: "token-issued" | "token-refreshed";
        readonly token: string;
        readonly scopes: readonly string[];
        readonly audience: string;
        /** How a client came to it without a person at a browser. */
        readonly means?: string;
      }
    | {
        /** `client` got a token that acts for `subject` at `audience`, for one that it was called with. */
        readonly type: "token-exchanged";
        readonly token: string;
        readonly scopes: readonly string[];
        readonly audience: string;
        /** On whose behalf: `user`, or a client that acts for itself. */
        readonly subject: string;
        /** Who acts, nearest first. */
        readonly actors: readonly string[];
        /** The token that it was exchanged for. */
        readonly from: string;
        /** The client that the first token was given to. */
        readonly origin: string;
      }
    | { readonly type: "token-refused"; readonly error: string; readonly reason: string }
    | {
        readonly type: "user-changed";
        readonly name: string;
        readonly change: "invited" | "groups" | "password" | "disabled" | "enabled" | "removed";
        readonly groups?: readonly string[];
      }
    | { readonly type: "client-administered"; readonly change: "disabled" | "enabled" | "removed" }
    | { readonly type: "initial-access-changed"; readonly change: "made" | "revoked"; readonly note: string }
    | { readonly type: "keys-changed"; readonly change: "rotated" | "revoked"; readonly key?: string }
    | {
        readonly type: "server-connected";
        readonly server: string;
        readonly issuer: string;
        readonly scopes: readonly string[];
        /** The operator's connection, which all calls to the server carry. */
        readonly ofAll: boolean;
      }
    | { readonly type: "server-connection-refused"; readonly server: string; readonly reason: string }
    | {
        readonly type: "server-disconnected";
        readonly server: string;
        /** `refused`: its authorization server takes it no more. */
        readonly why: "asked" | "user-gone" | "refused";
      }
    | {
        readonly type: "revoked";
        readonly what: "token" | "grant" | "client-of-user" | "user" | "client";
        readonly token?: string;
      }
  );

/** A user has lost all access. What is kept for them alone is worth nothing any more. */
export function endsAccess(event: OAuthEvent): event is OAuthEvent & { readonly user: string } {
  if (event.user === undefined) return false;
  if (event.type === "revoked") return event.what === "user";
  return event.type === "user-changed" && (event.change === "disabled" || event.change === "removed");
}

/**
 * Records an event. Where something is granted it is awaited before the grant is answered, and a rejection refuses the
 * grant: nothing is given that is not recorded.
 */
export type Report = (event: OAuthEvent) => Promise<void>;
