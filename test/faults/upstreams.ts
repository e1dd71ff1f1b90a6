/**
 * Servers that break rules, behind a whole gateway: fault × transport and era of the server × era of the client. Whatever happens,
 * the caller is answered or refused once, with a row of the error table and a record; those who call the same server at that
 * moment get their own answers (or are refused once, where the fault took their process or connection along); the server serves on;
 * and at the end no process, timer or handle is left. How fast a machine is decides nothing: where others were only too late, the
 * fault is tried again.
 */
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ERRORS, type ErrorCode } from "../../src/core/errors.ts";
import { openedIn } from "../audit/opened.ts";
import { type ClientEra, ERAS, type RawSession, rawSession } from "../e2e/scripted.ts";
import { type World, world } from "../e2e/world.ts";
import { type Fixture, fixtureCommand, freePort, processesOf, startFixture, waitFor } from "../fixtures/processes.ts";
import type { RawReply } from "../fixtures/raw-client.ts";
import { handles, nothingMoreThan } from "./leftovers.ts";

export type Over = "stdio" | "http" | "sse";
type End = "answered" | ErrorCode;

interface Row {
  readonly tool: string;
  /** What it does and what is promised; the title of its tests. */
  readonly sentence: string;
  readonly args?: Readonly<Record<string, unknown>>;
  /** How the call ends: over every transport alike, or by transport. One that is not named does not have the fault. */
  readonly end: End | Partial<Record<Over, End>>;
  /** Over these the fault takes along what shares the process or the connection. */
  readonly takesAlong?: readonly Over[];
  /** What the gateway may grow by meanwhile, in MB. */
  readonly megabytes?: number;
}

const TABLE: readonly Row[] = [
  { tool: "die", sentence: "dies", end: "upstream_failed", takesAlong: ["stdio", "http", "sse"] },
  {
    tool: "half-and-cut",
    sentence: "breaks off in the middle of its answer",
    end: "upstream_failed",
    takesAlong: ["stdio", "sse"],
  },
  { tool: "hang", sentence: "never answers", end: "upstream_timeout" },
  {
    tool: "freeze",
    sentence: "blocks its whole process",
    args: { ms: 4_000 },
    end: "upstream_timeout",
    takesAlong: ["stdio", "http", "sse"],
  },
  { tool: "flood", sentence: "sends notifications without end", end: "upstream_timeout" },
  { tool: "progress-flood", sentence: "makes progress without end", end: "upstream_timeout" },
  {
    tool: "questions",
    sentence: "asks without end",
    end: { stdio: "upstream_timeout", http: "upstream_failed", sse: "upstream_timeout" },
  },
  {
    tool: "foreign-ids",
    sentence: "answers with the ids of others",
    end: { stdio: "upstream_timeout", http: "upstream_failed", sse: "upstream_timeout" },
  },
  { tool: "twice", sentence: "answers twice", end: "answered" },
  { tool: "split", sentence: "answers a byte at a time, within characters", end: "answered" },
  { tool: "garbage", sentence: "says what is no message before its answer", end: "answered" },
  {
    tool: "huge",
    sentence: "answers with a line of 1 GB",
    args: { megabytes: 1024 },
    end: "answer_too_large",
    takesAlong: ["stdio", "sse"],
    megabytes: 300,
  },
  { tool: "deep", sentence: "answers with 100,000 levels of nesting", end: "answered" },
  { tool: "not-utf8", sentence: "answers with bytes that are no text", end: "answered" },
  { tool: "shapeless", sentence: "answers with a result that is none", end: "upstream_failed" },
  { tool: "empty", sentence: "answers with neither a result nor an error", end: "upstream_failed" },
  { tool: "both-ways", sentence: "answers with a result and an error at once", end: "answered" },
  {
    tool: "slow-loris",
    sentence: "answers a byte now and then without end",
    end: "upstream_timeout",
    takesAlong: ["stdio", "sse"],
  },
  {
    tool: "half-close",
    sentence: "closes its side and stays",
    end: "upstream_failed",
    takesAlong: ["stdio", "sse"],
  },
  {
    tool: "truncated",
    sentence: "answers with a message that lacks its end",
    end: { stdio: "upstream_timeout", http: "upstream_failed", sse: "upstream_timeout" },
  },
  { tool: "truncated-json", sentence: "answers with JSON that lacks its end", end: { http: "upstream_failed" } },
  { tool: "wrong-type", sentence: "answers with a page", end: { http: "upstream_failed" } },
  { tool: "redirect", sentence: "sends elsewhere", end: { http: "upstream_failed" } },
  { tool: "slow-head", sentence: "never ends the head of its answer", end: { http: "upstream_timeout" } },
  {
    tool: "reset",
    sentence: "resets the connection",
    end: { http: "upstream_failed", sse: "upstream_failed" },
    takesAlong: ["sse"],
  },
  { tool: "fork", sentence: "starts processes that outlive it", end: { stdio: "answered" } },
  { tool: "stderr", sentence: "writes 5 MB to stderr", args: { megabytes: 5 }, end: { stdio: "answered" } },
  { tool: "lies-about-others", sentence: "says that others' calls are over", end: "answered" },
];

