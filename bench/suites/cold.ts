/** How long is it from starting a process to its first right answer? */
import { drawbridge } from "../arms/drawbridge.ts";
import { openEndpoint } from "../arms/http.ts";
import { Connection, callRequest, type Endpoint, fault } from "../client.ts";
import { ANY_CORE } from "../cores.ts";
import { type Figure, figure, spread } from "../figures.ts";
import { plain } from "../plain.ts";
import { treeUsage } from "../proc.ts";
import { freePort, launch, type Running } from "../processes.ts";
import { quietMachine } from "../rounds.ts";
import { type Effort, type Suite, type SuiteResult, traceSink } from "./suite.ts";

export const cold: Suite = {
  name: "cold",
  question: "How long from starting the process to the first right answer, with a stdio child?",
  run: coldStarts,
};

const STARTS = 10;
const LONGEST_MS = 30_000;

interface Starter {
  readonly name: string;
  launch(): Promise<{ readonly server: Running; readonly endpoint: Endpoint }>;
}

async function coldStarts(effort: Effort): Promise<SuiteResult> {
  const sink = await traceSink();
  const starters = [
    await gateway("drawbridge + smallest stdio child", "stdio-floor.ts", sink),
    await gateway("drawbridge + SDK v1 stdio child", "stdio-sdk-v1.ts", sink),
    nodeStarter("bare node:http server", "floor.ts"),
    nodeStarter("SDK v2 server", "sdk-v2.ts"),
  ];
  const times = new Map<string, number[]>(starters.map(({ name }) => [name, []]));
  const memory = new Map<string, number[]>(starters.map(({ name }) => [name, []]));
  const starts = Math.min(STARTS, 2 * effort.rounds);
  for (let round = 0; round < starts; round += 1) {
    for (let turn = 0; turn < starters.length; turn += 1) {
      const starter = starters[(round + turn) % starters.length];
      if (starter === undefined) continue;
      await quietMachine(effort.patience);
      const began = performance.now();
      const { server, endpoint } = await starter.launch();
      const milliseconds = (await firstRightAnswer(endpoint, server)) - began;
      times.get(starter.name)?.push(milliseconds);
      memory.get(starter.name)?.push(treeUsage(server.pid).rssBytes / 1e6);
      await server.stop();
      effort.tell(`start ${round + 1}/${starts}  ${starter.name.padEnd(34)} ${milliseconds.toFixed(0)} ms`);
    }
  }
  const rows = starters.map(({ name }) => [
    name,
    spread(figure(times.get(name) ?? []), 0),
    spread(figure(memory.get(name) ?? []), 0),
  ]);
  const seconds = (name: string | undefined): Figure =>
    figure((times.get(name ?? "") ?? []).map((milliseconds) => milliseconds / 1000));
  const table = {
    title: `Cold start: from spawn to the first right answer, ${starts} starts, interleaved`,
    head: ["what starts", "ms", "RSS MB then (tree)"],
    rows,
    notes: [
      "The gateway finds its store, its user and its pinned definitions of an earlier start; the client has a valid token.",
    ],
  };
  const figures = { "cold.seconds.floor": seconds(starters[0]?.name), "cold.seconds.sdk": seconds(starters[1]?.name) };
  return {
    tables: [table],
    figures,
    raw: { milliseconds: Object.fromEntries(times), rssMb: Object.fromEntries(memory) },
  };
}

/** A gateway that was started once, so that its user exists, and stopped again. */
async function gateway(name: string, childFile: string, sink: Running): Promise<Starter> {
  const server = { command: [process.execPath, plain(`upstreams/${childFile}`)] };
  const arm = drawbridge({ name, audit: "durable", server, otlp: `http://127.0.0.1:${sink.port}` });
  const running = await arm.start(ANY_CORE);
  await running.stop();
  return { name, launch: () => arm.launch(ANY_CORE) };
}

function nodeStarter(name: string, file: string): Starter {
  const script = plain(`upstreams/${file}`);
  return {
    name,
    launch: async () => {
      const port = await freePort();
      const server = launch({ name, command: [process.execPath, script], core: ANY_CORE, port });
      return { server, endpoint: openEndpoint(port) };
    },
  };
}

async function firstRightAnswer(endpoint: Endpoint, server: Running): Promise<number> {
  const until = performance.now() + LONGEST_MS;
  let last = "";
  while (performance.now() < until) {
    const connection = new Connection(endpoint.port, LONGEST_MS);
    const text = `hello-${performance.now()}`;
    const reply = await connection.request(callRequest(endpoint, 1, text, undefined));
    const wrong = fault(reply, 1, text);
    connection.close();
    if (wrong === undefined) return performance.now();
    last = wrong;
    await new Promise((resolve) => setTimeout(resolve, 3));
  }
  await server.stop();
  throw new Error(`${server.name} gave no right answer within ${LONGEST_MS / 1000} s (${last}).`);
}
