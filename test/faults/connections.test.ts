/** Many connections with equal ids, again and again: each has its own answer, and nothing of them stays. */
import { randomUUID } from "node:crypto";
import { Agent, request } from "node:http";
import { expect, test } from "vitest";
import { modernRequest, type World, world } from "../e2e/world.ts";
import { fixtureCommand, processesOf, waitFor } from "../fixtures/processes.ts";
import { handles, heapUsed, nothingMoreThan } from "./leftovers.ts";

const CONNECTIONS = 200;
const PATIENCE_MS = 60_000;

test("200 connections with the same id, wave after wave, leave no process, handle or memory behind", {
  timeout: 300_000,
}, async () => {
  const marker = `waves-${randomUUID()}`;
  const apart = handles();
  const one = await world({
    limits: { perPrincipalPerMinute: 1_000_000, perToolPerMinute: 1_000_000 },
    servers: { echo: { command: [...fixtureCommand("echo-stdio"), marker], processes: { max: 4, idleSeconds: 1 } } },
  });
  const processes = async () => (await processesOf(marker)).length;
  try {
    const token = (await one.tokens()).access_token;
    // The first waves compile code, fill caches, as often as they ever will.
    await wave(one, token);
    await wave(one, token);
    // One is kept when nobody calls.
    await waitFor(async () => (await processes()) === 1, PATIENCE_MS);
    const first = { handles: handles(), heap: heapUsed() };

    for (let waves = 0; waves < 10; waves++) await wave(one, token);

    await waitFor(async () => (await processes()) === 1, PATIENCE_MS);
    await waitFor(() => nothingMoreThan(first.handles), PATIENCE_MS);
    expect(heapUsed() - first.heap).toBeLessThan(10e6);
  } finally {
    await one[Symbol.asyncDispose]();
  }
  await waitFor(async () => (await processes()) === 0, PATIENCE_MS);
  await waitFor(() => nothingMoreThan(apart), PATIENCE_MS);
});

/** One call over each of the connections, which are new ones; all have the id 1. */
async function wave(one: World, token: string): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  try {
    const wrong = await Promise.all(Array.from({ length: CONNECTIONS }, (_, index) => call(one, token, agent, index)));
    expect(wrong.filter((problem) => problem !== undefined)).toEqual([]);
  } finally {
    agent.destroy();
  }
}

/** Resolves with what was wrong with the answer. */
function call(one: World, token: string, agent: Agent, index: number): Promise<string | undefined> {
  const text = `text-${index}-of-its-own`;
  const [message, headers] = modernRequest("tools/call", { name: "echo", arguments: { text } });
  return new Promise((resolve) => {
    const sent = request(
      one.url,
      {
        method: "POST",
        agent,
        headers: {
          ...headers,
          authorization: `Bearer ${token}`,
          "content-type": "application/json",
          accept: "application/json, text/event-stream",
        },
      },
      (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          body += chunk;
        });
        response.on("end", () => {
          const right = response.statusCode === 200 && body.includes('"id":1') && body.includes(`"${text}"`);
          resolve(right ? undefined : `${response.statusCode} ${body.slice(0, 200)}`);
        });
      },
    );
    sent.on("error", (error) => resolve(error.message));
    sent.end(JSON.stringify(message));
  });
}
