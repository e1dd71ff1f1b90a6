/**
 * Sends finished spans to an OTLP/HTTP collector, as JSON. Spans wait as bytes outside the heap: as objects they would live just long
 * enough to be promoted, and cost more in garbage collection than in anything else (docs/decisions/005-own-spans.md).
 */
import { type ClientRequest, Agent as HttpAgent, type IncomingMessage, request as requestHttp } from "node:http";
import { Agent as HttpsAgent, request as requestHttps } from "node:https";
import { setTimeout as wait } from "node:timers/promises";
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import * as events from "./events.ts";
import type { Logger } from "./logger.ts";
import { attributesJson, type SpanAttributes } from "./span-json.ts";

export interface SpanExporter {
  /** Takes a finished span as OTLP JSON text. Never waits and never fails: what there is no room for is dropped and counted. */
  add(span: string): void;
  /** How many spans did not reach the collector. */
  readonly dropped: number;
  /** Sends what is still to be sent, for five seconds at most. */
  close(): Promise<void>;
}

export interface OtlpOptions {
  /** Base address; `/v1/traces` is put behind it. */
  readonly endpoint: string;
  readonly headers: Readonly<Record<string, string>>;
  /** What the spans are of: `service.name` and the like. */
  readonly resource: SpanAttributes;
  readonly logger: Logger;
  readonly clock?: Clock;
}

/** Some 500 spans are sent at once, or those of one second. */
const BATCH_BYTES = 256 * 1024;
/** Of these, so 4 MiB of spans at most wait for the collector. */
const MAX_BATCHES = 16;
/** Empty ones that are kept for later. */
const MAX_SPARE = 2;
const EXPORT_EVERY_MS = 1000;
const TIMEOUT_MS = 5000;
const RETRY_AFTER_MS = 1000;
const CLOSE_MS = 5000;
const COMPLAIN_EVERY_MS = 60_000;
const MAX_ANSWER_BYTES = 16_384;
/** https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes */
const RETRYABLE: ReadonlySet<number> = new Set([429, 502, 503, 504]);

/** A request in the making: `bytes` up to `length` are its text, still without `TAIL`. */
interface Batch {
  readonly bytes: Buffer;
  length: number;
  spans: number;
}

const COMMA = 0x2c;
const TAIL = "]}]}]}";

/** Throws `settings_invalid` for an endpoint that is no URL. Connects to nobody until there is a span to send. */
export function openOtlp(options: OtlpOptions): SpanExporter {
  const { endpoint, logger, clock = systemClock } = options;
  const collector = openCollector(options);
  const head = `{"resourceSpans":[{"resource":{"attributes":${attributesJson(options.resource)}},"scopeSpans":[{"scope":{"name":"drawbridge"},"spans":[`;
  const spare: Batch[] = [];
  const waiting: Batch[] = [];
  let filling: Batch | undefined;
  let timer: NodeJS.Timeout | undefined;
  let sending: Promise<void> | undefined;
  let dropped = 0;
  let failures = 0;
  let said = Number.NEGATIVE_INFINITY;
  /** No time to wait before a second try. */
  const closing = new AbortController();

  function add(span: string): void {
    // A UTF-16 unit is three bytes of UTF-8 at most.
    const most = span.length * 3 + 1 + TAIL.length;
    if (filling !== undefined && filling.length + most > BATCH_BYTES) flush();
    filling ??= emptyBatch();
    if (filling === undefined || filling.length + most > BATCH_BYTES) {
      dropped++;
      return;
    }
    if (filling.spans++ > 0) filling.bytes[filling.length++] = COMMA;
    filling.length += filling.bytes.write(span, filling.length);
    timer ??= setTimeout(flush, EXPORT_EVERY_MS).unref();
  }

  function emptyBatch(): Batch | undefined {
    if (closing.signal.aborted || waiting.length >= MAX_BATCHES) return undefined;
    const batch = spare.pop() ?? { bytes: Buffer.allocUnsafeSlow(BATCH_BYTES), length: 0, spans: 0 };
    batch.length = batch.bytes.write(head);
    batch.spans = 0;
    return batch;
  }

  function flush(): void {
    clearTimeout(timer);
    timer = undefined;
    if (filling === undefined || filling.spans === 0) return;
    filling.length += filling.bytes.write(TAIL, filling.length);
    waiting.push(filling);
    filling = undefined;
    sending ??= sendAll();
  }

  /** One after the other; runs at most once at a time. */
  async function sendAll(): Promise<void> {
    for (let batch = waiting[0]; batch !== undefined; batch = waiting[0]) {
      try {
        const { rejected, why, done } = await sendTwice(batch);
        if (rejected > 0) failed(rejected, new Error(`the collector rejected spans: ${why}`));
        if (done && spare.length < MAX_SPARE) spare.push(batch);
      } catch (error) {
        // Its bytes are not used again: a broken request may still hold them.
        failed(batch.spans, error);
      }
      waiting.shift();
    }
    sending = undefined;
  }

  async function sendTwice(batch: Batch): Promise<Accepted> {
    const body = batch.bytes.subarray(0, batch.length);
    try {
      return await collector.send(body);
    } catch (error) {
      if (error instanceof Refusal && !RETRYABLE.has(error.status)) throw error;
      await wait(RETRY_AFTER_MS, undefined, { signal: closing.signal, ref: false }).catch(() => {});
      return collector.send(body);
    }
  }

  function failed(spans: number, error: unknown): void {
    failures++;
    dropped += spans;
    if (clock() - said < COMPLAIN_EVERY_MS) return;
    said = clock();
    events.exportFailing(logger, { endpoint, failures, dropped }, error);
  }

  return {
    add,
    get dropped() {
      return dropped;
    },
    async close() {
      flush();
      closing.abort();
      const late = setTimeout(collector.close, CLOSE_MS);
      await sending;
      clearTimeout(late);
      collector.close();
    },
  };
}

