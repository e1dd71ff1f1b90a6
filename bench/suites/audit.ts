/** What the audit log costs: calls with it beside calls without, how fast it is verified, and how long a search of a million records takes. */
import { execFile } from "node:child_process";
import { createWriteStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { knownSigners, openEvidence } from "../../src/audit/evidence.ts";
import { exported } from "../../src/audit/export.ts";
import { type AuditRecord, draftOf } from "../../src/audit/record.ts";
import { auditSettings } from "../../src/audit/settings.ts";
import { newId } from "../../src/core/ids.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { AuditQuery, AuditRow } from "../../src/store/ports.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { startAll } from "../arms/arm.ts";
import { drawbridge } from "../arms/drawbridge.ts";
import { nodeServer, openEndpoint, warm } from "../arms/http.ts";
import { ANY_CORE, GENERATOR_CORE, SERVER_CORE } from "../cores.ts";
import { each, type Figure, failures, figure, kinds, ratio, spread, type Table } from "../figures.ts";
import type { LoadResult } from "../load.ts";
import { inTurns } from "../rounds.ts";
import { AUDITS, armName, type Effort, type Suite, type SuiteResult, traceSink } from "./suite.ts";

export const audit: Suite = {
  name: "audit",
  question: "What does the audit log cost a call, and how fast is it verified and searched?",
  run: measure,
};

const CONNECTIONS = 20;
const WARM_SECONDS = 10;
const OFF = "drawbridge, audit off";
const perSecond = (run: LoadResult): number => run.perSecond;

interface Setting {
  readonly title: string;
  /** In names of figures. */
  readonly key: string;
  readonly upstream: string;
  readonly core: number | undefined;
}

/** On one core all of it is paid by the calls; with more, the thread that writes has its own. Most servers do more than to echo. */
const SETTINGS: readonly Setting[] = [
  { title: "the gateway on one core, bare node:http echo server", key: "", upstream: "floor.ts", core: SERVER_CORE },
  {
    title: "the gateway on all cores, bare node:http echo server",
    key: ".allCores",
    upstream: "floor.ts",
    core: ANY_CORE,
  },
  {
    title: "the gateway on one core, SDK v2 server (createMcpHandler)",
    key: ".sdk",
    upstream: "sdk-v2.ts",
    core: SERVER_CORE,
  },
];

async function measure(effort: Effort): Promise<SuiteResult> {
  const costs: Awaited<ReturnType<typeof cost>>[] = [];
  for (const setting of SETTINGS) costs.push(await cost(effort, setting));
  const log = await logOf(effort);
  return {
    tables: [...costs.map(({ table }) => table), log.table],
    figures: Object.assign({}, ...costs.map(({ figures }) => figures), log.figures),
    raw: { costs: costs.map(({ raw }) => raw), log: log.table.rows },
  };
}

async function cost(effort: Effort, { title, key, upstream: file, core }: Setting) {
  const upstream = await nodeServer("upstream", file, GENERATOR_CORE);
  await warm(openEndpoint(upstream.port), WARM_SECONDS);
  const sink = await traceSink();
  const server = { url: `http://127.0.0.1:${upstream.port}/mcp` };
  const otlp = `http://127.0.0.1:${sink.port}`;
  const arms = [
    drawbridge({ name: OFF, audit: "off", server, otlp }),
    ...AUDITS.map((commit) => drawbridge({ name: armName(commit), audit: commit, server, otlp })),
  ];
  const { running, missing } = await startAll(arms, core, effort.tell);
  const results = await inTurns(
    running,
    { upstream: upstream.pid, "OTLP receiver": sink.pid },
    {
      connections: CONNECTIONS,
      shape: { kind: "closed", warmSeconds: 1, seconds: effort.seconds },
      sameId: false,
      timeoutMs: 30_000,
      rounds: effort.rounds,
      warmSeconds: WARM_SECONDS,
      patience: effort.patience,
    },
    effort.tell,
  );
  for (const arm of running) await arm.stop();
  const figures: Record<string, Figure> = {};
  for (const commit of AUDITS)
    figures[`audit.perOff${key}.${commit}`] = ratio(results.get(armName(commit)), results.get(OFF), perSecond);
  const rows = [OFF, ...AUDITS.map(armName)].map((name) => {
    const runs = results.get(name) ?? [];
    const cpu = each(runs, (run) => run.cpuMsPerCall[name] ?? Number.NaN);
    const kept = ratio(runs, results.get(OFF), perSecond);
    return [name, spread(each(runs, perSecond), 0), spread(kept, 2), spread(cpu, 4), kinds(failures(runs))];
  });
  const table: Table = {
    title: `Calls with the audit log, ${title}, SQLite, ${CONNECTIONS} connections, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: ["arm", "calls/s", "of off", "CPU ms/call", "failures"],
    rows,
    notes: ["Medians with their range over the rounds; ratios are taken within each round.", ...missing],
  };
  return { table, figures, raw: Object.fromEntries(results) };
}

// ---- the log by itself ----

const MILLION = 1_000_000;
const EXPORTED = 200_000;

async function logOf(effort: Effort) {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-bench-audit-"));
  const store = sqliteStore(join(folder, "audit.db"));
  try {
    const evidence = openEvidence({
      store,
      settings: auditSettings.parse({ maxPending: 100_000, commit: "async" }),
      encryption: undefined,
      folder,
      replica: "bench",
      logger: silentLogger,
    });
    const size = effort.rounds > 1 ? MILLION : MILLION / 20;
    const began = process.cpuUsage();
    for (let n = 0; n < size; n += 1000) {
      for (let k = n; k < n + 1000; k++) await evidence.journal.append(record(k));
      while (evidence.journal.pending > 20_000) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await evidence.journal.close();
    const written = cpuOf(began) / size;
    effort.tell(`  ${size} records written, ${(written * 1000).toFixed(1)} µs of CPU each`);

    const alone: (readonly [string, string])[] = [];
    for (const together of COMMITS) {
      const cpu = await storeAlone(join(folder, `alone-${together}.db`), together);
      const what = `of it the store alone, ${together} records in a commit`;
      effort.tell(`  ${what}: ${(cpu * 1000).toFixed(1)} µs of CPU each`);
      alone.push([what, `${(cpu * 1000).toFixed(1)} µs`]);
    }

    const file = join(folder, "export.jsonl");
    const out = createWriteStream(file);
    const through = Math.min(EXPORTED, size);
    for await (const line of exported(store.audit, await evidence.signer(), { after: 0, through }, Date.now()))
      if (!out.write(line)) await new Promise<void>((resolve) => out.once("drain", () => resolve()));
    await new Promise<void>((resolve) => out.end(() => resolve()));
    const keys = join(folder, "keys.json");
    writeFileSync(keys, JSON.stringify(await knownSigners(store.records)));
    // By CPU: what else runs on the machine is not the question. In a process of its own: this one's heap is full of other things.
    const program = join(import.meta.dirname, "../verify-export.ts");
    const { stdout } = await promisify(execFile)(process.execPath, [program, file, keys, String(effort.rounds)]);
    const verified = stdout.trim().split("\n").map(Number);
    const searched = await Promise.all(
      SEARCHES(size).map(async ([what, query]) => {
        const times: number[] = [];
        for (let round = 0; round < effort.rounds; round++) {
          const started = performance.now();
          await store.audit.read({ limit: 1000, ...query });
          times.push(performance.now() - started);
        }
        return [what, figure(times)] as const;
      }),
    );
    const slowest = searched.reduce((worst, [, found]) => (found.median > worst.median ? found : worst), figure([0]));
    const speed = figure(verified);
    const table: Table = {
      title: `The log by itself: ${size} records in SQLite`,
      head: ["what", "measured"],
      rows: [
        ["CPU to write a record: text, seal, hash, commit", `${(written * 1000).toFixed(1)} µs`],
        ...alone,
        ["records verified in a second of CPU, from an export", spread(speed, 0)],
        ...searched.map(([what, found]) => [`search: ${what}`, `${spread(found, 0)} ms`]),
      ],
      notes: [],
    };
    return { table, figures: { "audit.verified": speed, "audit.searchMs": slowest } };
  } finally {
    await store.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What 20 callers give when each waits for the disk, and what there is when nobody does. */
const COMMITS = [13, 200] as const;
const ALONE = 26_000;

/** CPU milliseconds that a record costs which is text already. */
async function storeAlone(file: string, together: number): Promise<number> {
  await using store = sqliteStore(file);
  const rows = Array.from({ length: ALONE }, (_, n): AuditRow => {
    const { row, open, personal } = draftOf(record(n));
    // As long as it is when it is encrypted and has its place.
    return { ...row, json: `${open},"personal":${personal},"rest":"${"x".repeat(REST)}"}` };
  });
  const began = process.cpuUsage();
  for (let n = 0; n < ALONE; n += together) await store.audit.append(rows.slice(n, n + together));
  return cpuOf(began) / ALONE;
}
const REST = 200;

const BEGIN = 1_700_000_000_000;

const SEARCHES = (size: number): readonly (readonly [string, Partial<AuditQuery>])[] => [
  ["all of one user", { subject: "user-77" }],
  ["newest of one tool", { target: "tool_3", newest: true }],
  ["refused, in the later half", { outcome: "refused", since: BEGIN + size * 50 }],
  ["one trace", { traceId: "0".repeat(32) }],
  ["nothing is found", { client: "nobody" }],
];

function record(n: number): AuditRecord {
  return {
    id: newId(BEGIN + n * 100),
    kind: "call",
    at: BEGIN + n * 100,
    durationMs: 3.2,
    outcome: n % 50 === 0 ? "refused" : "permitted",
    principal: {
      subject: `user-${n % 500}`,
      client: "https://client.example/meta.json",
      actors: [],
      groups: ["staff"],
      scopes: ["mcp:read", "mcp:call"],
      grant: "g_1",
      tokenId: "t_1",
    },
    call: {
      method: "tools/call",
      revision: "2026-07-28",
      server: "orders",
      kind: "tool",
      name: `tool_${n % 40}`,
      upstreamName: "tool",
      pin: `sha256:${"a".repeat(64)}`,
      requestId: n,
    },
    arguments: { json: `{"order_id":"ORD-${n}"}` },
    result: { isError: false, sha256: "ab".repeat(32), bytes: 400 },
    decision: { effect: "permit", reason: "permitted_by_rule", rule: "support: may tool_*" },
    policy: "p".repeat(32),
    trace: { traceId: n.toString(16).padStart(32, "a"), spanId: "b".repeat(16) },
    source: "192.0.2.1",
    replica: "bench",
  };
}

/** CPU milliseconds since then, of all threads of this process. */
function cpuOf(since: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1000;
}
