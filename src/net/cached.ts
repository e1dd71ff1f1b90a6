/** JSON documents of strangers, kept for as long as their servers say, within bounds that a stranger cannot move. */
import { type Clock, systemClock } from "../core/clock.ts";
import { DrawbridgeError } from "../core/errors.ts";
import type { Outbound, OutboundLimits } from "./outbound.ts";
import { networkOf } from "./source.ts";

export interface CachedDocuments {
  /**
   * The document's bytes: from the cache, or fetched. Callers that ask at the same time share one request. A failure is
   * remembered for 30 s and thrown again; while a server is down, its last document serves for up to a day. Rejects as
   * `Outbound.getJson` does, or with `rate_limited`: too many requests to one host, or on behalf of one `source`.
   */
  get(url: string, source?: string): Promise<Buffer>;
}

export interface CacheBounds extends OutboundLimits {
  readonly maxEntries?: number;
  /** Of all bodies together. */
  readonly maxTotalBytes?: number;
  readonly minSeconds?: number;
  readonly maxSeconds?: number;
  readonly failureSeconds?: number;
  /** Requests to one host in a minute. */
  readonly perHostPerMinute?: number;
  /** Requests that one source causes in a minute. What is answered from the cache does not count. */
  readonly perSourcePerMinute?: number;
  /** Requests under way at the same time, to all hosts. */
  readonly maxUnderWay?: number;
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
    maxTotalBytes = 8 << 20,
    minSeconds = 60,
    maxSeconds = 86_400,
    failureSeconds = 30,
    perHostPerMinute = 30,
    perSourcePerMinute = 20,
    maxUnderWay = 64,
  } = bounds;
  const entries = new Map<string, Entry>();
  let totalBytes = 0;
  const underWay = new Map<string, Promise<Buffer>>();
  const bySource = perMinute(perSourcePerMinute, maxEntries, clock);
  const byHost = perMinute(perHostPerMinute, maxEntries, clock);

  /** Sets an entry as the newest; the oldest go when there are too many. */
  function remember(url: string, entry: Entry): void {
    forget(url);
    entries.set(url, entry);
    totalBytes += entry.body?.length ?? 0;
    while (entries.size > maxEntries || totalBytes > maxTotalBytes) forget(entries.keys().next().value ?? "");
  }

  function forget(url: string): void {
    totalBytes -= entries.get(url)?.body?.length ?? 0;
    entries.delete(url);
  }

  /** The last document while its server cannot be asked: a client must not lose its users because its site is down for a minute. */
  function lastGood(stale: Entry | undefined): Buffer | undefined {
    return stale !== undefined && clock() - stale.fetchedAt < maxSeconds * 1000 ? stale.body : undefined;
  }

  /** The source comes first, so that what a busy one is refused leaves a host's share to others. */
  function limitReached(url: string, source: string | undefined): DrawbridgeError | undefined {
    if (underWay.size >= maxUnderWay) return tooMany("Too many documents are being fetched.");
    if (source !== undefined && !bySource(networkOf(source)))
      return tooMany("Too many client documents were asked for from here.");
    const { host } = new URL(url);
    return byHost(host) ? undefined : tooMany(`${host} was asked for documents too often.`);
  }

  async function load(url: string, stale: Entry | undefined): Promise<Buffer> {
    try {
      const answer = await outbound.getJson(url, bounds, stale?.body === undefined ? undefined : stale.etag);
      const body = answer.status === 304 && stale?.body !== undefined ? stale.body : answer.body;
      const seconds = Math.min(maxSeconds, Math.max(minSeconds, maxAge(answer.cacheControl)));
      const etag = answer.etag ?? (answer.status === 304 ? stale?.etag : undefined);
      const fetchedAt = clock();
      remember(url, { body, error: undefined, etag, until: fetchedAt + seconds * 1000, fetchedAt });
      return body;
    } catch (error) {
      const until = clock() + failureSeconds * 1000;
      const body = passing(error) ? lastGood(stale) : undefined;
      // A document that was withdrawn is refused at once.
      if (stale === undefined || body === undefined) {
        remember(url, { body: undefined, error, etag: undefined, until, fetchedAt: 0 });
        throw error;
      }
      remember(url, { ...stale, until });
      return body;
    }
  }

  return {
    async get(url, source) {
      // Before anything is counted or remembered: there is no end of URLs that are refused.
      outbound.check(url);
      const known = entries.get(url);
      if (known !== undefined && known.until > clock()) {
        remember(url, known);
        if (known.body === undefined) throw known.error;
        return known.body;
      }
      const waiting = underWay.get(url);
      if (waiting !== undefined) return waiting;
      const limit = limitReached(url, source);
      if (limit !== undefined) {
        // Not remembered: what one source may not ask for now, another may.
        const body = lastGood(known);
        if (body === undefined) throw limit;
        return body;
      }
      const loading = load(url, known).finally(() => underWay.delete(url));
      underWay.set(url, loading);
      return loading;
    },
  };
}

/** A failure that says nothing of the document. */
function passing(error: unknown): boolean {
  return error instanceof DrawbridgeError && ["upstream_unavailable", "upstream_timeout"].includes(error.code);
}

/** Seconds that an answer may be kept (RFC 9111 §5.2.2); 0 when its server does not say or forbids it. */
function maxAge(cacheControl: string | undefined): number {
  if (cacheControl === undefined || /(?:^|,) *no-(?:store|cache)/i.test(cacheControl)) return 0;
  return Number(/(?:^|,) *max-age *= *"?(\d{1,9})/i.exec(cacheControl)?.[1] ?? 0);
}

/** Counts by key within each minute of the clock. False: this one is too many. */
function perMinute(limit: number, maxKeys: number, clock: Clock): (key: string) => boolean {
  const counts = new Map<string, { readonly minute: number; readonly count: number }>();
  return (key) => {
    const minute = Math.floor(clock() / 60_000);
    const seen = counts.get(key);
    const count = seen?.minute === minute ? seen.count + 1 : 1;
    counts.delete(key);
    counts.set(key, { minute, count });
    if (counts.size > maxKeys) counts.delete(counts.keys().next().value ?? "");
    return count <= limit;
  };
}

function tooMany(what: string): DrawbridgeError {
  return new DrawbridgeError("rate_limited", `${what} Try again in a minute.`, { retryAfterSeconds: 60 });
}
