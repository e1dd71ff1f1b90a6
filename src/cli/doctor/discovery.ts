/** From the challenge to whoever issues tokens: protected resource metadata (RFC 9728), authorization server metadata (RFC 8414). */
import { DrawbridgeError } from "../../core/errors.ts";
import type { Challenge } from "./challenge.ts";
import type { Note } from "./examination.ts";
import { documentAt, type Http, LOOPBACK, strings, urlProblem } from "./http.ts";

export interface Resource {
  /** What tokens are asked for (RFC 8707). */
  readonly resource: string;
  readonly issuer: string;
  readonly scopes: readonly string[];
}

/** An authorization server as its document describes it; every address in it may be asked. */
export interface Server {
  readonly issuer: string;
  readonly authorization: string;
  readonly token: string;
  readonly registration: string | undefined;
  readonly revocation: string | undefined;
  /** Takes clients by the URL of their metadata document. */
  readonly documents: boolean;
  /** Says who it is in every answer (RFC 9207). */
  readonly namesItself: boolean;
  readonly scopes: readonly string[];
  readonly clientAuthentication: readonly string[] | undefined;
}

/** Reads the resource's document from where the challenge says, and from the places that clients guess. */
export async function findResource(
  http: Http,
  url: URL,
  { resourceMetadata }: Challenge,
  note: Note,
): Promise<Resource | undefined> {
  const path = url.pathname.replace(/\/$/, "");
  const guessed = [...new Set([`${url.origin}${WELL_KNOWN}${path}`, `${url.origin}${WELL_KNOWN}`])];
  const named = resourceMetadata === undefined ? undefined : metadataUrl(resourceMetadata, http.local, note);
  const found = new Map<string, Record<string, unknown>>();
  for (const place of new Set([...(named === undefined ? [] : [named]), ...guessed])) {
    const answer = await documentAt(http, place);
    if ("value" in answer) found.set(place, answer.value);
    else if (place === named)
      note.fail(
        "named-metadata",
        `The document that WWW-Authenticate names ${answer.problem}: ${place}`,
        "Serve it there as application/json, or name where it is.",
      );
    else if (place === guessed[0])
      note.warn(
        "well-known-metadata",
        `${place} ${answer.problem}`,
        "Clients that do not read WWW-Authenticate look there (RFC 9728 §3.1). A proxy must hand /.well-known/ on, too.",
      );
  }
  const [place, document] = (named === undefined ? undefined : entryOf(found, named)) ?? [...found][0] ?? [];
  if (place === undefined || document === undefined) {
    note.fail(
      "no-metadata",
      "There is no protected resource metadata",
      `Serve ${guessed[0]} (RFC 9728), with resource ${url.href} and authorization_servers.`,
    );
    // Clients of 2025-03-26 took the server itself for its authorization server.
    return { resource: url.href, issuer: url.origin, scopes: [] };
  }
  note.ok("metadata", place);
  if (
    new Set([...found.values()].map((one) => JSON.stringify([one["resource"], one["authorization_servers"]]))).size > 1
  )
    note.warn(
      "metadata-disagrees",
      "The document differs between its places",
      "Clients read one or the other; both should say the same, or the root should have none.",
    );
  const resource = resourceOf(document, url, note);
  const issuer = issuerOf(document, http.local, note);
  const methods = document["bearer_methods_supported"];
  if (methods !== undefined && !strings(methods).includes("header"))
    note.fail(
      "no-header-method",
      "bearer_methods_supported leaves out `header`",
      "MCP clients send tokens in the Authorization header and nowhere else.",
    );
  return issuer === undefined ? undefined : { resource, issuer, scopes: strings(document["scopes_supported"]) };
}

const WELL_KNOWN = "/.well-known/oauth-protected-resource";

function metadataUrl(text: string, local: boolean, note: Note): string | undefined {
  const problem = urlProblem(text, local);
  if (problem === undefined) return new URL(text).href;
  note.fail("metadata-url", `resource_metadata ${problem}`, "It must be the https URL of the document.");
  return undefined;
}

function entryOf<V>(map: ReadonlyMap<string, V>, key: string): [string, V] | undefined {
  const value = map.get(key);
  return value === undefined ? undefined : [key, value];
}

/** RFC 9728 §3.3: a document about another resource is thrown away, or a token for it ends in the wrong hands (CVE-2026-54030). */
function resourceOf(document: Record<string, unknown>, url: URL, note: Note): string {
  const given = document["resource"];
  if (typeof given !== "string" || !URL.canParse(given)) {
    note.fail("resource-missing", "The document names no resource", `Its \`resource\` must be ${url.href}.`);
    return url.href;
  }
  const parsed = new URL(given);
  const plain = (one: URL) => one.href.replace(/\/$/, "");
  if (given === url.href || parsed.href === url.href) {
    note.ok("resource", `resource is ${given}`);
  } else if (plain(parsed) === plain(url)) {
    note.warn(
      "resource-slash",
      `resource is ${given}, which differs by a slash from ${url.href}`,
      "Strict clients compare letter by letter. Use one spelling everywhere.",
    );
  } else if (parsed.origin === url.origin && `${url.pathname}/`.startsWith(parsed.pathname.replace(/\/?$/, "/"))) {
    note.warn(
      "resource-parent",
      `resource is ${given}, above ${url.href}`,
      "The official SDKs accept that; clients that follow RFC 9728 §3.3 to the letter do not.",
    );
  } else {
    const proxied = parsed.pathname === url.pathname || parsed.hostname === url.hostname;
    note.fail(
      "resource-differs",
      `resource is ${given}, not ${url.href}`,
      `Clients throw such a document away: tokens would be for another server. ${proxied ? "Behind a proxy, set the server's public URL to the one that clients use." : "Give clients the URL that it names."}`,
    );
  }
  return given;
}

