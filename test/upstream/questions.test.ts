import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import type { CallNotification, JsonObject, Question, QuestionAnswer, Replies } from "../../src/core/call.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { flavourOf } from "../../src/upstream/capabilities.ts";
import { processPool } from "../../src/upstream/pool.ts";
import { startProcess } from "../../src/upstream/process.ts";
import { stdioServer } from "../../src/upstream/settings.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { fixtureCommand, startFixture, waitFor } from "../fixtures/processes.ts";
import {
  anyHttp,
  type CallOptions,
  codeOf,
  end,
  http,
  ignored,
  never,
  permitted,
  type Recorded,
  stdio,
  structuredOf,
  textOf,
  toolCall,
} from "./support.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

const CAN_ALL: JsonObject = { elicitation: { form: {}, url: {} }, sampling: { tools: {} }, roots: {} };
const CAN_ELICIT: JsonObject = { elicitation: {} };

function opened({ upstream }: Recorded): Upstream {
  cleanups.push(() => end(upstream));
  return upstream;
}
const everything = (settings: Parameters<typeof stdio>[2] = {}) =>
  opened(stdio("everything/stdio", ["--era", "legacy"], { processes: { min: 0, max: 2 }, ...settings }));

/** A client that answers each question by what `say` makes of it. */
function client(say: (question: Question) => QuestionAnswer | Promise<QuestionAnswer>) {
  const asked: Question[] = [];
  const heard: CallNotification[] = [];
  const replies: Replies = {
    notify: (notification) => void heard.push(notification),
    async ask(question) {
      asked.push(question);
      return say(question);
    },
  };
  return { asked, heard, replies };
}
const result = (value: unknown): QuestionAnswer => ({ kind: "result", result: JSON.stringify(value) });
const accepts = (content: Record<string, unknown> = {}) => client(() => result({ action: "accept", content }));
const nobody = () => new Promise<QuestionAnswer>(() => {});

/** A call that asks these rounds of one question each. */
function asks(messages: readonly string[], options: CallOptions & { ms?: number } = {}) {
  const { ms, ...call } = options;
  const rounds = messages.map((message) => ({
    it: {
      method: "elicitation/create",
      params: { message, requestedSchema: { type: "object", properties: { who: { type: "string" } } } },
    },
  }));
  return toolCall("ask-rounds", { rounds, ...(ms !== undefined && { ms }) }, { capabilities: CAN_ELICIT, ...call });
}
const messageOf = ({ params }: Question) => (JSON.parse(params) as { message: string }).message;

async function over(transport: string): Promise<Upstream> {
  if (transport === "stdio") return everything();
  const sse = transport === "sse";
  const fixture = sse
    ? await startFixture("echo-sse", ["--everything"])
    : await startFixture("everything/http", ["--era", "legacy"]);
  cleanups.push(fixture.stop);
  return opened(anyHttp(`${fixture.origin}/${sse ? "sse" : "mcp"}`));
}

