/** One file of SQLite: what a single gateway needs. Reads are made here and never wait; writes go to a thread of their own. */
import { extname, resolve } from "node:path";
import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import { Worker } from "node:worker_threads";
import { type Clock, systemClock } from "../../core/clock.ts";
import { DrawbridgeError } from "../../core/errors.ts";
import { checkAuditRows, checkKeys, checkPage, valueText } from "../limits.ts";
import type { AuditLog, AuditQuery, AuditRow, Page, Records, Row, Store } from "../ports.ts";
import { connect, prepareFile, ROW } from "./schema.ts";
import type { Operation, Reply, Request } from "./writer.ts";

export interface SqliteOptions {
  readonly clock?: Clock;
  /** Nothing is created, migrated or written: for looking into the log beside a running gateway. */
  readonly readOnly?: boolean;
}

/**
 * Opens the store in `file`, making it (mode 0600, its directory 0700) when it is missing. A write that has resolved survives the
 * loss of power; `close` ends after the writes that were asked for before it. Throws `settings_invalid` when the file cannot be
 * used, belongs to another program, or was written by a newer version.
 */
export function sqliteStore(file: string, options: SqliteOptions = {}): Store & AsyncDisposable {
  const path = resolve(file);
  const readOnly = options.readOnly ?? false;
  if (!readOnly) prepareFile(path);
  const database = connect(path, { readOnly: true });
  const write = readOnly ? refuseToWrite : undefined;
  const writer = writerThread(path);
  if (!readOnly) writer.warm();
  let closed = false;
  const close = async () => {
    if (closed) return;
    closed = true;
    await writer.close();
    database.close();
  };
  return {
    records: sqliteRecords(database, write ?? writer.write, options.clock ?? systemClock),
    audit: sqliteAudit(database, write ?? writer.write),
    close,
    [Symbol.asyncDispose]: close,
  };
}

type Write = (operation: Operation) => Promise<unknown>;

function sqliteRecords(database: DatabaseSync, write: Write, clock: Clock): Records {
  const alive = "(expires_at IS NULL OR expires_at > ?)";
  const get = database.prepare(`SELECT ${ROW} FROM records WHERE kind = ? AND id = ? AND ${alive}`);
  const list = database.prepare(
    `SELECT ${ROW} FROM records WHERE kind = ? AND id > ? AND ${alive} ORDER BY id LIMIT ?`,
  );
  const find = database.prepare(
    `SELECT ${ROW} FROM records WHERE row IN (SELECT row FROM record_index WHERE name = ? AND value = ?)
     AND kind = ? AND id > ? AND ${alive} ORDER BY id LIMIT ?`,
  );
  return {
    async get<T>(kind: string, id: string) {
      const row = get.get(kind, id, clock());
      return row === undefined ? undefined : rowOf<T>(row);
    },
    async put(kind, id, value, { ifVersion, expiresAt, index = {} } = {}) {
      checkKeys(kind, id, index);
      const json = valueText(kind, value);
      return (await write({ do: "put", kind, id, json, ifVersion, expiresAt, index, now: clock() })) === true;
    },
    async take<T>(kind: string, id: string) {
      const row = await write({ do: "take", kind, id, now: clock() });
      return row === undefined ? undefined : rowOf<T>(row as Columns);
    },
    async delete(kind, id) {
      await write({ do: "delete", kind, id });
    },
    async list<T>(kind: string, page: Page) {
      checkPage(page);
      return list.all(kind, page.after ?? "", clock(), page.limit).map((row) => rowOf<T>(row));
    },
    async find<T>(kind: string, name: string, value: string, page: Page) {
      checkPage(page);
      return find.all(name, value, kind, page.after ?? "", clock(), page.limit).map((row) => rowOf<T>(row));
    },
    async deleteWhere(name, value, kind) {
      return Number(await write({ do: "deleteWhere", name, value, kind, now: clock() }));
    },
    async sweep() {
      return Number(await write({ do: "sweep", now: clock() }));
    },
  };
}

type Columns = Readonly<Record<string, unknown>>;

function rowOf<T>(columns: Columns): Row<T> {
  const { id, value, version, expires_at: expiresAt } = columns;
  return {
    id: String(id),
    value: JSON.parse(String(value)) as T,
    version: Number(version),
    expiresAt: expiresAt === null ? undefined : Number(expiresAt),
  };
}

