/** A running authorization server with a protected endpoint, a browser with cookies, and the far end of client documents. */
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Principal } from "../../src/core/call.ts";
import { type Clock, systemClock } from "../../src/core/clock.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { sourceBehind } from "../../src/net/source.ts";
import {
  type AuthorizationServer,
  authorizationServer,
  type OAuthEvent,
  protectedResourceMetadata,
  type ReachOf,
} from "../../src/oauth/server.ts";
import { clientsSettings, signInSettings, tokensSettings } from "../../src/oauth/settings.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { selfSigned } from "./certificate.ts";

export const PASSWORD = "four calm words here";

export interface RunningOptions {
  readonly clients?: Record<string, unknown>;
  readonly tokens?: Record<string, unknown>;
  readonly signIn?: Record<string, unknown>;
  /** Path of publicUrl. */
  readonly path?: string;
  readonly records?: Records;
  readonly clock?: Clock;
  readonly reach?: ReachOf;
  readonly onEvent?: (event: OAuthEvent) => void | Promise<void>;
  /** Answers /mcp instead of the small endpoint that says who called. */
  readonly mcp?: (request: IncomingMessage, response: ServerResponse, server: AuthorizationServer) => Promise<void>;
  /** The public URL as clients see it, when it is not where the test listens. */
  readonly publicUrl?: string;
  /** Proxies whose X-Forwarded-For is believed. */
  readonly trustedProxies?: readonly string[];
}

export interface Running extends AsyncDisposable {
  readonly server: AuthorizationServer;
  readonly origin: string;
  /** The issuer. */
  readonly base: string;
  readonly resource: string;
  readonly records: Records;
  readonly events: OAuthEvent[];
}

/** Starts everything on a free port. */
export async function running(options: RunningOptions = {}): Promise<Running> {
  const events: OAuthEvent[] = [];
  const clock = options.clock ?? systemClock;
  const records = options.records ?? memoryStore(clock).records;
  const made: { server?: AuthorizationServer } = {};
  const http = createServer((request, response) => {
    if (made.server !== undefined) void route(made.server, request, response, options);
  });
  const origin = `http://127.0.0.1:${await listen(http)}`;
  const base = options.publicUrl ?? `${origin}${options.path ?? ""}`;
  made.server = await authorizationServer({
    publicUrl: new URL(base),
    signIn: signInSettings.parse(options.signIn ?? {}),
    // All rows of a table of attacks come from one source.
    clients: clientsSettings.parse({ requestsPerSourcePerMinute: 100_000, ...options.clients }),
    tokens: tokensSettings.parse(options.tokens ?? {}),
    records,
    reach: options.reach,
    log: silentLogger,
    sourceOf: sourceBehind(options.trustedProxies ?? []),
    clock,
    async onEvent(event) {
      await options.onEvent?.(event);
      events.push(event);
    },
  });
  const { server } = made;
  return {
    server,
    origin,
    base,
    resource: server.metadata.resource,
    records,
    events,
    async [Symbol.asyncDispose]() {
      await server.close();
      await stop(http);
    },
  };
}

async function route(
  server: AuthorizationServer,
  request: IncomingMessage,
  response: ServerResponse,
  options: RunningOptions,
) {
  const { pathname } = new URL(request.url ?? "/", "http://test.invalid");
  if (server.owns(pathname)) return server.handle(request, response);
  const metadataPath = `/.well-known/oauth-protected-resource${new URL(server.metadata.resource).pathname}`;
  if (pathname === metadataPath) {
    response.setHeader("content-type", "application/json");
    return void response.end(JSON.stringify(protectedResourceMetadata(server.metadata)));
  }
  if (options.mcp !== undefined) return options.mcp(request, response, server);
  try {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
    if (token === undefined) throw new DrawbridgeError("unauthenticated", "no token");
    const who = await server.verify(token);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(who));
  } catch (thrown) {
    const failure = DrawbridgeError.from(thrown);
    const challenge = `Bearer error="invalid_token", resource_metadata="${new URL(metadataPath, server.metadata.issuer)}", scope="mcp:read mcp:call"`;
    response.writeHead(failure.http, { "www-authenticate": challenge, "x-detail": failure.detail ?? "" }).end();
  }
}

