/** `drawbridge dev`, started from outside: who may come in, what a caller sees and gets, and what becomes of changes. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { main } from "../../src/cli/main.ts";
import type { Terminal } from "../../src/cli/terminal.ts";
import { ANN, asked, type DevWorld, devWorld, type Json, OWNER, SERVER } from "../e2e/dev-world.ts";

const ORDER = { name: "look_up_order", arguments: { order_id: "ORD-100007" } };
const namesIn = (list: unknown) => (list as Json[]).map(({ name }) => name);
const call = (as: object, params: Json, more: Json = {}) => ({
  id: "1",
  as,
  era: "modern",
  method: "tools/call",
  params,
  ...more,
});

/** Collects what a page hears, until it is closed. */
async function listening(world: DevWorld, cookie: string) {
  const ending = new AbortController();
  const { body } = await fetch(`${world.origin}/events`, { headers: { cookie }, signal: ending.signal });
  const heard: { event: string; data: Json }[] = [];
  const waiting = new Set<() => void>();
  const reading = (async () => {
    let text = "";
    for await (const part of (body ?? new ReadableStream()).pipeThrough(new TextDecoderStream())) {
      text += part;
      const whole = text.split("\n\n");
      text = whole.pop() ?? "";
      for (const one of whole) {
        const [, event = "", data = "{}"] = /^event: (.*)\ndata: (.*)$/s.exec(one) ?? [];
        heard.push({ event, data: JSON.parse(data) as Json });
      }
      for (const look of waiting) look();
    }
  })().catch(() => {});
  return {
    heard,
    until: (found: (one: { event: string; data: Json }) => boolean) =>
      new Promise<Json>((resolve) => {
        const look = () => {
          const one = heard.find(found);
          if (one === undefined) return;
          waiting.delete(look);
          resolve(one.data);
        };
        waiting.add(look);
        look();
      }),
    async close() {
      ending.abort();
      await reading;
    },
  };
}

