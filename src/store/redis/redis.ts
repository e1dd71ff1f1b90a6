/** Redis: what several replicas of a gateway share when they have no PostgreSQL. Each operation is one command or one script. */
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { Secret } from "../../core/secret.ts";
import { checkAuditRows, checkKeys, checkPage, valueText } from "../limits.ts";
import { absent, checkUrl, failure, tooNew } from "../place.ts";
import type { AuditLog, AuditQuery, AuditRow, Page, Records, Row, Store } from "../ports.ts";
import { openRedis, type Redis, type Reply } from "./connection.ts";
import { BLOCK } from "./scripts.ts";

export interface RedisOptions {
  readonly clock?: Clock;
  /** Nothing is written: for looking into the log beside a running gateway. */
  readonly readOnly?: boolean;
  /** Hears of a server that may forget, of an unencrypted connection, and of a server that is waited for. */
  readonly warn?: (message: string) => void;
}

/**
 * Opens the store on the server of `url` (`rediss://user:password@host:port/database?prefix=drawbridge:`; `rediss` is TLS, checked
 * against the system's certificates and `NODE_EXTRA_CA_CERTS`). Redis 7 or what is compatible with it, one primary, not a cluster.
 *
 * How durable a write that has resolved is, is the server's setting: `appendonly yes` with `appendfsync always` keeps it through the
 * loss of power, `everysec` loses up to a second, and without `appendonly` a restart loses whatever came after the last snapshot –
 * revocations and audit records among it. `warn` hears of both. What is to be proved later belongs in PostgreSQL or SQLite.
 *
 * While the server is away operations reject with `internal` within seconds, and succeed again once it is back. One that is rejected
 * because its connection was lost may have been done. Expired rows are freed by `sweep`.
 *
 * Throws `settings_invalid` when the server cannot be reached within ten seconds, refuses us, evicts keys when its memory is full
 * (`maxmemory-policy` is not `noeviction`: what it forgets could be a revocation), or holds a newer schema.
 */
export async function redisStore(url: string | Secret, options: RedisOptions = {}): Promise<Store & AsyncDisposable> {
  const text = url instanceof Secret ? url.reveal() : url;
  checkUrl(text);
  const { clock = systemClock, readOnly = false, warn = () => {} } = options;
  const redis = await openRedis(text, warn);
  try {
    // Who only looks loses nothing.
    await checkServer(redis, text, readOnly ? () => {} : warn);
    await checkSchema(redis, readOnly);
  } catch (thrown) {
    await redis.close();
    throw thrown;
  }
  const writing: Redis = readOnly ? { ...redis, run: refuseToWrite } : redis;
  const close = () => redis.close();
  return {
    records: redisRecords(redis, writing, clock),
    audit: redisAudit(redis, writing),
    close,
    [Symbol.asyncDispose]: close,
  };
}

const SCHEMA = 1;

async function checkSchema(redis: Redis, readOnly: boolean): Promise<void> {
  const key = `${redis.prefix}schema`;
  if (!readOnly) await redis.command("SET", key, String(SCHEMA), "NX");
  const stored = await redis.command("GET", key);
  if (stored === null) throw absent(redis.place);
  if (Number(stored) > SCHEMA) throw tooNew(redis.place, Number(stored), SCHEMA);
  if (!readOnly) await redis.run("orderStubs", []);
}

async function checkServer(redis: Redis, url: string, warn: (message: string) => void): Promise<void> {
  const { protocol, hostname } = new URL(url);
  if (protocol === "redis:" && !/^(localhost|127\..*|\[::1\])$/i.test(hostname))
    warn(`The connection to the store ${redis.place} is not encrypted; use rediss:// where the server can.`);
  const settings = await settingsOf(redis);
  const policy = settings.get("maxmemory-policy");
  if (policy !== undefined && policy !== "noeviction")
    throw new DrawbridgeError(
      "settings_invalid",
      `The Redis server ${redis.place} forgets keys when its memory is full (maxmemory-policy ${policy}), and with them revocations and audit records. Set maxmemory-policy to noeviction.`,
    );
  if (settings.get("appendonly") === "no")
    warn(`The Redis server ${redis.place} may lose what was written when it restarts; set appendonly to yes.`);
  else if (settings.get("appendonly") === "yes" && (settings.get("appendfsync") ?? "always") !== "always")
    warn(
      `The Redis server ${redis.place} may lose its last writes when its machine dies (appendfsync ${settings.get("appendfsync")}); set appendfsync to always when each audit record must last.`,
    );
}

