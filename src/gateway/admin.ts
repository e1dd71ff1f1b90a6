/** What an operator may see over HTTP: the state of the upstreams and of what is withheld, for the group `owner` alone. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { DrawbridgeError } from "../core/errors.ts";
import type { Parts } from "./parts.ts";

/** Answers `/admin/…`. Throws `unauthenticated`, `not_found`. */
export async function answerAdmin(
  parts: Parts,
  request: IncomingMessage,
  response: ServerResponse,
  path: string,
): Promise<void> {
  const token = /^Bearer ([A-Za-z0-9._~+/-]+=*)$/i.exec(request.headers.authorization ?? "")?.[1];
  if (token === undefined) throw new DrawbridgeError("unauthenticated", "An access token of an owner is needed.");
  const by = await parts.verify(token);
  // Whoever is not an owner learns nothing, not even what there is.
  if (!by.groups.includes("owner") || request.method !== "GET") throw notFound(path);
  if (path !== "/admin/servers") throw notFound(path);
  const body = JSON.stringify({
    // What a server wrote to its stderr may hold anything, secrets too; it is in the log, for those who may read that.
    servers: [...parts.upstreams.values()].map((upstream) => ({
      name: upstream.name,
      ...upstream.state(),
      stderr: undefined,
    })),
    withheld: parts.catalogue.withheld(),
  });
  response.writeHead(200, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    "cache-control": "no-store",
  });
  response.end(body);
}

function notFound(path: string): DrawbridgeError {
  return new DrawbridgeError("not_found", `Nothing is served at ${path.slice(0, 200)}.`);
}
