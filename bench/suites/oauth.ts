/** How many tokens a second each store gives, beside the library alone with everything in memory; and what knowing a token saves. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { startPostgres, startRedis } from "../../test/global/databases.ts";
import { findPostgres, findRedis } from "../../test/global/programs.ts";
import { type Arm, LeftOut, startAll } from "../arms/arm.ts";
import { builtProgram, printedSetUpLink } from "../arms/drawbridge.ts";
import { nodeServer, runningArm } from "../arms/http.ts";
import { onCore, SERVER_CORE } from "../cores.ts";
import { amount, each, type Figure, failures, figure, kinds, ratio, spread, type Table } from "../figures.ts";
import type { LoadResult } from "../load.ts";
import {
  type AuthorizationEndpoint,
  CALLBACK,
  CLIENT_ID,
  type Cookies,
  FLOWS,
  type Flow,
  oauthLoad,
} from "../oauth-load.ts";
import { freePort, launch, portOpens, RESULTS, stopToo } from "../processes.ts";
import { type Patience, quietMachine } from "../rounds.ts";
import { signUp } from "../sign-in.ts";
import type { Effort, Suite, SuiteResult } from "./suite.ts";

export const oauth: Suite = {
  name: "oauth",
  question:
    "How many tokens a second does the authorization server give on each store, and what does knowing one save?",
  async run(effort) {
    const issuing = await tokensPerSecond(effort);
    const checking = await checks(effort);
    return {
      tables: [...issuing.tables, ...checking.tables],
      figures: { ...issuing.figures, ...checking.figures },
      raw: { issuing: issuing.raw, checking: checking.raw },
    };
  },
};

const CONNECTIONS = 16;
const WARM_SECONDS = 1;
const STORES = ["memory", "sqlite", "postgres", "redis"] as const;
type StoreName = (typeof STORES)[number];
const BARE = "bare oidc-provider, memory";
/** What the client authenticates with, at every arm. */
const SECRET = randomBytes(24).toString("base64url");
const EXCHANGE_FOR = "https://stock.example/api";

interface AuthorizationServerArm extends Arm {
  /** Where it is, once it runs. */
  server(port: number): AuthorizationEndpoint;
}