describe("the door", () => {
  let world: DevWorld;
  let cookie: string;
  beforeAll(async () => {
    world = await devWorld(["server.ts", "--port", "0"]);
    cookie = await world.enter();
  }, 120_000);
  afterAll(() => world[Symbol.asyncDispose]());

  test("the launch link gives a cookie that no script and no other site can use, and leads to the page", async () => {
    expect(cookie).toMatch(/^drawbridge-dev-\d+=[\w-]{43}$/);
    const page = await fetch(`${world.origin}/`, { headers: { cookie } });
    expect(page.status).toBe(200);
    const html = await page.text();
    expect(html).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\son\w+=|style=|https?:\/\/(?!www\.w3\.org)/i);
    const policy = page.headers.get("content-security-policy") ?? "";
    expect(policy).toContain("default-src 'none'");
    expect(policy).toContain("script-src 'self'");
    expect(policy).toContain("frame-ancestors 'none'");
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
  });

  test("a link that was used opens nothing, and neither does a wrong one", async () => {
    for (const link of [world.launch, `${world.origin}/?launch=`, `${world.origin}/?launch=${"x".repeat(43)}`]) {
      const again = await fetch(link, { redirect: "manual" });
      expect(again.status).toBe(401);
      expect(again.headers.get("set-cookie")).toBeNull();
    }
    // Whoever is in already may use an old bookmark.
    expect((await fetch(world.launch, { headers: { cookie }, redirect: "manual" })).status).toBe(303);
  });

  test.each(["/", "/page.js", "/events", "/api/see", "/api/call", "/nothing"])(
    "without the cookie there is nothing at %s",
    async (path) => {
      const method = path.startsWith("/api/") ? "POST" : "GET";
      const wrong = cookie.replace(/.{4}$/, "AAAA");
      for (const header of [{}, { cookie: wrong }, { cookie: `x=${cookie.split("=")[1]}` }])
        expect((await fetch(`${world.origin}${path}`, { method, headers: header as never })).status).toBe(401);
    },
  );

  test.each([
    ["another host name", { host: "evil.example" }, 403],
    ["another port", { host: "127.0.0.1:1" }, 403],
    ["another origin", { origin: "https://evil.example" }, 403],
    ["another port's origin", { origin: "http://127.0.0.1:1" }, 403],
    ["no origin", { origin: "" }, 403],
    ["an opaque origin", { origin: "null" }, 403],
    ["a page of the same site", { "sec-fetch-site": "same-site" }, 403],
    ["a page of another site", { "sec-fetch-site": "cross-site" }, 403],
    ["a form", { "content-type": "text/plain" }, 415],
    ["the page itself", {}, 200],
  ])("with the cookie, %s gets what it should", async (_, headers, status) => {
    const own = { cookie, origin: world.origin, "content-type": "application/json", "sec-fetch-site": "same-origin" };
    const sent = Object.fromEntries(Object.entries({ ...own, ...headers }).filter(([, value]) => value !== ""));
    await world.said("loaded version 1");
    const { status: got } = await asked(
      `${world.origin}/api/see`,
      sent,
      "POST",
      JSON.stringify({ as: { ...ANN, role: "reader" }, era: "modern" }),
    );
    expect(got).toBe(status);
  });

  test("it listens on loopback alone, and what it does not know it refuses", async () => {
    expect(new URL(world.origin).hostname).toBe("127.0.0.1");
    expect((await world.api(cookie, "see", { as: ANN, era: "2024" })).status).toBe(400);
    expect((await world.api(cookie, "call", { id: "1" })).status).toBe(400);
    expect((await world.api(cookie, "toString", {})).status).toBe(404);
    expect((await world.api(cookie, "answer", { question: "none", result: {} })).status).toBe(404);
  });

  test("the issuer's key set is public, and its tokens are for the gateway alone", async () => {
    const answer = await fetch(`${world.origin}/.well-known/oauth-authorization-server/issuer`);
    const { issuer, jwks_uri } = (await answer.json()) as { issuer: string; jwks_uri: string };
    expect(issuer).toBe(`${world.origin}/issuer`);
    const { keys } = (await (await fetch(jwks_uri)).json()) as { keys: Json[] };
    expect(keys).toHaveLength(1);
    expect(keys[0]).not.toHaveProperty("d");
    const exchange = await fetch(`${issuer}/token`, {
      method: "POST",
      body: new URLSearchParams({ scope: "mcp:call" }),
    });
    expect(exchange.status).toBe(401);
  });

  test("a bare module has roles by what its tools do", async () => {
    await world.said("loaded version 1");
    const see = async (role: string) => {
      const { body } = await world.api(cookie, "see", { as: { ...ANN, role, groups: [] }, era: "modern" });
      return namesIn((body["lists"] as Json)["tools"]);
    };
    expect(await see("reader")).toEqual(["look_up_order", "wait_for_stock"]);
    expect(await see("writer")).toEqual(["look_up_order", "plan_delivery", "engrave", "wait_for_stock"]);
    expect(await see("nobody")).toEqual([]);
  });
});

