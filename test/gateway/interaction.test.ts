/** Calls that ask their client something, with a server and a client that do just what each test says. */
import { afterEach, describe, expect, test } from "vitest";
import type {
  Authenticated,
  JsonObject,
  McpCall,
  Outcome,
  PermittedCall,
  Question,
  QuestionAnswer,
  Replies,
  Revision,
} from "../../src/core/call.ts";
import { newId } from "../../src/core/ids.ts";
import { type Interaction, openInteraction } from "../../src/gateway/interaction.ts";
import type { Asked } from "../../src/gateway/parts.ts";
import { openSeals } from "../../src/gateway/sealed-state.ts";
import { interactionSettings } from "../../src/gateway/settings.ts";
import { asksMore } from "../../src/mcp/interaction.ts";
import type { Session } from "../../src/mcp/sessions.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import { memoryStore } from "../../src/store/memory/memory.ts";
import type { Records } from "../../src/store/ports.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { waitFor } from "../fixtures/processes.ts";
import { verifies } from "../requirements.ts";

const everything: JsonObject = { elicitation: { form: {}, url: {} }, sampling: {}, roots: {} };
const askName: Question = {
  method: "elicitation/create",
  params: '{"message":"Who?","requestedSchema":{"type":"object","properties":{"name":{"type":"string"}}}}',
};
const roots: Question = { method: "roots/list", params: "{}" };
const sampling: Question = { method: "sampling/createMessage", params: '{"messages":[],"maxTokens":5}' };
const accepted = (content: JsonObject) => ({ action: "accept", content });

/** Of a question that its server does not withdraw. */
const open = new AbortController().signal;

const outcome = (value: JsonObject): Outcome => ({ kind: "result", result: JSON.stringify(value), value });
const text = (words: string) => outcome({ content: [{ type: "text", text: words }] });
const said = (answer: QuestionAnswer) =>
  answer.kind === "result" ? answer.result : `error ${answer.code}: ${answer.message}`;

type Send = (call: PermittedCall, replies: Replies, signal: AbortSignal) => Promise<Outcome>;

/** A gateway's interactive half in front of a server that does what `send` does. */
function gateway(
  send: Send,
  {
    upstream: revision = "2025-11-25",
    records = memoryStore().records,
    settings = {},
    replica = newId(),
    shared = false,
  } = {} as {
    upstream?: Revision;
    records?: Records;
    settings?: object;
    replica?: string;
    shared?: boolean;
  },
) {
  const told: { session: Session; message: string }[] = [];
  const streams = { open: false };
  const ended: string[] = [];
  const interaction = openInteraction({
    settings: { ...interactionSettings.parse({}), ...settings },
    seals: openSeals(records, undefined),
    streams: {
      tell(session, message) {
        if (streams.open) told.push({ session, message });
        return streams.open;
      },
    },
    telemetry: { questionEnded: (server, end) => void ended.push(`${server} ${end}`) },
    identities: () => new Map([["s", { revision, info: {}, capabilities: {}, instructions: undefined }]]),
    replica,
    shared: shared ? records : undefined,
    log: silentLogger,
  });
  opened.push(interaction);
  const upstream = { name: "s", send } as unknown as Upstream;
  return {
    interaction,
    told,
    /** How questions ended, in order. */
    ended,
    /** What is open at the server. */
    now: () => interaction.open().find(({ server }) => server === "s") ?? { server: "s", open: 0, suspended: 0 },
    streams,
    call: (client: Client, params?: JsonObject) => call(interaction, upstream, client, params),
  };
}
const opened: Interaction[] = [];
afterEach(async () => {
  for (const interaction of opened.splice(0)) await interaction.close();
});

interface Client {
  readonly by: Authenticated;
  readonly era: "legacy" | "modern";
  readonly capabilities: JsonObject;
  readonly session: Session | undefined;
  /** Takes streams as answers. */
  sse: boolean;
}
function client(era: "legacy" | "modern", who: Partial<Client> & { subject?: string } = {}): Client {
  const by = { subject: who.subject ?? "ann", client: "c" } as Authenticated;
  const session = era === "legacy" ? ({ id: newId(), owner: `${by.subject}\nc` } as Session) : undefined;
  return { by, era, capabilities: everything, session, sse: true, ...who };
}

/** One request of a client, as the pipeline has it, and what becomes of it. `written`: its arguments as text. */
function call(interaction: Interaction, upstream: Upstream, client: Client, params: JsonObject = {}) {
  const { method = "tools/call", written, ...rest } = params;
  const { _meta: meta, ...members } = { name: "t", ...rest } as JsonObject;
  const forward = new Map(Object.entries(members).map(([key, value]) => [key, JSON.stringify(value)]));
  if (typeof written === "string") forward.set("arguments", written);
  const messages: JsonObject[] = [];
  const questions: JsonObject[] = [];
  const abandoned: JsonObject[] = [];
  const gone = new AbortController();
  const record = {
    view: { said: (params: string) => params, question: (question: Question) => question },
    link: undefined as { id: string; round: number } | undefined,
    linked(id: string, round: number) {
      record.link = { id, round };
    },
    questioned(question: Question, key?: string) {
      const entry = { method: question.method, ...(key !== undefined && { key }) };
      questions.push(entry);
      return entry;
    },
    replied: (entry: { action?: string }, answer: QuestionAnswer) => Object.assign(entry, { action: answer.kind }),
    answeredInput: (key: string) => questions.push({ key }),
    sentWith: () => {},
    async abandonedLater({ message }: Error, link: { id: string; round: number }, open: Map<string, Question>) {
      abandoned.push({ ...link, message, open: [...open.keys()] });
    },
  };
  const progressToken = (meta as JsonObject | undefined)?.["progressToken"] as string | undefined;
  const asked = {
    by: client.by,
    inbound: { era: client.era, progressToken, logLevel: undefined },
    session: client.session,
    record,
    answering: {
      notify(message: string) {
        if (client.sse) messages.push(JSON.parse(message) as JsonObject);
        return client.sse;
      },
    },
  } as unknown as Asked;
  const mcpCall = {
    method,
    target: { server: "s", kind: "tool", name: "t", upstreamName: "t", pin: undefined },
    forward,
    capabilities: client.capabilities,
    progressToken,
  } as unknown as McpCall;
  const permitted = { call: mcpCall, by: client.by, rule: "r" } as unknown as PermittedCall;
  const answer = (async () => {
    try {
      let given = await interaction.send(upstream, permitted, asked, gone);
      if (asksMore(given)) given = await interaction.settle(upstream, permitted, asked, gone, given);
      return given;
    } finally {
      interaction.over(asked);
    }
  })();
  answer.catch(() => {});
  return { answer, messages, questions, abandoned, record, gone };
}

