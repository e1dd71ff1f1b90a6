import { createClient } from "@redis/client";
import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import type { AuditRow } from "../../src/store/ports.ts";
import { redisStore } from "../../src/store/redis/redis.ts";
import { storeContract } from "../contract/store.ts";
import { freshRedis, startRedis } from "../global/databases.ts";
import { findRedis } from "../global/programs.ts";
import { everyStore } from "./backends.ts";
import { eventually, everythingOf, lineTo, rejection } from "./outages.ts";

for (const { name, open, openTwo } of everyStore) if (name === "redis") storeContract(name, open, openTwo);

describe.skipIf(findRedis() === undefined)("a Redis server", () => {
  test("keeps everything while no replica runs, under keys of our prefix alone", async () => {
    await using server = await startRedis();
    {
      await using store = await redisStore(new Secret(server.url));
      await store.records.put("thing", "a", "kept", { index: { grant: "g" } });
      await store.audit.append([row("r1")]);
    }
    await using store = await redisStore(server.url);
    expect(await store.records.find("thing", "grant", "g", { limit: 9 })).toMatchObject([{ value: "kept" }]);
    await store.audit.append([row("r1"), row("r2")]);
    expect(await store.audit.read({ limit: 9 })).toHaveLength(2);
    await using client = await connection(server.url);
    const keys = await client.keys("*");
    expect(keys.length).toBeGreaterThan(0);
    expect(keys.filter((key) => !key.startsWith("drawbridge:"))).toEqual([]);
  });

  test("is shared by stores of other prefixes and database numbers, which do not see each other", async () => {
    await using server = await startRedis();
    await using one = await redisStore(server.url);
    await using two = await redisStore(`${server.url}?prefix=two:`);
    await using three = await redisStore(`${server.url}/3`);
    await one.records.put("thing", "a", 1, { index: { grant: "g" } });
    await one.audit.append([row("r1")]);
    for (const other of [two, three]) {
      expect(await other.records.get("thing", "a")).toBeUndefined();
      expect(await other.records.deleteWhere("grant", "g")).toBe(0);
      expect(await other.audit.read({ limit: 9 })).toEqual([]);
    }
    await three.records.put("thing", "b", 1);
    await using client = await connection(`${server.url}/3`);
    expect(await client.exists("drawbridge:row:5:thing:b")).toBe(1);
  });

  test("holds nothing of rows that were deleted, taken or swept", async () => {
    await using database = await freshRedis();
    let now = 1_000_000;
    await using store = await redisStore(database.url, { clock: () => now });
    const put = (id: string, expiresAt?: number) =>
      store.records.put("thing", id, id, { index: { grant: id }, ...(expiresAt === undefined ? {} : { expiresAt }) });
    await Promise.all([
      put("deleted"),
      put("taken"),
      put("found"),
      put("expired", now + 10),
      put("replaced", now + 10),
    ]);
    await store.records.delete("thing", "deleted");
    await store.records.take("thing", "taken");
    await store.records.deleteWhere("grant", "found");
    await put("replaced");
    now += 10;
    expect(await store.records.sweep()).toBe(1);
    expect(await store.records.take("thing", "replaced")).toMatchObject({ version: 2 });
    await using client = await connection(database.url);
    const prefix = new URL(database.url).searchParams.get("prefix") ?? "";
    expect(await client.keys(`${prefix}*`)).toEqual([`${prefix}schema`]);
  });

  test("reads no more of what retention has left than a page has, and all of it in order, also from before there was an order", async () => {
    await using server = await startRedis();
    await using store = await redisStore(server.url);
    const count = 3000;
    for (let n = 1; n <= count; n += 500)
      await store.audit.append(Array.from({ length: 500 }, (_, at) => row(`r${n + at}`)));
    const stubs = Array.from({ length: count - 10 }, (_, at) => ({ sequence: at + 6, stub: `{"retired":${at + 6}}` }));
    for (let at = 0; at < stubs.length; at += 1000)
      await store.audit.retire({ records: stubs.slice(at, at + 1000), heads: [] });
    await using client = await connection(server.url);
    const sent = async () => Number(/^total_net_output_bytes:(\d+)/m.exec(await client.info("stats"))?.[1]);
    const before = await sent();
    const last = await store.audit.read({ limit: 5, after: count - 5 });
    expect(last.map(({ sequence }) => sequence)).toEqual([2996, 2997, 2998, 2999, 3000]);
    const few = await store.audit.read({ limit: 7, newest: true });
    expect(few.map(({ sequence, json }) => [sequence, json.startsWith('{"retired"')])).toEqual(
      [2994, 2995, 2996, 2997, 2998, 2999, 3000].map((number) => [number, number <= 2995]),
    );
    expect((await sent()) - before).toBeLessThan(20_000);
    await client.del("drawbridge:audit:stub-order");
    await using again = await redisStore(server.url);
    const all: number[] = [];
    for (let page = await again.audit.read({ limit: 700 }); page.length > 0; ) {
      all.push(...page.map(({ sequence }) => sequence));
      page = await again.audit.read({ limit: 700, after: all.at(-1) ?? 0 });
    }
    expect(all).toEqual(Array.from({ length: count }, (_, at) => at + 1));
    for (let at = 0; at < stubs.length; at += 1000)
      await again.audit.retire({
        records: stubs.slice(at, at + 1000).map(({ sequence }) => ({ sequence, stub: undefined })),
        heads: [],
      });
    expect(await again.audit.read({ limit: 100 })).toHaveLength(10);
    expect(await client.exists("drawbridge:audit:stub-order")).toBe(0);
  });

  test("whose scripts were flushed is taught them again", async () => {
    await using server = await startRedis();
    await using store = await redisStore(server.url);
    await using client = await connection(server.url);
    await client.scriptFlush();
    expect(await store.records.put("thing", "a", 1)).toBe(true);
    await store.audit.append([row("r1")]);
    expect(await store.records.take("thing", "a")).toMatchObject({ value: 1 });
  });

  test("of a newer version is refused", async () => {
    await using server = await startRedis();
    await using client = await connection(server.url);
    await client.set("drawbridge:schema", "99");
    await expect(redisStore(server.url)).rejects.toMatchObject({
      code: "settings_invalid",
      message: expect.stringMatching(/newer Drawbridge \(its schema is 99.*Run the newer version/),
    });
  });

  test("that forgets keys when its memory is full is refused", async () => {
    await using server = await startRedis({ "maxmemory-policy": "allkeys-lru" });
    await expect(redisStore(server.url)).rejects.toMatchObject({
      code: "settings_invalid",
      message: expect.stringMatching(/maxmemory-policy allkeys-lru.*Set maxmemory-policy to noeviction/),
    });
  });

  test("that hides its settings from us is still known to forget", async () => {
    await using server = await startRedis({ "maxmemory-policy": "allkeys-lru" });
    await using client = await connection(server.url);
    await client.sendCommand(["ACL", "SETUSER", "limited", "on", ">pass", "~*", "&*", "+@all", "-config"]);
    const url = Object.assign(new URL(server.url), { username: "limited", password: "pass" });
    await expect(redisStore(url.href)).rejects.toMatchObject({ message: expect.stringMatching(/allkeys-lru/) });
  });

  test.for([
    ["no append-only file", { appendonly: "no" }, [/may lose what was written.*appendonly/]],
    ["a file that is written each second", { appendfsync: "everysec" }, [/last writes.*appendfsync everysec/]],
    ["a file that is written each time", { appendfsync: "always" }, []],
  ] as const)("with %s is warned of as far as it deserves", async ([, settings, expected]) => {
    await using server = await startRedis(settings);
    const warnings: string[] = [];
    await using _store = await redisStore(server.url, { warn: (message) => warnings.push(message) });
    expect(warnings).toEqual(expected.map((pattern) => expect.stringMatching(pattern)));
  });

  test("opened for reading only is not made, and never written", async () => {
    await using database = await freshRedis();
    await expect(redisStore(database.url, { readOnly: true })).rejects.toMatchObject({
      code: "settings_invalid",
      message: expect.stringMatching(/There is no store/),
    });
    await using writer = await redisStore(database.url);
    await writer.audit.append([row("r1")]);
    await writer.records.put("thing", "a", 1, { index: { all: "yes" } });
    await using reader = await redisStore(database.url, { readOnly: true });
    expect(await reader.audit.read({ limit: 9 })).toHaveLength(1);
    expect(await reader.records.find("thing", "all", "yes", { limit: 9 })).toHaveLength(1);
    for (const refused of [
      reader.audit.append([row("r2")]),
      reader.records.put("thing", "b", 1),
      reader.records.take("thing", "a"),
      reader.records.deleteWhere("all", "yes"),
      reader.records.sweep(),
    ])
      await expect(refused).rejects.toMatchObject({ code: "internal" });
  });

  test("that is closed refuses, and closing it twice is closing it once", async () => {
    await using database = await freshRedis();
    const store = await redisStore(database.url);
    await Promise.all([store.close(), store.close()]);
    await expect(store.records.get("thing", "a")).rejects.toMatchObject({ code: "internal" });
    await expect(store.audit.append([row("r1")])).rejects.toMatchObject({ code: "internal" });
  });

  test("that dies makes operations reject, and has all that was acknowledged when it is back", async () => {
    await using server = await startRedis();
    await using store = await redisStore(server.url);
    const acknowledged: string[] = [];
    let problem: unknown;
    const writing = (async () => {
      for (let n = 0; problem === undefined; n++)
        await store.audit.append([row(`r${n}`)]).then(
          () => acknowledged.push(`r${n}`),
          (thrown: unknown) => {
            problem = thrown;
          },
        );
    })();
    await eventually(async () => expect(acknowledged.length).toBeGreaterThan(20));
    await server.kill();
    await writing;
    expect(problem).toMatchObject({ code: "internal" });
    const began = performance.now();
    for (const failing of [store.records.get("thing", "a"), store.records.put("thing", "a", 1), store.records.sweep()])
      expect(await rejection(failing)).toMatchObject({ code: "internal" });
    expect(performance.now() - began).toBeLessThan(10_000);
    await server.start();
    // The last append was not answered: it may be there, and repeating it does no harm.
    await eventually(() => store.audit.append([row(`r${acknowledged.length}`)]));
    const kept = await store.audit.read({ limit: 1000, newest: true });
    const ids = kept.map(({ json }) => (JSON.parse(json) as { id: string }).id);
    expect(ids).toEqual([...acknowledged, `r${acknowledged.length}`].slice(-1000));
    expect(kept.at(-1)?.sequence).toBe(acknowledged.length + 1);
  });

  test("that stops answering makes operations reject within seconds, and is asked again when it answers", async () => {
    await using database = await freshRedis();
    await using line = await lineTo(database.url);
    await using store = await redisStore(line.url);
    await store.records.put("thing", "a", 1);
    line.stall();
    const began = performance.now();
    const asked = Array.from({ length: 30 }, (_, n) =>
      n % 2 === 0 ? store.records.get("thing", "a") : store.audit.append([row(`r${n}`)]),
    );
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.every(({ status }) => status === "rejected")).toBe(true);
    expect(await rejection(store.records.get("thing", "a"))).toMatchObject({ code: "internal" });
    expect(performance.now() - began).toBeLessThan(25_000);
    line.resume();
    expect(await eventually(() => store.records.get("thing", "a"))).toMatchObject({ value: 1 });
  });

  test("is waited for while it starts", async () => {
    await using server = await startRedis();
    await server.kill();
    const warnings: string[] = [];
    const opening = redisStore(server.url, { warn: (message) => warnings.push(message) });
    opening.catch(() => {});
    await eventually(async () => expect(warnings.join()).toMatch(/does not answer yet/));
    await server.start();
    await using store = await opening;
    expect(await store.records.get("thing", "a")).toBeUndefined();
  });
});

