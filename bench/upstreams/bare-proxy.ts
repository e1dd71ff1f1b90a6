/** The least a gateway written in TypeScript could cost: node:http in front, undici's `dispatch` behind, bytes passed on unread. */
import http from "node:http";
import { type Dispatcher, Pool } from "undici";

const HOP_HEADERS = new Set([
  "connection",
  "keep-alive",
  "transfer-encoding",
  "host",
  "content-length",
  "upgrade",
  "te",
]);
const pool = new Pool(process.env["UPSTREAM"] ?? "", { connections: 256, pipelining: 1 });

function forwarded(headers: http.IncomingHttpHeaders): http.IncomingHttpHeaders {
  const kept: http.IncomingHttpHeaders = {};
  for (const name in headers) if (!HOP_HEADERS.has(name)) kept[name] = headers[name];
  return kept;
}

/** Writes an upstream's answer out as it comes. */
class Relay implements Dispatcher.DispatchHandler {
  readonly #response: http.ServerResponse;

  constructor(response: http.ServerResponse) {
    this.#response = response;
  }

  onRequestStart(): void {}

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: http.IncomingHttpHeaders): void {
    const length = headers["content-length"];
    this.#response.writeHead(status, {
      ...forwarded(headers),
      ...(length === undefined ? {} : { "content-length": length }),
    });
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#response.write(chunk);
  }

  onResponseEnd(): void {
    this.#response.end();
  }

  onResponseError(): void {
    if (!this.#response.headersSent) this.#response.writeHead(502);
    this.#response.end();
  }
}

const server = http.createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    const body = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    pool.dispatch(
      {
        path: request.url ?? "/",
        method: (request.method ?? "POST") as Dispatcher.HttpMethod,
        headers: forwarded(request.headers),
        body: body ?? null,
      },
      new Relay(response),
    );
  });
});
server.keepAliveTimeout = 120_000;
server.listen(Number(process.env["PORT"]), "127.0.0.1", 8192);
process.on("SIGTERM", () => process.exit(0));
