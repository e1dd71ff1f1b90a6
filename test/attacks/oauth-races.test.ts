import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Store } from "../../src/store/ports.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import {
  authorize,
  connect,
  REDIRECT,
  type Running,
  refresh,
  register,
  running,
  setUp,
  token,
} from "../oauth/support.ts";

const stores: readonly (readonly [string, () => Store & AsyncDisposable])[] = [
  ["memory", () => memoryStore()],
  [
    "SQLite",
    () => {
      const folder = mkdtempSync(join(tmpdir(), "drawbridge-"));
      const store = sqliteStore(join(folder, "drawbridge.db"));
      const close = async () => {
        await store.close();
        rmSync(folder, { recursive: true, force: true });
      };
      return { ...store, close, [Symbol.asyncDispose]: close };
    },
  ],
];

/** Two processes with one store: requests go to the one and the other in turn. */
async function pair(store: Store): Promise<{ first: Running; second: Running; at: (i: number) => Running }> {
  const options = { records: store.records, clients: { registration: "open" }, tokens: { refreshGraceSeconds: 0 } };
  const first = await running(options);
  const second = await running({ ...options, publicUrl: first.base });
  // The second one is reached where it listens, and is called what the first one is called.
  return { first, second, at: (i) => (i % 2 === 0 ? first : second) };
}

describe.each(stores)("on %s, two processes with one store", (_name, open) => {
  test("redeem one code for exactly one of twenty at once", async () => {
    await using store = open();
    const { first, second, at } = await pair(store);
    const browser = await setUp(first);
    const client = String((await register(first)).body["client_id"]);
    const verifier = "r".repeat(64);
    const code = (await authorize(first, browser, { client }, verifier)).searchParams.get("code") ?? "";
    const grant = {
      grant_type: "authorization_code",
      code,
      client_id: client,
      redirect_uri: REDIRECT,
      code_verifier: verifier,
    };
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => token(at(i), grant)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const running of [first, second]) await running[Symbol.asyncDispose]();
  });

  test("refresh with one token for exactly one of twenty at once", async () => {
    await using store = open();
    const { first, second, at } = await pair(store);
    const browser = await setUp(first);
    const client = String((await register(first)).body["client_id"]);
    const { refresh_token } = await connect(first, browser, { client });
    const answers = await Promise.all(Array.from({ length: 20 }, (_, i) => refresh(at(i), client, refresh_token)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const running of [first, second]) await running[Symbol.asyncDispose]();
  });
});
