/**
 * The PostgreSQL and Redis servers of tests: found on this machine, started on a free port in a temporary folder, stopped by pid.
 * One of each serves a whole run (`setup.ts`), begun by the first test that asks; each test has a database or a key prefix of its own.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@redis/client";
import { Client } from "pg";
import { inject } from "vitest";
import { findPostgres, findRedis } from "./programs.ts";

export type DatabaseName = "postgres" | "redis";

export interface DatabaseServer extends AsyncDisposable {
  /** With user and password; for PostgreSQL the database `postgres`. */
  readonly url: string;
  readonly pid: number;
  /** Dies without saving anything, as at the loss of power; resolves when it is gone. */
  kill(): Promise<void>;
  /** Starts it again with the same port and data. */
  start(): Promise<void>;
}

export interface FreshDatabase extends AsyncDisposable {
  /** What `store:` is set to, for a store that no other test sees. */
  readonly url: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    /** Where `setup.ts` answers with the URL of a running server. */
    readonly databases: string;
  }
}

/** An empty database on the run's PostgreSQL; dropped when disposed of. */
export async function freshPostgres(): Promise<FreshDatabase> {
  const server = await shared("postgres");
  const name = `t_${randomUUID().replaceAll("-", "")}`;
  await onPostgres(server, `CREATE DATABASE ${name}`);
  const url = new URL(server);
  url.pathname = name;
  return {
    url: url.href,
    [Symbol.asyncDispose]: () => onPostgres(server, `DROP DATABASE ${name} WITH (FORCE)`),
  };
}

/** A key prefix of its own on the run's Redis; its keys are deleted when disposed of. */
export async function freshRedis(): Promise<FreshDatabase> {
  const url = new URL(await shared("redis"));
  const prefix = `t-${randomUUID()}:`;
  url.searchParams.set("prefix", prefix);
  return { url: url.href, [Symbol.asyncDispose]: () => deletePrefix(url.href, prefix) };
}

/** Runs one statement on a connection of its own and returns the rows. */
export async function onPostgres(url: string, sql: string): Promise<void> {
  await using client = await postgresClient(url);
  await client.query(sql);
}

export async function postgresClient(url: string): Promise<Client & AsyncDisposable> {
  const client = new Client({ connectionString: url });
  client.on("error", () => {}); // A server that a test kills; its statement is rejected.
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: () => client.end() });
}

async function deletePrefix(url: string, prefix: string): Promise<void> {
  const bare = new URL(url);
  bare.search = "";
  const client = createClient({ url: bare.href });
  client.on("error", () => {});
  await client.connect();
  try {
    for await (const keys of client.scanIterator({ MATCH: `${prefix}*`, COUNT: 1000 }))
      if (keys.length > 0) await client.unlink(keys);
  } finally {
    client.destroy();
  }
}

async function shared(name: DatabaseName): Promise<string> {
  const response = await fetch(`${inject("databases")}/${name}`);
  const text = await response.text();
  if (!response.ok) throw new Error(text);
  return text;
}

/** A PostgreSQL of the test's own, for tests that kill it. Its data survives `kill`, although nothing waits for the disk. */
export async function startPostgres(): Promise<DatabaseServer> {
  const bin = findPostgres();
  if (bin === undefined) throw new Error("PostgreSQL is not installed; `npm test` says how");
  const account = unprivileged();
  const folder = temporaryFolder("postgres", account);
  const data = join(folder, "data");
  const password = randomBytes(12).toString("hex");
  const passwordFile = join(folder, "password");
  writeFileSync(passwordFile, password);
  const words = ["-D", data, "-U", "tester", "-A", "scram-sha-256", "--pwfile", passwordFile];
  // The C locale of UTF-8 texts: nothing of ours may depend on the order a locale gives.
  const made = spawnSync(join(bin, "initdb"), [...words, "-E", "UTF8", "--locale=C", "--no-sync"], {
    cwd: folder,
    encoding: "utf8",
    ...account,
  });
  if (made.status !== 0) throw new Error(`initdb failed: ${made.stderr}${made.error?.message ?? ""}`);
  const settings = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    max_connections: "300",
    shared_buffers: "32MB",
    fsync: "off",
    full_page_writes: "off",
    // Ours to switch on for each connection.
    synchronous_commit: "off",
    autovacuum_naptime: "10s",
  };
  return server({
    folder,
    command: (port) => [
      join(bin, "postgres"),
      "-D",
      data,
      "-p",
      String(port),
      ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    ],
    url: (port) => `postgres://tester:${password}@127.0.0.1:${port}/postgres`,
    account,
    // SIGQUIT is its immediate shutdown: SIGKILL would leave its children to hold the memory that a restart needs.
    deadly: "SIGQUIT",
    ready: async (url) => {
      await using client = await postgresClient(url);
      await client.query("SELECT 1");
    },
  });
}

