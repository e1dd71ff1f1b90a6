/** Private data, then text of strangers, then an e-mail: on the order desk, for clients of both eras, and for nobody else. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openStore } from "../../src/store/open.ts";
import { deskFolder } from "../examples/desk.ts";
import { newUser, tokensOf } from "./connected.ts";
import { type Json, sdkClient, textOf } from "./held-desk.ts";
import { type World, world } from "./world.ts";

const CONTRACTS = {
  look_up_customer: {
    from: "orders/get_customer",
    description: "Looks a customer up.",
    input: { customer_id: { maxLength: 20 } },
    output: ["id", "name", "email"],
    mask: { name: "redact", email: "token" },
    access: "read",
    openWorld: false,
  },
  read_delivery_note: {
    from: "orders/get_order",
    description: "Reads what a customer wrote for the driver.",
    input: { order_id: { maxLength: 20 } },
    output: ["id", "delivery_note"],
    access: "read",
    openWorld: false,
  },
  write_to_customer: {
    from: "orders/email_customer",
    description: "Sends an e-mail.",
    input: { to: { maxLength: 100 }, subject: { maxLength: 100 }, body: { maxLength: 500 } },
    restores: ["email"],
    access: "write",
    openWorld: true,
  },
  add_note: {
    from: "orders/add_customer_note",
    description: "Adds a note to a file of ours.",
    input: { customer_id: { maxLength: 20 }, note: { maxLength: 200 } },
    access: "write",
    openWorld: false,
  },
};
const PRIVATE = { name: "look_up_customer", arguments: { customer_id: "CUS-0001" } };
const STRANGERS = { name: "read_delivery_note", arguments: { order_id: "ORD-100211" } };
const letter = (subject: string) => ({
  name: "write_to_customer",
  arguments: { to: "somebody@shop.example", subject, body: "Hello." },
});

let folder: string;
let database: string;
let one: World;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "toxic-flow-"));
  database = join(folder, "orders.db");
  one = await world(settings("gateway.db"), { folder: deskFolder });
}, 60_000);
afterAll(async () => {
  await one?.[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

function settings(file: string, more: object = {}): Json {
  const command = [process.execPath, join(deskFolder, "server.ts")];
  return {
    store: `sqlite:${join(folder, file)}`,
    servers: { orders: { command, environment: { ORDERS_DB: database } } },
    tools: CONTRACTS,
    ...more,
  };
}

const sent = (subject: string) => {
  const desk = new DatabaseSync(database, { readOnly: true });
  try {
    return desk.prepare("SELECT count(*) AS n FROM outbox WHERE subject = ?").get(subject)?.["n"];
  } finally {
    desk.close();
  }
};

describe.each(["legacy", "modern"] as const)("a %s client", (era) => {
  test("that read a customer and then met an order in a customer's note has its e-mail approved first", async () => {
    const forms: Json[] = [];
    const { access_token: token } = await one.tokens();
    const client = await sdkClient(one.url, era, token, (params) => {
      forms.push(params);
      return { action: forms.length === 1 ? "decline" : "accept", content: { approve: true } };
    });
    await client.callTool(PRIVATE);
    expect((await client.callTool(letter(`${era} before`))).isError).not.toBe(true);
    expect(forms).toEqual([]);
    const note = await client.callTool(STRANGERS);
    expect(JSON.stringify(note)).toMatch(/\[Drawbridge/);

    const held = await client.callTool(letter(`${era} declined`));
    expect(held.isError).toBe(true);
    expect(textOf(held)).toContain("was not approved");
    expect(String(forms[0]?.["message"])).toContain(
      "the client read private data, and text of people you may not know",
    );
    expect(sent(`${era} declined`)).toBe(0);
    // What stays in the house needs nobody.
    const kept = { name: "add_note", arguments: { customer_id: "CUS-0001", note: "called" } };
    expect((await client.callTool(kept)).isError).not.toBe(true);
    expect(forms).toHaveLength(1);
    expect((await client.callTool(letter(`${era} approved`))).isError).not.toBe(true);
    expect(forms).toHaveLength(2);
    expect(sent(`${era} approved`)).toBe(1);
    await client.close();
  });

  test.each([
    ["read a customer and nothing of strangers", PRIVATE],
    ["met an order and no private data", STRANGERS],
  ])("that %s writes as it likes", async (name, call) => {
    const { access_token: token } = await one.tokens();
    const client = await sdkClient(one.url, era, token);
    await client.callTool(call);
    const written = await client.callTool(letter(`${era} ${name}`));
    expect(written.isError).not.toBe(true);
    expect(sent(`${era} ${name}`)).toBe(1);
    await client.close();
  });

  test("of another user is not asked for what this one has read", async () => {
    const store = await openStore(`sqlite:${join(folder, "gateway.db")}`);
    const { browser } = await newUser(one, store, `walter-${era}`).finally(() => store.close());
    const { access_token: token } = await one.tokens();
    const mine = await sdkClient(one.url, era, token);
    await mine.callTool(PRIVATE);
    await mine.callTool(STRANGERS);
    expect((await mine.callTool(letter(`${era} mine`))).isError).toBe(true);
    const theirs = await sdkClient(one.url, era, (await tokensOf(one, browser)).access_token);
    expect((await theirs.callTool(letter(`${era} theirs`))).isError).not.toBe(true);
    await mine.close();
    await theirs.close();
  });
});

test("nobody is asked when the settings say so", async () => {
  await using other = await world(settings("other.db", { answers: { toxicFlow: "off" } }), { folder: deskFolder });
  const { access_token: token } = await other.tokens();
  const client = await sdkClient(other.url, "modern", token);
  for (const call of [PRIVATE, STRANGERS]) await client.callTool(call);
  expect((await client.callTool(letter("off"))).isError).not.toBe(true);
  await client.close();
});
