/** What every storage backend promises. Each backend's test calls `storeContract` with a way to make an empty store. */
import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import type { Clock } from "../../src/core/clock.ts";
import type { AuditRow, Store } from "../../src/store/ports.ts";

type Open = (clock: Clock) => Promise<Store & AsyncDisposable>;
/** Two connections to the same data, as two replicas have. */
type OpenTwo = (clock: Clock) => Promise<readonly [Store, Store] & AsyncDisposable>;

export function storeContract(backend: string, open: Open, openTwo: OpenTwo): void {
  describe(`${backend} records`, () => recordsContract(open));
  describe(`${backend} audit log`, () => auditContract(open));
  describe(`${backend} of two replicas`, () => replicasContract(openTwo));
}

function recordsContract(open: Open): void {
  let now = 1_000_000;
  const clock = () => now;

  test("a value comes back as it was written, with its version", async () => {
    await using store = await open(clock);
    const value = {
      text: "naïve 漢字 \u0000 \ud83d\ude00",
      numbers: [1.5, -0.25, 1e21],
      nested: { none: null, yes: true },
    };
    expect(await store.records.put("thing", "a", value)).toBe(true);
    expect(await store.records.get("thing", "a")).toEqual({ id: "a", value, version: 1, expiresAt: undefined });
    await store.records.put("thing", "a", "other");
    expect(await store.records.get("thing", "a")).toMatchObject({ value: "other", version: 2 });
  });

  test("kinds do not see each other's rows", async () => {
    await using store = await open(clock);
    await store.records.put("one", "a", 1);
    await store.records.put("two", "a", 2);
    await store.records.delete("one", "a");
    expect(await store.records.get("one", "a")).toBeUndefined();
    expect(await store.records.get("two", "a")).toMatchObject({ value: 2 });
  });

  test("a value that the caller changes afterwards does not change in the store", async () => {
    await using store = await open(clock);
    const value = { list: [1] };
    await store.records.put("thing", "a", value);
    value.list.push(2);
    const row = await store.records.get<{ list: number[] }>("thing", "a");
    row?.value.list.push(3);
    expect(await store.records.get("thing", "a")).toMatchObject({ value: { list: [1] } });
  });

  test("names of rows and indexes that are too long for any backend are refused by all", async () => {
    await using store = await open(clock);
    const long = "é".repeat(1000);
    await store.records.put("thing", long, 1, { index: { long } });
    expect(await store.records.find("thing", "long", long, { limit: 9 })).toMatchObject([{ id: long }]);
    const [tooLong, refused] = ["é".repeat(1025), { code: "internal" }];
    await expect(store.records.put("thing", tooLong, 1)).rejects.toMatchObject(refused);
    await expect(store.records.put("thing", "a", 1, { index: { name: tooLong } })).rejects.toMatchObject(refused);
    expect(await store.records.get("thing", "a")).toBeUndefined();
  });

  test("a write without a version over an expired row begins its versions again", async () => {
    await using store = await open(clock);
    await store.records.put("thing", "a", 1);
    await store.records.put("thing", "a", 2, { expiresAt: now + 10 });
    now += 10;
    expect(await store.records.put("thing", "a", 3)).toBe(true);
    expect(await store.records.get("thing", "a")).toMatchObject({ value: 3, version: 1, expiresAt: undefined });
    expect(await store.records.sweep()).toBe(0);
    expect(await store.records.get("thing", "a")).toMatchObject({ value: 3 });
  });

  test("an expired row lies between the rows of a page without making it shorter", async () => {
    await using store = await open(clock);
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        store.records.put("thing", `id-${String(n).padStart(2, "0")}`, n, {
          index: { all: "yes" },
          ...(n % 4 === 0 ? {} : { expiresAt: now + 10 }),
        }),
      ),
    );
    now += 10;
    const expected = [0, 4, 8, 12].map((value) => ({ value }));
    expect(await store.records.list("thing", { limit: 4 })).toMatchObject(expected);
    expect(await store.records.find("thing", "all", "yes", { limit: 4 })).toMatchObject(expected);
  });

  test("ids are ordered by their bytes, whatever their language", async () => {
    await using store = await open(clock);
    const ordered = ["\u0000", "-", "A", "B", "Z", "_", "a", "a\u0000", "aa", "b", "z", "é", "漢", "\uffee", "😀"];
    await Promise.all(ordered.toReversed().map((id) => store.records.put("thing", id, id, { index: { all: "yes" } })));
    await store.records.put("thin", "g", 1, { index: { all: "yes" } });
    await store.records.put("thing2", "a", 1, { index: { all: "yes" } });
    const ids = async (rows: ReturnType<typeof store.records.list>) => (await rows).map(({ id }) => id);
    expect(await ids(store.records.list("thing", { limit: 99 }))).toEqual(ordered);
    expect(await ids(store.records.find("thing", "all", "yes", { limit: 99 }))).toEqual(ordered);
    for (const [at, after] of ordered.entries())
      expect(await ids(store.records.list("thing", { limit: 1, after }))).toEqual(ordered.slice(at + 1, at + 2));
  });

  test("thousands of expired rows are swept", async () => {
    await using store = await open(clock);
    await Promise.all(
      Array.from({ length: 900 }, (_, n) => store.records.put("thing", `${n}`, n, { expiresAt: now + 1 })),
    );
    await Promise.all(
      Array.from({ length: 900 }, (_, n) => store.records.put("other", `${n}`, n, { expiresAt: now + 1 + (n % 2) })),
    );
    now += 1;
    expect(await store.records.sweep()).toBe(1350);
    expect(await store.records.list("other", { limit: 1000 })).toHaveLength(450);
  });

  test("what JSON cannot hold is refused and nothing is written", async () => {
    await using store = await open(clock);
    await expect(store.records.put("thing", "a", undefined)).rejects.toMatchObject({ code: "internal" });
    expect(await store.records.get("thing", "a")).toBeUndefined();
  });

  test("of 20 concurrent first writers exactly one wins", async () => {
    await using store = await open(clock);
    const won = await Promise.all(
      Array.from({ length: 20 }, (_, n) => store.records.put("thing", "a", n, { ifVersion: 0 })),
    );
    expect(won.filter(Boolean)).toHaveLength(1);
    expect(await store.records.get("thing", "a")).toMatchObject({ value: won.indexOf(true), version: 1 });
  });

  test("of 20 concurrent writers of one version exactly one wins", async () => {
    await using store = await open(clock);
    await store.records.put("thing", "a", "first");
    const won = await Promise.all(
      Array.from({ length: 20 }, (_, n) => store.records.put("thing", "a", n, { ifVersion: 1 })),
    );
    expect(won.filter(Boolean)).toHaveLength(1);
    expect(await store.records.get("thing", "a")).toMatchObject({ value: won.indexOf(true), version: 2 });
  });

  test("a write for a version of an absent row is refused", async () => {
    await using store = await open(clock);
    expect(await store.records.put("thing", "a", 1, { ifVersion: 1 })).toBe(false);
    expect(await store.records.get("thing", "a")).toBeUndefined();
  });

  test("a lost write leaves the winner's index as it was", async () => {
    await using store = await open(clock);
    await store.records.put("thing", "a", 1, { index: { grant: "g1" } });
    expect(await store.records.put("thing", "a", 2, { ifVersion: 7, index: { grant: "g2" } })).toBe(false);
    expect(await store.records.find("thing", "grant", "g1", { limit: 9 })).toHaveLength(1);
    expect(await store.records.find("thing", "grant", "g2", { limit: 9 })).toHaveLength(0);
  });

  test("of 20 concurrent takers exactly one gets the row, and it is gone", async () => {
    await using store = await open(clock);
    await store.records.put("code", "a", { for: "x" });
    const taken = await Promise.all(Array.from({ length: 20 }, () => store.records.take("code", "a")));
    expect(taken.filter((row) => row !== undefined)).toEqual([
      { id: "a", value: { for: "x" }, version: 1, expiresAt: undefined },
    ]);
    expect(await store.records.get("code", "a")).toBeUndefined();
  });

  test("deleting what is absent succeeds", async () => {
    await using store = await open(clock);
    await store.records.delete("thing", "nothing");
    expect(await store.records.deleteWhere("grant", "nothing")).toBe(0);
  });

  test("an expired row is never returned, in no way of asking", async () => {
    await using store = await open(clock);
    const expiresAt = now + 1000.5;
    const write = (id: string) => store.records.put("thing", id, id, { expiresAt, index: { group: "g" } });
    await Promise.all(["a", "b"].map(write));
    now += 1000;
    expect(await store.records.get("thing", "a")).toMatchObject({ expiresAt });
    now += 1;
    expect(await store.records.get("thing", "a")).toBeUndefined();
    expect(await store.records.list("thing", { limit: 9 })).toEqual([]);
    expect(await store.records.find("thing", "group", "g", { limit: 9 })).toEqual([]);
    expect(await store.records.take("thing", "a")).toBeUndefined();
    expect(await store.records.deleteWhere("group", "g")).toBe(0);
  });

  test("an expired row counts as absent for writers", async () => {
    await using store = await open(clock);
    await store.records.put("thing", "a", 1, { expiresAt: now + 10, index: { group: "old" } });
    now += 10;
    expect(await store.records.put("thing", "a", 2, { ifVersion: 1 })).toBe(false);
    expect(await store.records.put("thing", "a", 3, { ifVersion: 0 })).toBe(true);
    expect(await store.records.get("thing", "a")).toMatchObject({ value: 3, version: 1, expiresAt: undefined });
    expect(await store.records.find("thing", "group", "old", { limit: 9 })).toEqual([]);
  });

  test("sweeping deletes expired rows alone and says how many", async () => {
    await using store = await open(clock);
    await store.records.put("thing", "a", 1, { expiresAt: now + 10, index: { group: "g" } });
    await store.records.put("thing", "b", 1, { expiresAt: now + 20, index: { group: "g" } });
    await store.records.put("thing", "c", 1, { index: { group: "g" } });
    now += 15;
    expect(await store.records.sweep()).toBe(1);
    expect(await store.records.sweep()).toBe(0);
    expect((await store.records.find("thing", "group", "g", { limit: 9 })).map(({ id }) => id)).toEqual(["b", "c"]);
  });

  test("pages follow each other by id without a gap or a repeat", async () => {
    await using store = await open(clock);
    const ids = Array.from({ length: 25 }, (_, n) => `id-${String(n).padStart(2, "0")}`);
    await Promise.all(ids.toReversed().map((id) => store.records.put("thing", id, id, { index: { all: "yes" } })));
    await store.records.put("another", "id-03x", 1, { index: { all: "yes" } });
    for (const page of [
      (after: string | undefined) =>
        store.records.list<string>("thing", after === undefined ? { limit: 10 } : { limit: 10, after }),
      (after: string | undefined) =>
        store.records.find<string>("thing", "all", "yes", after === undefined ? { limit: 10 } : { limit: 10, after }),
    ]) {
      const seen: string[] = [];
      for (let rows = await page(undefined); rows.length > 0; rows = await page(seen.at(-1))) {
        expect(rows.length).toBeLessThanOrEqual(10);
        seen.push(...rows.map(({ id }) => id));
      }
      expect(seen).toEqual(ids);
    }
  });

  test("a page of no rows, of too many or of a part of one is refused", async () => {
    await using store = await open(clock);
    for (const limit of [0, 1001, 1.5, Number.NaN]) {
      await expect(store.records.list("thing", { limit })).rejects.toMatchObject({ code: "internal" });
      await expect(store.audit.read({ limit })).rejects.toMatchObject({ code: "internal" });
    }
  });

  test("an index is replaced as a whole by each write", async () => {
    await using store = await open(clock);
    await store.records.put("thing", "a", 1, { index: { grant: "g1", user: "u1" } });
    await store.records.put("thing", "a", 2, { index: { grant: "g2" } });
    expect(await store.records.find("thing", "grant", "g1", { limit: 9 })).toEqual([]);
    expect(await store.records.find("thing", "user", "u1", { limit: 9 })).toEqual([]);
    expect(await store.records.find("thing", "grant", "g2", { limit: 9 })).toMatchObject([{ id: "a", value: 2 }]);
  });

  test("everything of one grant is deleted at once, of one kind or of all", async () => {
    await using store = await open(clock);
    for (const kind of ["access", "refresh"]) {
      for (const id of ["a", "b"]) await store.records.put(kind, id, 1, { index: { grant: "g1" } });
      await store.records.put(kind, "c", 1, { index: { grant: "g2" } });
    }
    expect(await store.records.deleteWhere("grant", "g1", "access")).toBe(2);
    expect(await store.records.list("access", { limit: 9 })).toMatchObject([{ id: "c" }]);
    expect(await store.records.list("refresh", { limit: 9 })).toHaveLength(3);
    expect(await store.records.deleteWhere("grant", "g1")).toBe(2);
    expect(await store.records.list("refresh", { limit: 9 })).toMatchObject([{ id: "c" }]);
  });

  test("names and values that look like SQL, JSON or separators are only names and values", async () => {
    await using store = await open(clock);
    for (const odd of ["'; DROP TABLE records; --", '{"a":1}', "a\u0000b", "%", "__proto__", "constructor"]) {
      await store.records.put(odd, odd, odd, { index: { [odd === "__proto__" ? "p" : odd]: odd } });
      expect(await store.records.get(odd, odd)).toMatchObject({ id: odd, value: odd });
      expect(await store.records.deleteWhere(odd === "__proto__" ? "p" : odd, odd)).toBe(1);
    }
  });
}

