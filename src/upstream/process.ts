/** One operating-system process of a stdio server: bytes in, bytes out, and a certain end for it and everything it started. */
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import type { DrawbridgeError } from "../core/errors.ts";
import type { Logger } from "../observe/logger.ts";
import { errorLines } from "./error-lines.ts";
import { sharedReaper } from "./reaper.ts";

export interface ProcessOptions {
  /** The program and its arguments; no shell ever sees them. */
  readonly command: readonly string[];
  readonly cwd: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Gives the process an IPC channel until the first message came through it, whose handle goes here. */
  readonly channel?: ((handle: unknown) => void) | undefined;
  /** Asks for an orderly end in place of SIGTERM to the process group. False: there was nobody to ask. */
  readonly terminate?: ((pid: number) => boolean) | undefined;
}

export interface ProcessEvents {
  output(chunk: Buffer): void;
  /** One line of stderr, cut at 1,000 characters. Of a flood the middle is left out. */
  errorLine(line: string): void;
  /** stdin takes more again after `full`. */
  drained(): void;
  /** One text could not be sent, which says nothing of the others. */
  unsent?(text: string, error: DrawbridgeError): void;
  /** Called once, after the last output: it could not be started, or it has ended. `failure`: what its calls are told, if not just that. */
  exited(reason: string, startable: boolean, failure?: DrawbridgeError): void;
}

export interface ServerProcess {
  readonly pid: number | undefined;
  /** True while the process does not read what was written; wait for `drained`. */
  readonly full: boolean;
  /** Texts written in one turn of the event loop leave in one system call. */
  write(text: string): void;
  /** Closes stdin, then SIGTERM, then SIGKILL, to the whole process group. Resolves when nothing of it is left. */
  end(): Promise<void>;
  /** SIGKILL at once. */
  kill(): Promise<void>;
}

/** Waits between the steps of an orderly end, in milliseconds. */
const STDIN_GRACE_MS = 1000;
const TERM_GRACE_MS = 2000;
/** How long output may come after the exit; a grandchild can hold the pipe open for ever. */
const LAST_WORDS_MS = 200;

const POSIX = process.platform !== "win32";

export function startProcess(options: ProcessOptions, logger: Logger, events: ProcessEvents): ServerProcess {
  const [file = "", ...args] = options.command;
  let child: ChildProcessWithoutNullStreams;
  try {
    child = spawn(file, args, {
      cwd: options.cwd,
      env: options.environment,
      shell: false,
      detached: POSIX,
      windowsHide: true,
      stdio: options.channel === undefined ? ["pipe", "pipe", "pipe"] : ["pipe", "pipe", "pipe", "ipc"],
    }) as ChildProcessWithoutNullStreams;
  } catch (error) {
    const reason = `could not be started: ${error instanceof Error ? error.message : String(error)}`;
    setImmediate(() => events.exited(reason, false));
    return { pid: undefined, full: false, write() {}, end: async () => {}, kill: async () => {} };
  }
  const { pid } = child;
  const reaper = sharedReaper(logger);
  if (pid !== undefined) reaper.add(pid);

  let out: string[] = [];
  let full = false;
  let gone = false;
  const complaints = errorLines(events.errorLine);
  const exit = Promise.withResolvers<void>();
  /** Settles when the whole group is gone. */
  let cleared: Promise<void> | undefined;

  function reportExit(reason: string, startable: boolean): void {
    if (gone) return;
    gone = true;
    out = [];
    complaints.end();
    events.exited(reason, startable);
  }
  function signalGroup(signal: NodeJS.Signals | 0): boolean {
    if (pid === undefined) return false;
    try {
      return POSIX ? process.kill(-pid, signal) : child.kill(signal);
    } catch {
      return false; // Nobody is left to be told.
    }
  }
  /** The leader has exited; what it started may still run in its group. */
  async function clearGroup(): Promise<void> {
    if (POSIX && signalGroup("SIGTERM")) {
      const end = performance.now() + TERM_GRACE_MS;
      while (signalGroup(0) && performance.now() < end) await delay(20);
      signalGroup("SIGKILL");
    }
    if (pid !== undefined) reaper.drop(pid);
  }

  child.on("error", (error) => {
    // After a successful spawn this reports a failed kill, which is none of our concern.
    if (child.pid !== undefined) return;
    exit.resolve();
    cleared = Promise.resolve();
    reportExit(`could not be started: ${error.message}`, false);
  });
  child.on("exit", (code, signal) => {
    exit.resolve();
    cleared ??= clearGroup();
    const reason = signal === null ? `exited with code ${code}` : `was ended by ${signal}`;
    child.once("close", () => reportExit(reason, true));
    setTimeout(() => reportExit(reason, true), LAST_WORDS_MS);
  });
  child.once("message", (_message, handle) => {
    options.channel?.(handle);
    if (child.connected) child.disconnect();
  });
  child.stdin.on("error", () => {}); // EPIPE: the exit event tells the same.
  child.stdin.on("drain", () => {
    full = false;
    events.drained();
  });
  child.stdout.on("data", (chunk: Buffer) => {
    if (!gone) events.output(chunk);
  });
  child.stdout.on("error", () => {});
  child.stderr.on("error", () => {});
  child.stderr.on("data", (chunk: Buffer) => {
    if (!gone) complaints.push(chunk);
  });

  async function leave(first: () => void): Promise<void> {
    first();
    await exit.promise;
    await cleared;
  }

  return {
    pid,
    get full() {
      return full;
    },
    write(text) {
      if (gone) return;
      if (out.push(text) > 1) return;
      setImmediate(() => {
        const text = out.length === 1 ? out[0] : out.join("");
        out = [];
        if (text !== undefined && child.stdin.writable && !child.stdin.write(text)) full = true;
      });
    },
    end: () =>
      leave(() => {
        child.stdin.end();
        const asked = () => pid !== undefined && options.terminate?.(pid) === true;
        const term = setTimeout(() => asked() || signalGroup("SIGTERM"), STDIN_GRACE_MS);
        const kill = setTimeout(() => signalGroup("SIGKILL"), STDIN_GRACE_MS + TERM_GRACE_MS);
        void exit.promise.then(() => {
          clearTimeout(term);
          clearTimeout(kill);
        });
      }),
    kill: () => leave(() => signalGroup("SIGKILL")),
  };
}

const delay = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
