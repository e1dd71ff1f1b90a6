/**
 * A lean HTTP/1.1 keep-alive client that speaks MCP over Streamable HTTP and trusts no answer: the id and the unique
 * text of every answer are compared with what was asked, so an answer meant for another caller counts as a failure of
 * its own kind. It is written on bare sockets so that the generator costs far less than what it measures.
 */
import net from "node:net";

/** Where and how one contender is called. */
export interface Endpoint {
  readonly port: number;
  readonly path: string;
  readonly revision: "2026-07-28" | "2025-11-25";
  /** Whether each connection opens a session first (2025-11-25 only). */
  readonly sessions: boolean;
  /** The echo tool's name as this endpoint lists it. */
  readonly tool: string;
  /** Bearer token, where the endpoint wants one. */
  readonly token: string | undefined;
  /** The tool asks a question before it answers, and the client says that it can be asked (`dialogue.ts`). */
  readonly asks?: true;
}

export type Reply =
  | {
      readonly kind: "answer";
      readonly status: number;
      readonly session: string | undefined;
      readonly body: string;
      /** Seconds of the header; undefined without one. */
      readonly retryAfter: number | undefined;
    }
  | { readonly kind: "broken"; readonly why: string };

/** The failure that must never happen: the id or the text belongs to another call. */
export const WRONG_ANSWER = "WRONG-ANSWER";

interface Head {
  readonly bodyStart: number;
  readonly status: number;
  /** Body length in bytes; -1 when chunked. */
  readonly length: number;
  readonly eventStream: boolean;
  readonly session: string | undefined;
  readonly closes: boolean;
  readonly retryAfter: number | undefined;
}

