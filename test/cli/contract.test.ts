import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { run } from "./terminal.ts";

const desk = join(import.meta.dirname, "../../examples/orders/server.ts");
const env = { PATH: process.env["PATH"] ?? "" };

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "contract-test-"));
});
afterAll(async () => rm(folder, { recursive: true, force: true }));

/** Runs `contract test` over the desk with these tools. */
async function testing(tools: Record<string, unknown>, ...options: string[]) {
  const servers = {
    orders: { command: [process.execPath, desk], environment: { ORDERS_DB: join(folder, "orders.db") } },
  };
  await writeFile(join(folder, "drawbridge.yaml"), JSON.stringify({ servers, tools }));
  return run(["contract", "test", ...options], { cwd: folder, env });
}

const lookUp = {
  from: "orders/get_order",
  title: "Look up an order",
  description:
    "Shows the state of one order. Use it when somebody asks about theirs. Not for finding a number. Returns id and status. One order at a time.",
  input: { order_id: { pattern: "^ORD-[0-9]{6}$", description: "The order's number, e.g. ORD-100007." } },
  output: ["id", "status"],
  access: "read",
};
const example = {
  arguments: { order_id: "ORD-100007" },
  sends: { order_id: "ORD-100007" },
  answer: { id: "ORD-100007", status: "shipped", secret: 1 },
  returns: { id: "ORD-100007", status: "shipped" },
};

test("examples that come about end with 0, and each contract has a line", async () => {
  const { code, stdout } = await testing({ look_up: { ...lookUp, examples: [example] } });
  expect([code, stdout]).toEqual([0, "Definitions from orders.\n\n✓ look_up  1 example\n\n1 contract, 1 example.\n"]);
});

describe("an example that does not come about ends with 1 and shows the difference", () => {
  test.each([
    ["sends", { ...example, sends: { order_id: "ORD-100007", verbose: true } }, "- verbose: true"],
    [
      "returns",
      { ...example, returns: { id: "ORD-100007", status: "paid" } },
      '- status: "paid"\n      + status: "shipped"',
    ],
    ["refused", { ...example, refused: "pattern" }, "it is accepted"],
    ["an argument that is refused", { ...example, arguments: { order_id: "1" } }, "pattern"],
    ["an answer that is withheld", { ...example, answer: "no JSON" }, "withheld"],
  ])("%s", async (_, wrong, shown) => {
    const { code, stdout } = await testing({ look_up: { ...lookUp, examples: [wrong] } });
    expect(code).toBe(1);
    expect(stdout).toContain("✗ look_up");
    expect(stdout).toContain(shown);
    for (const line of stdout.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
  });
});

test("a contract that does not fit its server fails with its place", async () => {
  const { code, stdout } = await testing({
    gone: { from: "orders/nothing" },
    open: { from: "orders/get_customer", input: { customer_id: {} } },
  });
  expect(code).toBe(1);
  expect(stdout).toContain("from: the server does not offer it");
  expect(stdout).toMatch(/input\.customer_id: is text of any length/);
});

test("a tool with steps shows what each step sends", async () => {
  const steps = [
    { id: "found", call: "orders/search_customers", access: "read", with: { query: "=args.name" } },
    { id: "orders", call: "orders/get_customer_orders", access: "read", with: { customer_id: "=steps.found[0].id" } },
  ];
  const input = { name: { maxLength: 10 } };
  const good = {
    arguments: { name: "a" },
    sends: [{ query: "a" }, { customer_id: "CUS-1" }],
    answer: [[{ id: "CUS-1" }], [{ id: "ORD-1" }]],
    returns: [{ id: "ORD-1" }],
  };
  const both = { find: { steps, input, output: ["*/id"], access: "read", examples: [good] } };
  expect((await testing(both)).code).toBe(0);
  const wrong = { ...good, sends: [{ query: "a" }, { customer_id: "CUS-2" }] };
  const { code, stdout } = await testing({ find: { ...both.find, examples: [wrong] } });
  expect(code).toBe(1);
  expect(stdout).toContain('- 1/customer_id: "CUS-2"\n      + 1/customer_id: "CUS-1"');
});

test("with --live reading tools are called, writing ones are not", async () => {
  const write = {
    from: "orders/cancel_order",
    input: { order_id: { maxLength: 10 } },
    output: ["id"],
    access: "destructive",
    examples: [{ arguments: { order_id: "ORD-100007" } }],
  };
  const live = await testing({ look_up: { ...lookUp, examples: [example] }, cancel: write }, "--live");
  expect([live.code, live.stdout]).toEqual([0, expect.stringContaining("1 example, 1 not called")]);
  // The desk knows no such order, which only a call can tell.
  const nobody = { arguments: { order_id: "ORD-999999" } };
  expect((await testing({ look_up: { ...lookUp, examples: [nobody] } })).code).toBe(0);
  expect((await testing({ look_up: { ...lookUp, examples: [nobody] } }, "--live")).code).toBe(1);
});

test("with a lockfile no server is needed, unless its answers or its definitions of today are asked for", async () => {
  const tools = { look_up: { ...lookUp, examples: [example] } };
  await testing(tools);
  const pinned = await run(["pin", "--key", "lock.key"], { cwd: folder, env });
  const [key] = /ed25519:[A-Za-z0-9_-]{43}/.exec(pinned.stdout + pinned.stderr) ?? [];
  const servers = { orders: { command: [process.execPath, "-e", "process.exit(3)"] } };
  const settings = { servers, tools, lock: { keys: [key] } };
  await writeFile(join(folder, "drawbridge.yaml"), JSON.stringify(settings));
  try {
    const locked = await run(["contract", "test"], { cwd: folder, env });
    expect([locked.code, locked.stdout]).toEqual([0, expect.stringContaining("Definitions from the lockfile.")]);
    for (const option of ["--live", "--fresh"])
      expect((await run(["contract", "test", option], { cwd: folder, env })).code).toBe(1);
  } finally {
    await rm(join(folder, "drawbridge.lock"));
  }
});

test("findings about documentation are advice, and fail with --strict", async () => {
  const bare = {
    from: "orders/list_products",
    input: {},
    output: ["*/sku"],
    access: "read",
    description: "List products",
  };
  const advised = await testing({ list_products: bare });
  expect([advised.code, advised.stdout]).toEqual([
    0,
    expect.stringContaining("! description: does not say what it does"),
  ]);
  expect((await testing({ list_products: bare }, "--strict")).code).toBe(1);
});

test("--json says the same to programs", async () => {
  const { code, stdout } = await testing({ look_up: { ...lookUp, examples: [{ ...example, returns: {} }] } }, "--json");
  expect(code).toBe(1);
  expect(JSON.parse(stdout)).toMatchObject({
    ok: false,
    contracts: [
      {
        kind: "tool",
        name: "look_up",
        problems: [],
        findings: [],
        examples: [{ number: 1, mismatches: [{ about: "returns", expected: {}, found: example.returns }] }],
      },
    ],
  });
});

test("settings without contracts, or with mistakes, end with 2", async () => {
  await writeFile(join(folder, "none.yaml"), JSON.stringify({ servers: { a: { command: ["true"] } } }));
  const none = await run(["contract", "test", "none.yaml"], { cwd: folder, env });
  expect([none.code, none.stderr]).toEqual([2, expect.stringContaining("drawbridge init")]);
  expect((await run(["contract", "test", "missing.yaml"], { cwd: folder, env })).code).toBe(2);
  expect((await testing({ x: { from: "orders/get_order", inputs: {} } })).code).toBe(2);
});
