/** The SQLite file: how it is opened, what its tables are, and how an older one becomes today's. */
import { closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { DrawbridgeError } from "../../core/errors.ts";

/** "DRBG": marks a file as ours, so that a mistyped path never changes another program's database. */
const APPLICATION_ID = 0x44524247;
/** How long a statement waits for another process (the command line beside a running gateway). */
const BUSY_MS = 5000;
/** 16 MiB of log between checkpoints: fewer of them, and hot pages are copied once instead of each time. */
const CHECKPOINT_PAGES = 4000;

/**
 * One step per schema version, in order; a released step is never edited.
 *
 * The log has few indexes on purpose. Its keys grow with time, so that appending touches the last page of each; an index on
 * random values (trace ids) dirties a page per record and halves the records per second. `audit_search` holds every column that is
 * searched by, so that a search reads it alone, narrowed by time.
 */
const MIGRATIONS = [
  `CREATE TABLE records (
     row INTEGER PRIMARY KEY,
     kind TEXT NOT NULL,
     id TEXT NOT NULL,
     value TEXT NOT NULL,
     version INTEGER NOT NULL,
     expires_at REAL,
     UNIQUE (kind, id)
   ) STRICT;
   CREATE INDEX records_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;
   CREATE TABLE record_index (
     name TEXT NOT NULL,
     value TEXT NOT NULL,
     row INTEGER NOT NULL REFERENCES records (row) ON DELETE CASCADE,
     PRIMARY KEY (name, value, row)
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX record_index_row ON record_index (row);
   CREATE TABLE audit (
     sequence INTEGER PRIMARY KEY,
     id TEXT NOT NULL UNIQUE,
     at REAL NOT NULL,
     subject TEXT,
     client TEXT,
     method TEXT,
     target TEXT,
     outcome TEXT NOT NULL,
     trace_id TEXT,
     json TEXT NOT NULL
   ) STRICT;
   CREATE INDEX audit_search ON audit (at, sequence, subject, client, target, outcome, trace_id);
   CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
   CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;`,
  // Outside of the transaction that retires records, `through` is 0.
  `CREATE TABLE audit_heads (chain TEXT PRIMARY KEY, json TEXT NOT NULL) STRICT, WITHOUT ROWID;
   CREATE TABLE audit_retiring (through INTEGER NOT NULL) STRICT;
   INSERT INTO audit_retiring VALUES (0);
   DROP TRIGGER audit_is_not_changed;
   DROP TRIGGER audit_is_not_deleted;
   CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit WHEN OLD.sequence > (SELECT through FROM audit_retiring)
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
   CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit WHEN OLD.sequence > (SELECT through FROM audit_retiring)
     BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;`,
] as const;

/** Columns of a record as reads select them. */
export const ROW = "id, value, version, expires_at";
/** Columns of a log row as appends write them. */
export const AUDIT_COLUMNS = [
  "id",
  "at",
  "subject",
  "client",
  "method",
  "target",
  "outcome",
  "trace_id",
  "json",
] as const;

/**
 * Creates the file (0600, its directory 0700) when it is missing and brings its tables up to date. Of several processes that do so
 * at once one migrates and the others wait. Throws `settings_invalid` for a file of another program or of a newer version.
 */
export function prepareFile(file: string): void {
  create(file);
  const database = connect(file);
  try {
    migrate(database, file);
    database.exec("PRAGMA journal_mode = WAL"); // Stays with the file. Only now, when it is known to be ours.
  } catch (thrown) {
    throw thrown instanceof DrawbridgeError ? thrown : unusable(file, thrown);
  } finally {
    database.close();
  }
}

/**
 * Opens a connection to a prepared file. A commit is on disk when it returns (`synchronous = FULL`). What is deleted is overwritten, for
 * a key that was destroyed must not be found in the free space of the file.
 */
export function connect(file: string, options: { readonly readOnly?: boolean } = {}): DatabaseSync {
  try {
    const database = new DatabaseSync(file, { readOnly: options.readOnly ?? false, timeout: BUSY_MS });
    database.exec(
      `PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}; PRAGMA trusted_schema = OFF; PRAGMA secure_delete = FAST`,
    );
    return database;
  } catch (thrown) {
    throw unusable(file, thrown);
  }
}

function create(file: string): void {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    // SQLite gives its -wal and -shm files the mode of the database.
    closeSync(openSync(file, "a", 0o600));
  } catch (thrown) {
    throw unusable(file, thrown);
  }
}

function migrate(database: DatabaseSync, file: string): void {
  const number = (pragma: string) => Number(Object.values(database.prepare(`PRAGMA ${pragma}`).get() ?? {})[0] ?? 0);
  try {
    database.exec("BEGIN IMMEDIATE");
    const tables = Number(database.prepare("SELECT count(*) AS n FROM sqlite_schema").get()?.["n"]);
    if (tables > 0 && number("application_id") !== APPLICATION_ID) {
      throw refused(file, "is the database of another program. Point `store:` at a file of its own.");
    }
    const version = number("user_version");
    if (version > MIGRATIONS.length) {
      const problem = `was written by a newer Drawbridge (its schema is ${version}, this one knows ${MIGRATIONS.length}).`;
      throw refused(file, `${problem} Run the newer version, or point \`store:\` at another file.`);
    }
    for (const step of MIGRATIONS.slice(version)) database.exec(step);
    database.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${MIGRATIONS.length}; COMMIT`);
  } catch (thrown) {
    if (database.isTransaction) database.exec("ROLLBACK");
    throw thrown;
  }
}

function refused(file: string, problem: string): DrawbridgeError {
  return new DrawbridgeError("settings_invalid", `The store file ${file} ${problem}`);
}

function unusable(file: string, cause: unknown): DrawbridgeError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  const message = `The store file ${file} cannot be used: ${reason}. Check the path, its permissions and the free space.`;
  return new DrawbridgeError("settings_invalid", message, { cause });
}
