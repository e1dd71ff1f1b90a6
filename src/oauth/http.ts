/** One request of a browser or client, with what is read from it and how it is answered. */
import { IncomingMessage, type ServerResponse } from "node:http";
import { DrawbridgeError } from "../core/errors.ts";

/** One request on its way through the authorization server. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Path below the issuer, e.g. `/oauth/token`. */
  readonly path: string;
  readonly query: URLSearchParams;
  /** Network address that the request came from, behind proxies too. */
  readonly source: string;
}

/** Where the server is, as configured: nothing is ever taken from a Host header. */
export interface Place {
  /** RFC 8414 issuer: the public URL without a slash at its end. */
  readonly issuer: string;
  /** RFC 8707 resource identifier of the MCP endpoint. */
  readonly resource: string;
  readonly host: string;
  /** Path of the issuer, without a slash at its end; empty for a whole host. */
  readonly prefix: string;
  readonly secure: boolean;
}

export function placeOf(publicUrl: URL): Place {
  const prefix = publicUrl.pathname.replace(/\/+$/, "");
  const issuer = `${publicUrl.origin}${prefix}`;
  return { issuer, resource: `${issuer}/mcp`, host: publicUrl.host, prefix, secure: publicUrl.protocol === "https:" };
}

/** Reads a whole body. Throws `body_too_large` without reading on. */
export async function readBody(request: IncomingMessage, maxBytes = 32_768): Promise<Buffer> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > maxBytes)
      throw new DrawbridgeError("body_too_large", `A request body here has at most ${maxBytes} bytes.`);
    parts.push(part);
  }
  return Buffer.concat(parts);
}

/** Reads a form. Throws `unsupported_media_type` for anything else. */
export async function readForm(request: IncomingMessage): Promise<URLSearchParams> {
  if (!/^application\/x-www-form-urlencoded *(?:;|$)/i.test(request.headers["content-type"] ?? "")) {
    throw new DrawbridgeError("unsupported_media_type", "Send this as application/x-www-form-urlencoded.");
  }
  return new URLSearchParams((await readBody(request)).toString("utf8"));
}

/**
 * A copy of the request for `oidc-provider`, which builds its URLs from the Host header and reads the body itself: with the
 * configured origin, another URL and, where given, a body that was read and put right before.
 */
export function replay(exchange: Exchange, place: Place, url: string, body?: Buffer): IncomingMessage {
  const { request } = exchange;
  const copy = new IncomingMessage(request.socket);
  const { "x-forwarded-host": _host, "x-forwarded-for": _for, origin: _origin, ...headers } = request.headers;
  copy.method = request.method ?? "GET";
  copy.url = url;
  copy.httpVersion = request.httpVersion;
  copy.headers = { ...headers, host: place.host, "x-forwarded-proto": place.secure ? "https" : "http" };
  Object.assign(copy, { originalUrl: `${place.prefix}${url}`, baseUrl: place.prefix, source: exchange.source });
  if (body !== undefined) {
    delete copy.headers["transfer-encoding"];
    copy.headers["content-length"] = String(body.length);
    copy.push(body);
  }
  copy.push(null);
  copy.complete = true;
  return copy;
}

export function answerJson(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, {
    "content-type": "application/json; charset=utf-8",
    "cache-control": "no-store",
    ...headers,
  });
  response.end(JSON.stringify(body));
}

/** After a POST the browser must come back with a GET, without the form (RFC 9700 §4.12: 303, never 307). */
export function seeOther(response: ServerResponse, location: string): void {
  response.writeHead(303, { location, "cache-control": "no-store", "referrer-policy": "no-referrer" }).end();
}
