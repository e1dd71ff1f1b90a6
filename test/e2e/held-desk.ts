/** A desk whose calls wait for people: a gateway in front of it, those people with clients of their own, and the record of it all. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as LegacyTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { usersIn } from "../../src/oauth/people/users.ts";
import { openStore } from "../../src/store/open.ts";
import { openedRecords } from "../audit/opened.ts";
import type { Era } from "../fixtures/messages.ts";
import { Browser, connect, PASSWORD, type Running, register } from "../oauth/support.ts";
import { type RefundDesk, refundDesk } from "./refund-desk.ts";
import { freePort } from "./replica.ts";
import { modernRequest, type World, world } from "./world.ts";

export type Json = Record<string, unknown>;

export interface HeldDesk extends AsyncDisposable {
  readonly desk: RefundDesk;
  readonly folder: string;
  readonly settings: Json;
  /** The gateway that runs now. */
  readonly gateway: World;
  readonly url: string;
  /** Stops the gateway and starts it again, on the same store and port; with other settings where they are named. */
  restart(changes?: Json): Promise<void>;
  /** A token of somebody through a client of their own; another client each time. */
  token(name: "olive" | "sam" | "lea" | "max", scope?: string): Promise<string>;
  admin(method: "GET" | "POST", path: string, token: string): Promise<{ readonly status: number; readonly body: Json }>;
  /** What is recorded of approvals, oldest first. */
  steps(): Promise<(Json & { action: string; details: Json })[]>;
  /** The records of tool calls, oldest first. */
  calls(): Promise<(Json & { outcome: string; details?: Json })[]>;
}

export const ROLES = {
  roles: {
    owner: { may: ["*"] },
    support: { may: ["*"] },
    "shift-lead": { may: ["*"] },
  },
  assign: [
    { role: "owner", group: "owner" },
    { role: "support", group: "support" },
    { role: "shift-lead", group: "leads" },
  ],
};

const order = { type: "string", maxLength: 2000 };
/** Contracts over the tools of the desk. */
export const TOOLS = {
  look_up: { from: "desk/get_order", description: "Look up an order.", access: "read" },
  refund: {
    from: "desk/create_refund",
    title: "Make a refund",
    description: "Refunds an order.",
    access: "destructive",
    openWorld: false,
    input: { order, amount: { type: "number" } },
    unproven: "accept",
  },
} as const;

export interface DeskOptions {
  readonly settings: Json;
  readonly store?: string;
  readonly era?: Era;
}

