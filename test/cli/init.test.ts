import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { world } from "../e2e/world.ts";
import { run } from "./terminal.ts";

const desk = join(import.meta.dirname, "../../examples/orders/server.ts");
const env = { PATH: process.env["PATH"] ?? "", HOME: tmpdir() };
const { resolve: found } = createRequire(import.meta.url);
const official = (name: string) =>
  join(dirname(found(`@modelcontextprotocol/server-${name}/package.json`)), "dist/index.js");

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "init-test-"));
});
afterEach(async () => rm(folder, { recursive: true, force: true }));

const init = (...argv: string[]) => run(["init", ...argv], { cwd: folder, env });
const read = async (name = "drawbridge.yaml") => parse(await readFile(join(folder, name), "utf8"));

describe.each([
  ["the order desk", [desk]],
  ["server-everything", [official("everything")]],
  ["server-filesystem", [official("filesystem"), "."]],
  ["server-memory", [official("memory")]],
])("what is proposed for %s", (_, command) => {
  test("loads, and its examples come about", { timeout: 90_000 }, async () => {
    const made = await init("--sample", "--", process.execPath, ...command);
    expect(made.code, made.stderr).toBe(0);
    const checked = await run(["config", "check"], { cwd: folder, env });
    expect(checked.code, checked.stdout).toBe(0);
    const tested = await run(["contract", "test"], { cwd: folder, env });
    expect(tested.code, tested.stdout).toBe(0);
    const { tools, roles } = await read();
    expect(Object.keys(tools).length).toBeGreaterThan(2);
    expect(Object.keys(roles)).toEqual(["reader", "writer"]);
    const lines = (await readFile(join(folder, "drawbridge.yaml"), "utf8")).split("\n");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(160);
  });
});

test("the proposal for the desk starts, and serves what it says", { timeout: 60_000 }, async () => {
  await init("--", process.execPath, desk);
  const settings = await read();
  settings.servers.orders.environment = { ORDERS_DB: join(folder, "orders.db") };
  await using started = await world(settings, { folder });
  const client = await started.modern();
  const { tools } = await client.listTools();
  const names = tools.map(({ name }) => name);
  expect(names).toContain("get_order");
  for (const name of ["run_sql", "search_orders", "export_customers"]) expect(names).not.toContain(name);
  const answer = await client.callTool({ name: "get_order", arguments: { order_id: "ORD-100007" } });
  expect(JSON.stringify(answer)).toContain("ORD-100007");
  const tooLong = { order_id: "x".repeat(129) };
  await expect(client.callTool({ name: "get_order", arguments: tooLong })).resolves.toMatchObject({ isError: true });
});

test("what is left out is told with its reason, in the file and beside it", async () => {
  const { stderr } = await init("--", process.execPath, desk);
  const text = await readFile(join(folder, "drawbridge.yaml"), "utf8");
  for (const told of [stderr, text]) expect(told).toMatch(/run_sql: takes SQL/);
  expect(text).toMatch(/# +- delete_customer/);
});

test("with --sample, fields of answers are proposed, without private ones", async () => {
  await init("--sample", "--", process.execPath, desk);
  const { tools } = await read();
  expect(tools.list_products.output.fields).toEqual(["*/sku", "*/name", "*/category", "*/price_pence", "*/stock"]);
  expect(JSON.stringify(tools.list_customers.output)).not.toMatch(/national_insurance|birth|notes/);
  // Asked for with a number that a list told.
  expect(tools.get_order.output.fields).toContain("items/*/sku");
});

test("no file is written over without --force", async () => {
  const file = join(folder, "drawbridge.yaml");
  await writeFile(file, "mine");
  const refused = await init("--", process.execPath, desk);
  expect([refused.code, refused.stderr]).toEqual([2, expect.stringContaining("--force")]);
  expect(await readFile(file, "utf8")).toBe("mine");
  expect((await init("--force", "--", process.execPath, desk)).code).toBe(0);
  expect(await readFile(file, "utf8")).not.toBe("mine");
});

test("a server of a settings file is taken with its settings, and no secret is copied", async () => {
  const orders = {
    command: [process.execPath, desk],
    environment: { ORDERS_DB: join(folder, "orders.db"), API_KEY: "${env:API_KEY}" },
  };
  await writeFile(join(folder, "drawbridge.yaml"), JSON.stringify({ servers: { orders } }));
  const argv = ["init", "orders", "--output", "-"];
  const withKey = { cwd: folder, env: { ...env, API_KEY: "a-very-secret-value" } };
  const { code, stdout } = await run(argv, withKey);
  expect(code).toBe(0);
  expect(stdout).not.toContain("a-very-secret-value");
  expect(parse(stdout).servers.orders.environment.ORDERS_DB).toBe(join(folder, "orders.db"));
  expect(existsSync(join(folder, "-"))).toBe(false);
  const unknown = await run(["init", "nobody", "--output", "-"], withKey);
  expect([unknown.code, unknown.stderr]).toEqual([2, expect.stringContaining("there is orders")]);
});

test("without a server, and with two, it says how it is used", async () => {
  expect(await init()).toMatchObject({ code: 2, stderr: expect.stringContaining("drawbridge init --") });
  expect((await init("orders", "--", "node")).code).toBe(2);
  expect((await init("--")).code).toBe(2);
});

test("a server that does not start is told with what it said", { timeout: 60_000 }, async () => {
  const { code, stderr } = await init("--", process.execPath, "-e", "console.error('no such thing'); process.exit(3)");
  expect(code).toBe(1);
  expect(stderr).toContain("no such thing");
});
