/** A small OpenID Connect provider, strict with those who ask it and able to lie to them in every way. */
import { createHash, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";
import { type Browser, listen, type Running, stop } from "./support.ts";

export interface Person {
  readonly sub?: string;
  readonly name?: string;
  readonly email?: string;
  readonly email_verified?: boolean | string;
  readonly groups?: unknown;
  readonly [claim: string]: unknown;
}

type Answer = (request: IncomingMessage, response: ServerResponse) => void | Promise<void>;

/** What it does wrong. Each is asked at the moment it matters. */
export interface Lies {
  metadata?: (metadata: Record<string, unknown>) => void;
  /** Of the ID token. */
  claims?: (claims: Record<string, unknown>) => void;
  header?: (header: Record<string, unknown>) => void;
  /** The whole ID token, from its header and claims. */
  idToken?: (header: Record<string, unknown>, claims: Record<string, unknown>) => string | Promise<string>;
  /** The parameters that go back. */
  answer?: (params: URLSearchParams) => void;
  userinfo?: (claims: Record<string, unknown>) => void;
  /** Answers a path in any way, e.g. `/token`. */
  paths?: Record<string, Answer>;
}

export interface IdentityProvider extends AsyncDisposable {
  readonly issuer: string;
  readonly publicJwk: JWK;
  /** Who signs in next. */
  person: Person;
  lies: Lies;
  /** Claims that are in the ID token; the others are only in userinfo. Undefined: all. */
  inIdToken: readonly string[] | undefined;
  /** What was asked, by path; the parameters of forms and queries. */
  readonly asked: { readonly path: string; readonly params: URLSearchParams; readonly authorization?: string }[];
  /** `signIn.providers` settings for it. */
  settings(more?: Record<string, unknown>): Record<string, unknown>;
  /** Walks its pages from where it was sent to: the login page, the button, and where that leads. */
  visit(url: URL): Promise<Back>;
}

/** Where the browser is sent back to. `post`: the form that goes there, for form_post. */
export interface Back {
  readonly url: URL;
  readonly post: URLSearchParams | undefined;
}

interface Code {
  readonly nonce: string | null;
  readonly challenge: string | null;
  readonly redirectUri: string | null;
  readonly person: Person;
}

export const CLIENT_ID = "drawbridge-at-idp";

export async function identityProvider(
  options: { readonly secret?: string; readonly alg?: "RS256" | "ES256" } = {},
): Promise<IdentityProvider> {
  const { secret, alg = "RS256" } = options;
  const { publicKey, privateKey } = await keysFor(alg);
  const publicJwk: JWK = { ...(await exportJWK(publicKey)), kid: "k1", alg, use: "sig" };
  const codes = new Map<string, Code>();
  const tokens = new Map<string, Person>();
  const sockets = createServer((request, response) => void handle(request, response));
  const issuer = `http://127.0.0.1:${await listen(sockets)}`;

  const idp: IdentityProvider = {
    issuer,
    publicJwk,
    person: { sub: "sub-1", name: "Ines Idp", email: "ines@shop.example", email_verified: true, groups: ["support"] },
    lies: {},
    inIdToken: undefined,
    asked: [],
    settings: (more = {}) => ({ issuer, clientId: CLIENT_ID, ...more }),
    async visit(url) {
      const page = await fetch(url, { redirect: "manual" });
      const login = page.headers.get("location");
      if (login === null) throw new Error(`the provider refused: ${page.status} ${await page.text()}`);
      const query = new URL(login, issuer).searchParams;
      const answer = await fetch(new URL(login, issuer), { method: "POST", body: query, redirect: "manual" });
      const location = answer.headers.get("location");
      if (location !== null) return { url: new URL(location), post: undefined };
      const html = await answer.text();
      const action = /action="([^"]+)"/.exec(html)?.[1] ?? "";
      const fields = [...html.matchAll(/name="([^"]+)" value="([^"]*)"/g)].map(
        ([, name = "", value = ""]): [string, string] => [name, value],
      );
      return { url: new URL(action), post: new URLSearchParams(fields) };
    },
    async [Symbol.asyncDispose]() {
      await stop(sockets);
    },
  };

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", issuer);
    let body = "";
    for await (const part of request) body += part;
    const params = new URLSearchParams(request.method === "POST" ? body : url.search);
    const { authorization } = request.headers;
    idp.asked.push({ path: url.pathname, params, ...(authorization === undefined ? {} : { authorization }) });
    const lie = idp.lies.paths?.[url.pathname];
    if (lie !== undefined) return lie(request, response);
    const answer = paths[url.pathname];
    if (answer === undefined) return void response.writeHead(404).end();
    await answer(response, params, authorization);
  }

  const json = (response: ServerResponse, value: unknown, status = 200) =>
    void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));

  const paths: Record<
    string,
    (response: ServerResponse, params: URLSearchParams, authorization: string | undefined) => void | Promise<void>
  > = {
    "/.well-known/openid-configuration"(response) {
      const metadata: Record<string, unknown> = {
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        userinfo_endpoint: `${issuer}/userinfo`,
        jwks_uri: `${issuer}/jwks`,
        response_types_supported: ["code"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: [alg, "none", "HS256"],
        authorization_response_iss_parameter_supported: true,
      };
      idp.lies.metadata?.(metadata);
      json(response, metadata);
    },
    "/jwks": (response) => json(response, { keys: [publicJwk] }),
    "/authorize"(response, params) {
      const missing = ["client_id", "redirect_uri", "state", "nonce", "code_challenge"].filter(
        (name) => !params.has(name),
      );
      if (
        missing.length > 0 ||
        params.get("client_id") !== CLIENT_ID ||
        params.get("code_challenge_method") !== "S256"
      ) {
        return void response.writeHead(400).end(`wrong: ${missing}`);
      }
      response.writeHead(302, { location: `/login?${params}` }).end();
    },
    "/login"(response, params) {
      const back = new URLSearchParams({ state: params.get("state") ?? "", iss: issuer });
      const code = randomUUID();
      codes.set(code, {
        nonce: params.get("nonce"),
        challenge: params.get("code_challenge"),
        redirectUri: params.get("redirect_uri"),
        person: idp.person,
      });
      back.set("code", code);
      idp.lies.answer?.(back);
      const redirect = new URL(params.get("redirect_uri") ?? "");
      if (params.get("response_mode") === "form_post") {
        const fields = [...back].map(([name, value]) => `<input type="hidden" name="${name}" value="${value}">`);
        return void response
          .writeHead(200, { "content-type": "text/html" })
          .end(
            `<form method="post" action="${redirect}">${fields.join("")}<button>Go on</button></form><script>document.forms[0].submit()</script>`,
          );
      }
      for (const [name, value] of back) redirect.searchParams.append(name, value);
      response.writeHead(302, { location: redirect.href }).end();
    },
    async "/token"(response, params, authorization) {
      const code = codes.get(params.get("code") ?? "");
      codes.delete(params.get("code") ?? "");
      if (secret !== undefined && (basicSecret(authorization) ?? params.get("client_secret")) !== secret) {
        return json(response, { error: "invalid_client" }, 401);
      }
      const challenge = createHash("sha256")
        .update(params.get("code_verifier") ?? "")
        .digest("base64url");
      if (code === undefined || code.challenge !== challenge || code.redirectUri !== params.get("redirect_uri")) {
        return json(response, { error: "invalid_grant" }, 400);
      }
      const accessToken = randomUUID();
      tokens.set(accessToken, code.person);
      const now = Math.floor(Date.now() / 1000);
      const wanted = Object.entries(code.person).filter(
        ([name]) => name === "sub" || (idp.inIdToken?.includes(name) ?? true),
      );
      const claims: Record<string, unknown> = {
        ...Object.fromEntries(wanted),
        iss: issuer,
        aud: CLIENT_ID,
        iat: now,
        exp: now + 300,
        nonce: code.nonce,
      };
      idp.lies.claims?.(claims);
      const header: Record<string, unknown> = { alg, kid: "k1" };
      idp.lies.header?.(header);
      const sign =
        idp.lies.idToken ?? ((h, c) => new SignJWT(c).setProtectedHeader(h as { alg: string }).sign(privateKey));
      json(response, {
        access_token: accessToken,
        token_type: "Bearer",
        expires_in: 300,
        id_token: await sign(header, claims),
      });
    },
    "/userinfo"(response, _params, authorization) {
      const person = tokens.get(authorization?.replace("Bearer ", "") ?? "");
      if (person === undefined) return void response.writeHead(401, { "www-authenticate": "Bearer" }).end();
      const claims: Record<string, unknown> = { ...person };
      idp.lies.userinfo?.(claims);
      json(response, claims);
    },
  };

  return idp;
}

