/**
 * A server alone, over the standard streams of its process: both eras on one connection, each request by what it says of itself. What a
 * gateway would do and nothing here can is refused (`alone.ts`), never left out.
 */
import { createInterface } from "node:readline";
import {
  type JsonObject,
  LEGACY_REVISIONS,
  MODERN_REVISION,
  type Outcome,
  type Principal,
  type QuestionAnswer,
  type RequestId,
  type Revision,
} from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { answerText, errorText, notificationText } from "../mcp/answers.ts";
import { META, SUPPORTED_REVISIONS } from "../mcp/inbound.ts";
import { canBeAsked, lacking, questionText } from "../mcp/interaction.ts";
import { isObject, parseRequestText } from "../mcp/json-text.ts";
import { type ListKey, methodRow } from "../mcp/methods.ts";
import type { ModuleCall } from "../mcp/module-server.ts";
import { handedToken } from "../mcp/upstream-token.ts";
import { type LogStream, plainLogger } from "../observe/log-lines.ts";
import { parseTrace } from "../observe/trace-context.ts";
import { aloneWith } from "./alone.ts";
import { openRounds } from "./rounds.ts";
import type { Server } from "./server.ts";

export interface Streams {
  readonly input: NodeJS.ReadableStream;
  readonly output: { write(text: string): unknown };
  readonly errors: LogStream;
}

const MAX_LINE = 4 << 20;
const MAX_DEPTH = 64;
const MAX_CALLS = 1000;
/** A question that nobody answers ends its call. */
const ANSWER_MS = 600_000;