describe.each(["stdio", "http", "sse"])("over %s, a server with a handshake", (transport) => {
  test("asks the client of the call, which answers in its own words", async () => {
    const upstream = await over(transport);
    const { asked, replies } = client(({ method }) => {
      if (method === "roots/list") return { kind: "result", result: '{"roots":[{"uri":"file:///a","x-vendor":1}]}' };
      if (method === "elicitation/create")
        return { kind: "result", result: '{ "action": "accept",\n "content": {"name": "Zo\\u00eb", "n": 1e2} }' };
      return { kind: "error", code: -1, message: "The user said no", data: '{"why":"☃"}' };
    });
    const answer = await upstream.send(
      toolCall(
        "ask-rounds",
        {
          rounds: [
            { who: { method: "elicitation/create", params: { message: "Who?", requestedSchema: { type: "object" } } } },
            { where: { method: "roots/list" } },
          ],
        },
        { capabilities: CAN_ALL },
      ),
      replies,
      never,
    );
    expect(structuredOf(answer)["answers"]).toEqual([
      { who: { action: "accept", content: { name: "Zoë", n: 100 } } },
      { where: { roots: [{ uri: "file:///a", "x-vendor": 1 }] } },
    ]);
    const refused = await upstream.send(
      toolCall("test_sampling", { prompt: "p" }, { capabilities: CAN_ALL }),
      replies,
      never,
    );
    expect(textOf(refused)).toContain("The user said no");
    expect(asked.map(({ method }) => method)).toEqual(["elicitation/create", "roots/list", "sampling/createMessage"]);
    expect(JSON.parse(asked[0]?.params ?? "")).toMatchObject({ message: "Who?" });
  });

  test("is told that nobody answers when the client can be asked nothing, or does not answer in time", async () => {
    const upstream = await over(transport);
    const mute = await upstream.send(asks(["Who?"]), ignored, never);
    expect(textOf(mute)).toContain("does not support elicitation");
    const rejecting = client(() => Promise.reject(new Error("the call has ended")));
    expect(textOf(await upstream.send(asks(["Who?"]), rejecting.replies, never))).toContain("not answered");
  });

  test("withdraws a question in its own words, and asks another one", async () => {
    const upstream = await over(transport);
    const folder = await mkdtemp(join(tmpdir(), "drawbridge-questions-"));
    cleanups.push(() => rm(folder, { recursive: true }));
    const until = join(folder, "enough");
    let withdrawal: AbortSignal | undefined;
    const asked: Question[] = [];
    const replies: Replies = {
      notify: () => {},
      async ask(question, withdrawn) {
        asked.push(question);
        if (asked.length > 1) return result({ action: "accept", content: { colour: "blue" } });
        withdrawal = withdrawn;
        await writeFile(until, "");
        return nobody();
      },
    };
    const call = toolCall("change-mind", { until }, { capabilities: CAN_ELICIT });
    const answer = await upstream.send(call, replies, never);
    expect(structuredOf(answer)).toEqual({ colour: { action: "accept", content: { colour: "blue" } } });
    expect(asked.map(messageOf)).toEqual(["Your name?", "Your colour?"]);
    expect(withdrawal?.reason).toMatchObject({ name: "AbortError", message: "The name was found elsewhere." });
  });

  test("asks twenty users at once, and each sees the questions of their own call only", async () => {
    const upstream = await over(transport);
    const users = Array.from({ length: 20 }, (_, index) => `user-${index}`);
    const clients = users.map((user) => accepts({ who: user }));
    const answers = await Promise.all(
      users.map((subject, index) =>
        upstream.send(asks([`${subject} 1`, `${subject} 2`], { subject }), clients[index]?.replies ?? ignored, never),
      ),
    );
    for (const [index, user] of users.entries()) {
      expect(clients[index]?.asked.map(messageOf)).toEqual([`${user} 1`, `${user} 2`]);
      const answer = { it: { action: "accept", content: { who: user } } };
      expect(structuredOf(answers[index] ?? (undefined as never))["answers"]).toEqual([answer, answer]);
    }
  });

  test("asks one user in twenty calls at once", async () => {
    const upstream = await over(transport);
    const { asked, replies } = client((question) =>
      result({ action: "accept", content: { who: messageOf(question) } }),
    );
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => upstream.send(asks([`question ${n}`]), replies, never)),
    );
    expect(new Set(asked.map(messageOf)).size).toBe(20);
    expect(answers.map((answer) => structuredOf(answer)["answers"])).toEqual(
      Array.from({ length: 20 }, (_, n) => [{ it: { action: "accept", content: { who: `question ${n}` } } }]),
    );
  });

  test("is told when the call is cancelled whose client it asks", async () => {
    const upstream = await over(transport);
    const control = new AbortController();
    const { asked, replies } = client(nobody);
    const sent = codeOf(upstream.send(asks(["Who?"]), replies, control.signal));
    await waitFor(() => asked.length > 0);
    control.abort();
    expect(await sent).toBe("cancelled");
    await waitFor(() => upstream.state().inFlight === 0);
    const others = accepts({ who: "bob" });
    const next = await upstream.send(asks(["Still there?"], { subject: "bob" }), others.replies, never);
    expect(structuredOf(next)["answers"]).toHaveLength(1);
  });
});

