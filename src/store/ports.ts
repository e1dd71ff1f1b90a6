/** What a storage backend gives the gateway. Values are JSON; their meaning lives above. Each backend passes `test/contract`. */

export interface Row<T = unknown> {
  readonly id: string;
  readonly value: T;
  /** Counts the writes of this row, from 1. */
  readonly version: number;
  /** Milliseconds since the epoch; an expired row is never returned. */
  readonly expiresAt: number | undefined;
}

export interface PutOptions {
  /** Write only when the stored version is this one; 0: only when there is no (unexpired) row. */
  readonly ifVersion?: number;
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number;
  /** Values the row can be found by (`find`, `deleteWhere`), e.g. `{ grant: "g_1" }`. Replaced as a whole by each `put`. */
  readonly index?: Readonly<Record<string, string>>;
}

export interface Page {
  /** At most this many rows; 1 to 1000. */
  readonly limit: number;
  /** Only rows whose id sorts after this one. */
  readonly after?: string;
}

/**
 * Durable rows of small JSON values. Every operation is atomic; of two writers with the same `ifVersion` exactly one gets `true`. An
 * operation that rejects may have been done when its connection was lost meanwhile. Kind and id together have at most 2048 bytes of
 * UTF-8, and so have name and value of an index entry.
 */
export interface Records {
  get<T>(kind: string, id: string): Promise<Row<T> | undefined>;
  /** False: another writer was first (`ifVersion` did not match); nothing was written. */
  put(kind: string, id: string, value: unknown, options?: PutOptions): Promise<boolean>;
  /** Reads and deletes in one step: of two callers exactly one gets the row. */
  take<T>(kind: string, id: string): Promise<Row<T> | undefined>;
  /** Deleting what is absent succeeds. */
  delete(kind: string, id: string): Promise<void>;
  /** Rows of one kind, by id, in the order of its bytes in UTF-8. */
  list<T>(kind: string, page: Page): Promise<readonly Row<T>[]>;
  /** Rows of one kind with `index[name] === value`, by id. */
  find<T>(kind: string, name: string, value: string, page: Page): Promise<readonly Row<T>[]>;
  /** Deletes rows with `index[name] === value`, of one kind or of all; returns how many. */
  deleteWhere(name: string, value: string, kind?: string): Promise<number>;
  /** Deletes expired rows; returns how many. */
  sweep(): Promise<number>;
}

/** One stored audit record: columns to search by, and the whole record as JSON text. */
export interface AuditRow {
  readonly id: string;
  /** Start of the call, milliseconds since the epoch. */
  readonly at: number;
  readonly subject: string | undefined;
  readonly client: string | undefined;
  readonly method: string | undefined;
  readonly target: string | undefined;
  readonly outcome: string;
  readonly traceId: string | undefined;
  readonly json: string;
}

export interface AuditQuery {
  /** At most this many records; 1 to 1000. */
  readonly limit: number;
  /** The last `limit` records that match instead of the first; still in order. */
  readonly newest?: boolean;
  /** Only records with a greater sequence number. */
  readonly after?: number;
  /** Start of the call, milliseconds since the epoch: not before `since`, before `until`. */
  readonly since?: number;
  readonly until?: number;
  readonly id?: string;
  readonly subject?: string;
  readonly client?: string;
  readonly target?: string;
  readonly outcome?: string;
  readonly traceId?: string;
}

/** The append-only log. Nothing is changed in it; `retire` alone takes away. */
export interface AuditLog {
  /**
   * Resolves when all of `rows` are durable, in their order, or rejects with none of them written. A row whose id is in the log
   * already is not written again, so an append whose outcome is not known (a lost connection) may be repeated. `head` takes the
   * place of the last one of its chain, in the same commit. Gives the sequence number of the last of `rows`, which the others stand
   * right before; undefined where that is not known, as when they were in the log already.
   */
  append(rows: readonly AuditRow[], head?: AuditHead): Promise<number | undefined>;
  /** In the order of their sequence numbers, which have no gaps but those that `retire` left. */
  read(query: AuditQuery): Promise<readonly { readonly sequence: number; readonly json: string }[]>;
  /** The last head of each chain. */
  heads(): Promise<readonly AuditHead[]>;
  /** For retention alone: all of it is done, or none. */
  retire(retired: Retired): Promise<void>;
}

/** What the writer of a chain of records says of its end, as JSON text. */
export interface AuditHead {
  readonly chain: string;
  readonly json: string;
}

/** What goes from the log, at most 1000 records at a time. */
export interface Retired {
  /** By sequence number; of one with a text that text stays in its place, which nothing but its id finds. */
  readonly records: readonly { readonly sequence: number; readonly stub: string | undefined }[];
  /** Heads of chains of which nothing is left; one that is another by now stays. */
  readonly heads: readonly AuditHead[];
}

export interface Store {
  readonly records: Records;
  readonly audit: AuditLog;
  close(): Promise<void>;
}
