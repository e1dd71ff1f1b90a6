/** Every backend behind one face, for tests whose promise must hold on each: `for (const { name, open } of everyStore) …`. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, systemClock } from "../../src/core/clock.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Store } from "../../src/store/ports.ts";
import { freshPostgres, freshRedis } from "../global/databases.ts";
import { findPostgres, findRedis } from "../global/programs.ts";

export interface Backend {
  readonly name: "memory" | "sqlite" | "postgres" | "redis";
  /** A store that no other test sees. */
  open(clock?: Clock): Promise<Store & AsyncDisposable>;
  /** Two connections to the same data, as two replicas have; in memory one object twice. */
  openTwo(clock?: Clock): Promise<readonly [Store, Store] & AsyncDisposable>;
  /** What `store:` of a gateway's settings is set to, for data that no other test sees. */
  place(): Promise<{ readonly setting: string } & AsyncDisposable>;
}

const connections: readonly (Pick<Backend, "name" | "place"> & {
  readonly connect: (setting: string, clock: Clock) => Promise<Store>;
})[] = [
  {
    name: "sqlite",
    async place() {
      const folder = mkdtempSync(join(tmpdir(), "drawbridge-store-"));
      const remove = async () => rmSync(folder, { recursive: true, force: true });
      return { setting: `sqlite:${join(folder, "store.db")}`, [Symbol.asyncDispose]: remove };
    },
    async connect(setting, clock) {
      const { sqliteStore } = await import("../../src/store/sqlite/sqlite.ts");
      return sqliteStore(setting.slice("sqlite:".length), { clock });
    },
  },
  {
    name: "postgres",
    place: () => placed(freshPostgres()),
    async connect(setting, clock) {
      const { postgresStore } = await import("../../src/store/postgres/postgres.ts");
      return postgresStore(setting, { clock });
    },
  },
  {
    name: "redis",
    place: () => placed(freshRedis()),
    async connect(setting, clock) {
      const { redisStore } = await import("../../src/store/redis/redis.ts");
      return redisStore(setting, { clock });
    },
  },
];

async function placed(fresh: ReturnType<typeof freshPostgres>): ReturnType<Backend["place"]> {
  const database = await fresh;
  return { setting: database.url, [Symbol.asyncDispose]: () => database[Symbol.asyncDispose]() };
}

/** Those that can run here: `npm test` installs the servers or says what is left out; in CI a missing one is a failure. */
export const everyStore: readonly Backend[] = [
  {
    name: "memory",
    open: async (clock = systemClock) => memoryStore(clock),
    async openTwo(clock = systemClock) {
      const store = memoryStore(clock);
      return Object.assign([store, store] as const, { [Symbol.asyncDispose]: () => store.close() });
    },
    place: async () => ({ setting: "memory", [Symbol.asyncDispose]: async () => {} }),
  },
  ...connections.filter(({ name }) => installed(name)).map(backendOf),
];

function installed(name: Backend["name"]): boolean {
  if (name === "postgres") return findPostgres() !== undefined;
  if (name === "redis") return findRedis() !== undefined;
  return true;
}

function backendOf({ name, place, connect }: (typeof connections)[number]): Backend {
  async function openAll(count: number, clock: Clock) {
    const data = await place();
    const stores: Store[] = [];
    const close = async () => {
      await Promise.allSettled(stores.map((store) => store.close()));
      await data[Symbol.asyncDispose]();
    };
    try {
      // One after the other: what two that start at once do is a test of its own.
      for (let n = 0; n < count; n++) stores.push(await connect(data.setting, clock));
    } catch (thrown) {
      await close();
      throw thrown;
    }
    return { stores, close };
  }
  return {
    name,
    place,
    async open(clock = systemClock) {
      const { stores, close } = await openAll(1, clock);
      const [store] = stores as [Store];
      return { records: store.records, audit: store.audit, close, [Symbol.asyncDispose]: close };
    },
    async openTwo(clock = systemClock) {
      const { stores, close } = await openAll(2, clock);
      const [one, two] = stores as [Store, Store];
      return Object.assign([one, two] as const, { [Symbol.asyncDispose]: close });
    },
  };
}
