import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { Secret } from "../../src/core/secret.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { alive, processesOf, waitFor } from "../fixtures/processes.ts";
import { codeOf, collected, end, ignored, never, stdio, structuredOf, textOf, toolCall } from "./support.ts";

const opened: Upstream[] = [];
afterEach(() => Promise.all(opened.splice(0).map(end)));

function start(...args: Parameters<typeof stdio>) {
  const recorded = stdio(...args);
  opened.push(recorded.upstream);
  return recorded;
}
const up = (...args: Parameters<typeof stdio>) => start(...args).upstream;
const echo = (upstream: Upstream, text: string) => upstream.send(toolCall("echo", { text }), ignored, never);

describe("the pool", () => {
  test("serves 22 calls of a blocking tool within ten seconds from one cold process, with the default settings", async () => {
    const upstream = up("echo-stdio", [], { processes: {} });
    const calls = Array.from({ length: 22 }, (_, index) =>
      upstream.send(
        toolCall("block", { ms: 500 }, { subject: `u${index % 20}` }),
        ignored,
        AbortSignal.timeout(10_000),
      ),
    );
    expect((await Promise.all(calls)).map(textOf)).toEqual(Array.from({ length: 22 }, () => "blocked 500 ms"));
    expect(upstream.state().size).toBeGreaterThan(1);
  });

  test("lets other calls pass a process that is held up, all but those it had already", async () => {
    const upstream = up("echo-stdio", [], { processes: { max: 2 } });
    await upstream.identity(never);
    const began = performance.now();
    const held = upstream.send(toolCall("block", { ms: 3000 }), ignored, never);
    const times = await Promise.all(
      Array.from({ length: 20 }, (_, n) => echo(upstream, `${n}`).then(() => performance.now() - began)),
    );
    // A tool nobody has seen before gets two places; those two calls share the lot of the process.
    expect(times.filter((ms) => ms > 2900).length).toBeLessThanOrEqual(2);
    await held;
  });

  test("puts fifty slow calls that do not block into one process at once", async () => {
    const upstream = up("echo-stdio", [], { processes: {} });
    const calls = Array.from({ length: 50 }, () => upstream.send(toolCall("slow", { ms: 2000 }), ignored, never));
    await waitFor(() => upstream.state().inFlight === 50, 1900);
    await Promise.all(calls);
  });

  test("refuses what is more than may wait, and keeps the rest", async () => {
    const upstream = up("echo-stdio", [], { maxInFlight: 1, maxQueued: 2 });
    await upstream.identity(never);
    const kept = [0, 1, 2].map(() => upstream.send(toolCall("slow", { ms: 200 }), ignored, never));
    expect(upstream.state()).toMatchObject({ inFlight: 1, queued: 2 });
    expect(await codeOf(echo(upstream, "x"))).toBe("overloaded");
    expect(await Promise.all(kept.map(codeOf))).toEqual(["none", "none", "none"]);
  });

  test("answers waiting principals in turn, whoever has asked for how much", async () => {
    const upstream = up("echo-stdio", [], { maxInFlight: 1 });
    await upstream.identity(never);
    const order: string[] = [];
    const call = (subject: string) =>
      upstream.send(toolCall("slow", { ms: 4 }, { subject }), ignored, never).then(() => void order.push(subject));
    await Promise.all([...Array.from({ length: 30 }, () => call("greedy")), call("modest")]);
    expect(order.indexOf("modest")).toBeLessThan(4);
  });

  test("takes a call out of the queue when its caller gives up", async () => {
    const upstream = up("echo-stdio", [], { maxInFlight: 1 });
    await upstream.identity(never);
    const first = upstream.send(toolCall("slow", { ms: 200 }), ignored, never);
    const control = new AbortController();
    const second = upstream.send(toolCall("count"), ignored, control.signal);
    control.abort();
    expect(await codeOf(second)).toBe("cancelled");
    expect(upstream.state().queued).toBe(0);
    await first;
    expect(structuredOf(await upstream.send(toolCall("count"), ignored, never))["calls"]).toBe(2);
  });

  test("refuses a call that finds no free process in time", async () => {
    const upstream = up("echo-stdio", [], { maxInFlight: 1, timeoutSeconds: 0.3 });
    await upstream.identity(never);
    const [busy, waiting] = [0, 1].map(() =>
      upstream.send(toolCall("slow", { ms: 900 }, { progressToken: 1 }), ignored, never),
    );
    expect(await codeOf(waiting as Promise<unknown>)).toBe("overloaded");
    expect(await codeOf(busy as Promise<unknown>)).toBe("none");
  });

  test("sends a principal to the process that served it before", async () => {
    const upstream = up("echo-stdio", [], { processes: { min: 3, max: 3 } });
    await waitFor(() => upstream.state().size === 3);
    await upstream.identity(never);
    const pid = async (subject: string) =>
      structuredOf(await upstream.send(toolCall("whoami", {}, { subject }), ignored, never))["pid"];
    const home = await pid("ann");
    const others = Array.from({ length: 5 }, () =>
      upstream.send(toolCall("slow", { ms: 150 }, { subject: "bob" }), ignored, never),
    );
    for (let n = 0; n < 5; n++) expect(await pid("ann")).toBe(home);
    await Promise.all(others);
  });

  test("stops processes beyond the least number when they are idle", async () => {
    const upstream = up("echo-stdio", [], { processes: { min: 1, max: 3, idleSeconds: 0.1 } });
    const calls = Array.from({ length: 9 }, () => upstream.send(toolCall("block", { ms: 300 }), ignored, never));
    await waitFor(() => upstream.state().size > 1);
    await Promise.all(calls);
    await waitFor(() => upstream.state().size === 1);
    expect(textOf(await echo(upstream, "still here"))).toBe("still here");
  });

  test("starts no process before it is needed when none is to be kept", async () => {
    const upstream = up("echo-stdio", [], { processes: { min: 0, max: 1, idleSeconds: 0.1 } });
    expect(upstream.state()).toMatchObject({ state: "ready", size: 0 });
    expect(textOf(await echo(upstream, "hello"))).toBe("hello");
    await waitFor(() => upstream.state().size === 0);
    expect(textOf(await echo(upstream, "again"))).toBe("again");
  });
});