/** One connection with at most one request under way. It opens on first use and again after the server closed it. */
export class Connection {
  readonly #port: number;
  readonly #timeoutMs: number;
  #socket: net.Socket | undefined;
  #received: Buffer | undefined;
  #head: Head | undefined;
  #done: ((reply: Reply) => void) | undefined;
  #heard: ((message: string) => void) | undefined;
  /** How many events of the answer `#heard` was told of. */
  #told = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(port: number, timeoutMs: number) {
    this.#port = port;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * Sends one request and calls back exactly once, at the latest when the time is over. `heard` gets each message of an
   * event stream as soon as it is there, the answer included.
   */
  exchange(request: string, done: (reply: Reply) => void, heard?: (message: string) => void): void {
    this.#done = done;
    this.#heard = heard;
    this.#told = 0;
    this.#received = undefined;
    this.#head = undefined;
    if (this.#timer === undefined) this.#timer = setTimeout(() => this.#break("timeout"), this.#timeoutMs);
    else this.#timer.refresh();
    this.#socket ??= this.#connect();
    this.#socket.write(request, "latin1");
  }

  request(request: string): Promise<Reply> {
    return new Promise((resolve) => this.exchange(request, resolve));
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#done = undefined;
    this.#socket?.destroy();
    this.#socket = undefined;
  }

  #connect(): net.Socket {
    const socket = net.connect({ host: "127.0.0.1", port: this.#port, noDelay: true });
    const mine = (): boolean => this.#socket === socket;
    socket.on("data", (bytes) => mine() && this.#read(bytes));
    socket.on(
      "error",
      (error: NodeJS.ErrnoException) => mine() && this.#break(`socket:${error.code ?? error.message}`),
    );
    socket.on("close", () => {
      if (!mine()) return;
      this.#socket = undefined;
      this.#break("closed");
    });
    return socket;
  }

  #read(bytes: Buffer): void {
    if (this.#done === undefined) return;
    const received = this.#received === undefined ? bytes : Buffer.concat([this.#received, bytes]);
    this.#received = received;
    this.#head ??= readHead(received);
    const head = this.#head;
    if (head === undefined) return;
    if (head.length >= 0) {
      const end = head.bodyStart + head.length;
      if (received.length >= end) this.#finish(head, received.toString("utf8", head.bodyStart, end));
      return;
    }
    if (this.#heard !== undefined && head.eventStream) this.#tell(received, head, this.#heard);
    // A cheap test first: no chunked body is over before its last chunk, `0\r\n` and a blank line.
    if (received.length < head.bodyStart + 5 || received[received.length - 1] !== 10) return;
    const body = readChunks(received, head.bodyStart);
    if (body !== undefined) this.#finish(head, body);
  }

  #tell(received: Buffer, head: Head, heard: (message: string) => void): void {
    const whole = chunksIn(received, head.bodyStart)
      .text.split(/\r?\n\r?\n/)
      .slice(0, -1);
    const news = whole.slice(this.#told);
    this.#told = whole.length;
    for (const event of news) {
      const message = dataOf(event);
      if (message !== "") heard(message);
    }
  }

  #finish(head: Head, body: string): void {
    if (head.closes) {
      this.#socket?.destroy();
      this.#socket = undefined;
    }
    const message = head.eventStream ? lastMessage(body) : body;
    const { status, session, retryAfter } = head;
    this.#settle({ kind: "answer", status, session, body: message, retryAfter });
  }

  #break(why: string): void {
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#settle({ kind: "broken", why });
  }

  #settle(reply: Reply): void {
    const done = this.#done;
    this.#done = undefined;
    done?.(reply);
  }
}

/** The text of a `tools/call` request. `text` comes back as the answer; `id` is its JSON-RPC id. All ASCII. */
export function callRequest(endpoint: Endpoint, id: number, text: string, session: string | undefined): string {
  return callWith(endpoint, id, `"arguments":{"text":"${text}"}`, session);
}

/** A `tools/call` request with these members of `params`, as JSON, beside the tool's name. */
export function callWith(endpoint: Endpoint, id: number, members: string, session: string | undefined): string {
  const modern = endpoint.revision === "2026-07-28";
  const meta = modern ? `,"_meta":${envelope(endpoint)}` : "";
  const body = `{"jsonrpc":"2.0","id":${id},"method":"tools/call","params":{"name":"${endpoint.tool}",${members}${meta}}}`;
  const routing = modern ? `mcp-method: tools/call\r\nmcp-name: ${endpoint.tool}\r\n` : "";
  return post(endpoint, `mcp-protocol-version: ${endpoint.revision}\r\n${routing}`, session, body);
}

/** Opens a 2025-11-25 session: `initialize`, then `notifications/initialized`. */
export async function openSession(
  connection: Connection,
  endpoint: Endpoint,
): Promise<{ readonly session: string } | { readonly failed: string }> {
  const opening = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":${capabilities(endpoint)},"clientInfo":${CLIENT_INFO}}}`;
  const opened = await connection.request(post(endpoint, "", undefined, opening));
  if (opened.kind === "broken") return { failed: `initialize:${opened.why}` };
  if (opened.status !== 200) return { failed: `initialize:http-${opened.status}` };
  if (opened.session === undefined) return { failed: "initialize:no-session" };
  const notice = '{"jsonrpc":"2.0","method":"notifications/initialized"}';
  const confirmed = await connection.request(
    post(endpoint, "mcp-protocol-version: 2025-11-25\r\n", opened.session, notice),
  );
  if (confirmed.kind === "broken") return { failed: `initialized:${confirmed.why}` };
  return confirmed.status < 300 ? { session: opened.session } : { failed: `initialized:http-${confirmed.status}` };
}

/** The names `tools/list` gives; for finding out what an endpoint calls the echo tool. */
export async function listTools(endpoint: Endpoint, timeoutMs = 30_000): Promise<readonly string[]> {
  const connection = new Connection(endpoint.port, timeoutMs);
  try {
    const request = post(
      endpoint,
      "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\n",
      undefined,
      `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":${envelope(endpoint)}}}`,
    );
    const reply = await connection.request(request);
    if (reply.kind === "broken") throw new Error(`tools/list failed: ${reply.why}`);
    if (reply.status !== 200) throw new Error(`tools/list failed: HTTP ${reply.status} ${reply.body.slice(0, 300)}`);
    const answer = JSON.parse(reply.body) as { result?: { tools?: readonly { name: string }[] } };
    if (answer.result?.tools === undefined) throw new Error(`tools/list failed: ${reply.body.slice(0, 300)}`);
    return answer.result.tools.map((tool) => tool.name);
  } finally {
    connection.close();
  }
}

/** What is wrong with a reply to `callRequest(…, id, text, …)`; undefined when nothing is. */
export function fault(reply: Reply, id: number, text: string): string | undefined {
  if (reply.kind === "broken") return reply.why;
  if (reply.status !== 200) return `http-${reply.status}`;
  let answer: Partial<CallAnswer>;
  try {
    answer = JSON.parse(reply.body);
  } catch {
    return "not-json";
  }
  if (answer.id !== id) return WRONG_ANSWER;
  if (answer.error !== undefined) return `rpc-error:${answer.error.code}`;
  const came = answer.result?.structuredContent?.text ?? answer.result?.content?.[0]?.text;
  if (came === text) return undefined;
  return answer.result?.isError === true ? "tool-error" : WRONG_ANSWER;
}

interface CallAnswer {
  readonly id: number;
  readonly error?: { readonly code: number };
  readonly result?: {
    readonly isError?: boolean;
    readonly structuredContent?: { readonly text?: string };
    readonly content?: readonly { readonly text?: string }[];
  };
}

const CLIENT_INFO = '{"name":"drawbridge-bench","version":"1.0.0"}';
const NO_CAPABILITIES = `{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":${CLIENT_INFO},"io.modelcontextprotocol/clientCapabilities":{}}`;
const CAN_BE_ASKED = NO_CAPABILITIES.replace(/\{\}\}$/, '{"elicitation":{}}}');

