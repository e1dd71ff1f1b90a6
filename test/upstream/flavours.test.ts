import { afterEach, describe, expect, test } from "vitest";
import type { JsonObject, Replies } from "../../src/core/call.ts";
import { boundedFlavours, flavourOf, PLAIN, toldOf } from "../../src/upstream/capabilities.ts";
import { LogLevel } from "../../src/upstream/log-level.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { startFixture, waitFor } from "../fixtures/processes.ts";
import {
  codeOf,
  collected,
  end,
  http,
  ignored,
  never,
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

function opened({ upstream }: Recorded): Upstream {
  cleanups.push(() => end(upstream));
  return upstream;
}
const askable: Replies = { notify() {}, ask: () => Promise.reject(new Error("nobody is there")) };

/** What the server knows of the client of a call that declares these. */
async function seen(upstream: Upstream, capabilities: JsonObject, replies = askable): Promise<unknown> {
  const answer = await upstream.send(toolCall("capabilities", {}, { capabilities }), replies, never);
  return structuredOf(answer)["capabilities"];
}
const pidOf = async (upstream: Upstream, capabilities: JsonObject) =>
  structuredOf(await upstream.send(toolCall("whoami", {}, { capabilities }), askable, never))["pid"];

const names = async (upstream: Upstream, capabilities?: JsonObject) =>
  (await upstream.list("tools", never, capabilities)).map((tool) => (JSON.parse(tool) as { name: string }).name);

const EDITOR: JsonObject = {
  roots: { listChanged: true },
  sampling: {},
  elicitation: { form: {} },
  tasks: { requests: {} },
  extensions: {
    "io.modelcontextprotocol/ui": { mimeTypes: ["text/html;profile=mcp-app"] },
    "io.modelcontextprotocol/tasks": {},
  },
  "x-vendor": { b: 1, a: 2 },
};
const TOLD = {
  elicitation: {},
  extensions: { "io.modelcontextprotocol/ui": { mimeTypes: ["text/html;profile=mcp-app"] } },
  roots: {},
  sampling: {},
  "x-vendor": { a: 2, b: 1 },
};

describe("what a server is told of a client", () => {
  test("is all that it declared but tasks and changes of roots, the same for the same", () => {
    expect(toldOf(EDITOR)).toEqual(TOLD);
    const turned = Object.fromEntries(Object.entries(EDITOR).reverse());
    expect(flavourOf(turned, true).text).toBe(flavourOf(EDITOR, true).text);
    expect(flavourOf({ tasks: {} }, true)).toBe(PLAIN);
    expect(flavourOf({ roots: {}, elicitation: {} }, false)).toBe(PLAIN);
    expect(flavourOf(EDITOR, false).capabilities).toEqual({ extensions: TOLD.extensions, "x-vendor": { a: 2, b: 1 } });
  });

  test("is cut down to what servers may ask when it is too long", () => {
    const long = { elicitation: { url: {} }, "x-vendor": "v".repeat(5000) };
    expect(toldOf(long)).toEqual({ elicitation: {} });
  });

  test("is bounded in number: beyond it a client gets the most of what it can do", () => {
    const used = new Set<string>();
    const flavours = boundedFlavours(4, ({ text }) => !used.has(text));
    const wanted = (capabilities: JsonObject) => flavours.admit(flavourOf(capabilities, true)).capabilities;
    for (const name of ["elicitation", "roots", "sampling"]) {
      expect(wanted({ [name]: {} })).toEqual({ [name]: {} });
      used.add(`{"${name}":{}}`);
    }
    expect(wanted({ elicitation: {}, roots: {} })).toEqual({ elicitation: {} });
    expect(wanted({ "x-vendor": {} })).toEqual({});
    used.delete('{"roots":{}}');
    expect(wanted({ "x-vendor": {} })).toEqual({ "x-vendor": {} });
    used.add('{"x-vendor":{}}');
    expect(wanted({ roots: {} })).toEqual({});
  });
});

describe("a server of 2026-07-28", () => {
  test.each(["stdio", "http"])("is told with each call and list (%s)", async (transport) => {
    const recorded =
      transport === "stdio"
        ? stdio("everything/stdio", ["--era", "modern"], { processes: { max: 4 } })
        : http(`${await origin("--era", "modern")}/mcp`);
    const upstream = opened(recorded);
    expect(await seen(upstream, EDITOR)).toEqual(TOLD);
    expect(await seen(upstream, EDITOR, ignored)).toEqual(TOLD);
    expect(await seen(upstream, {})).toEqual({});
    expect((await names(upstream, EDITOR)).length).toBeGreaterThan(3);
    if (transport === "stdio") expect(upstream.state().size).toBe(1);
  });

  test("has its question given as an outcome, and takes the answer as it came", async () => {
    const upstream = opened(stdio("everything/stdio", ["--era", "modern"]));
    const call = (more: Record<string, unknown>) => ({
      ...toolCall("test_input_required_result_elicitation", {}, { capabilities: { elicitation: {} } }).call,
      ...more,
    });
    const permitted = toolCall("x");
    const first = call({});
    const asked = await upstream.send({ ...permitted, call: first }, ignored, never);
    if (asked.kind !== "result") throw new Error("not a result");
    expect(asked.value).toMatchObject({ resultType: "input_required", inputRequests: { user_name: {} } });
    const forward = new Map([
      ...first.forward,
      ["inputResponses", '{"user_name": {"action": "accept", "content": {"name": "Zo\\u00eb"}}}'],
      ["requestState", JSON.stringify(asked.value["requestState"])],
    ]);
    expect(textOf(await upstream.send({ ...permitted, call: call({ forward }) }, ignored, never))).toBe("Hello, Zoë!");
  });
});

describe("a process of a server with a handshake", () => {
  const everything = (settings: Parameters<typeof stdio>[2] = {}) =>
    opened(stdio("everything/stdio", ["--era", "legacy"], { processes: { max: 4 }, ...settings }));

  test("is for clients that can do the same, and one for all that can do nothing", async () => {
    const upstream = everything();
    expect(await seen(upstream, EDITOR)).toEqual(TOLD);
    expect(await seen(upstream, {})).toEqual({});
    expect(await seen(upstream, EDITOR, ignored)).toEqual({
      extensions: TOLD.extensions,
      "x-vendor": TOLD["x-vendor"],
    });
    const plain = await pidOf(upstream, {});
    const other = await pidOf(upstream, { elicitation: {} });
    expect(other).not.toBe(plain);
    expect(await pidOf(upstream, { elicitation: { form: {} }, tasks: {} })).toBe(other);
    expect(await pidOf(upstream, { tasks: {} })).toBe(plain);
  });

  test("is started when it is needed, and stopped when it is idle", async () => {
    const upstream = everything({ processes: { min: 1, max: 4, idleSeconds: 0.2 } });
    await upstream.identity(never);
    expect(upstream.state().size).toBe(1);
    await seen(upstream, { elicitation: {} });
    expect(upstream.state().size).toBe(2);
    await waitFor(() => upstream.state().size === 1);
  });

  test("is never one too many, and idle ones make room for those that are wanted", async () => {
    const upstream = everything({ processes: { min: 1, max: 2 } });
    const sets: JsonObject[] = [{ elicitation: {} }, { roots: {} }, { sampling: {} }, {}, { elicitation: {} }];
    for (const capabilities of sets) {
      expect(await seen(upstream, capabilities)).toEqual(capabilities);
      expect(upstream.state().size).toBeLessThanOrEqual(2);
    }
  });

  test("makes room when all are taken by others, as soon as it has done what it was at", async () => {
    const upstream = opened(stdio("echo-stdio", [], { processes: { min: 2, max: 2 } }));
    await waitFor(() => upstream.state().size === 2);
    const busy = Array.from({ length: 4 }, () => upstream.send(toolCall("slow", { ms: 400 }), ignored, never));
    await waitFor(() => upstream.state().inFlight === 4);
    const echo = toolCall("echo", { text: "room" }, { capabilities: { elicitation: {} } });
    expect(textOf(await upstream.send(echo, askable, never))).toBe("room");
    expect(await Promise.all(busy.map(codeOf))).toEqual(["none", "none", "none", "none"]);
    expect(upstream.state().size).toBeLessThanOrEqual(2);
  });

  test("is plain when there is only one", async () => {
    const upstream = everything({ processes: { max: 1 } });
    expect(await seen(upstream, EDITOR)).toEqual({});
    expect(upstream.state().size).toBe(1);
  });

  test("offers the tools of its clients", async () => {
    const entry = new URL(import.meta.resolve("@modelcontextprotocol/server-everything/dist/index.js")).pathname;
    const command = [process.execPath, entry, "stdio"];
    const upstream = opened(stdio("", [], { command, processes: { max: 3 } }));
    expect(await names(upstream)).not.toContain("get-roots-list");
    expect(await names(upstream, { roots: {} })).toContain("get-roots-list");
    expect(await names(upstream, { elicitation: {} })).toContain("trigger-elicitation-request");
  });
});

async function origin(...args: string[]): Promise<string> {
  const fixture = await startFixture("everything/http", args);
  cleanups.push(fixture.stop);
  return fixture.origin;
}

describe("a session of a server with a handshake", () => {
  test("is one user's own where the server may ask, and shared where it may not", async () => {
    const url = await origin("--era", "legacy");
    const upstream = opened(http(`${url}/mcp`));
    const sessions = async () => ((await (await fetch(`${url}/stats`)).json()) as { sessions: number }).sessions;
    expect(await seen(upstream, {})).toEqual({});
    expect(await sessions()).toBe(1);
    for (const subject of ["ann", "bob", "ann"]) {
      const call = toolCall("capabilities", {}, { subject, capabilities: EDITOR });
      expect(structuredOf(await upstream.send(call, askable, never))["capabilities"]).toEqual(TOLD);
    }
    expect(await sessions()).toBe(3);
    await upstream.close(never);
    expect(await sessions()).toBe(0);
  });
});

describe("a log level", () => {
  test("is the most verbose that somebody wanted of late", () => {
    const level = new LogLevel();
    expect(level.raise(undefined, 0)).toBeUndefined();
    expect(level.raise("error", 0)).toBe("error");
    expect(level.raise("critical", 1)).toBeUndefined();
    expect(level.raise("debug", 2)).toBe("debug");
    expect(level.raise("error", 30_000)).toBeUndefined();
    expect(level.raise("error", 61_000)).toBe("error");
    expect(level.raise("nonsense", 61_000)).toBeUndefined();
  });

  test.each(["stdio", "http"])("reaches the server before the call that wants it (%s)", async (transport) => {
    const upstream = opened(
      transport === "stdio"
        ? stdio("everything/stdio", ["--era", "legacy"])
        : http(`${await origin("--era", "legacy")}/mcp`),
    );
    const heard = async (logLevel: string | undefined) => {
      const replies = collected();
      await upstream.send(toolCall("log", { level: "info", text: "x" }, { logLevel }), replies, never);
      return replies.all.length;
    };
    expect([await heard("error"), await heard("info"), await heard("error"), await heard(undefined)]).toEqual([
      0, 1, 0, 0,
    ]);
  });
});
