/** Opens a few sessions as a client of 2025-11-25, lists tools in one, and tries what nobody should be able to do with an id. */
import { randomUUID } from "node:crypto";
import type { Attempt, Observed } from "../../check/probe/observed.ts";
import type { JsonObject } from "../../core/call.ts";
import { type Answer, parsed } from "../doctor/http.ts";
import { resultOf } from "../doctor/mcp.ts";
import { type Asking, attemptOf, LEGACY, legacyRequest, modernRequest } from "./asking.ts";

export interface Inside {
  /** Undefined: the server did not list them; `problem` says why. */
  readonly tools: readonly JsonObject[] | undefined;
  readonly problem?: string;
  readonly observed: Pick<Observed, "sessions" | "ownSession" | "sessionWithoutToken">;
}

/** So many sessions show how ids are made. */
const SESSIONS = 4;
const MAX_PAGES = 20;
const MAX_TOOLS = 5_000;

/** `authorization`: the header of a good token; empty where none is asked for. */
export async function lookInside(
  asking: Asking,
  url: URL,
  authorization: Readonly<Record<string, string>>,
): Promise<Inside> {
  const ids: string[] = [];
  const begin = async (more: Record<string, string> = {}) => {
    const answer = await asking.ask(url, legacyRequest("initialize", { headers: { ...authorization, ...more } }));
    const id = answer?.headers.get("mcp-session-id") ?? undefined;
    const fine = id !== undefined && /^[\x21-\x7e]{1,1024}$/.test(id);
    if (fine) ids.push(id);
    return { answer, id: fine ? id : undefined };
  };
  const end = async (id: string) => {
    const headers = { ...authorization, "mcp-session-id": id, "mcp-protocol-version": LEGACY };
    await asking.end(url, { method: "DELETE", headers });
  };
  try {
    const first = await begin();
    const begun = first.answer === undefined ? "does not answer" : resultOf(first.answer, 1);
    if (typeof begun === "string") {
      const modern = await pages(asking, url, (params) => modernRequest("tools/list", params, authorization));
      return typeof modern === "string"
        ? { tools: undefined, problem: `initialize ${begun}; tools/list ${modern}`, observed: {} }
        : { tools: modern, observed: {} };
    }
    const within: Record<string, string> = {
      ...authorization,
      ...(first.id !== undefined && { "mcp-session-id": first.id }),
    };
    await asking.ask(url, legacyRequest("notifications/initialized", { headers: within }));
    const listed = await pages(asking, url, (params) => legacyRequest("tools/list", { params, headers: within }));
    const tools =
      typeof listed === "string" ? { tools: undefined, problem: `tools/list ${listed}` } : { tools: listed };
    if (first.id === undefined) return { ...tools, observed: {} };

    for (let more = 1; more < SESSIONS; more++) await begin();
    const given = [...ids];
    const ownSession = await ownId(asking, url, authorization, begin);
    const bare = { "mcp-session-id": first.id };
    const sessionWithoutToken =
      Object.keys(authorization).length === 0
        ? undefined
        : attemptOf(await asking.ask(url, legacyRequest("tools/list", { headers: bare })));
    return {
      ...tools,
      observed: { sessions: given, ownSession, ...(sessionWithoutToken !== undefined && { sessionWithoutToken }) },
    };
  } finally {
    // A session that is left behind costs the server memory.
    for (const id of new Set(ids)) await end(id);
  }
}

async function ownId(
  asking: Asking,
  url: URL,
  authorization: Readonly<Record<string, string>>,
  begin: (headers: Record<string, string>) => Promise<{ answer: Answer | undefined; id: string | undefined }>,
): Promise<Attempt> {
  const own = randomUUID();
  const { id } = await begin({ "mcp-session-id": own });
  if (id === own) return { outcome: "taken", said: "initialize gave back the id that the client had chosen" };
  const headers = { ...authorization, "mcp-session-id": randomUUID() };
  return attemptOf(await asking.ask(url, legacyRequest("tools/list", { headers })));
}

/** All pages of a list, or in words why there is none. */
async function pages(
  asking: Asking,
  url: URL,
  request: (params: object) => RequestInit,
): Promise<readonly JsonObject[] | string> {
  const tools: JsonObject[] = [];
  let cursor: string | undefined;
  for (let page = 0; page < MAX_PAGES && tools.length < MAX_TOOLS; page++) {
    const answer = await asking.ask(url, request(cursor === undefined ? {} : { cursor }));
    if (answer === undefined) return "is not answered";
    const result = resultOf(answer, 1);
    if (typeof result === "string") return result;
    const { tools: listed, nextCursor } = result;
    if (!Array.isArray(listed)) return "answers without tools";
    tools.push(...listed.filter((one): one is JsonObject => parsed(JSON.stringify(one)) !== undefined));
    if (typeof nextCursor !== "string") return tools;
    cursor = nextCursor;
  }
  return tools;
}
