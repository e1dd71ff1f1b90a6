/** Clients of 2025 lose their connection and come back: nothing is lost, nothing comes twice, and nobody hears what is another's. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { openedIn } from "../audit/opened.ts";
import { type Fixture, startFixture, waitFor } from "../fixtures/processes.ts";
import { listen, stop } from "../oauth/support.ts";
import { verifies } from "../requirements.ts";
import { type Answered, type LegacySession, legacySession, type Message } from "./legacy-client.ts";
import { modernRequest, type World, world } from "./world.ts";

let folder: string;
let fixture: Fixture;
let one: World;
let token: string;
let other: string;
let log: DatabaseSync;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "drawbridge-resume-"));
  fixture = await startFixture("echo-http", ["--era", "legacy"]);
  const file = join(folder, "gateway.db");
  one = await world({
    store: `sqlite:${file}`,
    servers: { web: { url: `${fixture.origin}/mcp` } },
    listen: { resumeSeconds: 3 },
  });
  token = (await one.tokens()).access_token;
  other = (await one.tokens()).access_token;
  log = new DatabaseSync(file, { timeout: 10_000 });
});
afterAll(async () => {
  log?.close();
  await one?.[Symbol.asyncDispose]();
  await fixture?.stop();
  await rm(folder, { recursive: true, force: true });
});

const open: Answered[] = [];
afterEach(() => {
  for (const answer of open.splice(0)) answer.cut();
});
const opened = (answer: Answered) => {
  open.push(answer);
  return answer;
};

const calls = (tool: string) => openedIn(log).filter(({ kind, call }) => kind === "call" && call?.name === tool);
const outcomes = (tool: string) => calls(tool).map(({ outcome }) => outcome);
const cancelled = async () =>
  ((await (await fetch(`${fixture.origin}/stats`)).json()) as { cancelled: number }).cancelled;
const progress = (messages: readonly Message[]) =>
  messages.filter(({ method }) => method === "notifications/progress").map(({ params }) => params?.progress);
const drip = (session: LegacySession, events: number, ms: number, cutAfter?: number) =>
  session.call("drip", { events, ms }, cutAfter === undefined ? {} : { cutAfter });

describe("a call whose connection breaks", () => {
  verifies(
    ["legacy-resume", "legacy-event-ids"],
    "after any of its events goes on where it was: every event once, in order, and its record says permitted",
    async () => {
      const session = await legacySession(one.url, token);
      const whole = await drip(session, 5, 1);
      await whole.ended;
      const count = whole.events.length;
      expect(count).toBe(7);
      const seen = new Set<string>();
      // Cut after the last event, too: it may have been lost on the way.
      for (let cutAfter = 1; cutAfter < count; cutAfter++) {
        const before = outcomes("drip").length;
        const first = await drip(session, 5, 10, cutAfter);
        await first.ended;
        const rest = opened(await session.get(first.lastId()));
        expect(rest.status).toBe(200);
        await rest.ended;
        const events = [...first.events, ...rest.events];
        expect(progress([...first.messages(), ...rest.messages()])).toEqual([1, 2, 3, 4, 5]);
        expect(rest.messages().at(-1)?.result?.content?.[0]?.text).toBe("dripped 5");
        for (const { id } of events) expect(seen.has(id ?? "")).toBe(seen.add(id ?? "") === undefined);
        expect(events).toHaveLength(count);
        await waitFor(() => outcomes("drip").length === before + 1);
        expect(outcomes("drip").at(-1)).toBe("permitted");
      }
    },
  );

  test("again and again goes on each time", async () => {
    const session = await legacySession(one.url, token);
    const parts = [await drip(session, 6, 20, 1)];
    for (let last = parts[0]; last !== undefined && last.messages().at(-1)?.result === undefined; last = parts.at(-1)) {
      await last.ended;
      parts.push(await session.get(last.lastId(), { cutAfter: 2 }));
      await parts.at(-1)?.ended;
    }
    expect(progress(parts.flatMap((part) => part.messages()))).toEqual([1, 2, 3, 4, 5, 6]);
    expect(parts.length).toBeGreaterThan(3);
  });

  test("is answered and recorded when its client comes back for the answer, not before", async () => {
    const session = await legacySession(one.url, token);
    const before = outcomes("drip").length;
    const first = await drip(session, 3, 50, 1);
    await first.ended;
    const another = await drip(session, 20, 20);
    await another.ended;
    expect(outcomes("drip").slice(before)).toEqual(["permitted"]);
    const rest = await session.get(first.lastId());
    await rest.ended;
    expect(progress(rest.messages())).toEqual([1, 2, 3]);
    expect(rest.messages().at(-1)?.result?.content?.[0]?.text).toBe("dripped 3");
    await waitFor(() => outcomes("drip").length === before + 2);
    expect(outcomes("drip").slice(before)).toEqual(["permitted", "permitted"]);
  });

  verifies(
    "legacy-disconnect",
    "is cancelled at its server when nobody came back in time, and recorded as abandoned",
    async () => {
      const session = await legacySession(one.url, token);
      const [stopped, records] = [await cancelled(), outcomes("drip").length];
      const first = await drip(session, 10_000, 20, 3);
      await first.ended;
      expect(await cancelled()).toBe(stopped);
      await waitFor(async () => (await cancelled()) === stopped + 1);
      await waitFor(() => outcomes("drip").length === records + 1);
      expect(outcomes("drip").at(-1)).toBe("abandoned");
      const late = await session.get(first.lastId());
      await late.ended;
      expect(late.messages()).toEqual([
        { jsonrpc: "2.0", id: 1, error: { code: -31410, message: expect.stringContaining("not kept") } },
      ]);
    },
  );

  test("and that was finished meanwhile is abandoned, too, when nobody comes for the answer", async () => {
    const session = await legacySession(one.url, token);
    const records = outcomes("drip").length;
    await (await drip(session, 3, 50, 1)).ended;
    await waitFor(() => outcomes("drip").length === records + 1);
    expect(outcomes("drip").at(-1)).toBe("abandoned");
  });

  test("can be cancelled by its client all the same", async () => {
    const session = await legacySession(one.url, token);
    const stopped = await cancelled();
    const first = await drip(session, 10_000, 20, 2);
    await first.ended;
    await session.post({ method: "notifications/cancelled", params: { requestId: 1 } });
    await waitFor(async () => (await cancelled()) === stopped + 1);
  });

  test("is cancelled at once when its session ends", async () => {
    const session = await legacySession(one.url, token);
    const stopped = await cancelled();
    await (await drip(session, 10_000, 20, 2)).ended;
    expect(await session.end()).toBe(204);
    await waitFor(async () => (await cancelled()) === stopped + 1, 2_500);
  });

  test("before there was a stream is cancelled: there is nothing to come back to", async () => {
    const stopped = await cancelled();
    const session = await legacySession(one.url, token);
    const aborted = new AbortController();
    const call = session.call("slow", { ms: 60_000 }, { signal: aborted.signal });
    await waitFor(async () => {
      const seen = (await session.ask("tools/call", { name: "count" })).message?.result?.["structuredContent"];
      return (seen as { calls: number }).calls > 0;
    });
    aborted.abort();
    await expect(call).rejects.toThrow();
    await waitFor(async () => (await cancelled()) === stopped + 1, 2_500);
  });
});

describe("event ids", () => {
  verifies("legacy-priming", "begin with an empty event and `retry` on 2025-11-25, and only there", async () => {
    for (const [version, primed] of [
      ["2025-11-25", true],
      ["2025-06-18", false],
      ["2025-03-26", false],
    ] as const) {
      const session = await legacySession(one.url, token, { version });
      const answer = await drip(session, 2, 1);
      await answer.ended;
      const [first] = answer.events;
      expect(first?.data === "").toBe(primed);
      expect(first?.retry).toBe(primed ? 1000 : undefined);
      expect(answer.events.every(({ id }) => id !== undefined)).toBe(true);
      const cut = await drip(session, 4, 10, 2);
      await cut.ended;
      const rest = await session.get(cut.lastId());
      await rest.ended;
      expect(progress([...cut.messages(), ...rest.messages()])).toEqual([1, 2, 3, 4]);
    }
  });

  verifies("legacy-replay-own", "are of no use in another session, nor to another client", async () => {
    const mine = await legacySession(one.url, token);
    const sibling = await legacySession(one.url, token);
    const foreign = await legacySession(one.url, other);
    const cut = await drip(mine, 3, 1, 2);
    await cut.ended;
    for (const session of [sibling, foreign]) {
      const answer = await session.get(cut.lastId());
      await answer.ended;
      expect(answer.messages().map(({ error }) => error?.code)).toEqual([-31410]);
    }
    const stolen = await foreign.get(cut.lastId(), { headers: { "mcp-session-id": mine.id } });
    expect(stolen.status).toBe(404);
    const rest = await mine.get(cut.lastId());
    await rest.ended;
    expect(progress([...cut.messages(), ...rest.messages()])).toEqual([1, 2, 3]);
  });

  test("of the end of a stream are answered 204, so that clients do not ask for ever", async () => {
    const session = await legacySession(one.url, token);
    const answer = await drip(session, 1, 1);
    await answer.ended;
    expect((await session.get(answer.lastId())).status).toBe(204);
  });

  test("are not there on 2026-07-28", async () => {
    const params = { name: "drip", arguments: { events: 2, ms: 1 }, _meta: { progressToken: 1 } };
    const text = await (await one.post(...modernRequest("tools/call", params), token)).text();
    expect(text).toContain("notifications/progress");
    expect(text).not.toMatch(/^(id|retry):/m);
  });

  test("that are none of ours open a stream of the session", async () => {
    const session = await legacySession(one.url, token);
    for (const id of ["7", "nonsense-1-2", "x".repeat(5000), "0123456789ab-zz-99"]) {
      const answer = opened(await session.get(id));
      expect([answer.status, answer.streams], id).toEqual([200, true]);
    }
  });
});

describe("the stream of a session", () => {
  verifies("legacy-resume", "that breaks is gone on with: what was said meanwhile, then the rest", async () => {
    const session = await legacySession(one.url, token);
    const first = opened(await session.get());
    await waitFor(() => first.events.length > 0);
    const change = async () => expect((await session.ask("tools/call", { name: "change-tools" })).status).toBe(200);
    const heard = (answer: Answered) => answer.messages().map(({ method }) => method);
    await change();
    await waitFor(() => heard(first).length === 1);
    first.cut();
    await first.ended;
    await change();
    const second = opened(await session.get(first.lastId()));
    await waitFor(() => heard(second).length === 1);
    await change();
    await waitFor(() => heard(second).length === 2);
    expect([...heard(first), ...heard(second)]).toEqual(Array(3).fill("notifications/tools/list_changed"));
    expect(second.events.some(({ data }) => data === "")).toBe(false);
    // One that lost its connection without noticing it comes back, too: then the old one ends.
    const third = opened(await session.get(second.lastId()));
    await second.ended;
    await change();
    await waitFor(() => heard(third).length === 1);
  });
});

/** Stands between a client and the gateway: breaks the first POST that has said `until`, and lets headers be changed. */
async function breaking(
  target: string,
  until: string,
  change: (headers: IncomingHttpHeaders) => IncomingHttpHeaders = (headers) => headers,
) {
  const { host, hostname, port, pathname } = new URL(target);
  const state = { broken: 0, resumed: 0 };
  const server = createServer((incoming, response) => {
    if (incoming.headers["last-event-id"] !== undefined) state.resumed++;
    const headers = change({ ...incoming.headers, host });
    const sent = request({ hostname, port, path: incoming.url, method: incoming.method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      response.flushHeaders();
      let soFar = "";
      answer.on("data", (chunk: Buffer) => {
        response.write(chunk);
        soFar += chunk.toString();
        if (incoming.method !== "POST" || !soFar.includes(until) || state.broken > 0) return;
        state.broken++;
        sent.destroy();
        setTimeout(() => response.destroy(), 20);
      });
      answer.on("end", () => response.end());
      answer.on("error", () => response.destroy());
    });
    sent.on("error", () => response.destroy());
    response.on("close", () => sent.destroy());
    incoming.pipe(sent);
  });
  const at = await listen(server);
  return { url: `http://127.0.0.1:${at}${pathname}`, state, [Symbol.asyncDispose]: () => stop(server) };
}

