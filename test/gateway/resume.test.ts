/** What is kept for clients that may come back, and how much of it. */
import { EventEmitter } from "node:events";
import type { ServerResponse } from "node:http";
import { expect, test } from "vitest";
import { openResumption, type Sink } from "../../src/gateway/resume.ts";
import type { Session } from "../../src/mcp/sessions.ts";
import { waitFor } from "../fixtures/processes.ts";

const session = (revision: Session["revision"] = "2025-11-25") => ({ id: "s", owner: "o", revision }) as Session;

/** A response that keeps what is written, and a client that can leave it. */
function connection() {
  const written: string[] = [];
  const response = Object.assign(new EventEmitter(), {
    writableLength: 0,
    destroyed: false,
    write: (text: string) => written.push(text),
    end: () => response.emit("close"),
  });
  return { response: response as unknown as ServerResponse, written, leave: () => response.emit("close") };
}
function listener() {
  const written: string[] = [];
  const state = { ended: false };
  let gone = () => {};
  const sink: Sink = {
    write: (text) => written.push(text),
    end: () => {
      state.ended = true;
    },
    whenGone: (callback) => {
      gone = callback;
    },
  };
  return { sink, written, state, leave: () => gone() };
}
const idOf = (text: string | undefined) => /^id: (.*)$/m.exec(text ?? "")?.[1] ?? "";
const dataOf = (texts: readonly string[]) => texts.map((text) => /^data: ?(.*)$/m.exec(text)?.[1]);

test("messages beyond the bounds of a session are forgotten, the oldest first, and the answer is not", () => {
  const resumption = openResumption({ resumeSeconds: 60, maxSessionBytes: 5_000 });
  const mine = session();
  const { response, written, leave } = connection();
  const channel = resumption.begin(mine, response, 1);
  leave();
  for (let step = 0; step < 100; step++) channel?.send(`{"step":${step}}`);
  channel?.end('{"answer":true}');
  const found = resumption.find(mine, idOf(written[0]));
  if (found.kind !== "here") throw new Error(found.kind);
  const back = listener();
  found.channel.attach(back.sink, found.after);
  expect(back.written.length).toBeLessThan(17);
  expect(dataOf(back.written).slice(-2)).toEqual(['{"step":99}', '{"answer":true}']);
  expect(back.state.ended).toBe(true);
  resumption.close();
});

test("of all sessions together the oldest messages are forgotten, and an answer that is gone is lost, not empty", () => {
  const resumption = openResumption({ resumeSeconds: 60, maxBytes: 10_000 });
  const [first, second] = [session(), session()];
  const one = connection();
  resumption.begin(first, one.response, "one")?.end('{"answer":1}');
  const two = connection();
  const channel = resumption.begin(second, two.response, "two");
  for (let step = 0; step < 50; step++) channel?.send(`{"step":${step}}`);
  expect(resumption.find(first, idOf(one.written[0]))).toMatchObject({ kind: "lost", lost: { request: "one" } });
  expect(resumption.find(second, idOf(two.written[0]))).toMatchObject({ kind: "here" });
  resumption.close();
});

test("a message larger than all that may be kept reaches who is connected", () => {
  const resumption = openResumption({ resumeSeconds: 60, maxBytes: 1_000, maxSessionBytes: 1_000 });
  const { response, written } = connection();
  resumption.begin(session(), response, 1)?.end(`{"long":"${"x".repeat(5_000)}"}`);
  expect(written.at(-1)).toContain("x".repeat(5_000));
  resumption.close();
});

test("who does not come back in time has gone, and nothing is kept; who comes back has time again", async () => {
  const resumption = openResumption({ resumeSeconds: 0.2 });
  const mine = session();
  const { response, written, leave } = connection();
  const channel = resumption.begin(mine, response, 1);
  if (channel === undefined) throw new Error("no channel");
  const away: boolean[] = [];
  resumption.onAway((any) => away.push(any));
  let lapsed = false;
  channel.whenLapsed(() => {
    lapsed = true;
  });
  leave();
  const answered = channel.returned();
  const back = listener();
  channel.attach(back.sink, 0);
  expect(await answered).toBe(true);
  expect(lapsed).toBe(false);
  back.leave();
  const second = channel.returned();
  expect(await second).toBe(false);
  await waitFor(() => lapsed);
  expect(channel.over).toBe(true);
  expect(channel.send("{}")).toBe(false);
  expect(resumption.find(mine, idOf(written[0]))).toMatchObject({ kind: "lost" });
  expect(away).toEqual([true, false, true, false]);
  resumption.close();
});

test("without an id that the client could come back with, it has gone when it left", () => {
  const resumption = openResumption({ resumeSeconds: 60 });
  const { response, leave } = connection();
  const channel = resumption.begin(session("2025-06-18"), response, 1);
  leave();
  expect(channel?.over).toBe(true);
  resumption.close();
});

test("when the gateway stops nobody can come back, and whoever waits for that waits no more", async () => {
  const resumption = openResumption({ resumeSeconds: 60 });
  const { response, leave } = connection();
  const channel = resumption.begin(session(), response, 1);
  leave();
  const returned = channel?.returned();
  resumption.close();
  expect(await returned).toBe(false);
});

test("with 0 seconds no stream can be resumed", () => {
  const resumption = openResumption({ resumeSeconds: 0 });
  expect(resumption.begin(session(), connection().response, 1)).toBeUndefined();
  resumption.close();
});
