/** A stdio server with processes for each user, or each session: who shares what with whom, how many there are, and how they end. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { userSecretReader } from "../../src/config/user-secrets.ts";
import type { Authenticated, PermittedCall, QuestionAnswer } from "../../src/core/call.ts";
import { Secret } from "../../src/core/secret.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { openUpstream } from "../../src/upstream/open.ts";
import { stdioServer } from "../../src/upstream/settings.ts";
import type { Caller, Upstream } from "../../src/upstream/upstream.ts";
import type { ReadUserSecret } from "../../src/upstream/user-values.ts";
import { alive, fixtureCommand, processesOf, waitFor } from "../fixtures/processes.ts";
import { type CallOptions, codeOf, collected, ignored, never, structuredOf, textOf, toolCall } from "./support.ts";

interface Diary {
  readonly upstream: Upstream;
  readonly lists: string[];
  readonly updates: { readonly params: string; readonly instance: string | undefined }[];
  /** In the command line of each of its processes. */
  readonly marker: string;
}

const opened: Diary[] = [];
const folders: string[] = [];
afterEach(async () => {
  for (const { upstream, marker } of opened.splice(0)) {
    await upstream.close(AbortSignal.abort());
    expect(await processesOf(marker)).toEqual([]);
  }
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true });
});

const WHO = { WHO: { from: "subject", otherwise: "nobody" } };

function diary(
  settings: Record<string, unknown> = {},
  args: readonly string[] = [],
  readUserSecret: ReadUserSecret = async () => undefined,
): Diary {
  const marker = `diary-${randomBytes(6).toString("hex")}`;
  const lists: string[] = [];
  const updates: Diary["updates"] = [];
  const upstream = openUpstream(
    "s",
    stdioServer.parse({
      command: [...fixtureCommand("diary-stdio", args), marker],
      isolation: "per-user",
      userEnvironment: WHO,
      ...settings,
    }),
    {
      logger: silentLogger,
      version: "0.0.0",
      baseDirectory: import.meta.dirname,
      environment: { PATH: process.env["PATH"] },
      readUserSecret,
      events: {
        listChanged: (list) => void lists.push(list),
        resourceUpdated: (_, params, instance) => void updates.push({ params, instance }),
      },
    },
  );
  const made = { upstream, lists, updates, marker };
  opened.push(made);
  return made;
}

const as = (subject: string, options: CallOptions = {}) => ({ ...options, subject });
const write = (text: string, options: CallOptions) => toolCall("write", { text }, options);
const call = async ({ upstream }: Diary, permitted: PermittedCall) =>
  structuredOf(await upstream.send(permitted, ignored, never));
const pidOf = async (one: Diary, options: CallOptions) =>
  (await call(one, toolCall("environment", {}, options)))["pid"];
const callerOf = (options: CallOptions): Caller => {
  const { by, call } = toolCall("", {}, options);
  return { by, session: call.session };
};
const session = (id: string, subject = "ann", more: CallOptions = {}) => as(subject, { session: id, ...more });