export async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

export async function stop(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise<void>((resolve) => server.close(() => resolve()));
}

/** A browser: cookies by path, redirects followed inside the server only, forms filled in. */
export class Browser {
  readonly #cookies = new Map<string, { value: string; path: string; name: string }>();
  readonly origin: string;
  /** What the server is called in public, when that is not where it listens. */
  readonly #publicOrigin: string;
  /** Sent with every request, e.g. its own name. */
  readonly #headers: Readonly<Record<string, string>>;
  /** Every answer seen, newest last. */
  readonly seen: { url: string; status: number; headers: Headers; text: string }[] = [];

  constructor(origin: string, publicOrigin = origin, headers: Readonly<Record<string, string>> = {}) {
    this.origin = origin;
    this.#headers = headers;
    this.#publicOrigin = publicOrigin;
  }

  get last() {
    const last = this.seen.at(-1);
    if (last === undefined) throw new Error("nothing was loaded yet");
    return last;
  }

  get cookieNames(): string[] {
    return [...this.#cookies.values()].map(({ name }) => name);
  }

  /** One request, redirects not followed. */
  async fetch(url: string, init: RequestInit = {}): Promise<Response> {
    const asked = new URL(url, this.origin);
    const target =
      asked.origin === this.#publicOrigin ? new URL(`${asked.pathname}${asked.search}`, this.origin) : asked;
    const cookie = [...this.#cookies.values()]
      .filter(
        ({ path }) => target.pathname === path || target.pathname.startsWith(path.endsWith("/") ? path : `${path}/`),
      )
      // RFC 6265 §5.4: of two with one name the one with the longer path comes first, and is the one that is read.
      .sort((a, b) => b.path.length - a.path.length)
      .map(({ name, value }) => `${name}=${value}`)
      .join("; ");
    const headers = new Headers({ ...this.#headers, ...Object.fromEntries(new Headers(init.headers)) });
    headers.set("accept", "text/html");
    if (cookie !== "") headers.set("cookie", cookie);
    const response = await fetch(target, { ...init, headers, redirect: "manual" });
    for (const line of response.headers.getSetCookie()) this.keep(line);
    const text = await response.clone().text();
    this.seen.push({ url: target.href, status: response.status, headers: response.headers, text });
    return response;
  }

  /** Loads a page and follows redirects until there is a page, or an address of somebody else, which is returned. */
  async go(url: string, init: RequestInit = {}): Promise<URL | undefined> {
    let response = await this.fetch(url, init);
    for (let hops = 0; hops < 12; hops++) {
      const location = response.headers.get("location");
      if (location === null) return undefined;
      const next = new URL(location, this.last.url);
      if (next.origin !== this.origin && next.origin !== this.#publicOrigin) return next;
      const site = new Headers(init.headers).get("sec-fetch-site");
      response = await this.fetch(next.href, site === null ? {} : { headers: { "sec-fetch-site": site } });
    }
    throw new Error("redirected for ever");
  }

  /** Sends the form of the page that was loaded last. `fields` are added; `without` are left out. */
  async submit(
    fields: Record<string, string>,
    action?: string,
    without: readonly string[] = [],
  ): Promise<URL | undefined> {
    return this.go(action ?? this.last.url, this.form(fields, without));
  }

  /** What `submit` would send. */
  form(fields: Record<string, string>, without: readonly string[] = []): RequestInit {
    const body = new URLSearchParams(fields);
    const hidden = /name="form" value="([^"]+)"/.exec(this.last.text)?.[1];
    if (hidden !== undefined && !body.has("form")) body.set("form", hidden);
    for (const [, scope = ""] of this.last.text.matchAll(/name="scope" value="([^"]+)"/g)) {
      if (!without.includes(scope)) body.append("scope", scope);
    }
    return { method: "POST", body, headers: { "sec-fetch-site": "same-origin" } };
  }

  cookie(name: string): string | undefined {
    return [...this.#cookies.values()].find((cookie) => cookie.name === name)?.value;
  }

  /** Keeps what a `Set-Cookie` header says. */
  keep(line: string): void {
    const [pair = "", ...attributes] = line.split("; ");
    const at = pair.indexOf("=");
    const name = pair.slice(0, at);
    const path = attributes.find((attribute) => /^path=/i.test(attribute))?.slice(5) ?? "/";
    const gone = attributes.some(
      (attribute) => /^max-age=0$/i.test(attribute) || /^expires=Thu, 01 Jan 1970/i.test(attribute),
    );
    if (gone) this.#cookies.delete(`${name} ${path}`);
    else this.#cookies.set(`${name} ${path}`, { name, path, value: pair.slice(at + 1) });
  }
}

/** Makes the owner through the set-up link; the browser is signed in afterwards. */
export async function setUp({ server, origin }: Running, name = "olive"): Promise<Browser> {
  const link = await server.setupLink();
  if (link === undefined) throw new Error("there is a user already");
  const browser = new Browser(origin);
  await browser.go(link);
  await browser.submit({ name, email: `${name}@shop.example`, password: PASSWORD, again: PASSWORD });
  return browser;
}

export interface AskOptions {
  readonly client: string;
  readonly redirect?: string;
  readonly scope?: string | null;
  readonly resource?: string | null;
  readonly more?: Record<string, string>;
  /** Scopes to untick. */
  readonly without?: readonly string[];
  readonly answer?: "allow" | "deny";
  readonly site?: string;
  readonly state?: string;
}

export const REDIRECT = "http://127.0.0.1:49152/callback";

export function authorizeUrl({ base, resource }: Running, ask: AskOptions, verifier = "v".repeat(64)): string {
  const url = new URL(`${base}/oauth/authorize`);
  const params: Record<string, string | null> = {
    response_type: "code",
    client_id: ask.client,
    redirect_uri: ask.redirect ?? REDIRECT,
    state: ask.state ?? "state-1",
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    scope: ask.scope === undefined ? "mcp:read mcp:call" : ask.scope,
    resource: ask.resource === undefined ? resource : ask.resource,
    ...ask.more,
  };
  for (const [name, value] of Object.entries(params)) if (value !== null) url.searchParams.set(name, value);
  return url.href;
}

/** Walks the authorization in a browser, signing in when asked and answering the consent page. Returns where it ends. */
export async function authorize(running: Running, browser: Browser, ask: AskOptions, verifier?: string): Promise<URL> {
  const site = ask.site === undefined ? {} : { headers: { "sec-fetch-site": ask.site } };
  let end = await browser.go(authorizeUrl(running, ask, verifier), site);
  if (end === undefined && /<h1>Sign in/.test(browser.last.text))
    end = await browser.submit({ name: "olive", password: PASSWORD });
  if (end === undefined && /<legend>/.test(browser.last.text)) {
    end = await browser.submit({ answer: ask.answer ?? "allow" }, undefined, ask.without);
  }
  if (end === undefined) throw new Error(`no redirect to the client: ${browser.last.status} ${browser.last.text}`);
  return end;
}

export interface Tokens {
  readonly access_token: string;
  readonly refresh_token: string;
  readonly id_token?: string;
  readonly scope: string;
  readonly expires_in: number;
  readonly token_type: string;
}

/** From nothing to tokens. */
export async function connect(
  running: Running,
  browser: Browser,
  ask: AskOptions,
): Promise<Tokens & { code: string; verifier: string }> {
  const verifier = randomBytes(48).toString("base64url");
  const end = await authorize(running, browser, ask, verifier);
  const code = end.searchParams.get("code");
  if (code === null) throw new Error(`no code: ${end}`);
  const answer = await token(running, {
    grant_type: "authorization_code",
    code,
    code_verifier: verifier,
    client_id: ask.client,
    redirect_uri: ask.redirect ?? REDIRECT,
    ...(ask.resource === null ? {} : { resource: ask.resource ?? running.resource }),
  });
  if (answer.status !== 200) throw new Error(`no token: ${JSON.stringify(answer)}`);
  return { ...(answer.body as unknown as Tokens), code, verifier };
}

export async function token(
  { origin, base }: Running,
  params: Record<string, string>,
  headers: Record<string, string> = {},
) {
  const url = new URL(`${base}/oauth/token`);
  const response = await fetch(`${origin}${url.pathname}`, {
    method: "POST",
    body: new URLSearchParams(params),
    headers,
  });
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  };
}

export function refresh(running: Running, client: string, refreshToken: string, more: Record<string, string> = {}) {
  return token(running, { grant_type: "refresh_token", client_id: client, refresh_token: refreshToken, ...more });
}

/** Calls the protected endpoint. */
export async function call({ origin, resource }: Running, accessToken: string) {
  const response = await fetch(`${origin}${new URL(resource).pathname}`, {
    headers: { authorization: `Bearer ${accessToken}` },
  });
  const detail = response.headers.get("x-detail");
  return {
    status: response.status,
    detail,
    body: (response.status === 200 ? await response.json() : {}) as Partial<Principal>,
  };
}

export async function register({ base }: Running, metadata: Record<string, unknown> = {}) {
  const response = await fetch(`${base}/oauth/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      client_name: "Test client",
      redirect_uris: [REDIRECT],
      token_endpoint_auth_method: "none",
      ...metadata,
    }),
  });
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  };
}

export interface DocumentHost extends AsyncDisposable {
  readonly port: number;
  /** `metadataDocuments` settings that reach and trust this host. */
  readonly settings: Record<string, unknown>;
  readonly requests: { path: string; headers: IncomingMessage["headers"] }[];
  /** TCP connections seen, requests or not. */
  readonly connections: () => number;
  /** Publishes a document and returns its client id. */
  publish(path: string, metadata?: Record<string, unknown>, host?: string): string;
  /** Answers a path in any way. */
  serve(path: string, answer: (request: IncomingMessage, response: ServerResponse) => void): string;
}

/** An https server on loopback, for `localhost` and further names, whose certificate `settings` make the authorization server trust. */
export async function documentHost(names: readonly string[] = []): Promise<DocumentHost> {
  const { certificate, key } = await selfSigned(names);
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-"));
  const file = join(folder, "ca.pem");
  writeFileSync(file, certificate);
  const answers = new Map<string, (request: IncomingMessage, response: ServerResponse) => void>();
  const requests: DocumentHost["requests"] = [];
  const sockets = new Set<Socket>();
  let connections = 0;
  const server = createTlsServer({ cert: certificate, key }, (request, response) => {
    const path = request.url ?? "";
    requests.push({ path, headers: request.headers });
    const answer = answers.get(path) ?? answers.get(path.split("?", 1)[0] ?? "");
    if (answer === undefined) return void response.writeHead(404).end();
    answer(request, response);
  });
  server.on("connection", (socket: Socket) => {
    connections++;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  const port = await listen(server as unknown as Server);
  const serve: DocumentHost["serve"] = (path, answer) => {
    answers.set(path, answer);
    return `https://localhost:${port}${path}`;
  };
  return {
    port,
    requests,
    connections: () => connections,
    settings: { allowPrivateAddresses: true, extraPorts: [port], trustedCertificates: file },
    publish(path, metadata = {}, host = "localhost") {
      const id = `https://${host}:${port}${path}`;
      const document = { client_id: id, client_name: "Paper Crane", redirect_uris: [REDIRECT], ...metadata };
      serve(path, (_request, response) => {
        response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(document));
      });
      return id;
    },
    serve,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await stop(server as unknown as Server);
      rmSync(folder, { recursive: true });
    },
  };
}