describe("a project", () => {
  let world: DevWorld;
  let cookie: string;
  beforeAll(async () => {
    world = await devWorld();
    cookie = await world.enter();
    await world.said("loaded version 1");
  }, 120_000);
  afterAll(() => world[Symbol.asyncDispose]());

  test.each(["modern", "legacy"])("two roles see what is theirs, and how much is not, as a %s client", async (era) => {
    const see = async (as: object) =>
      (await world.api(cookie, "see", { as, era })).body as unknown as { lists: Json; hidden: Json; tokens: number };
    const ann = await see(ANN);
    expect(namesIn(ann.lists["tools"])).toEqual(["look_up_order", "wait_for_stock"]);
    expect(namesIn(ann.hidden["tools"])).toEqual(["plan_delivery", "engrave", "cancel_order"]);
    expect((ann.lists["resourceTemplates"] as Json[]).map(({ uriTemplate }) => uriTemplate)).toEqual([
      "orders://{order_id}",
    ]);
    expect(namesIn(ann.hidden["prompts"])).toEqual(["apology"]);
    const olive = await see(OWNER);
    expect(namesIn(olive.lists["tools"])).toHaveLength(5);
    expect(olive.hidden).toEqual({ tools: [], resources: [], resourceTemplates: [], prompts: [] });
    expect(olive.tokens).toBeGreaterThan(ann.tokens);
  });

  test.each(["modern", "legacy"])(
    "an answer is shown as the agent gets it, beside what the handler returned, as a %s client",
    async (era) => {
      const { body } = await world.api(cookie, "call", call(ANN, ORDER, { era }));
      const { outcome, evidence, bytes, tokens, milliseconds, version } = body as {
        outcome: { result: { structuredContent: { customer: { email: string } } } };
        evidence: { handled: { from: string; threw: boolean; text: string }[]; records: Json[] };
      } & Record<"bytes" | "tokens" | "milliseconds" | "version", number>;
      const { structuredContent } = outcome.result;
      expect(Object.keys(structuredContent)).toEqual(["id", "status", "customer", "items"]);
      expect(structuredContent.customer.email).toMatch(/@masked\.example$/);
      expect(JSON.stringify(outcome)).not.toContain("ann@example.net");
      expect(evidence.handled).toHaveLength(1);
      expect(JSON.parse(evidence.handled[0]?.text ?? "")).toMatchObject({
        cost: 12,
        customer: { email: "ann@example.net" },
      });
      expect(bytes).toBe(Buffer.byteLength(JSON.stringify(outcome.result)));
      expect(tokens).toBeGreaterThan(10);
      expect(milliseconds).toBeGreaterThan(0);
      expect(version).toBe(1);
      expect(evidence.records.at(-1)).toMatchObject({
        outcome: "permitted",
        principal: { subject: "ann", groups: ["support"] },
        call: { method: "tools/call", name: "look_up_order", revision: era === "modern" ? "2026-07-28" : "2025-11-25" },
        decision: { effect: "permit", rule: "support: may access:read" },
      });
    },
  );

  test("what a role may not call is refused by the very gateway, and the record says by which decision", async () => {
    const { body } = await world.api(cookie, "call", call(ANN, { name: "engrave", arguments: { sku: "MUG-01" } }));
    const { outcome, evidence } = body as { outcome: Json; evidence: { handled: unknown[]; records: Json[] } };
    expect(outcome).toMatchObject({ kind: "error", code: -32602 });
    expect(evidence.handled).toEqual([]);
    expect(evidence.records.at(-1)).toMatchObject({ outcome: "refused", decision: { effect: "deny" } });
  });

  test("a scope that a token lacks is asked for, and with it the call goes on to the handler's own failure", async () => {
    const params = { name: "cancel_order", arguments: { order_id: "ORD-100007" } };
    const without = (await world.api(cookie, "call", call(OWNER, params))).body as {
      outcome: Json;
      evidence: { records: Json[] };
    };
    expect(without.outcome).toMatchObject({ kind: "error", status: 403 });
    expect(without.outcome["challenge"]).toContain("This needs the scope orders:cancel.");
    expect(without.evidence.records.at(-1)).toMatchObject({
      decision: { effect: "step-up", scope: "orders:cancel" },
    });
    const owner = { ...OWNER, scopes: [...OWNER.scopes, "orders:cancel"] };
    const { outcome, evidence } = (await world.api(cookie, "call", call(owner, params))).body as {
      outcome: Json;
      evidence: { handled: { threw: boolean; text: string }[] };
    };
    expect(JSON.stringify(outcome)).not.toContain("warehouse");
    expect(evidence.handled[0]).toMatchObject({ threw: true });
    expect(evidence.handled[0]?.text).toMatch(/the warehouse does not answer[\s\S]*server\.ts:\d+/);
  });

  test.each(["modern", "legacy"])(
    "a question of a handler is put to the page, and its answer to the handler, as a %s client",
    async (era) => {
      const page = await listening(world, cookie);
      const params = { name: "engrave", arguments: { sku: "MUG-02" } };
      const calling = world.api(cookie, "call", call(OWNER, params, { era, id: `engrave-${era}` }));
      const told = await page.until(({ event, data }) => event === "told" && data["kind"] === "question");
      expect(told).toMatchObject({
        call: `engrave-${era}`,
        asked: {
          params: { message: "What shall it say?", requestedSchema: { properties: { words: { maxLength: 20 } } } },
        },
      });
      const result = { action: "accept", content: { words: "Hello" } };
      expect((await world.api(cookie, "answer", { question: told["question"], result })).status).toBe(200);
      const { outcome } = (await calling).body as { outcome: { result: Json } };
      expect(outcome.result["structuredContent"]).toEqual({ sku: "MUG-02", words: "Hello" });
      await page.close();
    },
  );

  test("progress is told while a call goes on, and a call can be cancelled", async () => {
    const page = await listening(world, cookie);
    const calling = world.api(cookie, "call", call(ANN, { name: "wait_for_stock", arguments: {} }, { id: "waits" }));
    const told = await page.until(({ data }) => data["kind"] === "notification");
    expect(told).toMatchObject({
      method: "notifications/progress",
      params: { progress: 1, message: "asked the warehouse" },
    });
    await world.api(cookie, "cancel", { id: "waits" });
    const { status, body } = await calling;
    expect(status).toBeGreaterThanOrEqual(400);
    expect(body).toMatchObject({ error: { code: "cancelled" } });
    await page.close();
  });

  test("a call that waits for somebody's approval is approved as somebody else, and then made", async () => {
    const params = {
      name: "plan_delivery",
      arguments: { order_id: "ORD-100007", day: "2026-12-01", way: "post", boxes: 21, fragile: true },
    };
    const first = (
      await world.api(cookie, "call", call(OWNER, { ...params, arguments: { ...params.arguments, boxes: 2 } }))
    ).body;
    const approval = ((first["outcome"] as { result: Json }).result["_meta"] as Json)["drawbridge/approval"] as Json;
    expect(approval).toMatchObject({ state: "pending" });
    const decide = (role: string) =>
      world.api(cookie, "decide", { number: approval["approval"], verdict: "approve", role });
    expect((await decide("support")).status).toBeGreaterThanOrEqual(400);
    expect(await decide("owner")).toMatchObject({ status: 200, body: { state: "approved" } });
    const again = (
      await world.api(cookie, "call", call(OWNER, { ...params, arguments: { ...params.arguments, boxes: 2 } }))
    ).body;
    expect(JSON.stringify(again["outcome"])).toContain("planned");
    // What does not fit its schema is never held.
    const refused = (await world.api(cookie, "call", call(OWNER, params))).body;
    expect(JSON.stringify(refused["outcome"])).toMatch(/boxes/);
  });

  test("resources and prompts are got as tools are called", async () => {
    const read = await world.api(
      cookie,
      "call",
      call(ANN, { uri: "orders://ORD-100007" }, { method: "resources/read" }),
    );
    expect(JSON.stringify(read.body["outcome"])).toContain("shipped");
    expect(JSON.stringify(read.body["outcome"])).not.toContain("cost");
    const got = await world.api(
      cookie,
      "call",
      call(OWNER, { name: "apology", arguments: { order_id: "ORD-100007" } }, { method: "prompts/get" }),
    );
    expect(JSON.stringify(got.body["outcome"])).toContain("Write to the customer of ORD-100007");
  });

  test("it grades the tools as `check` does", async () => {
    const { body } = await world.api(cookie, "grade", {});
    expect(body).toMatchObject({ grades: { overall: "A" }, findings: expect.any(Array) });
  });

  test("nothing of it is kept in the project", () => {
    expect(readdirSync(world.folder).sort()).toEqual(["drawbridge.yaml", "node_modules", "orders.ts", "server.ts"]);
  });
});