describe("time", () => {
  test("stands still for the call while its client is asked", async () => {
    const upstream = everything({ timeoutSeconds: 0.8, maxCallSeconds: 1.2 });
    // What it takes to start a process does not count here.
    await upstream.list("tools", never, CAN_ELICIT);
    const { replies } = client(async () => {
      await new Promise((resolve) => setTimeout(resolve, 1600));
      return result({ action: "decline" });
    });
    expect(structuredOf(await upstream.send(asks(["Well?"]), replies, never))["answers"]).toEqual([
      { it: { action: "decline" } },
    ]);
  });

  test("ends for a question that nobody answers", async () => {
    const upstream = everything({ answerSeconds: 0.3 });
    const { replies } = client(nobody);
    expect(textOf(await upstream.send(asks(["Well?"]), replies, never))).toContain("Nobody answered in time");
  });
});

describe("a process that several users share", () => {
  /** Its only process for clients that can be asked; `ask-rounds` has been seen to ask nothing there. */
  async function shared(settings: Parameters<typeof stdio>[2] = {}) {
    const upstream = everything(settings);
    for (const call of [asks([]), toolCall("slow", { ms: 1 }, { capabilities: CAN_ELICIT })])
      await upstream.send(call, accepts().replies, never);
    await waitFor(() => upstream.state().inFlight === 0);
    return upstream;
  }

  test("has its question held until one user's calls alone are left, and then that user is asked", async () => {
    const upstream = await shared();
    const ann = accepts({ who: "ann" });
    const bob = accepts({ who: "bob" });
    const slow = upstream.send(
      toolCall("slow", { ms: 1200 }, { subject: "bob", capabilities: CAN_ELICIT }),
      bob.replies,
      never,
    );
    await waitFor(() => upstream.state().inFlight === 1);
    let done = false;
    const asking = upstream.send(asks(["ann?"], { subject: "ann" }), ann.replies, never).finally(() => {
      done = true;
    });
    await slow;
    expect(done).toBe(false);
    expect(structuredOf(await asking)["answers"]).toEqual([{ it: { action: "accept", content: { who: "ann" } } }]);
    expect([ann.asked.length, bob.asked.length]).toEqual([1, 0]);
  });

  test("gets no answer when nobody can tell who is asked; afterwards each who calls such a tool has a process alone", async () => {
    const upstream = await shared({ timeoutSeconds: 2 });
    const users = ["ann", "bob"];
    const clients = users.map((who) => accepts({ who }));
    const both = () =>
      Promise.all(
        users.map((subject, index) =>
          upstream.send(asks([`${subject}?`], { subject }), clients[index]?.replies ?? ignored, never),
        ),
      );
    const refused = (await both()).map(textOf);
    expect(refused.every((text) => text.includes("cannot be told"))).toBe(true);
    expect(clients.map(({ asked }) => asked.length)).toEqual([0, 0]);
    const answers = (await both()).map((answer) => structuredOf(answer)["answers"]);
    expect(answers).toEqual(users.map((who) => [{ it: { action: "accept", content: { who } } }]));
    expect(clients.map(({ asked }) => asked.map(messageOf))).toEqual([["ann?"], ["bob?"]]);
  });

  test("asks nobody in the name of a call that another user has given up", async () => {
    const settings = { processes: { min: 0, max: 2 }, timeoutSeconds: 2 };
    const upstream = opened(stdio("late-questions-stdio", [], settings));
    const ann = accepts();
    const bob = accepts();
    const call = (name: string, args = {}) => toolCall(name, args, { subject: "bob", capabilities: CAN_ELICIT });
    // Seen to ask nothing, so that they may run beside what others have left behind.
    for (const quiet of ["slow", "late-answers"]) await upstream.send(call(quiet, { ms: 1 }), bob.replies, never);
    const control = new AbortController();
    const late = toolCall("ask-late", { ms: 200 }, { subject: "ann", capabilities: CAN_ELICIT });
    const abandoned = codeOf(upstream.send(late, ann.replies, control.signal));
    await waitFor(() => upstream.state().inFlight === 1);
    control.abort();
    expect(await abandoned).toBe("cancelled");
    await upstream.send(call("slow", { ms: 1500 }), bob.replies, never);
    const answers = await waitFor(async () => {
      const seen = structuredOf(await upstream.send(call("late-answers"), bob.replies, never))["answers"];
      return (seen as object[]).length > 0 && seen;
    });
    expect(answers).toMatchObject([{ id: "late-1", error: { code: -32600 } }]);
    expect([ann.asked, bob.asked]).toEqual([[], []]);
  });

  test("serves others all the while when there is room for another process", async () => {
    const upstream = await shared({ processes: { min: 0, max: 3 } });
    const { asked, replies } = client(nobody);
    const control = new AbortController();
    const abandoned = codeOf(upstream.send(asks(["Anyone?"], { subject: "mallory" }), replies, control.signal));
    await waitFor(() => asked.length === 1);
    for (const subject of ["ann", "bob", "ann"]) {
      const other = accepts({ who: subject });
      await upstream.send(asks([`${subject}?`], { subject }), other.replies, never);
      expect(other.asked.map(messageOf)).toEqual([`${subject}?`]);
      const echo = toolCall("echo", { text: subject }, { subject, capabilities: CAN_ELICIT });
      expect(textOf(await upstream.send(echo, other.replies, never))).toBe(subject);
    }
    control.abort();
    expect(await abandoned).toBe("cancelled");
  });

  test("is not asked for roots by one user that another has told", async () => {
    const upstream = everything({ processes: { min: 0, max: 3 } });
    const rooted = (who: string) => client(() => result({ roots: [{ uri: `file:///${who}` }] }));
    const call = (subject: string) =>
      toolCall("ask-rounds", { rounds: [{ r: { method: "roots/list" } }] }, { subject, capabilities: { roots: {} } });
    await upstream.send(call("ann"), rooted("ann").replies, never);
    const size = upstream.state().size;
    await upstream.send(call("ann"), rooted("ann").replies, never);
    expect(upstream.state().size).toBe(size);
    await upstream.send(call("bob"), rooted("bob").replies, never);
    expect(upstream.state().size).toBe(size + 1);
  });

  test("never mixes up 300 calls of 30 users, some of which ask", async () => {
    const upstream = everything({ processes: { min: 1, max: 4 } });
    const seen = Array.from({ length: 30 }, () => new Set<string>());
    const calls = Array.from({ length: 300 }, async (_, n) => {
      const subject = `user-${n % 30}`;
      const { asked, replies } = client((question) =>
        result({ action: "accept", content: { who: `${subject} ${messageOf(question)}` } }),
      );
      if (n % 3 === 0) {
        const answer = await upstream.send(asks([`${subject}`], { subject }), replies, never);
        expect(JSON.stringify(structuredOf(answer))).toContain(`"${subject} ${subject}"`);
      } else {
        const echo = toolCall("echo", { text: `${subject} ${n}` }, { subject, capabilities: CAN_ELICIT });
        expect(textOf(await upstream.send(echo, replies, never))).toBe(`${subject} ${n}`);
      }
      for (const question of asked) seen[n % 30]?.add(messageOf(question));
    });
    await Promise.all(calls);
    for (const [user, questions] of seen.entries())
      expect([...questions].filter((message) => message !== `user-${user}`)).toEqual([]);
  });
});