describe("processes for each user", () => {
  test("are told who their user is, keep what that user said, and nobody else gets them", async () => {
    const one = diary();
    const first = await call(one, write("a1", as("ann")));
    const second = await call(one, write("b1", as("bob")));
    const third = await call(one, write("a2", as("ann", { client: "another", session: "s" })));
    expect(first).toMatchObject({ who: "ann", kept: ["a1"] });
    expect(second).toMatchObject({ who: "bob", kept: ["b1"] });
    expect(third).toMatchObject({ who: "ann", kept: ["a1", "a2"], pid: first["pid"] });
    expect(one.upstream.state()).toMatchObject({ instances: 2 });
  });

  test("subjects that differ by a line break, a quote or nothing but their client's name have their own", async () => {
    const one = diary();
    const names = ['ann","x', "ann", "ann\\u0000", "Ann", 'ann"]', "anñ", "an\u0303n"];
    const pids = await Promise.all(names.map((name) => pidOf(one, as(name))));
    expect(new Set(pids).size).toBe(names.length);
    const names2 = names.map((name) => one.upstream.instanceOf?.(callerOf(as(name))));
    expect(new Set(names2).size).toBe(names.length);
  });

  test("lists and identity come from a process without a user, which is gone when it is idle", async () => {
    const one = diary({ instances: { idleSeconds: 0.2 } });
    expect(await one.upstream.identity(never)).toMatchObject({ instructions: "For nobody." });
    expect((await one.upstream.list("tools", never)).join("")).toContain('"write"');
    expect(one.upstream.state()).toMatchObject({ instances: 0, state: "ready" });
    await waitFor(async () => (await processesOf(one.marker)).length === 0);
    expect((await one.upstream.list("resources", never)).length).toBe(1);
  });

  test("a tool that one user's process adds is in nobody's list, and no list is said to have changed", async () => {
    const one = diary();
    const before = await one.upstream.list("tools", never);
    await one.upstream.send(toolCall("grow", {}, as("ann")), ignored, never);
    await call(one, write("later", as("ann")));
    expect(await one.upstream.list("tools", never)).toEqual(before);
    expect(one.lists).toEqual([]);
  });

  test("a change of a resource is told with the name of the one instance that said so", async () => {
    const one = diary();
    const [ann, bob] = [callerOf(as("ann")), callerOf(as("bob"))];
    await one.upstream.subscribe("diary://mine", never, ann);
    await one.upstream.subscribe("diary://mine", never, bob);
    await call(one, write("a", as("ann")));
    await waitFor(() => one.updates.length > 0);
    expect(one.updates.map(({ instance }) => instance)).toEqual([one.upstream.instanceOf?.(ann)]);
    expect(one.updates[0]?.params).toContain('"ann"');
    await one.upstream.unsubscribe("diary://mine", never, ann);
    await call(one, write("a", as("ann")));
    await call(one, write("b", as("bob")));
    await waitFor(() => one.updates.length > 1);
    expect(one.updates.map(({ instance }) => instance)).toEqual(
      [ann, bob].map((who) => one.upstream.instanceOf?.(who)),
    );
  });

  test("a subscription that the server refuses is refused to whoever asks, and can be tried again", async () => {
    const one = diary({}, ["--era", "legacy"]);
    const refusing = one.upstream.subscribe("diary://mine", AbortSignal.abort(), callerOf(as("ann")));
    expect(await codeOf(refusing)).toBe("cancelled");
    await one.upstream.subscribe("diary://mine", never, callerOf(as("ann")));
    await call(one, write("a", as("ann")));
    await waitFor(() => one.updates.length === 1);
  });

  test("who has subscribed keeps the process, and has a new one told of it after a crash", async () => {
    const one = diary({ instances: { idleSeconds: 0.1 } });
    await one.upstream.subscribe("diary://mine", never, callerOf(as("ann")));
    const pid = await pidOf(one, as("ann"));
    const other = await pidOf(one, as("bob"));
    await waitFor(async () => !(await alive(Number(other))));
    expect(await alive(Number(pid))).toBe(true);
    await codeOf(one.upstream.send(toolCall("crash", {}, as("ann")), ignored, never));
    await waitFor(async () => one.upstream.state().size === 1);
    await call(one, write("again", as("ann")));
    await waitFor(() => one.updates.length === 1);
  });

  test("the crash of one user's process ends that user's calls alone", async () => {
    const one = diary();
    const other = await pidOf(one, as("bob"));
    const slow = call(one, toolCall("write", { text: "b", ms: 300 }, as("bob")));
    expect(await codeOf(one.upstream.send(toolCall("crash", {}, as("ann")), ignored, never))).toBe("upstream_failed");
    expect(await slow).toMatchObject({ who: "bob", kept: ["b"], pid: other });
    expect(await call(one, write("again", as("ann")))).toMatchObject({ who: "ann", kept: ["again"] });
  });

  test("what a user's process writes to stderr is in no state", async () => {
    const one = diary();
    await one.upstream.list("tools", never);
    await one.upstream.send(toolCall("complain", {}, as("ann")), ignored, never);
    await codeOf(one.upstream.send(toolCall("crash", {}, as("ann")), ignored, never));
    expect(JSON.stringify(one.upstream.state())).not.toContain("ann");
  });

  test("whose access has ended loses the process at once, with what it works on; others keep theirs", async () => {
    const one = diary();
    const [pid, other] = [await pidOf(one, as("ann")), await pidOf(one, as("bob"))];
    const pending = codeOf(one.upstream.send(toolCall("silent", {}, as("ann")), ignored, never));
    await one.upstream.sweep?.(async ({ subject }) => subject === "bob");
    expect(await pending).toBe("upstream_unavailable");
    await waitFor(async () => !(await alive(Number(pid))));
    expect(await alive(Number(other))).toBe(true);
  });

  test("one of two clients that loses its grant leaves the user's process to the other", async () => {
    const one = diary();
    const pid = await pidOf(one, as("ann", { client: "a" }));
    await pidOf(one, as("ann", { client: "b" }));
    await one.upstream.sweep?.(async ({ client }) => client === "b");
    expect(await pidOf(one, as("ann", { client: "b" }))).toBe(pid);
    await one.upstream.sweep?.(() => Promise.reject(new Error("the store is away")));
    await waitFor(async () => !(await alive(Number(pid))));
  });

  test("clients of one user that can do different things are asked what they can answer, and no more", async () => {
    const one = diary();
    const asked: string[] = [];
    const replies = (name: string) => ({
      notify() {},
      ask: async (): Promise<QuestionAnswer> => {
        asked.push(name);
        return { kind: "result", result: JSON.stringify({ action: "accept", content: { name } }) };
      },
    });
    const can = as("ann", { client: "can", capabilities: { elicitation: {} } });
    const cannot = as("ann", { client: "cannot", capabilities: { roots: {} } });
    const ask = async (options: CallOptions, name: string) =>
      JSON.stringify(await one.upstream.send(toolCall("ask", {}, options), replies(name), never));
    for (let round = 0; round < 2; round++) {
      expect(await ask(can, "can")).toContain('"accept"');
      expect(await ask(cannot, "cannot")).not.toContain('"accept"');
    }
    expect(asked).toEqual(["can", "can"]);
  });
});

