/**
 * The thread that writes. It owns the only writing connection, so that no writer of this process waits for another, and the main
 * thread never waits for the disk. What has arrived by the time a commit ends goes into the next one, together.
 */
import type { DatabaseSync } from "node:sqlite";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { AuditHead, Retired } from "../ports.ts";
import { AUDIT_COLUMNS, connect, ROW } from "./schema.ts";

/** What the main thread asks for. `now` is its clock. */
export type Operation =
  /** `AUDIT_COLUMNS` of each row, all rows in one flat list. */
  | {
      readonly do: "append";
      readonly columns: readonly (string | number | null)[];
      readonly head: AuditHead | undefined;
    }
  | ({ readonly do: "retire" } & Retired)
  | {
      readonly do: "put";
      readonly kind: string;
      readonly id: string;
      readonly json: string;
      readonly ifVersion: number | undefined;
      readonly expiresAt: number | undefined;
      readonly index: Readonly<Record<string, string>>;
      readonly now: number;
    }
  | { readonly do: "take"; readonly kind: string; readonly id: string; readonly now: number }
  | { readonly do: "delete"; readonly kind: string; readonly id: string }
  | {
      readonly do: "deleteWhere";
      readonly name: string;
      readonly value: string;
      readonly kind: string | undefined;
      readonly now: number;
    }
  | { readonly do: "sweep"; readonly now: number }
  | { readonly do: "close" };
export interface Request {
  readonly ticket: number;
  readonly operation: Operation;
}
/** `value` as the store's method returns it; `error` says why nothing of the operation was written. */
export interface Reply {
  readonly ticket: number;
  readonly value?: unknown;
  readonly error?: string;
}
/** Bounds one transaction, so that a flood of writes still answers its first ones soon. */
const MAX_BATCH = 1000;

type Run = {
  readonly [Name in Exclude<Operation["do"], "close">]: (operation: Extract<Operation, { do: Name }>) => unknown;
};

function serve(port: NonNullable<typeof parentPort>): void {
  const database = connect((workerData as { file: string }).file);
  const batch = batches(database);
  port.on("message", (first: Request) => {
    let requests = [first];
    let closing = first.operation.do === "close";
    const flush = () => {
      const work = requests.filter(({ operation }) => operation.do !== "close");
      if (work.length > 0) port.postMessage(batch(work));
      requests = [];
    };
    for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
      requests.push(next.message as Request);
      closing ||= (next.message as Request).operation.do === "close";
      if (requests.length >= MAX_BATCH) flush();
    }
    flush();
    if (!closing) return;
    database.close();
    port.close();
  });
}

/** Runs requests in their order in one transaction. One that fails is undone alone; when the commit fails, none is written. */
function batches(database: DatabaseSync): (requests: readonly Request[]) => readonly Reply[] {
  const run = operations(database);
  const [begin, commit] = [database.prepare("BEGIN IMMEDIATE"), database.prepare("COMMIT")];
  const [save, release] = [database.prepare("SAVEPOINT one"), database.prepare("RELEASE one")];

  function one({ ticket, operation }: Request): Reply {
    if (operation.do === "close") return { ticket };
    save.run();
    try {
      const value = (run[operation.do] as (operation: Operation) => unknown)(operation);
      release.run();
      return { ticket, value };
    } catch (thrown) {
      // A full disk may have ended the whole transaction already; then this throws too and all of it is refused.
      database.exec("ROLLBACK TO one; RELEASE one");
      return { ticket, error: reason(thrown) };
    }
  }

  return (requests) => {
    try {
      begin.run();
      const replies = requests.map(one);
      commit.run();
      return replies;
    } catch (thrown) {
      if (database.isTransaction) database.exec("ROLLBACK");
      return requests.map(({ ticket }) => ({ ticket, error: reason(thrown) }));
    }
  };
}

