import { decodeJwt, decodeProtectedHeader } from "jose";
import { afterEach, describe, expect, test, vi } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import { type Keys, type KeysOptions, listKeys, loadKeys, revokeKey, rotateKeys } from "../../src/oauth/tokens/keys.ts";
import { watch } from "../../src/oauth/watch.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import { watchChanges } from "../../src/store/watch.ts";
import { everyStore } from "../store/backends.ts";
import { mint, replica } from "./minting.ts";
import { Browser, call, connect, type Running, refresh, register, running, setUp } from "./support.ts";

const TIMING = { publishMs: 400_000, tokenMs: 400_000, sessionMs: 900_000 };
const closing: { close(): unknown }[] = [];
afterEach(async () => {
  for (const open of closing.splice(0)) await open.close();
});

/** The keys as one replica sees them, at a time that the test moves. */
async function replicaKeys(records: Records, options: KeysOptions = {}): Promise<Keys> {
  const changes = await watchChanges(records);
  const keys = await loadKeys(records, { ...options, watch: watch(records, changes) });
  closing.push(changes, keys);
  return keys;
}
const kids = (keys: Keys) => keys.signing.map(({ kid }) => kid);

describe("a rotation", () => {
  test("publishes the new key, then signs with it, then drops the old one, on every replica and by itself", async () => {
    let now = 1_000_000;
    const clock = () => now;
    const { records } = memoryStore(clock);
    const [one, two] = [await replicaKeys(records, { clock }), await replicaKeys(records, { clock })];
    const [old = ""] = kids(one);
    const [oldCookie = ""] = one.cookies;

    const begun = await rotateKeys(records, { clock, ...TIMING });
    expect(begun).toMatchObject({ state: "next", algorithm: "ES256", signsFrom: now + 400_000 });
    for (const keys of [one, two]) await vi.waitUntil(() => kids(keys).join() === [old, begun.kid].join());
    expect(two.public.map(({ kid }) => kid)).toEqual([old, begun.kid]);
    expect(two.cookies).toHaveLength(2);
    expect(two.cookies[0]).toBe(oldCookie);

    now += 400_000;
    for (const keys of [one, two]) await vi.waitUntil(() => kids(keys).join() === [begun.kid, old].join());
    expect(two.cookies[1]).toBe(oldCookie);
    expect((await listKeys(records, { clock })).map(({ kid, state }) => [kid, state])).toEqual([
      [begun.kid, "signing"],
      [old, "retired"],
    ]);

    now += 400_000;
    for (const keys of [one, two]) await vi.waitUntil(() => kids(keys).join() === begun.kid);
    // Nobody asked for it: the first replica that saw the time come has deleted the old private key.
    await vi.waitUntil(async () => !(await stored(records)).includes(old));
    expect(one.cookies).toContain(oldCookie);
    now += 500_000;
    for (const keys of [one, two]) await vi.waitUntil(() => !keys.cookies.includes(oldCookie));
  });

  test("begun by two at once, or begun again while one waits, is one rotation", async () => {
    const { records } = memoryStore();
    const keys = await replicaKeys(records);
    const [one, two] = await Promise.all([rotateKeys(records), rotateKeys(records)]);
    expect(one.kid).toBe(two.kid);
    expect((await rotateKeys(records)).kid).toBe(one.kid);
    await vi.waitUntil(() => keys.signing.length === 2);
  });

  test("by default waits until no copy of the key set that obeys Cache-Control is without the new key", async () => {
    const { records } = memoryStore();
    await replicaKeys(records);
    const { signsFrom } = await rotateKeys(records, { clock: () => 0 });
    await using live = await running({ records });
    const answer = await fetch(`${live.base}/oauth/jwks`);
    const maxAge = Number(/max-age=(\d+)/.exec(answer.headers.get("cache-control") ?? "")?.[1]);
    expect(maxAge).toBeGreaterThan(0);
    expect(signsFrom).toBeGreaterThan(maxAge * 1000);
  });

  test("to another algorithm begins when a gateway starts with it in its settings", async () => {
    let now = 1_000_000;
    const clock = () => now;
    const { records } = memoryStore(clock);
    const before = await replicaKeys(records, { clock });
    const after = await replicaKeys(records, { clock, algorithm: "EdDSA" });
    expect(after.algorithm).toBe("ES256");
    expect(after.public.map(({ alg }) => alg)).toEqual(["ES256", "EdDSA"]);
    now += 400_000;
    for (const keys of [before, after]) await vi.waitUntil(() => keys.algorithm === "EdDSA");
    const again = await replicaKeys(records, { clock, algorithm: "EdDSA" });
    expect(kids(again)).toEqual(kids(after));
  });

  test("keeps forms and nonces valid across the change", async () => {
    let now = 1_000_000;
    const clock = () => now;
    const { records } = memoryStore(clock);
    const keys = await replicaKeys(records, { clock });
    const form = keys.seal("browser", "purpose");
    const [nonce] = keys.secretsFor("nonces");
    await rotateKeys(records, { clock, ...TIMING });
    now += 400_000;
    await vi.waitUntil(() => keys.seal("browser", "purpose") !== form);
    expect(keys.sealed(form, "browser", "purpose")).toBe(true);
    expect(keys.sealed(form, "browser", "another purpose")).toBe(false);
    expect(keys.secretsFor("nonces")).toContainEqual(nonce);
    expect(keys.secretsFor("nonces")[0]).not.toEqual(nonce);
  });
});