describe("a server that misbehaves", () => {
  test("and dies fails the calls it had, once, and those that waited are served by its successor", async () => {
    const upstream = up("echo-stdio", [], { maxInFlight: 2 });
    await upstream.identity(never);
    const lost = [upstream.send(toolCall("silent"), ignored, never), upstream.send(toolCall("crash"), ignored, never)];
    const waiting = echo(upstream, "waited");
    expect(await Promise.all(lost.map(codeOf))).toEqual(["upstream_failed", "upstream_failed"]);
    expect(textOf(await waiting)).toBe("waited");
    expect(upstream.state().restarts).toBe(1);
    expect(structuredOf(await upstream.send(toolCall("count"), ignored, never))["calls"]).toBe(2);
  });

  test("and cannot start is reported with its last words, refused at once, and tried again later and later", async () => {
    const upstream = up("misbehaving-stdio", ["exit-at-start"]);
    expect(await codeOf(echo(upstream, "x"))).toBe("upstream_unavailable");
    const state = upstream.state();
    expect(state.state).toBe("degraded");
    expect(state.problem).toContain("settings.json is missing");
    expect(state.stderr.at(-1)).toContain("settings.json is missing");
    const began = performance.now();
    expect(await codeOf(echo(upstream, "x"))).toBe("upstream_unavailable");
    expect(await codeOf(upstream.identity(never))).toBe("upstream_unavailable");
    expect(performance.now() - began).toBeLessThan(100);
    await waitFor(() => upstream.state().restarts > state.restarts);
  });

  test("and does not exist is refused at once", async () => {
    const upstream = up("echo-stdio", [], { command: ["/no/such/program"] });
    expect(await codeOf(echo(upstream, "x"))).toBe("upstream_unavailable");
    expect(upstream.state().problem).toContain("ENOENT");
  });

  test("and says nothing at the start is given up after the time for it", async () => {
    const upstream = up("misbehaving-stdio", ["never-initialize"], { startTimeoutSeconds: 0.2 });
    expect(await codeOf(upstream.identity(never))).toBe("upstream_unavailable");
  });

  test.each(["garbage", "stderr-flood", "duplicate-answer", "split-utf8", "out-of-order", "ignores-ping"])(
    "in the manner of %s still serves every caller its own answer",
    async (mode) => {
      const upstream = up("misbehaving-stdio", [mode]);
      const texts = Array.from({ length: 8 }, (_, index) => `snow ☃ flag 🇬🇧 ${index}`);
      const answers = await Promise.all(texts.map((text) => echo(upstream, text)));
      expect(answers.map(textOf)).toEqual(texts);
      expect(upstream.state().stderr.length).toBeLessThanOrEqual(100);
    },
  );

  test("and answers with foreign ids gives nobody anything", async () => {
    const upstream = up("misbehaving-stdio", ["wrong-id"], { timeoutSeconds: 0.3 });
    await upstream.identity(never);
    expect(await Promise.all([0, 1, 2].map((n) => codeOf(echo(upstream, `${n}`))))).toEqual(
      Array.from({ length: 3 }, () => "upstream_timeout"),
    );
  });

  test("and sends a line without an end is cut off and replaced", async () => {
    const upstream = up("misbehaving-stdio", ["no-newline", "64"], { maxAnswerBytes: 1 << 20 });
    expect(await codeOf(echo(upstream, "x"))).toBe("answer_too_large");
    await upstream.identity(never);
    await waitFor(() => upstream.state().restarts === 1 && upstream.state().state === "ready");
  });

  test("and reads nothing more is replaced, and the others served meanwhile", async () => {
    const upstream = up("misbehaving-stdio", ["stops-reading"], { processes: { max: 2 }, timeoutSeconds: 0.4 });
    await upstream.identity(never);
    const text = "x".repeat(1 << 20);
    const calls = await Promise.all(Array.from({ length: 4 }, () => codeOf(echo(upstream, text))));
    expect(calls.every((code) => code === "upstream_timeout" || code === "overloaded")).toBe(true);
  });

  test("and asks questions is told that there is nobody to ask, whoever calls", async () => {
    const upstream = up("misbehaving-stdio", ["requests-roots"]);
    await upstream.identity(never);
    const answers = await waitFor(async () => {
      const seen = structuredOf(await upstream.send(toolCall("answers"), ignored, never))["answers"] as object[];
      return seen.length === 4 && seen;
    });
    expect(answers).toMatchObject([
      { id: "ask-ping", result: {} },
      { id: "ask-roots", result: { roots: [] } },
      { id: "ask-elicitation", error: { code: -32601 } },
      { id: "ask-sampling", error: { code: -32601 } },
    ]);
  });

  test("and lists without end is refused", async () => {
    const upstream = up("misbehaving-stdio", ["list-endless"]);
    expect(await codeOf(upstream.list("tools", never))).toBe("upstream_failed");
  });
});