describe("processes for each session", () => {
  const isolation = "per-session";

  test("keep what is said in it, and end with it", async () => {
    const one = diary({ isolation });
    const first = await call(one, write("1", session("s1")));
    expect(await call(one, write("2", session("s2")))).toMatchObject({ kept: ["2"] });
    expect(await call(one, write("3", session("s1")))).toMatchObject({ kept: ["1", "3"], pid: first["pid"] });
    one.upstream.sessionEnded?.("s1");
    await waitFor(async () => !(await alive(Number(first["pid"]))));
    // The process is gone a moment before its place is given back.
    await waitFor(() => one.upstream.state().instances === 1);
  });

  test("of a session of the same id that somebody else has are others", async () => {
    const one = diary({ isolation });
    await call(one, write("1", session("s1", "ann")));
    expect(await call(one, write("2", session("s1", "bob")))).toMatchObject({ who: "bob", kept: ["2"] });
  });

  test("without a session belong to a user and a client", async () => {
    const one = diary({ isolation });
    const first = await call(one, write("1", as("ann", { client: "a" })));
    expect(await call(one, write("2", as("ann", { client: "b" })))).toMatchObject({ kept: ["2"] });
    expect(await call(one, write("3", as("ann", { client: "a" })))).toMatchObject({
      kept: ["1", "3"],
      pid: first["pid"],
    });
  });

  test("a single process asks its client, lists or subscriptions do not end it, and neither does a call that nobody can be asked in", async () => {
    const one = diary({ isolation, instances: { processes: 1 } });
    const own = session("s1", "ann", { capabilities: { elicitation: {} } });
    await one.upstream.list("tools", never);
    const first = await call(one, write("1", own));
    const replies = {
      notify() {},
      ask: async (): Promise<QuestionAnswer> => ({ kind: "result", result: '{"action":"decline"}' }),
    };
    for (let round = 0; round < 3; round++) {
      const answer = structuredOf(await one.upstream.send(toolCall("ask", {}, own), replies, never));
      expect(answer).toMatchObject({ pid: first["pid"], capabilities: { elicitation: {} } });
      expect(JSON.stringify(answer)).toContain("decline");
    }
    await one.upstream.list("tools", never, { elicitation: {} });
    await one.upstream.subscribe("diary://mine", never, callerOf(own));
    expect(await call(one, write("2", own))).toMatchObject({ kept: ["1", "2"], pid: first["pid"] });
  });
});

