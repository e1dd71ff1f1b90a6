/** A client of 2025 in the raw: sessions, and event streams that can be cut at any event and gone on with. */
import { request } from "node:http";

export interface SentEvent {
  readonly id: string | undefined;
  readonly retry: number | undefined;
  readonly data: string;
}
export interface Message {
  readonly id?: string | number;
  readonly method?: string;
  readonly params?: { readonly progress?: number; readonly uri?: string; readonly [key: string]: unknown };
  readonly result?: { readonly content?: readonly { readonly text: string }[]; readonly [key: string]: unknown };
  readonly error?: { readonly code: number; readonly message: string };
}

export interface Answered {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly streams: boolean;
  /** Of an event stream, so far. */
  readonly events: readonly SentEvent[];
  /** What was said in events, or the one answer in JSON. */
  messages(): Message[];
  /** Id of the last event that had one. */
  lastId(): string | undefined;
  readonly over: boolean;
  /** Resolves when the answer ends or its connection breaks. */
  readonly ended: Promise<void>;
  /** Breaks the connection. */
  cut(): void;
}

export interface Wanted {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** Breaks the connection once so many events have come. */
  readonly cutAfter?: number;
  readonly signal?: AbortSignal;
}

/** One HTTP request; resolves when its answer begins. */
export function send(
  url: string,
  token: string,
  { method, headers, body, cutAfter, signal }: Wanted,
): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const sent = request(url, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      agent: false,
      ...(signal !== undefined && { signal }),
      headers: {
        authorization: `Bearer ${token}`,
        accept: body === undefined ? "text/event-stream" : "application/json, text/event-stream",
        ...(body !== undefined && { "content-type": "application/json" }),
        ...headers,
      },
    });
    let begun = false;
    sent.on("response", (response) => {
      begun = true;
      const streams = response.headers["content-type"] === "text/event-stream";
      const events: SentEvent[] = [];
      const ended = Promise.withResolvers<void>();
      const state = { over: false };
      let rest = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        rest += chunk;
        if (!streams) return;
        const texts = rest.split("\n\n");
        rest = texts.pop() ?? "";
        for (const text of texts) {
          if (text.startsWith(":") || events.length === cutAfter) continue;
          events.push(readEvent(text));
          if (events.length === cutAfter) sent.destroy();
        }
      });
      response.on("error", () => {});
      response.on("close", () => {
        state.over = true;
        ended.resolve();
      });
      resolve({
        status: response.statusCode ?? 0,
        headers: response.headers,
        streams,
        events,
        messages: () =>
          (streams ? events.map(({ data }) => data) : [rest])
            .filter((text) => text !== "")
            .map((text) => JSON.parse(text) as Message),
        lastId: () => events.findLast(({ id }) => id !== undefined)?.id,
        get over() {
          return state.over;
        },
        ended: ended.promise,
        cut: () => sent.destroy(),
      });
    });
    sent.on("error", (error) => {
      if (!begun) reject(error);
    });
    sent.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

function readEvent(text: string): SentEvent {
  const field = (name: string) => new RegExp(`^${name}: ?(.*)$`, "m").exec(text)?.[1];
  const retry = field("retry");
  return { id: field("id"), retry: retry === undefined ? undefined : Number(retry), data: field("data") ?? "" };
}

export interface LegacySession {
  readonly id: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Requests and notifications, at this gateway or another one. */
  post(body: object, wanted?: Wanted, url?: string): Promise<Answered>;
  /** One request to its end: the status and the last message. */
  ask(method: string, params?: object, url?: string): Promise<{ status: number; message: Message | undefined }>;
  call(name: string, args: object, wanted?: Wanted, url?: string): Promise<Answered>;
  /** The stream of the session, or the one that this event was of. */
  get(lastEventId?: string, wanted?: Wanted, url?: string): Promise<Answered>;
  end(url?: string): Promise<number>;
}

/** Does the handshake. */
export async function legacySession(
  url: string,
  token: string,
  { version = "2025-11-25", capabilities = {} }: { version?: string; capabilities?: object } = {},
): Promise<LegacySession> {
  const params = { protocolVersion: version, capabilities, clientInfo: { name: "raw", version: "1" } };
  const begun = await send(url, token, { body: { jsonrpc: "2.0", id: 0, method: "initialize", params } });
  await begun.ended;
  const id = String(begun.headers["mcp-session-id"] ?? "");
  const headers = { "mcp-session-id": id, "mcp-protocol-version": version };
  let last = 0;
  const post: LegacySession["post"] = (body, wanted, at = url) =>
    send(at, token, { ...wanted, headers: { ...headers, ...wanted?.headers }, body: { jsonrpc: "2.0", ...body } });
  return {
    id,
    headers,
    post,
    async ask(method, params = {}, at) {
      const answer = await post({ id: ++last, method, params }, {}, at);
      await answer.ended;
      return { status: answer.status, message: answer.messages().at(-1) };
    },
    call: (name, args, wanted, at) =>
      post(
        { id: ++last, method: "tools/call", params: { name, arguments: args, _meta: { progressToken: last } } },
        wanted,
        at,
      ),
    get: (lastEventId, wanted, at = url) =>
      send(at, token, {
        ...wanted,
        headers: { ...headers, ...(lastEventId !== undefined && { "last-event-id": lastEventId }), ...wanted?.headers },
      }),
    async end(at = url) {
      const answer = await send(at, token, { method: "DELETE", headers });
      await answer.ended;
      return answer.status;
    },
  };
}