/** A Redis of the test's own, for tests that kill it. It keeps an append-only file. */
export async function startRedis(settings: Readonly<Record<string, string>> = {}): Promise<DatabaseServer> {
  const program = findRedis();
  if (program === undefined) throw new Error("Redis is not installed; `npm test` says how");
  const account = unprivileged();
  const folder = temporaryFolder("redis", account);
  const password = randomBytes(12).toString("hex");
  const all = {
    bind: "127.0.0.1",
    dir: folder,
    save: "",
    appendonly: "yes",
    appendfsync: "no",
    requirepass: password,
    ...settings,
  };
  return server({
    folder,
    command: (port) => [
      program,
      "--port",
      String(port),
      ...Object.entries(all).flatMap(([name, value]) => [`--${name}`, value]),
    ],
    url: (port) => `redis://:${password}@127.0.0.1:${port}`,
    account,
    deadly: "SIGKILL",
    ready: async (url) => {
      const client = createClient({ url, socket: { reconnectStrategy: false, connectTimeout: 2000 } });
      client.on("error", () => {});
      try {
        await client.connect();
        await client.ping();
      } finally {
        client.destroy();
      }
    },
  });
}

interface Account {
  readonly uid?: number;
  readonly gid?: number;
}

/** PostgreSQL refuses to run as root; then it runs as its own user, or as nobody. */
function unprivileged(): Account {
  if (process.getuid?.() !== 0) return {};
  for (const user of ["postgres", "nobody"]) {
    const [uid, gid] = ["-u", "-g"].map((flag) => spawnSync("id", [flag, user], { encoding: "utf8" }).stdout.trim());
    if (/^\d+$/.test(uid ?? "") && /^\d+$/.test(gid ?? "")) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new Error("no user found that PostgreSQL could run as");
}

function temporaryFolder(name: DatabaseName, { uid, gid }: Account): string {
  const folder = mkdtempSync(join(tmpdir(), `drawbridge-${name}-`));
  chmodSync(folder, 0o700);
  if (uid !== undefined && gid !== undefined) chownSync(folder, uid, gid);
  return folder;
}

interface ServerParts {
  readonly folder: string;
  readonly command: (port: number) => readonly string[];
  readonly url: (port: number) => string;
  readonly account: Account;
  readonly deadly: NodeJS.Signals;
  /** Throws while the server does not answer yet. */
  readonly ready: (url: string) => Promise<void>;
}

const START_MS = 60_000;

async function server(parts: ServerParts): Promise<DatabaseServer> {
  let child: ChildProcess | undefined;

  async function start(port: number): Promise<void> {
    const [program = "", ...words] = parts.command(port);
    const started = spawn(program, words, { cwd: parts.folder, stdio: ["ignore", "pipe", "pipe"], ...parts.account });
    let said = "";
    for (const stream of [started.stdout, started.stderr])
      stream.on("data", (chunk: Buffer) => {
        said = (said + chunk.toString()).slice(-4000);
      });
    started.on("error", (error) => {
      said += error.message;
    });
    for (const end = Date.now() + START_MS; ; ) {
      const failure = await parts.ready(parts.url(port)).then(
        () => undefined,
        (error: unknown) => error,
      );
      const over = ended(started) || started.pid === undefined;
      if (failure === undefined && !over) break;
      if (over || Date.now() > end) {
        started.kill("SIGKILL");
        throw new Error(`${program} did not start: ${said}`, { cause: failure });
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    child = started;
  }

  async function stop(signal: NodeJS.Signals): Promise<void> {
    const stopping = child;
    if (stopping === undefined || ended(stopping)) return;
    const gone = new Promise((resolve) => stopping.once("exit", resolve));
    stopping.kill(signal);
    await gone;
  }

  /** Another process may have taken the port between its being found free and its being used. */
  async function startSomewhere(tries = 3): Promise<number> {
    const port = await freePort();
    return start(port).then(
      () => port,
      (error: unknown) => {
        if (tries > 1) return startSomewhere(tries - 1);
        throw error;
      },
    );
  }

  try {
    const port = await startSomewhere();
    return {
      url: parts.url(port),
      get pid() {
        return child?.pid ?? 0;
      },
      kill: () => stop(parts.deadly),
      start: () => start(port),
      async [Symbol.asyncDispose]() {
        await stop(parts.deadly);
        rmSync(parts.folder, { recursive: true, force: true });
      },
    };
  } catch (thrown) {
    rmSync(parts.folder, { recursive: true, force: true });
    throw thrown;
  }
}

function ended(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}