type Asks = { requestState: string; inputRequests: Record<string, { method: string; params: JsonObject }> };
async function asks(calling: { answer: Promise<Outcome> }): Promise<Asks> {
  const given = await calling.answer;
  expect(given).toMatchObject({ kind: "result", value: { resultType: "input_required" } });
  return (given.kind === "result" ? JSON.parse(given.result) : {}) as Asks;
}
const textOf = (given: Outcome) =>
  given.kind === "result" ? (given.value["content"] as unknown as { text: string }[])[0]?.text : given.message;

describe("a client of 2026-07-28 and a server with a handshake", () => {
  const asksName: Send = async (_call, replies) =>
    text(`hello ${said((await replies.ask?.(askName, open)) as QuestionAnswer)}`);

  verifies(
    ["mrtr-only-way", "mrtr-extra"],
    "the question is an input request, the retry brings the answer and gets the result",
    async () => {
      const { call, now } = gateway(asksName);
      const ann = client("modern");
      const first = call(ann, { arguments: { n: 1 } });
      const { inputRequests, requestState } = await asks(first);
      expect(inputRequests).toEqual({
        user_name: { method: "elicitation/create", params: JSON.parse(askName.params) },
      });
      expect(now().suspended).toBe(1);
      const retry = call(ann, {
        arguments: { n: 1 },
        requestState,
        inputResponses: { user_name: accepted({ name: "Ann" }), other: 7 },
      });
      expect(textOf(await retry.answer)).toBe('hello {"action":"accept","content":{"name":"Ann"}}');
      expect(now().suspended).toBe(0);
      expect(retry.record.link).toEqual({ id: first.record.link?.id, round: 2 });
      expect(retry.questions).toEqual([{ method: "elicitation/create", key: "user_name", action: "result" }]);
    },
  );

  verifies(
    ["mrtr-keys", "elicitation-declined"],
    "questions that come together are one round, later ones another",
    async () => {
      const { call } = gateway(async (_call, replies) => {
        const ask = async (question: Question) => said((await replies.ask?.(question, open)) as QuestionAnswer);
        const together = await Promise.all([ask(askName), ask(askName), ask(roots)]);
        return text([...together, await ask(sampling)].join(" "));
      });
      const ann = client("modern");
      const one = await asks(call(ann));
      expect(Object.keys(one.inputRequests)).toEqual(["user_name", "user_name_2", "client_roots"]);
      const answers = {
        user_name: { action: "decline" },
        user_name_2: { action: "cancel" },
        client_roots: { roots: [] },
      };
      const two = await asks(call(ann, { requestState: one.requestState, inputResponses: answers }));
      expect(Object.keys(two.inputRequests)).toEqual(["model_answer"]);
      const three = call(ann, {
        requestState: two.requestState,
        inputResponses: { model_answer: { role: "assistant", model: "m", content: { type: "text", text: "x" } } },
      });
      expect(textOf(await three.answer)).toContain('{"action":"decline"} {"action":"cancel"} {"roots":[]} {"role"');
    },
  );

  verifies(
    ["mrtr-missing", "mrtr-state-once"],
    "what was not answered is asked again with a fresh state, and the old one is spent",
    async () => {
      const { call } = gateway(asksName);
      const ann = client("modern");
      const one = await asks(call(ann));
      const two = await asks(call(ann, { requestState: one.requestState, inputResponses: { wrong: {} } }));
      expect(two.inputRequests).toEqual(one.inputRequests);
      expect(two.requestState).not.toBe(one.requestState);
      await expect(call(ann, { requestState: one.requestState }).answer).rejects.toMatchObject({
        code: "invalid_params",
      });
      const answer = call(ann, { requestState: two.requestState, inputResponses: { user_name: accepted({}) } });
      expect(textOf(await answer.answer)).toContain("accept");
    },
  );

  verifies("mrtr-malformed", "a malformed answer is refused, and a good one still counts", async () => {
    const { call } = gateway(asksName);
    const ann = client("modern");
    const { requestState } = await asks(call(ann));
    for (const inputResponses of [{ user_name: 12345 }, null, { user_name: { action: "yes" } }] as JsonObject[])
      await expect(call(ann, { requestState, inputResponses }).answer).rejects.toMatchObject({ rpc: -32602 });
    const answer = call(ann, { requestState, inputResponses: { user_name: accepted({}) } });
    expect(textOf(await answer.answer)).toContain("accept");
  });

  test("answers that come with the first request are not asked for", async () => {
    const { call, now } = gateway(asksName);
    const good = call(client("modern"), { inputResponses: { user_name: accepted({ name: "Ann" }), extra: {} } });
    expect(textOf(await good.answer)).toContain("Ann");
    await asks(call(client("modern"), { inputResponses: { user_name: 12345 } }));
    await asks(call(client("modern"), { inputResponses: { wrong: accepted({}) } }));
    expect(now().suspended).toBe(2);
  });

  test("the server hears of nothing but the call: neither answers nor states are forwarded", async () => {
    const forwarded: string[][] = [];
    const { call } = gateway(async ({ call: sent }) => {
      forwarded.push([...sent.forward.keys()]);
      return text("x");
    });
    await call(client("modern"), { inputResponses: {} }).answer;
    expect(forwarded).toEqual([["name"]]);
  });

  test("progress between two rounds is told in the next one, with its own token, and not without one", async () => {
    const between = Promise.withResolvers<void>();
    const { call } = gateway(async (_call, replies) => {
      const progress = (step: number) =>
        replies.notify({ method: "notifications/progress", params: `{"progressToken":"first","progress":${step}}` });
      progress(1);
      const answer = replies.ask?.(askName, open);
      await between.promise;
      for (let step = 2; step < 100; step++) progress(step);
      await answer;
      progress(100);
      return text("done");
    });
    const ann = client("modern");
    const first = call(ann, { _meta: { progressToken: "first" } });
    const { requestState } = await asks(first);
    expect(first.messages).toMatchObject([{ params: { progressToken: "first", progress: 1 } }]);
    between.resolve();
    await between.promise;
    const inputResponses = { user_name: accepted({}) };
    const retry = call(ann, { requestState, inputResponses, _meta: { progressToken: "second" } });
    await retry.answer;
    const steps = retry.messages.map(({ params }) => params as JsonObject);
    expect(steps).toHaveLength(33);
    expect(steps.at(0)).toEqual({ progressToken: "second", progress: 68 });
    expect(steps.at(-1)).toEqual({ progressToken: "second", progress: 100 });
    const quiet = await asks(call(ann, { _meta: { progressToken: "first" } }));
    const silent = call(ann, { requestState: quiet.requestState, inputResponses });
    await silent.answer;
    expect(silent.messages).toEqual([]);
  });

  test("a server that answers while its question is open is heard by the retry", async () => {
    const between = Promise.withResolvers<void>();
    const { call, now } = gateway(async (_call, replies) => {
      void replies.ask?.(askName, open).catch(() => {});
      await between.promise;
      return text("never mind");
    });
    const ann = client("modern");
    const { requestState } = await asks(call(ann));
    between.resolve();
    expect(textOf(await call(ann, { requestState }).answer)).toBe("never mind");
    expect(now().suspended).toBe(0);
  });

  test("a question that its server withdraws is not asked again, and the call goes on", async () => {
    const [withdrawn, goOn] = [new AbortController(), Promise.withResolvers<void>()];
    let told: unknown;
    const { call, now, ended } = gateway(async (_call, replies) => {
      await replies.ask?.(askName, withdrawn.signal).catch((error: unknown) => (told = error));
      await goOn.promise;
      return text(said((await replies.ask?.(roots, open)) as QuestionAnswer));
    });
    const ann = client("modern");
    const one = await asks(call(ann));
    withdrawn.abort(new DOMException("Never mind.", "AbortError"));
    expect(now()).toEqual({ server: "s", open: 0, suspended: 1 });
    await waitFor(() => told);
    expect(told).toMatchObject({ code: "cancelled", message: "Never mind." });
    // What comes too late is nobody's answer, whatever it looks like.
    const retry = call(ann, { requestState: one.requestState, inputResponses: { user_name: 7 } });
    goOn.resolve();
    const two = await asks(retry);
    expect(Object.keys(two.inputRequests)).toEqual(["client_roots"]);
    const last = call(ann, { requestState: two.requestState, inputResponses: { client_roots: { roots: [] } } });
    expect(textOf(await last.answer)).toBe('{"roots":[]}');
    expect(ended).toEqual(["s withdrawn", "s answered"]);
  });

  test("a question that is withdrawn before it was put to the client never is", async () => {
    const withdrawn = new AbortController();
    const { call, ended } = gateway(async (_call, replies) => {
      const [first, second] = [replies.ask?.(askName, withdrawn.signal), replies.ask?.(roots, open)];
      withdrawn.abort();
      await first?.catch(() => {});
      return text(said((await second) as QuestionAnswer));
    });
    const alone = gateway(async (_call, replies) => {
      const first = replies.ask?.(askName, withdrawn.signal);
      withdrawn.abort();
      await first?.catch(() => {});
      return text("alone");
    });
    const ann = client("modern");
    const { inputRequests } = await asks(call(ann));
    expect(Object.keys(inputRequests)).toEqual(["client_roots"]);
    expect(ended).toEqual(["s withdrawn"]);
    expect(textOf(await alone.call(ann).answer)).toBe("alone");
    expect(alone.now().suspended).toBe(0);
  });

  verifies(
    ["mrtr-declared", "mrtr-requests"],
    "nobody is asked what the client cannot do, or during a request that has no place for it",
    async () => {
      const { call } = gateway(asksName);
      const text = textOf(await call(client("modern", { capabilities: { roots: {} } })).answer);
      expect(text).toContain("error -32601");
      const completion = call(client("modern"), { method: "completion/complete" });
      expect(textOf(await completion.answer)).toContain("error -32601");
    },
  );

  test("a client that goes away in a later round cancels the call upstream", async () => {
    let cancelled = false;
    const answered = Promise.withResolvers<void>();
    const { call, now } = gateway(async (_call, replies, signal) => {
      await replies.ask?.(askName, open);
      answered.resolve();
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          cancelled = true;
          reject(new Error("cancelled"));
        });
      });
    });
    const ann = client("modern");
    const { requestState } = await asks(call(ann));
    const retry = call(ann, { requestState, inputResponses: { user_name: accepted({}) } });
    await answered.promise;
    retry.gone.abort();
    await expect(retry.answer).rejects.toMatchObject({ code: "cancelled" });
    expect(cancelled).toBe(true);
    expect(now().suspended).toBe(0);
  });

  verifies(
    "mrtr-abandoned",
    "an abandoned call ends by the clock, is cancelled upstream, and its retry is told to call again",
    async () => {
      const signals: AbortSignal[] = [];
      const { call, now, ended } = gateway(
        async (_call, replies, signal) => {
          signals.push(signal);
          return text(said((await replies.ask?.(askName, open)) as QuestionAnswer));
        },
        { settings: { answerSeconds: 0.2 } },
      );
      const ann = client("modern");
      const calling = call(ann);
      const { requestState } = await asks(calling);
      await waitFor(() => now().suspended === 0);
      expect(ended).toEqual(["s expired"]);
      expect(calling.abandoned).toEqual([
        {
          id: calling.record.link?.id,
          round: 1,
          message: "Nobody answered the server's question in time.",
          open: ["user_name"],
        },
      ]);
      expect(signals[0]?.aborted).toBe(true);
      const retry = call(ann, { requestState, inputResponses: { user_name: accepted({}) } });
      await expect(retry.answer).rejects.toMatchObject({
        code: "invalid_params",
        message: expect.stringMatching(/Call again/),
      });
    },
  );

  test("one user's abandoned calls end their own quota only", async () => {
    const { call, now } = gateway(asksName, { settings: { maxSuspendedPerPrincipal: 3, maxSuspended: 5 } });
    const ann = client("modern");
    const rounds = [];
    for (let at = 0; at < 3; at++) rounds.push(await asks(call(ann)));
    expect(await call(ann).answer).toMatchObject({
      kind: "error",
      code: -31503,
      message: expect.stringMatching(/3 of your calls/),
    });
    const bob = client("modern", { subject: "bob" });
    const { requestState } = await asks(call(bob));
    const inputResponses = { user_name: accepted({}) };
    expect(textOf(await call(bob, { requestState, inputResponses }).answer)).toContain("accept");
    // What ann answers makes room for her next call.
    await call(ann, { requestState: rounds[1]?.requestState ?? "", inputResponses }).answer;
    await asks(call(ann));
    for (let at = 0; at < 2; at++) await asks(call(client("modern", { subject: `eve${at}` })));
    expect(await call(bob).answer).toMatchObject({ code: -31503 });
    expect(now().suspended).toBe(5);
  });

  verifies(
    "elicitation-modes",
    "an error that names pages to open becomes questions, and the call is made anew when they were opened",
    async () => {
      let calls = 0;
      const elicitations = [{ mode: "url", elicitationId: "e", url: "https://a.test/", message: "Sign in" }];
      const { call } = gateway(async () => {
        if (calls++ > 0) return text("signed in");
        return { kind: "error", code: -32042, message: "Sign in first", data: JSON.stringify({ elicitations }) };
      });
      const ann = client("modern");
      const { inputRequests, requestState } = await asks(call(ann));
      expect(inputRequests).toEqual({
        user_visit: {
          method: "elicitation/create",
          params: { mode: "url", url: "https://a.test/", message: "Sign in" },
        },
      });
      const declined = call(ann, { requestState, inputResponses: { user_visit: { action: "decline" } } });
      expect(await declined.answer).toMatchObject({ value: { isError: true } });
      const opened = call(ann, { requestState, inputResponses: { user_visit: { action: "accept" } } });
      expect(textOf(await opened.answer)).toBe("signed in");
      expect(calls).toBe(2);
      calls = 0;
      await expect(call(client("modern", { capabilities: { elicitation: {} } })).answer).rejects.toMatchObject({
        code: "missing_client_capability",
        data: { requiredCapabilities: { elicitation: { url: {} } } },
      });
    },
  );

  test("a round that did not reach its client ends the call, and nobody is recorded twice", async () => {
    let cancelled: AbortSignal | undefined;
    const { call, interaction, now } = gateway(async (_call, replies, signal) => {
      cancelled = signal;
      return text(said((await replies.ask?.(askName, open)) as QuestionAnswer));
    });
    const calling = call(client("modern"));
    await asks(calling);
    interaction.unheard(await calling.answer);
    expect(now().suspended).toBe(0);
    expect(cancelled?.aborted).toBe(true);
    expect(calling.abandoned).toEqual([]);
    interaction.unheard(text("an answer"));
  });

  test("a call that its server finished while nobody came back is abandoned all the same", async () => {
    const { call, now } = gateway(
      async (_call, replies) => {
        const withdrawn = new AbortController();
        setTimeout(() => withdrawn.abort(), 50);
        await replies.ask?.(askName, withdrawn.signal).catch(() => {});
        return text("done without you");
      },
      { settings: { answerSeconds: 0.3 } },
    );
    const calling = call(client("modern"));
    await asks(calling);
    await waitFor(() => now().suspended === 0);
    expect(calling.abandoned).toMatchObject([{ round: 1, open: [] }]);
  });

  test("what asks one thing at a time is not waited for as long as what asks several", async () => {
    const two: Send = async (_call, replies) => {
      const first = replies.ask?.(askName, open);
      await new Promise((resolve) => setTimeout(resolve, 8));
      return text(said((await Promise.all([first, replies.ask?.(roots, open)]))[0] as QuestionAnswer));
    };
    const waits = async (calling: { answer: Promise<Outcome> }) => {
      const began = performance.now();
      await asks(calling);
      return performance.now() - began;
    };
    const ann = client("modern");
    const one = gateway(asksName, { settings: { maxSuspendedPerPrincipal: 100 } });
    expect(await waits(one.call(ann))).toBeGreaterThan(15);
    const later: number[] = [];
    for (let at = 0; at < 20; at++) later.push(await waits(one.call(ann)));
    expect(Math.min(...later)).toBeLessThan(15);
    const several = gateway(two, { settings: { maxSuspendedPerPrincipal: 100 } });
    for (let at = 0; at < 3; at++)
      expect(Object.keys((await asks(several.call(ann))).inputRequests)).toEqual(["user_name", "client_roots"]);
  });

  test("when the gateway stops, nobody is asked any more", async () => {
    const goOn = Promise.withResolvers<void>();
    const { call, interaction } = gateway(async (_call, replies) => {
      await goOn.promise;
      return text(said((await replies.ask?.(askName, open)) as QuestionAnswer));
    });
    const [modern, legacy] = [call(client("modern")), call(client("legacy"))];
    await interaction.close();
    goOn.resolve();
    expect(await modern.answer).toMatchObject({ code: -31503, message: expect.stringMatching(/being stopped/) });
    expect(textOf(await legacy.answer)).toContain("being stopped");
    expect(interaction.open()).toEqual([]);
  });

  test("when the gateway stops, what waits is cancelled upstream", async () => {
    let signalled: AbortSignal | undefined;
    const { call, interaction } = gateway(async (_call, replies, signal) => {
      signalled = signal;
      return text(said((await replies.ask?.(askName, open)) as QuestionAnswer));
    });
    await asks(call(client("modern")));
    await interaction.close();
    expect(signalled?.aborted).toBe(true);
    expect(interaction.open()).toEqual([]);
  });
});