describe("a pool of its own time", () => {
  /** So many processes for clients of one kind. `later` lets seconds pass that nobody waits for. */
  function pool(max: number) {
    let ahead = 0;
    let size = () => 0;
    const settings = stdioServer.parse({ command: fixtureCommand("everything/stdio", ["--era", "legacy"]) });
    const process = { command: settings.command as string[], cwd: import.meta.dirname, environment: {} };
    const flavour = flavourOf(CAN_ELICIT, true);
    const made = processPool(
      {
        name: "s",
        version: "0",
        start: (events) => startProcess(process, silentLogger, events),
        settings,
        logger: silentLogger,
        events: { listChanged() {}, resourceUpdated() {} },
      },
      { flavour, min: 0, room: () => max - size(), squeeze() {}, vacated() {} },
      new Set(),
      () => performance.now() + ahead,
    );
    size = () => made.size;
    cleanups.push(() => made.close(AbortSignal.abort()));
    const later = (seconds: number) => {
      ahead += seconds * 1000;
    };
    /** How many calls each process works on that works at all. */
    const loads = () =>
      made
        .ready()
        .flatMap(({ flights }) => (flights.size > 0 ? [flights.size] : []))
        .sort();
    return { pool: made, later, loads };
  }

  test.each([
    ["those of others after half a minute", { subject: "bob" }, 9, 22],
    ["those of the same user after ten seconds", { client: "another" }, 3, 8],
  ])(
    "has a question that its client has forgotten give way to calls that need its process: to %s",
    async (_, who, soon, rest) => {
      const { pool: one, later } = pool(1);
      const { asked, replies } = client(nobody);
      const forgotten = codeOf(one.send(asks(["Anyone?"], { subject: "ann" }), replies, never));
      await waitFor(() => asked.length === 1);
      const next = accepts({ who: "next" });
      let over = false;
      void forgotten.then(() => {
        over = true;
      });
      const waiting = one.send(asks(["Now me?"], { subject: "ann", ...who }), next.replies, never);
      later(soon);
      await new Promise((resolve) => setTimeout(resolve, 200));
      expect([over, next.asked]).toEqual([false, []]);
      later(rest);
      expect(await forgotten).toBe("overloaded");
      expect(structuredOf(await waiting)["answers"]).toEqual([{ it: { action: "accept", content: { who: "next" } } }]);
      expect(asked.map(messageOf)).toEqual(["Anyone?"]);
    },
  );

  test("leaves a forgotten question alone while there is a process for everybody else", async () => {
    const { pool: two, later } = pool(2);
    const { asked, replies } = client(nobody);
    const control = new AbortController();
    const forgotten = codeOf(two.send(asks(["Anyone?"], { subject: "ann" }), replies, control.signal));
    await waitFor(() => asked.length === 1);
    later(40);
    await two.send(asks(["Me?"], { subject: "bob" }), accepts().replies, never);
    expect(two.state().inFlight).toBe(1);
    control.abort();
    expect(await forgotten).toBe("cancelled");
  });

  test("knows prompts one by one: what is known of one says nothing of another", async () => {
    const { pool: one } = pool(1);
    const prompt = (name: string, subject: string) =>
      permitted("prompts/get", { name }, { subject, capabilities: CAN_ELICIT });
    const slow = (ms: number) => toolCall("slow", { ms }, { subject: "bob", capabilities: CAN_ELICIT });
    const ann = accepts({ context: "ann's" });
    const bob = accepts();
    await one.send(slow(1), bob.replies, never);
    await one.send(prompt("test_simple_prompt", "ann"), ann.replies, never);
    let over = false;
    const held = one.send(slow(1500), bob.replies, never).finally(() => {
      over = true;
    });
    await one.send(prompt("test_simple_prompt", "ann"), ann.replies, never);
    expect(over).toBe(false);
    const asking = one.send(prompt("test_input_required_result_prompt", "ann"), ann.replies, never);
    await waitFor(() => one.state().queued === 1);
    await held;
    expect(JSON.stringify(await asking)).toContain("ann's");
    expect([ann.asked.length, bob.asked.length]).toEqual([1, 0]);
  });

  test("has dialogues of one caller in processes of their own while there are some, and lets them share one only then", async () => {
    const { pool: four, loads } = pool(4);
    const { asked, replies } = client(nobody);
    const control = new AbortController();
    const dialogues: Promise<string>[] = [];
    const begin = async () => {
      dialogues.push(codeOf(four.send(asks([`question ${dialogues.length}`]), replies, control.signal)));
      await waitFor(() => asked.length === dialogues.length);
    };
    await begin();
    await begin();
    expect(loads()).toEqual([1, 1]);
    // Nobody has more than half of the processes.
    await begin();
    expect(loads()).toEqual([1, 2]);
    const bob = accepts();
    await four.send(asks(["bob?"], { subject: "bob" }), bob.replies, never);
    expect(bob.asked.map(messageOf)).toEqual(["bob?"]);
    control.abort();
    expect(await Promise.all(dialogues)).toEqual(["cancelled", "cancelled", "cancelled"]);
  });
});

