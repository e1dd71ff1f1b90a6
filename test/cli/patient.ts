/** An MCP server with its authorization server, sound or ill in one place: what the doctor is tried on. */
import { createHash, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { listen, stop } from "../oauth/support.ts";

export type Json = Record<string, unknown>;

/** Where a patient differs from a sound server. Paths are those of the sound one. */
export interface Illness {
  /** Answers a path in another way; true: it was answered. */
  readonly answers?: (request: IncomingMessage, response: ServerResponse, patient: Patient) => boolean | undefined;
  readonly resource?: (document: Json, patient: Patient) => unknown;
  readonly server?: (document: Json, patient: Patient) => unknown;
  readonly registered?: (answer: Json) => unknown;
  /** What the browser brings back. */
  readonly arrival?: (params: URLSearchParams) => void;
  readonly claims?: (claims: Json) => Json;
  readonly tokens?: (answer: Json) => unknown;
  readonly renewed?: (answer: Json) => unknown;
  /** Answers MCP requests that come with a good token; true: it was answered. */
  readonly mcp?: (message: Json, response: ServerResponse) => boolean | undefined;
}

export interface Patient extends AsyncDisposable {
  readonly url: string;
  readonly origin: string;
  /** Method and path of each request, oldest first. */
  readonly asked: string[];
}

export async function patient(illness: Illness = {}): Promise<Patient> {
  const asked: string[] = [];
  const http = createServer((request, response) => void answer(request, response));
  const origin = `http://127.0.0.1:${await listen(http)}`;
  const self: Patient = {
    url: `${origin}/mcp`,
    origin,
    asked,
    [Symbol.asyncDispose]: () => stop(http),
  };
  const good = new Set<string>();
  const codes = new Map<string, URLSearchParams>();

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? "/", origin);
    asked.push(`${request.method} ${pathname}`);
    if (illness.answers?.(request, response, self) === true) return;
    response.setHeader("access-control-allow-origin", "*");
    if (request.method === "OPTIONS") {
      const headers = "authorization, content-type, mcp-protocol-version";
      return void response.writeHead(204, { "access-control-allow-headers": headers }).end();
    }
    const body = await text(request);
    const handler = (
      handlers as Record<
        string,
        ((body: string, query: URLSearchParams, response: ServerResponse, request: IncomingMessage) => void) | undefined
      >
    )[pathname];
    if (handler === undefined) return void response.writeHead(404).end();
    handler(body, searchParams, response, request);
  }

  function issue(params: URLSearchParams, change?: (answer: Json) => unknown): unknown {
    const now = Math.floor(Date.now() / 1000);
    const claims = {
      iss: origin,
      aud: params.get("resource") ?? `${origin}/mcp`,
      sub: "u_1",
      client_id: "c_1",
      scope: "mcp:read mcp:call",
      iat: now,
      exp: now + 300,
      jti: randomUUID(),
    };
    const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const token = `${part({ alg: "ES256", typ: "at+jwt" })}.${part(illness.claims?.(claims) ?? claims)}.${"s".repeat(86)}`;
    good.add(token);
    const sound = {
      access_token: token,
      token_type: "Bearer",
      expires_in: 300,
      refresh_token: `r_${randomUUID()}`,
      scope: "mcp:read mcp:call",
    };
    return change?.(sound) ?? sound;
  }

  const handlers = {
    "/.well-known/oauth-protected-resource/mcp": (_body: string, _query: URLSearchParams, response: ServerResponse) => {
      const sound = {
        resource: `${origin}/mcp`,
        authorization_servers: [origin],
        scopes_supported: ["mcp:read", "mcp:call"],
        bearer_methods_supported: ["header"],
      };
      json(response, 200, illness.resource?.(sound, self) ?? sound);
    },
    "/.well-known/oauth-authorization-server": (_body: string, _query: URLSearchParams, response: ServerResponse) => {
      const sound = {
        issuer: origin,
        authorization_endpoint: `${origin}/authorize`,
        token_endpoint: `${origin}/token`,
        registration_endpoint: `${origin}/register`,
        revocation_endpoint: `${origin}/revoke`,
        response_types_supported: ["code"],
        grant_types_supported: ["authorization_code", "refresh_token"],
        code_challenge_methods_supported: ["S256"],
        token_endpoint_auth_methods_supported: ["none"],
        scopes_supported: ["mcp:read", "mcp:call"],
        client_id_metadata_document_supported: true,
        authorization_response_iss_parameter_supported: true,
      };
      json(response, 200, illness.server?.(sound, self) ?? sound);
    },
    "/register": (body: string, _query: URLSearchParams, response: ServerResponse) => {
      const sound = { ...(JSON.parse(body) as Json), client_id: "c_1" };
      json(response, 201, illness.registered?.(sound) ?? sound);
    },
    "/authorize": (_body: string, query: URLSearchParams, response: ServerResponse) => {
      const back = new URL(query.get("redirect_uri") ?? "");
      const code = randomUUID();
      codes.set(code, query);
      for (const [name, value] of Object.entries({ code, state: query.get("state") ?? "", iss: origin }))
        back.searchParams.set(name, value);
      illness.arrival?.(back.searchParams);
      response.writeHead(303, { location: back.href }).end();
    },
    "/token": (body: string, _query: URLSearchParams, response: ServerResponse) => {
      const params = new URLSearchParams(body);
      response.setHeader("cache-control", "no-store");
      if (params.get("grant_type") === "refresh_token") return json(response, 200, issue(params, illness.renewed));
      const asked = codes.get(params.get("code") ?? "");
      const challenge = createHash("sha256")
        .update(params.get("code_verifier") ?? "")
        .digest("base64url");
      if (asked?.get("code_challenge") !== challenge) return json(response, 400, { error: "invalid_grant" });
      json(response, 200, issue(params, illness.tokens));
    },
    "/revoke": (_body: string, _query: URLSearchParams, response: ServerResponse) => void response.writeHead(200).end(),
    "/mcp": (body: string, _query: URLSearchParams, response: ServerResponse, request: IncomingMessage) => {
      const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
      if (token === undefined || !good.has(token)) {
        const problem = token === undefined ? "" : 'error="invalid_token", ';
        const challenge = `Bearer ${problem}resource_metadata="${origin}/.well-known/oauth-protected-resource/mcp", scope="mcp:read mcp:call"`;
        return void response.writeHead(401, { "www-authenticate": challenge }).end();
      }
      const message = JSON.parse(body) as Json;
      if (illness.mcp?.(message, response) === true) return;
      if (message["id"] === undefined) return void response.writeHead(202).end();
      const results: Record<string, Json> = {
        initialize: { protocolVersion: "2025-11-25", capabilities: {}, serverInfo: { name: "patient", version: "1" } },
        "server/discover": { resultType: "complete", supportedVersions: ["2026-07-28"], capabilities: {} },
        "tools/list": { resultType: "complete", tools: [{ name: "one" }] },
      };
      json(response, 200, { jsonrpc: "2.0", id: message["id"], result: results[String(message["method"])] });
    },
  };
  return self;
}

export function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}

async function text(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const part of request.setEncoding("utf8")) body += part;
  return body;
}
