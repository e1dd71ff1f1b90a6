/**
 * A handler of `node:http` behind the web's `fetch`: each request is one HTTP/1.1 exchange over a pair of streams in memory, so that
 * Node's own parsers do what they do on a socket: framing, streaming, back-pressure, and telling when somebody has gone.
 */
import { createServer, type IncomingMessage, request as outgoingRequest, type ServerResponse } from "node:http";
import { duplexPair, Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

export interface WebExchange {
  fetch(request: Request, client?: { readonly address?: string | undefined }): Promise<Response>;
  /** Cuts what is still open. */
  close(): void;
}

const MAX_HEADER_BYTES = 16 * 1024;
/** Of one connection and its framing (RFC 9110 §7.6.1), and there is another connection here. */
const HOP_BY_HOP = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);
/** Statuses whose answers have no body (Fetch, null body status). */
const NO_BODY = new Set([204, 205, 304]);

export function openWebExchange(handler: (request: IncomingMessage, response: ServerResponse) => void): WebExchange {
  const server = createServer({ maxHeaderSize: MAX_HEADER_BYTES, keepAlive: false }, handler);
  return {
    async fetch(request, { address } = {}) {
      const [near, far] = duplexPair();
      Object.defineProperty(far, "remoteAddress", { value: address });
      // Either end may go first; what was written before that still arrives.
      near.once("close", () => far.destroy());
      far.once("close", () => {
        if (!far.writableFinished) near.destroy();
      });
      server.emit("connection", far);

      const { pathname, search, host } = new URL(request.url);
      const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
      const outgoing = outgoingRequest({
        createConnection: () => near,
        method: request.method,
        path: `${pathname}${search}`,
        setHost: false,
        headers: {
          ...Object.fromEntries([...request.headers].filter(([name]) => !HOP_BY_HOP.has(name))),
          host: request.headers.get("host") ?? host,
          connection: "close",
        },
        signal: request.signal,
        maxHeaderSize: MAX_HEADER_BYTES,
      });
      outgoing.once("response", resolve);
      outgoing.on("error", reject);
      // How long a body may take is counted from its head on.
      outgoing.flushHeaders();
      if (request.body === null) outgoing.end();
      // An answer may come before the whole body was read; then the rest of it is nobody's business.
      else pipeline(Readable.fromWeb(request.body as never), outgoing).catch(reject);
      return responseOf(await promise, request.method);
    },
    close: () => server.closeAllConnections(),
  };
}

function responseOf(incoming: IncomingMessage, method: string): Response {
  const status = incoming.statusCode ?? 500;
  const headers = new Headers();
  const { rawHeaders } = incoming;
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? "";
    if (!HOP_BY_HOP.has(name.toLowerCase()) || name.toLowerCase() === "content-length")
      headers.append(name, rawHeaders[at + 1] ?? "");
  }
  if (method === "HEAD" || NO_BODY.has(status)) {
    incoming.on("error", () => {}).resume();
    return new Response(null, { status, headers });
  }
  return new Response(Readable.toWeb(incoming) as unknown as ReadableStream<Uint8Array>, { status, headers });
}