describe("an emergency", () => {
  test("replaces the key that signs at once, on every replica", async () => {
    const { records } = memoryStore();
    const [one, two] = [await replicaKeys(records), await replicaKeys(records)];
    const [old = ""] = kids(one);
    const status = await revokeKey(records, old);
    expect(status.state).toBe("signing");
    for (const keys of [one, two]) await vi.waitUntil(() => kids(keys).join() === status.kid);
    expect(await stored(records)).not.toContain(old);
  });

  test("in the middle of a rotation leaves a key that signs, whichever is taken away", async () => {
    for (const state of ["next", "signing"]) {
      const { records } = memoryStore();
      await replicaKeys(records);
      await rotateKeys(records);
      const taken = (await listKeys(records)).find((key) => key.state === state)?.kid ?? "";
      await revokeKey(records, taken);
      const left = await listKeys(records);
      expect(left.map(({ kid }) => kid)).not.toContain(taken);
      expect(left.filter((key) => key.state === "signing")).toHaveLength(1);
    }
  });

  test("about a key that is not there is told so", async () => {
    const { records } = memoryStore();
    await replicaKeys(records);
    await expect(revokeKey(records, "nobody")).rejects.toThrow(/no key nobody/);
  });
});

describe.each(everyStore)("on $name", ({ openTwo }) => {
  test("two replicas that start at once have the same keys", async () => {
    await using stores = await openTwo();
    const [one, two] = await Promise.all(stores.map(({ records }) => replicaKeys(records)));
    expect(one?.signing).toEqual(two?.signing);
    expect(one?.cookies).toEqual(two?.cookies);
  });
});

describe("keys at rest", () => {
  const encryption = new Secret("correct horse battery staple");

  test("are encrypted when there is a secret, those of before too", async () => {
    const { records } = memoryStore();
    const [plain] = (await replicaKeys(records)).signing;
    expect(await stored(records)).toContain(plain?.d);
    const [same] = (await replicaKeys(records, { encryption })).signing;
    expect(same).toEqual(plain);
    expect(await stored(records)).not.toMatch(/"d"|"secret"|"kid"/);
    const rotated = await rotateKeys(records, { encryption });
    expect(await stored(records)).not.toContain(rotated.kid);
    expect((await replicaKeys(records, { encryption })).public.map(({ kid }) => kid)).toContain(rotated.kid);
  });

  test("cannot be read with another secret, without one, or when they were changed", async () => {
    const { records } = memoryStore();
    await replicaKeys(records, { encryption });
    await expect(loadKeys(records)).rejects.toThrow(/tokens\.keyEncryptionSecret/);
    await expect(loadKeys(records, { encryption: new Secret("another") })).rejects.toThrow(/another secret/);
    const row = await records.get<{ encrypted: string }>("oauth:keys", "set");
    const bytes = Buffer.from(row?.value.encrypted ?? "", "base64url");
    bytes[40] = (bytes[40] ?? 0) ^ 1;
    await records.put("oauth:keys", "set", { encrypted: bytes.toString("base64url") });
    await expect(loadKeys(records, { encryption })).rejects.toThrow(/changed since/);
  });
});

test("what is published of the keys has nothing private, for each algorithm", async () => {
  for (const algorithm of ["ES256", "EdDSA", "RS256"] as const) {
    const keys = await replicaKeys(memoryStore().records, { algorithm });
    expect(keys.algorithm).toBe(algorithm);
    const text = JSON.stringify(keys.public);
    for (const name of ["d", "p", "q", "dp", "dq", "qi"]) expect(text, algorithm).not.toContain(`"${name}"`);
  }
});

test.each(["EdDSA", "RS256"])(
  "tokens and ID tokens are signed with %s by choice, and accepted",
  async (signingAlgorithm) => {
    await using live = await running({ clients: { registration: "open" }, tokens: { signingAlgorithm } });
    const browser = await setUp(live);
    const client = String((await register(live)).body["client_id"]);
    const { access_token, id_token = "" } = await connect(live, browser, { client, scope: "openid mcp:read" });
    expect(decodeProtectedHeader(access_token).alg).toBe(signingAlgorithm);
    expect(decodeProtectedHeader(id_token).alg).toBe(signingAlgorithm);
    expect((await call(live, access_token)).status).toBe(200);
  },
);