describe("changes", () => {
  test("what is saved is served; what is broken is told with its place, the version before goes on, and the page hears of all", async () => {
    await using world = await devWorld();
    const cookie = await world.enter();
    await world.said("loaded version 1");
    const page = await listening(world, cookie);
    const titles = async () => {
      const { body } = await world.api(cookie, "see", { as: ANN, era: "modern" });
      return ((body["lists"] as Json)["tools"] as Json[]).map(({ title }) => title);
    };

    // The module itself.
    world.edit("server.ts", (text) => text.replace("Look up an order", "Find an order"));
    await world.said("loaded version 2");
    expect(await titles()).toEqual(["Find an order", "Wait for stock"]);
    await page.until(({ event, data }) => event === "state" && data["version"] === 2);

    // What it imports, broken and then mended.
    const before = readFileSync(join(world.folder, "orders.ts"), "utf8");
    world.edit("orders.ts", () => `\n\nexport const orders = new Map((;\n`);
    await world.said("not loaded");
    const broken = await page.until(({ event, data }) => event === "state" && data["problem"] !== undefined);
    expect(broken).toMatchObject({ version: 2, problem: { frame: { file: expect.stringMatching(/orders\.ts$/) } } });
    expect((broken["problem"] as Json)["message"]).toMatch(/orders\.ts:3\)/);
    expect(world.output()).toMatch(/Version 2 goes on[\s\S]*orders\.ts:3/);
    expect(await titles()).toEqual(["Find an order", "Wait for stock"]);
    world.edit("orders.ts", () => before.replace("shipped", "delivered"));
    await world.said("loaded version 3");
    await page.until(({ event, data }) => event === "state" && data["version"] === 3 && data["problem"] === undefined);
    const { body } = await world.api(cookie, "call", call(ANN, ORDER));
    expect(body["outcome"]).toMatchObject({ result: { structuredContent: { status: "delivered" } } });

    // What is careless in it, with the line of its declaration.
    world.edit("server.ts", (text) => text.replace('access: "read",\n  mask', "mask"));
    await world.said(/server\.ts:\d+ tool look_up_order: access is missing/);
    world.edit("server.ts", (text) => text.replace(' "./orders.ts"', ' "./nowhere.ts"'));
    await world.said(/Cannot find module[\s\S]*server\.ts:3/);

    // The settings.
    world.edit("server.ts", () => SERVER);
    await world.said("loaded version 4");
    world.edit("drawbridge.yaml", (text) => text.replace('may: ["access:read"', 'may: ["engrave"'));
    await world.said("loaded version 5");
    expect(await titles()).toEqual(["Engrave a mug"]);
    world.edit("drawbridge.yaml", (text) => text.replace("roles:", "rolls:"));
    await world.said(/drawbridge\.yaml:3:1 rolls: [\s\S]*roles/);
    await page.close();
  }, 120_000);

  test("a server that cannot be loaded at first is tried again when it is mended", async () => {
    await using world = await devWorld(["server.ts"], { "server.ts": "export const nothing = 1;\n" });
    await world.said("exports no server");
    const cookie = await world.enter();
    expect((await world.api(cookie, "see", { as: ANN, era: "modern" })).body).toMatchObject({
      error: { message: expect.stringMatching(/No version/) },
    });
    world.edit("server.ts", () => SERVER.replace('import { orders } from "./orders.ts";', "const orders = new Map();"));
    await world.said("loaded version 1");
  }, 120_000);

  test("a handler that never gives way, and one that ends the process, are survived", async () => {
    await using world = await devWorld();
    const cookie = await world.enter();
    await world.said("loaded version 1");
    world.edit(
      "orders.ts",
      (text) =>
        `${text}\nconst found = orders.get.bind(orders);\norders.get = (id) => { if (id === "ORD-000001") for (;;); if (id === "ORD-000002") process.exit(7); return found(id); };\n`,
    );
    await world.said("loaded version 2");
    const endless = world.api(
      cookie,
      "call",
      call(ANN, { name: "look_up_order", arguments: { order_id: "ORD-000001" } }),
    );
    world.edit("orders.ts", (text) => `${text}\n`);
    await world.said("loaded version 3");
    expect((await world.api(cookie, "call", call(ANN, ORDER, { id: "2" }))).status).toBe(200);
    expect((await endless).body).toMatchObject({ error: { message: expect.stringMatching(/loaded anew/) } });
    const from = world.output().length;
    const ended = await world.api(
      cookie,
      "call",
      call(ANN, { name: "look_up_order", arguments: { order_id: "ORD-000002" } }),
    );
    expect(ended.body).toMatchObject({ error: {} });
    await world.said("ended by itself: exit code 7", from);
    world.edit("orders.ts", (text) => `${text}\n`);
    await world.said(/loaded version [45]/, from);
    expect((await world.api(cookie, "call", call(ANN, ORDER, { id: "3" }))).status).toBe(200);
  }, 120_000);
});

