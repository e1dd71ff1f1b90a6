/** From the code to tokens, what is in them, and their renewal (OAuth 2.1 §3.2, §4.3, RFC 9068). */
import { Secret } from "../../core/secret.ts";
import type { Code } from "./authorize.ts";
import type { Client } from "./client.ts";
import type { Resource, Server } from "./discovery.ts";
import type { Note } from "./examination.ts";
import { type Answer, type Http, parsed, strings } from "./http.ts";

export interface Tokens {
  readonly access: Secret;
  readonly refresh: Secret | undefined;
}

export interface Asking {
  readonly http: Http;
  readonly resource: Resource;
  readonly server: Server;
  readonly client: Client;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

export async function redeem(asking: Asking, code: Code, note: Note): Promise<Tokens | undefined> {
  const answer = await ask(asking, {
    grant_type: "authorization_code",
    code: code.code.reveal(),
    redirect_uri: code.redirect,
    code_verifier: code.verifier.reveal(),
    resource: asking.resource.resource,
  });
  const tokens = readTokens(answer, note);
  if (tokens === undefined) return undefined;
  const body = parsed(answer.text) ?? {};
  note.ok("token", "The code was exchanged for a token");
  if (!/(?:^|,) *no-store/i.test(answer.headers.get("cache-control") ?? ""))
    note.warn("cacheable", "The token's answer may be cached", "Send Cache-Control: no-store (RFC 6749 §5.1).");
  if (typeof body["expires_in"] !== "number")
    note.warn(
      "no-expiry",
      "The answer does not say when the token expires",
      "Clients then find out by a failed call. Send expires_in.",
    );
  const given = typeof body["scope"] === "string" ? body["scope"].split(" ") : undefined;
  const missing = (code.scope?.split(" ") ?? []).filter((scope) => given !== undefined && !given.includes(scope));
  if (missing.length > 0)
    note.warn(
      "narrowed",
      `Asked for and not given: ${missing.join(" ")}`,
      "The person refused it, or may not have it. Calls that need it will be refused.",
    );
  if (tokens.refresh === undefined)
    note.warn(
      "no-refresh-token",
      "There is no refresh token",
      asking.server.scopes.includes("offline_access")
        ? "People will have to sign in again whenever the token expires. The server gives one for the scope offline_access: name it in the resource's scopes, or try --scope."
        : "People will have to sign in again whenever the token expires.",
    );
  readClaims(tokens.access.reveal(), asking, note);
  return tokens;
}

/** Renews once. The new tokens when that worked, else those there were. */
export async function renew(asking: Asking, tokens: Tokens, note: Note): Promise<Tokens> {
  if (tokens.refresh === undefined) return tokens;
  const answer = await ask(asking, {
    grant_type: "refresh_token",
    refresh_token: tokens.refresh.reveal(),
    resource: asking.resource.resource,
  });
  const renewed = readTokens(answer, note);
  if (renewed === undefined) return tokens;
  note.ok("renewed", "The refresh token gave a new token");
  const rotated = renewed.refresh !== undefined && !renewed.refresh.equals(tokens.refresh.reveal());
  if (rotated) note.ok("rotated", "and was replaced by a new one");
  else if (asking.client.secret === undefined)
    note.warn(
      "not-rotated",
      "The refresh token stays the same",
      "For clients without a secret it must be replaced at each use or be bound to a key (OAuth 2.1 §4.3.1).",
    );
  readClaims(renewed.access.reveal(), asking, note, "audience-only");
  return { access: renewed.access, refresh: renewed.refresh ?? tokens.refresh };
}

/** Takes back what the examination left behind. Best effort: what fails here is no finding. */
export async function tidyUp({ http, server, client }: Asking, tokens: Tokens | undefined): Promise<void> {
  const token = tokens?.refresh ?? tokens?.access;
  if (token !== undefined && server.revocation !== undefined) {
    const { headers, body } = proven(client, { token: token.reveal() });
    await http.send(server.revocation, { method: "POST", headers, body }).catch(() => undefined);
  }
  if (client.remove !== undefined) {
    const headers = { authorization: `Bearer ${client.remove.token.reveal()}` };
    await http.send(client.remove.url, { method: "DELETE", headers }).catch(() => undefined);
  }
}

function ask({ http, server, client }: Asking, params: Record<string, string>): Promise<Answer> {
  const { headers, body } = proven(client, params);
  return http.send(server.token, { method: "POST", headers, body });
}

/** The client's name and proof, added to a form (RFC 6749 §2.3.1). */
function proven({ id, secret, inBody }: Client, params: Record<string, string>) {
  const form = new URLSearchParams(params);
  const headers: Record<string, string> = {
    "content-type": "application/x-www-form-urlencoded",
    accept: "application/json",
  };
  if (secret === undefined || inBody) form.set("client_id", id);
  if (secret !== undefined && inBody) form.set("client_secret", secret.reveal());
  if (secret !== undefined && !inBody) {
    const encoded = (text: string) => new URLSearchParams({ "": text }).toString().slice(1);
    headers["authorization"] = `Basic ${Buffer.from(`${encoded(id)}:${encoded(secret.reveal())}`).toString("base64")}`;
  }
  return { headers, body: form.toString() };
}

const ADVICE: Readonly<Record<string, string>> = {
  invalid_grant:
    "The code or refresh token was not taken: it is bound to client, redirect URI and PKCE verifier, lives shortly, and works once. Do several replicas share their store?",
  invalid_client:
    "The client could not prove who it is. A public client sends only client_id; a confidential one its secret (--client-secret-env).",
  invalid_target: "The token endpoint does not know the resource (RFC 8707), although authorization took it.",
  invalid_request:
    "Something of the request was not understood. `resource` (RFC 8707) and `code_verifier` are what older servers trip over.",
  unsupported_grant_type: "The server does not do this grant; its metadata should not say that it does.",
  unauthorized_client: "This client may not use this grant: see grant_types of its registration.",
  invalid_scope: "Try --scope.",
  invalid_dpop_proof:
    "The server binds tokens to a key of the client (DPoP), which few MCP clients and not the doctor can do.",
};

function readTokens({ status, headers, text }: Answer, note: Note): Tokens | undefined {
  const body = parsed(text);
  if (status !== 200 || body === undefined) {
    const error = typeof body?.["error"] === "string" ? body["error"] : undefined;
    const said = [error, body?.["error_description"]].filter((one) => typeof one === "string").join(": ");
    if (error !== undefined && Object.hasOwn(ADVICE, error))
      note.fail(error.replaceAll("_", "-"), `${status}: ${said}`, ADVICE[error] ?? "");
    else
      note.fail(
        "no-token",
        `${status}: no token${said === "" ? ` (${headers.get("content-type") ?? "no content type"})` : ` (${said})`}`,
        "The token endpoint must answer JSON, errors too (RFC 6749 §5). The server's log says why.",
      );
    return undefined;
  }
  const { access_token: access, refresh_token: refresh, token_type: type } = body;
  if (typeof access !== "string" || !/^[A-Za-z0-9._~+/-]+=*$/.test(access)) {
    note.fail(
      "no-access-token",
      "200 without a usable access_token",
      "It must be a string of the characters of RFC 6750 §2.1.",
    );
    return undefined;
  }
  if (typeof type !== "string" || type.toLowerCase() !== "bearer")
    note.fail(
      "token-type",
      `token_type is ${typeof type === "string" ? type : "missing"}, not Bearer`,
      "Clients that asked for no other kind refuse it (RFC 6749 §7.1).",
    );
  return {
    access: new Secret(access),
    refresh: typeof refresh === "string" && refresh !== "" ? new Secret(refresh) : undefined,
  };
}

const MAX_SKEW_SECONDS = 60;

/** A client has no business in a token, a doctor has. Its signature is for the server to check. */
function readClaims(
  token: string,
  { resource, server, client, now }: Asking,
  note: Note,
  only?: "audience-only",
): void {
  const parts = token.split(".");
  const [header, claims] = parts.length === 3 ? parts.slice(0, 2).map(decoded) : [];
  if (header === undefined || claims === undefined) {
    if (only === undefined) note.ok("opaque", "The token is opaque: what it is good for, the server will say");
    return;
  }
  const audiences = typeof claims["aud"] === "string" ? [claims["aud"]] : strings(claims["aud"]);
  const plain = (text: string) => text.replace(/\/$/, "");
  if (audiences.some((audience) => plain(audience) === plain(resource.resource)))
    note.ok("audience", `It is for ${resource.resource}`);
  else
    note.fail(
      "wrong-audience",
      `The token is for ${audiences.join(", ") || "nobody in particular"}, not for ${resource.resource}`,
      "A server must refuse a token that was made for another. The authorization server has to honour `resource` (RFC 8707), or be told this audience.",
    );
  if (only !== undefined) return;
  if (String(header["alg"]).toLowerCase() === "none")
    note.fail(
      "unsigned",
      "The token is not signed (alg none)",
      "Anybody can make such a token. Sign with ES256, EdDSA or RS256.",
    );
  if (claims["iss"] !== server.issuer)
    note.warn(
      "token-issuer",
      `The token is from ${String(claims["iss"]).slice(0, 200)}, not from ${server.issuer}`,
      "A server that compares letter by letter will refuse it (RFC 9068 §4).",
    );
  const { exp, iat } = claims;
  const at = now() / 1000;
  if (typeof exp !== "number")
    note.fail("no-exp", "The token never expires (no exp)", "A stolen one works for ever. Give it minutes.");
  else if (exp <= at)
    note.fail(
      "expired",
      `The token expired ${Math.round(at - exp)} s ago`,
      "The clock of the authorization server, or that of this machine, is wrong.",
    );
  else note.ok("expires", `It lives for ${Math.round(exp - at)} s`);
  if (typeof iat === "number" && iat - at > MAX_SKEW_SECONDS)
    note.warn(
      "clock",
      `The token was issued ${Math.round(iat - at)} s in the future`,
      "The clocks of the authorization server and of this machine differ. Synchronise them.",
    );
  if (claims["nonce"] !== undefined || audiences.includes(client.id))
    note.warn(
      "id-token",
      "The access token looks like an ID token: it is for the client",
      "Have the authorization server give access tokens for the resource.",
    );
}

function decoded(part: string): Record<string, unknown> | undefined {
  return parsed(Buffer.from(part, "base64url").toString("utf8"));
}
