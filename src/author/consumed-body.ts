/** Requests whose body an app's parser has read before us: put together again from what it left, or refused. */
import { IncomingMessage } from "node:http";
import { DrawbridgeError } from "../core/errors.ts";

/** The request with its body still to be read. Throws `internal`, with words to the app's author, when the body is gone. */
export function wholeRequest(request: IncomingMessage): IncomingMessage {
  const { headers } = request;
  const hasBody = headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
  if (!hasBody || !(request.readableDidRead || request.readableEnded)) return request;
  const bytes = bytesLeft(request);
  if (bytes === undefined)
    throw new DrawbridgeError(
      "internal",
      "The app has read the body of this request and left nothing of it. Mount Drawbridge before its body parsers.",
    );
  return withBody(request, bytes);
}

/** As it came, where a parser kept that (`rawBody`, a raw or text parser); else what stands for it: a number past 2^53 is rounded by then. */
function bytesLeft(request: IncomingMessage): Buffer | undefined {
  const { body, rawBody } = request as { readonly body?: unknown; readonly rawBody?: unknown };
  for (const raw of [rawBody, body]) {
    if (raw instanceof Uint8Array) return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
    if (typeof raw === "string") return Buffer.from(raw);
  }
  const type = request.headers["content-type"] ?? "";
  if (body === undefined || body === null) return undefined;
  if (/^application\/json\s*(;|$)/i.test(type)) return Buffer.from(JSON.stringify(body));
  if (/^application\/x-www-form-urlencoded\s*(;|$)/i.test(type)) return formOf(body);
  return undefined;
}

/** A flat form, a field that came twice still twice; undefined for what a parser has nested. */
function formOf(body: object): Buffer | undefined {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(body) as [string, unknown][])
    for (const one of Array.isArray(value) ? (value as unknown[]) : [value]) {
      if (typeof one !== "string") return undefined;
      form.append(name, one);
    }
  return Buffer.from(form.toString());
}

function withBody(request: IncomingMessage, bytes: Buffer): IncomingMessage {
  const copy = new IncomingMessage(request.socket);
  const { "transfer-encoding": _, "content-encoding": __, ...headers } = request.headers;
  copy.method = request.method ?? "POST";
  copy.url = request.url ?? "/";
  copy.httpVersion = request.httpVersion;
  copy.headers = { ...headers, "content-length": String(bytes.length) };
  // Who looks here wants to know what was sent twice.
  copy.rawHeaders = request.rawHeaders;
  copy.push(bytes);
  copy.push(null);
  copy.complete = true;
  return copy;
}
