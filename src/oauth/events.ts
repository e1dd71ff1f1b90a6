/** What happens in the authorization server that somebody may later ask about: one row per kind of event. */

interface About {
  /** The person's stable id (`sub`). */
  readonly user?: string;
  readonly client?: string;
  readonly grant?: string;
  /** Network address of the browser or client. */
  readonly source?: string;
}

export type OAuthEvent = About &
  (
    | { readonly type: "user-created"; readonly name: string; readonly groups: readonly string[] }
    | { readonly type: "signed-in"; readonly name: string }
    | { readonly type: "sign-in-failed"; readonly name: string; readonly reason: "wrong-credentials" | "throttled" }
    | { readonly type: "signed-out" }
    | { readonly type: "password-changed" }
    | { readonly type: "client-registered"; readonly name: string; readonly redirectUris: readonly string[] }
    | { readonly type: "client-refused"; readonly reason: string }
    | {
        readonly type: "consent-granted";
        readonly scopes: readonly string[];
        readonly refused: readonly string[];
        readonly asked: boolean;
      }
    | { readonly type: "consent-denied" }
    | { readonly type: "token-issued" | "token-refreshed"; readonly token: string; readonly scopes: readonly string[] }
    | { readonly type: "token-refused"; readonly error: string; readonly reason: string }
    | {
        readonly type: "revoked";
        readonly what: "token" | "grant" | "client-of-user" | "user" | "client";
        readonly token?: string;
      }
  );

/**
 * Records an event. Where something is granted it is awaited before the grant is answered, and a rejection refuses the
 * grant: nothing is given that is not recorded.
 */
export type Report = (event: OAuthEvent) => Promise<void>;