describe("a client and a server of 2026-07-28", () => {
  const upstream = "2026-07-28" as const;
  const asksOnce: Send = async ({ call }) => {
    const state = call.forward.get("requestState");
    if (state !== undefined) return text(`${state} ${call.forward.get("inputResponses")}`);
    const inputRequests = { a: { method: "roots/list", params: {} } };
    return outcome({ "x-vendor": 1, resultType: "input_required", inputRequests, requestState: "theirs" });
  };

  test("the question passes as it is, its state sealed and given back to the server", async () => {
    const { call, now } = gateway(asksOnce, { upstream });
    const ann = client("modern");
    const first = call(ann);
    const { requestState, ...rest } = await asks(first);
    expect(rest).toEqual({
      "x-vendor": 1,
      resultType: "input_required",
      inputRequests: { a: { method: "roots/list", params: {} } },
    });
    expect(requestState).not.toContain("theirs");
    expect(Buffer.from(requestState.split(".")[1] ?? "", "base64url").toString("latin1")).not.toContain("theirs");
    const retry = call(ann, { requestState, inputResponses: { a: { roots: [] }, b: 1 } });
    expect(textOf(await retry.answer)).toBe('"theirs" {"a":{"roots":[]},"b":1}');
    expect(retry.record.link).toEqual({ id: first.record.link?.id, round: 2 });
    expect(now().suspended).toBe(0);
  });

  verifies(
    "mrtr-state-bound",
    "a state is good for the same request, however it is spelt, and in time; not for another",
    async () => {
      const { call } = gateway(asksOnce, { upstream, settings: { answerSeconds: 1 } });
      const ann = client("modern");
      const written = '{"n":9007199254740993,"text":"7","list":[1,2]}';
      const { requestState } = await asks(call(ann, { written }));
      for (const other of [
        { written: written.replace("993", "992") },
        { written: written.replace('"7"', "7") },
        { written: written.replace("1,2", "2,1") },
        { written: "{}" },
        {},
        { written, name: "u" },
        { written, method: "prompts/get" },
      ])
        await expect(call(ann, { ...other, requestState }).answer).rejects.toMatchObject({
          code: "invalid_params",
          data: { reason: "invalid_request_state" },
        });
      const same = call(ann, { written: '{ "text": "7", "list": [1, 2], "n": 9007199254740993 }', requestState });
      expect(textOf(await same.answer)).toContain("theirs");
      await waitFor(async () =>
        call(ann, { written, requestState }).answer.then(
          () => false,
          (error: { data: unknown }) => error.data !== undefined,
        ),
      );
    },
  );

  verifies("mrtr-client-state", "a server without a state gets none, and answers pass without one", async () => {
    const { call } = gateway(
      async ({ call }) => {
        const answers = call.forward.get("inputResponses");
        if (answers !== undefined) return text(answers);
        return outcome({ resultType: "input_required", inputRequests: { a: { method: "roots/list" } } });
      },
      { upstream },
    );
    const given = await asks(call(client("modern")));
    expect(given).not.toHaveProperty("requestState");
    const retry = call(client("modern"), { inputResponses: { a: { roots: [] } } });
    expect(textOf(await retry.answer)).toBe('{"a":{"roots":[]}}');
  });

  verifies(["mrtr-declared", "mrtr-requests"], "what the client did not declare is not asked", async () => {
    const { call } = gateway(asksOnce, { upstream });
    await expect(call(client("modern", { capabilities: { sampling: {} } })).answer).rejects.toMatchObject({
      code: "missing_client_capability",
      data: { requiredCapabilities: { roots: {} } },
    });
    await expect(call(client("modern"), { method: "completion/complete" }).answer).rejects.toMatchObject({
      code: "upstream_failed",
    });
  });

  verifies(["mrtr-questions", "mrtr-not-empty"], "what the protocol does not have is not asked", async () => {
    for (const asking of [
      { inputRequests: { a: { method: "tools/call", params: { name: "t" } } } },
      { inputRequests: { a: { method: "elicitation/create", params: 7 } } },
      { inputRequests: [] },
      { inputRequests: {} },
      { requestState: 7 },
      {},
    ] as JsonObject[]) {
      const { call } = gateway(async () => outcome({ resultType: "input_required", ...asking }), { upstream });
      await expect(call(client("modern")).answer, JSON.stringify(asking)).rejects.toMatchObject({
        code: "upstream_failed",
      });
    }
  });

  verifies("sampling-tools", "sampling with tools needs a client that can do it, from whichever server", async () => {
    const tools: Question = { method: "sampling/createMessage", params: '{"messages":[],"maxTokens":5,"tools":[]}' };
    const requests = { m: { method: tools.method, params: JSON.parse(tools.params) as JsonObject } };
    const modern = gateway(async () => outcome({ resultType: "input_required", inputRequests: requests }), {
      upstream,
    });
    const plain = client("modern");
    await expect(modern.call(plain).answer).rejects.toMatchObject({ code: "missing_client_capability" });
    const able = client("modern", { capabilities: { sampling: { tools: {} } } });
    expect(Object.keys((await asks(modern.call(able))).inputRequests)).toEqual(["m"]);
    const legacy = gateway(async (_call, replies) => text(said((await replies.ask?.(tools, open)) as QuestionAnswer)));
    for (const who of [plain, client("legacy")])
      expect(textOf(await legacy.call(who).answer)).toContain("error -32601");
    expect(Object.keys((await asks(legacy.call(able))).inputRequests)).toEqual(["model_answer"]);
  });
});

