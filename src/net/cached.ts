/** JSON documents of strangers, kept for as long as their servers say, within bounds that a stranger cannot move. */
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Outbound, OutboundLimits } from "./outbound.ts";

export interface CachedDocuments {
  /**
   * The document's bytes: from the cache, or fetched. Callers that ask at the same time share one request. A failure is
   * remembered for 30 s and thrown again; while a server is down, its last document serves for up to a day. Rejects as
   * `Outbound.getJson` does, or with `rate_limited`.
   */
  get(url: string): Promise<Buffer>;
}

export interface CacheBounds extends OutboundLimits {
  readonly maxEntries?: number;
  readonly minSeconds?: number;
  readonly maxSeconds?: number;
  readonly failureSeconds?: number;
  /** Requests to one host in a minute. */
  readonly perHostPerMinute?: number;
}

interface Entry {
  readonly body: Buffer | undefined;
  readonly error: unknown;
  readonly etag: string | undefined;
  readonly until: number;
  /** When its server last vouched for it. */
  readonly fetchedAt: number;
}

export function cachedDocuments(outbound: Outbound, bounds: CacheBounds, clock: Clock = systemClock): CachedDocuments {
  const {
    maxEntries = 1_000,
    minSeconds = 60,
    maxSeconds = 86_400,
    failureSeconds = 30,
    perHostPerMinute = 30,
  } = bounds;
  const entries = new Map<string, Entry>();
  const underWay = new Map<string, Promise<Buffer>>();
  const asked = new Map<string, { minute: number; count: number }>();

  function checkRate(url: string): void {
    const host = URL.parse(url)?.host ?? "";
    const minute = Math.floor(clock() / 60_000);
    const seen = asked.get(host);
    const count = seen?.minute === minute ? seen.count + 1 : 1;
    remember(asked, host, { minute, count }, maxEntries);
    if (count > perHostPerMinute) {
      throw new DrawbridgeError("rate_limited", `${host} was asked for documents too often. Try again in a minute.`, {
        retryAfterSeconds: 60,
      });
    }
  }

  async function load(url: string, stale: Entry | undefined): Promise<Buffer> {
    try {
      checkRate(url);
      const answer = await outbound.getJson(url, bounds, stale?.body === undefined ? undefined : stale.etag);
      const body = answer.status === 304 && stale?.body !== undefined ? stale.body : answer.body;
      const seconds = Math.min(maxSeconds, Math.max(minSeconds, maxAge(answer.cacheControl)));
      const etag = answer.etag ?? (answer.status === 304 ? stale?.etag : undefined);
      const fetchedAt = clock();
      remember(
        entries,
        url,
        { body, error: undefined, etag, until: fetchedAt + seconds * 1000, fetchedAt },
        maxEntries,
      );
      return body;
    } catch (error) {
      const until = clock() + failureSeconds * 1000;
      // A client must not lose its users because its site is down for a minute. A document that was withdrawn is refused.
      if (stale?.body !== undefined && passing(error) && clock() - stale.fetchedAt < maxSeconds * 1000) {
        remember(entries, url, { ...stale, until }, maxEntries);
        return stale.body;
      }
      remember(entries, url, { body: undefined, error, etag: undefined, until, fetchedAt: 0 }, maxEntries);
      throw error;
    }
  }

  return {
    async get(url) {
      const known = entries.get(url);
      if (known !== undefined && known.until > clock()) {
        if (known.body === undefined) throw known.error;
        return known.body;
      }
      const waiting = underWay.get(url);
      if (waiting !== undefined) return waiting;
      const loading = load(url, known).finally(() => underWay.delete(url));
      underWay.set(url, loading);
      return loading;
    },
  };
}

/** A failure that says nothing of the document. */
function passing(error: unknown): boolean {
  return (
    error instanceof DrawbridgeError &&
    ["upstream_unavailable", "upstream_timeout", "rate_limited"].includes(error.code)
  );
}

/** Seconds that an answer may be kept (RFC 9111 §5.2.2); 0 when its server does not say or forbids it. */
function maxAge(cacheControl: string | undefined): number {
  if (cacheControl === undefined || /(?:^|,) *no-(?:store|cache)/i.test(cacheControl)) return 0;
  return Number(/(?:^|,) *max-age *= *"?(\d{1,9})/i.exec(cacheControl)?.[1] ?? 0);
}

/** Sets an entry as the newest; the oldest goes when there are too many. */
function remember<T>(map: Map<string, T>, key: string, value: T, maxEntries: number): void {
  map.delete(key);
  map.set(key, value);
  if (map.size > maxEntries) map.delete(map.keys().next().value ?? "");
}
