/** The browser's part: the authorization request (OAuth 2.1 §4.1, RFC 7636, RFC 8707) and the answer that comes back to this machine. */
import { hash } from "node:crypto";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { DrawbridgeError } from "../../core/errors.ts";
import { newToken } from "../../core/ids.ts";
import { Secret } from "../../core/secret.ts";
import type { Client } from "./client.ts";
import type { Resource, Server } from "./discovery.ts";
import type { Note } from "./examination.ts";
import { type Http, parsed } from "./http.ts";

/** Waits on loopback for the browser to come back. */
export interface Landing {
  readonly redirect: string;
  /** What the browser brought; undefined when `signal` aborts first. */
  arrival(signal: AbortSignal): Promise<URLSearchParams | undefined>;
  close(): Promise<void>;
}

export interface Code {
  readonly code: Secret;
  readonly verifier: Secret;
  readonly redirect: string;
  readonly scope: string | undefined;
}

/** Listens at `wanted`, a loopback URI, or at a free port. */
export async function openLanding(wanted: URL | undefined): Promise<Landing> {
  const path = wanted?.pathname ?? "/callback";
  const host = wanted?.hostname ?? "127.0.0.1";
  let arrived = (_params: URLSearchParams): void => {};
  const landed = new Promise<URLSearchParams>((resolve) => {
    arrived = resolve;
  });
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://landing.invalid");
    const here = request.method === "GET" && pathname === path;
    const headers = { "content-type": "text/html; charset=utf-8", "cache-control": "no-store", connection: "close" };
    response.writeHead(here ? 200 : 404, headers).end(here ? LANDED : "");
    if (here) arrived(searchParams);
  });
  await listening(server, wanted?.port === undefined || wanted.port === "" ? 0 : Number(wanted.port), host);
  const { port } = server.address() as AddressInfo;
  return {
    redirect: `http://${host}:${port}${path}`,
    arrival: (signal) =>
      Promise.race([
        landed,
        new Promise<undefined>((resolve) => {
          if (signal.aborted) resolve(undefined);
          signal.addEventListener("abort", () => resolve(undefined), { once: true });
        }),
      ]),
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** Nothing of what arrived is shown: it is a stranger's. */
const LANDED =
  "<!doctype html><title>Drawbridge</title><p>That was the browser's part. You can close this page and go back to the terminal.";

async function listening(server: HttpServer, port: number, host: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) => {
      const message = `Port ${port} of ${host} cannot be listened on. Give another one with --redirect.`;
      reject(new DrawbridgeError("settings_invalid", message, { cause, detail: cause.message }));
    });
    server.listen(port, host.replace(/^\[|\]$/g, ""), resolve);
  });
}

export interface SignIn {
  readonly landing: Landing;
  /** Asked for instead of what the server names. */
  readonly scope: string | undefined;
  /** Shows the person where to go. */
  readonly show: (url: URL) => void | Promise<void>;
  /** Ends the waiting. */
  readonly signal: AbortSignal;
}

export async function authorize(
  http: Http,
  resource: Resource,
  server: Server,
  client: Client,
  asked: SignIn,
  note: Note,
): Promise<Code | undefined> {
  const { redirect } = asked.landing;
  const verifier = newToken();
  const state = newToken();
  const url = new URL(server.authorization);
  const params: Record<string, string | undefined> = {
    response_type: "code",
    client_id: client.id,
    redirect_uri: redirect,
    state,
    code_challenge: hash("sha256", verifier, "base64url"),
    code_challenge_method: "S256",
    scope: asked.scope,
    resource: resource.resource,
  };
  for (const [name, value] of Object.entries(params)) if (value !== undefined) url.searchParams.set(name, value);

  const early = await knock(http, url, redirect, note);
  if (early === "refused") return undefined;
  if (early === undefined) {
    note.ok("asked", "The request was taken; a person has to go on in a browser");
    await asked.show(url);
  }
  const arrived = early ?? (await asked.landing.arrival(asked.signal));
  if (arrived === undefined) {
    note.fail(
      "nobody-came",
      `Nobody came back to ${redirect}`,
      "The sign-in was not finished in time (--timeout), or the browser was sent elsewhere: look at the page it shows.",
    );
    return undefined;
  }
  const code = read(arrived, state, server, note);
  return code === undefined
    ? undefined
    : { code: new Secret(code), verifier: new Secret(verifier), redirect, scope: asked.scope };
}

