/** An agent that acts on what it never sees: finds the customer, asks for a refund, sends the receipt, all with stand-ins. */
import { mkdtempSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { deskFolder } from "../examples/desk.ts";
import { newUser, tokensOf } from "./connected.ts";
import { type World, world } from "./world.ts";

const MASK = {
  types: { email: "token", phone: "token" },
  fields: { address: "redact", date_of_birth: "redact", notes: "redact" },
  standInsFor: ["search_customers", "email_customer", "run_*"],
};

let folder: string;
let one: World;
let database: string;
/** Every e-mail address and phone number that the desk knows. */
let known: string[];
/** Every byte that reached an agent. */
const received: string[] = [];
const real = globalThis.fetch;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "stand-ins-"));
  database = join(folder, "orders.db");
  const { publicUrl: _, limits: __, ...settings } = parse(await readFile(join(deskFolder, "careless.yaml"), "utf8"));
  one = await world(
    {
      ...settings,
      audit: { arguments: "full", results: "full" },
      mask: MASK,
      store: `sqlite:${join(folder, "gateway.db")}`,
      servers: { orders: { ...settings.servers.orders, environment: { ORDERS_DB: database } } },
    },
    { folder: deskFolder },
  );
  const desk = new DatabaseSync(database, { readOnly: true });
  known = desk
    .prepare("SELECT email, phone FROM customers")
    .all()
    .flatMap(({ email, phone }) => [email, phone])
    .filter((value): value is string => typeof value === "string" && value !== "");
  desk.close();
  // The SDK clients have no other way to the network.
  globalThis.fetch = async (...request) => {
    const response = await real(...request);
    if (String(request[0] instanceof Request ? request[0].url : request[0]).startsWith(one.url))
      void response
        .clone()
        .text()
        .then(
          (text) => received.push(text),
          () => {},
        );
    return response;
  };
}, 60_000);

afterAll(async () => {
  globalThis.fetch = real;
  await one?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

interface Agent {
  callTool(call: { name: string; arguments: Record<string, unknown> }): Promise<unknown>;
}

async function does(agent: Agent, name: string, args: Record<string, unknown>): Promise<string> {
  const { content, isError } = (await agent.callTool({ name, arguments: args })) as {
    content: { text: string }[];
    isError?: boolean;
  };
  const text = content.map((block) => block.text).join("\n");
  if (isError === true) throw new Error(text);
  return text;
}

function query(sql: string): Record<string, unknown>[] {
  const desk = new DatabaseSync(database, { readOnly: true });
  try {
    return desk.prepare(sql).all() as Record<string, unknown>[];
  } finally {
    desk.close();
  }
}

const addressIn = (text: string) => /p-[a-z0-9]{16}@masked\.example/.exec(text)?.[0] ?? "no stand-in";

describe.each(["2025-11-25", "2026-07-28"] as const)("an agent of %s", (revision) => {
  test("finds the customer, asks for a refund and sends the receipt, and no true address or number reaches it", async () => {
    const agent: Agent = revision === "2025-11-25" ? await one.legacy() : await one.modern();
    const order = await does(agent, "get_order", { order_id: "ORD-100211" });
    const address = addressIn(order);
    const found = await does(agent, "search_customers", { query: address });
    expect(addressIn(found)).toBe(address);
    const refund = await does(agent, "create_refund", {
      order_id: "ORD-100211",
      amount: "1.00",
      reason: `For ${revision}`,
    });
    expect(refund).toContain("requested");
    const sent = await does(agent, "email_customer", {
      to: address,
      subject: revision,
      body: `Dear ${address}, 1 GBP.`,
    });
    expect(sent).toBe(`Queued for ${address}`);

    const [{ email, phone } = {}] = query(
      "SELECT c.email, c.phone FROM orders o JOIN customers c ON c.id = o.customer_id WHERE o.id = 'ORD-100211'",
    );
    expect(query(`SELECT recipient, body FROM outbox WHERE subject = '${revision}'`)).toEqual([
      { recipient: email, body: `Dear ${email}, 1 GBP.` },
    ]);
    expect(known).toContain(phone);
    const everything = received.join("\n");
    expect(everything).toContain(address);
    expect(known.filter((value) => everything.includes(value))).toEqual([]);
  });
});

test("the stand-in of another user is worth nothing, and nobody learns what it stood for", async () => {
  const mine = addressIn(await does(await one.legacy(), "get_order", { order_id: "ORD-100211" }));
  const other = await second();
  const theirs = addressIn(await does(other, "get_order", { order_id: "ORD-100211" }));
  expect(theirs).not.toBe(mine);
  await expect(does(other, "email_customer", { to: mine, subject: "stolen", body: "x" })).rejects.toThrow(
    "was not given to you",
  );
  expect(query("SELECT * FROM outbox WHERE subject = 'stolen'")).toEqual([]);
});

test("a tool that is not named gets the stand-in as it is", async () => {
  const agent = await one.legacy();
  const address = addressIn(await does(agent, "get_order", { order_id: "ORD-100211" }));
  await does(agent, "create_refund", { order_id: "ORD-100211", amount: "2.00", reason: address });
  expect(query("SELECT reason FROM refunds WHERE amount_pence = 200 ORDER BY id DESC LIMIT 1")).toEqual([
    { reason: address },
  ]);
});

test("neither the store nor the audit log has a true address or number in it", async () => {
  await one.gateway.close();
  const store = new DatabaseSync(join(folder, "gateway.db"), { readOnly: true });
  const rows = store
    .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")
    .all()
    .flatMap(({ name }) => store.prepare(`SELECT * FROM "${String(name)}"`).all())
    .map((row) =>
      JSON.stringify(row, (_, value) => (value instanceof Uint8Array ? Buffer.from(value).toString("latin1") : value)),
    )
    .join("\n");
  store.close();
  expect(rows.length).toBeGreaterThan(10_000);
  expect(known.filter((value) => rows.includes(value))).toEqual([]);
});

/** A second user with an agent of their own. */
async function second(): Promise<Agent> {
  const store = sqliteStore(join(folder, "gateway.db"));
  try {
    const { browser } = await newUser(one, store, "walter");
    return await one.legacy((await tokensOf(one, browser)).access_token);
  } finally {
    await store.close();
  }
}
