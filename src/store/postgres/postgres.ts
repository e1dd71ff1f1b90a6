/** PostgreSQL: what several replicas of a gateway share. Each operation is one statement, and so one transaction. */
import { hash } from "node:crypto";
import { type Clock, systemClock } from "../../core/clock.ts";
import { Secret } from "../../core/secret.ts";
import { checkAuditRows, checkKeys, checkPage, valueText } from "../limits.ts";
import { checkUrl, failure } from "../place.ts";
import type { AuditHead, AuditLog, AuditQuery, AuditRow, Page, PutOptions, Records, Row, Store } from "../ports.ts";
import { type Database, openDatabase } from "./connection.ts";
import { prepareSchema } from "./schema.ts";

export interface PostgresOptions {
  readonly clock?: Clock;
  /** Nothing is created, migrated or written: for looking into the log beside a running gateway. */
  readonly readOnly?: boolean;
  /** Hears of an unencrypted connection, and of a server that is waited for. */
  readonly warn?: (message: string) => void;
  /** Connections of this process at most. */
  readonly maxConnections?: number;
}

/**
 * Opens the store in the database of `url` (`postgres://user:password@host:port/database?sslmode=verify-full`), making its tables
 * when they are missing; of several replicas that start at once one makes them. A write that has resolved survives the loss of the
 * server's power (`synchronous_commit` is switched on where it is off).
 *
 * While the server is away operations reject with `internal` within seconds, and succeed again once it is back. One that is rejected
 * because its connection was lost may have been done. A pooler between must keep sessions together (PgBouncer: `pool_mode=session`).
 *
 * Throws `settings_invalid` when the server cannot be reached within ten seconds, refuses us, or holds a newer schema.
 */
export async function postgresStore(
  url: string | Secret,
  options: PostgresOptions = {},
): Promise<Store & AsyncDisposable> {
  const text = url instanceof Secret ? url.reveal() : url;
  checkUrl(text);
  const { clock = systemClock, readOnly = false, warn = () => {}, maxConnections = 10 } = options;
  const database = await openDatabase(text, { readOnly, warn, maxConnections });
  try {
    await prepareSchema(database, text, readOnly);
  } catch (thrown) {
    await database.close();
    throw thrown;
  }
  const close = () => database.close();
  return {
    records: postgresRecords(database, clock),
    audit: postgresAudit(database),
    close,
    [Symbol.asyncDispose]: close,
  };
}

const ROW = "id, value, version, expires_at";

function postgresRecords(database: Database, clock: Clock): Records {
  return {
    async get<T>(kind: string, id: string) {
      const [row] = await database.run({
        name: "drawbridge_get",
        text: `SELECT ${ROW} FROM drawbridge_records WHERE kind = $1 AND id = $2 AND (expires_at IS NULL OR expires_at > $3)`,
        values: [bytes(kind), bytes(id), clock()],
      });
      return row === undefined ? undefined : rowOf<T>(row);
    },
    async put(kind, id, value, options = {}) {
      checkKeys(kind, id, options.index);
      const json = valueText(kind, value);
      const entries = Object.entries(options.index ?? {}).map(([name, one]) => entryOf(name, one));
      const written = [bytes(kind), bytes(id), json, options.expiresAt ?? null, entries];
      return (await database.run(putStatement(written, options.ifVersion, clock()))).length > 0;
    },
    async take<T>(kind: string, id: string) {
      const now = clock();
      const [row] = await database.run({
        name: "drawbridge_take",
        text: `DELETE FROM drawbridge_records WHERE kind = $1 AND id = $2 RETURNING ${ROW}`,
        values: [bytes(kind), bytes(id)],
      });
      if (row === undefined) return undefined;
      const taken = rowOf<T>(row);
      return taken.expiresAt === undefined || taken.expiresAt > now ? taken : undefined;
    },
    async delete(kind, id) {
      await database.run({
        name: "drawbridge_delete",
        text: "DELETE FROM drawbridge_records WHERE kind = $1 AND id = $2",
        values: [bytes(kind), bytes(id)],
      });
    },
    async list<T>(kind: string, page: Page) {
      return pageOf<T>(page, "kind = $1", [bytes(kind)]);
    },
    async find<T>(kind: string, name: string, value: string, page: Page) {
      return pageOf<T>(page, "kind = $1 AND entries @> $2", [bytes(kind), [entryOf(name, value)]]);
    },
    async deleteWhere(name, value, kind) {
      // A row that a writer changes meanwhile is looked at again as it is then: its entries are its own columns.
      const [row] = await database.run({
        text: `WITH deleted AS (
                 DELETE FROM drawbridge_records WHERE entries @> $1 AND ($2::bytea IS NULL OR kind = $2) RETURNING expires_at
               )
               SELECT count(*) AS alive FROM deleted WHERE expires_at IS NULL OR expires_at > $3`,
        values: [[entryOf(name, value)], kind === undefined ? null : bytes(kind), clock()],
      });
      return Number(row?.["alive"]);
    },
    async sweep() {
      const now = clock();
      for (let total = 0; ; ) {
        const deleted = await database.run({
          text: `DELETE FROM drawbridge_records WHERE ctid = ANY (ARRAY(
                   SELECT ctid FROM drawbridge_records WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED
                 )) RETURNING 1`,
          values: [now, SWEEP_ROWS],
        });
        total += deleted.length;
        if (deleted.length < SWEEP_ROWS) return total;
      }
    },
  };

  async function pageOf<T>(page: Page, condition: string, values: readonly unknown[]): Promise<readonly Row<T>[]> {
    checkPage(page);
    const at = values.length;
    const rows = await database.run({
      text: `SELECT ${ROW} FROM drawbridge_records
             WHERE ${condition} AND ($${at + 1}::bytea IS NULL OR id > $${at + 1}) AND (expires_at IS NULL OR expires_at > $${at + 2})
             ORDER BY id LIMIT $${at + 3}`,
      values: [...values, page.after === undefined ? null : bytes(page.after), clock(), page.limit],
    });
    return rows.map((row) => rowOf<T>(row));
  }
}

