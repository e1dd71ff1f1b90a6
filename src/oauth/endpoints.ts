/**
 * The endpoints for clients: what real clients send is put right on the way to `oidc-provider`, and CORS and caching are decided
 * here for all of them.
 */
import type { IncomingMessage } from "node:http";
import type Provider from "oidc-provider";
import { DrawbridgeError } from "../core/errors.ts";
import { JWT_BEARER } from "./clients/clients.ts";
import type { Registration } from "./clients/registration.ts";
import { workloadFinder } from "./grant-types/jwt-bearer.ts";
import { type Exchange, readBody, readForm, replay } from "./http.ts";
import { ALL_SCOPES, namedScopes } from "./metadata.ts";
import type { Site } from "./pages/site.ts";
import { ENDPOINTS } from "./provider.ts";
import type { Resources } from "./resources.ts";
import type { Tokens } from "./tokens/issue.ts";
import { KEY_SET_SECONDS } from "./tokens/keys.ts";

export interface EndpointsOptions {
  readonly site: Site;
  readonly provider: Provider;
  readonly registration: Registration;
  readonly resources: Resources;
  readonly issuing: Tokens;
}

interface Endpoint {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** Any origin may read the answer. No cookie is ever read here, so nothing is given that the caller does not have. */
  readonly cors: boolean;
  readonly maxAgeSeconds?: number;
  /** What goes on to `oidc-provider`: another URL, another body. */
  prepare?(exchange: Exchange): Promise<{ readonly url?: string; readonly body?: Buffer }>;
}

const METADATA_SECONDS = KEY_SET_SECONDS;
const MAX_REGISTRATION_BYTES = 64 * 1024;

export function endpoints(options: EndpointsOptions): (exchange: Exchange) => Promise<void> {
  const { site, provider, registration, resources, issuing } = options;
  const { place } = site;
  const workloadOf = workloadFinder(site.clients.workloads);
  const callback = provider.callback();

  /** One spelling of the resource everywhere, and the scopes that a client means when it names none. */
  function putRight(params: URLSearchParams, asksForScopes: boolean): URLSearchParams {
    const named = new Set(params.getAll("resource").map((resource) => resources.canonical(resource)));
    params.delete("resource");
    for (const resource of named) params.append("resource", resource);
    if (!asksForScopes) return params;
    // Another mode would send the answer by a page with a script, past the page that asks before a browser leaves.
    if (params.getAll("response_mode").some((mode) => mode !== "query"))
      throw new DrawbridgeError("invalid_request", "The only response_mode here is query.");
    const scope = params.get("scope") ?? "";
    if (namedScopes(scope) === undefined && params.getAll("scope").length <= 1) {
      params.set("scope", [...scope.split(" ").filter(Boolean), ...ALL_SCOPES].join(" "));
    }
    return params;
  }

  const pushed = async ({ request }: Exchange) => {
    return { body: Buffer.from(putRight(await readForm(request), true).toString()) };
  };
  /** RFC 7521 §4.1: whose assertion it is says who the client is. `oidc-provider` wants to be told. */
  const grant = async ({ request }: Exchange) => {
    const params = putRight(await readForm(request), false);
    const anonymous = !params.has("client_id") && !params.has("client_assertion") && !request.headers.authorization;
    const workload =
      anonymous && params.get("grant_type") === JWT_BEARER ? workloadOf(params.get("assertion") ?? "") : undefined;
    if (workload !== undefined) params.set("client_id", workload);
    return { body: Buffer.from(params.toString()) };
  };
  /** A JWT access token is stored under its `jti` alone: that is what `oidc-provider` can find. */
  const aboutToken = async ({ request }: Exchange) => {
    const params = await readForm(request);
    const [token = "", ...others] = params.getAll("token");
    if (others.length === 0 && token.split(".").length === 3)
      params.set("token", (await issuing.identify(token)) ?? "unknown");
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
        if (!query.has("request_uri")) return { url: `${path}?${putRight(query, true)}` };
        // RFC 9126 §4: what was pushed counts, and was put right then. What stands beside it here is not looked at.
        const reference = [...query].filter(([name]) => name === "client_id" || name === "request_uri");
        return { url: `${path}?${new URLSearchParams(reference)}` };
      },
    },
    [ENDPOINTS.token]: { method: "POST", cors: true, prepare: grant },
    [ENDPOINTS.pushed_authorization_request]: { method: "POST", cors: true, prepare: pushed },
    [ENDPOINTS.revocation]: { method: "POST", cors: true, prepare: aboutToken },
    [ENDPOINTS.introspection]: { method: "POST", cors: false, prepare: aboutToken },
    ...(registration.enabled && {
      [ENDPOINTS.registration]: {
        method: "POST",
        cors: true,
        async prepare({ request, source }: Exchange) {
          const { authorization } = request.headers;
          await registration.authorised(authorization);
          const metadata = registration.checked(await readJsonBody(request), site.policy);
          await registration.admit(source, authorization);
          return { body: Buffer.from(JSON.stringify(metadata)) };
        },
      } satisfies Endpoint,
    }),
  };
  /** Where the browser comes back to after a person has answered. */
  const resume: Endpoint = { method: "GET", cors: false };
  /** What a client may do with its own registration (RFC 7592 §2). */
  const management: readonly Endpoint[] = [
    { method: "GET", cors: true },
    { method: "DELETE", cors: true },
    {
      method: "PUT",
      cors: true,
      async prepare({ request, path }) {
        const metadata = registration.changed(await readJsonBody(request), site.policy);
        return { url: path, body: Buffer.from(JSON.stringify(metadata)) };
      },
    },
  ];

  function endpointFor(path: string, { method, headers }: IncomingMessage): Endpoint | undefined {
    if (/^\/oauth\/authorize\/[\w-]{1,64}$/.test(path)) return resume;
    if (!registration.enabled || !/^\/oauth\/register\/[\w-]{1,100}$/.test(path)) return table[path];
    const wanted = method === "OPTIONS" ? headers["access-control-request-method"] : method;
    return management.find((endpoint) => endpoint.method === wanted) ?? management[0];
  }

  return async (exchange) => {
    const { request, response, path } = exchange;
    const endpoint = endpointFor(path, request);
    if (endpoint === undefined) throw new DrawbridgeError("not_found", "There is no such endpoint.");
    if (endpoint.cors) {
      response.setHeader("access-control-allow-origin", "*");
      response.setHeader("access-control-expose-headers", "dpop-nonce, www-authenticate");
    }
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

function readJsonBody(request: IncomingMessage): Promise<Buffer> {
  if (!/^application\/json *(?:;|$)/i.test(request.headers["content-type"] ?? "")) {
    throw new DrawbridgeError("unsupported_media_type", "Send this as application/json.");
  }
  return readBody(request, MAX_REGISTRATION_BYTES);
}

function answerPreflight({ response }: Exchange, { method }: Endpoint): void {
  response.writeHead(204, {
    "access-control-allow-methods": method,
    "access-control-allow-headers": "authorization, content-type, dpop, mcp-protocol-version",
    "access-control-max-age": "3600",
  });
  response.end();
}
