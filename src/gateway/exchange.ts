/** One HTTP request and its answer, from the edge's point of view: the body within bounds, and an answer that is JSON until it must stream. */

import { isUtf8 } from "node:buffer";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { RequestId } from "../core/call.ts";
import { DrawbridgeError } from "../core/errors.ts";
import { errorText, sseEvent } from "../mcp/answers.ts";
import { remark } from "../oauth/trail.ts";
import type { Channel } from "./resume.ts";
import { startSse } from "./sse.ts";

/** Reads the whole body as text. How long it may take is kept by the listener. Throws `body_too_large`, `parse_error` (not UTF-8) or `cancelled`. */
export function readBody(request: IncomingMessage, maxBytes: number): Promise<string> {
  const declared = Number(request.headers["content-length"] ?? 0);
  const tooLarge = () => new DrawbridgeError("body_too_large", `The body is larger than ${maxBytes} bytes.`);
  if (declared > maxBytes) return Promise.reject(tooLarge());
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const onData = (chunk: Buffer) => {
      size += chunk.length;
      chunks.push(chunk);
      if (size <= maxBytes) return;
      chunks.length = 0;
      request.off("data", onData);
      request.resume();
      reject(tooLarge());
    };
    // "close" follows every "end" too; an error with its stack made each time would cost more than all else here.
    let whole = false;
    const gone = () => {
      if (!whole) reject(new DrawbridgeError("cancelled", "The client went away."));
    };
    request.on("data", onData);
    request.on("error", gone);
    request.on("close", gone);
    request.on("end", () => {
      whole = true;
      const body = chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks);
      if (isUtf8(body)) resolve(body.toString("utf8"));
      else reject(new DrawbridgeError("parse_error", "The body is not valid UTF-8."));
    });
  });
}

export interface Accepts {
  readonly json: boolean;
  readonly sse: boolean;
}

/** Reads `Accept`. A client that says nothing, or anything, takes JSON. Throws `not_acceptable` for one that takes neither. */
export function readAccept(request: IncomingMessage): Accepts {
  const accept = request.headers.accept?.toLowerCase();
  if (accept === undefined || accept.trim() === "") return { json: true, sse: false };
  const sse = accept.includes("text/event-stream") || accept.includes("text/*");
  const json = accept.includes("application/json") || accept.includes("*/*") || accept.includes("application/*");
  if (!sse && !json)
    throw new DrawbridgeError("not_acceptable", "Accept must name application/json and text/event-stream.");
  return { json, sse };
}

/** The answer to one JSON-RPC request: a JSON object, or an SSE stream from the first notification on. */
export class Answering {
  readonly #response: ServerResponse;
  readonly #accepts: Accepts;
  readonly #resumable: (() => Channel | undefined) | undefined;
  readonly #headers: Record<string, string> = {};
  #streaming = false;
  #channel: Channel | undefined;

  /** `resumable` makes the stream one that its client may leave and come back to; it is called when the stream has begun. */
  constructor(response: ServerResponse, accepts: Accepts, resumable?: () => Channel | undefined) {
    this.#response = response;
    this.#accepts = accepts;
    this.#resumable = resumable;
  }

