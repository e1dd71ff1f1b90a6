/** Posts batches to a URL of the operator's, which has them when it answers with a status of 2xx. */
import { DrawbridgeError } from "../../core/errors.ts";
import { Secret } from "../../core/secret.ts";
import { trusted } from "../../net/trusted.ts";
import { contentTypeOf, type Format } from "./formats.ts";
import type { HttpSinkSettings } from "./settings.ts";
import type { Sink } from "./sink.ts";

export interface Poster {
  /** Resolves with what was answered, when that was a success. Throws `body_too_large`, and errors with `retryAfterSeconds`. */
  post(body: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<string>;
  close(): Promise<void>;
}

export type PosterSettings = Pick<
  HttpSinkSettings,
  "url" | "headers" | "timeoutSeconds" | "allowPrivateAddresses" | "allowInsecureHttp"
>;

/** `certificates`: PEM. */
export function httpSink(settings: HttpSinkSettings, format: Format, certificates: string | undefined): Sink {
  const { many, join } = contentTypeOf(format);
  const poster = openPoster(settings, certificates);
  return {
    most: { entries: settings.batch, bytes: 1 << 20 },
    async send(entries, signal) {
      const body = join(entries.map(({ text }) => text));
      await poster.post(body, { "content-type": many, "idempotency-key": keyOf(entries) }, signal);
      return undefined;
    },
    close: poster.close,
  };
}

/** The same for the same records, so that a receiver can tell that a request came again. */
function keyOf(entries: Parameters<Sink["send"]>[0]): string {
  return `${entries[0]?.record.id ?? ""}.${entries.at(-1)?.record.id ?? ""}.${entries.length}`;
}

export function openPoster(settings: PosterSettings, certificates: string | undefined): Poster {
  const { url, timeoutSeconds, allowInsecureHttp, allowPrivateAddresses } = settings;
  const http = trusted({
    allowInsecureHttp,
    allowPrivateAddresses,
    timeoutMs: timeoutSeconds * 1000,
    ...(certificates !== undefined && { trustedCertificates: certificates }),
  });
  const own = Object.entries(settings.headers).map(
    ([name, value]) => [name, value instanceof Secret ? value.reveal() : value] as const,
  );
  const { host } = new URL(url);
  return {
    async post(body, headers, signal) {
      const answer = await http.fetch(url, {
        method: "POST",
        headers: { "user-agent": "drawbridge", ...headers, ...Object.fromEntries(own) },
        body,
        signal,
      });
      if (answer.ok) return answer.text();
      const { status } = answer;
      if (status === 413)
        throw new DrawbridgeError("body_too_large", `${host} does not take ${Buffer.byteLength(body)} bytes at once.`);
      const after = retryAfter(answer.headers.get("retry-after"));
      throw new DrawbridgeError("upstream_failed", `${host} answered with status ${status}.`, {
        ...(after !== undefined && { retryAfterSeconds: after }),
      });
    },
    close: http.close,
  };
}

/** RFC 9110 section 10.2.3, in seconds; a date is left to our own back-off. */
function retryAfter(header: string | null): number | undefined {
  return header !== null && /^[1-9]\d{0,8}$/.test(header) ? Number(header) : undefined;
}
