/**
 * Kills a gateway (SIGKILL) again and again while callers call through it, and looks each time whether the log has every call that was
 * answered and verifies: `node test/chaos/killed.ts --kills 200 --seed 1`. `killed.test.ts` does a few.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { knownSigners } from "../../src/audit/evidence.ts";
import { vouchersOf } from "../../src/audit/signing.ts";
import { verification } from "../../src/audit/verify.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { modernRequest, world } from "../e2e/world.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import { seeded } from "./random.ts";

export interface Kills {
  readonly kills: number;
  readonly answered: number;
  readonly records: number;
  /** What should not have been. */
  readonly broken: readonly string[];
}

const CALLERS = 8;

export async function killAgainAndAgain(
  kills: number,
  seed: number,
  tell: (line: string) => void = () => {},
): Promise<Kills> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-kills-"));
  const file = join(folder, "gateway.db");
  const random = seeded(seed);
  const broken: string[] = [];
  const answered = new Set<string>();
  let records = 0;
  let child: ChildProcess | undefined;
  const settings = {
    store: `sqlite:${file}`,
    servers: { echo: { command: fixtureCommand("echo-stdio") } },
    tokens: { accessTokenSeconds: 3600 },
    audit: { checkpoint: { records: 50, seconds: 1 } },
  };
  try {
    // Its only purpose is a token that outlives it.
    const first = await world(settings);
    const { port } = new URL(first.url);
    const { access_token: token } = await first.tokens();
    await first[Symbol.asyncDispose]();
    const fixed = JSON.stringify({ ...settings, listen: { port: Number(port) } });

    for (let kill = 1; kill <= kills; kill++) {
      const script = join(import.meta.dirname, "killed-gateway.ts");
      child = spawn(process.execPath, [script, fixed], { stdio: ["ignore", "pipe", "inherit"] });
      const dying = new Promise<void>((resolve) => child?.once("exit", () => resolve()));
      let said = "";
      child.stdout?.on("data", (chunk) => {
        said += String(chunk);
      });
      await waitFor(() => said.includes("listens") || child?.exitCode !== null, 60_000);
      if (!said.includes("listens")) throw new Error(`the gateway did not start after kill ${kill - 1}`);
      let over = false;
      const callers = Array.from({ length: CALLERS }, async (_, caller) => {
        for (let n = 0; !over; n++) {
          const id = `mark-${kill}-${caller}-${n}`;
          if (await isAnswered(first.url, token, id)) answered.add(id);
        }
      });
      const enough = answered.size + 1 + random.below(300);
      await waitFor(() => answered.size >= enough, 60_000);
      await sleep(random.below(20));
      child.kill("SIGKILL");
      await dying;
      over = true;
      await Promise.all(callers);
      const { problem, found } = await looked(file);
      records = found.size;
      if (problem !== undefined) broken.push(`after kill ${kill}: ${problem}`);
      const missing = [...answered].filter((id) => !found.has(id));
      if (missing.length > 0)
        broken.push(`after kill ${kill}: ${missing.length} answered calls have no record, e.g. ${missing[0]}`);
      tell(
        `kill ${kill}: ${answered.size} calls answered, ${found.size} calls recorded${problem === undefined ? ", whole" : `, ${problem}`}`,
      );
    }
    return { kills, answered: answered.size, records, broken };
  } finally {
    child?.kill("SIGKILL");
    rmSync(folder, { recursive: true, force: true });
  }
}

async function isAnswered(url: string, token: string, id: string): Promise<boolean> {
  const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "x" } }, id);
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
        authorization: `Bearer ${token}`,
        ...headers,
      },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(20_000),
    });
    const text = await response.text();
    return response.status === 200 && text.includes('"result"');
  } catch {
    return false;
  }
}

/** The calls in the log, by the id of their request, and what verify finds. */
async function looked(file: string): Promise<{ readonly problem: string | undefined; readonly found: Set<string> }> {
  const store = sqliteStore(file, { readOnly: true });
  try {
    const checked = verification(vouchersOf(await knownSigners(store.records)));
    const found = new Set<string>();
    using log = new DatabaseSync(file, { readOnly: true });
    for (const { sequence, json } of log.prepare("SELECT sequence, json FROM audit ORDER BY sequence").iterate()) {
      checked.read(Number(sequence), String(json));
      const id = /"requestId":"(mark-[\d-]+)"/.exec(String(json))?.[1];
      if (id !== undefined) found.add(id);
    }
    const { problem } = checked.end((await store.audit.heads()).map((head) => JSON.parse(head.json) as unknown));
    return { problem: problem && `${problem.kind} at ${problem.at}: ${problem.why}`, found };
  } finally {
    await store.close();
  }
}

if (process.argv[1] === import.meta.filename) {
  const { values } = parseArgs({
    options: { kills: { type: "string", default: "200" }, seed: { type: "string", default: "1" } },
  });
  const report = await killAgainAndAgain(Number(values.kills), Number(values.seed), console.log);
  console.log(`${report.kills} kills, ${report.answered} calls answered, ${report.records} recorded`);
  for (const line of report.broken) console.log(`BROKEN ${line}`);
  process.exit(report.broken.length === 0 ? 0 : 1);
}