/** Resolves when the input has ended and every call was ended. */
export async function serveStdio(
  server: Server,
  streams: Streams = processStreams(),
  clock: () => number = Date.now,
): Promise<void> {
  const { input, output, errors } = streams;
  const log = plainLogger(errors);
  const alone = aloneWith(server, log);
  const rounds = openRounds();
  const calls = new Map<RequestId, AbortController>();
  const questions = new Map<string, (answer: QuestionAnswer) => void>();
  let agreed: { revision: Revision; capabilities: JsonObject; client: string } | undefined;
  let asked = 0;
  const identity = { info: server.identity.info };
  const write = (text: string) => void output.write(`${text}\n`);

  const receive = async (line: string): Promise<void> => {
    let id: RequestId | undefined;
    try {
      if (Buffer.byteLength(line) > MAX_LINE)
        throw new DrawbridgeError("body_too_large", `A message is larger than ${MAX_LINE} bytes.`);
      const { value, result } = parseRequestText(line, MAX_DEPTH);
      const { id: written, method, params = {} } = value;
      if (typeof written === "string" || typeof written === "number") id = written;
      if (typeof method !== "string") return heard(value, result);
      if (!isObject(params)) throw new DrawbridgeError("invalid_request", "`params` must be an object.");
      if (id === undefined) return noticed(method, params);
      const request = { id, method, params };
      write(await answer(request));
    } catch (thrown) {
      const error = DrawbridgeError.from(thrown);
      if (error.code === "internal") log.error({ error: thrown }, "a request failed");
      // A request that was cancelled is not answered (MCP, Cancellation).
      if (error.code !== "cancelled") write(errorText(id, error));
    }
  };

  const answer = async (request: Request): Promise<string> => {
    const { id, method, params } = request;
    const meta = isObject(params["_meta"]) ? params["_meta"] : {};
    const revision = revisionOf(meta, agreed?.revision);
    const outcome = await answered(request, meta, revision);
    const from = revision === MODERN_REVISION ? { revision, ...identity } : undefined;
    return answerText(id, method, revision, outcome, from);
  };

  const answered = async (request: Request, meta: JsonObject, revision: Revision): Promise<Outcome> => {
    const { method, params } = request;
    const row = methodRow(method, revision === MODERN_REVISION ? "modern" : "legacy");
    if (row?.kind === "list") return outcomeOf({ [ENTRIES[row.list]]: server.list(row.list) });
    if (method === "initialize") return initialize(params);
    if (method === "server/discover" && row !== undefined) return discover();
    if (method === "ping" && row !== undefined) return outcomeOf({});
    if (row?.kind !== "call" || method === "completion/complete")
      throw new DrawbridgeError("unknown_method", "Method not found");
    return revision === MODERN_REVISION ? modernCall(request, meta) : legacyCall(request, meta);
  };

  const initialize = ({ protocolVersion, capabilities, clientInfo }: JsonObject): Outcome => {
    const revision = LEGACY_REVISIONS.find((one) => one === protocolVersion) ?? "2025-11-25";
    const client = isObject(clientInfo) ? String(clientInfo["name"] ?? "").slice(0, 200) : "";
    agreed = { revision, capabilities: isObject(capabilities) ? capabilities : {}, client };
    return outcomeOf({
      protocolVersion: revision,
      capabilities: server.identity.capabilities,
      serverInfo: server.identity.info,
      ...(server.identity.instructions !== undefined && { instructions: server.identity.instructions }),
    });
  };

  const discover = (): Outcome =>
    outcomeOf({
      resultType: "complete",
      supportedVersions: SUPPORTED_REVISIONS,
      capabilities: server.identity.capabilities,
      ...(server.identity.instructions !== undefined && { instructions: server.identity.instructions }),
      ttlMs: 60_000,
      cacheScope: "private",
    });

  const legacyCall = async ({ id, method, params }: Request, meta: JsonObject): Promise<Outcome> => {
    const { capabilities = {}, client = "" } = agreed ?? {};
    const begun = begin(id);
    const ask: ModuleCall["ask"] = canBeAsked(capabilities)
      ? (question, withdrawn) => {
          const key = `q${++asked}`;
          const { promise, resolve, reject } = Promise.withResolvers<QuestionAnswer>();
          questions.set(key, resolve);
          const gone = AbortSignal.any([withdrawn, AbortSignal.timeout(ANSWER_MS)]);
          const end = () => {
            write(notificationText("notifications/cancelled", JSON.stringify({ requestId: key })));
            reject(new DrawbridgeError("cancelled", "The question was withdrawn."));
          };
          gone.addEventListener("abort", end, { once: true });
          write(questionText(key, question));
          return promise.finally(() => {
            questions.delete(key);
            gone.removeEventListener("abort", end);
          });
        }
      : undefined;
    try {
      return await alone(callOf({ method, params, newest: () => params, meta, client, signal: begun.signal, ask }));
    } finally {
      calls.delete(id);
    }
  };

  const modernCall = async ({ id, method, params }: Request, meta: JsonObject): Promise<Outcome> => {
    const declared = meta[META.clientCapabilities];
    if (!isObject(declared))
      throw new DrawbridgeError("invalid_envelope", `The request's \`_meta\` lacks ${META.clientCapabilities}.`);
    const clientInfo = meta[META.clientInfo];
    const client = isObject(clientInfo) ? String(clientInfo["name"] ?? "").slice(0, 200) : "";
    const begun = begin(id);
    try {
      return await rounds.take({ method, params }, begun.signal, (ask, signal, newest) =>
        alone(
          callOf({
            method,
            params,
            newest,
            revision: MODERN_REVISION,
            meta,
            client,
            signal,
            ask: canBeAsked(declared)
              ? async (question, withdrawn) => {
                  const missing = lacking(declared, [question]);
                  if (missing !== undefined)
                    throw new DrawbridgeError("missing_client_capability", "The client cannot be asked this.", {
                      data: { requiredCapabilities: missing },
                    });
                  return ask(question, withdrawn);
                }
              : undefined,
          }),
        ),
      );
    } finally {
      calls.delete(id);
    }
  };

  const begin = (id: RequestId): AbortController => {
    if (calls.has(id)) throw new DrawbridgeError("invalid_request", "This id is in use.");
    if (calls.size >= MAX_CALLS) throw new DrawbridgeError("overloaded", "Too many calls are under way. Try again.");
    const controller = new AbortController();
    calls.set(id, controller);
    return controller;
  };

  interface CallParts extends Pick<ModuleCall, "method" | "params" | "revision" | "signal" | "ask"> {
    readonly meta: JsonObject;
    readonly client: string;
    /** The parameters of the round that is under way. */
    readonly newest: () => JsonObject;
  }
  const callOf = ({ meta, client, newest, ...rest }: CallParts): ModuleCall => {
    const { progressToken: token, traceparent, tracestate } = meta;
    const trace = parseTrace({ traceparent: textOf(traceparent), tracestate: textOf(tracestate) });
    return {
      ...rest,
      principal: localUser(client),
      log,
      ...(trace !== undefined && { trace }),
      ...((typeof token === "string" || typeof token === "number") && {
        progress: (params: JsonObject) =>
          write(notificationText("notifications/progress", JSON.stringify({ progressToken: token, ...params }))),
      }),
      ...(handedToken(meta) !== undefined && { token: async () => tokenIn(newest(), clock()) }),
    };
  };

  const noticed = (method: string, { requestId }: JsonObject): void => {
    if (method === "notifications/cancelled" && (typeof requestId === "string" || typeof requestId === "number"))
      calls.get(requestId)?.abort();
  };

  const heard = ({ id, error }: JsonObject, result: string | undefined): void => {
    const settle = questions.get(String(id));
    if (result !== undefined) settle?.({ kind: "result", result });
    else {
      const { code, message } = isObject(error) ? error : {};
      settle?.({ kind: "error", code: Number(code ?? -32603), message: String(message ?? ""), data: undefined });
    }
  };

  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  for await (const line of lines) if (line.trim() !== "") void receive(line);
  for (const call of calls.values()) call.abort();
  rounds.close();
}