function operations(database: DatabaseSync): Run {
  const append = database.prepare(
    `INSERT INTO audit (${AUDIT_COLUMNS.join(", ")}) VALUES (${AUDIT_COLUMNS.map(() => "?").join(", ")})
     ON CONFLICT (id) DO NOTHING`,
  );
  const head = database.prepare(
    "INSERT INTO audit_heads VALUES (?, ?) ON CONFLICT (chain) DO UPDATE SET json = excluded.json",
  );
  const through = database.prepare("UPDATE audit_retiring SET through = ?");
  const deleteRecord = database.prepare("DELETE FROM audit WHERE sequence = ?");
  const leaveStub = database.prepare(
    "UPDATE audit SET subject = NULL, client = NULL, method = NULL, target = NULL, trace_id = NULL, json = ? WHERE sequence = ?",
  );
  const deleteHead = database.prepare("DELETE FROM audit_heads WHERE chain = ? AND json = ?");
  const find = database.prepare("SELECT row, version, expires_at FROM records WHERE kind = ? AND id = ?");
  const insert = database.prepare(
    `INSERT INTO records (kind, id, value, version, expires_at) VALUES (?, ?, ?, ?, ?)
     ON CONFLICT (kind, id) DO UPDATE SET value = excluded.value, version = excluded.version, expires_at = excluded.expires_at
     RETURNING row`,
  );
  const unindex = database.prepare("DELETE FROM record_index WHERE row = ?");
  const index = database.prepare("INSERT INTO record_index (name, value, row) VALUES (?, ?, ?)");
  const remove = database.prepare(`DELETE FROM records WHERE kind = ? AND id = ? RETURNING ${ROW}`);
  const removeWhere = database.prepare(
    `DELETE FROM records WHERE row IN (SELECT row FROM record_index WHERE name = ?1 AND value = ?2) AND (?3 IS NULL OR kind = ?3)
     RETURNING expires_at`,
  );
  const sweep = database.prepare("DELETE FROM records WHERE expires_at <= ?");
  const live = (row: { [column: string]: unknown } | undefined, now: number) =>
    row !== undefined && (row["expires_at"] === null || Number(row["expires_at"]) > now);

  return {
    append({ columns, head: last }) {
      const width = AUDIT_COLUMNS.length;
      let added = 0;
      let sequence: number | undefined;
      for (let i = 0; i < columns.length; i += width) {
        const { changes, lastInsertRowid } = append.run(...columns.slice(i, i + width));
        added += Number(changes);
        sequence = Number(lastInsertRowid);
      }
      if (last !== undefined) head.run(last.chain, last.json);
      return added * width === columns.length ? sequence : undefined;
    },
    retire({ records, heads }) {
      through.run(Math.max(0, ...records.map(({ sequence }) => sequence)));
      for (const { sequence, stub } of records) {
        if (stub === undefined) deleteRecord.run(sequence);
        else leaveStub.run(stub, sequence);
      }
      through.run(0);
      for (const { chain, json } of heads) deleteHead.run(chain, json);
    },
    put({ kind, id, json, ifVersion, expiresAt, index: entries, now }) {
      const stored = find.get(kind, id);
      const version = live(stored, now) ? Number(stored?.["version"]) : 0;
      if (ifVersion !== undefined && ifVersion !== version) return false;
      if (stored !== undefined) unindex.run(Number(stored["row"]));
      const row = Number(insert.get(kind, id, json, version + 1, expiresAt ?? null)?.["row"]);
      for (const [name, value] of Object.entries(entries)) index.run(name, value, row);
      return true;
    },
    take({ kind, id, now }) {
      const row = remove.get(kind, id);
      return live(row, now) ? row : undefined;
    },
    delete({ kind, id }) {
      remove.get(kind, id);
    },
    deleteWhere: ({ name, value, kind, now }) =>
      removeWhere.all(name, value, kind ?? null).filter((row) => live(row, now)).length,
    sweep: ({ now }) => Number(sweep.run(now).changes),
  };
}

function reason(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

if (parentPort !== null) serve(parentPort);
