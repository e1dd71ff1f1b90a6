/** Counting on a Redis server: in one step, with places that end by themselves, and without waiting for a server that is slow. */
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@redis/client";
import { afterEach, describe, expect, test } from "vitest";
import { type CachedCounts, openCachedCounts } from "../../src/gateway/limits/cached-counts.ts";
import type { Gate } from "../../src/gateway/limits/gates.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { type Counted, type Held, openRedisCounters, type RedisCounters } from "../../src/store/redis/counters.ts";
import { waitFor } from "../fixtures/processes.ts";
import { freshRedis } from "../global/databases.ts";
import { findRedis } from "../global/programs.ts";

const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});
const count = (kind: Counted["kind"], limit: number, cost = 1, name: string = kind): Counted => ({
  kind,
  name,
  limit,
  cost,
});

describe.skipIf(findRedis() === undefined)("on a Redis server", () => {
  const start = async () => {
    const database = await freshRedis();
    undo.push(async () => database[Symbol.asyncDispose]());
    const replicas = await Promise.all([1, 2].map(() => openRedisCounters(database.url, () => {})));
    for (const one of replicas) undo.push(() => one.close());
    const url = new URL(database.url);
    const prefix = url.searchParams.get("prefix") ?? "";
    url.search = "";
    const raw = createClient({ url: url.href });
    await raw.connect();
    undo.push(async () => raw.destroy());
    const [one, two] = replicas as [RedisCounters, RedisCounters];
    return { one, two, raw, prefix };
  };

  test("all counts are raised or none, but for requests", async () => {
    const { one, two, raw, prefix } = await start();
    const all = (holder: string) =>
      two.take(holder, [count("request", 100), count("minute", 5, 2), count("day", 3), count("place", 2)]);
    expect(await all("a")).toBeUndefined();
    expect(await one.take("b", [count("place", 2)])).toBeUndefined();
    expect(await all("c")).toMatchObject({ refused: { kind: "place" }, waitMs: 1000 });
    await one.leave([{ name: "place", holder: "b" }]);
    expect(await all("d")).toBeUndefined();
    await one.leave([
      { name: "place", holder: "a" },
      { name: "place", holder: "d" },
    ]);
    const refused = await all("e");
    expect(refused?.refused.kind).toBe("minute");
    expect(refused?.waitMs).toBeGreaterThan(0);
    expect(refused?.waitMs).toBeLessThanOrEqual(60_000);
    expect(await raw.get(`${prefix}limits:minute:minute`)).toBe("4");
    expect(await raw.get(`${prefix}limits:request:request`)).toBe("4");
    expect(await raw.zCard(`${prefix}limits:place:place`)).toBe(0);
    const [day = ""] = await raw.keys(`${prefix}limits:day:*`);
    expect(await raw.get(day)).toBe("2");
    for (const key of await raw.keys(`${prefix}limits:*`)) expect(await raw.pTTL(key), key).toBeGreaterThan(0);
  });

  test("a day is full until the next one begins", async () => {
    const { one, two } = await start();
    expect(await one.take("", [count("day", 2, 2)])).toBeUndefined();
    const refused = await two.take("", [count("day", 2)]);
    expect(refused?.refused.kind).toBe("day");
    expect(refused?.waitMs).toBeGreaterThan(0);
    expect(refused?.waitMs).toBeLessThanOrEqual(86_400_000);
  });

  test("the place of a replica that was killed is free when nobody has renewed it", async () => {
    const { one, two, raw, prefix } = await start();
    const key = `${prefix}limits:place:place`;
    expect(await one.take("killed", [count("place", 1)])).toBeUndefined();
    expect(await two.take("next", [count("place", 1)])).toMatchObject({ refused: { kind: "place" } });
    const till = (await raw.zScore(key, "killed")) ?? 0;
    expect(till - Date.now()).toBeLessThanOrEqual(31_000);
    await raw.zAdd(key, { score: Date.now() - 1000, value: "killed" });
    expect(await two.take("next", [count("place", 1)])).toBeUndefined();
    await one.renew([{ name: "place", holder: "next" }]);
    expect(await raw.zScore(key, "next")).toBeGreaterThan(Date.now() + 20_000);
  });

  test("of many at once just so many pass", async () => {
    const { one, two } = await start();
    const answers = await Promise.all(
      Array.from({ length: 200 }, (_, index) =>
        (index % 2 ? one : two).take(String(index), [count("place", 7), count("minute", 50)]),
      ),
    );
    expect(answers.filter((answer) => answer === undefined)).toHaveLength(7);
  });
});

describe("a server that is slow or away", () => {
  const gate: Gate = { kind: "place", key: "k", limit: 1, cost: 1, what: "calls", setting: "limits.tools.x" };

  /** Answers when `answers` says so. */
  const slow = async (
    startsAway = false,
  ): Promise<{
    shared: CachedCounts;
    server: { answers: boolean; asked: number; left: Held[]; renewed: Held[] };
  }> => {
    const server = { answers: true, asked: 0, left: [] as Held[], renewed: [] as Held[] };
    const answer = async () => (server.answers ? undefined : new Promise<never>(() => {}));
    const counters: RedisCounters = {
      async take() {
        server.asked++;
        return answer();
      },
      async leave(places) {
        await answer();
        server.left.push(...places);
      },
      async renew(places) {
        await answer();
        server.renewed.push(...places);
      },
      ping: async () => void (await answer()),
      close: async () => {},
    };
    let away = startsAway;
    const open = async () => {
      if (!away) return counters;
      away = false;
      return sleep(1_200).then(() => Promise.reject(new Error("nobody there")));
    };
    const shared = await openCachedCounts({ url: "", log: silentLogger, open, deadlineMs: 20, reopenMs: 20 });
    undo.push(() => shared.close());
    return { shared, server };
  };

  test("is waited for once, and not asked by the calls after it", async () => {
    const { shared, server } = await slow();
    expect(await shared.take([gate], "a")).toBeUndefined();
    server.answers = false;
    expect(await shared.take([gate], "b")).toBe(false);
    expect(shared.together).toBe(false);
    const asked = server.asked;
    for (let index = 0; index < 100; index++) expect(await shared.take([gate], `c${index}`)).toBe(false);
    expect(server.asked).toBe(asked);
    server.answers = true;
    await waitFor(() => shared.together);
    expect(await shared.take([gate], "d")).toBeUndefined();
  });

  test("that could not be reached at the start is found again whenever it goes away", async () => {
    const { shared, server } = await slow(true);
    expect(shared.together).toBe(false);
    await waitFor(() => shared.together);
    server.answers = false;
    expect(await shared.take([gate], "away")).toBe(false);
    server.answers = true;
    await waitFor(() => shared.together);
    expect(await shared.take([gate], "back")).toBeUndefined();
  });

  test("is told, when it is back, which places were taken and which were left meanwhile", async () => {
    const { shared, server } = await slow();
    await shared.take([gate], "before");
    await shared.take([gate], "stays");
    server.answers = false;
    await shared.take([gate], "meanwhile");
    shared.leave([gate], "before");
    server.answers = true;
    await waitFor(() => shared.together);
    expect(server.left.map(({ holder }) => holder)).toEqual(["before"]);
    expect(server.renewed.map(({ holder }) => holder).sort()).toEqual(["meanwhile", "stays"]);
  });

  test("that refuses us ends the start", async () => {
    const refuses = async () => Promise.reject(new Error("WRONGPASS"));
    await expect(openCachedCounts({ url: "", log: silentLogger, open: refuses })).rejects.toThrow("WRONGPASS");
  });
});
