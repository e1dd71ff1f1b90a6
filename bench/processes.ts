/** Starts the servers of the bench and stops every one of them by its id, whatever way the bench ends. */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import net from "node:net";
import path from "node:path";
import { onCore } from "./cores.ts";
import { startOf, treeOf } from "./proc.ts";

export interface Command {
  /** For messages and the name of the log file. */
  readonly name: string;
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly core: number | undefined;
  /** The port it will listen on. */
  readonly port: number;
}

export interface Running {
  readonly name: string;
  readonly pid: number;
  readonly port: number;
  /** What it has written so far. */
  output(): string;
  /** Ends it, politely first, and returns how many processes of its tree outlived it (those are killed too). */
  stop(): Promise<number>;
}

/** Everything a bench run leaves behind; ignored by Git. */
export const RESULTS: string = path.resolve(import.meta.dirname, "../results");
export const LOGS: string = path.join(RESULTS, "logs");

const START_SECONDS = 30;
const POLITE_SECONDS = 5;
const OPEN_FILES = 12_000;

/** Starts a server and returns when its port takes connections. */
export async function start(command: Command): Promise<Running> {
  const server = launch(command);
  await portOpens(server, START_SECONDS);
  return server;
}

/** Starts a server and returns at once. */
export function launch(command: Command): Running {
  mkdirSync(LOGS, { recursive: true });
  const logFile = path.join(LOGS, `${command.name.replaceAll(/[^a-z0-9-]+/gi, "-")}-${command.port}.log`);
  const log = openSync(logFile, "w");
  const [program, ...args] = onCore(command.core, command.command, OPEN_FILES);
  const child = spawn(program, args, {
    env: { ...process.env, NODE_ENV: "production", ...command.environment, PORT: String(command.port) },
    stdio: ["ignore", log, log],
  });
  closeSync(log);
  child.on("error", () => {}); // Shown by `portOpens`: there is no pid then, and the port never opens.
  alive.add(child);
  child.once("exit", () => alive.delete(child));
  return {
    name: command.name,
    pid: child.pid ?? -1,
    port: command.port,
    output: () => readFileSync(logFile, "utf8"),
    stop: () => stop(child),
  };
}

/** Waits until the server's port takes a connection. */
export async function portOpens(server: Running, seconds: number): Promise<void> {
  const until = Date.now() + seconds * 1000;
  while (!(await connects(server.port))) {
    const gone = startOf(server.pid) === undefined;
    if (gone || Date.now() > until) {
      await server.stop();
      const how = gone ? "ended before it listened" : `did not listen on port ${server.port} within ${seconds} s`;
      throw new Error(`${server.name} ${how}. Its last words: ${server.output().trim().slice(-1500) || "none"}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A loopback port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("The system gave no port.");
  return address.port;
}

/** Stops whatever still runs. */
export async function stopAll(): Promise<void> {
  await Promise.all([...alive].map(stop));
  await Promise.all([...borrowed].map((server) => server[Symbol.asyncDispose]()));
  borrowed.clear();
}

/** Has a server that was started elsewhere, such as a database, stopped with the others. */
export function stopToo<Server extends AsyncDisposable>(server: Server): Server {
  borrowed.add(server);
  return server;
}

/** Makes sure that nothing outlives the bench: call once at its start. */
export function stopAtExit(): void {
  const signals = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;
  for (const [signal, code] of Object.entries(signals)) {
    process.once(signal, () => void stopAll().finally(() => process.exit(code)));
  }
  process.once("exit", () => {
    for (const child of alive) for (const one of pidsOf(child).reverse()) kill(one);
  });
}

const alive = new Set<ChildProcess>();
const borrowed = new Set<AsyncDisposable>();

interface Incarnation {
  readonly pid: number;
  readonly started: number | undefined;
}

async function stop(child: ChildProcess): Promise<number> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return 0;
  const tree = pidsOf(child);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const impatient = setTimeout(() => child.kill("SIGKILL"), POLITE_SECONDS * 1000);
  await ended;
  clearTimeout(impatient);
  // Children notice a moment later that their parent is gone.
  for (let tries = 0; tries < 20 && tree.some(runs); tries += 1)
    await new Promise((resolve) => setTimeout(resolve, 50));
  const left = tree.filter(runs);
  for (const one of left) kill(one);
  return left.length;
}

function pidsOf(child: ChildProcess): Incarnation[] {
  if (child.pid === undefined) return [];
  return treeOf(child.pid).map((pid) => ({ pid, started: startOf(pid) }));
}

function runs({ pid, started }: Incarnation): boolean {
  return started !== undefined && startOf(pid) === started;
}

function kill(one: Incarnation): void {
  try {
    if (runs(one)) process.kill(one.pid, "SIGKILL");
  } catch {
    // It ended by itself in between.
  }
}

function connects(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1");
    const settle = (open: boolean): void => {
      socket.destroy();
      resolve(open);
    };
    socket.once("connect", () => settle(true));
    socket.once("error", () => settle(false));
  });
}
