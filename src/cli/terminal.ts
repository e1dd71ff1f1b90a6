/** What a command may touch of the outside, and how it writes. Tests hand in their own. */
import { homedir } from "node:os";
import { styleText } from "node:util";
import type { startGateway } from "../gateway/gateway.ts";

export interface Output {
  write(text: string): unknown;
  readonly isTTY?: boolean;
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
  readonly startGateway: typeof startGateway;
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
    startGateway: async (options) => (await import("../gateway/gateway.ts")).startGateway(options),
  };
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