function issuerOf(document: Record<string, unknown>, local: boolean, note: Note): string | undefined {
  const given = document["authorization_servers"];
  const issuers = strings(given);
  const [issuer] = issuers;
  if (issuer === undefined) {
    note.fail(
      "no-authorization-server",
      given === undefined ? "The document has no authorization_servers" : "authorization_servers names none",
      "It must list the issuer URL of at least one authorization server.",
    );
    return undefined;
  }
  const problem = urlProblem(issuer, local);
  if (problem !== undefined) {
    note.fail(
      "issuer-url",
      `The authorization server ${problem}`,
      "An issuer is an https URL without query and fragment (RFC 8414 §2).",
    );
    return undefined;
  }
  note.ok(
    "authorization-server",
    `Tokens come from ${issuer}${issuers.length > 1 ? ` (the first of ${issuers.length})` : ""}`,
  );
  return issuer;
}

/** Reads the authorization server's document in the order clients try its places (MCP 2025-11-25, Authorization Server Metadata Discovery). */
export async function readServer(
  http: Http,
  { issuer, scopes }: Resource,
  challenge: Challenge,
  note: Note,
): Promise<Server | undefined> {
  const { origin, pathname } = new URL(issuer);
  const path = pathname.replace(/\/$/, "");
  const places = [
    `${origin}/.well-known/oauth-authorization-server${path}`,
    `${origin}/.well-known/openid-configuration${path}`,
    ...(path === "" ? [] : [`${origin}${path}/.well-known/openid-configuration`]),
  ];
  const problems: string[] = [];
  for (const place of places) {
    const answer = await documentAt(http, place);
    if ("problem" in answer) {
      problems.push(`${place} ${answer.problem}`);
      continue;
    }
    note.ok("server-metadata", place);
    if (problems.length > 0 && path !== "")
      note.warn(
        "metadata-place",
        problems.join("; "),
        "Older clients try only the first place. Serve the document there, too.",
      );
    return serverOf(answer.value, issuer, [challenge.scope?.split(" ") ?? [], scopes], http.local, note);
  }
  note.fail(
    "no-server-metadata",
    `There is no metadata of the authorization server: ${problems.join("; ")}`,
    "Serve the first of these (RFC 8414). A proxy must hand /.well-known/ on, too.",
  );
  return undefined;
}

function serverOf(
  document: Record<string, unknown>,
  issuer: string,
  wanted: readonly (readonly string[])[],
  local: boolean,
  note: Note,
): Server | undefined {
  const given = document["issuer"];
  if (given === issuer) note.ok("issuer", `issuer is ${issuer}`);
  else if (typeof given === "string" && given.replace(/\/$/, "") === issuer.replace(/\/$/, ""))
    note.fail(
      "issuer-slash",
      `issuer is ${given}, and the resource's document writes ${issuer}`,
      "They must be the same letter by letter (RFC 8414 §3.3): remove or add the slash in one of them.",
    );
  else
    note.fail(
      "issuer-differs",
      `issuer is ${typeof given === "string" ? given : "missing"}, not ${issuer}`,
      "Clients refuse such a document: it could be another server's (RFC 8414 §3.3). Set the public URL of the authorization server.",
    );

  const endpoint = (name: string, needed: boolean): string | undefined => {
    const value = document[name];
    if (value === undefined && !needed) return undefined;
    const problem = urlProblem(value, local);
    if (problem === undefined) return String(value);
    note.fail(
      `${name.replaceAll("_", "-")}-url`,
      `${name} ${problem}`,
      "It must be an https URL. Nothing else was done with it.",
    );
    return undefined;
  };
  const authorization = endpoint("authorization_endpoint", true);
  const token = endpoint("token_endpoint", true);
  const registration = endpoint("registration_endpoint", false);
  const revocation = endpoint("revocation_endpoint", false);

  const methods = document["code_challenge_methods_supported"];
  if (strings(methods).includes("S256")) note.ok("pkce", "PKCE with S256");
  else
    note.fail(
      "no-s256",
      methods === undefined ? "The document does not say that PKCE is supported" : "PKCE is offered without S256",
      'MCP clients must refuse to go on. Add code_challenge_methods_supported: ["S256"].',
    );
  if (!strings(document["response_types_supported"]).includes("code"))
    note.fail(
      "no-code",
      "response_types_supported does not name code",
      "MCP uses the authorization code flow; say so (RFC 8414 §2).",
    );
  const grants = document["grant_types_supported"];
  if (grants !== undefined && !strings(grants).includes("authorization_code"))
    note.fail(
      "no-code-grant",
      "grant_types_supported does not name authorization_code",
      "MCP uses the authorization code flow; say so (RFC 8414 §2).",
    );
  const namesItself = document["authorization_response_iss_parameter_supported"] === true;
  if (namesItself) note.ok("iss", "Its answers say who they are from (RFC 9207)");
  else
    note.warn(
      "no-iss",
      "Its answers do not say who they are from",
      "Clients of several servers cannot tell an answer that was swapped (RFC 9207). Newer clients will insist.",
    );
  const scopes = strings(document["scopes_supported"]);
  const missing = [...new Set(wanted.flat())].filter((scope) => scope !== "" && !scopes.includes(scope));
  if (scopes.length > 0 && missing.length > 0)
    note.warn(
      "scope-unknown",
      `The resource wants ${missing.join(" ")}, which the authorization server does not list`,
      "It may refuse to give it (invalid_scope). Make both lists agree.",
    );
  for (const address of [authorization, token])
    if (address !== undefined && new URL(address).origin !== new URL(issuer).origin)
      note.ok("other-origin", `${new URL(address).origin} does a part of it`);

  if (authorization === undefined || token === undefined) return undefined;
  const methodsOfClients = document["token_endpoint_auth_methods_supported"];
  return {
    issuer,
    authorization,
    token,
    registration,
    revocation,
    documents: document["client_id_metadata_document_supported"] === true,
    namesItself,
    scopes,
    clientAuthentication: methodsOfClients === undefined ? undefined : strings(methodsOfClients),
  };
}

