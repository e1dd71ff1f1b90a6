/**
 * The endpoints for clients: what real clients send is put right on the way to `oidc-provider`, and CORS and caching are decided
 * here for all of them.
 */
import { createLocalJWKSet, jwtVerify } from "jose";
import type Provider from "oidc-provider";
import { DrawbridgeError } from "../core/errors.ts";
import { type Exchange, readBody, readForm, replay } from "./http.ts";
import type { Keys } from "./keys.ts";
import { ALL_SCOPES, canonicalResource } from "./metadata.ts";
import { ENDPOINTS } from "./provider.ts";
import type { Registration } from "./registration.ts";
import type { Site } from "./site.ts";

export interface EndpointsOptions {
  readonly site: Site;
  readonly provider: Provider;
  readonly registration: Registration;
  readonly keys: Keys;
}

interface Endpoint {
  readonly method: "GET" | "POST";
  /** Any origin may read the answer. No cookie is ever read here, so nothing is given that the caller does not have. */
  readonly cors: boolean;
  readonly maxAgeSeconds?: number;
  /** What goes on to `oidc-provider`: another URL, another body. */
  prepare?(exchange: Exchange): Promise<{ readonly url?: string; readonly body?: Buffer }>;
}

const METADATA_SECONDS = 300;
const MAX_REGISTRATION_BYTES = 64 * 1024;
/** Scopes of OpenID Connect that say nothing about the resource. */
const OIDC_SCOPES = new Set(["openid", "offline_access", "profile", "email"]);

export function endpoints(options: EndpointsOptions): (exchange: Exchange) => Promise<void> {
  const { site, provider, registration, keys } = options;
  const { place } = site;
  const keySet = createLocalJWKSet({ keys: keys.public.map((key) => ({ ...key })) });
  const callback = provider.callback();

  /** One spelling of the resource everywhere, and the scopes that a client means when it names none. */
  function putRight(params: URLSearchParams, asksForScopes: boolean): URLSearchParams {
    const resources = new Set(params.getAll("resource").map((resource) => canonicalResource(resource, place.resource)));
    params.delete("resource");
    for (const resource of resources) params.append("resource", resource);
    if (!asksForScopes) return params;
    const scopes = (params.get("scope") ?? "").split(" ").filter(Boolean);
    if (scopes.every((scope) => OIDC_SCOPES.has(scope)) && params.getAll("scope").length <= 1) {
      params.set("scope", [...scopes, ...ALL_SCOPES].join(" "));
    }
    return params;
  }

  /** A JWT access token is stored under its `jti` alone: that is what `oidc-provider` can find. */
  async function tokenId(token: string): Promise<string> {
    if (token.split(".").length !== 3) return token;
    try {
      const { payload } = await jwtVerify(token, keySet, {
        issuer: place.issuer,
        typ: "at+jwt",
        currentDate: new Date(site.clock()),
      });
      return payload.jti ?? "unknown";
    } catch {
      // Forged or expired: unknown, which is what both endpoints answer for it.
      return "unknown";
    }
  }

  const form = async (exchange: Exchange, asksForScopes = false) => {
    const params = putRight(await readForm(exchange.request), asksForScopes);
    return { body: Buffer.from(params.toString()) };
  };
  const aboutToken = async ({ request }: Exchange) => {
    const params = await readForm(request);
    if (params.getAll("token").length === 1) params.set("token", await tokenId(params.get("token") ?? ""));
    return { body: Buffer.from(params.toString()) };
  };

  const table: Readonly<Record<string, Endpoint>> = {
    "/.well-known/oauth-authorization-server": { method: "GET", cors: true, maxAgeSeconds: METADATA_SECONDS },
    "/.well-known/openid-configuration": { method: "GET", cors: true, maxAgeSeconds: METADATA_SECONDS },
    [ENDPOINTS.jwks]: { method: "GET", cors: true, maxAgeSeconds: METADATA_SECONDS },
    [ENDPOINTS.authorization]: {
      method: "GET",
      cors: false,
      async prepare({ query, path }) {
        const mode = query.get("response_mode");
        if (mode !== null && mode !== "query")
          throw new DrawbridgeError("invalid_request", "The only response_mode here is query.");
        // What was pushed before was put right then.
        return { url: `${path}?${query.has("request_uri") ? query : putRight(query, true)}` };
      },
    },
    [ENDPOINTS.token]: { method: "POST", cors: true, prepare: form },
    [ENDPOINTS.pushed_authorization_request]: {
      method: "POST",
      cors: false,
      prepare: (exchange) => form(exchange, true),
    },
    [ENDPOINTS.revocation]: { method: "POST", cors: true, prepare: aboutToken },
    [ENDPOINTS.introspection]: { method: "POST", cors: false, prepare: aboutToken },
    ...(registration.open && {
      [ENDPOINTS.registration]: {
        method: "POST",
        cors: true,
        async prepare({ request, source }: Exchange) {
          if (!/^application\/json *(?:;|$)/i.test(request.headers["content-type"] ?? "")) {
            throw new DrawbridgeError("unsupported_media_type", "Send this as application/json.");
          }
          const metadata = registration.checked(await readBody(request, MAX_REGISTRATION_BYTES), site.policy);
          await registration.admit(source);
          return { body: Buffer.from(JSON.stringify(metadata)) };
        },
      } satisfies Endpoint,
    }),
  };
  /** Where the browser comes back to after a person has answered. */
  const resume: Endpoint = { method: "GET", cors: false };

  return async (exchange) => {
    const { request, response, path } = exchange;
    const endpoint = table[path] ?? (/^\/oauth\/authorize\/[\w-]{1,64}$/.test(path) ? resume : undefined);
    if (endpoint === undefined) throw new DrawbridgeError("not_found", "There is no such endpoint.");
    if (endpoint.cors) response.setHeader("access-control-allow-origin", "*");
    if (endpoint.cors && request.method === "OPTIONS") return answerPreflight(exchange, endpoint);
    const method = request.method === "HEAD" ? "GET" : request.method;
    if (method !== endpoint.method) {
      response.setHeader("allow", endpoint.method);
      throw new DrawbridgeError("method_not_allowed", `This endpoint takes ${endpoint.method}.`);
    }
    if (endpoint.maxAgeSeconds !== undefined) {
      response.setHeader("cache-control", `public, max-age=${endpoint.maxAgeSeconds}`);
    }
    const { url = path, body } = (await endpoint.prepare?.(exchange)) ?? {};
    const copy = replay(exchange, place, url, body);
    copy.method = method;
    await callback(copy, response);
  };
}

function answerPreflight({ response }: Exchange, { method }: Endpoint): void {
  response.writeHead(204, {
    "access-control-allow-methods": method,
    "access-control-allow-headers": "authorization, content-type, mcp-protocol-version",
    "access-control-max-age": "3600",
  });
  response.end();
}
