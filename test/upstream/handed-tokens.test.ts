/** Tokens that go along with calls to stdio servers: which one is sent when a call had to wait, and what is not sent at all. */
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test, vi } from "vitest";
import type { Authenticated, PermittedCall, Replies, UpstreamCredential } from "../../src/core/call.ts";
import { DrawbridgeError } from "../../src/core/errors.ts";
import { Secret } from "../../src/core/secret.ts";
import { handedToken, UPSTREAM_TOKEN } from "../../src/mcp/upstream-token.ts";
import { withHandedTokens, withoutTokens } from "../../src/upstream/handed-tokens.ts";
import { callText } from "../../src/upstream/messages.ts";
import { stdioServer } from "../../src/upstream/settings.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { toolCall } from "./support.ts";

const credential = (token: string, expiresAt?: number): UpstreamCredential => ({
  header: "authorization",
  value: new Secret(`Bearer ${token}`),
  id: `id of ${token}`,
  audience: "https://api.example",
  expiresAt,
});

/** A server that writes a call when it is let, and answers with what was written. */
function held() {
  const gate = Promise.withResolvers<void>();
  const written: string[] = [];
  const upstream = {
    name: "s",
    list: async () => ["{}"],
    async send({ call }: PermittedCall, _replies: Replies, signal: AbortSignal) {
      await Promise.race([gate.promise, new Promise((_, reject) => signal.addEventListener("abort", reject))]).catch(
        () => {
          throw new DrawbridgeError("cancelled", "The call was cancelled.");
        },
      );
      const text = callText(call, 1, "");
      written.push(text);
      return { kind: "result", result: text, value: JSON.parse(text) } as const;
    },
  } as unknown as Upstream;
  return { upstream, written, open: gate.resolve };
}

const tokenIn = (text: string | undefined) => handedToken(JSON.parse(text ?? "{}").params._meta);
const never = new AbortController().signal;

