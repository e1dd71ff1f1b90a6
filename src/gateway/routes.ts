/** The HTTP edge: who may talk to us at all (Host, Origin), and which part answers which path. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { DrawbridgeError } from "../core/errors.ts";
import { OPEN_METRICS, wantsOpenMetrics } from "../observe/exposition.ts";
import { sendError } from "./exchange.ts";
import type { ListenSettings } from "./settings.ts";

export type Answer = (request: IncomingMessage, response: ServerResponse, pathname: string) => Promise<void> | void;

export interface Routes {
  readonly mcp: Answer;
  /** The embedded authorization server: its own paths and pages. */
  readonly oauth: { owns(pathname: string): boolean; readonly answer: Answer };
  /** RFC 9728 document of the resource. */
  readonly resourceMetadata: () => object;
  readonly health: () => object;
  readonly ready: () => { readonly ok: boolean; readonly body: object };
  readonly metrics: (openMetrics: boolean) => Promise<string>;
  readonly admin: Answer;
}

/** Host names of this machine, as `URL.hostname` spells them. */
export const LOOPBACK: ReadonlySet<string> = new Set(["localhost", "127.0.0.1", "[::1]"]);
/** What a page of another origin may send to the MCP endpoint and read of its answers. */
const CORS_REQUEST_HEADERS = [
  "authorization",
  "dpop",
  "content-type",
  "accept",
  "mcp-protocol-version",
  "mcp-session-id",
  "mcp-method",
  "mcp-name",
  "last-event-id",
  "traceparent",
  "tracestate",
];
const CORS_RESPONSE_HEADERS = "mcp-session-id, mcp-protocol-version, www-authenticate, dpop-nonce, retry-after";

/**
 * One function for each request. `publicUrl` is the only source of the names we answer to; Host is compared with it and never used to build anything.
 * Host and Origin are checked on every path: a page in a browser must not reach a server on its own machine by DNS rebinding.
 */
export function createRoutes(publicUrl: URL, settings: ListenSettings, routes: Routes): Answer {
  const base = publicUrl.pathname.replace(/\/$/, "");
  const loopback = LOOPBACK.has(publicUrl.hostname);
  const hosts = new Set([publicUrl.host, ...settings.allowedHosts].map((host) => host.toLowerCase()));
  const origins = new Set([publicUrl.origin, ...settings.allowedOrigins].map((origin) => origin.toLowerCase()));
  const mcpPath = `${base}/mcp`;
  const metadataPaths = new Set([
    `/.well-known/oauth-protected-resource${mcpPath}`,
    `${base}/.well-known/oauth-protected-resource`,
    "/.well-known/oauth-protected-resource",
  ]);

  const hostAllowed = (host: string | undefined) => {
    if (host === undefined) return false;
    const lower = host.toLowerCase();
    return hosts.has(lower) || (loopback && isLoopback(lower));
  };
  const originAllowed = (origin: string | undefined) => {
    if (origin === undefined) return true;
    const lower = origin.toLowerCase();
    if (origins.has(lower)) return true;
    return loopback && URL.canParse(lower) && LOOPBACK.has(new URL(lower).hostname);
  };

  return async (request, response) => {
    const { origin, host } = request.headers;
    const pathname = pathOf(request.url);
    const path = base !== "" && pathname.startsWith(`${base}/`) ? pathname.slice(base.length) : pathname;
    try {
      // Probes come by address; what they learn is a word.
      if (path === "/health" || path === "/livez") return sendJson(request, response, 200, routes.health());
      if (path === "/ready" || path === "/readyz") {
        const { ok, body } = routes.ready();
        return sendJson(request, response, ok ? 200 : 503, body);
      }
      // Asked by its address, too, but not by any name: a page in a browser of this machine is local as well.
      if (
        path === "/metrics" &&
        (settings.metrics === "open" || (isLocal(request) && (isLoopback(host) || hostAllowed(host))))
      )
        return await sendMetrics(request, response, routes.metrics);
      if (!hostAllowed(host))
        throw new DrawbridgeError("wrong_host", "This host name is not served here. Use the gateway's public URL.");
      if (pathname === mcpPath || pathname === `${mcpPath}/`) {
        if (!originAllowed(origin))
          throw new DrawbridgeError(
            "wrong_origin",
            "Pages of this origin may not call the gateway. Add it to listen.allowedOrigins.",
          );
        if (origin !== undefined) allowOrigin(response, origin);
        if (request.method === "OPTIONS") return preflight(request, response);
        return await routes.mcp(request, response, pathname);
      }
      if (metadataPaths.has(pathname)) {
        response.setHeader("access-control-allow-origin", "*");
        if (request.method === "OPTIONS") return preflight(request, response);
        return sendJson(request, response, 200, routes.resourceMetadata(), "public, max-age=300");
      }
      if (path === "/" && request.method === "GET") {
        response.writeHead(303, { location: `${base}/account`, "content-length": 0 }).end();
        return;
      }
      if (routes.oauth.owns(pathname)) return await routes.oauth.answer(request, response, pathname);
      if (path.startsWith("/admin")) return await routes.admin(request, response, path);
      throw new DrawbridgeError(
        "not_found",
        `Nothing is served at ${pathname.slice(0, 200)}. The MCP endpoint is ${mcpPath}.`,
      );
    } catch (thrown) {
      sendError(response, DrawbridgeError.from(thrown), undefined);
    }
  };
}