interface Request {
  readonly id: RequestId;
  readonly method: string;
  readonly params: JsonObject;
}

const ENTRIES: Readonly<Record<ListKey, string>> = {
  tools: "tools",
  resources: "resources",
  resourceTemplates: "resourceTemplates",
  prompts: "prompts",
};

function revisionOf(meta: JsonObject, agreed: Revision | undefined): Revision {
  const claimed = meta[META.version];
  if (claimed === undefined) return agreed ?? "2025-11-25";
  if (claimed === MODERN_REVISION) return MODERN_REVISION;
  if (LEGACY_REVISIONS.some((one) => one === claimed)) return claimed as Revision;
  throw new DrawbridgeError("unsupported_protocol_version", "Unsupported protocol version", {
    data: { supported: SUPPORTED_REVISIONS, requested: String(claimed).slice(0, 100) },
  });
}

/**
 * The token that the gateway handed over with the request. That `_meta` is believed here is sound because of where it comes from: whoever
 * writes to the standard input of a process is who started it (or was let in by them), and could as well have started another program.
 * Requests of strangers come over HTTP, to a gateway, which takes this key out of them; served inside a gateway, `_meta` is not looked at.
 */
function tokenIn({ _meta: meta }: JsonObject, now: number): string {
  const handed = isObject(meta) ? handedToken(meta) : undefined;
  if (handed !== undefined && (handed.expiresAt ?? Number.POSITIVE_INFINITY) > now) return handed.token;
  throw new DrawbridgeError("upstream_unavailable", "The token for the API behind this server has ended. Call again.");
}

const textOf = (value: unknown) => (typeof value === "string" ? value : undefined);

const outcomeOf = (value: object): Outcome => ({
  kind: "result",
  result: JSON.stringify(value),
  value: value as JsonObject,
});

/** Whoever started the process, and nobody else can reach it. */
export function localUser(client: string): Principal {
  return {
    subject: "local",
    client: client === "" ? "stdio" : client,
    actors: [],
    groups: [],
    scopes: [],
    claims: {},
    grant: undefined,
    tokenId: "stdio",
    expiresAt: Number.MAX_SAFE_INTEGER,
  };
}

const processStreams = (): Streams => ({ input: process.stdin, output: process.stdout, errors: process.stderr });