describe("a client that was started anew", () => {
  test("with other capabilities gets the process of the question that its user has left unanswered, not that of others", async () => {
    const upstream = everything({ processes: { min: 0, max: 3 } });
    const users = ["ann", "bob", "cat"];
    const clients = users.map(() => client(nobody));
    const controls = users.map(() => new AbortController());
    const open: Promise<string>[] = [];
    for (const [index, subject] of users.entries()) {
      const { replies = ignored, asked = [] } = clients[index] ?? {};
      open.push(codeOf(upstream.send(asks(["?"], { subject }), replies, controls[index]?.signal ?? never)));
      await waitFor(() => asked.length === 1);
    }
    const anew = accepts({ who: "ann" });
    const capabilities = { elicitation: {}, sampling: {} };
    const again = await upstream.send(asks(["Again?"], { subject: "ann", capabilities }), anew.replies, never);
    expect(structuredOf(again)["answers"]).toHaveLength(1);
    for (const control of controls) control.abort();
    expect(await Promise.all(open)).toEqual(["overloaded", "cancelled", "cancelled"]);
  });
});

describe("what a server asks outside any call", () => {
  test("is refused, whatever its clients can do", async () => {
    const upstream = opened(stdio("misbehaving-stdio", ["requests-roots"], { processes: { min: 0, max: 2 } }));
    const { asked, replies } = accepts();
    const answers = await waitFor(async () => {
      const call = toolCall("answers", {}, { capabilities: CAN_ALL });
      const seen = structuredOf(await upstream.send(call, replies, never))["answers"] as { id: string }[];
      return seen.filter(({ id }) => id.startsWith("ask-")).length === 4 && seen;
    });
    expect(answers).toMatchObject([
      { id: "ask-ping", result: {} },
      { id: "ask-roots", error: { code: -32600 } },
      { id: "ask-elicitation", error: { code: -32600 } },
      { id: "ask-sampling", error: { code: -32600 } },
    ]);
    expect(asked).toEqual([]);
  });

  test("is not taken for a question of the first call (server-everything asks for roots when it has started)", async () => {
    const entry = new URL(import.meta.resolve("@modelcontextprotocol/server-everything/dist/index.js")).pathname;
    const upstream = opened(
      stdio("", [], { command: [process.execPath, entry, "stdio"], processes: { min: 0, max: 3 } }),
    );
    const { asked, replies } = client(({ method }) =>
      method === "roots/list"
        ? result({ roots: [{ uri: "file:///home/ann", name: "home" }] })
        : method === "sampling/createMessage"
          ? result({ role: "assistant", model: "m", content: { type: "text", text: "sampled" } })
          : result({ action: "accept", content: { name: "Ann", check: true } }),
    );
    const call = (name: string, args = {}) =>
      upstream.send(toolCall(name, args, { capabilities: CAN_ALL }), replies, never);
    expect(textOf(await call("echo", { message: "hello" }))).toContain("hello");
    expect(asked).toEqual([]);
    expect(textOf(await call("get-roots-list"))).toContain("file:///home/ann");
    expect(JSON.stringify(await call("trigger-elicitation-request"))).toContain("Ann");
    expect(JSON.stringify(await call("trigger-sampling-request", { prompt: "p", maxTokens: 5 }))).toContain("sampled");
    expect(asked.map(({ method }) => method)).toEqual(["roots/list", "elicitation/create", "sampling/createMessage"]);
  });
});

