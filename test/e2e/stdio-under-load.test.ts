/** The failure that the talk opens with, and its larger sisters: a wrapped stdio server under many connections at once, all with the same JSON-RPC id. */
import { Agent, request } from "node:http";
import { afterEach, expect, test } from "vitest";
import { fixtureCommand } from "../fixtures/processes.ts";
import { modernRequest, type World, world } from "./world.ts";

let one: World | undefined;
afterEach(async () => {
  await one?.[Symbol.asyncDispose]();
  one = undefined;
});

/** Sends `calls` calls over `connections` connections, each with the id 1 and a text of its own. Returns what went wrong, by kind. */
async function storm(
  w: World,
  { calls, connections, timeoutMs }: { calls: number; connections: number; timeoutMs: number },
  make: (text: string) => [string, Record<string, unknown>],
): Promise<Record<string, number>> {
  const { access_token } = await w.tokens();
  const agent = new Agent({ keepAlive: true, maxSockets: connections, scheduling: "fifo" });
  const wrong: Record<string, number> = {};
  const one = (index: number) =>
    new Promise<void>((resolve) => {
      const text = `text-${index}-${"x".repeat(20)}`;
      const [name, args] = make(text);
      const [message, headers] = modernRequest("tools/call", { name, arguments: args });
      const done = (problem?: string) => {
        if (problem !== undefined) wrong[problem] = (wrong[problem] ?? 0) + 1;
        resolve();
      };
      const sent = request(
        w.url,
        {
          method: "POST",
          agent,
          timeout: timeoutMs,
          headers: {
            ...headers,
            authorization: `Bearer ${access_token}`,
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
            if (response.statusCode !== 200) return done(`status ${response.statusCode}`);
            if (!body.includes('"id":1')) return done("another id");
            if (!body.includes(text))
              return done(body.includes("text-") ? "ANOTHER CALLER'S ANSWER" : body.slice(0, 120));
            done();
          });
        },
      );
      sent.on("timeout", () => sent.destroy(new Error("timeout")));
      sent.on("error", (error) => done(error.message));
      sent.end(JSON.stringify(message));
    });
  await Promise.all(Array.from({ length: calls }, (_, index) => one(index)));
  agent.destroy();
  return wrong;
}

test.each([
  [22, 20],
  [5500, 5000],
])(
  "%i calls over %i connections with the same id: none fails, none gets another's answer",
  { timeout: 120_000 },
  async (calls, connections) => {
    one = await world({ servers: { echo: { command: fixtureCommand("echo-stdio", []) } } });
    expect(await storm(one, { calls, connections, timeoutMs: 60_000 }, (text) => ["echo", { text }])).toEqual({});
  },
);

test("22 calls over 20 connections of a tool that blocks its process half a second: none fails within ten seconds, with default settings", {
  timeout: 60_000,
}, async () => {
  one = await world({ servers: { echo: { command: fixtureCommand("echo-stdio", []) } } });
  expect(
    await storm(one, { calls: 22, connections: 20, timeoutMs: 10_000 }, (text) => ["block", { ms: 500, text }]),
  ).toEqual({});
});
