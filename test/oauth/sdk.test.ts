import { randomUUID } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import * as modern from "@modelcontextprotocol/client";
import {
  type OAuthClientProvider as ClassicProvider,
  auth as classicAuth,
} from "@modelcontextprotocol/sdk/client/auth.js";
import { Client as ClassicClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as ClassicTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { DrawbridgeError } from "../../src/core/errors.ts";
import type { AuthorizationServer } from "../../src/oauth/server.ts";
import {
  Browser,
  type DocumentHost,
  documentHost,
  PASSWORD,
  REDIRECT,
  type Running,
  running,
  setUp,
} from "./support.ts";

let host: DocumentHost;
let live: Running;

beforeAll(async () => {
  host = await documentHost();
  live = await running({ clients: { metadataDocuments: host.settings, registration: "open" }, mcp });
  await setUp(live);
});
afterAll(async () => {
  await live[Symbol.asyncDispose]();
  await host[Symbol.asyncDispose]();
});

/** A real MCP server behind `verify`, one per request. */
async function mcp(
  request: IncomingMessage,
  response: ServerResponse,
  authorization: AuthorizationServer,
): Promise<void> {
  try {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
    if (token === undefined) throw new DrawbridgeError("unauthenticated", "no token");
    const who = await authorization.verify(token);
    const server = new McpServer({ name: "fixture", version: "1.0.0" });
    server.registerTool("who", { description: "Says who called." }, () => ({
      content: [{ type: "text", text: `${who.claims["name"]} by ${who.client}` }],
    }));
    const transport = new StreamableHTTPServerTransport({ enableJsonResponse: true });
    await server.connect(transport as Parameters<typeof server.connect>[0]);
    await transport.handleRequest(request, response);
  } catch (thrown) {
    const metadata = `${authorization.metadata.issuer}/.well-known/oauth-protected-resource/mcp`;
    response.writeHead(DrawbridgeError.from(thrown).http, {
      "www-authenticate": `Bearer resource_metadata="${metadata}", scope="mcp:read mcp:call"`,
    });
    response.end();
  }
}

/** What an MCP host keeps for its SDK, the same for both SDKs. */
function provider(documentUrl: string | undefined) {
  const kept: {
    client?: unknown;
    tokens?: { refresh_token?: string };
    verifier?: string;
    discovery?: unknown;
    redirected?: URL;
  } = {};
  const methods = {
    redirectUrl: REDIRECT,
    clientMetadataUrl: documentUrl,
    clientMetadata: {
      client_name: "Paper Crane",
      redirect_uris: [REDIRECT],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    },
    state: () => randomUUID(),
    clientInformation: () => kept.client,
    saveClientInformation: (client: unknown) => {
      kept.client = client;
    },
    tokens: () => kept.tokens,
    saveTokens: (tokens: { refresh_token?: string }) => {
      kept.tokens = tokens;
    },
    redirectToAuthorization: (url: URL) => {
      kept.redirected = url;
    },
    saveCodeVerifier: (verifier: string) => {
      kept.verifier = verifier;
    },
    codeVerifier: () => kept.verifier ?? "",
    saveDiscoveryState: (state: unknown) => {
      kept.discovery = state;
    },
    discoveryState: () => kept.discovery,
  };
  return { kept, methods };
}

/** A person who signs in and allows. */
async function person(url: URL | undefined): Promise<URLSearchParams> {
  if (url === undefined) throw new Error("the SDK did not send the browser anywhere");
  const browser = new Browser(live.origin);
  await browser.go(url.href);
  await browser.submit({ name: "olive", password: PASSWORD });
  const end = await browser.submit({ answer: "allow" });
  return end?.searchParams ?? new URLSearchParams();
}

const ways = [
  ["by its metadata document", () => host.publish(`/sdk-${randomUUID()}.json`)],
  ["by registering itself", () => undefined],
] as const;

describe.each(ways)("an SDK client that connects %s", (_way, documentUrl) => {
  test("v1.32 completes discovery, sign-in, consent, call and refresh", async () => {
    const { kept, methods } = provider(documentUrl());
    const authProvider = methods as unknown as ClassicProvider;
    const connecting = new ClassicClient({ name: "paper-crane", version: "1.0.0" });
    const transport = new ClassicTransport(new URL(live.resource), { authProvider });
    await expect(connecting.connect(transport as Parameters<typeof connecting.connect>[0])).rejects.toThrow(
      /Unauthorized/,
    );
    await transport.finishAuth((await person(kept.redirected)).get("code") ?? "");

    const client = new ClassicClient({ name: "paper-crane", version: "1.0.0" });
    const again = new ClassicTransport(new URL(live.resource), { authProvider });
    await client.connect(again as Parameters<typeof client.connect>[0]);
    const { content } = await client.callTool({ name: "who", arguments: {} });
    expect(JSON.stringify(content)).toContain("olive by ");
    await client.close();

    const before = kept.tokens?.refresh_token;
    expect(await classicAuth(authProvider, { serverUrl: live.resource })).toBe("AUTHORIZED");
    expect(kept.tokens?.refresh_token).not.toBe(before);
  });

  test("v2.4 completes discovery, sign-in, consent, call and refresh", async () => {
    const { kept, methods } = provider(documentUrl());
    const authProvider = methods as unknown as modern.OAuthClientProvider;
    const transport = () => new modern.StreamableHTTPClientTransport(new URL(live.resource), { authProvider });
    const first = transport();
    const connecting = new modern.Client({ name: "paper-crane", version: "1.0.0" });
    await expect(connecting.connect(first)).rejects.toThrow();
    const answer = await person(kept.redirected);
    await first.finishAuth(answer);

    const client = new modern.Client({ name: "paper-crane", version: "1.0.0" });
    await client.connect(transport());
    const { content } = await client.callTool({ name: "who", arguments: {} });
    expect(JSON.stringify(content)).toContain("olive by ");
    await client.close();

    const before = kept.tokens?.refresh_token;
    expect(await modern.auth(authProvider, { serverUrl: live.resource })).toBe("AUTHORIZED");
    expect(kept.tokens?.refresh_token).not.toBe(before);
  });
});
