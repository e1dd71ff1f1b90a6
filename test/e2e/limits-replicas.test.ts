/** Limits of several replicas: counted together by Redis, by each alone while Redis is away, and across a restart. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { silentLogger } from "../../src/observe/logger.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import { type DatabaseServer, startRedis } from "../global/databases.ts";
import { findRedis } from "../global/programs.ts";
import { replicaOf } from "./replica.ts";
import { modernRequest, type World, world } from "./world.ts";

const servers = { echo: { command: fixtureCommand("echo-stdio") } };
const open: AsyncDisposable[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one[Symbol.asyncDispose]();
});
const kept = <T extends AsyncDisposable>(one: T): T => {
  open.push(one);
  return one;
};

interface Replicas {
  readonly one: World;
  readonly token: string;
  /** A call at this replica. */
  call(replica: number, tool?: string, args?: object): Promise<Called>;
}
interface Called {
  readonly status: number;
  readonly retryAfter: string | null;
  readonly text: string;
}

/** Replicas on one store, of whatever else `settings` say. */
async function replicas(settings: Record<string, unknown>, count = 2, logger = silentLogger): Promise<Replicas> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-limits-"));
  kept({ [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true, force: true }) });
  const all = { servers, store: `sqlite:${join(folder, "store.db")}`, ...settings };
  const one = kept(await world(all, { logger }));
  const urls = [one.url];
  for (let index = 1; index < count; index++) urls.push(kept(await replicaOf(one, all)).url);
  const token = (await one.tokens()).access_token;
  return {
    one,
    token,
    async call(replica, tool = "echo", args = { text: "hi" }) {
      const [body, headers] = modernRequest("tools/call", { name: tool, arguments: args });
      const answer = await fetch(urls[replica] ?? "", {
        method: "POST",
        headers: {
          ...headers,
          "content-type": "application/json",
          accept: "application/json, text/event-stream",
          authorization: `Bearer ${token}`,
        },
        body: JSON.stringify(body),
      });
      return { status: answer.status, retryAfter: answer.headers.get("retry-after"), text: await answer.text() };
    },
  };
}
/** Settings of a test are no file, where it would be a reference. */
const withoutPassword = ({ url }: DatabaseServer) => url.replace(/\/\/[^@]*@/, "//");
const passed = (answers: readonly Called[]) => answers.filter(({ status }) => status === 200).length;

const together = (metrics: string) => Number(/^drawbridge_limits_together(?:\{[^}]*\})? (\d)$/m.exec(metrics)?.[1]);

async function shared(): Promise<string> {
  const redis = kept(await startRedis({ requirepass: "" }));
  return withoutPassword(redis);
}