/** Ends of calls that were only too late. */
const LATE: readonly End[] = ["overloaded", "upstream_timeout"];
const TRIES = 5;
const PATIENCE_MS = 60_000;
/** When what was cancelled is answered all the same: long after it was cancelled, and before anything else ends it. */
const LATE_MS = 1_200;
const TEXT = "æ☀🚲 ";

/** The table for servers of one transport and era. */
export function faults(over: Over, era: "legacy" | "modern"): void {
  describe(`a server over ${over} (${era}) that`, { timeout: 300_000 }, () => table(over, era));
}

function table(over: Over, era: "legacy" | "modern"): void {
  const marker = `faults-${randomUUID()}`;
  const folder = mkdtempSync(join(tmpdir(), "drawbridge-faults-"));
  const file = join(folder, "store.db");
  let fixture: Kept | undefined;
  let one: World;
  let token: string;
  let log: DatabaseSync;
  const sessions = new Map<ClientEra, RawSession>();

  let before: Readonly<Record<string, number>>;
  beforeAll(async () => {
    before = handles();
    const limits = { timeoutSeconds: 2, maxCallSeconds: 5, maxAnswerBytes: 1 << 20, healthSeconds: 1 };
    if (over !== "stdio") fixture = await keep(["--over", over, "--era", era]);
    const server =
      fixture === undefined
        ? { command: [...fixtureCommand("hostile-server", ["--era", era]), marker], processes: { max: 4 } }
        : { url: `${fixture.origin}/mcp` };
    one = await world({
      store: `sqlite:${file}`,
      tokens: { accessTokenSeconds: 3600 },
      servers: { it: { ...server, ...limits } },
    });
    token = (await one.tokens()).access_token;
    for (const client of ERAS) sessions.set(client, await rawSession(one.url, token, client, "{}"));
    log = new DatabaseSync(file, { timeout: 10_000 });
  }, 120_000);
  afterAll(async () => {
    log?.close();
    await one?.[Symbol.asyncDispose]();
    await fixture?.stop();
    rmSync(folder, { recursive: true, force: true });
    await waitFor(async () => (await processesOf(marker)).length === 0, PATIENCE_MS);
    await waitFor(() => nothingMoreThan(before), PATIENCE_MS);
  }, 180_000);

  const call = (client: ClientEra, tool: string, args: Record<string, unknown>, id: string, signal?: AbortSignal) =>
    (sessions.get(client) as RawSession).ask(
      "tools/call",
      [`"name":"${tool}"`, `"arguments":${JSON.stringify({ ...args, marker })}`],
      [],
      JSON.stringify(id),
      signal,
    );
  /** Among the newest records, of which no more than a few were written since. */
  const recordsOf = (text: string) =>
    openedIn(log, "SELECT json FROM audit ORDER BY sequence DESC LIMIT 200").filter((record) =>
      JSON.stringify(record).includes(text),
    );
  /** How a call ended: what the caller has and the one record of it say the same. */
  const endOf = (reply: RawReply, text: string): End => {
    const answers = reply.messages.filter(({ method }) => method === undefined);
    expect(answers, reply.body.slice(0, 500)).toHaveLength(1);
    const records = recordsOf(text);
    expect(records).toHaveLength(1);
    const code = records[0]?.error?.code as ErrorCode | undefined;
    expect(answers[0]?.error?.code).toBe(code === undefined ? undefined : ERRORS[code].rpc);
    // A stream had begun, with 200, before it was known how the call would end.
    const streams = reply.headers.get("content-type") === "text/event-stream";
    expect(reply.status).toBe(code === undefined || streams ? 200 : ERRORS[code].http);
    return code ?? "answered";
  };
  /** Calls `echo`; its own answer, or the one refusal. */
  const echo = async (client: ClientEra): Promise<End> => {
    const text = `${TEXT}${randomUUID()}`;
    const reply = await call(client, "echo", { text }, text);
    const end = endOf(reply, text.slice(TEXT.length));
    if (end === "answered") expect(textOf(reply)).toBe(text);
    return end;
  };
  const well = async (client: ClientEra) => (await echo(client)) === "answered";
  /** Calls `echo` until told to stop; resolves with how the calls ended that were not answered. */
  const bystander = (client: ClientEra) => {
    let over = false;
    let served = 0;
    const others: End[] = [];
    const run = async () => {
      while (!over) {
        const end = await echo(client);
        if (end !== "answered") others.push(end);
        served++;
      }
      return others;
    };
    const done = run();
    let failure: unknown;
    done.catch((thrown: unknown) => {
      failure = thrown;
    });
    return {
      get served() {
        if (failure !== undefined) throw failure;
        return served;
      },
      stop() {
        over = true;
        return done;
      },
    };
  };

  test.each(ERAS)("answers calls in another order gives each %s client its own answer", async (client) => {
    await untilInTime(async () => {
      await waitFor(() => well(client), PATIENCE_MS);
      const batch = randomUUID();
      const texts = Array.from({ length: 5 }, () => `${TEXT}${randomUUID()}`);
      const args = { count: texts.length, batch };
      const replies = await Promise.all(texts.map((text) => call(client, "reorder", { text, ...args }, text)));
      const ends = replies.map((reply, index) => endOf(reply, texts[index]?.slice(TEXT.length) ?? ""));
      for (const [index, end] of ends.entries())
        if (end === "answered") expect(textOf(replies[index] as RawReply)).toBe(texts[index]);
      return ends.filter((end) => end !== "answered");
    });
  });

  test.each(ERAS)("goes on with what a %s client has cancelled is heard by nobody", async (client) => {
    await waitFor(() => well(client), PATIENCE_MS);
    const text = `${TEXT}${randomUUID()}`;
    const gone = new AbortController();
    const late = call(client, "ignore-cancel", { text, ms: LATE_MS }, text, gone.signal);
    if (client === "modern") {
      setTimeout(() => gone.abort(), 100);
      await expect(late).rejects.toThrow();
    } else {
      await sleep(100);
      const params = { requestId: text, reason: "enough" };
      const notification = { jsonrpc: "2.0", method: "notifications/cancelled", params };
      await (sessions.get(client) as RawSession).post(JSON.stringify(notification));
      // Its HTTP request has to end somehow.
      const ends = (await late).messages.filter(({ method }) => method === undefined);
      expect(ends.map(({ error }) => error?.code)).toEqual([ERRORS.cancelled.rpc]);
    }
    const until = performance.now() + LATE_MS + 300;
    while (performance.now() < until) {
      expect(["answered", ...LATE]).toContain(await echo(client));
      await sleep(50);
    }
    await waitFor(() => well(client), PATIENCE_MS);
    await waitFor(() => recordsOf(text.slice(TEXT.length)).length > 0);
    expect(recordsOf(text.slice(TEXT.length)).map(({ outcome }) => outcome)).toEqual(["abandoned"]);
  });

  const rows = TABLE.flatMap((row) => {
    const end = typeof row.end === "string" ? row.end : row.end[over];
    return end === undefined ? [] : [{ ...row, end }];
  });
  test.each(rows)("$sentence: $tool, $end", async ({ tool, args = {}, end, takesAlong = [], megabytes = 200 }) => {
    const alone = takesAlong.includes(over);
    /** Returns how calls ended that should have ended otherwise. */
    const by = async (clients: readonly ClientEra[]): Promise<readonly End[]> => {
      await waitFor(async () => (await Promise.all(ERAS.map(well))).every(Boolean), PATIENCE_MS);
      const others = ERAS.flatMap((each) => [bystander(each), bystander(each)]);
      await waitFor(() => others.every(({ served }) => served > 0), PATIENCE_MS);
      const size = watchMemory();
      const ends = await Promise.all(
        clients.map(async (client) => {
          const text = `${TEXT}${randomUUID()}`;
          return endOf(await call(client, tool, { text, ...args }, text), text.slice(TEXT.length));
        }),
      );
      expect(size.stop()).toBeLessThan(megabytes);
      const before = others.map(({ served }) => served);
      await waitFor(() => others.every(({ served }, index) => served > (before[index] ?? 0) + 1), PATIENCE_MS);
      const harmed = (await Promise.all(others.map((each) => each.stop()))).flat();
      return [...ends.filter((one) => one !== end), ...(alone ? [] : harmed)];
    };
    // Where a fault takes others along, the second caller would be one of them.
    if (alone) for (const client of ERAS) await untilInTime(() => by([client]));
    else await untilInTime(() => by(ERAS));
  });
}