async function sdkClient(url: string) {
  const client = new Client({ name: "sdk", version: "1" });
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { authorization: `Bearer ${token}` } },
  });
  await client.connect(transport as never);
  return { client, [Symbol.asyncDispose]: () => client.close() };
}

describe("the SDK's client", () => {
  test("gets its answer although the connection broke in the middle of the call", async () => {
    await using proxy = await breaking(one.url, "notifications/progress");
    await using sdk = await sdkClient(proxy.url);
    const steps: number[] = [];
    const result = await sdk.client.callTool({ name: "drip", arguments: { events: 20, ms: 20 } }, undefined, {
      onprogress: ({ progress: step }) => void steps.push(step),
    });
    expect(result.content).toEqual([{ type: "text", text: "dripped 20" }]);
    expect(proxy.state).toEqual({ broken: 1, resumed: 1 });
    expect(steps).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
  });

  test("gets its answer when a silent call loses its connection", async () => {
    await using proxy = await breaking(one.url, "retry:");
    await using sdk = await sdkClient(proxy.url);
    const result = await sdk.client.callTool({ name: "slow", arguments: { ms: 1800 } });
    expect(result.content).toEqual([{ type: "text", text: "slept 1800 ms" }]);
    expect(proxy.state).toEqual({ broken: 1, resumed: 1 });
  });

  test("is told that an answer is lost instead of waiting for it, and then asks no more", async () => {
    // As it is when another replica had the stream, and is gone.
    await using proxy = await breaking(one.url, "notifications/progress", (headers) => ({
      ...headers,
      ...(headers["last-event-id"] !== undefined && {
        "last-event-id": String(headers["last-event-id"]).replace(/^[0-9a-f]{12}/, "0123456789ab"),
      }),
    }));
    await using sdk = await sdkClient(proxy.url);
    const options = { onprogress: () => {} };
    const call = sdk.client.callTool({ name: "drip", arguments: { events: 10_000, ms: 20 } }, undefined, options);
    await expect(call).rejects.toThrow("-31410");
    await waitFor(() => proxy.state.resumed === 2);
    await sleep(1_500);
    expect(proxy.state.resumed).toBe(2);
  });
});