describe("the command", () => {
  const onLinux = test.runIf(existsSync("/proc/self/status"));
  onLinux(
    "an interrupt ends it cleanly, with every process of it",
    async () => {
      await using world = await devWorld();
      await world.said("loaded version 1");
      const processes = childrenOf(world.child.pid ?? 0);
      expect(processes.length).toBeGreaterThan(0);
      world.child.kill("SIGINT");
      expect(await world.ended()).toBe(0);
      await expect.poll(() => processes.filter(alive), { timeout: 45_000 }).toEqual([]);
    },
    120_000,
  );

  onLinux(
    "its processes end with it when nobody could tell them",
    async () => {
      await using world = await devWorld();
      await world.said("loaded version 1");
      const processes = childrenOf(world.child.pid ?? 0);
      world.child.kill("SIGKILL");
      await world.ended();
      await expect.poll(() => processes.filter(alive), { timeout: 45_000 }).toEqual([]);
    },
    120_000,
  );

  test.each([
    [["nothing.ts"], "There is no"],
    [[".."], "There is nothing to try"],
    [["--port", "99999"], "whole number"],
    [["--", "node", "server.js"], "cannot be tried here"],
  ])("%j is refused with words", async (words, said) => {
    const { terminal, errors } = inProcess();
    expect(await main(["dev", ...words], terminal)).toBe(2);
    expect(errors()).toContain(said);
  });

  test.each([
    ["a terminal", true, [], true],
    ["a terminal, told not to", true, ["--no-open"], false],
    ["no terminal", false, [], false],
    ["no terminal, told to", false, ["--open"], true],
  ])(
    "with %s it opens the page, or does not",
    async (_, isTTY, words, opens) => {
      const { terminal, opened, errors } = inProcess(isTTY);
      expect(await main(["dev", "server.ts", ...words], terminal), errors()).toBe(0);
      expect(opened()).toEqual(opens ? [expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+\/\?launch=[\w-]{43}$/)] : []);
    },
    120_000,
  );
});

