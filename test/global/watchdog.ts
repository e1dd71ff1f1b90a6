/**
 * A reporter that ends what would go on for ever. No time limit of a test can end a process that waits for a child or goes round in a
 * loop: a test file that takes too long is named, with what it was doing, and killed, so that the run ends and the rest is counted.
 */
import { relative } from "node:path";
import type { Reporter, TestCase, TestModule } from "vitest/node";
import { processesOf } from "../fixtures/processes.ts";

/** The longest file takes about three minutes. `TEST_FILE_LIMIT_MS` sets another limit. */
const LIMIT_MS = Number(process.env["TEST_FILE_LIMIT_MS"] ?? 12 * 60_000);
const LOOK_MS = Math.min(LIMIT_MS / 4, 10_000);
/** For a process to say where it is. */
const ASK_MS = 5000;
const FRAMES = 20;
/** Where Node listens for a debugger after SIGUSR1. */
const DEBUGGER = "http://127.0.0.1:9229/json/list";

interface Running {
  readonly since: number;
  /** The last test that it told of. */
  test: string | undefined;
}

export default class Watchdog implements Reporter {
  /** By file, in the order of their beginnings. */
  readonly #running = new Map<string, Running>();
  #timer: NodeJS.Timeout | undefined;

  onInit(): void {
    this.#lookAgain();
  }

  onTestModuleQueued({ moduleId }: TestModule): void {
    this.#running.set(moduleId, { since: performance.now(), test: undefined });
  }

  onTestCaseReady({ module, fullName }: TestCase): void {
    const running = this.#running.get(module.moduleId);
    if (running !== undefined) running.test = fullName;
  }

  onTestModuleEnd({ moduleId }: TestModule): void {
    this.#running.delete(moduleId);
  }

  onTestRunEnd(): void {
    clearTimeout(this.#timer);
  }

  /** It keeps no run alive that is over. */
  #lookAgain(): void {
    this.#timer = setTimeout(() => void this.#look(), LOOK_MS).unref();
  }

  async #look(): Promise<void> {
    const [first] = this.#running;
    if (first !== undefined && performance.now() - first[1].since > LIMIT_MS) await this.#end(...first);
    this.#lookAgain();
  }

  /** Each file has a process of its own, so the one that began first has the oldest. */
  async #end(moduleId: string, { since, test }: Running): Promise<void> {
    this.#running.delete(moduleId);
    const seconds = Math.round((performance.now() - since) / 1000);
    console.error(`✗ ${relative(process.cwd(), moduleId)} has not ended in ${seconds} s and is killed.`);
    console.error(`  The last test that it told of: ${test ?? "none"}`);
    const [worker] = (await processesOf(process.pid))
      .filter(({ parent, command }) => parent === process.pid && command.includes("workers/forks"))
      .sort((a, b) => a.pid - b.pid);
    if (worker === undefined) return;
    const family = await processesOf(worker.pid);
    for (const { pid, command } of family) console.error(`  process ${pid}: ${command.slice(0, 400)}`);
    console.error(
      (await stackOf(worker.pid)) ?? "  It does not say where it is: it waits in the system, for a child perhaps.",
    );
    for (const { pid } of family) signal(pid, "SIGKILL");
  }
}

/** Where a process of Node is, in a loop, too. */
async function stackOf(pid: number): Promise<string | undefined> {
  signal(pid, "SIGUSR1");
  const until = AbortSignal.timeout(ASK_MS);
  try {
    const [target] = (await retried(() => fetch(DEBUGGER, { signal: until }), until).then((list) => list.json())) as {
      webSocketDebuggerUrl: string;
    }[];
    const socket = new WebSocket(target?.webSocketDebuggerUrl ?? "");
    return await new Promise<string | undefined>((resolve) => {
      until.addEventListener("abort", () => resolve(undefined));
      socket.addEventListener("error", () => resolve(undefined));
      socket.addEventListener("open", () => {
        socket.send('{"id":1,"method":"Debugger.enable"}');
        socket.send('{"id":2,"method":"Debugger.pause"}');
      });
      const scripts = new Map<string, string>();
      socket.addEventListener("message", ({ data }) => {
        const said = JSON.parse(String(data)) as Said;
        if (said.method === "Debugger.scriptParsed") scripts.set(said.params.scriptId, said.params.url);
        if (said.method === "Debugger.paused")
          resolve(
            said.params.callFrames
              .slice(0, FRAMES)
              .map(
                ({ functionName, location }) =>
                  `  at ${functionName} (${scripts.get(location.scriptId)}:${location.lineNumber + 1})`,
              )
              .join("\n"),
          );
      });
    }).finally(() => socket.close());
  } catch {
    return undefined;
  }
}

/** What a debugger hears (Chrome DevTools Protocol, domain Debugger). */
type Said =
  | { readonly method: "Debugger.scriptParsed"; readonly params: { readonly scriptId: string; readonly url: string } }
  | {
      readonly method: "Debugger.paused";
      readonly params: {
        readonly callFrames: readonly {
          readonly functionName: string;
          /** Lines are counted from 0. */
          readonly location: { readonly scriptId: string; readonly lineNumber: number };
        }[];
      };
    }
  | { readonly method?: undefined };

/** It takes a moment until the debugger is there. */
async function retried<T>(work: () => Promise<T>, until: AbortSignal): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (until.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has ended meanwhile.
  }
}