/** Those of the server's settings that it lets us see: managed servers often refuse CONFIG but answer INFO. */
async function settingsOf(redis: Redis): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  const look = async (...words: readonly string[]) => redis.command(...words).catch(() => null);
  const info = String(await look("INFO", "everything"));
  const [, policy] = /^maxmemory_policy:(\S+)/m.exec(info) ?? [];
  const [, appending] = /^aof_enabled:(\d)/m.exec(info) ?? [];
  if (policy !== undefined) found.set("maxmemory-policy", policy);
  if (appending !== undefined) found.set("appendonly", appending === "1" ? "yes" : "no");
  for (const name of ["maxmemory-policy", "appendonly", "appendfsync"]) {
    const [, value] = ((await look("CONFIG", "GET", name)) ?? []) as readonly string[];
    if (value !== undefined) found.set(name, value);
  }
  return found;
}

const refuseToWrite: Redis["run"] = async () => {
  throw failure("it was opened for reading only");
};

/** Bounds one step: nothing else runs on the server meanwhile. */
const SWEEP_ROWS = 500;

function redisRecords(redis: Redis, writing: Redis, clock: Clock): Records {
  return {
    async get<T>(kind: string, id: string) {
      const found = await redis.command("HMGET", `${redis.prefix}row:${memberOf(kind, id)}`, "v", "n", "e");
      return aliveRow<T>(id, found, clock());
    },
    async put(kind, id, value, { ifVersion, expiresAt, index = {} } = {}) {
      checkKeys(kind, id, index);
      const json = valueText(kind, value);
      const sets = Object.entries(index).map(([name, one]) => setOf(name, one));
      const words = [memberOf(kind, id), String(clock()), String(ifVersion ?? ""), json, String(expiresAt ?? "")];
      return (await writing.run("put", [...words, ...sets])) === 1;
    },
    async take<T>(kind: string, id: string) {
      const now = clock();
      return aliveRow<T>(id, await writing.run("take", [memberOf(kind, id)]), now);
    },
    async delete(kind, id) {
      await writing.run("take", [memberOf(kind, id)]);
    },
    list: (kind, page) => pageOf(kind, "rows", page),
    find: (kind, name, value, page) => pageOf(kind, `find:${setOf(name, value)}`, page),
    async deleteWhere(name, value, kind) {
      const begin = kind === undefined ? "" : memberOf(kind, "");
      return Number(await writing.run("deleteWhere", [setOf(name, value), begin, String(clock())]));
    },
    async sweep() {
      const now = String(clock());
      for (let total = 0; ; ) {
        const deleted = Number(await writing.run("sweep", [now, String(SWEEP_ROWS)]));
        total += deleted;
        if (deleted < SWEEP_ROWS) return total;
      }
    },
  };

  async function pageOf<T>(kind: string, set: string, page: Page): Promise<readonly Row<T>[]> {
    checkPage(page);
    const after = page.after === undefined ? "" : `(${page.after}`;
    const now = clock();
    const words = [set, memberOf(kind, ""), String(page.limit), String(now), after];
    const flat = (await redis.run("page", words)) as readonly string[];
    const rows: Row<T>[] = [];
    for (let at = 0; at < flat.length; at += 4) {
      const row = aliveRow<T>(flat[at] ?? "", flat.slice(at + 1, at + 4), now);
      if (row !== undefined) rows.push(row);
    }
    return rows;
  }
}

