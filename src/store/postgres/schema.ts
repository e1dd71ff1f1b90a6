/** The tables in PostgreSQL, and how older ones become today's. All names begin with `drawbridge_`, in the connection's schema. */
import { absent, placeOf, tooNew, unusable } from "../place.ts";
import { type Database, reason, type Statement } from "./connection.ts";

/**
 * One step per schema version, in order; a released step is never edited.
 *
 * Kinds, ids and everything searched by are `bytea`: they may hold NUL, which `text` cannot, and sort by their bytes whatever the
 * database's collation. A record's index entries stand in its own row, as digests, so that each operation is one statement on one
 * row and is atomic for that reason alone.
 *
 * `drawbridge_append` locks the last sequence number until its transaction has committed: numbers have no gaps, and whoever sees one
 * sees all before it. Columns of the log that can be long are indexed by their beginnings; a B-tree holds no more.
 */
const MIGRATIONS = [
  `CREATE TABLE drawbridge_records (
     kind bytea NOT NULL,
     id bytea NOT NULL,
     value text NOT NULL,
     version bigint NOT NULL,
     expires_at double precision,
     entries bytea[] NOT NULL,
     PRIMARY KEY (kind, id)
   ) WITH (fillfactor = 80);
   CREATE INDEX drawbridge_records_expiry ON drawbridge_records (expires_at) WHERE expires_at IS NOT NULL;
   CREATE INDEX drawbridge_records_entries ON drawbridge_records USING gin (entries) WITH (fastupdate = off);
   CREATE TABLE drawbridge_audit (
     sequence bigint PRIMARY KEY,
     id bytea NOT NULL UNIQUE,
     at double precision NOT NULL,
     subject bytea,
     client bytea,
     method bytea,
     target bytea,
     outcome bytea NOT NULL,
     trace_id bytea,
     json text NOT NULL
   );
   CREATE INDEX drawbridge_audit_at ON drawbridge_audit (at);
   CREATE INDEX drawbridge_audit_subject ON drawbridge_audit (substr(subject, 1, 100), sequence);
   CREATE INDEX drawbridge_audit_client ON drawbridge_audit (substr(client, 1, 100), sequence);
   CREATE INDEX drawbridge_audit_target ON drawbridge_audit (substr(target, 1, 100), sequence);
   CREATE INDEX drawbridge_audit_trace ON drawbridge_audit USING hash (trace_id);
   CREATE TABLE drawbridge_audit_last (sequence bigint NOT NULL);
   INSERT INTO drawbridge_audit_last VALUES (0);
   CREATE FUNCTION drawbridge_append(bytea[], double precision[], bytea[], bytea[], bytea[], bytea[], bytea[], bytea[], text[])
   RETURNS void LANGUAGE plpgsql AS $body$
     DECLARE
       last bigint;
       added bigint;
     BEGIN
       SELECT sequence INTO STRICT last FROM drawbridge_audit_last FOR UPDATE;
       INSERT INTO drawbridge_audit (sequence, id, at, subject, client, method, target, outcome, trace_id, json)
         SELECT last + row_number() OVER (ORDER BY nth), given.id, given.at, given.subject, given.client, given.method, given.target,
                given.outcome, given.trace_id, given.json
         FROM (
           SELECT DISTINCT ON (each.id) *
           FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
             WITH ORDINALITY AS each (id, at, subject, client, method, target, outcome, trace_id, json, nth)
           ORDER BY each.id, each.nth
         ) AS given
         WHERE NOT EXISTS (SELECT FROM drawbridge_audit AS stored WHERE stored.id = given.id);
       GET DIAGNOSTICS added = ROW_COUNT;
       UPDATE drawbridge_audit_last SET sequence = last + added;
     END
   $body$;
   CREATE FUNCTION drawbridge_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
     BEGIN
       RAISE EXCEPTION 'the audit log is append-only';
     END
   $body$;
   CREATE TRIGGER drawbridge_audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON drawbridge_audit
     FOR EACH STATEMENT EXECUTE FUNCTION drawbridge_audit_is_append_only();`,
  `CREATE TABLE drawbridge_audit_heads (chain bytea PRIMARY KEY, json text NOT NULL) WITH (fillfactor = 50);
   CREATE OR REPLACE FUNCTION drawbridge_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $body$
     BEGIN
       IF current_setting('drawbridge.retiring', true) = 'on' AND TG_OP <> 'TRUNCATE' THEN RETURN NULL; END IF;
       RAISE EXCEPTION 'the audit log is append-only';
     END
   $body$;
   CREATE FUNCTION drawbridge_retire(bigint[], text[], bytea[], text[]) RETURNS void LANGUAGE plpgsql AS $body$
     BEGIN
       PERFORM set_config('drawbridge.retiring', 'on', true);
       DELETE FROM drawbridge_audit USING unnest($1, $2) AS given (sequence, stub)
         WHERE drawbridge_audit.sequence = given.sequence AND given.stub IS NULL;
       UPDATE drawbridge_audit SET subject = NULL, client = NULL, method = NULL, target = NULL, trace_id = NULL, json = given.stub
         FROM unnest($1, $2) AS given (sequence, stub)
         WHERE drawbridge_audit.sequence = given.sequence AND given.stub IS NOT NULL;
       PERFORM set_config('drawbridge.retiring', 'off', true);
       DELETE FROM drawbridge_audit_heads AS head USING unnest($3, $4) AS given (chain, json)
         WHERE head.chain = given.chain AND head.json = given.json;
     END
   $body$;`,
  // A name of its own: replicas of the version before have prepared the other one, and a prepared statement keeps the type of its result.
  `CREATE FUNCTION drawbridge_append_at(bytea[], double precision[], bytea[], bytea[], bytea[], bytea[], bytea[], bytea[], text[])
   RETURNS bigint LANGUAGE plpgsql AS $body$
     DECLARE
       before bigint;
       last bigint;
     BEGIN
       SELECT sequence INTO STRICT before FROM drawbridge_audit_last FOR UPDATE;
       PERFORM drawbridge_append($1, $2, $3, $4, $5, $6, $7, $8, $9);
       SELECT sequence INTO STRICT last FROM drawbridge_audit_last;
       RETURN CASE WHEN last - before = cardinality($1) THEN last END;
     END
   $body$;`,
] as const;

