import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";
import { afterAll, describe, expect, test } from "vitest";
import type { AuditRow } from "../../src/store/ports.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { storeContract } from "../contract/store.ts";
import { everyStore } from "./backends.ts";

const directory = mkdtempSync(join(tmpdir(), "drawbridge-store-"));
let files = 0;
const newFile = () => join(directory, `store-${++files}`, "drawbridge.db");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

for (const { name, open, openTwo } of everyStore) if (name === "sqlite") storeContract(name, open, openTwo);

describe("the file", () => {
  test("is made with its directory, readable by its owner alone, with what SQLite puts beside it", async () => {
    const file = newFile();
    await using store = sqliteStore(file);
    await store.records.put("thing", "a", 1);
    const mode = (path: string) => (statSync(path).mode & 0o777).toString(8);
    expect(mode(join(file, ".."))).toBe("700");
    expect([file, `${file}-wal`, `${file}-shm`].map(mode)).toEqual(["600", "600", "600"]);
  });

  test("keeps everything over a restart, and closing waits for writes that were asked for", async () => {
    const file = newFile();
    const first = sqliteStore(file);
    const writes = [first.records.put("thing", "a", "kept"), first.audit.append([row("r1")])];
    await first.close();
    await Promise.all(writes);
    await using second = sqliteStore(file);
    expect(await second.records.get("thing", "a")).toMatchObject({ value: "kept", version: 1 });
    expect(await second.audit.read({ limit: 9 })).toHaveLength(1);
  });

  test("holds nothing of a row that was deleted, once its write-ahead log was taken in", async () => {
    const file = newFile();
    const takeIn = () => {
      const database = new DatabaseSync(file);
      database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      database.close();
      return readFileSync(file).includes("a key that is to be destroyed");
    };
    const first = sqliteStore(file);
    for (const id of ["a", "b", "c"]) {
      const value = id === "b" ? "a key that is to be destroyed" : "another key";
      await first.records.put("audit-key", id, value, { index: { person: id } });
    }
    await first.close();
    expect(takeIn()).toBe(true);
    const second = sqliteStore(file);
    expect(await second.records.deleteWhere("person", "b", "audit-key")).toBe(1);
    await second.close();
    expect(takeIn()).toBe(false);
  });

  test("a closed store refuses writes, and closing it twice is closing it once", async () => {
    const store = sqliteStore(newFile());
    await Promise.all([store.close(), store.close()]);
    await expect(store.records.put("thing", "a", 1)).rejects.toMatchObject({ code: "internal" });
  });

  test("of a newer version is refused with a sentence that says what to do", async () => {
    const file = newFile();
    await sqliteStore(file).close();
    const database = new DatabaseSync(file);
    database.exec("PRAGMA user_version = 99");
    database.close();
    expect(() => sqliteStore(file)).toThrow(
      /was written by a newer Drawbridge \(its schema is 99.*Run the newer version/,
    );
  });

  test("of another program is refused and not changed", () => {
    const file = join(directory, "other.db");
    const other = new DatabaseSync(file);
    other.exec("CREATE TABLE theirs (a)");
    other.close();
    expect(() => sqliteStore(file)).toThrow(/is the database of another program/);
    const again = new DatabaseSync(file);
    expect(again.prepare("SELECT name FROM sqlite_schema").all()).toMatchObject([{ name: "theirs" }]);
    expect(again.prepare("PRAGMA journal_mode").get()).toMatchObject({ journal_mode: "delete" });
    again.close();
  });

  test("that is no database, or cannot be made, is refused by name", () => {
    const text = join(directory, "notes.txt");
    writeFileSync(text, "no database, but long enough to have a header of its own\n".repeat(20));
    expect(() => sqliteStore(text)).toThrow(/notes\.txt cannot be used/);
    expect(() => sqliteStore(join(text, "below", "a.db"))).toThrow(/cannot be used/);
  });

  test("two processes may open it at the same time; one of two writers wins", async () => {
    const file = newFile();
    await using one = sqliteStore(file);
    await using two = sqliteStore(file);
    const puts = Array.from({ length: 20 }, (_, n) =>
      (n % 2 ? one : two).records.put("thing", "a", n, { ifVersion: 0 }),
    );
    expect((await Promise.all(puts)).filter(Boolean)).toHaveLength(1);
    await Promise.all(Array.from({ length: 20 }, (_, n) => (n % 2 ? one : two).audit.append([row(`r${n}`)])));
    const sequences = (await one.audit.read({ limit: 100 })).map(({ sequence }) => sequence);
    expect(sequences).toEqual(Array.from({ length: 20 }, (_, n) => n + 1));
  });

  test("opened for reading only is not made, and never written", async () => {
    const file = newFile();
    expect(() => sqliteStore(file, { readOnly: true })).toThrow(/cannot be used/);
    await using writer = sqliteStore(file);
    await writer.audit.append([row("r1")]);
    await using reader = sqliteStore(file, { readOnly: true });
    expect(await reader.audit.read({ limit: 9 })).toHaveLength(1);
    await expect(reader.audit.append([row("r2")])).rejects.toMatchObject({ code: "internal" });
  });
});

test("what was acknowledged is there after the process is killed", async () => {
  const file = newFile();
  const module = new URL("../../src/store/sqlite/sqlite.ts", import.meta.url).href;
  const bare = row("");
  const script = `
    import { writeSync } from "node:fs";
    import { sqliteStore } from ${JSON.stringify(module)};
    const store = sqliteStore(${JSON.stringify(file)});
    for (let n = 0; ; n++) {
      const id = "r" + n;
      await Promise.all([
        store.audit.append([{ ...${JSON.stringify(bare)}, id }]),
        store.records.put("thing", id, n),
      ]);
      writeSync(1, id + "\\n");
    }`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const acknowledged: string[] = [];
  try {
    for await (const line of createInterface(child.stdout)) {
      acknowledged.push(line);
      if (acknowledged.length === 50) child.kill("SIGKILL");
    }
  } finally {
    child.kill("SIGKILL");
  }
  await using store = sqliteStore(file);
  const kept = (await store.audit.read({ limit: 1000 })).length;
  expect(acknowledged.length).toBeGreaterThanOrEqual(50);
  expect(kept).toBeGreaterThanOrEqual(acknowledged.length);
  for (const id of acknowledged) expect(await store.records.get("thing", id)).toBeDefined();
});

describe("the log in the file", () => {
  test("refuses to be changed or deleted from, even by hand", async () => {
    const file = newFile();
    await using store = sqliteStore(file);
    await store.audit.append([row("r1")]);
    const database = new DatabaseSync(file);
    expect(() => database.exec("UPDATE audit SET outcome = 'permitted'")).toThrow(/append-only/);
    expect(() => database.exec("DELETE FROM audit")).toThrow(/append-only/);
    database.close();
  });

  test("is searched through its covering index", async () => {
    const file = newFile();
    await using store = sqliteStore(file);
    await store.audit.append([row("r1")]);
    const database = new DatabaseSync(file);
    const plan = database
      .prepare(
        "EXPLAIN QUERY PLAN SELECT sequence FROM audit INDEXED BY audit_search WHERE sequence > 0 AND subject = 'a'",
      )
      .all();
    database.close();
    expect(JSON.stringify(plan)).toContain("USING COVERING INDEX audit_search");
  });

  test("concurrent appends share commits", async () => {
    const file = newFile();
    await using store = sqliteStore(file);
    await store.audit.append([row("first")]);
    const frame = 4096 + 24;
    const frames = () => Math.floor(statSync(`${file}-wal`).size / frame);
    const before = frames();
    await Promise.all(Array.from({ length: 200 }, (_, n) => store.audit.append([row(`r${n}`)])));
    // A commit of its own would write three pages or more for each record.
    expect(frames() - before).toBeLessThan(200);
    expect(await store.audit.read({ limit: 1000 })).toHaveLength(201);
  });
});

function row(id: string): AuditRow {
  const bare = {
    at: 1,
    subject: undefined,
    client: undefined,
    method: undefined,
    target: undefined,
    traceId: undefined,
  };
  return { ...bare, id, outcome: "permitted", json: "{}" };
}