/** Bounds one transaction: a long one would hold back whoever waits for its rows. */
const SWEEP_ROWS = 1000;

/** Returns a row when it has written. An expired row counts as absent: its versions begin again. */
function putStatement(values: readonly unknown[], ifVersion: PutOptions["ifVersion"], now: number) {
  if (ifVersion !== undefined && ifVersion !== 0)
    return {
      name: "drawbridge_change",
      text: `UPDATE drawbridge_records SET value = $3, version = version + 1, expires_at = $4, entries = $5
             WHERE kind = $1 AND id = $2 AND (expires_at IS NULL OR expires_at > $6) AND version = $7 RETURNING 1`,
      values: [...values, now, ifVersion],
    };
  const insert = `INSERT INTO drawbridge_records AS stored (kind, id, value, version, expires_at, entries)
    VALUES ($1, $2, $3, 1, $4, $5) ON CONFLICT (kind, id)
    DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at, entries = excluded.entries,
      version = CASE WHEN stored.expires_at <= $6 THEN 1 ELSE stored.version + 1 END`;
  return ifVersion === undefined
    ? { name: "drawbridge_put", text: `${insert} RETURNING 1`, values: [...values, now] }
    : {
        name: "drawbridge_create",
        text: `${insert} WHERE stored.expires_at <= $6 RETURNING 1`,
        values: [...values, now],
      };
}

function bytes(text: string): Buffer {
  return Buffer.from(text);
}

/** What stands for `index[name] === value`: of one length, and no other pair's. */
function entryOf(name: string, value: string): Buffer {
  return hash("sha256", JSON.stringify([name, value]), "buffer");
}

function rowOf<T>(columns: Readonly<Record<string, unknown>>): Row<T> {
  const { id, value, version, expires_at: expiresAt } = columns;
  return {
    id: String(id),
    value: JSON.parse(String(value)) as T,
    version: Number(version),
    expiresAt: expiresAt === null ? undefined : Number(expiresAt),
  };
}

interface Waiting {
  readonly rows: readonly AuditRow[];
  readonly head: AuditHead | undefined;
  readonly done: PromiseWithResolvers<number | undefined>;
}