/** Asks once without a browser: what is refused at once need not bother a person. */
async function knock(
  http: Http,
  url: URL,
  redirect: string,
  note: Note,
): Promise<URLSearchParams | "refused" | undefined> {
  const { status, headers, text } = await http.send(url, { headers: { accept: "text/html" } });
  const location = headers.get("location");
  if (status >= 300 && status < 400 && location !== null) {
    const to = URL.parse(location, url.href);
    return to !== null && `${to.origin}${to.pathname}` === redirect ? to.searchParams : undefined;
  }
  if (status < 400) return undefined;
  const { error, error_description: description } = parsed(text) ?? {};
  const said = [error, description].filter((one) => typeof one === "string").join(": ") || pageTitle(text);
  note.fail(
    "refused-at-once",
    `${status}: the authorization request is refused before anybody could sign in${said === "" ? "" : ` (${said})`}`,
    adviceFor(typeof error === "string" ? error : said),
  );
  return "refused";
}

function pageTitle(html: string): string {
  return (/<(?:h1|title)[^>]*>([^<]{1,200})</i.exec(html)?.[1] ?? "").trim();
}

/** What the browser brought back. */
function read(params: URLSearchParams, state: string, server: Server, note: Note): string | undefined {
  const { issuer, namesItself } = server;
  const iss = params.get("iss");
  if (iss !== null && iss !== issuer) {
    note.fail(
      "iss-differs",
      `The answer says that it is from ${iss}, not from ${issuer}`,
      "Clients must throw it away: it may have been swapped (RFC 9207 §2.4). Set the issuer to one spelling.",
    );
    return undefined;
  }
  if (iss === null && namesItself)
    note.fail(
      "iss-missing",
      "The answer has no iss, although the metadata promises it",
      "Clients refuse the answer (RFC 9207 §2.4). Send it, with errors too.",
    );
  else if (iss !== null) note.ok("iss", "The answer says who it is from");
  if (params.get("state") !== state) {
    note.fail(
      "state",
      params.has("state") ? "The answer has another state" : "The answer has no state",
      "Clients throw it away. It must come back unchanged, with errors too (RFC 6749 §4.1.2).",
    );
    return undefined;
  }
  const error = params.get("error");
  if (error !== null) {
    const description = params.get("error_description");
    note.fail(
      `answer-${error.slice(0, 60)}`,
      `The answer is the error ${error}${description === null ? "" : `: ${description}`}`,
      adviceFor(error),
    );
    return undefined;
  }
  const code = params.get("code");
  if (code === null || code === "" || params.getAll("code").length > 1) {
    note.fail("no-code", "The answer has no code", "With response_type=code the answer's query must have exactly one.");
    return undefined;
  }
  note.ok("code", "The browser came back with a code");
  return code;
}

const ADVICE: Readonly<Record<string, string>> = {
  access_denied: "The person or a rule said no. Sign in as somebody who may, and press Allow.",
  invalid_scope:
    "A scope that was asked for does not exist there. Compare scopes_supported of both documents, or try --scope.",
  invalid_target:
    "The authorization server does not know this resource (RFC 8707). Configure it with the URL of the MCP server.",
  invalid_client: "The client is not known or its document could not be used. Check --client-id.",
  unauthorized_client:
    "The client may not use the code flow. Its registration must have grant_types authorization_code.",
  unsupported_response_type: "The code flow is switched off there.",
  invalid_request:
    "The server did not like the request: often the redirect URI is not the registered one, or PKCE or resource is not understood.",
  login_required: "The server wants a sign-in and could not ask for it.",
  temporarily_unavailable: "Try again later.",
  server_error: "The authorization server failed. Its log says why.",
};

function adviceFor(error: string): string {
  return (
    ADVICE[error] ??
    "Check client id and redirect URI: before both are known to be right, a server shows the error instead of sending it."
  );
}
