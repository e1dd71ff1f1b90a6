/** What a session costs while nobody uses it, and whether calls leave anything behind. Both after forced collections. */
import { nodeServer, openEndpoint } from "../arms/http.ts";
import { Connection, callRequest, type Endpoint, fault, openSession } from "../client.ts";
import { ANY_CORE, GENERATOR_CORE, SERVER_CORE } from "../cores.ts";
import { type Figure, figure, spread } from "../figures.ts";
import { heapAfterCollection, INSPECTED } from "../inspector.ts";
import { type LoadResult, load } from "../load.ts";
import { treeUsage } from "../proc.ts";
import type { Running } from "../processes.ts";
import { drawbridges, type Effort, type Suite, type SuiteResult } from "./suite.ts";

export const idle: Suite = {
  name: "idle",
  question: "How much memory does an idle 2025-11-25 session hold?",
  run: idleSessions,
};

export const leak: Suite = {
  name: "leak",
  question: "Does the heap grow with the number of calls?",
  run: growth,
};

const SESSIONS = 3000;
const BATCHES = 2;
const LEAK_CALLS = 100_000;
/** Enough to show the known 5 KB a call of the control. */
const CONTROL_CALLS = 10_000;

interface Inspected {
  readonly name: string;
  readonly server: Running;
  readonly endpoint: Endpoint;
  readonly calls: number;
}

async function idleSessions(effort: Effort): Promise<SuiteResult> {
  const rows: string[][] = [];
  const raw: Record<string, unknown> = {};
  let own: Figure | undefined;
  for (const start of [ourGateway, sdkControl, floorControl]) {
    const inspected = await start();
    const heap: number[] = [];
    const rss: number[] = [];
    await openSessions(inspected.endpoint, 300); // Compiles code and fills caches once, before anything is read.
    for (let batch = 0; batch < BATCHES; batch += 1) {
      const before = await memoryOf(inspected.server);
      const [oldest] = await openSessions(inspected.endpoint, SESSIONS);
      const after = await memoryOf(inspected.server);
      await stillAnswers(inspected.endpoint, oldest);
      heap.push((after.heap - before.heap) / SESSIONS / 1024);
      rss.push((after.rss - before.rss) / SESSIONS / 1024);
    }
    await inspected.server.stop();
    own ??= figure(heap);
    raw[inspected.name] = { heapKbPerSession: heap, rssKbPerSession: rss };
    rows.push([inspected.name, spread(figure(heap), 2), spread(figure(rss), 1)]);
    effort.tell(`${inspected.name}: ${spread(figure(heap), 2)} KB heap a session`);
  }
  const table = {
    title: `Memory of an idle 2025-11-25 session, ${BATCHES} times ${SESSIONS} sessions`,
    head: ["server", "heap KB/session", "RSS KB/session"],
    rows,
    notes: [
      "Heap after forced collections, read through the inspector. The last two rows show what is usual and what is possible.",
    ],
  };
  return { tables: [table], figures: own === undefined ? {} : { "idle.heapKbPerSession": own }, raw };
}

async function growth(effort: Effort): Promise<SuiteResult> {
  const rows: string[][] = [];
  const raw: Record<string, unknown> = {};
  let own: Figure | undefined;
  for (const start of [ourGateway, leakyControl]) {
    const { name, server, endpoint, calls } = await start();
    await count(endpoint, Math.min(20_000, calls), server.pid);
    const before = await memoryOf(server);
    const run = await count(endpoint, calls, server.pid);
    const after = await memoryOf(server);
    await server.stop();
    const megabytes = (after.heap - before.heap) / 2 ** 20;
    own ??= figure([megabytes]);
    raw[name] = { before, after, calls, failed: run.failed };
    rows.push([
      name,
      String(calls),
      String(run.failed),
      megabytes.toFixed(2),
      ((megabytes * 1024) / calls).toFixed(3),
      ((after.rss - before.rss) / 2 ** 20).toFixed(1),
    ]);
    effort.tell(`${name}: heap ${megabytes.toFixed(2)} MB after ${calls} calls`);
  }
  const table = {
    title: "Growth over many calls on 20 long sessions",
    head: ["server", "calls", "failed", "heap MB", "heap KB/call", "RSS MB"],
    rows,
    notes: [
      "Heap after forced collections. The last row is known to keep some 5 KB a call: it shows that this test can fail.",
    ],
  };
  return { tables: [table], figures: own === undefined ? {} : { "leak.heapMb": own }, raw };
}

