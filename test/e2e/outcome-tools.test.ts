/** Tools with steps through a whole gateway: one tool for clients, several calls for the desk behind it, all of them or none. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as LegacyTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { openedIn } from "../audit/opened.ts";
import { waitFor } from "../fixtures/processes.ts";
import { text } from "../fixtures/raw-server.ts";
import { REFUND, type RefundDesk, refundDesk } from "./refund-desk.ts";
import { rawSession } from "./scripted.ts";
import { modernRequest, type World, world } from "./world.ts";

type Json = Record<string, unknown>;
let folder: string;
let file: string;
let desk: RefundDesk;
let one: World;
let token: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "drawbridge-outcome-"));
  file = join(folder, "gateway.db");
  desk = await refundDesk();
  one = await world(settings(`sqlite:${file}`, desk));
  token = (await one.tokens()).access_token;
}, 30_000);
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  await desk?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(() => {
  desk.calls.length = 0;
  desk.refunds.clear();
});
afterEach(() => {
  desk.before = () => undefined;
  desk.after = () => undefined;
});

function settings(store: string, { url }: RefundDesk): Json {
  return {
    store,
    audit: { arguments: "full" },
    servers: { desk: { url } },
    tools: { refund: REFUND },
    listen: { shutdownSeconds: 1 },
  };
}

const ORDER = { order_id: "ORD-1", percent: 50 };

async function call(
  args: Json = ORDER,
  meta: Json = {},
  signal?: AbortSignal,
): Promise<{ result?: Json; error?: Json; said: Json[] }> {
  const [body, headers] = modernRequest("tools/call", { name: "refund", arguments: args, _meta: meta });
  const response = await fetch(one.url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
      authorization: `Bearer ${token}`,
      ...headers,
    },
    body: JSON.stringify(body),
    ...(signal !== undefined && { signal }),
  });
  const answer = await response.text();
  const messages = answer.startsWith("{")
    ? [JSON.parse(answer) as Json]
    : answer.split("\n").flatMap((line) => (line.startsWith("data: {") ? [JSON.parse(line.slice(6)) as Json] : []));
  return { ...(messages.at(-1) as { result?: Json; error?: Json }), said: messages.slice(0, -1) };
}
const textIn = (result: unknown) => (result as { content: { text: string }[] }).content[0]?.text ?? "";
const toolsCalled = () => desk.calls.map(({ tool }) => tool);

/** The newest record of a call, and how many there are. */
function records(of = file): StoredRecord[] {
  const log = new DatabaseSync(of, { timeout: 10_000 });
  try {
    return openedIn(log).filter(({ kind, call: about }) => kind === "call" && about?.method === "tools/call");
  } finally {
    log.close();
  }
}
const outcomes = (record: StoredRecord | undefined) =>
  ((record?.details?.["steps"] ?? []) as Json[]).map(
    ({ step, undo, outcome }) => `${undo ? "undo " : ""}${step} ${outcome}`,
  );

