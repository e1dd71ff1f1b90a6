/** A gateway to be fuzzed, in this process, so that whatever it drops on the floor is seen. */
import assert from "node:assert/strict";
import { type Logger, silentLogger } from "../../src/observe/logger.ts";
import { modernRequest, world } from "../e2e/world.ts";
import { fixtureCommand, waitFor } from "../fixtures/processes.ts";
import type { Target } from "./wire.ts";

export interface RunningTarget extends Target, AsyncDisposable {
  /** Throws unless the gateway is as well as it was: it answers, nothing is under way, and nothing went wrong unseen. */
  unharmed(): Promise<void>;
}

export async function startTarget(): Promise<RunningTarget> {
  const problems: unknown[] = [];
  const record = (problem: unknown) => void problems.push(problem);
  const logger: Logger = {
    ...silentLogger,
    error: (fields: unknown, message?: string) => record([message, fields]),
    child: () => logger,
  };
  process.on("unhandledRejection", record);
  process.on("uncaughtException", record);
  const one = await world(
    {
      servers: { echo: { command: fixtureCommand("echo-stdio", ["--era", "legacy"]), processes: { max: 2 } } },
      listen: { bodyTimeoutSeconds: 2, maxBodyBytes: 1 << 20 },
      // What nobody can do within a test must not be called: the server would end or sleep.
      roles: { owner: { may: ["*"], deny: ["crash", "silent", "block", "slow", "big", "touch", "change-tools"] } },
      assign: [{ role: "owner", group: "owner" }],
    },
    { logger },
  );
  const { access_token: token } = await one.tokens();
  return {
    url: one.url,
    token,
    async unharmed() {
      const [body, headers] = modernRequest("tools/call", { name: "echo", arguments: { text: "still here" } });
      assert.match(await (await one.post(body, headers, token)).text(), /still here/);
      assert.equal((await fetch(`${one.origin}/health`)).status, 200);
      await waitFor(async () => /drawbridge_upstream_in_flight\{[^}]*\} 0/.test(await one.metrics()));
      assert.deepEqual(problems, []);
    },
    async [Symbol.asyncDispose]() {
      await one[Symbol.asyncDispose]();
      process.off("unhandledRejection", record);
      process.off("uncaughtException", record);
    },
  };
}
