/** A terminal for tests: what a command writes is kept, and it ends when the test says so. */
import { main } from "../../src/cli/main.ts";
import type { Terminal } from "../../src/cli/terminal.ts";
import type { RunningGateway, StartOptions } from "../../src/gateway/gateway.ts";

export interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** What the gateway was started with. */
  readonly started: readonly StartOptions[];
  readonly closed: number;
}

export interface RunOptions {
  readonly cwd?: string;
  readonly home?: string;
  readonly env?: Record<string, string>;
  readonly isTTY?: boolean;
  readonly gateway?: Partial<RunningGateway>;
  /** Answers questions; without it nobody is there. */
  readonly ask?: (question: string) => Promise<string>;
  readonly openBrowser?: (url: URL) => void;
  /** What is piped in. */
  readonly input?: string;
}

/** Runs the command line to its end. A served gateway is a stand-in, stopped as soon as its welcome is written. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Run> {
  const written = { stdout: "", stderr: "" };
  const started: StartOptions[] = [];
  let closed = 0;
  let stop = () => {};
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  const stream = (name: "stdout" | "stderr") => ({
    isTTY: options.isTTY ?? false,
    write(text: string) {
      written[name] += text;
      if (name === "stdout" && text.includes("Ctrl-C stops")) stop();
    },
  });
  const terminal: Terminal = {
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    env: options.env ?? {},
    cwd: options.cwd ?? import.meta.dirname,
    home: options.home ?? import.meta.dirname,
    platform: "linux",
    stopped: () => stopped,
    ask: options.ask,
    openBrowser: options.openBrowser,
    input: async () => options.input ?? "",
    startGateway: async (start) => {
      started.push(start);
      return {
        url: "http://127.0.0.1:7337/mcp",
        publicUrl: "http://127.0.0.1:7337",
        setupLink: async () => "http://127.0.0.1:7337/setup?token=t",
        servers: () => [
          { name: "orders", state: "ready", tools: ["orders_find", "orders_refund"], resources: 1, prompts: 0 },
        ],
        withheld: () => [],
        ready: Promise.resolve(),
        control: undefined,
        reload: async () => [],
        close: async () => {
          closed++;
        },
        ...options.gateway,
      };
    },
  };
  const code = await main(argv, terminal);
  return { code, ...written, started, closed };
}
