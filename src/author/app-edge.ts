/**
 * The HTTP edge inside somebody's app, in place of a port of our own: which requests are ours, and that each of them is whole when the
 * gateway gets it, whatever the app did to it before.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { DrawbridgeError } from "../core/errors.ts";
import { sendError } from "../gateway/exchange.ts";
import type { Listener } from "../gateway/listener.ts";
import type { Answer } from "../gateway/routes.ts";
import { wholeRequest } from "./consumed-body.ts";
import type { Mounted } from "./mounted.ts";
import { openWebExchange } from "./web-exchange.ts";

export interface AppEdge extends Pick<Mounted, "path" | "documents" | "owns" | "node" | "fetch"> {
  readonly listener: Listener;
}

/** `bodyMs`: how long a request may take to arrive. */
export function openAppEdge({ origin, pathname }: URL, bodyMs: number): AppEdge {
  // RFC 9728 §3.1 and RFC 8414 §3.1: the path goes behind the well-known one, of the resource and of the issuer.
  const documents = [
    `/.well-known/oauth-protected-resource${pathname}/mcp`,
    `/.well-known/oauth-authorization-server${pathname}`,
    `/.well-known/openid-configuration${pathname}`,
  ];
  const owned = new Set([pathname, ...documents]);
  const open = new Set<ServerResponse>();
  let answer: Answer | undefined;
  let closing = false;
  let emptied: (() => void) | undefined;

  const owns: AppEdge["owns"] = (url) => {
    const path = pathOf(url);
    return owned.has(path) || path.startsWith(`${pathname}/`);
  };

  const node: AppEdge["node"] = (request, response, next) => {
    // Express takes the path of a router off `url` and keeps the whole one here.
    const { originalUrl } = request as { readonly originalUrl?: unknown };
    const url = typeof originalUrl === "string" ? originalUrl : request.url;
    if (!owns(url)) {
      if (next !== undefined) return next();
      return sendError(response, new DrawbridgeError("not_found", "Nothing is served here."), undefined);
    }
    take(request, response, url ?? "");
  };

  const take = (request: IncomingMessage, response: ServerResponse, url: string): void => {
    open.add(response);
    const late = setTimeout(() => {
      if (!request.complete) request.destroy();
    }, bodyMs);
    response.on("error", () => {});
    response.once("close", () => {
      clearTimeout(late);
      open.delete(response);
      if (open.size === 0) emptied?.();
    });
    try {
      if (closing || answer === undefined)
        throw new DrawbridgeError("overloaded", "This server is stopping, or not up yet.", { retryAfterSeconds: 5 });
      request.url = url;
      Promise.resolve(answer(wholeRequest(request), response, "")).catch(() => response.destroy());
    } catch (thrown) {
      sendError(response, DrawbridgeError.from(thrown), undefined);
    }
  };

  const web = openWebExchange((request, response) => node(request, response));
  return {
    path: pathname,
    documents,
    owns,
    node,
    fetch: web.fetch,
    listener: {
      url: origin,
      answer(handler) {
        answer = handler;
      },
      async close(graceMs) {
        closing = true;
        if (open.size > 0) {
          const { promise, resolve } = Promise.withResolvers<void>();
          emptied = resolve;
          const cut = setTimeout(() => {
            for (const response of open) response.destroy();
            resolve();
          }, graceMs);
          await promise;
          clearTimeout(cut);
        }
        web.close();
      },
    },
  };
}

function pathOf(url = ""): string {
  if (!url.startsWith("/")) return URL.canParse(url) ? new URL(url).pathname : "";
  const end = url.search(/[?#]/);
  return end < 0 ? url : url.slice(0, end);
}