async function tokensPerSecond(effort: Effort): Promise<SuiteResult> {
  const arms = [bare(), ...STORES.map(ours)];
  const { running, missing } = await startAll(arms, SERVER_CORE, effort.tell);
  const results = new Map<string, LoadResult[]>();
  const cookies = new Map<string, readonly Cookies[]>();
  const key = (name: string, flow: Flow): string => `${name}: ${flow}`;
  const watched = Object.fromEntries(
    running.flatMap(({ name, pid }) => (pid === undefined ? [] : [[name, pid] as const])),
  );
  const once = async (
    name: string,
    server: AuthorizationEndpoint,
    flow: Flow,
    seconds: number,
  ): Promise<LoadResult> => {
    const common = { secret: SECRET, connections: CONNECTIONS, warmSeconds: WARM_SECONDS, seconds, watched };
    const { cookies: kept, ...result } = await oauthLoad({ ...common, server, flow, cookies: cookies.get(name) ?? [] });
    cookies.set(name, kept);
    return result;
  };
  try {
    for (const flow of FLOWS) {
      const able = running.flatMap(({ name, endpoint }) => {
        const server = arms.find((arm) => arm.name === name)?.server(endpoint.port);
        return server === undefined || (flow === "exchange" && server.exchangeFor === undefined)
          ? []
          : [{ name, server }];
      });
      for (const { name, server } of able) await once(name, server, flow, effort.seconds);
      for (let round = 0; round < effort.rounds; round += 1) {
        for (let turn = 0; turn < able.length; turn += 1) {
          const { name, server } = able[(round + turn) % able.length] ?? {};
          if (name === undefined || server === undefined) continue;
          const result = await undisturbed(() => once(name, server, flow, effort.seconds), effort.patience);
          results.set(key(name, flow), [...(results.get(key(name, flow)) ?? []), result]);
          effort.tell(
            `${flow}  round ${round + 1}/${effort.rounds}  ${name.padEnd(28)} ${result.perSecond.toFixed(0).padStart(6)}/s  ` +
              `p50 ${result.latency.p50.toFixed(2)} ms  cpu ${(result.cpuMsPerCall[name] ?? 0).toFixed(3)} ms  ` +
              `failed ${result.failed} ${kinds(result.failures)}  foreign ${result.foreignCores.toFixed(2)}`,
          );
        }
      }
    }
  } finally {
    for (const arm of running) await arm.stop();
  }
  const of = (name: string, flow: Flow): readonly LoadResult[] | undefined => results.get(key(name, flow));
  const names = running.map(({ name }) => name);
  const failed = names.flatMap((name) =>
    FLOWS.flatMap((flow) => {
      const counts = failures(of(name, flow) ?? []);
      return Object.keys(counts).length === 0 ? [] : [`Failures of ${key(name, flow)}: ${kinds(counts)}.`];
    }),
  );
  const foreign = Math.max(...[...results.values()].flat().map((run) => run.foreignCores));
  const table = (title: string, cell: (name: string, flow: Flow) => string, notes: readonly string[]): Table => ({
    title: `${title}, ${CONNECTIONS} connections, ${effort.rounds} rounds of ${effort.seconds} s`,
    head: ["server", "client credentials", "refresh", "exchange", "authorize, remembered", "authorize, asked"],
    rows: names.map((name) => [name, ...FLOWS.map((flow) => cell(name, flow))]),
    notes,
  });
  const tables = [
    table("Tokens a second", (name, flow) => spread(each(of(name, flow), perSecond), 0), [
      "Every arm signs ES256 and checks a client secret; refresh tokens rotate. An authorization is all of it, from the first request to the token: 2 requests when the consent is remembered, 6 with the page. All browsers are signed in.",
      "Drawbridge keeps each token so that it can be revoked, and records it in the audit log before it is given. The library alone does neither, and exchanges nothing.",
      "PostgreSQL and Redis are started for the run with nothing waiting for a disk (fsync off); SQLite waits for its disk.",
      ...missing,
      ...failed,
    ]),
    table(
      "Of the library alone in memory",
      (name, flow) => spread(ratio(of(name, flow), of(BARE, flow), perSecond), 2),
      [],
    ),
    table("CPU ms of the server's process for each", (name, flow) => spread(each(of(name, flow), cpuOf(name)), 2), [
      "Without the databases' own.",
      `Foreign cores, at worst: ${amount(foreign, 2)}.`,
    ]),
  ];
  const figures = Object.fromEntries(
    STORES.flatMap((store) =>
      FLOWS.map((flow): [string, Figure] => [`oauth.${flow}.${store}`, each(of(armName(store), flow), perSecond)]),
    ),
  );
  return { tables, figures, raw: Object.fromEntries(results) };
}

/** One run, again while others disturb it; the quietest one counts. */
async function undisturbed(run: () => Promise<LoadResult>, patience: Patience): Promise<LoadResult> {
  await quietMachine(patience);
  let best = await run();
  for (let again = 0; again < patience.repeats && best.foreignCores > patience.foreignCores; again += 1) {
    await quietMachine(patience);
    const next = await run();
    if (next.foreignCores < best.foreignCores) best = next;
  }
  return best;
}

/** The library as its documentation starts it. */
function bare(): AuthorizationServerArm {
  return {
    name: BARE,
    async start(core) {
      const environment = { CLIENT_SECRET: SECRET };
      return runningArm(await nodeServer(BARE, "bare-oidc-provider.ts", core, environment));
    },
    server: (port) => ({ ...placeOf(port), authorize: "/auth", token: "/token", exchangeFor: undefined }),
  };
}

const armName = (store: StoreName): string => `drawbridge, ${store}`;

/** All of Drawbridge, audit log included, with its limits out of the way. */
function ours(store: StoreName): AuthorizationServerArm {
  const name = armName(store);
  return {
    name,
    async start(core) {
      const folder = path.join(RESULTS, "gateways", `${process.pid}-oauth-${store}`);
      const place = await placeFor(store, folder);
      const port = await freePort();
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder, { recursive: true });
      const file = path.join(folder, "drawbridge.yaml");
      writeFileSync(file, JSON.stringify(settings(port), null, 2));
      const command = [process.execPath, builtProgram(), "serve", file];
      const environment = { BENCH_STORE: place, BENCH_SECRET: SECRET };
      const server = launch({ name, command, environment, core, port });
      try {
        await portOpens(server, 30);
        await signUp(`http://127.0.0.1:${port}`, await printedSetUpLink(server));
        return runningArm(server);
      } catch (error) {
        await server.stop();
        throw error;
      }
    },
    server: (port) => ({
      ...placeOf(port),
      authorize: "/oauth/authorize",
      token: "/oauth/token",
      exchangeFor: EXCHANGE_FOR,
    }),
  };
}