describe("a call with a token", () => {
  test("carries it in `_meta` when it is written, and shows it to nothing that prints the call", async () => {
    const { upstream, written, open } = held();
    const sentWith = vi.fn();
    let printed = "";
    const watched: Upstream = {
      ...upstream,
      send: (permitted, ...rest) => {
        printed = JSON.stringify(permitted);
        return upstream.send(permitted, ...rest);
      },
    };
    const ends = Date.parse("2030-01-01T00:00:00Z");
    const given = credential("t.o.k", ends);
    const credentials = { for: async () => given, own: async () => undefined };
    const served = withHandedTokens(watched, { maxWaiting: 1, credentials });
    open();
    const outcome = await served.send(toolCall("a"), { notify: () => {}, sentWith }, never);
    expect(tokenIn(written[0])).toEqual({ token: "t.o.k", audience: "https://api.example", expiresAt: ends });
    expect(written[0]).toContain('"expiresAt":"2030-01-01T00:00:00.000Z"');
    expect(sentWith.mock.calls).toEqual([[given]]);
    expect(printed).not.toContain("t.o.k");
    // A server that repeats what it was told does not get it out.
    expect(outcome).toMatchObject({ kind: "result" });
    expect(JSON.stringify(outcome)).toContain("[secret]");
    expect(JSON.stringify(outcome)).not.toContain("t.o.k");
  });

  test("that waits for its process has one that is good when it is sent", async () => {
    vi.useFakeTimers();
    try {
      const { upstream, written, open } = held();
      let made = 0;
      const credentials = { for: async () => credential(`t${++made}`, Date.now() + 4_000), own: async () => undefined };
      const served = withHandedTokens(upstream, { maxWaiting: 1, credentials, clock: () => Date.now() });
      const answer = served.send(toolCall("a"), { notify: () => {} }, never);
      await vi.advanceTimersByTimeAsync(21_000);
      open();
      await answer;
      const sent = tokenIn(written[0]);
      expect(sent?.token).toBe(`t${made}`);
      expect(made).toBeGreaterThan(4);
      expect(sent?.expiresAt).toBeGreaterThan(Date.now());
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  test("that waits is not sent when its user's access ends meanwhile, and is told why", async () => {
    vi.useFakeTimers();
    try {
      const { upstream, written, open } = held();
      let ended = false;
      const credentials = {
        async for() {
          if (ended) throw new DrawbridgeError("unauthenticated", "Sign in again.");
          return credential("t");
        },
        own: async () => undefined,
      };
      const served = withHandedTokens(upstream, { maxWaiting: 1, credentials });
      const answer = served.send(toolCall("a"), { notify: () => {} }, never);
      const refused = expect(answer).rejects.toMatchObject({ code: "unauthenticated" });
      await vi.advanceTimersByTimeAsync(100);
      ended = true;
      await vi.advanceTimersByTimeAsync(6_000);
      await refused;
      open();
      await vi.advanceTimersByTimeAsync(10);
      expect(written).toEqual([]);
    } finally {
      vi.useRealTimers();
    }
  });

  test("is not sent without it: nobody makes any, it is refused, or too many wait for theirs", async () => {
    const { upstream, written, open } = held();
    open();
    const send = (served: Upstream) => served.send(toolCall("a"), { notify: () => {} }, never);
    await expect(send(withHandedTokens(upstream, { maxWaiting: 1, credentials: undefined }))).rejects.toMatchObject({
      code: "upstream_unavailable",
    });
    const refusing = {
      for: async () => Promise.reject(new DrawbridgeError("insufficient_scope", "no")),
      own: async () => credential("the gateway's own"),
    };
    await expect(send(withHandedTokens(upstream, { maxWaiting: 1, credentials: refusing }))).rejects.toMatchObject({
      code: "insufficient_scope",
    });
    const slow = { for: async () => sleep(50, credential("t")), own: async () => undefined };
    const crowded = withHandedTokens(upstream, { maxWaiting: 2, credentials: slow });
    const answers = await Promise.allSettled([send(crowded), send(crowded), send(crowded)]);
    expect(answers.map(({ status }) => status)).toEqual(["fulfilled", "fulfilled", "rejected"]);
    expect(answers[2]).toMatchObject({ reason: { code: "overloaded" } });
    expect(written).toHaveLength(2);
  });

  test("that is cancelled while its token is made is not sent", async () => {
    const { upstream, written, open } = held();
    open();
    const gone = new AbortController();
    const credentials = {
      for: (_: Authenticated, signal: AbortSignal) =>
        new Promise<UpstreamCredential>((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
      own: async () => undefined,
    };
    const answer = withHandedTokens(upstream, { maxWaiting: 1, credentials }).send(
      toolCall("a"),
      { notify: () => {} },
      gone.signal,
    );
    gone.abort();
    await expect(answer).rejects.toMatchObject({ code: "cancelled" });
    expect(written).toEqual([]);
  });
});

test("progress, questions and what is told outside of calls are without tokens, one's own and others'", async () => {
  const heard: string[] = [];
  const events = withoutTokens(
    {
      listChanged: () => {},
      resourceUpdated: (uri, params, instance) => void heard.push(uri, params, String(instance)),
      taskStatus: (params) => void heard.push(params),
    },
    (text) => text.replaceAll("others", "[hidden]"),
  );
  expect(events.elicitationComplete).toBeUndefined();
  events.resourceUpdated("a://b", '{"a":"others"}', "i");
  events.taskStatus?.('{"b":"others"}');
  const telling = {
    name: "s",
    async send({ call }: PermittedCall, replies: Replies) {
      const params = JSON.stringify({ _meta: JSON.parse(callText(call, 1, "")).params._meta, also: "others" });
      replies.notify({ method: "notifications/progress", params });
      const answer = await replies.ask?.({ method: "elicitation/create", params }, never);
      return { kind: "error", code: 1, message: params, data: answer?.kind === "result" ? params : undefined } as const;
    },
  } as unknown as Upstream;
  const served = withHandedTokens(telling, {
    maxWaiting: 1,
    credentials: { for: async () => credential("t.o.k"), own: async () => undefined },
    conceal: (text) => text.replaceAll("others", "[hidden]"),
  });
  const replies: Replies = {
    notify: ({ params }) => void heard.push(params),
    async ask({ params }) {
      heard.push(params);
      return { kind: "result", result: "{}" };
    },
  };
  heard.push(JSON.stringify(await served.send(toolCall("a"), replies, never)));
  expect(heard.slice(0, 4)).toEqual(["a://b", '{"a":"[hidden]"}', "i", '{"b":"[hidden]"}']);
  expect(heard).toHaveLength(7);
  for (const text of heard.slice(4)) {
    expect(text).toContain("[secret]");
    expect(text).toContain("[hidden]");
    expect(text).not.toMatch(/t\.o\.k|others/);
  }
  // A client that can be asked nothing stays one.
  const silent = await served.send(toolCall("a"), { notify: () => {} }, never);
  expect(silent).toMatchObject({ kind: "error", data: undefined });
});

test("what a client sends under the key goes into no request, whoever is to get it", () => {
  const meta = new Map([
    [UPSTREAM_TOKEN, '{"token":"forged","audience":"x"}'],
    ["example.test/a", "1"],
  ]);
  const { call } = toolCall("a", {}, { meta });
  for (const text of [
    callText(call, 1, ""),
    callText({ ...call, handed: () => `"${UPSTREAM_TOKEN}":{}` }, 1, '"a":1'),
  ]) {
    expect(text).toContain("example.test/a");
    expect(text).not.toContain("forged");
  }
});

test("the settings of a stdio server name the API", () => {
  const credentials = { exchange: { audience: "https://api.example" } };
  expect(stdioServer.parse({ command: ["a"], credentials }).credentials).toEqual(credentials);
  expect(stdioServer.safeParse({ command: ["a"], credentials: "exchange" }).success).toBe(false);
});