/** Drawbridge with everything on, 2025-11-25 sessions in front, a bare HTTP echo server behind. */
async function ourGateway(): Promise<Inspected> {
  const upstream = await nodeServer("upstream", "floor.ts", GENERATOR_CORE);
  const url = `http://127.0.0.1:${upstream.port}/mcp`;
  const ours = await drawbridges({ url }, { revision: "2025-11-25", nodeFlags: INSPECTED });
  const [durable] = ours.arms;
  if (durable === undefined) throw new Error("There is no Drawbridge arm.");
  const { server, endpoint, name } = await durable.start(SERVER_CORE);
  return { name, server, endpoint, calls: LEAK_CALLS };
}

async function sdkControl(): Promise<Inspected> {
  const server = await nodeServer("SDK v1 with sessions", "sdk-v1-sessions.ts", ANY_CORE, {}, INSPECTED);
  return { name: server.name, server, endpoint: openEndpoint(server.port, "2025-11-25", true), calls: CONTROL_CALLS };
}

async function leakyControl(): Promise<Inspected> {
  const environment = { JSON_ANSWERS: "1" };
  const name = "SDK v1 with sessions, JSON answers";
  const server = await nodeServer(name, "sdk-v1-sessions.ts", SERVER_CORE, environment, INSPECTED);
  return { name, server, endpoint: openEndpoint(server.port, "2025-11-25", true), calls: CONTROL_CALLS };
}

async function floorControl(): Promise<Inspected> {
  const server = await nodeServer("floor: a record in a Map", "floor.ts", ANY_CORE, {}, INSPECTED);
  return { name: server.name, server, endpoint: openEndpoint(server.port, "2025-11-25", true), calls: CONTROL_CALLS };
}

/** Opens sessions over 20 connections and leaves them alone; the oldest comes first. */
async function openSessions(endpoint: Endpoint, sessions: number): Promise<readonly string[]> {
  const connections = Array.from({ length: 20 }, () => new Connection(endpoint.port, 30_000));
  const ids: string[] = [];
  let left = sessions;
  try {
    const opener = async (connection: Connection): Promise<void> => {
      for (; left > 0; ) {
        left -= 1;
        const opened = await openSession(connection, endpoint);
        if ("failed" in opened) throw new Error(`A session could not be opened: ${opened.failed}`);
        ids.push(opened.session);
      }
    };
    await Promise.all(connections.map(opener));
    return ids;
  } finally {
    for (const connection of connections) connection.close();
  }
}

/** A session that was dropped costs nothing: what is counted must still be there. */
async function stillAnswers(endpoint: Endpoint, session: string | undefined): Promise<void> {
  const connection = new Connection(endpoint.port, 30_000);
  const reply = await connection.request(callRequest(endpoint, 1, "still here", session));
  connection.close();
  const wrong = fault(reply, 1, "still here");
  if (wrong !== undefined) throw new Error(`An idle session is no longer there (${wrong}).`);
}

async function memoryOf(server: Running): Promise<{ readonly heap: number; readonly rss: number }> {
  // Connections that were closed and records that wait to be written are gone after a moment.
  await new Promise((resolve) => setTimeout(resolve, 2000));
  return { heap: await heapAfterCollection(server), rss: treeUsage(server.pid).rssBytes };
}

function count(endpoint: Endpoint, calls: number, pid: number): Promise<LoadResult> {
  const shape = { kind: "count", calls } as const;
  return load({ endpoint, connections: 20, shape, sameId: false, timeoutMs: 30_000, watched: { server: pid } });
}
