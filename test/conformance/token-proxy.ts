/** The suite cannot sign in: this stands before the gateway, on loopback, and puts a token into each request. Streams pass as they come. */
import { createServer, request as send } from "node:http";
import { listen, stop } from "../oauth/support.ts";

export interface TokenProxy extends AsyncDisposable {
  /** Where the gateway's MCP endpoint is for those without a token. */
  readonly url: string;
}

/** `target`: the gateway's MCP endpoint. A Host or Origin that is not this proxy's own reaches the gateway as it is. */
export async function tokenProxy(target: string, token: string): Promise<TokenProxy> {
  const { host, hostname, port, pathname } = new URL(target);
  const server = createServer((request, response) => {
    const own = request.socket.localPort;
    const named = (value: string | undefined) => value?.replace(`:${own}`, `:${port}`);
    const headers = { ...request.headers, host: named(request.headers.host), authorization: `Bearer ${token}` };
    if (request.headers.origin !== undefined) headers.origin = named(request.headers.origin);
    const onward = send({ host: hostname, port, method: request.method, path: request.url, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      response.flushHeaders();
      answer.pipe(response);
      answer.on("error", () => response.destroy());
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  const at = await listen(server);
  return { url: `http://${host.replace(`:${port}`, `:${at}`)}${pathname}`, [Symbol.asyncDispose]: () => stop(server) };
}