describe("a server that says too much", () => {
  test.each([
    ["200 MB of lines", 200, false],
    ["one line of 1 GB", 1024, true],
  ])("to stderr (%s) goes on being used, and its last words are kept", { timeout: 60_000 }, async (_, mb, line) => {
    const upstream = up("flooding-stdio", [], { processes: { max: 1 } });
    await upstream.send(toolCall("complain", { mb, line }), ignored, never);
    let calls = 0;
    await waitFor(async () => {
      expect(textOf(await echo(upstream, `call ${calls}`))).toBe(`call ${calls++}`);
      return structuredOf(await upstream.send(toolCall("complained"), ignored, never))["complained"];
    }, 50_000);
    expect(calls).toBeGreaterThan(5);
    expect(upstream.state()).toMatchObject({ size: 1, restarts: 0 });
    const { stderr } = upstream.state();
    expect(stderr.length).toBeLessThanOrEqual(100);
    expect(Math.max(...stderr.map((text) => text.length))).toBeLessThanOrEqual(1000);
    const { pid } = structuredOf(await upstream.send(toolCall("whoami"), ignored, never)) as { pid: number };
    process.kill(pid, "SIGKILL");
    await waitFor(() => upstream.state().restarts === 1);
    const after = upstream.state().stderr;
    expect(after.some((text) => /^\[\d+ bytes left out\]$/.test(text))).toBe(true);
    expect(after.at(-1)).toBe("the end");
  });

  test.each(["garbage", "notifications"])("to nobody (%s) is replaced, with a reason", async (what) => {
    const upstream = up("flooding-stdio", [], { processes: { max: 1 } });
    await upstream.send(toolCall("babble", { what }), ignored, never);
    const { problem } = await waitFor(() => upstream.state().restarts > 0 && upstream.state());
    expect(problem).toContain("talked without end");
    expect(textOf(await echo(upstream, "well again"))).toBe("well again");
    expect(upstream.state().restarts).toBe(1);
  });

  test("before it has said who it is counts as one that cannot be started", async () => {
    const upstream = up("flooding-stdio", ["--at-start"]);
    expect(await codeOf(upstream.identity(never))).toBe("upstream_unavailable");
    expect(upstream.state().problem).toContain("talked without end");
  });

  test("by answering what nobody asked is replaced once it has done what it was asked", async () => {
    const upstream = up("flooding-stdio", [], { processes: { max: 1 } });
    await upstream.send(toolCall("lie", { times: 500 }), ignored, never);
    expect(upstream.state().restarts).toBe(0);
    const slow = upstream.send(toolCall("slow", { ms: 600 }), ignored, never);
    expect(textOf(await upstream.send(toolCall("lie", { times: 600 }), ignored, never))).toBe("as you wish");
    expect(upstream.state().restarts).toBe(0);
    expect(textOf(await slow)).toBe("slept 600 ms");
    expect(upstream.state()).toMatchObject({ restarts: 1, problem: expect.stringContaining("nobody had asked") });
    expect(textOf(await echo(upstream, "well again"))).toBe("well again");
  });
});

