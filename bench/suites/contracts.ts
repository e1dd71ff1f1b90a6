/** What do contracts cost: a call through a gateway with one beside a gateway without, and the work on one answer by itself. */
import { compileContract, isContract } from "../../src/contract/contract.ts";
import { readDefinition } from "../../src/contract/definition.ts";
import { toolContract } from "../../src/contract/settings.ts";
import type { JsonObject, Principal } from "../../src/core/call.ts";
import { startAll } from "../arms/arm.ts";
import { drawbridge } from "../arms/drawbridge.ts";
import { nodeServer, openEndpoint, warm } from "../arms/http.ts";
import { GENERATOR_CORE, SERVER_CORE } from "../cores.ts";
import { amount, each, type Figure, failures, figure, kinds, ratio, spread, type Table } from "../figures.ts";
import type { LoadResult } from "../load.ts";
import { inTurns } from "../rounds.ts";
import { AUDITS, type Effort, type Suite, type SuiteResult, traceSink } from "./suite.ts";

export const contracts: Suite = {
  name: "contracts",
  question:
    "How much of the throughput is left when a call is narrowed, bound to its caller, and its answer projected?",
  run: measure,
};

/** Everything that is done for a call: a check, an argument bound to the caller, fields and budgets. The echo server answers with text. */
const ECHO = {
  echo: {
    from: "upstream/echo",
    description: "Gives the text back.",
    input: {
      text: { maxLength: 2000, pattern: "^[A-Za-z0-9 _.:-]{0,2000}$" },
      caller: { type: "string", bind: "principal.subject" },
    },
    output: { fields: ["text"], text: true, maxBytes: 4096, maxTokens: 1000, maxItems: 20 },
    access: "read",
  },
};
const CONNECTIONS = 20;
const WARM_SECONDS = 10;
const perSecond = (run: LoadResult): number => run.perSecond;

async function measure(effort: Effort): Promise<SuiteResult> {
  const upstream = await nodeServer("upstream", "floor.ts", GENERATOR_CORE);
  await warm(openEndpoint(upstream.port), WARM_SECONDS);
  const sink = await traceSink();
  const arms = AUDITS.flatMap((audit) =>
    [undefined, ECHO].map((tools) =>
      drawbridge({
        name: nameOf(audit, tools !== undefined),
        audit,
        server: { url: `http://127.0.0.1:${upstream.port}/mcp` },
        otlp: `http://127.0.0.1:${sink.port}`,
        tools,
      }),
    ),
  );
  const { running, missing } = await startAll(arms, SERVER_CORE, effort.tell);
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
  const rows = AUDITS.flatMap((audit) =>
    [false, true].map((contracted) => {
      const name = nameOf(audit, contracted);
      const runs = results.get(name) ?? [];
      const kept = ratio(runs, results.get(nameOf(audit, false)), perSecond);
      if (contracted) figures[`contracts.perPlain.${audit}`] = kept;
      const cpu = each(runs, (run) => run.cpuMsPerCall[name] ?? Number.NaN);
      return [name, spread(each(runs, perSecond), 0), spread(kept, 2), spread(cpu, 4), kinds(failures(runs))];
    }),
  );
  const calls: Table = {
    title: `Calls under contract, bare node:http echo server, ${CONNECTIONS} connections, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: ["arm", "calls/s", "of without", "CPU ms/call", "failures"],
    rows,
    notes: ["Medians with their range over the rounds; ratios are taken within each round.", ...missing],
  };
  const alone = await answers(effort);
  return {
    tables: [calls, alone.table],
    figures: { ...figures, ...alone.figures },
    raw: { calls: Object.fromEntries(results), answers: alone.table.rows },
  };
}

const nameOf = (audit: string, contracted: boolean) => `${contracted ? "with" : "without"} contracts, audit ${audit}`;

// ---- one call by itself ----

const ORDERS = {
  name: "list_orders",
  inputSchema: {
    type: "object",
    properties: { status: { type: "string" }, region: { type: "string" }, limit: { type: "integer" } },
    required: ["region"],
  },
};
const LIST = {
  from: "shop/list_orders",
  description: "Lists orders.",
  input: {
    status: { enum: ["open", "shipped"] },
    region: { bind: "principal.claims.region" },
    limit: { minimum: 1, maximum: 1000, default: 20 },
  },
  output: ["rows/*/id", "rows/*/status", "rows/*/customer/name", "rows/*/total"],
};

async function answers(effort: Effort): Promise<{ readonly table: Table; readonly figures: Record<string, Figure> }> {
  const definition = readDefinition("shop", "tool", JSON.stringify(ORDERS));
  const contract = definition && (await compileContract("orders.list", toolContract.parse(LIST), definition));
  if (contract === undefined || !isContract(contract)) throw new Error("the contract of the bench does not fit");
  const { narrowing, projection } = contract;
  const by = { subject: "bench", client: "bench", claims: { region: "emea" } } as unknown as Principal;
  const args: JsonObject = { status: "open", limit: 50 };
  const figures: Record<string, Figure> = {};
  const rows = [1, 20, 200].map((count) => {
    const result = JSON.stringify({
      content: [],
      structuredContent: { rows: Array.from({ length: count }, (_, at) => row(at)) },
    });
    const value = JSON.parse(result) as JsonObject;
    const times: number[] = [];
    for (let round = -1; round < effort.rounds; round++) {
      const spent = cpuOf((effort.seconds * 1000) / 6, () => {
        narrowing?.check(args);
        narrowing?.toServer(args, by);
        projection?.tool(result, value);
      });
      if (round >= 0) times.push(spent); // The first round warms up.
    }
    const found = figure(times);
    figures[`contracts.rows${count}.ms`] = found;
    return [String(count), String(result.length), spread(found, 4), amount((found.median * 1e6) / result.length, 2)];
  });
  const head = ["orders in the answer", "characters", "CPU ms", "ns / character"];
  const notes = ["Arguments checked and made the server's, four fields of fourteen kept, the output schema checked."];
  return { table: { title: "The work of a contract on one call", head, rows, notes }, figures };
}

function row(index: number): unknown {
  return {
    id: `ORD-${88_000 + index}`,
    status: "shipped",
    total: 129.5 + index,
    currency: "EUR",
    createdAt: "2026-09-03T09:28:39.589Z",
    customer: {
      name: "Anna Smith",
      email: `anna${index}@example.org`,
      phone: "+44 7700 900123",
      card: "4111111111111111",
    },
    address: { street: "1 High Street", city: "Leeds", zip: "LS1" },
    notes: ["left at the front desk", "paid"],
  };
}

/** CPU milliseconds of one turn: the mean over about `milliseconds`. */
function cpuOf(milliseconds: number, turn: () => unknown): number {
  const until = performance.now() + milliseconds;
  const started = process.cpuUsage();
  let turns = 0;
  for (; performance.now() < until; turns += 10) for (let at = 0; at < 10; at++) turn();
  const { user, system } = process.cpuUsage(started);
  return (user + system) / 1000 / turns;
}