  get streaming(): boolean {
    return this.#streaming;
  }
  /** The client has gone for good, or everything was sent. */
  get over(): boolean {
    return this.#channel?.over ?? (this.#response.destroyed || this.#response.writableEnded);
  }
  /** The client may leave and come back, or could once the answer is a stream. */
  get resumable(): boolean {
    return this.#streaming ? this.#channel !== undefined : this.#resumable !== undefined && this.#accepts.sse;
  }
  header(name: string, value: string): void {
    this.#headers[name] = value;
  }
  /** Sends a message before the answer; false, and dropped, when the client takes no stream or has gone. Starts the stream. */
  notify(message: string): boolean {
    if (!this.#accepts.sse || this.over) return false;
    this.stream();
    if (this.#channel !== undefined) return this.#channel.send(message);
    this.#response.write(sseEvent(message));
    return true;
  }
  /** Turns the answer into a stream now. */
  stream(): void {
    if (this.#streaming || !this.#accepts.sse || this.over) return;
    this.#streaming = true;
    startSse(this.#response, this.#headers);
    this.#channel = this.#resumable?.();
  }
  /**
   * Calls back once when the client has gone for good: at once when the answer is no stream that can be resumed, else when it did not
   * come back in time. The function returned ends that.
   */
  whenGone(callback: () => void): () => void {
    let over = false;
    const gone = () => {
      if (!over) callback();
    };
    const onClose = () => {
      if (this.#channel !== undefined) this.#channel.whenLapsed(gone);
      else if (!this.#response.writableFinished) gone();
    };
    if (this.#response.destroyed) onClose();
    else this.#response.once("close", onClose);
    return () => {
      over = true;
      this.#response.off("close", onClose);
    };
  }
  /** Whether there is somebody to answer. A promise while the client is away and may come back. */
  attended(): boolean | Promise<boolean> {
    return this.#channel?.returned() ?? true;
  }
  /** Answers with an error of the table, while nothing was sent. */
  refuse(error: DrawbridgeError, id: RequestId | undefined, options?: Parameters<typeof sendError>[3]): void {
    sendError(this.#response, error, id, options);
  }
  /** Sends the answer. `status` counts only while nothing was sent. */
  finish(message: string, status = 200): void {
    if (this.over) return;
    if (!this.#streaming && status === 200 && !this.#accepts.json) this.stream();
    if (this.#channel !== undefined) {
      this.#channel.end(message);
      return;
    }
    if (this.#streaming) {
      this.#response.end(sseEvent(message));
      return;
    }
    const length = Buffer.byteLength(message);
    this.#response.writeHead(status, {
      "content-type": "application/json",
      "content-length": length,
      ...this.#headers,
    });
    this.#response.end(message);
  }
}

/** The answers to the requests of one body (2025-03-26, Sending Messages): an array, or one stream from the first notification on. */
export class BatchAnswering {
  readonly #response: ServerResponse;
  readonly #accepts: Accepts;
  readonly #answers: string[] = [];
  #streaming = false;

  constructor(response: ServerResponse, accepts: Accepts) {
    this.#response = response;
    this.#accepts = accepts;
  }

  get streaming(): boolean {
    return this.#streaming;
  }
  get gone(): boolean {
    return this.#response.destroyed || this.#response.writableEnded;
  }
  /** What one of the requests is answered with. */
  part(): Answering {
    return new BatchPart(this, this.#response, this.#accepts);
  }
  say(message: string): boolean {
    if (!this.#accepts.sse || this.gone) return false;
    this.stream();
    this.#response.write(sseEvent(message));
    return true;
  }
  stream(): void {
    if (this.#streaming || !this.#accepts.sse || this.gone) return;
    this.#streaming = true;
    startSse(this.#response, {});
    for (const answer of this.#answers.splice(0)) this.#response.write(sseEvent(answer));
  }
  add(answer: string): void {
    if (this.#streaming) this.say(answer);
    else this.#answers.push(answer);
  }
  /** Everything was answered; `202` when there was nothing to answer. */
  finish(): void {
    if (this.gone) return;
    if (!this.#streaming && this.#answers.length === 0) {
      this.#response.writeHead(202, { "content-length": 0 }).end();
      return;
    }
    if (!this.#accepts.json) this.stream();
    if (this.#streaming) {
      this.#response.end();
      return;
    }
    const body = `[${this.#answers.join(",")}]`;
    this.#response.writeHead(200, {
      "content-type": "application/json",
      "content-length": Buffer.byteLength(body),
    });
    this.#response.end(body);
  }
}

class BatchPart extends Answering {
  readonly #batch: BatchAnswering;
  #answered = false;
  constructor(batch: BatchAnswering, response: ServerResponse, accepts: Accepts) {
    super(response, accepts);
    this.#batch = batch;
  }
  override get streaming(): boolean {
    return this.#batch.streaming;
  }
  override get over(): boolean {
    return this.#answered || this.#batch.gone;
  }
  override notify(message: string): boolean {
    return !this.#answered && this.#batch.say(message);
  }
  override stream(): void {
    this.#batch.stream();
  }
  override finish(message: string): void {
    if (this.over) return;
    this.#answered = true;
    this.#batch.add(message);
  }
  override refuse(error: DrawbridgeError, id: RequestId | undefined): void {
    this.finish(errorText(id, error));
  }
}

/** Answers with an error of the table, with what HTTP adds to it. */
export function sendError(
  response: ServerResponse,
  error: DrawbridgeError,
  id: RequestId | undefined,
  options: { challenges?: readonly string[]; status?: number } = {},
): void {
  if (response.headersSent) {
    response.end();
    return;
  }
  if (error.http === 401 || error.http === 403) remark(response, { said: error.detail ?? error.message });
  const body = errorText(id, error);
  response.writeHead(options.status ?? error.http, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(body),
    ...(options.challenges !== undefined && { "www-authenticate": [...options.challenges] }),
    ...(error.proof?.nonce !== undefined && { "dpop-nonce": error.proof.nonce }),
    ...(error.retryAfterSeconds !== undefined && { "retry-after": String(error.retryAfterSeconds) }),
    ...(error.code === "method_not_allowed" && { allow: "POST, GET, DELETE" }),
    // What is left of a refused body is not worth reading.
    ...((error.code === "body_too_large" || error.code === "request_timeout") && { connection: "close" }),
  });
  response.end(body);
}