/** No kind's members begin like another's, whatever characters are in them. */
function memberOf(kind: string, id: string): string {
  return `${Buffer.byteLength(kind)}:${kind}:${id}`;
}

function setOf(name: string, value: string): string {
  return memberOf(name, value);
}

function aliveRow<T>(id: string, found: Reply, now: number): Row<T> | undefined {
  const [value, version, expires] = found as readonly [string | null, string, string];
  if (value === null) return undefined;
  const expiresAt = expires === "" ? undefined : Number(expires);
  if (expiresAt !== undefined && expiresAt <= now) return undefined;
  return { id, value: JSON.parse(value) as T, version: Number(version), expiresAt };
}

function redisAudit(redis: Redis, writing: Redis): AuditLog {
  const log = `${redis.prefix}audit:log`;

  /** None of a record that was retired. */
  async function jsonOf(sequence: number): Promise<readonly Found[]> {
    const found = await range(log, sequence, sequence, "XRANGE");
    return found.length > 0 ? found : stubOf(sequence);
  }

  async function stubOf(sequence: number): Promise<readonly Found[]> {
    const json = await redis.command("HGET", `${redis.prefix}audit:stubs`, String(sequence));
    return typeof json === "string" ? [{ sequence, json }] : [];
  }

  async function range(stream: string, from: number, to: number, command: string, limit = BLOCK): Promise<Found[]> {
    const [first, last] = command === "XREVRANGE" ? [to, from] : [from, to];
    const reply = await redis.command(command, stream, String(first), String(last), "COUNT", String(limit));
    return (reply as readonly StreamEntry[]).map(([id, [, text]]) => ({
      sequence: Number.parseInt(id, 10),
      json: text,
    }));
  }

  /** Sequence numbers that may match, a block at a time. */
  async function spans({ id, after = 0, since, until, newest }: AuditQuery): Promise<readonly Span[]> {
    const last = Number((await redis.command("GET", `${redis.prefix}audit:last`)) ?? 0);
    if (id !== undefined) {
      const sequence = Number((await redis.command("HGET", `${redis.prefix}audit:ids`, id)) ?? 0);
      return sequence > after ? [[sequence, sequence]] : [];
    }
    const times = since === undefined && until === undefined ? undefined : await timesOf(redis);
    const found: Span[] = [];
    for (let block = Math.floor(after / BLOCK); block * BLOCK < last; block++) {
      const [earliest, latest] = times?.get(block) ?? [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
      if (latest < (since ?? latest) || (until !== undefined && earliest >= until)) continue;
      found.push([Math.max(block * BLOCK, after) + 1, Math.min((block + 1) * BLOCK, last)]);
    }
    return newest === true ? found.reverse() : found;
  }

  async function hashOf(name: string): Promise<(readonly [field: string, value: string])[]> {
    const flat = (await redis.command("HGETALL", `${redis.prefix}${name}`)) as readonly string[];
    return flat.flatMap((field, at) => (at % 2 === 0 ? [[field, flat[at + 1] ?? ""] as const] : []));
  }

  async function stubsFrom(sequence: number, newest: boolean, limit: number): Promise<readonly Found[]> {
    const order = `${redis.prefix}audit:stub-order`;
    const [command, first, last] = newest
      ? ["ZREVRANGEBYSCORE", "+inf", String(sequence)]
      : ["ZRANGEBYSCORE", String(sequence), "+inf"];
    const words = [command, order, first, last, "LIMIT", "0", String(limit)];
    const numbers = (await redis.command(...words)) as readonly string[];
    if (numbers.length === 0) return [];
    const texts = (await redis.command("HMGET", `${redis.prefix}audit:stubs`, ...numbers)) as readonly (
      | string
      | null
    )[];
    return numbers.flatMap((number, at) => {
      const json = texts[at] ?? null;
      return json === null ? [] : [{ sequence: Number(number), json }];
    });
  }

  return {
    async append(rows, head) {
      checkAuditRows(rows);
      if (rows.length === 0) return undefined;
      const words = rows.flatMap((row) => [row.id, String(row.at), JSON.stringify(columnsOf(row)), row.json]);
      const sequence = Number(await writing.run("append", [head?.chain ?? "", head?.json ?? "", ...words]));
      return sequence > 0 ? sequence : undefined;
    },
    async read(query) {
      checkPage(query);
      const newest = query.newest === true;
      const command = newest ? "XREVRANGE" : "XRANGE";
      const matches = matcher(query);
      const found: Found[] = [];
      if (matches === undefined) {
        const from = (query.after ?? 0) + 1;
        const kept = await range(log, from, Number.MAX_SAFE_INTEGER, command, query.limit);
        const order = newest ? -1 : 1;
        const stubs = await stubsFrom(from, newest, query.limit);
        // Retired between the two reads, a record is in both of them.
        const all = new Map([...stubs, ...kept].map((one) => [one.sequence, one]));
        const sorted = [...all.values()].sort((a, b) => (a.sequence - b.sequence) * order);
        found.push(...sorted.slice(0, query.limit));
      } else {
        // A block at a time, and compared here: a search of a long log must not hold up the server.
        for (const [from, to] of await spans(query)) {
          const looked = await range(`${redis.prefix}audit:columns`, from, to, command);
          const hits = looked.filter(({ json }) => matches(json)).slice(0, query.limit - found.length);
          found.push(...(await Promise.all(hits.map(({ sequence }) => jsonOf(sequence)))).flat());
          if (found.length >= query.limit) break;
        }
      }
      return newest ? found.reverse() : found;
    },
    async heads() {
      return (await hashOf("audit:heads")).map(([chain, json]) => ({ chain, json }));
    },
    async retire({ records, heads }) {
      const words = records.flatMap(({ sequence, stub }) => [String(sequence), stub ?? ""]);
      await writing.run("retire", [
        String(heads.length),
        ...heads.flatMap(({ chain, json }) => [chain, json]),
        ...words,
      ]);
    },
  };
}

interface Found {
  readonly sequence: number;
  readonly json: string;
}
/** First and last sequence number. */
type Span = readonly [number, number];
type StreamEntry = readonly [id: string, fields: readonly [name: string, value: string]];

async function timesOf(redis: Redis): Promise<ReadonlyMap<number, readonly [earliest: number, latest: number]>> {
  const flat = (await redis.command("HGETALL", `${redis.prefix}audit:times`)) as readonly string[];
  const times = new Map<number, readonly [number, number]>();
  for (let at = 0; at < flat.length; at += 2) {
    const [earliest = "", latest = ""] = (flat[at + 1] ?? "").split(" ");
    times.set(Number(flat[at]), [Number(earliest), Number(latest)]);
  }
  return times;
}

type Columns = readonly [at: number, ...(string | null)[]];

/** What a record is searched by. */
function columnsOf({ at, subject, client, target, outcome, traceId }: AuditRow): Columns {
  return [at, subject ?? null, client ?? null, target ?? null, outcome, traceId ?? null];
}

/** Whether the text of `columnsOf` is of a record that is asked for; undefined when every record is. */
function matcher(query: AuditQuery): ((columns: string) => boolean) | undefined {
  const { id, since, until, subject, client, target, outcome, traceId } = query;
  const asked = [subject, client, target, outcome, traceId];
  const texts = asked.flatMap((value) => (value === undefined ? [] : [JSON.stringify(value)]));
  if (texts.length === 0 && id === undefined && since === undefined && until === undefined) return undefined;
  return (columns) => {
    // Most records do not match, and are not parsed to find that out.
    if (!texts.every((text) => columns.includes(text))) return false;
    const [at, ...values] = JSON.parse(columns) as Columns;
    if (at < (since ?? at) || (until !== undefined && at >= until)) return false;
    return asked.every((value, nth) => value === undefined || value === values[nth]);
  };
}
