import { afterEach, describe, expect, test, vi } from "vitest";
import type { Authenticated } from "../../src/core/call.ts";
import { Secret } from "../../src/core/secret.ts";
import { disableClient, disabledClients, enableClient } from "../../src/oauth/clients/disabled.ts";
import { usersIn } from "../../src/oauth/people/users.ts";
import type { AuthorizationServer } from "../../src/oauth/server.ts";
import { loadKeys, revokeKey } from "../../src/oauth/tokens/keys.ts";
import { watch } from "../../src/oauth/watch.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { watchChanges } from "../../src/store/watch.ts";
import { verifiesEach } from "../requirements.ts";
import { everyStore } from "../store/backends.ts";
import { type Minted, mint, type ReplicaOptions, replica } from "./minting.ts";

/** A second; and another one for a store on a machine with much else to do. */
const WITHIN_MS = 2_000;
const open: AuthorizationServer[] = [];
afterEach(() => Promise.all(open.splice(0).map((server) => server.close())));
const start = async (records: Records, options?: ReplicaOptions) => {
  const server = await replica(records, options);
  open.push(server);
  return server;
};

const accepts = async (server: AuthorizationServer, { token }: Minted) => {
  try {
    await server.verify(token);
    return true;
  } catch {
    return false;
  }
};

const ENDS: readonly [string, (at: AuthorizationServer, minted: Minted, records: Records) => Promise<void>][] = [
  ["a token", (at, { jti }) => at.revokeToken(jti)],
  ["a grant", (at, { grant }) => at.revokeGrant(grant ?? "")],
  ["a client", (at, { client }) => at.revokeClient(client)],
  ["a user", (at, { user }) => at.setUserDisabled(user, true)],
  ["a client that is disabled", (_at, { client }, records) => disableClient(records, client)],
  ["a key", async (_at, _minted, records) => void (await revokeKey(records, (await kidOf(records)) ?? ""))],
];

async function kidOf(records: Records): Promise<string | undefined> {
  const keys = await loadKeys(records);
  keys.close();
  return keys.signing[0]?.kid;
}

describe.each(everyStore)("on $name", ({ openTwo }) => {
  verifiesEach(
    "rfc7009-revoked",
    ENDS,
    "%s revoked at one replica is refused by the other within a second",
    async (what, end) => {
      await using stores = await openTwo();
      const [one, two] = stores;
      const [first, second] = [await start(one.records), await start(two.records)];
      const minted = await mint(one.records);
      const other = await mint(one.records, { client: "c_2" });
      const by = await second.verify(minted.token);
      expect(await accepts(second, other)).toBe(true);
      let heard = 0;
      second.onEnded(() => heard++);

      await end(first, minted, one.records);
      await vi.waitUntil(async () => !(await accepts(second, minted)), { timeout: WITHIN_MS, interval: 20 });
      if (what !== "a key") {
        await vi.waitUntil(() => heard > 0, { timeout: WITHIN_MS, interval: 20 });
        expect(await second.stands(by)).toBe(false);
        expect(await accepts(second, other)).toBe(true);
      }
    },
  );
});

test("what is ended here is refused here at once, and open streams hear of it", async () => {
  const { records } = memoryStore();
  const server = await start(records);
  for (const [what, end] of ENDS.slice(0, 4)) {
    const minted = await mint(records);
    const by = await server.verify(minted.token);
    let heard = 0;
    server.onEnded(() => heard++);
    await end(server, minted, records);
    expect(await accepts(server, minted), what).toBe(false);
    expect(await server.stands(by), what).toBe(false);
    expect(heard, what).toBeGreaterThan(0);
  }
});

test("a known token is believed without asking the store, until anything ends", async () => {
  const { records, reads } = counted();
  const server = await start(records);
  const minted = await mint(records);
  await server.verify(minted.token);
  const before = reads();
  for (let n = 0; n < 100; n++) expect(server.verify(minted.token)).not.toBeInstanceOf(Promise);
  expect(reads()).toBe(before);
  await server.revokeToken((await mint(records)).jti);
  expect(server.verify(minted.token)).toBeInstanceOf(Promise);
  expect(await accepts(server, minted)).toBe(true);
  expect(server.verify(minted.token)).not.toBeInstanceOf(Promise);
});

test("an end during the check of a token is not covered by the answer of before", async () => {
  const { records, hold } = counted();
  const server = await start(records);
  const minted = await mint(records);
  const release = hold("oauth:AccessToken");
  const checking = Promise.resolve(server.verify(minted.token));
  await vi.waitUntil(() => release.waiting > 0);
  await server.revokeToken(minted.jti);
  release();
  await checking.catch(() => {});
  expect(await accepts(server, minted)).toBe(false);
});

describe("a store that does not answer", () => {
  test("makes known tokens be refused within a second, and lets them in when it answers again", async () => {
    const { records, fail } = counted();
    const server = await start(records);
    const minted = await mint(records);
    await server.verify(minted.token);
    let heard = 0;
    server.onEnded(() => heard++);
    const by: Authenticated = await server.verify(minted.token);
    fail(true);
    await vi.waitUntil(async () => !(await accepts(server, minted)), { timeout: 1_500, interval: 20 });
    await vi.waitUntil(() => heard > 0, { timeout: 1_500 });
    await expect(server.stands(by)).rejects.toThrow();
    fail(false);
    await vi.waitUntil(() => accepts(server, minted), { timeout: 2_000, interval: 50 });
  });

  test("is told later what it could not be told: other replicas hear of the end when it answers again", async () => {
    const store = memoryStore();
    const { records, fail } = counted(store.records);
    const [mine, others] = [await watchChanges(records), await watchChanges(store.records)];
    const [first, second] = [watch(records, mine), watch(store.records, others)];
    let heard = 0;
    second.on("ended", () => heard++);
    fail(true);
    await expect(first.announce("ended")).rejects.toThrow();
    expect(heard).toBe(0);
    fail(false);
    await vi.waitUntil(() => heard > 0, { timeout: 2_000 });
    mine.close();
    others.close();
  });
});

