/** What a server with a handshake asks: read, told whose it is, and answered. */
import { type JsonObject, QUESTION_METHODS, type Question, type QuestionAnswer, type RequestId } from "../core/call.ts";
import { lacking } from "../mcp/interaction.ts";
import { isObject, objectText, type UpstreamMessage } from "../mcp/json-text.ts";

export type ServerRequest = Extract<UpstreamMessage, { kind: "request" }>;

/** Why a question that belongs to no call is not answered. A server that can do without will ask again when it needs to know. */
export const OUTSIDE = "Questions are answered within a call.";

/**
 * What we say ourselves to a request of a server; undefined when it is a question for a client. `declared`: what the server was
 * told that its clients can do.
 */
export function ownReply(request: ServerRequest, declared: JsonObject): string | undefined {
  const question = questionOf(request);
  // Servers must not ask for what was not declared (2025-11-25, Lifecycle, Operation).
  return question !== undefined && lacking(declared, [question]) === undefined ? undefined : replyTo(request);
}

/** What we say where nobody can be asked. Some servers ask for roots all the same. */
export function replyTo(request: ServerRequest): string {
  const id = JSON.stringify(request.id);
  if (request.method === "ping") return `{"jsonrpc":"2.0","id":${id},"result":{}}`;
  if (request.method === "roots/list") return `{"jsonrpc":"2.0","id":${id},"result":{"roots":[]}}`;
  return `{"jsonrpc":"2.0","id":${id},"error":{"code":-32601,"message":"Method not found"}}`;
}

/** The question as the client is asked it; undefined when it is none. */
export function questionOf(request: ServerRequest): Question | undefined {
  const method = QUESTION_METHODS.find((known) => known === request.method);
  return method === undefined ? undefined : { method, params: objectText(withoutProgressToken(request)) };
}

/** The token is the server's own; nobody tells it of progress. */
function withoutProgressToken({ params, paramTexts }: ServerRequest): ReadonlyMap<string, string> {
  const meta = params["_meta"];
  if (!isObject(meta) || meta["progressToken"] === undefined) return paramTexts;
  const { progressToken: _, ...rest } = meta;
  const members = new Map(paramTexts);
  if (Object.keys(rest).length === 0) members.delete("_meta");
  else members.set("_meta", JSON.stringify(rest));
  return members;
}

/** The client's answer for the server, with the bytes that the client wrote. */
export function answerText(id: RequestId, answer: QuestionAnswer): string {
  const head = `{"jsonrpc":"2.0","id":${JSON.stringify(id)}`;
  if (answer.kind === "result") return `${head},"result":${answer.result}}`;
  const data = answer.data === undefined ? "" : `,"data":${answer.data}`;
  return `${head},"error":{"code":${answer.code},"message":${JSON.stringify(answer.message)}${data}}}`;
}

const INVALID_REQUEST = -32600;

/** Tells a server that nobody answers, and why. */
export function refusalText(id: RequestId, reason: string): string {
  return `{"jsonrpc":"2.0","id":${JSON.stringify(id)},"error":{"code":${INVALID_REQUEST},"message":${JSON.stringify(reason)}}}`;
}