/** Made once for each algorithm: an RSA key takes a third of a second. */
const keys = new Map<string, ReturnType<typeof generateKeyPair>>();
function keysFor(alg: string): ReturnType<typeof generateKeyPair> {
  const made = keys.get(alg) ?? generateKeyPair(alg, { extractable: true });
  keys.set(alg, made);
  return made;
}

/** RFC 6749 §2.3.1: both halves are form-encoded before they are joined. */
function basicSecret(authorization: string | undefined): string | undefined {
  const [, encoded] = /^Basic (.+)$/.exec(authorization ?? "") ?? [];
  if (encoded === undefined) return undefined;
  const [, secret = ""] = Buffer.from(encoded, "base64").toString().split(":");
  return decodeURIComponent(secret.replaceAll("+", " "));
}

/** Presses the button of a provider on the page that was loaded last. Returns where the browser is sent. */
export async function press(browser: Browser, provider: string): Promise<URL> {
  const there = await browser.submit({ provider });
  if (there === undefined) throw new Error(`not sent to ${provider}: ${browser.last.status} ${browser.last.text}`);
  return there;
}

/** Comes back from a provider, by whatever way it sends one. Returns where that ends, when that is not here. */
export async function comeBack(browser: Browser, { url, post }: Back): Promise<URL | undefined> {
  if (post === undefined) return browser.go(url.href, { headers: { "sec-fetch-site": "cross-site" } });
  return browser.go(url.href, { method: "POST", body: post, headers: { "sec-fetch-site": "cross-site" } });
}

/** Signs in at a provider, from the sign-in page to the account page. */
export async function signInAt(
  { base }: Running,
  browser: Browser,
  idp: IdentityProvider,
  provider = "idp",
): Promise<void> {
  await browser.go(`${base}/sign-in`);
  await comeBack(browser, await idp.visit(await press(browser, provider)));
}
