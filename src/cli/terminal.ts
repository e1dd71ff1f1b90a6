/** What a command may touch of the outside, and how it writes. Tests hand in their own. */
import { spawn } from "node:child_process";
import { homedir } from "node:os";
import { createInterface } from "node:readline/promises";
import { styleText } from "node:util";
import { DrawbridgeError } from "../core/errors.ts";
import type { startGateway } from "../gateway/gateway.ts";

export interface Output {
  /** False: more should wait for `drain`. */
  write(text: string): unknown;
  readonly isTTY?: boolean;
  once?(event: "drain" | "error", listener: () => void): unknown;
}

export interface Terminal {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
  readonly platform: NodeJS.Platform;
  /** Resolves when the command should end (SIGINT, SIGTERM). */
  readonly stopped: () => Promise<void>;
  /** Calls `again` whenever the command should read its settings again (SIGHUP). Undefined where SIGHUP means that the terminal is gone. */
  readonly hungUp?: ((again: () => void) => void) | undefined;
  readonly startGateway: typeof startGateway;
  /** Asks the person a question and resolves with their line. Undefined when nobody is there to answer. */
  readonly ask?: ((question: string) => Promise<string>) | undefined;
  /** What is piped in, up to 64 KiB. */
  readonly input?: (() => Promise<string>) | undefined;
  /** What is piped in, piece by piece, however long it is. */
  readonly pieces?: (() => AsyncIterable<string>) | undefined;
  /** Shows a page in the person's browser. Only http and https are ever opened; whether it worked is not known. */
  readonly openBrowser?: ((url: URL) => void) | undefined;
}

/** Ctrl-C reaches a process twice when npm or a shell passes on what the terminal has sent already: within this time it is one wish. */
const SAME_WISH_MS = 1000;

/** The process's own. A first SIGINT or SIGTERM resolves `stopped`, a second ends the process at once. */
export function processTerminal(): Terminal {
  return {
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    cwd: process.cwd(),
    home: homedir(),
    platform: process.platform,
    stopped: () =>
      new Promise((resolve) => {
        let askedAt: number | undefined;
        const codes = { SIGINT: 130, SIGTERM: 143 } as const;
        for (const [signal, code] of Object.entries(codes)) {
          process.on(signal, () => {
            const now = performance.now();
            if (askedAt !== undefined && now - askedAt > SAME_WISH_MS) process.exit(code);
            askedAt ??= now;
            resolve();
          });
        }
      }),
    hungUp: [process.stdin, process.stdout, process.stderr].some(({ isTTY }) => isTTY)
      ? undefined
      : (again) => void process.on("SIGHUP", again),
    startGateway: async (options) => (await import("../gateway/gateway.ts")).startGateway(options),
    ask: process.stdin.isTTY && process.stderr.isTTY ? askPerson : undefined,
    input: readInput,
    pieces: () => process.stdin.setEncoding("utf8"),
    openBrowser,
  };
}

async function readInput(): Promise<string> {
  let text = "";
  for await (const part of process.stdin.setEncoding("utf8")) {
    text += part;
    if (text.length > 65_536) throw new DrawbridgeError("settings_invalid", "Too much was piped in.");
  }
  return text;
}

async function askPerson(question: string): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  // Ctrl-D and Ctrl-C are an answer, too: an empty one.
  const ended = new Promise<string>((resolve) => lines.once("close", () => resolve("")));
  try {
    return await Promise.race([lines.question(question), ended]);
  } finally {
    lines.close();
  }
}

const BROWSERS: Partial<Record<NodeJS.Platform, readonly [program: string, ...before: string[]]>> = {
  darwin: ["open"],
  win32: ["rundll32", "url.dll,FileProtocolHandler"],
};

/** CVE-2025-6514: no shell reads the address, and it cannot begin with a dash or another scheme. */
function openBrowser(url: URL): void {
  if (url.protocol !== "https:" && url.protocol !== "http:") return;
  const [program, ...before] = BROWSERS[process.platform] ?? ["xdg-open"];
  const child = spawn(program, [...before, url.href], { stdio: "ignore", detached: true, shell: false });
  // The address was printed as well, so a missing program is no failure.
  child.once("error", () => {});
  child.unref();
}

type Style = Parameters<typeof styleText>[0];

export type Painter = (style: Style, text: string) => string;

/** Styles text for a stream: only on a terminal, never against NO_COLOR (https://no-color.org). */
export function painter(stream: Output, env: Terminal["env"]): Painter {
  const colours =
    (stream.isTTY === true && (env["NO_COLOR"] ?? "") === "" && env["TERM"] !== "dumb") ||
    (env["FORCE_COLOR"] ?? "0") !== "0";
  return (style, text) => (colours ? styleText(style, text, { validateStream: false }) : text);
}

/** Text from outside, safe for a terminal: no control or invisible characters, bounded. */
export function printable(text: string, maxLength = 200): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\uFFFD").slice(0, maxLength);
}