describe.skipIf(findRedis() === undefined)("with a cache", () => {
  test("replicas count together: per minute, per day, at the same time, for a tool, a role and a person", async () => {
    const cache = await shared();
    const r = await replicas({
      cache,
      limits: { tools: { echo: { perDay: 6 }, count: { perMinute: 4 }, slow: { concurrent: 1 } } },
    });
    const echoes: Called[] = [];
    for (let index = 0; index < 10; index++) echoes.push(await r.call(index % 2));
    expect(echoes.map(({ status }) => status)).toEqual([...Array(6).fill(200), ...Array(4).fill(429)]);
    expect(echoes.at(-1)?.text).toContain("Too many calls of echo by you: 6 a day are permitted.");
    expect(Number(echoes.at(-1)?.retryAfter)).toBeGreaterThanOrEqual(1);
    // All at once, at both.
    const counts = await Promise.all(Array.from({ length: 20 }, (_, index) => r.call(index % 2, "count", {})));
    expect(passed(counts)).toBe(4);

    const slow = r.call(0, "slow", { ms: 1500 });
    await waitFor(async () => (await r.call(1, "slow", { ms: 1 })).status === 429);
    const refused = await r.call(1, "slow", { ms: 1 });
    if (refused.status === 429) expect(refused).toMatchObject({ retryAfter: "1" });
    expect((await slow).status).toBe(200);
    await waitFor(async () => (await r.call(1, "slow", { ms: 1 })).status === 200);
    expect(together(await r.one.metrics())).toBe(1);
  });

  test("requests of one client are counted together where that is set, refused calls among them", async () => {
    const cache = await shared();
    const r = await replicas({ cache, limits: { perPrincipalPerMinute: 12 } });
    const answers: Called[] = [];
    for (let index = 0; index < 16; index++) answers.push(await r.call(index % 2, index < 4 ? "nothing" : "echo"));
    expect(passed(answers)).toBeLessThanOrEqual(13);
    expect(answers.slice(13).map(({ status }) => status)).toEqual([429, 429, 429]);
  });

  test("what is asked of /admin is counted with the other requests, and refused with them", async () => {
    const r = await replicas({ cache: await shared(), limits: { perPrincipalPerMinute: 4 } });
    const headers = { authorization: `Bearer ${r.token}` };
    // Counted at another replica.
    expect(passed([await r.call(1), await r.call(1)])).toBe(2);
    const statuses: number[] = [];
    for (let index = 0; index < 3; index++)
      statuses.push((await fetch(`${r.one.origin}/admin/servers`, { headers })).status);
    expect(statuses).toEqual([200, 200, 429]);
  });

  test("Redis dies and comes back: each replica counts by itself meanwhile, and nobody is without limits", async () => {
    const redis = kept(await startRedis({ requirepass: "" }));
    const warnings: string[] = [];
    const logger: typeof silentLogger = {
      ...silentLogger,
      warn: (_, message) => void warnings.push(message),
      info: (_, message) => void warnings.push(message),
      child: () => logger,
    };
    const r = await replicas({ cache: withoutPassword(redis), limits: { tools: { "*": { perDay: 8 } } } }, 2, logger);
    expect([(await r.call(0)).status, (await r.call(1)).status]).toEqual([200, 200]);
    await redis.kill();
    // Each has seen one of the two and lets seven more through: never more than its own limit.
    const here = await Promise.all(Array.from({ length: 12 }, () => r.call(0)));
    const there = await Promise.all(Array.from({ length: 12 }, () => r.call(1)));
    expect([passed(here), passed(there)]).toEqual([7, 7]);
    expect(together(await r.one.metrics())).toBe(0);
    expect(warnings.filter((text) => text.startsWith("the cache does not answer"))).toHaveLength(1);
    await redis.start();
    await waitFor(async () => together(await r.one.metrics()) === 1);
    expect(warnings.filter((text) => text.startsWith("the cache answers again"))).toHaveLength(1);
    // What this process counted counts on.
    expect((await r.call(0)).status).toBe(429);
  });

  test("a gateway starts while Redis is away, and counts with the others when it comes", async () => {
    const redis = kept(await startRedis({ requirepass: "" }));
    await redis.kill();
    const r = await replicas({ cache: withoutPassword(redis), limits: { tools: { echo: { perDay: 3 } } } });
    expect((await r.call(0)).status).toBe(200);
    await redis.start();
    await waitFor(async () => together(await r.one.metrics()) === 1);
    expect((await r.call(0)).status).toBe(200);
  });
});

test("daily counts outlive a restart without a cache", async () => {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-limits-"));
  kept({ [Symbol.asyncDispose]: async () => rmSync(folder, { recursive: true, force: true }) });
  const settings = {
    servers,
    store: `sqlite:${join(folder, "store.db")}`,
    roles: { owner: { may: ["*"], limit: "3/day" } },
    assign: [{ role: "owner", group: "owner" }],
  };
  const call = async (w: World, token: string) => {
    const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "hi" } });
    const answer = await w.post(body, headers, token);
    return { status: answer.status, text: await answer.text() };
  };
  const first = await world(settings);
  const { access_token: token } = await first.tokens();
  const { port } = new URL(first.url);
  expect([(await call(first, token)).status, (await call(first, token)).status]).toEqual([200, 200]);
  await first[Symbol.asyncDispose]();
  const second = kept(await world({ ...settings, listen: { port: Number(port) } }));
  expect((await call(second, token)).status).toBe(200);
  const refused = await call(second, token);
  expect(refused.status).toBe(429);
  expect(refused.text).toContain("Too many calls in the role owner by you: 3 a day are permitted.");
});
