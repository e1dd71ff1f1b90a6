/** A client of MCP, as it stands before the gateway with a token: both eras, with what is told and asked during a call. */
import { type JsonObject, MODERN_REVISION } from "../../core/call.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import type { Loopback } from "../../net/loopback.ts";
import { headerValue } from "../../upstream/mirrored-headers.ts";

export const ERAS = { modern: MODERN_REVISION, legacy: "2025-11-25" } as const;
export type Era = keyof typeof ERAS;

export interface Conversation {
  /** Resolves with what the gateway answers, an error included. Rejects when it does not answer, or with the reason of `signal`. */
  request(method: string, params: JsonObject): Promise<Spoken>;
  /** Ends the session, where there is one. */
  close(): Promise<void>;
}

export type Spoken =
  | { readonly kind: "result"; readonly result: JsonObject }
  | {
      readonly kind: "error";
      /** Of HTTP. */
      readonly status: number;
      readonly code: number | undefined;
      readonly message: string;
      readonly data: unknown;
      /** `WWW-Authenticate`, which says what a token lacks. */
      readonly challenge: string | undefined;
    };

/** What a server wants to know of the person during a call. */
export interface Asked {
  readonly method: string;
  readonly params: JsonObject;
}

export interface Speaker {
  readonly http: Loopback;
  readonly url: string;
  readonly token: string;
  readonly era: Era;
  /** W3C `traceparent` of all that is said. */
  readonly traceparent: string;
  readonly signal: AbortSignal;
  /** Beside what the protocol wants of every request of 2026-07-28: arguments that are repeated (`Mcp-Param-*`). */
  readonly mirrored?: Readonly<Record<string, string>>;
  /** Answers a question with a result of its method. */
  readonly ask: (question: Asked) => Promise<JsonObject>;
  /** Hears notifications. */
  readonly heard: (method: string, params: JsonObject) => void;
}

const CLIENT = { name: "drawbridge-dev", title: "drawbridge dev", version: "1" };
const CAPABILITIES = { elicitation: { form: {}, url: {} } };
/** A server that asks again and again is not answered for ever. */
const MAX_ROUNDS = 50;
const MAX_ANSWER_BYTES = 64 << 20;

export function converse(speaker: Speaker): Promise<Conversation> {
  return speaker.era === "modern" ? Promise.resolve(modern(speaker)) : legacy(speaker);
}

/** 2026-07-28: each request stands alone; one that needs answers is made again with them. */
function modern(speaker: Speaker): Conversation {
  const { ask } = speaker;
  let ids = 0;
  const once = (method: string, params: JsonObject) => {
    const named = params["name"] ?? params["uri"];
    const _meta = {
      "io.modelcontextprotocol/protocolVersion": MODERN_REVISION,
      "io.modelcontextprotocol/clientInfo": CLIENT,
      "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
      ...(isCall(method) && { progressToken: "progress" }),
    };
    const headers = {
      "mcp-protocol-version": MODERN_REVISION,
      "mcp-method": method,
      ...(typeof named === "string" && { "mcp-name": headerValue(named) }),
      ...speaker.mirrored,
    };
    return exchange(speaker, { id: ++ids, method, params: { ...params, _meta } }, headers, async () => {});
  };
  return {
    async request(method, params) {
      let spoken = await once(method, params);
      for (let round = 0; round < MAX_ROUNDS; round++) {
        if (spoken.kind === "error" || spoken.result["resultType"] !== "input_required") return spoken;
        const { inputRequests = {}, requestState } = spoken.result;
        const inputResponses: Record<string, JsonObject> = {};
        for (const [key, question] of Object.entries(inputRequests as Readonly<Record<string, JsonObject>>))
          inputResponses[key] = await ask(question as unknown as Asked);
        const state = requestState === undefined ? {} : { requestState };
        spoken = await once(method, { ...params, inputResponses, ...state });
      }
      throw new DrawbridgeError("upstream_failed", `The server asked more than ${MAX_ROUNDS} times.`);
    },
    close: async () => {},
  };
}

