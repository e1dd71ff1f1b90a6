/** How the doctor introduces itself: by the URL of a metadata document, by registration (RFC 7591), or as a client known before. */
import { Secret } from "../../core/secret.ts";
import type { Server } from "./discovery.ts";
import type { Note } from "./examination.ts";
import { documentAt, type Http, LOOPBACK, parsed, strings } from "./http.ts";

export interface Client {
  readonly id: string;
  readonly secret: Secret | undefined;
  /** It proves who it is in the body instead of by the Authorization header (RFC 6749 §2.3.1). */
  readonly inBody: boolean;
  /** How to take a registration back (RFC 7592 §2.3). */
  readonly remove?: { readonly url: string; readonly token: Secret };
}

export interface Introduction {
  readonly clientId: string | undefined;
  readonly secret: Secret | undefined;
  /** Register a client for this examination. */
  readonly register: boolean;
  readonly redirect: string;
}

/** Says what ways there are, and takes the one that was asked for. Undefined: nobody was introduced. */
export async function introduce(
  http: Http,
  server: Server,
  { clientId, secret, register, redirect }: Introduction,
  note: Note,
): Promise<Client | undefined> {
  if (server.documents)
    note.ok("documents", "A client may bring a metadata document (its client id is the document's URL)");
  if (server.registration !== undefined)
    note.ok("registration", `A client may register itself at ${server.registration}`);
  if (clientId !== undefined) {
    if (/^https?:/i.test(clientId)) await readDocument(http, server, clientId, redirect, note);
    return { id: clientId, secret, inBody: inBody(server) };
  }
  if (!server.documents && server.registration === undefined) {
    note.fail(
      "no-introduction",
      "New clients cannot introduce themselves: neither metadata documents nor registration are offered",
      "Most MCP clients stop here. Switch on client ID metadata documents, or give clients an id that the server's operator made (--client-id).",
    );
    return undefined;
  }
  const usable = server.clientAuthentication;
  if (usable !== undefined && !usable.includes("none"))
    note.warn(
      "no-public-clients",
      "token_endpoint_auth_methods_supported does not name none",
      "Programs on a user's machine keep no secrets; most MCP clients are of that kind.",
    );
  if (!server.documents)
    note.warn(
      "no-documents",
      "Metadata documents are not taken",
      "Registration still works everywhere, but MCP has moved on from it (2026-07-28).",
    );
  if (!register) return undefined;
  if (server.registration === undefined) {
    note.fail(
      "no-registration",
      "Registration was asked for and is not offered",
      "Use --client-id with the URL of a client's metadata document.",
    );
    return undefined;
  }
  return registered(http, server, server.registration, redirect, note);
}

/** What the server will find when it reads the client's document, as far as it can be seen from here. */
async function readDocument(http: Http, server: Server, clientId: string, redirect: string, note: Note): Promise<void> {
  if (!server.documents) {
    note.fail(
      "documents-not-taken",
      "The client id is the URL of a document, and the server does not take those",
      "Switch on client ID metadata documents there, or use another client id.",
    );
    return;
  }
  const answer = await documentAt(http, clientId);
  if ("problem" in answer) {
    note.fail(
      "document",
      `The client's document ${answer.problem}: ${clientId}`,
      "The authorization server will refuse the client. Serve the document as application/json, without a redirect.",
    );
    return;
  }
  const { value } = answer;
  if (value["client_id"] === clientId) note.ok("document", "The client's document is there and its own");
  else
    note.fail(
      "document-client-id",
      `The client_id in the document is ${String(value["client_id"]).slice(0, 200)}, not the document's URL`,
      "They must be the same letter by letter.",
    );
  const known = strings(value["redirect_uris"]);
  if (!known.some((uri) => sameRedirect(uri, redirect)))
    note.fail(
      "document-redirect",
      `The document does not have ${redirect} among its redirect_uris`,
      `It has ${known.slice(0, 5).join(", ") || "none"}. Give one of them that is on this machine with --redirect.`,
    );
}

/** RFC 8252 §7.3: on loopback the port may be any. */
function sameRedirect(registered: string, redirect: string): boolean {
  const [a, b] = [URL.parse(registered), URL.parse(redirect)];
  if (a === null || b === null) return false;
  const samePort = a.port === b.port || (a.protocol === "http:" && LOOPBACK.has(a.hostname));
  return a.protocol === b.protocol && a.hostname === b.hostname && samePort && a.pathname === b.pathname;
}

function inBody(server: Server): boolean {
  const methods = server.clientAuthentication ?? ["client_secret_basic"];
  return !methods.includes("client_secret_basic") && methods.includes("client_secret_post");
}

async function registered(
  http: Http,
  server: Server,
  endpoint: string,
  redirect: string,
  note: Note,
): Promise<Client | undefined> {
  const answer = await http.send(endpoint, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify({
      client_name: "drawbridge doctor",
      redirect_uris: [redirect],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
      application_type: "native",
    }),
  });
  const { status, text } = answer;
  const body = parsed(text) ?? {};
  if (status === 401 || status === 403) {
    note.fail(
      "registration-closed",
      `${status}: registration asks for a token of its own`,
      "Registration is not open to everyone here; clients need a metadata document or an id from the operator.",
    );
    return undefined;
  }
  if (status === 429) {
    note.fail(
      "registration-limited",
      "429: too many registrations",
      "Wait, then try again; or use a metadata document.",
    );
    return undefined;
  }
  const id = body["client_id"];
  if (status < 200 || status > 299 || typeof id !== "string" || id === "" || id.length > 1024) {
    const why = [body["error"], body["error_description"]].filter((one) => typeof one === "string").join(": ");
    note.fail(
      "registration-refused",
      `${status}: the registration was refused${why === "" ? " or is no JSON with a client_id" : ` (${why})`}`,
      "The client asked for a loopback redirect, code and refresh_token, and no secret: what every MCP client on a user's machine asks for.",
    );
    return undefined;
  }
  if (status === 201) note.ok("registered", `Registered as ${id}`);
  else
    note.warn(
      "registered",
      `Registered as ${id}, with status ${status}`,
      "It should be 201 (RFC 7591 §3.2.1); some clients insist.",
    );
  const redirects = body["redirect_uris"];
  if (redirects !== undefined && !strings(redirects).some((uri) => sameRedirect(uri, redirect)))
    note.fail(
      "redirects-changed",
      "The server registered other redirect_uris than those asked for",
      "The answer will go elsewhere, or be refused. It should refuse the registration instead.",
    );
  const secret = body["client_secret"];
  if (typeof secret === "string" && body["token_endpoint_auth_method"] !== "none")
    note.warn(
      "secret-given",
      "A secret was given to a client that asked for none",
      "A program on a user's machine cannot keep it. Honour token_endpoint_auth_method: none.",
    );
  const { registration_client_uri: manage, registration_access_token: token } = body;
  const mayRemove =
    typeof manage === "string" && typeof token === "string" && URL.parse(manage)?.origin === new URL(endpoint).origin;
  return {
    id,
    secret:
      typeof secret === "string" && body["token_endpoint_auth_method"] !== "none" ? new Secret(secret) : undefined,
    inBody: body["token_endpoint_auth_method"] === "client_secret_post" || inBody(server),
    ...(mayRemove && { remove: { url: manage, token: new Secret(token) } }),
  };
}