const lonely = mkdtempSync(join(tmpdir(), "drawbridge-dev-none-"));
const scripted = join(lonely, "with");
mkdirSync(scripted);
writeFileSync(join(scripted, "server.ts"), "export const nothing = 1;\n");
afterAll(() => rmSync(lonely, { recursive: true, force: true }));

/** A terminal of this process, from which the command is stopped as soon as it is up. */
function inProcess(isTTY = false) {
  let errors = "";
  const opened: string[] = [];
  const up = Promise.withResolvers<void>();
  const terminal = {
    cwd: scripted,
    home: lonely,
    platform: process.platform,
    env: { PATH: process.env["PATH"], NO_COLOR: "1" },
    stdout: { isTTY, write() {} },
    stderr: {
      write(text: string) {
        errors += text;
        // Whatever there is to say of a server that is none.
        if (errors.includes("not loaded")) up.resolve();
      },
    },
    stopped: () => up.promise,
    openBrowser: (url: URL) => opened.push(url.href),
  } as unknown as Terminal;
  return { terminal, errors: () => errors, opened: () => opened };
}

/** Processes that this one has started and that live, by what the system says. */
function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        return new RegExp(`^PPid:\\t${pid}$`, "m").test(readFileSync(`/proc/${name}/status`, "utf8"));
      } catch {
        return false;
      }
    })
    .map(Number);
}

function alive(pid: number): boolean {
  try {
    return !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}