function sqliteAudit(database: DatabaseSync, write: Write): AuditLog {
  return {
    async append(rows, head) {
      checkAuditRows(rows);
      if (rows.length === 0) return undefined;
      return (await write({ do: "append", columns: columnsOf(rows), head })) as number | undefined;
    },
    async read(query) {
      checkPage(query);
      const [sql, values] = searchStatement(query);
      const found = database.prepare(sql).all(...values);
      if (query.newest === true) found.reverse();
      return found.map((row) => ({ sequence: Number(row["sequence"]), json: String(row["json"]) }));
    },
    async heads() {
      const found = database.prepare("SELECT chain, json FROM audit_heads ORDER BY chain").all();
      return found.map((row) => ({ chain: String(row["chain"]), json: String(row["json"]) }));
    },
    async retire(retired) {
      await write({ do: "retire", ...retired });
    },
  };
}

/** `AUDIT_COLUMNS` of all rows in one flat list: what crosses to the other thread most cheaply. */
function columnsOf(rows: readonly AuditRow[]): (string | number | null)[] {
  const columns: (string | number | null)[] = [];
  for (const row of rows) {
    columns.push(row.id, row.at, row.subject ?? null, row.client ?? null, row.method ?? null);
    columns.push(row.target ?? null, row.outcome, row.traceId ?? null, row.json);
  }
  return columns;
}

/** Searches go over `audit_search` alone, which has every column that can be asked for; plain paging follows the sequence. */
function searchStatement(query: AuditQuery): [sql: string, values: SQLInputValue[]] {
  const asked = [
    ["id = ?", query.id],
    ["at >= ?", query.since],
    ["at < ?", query.until],
    ["subject = ?", query.subject],
    ["client = ?", query.client],
    ["target = ?", query.target],
    ["outcome = ?", query.outcome],
    ["trace_id = ?", query.traceId],
  ] as const;
  const filters = asked.filter(([, value]) => value !== undefined);
  const where = ["sequence > ?", ...filters.map(([condition]) => condition)].join(" AND ");
  const index = filters.length === 0 || query.id !== undefined ? "" : "INDEXED BY audit_search";
  const order = query.newest === true ? "DESC" : "ASC";
  const sequences = `SELECT sequence FROM audit ${index} WHERE ${where} ORDER BY sequence ${order} LIMIT ?`;
  const sql = `SELECT sequence, json FROM audit WHERE sequence IN (${sequences}) ORDER BY sequence ${order}`;
  return [sql, [query.after ?? 0, ...filters.map(([, value]) => value ?? null), query.limit]];
}

const refuseToWrite: Write = async () => {
  throw failure("it was opened for reading only");
};

interface Writer {
  readonly write: Write;
  /** Starts the thread, so that the first write need not wait for it (some 25 ms). */
  warm(): void;
  close(): Promise<void>;
}

/**
 * Talks to the thread of `writer.ts`, which is started again by the next write should it ever die. It keeps the process alive
 * only while writes are under way.
 */
function writerThread(file: string): Writer {
  interface Waiting {
    readonly resolve: (value: unknown) => void;
    readonly reject: (error: Error) => void;
  }
  const waiting = new Map<number, Waiting>();
  let worker: Worker | undefined;
  let tickets = 0;
  let closed = false;

  function settle(reply: Reply): void {
    const waiter = waiting.get(reply.ticket);
    waiting.delete(reply.ticket);
    if (reply.error === undefined) waiter?.resolve(reply.value);
    else waiter?.reject(failure(reply.error));
  }

  function start(): Worker {
    // This module's own ending: sources run as .ts, the package as .js.
    const started = new Worker(new URL(`./writer${extname(import.meta.url)}`, import.meta.url), {
      workerData: { file },
      name: "store-writer",
      execArgv: [],
    });
    started.on("message", (replies: readonly Reply[]) => {
      replies.forEach(settle);
      if (waiting.size === 0) started.unref();
    });
    let problem = "the writing thread ended";
    started.on("error", (error) => {
      problem = `the writing thread failed: ${error instanceof Error ? error.message : String(error)}`;
    });
    started.on("exit", () => {
      worker = undefined;
      for (const ticket of [...waiting.keys()]) settle({ ticket, error: problem });
    });
    return started;
  }

  return {
    warm() {
      worker ??= start();
      worker.unref();
    },
    write(operation) {
      if (closed) return Promise.reject(failure("it is closed"));
      return new Promise((resolve, reject) => {
        worker ??= start();
        if (waiting.size === 0) worker.ref();
        const ticket = ++tickets;
        waiting.set(ticket, { resolve, reject });
        worker.postMessage({ ticket, operation } satisfies Request);
      });
    },
    async close() {
      closed = true;
      const ending = worker;
      if (ending === undefined) return;
      ending.ref();
      const ended = new Promise((resolve) => ending.once("exit", resolve));
      ending.postMessage({ ticket: 0, operation: { do: "close" } } satisfies Request);
      await ended;
    },
  };
}

function failure(problem: string): DrawbridgeError {
  return new DrawbridgeError("internal", "The gateway could not complete the request.", {
    detail: `store: ${problem}`,
  });
}