/** Tries until nothing ended otherwise than it should; whatever was not only late is a failure at once. */
async function untilInTime(attempt: () => Promise<readonly End[]>): Promise<void> {
  for (let tries = 1; ; tries++) {
    const others = await attempt();
    if (others.length === 0) return;
    expect(others.filter((end) => !LATE.includes(end))).toEqual([]);
    if (tries === TRIES) expect(others).toEqual([]);
  }
}

/** How much this process, which the gateway runs in, grows at most until it is stopped, in MB. */
function watchMemory(): { stop(): number } {
  const first = process.memoryUsage.rss();
  let most = first;
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage.rss());
  }, 20);
  return {
    stop() {
      clearInterval(timer);
      return (Math.max(most, process.memoryUsage.rss()) - first) / 1e6;
    },
  };
}

function textOf(reply: RawReply): string | undefined {
  const result = reply.messages.at(-1)?.result as { content: { text: string }[] } | undefined;
  return result?.content[0]?.text;
}

interface Kept {
  readonly origin: string;
  stop(): Promise<void>;
}

/** A server of its own process that is started again, at the same port, whenever it ends. */
async function keep(args: readonly string[]): Promise<Kept> {
  const port = await freePort();
  const start = () => startFixture("hostile-server", [...args, "--port", String(port)]);
  let now: Fixture = await start();
  let over = false;
  const watch = async () => {
    while (!over) {
      if ((await processesOf(now.pid)).length === 0 && !over) now = await start();
      await sleep(100);
    }
  };
  const watched = watch();
  return {
    origin: now.origin,
    async stop() {
      over = true;
      await watched;
      await now.stop();
    },
  };
}