/** Of the lock that makes one replica migrate while the others wait: "DRBG", 1. */
const LOCK = [0x44524247, 1] as const;
const MIGRATION_MS = 60_000;

/**
 * Brings the tables up to date. A user that may not create tables can be used once they are there. Throws `settings_invalid` for a
 * schema of a newer version, for a missing one when `readOnly`, and for a database that cannot hold every text.
 */
export async function prepareSchema(database: Database, url: string, readOnly: boolean): Promise<void> {
  const place = placeOf(url);
  const [row] = await database.run({
    text: "SELECT to_regclass('drawbridge_schema') IS NOT NULL AS made, current_setting('server_encoding') AS encoding",
  });
  const version = row?.["made"] === true ? await versionOf(database.run) : 0;
  if (version > MIGRATIONS.length) throw tooNew(place, version, MIGRATIONS.length);
  if (version === MIGRATIONS.length) return;
  if (readOnly) throw absent(place);
  if (!["UTF8", "SQL_ASCII"].includes(String(row?.["encoding"])))
    throw unusable(place, `its encoding is ${row?.["encoding"]}; make a database WITH ENCODING 'UTF8'`);
  const newer = await migrate(database).catch((thrown: unknown) => {
    throw unusable(place, `its tables cannot be made: ${reason(thrown)}`);
  });
  if (newer !== undefined) throw tooNew(place, newer, MIGRATIONS.length);
}

type Run = (statement: Statement) => Promise<readonly Readonly<Record<string, unknown>>[]>;

async function versionOf(run: Run): Promise<number> {
  const [row] = await run({ text: "SELECT version FROM drawbridge_schema" });
  return Number(row?.["version"] ?? 0);
}

/** In one transaction, by one replica at a time; the version of a newer schema that another made meanwhile. */
function migrate(database: Database): Promise<number | undefined> {
  return database.together(async (run) => {
    const step = (text: string, values: readonly unknown[] = []) => run({ text, values, timeoutMs: MIGRATION_MS });
    await step("BEGIN");
    await step(`SET LOCAL lock_timeout = ${MIGRATION_MS}`);
    await step(`SET LOCAL statement_timeout = ${MIGRATION_MS}`);
    await step("SELECT pg_advisory_xact_lock($1, $2)", LOCK);
    await step("CREATE TABLE IF NOT EXISTS drawbridge_schema (version integer NOT NULL)");
    const version = await versionOf(run);
    for (const migration of MIGRATIONS.slice(version)) await step(migration);
    if (version < MIGRATIONS.length) {
      await step("DELETE FROM drawbridge_schema");
      await step("INSERT INTO drawbridge_schema VALUES ($1)", [MIGRATIONS.length]);
    }
    await step("COMMIT");
    return version > MIGRATIONS.length ? version : undefined;
  });
}
