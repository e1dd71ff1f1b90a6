/** The first request of a client: without a token, to learn where one comes from (RFC 6750 §3, RFC 9728 §5.1). */
import type { Note } from "./examination.ts";
import { type Answer, challengeParams, type Http, LOOPBACK } from "./http.ts";
import { initializeRequest, resultOf } from "./mcp.ts";

export interface Challenge {
  /** The server answers without a token. */
  readonly open: boolean;
  readonly resourceMetadata: string | undefined;
  readonly scope: string | undefined;
}

/** Reads the answer to the first request; undefined when it is none that a client could go on from. */
export async function readChallenge(http: Http, url: URL, first: Answer, note: Note): Promise<Challenge | undefined> {
  const { status, headers } = first;
  if (status >= 200 && status < 300) return openToAll(url, first, note);
  if (status !== 401) return notAsked(url, first, note);
  note.ok("refused", "401 without a token");
  const challenge = readHeader(headers.get("www-authenticate"), note);
  await tryMadeUp(http, url, note);
  return challenge;
}

function openToAll(url: URL, first: Answer, note: Note): Challenge | undefined {
  const result = resultOf(first, 1);
  if (typeof result === "string") {
    note.fail(
      "no-401",
      `initialize without a token ${result}`,
      "Clients sign in when they get 401, and at nothing else.",
    );
    return undefined;
  }
  const message = "The server answers without a token: whoever reaches it can use it.";
  const advice = "Put Drawbridge in front of it, or have the server ask for tokens.";
  // What listens on this machine alone may be meant to be open.
  if (LOOPBACK.has(url.hostname)) note.warn("open", message, advice);
  else note.fail("open", message, advice);
  return { open: true, resourceMetadata: undefined, scope: undefined };
}

/** What another status than 401 most often means. */
const STATUS: Readonly<Record<number, readonly [meaning: string, advice: string]>> = {
  400: [
    "refuses the request before it asks for a token",
    "Is this the MCP endpoint? It must answer 401 to whoever has no token.",
  ],
  403: [
    "refuses without saying where to sign in",
    "Without a token the answer must be 401. A 403 often comes from a Host or Origin check (public URL of the server) or from a firewall.",
  ],
  404: ["has nothing at this path", "Give the URL of the MCP endpoint itself; it often ends in /mcp."],
  405: [
    "does not take POST at this path",
    "Give the URL of the MCP endpoint (Streamable HTTP), not that of a web page or of the old SSE transport.",
  ],
  406: ["does not answer JSON or event streams", "Is this the MCP endpoint?"],
  415: ["does not take JSON at this path", "Is this the MCP endpoint?"],
  429: ["asks to come back later", "Wait, then try again; or raise the limit for this address."],
};

function notAsked(url: URL, { status, headers }: Answer, note: Note): undefined {
  if (status >= 300 && status < 400) {
    const to = headers.get("location") ?? "nowhere";
    note.fail(
      "redirected",
      `${status}: redirects to ${to}`,
      "Clients do not follow a POST elsewhere. Give them the final URL, and make the server's public URL that one.",
    );
  } else if (status >= 500) {
    note.fail("server-error", `${status}: the server or the proxy in front of it fails`, "Its log says why.");
  } else {
    const [meaning, advice] = STATUS[status] ?? ["answers something that is not MCP", "Is this the MCP endpoint?"];
    const elsewhere = status === 404 && url.pathname === "/" ? ` Try ${new URL("/mcp", url).href}.` : "";
    note.fail(`status-${status}`, `${status}: ${url.host} ${meaning}`, `${advice}${elsewhere}`);
  }
  return undefined;
}

function readHeader(header: string | null, note: Note): Challenge {
  const nothing = { open: false, resourceMetadata: undefined, scope: undefined };
  if (header === null) {
    note.warn(
      "no-challenge",
      "401 without WWW-Authenticate",
      'Most clients look at the well-known place next; a few stop here. Send: WWW-Authenticate: Bearer resource_metadata="…".',
    );
    return nothing;
  }
  const bound = challengeParams(header, "dpop");
  const params = challengeParams(header, "bearer") ?? bound;
  if (params !== undefined && params === bound)
    note.warn(
      "dpop-only",
      "Tokens must be bound to a key of the client (DPoP)",
      "Few MCP clients can do that, and the doctor cannot either. Accept Bearer tokens, too, unless you know your clients.",
    );
  if (params === undefined) {
    note.fail(
      "no-bearer",
      `WWW-Authenticate asks for ${header.split(/[\s,]/)[0] ?? "nothing"}, not for Bearer`,
      "MCP clients know OAuth tokens only: the scheme must be Bearer (RFC 6750 §3).",
    );
    return nothing;
  }
  const resourceMetadata = params.get("resource_metadata");
  const scope = params.get("scope");
  if (resourceMetadata === undefined)
    note.warn(
      "no-resource-metadata",
      "WWW-Authenticate does not name resource_metadata",
      "Clients have to guess the well-known place (RFC 9728 §5.1). Add the parameter.",
    );
  else note.ok("resource-metadata", `WWW-Authenticate names ${resourceMetadata}`);
  if (params.has("error"))
    note.warn(
      "error-without-token",
      `WWW-Authenticate says error="${params.get("error")}" although no token was sent`,
      "Some clients take it for a token that went bad and sign in again and again. Leave `error` out here (RFC 6750 §3.1).",
    );
  if (scope !== undefined) note.ok("scope", `It asks for the scope ${scope}`);
  return { open: false, resourceMetadata, scope };
}

/** A server that takes any token takes everyone's (CVE-2026-59822). */
async function tryMadeUp(http: Http, url: URL, note: Note): Promise<void> {
  const request = initializeRequest({ authorization: "Bearer made-up-by-drawbridge-doctor" });
  const answer = await http.send(url, request).catch(() => undefined);
  if (answer === undefined)
    return note.warn(
      "made-up-status",
      "No answer to a made-up token",
      'It should be 401 with error="invalid_token". The server\'s log says what happened.',
    );
  const { status } = answer;
  if (status === 401) note.ok("made-up-refused", "401 with a made-up token too");
  else if (status >= 200 && status < 300 && typeof resultOf(answer, 1) !== "string")
    note.fail(
      "any-token",
      `${status} with a made-up token: the server believes anybody`,
      "The server must verify signature, issuer, audience and age of every token.",
    );
  else
    note.warn(
      "made-up-status",
      `${status} with a made-up token`,
      'It should be 401 with error="invalid_token": a client renews its token on 401 alone (RFC 6750 §3.1).',
    );
}
