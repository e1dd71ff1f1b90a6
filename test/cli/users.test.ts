/** `drawbridge users`, beside a running gateway. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openStore } from "../../src/store/open.ts";
import { openedRecords } from "../audit/opened.ts";
import { Browser, call, connect, register, running, setUp } from "../oauth/support.ts";
import { everyStore } from "../store/backends.ts";
import { type Operated, operated, until } from "./operated.ts";
import { run } from "./terminal.ts";

let here: Operated;
beforeAll(async () => {
  here = await operated();
});
afterAll(() => here[Symbol.asyncDispose]());

interface Told {
  readonly id: string;
  readonly name: string;
  readonly state: string;
  readonly groups: readonly string[];
  readonly link?: string;
}

/** What a user who was invited does with the link. */
async function accept(link: string, password = "a few calm words"): Promise<Browser> {
  const browser = new Browser(here.live.origin);
  await browser.go(link);
  await browser.submit({ password, again: password });
  return browser;
}

async function tokensOf(browser: Browser) {
  const place = { origin: here.live.origin, base: here.live.gateway.publicUrl, resource: here.live.url };
  const { client } = await here.live.tokens();
  return connect(place as Parameters<typeof connect>[0], browser, { client });
}

describe("a user", () => {
  test("is made with a one-time link, listed without secrets, and signs in", async () => {
    const { code, stdout } = await here.cli([
      "users",
      "create",
      "jane",
      "--group",
      "support",
      "--email",
      "jane@shop.example",
    ]);
    expect(code).toBe(0);
    const link = /http\S+\/setup\/\S+/.exec(stdout)?.[0] ?? "";
    expect(link).toContain(here.live.origin);
    expect(await here.json<Told[]>(["users", "list"])).toMatchObject([
      { name: "olive", state: "active", groups: ["owner"] },
      { name: "jane", state: "invited", groups: ["support"] },
    ]);
    const browser = await accept(link);
    expect(browser.cookieNames).toContain("drawbridge");
    const { stdout: listed } = await here.cli(["users", "list"]);
    expect(listed).toMatch(/^NAME +STATE +GROUPS/);
    expect(listed).toMatch(/jane +active +support +here/);
    expect(`${listed}${JSON.stringify(await here.json(["users", "show", "jane"]))}`).not.toMatch(/argon2/);
    expect(await here.recorded("user-created")).toMatchObject({
      name: "jane",
      groups: ["support"],
      operator: expect.any(String),
    });
  });

  test("that is disabled is refused by the running gateway within a second, and comes back when enabled", async () => {
    const { link = "" } = await here.json<Told>(["users", "create", "kim", "--group", "owner"]);
    const browser = await accept(link);
    const { access_token } = await tokensOf(browser);
    expect(await here.status(access_token)).toBe(200);
    const { code, stdout } = await here.cli(["users", "disable", "kim"]);
    expect(code).toBe(0);
    expect(stdout).toBe("disabled kim; ended 1 grant\n");
    expect(await until(async () => (await here.status(access_token)) === 401)).toBeLessThan(1000);
    expect(await here.recorded("user-changed")).toMatchObject({ change: "disabled", name: "kim" });
    expect(await here.recorded("revoked")).toMatchObject({ what: "user", operator: expect.any(String) });
    await here.cli(["users", "enable", "kim"]);
    expect(await here.json<Told>(["users", "show", "kim"])).toMatchObject({ state: "active" });
    expect(await here.status(access_token)).toBe(401);
  });

  test("gets other groups, which count for the tokens they have", async () => {
    const { link = "" } = await here.json<Told>(["users", "create", "max", "--group", "owner"]);
    const { access_token } = await tokensOf(await accept(link));
    const tools = async () => {
      const list = { jsonrpc: "2.0", id: 1, method: "tools/list", params: {} };
      const answer = await here.live.post(list, { "mcp-protocol-version": "2025-11-25" }, access_token);
      return ((await answer.json()) as { result: { tools: unknown[] } }).result.tools.length;
    };
    expect(await tools()).toBeGreaterThan(0);
    expect((await here.cli(["users", "groups", "max", "--none"])).stdout).toBe("max is in no group\n");
    await until(async () => (await tools()) === 0);
    expect((await here.cli(["users", "groups", "max"])).code).toBe(2);
  });

  test("gets a new password from a pipe, and is signed out", async () => {
    const { link = "" } = await here.json<Told>(["users", "create", "pat"]);
    await accept(link);
    expect((await here.json<unknown[]>(["users", "sessions", "pat"])).length).toBe(1);
    expect(await here.cli(["users", "password", "pat", "--stdin"], { input: "short\n" })).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("at least 12 characters"),
    });
    const { code, stdout } = await here.cli(["users", "password", "pat", "--stdin"], { input: "other calm words\n" });
    expect({ code, stdout }).toEqual({ code: 0, stdout: "pat has a new password, and is signed out everywhere\n" });
    expect(await here.json<unknown[]>(["users", "sessions", "pat"])).toEqual([]);
    const browser = new Browser(here.live.origin);
    await browser.go(`${here.live.origin}/sign-in`);
    await browser.submit({ name: "pat", password: "other calm words" });
    expect(browser.last.text).toContain("<h1>pat</h1>");
    expect((await here.cli(["users", "password", "pat"])).stderr).toContain("users invite pat");
  });

  test("has sessions that are listed and ended one by one", async () => {
    const { link = "" } = await here.json<Told>(["users", "create", "sam"]);
    const browser = await accept(link);
    const [session] = await here.json<{ id: string }[]>(["users", "sessions", "sam"]);
    expect(await here.json(["users", "sessions", "sam", "--end", session?.id.slice(0, 8) ?? ""])).toEqual({ ended: 1 });
    await browser.go(`${here.live.origin}/account`);
    expect(browser.last.text).toContain("Sign in");
    expect(await here.cli(["users", "sessions", "sam", "--end", "nope"])).toMatchObject({ code: 1 });
  });

  test("is removed for good, after a question where somebody is there to answer", async () => {
    await here.cli(["users", "create", "tess"]);
    const asked: string[] = [];
    const answering = (answer: string) => ({
      async ask(question: string) {
        asked.push(question);
        return answer;
      },
    });
    expect(await here.cli(["users", "remove", "tess"], answering("n"))).toMatchObject({ code: 1, stdout: "" });
    expect(asked[0]).toMatch(/Delete tess/);
    expect(await here.cli(["users", "remove", "tess"], answering("y"))).toMatchObject({ code: 0 });
    expect(await here.cli(["users", "show", "tess"])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("`drawbridge users list` shows what there is"),
    });
    await here.cli(["users", "create", "tess"]);
    expect(await here.cli(["users", "remove", "tess", "--yes"], answering("n"))).toMatchObject({ code: 0 });
  });

  test("whose name is taken is not made twice", async () => {
    expect(await here.cli(["users", "create", "olive"])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("is taken"),
    });
    expect(await here.cli(["users", "create", "-x"])).toMatchObject({ code: 2 });
  });
});

