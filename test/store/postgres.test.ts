import { describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import type { AuditRow } from "../../src/store/ports.ts";
import { postgresStore } from "../../src/store/postgres/postgres.ts";
import { storeContract } from "../contract/store.ts";
import { freshPostgres, onPostgres, postgresClient, startPostgres } from "../global/databases.ts";
import { findPostgres } from "../global/programs.ts";
import { everyStore } from "./backends.ts";
import { eventually, everythingOf, lineTo, rejection } from "./outages.ts";

for (const { name, open, openTwo } of everyStore) if (name === "postgres") storeContract(name, open, openTwo);

describe.skipIf(findPostgres() === undefined)("a PostgreSQL database", () => {
  test("is prepared once by eight replicas that start at the same moment", async () => {
    await using database = await freshPostgres();
    const stores = await Promise.all(Array.from({ length: 8 }, () => postgresStore(database.url)));
    await Promise.all(stores.map((store, n) => store.audit.append([row(`r${n}`)])));
    expect((await stores[0]?.audit.read({ limit: 99 }))?.map(({ sequence }) => sequence)).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    await Promise.all(stores.map((store) => store.close()));
    await using client = await postgresClient(database.url);
    expect((await client.query("SELECT version FROM drawbridge_schema")).rows).toEqual([{ version: 3 }]);
  });

  test("keeps everything while no replica runs, and holds nothing but drawbridge_ tables", async () => {
    await using database = await freshPostgres();
    {
      await using store = await postgresStore(new Secret(database.url));
      await store.records.put("thing", "a", "kept", { index: { grant: "g" } });
      await store.audit.append([row("r1")]);
    }
    await using store = await postgresStore(database.url);
    expect(await store.records.find("thing", "grant", "g", { limit: 9 })).toMatchObject([{ value: "kept" }]);
    await store.audit.append([row("r1"), row("r2")]);
    expect(await store.audit.read({ limit: 9 })).toHaveLength(2);
    await using client = await postgresClient(database.url);
    const { rows } = await client.query("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'");
    expect(rows.map(({ name }) => String(name)).filter((name) => !name.startsWith("drawbridge_"))).toEqual([]);
  });

  test("of a newer version is refused and not changed", async () => {
    await using database = await freshPostgres();
    await (await postgresStore(database.url)).close();
    await onPostgres(database.url, "UPDATE drawbridge_schema SET version = 99");
    await expect(postgresStore(database.url)).rejects.toMatchObject({
      code: "settings_invalid",
      message: expect.stringMatching(/newer Drawbridge \(its schema is 99.*Run the newer version/),
    });
  });

  test("whose encoding cannot hold every text is refused", async () => {
    await using database = await freshPostgres();
    const name = `${new URL(database.url).pathname.slice(1)}_latin`;
    await onPostgres(
      database.url,
      `CREATE DATABASE ${name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`,
    );
    const url = new URL(database.url);
    url.pathname = name;
    await expect(postgresStore(url.href)).rejects.toMatchObject({ message: expect.stringMatching(/LATIN1.*UTF8/) });
    await onPostgres(database.url, `DROP DATABASE ${name}`);
  });

  test("opened for reading only is not made, and never written", async () => {
    await using database = await freshPostgres();
    await expect(postgresStore(database.url, { readOnly: true })).rejects.toMatchObject({
      code: "settings_invalid",
      message: expect.stringMatching(/There is no store/),
    });
    await using writer = await postgresStore(database.url);
    await writer.audit.append([row("r1")]);
    await using reader = await postgresStore(database.url, { readOnly: true });
    expect(await reader.audit.read({ limit: 9 })).toHaveLength(1);
    await expect(reader.audit.append([row("r2")])).rejects.toMatchObject({ code: "internal" });
    await expect(reader.records.put("thing", "a", 1)).rejects.toMatchObject({ code: "internal" });
    await expect(reader.records.take("thing", "a")).rejects.toMatchObject({ code: "internal" });
  });

  test("can be used by a user who may not make tables, once they are there", async () => {
    await using database = await freshPostgres();
    const user = new URL(database.url).pathname.slice(1);
    await (await postgresStore(database.url)).close();
    await onPostgres(
      database.url,
      `CREATE USER ${user} PASSWORD 'plain';
       GRANT SELECT, INSERT, UPDATE, DELETE ON drawbridge_schema, drawbridge_records TO ${user};
       GRANT SELECT, INSERT ON drawbridge_audit TO ${user};
       GRANT SELECT, UPDATE ON drawbridge_audit_last TO ${user};
       GRANT SELECT, INSERT, UPDATE ON drawbridge_audit_heads TO ${user}`,
    );
    const url = Object.assign(new URL(database.url), { username: user, password: "plain" });
    {
      await using store = await postgresStore(url.href);
      await store.records.put("thing", "a", 1);
      await store.audit.append([row("r1")]);
      expect(await store.audit.read({ limit: 9 })).toHaveLength(1);
      expect(await store.records.sweep()).toBe(0);
    }
    await onPostgres(database.url, `DROP OWNED BY ${user}; DROP USER ${user}`);
  });

  test("refuses changes of its log, even by hand", async () => {
    await using database = await freshPostgres();
    await using store = await postgresStore(database.url);
    await store.audit.append([row("r1")]);
    for (const sql of [
      "UPDATE drawbridge_audit SET outcome = ''",
      "DELETE FROM drawbridge_audit",
      "TRUNCATE drawbridge_audit",
    ])
      await expect(onPostgres(database.url, sql)).rejects.toThrow(/append-only/);
  });

  test("commits to disk although the server's default is not to", async () => {
    await using database = await freshPostgres();
    await using store = await postgresStore(database.url);
    await onPostgres(
      database.url,
      `CREATE TABLE seen (setting text);
       CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
       CREATE TRIGGER look AFTER INSERT ON drawbridge_records EXECUTE FUNCTION look();
       CREATE TRIGGER look AFTER INSERT ON drawbridge_audit EXECUTE FUNCTION look();`,
    );
    await store.records.put("thing", "a", 1);
    await store.audit.append([row("r1")]);
    await using client = await postgresClient(database.url);
    expect((await client.query("SHOW synchronous_commit")).rows).toEqual([{ synchronous_commit: "off" }]);
    expect((await client.query("SELECT setting FROM seen")).rows).toEqual([{ setting: "on" }, { setting: "on" }]);
  });

  test("is asked over no more connections than allowed, however much is asked at once", async () => {
    await using database = await freshPostgres();
    await using store = await postgresStore(database.url, { maxConnections: 2 });
    await Promise.all(Array.from({ length: 100 }, (_, n) => store.records.put("thing", `${n}`, n)));
    await using client = await postgresClient(database.url);
    const { rows } = await client.query(
      "SELECT count(*)::int AS n FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'drawbridge'",
    );
    expect(rows).toEqual([{ n: 2 }]);
    expect(await store.records.list("thing", { limit: 1000 })).toHaveLength(100);
  });

  test("that is closed refuses, and closing it twice is closing it once", async () => {
    await using database = await freshPostgres();
    const store = await postgresStore(database.url);
    await Promise.all([store.close(), store.close()]);
    await expect(store.records.put("thing", "a", 1)).rejects.toMatchObject({ code: "internal" });
    await expect(store.audit.append([row("r1")])).rejects.toMatchObject({ code: "internal" });
  });

  test("that ends our connections is asked again over new ones", async () => {
    await using database = await freshPostgres();
    await using store = await postgresStore(database.url);
    await store.records.put("thing", "a", 1);
    await onPostgres(
      database.url,
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    expect(await eventually(() => store.records.get("thing", "a"))).toMatchObject({ value: 1 });
  });

  test("that dies makes operations reject, and has all that was acknowledged when it is back", async () => {
    await using server = await startPostgres();
    await using store = await postgresStore(server.url);
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
    await using database = await freshPostgres();
    await using line = await lineTo(database.url);
    await using store = await postgresStore(line.url);
    await store.records.put("thing", "a", 1);
    line.stall();
    const began = performance.now();
    const asked = Array.from({ length: 30 }, (_, n) =>
      n % 2 === 0 ? store.records.get("thing", "a") : store.audit.append([row(`r${n}`)]),
    );
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.every(({ status }) => status === "rejected")).toBe(true);
    expect(performance.now() - began).toBeLessThan(25_000);
    line.resume();
    expect(await eventually(() => store.records.get("thing", "a"))).toMatchObject({ value: 1 });
  });

  test("is waited for while it starts", async () => {
    await using server = await startPostgres();
    await server.kill();
    const warnings: string[] = [];
    const opening = postgresStore(server.url, { warn: (message) => warnings.push(message) });
    opening.catch(() => {});
    await eventually(async () => expect(warnings.join()).toMatch(/does not answer yet/));
    await server.start();
    await using store = await opening;
    expect(await store.records.get("thing", "a")).toBeUndefined();
  });
});

describe.skipIf(findPostgres() === undefined)("the password of a PostgreSQL URL is in no error", () => {
  const password = "pa55word";

  test.for([
    ["that is wrong", (url: URL) => Object.assign(url, { password })],
    ["for a database that is not there", (url: URL) => Object.assign(url, { pathname: "nowhere" })],
    ["for a server that speaks no TLS", (url: URL) => Object.assign(url, { search: "?sslmode=require" })],
    ["with a certificate that is not there", (url: URL) => Object.assign(url, { search: "?sslrootcert=/nowhere.pem" })],
  ] as const)("%s", async ([, change]) => {
    await using database = await freshPostgres();
    const url = change(new URL(database.url));
    const thrown = await rejection(postgresStore(url.href));
    expect(thrown).toMatchObject({ code: "settings_invalid", message: expect.stringMatching(/cannot be used/) });
    expect(everythingOf(thrown)).not.toContain(url.password);
  });

  test("that cannot be read", async () => {
    for (const url of [`postgres://user:${password}/x@host/name`, `postgres://user:${password}%@[::1/name`]) {
      const thrown = await rejection(postgresStore(url));
      expect(thrown).toMatchObject({ code: "settings_invalid" });
      expect(everythingOf(thrown)).not.toContain(password);
    }
  });

  test("of an operation that fails", async () => {
    await using server = await startPostgres();
    await using store = await postgresStore(server.url);
    await server.kill();
    const thrown = await rejection(store.records.get("thing", "a"));
    expect(everythingOf(thrown)).toContain("internal");
    expect(everythingOf(thrown)).not.toContain(new URL(server.url).password);
  });
});

function row(id: string): AuditRow {
  const bare = { subject: undefined, client: undefined, method: undefined, target: undefined, traceId: undefined };
  return { ...bare, id, at: 1, outcome: "permitted", json: JSON.stringify({ id }) };
}
