/** OpenID Connect providers that people sign in with: asking one (OIDC Core §3.1, with PKCE), and believing its answer or not. */
import {
  AuthorizationResponseError,
  allowInsecureRequests,
  authorizationCodeGrant,
  buildAuthorizationUrl,
  ClientError,
  ClientSecretBasic,
  ClientSecretPost,
  type Configuration,
  calculatePKCECodeChallenge,
  customFetch,
  discovery,
  enableNonRepudiationChecks,
  fetchUserInfo,
  None,
  ResponseBodyError,
} from "openid-client";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { newToken } from "../../core/ids.ts";
import type { Trusted } from "../../net/trusted.ts";
import type { Place } from "../http.ts";
import type { SignInProvider } from "../settings.ts";
import { type Admission, admitted, type Claims, incomplete } from "./claims.ts";

export interface Provider {
  readonly name: string;
  /** What people know it by. */
  readonly label: string;
  /** Where to send the browser, and what must be kept until it comes back. */
  ask(question: Question): Promise<Asked>;
  /** Who came back. `answer` is the query of the callback. */
  answered(answer: URLSearchParams, kept: Kept): Promise<Answered>;
}

export interface Question {
  readonly hint: string | undefined;
  /** The person must prove who they are again, whoever the provider thinks they are. */
  readonly anew: boolean;
}

/** Secret: whoever has it and the code can sign in. */
export interface Kept {
  readonly state: string;
  readonly nonce: string;
  readonly verifier: string;
  readonly anew: boolean;
  readonly askedAt: number;
}

export type Asked =
  | { readonly ok: true; readonly url: URL; readonly kept: Kept }
  | { readonly ok: false; readonly reason: "provider-unavailable"; readonly detail: string };

export type Answered =
  | Admission
  | {
      readonly ok: false;
      readonly name: "";
      readonly reason: "provider-unavailable" | "provider-refused" | "answer-not-believed";
      readonly message: string;
      /** For the log only. */
      readonly detail: string;
    };

export interface ProvidersOptions {
  readonly settings: Readonly<Record<string, SignInProvider>>;
  readonly place: Pick<Place, "issuer">;
  readonly net: Trusted;
  readonly clock?: Clock;
}

/** By name, in the order of the settings. None is asked anything before somebody signs in there. */
export function providers({
  settings,
  place,
  net,
  clock = systemClock,
}: ProvidersOptions): ReadonlyMap<string, Provider> {
  const made = Object.entries(settings).map(([name, one]) => provider(name, one, place, net, clock));
  return new Map(made.map((each) => [each.name, each]));
}

const CONFIGURATION_MS = 3_600_000;
/** Between the provider's clock and ours. */
const SKEW_SECONDS = 60;