/** 2025-11-25: a session, in which the server sends requests of its own while it is called. */
async function legacy(speaker: Speaker): Promise<Conversation> {
  const { ask } = speaker;
  let ids = 0;
  let headers: Record<string, string> = {};
  const answered = async (message: JsonObject) => {
    const { id, method, params } = message;
    if (id === undefined || typeof method !== "string") return;
    const reply =
      method === "elicitation/create"
        ? { id, result: await ask({ method, params: (params ?? {}) as JsonObject }) }
        : method === "ping"
          ? { id, result: {} }
          : { id, error: { code: -32601, message: "Method not found" } };
    await exchange(speaker, reply, headers, answered);
  };
  const request = (method: string, params: JsonObject) => {
    const _meta = isCall(method) ? { _meta: { progressToken: "progress" } } : {};
    return exchange(speaker, { id: ++ids, method, params: { ...params, ..._meta } }, headers, answered, (answer) => {
      const session = answer.headers.get("mcp-session-id");
      if (session !== null) headers = { "mcp-protocol-version": ERAS.legacy, "mcp-session-id": session };
    });
  };
  const begun = await request("initialize", {
    protocolVersion: ERAS.legacy,
    capabilities: CAPABILITIES,
    clientInfo: CLIENT,
  });
  if (begun.kind === "error") return { request: async () => begun, close: async () => {} };
  await exchange(speaker, { method: "notifications/initialized" }, headers, answered);
  return {
    request,
    async close() {
      const { http, url, token } = speaker;
      const ended = { method: "DELETE", headers: { ...headers, authorization: `Bearer ${token}` } };
      // A session that cannot be ended ends with the version that has it.
      await http.fetch(url, { ...ended, signal: AbortSignal.timeout(2_000) }).catch(() => {});
    },
  };
}

/** One POST. `asked` gets each request that comes before the answer. */
async function exchange(
  { http, url, token, traceparent, signal, heard }: Speaker,
  message: JsonObject,
  headers: Readonly<Record<string, string>>,
  asked: (request: JsonObject) => Promise<void>,
  first: (answer: Response) => void = () => {},
): Promise<Spoken> {
  const answer = await http.fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${token}`,
      traceparent,
      ...headers,
    },
    body: JSON.stringify({ jsonrpc: "2.0", ...message }),
    signal,
  });
  first(answer);
  const { id } = message;
  let found: JsonObject | undefined;
  const questions: Promise<void>[] = [];
  for await (const each of messagesOf(answer)) {
    if (typeof each["method"] === "string") {
      if (each["id"] === undefined) heard(each["method"], (each["params"] ?? {}) as JsonObject);
      else {
        const answering = asked(each);
        // Told below, when the answer is there or the wait for it has ended.
        answering.catch(() => {});
        questions.push(answering);
      }
    } else if (each["id"] === id || each["error"] !== undefined) {
      found = each;
      break;
    }
  }
  await Promise.all(questions);
  if (found?.["result"] !== undefined) return { kind: "result", result: found["result"] as JsonObject };
  if (id === undefined || (message["method"] === undefined && answer.ok)) return { kind: "result", result: {} };
  const { code, message: words, data } = (found?.["error"] ?? {}) as Readonly<Record<string, unknown>>;
  return {
    kind: "error",
    status: answer.status,
    code: typeof code === "number" ? code : undefined,
    message: typeof words === "string" ? words : `The gateway answered ${answer.status} and said nothing.`,
    data,
    challenge: answer.headers.get("www-authenticate") ?? undefined,
  };
}

/** The messages of an answer, as they come: of one that is JSON, or of a stream of events. */
async function* messagesOf(answer: Response): AsyncGenerator<JsonObject> {
  const streams = /^text\/event-stream/i.test(answer.headers.get("content-type") ?? "");
  const decoder = new TextDecoder();
  let text = "";
  let bytes = 0;
  for await (const part of answer.body ?? []) {
    bytes += part.byteLength;
    if (bytes > MAX_ANSWER_BYTES)
      throw new DrawbridgeError("answer_too_large", `The answer is larger than ${MAX_ANSWER_BYTES >> 20} MiB.`);
    text += decoder.decode(part, { stream: true });
    if (!streams) continue;
    for (let end = text.search(/\r?\n\r?\n/); end !== -1; end = text.search(/\r?\n\r?\n/)) {
      const event = text.slice(0, end);
      text = text.slice(end).replace(/^\r?\n\r?\n/, "");
      const data = event
        .split(/\r?\n/)
        .flatMap((line) => (line.startsWith("data:") ? [line.slice(5).trimStart()] : []))
        .join("\n");
      if (data !== "") yield* parsed(data);
    }
  }
  if (!streams) yield* parsed(text);
}

function* parsed(text: string): Generator<JsonObject> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) yield value as JsonObject;
  } catch {
    // No message; the status says what there is to say.
  }
}

const isCall = (method: string) => ["tools/call", "resources/read", "prompts/get"].includes(method);