describe("the cap", () => {
  const instances = { max: 2, idleSeconds: 600 };

  test("has the one idle for longest give way", async () => {
    const one = diary({ instances });
    const [ann, bob] = [await pidOf(one, as("ann")), await pidOf(one, as("bob"))];
    await pidOf(one, as("ann"));
    await pidOf(one, as("eve"));
    expect(await alive(Number(bob))).toBe(false);
    expect(await alive(Number(ann))).toBe(true);
    expect(one.upstream.state()).toMatchObject({ instances: 2 });
  });

  test("refuses at once, with a time to come back, while all work, are asked for or are subscribed to", async () => {
    const one = diary({ instances });
    const stop = new AbortController();
    const pending = codeOf(one.upstream.send(toolCall("silent", {}, as("ann")), ignored, stop.signal));
    await one.upstream.subscribe("diary://mine", never, callerOf(as("bob")));
    const refused = await one.upstream.send(write("e", as("eve")), ignored, never).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "overloaded", retryAfterSeconds: expect.any(Number) });
    expect(String((refused as Error).message)).toMatch(/serves as many users as it can/);
    expect((await processesOf(one.marker)).length).toBeLessThanOrEqual(3);
    stop.abort();
    expect(await pending).toBe("cancelled");
    expect(await call(one, write("e", as("eve")))).toMatchObject({ who: "eve" });
  });

  test("is never exceeded, however many come at once, and everybody is served or refused", async () => {
    const one = diary({ instances: { max: 3, processes: 1 } });
    await one.upstream.list("tools", never);
    const [house] = await processesOf(one.marker);
    let [most, over] = [0, false];
    const watched = (async () => {
      while (!over)
        most = Math.max(most, (await processesOf(one.marker)).filter(({ pid }) => pid !== house?.pid).length);
    })();
    const outcomes = await Promise.all(
      Array.from({ length: 12 }, (_, index) =>
        one.upstream.send(write(`${index}`, as(`u${index}`)), ignored, never).then(
          (outcome) => structuredOf(outcome),
          (error: { code: string }) => error.code,
        ),
      ),
    );
    over = true;
    await watched;
    for (const [index, outcome] of outcomes.entries())
      if (typeof outcome === "string") expect(outcome).toBe("overloaded");
      else expect(outcome).toMatchObject({ who: `u${index}`, kept: [`${index}`] });
    expect(outcomes.filter((outcome) => typeof outcome !== "string").length).toBeGreaterThanOrEqual(3);
    expect(most).toBeLessThanOrEqual(3);
  });

  test("leaves room for others beside a user with many sessions", async () => {
    const one = diary({ isolation: "per-session", instances: { max: 4 } });
    const stop = new AbortController();
    const busy = ["s1", "s2"].map((id) =>
      codeOf(one.upstream.send(toolCall("silent", {}, session(id)), ignored, stop.signal)),
    );
    await waitFor(() => one.upstream.state().inFlight === 2);
    const third = await one.upstream.send(write("3", session("s3")), ignored, never).catch((error: unknown) => error);
    expect(third).toMatchObject({ code: "overloaded", message: expect.stringContaining("one user") });
    expect(await call(one, write("b", session("s4", "bob")))).toMatchObject({ who: "bob" });
    stop.abort();
    await Promise.all(busy);
    expect(await call(one, write("3", session("s3")))).toMatchObject({ kept: ["3"] });
  });

  test("counts nobody who is idle for too long", async () => {
    const one = diary({ instances: { idleSeconds: 0.1 } });
    const pid = await pidOf(one, as("ann"));
    await waitFor(async () => !(await alive(Number(pid))));
    await waitFor(() => one.upstream.state().instances === 0);
  });
});