describe("a tool with steps", () => {
  test("is the only tool that clients see, closed and bounded, with annotations of ours", async () => {
    for (const client of [await one.legacy(token), await one.modern(token)]) {
      const { tools } = await client.listTools();
      expect(tools).toHaveLength(1);
      expect(tools[0]).toMatchObject({
        name: "refund",
        description: "Refunds a part of a paid order.",
        inputSchema: {
          required: ["order_id"],
          additionalProperties: false,
          properties: { order_id: { type: "string" }, percent: { type: "integer", default: 100 } },
        },
        annotations: { readOnlyHint: false, destructiveHint: false },
      });
    }
  });

  test("does all its steps and answers with what its contract names, to clients of both eras", async () => {
    for (const client of [await one.legacy(token), await one.modern(token)]) {
      desk.calls.length = 0;
      desk.refunds.clear();
      const answer = await client.callTool({ name: "refund", arguments: ORDER });
      expect(answer.isError).not.toBe(true);
      expect(answer.structuredContent).toEqual({ refund: "RF-1", amount: 20 });
      expect(toolsCalled()).toEqual(["get_order", "create_refund", "approve_refund"]);
      expect([...desk.refunds]).toEqual([["RF-1", "approved"]]);
    }
    expect(new Set(desk.calls.map(({ key }) => key)).size).toBe(3);
  });

  test("refuses arguments that its contract does not take, before any step", async () => {
    const { result } = await call({ order_id: "1; drop" });
    expect(textIn(result)).toContain("The arguments of refund were refused");
    expect(toolsCalled()).toEqual([]);
  });

  test("leaves one record with its steps inside", async () => {
    const before = records().length;
    await call();
    const all = records();
    expect(all).toHaveLength(before + 1);
    const record = all.at(-1);
    expect(record).toMatchObject({ outcome: "permitted", call: { name: "refund" }, arguments: { json: ORDER } });
    expect(outcomes(record)).toEqual(["order done", "refund done", "approve done"]);
    expect(((record?.details?.["steps"] ?? []) as Json[])[1]).toMatchObject({
      server: "desk",
      tool: "create_refund",
      pin: expect.stringMatching(/^sha256:/),
      arguments: { json: { order: "ORD-1", amount: 20 } },
    });
  });

  test("says how far it is to a client that wants to know", async () => {
    const { said } = await call(ORDER, { progressToken: "p" });
    const progress = said.map(({ params }) => params as Json);
    expect(
      progress.map(({ progressToken, progress: at, total, message }) => [progressToken, at, total, message]),
    ).toEqual([
      ["p", 0, 3, "order"],
      ["p", 1, 3, "refund"],
      ["p", 2, 3, "approve"],
    ]);
  });

  test("undoes what was done when a later step fails, and tells the client so in its own words", async () => {
    desk.before = (tool) => (tool === "approve_refund" ? { ...text("secret of the desk"), isError: true } : undefined);
    const { result } = await call();
    expect(result?.["isError"]).toBe(true);
    expect(textIn(result)).toBe(
      'refund failed at its step "approve", because its server reported an error. "refund" had been done and was undone.',
    );
    expect(JSON.stringify(result)).not.toContain("secret");
    expect(desk.refunds.size).toBe(0);
    expect(outcomes(records().at(-1))).toEqual(["order done", "refund done", "approve failed", "undo refund done"]);
  });

  test("changes nothing when what it found is not what it expects", async () => {
    const { result } = await call({ order_id: "ORD-2" });
    expect(textIn(result)).toContain("Nothing was changed.");
    expect(toolsCalled()).toEqual(["get_order"]);
  });

  test("waits for what was sent when its client cancels, sends nothing more and undoes it", async () => {
    const before = records().length;
    const reached = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    desk.after = async (tool) => {
      if (tool !== "create_refund") return undefined;
      reached.resolve();
      await release.promise;
      return undefined;
    };
    const client = await rawSession(one.url, token, "legacy", "{}");
    const params = ['"name":"refund"', `"arguments":${JSON.stringify(ORDER)}`];
    const answered = client.ask("tools/call", params, [], "7").catch(() => undefined);
    await reached.promise;
    await client.post('{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}');
    release.resolve();
    await answered;
    await waitFor(() => records().length > before);
    expect(toolsCalled()).toEqual(["get_order", "create_refund", "reject_refund"]);
    expect(desk.refunds.size).toBe(0);
    const record = records().at(-1);
    expect(record?.outcome).toBe("abandoned");
    expect(outcomes(record)).toEqual(["order done", "refund done", "undo refund done"]);
  });

  test("undoes also when its client has hung up", async () => {
    const reached = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    desk.before = async (tool) => {
      if (tool !== "approve_refund") return undefined;
      reached.resolve();
      await release.promise;
      return { ...text("no"), isError: true };
    };
    const gone = new AbortController();
    const hung = call(ORDER, {}, gone.signal).catch(() => undefined);
    await reached.promise;
    gone.abort();
    await hung;
    release.resolve();
    await waitFor(() => toolsCalled().includes("reject_refund"));
    expect(desk.refunds.size).toBe(0);
  });
});