function auditContract(open: Open): void {
  const clock = () => 1_000_000;

  test("records are read in the order of appending, with sequence numbers from 1 without gaps", async () => {
    await using store = await open(clock);
    await Promise.all([
      store.audit.append([row(1), row(2)]),
      store.audit.append([row(3)]),
      store.audit.append([row(4), row(5)]),
    ]);
    const read = await store.audit.read({ limit: 100 });
    expect(read).toEqual([1, 2, 3, 4, 5].map((n) => ({ sequence: n, json: row(n).json })));
  });

  test("an append that fails leaves none of its records and no gap", async () => {
    await using store = await open(clock);
    await store.audit.append([row(1)]);
    const outcomes = await Promise.allSettled([
      store.audit.append([row(2), row(3), { ...row(7), at: Number.NaN }]),
      store.audit.append([row(4)]),
      store.audit.append([{ ...row(5), at: Number.NaN }, row(5)]),
      store.audit.append([row(6)]),
    ]);
    expect(outcomes.map(({ status }) => status)).toEqual(["rejected", "fulfilled", "rejected", "fulfilled"]);
    const read = await store.audit.read({ limit: 100 });
    expect(read).toEqual([1, 4, 6].map((n, at) => ({ sequence: at + 1, json: row(n).json })));
  });

  test("an append that is repeated writes each record once", async () => {
    await using store = await open(clock);
    await store.audit.append([row(1), row(2)]);
    await store.audit.append([row(1), row(2), row(3)]);
    const read = await store.audit.read({ limit: 100 });
    expect(read).toEqual([1, 2, 3].map((n) => ({ sequence: n, json: row(n).json })));
  });

  test("an append tells where its last record stands, and nothing when some of its records were there already", async () => {
    await using store = await open(clock);
    expect(await store.audit.append([row(1), row(2)])).toBe(2);
    expect(await store.audit.append([row(3)])).toBe(3);
    expect(await store.audit.append([row(3), row(4)])).toBeUndefined();
    expect(await store.audit.append([row(4)])).toBeUndefined();
    expect(await store.audit.append([])).toBeUndefined();
    const told = await Promise.all([
      store.audit.append([row(5), row(6)]),
      store.audit.append([row(7)]),
      store.audit.append([row(8), row(9), row(10)]),
    ]);
    expect(told).toEqual([6, 7, 10]);
    const texts = await store.audit.read({ limit: 100 });
    expect(texts.map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for (const [at, n] of [6, 7, 10].entries()) expect(texts[n - 1]?.json, `${at}`).toBe(row(n).json);
  });

  test("appending nothing succeeds", async () => {
    await using store = await open(clock);
    await store.audit.append([]);
    expect(await store.audit.read({ limit: 1 })).toEqual([]);
  });

  test("pages of the log follow each other by sequence number", async () => {
    await using store = await open(clock);
    await store.audit.append(Array.from({ length: 25 }, (_, n) => row(n)));
    const seen: number[] = [];
    for (let page = await store.audit.read({ limit: 10 }); page.length > 0; ) {
      seen.push(...page.map(({ sequence }) => sequence));
      page = await store.audit.read({ limit: 10, after: seen.at(-1) ?? 0 });
    }
    expect(seen).toEqual(Array.from({ length: 25 }, (_, n) => n + 1));
  });

  test("the newest records can be asked for, and come in order", async () => {
    await using store = await open(clock);
    await store.audit.append(Array.from({ length: 25 }, (_, n) => row(n)));
    const sequences = async (query: object) =>
      (await store.audit.read({ limit: 3, newest: true, ...query })).map(({ sequence }) => sequence);
    expect(await sequences({})).toEqual([23, 24, 25]);
    expect(await sequences({ subject: "user-1" })).toEqual([20, 22, 24]);
    expect(await sequences({ after: 24 })).toEqual([25]);
  });

  test("records are found by id, time, subject, client, target, outcome and trace, alone and together", async () => {
    await using store = await open(clock);
    await store.audit.append(Array.from({ length: 12 }, (_, n) => row(n)));
    const found = async (query: object) =>
      (await store.audit.read({ limit: 100, ...query })).map(({ sequence }) => sequence - 1);
    expect(await found({ since: 3000, until: 6000 })).toEqual([3, 4, 5]);
    expect(await found({ subject: "user-1" })).toEqual([1, 3, 5, 7, 9, 11]);
    expect(await found({ client: "client-2" })).toEqual([2, 5, 8, 11]);
    expect(await found({ target: "target-3" })).toEqual([3, 7, 11]);
    expect(await found({ outcome: "refused" })).toEqual([0, 5, 10]);
    expect(await found({ traceId: "trace-7" })).toEqual([7]);
    expect(await found({ id: "record-7" })).toEqual([7]);
    expect(await found({ id: "record-7", subject: "user-0" })).toEqual([]);
    expect(await found({ subject: "user-1", target: "target-3", since: 4000, after: 2 })).toEqual([7, 11]);
    expect(await found({ subject: "' OR 1=1 --" })).toEqual([]);
  });

  test("a record of things that have no subject, client, method, target or trace is kept too", async () => {
    await using store = await open(clock);
    const bare = { subject: undefined, client: undefined, method: undefined, target: undefined, traceId: undefined };
    await store.audit.append([{ ...row(1), ...bare }]);
    expect(await store.audit.read({ limit: 1, outcome: "permitted" })).toHaveLength(1);
  });

  test("an empty column is not an absent one, and any character may be in it", async () => {
    await using store = await open(clock);
    const odd = ["", "a\u0000b", "=", "'; --", "漢字😀", "x".repeat(5000)];
    const bare = { client: undefined, method: undefined, target: undefined, traceId: undefined };
    await store.audit.append([
      { ...row(0), ...bare, id: "none", subject: undefined },
      ...odd.map((text, n) => ({
        ...row(n),
        id: `id-${text}`,
        subject: text,
        client: text,
        target: text,
        traceId: text,
      })),
    ]);
    for (const [n, text] of odd.entries()) {
      const expected = [{ sequence: n + 2, json: row(n).json }];
      for (const name of ["subject", "client", "target", "traceId"])
        expect(await store.audit.read({ limit: 9, [name]: text })).toEqual(expected);
      if (text.length < 1000) expect(await store.audit.read({ limit: 9, id: `id-${text}` })).toEqual(expected);
    }
  });

  test("few matches in a long log are found from either end", async () => {
    await using store = await open(clock);
    const rare = [0, 1, 999, 1000, 1001, 1999, 2500, 3199];
    const all = Array.from({ length: 3200 }, (_, n) => (rare.includes(n) ? { ...row(n), subject: "rare" } : row(n)));
    for (let at = 0; at < all.length; at += 800) await store.audit.append(all.slice(at, at + 800));
    const found = async (query: object) =>
      (await store.audit.read({ limit: 100, subject: "rare", ...query })).map(({ sequence }) => sequence - 1);
    expect(await found({})).toEqual(rare);
    expect(await found({ newest: true })).toEqual(rare);
    expect(await found({ limit: 3 })).toEqual(rare.slice(0, 3));
    expect(await found({ limit: 3, newest: true })).toEqual(rare.slice(-3));
    expect(await found({ after: 1000, until: 2500 * 1000 })).toEqual([1000, 1001, 1999]);
    expect(await found({ after: 1000, until: 2500 * 1000, newest: true, limit: 2 })).toEqual([1001, 1999]);
    expect(await found({ subject: "nobody" })).toEqual([]);
    expect(await store.audit.read({ limit: 1000, after: 2200 })).toHaveLength(1000);
    expect((await store.audit.read({ limit: 1000, newest: true })).at(0)?.sequence).toBe(2201);
  });

  test("a text that no JSON can be is refused", async () => {
    await using store = await open(clock);
    await expect(store.audit.append([row(1), { ...row(2), json: '"\u0000"' }])).rejects.toMatchObject({
      code: "internal",
    });
    expect(await store.audit.read({ limit: 9 })).toEqual([]);
  });
}

function replicasContract(openTwo: OpenTwo): void {
  let now = 1_000_000;
  const clock = () => now;
  const twenty = <T>(stores: readonly [Store, Store], work: (store: Store, n: number) => Promise<T>) =>
    Promise.all(Array.from({ length: 20 }, (_, n) => work(stores[n % 2 === 0 ? 0 : 1], n)));

  test("each sees at once what the other wrote", async () => {
    await using both = await openTwo(clock);
    const [one, two] = both;
    await one.records.put("thing", "a", 1, { index: { grant: "g" } });
    expect(await two.records.get("thing", "a")).toMatchObject({ value: 1 });
    expect(await two.records.deleteWhere("grant", "g")).toBe(1);
    expect(await one.records.get("thing", "a")).toBeUndefined();
    await two.audit.append([row("r1")]);
    expect(await one.audit.read({ limit: 9 })).toHaveLength(1);
  });

  test("of 20 first writers exactly one wins, also over an expired row", async () => {
    await using both = await openTwo(clock);
    const race = () =>
      twenty(both, (store, n) => store.records.put("thing", "a", n, { ifVersion: 0, expiresAt: now + 10 }));
    expect((await race()).filter(Boolean)).toHaveLength(1);
    expect((await race()).filter(Boolean)).toHaveLength(0);
    now += 10;
    const won = await race();
    expect(won.filter(Boolean)).toHaveLength(1);
    expect(await both[0].records.get("thing", "a")).toMatchObject({ value: won.indexOf(true), version: 1 });
  });

  test("of 20 writers of one version exactly one wins", async () => {
    await using both = await openTwo(clock);
    await both[0].records.put("thing", "a", "first");
    const won = await twenty(both, (store, n) => store.records.put("thing", "a", n, { ifVersion: 1 }));
    expect(won.filter(Boolean)).toHaveLength(1);
    expect(await both[1].records.get("thing", "a")).toMatchObject({ value: won.indexOf(true), version: 2 });
  });

  test("of 20 takers exactly one gets the row", async () => {
    await using both = await openTwo(clock);
    await both[0].records.put("code", "a", 1);
    const taken = await twenty(both, (store) => store.records.take("code", "a"));
    expect(taken.filter((one) => one !== undefined)).toHaveLength(1);
  });

  test("20 writes without a version all count", async () => {
    await using both = await openTwo(clock);
    await twenty(both, (store, n) => store.records.put("thing", "a", n));
    expect(await both[0].records.get("thing", "a")).toMatchObject({ version: 20 });
  });

  test("20 writers who read, change and try again lose nothing", async () => {
    await using both = await openTwo(clock);
    await both[0].records.put("counter", "a", 0);
    await twenty(both, async (store) => {
      for (;;) {
        const found = await store.records.get<number>("counter", "a");
        const next = (found?.value ?? 0) + 1;
        if (await store.records.put("counter", "a", next, { ifVersion: found?.version ?? 0 })) return;
      }
    });
    expect(await both[1].records.get("counter", "a")).toMatchObject({ value: 20, version: 21 });
  });

  test("rows that both delete by index are counted once", async () => {
    await using both = await openTwo(clock);
    await twenty(both, (store, n) => store.records.put("thing", `${n}`, n, { index: { grant: "g", user: "u" } }));
    const deleted = await twenty(both, (store, n) =>
      store.records.deleteWhere(n < 10 ? "grant" : "user", n < 10 ? "g" : "u"),
    );
    expect(deleted.reduce((sum, one) => sum + one, 0)).toBe(20);
    expect(await both[0].records.list("thing", { limit: 99 })).toEqual([]);
  });

  test("a row that moves to another index while its first one is deleted is there as a whole", async () => {
    await using both = await openTwo(clock);
    const [one, two] = both;
    for (let round = 0; round < 20; round++) {
      await one.records.put("thing", "a", "old", { index: { grant: "g1" } });
      await Promise.all([
        one.records.deleteWhere("grant", "g1"),
        two.records.put("thing", "a", "new", { index: { grant: "g2" } }),
      ]);
      expect(await one.records.get("thing", "a")).toMatchObject({ value: "new" });
      expect(await two.records.find("thing", "grant", "g2", { limit: 9 })).toHaveLength(1);
      expect(await two.records.find("thing", "grant", "g1", { limit: 9 })).toHaveLength(0);
    }
  });

  test("records of both have sequence numbers without gaps, in each one's order, and nobody ever sees a gap", async () => {
    await using both = await openTwo(clock);
    let writing = true;
    const seen: number[][] = [];
    const reading = (async () => {
      for (; writing; await setImmediate())
        seen.push((await both[0].audit.read({ limit: 1000 })).map(({ sequence }) => sequence));
    })();
    await Promise.all(
      both.map(async (store, at) => {
        for (let n = 0; n < 20; n += 2)
          await Promise.all([
            store.audit.append([row(`${at}-${n}`), row(`${at}-${n}b`)]),
            store.audit.append([row(`${at}-${n + 1}`)]),
          ]);
      }),
    );
    writing = false;
    await reading;
    const read = await both[1].audit.read({ limit: 1000 });
    const upTo = (length: number) => Array.from({ length }, (_, n) => n + 1);
    expect(read.map(({ sequence }) => sequence)).toEqual(upTo(60));
    for (const sequences of seen) expect(sequences).toEqual(upTo(sequences.length));
    for (const at of [0, 1]) {
      const own = read.map(({ json }) => JSON.parse(json) as string).filter((id) => id.startsWith(`${at}-`));
      expect(own).toEqual(
        Array.from({ length: 20 }, (_, n) => (n % 2 === 0 ? [`${at}-${n}`, `${at}-${n}b`] : [`${at}-${n}`])).flat(),
      );
    }
  });

  test("a record that both append is written once", async () => {
    await using both = await openTwo(clock);
    await twenty(both, (store) => store.audit.append([row("same"), row("other"), row("same")]));
    expect((await both[0].audit.read({ limit: 9 })).map(({ sequence }) => sequence)).toEqual([1, 2]);
  });

  function row(id: string): AuditRow {
    const bare = { subject: undefined, client: undefined, method: undefined, target: undefined, traceId: undefined };
    return { ...bare, id, at: 1, outcome: "permitted", json: JSON.stringify(id) };
  }
}

function row(n: number): AuditRow {
  return {
    id: `record-${n}`,
    at: n * 1000,
    subject: `user-${n % 2}`,
    client: `client-${n % 3}`,
    method: "tools/call",
    target: `target-${n % 4}`,
    outcome: n % 5 === 0 ? "refused" : "permitted",
    traceId: `trace-${n}`,
    json: JSON.stringify({ n, text: "naïve 漢字" }),
  };
}
