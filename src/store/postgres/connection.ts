/** The way to a PostgreSQL server: a bounded pool whose every wait ends, and errors that say nothing of the password. */
import { setTimeout as sleep } from "node:timers/promises";
import { DatabaseError, Pool, type PoolConfig, type QueryResultRow } from "pg";
import { DrawbridgeError } from "../../core/errors.ts";
import { failure, placeOf, unusable } from "../place.ts";

export interface Statement {
  readonly text: string;
  readonly values?: readonly unknown[];
  /** Of a statement that is prepared once per connection. Not for those whose best plan depends on their values. */
  readonly name?: string;
  readonly timeoutMs?: number;
}

export interface Database {
  /** Runs one statement, which is its own transaction. Rejects with `internal`; after a lost connection it may have been done. */
  run(statement: Statement): Promise<readonly QueryResultRow[]>;
  /** Several statements on one connection; what they throw is passed on as it is. */
  together<T>(work: (run: (statement: Statement) => Promise<readonly QueryResultRow[]>) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

export interface DatabaseOptions {
  readonly readOnly: boolean;
  readonly maxConnections: number;
  readonly warn: (message: string) => void;
}

/** A connection is made, or waited for, so long. */
const CONNECT_MS = 3000;
/** A statement's answer is waited for so long; then its connection is given up. */
const ANSWER_MS = 5000;
/** Ends on the server what nobody waits for any more. */
const STATEMENT_MS = 30_000;
const LOCK_MS = 4000;
/** A server that is starting together with the gateway is waited for so long. */
const OPEN_MS = 10_000;
/** Statements that wait for a connection; they also wait no longer than `CONNECT_MS`. */
const MAX_WAITING = 10_000;
const TRIES = 5;
/** Serialization failure, deadlock: nothing was done, and the next try succeeds. */
const AGAIN: readonly string[] = ["40001", "40P01"];
/** Ends of idle connections, and a server that is only starting or full: a later try may succeed. */
const NOT_YET =
  /^(57P0[0-9]|53300|08)|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENOTFOUND|EHOSTUNREACH|terminated|timeout/;

/** Connects once, so that a wrong setting is known at once. Throws `settings_invalid`. */
export async function openDatabase(url: string, options: DatabaseOptions): Promise<Database> {
  const place = placeOf(url);
  const pool = poolFor(url, options);
  // An idle connection that ends (the server restarts) leaves the pool; the next statement makes another.
  pool.on("error", () => {});
  for (const end = Date.now() + OPEN_MS; ; ) {
    let problem: string;
    try {
      await pool.query("SELECT 1");
      break;
    } catch (thrown) {
      problem = reason(thrown);
    }
    if (Date.now() > end || !NOT_YET.test(problem)) {
      await pool.end();
      throw unusable(place, problem);
    }
    options.warn(`The store ${place} does not answer yet (${problem}); trying again.`);
    await sleep(500);
  }

  async function run(statement: Statement): Promise<readonly QueryResultRow[]> {
    for (let tries = 1; ; tries++) {
      if (pool.waitingCount >= MAX_WAITING) throw failure(`${MAX_WAITING} statements wait for PostgreSQL already`);
      try {
        return (await pool.query(config(statement))).rows;
      } catch (thrown) {
        const again = thrown instanceof DatabaseError && AGAIN.includes(thrown.code ?? "");
        if (!again || tries >= TRIES) throw failure(reason(thrown));
      }
    }
  }

  async function together<T>(work: Parameters<Database["together"]>[0]): Promise<T> {
    const client = await pool.connect();
    let problem: unknown;
    const lost = (error: unknown) => {
      problem = error;
    };
    client.on("error", lost);
    try {
      return (await work(async (statement) => (await client.query(config(statement))).rows)) as T;
    } catch (thrown) {
      problem = thrown;
      throw thrown;
    } finally {
      client.off("error", lost);
      // A connection on which something failed may be in the middle of a transaction.
      client.release(problem !== undefined);
    }
  }

  let closing: Promise<void> | undefined;
  return { run, together, close: () => (closing ??= pool.end()) };
}

function config({ text, values = [], name, timeoutMs = ANSWER_MS }: Statement) {
  // `query_timeout` of a single statement is documented by pg, but not in its types.
  return { text, values: [...values], ...(name === undefined ? {} : { name }), query_timeout: timeoutMs };
}

function poolFor(url: string, { readOnly, maxConnections, warn }: DatabaseOptions): Pool {
  const settings: Readonly<Record<string, string>> = {
    statement_timeout: String(STATEMENT_MS),
    lock_timeout: String(LOCK_MS),
    idle_in_transaction_session_timeout: String(STATEMENT_MS),
    // Each statement sees what was committed before it; that is what ours are written for.
    default_transaction_isolation: "read committed",
    default_transaction_read_only: readOnly ? "on" : "off",
    client_min_messages: "error",
  };
  const set = Object.keys(settings).map((name, at) => `set_config('${name}', $${at + 1}, false)`);
  // What was acknowledged is on disk. A server that does even more (waits for its standby) is left as it is.
  const durable =
    "set_config('synchronous_commit', replace(current_setting('synchronous_commit'), 'off', 'on'), false)";
  const prepare = { text: `SELECT ${[...set, durable].join(", ")}`, values: Object.values(settings) };
  const options: PoolConfig = {
    connectionString: withCheckedCertificate(url, warn),
    application_name: "drawbridge",
    max: maxConnections,
    connectionTimeoutMillis: CONNECT_MS,
    query_timeout: ANSWER_MS,
    idleTimeoutMillis: 30_000,
    keepAlive: true,
    // The pool waits for the promise, which its types do not say.
    onConnect: (client) => client.query(prepare) as unknown as undefined,
  };
  try {
    return new Pool(options);
  } catch (thrown) {
    throw unusable(placeOf(url), reason(thrown));
  }
}

/**
 * Any `sslmode` but `disable` and `no-verify` means: encrypted, by a server whose certificate is good for its name. libpq's `require`
 * checks nothing, so that whoever is in between reads everything.
 */
function withCheckedCertificate(url: string, warn: (message: string) => void): string {
  const { searchParams, hostname } = new URL(url);
  const mode = searchParams.get("sslmode");
  const remote = hostname !== "" && !/^(localhost|127\..*|\[::1\]|%2f.*)$/i.test(hostname);
  if (remote && (mode === null || mode === "disable" || mode === "no-verify"))
    warn(
      `The connection to the store ${placeOf(url)} ${mode === "no-verify" ? "does not check who it talks to" : "is not encrypted"}; add ?sslmode=verify-full to its URL.`,
    );
  if (searchParams.has("uselibpqcompat")) return url;
  return url.replace(/([?&]sslmode=)(prefer|require|verify-ca)(?=&|$)/, "$1verify-full");
}

/** What went wrong, without values of rows and without anything of the URL. */
export function reason(thrown: unknown): string {
  if (thrown instanceof DrawbridgeError) return thrown.detail ?? thrown.message;
  if (thrown instanceof DatabaseError) return `${thrown.code}: ${thrown.message}`;
  if (thrown instanceof AggregateError) return thrown.errors.map(reason).join("; ");
  return thrown instanceof Error ? thrown.message : String(thrown);
}
