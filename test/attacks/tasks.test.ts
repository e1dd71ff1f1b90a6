/**
 * Tasks in hostile hands. A name of a task is good for the user and client that made it, while they may call its tool, and for
 * nobody else: everybody else is told what is said of a task that never was.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { newToken } from "../../src/core/ids.ts";
import { sqliteStore } from "../../src/store/sqlite/sqlite.ts";
import { openedRecords } from "../audit/opened.ts";
import { legacySession } from "../e2e/legacy-client.ts";
import { ERAS, scripted } from "../e2e/scripted.ts";
import { madeBy, type TaskClient, taskClient } from "../e2e/tasking.ts";
import { type World, world } from "../e2e/world.ts";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";

describe.each(ERAS)("at a %s server", (serverEra) => {
  let one: World;
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-task-attacks-"));
  const database = join(folder, "store.db");
  beforeAll(async () => {
    one = await world({
      store: `sqlite:${database}`,
      servers: { every: { command: fixtureCommand("everything/stdio", ["--era", serverEra]), processes: { max: 2 } } },
    });
  }, 30_000);
  afterAll(async () => {
    await one?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  const client = async (era: (typeof ERAS)[number]) => taskClient(one.url, (await one.tokens()).access_token, era);
  const everything = (of: TaskClient, taskId: unknown) =>
    Promise.all(
      (of.era === "legacy"
        ? ["tasks/get", "tasks/result", "tasks/cancel"]
        : ["tasks/get", "tasks/update", "tasks/cancel"]
      ).map(async (method) => {
        const { status, error } = await of.ask(method, {
          taskId,
          ...(method === "tasks/update" && { inputResponses: {} }),
        });
        return [status, error];
      }),
    );

  describe.each(ERAS)("with %s clients", (era) => {
    verifies("tasks-isolation", "another client's task is answered as one that never was, to the letter", async () => {
      const mine = await client(era);
      const other = await client(era);
      const { taskId } = await mine.begin("job-only", { tag: "secret", ms: 60_000 });
      const never = await everything(other, newToken());
      expect(await everything(other, taskId)).toEqual(never);
      // The server's own names, with which it would tell anybody anything, and what is no name at all.
      for (const guess of ["task-1", "task-2", `${taskId}x`, taskId.slice(1), "../task", "", "a.b", "x".repeat(5000)])
        expect(await everything(other, guess), guess.slice(0, 50)).toEqual(never);
      if (era === "legacy") expect((await other.ask("tasks/list")).result).toEqual({ tasks: [] });
      expect((await mine.state(taskId)).result?.["status"]).toBe("working");
      await mine.cancel(taskId);
    });
  });

  verifies("tasks-isolation", "a task outlives neither the role nor the scope that it was made with", async () => {
    const { access_token, client: id } = await one.tokens();
    const mine = await taskClient(one.url, access_token, "modern");
    const { taskId } = await mine.begin("job-only", { tag: "scoped", ms: 60_000 });
    const reader = await one.tokens({ scope: "mcp:read" });
    expect(id).not.toBe(reader.client);
    const weak = await taskClient(one.url, reader.access_token, "modern");
    expect((await weak.state(taskId)).status).toBe(403);
  });

  verifies(
    "tasks-limits",
    "nobody has more than fifty tasks, and those that are over give way",
    async () => {
      const mine = await client("modern");
      const { taskId: over } = await mine.begin("job-only", { tag: "over" });
      await mine.end(over);
      const tasks: string[] = [];
      for (let at = 0; at < 50; at++) tasks.push((await mine.begin("job-only", { tag: `m${at}`, ms: 60_000 })).taskId);
      expect((await mine.state(over)).error?.code).toBe(-32602);
      const refused = await mine.call("job-only", { tag: "too many" });
      expect([refused.status, refused.error?.code]).toEqual([429, -31429]);
      const others = await client("modern");
      expect((await others.begin("job-only", { tag: "others" })).taskId).toBeDefined();
      await mine.cancel(tasks[0] ?? "");
      await waitFor(async () => (await mine.call("job-only", { tag: "again" })).result);
    },
    30_000,
  );

  test("what is kept of a task in the store is sealed", async () => {
    const mine = await client("modern");
    const { taskId } = await mine.begin("job-only", { tag: "do-not-read-this", ms: 60_000 });
    const store = await sqliteStore(database);
    try {
      const rows = await store.records.list("task", { limit: 1000 });
      expect(rows.some(({ id }) => id.endsWith(taskId))).toBe(true);
      expect(JSON.stringify(rows)).not.toMatch(/do-not-read-this|job-only|task-\d/);
    } finally {
      await store.close();
    }
  });

  test("a task that is made and its result that is fetched are each in the records, with the rule that permitted them", async () => {
    const mine = await client("modern");
    const { taskId } = await mine.begin("job-only", { tag: "recorded" });
    await mine.end(taskId);
    const store = await sqliteStore(database);
    try {
      const found = await waitFor(async () => {
        const rows = await openedRecords(store, { newest: true });
        const mineOnly = rows.map((record) => record as unknown as Record<string, Record<string, unknown>>);
        const of = mineOnly.filter(({ details }) => details?.["task"] === taskId);
        const made = of.find(({ call }) => call?.["method"] === "tools/call");
        const got = of.findLast(({ call }) => call?.["method"] === "tasks/get");
        return made && got && { made, got };
      });
      for (const { call, decision, outcome, result } of [found.made, found.got]) {
        expect(call).toMatchObject({ server: "every", name: "job-only" });
        expect(decision).toMatchObject({ effect: "permit" });
        expect([outcome, result === undefined]).toEqual(["permitted", false]);
      }
    } finally {
      await store.close();
    }
  });
});

describe("a question of a task that nobody waits for", () => {
  test("is not put to whoever has a call under way in the same process", async () => {
    const command = fixtureCommand("everything/stdio", ["--era", "legacy"]);
    await using one = await world({ servers: { every: { command, processes: { min: 1, max: 2 } } } });
    const capabilities = { elicitation: {} };
    const [mine, other] = [await one.tokens(), await one.tokens()];
    const victim = await legacySession(one.url, other.access_token, { capabilities });
    // From now on it is known that this tool asks nothing, so that its calls may share a process.
    await (await victim.call("slow", { ms: 10 })).ended;
    const asking = await legacySession(one.url, mine.access_token, { capabilities });
    const made = await asking.ask("tools/call", { name: "job", arguments: { rude: true, ms: 300 }, task: {} });
    const taskId = madeBy(made);
    const stream = await victim.get();
    const calls = await Promise.all([1, 2, 3].map(() => victim.call("slow", { ms: 800 })));
    await Promise.all(calls.map(({ ended }) => ended));
    const heard = [...calls, stream].flatMap((answer) => answer.messages());
    expect(heard.filter(({ method }) => method === "elicitation/create")).toEqual([]);
    const result = await asking.ask("tasks/result", { taskId });
    expect(result.message?.result?.content?.[0]?.text).toContain("refused");
    stream.cut();
  }, 60_000);
});

describe.each(ERAS)("a task that a %s server was not asked for", (serverEra) => {
  test("is an error of the server, and its name is not shown", async () => {
    const state =
      '"taskId":"raw-name","status":"working","createdAt":"2026-01-01T00:00:00Z","lastUpdatedAt":"2026-01-01T00:00:00Z"';
    const made =
      serverEra === "modern" ? `{"resultType":"task",${state},"ttlMs":null}` : `{"task":{${state},"ttl":null}}`;
    const dressed = serverEra === "modern" ? '"resultType":"complete","ttlMs":0,"cacheScope":"private",' : "";
    const tools = `{${dressed}"tools":[{"name":"t","inputSchema":{"type":"object"}}]}`;
    const results = { "tools/list": { result: tools }, "tools/call t": { result: made } };
    await using one = await scripted("stdio", { s: { era: serverEra, capabilities: '{"tools":{}}', results } });
    for (const era of ERAS) {
      const { messages, body } = await (await one.client(era)).ask("tools/call", ['"name":"t"']);
      expect(messages.at(-1)?.error?.code).toBe(-31502);
      expect(body).not.toContain("raw-name");
    }
  });
});

describe("a task whose tool was taken away", () => {
  test("is unknown from then on, and was not before", async () => {
    const folder = mkdtempSync(join(tmpdir(), "drawbridge-task-roles-"));
    let fixture: Fixture | undefined;
    try {
      fixture = await startFixture("everything/http", ["--era", "legacy"]);
      const settings = (may: string[]) => ({
        store: `sqlite:${join(folder, "store.db")}`,
        servers: { every: { url: `${fixture?.origin}/mcp` } },
        roles: { caller: { may } },
        assign: [{ role: "caller", group: "owner" }],
      });
      const { port, taskId, token } = await (async () => {
        await using one = await world(settings(["*"]));
        const { access_token } = await one.tokens();
        const mine = await taskClient(one.url, access_token, "legacy");
        const made = await mine.begin("job-only", { tag: "V", ms: 200 });
        expect((await mine.state(made.taskId)).result).toBeDefined();
        return { port: Number(new URL(one.url).port), taskId: made.taskId, token: access_token };
      })();
      await using two = await world({ ...settings(["echo"]), listen: { port } });
      const mine = await taskClient(two.url, token, "legacy");
      for (const method of ["tasks/get", "tasks/result", "tasks/cancel"])
        expect((await mine.ask(method, { taskId })).error).toEqual({ code: -32602, message: "Task not found" });
      expect((await mine.ask("tasks/list")).result).toEqual({ tasks: [] });
    } finally {
      await fixture?.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  }, 30_000);
});