describe("a step that asks somebody", () => {
  const form = {
    method: "elicitation/create" as const,
    params: {
      message: "Approve the refund?",
      requestedSchema: { type: "object", properties: { sure: { type: "boolean" } }, required: ["sure"] },
    },
  };
  const asks: RefundDesk["before"] = async (tool, { ask }) => {
    if (tool !== "approve_refund") return undefined;
    const { ok } = await ask({ ok: form });
    return ok?.["action"] === "accept" ? undefined : { ...text("not approved"), isError: true };
  };

  async function clients(url: string, own: string, action: "accept" | "decline") {
    const requestInit = { headers: { authorization: `Bearer ${own}` } };
    const answer = () => (action === "accept" ? { action, content: { sure: true } } : { action });
    const capabilities = { elicitation: { form: {} } };
    const legacy = new LegacyClient({ name: "asked", version: "1" }, { capabilities });
    legacy.setRequestHandler(ElicitRequestSchema, answer);
    await legacy.connect(new LegacyTransport(new URL(url), { requestInit }) as never);
    const modern = new ModernClient(
      { name: "asked", version: "1" },
      { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } },
    );
    modern.setRequestHandler("elicitation/create", answer);
    await modern.connect(new ModernTransport(new URL(url), { requestInit }));
    return [legacy, modern];
  }

  test.each(["legacy", "modern"] as const)(
    "is heard by clients of both eras, whatever they say: a desk of the %s era",
    async (era) => {
      await using other = await refundDesk(era);
      await using two = await world(settings("memory", other));
      const { access_token: own } = await two.tokens();
      other.before = asks;
      for (const client of await clients(two.url, own, "accept")) {
        other.refunds.clear();
        const answer = await client.callTool({ name: "refund", arguments: ORDER });
        expect(answer.structuredContent).toEqual({ refund: "RF-1", amount: 20 });
        expect([...other.refunds.values()]).toEqual(["approved"]);
        await client.close();
      }
      for (const client of await clients(two.url, own, "decline")) {
        other.refunds.clear();
        const answer = await client.callTool({ name: "refund", arguments: ORDER });
        expect(textIn(answer)).toContain('"refund" had been done and was undone.');
        expect(other.refunds.size).toBe(0);
        await client.close();
      }
    },
    30_000,
  );
});

test("what a gateway that was stopped left half-done is undone by the next one, and recorded", async () => {
  const place = join(folder, "stopped.db");
  await using other = await refundDesk();
  const first = await world(settings(`sqlite:${place}`, other));
  const { access_token: own } = await first.tokens();
  const never = new Promise<Json>(() => {});
  other.before = (tool) => (tool === "approve_refund" || tool === "reject_refund" ? never : undefined);
  const [body, headers] = modernRequest("tools/call", { name: "refund", arguments: ORDER });
  const answered = first.post(body, headers, own).then(
    (response) => response.text(),
    () => "",
  );
  await waitFor(() => other.calls.some(({ tool }) => tool === "approve_refund"));
  await first[Symbol.asyncDispose]();
  await answered;
  expect([...other.refunds.values()]).toEqual(["open"]);
  other.before = () => undefined;
  await using _second = await world(settings(`sqlite:${place}`, other));
  await waitFor(() => other.refunds.size === 0);
  await waitFor(() => records(place).some(({ details }) => details?.["recovered"] === true));
  const record = records(place).at(-1);
  expect(outcomes(record)).toEqual(["undo refund done"]);
  expect(record).toMatchObject({ outcome: "abandoned", call: { name: "refund" }, details: { unsure: ["approve"] } });
}, 30_000);
