import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadSettings } from "../../src/config/load.ts";
import { Secret } from "../../src/core/secret.ts";
import { openStore } from "../../src/store/open.ts";
import { faulty } from "../contract/faulty.ts";
import { everyStore } from "./backends.ts";
import { everythingOf, rejection } from "./outages.ts";

const folder = mkdtempSync(join(tmpdir(), "drawbridge-open-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a store is opened by its setting", () => {
  for (const { name, place } of everyStore) {
    test(`of ${name}, as a text and as a secret, with the clock it is given`, async () => {
      await using data = await place();
      for (const setting of [data.setting, new Secret(data.setting)]) {
        let now = 1000;
        const store = await openStore(setting, { clock: () => now });
        await store.records.put("thing", "a", 1, { expiresAt: 2000 });
        expect(await store.records.get("thing", "a")).toMatchObject({ value: 1 });
        now = 2000;
        expect(await store.records.get("thing", "a")).toBeUndefined();
        await store.close();
      }
    });
  }

  test("a relative file is looked for in the given folder", async () => {
    await (await openStore("sqlite:below/a.db", { baseDirectory: folder })).close();
    await (await openStore(`sqlite:${join(folder, "below/a.db")}`, { readOnly: true })).close();
    await expect(openStore("sqlite:absent.db", { baseDirectory: folder, readOnly: true })).rejects.toMatchObject({
      code: "settings_invalid",
    });
  });

  test("what is no store is refused without being repeated", async () => {
    for (const setting of ["mysql://root:pa55word@host/db", "pa55word", "", "memory2", "redis:pa55word"]) {
      const thrown = await rejection(openStore(new Secret(setting)));
      expect(thrown).toMatchObject({ code: "settings_invalid" });
      expect(everythingOf(thrown)).not.toContain("pa55word");
    }
  });
});

describe("the setting `store`", () => {
  async function stored(store: string, env: Readonly<Record<string, string>> = {}) {
    const file = join(folder, "drawbridge.yaml");
    writeFileSync(file, `store: ${JSON.stringify(store)}\nservers: { a: { command: [node] } }\n`);
    const { settings } = await loadSettings(file, {
      env,
      readSecret: async (name) => ({ password: "s3cret", all: "redis://h", wrong: "mysql://h" })[name],
    });
    return settings.store;
  }

  test.for([
    ["memory", "memory"],
    ["postgres://drawbridge@db.example:5432/drawbridge?sslmode=verify-full", undefined],
    ["postgresql:///drawbridge?host=/var/run/postgresql", undefined],
    ["redis://localhost:6379/2?prefix=one:", undefined],
    ["rediss://cache.example", undefined],
  ] as const)("may be %s", async ([setting, expected]) => {
    expect(await stored(setting)).toBe(expected ?? setting);
  });

  test("may have a secret in it or be one, and is a secret then", async () => {
    const url = await stored("postgres://drawbridge:${secret:password}@db.example/drawbridge");
    expect(url).toBeInstanceOf(Secret);
    expect(url instanceof Secret && url.reveal()).toBe("postgres://drawbridge:s3cret@db.example/drawbridge");
    expect(await stored("${secret:all}")).toBeInstanceOf(Secret);
    expect(await stored("${env:STORE}", { STORE: "postgres://u:p@h/d" })).toBeInstanceOf(Secret);
  });

  test.for([
    ["mysql://db.example/drawbridge", /expected sqlite:<file>, postgres:/],
    ["${secret:wrong}", /expected sqlite:<file>, postgres:/],
    ["postgres://drawbridge:pa55word@db.example/drawbridge", /keep the password out of this file.*secret:database/],
    ["rediss://:pa55word@cache.example", /keep the password out of this file/],
  ] as const)("%s is refused, and says what to write", async ([setting, expected]) => {
    const thrown = await rejection(stored(setting));
    expect(everythingOf(thrown)).toMatch(expected);
    expect(String((thrown as Error).message)).not.toContain("pa55word");
  });
});

describe("a faulty store", () => {
  test("fails its nth operation and no other, before or after it is done", async () => {
    for (const after of [false, true]) {
      await using store = faulty(await openStore("memory"), 2, { after });
      await store.records.put("thing", "a", 1);
      await expect(store.records.put("thing", "a", 2)).rejects.toMatchObject({ code: "internal" });
      expect(await store.records.get("thing", "a")).toMatchObject({ value: after ? 2 : 1 });
      expect(store.operations).toBe(3);
    }
  });

  test("counts only the operations that are asked for", async () => {
    await using store = faulty(await openStore("memory"), 1, { only: ["append"] });
    await store.records.put("thing", "a", 1);
    await expect(store.audit.append([])).rejects.toMatchObject({ code: "internal" });
    await store.audit.append([]);
    expect(store.operations).toBe(2);
  });
});