function placeOf(port: number): Pick<AuthorizationEndpoint, "origin" | "resource"> {
  const origin = `http://127.0.0.1:${port}`;
  return { origin, resource: `${origin}/mcp` };
}

/** What `store:` is set to. Throws `LeftOut` where there is no such server. */
async function placeFor(store: StoreName, folder: string): Promise<string> {
  if (store === "memory") return "memory";
  if (store === "sqlite") return `sqlite:${path.join(folder, "drawbridge.db")}`;
  const given = process.env[`BENCH_${store.toUpperCase()}_URL`];
  if (given !== undefined) return given;
  if ((store === "postgres" ? findPostgres() : findRedis()) === undefined)
    throw new LeftOut(`it is not installed, and BENCH_${store.toUpperCase()}_URL is not set.`);
  return stopToo(await (store === "postgres" ? startPostgres() : startRedis())).url;
}

/** YAML, written as its subset JSON. */
function settings(port: number): object {
  const reference = (name: string): string => `\${env:${name}}`;
  return {
    listen: { host: "127.0.0.1", port },
    store: reference("BENCH_STORE"),
    log: { level: "warn" },
    clients: {
      registration: "open",
      requestsPerSourcePerMinute: 0,
      registrationsPerSourcePerHour: 1_000_000,
      preregistered: [
        {
          id: CLIENT_ID,
          name: "Bench",
          secret: reference("BENCH_SECRET"),
          redirectUris: [CALLBACK],
          service: { groups: ["owner"] },
          owns: [`http://127.0.0.1:${port}/mcp`],
          mayExchangeFor: [{ audience: EXCHANGE_FOR }],
        },
      ],
    },
    tokens: { accessTokenSeconds: 3600 },
    servers: { upstream: { url: "http://127.0.0.1:9/mcp" } },
  };
}

const CHECKS = {
  cached: "a token that is known",
  asked: "one whose signature is known, after something was ended",
  unknown: "one that is not known",
  jose: "its signature and claims alone, jose",
  crypto: "its signature alone, node:crypto",
} as const;

/** What the cache of verified tokens saves. */
async function checks(effort: Effort): Promise<SuiteResult> {
  const folder = path.join(RESULTS, "gateways", `${process.pid}-verify`);
  mkdirSync(folder, { recursive: true });
  const places = { memory: "memory", sqlite: `sqlite:${path.join(folder, "verify.db")}` };
  const measured = new Map<string, readonly Readonly<Record<string, number>>[]>();
  for (const [store, place] of Object.entries(places)) {
    await quietMachine(effort.patience);
    const script = path.resolve(import.meta.dirname, "../verify-tokens.ts");
    const command = [process.execPath, script, "--store", place, "--rounds", String(effort.rounds)];
    const [program, ...args] = onCore(SERVER_CORE, command);
    const { stdout } = await promisify(execFile)(program, args, { timeout: 120_000 });
    measured.set(store, JSON.parse(stdout));
  }
  const of = (store: string, check: string): Figure =>
    figure((measured.get(store) ?? []).map((round) => round[check] ?? Number.NaN));
  const stores = Object.keys(places);
  const table: Table = {
    title: `Check of an access token (ES256), one after the other, µs, ${effort.rounds} rounds`,
    head: ["of", ...stores.map((store) => `records in ${store}`)],
    rows: Object.entries(CHECKS).map(([check, what]) => [
      what,
      ...stores.map((store) => spread(of(store, check), check === "cached" ? 2 : 0)),
    ]),
    notes: [
      "A token is known for a minute, or until it, its grant, its user or its client is ended anywhere; then the store is asked again, and after a rotation of keys the signature is checked again.",
    ],
  };
  const figures = Object.fromEntries(
    Object.keys(CHECKS).map((check) => [`oauth.verify.${check}`, of("memory", check)] as const),
  );
  return { tables: [table], figures, raw: Object.fromEntries(measured) };
}

function perSecond(run: LoadResult): number {
  return run.perSecond;
}

function cpuOf(name: string): (run: LoadResult) => number {
  return (run) => run.cpuMsPerCall[name] ?? Number.NaN;
}