describe("values of users", () => {
  const secret = { userEnvironment: { ...WHO, KEY: { secret: "diary", otherwise: new Secret("house-key") } } };
  const environmentOf = async (one: Diary, options: CallOptions) =>
    (await call(one, toolCall("environment", {}, options)))["environment"] as Record<string, string>;

  test("come from the token: subject, client and claims; clients that say different things share no process", async () => {
    const one = diary({ userEnvironment: { ...WHO, CLIENT: { from: "client" }, MAIL: { from: "claims.email" } } });
    const withMail = (client: string, email: unknown) => {
      const permitted = toolCall("environment", {}, as("ann", { client }));
      return { ...permitted, by: { ...permitted.by, claims: { email } } } as PermittedCall;
    };
    expect((await call(one, withMail("a", "ann@a.test")))["environment"]).toMatchObject({
      WHO: "ann",
      CLIENT: "a",
      MAIL: "ann@a.test",
    });
    expect((await call(one, withMail("b", 7)))["environment"]).toMatchObject({ CLIENT: "b", MAIL: "7" });
    const refused = await one.upstream.send(withMail("c", ["a"]), ignored, never).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "upstream_unavailable", message: expect.stringContaining("claims.email") });
    const lines = await one.upstream.send(withMail("c", "a\nb"), ignored, never).catch((error: unknown) => error);
    expect(lines).toMatchObject({ code: "upstream_unavailable", message: expect.stringContaining("claims.email") });
    expect(one.upstream.state()).toMatchObject({ instances: 2 });
  });

  test("are secrets in files; who has none is told what the operator has to provide, and nothing is started", async () => {
    const folder = await secretsFolder({ ann: "key of ann" });
    const one = diary(
      secret,
      [],
      userSecretReader(folder, {}, () => {}),
    );
    expect(await environmentOf(one, as("ann"))).toMatchObject({ KEY: "key of ann" });
    const refused = (await one.upstream
      .send(write("b", as("bob@x.test")), ignored, never)
      .catch((error: unknown) => error)) as Error;
    expect(refused).toMatchObject({ code: "upstream_unavailable" });
    expect(refused.message).toContain("secrets/diary/bob%40x%2Etest");
    expect(refused.message).not.toContain("key");
    expect(one.upstream.state()).toMatchObject({ instances: 1 });
  });

  test("that change make the next process new, while what was begun is finished", async () => {
    const folder = await secretsFolder({ ann: "first" });
    let now = 0;
    const one = diary(
      secret,
      [],
      userSecretReader(
        folder,
        {},
        () => {},
        () => (now += 10_000),
      ),
    );
    expect(await environmentOf(one, as("ann"))).toMatchObject({ KEY: "first" });
    const slow = call(one, toolCall("write", { text: "begun", ms: 1_500 }, as("ann")));
    await waitFor(() => one.upstream.state().inFlight === 1);
    await writeFile(join(folder, "secrets", "diary", "ann"), "second\n");
    await waitFor(async () => (await environmentOf(one, as("ann")))["KEY"] === "second");
    const next = await pidOf(one, as("ann"));
    expect(await slow).toMatchObject({ kept: ["begun"] });
    expect((await slow)["pid"]).not.toBe(next);
    await waitFor(() => one.upstream.state().instances === 1);
    await rm(join(folder, "secrets", "diary", "ann"));
    await waitFor(async () => (await codeOf(environmentOf(one, as("ann")))) === "upstream_unavailable");
    await waitFor(() => one.upstream.state().instances === 0);
  });

  test("that a server cannot start without are named to the operator, with the setting that helps", async () => {
    const one = diary({ userEnvironment: { WHO: { from: "subject" } }, startTimeoutSeconds: 5 }, ["--needs", "WHO"]);
    await expect(one.upstream.list("tools", never)).rejects.toMatchObject({ code: "upstream_unavailable" });
    expect(one.upstream.state().problem).toMatch(/servers\.s\.userEnvironment\.WHO an `otherwise`/);
    expect(await call(one, write("a", as("ann")))).toMatchObject({ who: "ann" });
  });
});