export async function heldDesk({ settings, store, era }: DeskOptions): Promise<HeldDesk> {
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-held-"));
  const desk = await refundDesk(era);
  const port = await freePort();
  const place = store ?? `sqlite:${join(folder, "gateway.db")}`;
  let all: Json = {
    store: place,
    publicUrl: `http://127.0.0.1:${port}`,
    servers: { desk: { url: desk.url } },
    tools: TOOLS,
    ...ROLES,
    audit: { arguments: "full" },
    control: { socket: join(folder, "control.sock") },
    ...settings,
    listen: { port, shutdownSeconds: 1 },
  };
  let gateway = await world(all, { folder });
  const within = await openStore(place);
  for (const [name, groups] of [
    ["sam", ["support"]],
    ["lea", ["leads"]],
    ["max", ["support"]],
  ] as const)
    await usersIn(within.records).create({ name, email: undefined, password: PASSWORD, groups: [...groups] });
  const browsers = new Map<string, Browser>();
  const recorded = async (kind: string) => {
    const rows = await openedRecords(within, { newest: true });
    return rows.map((record) => record as unknown as Json).filter((one) => one["kind"] === kind);
  };
  return {
    desk,
    folder,
    get settings() {
      return all;
    },
    get gateway() {
      return gateway;
    },
    get url() {
      return gateway.url;
    },
    async restart(changes = {}) {
      await gateway[Symbol.asyncDispose]();
      all = { ...all, ...changes };
      gateway = await world(all, { folder });
    },
    async token(name, scope) {
      if (name === "olive") return (await gateway.tokens(scope === undefined ? {} : { scope })).access_token;
      const here = { origin: gateway.origin, base: gateway.gateway.publicUrl, resource: gateway.url } as Running;
      let browser = browsers.get(name);
      if (browser === undefined) {
        browser = new Browser(gateway.origin);
        await browser.go(`${gateway.origin}/sign-in`);
        await browser.submit({ name, password: PASSWORD });
        browsers.set(name, browser);
      }
      const client = String((await register(here)).body["client_id"]);
      return (await connect(here, browser, { client, scope: scope ?? "mcp:read mcp:call" })).access_token;
    },
    async admin(method, path, token) {
      const headers = { authorization: `Bearer ${token}` };
      const answer = await fetch(`${gateway.origin}/admin/approvals${path}`, { method, headers });
      return { status: answer.status, body: (await answer.json()) as Json };
    },
    steps: async () => (await recorded("approval")) as (Json & { action: string; details: Json })[],
    calls: async () =>
      (await recorded("call")).filter((one) => (one["call"] as Json)["method"] === "tools/call") as (Json & {
        outcome: string;
        details?: Json;
      })[],
    async [Symbol.asyncDispose]() {
      await gateway[Symbol.asyncDispose]();
      await within.close();
      await desk[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export type Answers = (params: Json) => Json | Promise<Json>;
type AnyClient = Pick<LegacyClient, "callTool" | "close" | "listTools" | "readResource" | "getPrompt">;

/** An SDK client; with `answers` it can be asked, and answers so. */
export async function sdkClient(url: string, era: Era, token: string, answers?: Answers): Promise<AnyClient> {
  const capabilities = answers === undefined ? {} : { elicitation: { form: {} } };
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  if (era === "legacy") {
    const client = new LegacyClient({ name: "agent", version: "1" }, { capabilities });
    if (answers !== undefined)
      client.setRequestHandler(ElicitRequestSchema, async ({ params }) => (await answers(params)) as never);
    await client.connect(new LegacyTransport(new URL(url), { requestInit }) as never);
    return client;
  }
  const client = new ModernClient(
    { name: "agent", version: "1" },
    { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } },
  );
  if (answers !== undefined)
    client.setRequestHandler("elicitation/create", async ({ params }) => (await answers(params as Json)) as never);
  await client.connect(new ModernTransport(new URL(url), { requestInit }));
  return client as unknown as AnyClient;
}

export interface RawAnswer {
  readonly status: number;
  readonly result?: Json;
  readonly error?: { readonly code: number; readonly message: string; readonly data?: Json };
}

/** One call of 2026-07-28 by hand, of a client that can be asked unless it is said otherwise. */
export async function rawCall(
  url: string,
  token: string,
  params: Json,
  {
    method = "tools/call",
    capabilities = { elicitation: { form: {} } },
  }: { method?: string; capabilities?: Json } = {},
): Promise<RawAnswer> {
  const meta = { "io.modelcontextprotocol/clientCapabilities": capabilities };
  const [body, headers] = modernRequest(method, { ...params, _meta: meta });
  const response = await fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${token}`,
      ...headers,
    },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  const last = text.split("\n").findLast((line) => line.startsWith("data: {"));
  return { status: response.status, ...(JSON.parse(last === undefined ? text : last.slice(6)) as object) };
}

export const textOf = (result: unknown) => (result as { content?: { text: string }[] })?.content?.[0]?.text ?? "";
/** The number of a request, as an answer names it. */
export const numberIn = (text: string) => /[0-9A-Z]{4}-[0-9A-Z]{4}/.exec(text)?.[0] ?? "";
export const stateOf = (answer: RawAnswer) => String(answer.result?.["requestState"]);
export const approve = { user_approve: { action: "accept", content: { approve: true } } };