test("a client that was registered under another algorithm goes on when that one is gone", async () => {
  let now = Date.now();
  const clock = () => now;
  const { records } = memoryStore(clock);
  let client = "";
  {
    await using before = await running({ records, clock, clients: { registration: "open" } });
    const browser = await setUp(before);
    client = String((await register(before)).body["client_id"]);
    await connect(before, browser, { client });
  }
  await using after = await running({ records, clock, tokens: { signingAlgorithm: "EdDSA" } });
  const algorithm = async () => {
    const tokens = await connect(after, new Browser(after.origin), { client, scope: "openid mcp:read" });
    const algorithms = [tokens.access_token, tokens.id_token ?? ""].map((token) => decodeProtectedHeader(token).alg);
    return algorithms.join();
  };
  expect(await algorithm()).toBe("ES256,ES256");
  now += 7 * 60_000;
  await vi.waitUntil(async () => (await algorithm()) === "EdDSA,EdDSA", { timeout: 5_000 });
  now += 70 * 60_000;
  const keySet = async () => (await fetch(`${after.base}/oauth/jwks`)).text();
  await vi.waitUntil(async () => !(await keySet()).includes("ES256"), { timeout: 5_000 });
  expect(await algorithm()).toBe("EdDSA,EdDSA");
});

describe("a running pair of servers", () => {
  test("carries a rotation through under steady load without refusing one token, sign-in or form", {
    timeout: 30_000,
  }, async () => {
    await using one = await running({ clients: { registration: "open" } });
    await using two = await running({ clients: { registration: "open" }, records: one.records, publicUrl: one.base });
    const replicas: readonly Running[] = [one, two];
    const owner = await setUp(one);
    const client = String((await register(one)).body["client_id"]);
    const first = await connect(one, owner, { client });
    const [oldKid] = (await listKeys(one.records)).map(({ kid }) => kid);
    const seen = new Set<string | undefined>();
    const refusals: string[] = [];
    let over = false;

    const calls = async (at: Running, token: () => string) => {
      while (!over) {
        const { status, detail } = await call(at, token());
        if (status !== 200) refusals.push(`call: ${status} ${detail}`);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    };
    let newest = first.access_token;
    const refreshes = async () => {
      let { refresh_token: current } = first;
      for (let n = 0; !over; n++) {
        const { status, body } = await refresh(replicas[n % 2] ?? one, client, current);
        if (status !== 200) return void refusals.push(`refresh: ${JSON.stringify(body)}`);
        newest = String(body["access_token"]);
        current = String(body["refresh_token"]);
        seen.add(decodeProtectedHeader(newest).kid);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const signIns = async () => {
      // Below the thirty tries that one address has at once.
      for (let n = 0; !over && n < 25; n++) {
        const at = replicas[n % 2] ?? one;
        const browser = new Browser(at.origin, one.base);
        try {
          const { access_token } = await connect({ ...at, base: one.base }, browser, { client });
          const answer = await call(replicas[(n + 1) % 2] ?? one, access_token);
          if (answer.status !== 200) refusals.push(`new token: ${answer.status} ${answer.detail}`);
        } catch (thrown) {
          refusals.push(String(thrown));
        }
        await new Promise((resolve) => setTimeout(resolve, 60));
      }
    };
    const load = Promise.all([
      ...replicas.map((at) => calls(at, () => newest)),
      ...replicas.map((at) => calls(at, () => first.access_token)),
      refreshes(),
      signIns(),
    ]);
    const { kid } = await rotateKeys(one.records, { publishMs: 1_500, tokenMs: 330_000 });
    await vi.waitUntil(() => seen.has(kid), { timeout: 15_000 });
    const after = Date.now() + 1_000;
    await vi.waitUntil(() => Date.now() > after, { timeout: 5_000 });
    over = true;
    await load;
    expect(refusals).toEqual([]);
    expect([...seen]).toEqual([oldKid, kid]);
    expect(decodeJwt(first.access_token).exp).toBeGreaterThan(Date.now() / 1000);
  });

  test("refuses every token of a key that was taken away, and gives good ones again", async () => {
    const { records } = memoryStore();
    const [one, two] = [await replica(records), await replica(records)];
    closing.push(one, two);
    const minted = await mint(records);
    for (const at of [one, two]) await at.verify(minted.token);
    const [key] = await listKeys(records);
    await revokeKey(records, key?.kid ?? "");
    const accepted = async (at: typeof one, token: string) => {
      try {
        await at.verify(token);
        return true;
      } catch {
        return false;
      }
    };
    for (const at of [one, two])
      await vi.waitUntil(async () => !(await accepted(at, minted.token)), { timeout: 2_000 });
    const fresh = await mint(records);
    for (const at of [one, two]) expect(await accepted(at, fresh.token)).toBe(true);
  });

  test("accepts at once what another replica signs with a key it has not heard of", async () => {
    const { records } = memoryStore();
    const one = await replica(records);
    closing.push(one);
    const [key] = await listKeys(records);
    await revokeKey(records, key?.kid ?? "");
    await one.verify((await mint(records)).token);
  });
});

async function stored(records: Records): Promise<string> {
  return JSON.stringify((await records.get("oauth:keys", "set"))?.value);
}
