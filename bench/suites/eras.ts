/** What the bridge between the revisions costs: each pairing of client and server beside those that need none. */
import { fileURLToPath } from "node:url";
import { drawbridge } from "../arms/drawbridge.ts";
import { nodeServer, openEndpoint } from "../arms/http.ts";
import type { Endpoint } from "../client.ts";
import { GENERATOR_CORE, SERVER_CORE } from "../cores.ts";
import { evidence } from "../evidence.ts";
import { each, type Figure, failures, kinds, ratio, spread, type Table } from "../figures.ts";
import type { LoadResult } from "../load.ts";
import { freePort, type Running, start } from "../processes.ts";
import { type Contender, inTurns } from "../rounds.ts";
import { type Effort, type Suite, type SuiteResult, traceSink } from "./suite.ts";

export const eras: Suite = {
  name: "eras",
  question: "What does the bridge between 2025-11-25 and 2026-07-28 cost, for a plain call and for one that asks?",
  async run(effort) {
    const plain = await pairings(PLAIN, effort);
    const asking = await pairings(ASKING, effort);
    return {
      tables: [...plain.tables, ...asking.tables],
      figures: { ...plain.figures, ...asking.figures },
      raw: { plain: plain.raw, asking: asking.raw },
    };
  },
};

const ERAS = ["legacy", "modern"] as const;
type Era = (typeof ERAS)[number];
const REVISION = { legacy: "2025-11-25", modern: "2026-07-28" } as const;

/** Each gateway is warmed by clients of both eras. */
const WARM_SECONDS = 3;
const TIMEOUT_MS = 30_000;

/** What is called. */
interface Kind {
  readonly key: string;
  readonly title: string;
  readonly connections: number;
  upstream(era: Era): Promise<Running>;
  /** The same place, called for this. */
  at(endpoint: Endpoint): Endpoint;
  readonly note: string;
}

const PLAIN: Kind = {
  key: "plain",
  title: "A plain call through each pairing, in front of a bare node:http echo server",
  connections: 20,
  upstream: (era) => nodeServer(`upstream ${era}`, "floor.ts", GENERATOR_CORE, { ERA: era }),
  at: (endpoint) => endpoint,
  note: "The upstream does almost nothing, so these are the worst case for a ratio.",
};

const EVERYTHING = fileURLToPath(import.meta.resolve("../../test/fixtures/everything/http.ts"));

const ASKING: Kind = {
  key: "asking",
  title: "A call that asks the user one question, through each pairing",
  // Fewer than a user may have suspended at once with the defaults.
  connections: 8,
  upstream: async (era) => {
    const port = await freePort();
    const command = [process.execPath, EVERYTHING, "--era", era, "--port", String(port)];
    return start({ name: `asking upstream ${era}`, command, core: GENERATOR_CORE, port });
  },
  at: (endpoint) => ({
    ...endpoint,
    tool: endpoint.tool.replace(/echo$/, "test_input_required_result_elicitation"),
    asks: true,
  }),
  note: "A call is all of it: question, answer and greeting, two HTTP requests of the client. The upstream is the everything server of the tests, not a bare one. In M → L every question waits 20 ms for others to be put together with it.",
};

