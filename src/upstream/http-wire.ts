/** HTTP as the upstream client needs it: one request out, JSON-RPC messages in, on undici's dispatch without streams. */
import { isUtf8 } from "node:buffer";
import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher, Pool } from "undici";
import { DrawbridgeError } from "../core/errors.ts";
import type { Reached } from "./repeats.ts";
import { type EventReader, eventReader } from "./sse.ts";

export interface WireRequest {
  readonly method: "POST" | "GET" | "DELETE";
  /** Default: that of the endpoint. */
  readonly path?: string;
  /** Names and values in turn. */
  readonly headers: string[];
  readonly body?: string;
}

export interface WireEnd {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** True when the answer was an event stream: its messages have been reported. */
  readonly streamed: boolean;
  /** The first 2,000 characters of a body that is neither JSON nor events. */
  readonly excerpt: string;
  /** For resuming: the last event id, and how long to wait. */
  readonly lastEventId: string;
  readonly retryMs: number | undefined;
}

/** Called synchronously, in the order of arrival; `end` or `fail` comes last and once. */
export interface WireHandler {
  /** The head of the answer came; `events`: messages will follow one by one. */
  head?(status: number, headers: IncomingHttpHeaders, events: boolean): void;
  /** Text of one JSON message. */
  message(text: string): void;
  /** An event of another type than `message`. */
  event?(type: string, data: string): void;
  end(end: WireEnd): void;
  fail(error: DrawbridgeError, reached: Reached): void;
}

/** Hears of every exchange whether there is a server at the other end. */
export interface WireWatch {
  /** It has answered, or says something on a stream. */
  answered(): void;
  /** Nobody was reached, or the connection broke, or the answer was 5xx without a message. */
  failed(error: DrawbridgeError, reached: Reached): void;
}

const MAX_EXCERPT = 2000;

/** Sends a request; the function returned gives it up and closes its connection, without a further report. */
export function dispatch(
  pool: Pool,
  path: string,
  name: string,
  maxBytes: number,
  request: WireRequest,
  handler: WireHandler,
  watch?: WireWatch,
): () => void {
  const reader = new AnswerReader(name, maxBytes, handler, watch);
  try {
    pool.dispatch({ path, method: request.method, headers: request.headers, body: request.body ?? null }, reader);
  } catch (error) {
    // undici refuses a header value or the like before it does anything.
    reader.onResponseError(undefined, error as Error);
  }
  return () => reader.abandon();
}

const GIVEN_UP = new Error("given up");

class AnswerReader implements Dispatcher.DispatchHandler {
  readonly #name: string;
  readonly #maxBytes: number;
  readonly #handler: WireHandler;
  readonly #watch: WireWatch | undefined;
  #controller: Dispatcher.DispatchController | undefined;
  #over = false;
  #status = 0;
  #headers: IncomingHttpHeaders = {};
  #kind: "json" | "events" | "other" = "other";
  #chunks: Buffer[] = [];
  #size = 0;
  #events: EventReader | undefined;

  constructor(name: string, maxBytes: number, handler: WireHandler, watch: WireWatch | undefined) {
    this.#name = name;
    this.#maxBytes = maxBytes;
    this.#handler = handler;
    this.#watch = watch;
  }

  abandon(): void {
    this.#over = true;
    this.#controller?.abort(GIVEN_UP);
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#over) controller.abort(GIVEN_UP);
  }
  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    if (status < 200 || this.#over) return;
    this.#status = status;
    this.#headers = headers;
    // RFC 9110 §8.3.1: type names know no case. A field that comes twice is a list.
    const type = String(headers["content-type"] ?? "").toLowerCase();
    const encoding = headers["content-encoding"];
    if (encoding !== undefined && String(encoding).toLowerCase() !== "identity") {
      this.#stop(this.#failure("a compressed body, which was not asked for"));
    } else if (type.startsWith("application/json")) {
      this.#kind = "json";
      this.#handler.head?.(status, headers, false);
    } else if (status < 300 && type.startsWith("text/event-stream")) {
      this.#kind = "events";
      this.#events = eventReader(
        this.#maxBytes,
        (event) => {
          if (this.#over) return;
          this.#watch?.answered();
          if (event.type === "message") this.#handler.message(event.data);
          else this.#handler.event?.(event.type, event.data);
        },
        () => this.#stop(this.#tooLarge()),
      );
      this.#handler.head?.(status, headers, true);
    }
  }
  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#over) return;
    if (this.#events !== undefined) {
      this.#events.push(chunk);
      return;
    }
    this.#size += chunk.length;
    if (this.#size > this.#maxBytes) this.#stop(this.#tooLarge());
    else if (this.#kind === "json" || this.#size - chunk.length < MAX_EXCERPT) this.#chunks.push(chunk);
  }
  onResponseEnd(): void {
    if (this.#over) return;
    const whole = this.#chunks.length === 1 ? (this.#chunks[0] ?? NOTHING) : Buffer.concat(this.#chunks);
    if (this.#kind === "json" && !isUtf8(whole)) {
      this.#stop(this.#failure("a body that is not UTF-8"));
      return;
    }
    // Some servers say 500 with an error of JSON-RPC, which is an answer; what stands before a dead server says something else.
    if (this.#status < 500 || (this.#kind === "json" && whole.includes('"jsonrpc"'))) this.#watch?.answered();
    else this.#watch?.failed(this.#failure(`HTTP ${this.#status}`), "surely");
    if (this.#kind === "json" && whole.length > 0) this.#handler.message(whole.toString("utf8"));
    if (this.#over) return;
    this.#over = true;
    this.#handler.end({
      status: this.#status,
      headers: this.#headers,
      streamed: this.#kind === "events",
      excerpt: this.#kind === "other" ? whole.toString("utf8", 0, MAX_EXCERPT) : "",
      lastEventId: this.#events?.lastId ?? "",
      retryMs: this.#events?.retryMs,
    });
  }
  onResponseError(_controller: unknown, error: Error): void {
    if (this.#over) return;
    this.#over = true;
    const { code } = error as { code?: string };
    const detail = `${code ?? error.name}: ${error.message}`;
    // A stream that breaks is an end like any other for whoever can resume it.
    if (this.#events !== undefined && this.#status !== 0) {
      const { lastId, retryMs } = this.#events;
      this.#handler.end({
        status: this.#status,
        headers: this.#headers,
        streamed: true,
        excerpt: "",
        lastEventId: lastId,
        retryMs,
      });
      return;
    }
    const reached = this.#controller === undefined ? "never" : this.#status === 0 ? "maybe" : "surely";
    const options = { detail, cause: error };
    const failure =
      reached === "never"
        ? new DrawbridgeError("upstream_unavailable", `The server "${this.#name}" cannot be reached.`, options)
        : new DrawbridgeError(
            "upstream_failed",
            `The connection to the server "${this.#name}" broke before it answered.`,
            options,
          );
    this.#watch?.failed(failure, reached);
    this.#handler.fail(failure, reached);
  }

  #stop(error: DrawbridgeError): void {
    if (this.#over) return;
    this.abandon();
    this.#handler.fail(error, "surely");
  }
  #failure(what: string): DrawbridgeError {
    return new DrawbridgeError("upstream_failed", `The server "${this.#name}" did not answer as MCP asks.`, {
      detail: `it sent ${what}`,
    });
  }
  #tooLarge(): DrawbridgeError {
    return new DrawbridgeError(
      "answer_too_large",
      `The server "${this.#name}" sent a message of more than ${this.#maxBytes} bytes.`,
    );
  }
}

const NOTHING = Buffer.alloc(0);
