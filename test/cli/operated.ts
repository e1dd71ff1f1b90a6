/** A running gateway whose store is a file, and the command line beside it, as an operator has them. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openStore } from "../../src/store/open.ts";
import { openedRecords } from "../audit/opened.ts";
import { type World, world } from "../e2e/world.ts";
import { type Run, type RunOptions, run } from "./terminal.ts";

export interface Operated extends AsyncDisposable {
  readonly live: World;
  readonly folder: string;
  /** Runs a command in the folder of the settings file. */
  cli(argv: readonly string[], options?: RunOptions): Promise<Run>;
  /** The same with --json, its answer parsed. Throws unless it ends with 0. */
  json<T>(argv: readonly string[]): Promise<T>;
  /** Details of the newest audit record of an action. */
  recorded(action: string): Promise<Record<string, unknown> | undefined>;
  /** The status of an MCP request with this token. */
  status(token: string): Promise<number>;
}

export async function operated(settings: Record<string, unknown> = {}): Promise<Operated> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-operated-"));
  const place = `sqlite:${join(folder, "gateway.db")}`;
  const given = { servers: { echo: { command: [process.execPath, echo] } }, store: place, ...settings };
  const live = await world(given, { folder });
  const written = { ...given, listen: { port: Number(new URL(live.url).port) } };
  writeFileSync(join(folder, "drawbridge.yaml"), JSON.stringify(written));
  const cli = (argv: readonly string[], options: RunOptions = {}) => run(argv, { cwd: folder, ...options });
  return {
    live,
    folder,
    cli,
    async json<T>(argv: readonly string[]) {
      const { code, stdout, stderr } = await cli([...argv, "--json"]);
      if (code !== 0) throw new Error(`${argv.join(" ")} ended with ${code}: ${stderr}`);
      return JSON.parse(stdout) as T;
    },
    async recorded(action) {
      const store = await openStore(place, { readOnly: true });
      try {
        const records = await openedRecords(store, { newest: true });
        return records.findLast((record) => record.action === action)?.details as Record<string, unknown> | undefined;
      } finally {
        await store.close();
      }
    },
    async status(token) {
      const list = { jsonrpc: "2.0", id: 1, method: "tools/list", params: {} };
      const answer = await live.post(list, { "mcp-protocol-version": "2025-11-25" }, token);
      await answer.body?.cancel();
      return answer.status;
    },
    async [Symbol.asyncDispose]() {
      await live[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

const echo = join(import.meta.dirname, "../fixtures/echo-stdio.ts");

/** Waits until `what` is true, for at most ten seconds. Milliseconds until the last look that came too early began. */
export async function until(what: () => Promise<boolean>): Promise<number> {
  const began = performance.now();
  for (let tooEarly = 0; ; ) {
    const looked = performance.now() - began;
    if (await what()) return tooEarly;
    tooEarly = looked;
    if (looked > 10_000) throw new Error("it did not happen within ten seconds");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