/** Answers the last question that came on a call's stream. */
async function reply(
  interaction: Interaction,
  client: Client,
  calling: { messages: JsonObject[] },
  answer: QuestionAnswer,
  at = -1,
) {
  const question = await waitFor(() => calling.messages.filter(({ id }) => id !== undefined).at(at));
  await interaction.heard({ kind: "response", id: question["id"] as string, answer }, client.by, client.session);
  return question;
}
const result = (value: JsonObject): QuestionAnswer => ({ kind: "result", result: JSON.stringify(value) });

describe("a legacy client and a server with a handshake", () => {
  const asksName: Send = async (_call, replies) => text(said((await replies.ask?.(askName, open)) as QuestionAnswer));

  test("the question is a request on the stream of its call, and the answer goes back as it came", async () => {
    const { call, interaction, now } = gateway(asksName);
    const ann = client("legacy");
    const calling = call(ann);
    const question = await reply(interaction, ann, calling, result(accepted({ name: "Ann" })));
    expect(question).toMatchObject({ method: "elicitation/create", params: JSON.parse(askName.params) });
    expect(textOf(await calling.answer)).toBe('{"action":"accept","content":{"name":"Ann"}}');
    expect(calling.questions).toEqual([{ method: "elicitation/create", action: "result" }]);
    expect(now().open).toBe(0);
  });

  test("a client that takes no stream is asked on its session's, and one without is not asked", async () => {
    const { call, interaction, streams, told } = gateway(asksName);
    const ann = client("legacy", { sse: false });
    expect(textOf(await call(ann).answer)).toContain("error -32603");
    streams.open = true;
    const calling = call(ann);
    const { message, session } = await waitFor(() => told[0]);
    expect(session).toBe(ann.session);
    const { id } = JSON.parse(message) as { id: string };
    const answer: QuestionAnswer = { kind: "error", code: -1, message: "rejected", data: '{"x":1}' };
    await interaction.heard({ kind: "response", id, answer }, ann.by, ann.session);
    expect(textOf(await calling.answer)).toBe("error -1: rejected");
  });

  verifies("elicitation-bound", "an answer of another session, another user or to nothing is ignored", async () => {
    const { call, interaction, now } = gateway(asksName);
    const ann = client("legacy");
    const calling = call(ann);
    const bob = client("legacy", { subject: "bob" });
    await reply(interaction, bob, calling, result({ action: "accept", content: { name: "Bob" } }));
    await reply(interaction, { ...ann, session: bob.session }, calling, result({ action: "decline" }));
    await reply(interaction, { ...bob, session: ann.session }, calling, result({ action: "decline" }));
    for (const id of ["x", "1.AAAA", 7, ""])
      await interaction.heard({ kind: "response", id, answer: result({ action: "decline" }) }, ann.by, ann.session);
    expect(now().open).toBe(1);
    await reply(interaction, ann, calling, result({ action: "cancel" }));
    expect(textOf(await calling.answer)).toBe('{"action":"cancel"}');
  });

  test("only what the client declared is asked", async () => {
    const { call } = gateway(asksName);
    const calling = call(client("legacy", { capabilities: { sampling: {} } }));
    expect(textOf(await calling.answer)).toContain("error -32601");
    expect(calling.messages).toEqual([]);
  });

  test.each([
    ["is cancelled", (calling: { gone: AbortController }) => calling.gone.abort()],
    [
      "loses its session",
      (_: unknown, interaction: Interaction, ann: Client) => interaction.sessionEnded(ann.session as Session),
    ],
  ])("when the call %s, the question is withdrawn and the server told", async (_, end) => {
    let thrown: unknown;
    const { call, interaction } = gateway(async (_call, replies) => {
      try {
        return text(said((await replies.ask?.(askName, open)) as QuestionAnswer));
      } catch (error) {
        thrown = error;
        throw error;
      }
    });
    const ann = client("legacy");
    const calling = call(ann);
    const question = await waitFor(() => calling.messages[0]);
    end(calling, interaction, ann);
    await expect(calling.answer).rejects.toMatchObject({ code: "cancelled" });
    expect(thrown).toMatchObject({ code: "cancelled" });
    expect(calling.messages[1]).toMatchObject({
      method: "notifications/cancelled",
      params: { requestId: question["id"] },
    });
  });

  test("a question whose call is over is withdrawn", async () => {
    const asked = Promise.withResolvers<void>();
    const { call, now } = gateway(async (_call, replies) => {
      void replies.ask?.(askName, open).catch(() => {});
      await asked.promise;
      return text("done");
    });
    const calling = call(client("legacy"));
    await waitFor(() => calling.messages.length === 1);
    asked.resolve();
    await calling.answer;
    expect(calling.messages).toMatchObject([{ method: "elicitation/create" }, { method: "notifications/cancelled" }]);
    await waitFor(() => now().open === 0);
  });

  test("a question that its server withdraws is taken back in the server's words, and a late answer is ignored", async () => {
    const withdrawn = new AbortController();
    const { call, interaction, ended } = gateway(async (_call, replies) => {
      await replies.ask?.(askName, withdrawn.signal).catch(() => {});
      return text(said((await replies.ask?.(roots, open)) as QuestionAnswer));
    });
    const ann = client("legacy");
    const calling = call(ann);
    const { id } = await waitFor(() => calling.messages[0]);
    withdrawn.abort(new DOMException("Found it.", "AbortError"));
    await waitFor(() => calling.messages.length === 3);
    expect(calling.messages[1]).toMatchObject({
      method: "notifications/cancelled",
      params: { requestId: id, reason: "Found it." },
    });
    await reply(interaction, ann, calling, result(accepted({ name: "late" })), 0);
    await reply(interaction, ann, calling, result({ roots: [] }));
    expect(textOf(await calling.answer)).toBe('{"roots":[]}');
    expect(ended).toEqual(["s withdrawn", "s answered"]);
  });

  test("a question that is withdrawn before it was sent never is", async () => {
    const { call } = gateway(async (_call, replies) => {
      const withdrawn = new AbortController();
      const asking = replies.ask?.(askName, withdrawn.signal);
      withdrawn.abort();
      await expect(asking).rejects.toMatchObject({ code: "cancelled" });
      await expect(replies.ask?.(askName, AbortSignal.abort())).rejects.toMatchObject({ code: "cancelled" });
      return text("done");
    });
    const calling = call(client("legacy"));
    expect(textOf(await calling.answer)).toBe("done");
    expect(calling.messages).toEqual([]);
  });

  test("a question that nobody answers ends by the clock", async () => {
    const { call, ended } = gateway(asksName, { settings: { answerSeconds: 0.2 } });
    const calling = call(client("legacy"));
    expect(textOf(await calling.answer)).toContain("did not answer in time");
    expect(ended).toEqual(["s expired"]);
    expect(calling.messages.at(-1)).toMatchObject({ method: "notifications/cancelled" });
  });

  test("the end of a page's visit is told to the session that was shown it, once, and to nobody else", async () => {
    const page: Question = {
      method: "elicitation/create",
      params: '{"mode":"url","elicitationId":"e1","url":"https://a.test/"}',
    };
    const { call, interaction, told, streams } = gateway(async (_call, replies) =>
      text(said((await replies.ask?.(page, open)) as QuestionAnswer)),
    );
    const ann = client("legacy");
    const calling = call(ann);
    await reply(interaction, ann, calling, result({ action: "accept" }));
    await calling.answer;
    streams.open = true;
    interaction.elicitationComplete("other", '{"elicitationId":"e1"}');
    interaction.elicitationComplete("s", '{"elicitationId":"e2"}');
    for (let at = 0; at < 2; at++) interaction.elicitationComplete("s", '{"elicitationId":"e1"}');
    expect(told).toEqual([
      {
        session: ann.session,
        message: '{"jsonrpc":"2.0","method":"notifications/elicitation/complete","params":{"elicitationId":"e1"}}',
      },
    ]);
  });
});

