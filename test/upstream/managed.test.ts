/** An upstream is replaced while it is used: every call is answered once, by the old version or the new one. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, test } from "vitest";
import type { Outcome, Replies } from "../../src/core/call.ts";
import type { DrawbridgeError } from "../../src/core/errors.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { type ManagedUpstream, managedUpstream, type OpenVersion, type Terms } from "../../src/upstream/managed.ts";
import { openUpstream } from "../../src/upstream/open.ts";
import { httpServer, type ServerSettings, stdioServer } from "../../src/upstream/settings.ts";
import type { ListName } from "../../src/upstream/upstream.ts";
import { alive, type Fixture, fixtureCommand, processesOf, startFixture, waitFor } from "../fixtures/processes.ts";
import { codeOf, ignored, never, permitted, structuredOf, textOf, toolCall } from "./support.ts";

const opened: ManagedUpstream[] = [];
const fixtures: Fixture[] = [];
const folder = mkdtempSync(join(tmpdir(), "drawbridge-managed-"));
afterEach(async () => {
  await Promise.all(opened.splice(0).map((upstream) => upstream.close(AbortSignal.abort())));
  await Promise.all(fixtures.splice(0).map((fixture) => fixture.stop()));
});
afterAll(() => rmSync(folder, { recursive: true }));

const TERMS: Terms = { startSeconds: 20, finishSeconds: 60, answerSeconds: 30 };

/** Opens versions of one server as its settings say. */
const version =
  (settings: ServerSettings): OpenVersion =>
  (events) =>
    openUpstream("s", settings, {
      logger: silentLogger,
      events,
      version: "0.0.0",
      baseDirectory: import.meta.dirname,
      environment: { PATH: process.env["PATH"] },
    });

const stdio = (fixture = "echo-stdio", args: readonly string[] = [], more: object = {}) =>
  version(stdioServer.parse({ command: fixtureCommand(fixture, args), processes: { max: 2 }, ...more }));
const http = async (args: readonly string[] = []) => {
  const fixture = await startFixture("echo-http", args);
  fixtures.push(fixture);
  return version(httpServer.parse({ url: `${fixture.origin}/mcp` }));
};

interface Managed {
  readonly upstream: ManagedUpstream;
  readonly lists: ListName[];
  readonly updates: string[];
  readonly replaced: () => number;
}

function managed(open: OpenVersion, terms: Partial<Terms> = {}): Managed {
  const lists: ListName[] = [];
  const updates: string[] = [];
  let replaced = 0;
  const upstream = managedUpstream({
    name: "s",
    open,
    terms: { ...TERMS, ...terms },
    events: { listChanged: (list) => void lists.push(list), resourceUpdated: (uri) => void updates.push(uri) },
    replaced: () => {
      replaced++;
    },
    logger: silentLogger,
  });
  opened.push(upstream);
  return { upstream, lists, updates, replaced: () => replaced };
}

const pidOf = async (upstream: ManagedUpstream) =>
  structuredOf(await upstream.send(toolCall("count"), ignored, never))["pid"] as number;

const echo = (upstream: ManagedUpstream, text: string, subject = "ann") =>
  upstream.send(toolCall("echo", { text }, { subject }), ignored, AbortSignal.timeout(60_000)).then(textOf);

describe("under load", () => {
  const kinds: [string, () => Promise<OpenVersion>][] = [
    ["stdio, 2025-11-25", async () => stdio()],
    ["stdio, 2026-07-28", async () => stdio("echo-stdio", ["--era", "modern"])],
    ["a process for each user", async () => stdio("echo-stdio", [], { isolation: "per-user" })],
    ["HTTP, 2025-11-25", () => http(["--era", "legacy"])],
    ["HTTP, 2026-07-28", () => http(["--era", "modern"])],
  ];
  test.each(kinds)(
    "ten replacements fail no call, and each is answered once and rightly: %s",
    async (_, make) => {
      const open = await make();
      const { upstream } = managed(open);
      await upstream.identity(never);
      let answered = 0;
      const wrong: string[] = [];
      let stop = false;
      // Every caller uses the same id for its calls.
      const caller = async (who: number) => {
        for (let turn = 0; !stop; turn++) {
          const text = `${who}-${turn}`;
          const got = await echo(upstream, text, `u${who % 3}`).catch((error: unknown) => `failed: ${String(error)}`);
          answered++;
          if (got !== text) wrong.push(`${text}: ${got}`);
        }
      };
      const callers = Array.from({ length: 30 }, (_unused, who) => caller(who));
      for (let round = 0; round < 10; round++) {
        const before = answered;
        await waitFor(() => answered > before + 20, 60_000);
        await upstream.candidate(open).take();
      }
      stop = true;
      await Promise.all(callers);
      expect(wrong).toEqual([]);
      expect(answered).toBeGreaterThan(200);
      expect(upstream.state()).toMatchObject({ generation: 11, refused: undefined });
      await waitFor(() => upstream.state().finishing === 0);
      expect(upstream.state()).toMatchObject({ inFlight: 0, queued: 0 });
    },
    120_000,
  );
});