describe("a session of its own stream (HTTP)", () => {
  interface Message {
    readonly id?: number | string;
    readonly method?: string;
    readonly params?: { readonly name?: string };
    readonly result?: unknown;
    readonly error?: { readonly code: number };
  }

  /** A server whose tools ask on the session's own stream, as those of older SDKs do. */
  async function server(onCall: (ask: (method: string, id?: string) => Promise<Message>) => Promise<string>) {
    const streams = new Map<string, ServerResponse>();
    const waiting = new Map<string, (message: Message) => void>();
    const seen: Message[] = [];
    let sessions = 0;
    let questions = 0;
    const answer = async (session: string, message: Message, response: ServerResponse): Promise<unknown> => {
      if (message.method === "initialize") {
        response.setHeader("mcp-session-id", `session-${++sessions}`);
        return { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "x", version: "1" } };
      }
      const ask = (method: string, id = `q${++questions}`) =>
        new Promise<Message>((resolve) => {
          waiting.set(id, resolve);
          const request = { jsonrpc: "2.0", id, method, params: { message: session } };
          streams.get(session)?.write(`data: ${JSON.stringify(request)}\n\n`);
        });
      return { content: [{ type: "text", text: await onCall(ask) }] };
    };
    const listening = createServer(async (request: IncomingMessage, response) => {
      const session = String(request.headers["mcp-session-id"]);
      if (request.method === "GET") {
        streams.set(session, response);
        response.writeHead(200, { "content-type": "text/event-stream" }).flushHeaders();
        return;
      }
      let text = "";
      for await (const chunk of request) text += chunk;
      const message = (text === "" ? {} : JSON.parse(text)) as Message;
      seen.push(message);
      if (message.method === "server/discover") return void response.writeHead(400).end();
      if (message.method === undefined || message.id === undefined) {
        waiting.get(String(message.id))?.(message);
        return void response.writeHead(202).end();
      }
      const body = { jsonrpc: "2.0", id: message.id, result: await answer(session, message, response) };
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(body));
    });
    await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
    cleanups.push(async () => {
      listening.closeAllConnections();
      listening.close();
    });
    return { url: `http://127.0.0.1:${(listening.address() as AddressInfo).port}/mcp`, seen };
  }

  test("carries the questions of its one user", async () => {
    const { url } = await server(async (ask) => JSON.stringify((await ask("elicitation/create")).result ?? null));
    const upstream = opened(http(url));
    const users = ["ann", "bob", "cat"];
    const clients = users.map((who) => accepts({ who }));
    const answers = await Promise.all(
      users.map((subject, index) =>
        upstream.send(
          toolCall("t", {}, { subject, capabilities: CAN_ELICIT }),
          clients[index]?.replies ?? ignored,
          never,
        ),
      ),
    );
    expect(answers.map(textOf)).toEqual(users.map((who) => `{"action":"accept","content":{"who":"${who}"}}`));
    expect(new Set(clients.flatMap(({ asked }) => asked.map(messageOf))).size).toBe(3);
  });

  test("has the server told what becomes of a question whose call is cancelled", async () => {
    const { url, seen } = await server(async (ask) => String((await ask("elicitation/create", "open")).error?.code));
    const upstream = opened(http(url));
    const { asked, replies } = client(nobody);
    const control = new AbortController();
    const sent = codeOf(upstream.send(toolCall("t", {}, { capabilities: CAN_ELICIT }), replies, control.signal));
    await waitFor(() => asked.length === 1);
    control.abort();
    expect(await sent).toBe("cancelled");
    await waitFor(() => seen.some(({ id, error }) => id === "open" && error?.code === -32600));
    await waitFor(() => seen.some(({ method }) => method === "notifications/cancelled"));
  });
});