function provider(
  name: string,
  settings: SignInProvider,
  place: Pick<Place, "issuer">,
  net: Trusted,
  clock: Clock,
): Provider {
  const { label = name } = settings;
  const callback = `${place.issuer}/sign-in/callback/${name}`;
  let known: { readonly configuration: Configuration; readonly at: number } | undefined;
  let loading: Promise<Configuration> | undefined;

  /** Read again each hour; while the provider is down, what it said last is used. */
  async function configuration(): Promise<Configuration> {
    if (known !== undefined && clock() - known.at < CONFIGURATION_MS) return known.configuration;
    loading ??= discovered(settings, net).finally(() => {
      loading = undefined;
    });
    try {
      known = { configuration: await loading, at: clock() };
    } catch (thrown) {
      if (known === undefined) throw thrown;
    }
    return known.configuration;
  }

  return {
    name,
    label,
    async ask({ hint, anew }) {
      const kept = { state: newToken(), nonce: newToken(), verifier: newToken(), anew, askedAt: clock() };
      try {
        const url = buildAuthorizationUrl(await configuration(), {
          redirect_uri: callback,
          scope: [...new Set(["openid", ...settings.scopes])].join(" "),
          state: kept.state,
          nonce: kept.nonce,
          code_challenge: await calculatePKCECodeChallenge(kept.verifier),
          code_challenge_method: "S256",
          ...(settings.responseMode === "form_post" && { response_mode: "form_post" }),
          ...(anew && { prompt: "login" }),
          ...(hint !== undefined && { login_hint: hint }),
        });
        return { ok: true, url, kept };
      } catch (thrown) {
        return { ok: false, reason: "provider-unavailable", detail: told(thrown) };
      }
    },
    async answered(answer, { state, nonce, verifier, anew, askedAt }) {
      try {
        const configured = await configuration();
        const tokens = await authorizationCodeGrant(configured, new URL(`${callback}?${answer}`), {
          expectedState: state,
          expectedNonce: nonce,
          pkceCodeVerifier: verifier,
          idTokenExpected: true,
        });
        const claims: Claims = tokens.claims() ?? {};
        const { sub, auth_time: authenticatedAt } = claims;
        // A provider that answers out of an old session although it was told to ask.
        if (anew && typeof authenticatedAt === "number" && authenticatedAt + SKEW_SECONDS < askedAt / 1000) {
          return disbelieved(`the person was last asked at ${authenticatedAt}, and should have been since ${askedAt}`);
        }
        const asks = incomplete(claims, settings) && configured.serverMetadata().userinfo_endpoint !== undefined;
        const userinfo = asks ? await fetchUserInfo(configured, tokens.access_token, String(sub)) : {};
        return admitted(name, settings, claims, userinfo);
      } catch (thrown) {
        return explained(thrown);
      }
    },
  };

  function explained(thrown: unknown): Answered {
    const detail = told(thrown);
    if (thrown instanceof AuthorizationResponseError || thrown instanceof ResponseBodyError) {
      const code = thrown.error.replace(/[^\w.-]/g, "").slice(0, 60);
      const message =
        code === "access_denied"
          ? `${label} says that the sign-in was cancelled or not allowed.`
          : `${label} could not sign you in (${code}). If this goes on, tell whoever runs this gateway.`;
      return { ok: false, name: "", reason: "provider-refused", message, detail };
    }
    if (!unavailable(thrown)) return disbelieved(detail);
    const message = `${label} does not answer at the moment. Try again shortly.`;
    return { ok: false, name: "", reason: "provider-unavailable", message, detail };
  }

  function disbelieved(detail: string): Answered {
    const message = `The answer of ${label} cannot be trusted: it is not the one to this sign-in, or is wrongly made. Start again; if this goes on, tell whoever runs this gateway.`;
    return { ok: false, name: "", reason: "answer-not-believed", message, detail };
  }
}

async function discovered(settings: SignInProvider, net: Trusted): Promise<Configuration> {
  const { issuer, clientId, clientSecret } = settings;
  const insecure = new URL(issuer).protocol === "http:";
  const found = await discovery(new URL(issuer), clientId, undefined, authentication, {
    [customFetch]: (url, init) => net.fetch(url, init as RequestInit),
    // The signature of the ID token is checked although it comes over TLS (OIDC Core §3.1.3.7 number 6 would let us trust that).
    execute: insecure ? [enableNonRepudiationChecks, allowInsecureRequests] : [enableNonRepudiationChecks],
  });
  const metadata = found.serverMetadata();
  // A template such as Entra's `{tenantid}` stands for everybody's tenant.
  if (new URL(metadata.issuer).href !== new URL(issuer).href) {
    throw new DrawbridgeError("outbound_refused", `The metadata of ${issuer} is about another issuer.`);
  }
  return found;

  /** RFC 8414 §2: without a list, it is client_secret_basic. */
  function authentication(...[server, client, body, headers]: Parameters<ReturnType<typeof None>>): void {
    const ways = server.token_endpoint_auth_methods_supported ?? ["client_secret_basic"];
    const secret = clientSecret?.reveal();
    const way =
      secret === undefined
        ? None()
        : ways.includes("client_secret_basic") || !ways.includes("client_secret_post")
          ? ClientSecretBasic(secret)
          : ClientSecretPost(secret);
    way(server, client, body, headers);
  }
}

/** No connection, no answer in time, or one that says that it is broken. Anything else is an answer that is wrong. */
function unavailable(thrown: unknown): boolean {
  for (let error = thrown; error instanceof Error; error = error.cause) {
    if (error instanceof DrawbridgeError) return ["upstream_unavailable", "upstream_timeout"].includes(error.code);
    if (error instanceof ClientError && ["OAUTH_TIMEOUT", "OAUTH_ABORT"].includes(error.code ?? "")) return true;
    if (error.cause instanceof Response) return error.cause.status >= 500;
  }
  return false;
}

/** Messages and error codes down to the cause, and nothing that could be a code or a token. */
function told(thrown: unknown): string {
  const parts: string[] = [];
  for (let error = thrown; error instanceof Error && parts.length < 4; error = error.cause) {
    const { error: code } = error as { readonly error?: unknown };
    parts.push(typeof code === "string" ? `${error.message} (${code.slice(0, 100)})` : error.message);
  }
  return parts.join(": ") || "unknown";
}