describe("a legacy client and a server of 2026-07-28", () => {
  const upstream = "2026-07-28" as const;
  const askAll = (requestState?: string) =>
    outcome({
      resultType: "input_required",
      inputRequests: {
        who: { method: "elicitation/create", params: JSON.parse(askName.params) as JsonObject },
        visit: { method: "elicitation/create", params: { mode: "url", url: "https://a.test/", message: "Go" } },
        where: { method: "roots/list" },
      },
      ...(requestState !== undefined && { requestState }),
    });

  verifies(
    ["mrtr-client-answers", "mrtr-client-state"],
    "all questions are asked at once, and the server is called again with the answers by its own keys",
    async () => {
      const forwarded: Record<string, string>[] = [];
      const { call, interaction } = gateway(
        async ({ call }) => {
          forwarded.push(Object.fromEntries(call.forward));
          return forwarded.length === 1 ? askAll("their state") : text("done");
        },
        { upstream },
      );
      const ann = client("legacy");
      const calling = call(ann, { inputResponses: { who: 1 }, requestState: "smuggled" });
      await waitFor(() => calling.messages.length === 3);
      expect(calling.messages[1]).toMatchObject({
        params: { mode: "url", elicitationId: expect.stringMatching(/.{20}/) },
      });
      await reply(interaction, ann, calling, result({ roots: [] }), 2);
      await reply(interaction, ann, calling, result({ action: "accept" }), 1);
      await reply(interaction, ann, calling, { kind: "error", code: -32000, message: "no", data: undefined }, 0);
      expect(textOf(await calling.answer)).toBe("done");
      expect(forwarded).toEqual([
        { name: '"t"' },
        {
          name: '"t"',
          inputResponses: '{"who":{"action":"cancel"},"visit":{"action":"accept"},"where":{"roots":[]}}',
          requestState: '"their state"',
        },
      ]);
    },
  );

  test("a server that asks without end is left after eight rounds", async () => {
    let rounds = 0;
    const { call, interaction } = gateway(
      async () => {
        rounds++;
        return outcome({ resultType: "input_required", inputRequests: { where: { method: "roots/list" } } });
      },
      { upstream },
    );
    const ann = client("legacy");
    const calling = call(ann);
    for (let at = 0; at < 8; at++) await reply(interaction, ann, calling, result({ roots: [] }), at);
    expect(await calling.answer).toMatchObject({ value: { isError: true } });
    expect(rounds).toBe(9);
  });

  verifies("mrtr-client-answers", "a server that only wants to be called again is", async () => {
    let rounds = 0;
    const { call } = gateway(
      async () => (rounds++ === 0 ? outcome({ resultType: "input_required", requestState: "later" }) : text("now")),
      { upstream },
    );
    expect(textOf(await call(client("legacy")).answer)).toBe("now");
  });

  test("what the client cannot do is a tool's error in words, and an error of the call elsewhere", async () => {
    const { call } = gateway(async () => askAll(), { upstream });
    const poor = client("legacy", { capabilities: { elicitation: {} } });
    const given = await call(poor).answer;
    expect(given).toMatchObject({ value: { isError: true } });
    expect(textOf(given)).toBe(
      "The server needs a client that can do this: elicitation (url), roots. The client did not declare it.",
    );
    await expect(call(poor, { method: "prompts/get" }).answer).rejects.toMatchObject({ code: "upstream_failed" });
    const refusing = gateway(
      async () => ({ kind: "error", code: -32021, message: "no", data: '{"requiredCapabilities":{"sampling":{}}}' }),
      { upstream },
    );
    expect(textOf(await refusing.call(poor).answer)).toContain("sampling");
  });

  test("when one of several questions cannot be answered, the others are taken back", async () => {
    const inputRequests = { m: { ...sampling, params: { messages: [] } }, where: { method: "roots/list" } };
    const { call, interaction, ended } = gateway(async () => outcome({ resultType: "input_required", inputRequests }), {
      upstream,
    });
    const ann = client("legacy");
    const calling = call(ann);
    const where = await waitFor(() => calling.messages.find(({ method }) => method === "roots/list"));
    const no: QuestionAnswer = { kind: "error", code: -1, message: "no", data: undefined };
    await reply(interaction, ann, calling, no, 0);
    expect(textOf(await calling.answer)).toContain("sampling/createMessage: no");
    expect(calling.messages.at(-1)).toMatchObject({
      method: "notifications/cancelled",
      params: { requestId: where["id"] },
    });
    expect(ended.sort()).toEqual(["s refused", "s withdrawn"]);
  });

  verifies("elicitation-declined", "sampling that the client refuses ends the call in words", async () => {
    const { call, interaction } = gateway(
      async () =>
        outcome({ resultType: "input_required", inputRequests: { m: { ...sampling, params: { messages: [] } } } }),
      { upstream },
    );
    const ann = client("legacy");
    const calling = call(ann);
    await reply(interaction, ann, calling, {
      kind: "error",
      code: -1,
      message: "User rejected sampling",
      data: undefined,
    });
    expect(textOf(await calling.answer)).toBe(
      "The client did not answer sampling/createMessage: User rejected sampling",
    );
  });
});