describe("a replacement", () => {
  test("lets calls of the version before finish, and then ends it", async () => {
    const { upstream, replaced, lists } = managed(stdio());
    const old = await pidOf(upstream);
    const slow = upstream.send(toolCall("slow", { ms: 1_000 }), ignored, never);
    await waitFor(() => upstream.state().inFlight === 1);
    await upstream.restart();
    expect(await pidOf(upstream)).not.toBe(old);
    expect(upstream.state()).toMatchObject({ finishing: 1, generation: 2 });
    expect(textOf(await slow)).toBe("slept 1000 ms");
    await waitFor(async () => !(await alive(old)));
    await waitFor(() => upstream.state().finishing === 0);
    expect(replaced()).toBe(1);
    expect(lists.sort()).toEqual(["prompts", "resourceTemplates", "resources", "tools"]);
  });

  test("gives calls that never end no more than their time", async () => {
    const { upstream } = managed(stdio(), { finishSeconds: 0.5 });
    const old = await pidOf(upstream);
    const stuck = codeOf(upstream.send(toolCall("silent"), ignored, never));
    await waitFor(() => upstream.state().inFlight === 1);
    await upstream.restart();
    expect(await stuck).toBe("upstream_unavailable");
    await waitFor(async () => !(await alive(old)));
  }, 20_000);

  test("waits for the answer to a question that the version before has asked", async () => {
    const { upstream } = managed(stdio("everything/stdio"));
    await upstream.identity(never);
    const answer = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    const replies: Replies = {
      notify() {},
      async ask() {
        asked.resolve();
        await answer.promise;
        return {
          kind: "result",
          result: JSON.stringify({ action: "accept", content: { username: "ann", email: "a@b.example" } }),
        };
      },
    };
    const capabilities = { elicitation: {} };
    const call = toolCall("test_elicitation", { message: "Who?" }, { capabilities });
    const outcome = upstream.send(call, replies, never);
    await asked.promise;
    await upstream.restart();
    expect(upstream.state().finishing).toBe(1);
    answer.resolve();
    expect(textOf(await outcome)).toContain("ann");
    await waitFor(() => upstream.state().finishing === 0);
  });

  test("takes what clients follow along, and hears of it from the new version alone", async () => {
    const { upstream, updates } = managed(stdio());
    const uri = "test://static/greeting";
    await upstream.subscribe(uri, never);
    await upstream.restart();
    await waitFor(() => upstream.state().finishing === 0);
    await upstream.send(toolCall("touch", { uri }), ignored, never);
    await waitFor(() => updates.length > 0);
    expect(updates).toEqual([uri]);
    await upstream.unsubscribe(uri, never);
    await upstream.restart();
    await upstream.send(toolCall("touch", { uri }), ignored, never);
    await echo(upstream, "after");
    expect(updates).toEqual([uri]);
  });

  test("by something that cannot be reached is refused, and the version before goes on", async () => {
    const { upstream, replaced } = managed(stdio());
    const old = await pidOf(upstream);
    const broken = version(stdioServer.parse({ command: [process.execPath, "-e", "process.exit(3)"] }));
    const refusal = await upstream
      .candidate(broken, { startSeconds: 2 })
      .take()
      .then(
        () => undefined,
        (error: DrawbridgeError) => error,
      );
    expect(refusal?.code).toBe("upstream_unavailable");
    expect(refusal?.message).toMatch(/The new version of the server "s" cannot be reached: /);
    expect(upstream.state()).toMatchObject({ generation: 1, state: "ready", refused: refusal?.message });
    expect(await pidOf(upstream)).toBe(old);
    expect(replaced()).toBe(0);
    await upstream.restart();
    expect(upstream.state()).toMatchObject({ generation: 2, refused: undefined });
  }, 20_000);

  test("by something that says nothing is given up in time, and leaves no process", async () => {
    const { upstream } = managed(stdio());
    await upstream.identity(never);
    const marker = `mute-${process.pid}`;
    const mute = version(
      stdioServer.parse({ command: [process.execPath, "-e", "setInterval(() => {}, 1e6)", marker] }),
    );
    await expect(upstream.candidate(mute, { startSeconds: 0.5 }).take()).rejects.toThrow(
      "it did not say who it is within 0.5 seconds",
    );
    expect(await processesOf(marker)).toEqual([]);
  }, 20_000);

  test("of a server that never answered is put in place at once", async () => {
    const broken = version(stdioServer.parse({ command: [process.execPath, "-e", "process.exit(3)"] }));
    const { upstream } = managed(broken);
    await waitFor(() => upstream.state().state === "degraded", 30_000);
    await upstream.candidate(stdio()).take();
    expect(await echo(upstream, "at last")).toBe("at last");
  }, 40_000);

  test("is refused while too many former versions still finish", async () => {
    const { upstream } = managed(stdio());
    for (let number = 0; number < 8; number++) {
      await upstream.identity(never);
      void codeOf(upstream.send(toolCall("silent"), ignored, never));
      await upstream.restart();
    }
    expect(await codeOf(upstream.restart())).toBe("overloaded");
    expect(await echo(upstream, "still here")).toBe("still here");
  }, 40_000);
});

