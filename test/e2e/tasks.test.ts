/**
 * Calls that become tasks, in every pairing of eras: 2025-11-25 (the client asks for a task, and fetches the result) and the
 * extension of 2026-07-28 (the server decides, and the state brings the result).
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Client as SdkClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { CallToolResultSchema, ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Json } from "../fixtures/messages.ts";
import { type Fixture, fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";
import { legacySession } from "./legacy-client.ts";
import { replicaOf } from "./replica.ts";
import { ERAS, TRANSPORTS } from "./scripted.ts";
import { madeBy, TASKS, type TaskClient, taskClient } from "./tasking.ts";
import { type World, world } from "./world.ts";

const done = (tag: string) => ({ content: [{ type: "text", text: `${tag} is done` }] });
const WORKS_MS = 300;

describe.each(ERAS)("a %s server", (serverEra) => {
  describe.each(TRANSPORTS)("over %s", (transport) => {
    let fixture: Fixture | undefined;
    let one: World;
    let token: string;
    beforeAll(async () => {
      if (transport === "http") fixture = await startFixture("everything/http", ["--era", serverEra]);
      const every =
        fixture === undefined
          ? { command: fixtureCommand("everything/stdio", ["--era", serverEra]), processes: { max: 3 } }
          : { url: `${fixture.origin}/mcp` };
      one = await world({ servers: { every } });
      token = (await one.tokens()).access_token;
    }, 30_000);
    afterAll(async () => {
      await one?.[Symbol.asyncDispose]();
      await fixture?.stop();
    });

    describe.each(ERAS)("and a %s client", (era) => {
      let client: TaskClient;
      beforeAll(async () => {
        client = await taskClient(one.url, token, era);
      });

      verifies(
        ["tasks-created", "tasks-result"],
        "a call becomes a task under a name of ours, and its result is fetched",
        async () => {
          const task = await client.begin("job-only", { tag: "A", ms: WORKS_MS });
          expect(task).toMatchObject({ status: "working", [era === "legacy" ? "ttl" : "ttlMs"]: expect.any(Number) });
          expect(task.taskId).toMatch(/^[\w-]{40,}$/);
          expect(Date.parse(String(task["createdAt"]))).toBeLessThanOrEqual(Date.now());
          expect((await client.state(task.taskId)).result).toMatchObject({ taskId: task.taskId, status: "working" });
          const { result } = await client.end(task.taskId);
          expect(result).toMatchObject(done("A"));
          if (era === "legacy")
            expect(result?.["_meta"]).toMatchObject({
              "io.modelcontextprotocol/related-task": { taskId: task.taskId },
            });
          const after = await client.state(task.taskId);
          expect(after.result).toMatchObject({ status: "completed" });
          expect("result" in (after.result ?? {})).toBe(era === "modern");
          // Twice: it is kept for its time.
          expect((await client.end(task.taskId)).result).toMatchObject(done("A"));
        },
      );

      test("the server's own name of a task is never shown", async () => {
        const task = await client.begin("job-only", { tag: "N", error: true });
        const said: unknown[] = [task, (await client.end(task.taskId)).error];
        said.push((await client.state(task.taskId)).body, (await client.cancel(task.taskId)).body);
        expect(JSON.stringify(said)).not.toMatch(/task-\d/);
      });

      verifies(
        "tasks-result",
        "a call that fails and a tool that fails are told apart as the client's era does it",
        async () => {
          const broken = await client.begin("job-only", { tag: "B", error: true });
          expect((await client.end(broken.taskId)).error).toMatchObject({
            code: -32603,
            message: expect.stringContaining("broke"),
          });
          const bad = await client.begin("job-only", { tag: "C", bad: true });
          expect((await client.end(bad.taskId)).result).toMatchObject({ ...done("C"), isError: true });
          const { result } = await client.state(bad.taskId);
          expect(result?.["status"]).toBe(era === "legacy" ? "failed" : "completed");
        },
      );

      verifies("tasks-cancel", "a task is cancelled, and stays so", async () => {
        const { taskId } = await client.begin("job-only", { tag: "D", ms: 60_000 });
        const cancelled = await client.cancel(taskId);
        expect(cancelled.error).toBeUndefined();
        if (era === "legacy") expect(cancelled.result).toMatchObject({ taskId, status: "cancelled" });
        await waitFor(async () => (await client.state(taskId)).result?.["status"] === "cancelled");
        const again = await client.cancel(taskId);
        if (era === "legacy") expect(again.error?.code).toBe(-32602);
        else expect(again.error).toBeUndefined();
      });

      test("a client that knows no tasks calls a tool that must be one, and gets its result", async () => {
        const ignorant = await taskClient(one.url, token, era, { tasks: false });
        expect((await ignorant.call("job-only", { tag: "E", ms: 100 })).result).toMatchObject(done("E"));
        const { error } = await ignorant.call("job-only", { tag: "F", error: true });
        expect(error).toMatchObject({ code: -32603, message: expect.not.stringMatching(/task-\d/) });
        const { result } = await ignorant.ask("tools/list");
        const tools = (result?.["tools"] ?? []) as { name: string; execution?: Json }[];
        expect(tools.find(({ name }) => name === "job-only")?.execution).toEqual({ taskSupport: "optional" });
      });

      test("the capability is told in the form of the client's era", async () => {
        const hello =
          era === "modern"
            ? await client.ask("server/discover")
            : await client.ask("initialize", {
                protocolVersion: "2025-11-25",
                capabilities: {},
                clientInfo: { name: "n", version: "1" },
              });
        const capabilities = hello.result?.["capabilities"] as Json;
        if (era === "modern") expect(capabilities["extensions"]).toEqual({ [TASKS]: {} });
        else expect(capabilities).toMatchObject({ tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } } });
        expect(capabilities["tasks"] === undefined).toBe(era === "modern");
      });

      if (era === "legacy") {
        verifies("tasks-list", "its own tasks are listed, page by page, and nobody else's", async () => {
          const other = await taskClient(one.url, (await one.tokens()).access_token, era);
          const mine: string[] = [];
          for (let at = 0; at < 23; at++) mine.push((await other.begin("job", { tag: `L${at}`, ms: 60_000 })).taskId);
          const first = (await other.ask("tasks/list")).result;
          const cursor = first?.["nextCursor"];
          const second = (await other.ask("tasks/list", { cursor })).result;
          expect(second?.["nextCursor"]).toBeUndefined();
          const listed = [first, second].flatMap((page) => page?.["tasks"] as { taskId: string }[]);
          expect(listed.map(({ taskId }) => taskId).toSorted()).toEqual(mine.toSorted());
          expect((await other.ask("tasks/list", { cursor: "x" })).error?.code).toBe(-32602);
          for (const taskId of mine) await other.cancel(taskId);
        });

        test("what a server answers at once is kept for a client that wanted a task", async () => {
          if (serverEra === "legacy") return;
          const { taskId, status } = await client.begin("job", { tag: "G", atOnce: true }, 60_000);
          expect(status).toBe("completed");
          expect((await client.end(taskId)).result).toMatchObject({ content: [{ text: "G is done at once" }] });
          expect((await client.cancel(taskId)).error?.code).toBe(-32602);
        });

        test("a tool that makes no tasks is not called as one", async () => {
          if (serverEra === "modern") return;
          const { error, status } = await client.ask("tools/call", {
            name: "echo",
            arguments: { text: "x" },
            task: {},
          });
          expect([status, error?.code]).toEqual([200, -32601]);
        });
      } else {
        verifies("tasks-capability", "who did not declare the extension is told to", async () => {
          const ignorant = await taskClient(one.url, token, era, { tasks: false });
          const { taskId } = await client.begin("job-only", { tag: "H" });
          for (const method of ["tasks/get", "tasks/update", "tasks/cancel"]) {
            const { status, error } = await ignorant.ask(method, { taskId, inputResponses: {} });
            expect([status, error?.code, error?.data]).toEqual([
              400,
              -32021,
              { requiredCapabilities: { extensions: { [TASKS]: {} } } },
            ]);
          }
          const listen = await ignorant.ask("subscriptions/listen", { notifications: { taskIds: [taskId] } });
          expect(listen.error?.code).toBe(-32021);
        });

        verifies("tasks-input", "what a task asks is in its state, and the answer is brought to it", async () => {
          const asked = await taskClient(one.url, token, era, { capabilities: { elicitation: {} } });
          const { taskId } = await asked.begin("job-only", { tag: "I", ask: true });
          const requests = await waitFor(
            async () => (await asked.state(taskId)).result?.["inputRequests"] as Json | undefined,
          );
          const [key = ""] = Object.keys(requests);
          expect(requests[key]).toMatchObject({ method: "elicitation/create" });
          expect(JSON.stringify(requests)).not.toMatch(/task-\d/);
          const given = { action: "accept", content: { colour: "green" } };
          const answered = await asked.ask("tasks/update", {
            taskId,
            inputResponses: { [serverEra === "modern" ? "colour" : key]: given, other: given },
          });
          expect(answered.result).toMatchObject({ resultType: "complete" });
          expect((await asked.end(taskId)).result).toMatchObject({
            content: [{ text: `I: ${JSON.stringify(given)}` }],
          });
        });
      }

      if (era === "legacy")
        verifies("tasks-input", "what a task asks comes while its result is waited for", async () => {
          const session = await legacySession(one.url, token, { capabilities: { elicitation: {} } });
          const made = await session.ask("tools/call", {
            name: "job-only",
            arguments: { tag: "J", ask: true },
            task: {},
          });
          const taskId = madeBy(made);
          const waits = await session.post({ id: "r", method: "tasks/result", params: { taskId } });
          const question = await waitFor(() => waits.messages().find(({ method }) => method === "elicitation/create"));
          expect(question.params?.["_meta"]).toMatchObject({ "io.modelcontextprotocol/related-task": { taskId } });
          const result = { action: "accept", content: { colour: "blue" } };
          await session.post({ id: question.id, result });
          await waits.ended;
          expect(waits.messages().at(-1)?.result?.content?.[0]?.text).toBe(`J: ${JSON.stringify(result)}`);
        });
    });
  });
});

const require = createRequire(import.meta.url);
const everything = [
  process.execPath,
  join(dirname(require.resolve("@modelcontextprotocol/server-everything/package.json")), "dist/index.js"),
];

describe("@modelcontextprotocol/server-everything, and the SDK's own client of 2025-11-25", () => {
  test("its research tool is a task that asks in the middle, and an ordinary call for who wants that", async () => {
    await using one = await world({ servers: { every: { command: everything } } });
    const { access_token: token } = await one.tokens();
    const client = new SdkClient({ name: "tasks", version: "1" }, { capabilities: { elicitation: {}, tasks: {} } });
    client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: { interpretation: "snake" } }));
    await client.connect(
      new StreamableHTTPClientTransport(new URL(one.url), {
        requestInit: { headers: { authorization: `Bearer ${token}` } },
      }) as never,
    );
    const name = "simulate-research-query";
    const seen: string[] = [];
    const query = { name, arguments: { topic: "python", ambiguous: true } };
    const plain = client.callTool({ name, arguments: { topic: "rust" } });
    await client.listTools();
    for await (const message of client.experimental.tasks.callToolStream(query, CallToolResultSchema, {
      task: { ttl: 60_000 },
    })) {
      seen.push(message.type);
      if (message.type === "result") expect(JSON.stringify(message.result)).toContain("snake");
      if (message.type === "error") throw message.error;
    }
    expect([seen[0], seen.at(-1)]).toEqual(["taskCreated", "result"]);
    expect(JSON.stringify(await plain)).toContain("Research Report: rust");
    await client.close();
  }, 40_000);
});

describe("tasks and what becomes of their server", () => {
  const command = fixtureCommand("everything/stdio", ["--era", "legacy"]);

  test("a process is kept for its tasks, and each task is asked for in its own", async () => {
    const processes = { min: 0, max: 2, idleSeconds: 0.2 };
    await using one = await world({ servers: { every: { command, processes } } });
    const clients: [string, TaskClient][] = [];
    for (const tag of ["K", "L"])
      clients.push([tag, await taskClient(one.url, (await one.tokens()).access_token, "legacy")]);
    // Each blocks its process for a moment, so that there are two, whose tasks have the same names.
    await Promise.all(clients.map(([, client]) => client.call("block", { ms: 600 })));
    const tasks = await Promise.all(
      clients.map(async ([tag, client]) => [tag, client, await client.begin("job", { tag, ms: 1500 })] as const),
    );
    for (const [tag, client, { taskId }] of tasks) expect((await client.end(taskId)).result).toMatchObject(done(tag));
  });

  test("the session that made a task hears of its end", async () => {
    await using one = await world({ servers: { every: { command } } });
    const session = await legacySession(one.url, (await one.tokens()).access_token);
    const stream = await session.get();
    const made = await session.ask("tools/call", { name: "job", arguments: { tag: "O", ms: 200 }, task: {} });
    const taskId = madeBy(made);
    const told = await waitFor(() => stream.messages().find(({ method }) => method === "notifications/tasks/status"));
    expect(told.params).toMatchObject({ taskId, status: "completed" });
    stream.cut();
  });

  test("whose process has ended is gone, which is said at once", async () => {
    await using one = await world({ servers: { every: { command } } });
    for (const era of ERAS) {
      const client = await taskClient(one.url, (await one.tokens()).access_token, era);
      const { taskId } = await client.begin("job-only", { tag: "P", ms: 60_000 });
      const waits = client.end(taskId);
      await client.call("crash", {});
      expect((await client.state(taskId)).error).toMatchObject({ code: -32602 });
      expect((await waits).error?.message).toMatch(/gone|ended|not found/);
    }
  });

  test("a call that is cancelled cancels the task that it was run as", async () => {
    await using one = await world({ servers: { every: { command, processes: { max: 1 } } } });
    const { access_token: token } = await one.tokens();
    const session = await legacySession(one.url, token);
    const call = session.call("job-only", { tag: "Q", ms: 60_000 });
    const other = await taskClient(one.url, token, "legacy");
    const jobs = async () => JSON.stringify((await other.call("jobs", {})).result?.["content"]);
    await waitFor(async () => (await jobs()).includes("task-1 working"));
    await session.post({ method: "notifications/cancelled", params: { requestId: 1 } });
    await (await call).ended;
    await waitFor(async () => (await jobs()).includes("task-1 cancelled"));
  });

  test.each(TRANSPORTS)(
    "over %s any replica answers for it, and after a restart what can",
    async (transport) => {
      const folder = mkdtempSync(join(tmpdir(), "drawbridge-tasks-"));
      const fixture = transport === "http" ? await startFixture("everything/http", ["--era", "legacy"]) : undefined;
      const every = fixture === undefined ? { command } : { url: `${fixture.origin}/mcp` };
      const settings = { store: `sqlite:${join(folder, "store.db")}`, servers: { every } };
      try {
        await using one = await world(settings);
        const { access_token: token } = await one.tokens();
        const left: { client: TaskClient; taskId: string }[] = [];
        {
          await using two = await replicaOf(one, settings);
          for (const era of ERAS) {
            const capabilities = { elicitation: {} };
            const there = await taskClient(two.url, token, era, { capabilities });
            const here = await taskClient(one.url, token, era, { capabilities });
            const { taskId } = await there.begin("job-only", { tag: "S", ms: 300 });
            expect((await here.state(taskId)).result).toMatchObject({ taskId });
            expect((await here.end(taskId)).result).toMatchObject(done("S"));
            if (era === "modern") {
              const asks = await there.begin("job-only", { tag: "T", ask: true });
              const requests = await waitFor(
                async () => (await here.state(asks.taskId)).result?.["inputRequests"] as Json | undefined,
              );
              const given = { action: "decline" };
              await here.ask("tasks/update", {
                taskId: asks.taskId,
                inputResponses: Object.fromEntries(Object.keys(requests).map((key) => [key, given])),
              });
              expect((await here.end(asks.taskId)).result).toMatchObject({
                content: [{ text: `T: ${JSON.stringify(given)}` }],
              });
            }
            left.push({ client: here, taskId: (await there.begin("job-only", { tag: "U", ms: 500 })).taskId });
          }
        }
        for (const { client, taskId } of left) {
          if (transport === "http") expect((await client.end(taskId)).result).toMatchObject(done("U"));
          else
            expect((await client.state(taskId)).error).toMatchObject({
              code: -32602,
              message: expect.stringContaining("gone"),
            });
        }
      } finally {
        await fixture?.stop();
        rmSync(folder, { recursive: true, force: true });
      }
    },
    60_000,
  );
});
