import { afterAll } from "vitest";
import { type Fixture, startFixture } from "../fixtures/processes.ts";
import { upstreamContract } from "./contract.ts";
import { anyHttp, http, stdio } from "./support.ts";

upstreamContract("stdio, 2025-11-25", { modern: false, open: async (settings) => stdio("echo-stdio", [], settings) });
upstreamContract("stdio, 2026-07-28", {
  modern: true,
  open: async (settings) => stdio("echo-stdio", ["--era", "modern"], settings),
});

const running: Fixture[] = [];
afterAll(() => Promise.all(running.map((fixture) => fixture.stop())));

/** A server of its own for each test: some count what they were sent. */
const served =
  (args: readonly string[]) =>
  async (settings = {}) => {
    const fixture = await startFixture("echo-http", args);
    running.push(fixture);
    return http(`${fixture.origin}/mcp`, settings);
  };

upstreamContract("HTTP, 2025-11-25", { modern: false, open: served(["--era", "legacy", "--page", "2"]) });
upstreamContract("HTTP, 2025-11-25, always as events", { modern: false, open: served(["--era", "legacy", "--sse"]) });
upstreamContract("HTTP, 2026-07-28", { modern: true, open: served(["--era", "modern", "--page", "2"]) });
upstreamContract("HTTP, 2026-07-28, always as events", { modern: true, open: served(["--era", "modern", "--sse"]) });
upstreamContract("HTTP+SSE", {
  modern: false,
  async open(settings) {
    const fixture = await startFixture("echo-sse");
    running.push(fixture);
    return anyHttp(`${fixture.origin}/sse`, settings);
  },
});