describe("a process that nobody calls", () => {
  const pidOf = async (upstream: Upstream) =>
    structuredOf(await upstream.send(toolCall("whoami"), ignored, never))["pid"] as number;
  /** Long enough to have been pinged, and answered. */
  const pinged = () => new Promise((resolve) => setTimeout(resolve, 700));

  test("and hangs is replaced before a call finds out", async () => {
    const upstream = up("echo-stdio", [], { healthSeconds: 0.1 });
    const pid = await pidOf(upstream);
    await pinged();
    process.kill(pid, "SIGSTOP");
    const { problem } = await waitFor(() => upstream.state().restarts === 1 && upstream.state());
    expect(problem).toMatch(/did not answer a ping for \d+ s/);
    await waitFor(() => upstream.state().state === "ready");
    const began = performance.now();
    expect(await pidOf(upstream)).not.toBe(pid);
    expect(performance.now() - began).toBeLessThan(1000);
  });

  test("is left alone while it answers, and when it knows no pings", async () => {
    const both = [
      up("echo-stdio", [], { healthSeconds: 0.1 }),
      up("misbehaving-stdio", ["ignores-ping"], { healthSeconds: 0.1 }),
    ];
    const before = await Promise.all(both.map(pidOf));
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect(await Promise.all(both.map(pidOf))).toEqual(before);
    expect(both.map((upstream) => upstream.state().restarts)).toEqual([0, 0]);
  });

  test("but works is left alone, however long a tool blocks it and whether anybody waits for it still", async () => {
    const upstream = up("echo-stdio", [], { healthSeconds: 0.1 });
    const pid = await pidOf(upstream);
    await pinged();
    const control = new AbortController();
    const waitedFor = upstream.send(toolCall("block", { ms: 2500 }), ignored, never);
    expect(textOf(await waitedFor)).toBe("blocked 2500 ms");
    const given = codeOf(upstream.send(toolCall("block", { ms: 2500 }), ignored, control.signal));
    await new Promise((resolve) => setTimeout(resolve, 100));
    control.abort();
    expect(await given).toBe("cancelled");
    await new Promise((resolve) => setTimeout(resolve, 2500));
    expect(await pidOf(upstream)).toBe(pid);
    expect(upstream.state().restarts).toBe(0);
  });
});

