import { afterEach, describe, expect, test } from "vitest";
import type { DrawbridgeError } from "../../src/core/errors.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { startFixture, waitFor } from "../fixtures/processes.ts";
import { anyHttp, codeOf, end, ignored, namedCredentials, never, textOf, toolCall } from "./support.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function fixture(...args: string[]): Promise<string> {
  const started = await startFixture("echo-sse", args);
  cleanups.push(started.stop);
  return started.origin;
}
function up(...args: Parameters<typeof anyHttp>): Upstream {
  const { upstream } = anyHttp(...args);
  cleanups.push(() => end(upstream));
  return upstream;
}
const echo = async (upstream: Upstream, text: string) =>
  textOf(await upstream.send(toolCall("echo", { text }), ignored, never));

describe("HTTP+SSE", () => {
  test.each(["auto", "sse"] as const)(
    "is spoken to a server that knows nothing else (transport: %s)",
    async (transport) => {
      const upstream = up(`${await fixture()}/sse`, { transport });
      expect(await echo(upstream, "hello")).toBe("hello");
      expect(upstream.state()).toMatchObject({ state: "ready", problem: undefined });
    },
  );

  test("is not tried when the settings say Streamable HTTP", async () => {
    const upstream = up(`${await fixture()}/sse`, { transport: "streamable-http" });
    expect(await codeOf(upstream.identity(never))).toBe("upstream_failed");
  });

  test("connects again after the server hung up; the calls that were under way have failed", async () => {
    const upstream = up(`${await fixture()}/sse`);
    expect(await codeOf(upstream.send(toolCall("drop-streams"), ignored, never))).toBe("upstream_failed");
    expect(await echo(upstream, "again")).toBe("again");
    expect(upstream.state().restarts).toBe(1);
  });

  test("fails just the call whose message the server refuses", async () => {
    const upstream = up(`${await fixture()}/sse`);
    const slow = upstream.send(toolCall("slow", { ms: 300 }), ignored, never);
    await waitFor(() => upstream.state().inFlight === 1);
    await upstream.send(toolCall("refuse-next"), ignored, never);
    expect(await codeOf(upstream.send(toolCall("echo", { text: "x" }), ignored, never))).toBe("upstream_failed");
    expect(await codeOf(slow)).toBe("none");
    expect(await echo(upstream, "after")).toBe("after");
    expect(upstream.state().restarts).toBe(0);
  });

  test("sends nothing to an endpoint at another origin", async () => {
    const upstream = up(`${await fixture("--foreign")}/sse`, { transport: "sse" });
    expect(await codeOf(upstream.identity(never))).toBe("upstream_unavailable");
    expect(upstream.state().problem).toContain("another origin");
  });

  test("gives way when the server has come back with Streamable HTTP", async () => {
    const older = await startFixture("echo-sse", ["--at", "/mcp"]);
    cleanups.push(older.stop);
    const upstream = up(`${older.origin}/mcp`);
    expect(await echo(upstream, "older")).toBe("older");
    await older.stop();
    const newer = await startFixture("echo-http", ["--port", String(older.port)]);
    cleanups.push(newer.stop);
    await waitFor(() => codeOf(echo(upstream, "newer")).then((code) => code === "none"));
    expect(await echo(upstream, "newer")).toBe("newer");
  });

  test("is refused with credentials for each user, which one connection cannot carry", async () => {
    const url = `${await fixture()}/sse`;
    const failure = (() => {
      try {
        up(url, { transport: "sse" }, namedCredentials());
        return undefined;
      } catch (error) {
        return error as DrawbridgeError;
      }
    })();
    expect(failure?.code).toBe("settings_invalid");
    expect(await codeOf(up(url, {}, namedCredentials()).identity(never))).toBe("upstream_failed");
  });
});