function pathOf(url: string | undefined): string {
  const target = url ?? "/";
  const end = target.indexOf("?");
  return end < 0 ? target : target.slice(0, end);
}

function allowOrigin(response: ServerResponse, origin: string): void {
  // No credentials are ever taken from cookies here, so none are allowed across origins.
  response.setHeader("access-control-allow-origin", origin);
  response.setHeader("vary", "origin");
  response.setHeader("access-control-expose-headers", CORS_RESPONSE_HEADERS);
}

function preflight(request: IncomingMessage, response: ServerResponse): void {
  // 2026-07-28 lets tools name headers of their own, `Mcp-Param-…`, which no list can foresee.
  const asked = String(request.headers["access-control-request-headers"] ?? "")
    .toLowerCase()
    .split(",");
  const own = asked.map((name) => name.trim()).filter((name) => /^mcp-param-[a-z0-9-]{1,100}$/.test(name));
  response
    .writeHead(204, {
      "access-control-allow-methods": "POST, GET, DELETE, OPTIONS",
      "access-control-allow-headers": [...CORS_REQUEST_HEADERS, ...own].join(", "),
      "access-control-max-age": "600",
    })
    .end();
}

function isLoopback(host: string | undefined): boolean {
  return host !== undefined && LOOPBACK.has(host.toLowerCase().replace(/:\d+$/, ""));
}

/** From this machine, and not handed on by a proxy. */
function isLocal(request: IncomingMessage): boolean {
  const address = request.socket.remoteAddress ?? "";
  const { forwarded, via } = request.headers;
  return (
    /^(127\.|::1$|::ffff:127\.)/.test(address) && (forwarded ?? via ?? request.headers["x-forwarded-for"]) === undefined
  );
}

function sendJson(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  body: object,
  cacheControl = "no-store",
): void {
  if (request.method !== "GET" && request.method !== "HEAD")
    throw new DrawbridgeError("method_not_allowed", "Use GET.");
  const text = JSON.stringify(body);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "cache-control": cacheControl,
  });
  response.end(request.method === "HEAD" ? undefined : text);
}

async function sendMetrics(
  request: IncomingMessage,
  response: ServerResponse,
  metrics: (openMetrics: boolean) => Promise<string>,
): Promise<void> {
  const open = wantsOpenMetrics(request.headers.accept);
  const text = await metrics(open);
  response.writeHead(200, {
    "content-type": open ? OPEN_METRICS : "text/plain; version=0.0.4; charset=utf-8",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
  });
  response.end(text);
}
