/** MCP as two generations of clients speak it, with the token: does the server answer, and what does it offer? */
import type { Note } from "./examination.ts";
import { type Answer, challengeParams, type Http, parsed } from "./http.ts";

const LEGACY = "2025-11-25";
const MODERN = "2026-07-28";

/** What a client of 2025-11-25 and older sends first. */
export function initializeRequest(headers: Record<string, string> = {}): RequestInit {
  const params = {
    protocolVersion: LEGACY,
    capabilities: {},
    clientInfo: { name: "drawbridge-doctor", version: "1" },
  };
  return message({ id: 1, method: "initialize", params }, headers);
}

/** Talks to the server with a token, or without one where none is asked for. True: at least one generation of clients can. */
export async function talk(http: Http, url: URL, token: string | undefined, note: Note): Promise<boolean> {
  const authorization: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
  const legacy = await talkLegacy(http, url, authorization);
  if (legacy.refused !== undefined) {
    refusal(legacy.refused, note);
    return false;
  }
  const modern = await talkModern(http, url, authorization);
  for (const { version, offered } of [legacy, modern])
    if (offered !== undefined) note.ok(`speaks-${version}`, `MCP ${version}: ${offered}`);
  const fine = [legacy, modern].some(({ offered }) => offered !== undefined);
  for (const { version, problem } of [legacy, modern]) {
    if (problem === undefined) continue;
    const id = `not-${version}`;
    if (fine) note.warn(id, `MCP ${version}: ${problem}`, "Clients of the other revision can connect.");
    else
      note.fail(
        id,
        `MCP ${version}: ${problem}`,
        "The token was taken, so this is the server itself. Its log says why.",
      );
  }
  return fine;
}

interface Talked {
  readonly version: string;
  /** What the server offers, in words. */
  readonly offered?: string;
  readonly problem?: string;
  /** The token was not accepted. */
  readonly refused?: Answer;
}

async function talkLegacy(http: Http, url: URL, headers: Record<string, string>): Promise<Talked> {
  const version = LEGACY;
  const first = await http.send(url, initializeRequest(headers));
  if (first.status === 401 || first.status === 403) return { version, refused: first };
  const begun = resultOf(first, 1);
  if (typeof begun === "string") return { version, problem: `initialize ${begun}` };
  const session = first.headers.get("mcp-session-id");
  const agreed = String(begun["protocolVersion"] ?? version).slice(0, 40);
  const onward = {
    ...headers,
    "mcp-protocol-version": agreed,
    ...(session !== null && /^[\x21-\x7e]{1,512}$/.test(session) && { "mcp-session-id": session }),
  };
  await http.send(url, message({ method: "notifications/initialized" }, onward));
  const listed = await http.send(url, message({ id: 2, method: "tools/list", params: {} }, onward));
  // A session left behind costs the server memory; one that cannot be ended is none of our business.
  if (session !== null) await http.send(url, { method: "DELETE", headers: onward }).catch(() => undefined);
  if (listed.status === 401 || listed.status === 403) return { version, refused: listed };
  const tools = resultOf(listed, 2);
  return typeof tools === "string"
    ? { version, problem: `tools/list ${tools}` }
    : { version, offered: words(begun, tools) };
}

async function talkModern(http: Http, url: URL, headers: Record<string, string>): Promise<Talked> {
  const version = MODERN;
  const ask = (id: number, method: string) => {
    const _meta = {
      "io.modelcontextprotocol/protocolVersion": MODERN,
      "io.modelcontextprotocol/clientCapabilities": {},
    };
    const own = { ...headers, "mcp-protocol-version": MODERN, "mcp-method": method };
    return http.send(url, message({ id, method, params: { _meta } }, own));
  };
  const discovered = resultOf(await ask(3, "server/discover"), 3);
  if (typeof discovered === "string") return { version, problem: `server/discover ${discovered}` };
  const tools = resultOf(await ask(4, "tools/list"), 4);
  return typeof tools === "string"
    ? { version, problem: `tools/list ${tools}` }
    : { version, offered: words(discovered, tools) };
}

function words(identity: Record<string, unknown>, listed: Record<string, unknown>): string {
  const meta = identity["_meta"] as Record<string, unknown> | undefined;
  const info = (identity["serverInfo"] ?? meta?.["io.modelcontextprotocol/serverInfo"]) as
    | Record<string, unknown>
    | undefined;
  const tools = Array.isArray(listed["tools"]) ? listed["tools"].length : 0;
  const more = listed["nextCursor"] === undefined ? "" : " or more";
  return `${typeof info?.["name"] === "string" ? `${info["name"].slice(0, 100)}, ` : ""}${tools}${more} tool${tools === 1 ? "" : "s"}`;
}

/** A token that was got the right way and is refused all the same. */
function refusal({ status, headers }: Answer, note: Note): void {
  const params = challengeParams(headers.get("www-authenticate") ?? "", "bearer");
  const why = params?.get("error_description") ?? params?.get("error");
  const said = why === undefined ? "" : `: ${why}`;
  if (status === 403 && params?.get("error") === "insufficient_scope") {
    const scope = params.get("scope");
    note.fail(
      "insufficient-scope",
      `403 insufficient_scope${said}`,
      scope === undefined
        ? "The server does not say which scope is missing; it should name it in WWW-Authenticate. Try --scope."
        : `Clients must ask for more (step-up). Try --scope "${scope}".`,
    );
  } else if (status === 403) {
    note.fail(
      "forbidden",
      `403 with a good token${said}`,
      "The person may use nothing here (roles), or a Host or Origin check refuses.",
    );
  } else {
    note.fail(
      "token-refused",
      `401 with the token that its own authorization server gave${said}`,
      "Compare the audience and issuer of the token with what the server expects (its public URL), the clocks of both, and whether the server can read the key set.",
    );
  }
}

function message(body: Record<string, unknown>, headers: Record<string, string>): RequestInit {
  return {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json, text/event-stream", ...headers },
    body: JSON.stringify({ jsonrpc: "2.0", ...body }),
  };
}

/** The result of a JSON-RPC answer, as JSON or in an event stream; or in words what there is instead. */
export function resultOf(answer: Answer, id: number): Record<string, unknown> | string {
  const { status, headers, text } = answer;
  const type = headers.get("content-type") ?? "";
  const found = /^text\/event-stream/i.test(type) ? events(text).find((event) => event["id"] === id) : parsed(text);
  if (found === undefined) return `answers ${status} without a JSON-RPC response (${type || "no content type"})`;
  const error = found["error"] as Record<string, unknown> | undefined;
  if (error !== undefined)
    return `answers ${status} and error ${error["code"]}: ${String(error["message"]).slice(0, 200)}`;
  const result = found["result"];
  if (typeof result !== "object" || result === null) return `answers ${status} without a result`;
  return result as Record<string, unknown>;
}

function events(text: string): Record<string, unknown>[] {
  return text
    .split(/\r\n\r\n|\n\n|\r\r/)
    .map((event) =>
      event
        .split(/\r\n|\n|\r/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).replace(/^ /, ""))
        .join("\n"),
    )
    .map(parsed)
    .filter((event) => event !== undefined);
}