describe("two replicas on one store", () => {
  const asksTwice: Send = async (_call, replies) => {
    const one = said((await replies.ask?.(askName, open)) as QuestionAnswer);
    return text(`${one} ${said((await replies.ask?.(roots, open)) as QuestionAnswer)}`);
  };
  const pair = (send: Send = asksTwice) => {
    const { records } = memoryStore();
    return [gateway(send, { records, shared: true }), gateway(send, { records, shared: true })] as const;
  };

  test("a retry at the other one goes on with the call, round by round", async () => {
    const [a, b] = pair();
    const ann = client("modern");
    const one = await asks(a.call(ann));
    const two = await asks(
      b.call(ann, { requestState: one.requestState, inputResponses: { user_name: accepted({}) } }),
    );
    expect(Object.keys(two.inputRequests)).toEqual(["client_roots"]);
    const three = b.call(ann, { requestState: two.requestState, inputResponses: { client_roots: { roots: [] } } });
    expect(textOf(await three.answer)).toBe('{"action":"accept","content":{}} {"roots":[]}');
    expect(a.now().suspended).toBe(0);
  });

  test("a malformed answer, a spent state and another user's are refused there as here", async () => {
    const [a, b] = pair();
    const ann = client("modern");
    const { requestState } = await asks(a.call(ann));
    await expect(b.call(ann, { requestState, inputResponses: { user_name: 7 } }).answer).rejects.toMatchObject({
      rpc: -32602,
    });
    const bob = client("modern", { subject: "bob" });
    await expect(b.call(bob, { requestState }).answer).rejects.toMatchObject({
      data: { reason: "invalid_request_state" },
    });
    await asks(b.call(ann, { requestState, inputResponses: { user_name: accepted({}) } }));
    await expect(b.call(ann, { requestState }).answer).rejects.toMatchObject({ rpc: -32602 });
  });

  test("a client that leaves the other one cancels the call", async () => {
    let aborted = false;
    const answered = Promise.withResolvers<void>();
    const [a, b] = pair(async (_call, replies, signal) => {
      await replies.ask?.(askName, open);
      answered.resolve();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      aborted = true;
      throw new Error("cancelled");
    });
    const ann = client("modern");
    const { requestState } = await asks(a.call(ann));
    const retry = b.call(ann, { requestState, inputResponses: { user_name: accepted({}) } });
    await answered.promise;
    retry.gone.abort();
    await expect(retry.answer).rejects.toMatchObject({ code: "cancelled" });
    await waitFor(() => aborted);
  });

  test("a call whose replica has stopped is lost, which is said at once", async () => {
    const [a, b] = pair();
    const ann = client("modern");
    const { requestState } = await asks(a.call(ann));
    await a.interaction.close();
    const retry = b.call(ann, { requestState, inputResponses: { user_name: accepted({}) } });
    await expect(retry.answer).rejects.toMatchObject({
      message: "The server's question was lost. Call again without requestState.",
      data: { reason: "request_state_lost" },
    });
  });

  test("a legacy client's answer that reaches the other one finds its question", async () => {
    const [a, b] = pair(async (_call, replies) => text(said((await replies.ask?.(askName, open)) as QuestionAnswer)));
    const ann = client("legacy");
    const calling = a.call(ann);
    await reply(b.interaction, ann, calling, result({ action: "decline" }));
    expect(textOf(await calling.answer)).toBe('{"action":"decline"}');
  });
});