function postgresAudit(database: Database): AuditLog {
  let waiting: Waiting[] = [];
  let writing = false;

  /** One append after the other, for the order of calls is the order of records. What came meanwhile goes together. */
  async function writeAll(): Promise<void> {
    writing = true;
    while (waiting.length > 0) {
      const together = waiting;
      waiting = [];
      const outcome = await append(
        database,
        together.flatMap(({ rows }) => rows),
        new Map(together.flatMap(({ head }) => (head === undefined ? [] : [[head.chain, head.json]]))),
      ).then(
        (last) => ({ last }),
        (error: unknown) => ({ error }),
      );
      let after = together.reduce((sum, { rows }) => sum + rows.length, 0);
      for (const { rows, done } of together) {
        after -= rows.length;
        if ("error" in outcome) done.reject(outcome.error);
        else done.resolve(outcome.last === undefined ? undefined : outcome.last - after);
      }
    }
    writing = false;
  }

  return {
    async append(rows, head) {
      checkAuditRows(rows);
      if (rows.length === 0) return undefined;
      if (waiting.length >= MAX_WAITING) throw failure(`${MAX_WAITING} appends wait for PostgreSQL already`);
      const done = Promise.withResolvers<number | undefined>();
      waiting.push({ rows, head, done });
      if (!writing) void writeAll();
      return done.promise;
    },
    async read(query) {
      checkPage(query);
      const found = await database.run({ ...searchStatement(query), timeoutMs: SEARCH_MS });
      const rows = found.map((row) => ({ sequence: Number(row["sequence"]), json: String(row["json"]) }));
      return query.newest === true ? rows.reverse() : rows;
    },
    async heads() {
      const found = await database.run({
        text: "SELECT convert_from(chain, 'UTF8') AS chain, json FROM drawbridge_audit_heads ORDER BY chain",
      });
      return found.map((row) => ({ chain: String(row["chain"]), json: String(row["json"]) }));
    },
    async retire({ records, heads }) {
      await database.run({
        text: "SELECT drawbridge_retire($1, $2, $3, $4)",
        values: [
          records.map(({ sequence }) => sequence),
          records.map(({ stub }) => stub ?? null),
          heads.map(({ chain }) => bytes(chain)),
          heads.map(({ json }) => json),
        ],
        timeoutMs: SEARCH_MS,
      });
    },
  };
}

const MAX_WAITING = 1000;
/** A search through all of a long log takes its time; a person waits for it. */
const SEARCH_MS = 30_000;

/** In one statement, so in one transaction: the records, and where their chains end with them. Gives the last sequence, if all are new. */
async function append(
  database: Database,
  rows: readonly AuditRow[],
  heads: ReadonlyMap<string, string>,
): Promise<number | undefined> {
  const column = (of: (row: AuditRow) => string | undefined) =>
    rows.map((row) => {
      const value = of(row);
      return value === undefined ? null : bytes(value);
    });
  const [done] = await database.run({
    name: "drawbridge_append_at",
    text: `WITH heads AS (
             INSERT INTO drawbridge_audit_heads SELECT * FROM unnest($10::bytea[], $11::text[])
             ON CONFLICT (chain) DO UPDATE SET json = excluded.json
           )
           SELECT drawbridge_append_at($1, $2, $3, $4, $5, $6, $7, $8, $9) AS sequence`,
    values: [
      column((row) => row.id),
      rows.map((row) => row.at),
      column((row) => row.subject),
      column((row) => row.client),
      column((row) => row.method),
      column((row) => row.target),
      column((row) => row.outcome),
      column((row) => row.traceId),
      rows.map((row) => row.json),
      [...heads.keys()].map(bytes),
      [...heads.values()],
    ],
  });
  const sequence = done?.["sequence"];
  return sequence === null || sequence === undefined ? undefined : Number(sequence);
}

function searchStatement(query: AuditQuery): { readonly text: string; readonly values: readonly unknown[] } {
  // By the beginning too, since that is what the index has.
  const indexed = (column: string) => (at: string) =>
    `substr(${column}, 1, 100) = substr(${at}::bytea, 1, 100) AND ${column} = ${at}`;
  const text = (value: string | undefined) => (value === undefined ? undefined : bytes(value));
  const asked: readonly (readonly [(at: string) => string, unknown])[] = [
    [(at) => `sequence > ${at}`, query.after],
    [(at) => `id = ${at}`, text(query.id)],
    [(at) => `at >= ${at}`, query.since],
    [(at) => `at < ${at}`, query.until],
    [indexed("subject"), text(query.subject)],
    [indexed("client"), text(query.client)],
    [indexed("target"), text(query.target)],
    [(at) => `outcome = ${at}`, text(query.outcome)],
    [(at) => `trace_id = ${at}`, text(query.traceId)],
  ];
  const filters = asked.filter(([, value]) => value !== undefined);
  const where = filters.map(([condition], at) => condition(`$${at + 1}`)).join(" AND ");
  return {
    text: `SELECT sequence, json FROM drawbridge_audit ${where === "" ? "" : `WHERE ${where}`}
           ORDER BY sequence ${query.newest === true ? "DESC" : "ASC"} LIMIT $${filters.length + 1}`,
    values: [...filters.map(([, value]) => value), query.limit],
  };
}