async function secretsFolder(secrets: Record<string, string>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "drawbridge-user-secrets-"));
  folders.push(folder);
  await mkdir(join(folder, "secrets", "diary"), { recursive: true });
  for (const [name, value] of Object.entries(secrets))
    await writeFile(join(folder, "secrets", "diary", name), `${value}\n`, { mode: 0o600 });
  return folder;
}

describe("every end", () => {
  test.each(["per-user", "per-session"])("leaves no process of a %s server", async (isolation) => {
    const one = diary({ isolation });
    await Promise.all(["ann", "bob", "eve"].map((who) => call(one, write("x", session(`of-${who}`, who)))));
    const pending = codeOf(one.upstream.send(toolCall("silent", {}, session("of-ann")), ignored, never));
    await one.upstream.close(AbortSignal.timeout(100));
    expect(await pending).toBe("upstream_unavailable");
    expect(await processesOf(one.marker)).toEqual([]);
    expect(await codeOf(one.upstream.send(write("x", as("ann")), ignored, never))).toBe("upstream_unavailable");
  });

  test("leaves no process after the gateway was killed with -9", async () => {
    const gateway = spawn(process.execPath, [fileURLToPath(new URL("./isolated-holder.ts", import.meta.url))], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      const [line] = (await once(createInterface(gateway.stdout), "line")) as [string];
      const pids = JSON.parse(line) as number[];
      expect(await Promise.all(pids.map(alive))).toEqual([true, true]);
      const family = (await processesOf(gateway.pid ?? 0)).map(({ pid }) => pid);
      gateway.kill("SIGKILL");
      await waitFor(async () => !(await Promise.all([...pids, ...family].map(alive))).includes(true));
    } finally {
      gateway.kill("SIGKILL");
    }
  });

  test("a user whose access ends while the process is being started gets none", async () => {
    const one = diary();
    const pending = codeOf(one.upstream.send(write("x", as("ann")), ignored, never));
    await one.upstream.sweep?.(async (_: Authenticated) => false);
    expect(await pending).toBe("upstream_unavailable");
    await waitFor(() => one.upstream.state().instances === 0);
  });
});

test("in fifty users' interleaved calls everybody gets their own answers, progress and messages", async () => {
  const one = diary({ instances: { max: 50, processes: 1 } });
  const users = Array.from({ length: 50 }, (_, index) => `user${index}x${randomBytes(3).toString("hex")}`);
  const got = await Promise.all(
    users.map(async (user) => {
      const replies = collected();
      const own = as(user, { progressToken: "same", logLevel: "debug" });
      const texts = await Promise.all(
        [0, 1, 2].map(async (round) => textOf(await one.upstream.send(write(`${user}-${round}`, own), replies, never))),
      );
      return [...texts, ...replies.all.map(({ params }) => params)].join("\n");
    }),
  );
  for (const [index, text] of got.entries()) {
    expect([...new Set(text.match(/user\d+x[0-9a-f]{6}/g))]).toEqual([users[index]]);
    expect(text.match(/"progress":1/g)?.length).toBe(3);
  }
}, 120_000);