function envelope(endpoint: Endpoint): string {
  return endpoint.asks === true ? CAN_BE_ASKED : NO_CAPABILITIES;
}

function capabilities(endpoint: Endpoint): string {
  return endpoint.asks === true ? '{"elicitation":{}}' : "{}";
}

/** The text of a request with this body, which is ASCII. */
export function post(endpoint: Endpoint, headers: string, session: string | undefined, body: string): string {
  const bearer = endpoint.token === undefined ? "" : `authorization: Bearer ${endpoint.token}\r\n`;
  const sessionHeader = session === undefined ? "" : `mcp-session-id: ${session}\r\n`;
  return `POST ${endpoint.path} HTTP/1.1\r\nhost: 127.0.0.1:${endpoint.port}\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream\r\n${bearer}${headers}${sessionHeader}content-length: ${body.length}\r\n\r\n${body}`;
}

function readHead(received: Buffer): Head | undefined {
  const end = received.indexOf("\r\n\r\n");
  if (end < 0) return undefined;
  const text = received.toString("latin1", 0, end);
  const status = Number(text.slice(9, 12));
  const length = /\r\ncontent-length: *(\d+)/i.exec(text)?.[1];
  const retryAfter = status === 503 ? /\r\nretry-after: *(\d+)/i.exec(text)?.[1] : undefined;
  const chunked = length === undefined && /\r\ntransfer-encoding: *chunked/i.test(text);
  return {
    bodyStart: end + 4,
    status,
    // Without either header an answer to a POST would end with the connection; nothing measured here does that.
    length: chunked ? -1 : Number(length ?? 0),
    eventStream: /\r\ncontent-type: *text\/event-stream/i.test(text),
    session: /\r\nmcp-session-id: *([^\r\n]+)/i.exec(text)?.[1],
    closes: /\r\nconnection: *close/i.test(text),
    retryAfter: retryAfter === undefined ? undefined : Number(retryAfter),
  };
}

/** The body when it is whole; undefined while the last chunk or the trailer is missing. */
function readChunks(received: Buffer, start: number): string | undefined {
  const { text, whole } = chunksIn(received, start);
  return whole ? text : undefined;
}

/** As much of a chunked body as came so far (RFC 9112 §7.1). */
function chunksIn(received: Buffer, start: number): { readonly text: string; readonly whole: boolean } {
  const parts: Buffer[] = [];
  let at = start;
  for (;;) {
    const lineEnd = received.indexOf("\r\n", at);
    const size = lineEnd < 0 ? Number.NaN : Number.parseInt(received.toString("latin1", at, lineEnd), 16);
    const chunkStart = lineEnd + 2;
    const last = size === 0;
    if (last || Number.isNaN(size) || received.length < chunkStart + size + 2)
      return { text: Buffer.concat(parts).toString(), whole: last && received.indexOf("\r\n", chunkStart) >= 0 };
    parts.push(received.subarray(chunkStart, chunkStart + size));
    at = chunkStart + size + 2;
  }
}

/** The answer inside an event stream: its last event with data; what comes before are notifications. */
function lastMessage(stream: string): string {
  return (
    stream
      .split(/\r?\n\r?\n/)
      .map(dataOf)
      .findLast((data) => data !== "") ?? ""
  );
}

function dataOf(event: string): string {
  const lines = event.split(/\r?\n/).filter((line) => line.startsWith("data:"));
  return lines.map((line) => line.slice(5).trimStart()).join("\n");
}