describe("a client that has a token for itself", () => {
  const service = {
    id: "svc",
    name: "Night job",
    secret: new Secret("not a real one, for a test"),
    service: { groups: ["jobs"] },
  };
  const minted = (records: Records, client = "svc") => mint(records, { user: null, client });

  test("is known by its id, with the groups of the settings", async () => {
    const { records } = memoryStore();
    const server = await start(records, { clients: { preregistered: [service] } });
    const by = await server.verify((await minted(records)).token);
    expect(by).toMatchObject({ subject: "svc", client: "svc", groups: ["jobs"], claims: { name: "Night job" } });
    expect(by.grant).toBeUndefined();
    expect(await server.stands(by)).toBe(true);
  });

  test("is refused when the settings no longer name it, or name it as no service", async () => {
    const { records } = memoryStore();
    const token = await minted(records);
    expect(await accepts(await start(records), token)).toBe(false);
    const app = { id: "svc", name: "App", redirectUris: ["https://app.example/cb"] };
    expect(await accepts(await start(records, { clients: { preregistered: [app] } }), token)).toBe(false);
  });

  test("may be a workload", async () => {
    const { records } = memoryStore();
    const workload = { id: "ci", name: "CI", issuer: "https://ci.example", subject: "repo:*", groups: ["builds"] };
    const server = await start(records, { clients: { workloads: [workload] } });
    expect((await server.verify((await minted(records, "ci")).token)).groups).toEqual(["builds"]);
  });
});

describe("the actors of a token", () => {
  test("are read from nested `act`, nearest first", async () => {
    const { records } = memoryStore();
    const server = await start(records);
    const { token } = await mint(records, { claims: { act: { sub: "near", act: { sub: "far" } } } });
    expect((await server.verify(token)).actors).toEqual(["near", "far"]);
  });

  test.each([["no object"], [{ act: { sub: "x" } }], [chain(11)]])(
    "that cannot be read are refused: %j",
    async (act) => {
      const { records } = memoryStore();
      const server = await start(records);
      expect(await accepts(server, await mint(records, { claims: { act } }))).toBe(false);
    },
  );
});

test("a token exchanged for another API is refused here", async () => {
  const { records } = memoryStore();
  const server = await start(records);
  for (const aud of ["https://orders.example/mcp", ["https://mcp.shop.example/mcp", "https://orders.example/mcp"]])
    expect(await accepts(server, await mint(records, { claims: { aud } }))).toBe(false);
});

test("a disabled client is listed, and works again when it is enabled", async () => {
  const { records } = memoryStore();
  const server = await start(records);
  const minted = await mint(records, { client: "https://app.example/client.json" });
  await disableClient(records, minted.client, () => 7);
  expect(await disabledClients(records)).toEqual([{ client: minted.client, since: 7 }]);
  expect(await accepts(server, minted)).toBe(false);
  await enableClient(records, minted.client);
  expect(await disabledClients(records)).toEqual([]);
  expect(await accepts(server, minted)).toBe(true);
});

test("a user whose groups were changed has the new ones after a minute at the latest", async () => {
  let now = Date.now();
  const clock = () => now;
  const { records } = memoryStore(clock);
  const server = await start(records, { clock });
  const { token, user } = await mint(records, { clock });
  expect((await server.verify(token)).groups).toEqual(["team"]);
  await usersIn(records, clock).setGroups(user, ["owner"]);
  now += 60_000;
  expect((await server.verify(token)).groups).toEqual(["owner"]);
});

function chain(depth: number): object {
  return depth === 1 ? { sub: "a" } : { sub: "a", act: chain(depth - 1) };
}

/** Records that can be counted, held back and made to fail. */
function counted(inner: Records = memoryStore().records) {
  let reads = 0;
  let failing = false;
  let held: { kind: string; waiting: (() => void)[] } | undefined;
  const records: Records = new Proxy(inner, {
    get:
      (target, name: keyof Records) =>
      async (kind: string, ...rest: never[]) => {
        if (failing) throw new Error("the store is gone");
        if (name === "get") reads++;
        const answer = await (target[name] as (...given: unknown[]) => Promise<unknown>)(kind, ...rest);
        if (name === "get" && held?.kind === kind) await new Promise<void>((go) => held?.waiting.push(go));
        return answer;
      },
  });
  return {
    records,
    reads: () => reads,
    fail: (now: boolean) => {
      failing = now;
    },
    hold(kind: string) {
      const holding = { kind, waiting: [] as (() => void)[] };
      held = holding;
      const release = () => {
        held = undefined;
        for (const go of holding.waiting) go();
      };
      return Object.defineProperty(release, "waiting", { get: () => holding.waiting.length }) as typeof release & {
        readonly waiting: number;
      };
    },
  };
}