/** Clients of both eras, through a gateway in front of a server of each, and directly where they speak the same. */
async function pairings(kind: Kind, effort: Effort): Promise<SuiteResult> {
  const sink = await traceSink();
  const contenders: Contender[] = [];
  const processes: Record<string, number> = { "OTLP receiver": sink.pid };
  const servers: { stop(): Promise<number> }[] = [];
  const arms = [];
  for (const era of ERAS) {
    const upstream = await kind.upstream(era);
    const name = gatewayOf(kind, era);
    const server = { url: `http://127.0.0.1:${upstream.port}/mcp` };
    const arm = drawbridge({ name, audit: "async", server, otlp: `http://127.0.0.1:${sink.port}` });
    const gateway = await arm.start(SERVER_CORE);
    arms.push(arm);
    servers.push(gateway, upstream);
    processes[name] = gateway.server.pid;
    processes[`upstream ${era}`] = upstream.pid;
    const as = (client: Era, name: string, endpoint: Endpoint): Contender => ({
      name,
      endpoint: kind.at({ ...endpoint, revision: REVISION[client], sessions: client === "legacy" }),
      // Two contenders share one gateway: it is watched once, by its own name.
      pid: undefined,
    });
    contenders.push(as(era, directTo(era), openEndpoint(upstream.port)));
    for (const client of ERAS) contenders.push(as(client, pairing(client, era), gateway.endpoint));
  }
  const plan = {
    connections: kind.connections,
    shape: { kind: "closed", warmSeconds: 0.5, seconds: effort.seconds },
    sameId: false,
    timeoutMs: TIMEOUT_MS,
    rounds: effort.rounds,
    warmSeconds: WARM_SECONDS,
    patience: effort.patience,
  } as const;
  const results = await inTurns(contenders, processes, plan, effort.tell);
  for (const server of servers) await server.stop();
  const unbridged = (era: Era): readonly LoadResult[] | undefined => results.get(pairing(era, era));
  const cpu = (upstream: Era) => (run: LoadResult) => run.cpuMsPerCall[gatewayOf(kind, upstream)] ?? Number.NaN;
  const row = (name: string, upstream: Era, gatewayCpu: Figure): readonly string[] => {
    const runs = results.get(name) ?? [];
    return [
      name,
      spread(each(runs, perSecond), 0),
      spread(ratio(runs, results.get(directTo(upstream)), perSecond), 2),
      ...ERAS.map((era) => spread(ratio(runs, unbridged(era), perSecond), 2)),
      spread(each(runs, p50), 2),
      spread(gatewayCpu, 3),
      kinds(failures(runs)),
      Math.max(...runs.map((run) => run.foreignCores)).toFixed(2),
    ];
  };
  const table: Table = {
    title: `${kind.title}, ${kind.connections} connections, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: [
      "client → server",
      "calls/s",
      "of direct",
      "of L → L",
      "of M → M",
      "p50 ms",
      "CPU ms/call",
      "failures",
      "foreign cores",
    ],
    rows: ERAS.flatMap((upstream) => [
      row(directTo(upstream), upstream, each([], perSecond)),
      ...ERAS.map((client) => {
        const name = pairing(client, upstream);
        return row(name, upstream, each(results.get(name), cpu(upstream)));
      }),
    ]),
    notes: [
      "L is 2025-11-25 with a session on each connection, M is 2026-07-28. Direct is a client of the server's own revision. Ratios are of calls a second, within each round; CPU is the gateway's. Audit async, so that the disk does not hide the bridge.",
      kind.note,
      await evidence(arms, sink),
    ],
  };
  await sink.stop();
  const figures = Object.fromEntries(
    ERAS.flatMap((upstream) =>
      ERAS.flatMap((client) => {
        const key = `eras.${kind.key}.${client}-${upstream}`;
        const runs = results.get(pairing(client, upstream));
        return [
          [`${key}.perDirect`, ratio(runs, results.get(directTo(upstream)), perSecond)],
          [`${key}.perLegacy`, ratio(runs, unbridged("legacy"), perSecond)],
          [`${key}.perModern`, ratio(runs, unbridged("modern"), perSecond)],
          [`${key}.cpuMsPerCall`, each(runs, cpu(upstream))],
        ];
      }),
    ),
  );
  return { tables: [table], figures, raw: Object.fromEntries(results) };
}

const LETTER = { legacy: "L", modern: "M" } as const;

function pairing(client: Era, upstream: Era): string {
  return `${LETTER[client]} → ${LETTER[upstream]}`;
}

function directTo(upstream: Era): string {
  return `${LETTER[upstream]} direct`;
}

function gatewayOf(kind: Kind, upstream: Era): string {
  return `drawbridge, ${kind.key}, ${upstream} server`;
}

function perSecond(run: LoadResult): number {
  return run.perSecond;
}

function p50(run: LoadResult): number {
  return run.latency.p50;
}