describe("draining", () => {
  test("refuses new calls with a time to come again, finishes those in flight, and ends with resume", async () => {
    const { upstream } = managed(stdio());
    const slow = upstream.send(toolCall("slow", { ms: 400 }), ignored, never);
    await waitFor(() => upstream.state().inFlight === 1);
    upstream.drain();
    const refusal = await upstream.send(toolCall("echo", { text: "x" }), ignored, never).then(
      () => undefined,
      (error: DrawbridgeError) => error,
    );
    expect(refusal).toMatchObject({ code: "overloaded", http: 503, retryAfterSeconds: expect.any(Number) });
    expect((await upstream.list("tools", never)).length).toBeGreaterThan(0);
    expect(upstream.state()).toMatchObject({ draining: true });
    expect(textOf(await slow)).toBe("slept 400 ms");
    upstream.resume();
    expect(await echo(upstream, "again")).toBe("again");
  });

  test("takes the answers of a dialogue, in the version that asked", async () => {
    const file = join(folder, "asks.json");
    writeFileSync(file, "{}");
    const asks: Outcome = {
      kind: "result",
      result: "",
      value: { resultType: "input_required", requestState: "state-1", inputRequests: {} },
    };
    const heard: string[] = [];
    let number = 0;
    const open: OpenVersion = () => {
      const mine = ++number;
      const idle = {
        state: "ready",
        size: 1,
        inFlight: 0,
        queued: 0,
        restarts: 0,
        problem: undefined,
        stderr: [],
      } as const;
      return {
        name: "s",
        identity: async () => ({ revision: "2026-07-28", info: {}, capabilities: {}, instructions: undefined }),
        list: async () => [],
        async send({ call }) {
          heard.push(`${mine} ${call.forward.get("requestState") ?? "first"}`);
          return call.forward.has("requestState") ? { kind: "result", result: "{}", value: {} } : asks;
        },
        subscribe: async () => {},
        unsubscribe: async () => {},
        state: () => idle,
        close: async () => void heard.push(`${mine} closed`),
      };
    };
    const { upstream } = managed(open);
    await upstream.send(toolCall("ask"), ignored, never);
    await upstream.restart();
    upstream.drain();
    expect(await codeOf(upstream.send(toolCall("ask"), ignored, never))).toBe("overloaded");
    const back = permitted("tools/call", { name: "ask", requestState: "state-1" });
    await upstream.send(back, ignored, never);
    await waitFor(() => heard.includes("1 closed"));
    expect(heard).toEqual(["1 first", '1 "state-1"', "1 closed"]);
  });
});

test("a task stays with the version that began it, which ends when the task has given its result", async () => {
  const heard: string[] = [];
  let number = 0;
  const open: OpenVersion = () => {
    const mine = ++number;
    return {
      name: "s",
      identity: async () => ({ revision: "2025-11-25", info: {}, capabilities: {}, instructions: undefined }),
      list: async () => [],
      async send({ call }) {
        heard.push(`${mine} ${call.method}`);
        const task = { taskId: "t-1", status: "working", ttl: 60_000 };
        if (call.method === "tools/call") return { kind: "result", result: JSON.stringify({ task }), value: { task } };
        return { kind: "result", result: JSON.stringify(task), value: task };
      },
      subscribe: async () => {},
      unsubscribe: async () => {},
      state: () => ({ state: "ready", size: 1, inFlight: 0, queued: 0, restarts: 0, problem: undefined, stderr: [] }),
      close: async () => void heard.push(`${mine} closed`),
    };
  };
  const { upstream } = managed(open);
  await upstream.send(toolCall("long"), ignored, never);
  await upstream.restart();
  upstream.drain();
  for (const method of ["tasks/get", "tasks/get", "tasks/result"])
    await upstream.send(permitted(method, { taskId: "t-1" }), ignored, never);
  await waitFor(() => heard.includes("1 closed"));
  expect(heard).toEqual(["1 tools/call", "1 tasks/get", "1 tasks/get", "1 tasks/result", "1 closed"]);
  await waitFor(() => upstream.state().finishing === 0);
});

test("the end of the gateway ends former versions too, with the calls that are still in them", async () => {
  const { upstream } = managed(stdio());
  const old = await pidOf(upstream);
  const stuck = codeOf(upstream.send(toolCall("silent"), ignored, never));
  await waitFor(() => upstream.state().inFlight === 1);
  await upstream.restart();
  const now = await pidOf(upstream);
  await upstream.close(AbortSignal.timeout(300));
  expect(await stuck).toBe("upstream_unavailable");
  expect(await alive(old)).toBe(false);
  expect(await alive(now)).toBe(false);
});
