/** `credentials` of an upstream: a token for it and the caller from the authority, instead of the caller's own (RFC 8693), or a connected account. */
import type { UpstreamCredential } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { Secret } from "../core/secret.ts";
import type { Authority, ExchangedToken, ExchangeTarget } from "../oauth/authority.ts";
import type { UpstreamCredentials } from "../upstream/open.ts";
import { hasOAuth, type ServerSettings } from "../upstream/settings.ts";
import type { Lending } from "./connection-vault.ts";
import type { Connections } from "./connections.ts";

/** What exchanges; the authorization server's part of it. */
export type Exchanger = Pick<Authority, "exchange" | "ownToken" | "metadata">;

/**
 * The credentials of the server `name`; undefined when its settings ask for none. `authority` is asked for when the first
 * credential is needed: servers are opened before it is there.
 */
export function upstreamCredentials(
  name: string,
  settings: ServerSettings,
  authority: () => Exchanger | undefined,
): UpstreamCredentials | undefined {
  if (settings.credentials === undefined) return undefined;
  if (settings.credentials !== "exchange" && "oauth" in settings.credentials) return undefined;
  const target =
    "url" in settings
      ? exchangeTarget(settings.url, settings.credentials)
      : { scopes: undefined, ...settings.credentials.exchange };
  // The authority remembers tokens, so the same one comes back for many calls.
  const made = new WeakMap<Secret, UpstreamCredential>();
  const tokens = new WeakMap<UpstreamCredential, Secret>();

  const credentialOf = ({ token, expiresAt }: ExchangedToken): UpstreamCredential => {
    let credential = made.get(token);
    if (credential === undefined) {
      const value = new Secret(`Bearer ${token.reveal()}`);
      const { audience } = target;
      credential = { header: "authorization", value, id: tokenId(token.reveal()), audience, expiresAt };
      made.set(token, credential);
      tokens.set(credential, token);
    }
    return credential;
  };
  const asked = (): Exchanger => {
    const exchanger = authority();
    if (exchanger !== undefined) return exchanger;
    throw stillStarting(name);
  };
  const tokenOf = (credential: UpstreamCredential | undefined) => credential && tokens.get(credential);

  return {
    async for(by, signal, refused) {
      const exchanger = asked();
      try {
        return credentialOf(await exchanger.exchange(by, target, signal, tokenOf(refused)));
      } catch (thrown) {
        const error = DrawbridgeError.from(thrown, "upstream_unavailable");
        if (error.code !== "insufficient_scope") throw error;
        throw nothingLeft(name, target, missing(exchanger.metadata.scopes, by.scopes), error);
      }
    },
    async own(signal, refused) {
      return credentialOf(await asked().ownToken(target, signal, tokenOf(refused)));
    },
  };
}

/**
 * Those of `credentials: oauth`, from accounts that people have connected; undefined when its settings ask for others.
 * `connections` too is asked for when the first credential is needed.
 */
export function connectedCredentials(
  name: string,
  settings: ServerSettings,
  connections: () => Pick<Connections, "credentials"> | undefined,
): Lending | undefined {
  if (!hasOAuth(settings)) return undefined;
  let known: Lending | undefined;
  const theirs = async (): Promise<Lending> => {
    known ??= connections()?.credentials(name, settings);
    if (known === undefined) throw stillStarting(name);
    return known;
  };
  return {
    lent: async () => (await theirs()).lent(),
    for: async (by, signal, refused, said) => (await theirs()).for(by, signal, refused, said),
    own: async (signal, refused, said) => (await theirs()).own(signal, refused, said),
    lacks: async (by, challenge) => (await theirs()).lacks?.(by, challenge),
  };
}

function stillStarting(name: string): DrawbridgeError {
  return new DrawbridgeError("upstream_unavailable", `The server "${name}" cannot be called yet. Try again.`, {
    detail: "the authorization server is still starting",
  });
}

/** MCP, Authorization, Canonical Server URI: without fragment, and without a slash that stands for no path. A query may hold a key. */
export function exchangeTarget(
  url: string,
  credentials:
    | "exchange"
    | { readonly exchange: { readonly audience?: string | undefined; readonly scopes?: ExchangeTarget["scopes"] } },
): ExchangeTarget {
  const { origin, pathname } = new URL(url);
  const { audience = `${origin}${pathname === "/" ? "" : pathname}`, scopes } =
    credentials === "exchange" ? {} : credentials.exchange;
  return { audience, scopes };
}

const missing = (all: readonly string[], held: readonly string[]) => all.filter((scope) => !held.includes(scope));

/** The caller may get more scopes of ours where one would help; where none would, the client must not be sent to ask for any. */
function nothingLeft(
  name: string,
  { scopes }: ExchangeTarget,
  obtainable: readonly string[],
  cause: DrawbridgeError,
): DrawbridgeError {
  const meanings = new Map(scopes === undefined || Array.isArray(scopes) ? [] : Object.entries(scopes));
  const helpful = obtainable.filter((scope) => (meanings.get(scope)?.length ?? 0) > 0).join(" ");
  if (helpful !== "") {
    const message = `The server "${name}" needs one of these scopes: ${helpful}.`;
    return new DrawbridgeError("insufficient_scope", message, { scope: helpful, cause });
  }
  return new DrawbridgeError("upstream_failed", `The server "${name}" may not be called for this caller.`, {
    detail: `no scope is left in the exchange; check \`credentials.exchange.scopes\` of the server. ${cause.message} ${cause.detail ?? ""}`,
    cause,
  });
}

/** The `jti` of a JWT, for records. The token is our own, so its signature says nothing new. */
function tokenId(token: string): string | undefined {
  try {
    const claims = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { jti?: unknown };
    return typeof claims.jti === "string" ? claims.jti : undefined;
  } catch {
    return undefined; // Not a JWT: an authorization server may issue any token.
  }
}