describe("a log message", () => {
  const heard = async (subjects: readonly [string, string]) => {
    const upstream = up("echo-stdio");
    await upstream.identity(never);
    const mine = collected();
    const other = collected();
    const asked = { logLevel: "debug" };
    const control = new AbortController();
    const slow = upstream.send(
      toolCall("slow", { ms: 60_000 }, { ...asked, subject: subjects[0] }),
      other,
      control.signal,
    );
    await upstream.send(
      toolCall("log", { level: "error", text: "whose?" }, { ...asked, subject: subjects[1] }),
      mine,
      never,
    );
    control.abort();
    await expect(slow).rejects.toMatchObject({ code: "cancelled" });
    return [mine.all.length, other.all.length];
  };
  test("goes to no caller while several callers' calls share the process", async () => {
    expect(await heard(["ann", "ben"])).toEqual([0, 0]);
  });
  test("goes to one call of its caller while all in the process are that caller's", async () => {
    const counts = await heard(["ann", "ann"]);
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(1);
  });
});

test("a child sees the allowed variables, those of the settings, and nothing else of the gateway", async () => {
  const environment = { PATH: process.env["PATH"], HOME: "/tmp", GATEWAY_SECRET: "s3cret" };
  const upstream = up("echo-stdio", [], { environment: { API_KEY: new Secret("k"), MODE: "test" } }, environment);
  const seen = structuredOf(await upstream.send(toolCall("whoami"), ignored, never));
  expect(seen["environment"]).toEqual(["API_KEY", "HOME", "MODE", "PATH"]);
  expect(seen["cwd"]).toBe(import.meta.dirname);
});

describe("no process is left", () => {
  const pidOf = async (upstream: Upstream) =>
    structuredOf(await upstream.send(toolCall("whoami"), ignored, never))["pid"] as number;

  test("after closing, though the server ignores the end of its input and SIGTERM", async () => {
    const upstream = up("misbehaving-stdio", ["ignores-sigterm"]);
    const pid = await pidOf(upstream);
    await upstream.close(AbortSignal.abort());
    expect(await alive(pid)).toBe(false);
  });

  test("after closing, though the server started another one", async () => {
    const upstream = up("misbehaving-stdio", ["forks-grandchild"]);
    const grandchild = structuredOf(await upstream.send(toolCall("grandchild"), ignored, never))["pid"] as number;
    expect(await alive(grandchild)).toBe(true);
    await upstream.close(AbortSignal.abort());
    expect(await alive(grandchild)).toBe(false);
  });

  test.each(["forks-grandchild", "ignores-sigterm"])("after the gateway was killed with -9: %s", async (mode) => {
    const gateway = spawn(process.execPath, [fileURLToPath(new URL("./holder.ts", import.meta.url)), mode], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      const pids = JSON.parse(await firstLine(gateway)) as number[];
      expect(pids.length).toBeGreaterThan(0);
      for (const pid of pids) expect(await alive(pid)).toBe(true);
      // The gateway itself, the server, what it forked, and the reaper.
      const family = (await processesOf(gateway.pid as number)).map(({ pid }) => pid);
      gateway.kill("SIGKILL");
      await waitFor(async () => !(await Promise.all([...pids, ...family].map(alive))).includes(true));
    } finally {
      gateway.kill("SIGKILL");
    }
  });
});

function firstLine(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      if (text.includes("\n")) resolve(text.slice(0, text.indexOf("\n")));
    });
    child.once("exit", () => reject(new Error("it ended before it said anything")));
  });
}
