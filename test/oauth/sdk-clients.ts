/** MCP hosts built on the official SDKs, both generations behind one face, and the places that they connect to. */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as modern from "@modelcontextprotocol/client";
import { auth as classicAuth } from "@modelcontextprotocol/sdk/client/auth.js";
import * as classic from "@modelcontextprotocol/sdk/client/auth-extensions.js";
import { Client as ClassicClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as ClassicTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { decodeJwt } from "jose";
import { z } from "zod";
import { loadSettings } from "../../src/config/load.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { fixtureCommand } from "../fixtures/processes.ts";
import { Browser, PASSWORD, REDIRECT, type RunningOptions, running, setUp } from "./support.ts";

/** Somewhere to connect to. Its user is `olive`; it has a tool `echo`. */
export interface Place extends AsyncDisposable {
  /** Of the MCP endpoint: all that a host is told. */
  readonly url: string;
  readonly issuer: string;
  readonly origin: string;
}

/** What clients authenticate with that have a secret. */
export const SECRET = "s".repeat(40);

/** The parts of the settings file that are about clients, people and tokens; `secret` is `SECRET`, as the place wants it told. */
export type OAuthSettings = (secret: unknown) => Pick<RunningOptions, "clients" | "signIn" | "tokens">;

/** Where clients connect: to the authorization server with an MCP server of the SDK's, and to all of Drawbridge. */
export const PLACES: readonly { readonly at: string; readonly start: (settings: OAuthSettings) => Promise<Place> }[] = [
  { at: "the authorization server alone", start: authorizationServerAlone },
  { at: "a whole gateway", start: wholeGateway },
];

async function authorizationServerAlone(settings: OAuthSettings): Promise<Place> {
  const live = await running({ ...settings(new Secret(SECRET)), mcp: answerMcp });
  await setUp(live);
  return {
    url: live.resource,
    issuer: live.base,
    origin: live.origin,
    [Symbol.asyncDispose]: () => live[Symbol.asyncDispose](),
  };
}

/** In front of a server that knows nothing of all this. Members of `batch` may use it, as its owner may. */
export async function wholeGateway(settings: OAuthSettings): Promise<Place> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-sdk-"));
  const file = join(folder, "drawbridge.yaml");
  const given = {
    store: "memory",
    listen: { port: 0, shutdownSeconds: 3 },
    log: { level: "silent" },
    servers: { echo: { command: fixtureCommand("echo-stdio") } },
    roles: { caller: { may: ["*"] } },
    assign: ["owner", "batch"].map((group) => ({ role: "caller", group })),
    ...settings("$" + "{env:CLIENT_SECRET}"),
  };
  // YAML, written as its subset JSON.
  writeFileSync(file, JSON.stringify(given));
  const environment = { ...process.env, CLIENT_SECRET: SECRET };
  const loaded = await loadSettings(file, { env: environment });
  const gateway = await startGateway({ settings: loaded, environment, logger: silentLogger });
  await gateway.ready;
  const { origin } = new URL(gateway.url);
  const browser = new Browser(origin);
  await browser.go((await gateway.setupLink()) ?? "");
  await browser.submit({ name: "olive", email: "olive@shop.example", password: PASSWORD, again: PASSWORD });
  return {
    url: gateway.url,
    issuer: gateway.publicUrl,
    origin,
    async [Symbol.asyncDispose]() {
      await gateway.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A real MCP server behind `verify`, one per request. */
const answerMcp: NonNullable<RunningOptions["mcp"]> = async (request, response, authorization) => {
  try {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
    if (token === undefined) throw new DrawbridgeError("unauthenticated", "no token");
    await authorization.verify(token);
    const server = new McpServer({ name: "fixture", version: "1.0.0" });
    server.registerTool("echo", { inputSchema: { text: z.string() } }, ({ text }) => ({
      content: [{ type: "text", text }],
    }));
    const transport = new StreamableHTTPServerTransport({ enableJsonResponse: true });
    await server.connect(transport as Parameters<typeof server.connect>[0]);
    await transport.handleRequest(request, response);
  } catch (thrown) {
    const metadata = `${authorization.metadata.issuer}/.well-known/oauth-protected-resource/mcp`;
    const challenge = `Bearer resource_metadata="${metadata}", scope="mcp:read mcp:call"`;
    response.writeHead(DrawbridgeError.from(thrown).http, { "www-authenticate": challenge }).end();
  }
};

/** What a host keeps of one connection. */
export interface Kept {
  client?: Record<string, unknown> & { readonly client_id?: string };
  tokens?: { readonly access_token: string; readonly refresh_token?: string; readonly token_type: string };
  verifier?: string;
  discovery?: unknown;
  /** Where the person's browser was sent, latest last. */
  readonly redirected: URL[];
}

/** An `OAuthClientProvider` of either SDK. */
export type Provider = object & { tokens(): unknown };

/** A host that keeps everything in memory; `more` are further members of its provider. */
export function host(more: Record<string, unknown> = {}): { readonly kept: Kept; readonly provider: Provider } {
  const kept: Kept = { redirected: [] };
  const provider = {
    redirectUrl: REDIRECT,
    clientMetadata: {
      client_name: "Paper Crane",
      redirect_uris: [REDIRECT],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    },
    state: () => randomUUID(),
    clientInformation: () => kept.client,
    saveClientInformation: (client: NonNullable<Kept["client"]>) => {
      kept.client = client;
    },
    tokens: () => kept.tokens,
    saveTokens: (tokens: NonNullable<Kept["tokens"]>) => {
      kept.tokens = tokens;
    },
    redirectToAuthorization: (url: URL) => {
      kept.redirected.push(url);
    },
    saveCodeVerifier: (verifier: string) => {
      kept.verifier = verifier;
    },
    codeVerifier: () => kept.verifier ?? "",
    saveDiscoveryState: (state: unknown) => {
      kept.discovery = state;
    },
    discoveryState: () => kept.discovery,
    ...more,
  };
  return { kept, provider };
}

export interface Connected {
  echo(text: string): Promise<string>;
  /** Lets the person answer where the SDK sent them since, and hands their answer to the SDK. */
  answer(): Promise<void>;
  close(): Promise<void>;
}

export interface ConnectOptions {
  readonly fetch?: typeof fetch;
  /** Answers the browser; default: signs in as olive and allows everything. */
  readonly person?: (url: URL) => Promise<URLSearchParams>;
}

export interface Sdk {
  readonly version: string;
  readonly ClientCredentialsProvider:
    | typeof classic.ClientCredentialsProvider
    | typeof modern.ClientCredentialsProvider;
  readonly PrivateKeyJwtProvider: typeof classic.PrivateKeyJwtProvider | typeof modern.PrivateKeyJwtProvider;
  readonly StaticPrivateKeyJwtProvider:
    | typeof classic.StaticPrivateKeyJwtProvider
    | typeof modern.StaticPrivateKeyJwtProvider;
  readonly createPrivateKeyJwtAuth: typeof classic.createPrivateKeyJwtAuth | typeof modern.createPrivateKeyJwtAuth;
  /** The SDK's `auth`: refreshes, or gets a token anew. */
  auth(provider: Provider, url: string): Promise<string>;
  /** Connects knowing the URL alone. Where a browser is needed the person of `options` has it. */
  connect(provider: Provider, kept: Kept | undefined, place: Place, options?: ConnectOptions): Promise<Connected>;
}

export const v1: Sdk = {
  version: "v1.32",
  ...classic,
  auth: (provider, url) => classicAuth(provider as never, { serverUrl: url }),
  async connect(provider, kept, place, { fetch: fetchFn, person = olive(place) } = {}) {
    const open = () =>
      new ClassicTransport(new URL(place.url), {
        authProvider: provider as never,
        ...(fetchFn !== undefined && { fetch: fetchFn }),
      });
    const start = async () => {
      const transport = open();
      const client = new ClassicClient({ name: "paper-crane", version: "1.0.0" });
      return { client, transport, started: client.connect(transport as Parameters<typeof client.connect>[0]) };
    };
    const answered = async (asked: { transport: ClassicTransport }) =>
      asked.transport.finishAuth((await person(lastOf(kept))).get("code") ?? "");
    return throughTheBrowser(start, answered);
  },
};

export const v2: Sdk = {
  version: "v2.4",
  ...modern,
  auth: (provider, url) => modern.auth(provider as never, { serverUrl: url }),
  async connect(provider, kept, place, { fetch: fetchFn, person = olive(place) } = {}) {
    const start = async () => {
      const transport = new modern.StreamableHTTPClientTransport(new URL(place.url), {
        authProvider: provider as never,
        ...(fetchFn !== undefined && { fetch: fetchFn }),
      });
      const client = new modern.Client({ name: "paper-crane", version: "1.0.0" });
      return { client, transport, started: client.connect(transport) };
    };
    return throughTheBrowser(start, async ({ transport }) => transport.finishAuth(await person(lastOf(kept))));
  },
};

export const SDKS: readonly Sdk[] = [v1, v2];

interface Attempt<C, T> {
  readonly client: C;
  readonly transport: T;
  readonly started: Promise<void>;
}

/** Starts, lets the person answer when the SDK sends them somewhere, and starts again with a token, as the SDKs' guides say. */
async function throughTheBrowser<
  C extends {
    callTool(call: { name: string; arguments: Record<string, unknown> }): Promise<object>;
    close(): Promise<void>;
  },
  T,
>(start: () => Promise<Attempt<C, T>>, answered: (asked: Attempt<C, T>) => Promise<void>): Promise<Connected> {
  const first = await start();
  const sent = await first.started.then(
    () => false,
    (error: unknown) => {
      if (/unauthorized/i.test(`${(error as Error).name} ${(error as Error).message}`)) return true;
      throw error;
    },
  );
  let connected = first;
  if (sent) {
    await answered(first);
    connected = await start();
    await connected.started;
  }
  const { client } = connected;
  return {
    answer: () => answered(connected),
    async echo(text) {
      const { content } = (await client.callTool({ name: "echo", arguments: { text } })) as {
        content?: readonly { readonly text?: string }[];
      };
      return content?.[0]?.text ?? "";
    },
    close: () => client.close(),
  };
}

function lastOf(kept: Kept | undefined): URL {
  const url = kept?.redirected.at(-1);
  if (url === undefined) throw new Error("the SDK did not send the browser anywhere");
  return url;
}

/** A person who signs in and allows all that is asked, but for scopes of `without`. */
export function olive(place: Place, without: readonly string[] = []) {
  return async (url: URL): Promise<URLSearchParams> => {
    const browser = new Browser(place.origin);
    let end = await browser.go(url.href);
    if (end === undefined) end = await browser.submit({ name: "olive", password: PASSWORD });
    if (end === undefined) end = await browser.submit({ answer: "allow" }, undefined, without);
    if (end === undefined) throw new Error(`no way back to the client: ${browser.last.status} ${browser.last.text}`);
    return end.searchParams;
  };
}

/** What the access token says that a provider keeps. */
export async function claimsOf(provider: Provider): Promise<Record<string, unknown>> {
  const tokens = (await provider.tokens()) as { readonly access_token?: string } | undefined;
  return decodeJwt(tokens?.access_token ?? "");
}