/** What the collector made of a request. */
interface Accepted {
  /** Spans it did not want, and why. */
  readonly rejected: number;
  readonly why: string;
  /** All bytes have left; until then they belong to the request. */
  readonly done: boolean;
}

class Refusal extends Error {
  readonly status: number;
  constructor(status: number, said: string) {
    super(`the collector answered with status ${status}${said === "" ? "" : `: ${said.slice(0, 200)}`}`);
    this.status = status;
  }
}

interface Collector {
  /** Rejects with `Refusal` for an answer that is no success, otherwise with what went wrong on the way. One at a time. */
  send(body: Buffer): Promise<Accepted>;
  /** Ends what is under way and refuses what comes later. */
  close(): void;
}

function openCollector({ endpoint, headers }: OtlpOptions): Collector {
  const url = tracesUrl(endpoint);
  const secure = url.protocol === "https:";
  const options = { keepAlive: true, maxSockets: 1 };
  const agent = secure ? new HttpsAgent(options) : new HttpAgent(options);
  const request = secure ? requestHttps : requestHttp;
  let current: ClientRequest | undefined;
  let closed = false;
  const stopped = () => new Error("the gateway stopped before its spans were sent");

  async function send(body: Buffer): Promise<Accepted> {
    if (closed) throw stopped();
    const answer = Promise.withResolvers<IncomingMessage>();
    const own = { "content-type": "application/json", "content-length": body.length };
    const sent = request(url, { method: "POST", agent, headers: { "user-agent": "drawbridge", ...headers, ...own } });
    current = sent;
    const timer = setTimeout(() => sent.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)), TIMEOUT_MS);
    try {
      sent.on("response", answer.resolve).on("error", answer.reject).end(body);
      const response = await answer.promise;
      const said = await bounded(response);
      const status = response.statusCode ?? 0;
      if (status < 200 || status > 299) throw new Refusal(status, said);
      return { ...partialSuccess(said), done: sent.writableFinished };
    } finally {
      clearTimeout(timer);
    }
  }

  return {
    send,
    close() {
      closed = true;
      current?.destroy(stopped());
      agent.destroy();
    },
  };
}

function tracesUrl(endpoint: string): URL {
  const url = URL.parse(`${endpoint.replace(/\/+$/, "")}/v1/traces`);
  if (url !== null && /^https?:$/.test(url.protocol)) return url;
  const message = `The OTLP endpoint ${endpoint} is not an http or https URL. Correct telemetry.otlpEndpoint or the environment.`;
  throw new DrawbridgeError("settings_invalid", message);
}

async function bounded(response: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of response as AsyncIterable<Buffer>) {
    parts.push(part);
    size += part.length;
    if (size > MAX_ANSWER_BYTES) break; // Which closes the connection.
  }
  return Buffer.concat(parts).toString("utf8");
}

/** https://opentelemetry.io/docs/specs/otlp/#partial-success-1 */
function partialSuccess(said: string): { readonly rejected: number; readonly why: string } {
  try {
    const { partialSuccess } = JSON.parse(said) as {
      partialSuccess?: { rejectedSpans?: unknown; errorMessage?: unknown };
    };
    const rejected = Number(partialSuccess?.rejectedSpans ?? 0);
    return { rejected: Number.isSafeInteger(rejected) ? rejected : 0, why: String(partialSuccess?.errorMessage ?? "") };
  } catch {
    return { rejected: 0, why: "" }; // A collector that answers in another format took them all.
  }
}