test.each(everyStore.filter(({ name }) => name !== "memory"))(
  "on $name the server beside follows, and the change is recorded there",
  async ({ place }) => {
    await using data = await place();
    const store = await openStore(data.setting);
    try {
      await using server = await running({ records: store.records, clients: { registration: "open" } });
      const browser = await setUp(server);
      const { body } = await register(server);
      const { access_token } = await connect(server, browser, { client: String(body["client_id"]) });
      expect((await call(server, access_token)).status).toBe(200);
      expect(await run(["users", "disable", "olive", "--store", data.setting])).toMatchObject({
        code: 0,
        stdout: "disabled olive; ended 1 grant\n",
      });
      const refused = async () => (await call(server, access_token)).status === 401;
      expect(await until(refused)).toBeLessThan(1000);
      const records = await openedRecords(store);
      expect(records.map(({ action }) => action)).toEqual(["user-changed", "revoked"]);
    } finally {
      await store.close();
    }
  },
);

test("a store that cannot be opened from outside says so", async () => {
  expect(await run(["users", "list", "--store", "memory"])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("memory"),
  });
  expect(await run(["users", "list", "--store", "sqlite:./none.db"])).toMatchObject({
    code: 2,
    stderr: expect.stringContaining("no store"),
  });
});

test.each(["users", "clients", "grants", "keys", "doctor"])("help of %s teaches by example", async (command) => {
  expect(await run([command, "--help"])).toMatchObject({ code: 0, stdout: expect.stringContaining("Examples:") });
});
