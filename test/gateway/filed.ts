/** A gateway that runs on a settings file, which the test changes. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadSettings } from "../../src/config/load.ts";
import type { Actor } from "../../src/gateway/deeds.ts";
import type { Change } from "../../src/gateway/reload.ts";
import type { Logger } from "../../src/observe/logger.ts";
import { openStore } from "../../src/store/open.ts";
import { openedRecords } from "../audit/opened.ts";
import { type World, world } from "../e2e/world.ts";

export interface Filed extends AsyncDisposable {
  readonly world: World;
  readonly folder: string;
  readonly file: string;
  /** Changes top-level settings in the file; undefined takes one away. */
  write(changes: Record<string, unknown>): void;
  writeText(text: string): void;
  secret(name: string, value: string): void;
  reload(): Promise<readonly Change[]>;
  /** What each name in `changes` became, e.g. `servers.a replaced`. */
  reloaded(): Promise<string[]>;
  /** Calls a tool of the owner; its answer, whatever it is. */
  call(name: string, args?: Record<string, unknown>): Promise<Answer>;
  tools(): Promise<string[]>;
  /** Audit records of what operators did, oldest first. */
  deeds(): Promise<Record<string, unknown>[]>;
}

export interface Answer {
  readonly status: number;
  readonly result?: { readonly structuredContent?: Record<string, unknown>; readonly content?: { text: string }[] };
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown };
}

export const TESTER: Actor = { kind: "operator", name: "tester", via: "signal" };

export async function filed(
  settings: Record<string, unknown>,
  {
    secrets = {},
    logger,
    meanwhile,
  }: {
    secrets?: Record<string, string>;
    logger?: Logger;
    /** What the file is changed to as soon as the gateway has read it. */
    meanwhile?: Record<string, unknown>;
  } = {},
): Promise<Filed> {
  const folder = mkdtempSync(join(tmpdir(), "db-filed-"));
  const file = join(folder, "drawbridge.yaml");
  const place = `sqlite:${join(folder, "state", "gateway.db")}`;
  let written: Record<string, unknown> = {};
  const write = (changes: Record<string, unknown>) => {
    written = JSON.parse(JSON.stringify({ ...written, ...changes })) as Record<string, unknown>;
    writeFileSync(file, JSON.stringify(written, null, 2));
  };
  const secret = (name: string, value: string) => {
    mkdirSync(join(folder, "secrets"), { recursive: true, mode: 0o700 });
    writeFileSync(join(folder, "secrets", name), `${value}\n`, { mode: 0o600 });
  };
  for (const [name, value] of Object.entries(secrets)) secret(name, value);
  const one = await world(
    { store: place, ...settings },
    {
      ...(logger !== undefined && { logger }),
      load: (raw) => {
        write(raw);
        const loaded = loadSettings(file, { env: process.env });
        if (meanwhile === undefined) return loaded;
        return loaded.finally(() => write(meanwhile));
      },
    },
  ).catch((error: unknown) => {
    rmSync(folder, { recursive: true, force: true });
    throw error;
  });
  const { access_token: token } = await one.tokens();
  const headers = { "mcp-protocol-version": "2025-11-25" };
  const ask = async (method: string, params: object): Promise<Answer> => {
    const answer = await one.post({ jsonrpc: "2.0", id: 1, method, params }, headers, token);
    const text = await answer.text();
    const json = text.startsWith("event:") || text.startsWith("data:") ? lastEvent(text) : text;
    return { status: answer.status, ...(JSON.parse(json) as object) };
  };
  const reload = () => one.gateway.reload(TESTER);
  return {
    world: one,
    folder,
    file,
    write,
    writeText: (text) => writeFileSync(file, text),
    secret,
    reload,
    reloaded: async () => (await reload()).map(({ setting, change }) => `${setting} ${change}`),
    call: (name, args = {}) => ask("tools/call", { name, arguments: args }),
    async tools() {
      const { result } = await ask("tools/list", {});
      return (result as unknown as { tools: { name: string }[] }).tools.map(({ name }) => name).sort();
    },
    async deeds() {
      const store = await openStore(place, { readOnly: true });
      try {
        const records = await openedRecords(store, { newest: true });
        return records
          .map((record) => record as unknown as Record<string, unknown>)
          .filter(({ action }) => /^(settings|secrets|server)-/.test(String(action)));
      } finally {
        await store.close();
      }
    },
    async [Symbol.asyncDispose]() {
      await one[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function lastEvent(text: string): string {
  const events = text.split("\n").filter((line) => line.startsWith("data:"));
  return events.at(-1)?.slice("data:".length) ?? "null";
}