/** Preflights (Fetch Standard §4.8) and headers, as the browser of a web client would see them. */
export async function tryFromBrowser(
  http: Http,
  url: URL,
  resource: Resource | undefined,
  server: Server | undefined,
  origin: string,
  note: Note,
): Promise<true> {
  try {
    await tryEndpoint(http, url, origin, note);
    if (resource !== undefined) {
      const place = `${url.origin}${WELL_KNOWN}${url.pathname.replace(/\/$/, "")}`;
      await mayRead(http, place, "the resource's metadata", origin, note);
      const path = new URL(resource.issuer).pathname.replace(/\/$/, "");
      const { origin: at } = new URL(resource.issuer);
      await mayRead(
        http,
        `${at}/.well-known/oauth-authorization-server${path}`,
        "the authorization server's metadata",
        origin,
        note,
      );
    }
    if (server !== undefined) {
      const init = { method: "OPTIONS", headers: { origin, "access-control-request-method": "POST" } };
      const { headers } = await http.send(server.token, init);
      if (allows(headers, origin)) note.ok("token-cors", "A web page may use the token endpoint");
      else note.warn("token-cors", "A web page may not use the token endpoint", CORS_ADVICE);
    }
  } catch (thrown) {
    const { message } = DrawbridgeError.from(thrown);
    note.warn("cors", `What a browser would ask first is not answered: ${message}`, CORS_ADVICE);
  }
  return true;
}

const CORS_ADVICE = "Only clients that run in a browser need it: send Access-Control-Allow-Origin.";

async function tryEndpoint(http: Http, url: URL, origin: string, note: Note): Promise<void> {
  const wanted = ["authorization", "content-type", "mcp-protocol-version"];
  const { headers, status } = await http.send(url, {
    method: "OPTIONS",
    headers: { origin, "access-control-request-method": "POST", "access-control-request-headers": wanted.join(",") },
  });
  const credentials = headers.get("access-control-allow-credentials") === "true";
  if (credentials && allows(headers, origin) && !LOOPBACK.has(new URL(origin).hostname))
    note.fail(
      "cors-credentials",
      "Pages of any origin may call the server with the cookies of their visitor",
      "Leave Access-Control-Allow-Credentials out: tokens are sent in a header.",
    );
  if (!allows(headers, origin)) {
    note.warn(
      "cors",
      `A web page of ${origin} may not call the server (${status})`,
      "Only clients that run in a browser need it. In Drawbridge: listen.allowedOrigins.",
    );
    return;
  }
  const may = (headers.get("access-control-allow-headers") ?? "").toLowerCase().split(/[\s,]+/);
  const missing = wanted.filter((name) => !may.includes(name) && !(may.includes("*") && name !== "authorization"));
  if (missing.length > 0)
    note.warn(
      "cors-headers",
      `A web page may not send ${missing.join(", ")}`,
      "Name them in Access-Control-Allow-Headers.",
    );
  else note.ok("cors", `A web page of ${origin} may call the server`);
}

async function mayRead(http: Http, place: string, what: string, origin: string, note: Note): Promise<void> {
  const { status, headers } = await http.send(place, { headers: { origin } });
  if (status === 200 && !allows(headers, origin))
    note.warn("metadata-cors", `A web page may not read ${what}`, CORS_ADVICE);
}

function allows(headers: Headers, origin: string): boolean {
  const allowed = headers.get("access-control-allow-origin");
  return allowed === "*" || allowed === origin;
}