describe.skipIf(findRedis() === undefined)("the password of a Redis URL is in no error", () => {
  const password = "pa55word";

  test.for([
    ["that is wrong", (url: URL) => Object.assign(url, { password })],
    ["for a server that speaks no TLS", (url: URL) => new URL(url.href.replace("redis:", "rediss:"))],
    ["with an option that is unknown", (url: URL) => Object.assign(url, { search: "?prefx=a" })],
    ["with a database that is no number", (url: URL) => Object.assign(url, { pathname: "/zero" })],
    ["with a database that is not there", (url: URL) => Object.assign(url, { pathname: "/9999" })],
    ["with a password that is not encoded", (url: URL) => new URL(url.href.replace(url.password, `%zz${password}`))],
  ] as const)("%s", async ([, change]) => {
    await using database = await freshRedis();
    const url = change(new URL(database.url));
    const thrown = await rejection(redisStore(url.href));
    expect(thrown).toMatchObject({ code: "settings_invalid" });
    expect(everythingOf(thrown)).not.toContain(url.password);
    expect(everythingOf(thrown)).not.toContain(password);
  });

  test("of an operation that fails", async () => {
    await using server = await startRedis();
    await using store = await redisStore(server.url);
    await server.kill();
    const thrown = await rejection(store.records.get("thing", "a"));
    expect(everythingOf(thrown)).toContain("internal");
    expect(everythingOf(thrown)).not.toContain(new URL(server.url).password);
  });
});

async function connection(url: string) {
  const bare = new URL(url);
  bare.search = "";
  const client = createClient({ url: bare.href });
  client.on("error", () => {}); // A server that a test kills.
  await client.connect();
  return Object.assign(client, { [Symbol.asyncDispose]: async () => client.destroy() });
}

function row(id: string): AuditRow {
  const bare = { subject: undefined, client: undefined, method: undefined, target: undefined, traceId: undefined };
  return { ...bare, id, at: 1, outcome: "permitted", json: JSON.stringify({ id }) };
}
