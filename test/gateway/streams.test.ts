/** Subscriptions at servers: one for each resource, however many clients want it. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, expect, test } from "vitest";
import { openResumption } from "../../src/gateway/resume.ts";
import { openStreams, type Streams } from "../../src/gateway/streams.ts";
import type { Session } from "../../src/mcp/sessions.ts";
import { silentLogger } from "../../src/observe/logger.ts";
import type { Caller, Upstream } from "../../src/upstream/upstream.ts";
import { waitFor } from "../fixtures/processes.ts";

const opened: Streams[] = [];
afterEach(() => {
  for (const streams of opened.splice(0)) streams.close();
});

/** Streams in front of one server that notes what is asked of it. */
function streamsBefore(subscribe: () => Promise<void> = () => Promise.resolve()) {
  const asked: string[] = [];
  const upstream = {
    async subscribe(uri: string) {
      asked.push(`+${uri}`);
      await subscribe();
    },
    async unsubscribe(uri: string) {
      asked.push(`-${uri}`);
      await sleep(5);
      asked.push(`-${uri} done`);
    },
  } as unknown as Upstream;
  const resumption = openResumption({ resumeSeconds: 0 });
  const streams = openStreams(new Map([["s", upstream]]), (by) => Promise.resolve(by), resumption, silentLogger);
  opened.push(streams);
  return { streams, asked };
}
const anyone = {} as Caller;
const soon = () => AbortSignal.timeout(5_000);
const follows = (...uris: string[]) => new Map(uris.map((uri) => [uri, "s"]));

test("of several who follow a resource the first begins and the last ends, whatever comes twice", async () => {
  const { streams, asked } = streamsBefore();
  const [first, second] = [{ id: "1" } as Session, { id: "2" } as Session];
  streams.follow(first, follows("r:1"));
  streams.follow(first, follows("r:1", "r:2"));
  streams.follow(second, follows("r:1"));
  const release = await streams.hold("s", "r:1", soon(), anyone);
  expect(asked).toEqual(["+r:1", "+r:2"]);
  streams.follow(first, follows("r:2"));
  streams.sessionEnded(second);
  await sleep(20);
  expect(asked).toEqual(["+r:1", "+r:2"]);
  release();
  release();
  streams.sessionEnded(first);
  await waitFor(() => asked.length === 6);
  expect(asked.toSorted()).toEqual(["+r:1", "+r:2", "-r:1", "-r:1 done", "-r:2", "-r:2 done"]);
});

test("a subscription that begins again waits until its end is through", async () => {
  const { streams, asked } = streamsBefore();
  (await streams.hold("s", "r:1", soon(), anyone))();
  await streams.hold("s", "r:1", soon(), anyone);
  expect(asked).toEqual(["+r:1", "-r:1", "-r:1 done", "+r:1"]);
});

test("a server's refusal reaches everybody who waited for it, and who comes later tries again", async () => {
  let refusing = true;
  const { streams, asked } = streamsBefore(async () => {
    await sleep(5);
    if (refusing) throw new Error("not now");
  });
  const both = await Promise.allSettled([
    streams.hold("s", "r:1", soon(), anyone),
    streams.hold("s", "r:1", soon(), anyone),
  ]);
  expect(both.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  refusing = false;
  (await streams.hold("s", "r:1", soon(), anyone))();
  expect(asked.filter((what) => what === "+r:1")).toHaveLength(2);
  await waitFor(() => asked.includes("-r:1 done"));
});
